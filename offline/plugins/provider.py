"""What every plugin shares: Pulumi's provider protocol on one side, plain Python values on the other.

A resource type is one object with check, diff, create, read, update and delete over dicts. Secrets arrive unwrapped
(the engine marks the same-named outputs again; `secret` marks what no input names), unknown values of a preview as
UNKNOWN.
"""

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_SIGNATURE = "4dabf18193072939515e22adb298388d"
_SECRET = "1b47061264138c4ac30d75fd1eb44270"  # noqa: S105 - the mark of a secret, not one
OWN_KEYS = ("__defaults", "__meta", "__pulumi_raw_state_delta")
"""Kept by the official plugins beside the properties; they are no properties."""

ORPHAN_CHECK_S = 1.0
ORPHAN_GRACE_S = 120.0

Values = dict[str, Any]


class Refused(Exception):
    """An input that cannot be: which property, and one sentence."""

    def __init__(self, prop: str, why: str) -> None:
        super().__init__(f"{prop}: {why}")
        self.prop, self.why = prop, why


class Failed(Exception):
    """An operation that did not work, in one sentence without secrets."""


class PartlyDone(Failed):
    """The resource exists, but is not what it should be; its state is kept so that nothing is orphaned."""

    def __init__(self, why: str, id_: str, outputs: Values) -> None:
        super().__init__(why)
        self.id, self.outputs = id_, outputs


@dataclass(frozen=True)
class Diff:
    """detailed: path -> add | delete | update. replace: top-level properties that a living resource cannot change.

    by_element: whether the paths are told; else only their properties, and the engine finds the elements itself.
    """

    detailed: Mapping[str, str] = field(default_factory=dict)
    replace: tuple[str, ...] = ()
    delete_before_replace: bool = False
    by_element: bool = True


class Resource(Protocol):
    token: str

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values: ...
    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff: ...
    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]: ...
    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values] | None: ...
    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values: ...
    def delete(self, id_: str, inputs: Values, props: Values) -> None: ...


def known_only(news: Values, properties: Iterable[str]) -> None:
    """Refuse by name what a plugin does not implement."""
    known = {*properties, *OWN_KEYS}
    for key in sorted(news):
        if key not in known:
            raise Refused(key, "the registry-only plugin does not implement this property; use the online engine")


def compare(old: Values, new: Values, ignore: Iterable[str] = ()) -> dict[str, str]:
    """Differences of two inputs, element by element: `envs[1]`, `labels[0].value`, `memory`."""
    found: dict[str, str] = {}
    skipped = {*ignore, *OWN_KEYS}
    for key in sorted({*old, *new} - skipped):
        _compare(key, old.get(key), new.get(key), found)
    return found


def _compare(path: str, old: Any, new: Any, found: dict[str, str]) -> None:
    if old == new or (_empty(old) and _empty(new)):
        return
    if _empty(old):
        found[path] = "add"
    elif _empty(new):
        found[path] = "delete"
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new} - set(OWN_KEYS)):
            _compare(f"{path}.{key}" if key.isidentifier() else f'{path}["{key}"]', old.get(key), new.get(key), found)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else None
            after = new[index] if index < len(new) else None
            _compare(f"{path}[{index}]", before, after, found)
    else:
        found[path] = "update"


def _empty(value: Any) -> bool:
    return value is None or value in ([], {})


def top(path: str) -> str:
    """The property that a path of `compare` lies in."""
    return path.split(".")[0].split("[")[0]


def secret(value: Any) -> Values:
    """A value that the engine encrypts in the state and hides in what it prints."""
    return {_SIGNATURE: _SECRET, "value": value}


def is_unknown(value: Any) -> bool:
    if isinstance(value, dict):
        return any(is_unknown(item) for item in value.values())
    if isinstance(value, list):
        return any(is_unknown(item) for item in value)
    return value == UNKNOWN


