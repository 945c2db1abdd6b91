"""pulumi-resource-random: RandomBytes, the only random resource of this program."""

import base64
import secrets

from offline.plugins.provider import UNKNOWN, Diff, Values, compare, known_only, serve


class RandomBytes:
    token = "random:index/randomBytes:RandomBytes"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        known_only(news, ["length", "keepers"])
        return news

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(compare(old_inputs, news), replace=("length", "keepers"))

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs | {"base64": UNKNOWN, "hex": UNKNOWN}
        raw = secrets.token_bytes(inputs["length"])
        text = base64.b64encode(raw).decode()
        return text, inputs | {"base64": text, "hex": raw.hex()}

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values]:
        return id_, inputs, props

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        return olds | news

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        """Nothing lives outside the state."""


if __name__ == "__main__":
    serve("4.21.1", [RandomBytes()])
