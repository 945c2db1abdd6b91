"""pulumi-resource-random: RandomPassword, the only random resource of this program.

Not RandomBytes, RandomId or RandomString: there the official plugin writes what it made into the id too, and ids stand
in the state in plain text. A password's id is `none`.
"""

import secrets
import string

import bcrypt

from offline.plugins.made_once import MadeOnce
from offline.plugins.provider import UNKNOWN, Refused, Values, serve
from offline.plugins.schema import Field

NO_ID = "none"
BCRYPT_BYTES = 72
"""More of a password does not count, in bcrypt itself."""
SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
KINDS = {
    "lower": ("minLower", string.ascii_lowercase),
    "upper": ("minUpper", string.ascii_uppercase),
    "numeric": ("minNumeric", string.digits),
    "special": ("minSpecial", SPECIAL),
}
_ON = Field(made=True, preview=True)
_NONE = Field(made=0, preview=0)


class RandomPassword(MadeOnce):
    token = "random:index/randomPassword:RandomPassword"  # noqa: S105
    schema_version = 3
    fields = {  # noqa: RUF012
        "bcryptHash": Field(preview=UNKNOWN, taken=False, secret=True),
        "keepers": Field("map"),
        "length": Field(),
        "lower": _ON,
        "minLower": _NONE,
        "minNumeric": _NONE,
        "minSpecial": _NONE,
        "minUpper": _NONE,
        "number": Field(made=True, preview=True, taken=False),
        "numeric": _ON,
        "overrideSpecial": Field(),
        "result": Field(preview=UNKNOWN, taken=False, secret=True),
        "special": _ON,
        "upper": _ON,
    }

    def refuse(self, inputs: Values) -> None:
        length = inputs.get("length")
        if length != UNKNOWN and not (isinstance(length, int) and length >= 1):
            raise Refused("length", "write how many characters, 1 or more")
        if UNKNOWN in inputs.values():
            return
        if not _alphabets(inputs):
            raise Refused("special", "no kind of character is left to draw from; let at least one of the four be true")
        if isinstance(length, int) and sum(inputs.get(least, 0) for least, _ in KINDS.values()) > length:
            raise Refused("length", "is below the sum of minLower, minUpper, minNumeric and minSpecial")

    def make(self, inputs: Values) -> tuple[str, Values]:
        result = draw(inputs)
        hashed = bcrypt.hashpw(result.encode()[:BCRYPT_BYTES], bcrypt.gensalt(10, prefix=b"2a")).decode()
        return NO_ID, {"result": result, "bcryptHash": hashed, "number": inputs.get("numeric", True)}


def draw(inputs: Values) -> str:
    """The least of each kind first, then from all of them, then shuffled."""
    alphabets = _alphabets(inputs)
    drawn = [
        secrets.choice(alphabet) for kind, alphabet in alphabets.items() for _ in range(inputs.get(KINDS[kind][0], 0))
    ]
    everything = "".join(alphabets.values())
    drawn += [secrets.choice(everything) for _ in range(inputs["length"] - len(drawn))]
    secrets.SystemRandom().shuffle(drawn)
    return "".join(drawn)


def _alphabets(inputs: Values) -> dict[str, str]:
    chosen = {kind: alphabet for kind, (_, alphabet) in KINDS.items() if inputs.get(kind, True)}
    if "special" in chosen:
        chosen["special"] = inputs.get("overrideSpecial") or SPECIAL
    return chosen


if __name__ == "__main__":
    serve("4.21.1", [RandomPassword()])