def to_values(struct: struct_pb2.Struct) -> Values:
    return {key: _to_value(value) for key, value in struct.fields.items()}


def _to_value(value: struct_pb2.Value) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        fields = value.struct_value.fields
        if _SIGNATURE in fields and fields[_SIGNATURE].string_value == _SECRET:
            return _to_value(fields["value"])
        return to_values(value.struct_value)
    if kind == "list_value":
        return [_to_value(item) for item in value.list_value.values]
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    return None if kind in (None, "null_value") else getattr(value, kind)


def to_struct(values: Mapping[str, Any]) -> struct_pb2.Struct:
    struct = struct_pb2.Struct()
    struct.update(json.loads(json.dumps(values)))
    return struct


_KINDS = {
    "add": provider_pb2.PropertyDiff.Kind.ADD,
    "delete": provider_pb2.PropertyDiff.Kind.DELETE,
    "update": provider_pb2.PropertyDiff.Kind.UPDATE,
}
_REPLACING = {
    "add": provider_pb2.PropertyDiff.Kind.ADD_REPLACE,
    "delete": provider_pb2.PropertyDiff.Kind.DELETE_REPLACE,
    "update": provider_pb2.PropertyDiff.Kind.UPDATE_REPLACE,
}


class _Servicer(provider_pb2_grpc.ResourceProviderServicer):
    def __init__(
        self,
        version: str,
        resources: Iterable[Resource],
        configure: Callable[[Values], None] | None,
        config_marks: Mapping[str, str],
    ) -> None:
        self.version = version
        self.resources = {resource.token: resource for resource in resources}
        self.configure = configure
        self.config_marks = dict(config_marks)

    def _resource(self, urn: str, context: grpc.ServicerContext) -> Resource:
        token = urn.split("::")[2].split("$")[-1]
        if token not in self.resources:
            context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"the registry-only plugin does not implement {token}; use the online engine",
            )
        return self.resources[token]

    def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version=self.version)

    def GetSchema(self, request, context):
        return provider_pb2.GetSchemaResponse(schema="{}")

    def Attach(self, request, context):
        return empty_pb2.Empty()

    def Cancel(self, request, context):
        return empty_pb2.Empty()

    def CheckConfig(self, request, context):
        return provider_pb2.CheckResponse(inputs=to_struct(self.config_marks | to_values(request.news)))

    def DiffConfig(self, request, context):
        old, new = to_values(request.old_inputs), to_values(request.news)
        # Marks of the official plugins (`__pulumi-go-provider-version`) are no config.
        marks = [key for key in {*old, *new} if key.startswith("__")]
        detailed = compare(old, new, ignore=["version", *marks])
        return _diff_response(Diff(detailed))

    def Configure(self, request, context):
        if self.configure is not None:
            try:
                self.configure(to_values(request.args))
            except (Failed, Refused) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        return provider_pb2.ConfigureResponse(acceptSecrets=False, supportsPreview=True, acceptResources=False)

    def Check(self, request, context):
        resource = self._resource(request.urn, context)
        try:
            inputs = resource.check(
                request.urn.split("::")[-1], to_values(request.olds), to_values(request.news), request.randomSeed
            )
        except Refused as refused:
            failure = provider_pb2.CheckFailure(property=refused.prop, reason=refused.why)
            return provider_pb2.CheckResponse(failures=[failure])
        return provider_pb2.CheckResponse(inputs=to_struct(inputs))

    def Diff(self, request, context):
        resource = self._resource(request.urn, context)
        diff = resource.diff(
            request.id, to_values(request.old_inputs), to_values(request.olds), to_values(request.news)
        )
        ignored = set(request.ignoreChanges)
        detailed = {path: kind for path, kind in diff.detailed.items() if top(path) not in ignored}
        return _diff_response(replace(diff, detailed=detailed))

    def Create(self, request, context):
        resource = self._resource(request.urn, context)
        name = request.urn.split("::")[-1]
        with _said(context):
            id_, outputs = resource.create(name, to_values(request.properties), request.preview)
            return provider_pb2.CreateResponse(id=id_, properties=to_struct(outputs))

    def Read(self, request, context):
        resource = self._resource(request.urn, context)
        with _said(context):
            found = resource.read(request.id, to_values(request.inputs), to_values(request.properties))
            if found is None:
                return provider_pb2.ReadResponse()
            id_, inputs, outputs = found
            return provider_pb2.ReadResponse(id=id_, inputs=to_struct(inputs), properties=to_struct(outputs))

    def Update(self, request, context):
        resource = self._resource(request.urn, context)
        with _said(context):
            outputs = resource.update(
                request.id,
                to_values(request.old_inputs),
                to_values(request.olds),
                to_values(request.news),
                request.preview,
            )
            return provider_pb2.UpdateResponse(properties=to_struct(outputs))

    def Delete(self, request, context):
        resource = self._resource(request.urn, context)
        with _said(context):
            resource.delete(request.id, to_values(request.old_inputs), to_values(request.properties))
            return empty_pb2.Empty()


