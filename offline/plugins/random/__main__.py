"""pulumi-resource-random: RandomBytes, the only random resource of this program."""

import base64
import secrets

from offline.plugins.made_once import MadeOnce
from offline.plugins.provider import UNKNOWN, Refused, Values, serve
from offline.plugins.schema import Field

NO_ID = "none"
"""An id stands in the state in plain text. The official plugin 4.21.1 writes the random bytes themselves there (what
`RandomPassword` avoids by this very word); this is the one answer of it that is not followed."""


class RandomBytes(MadeOnce):
    token = "random:index/randomBytes:RandomBytes"  # noqa: S105
    fields = {  # noqa: RUF012
        "base64": Field(preview=UNKNOWN, taken=False, secret=True),
        "hex": Field(preview=UNKNOWN, taken=False, secret=True),
        "keepers": Field("map"),
        "length": Field(),
    }
    id_is_output = False

    def refuse(self, inputs: Values) -> None:
        length = inputs.get("length")
        if length != UNKNOWN and not (isinstance(length, int) and length >= 1):
            raise Refused("length", "write how many bytes, 1 or more")

    def make(self, inputs: Values) -> tuple[str, Values]:
        raw = secrets.token_bytes(inputs["length"])
        return NO_ID, {"base64": base64.b64encode(raw).decode(), "hex": raw.hex()}

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values]:
        # The bytes that the official plugin left in an id go with the next refresh.
        return super().read(NO_ID, inputs, props)


if __name__ == "__main__":
    serve("4.21.1", [RandomBytes()])
