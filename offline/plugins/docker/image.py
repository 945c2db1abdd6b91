"""docker.RemoteImage: an image that the engine has, or can pull. Images are built by `bin/fortress images build`."""

from docker.errors import APIError, NotFound

from offline.plugins import schema
from offline.plugins.docker.engine import client, said
from offline.plugins.provider import UNKNOWN, Diff, Failed, Refused, Values
from offline.plugins.schema import Field

META = '{"e2bfb730-ecaa-11e6-8f88-34363bc7c4c0":{"create":1200000000000,"delete":1200000000000,"update":1200000000000}}'
FIELDS = {
    "build": Field("one", taken=False),
    "forceRemove": Field(),
    "imageId": Field(preview=UNKNOWN, taken=False),
    "keepLocally": Field(),
    "name": Field(),
    "platform": Field(taken=False),
    "pullTriggers": Field("set"),
    "repoDigest": Field(preview=UNKNOWN, taken=False),
    "triggers": Field("map"),
}
REPLACING = ("name", "platform", "pullTriggers", "triggers")


class RemoteImage:
    token = "docker:index/remoteImage:RemoteImage"  # noqa: S105

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        if news.get("build"):
            raise Refused("build", "the registry-only plugin builds no image; `bin/fortress images build` does")
        if not news.get("name"):
            raise Refused("name", "is missing; write the image's tag or digest")
        return schema.checked(FIELDS, news)

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(schema.difference(FIELDS, old_inputs, news, olds), replace=REPLACING)

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        given = schema.without_marks(inputs)
        if preview:
            return "", schema.outputs(FIELDS, given, "preview") | {"id": UNKNOWN, "__meta": META}
        self._present(inputs["name"])
        values = self._outputs(given)
        assert values is not None
        return values["id"], values

    def _present(self, name: str) -> None:
        engine = client()
        with said(f"image {name}"):
            try:
                engine.inspect_image(name)
                return
            except NotFound:
                pass
            try:
                engine.pull(name if "@" in name or ":" in name.rpartition("/")[2] else f"{name}:latest")
            except APIError as error:
                why = str(error.explanation or error)
                raise Failed(
                    f"image {name} is not on this engine and cannot be pulled ({why}); run `bin/fortress images build`"
                ) from error

    def _outputs(self, given: Values) -> Values | None:
        name = given["name"]
        with said(f"image {name}"):
            try:
                found = client().inspect_image(name)
            except NotFound:
                return None
        repository = name.partition("@")[0]
        repository = repository.rpartition(":")[0] if ":" in repository.rpartition("/")[2] else repository
        digests = [each for each in found.get("RepoDigests") or [] if each.partition("@")[0] == repository]
        seen = {"imageId": found["Id"], "repoDigest": digests[0] if digests else ""}
        values = schema.outputs(FIELDS, given | seen, "made")
        delta = schema.raw_state_delta(FIELDS, values, made=True)
        return values | {"id": found["Id"] + name, "__meta": META, "__pulumi_raw_state_delta": delta}

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None:
        values = self._outputs(schema.without_marks(inputs))
        return None if values is None else (values["id"], schema.without_empty_marks(inputs), values)

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        """Only keepLocally and forceRemove arrive here, and both are for Delete."""
        return olds | schema.without_marks(news)

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        if props.get("keepLocally"):
            return
        with said(f"image {props['name']}"):
            try:
                client().remove_image(props["name"], force=bool(props.get("forceRemove")))
            except NotFound:
                return