class _said:
    """Failures become the one sentence they hold; anything else is our defect and keeps its trace."""

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, PartlyDone):
            detail = provider_pb2.ErrorResourceInitFailed(
                id=error.id, properties=to_struct(error.outputs), reasons=[str(error)]
            )
            self.context.set_trailing_metadata((("grpc-status-details-bin", _status(str(error), detail)),))
            self.context.abort(grpc.StatusCode.UNKNOWN, str(error))
        if isinstance(error, (Failed, Refused)):
            self.context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        if isinstance(error, Exception) and str(error):
            traceback.print_exception(error)
            self.context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _status(message: str, detail: provider_pb2.ErrorResourceInitFailed) -> bytes:
    """A google.rpc.Status by hand, which saves a dependency: code, message, one Any."""
    from google.protobuf import any_pb2

    packed = any_pb2.Any()
    packed.Pack(detail)
    body = packed.SerializeToString()
    text = message.encode()
    return b"\x08\x02" + b"\x12" + _varint(len(text)) + text + b"\x1a" + _varint(len(body)) + body


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def _diff_response(diff: Diff) -> provider_pb2.DiffResponse:
    replacing = sorted(set(diff.replace) & {top(path) for path in diff.detailed})
    kinds = {
        path: provider_pb2.PropertyDiff(kind=(_REPLACING if top(path) in replacing else _KINDS)[kind], inputDiff=True)
        for path, kind in diff.detailed.items()
        if diff.by_element
    }
    some = bool(diff.detailed)
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if some else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=sorted({top(path) for path in diff.detailed}),
        replaces=replacing,
        detailedDiff=kinds,
        hasDetailedDiff=diff.by_element,
        deleteBeforeReplace=bool(replacing) and diff.delete_before_replace,
    )


def _leave_with_parent(server: grpc.Server, parent: int) -> None:
    """A killed engine says no good-bye: finish what is under way, then go, so that no process is left behind."""
    while os.getppid() == parent:
        time.sleep(ORPHAN_CHECK_S)
    server.stop(grace=ORPHAN_GRACE_S)


def serve(
    version: str,
    resources: Iterable[Resource],
    configure: Callable[[Values], None] | None = None,
    config_marks: Mapping[str, str] | None = None,
) -> None:
    """Run one plugin until the engine ends it. The port on the first line of stdout is the engine's way in.

    config_marks: what the official plugin adds to the provider's own config.
    """
    # Asked before anybody knows of this process: later the engine may be gone, and its heir taken for it.
    engine = os.getppid()
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=unlimited)
    servicer = _Servicer(version, resources, configure, config_marks or {})
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    threading.Thread(target=_leave_with_parent, args=(server, engine), daemon=True).start()
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(grace=0)
