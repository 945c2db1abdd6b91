"""The whole program under Pulumi's mocks, as a preview and as an update."""

import hashlib
import json
import re
import runpy
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pulumi.runtime
import pytest
import yaml
from pulumi.runtime.mocks import MockMonitor

import images
from components.fortress import Fortress, FortressArgs
from fortress import deployed, paths
from settings import PROJECT, load
from settings.keys import (
    Seed,
    api_key,
    cookie_secret,
    grafana_password,
    key_hash,
    wireguard_private,
    wireguard_psk,
    wireguard_public,
)
from tests.unit.gateway.harness import Authority

SEED = bytes(range(32)).hex()
KEY = "-----BEGIN EC PRIVATE KEY-----mocked-----END EC PRIVATE KEY-----"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
CONFIG = {
    "users": {"alice": {"role": "admin", "keyless": True, "devices": ["laptop", "phone"]}, "bob": {}},
    "wireguard": {"endpoint": "vpn.example.com:51820"},
    "models": [{"name": "tiny", "source": "builtin"}, {"name": "llama3.2:3b"}],
    "protect": False,
}
LOGIN: dict[str, Any] = CONFIG | {
    "users": {**CONFIG["users"], "bob": {"email": "bob@example.com"}},
    "browser": {"provider": "github", "client_id": "Iv1.abc", "client_secret": "0ur-s3cret-at-github"},
}
STORE_KEY, HOOK = "s3cret/key-of-the-store", "https://hooks.example.com/s3cret-hook"
WATCHED: dict[str, Any] = CONFIG | {"observability": {"form": "full"}}
TOLD: dict[str, Any] = CONFIG | {
    "observability": {
        "form": "full",
        "object_storage": {
            **{"endpoint": "minio.example.com", "bucket": "loki", "access_key": "AKIA", "secret_key": STORE_KEY}
        },
        "alerts": {"webhook": {"url": HOOK}},
    }
}
STACK_FILES = sorted((paths.CHECKOUT / "examples").glob("Pulumi.*.yaml"))


@dataclass
class Built:
    requests: list[Any] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of(self, token: str) -> list[Any]:
        return [request for request in self.requests if request.type == token]


class Mocks(pulumi.runtime.Mocks):
    def __init__(self, preview: bool) -> None:
        self.preview = preview

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str | None, dict[Any, Any]]:
        made: dict[str, Any] = dict(args.inputs)
        computed = {
            "random:index/randomPassword:RandomPassword": {"result": pulumi.Output.secret(SEED)},
            "tls:index/privateKey:PrivateKey": {"privateKeyPem": pulumi.Output.secret(KEY)},
            "tls:index/selfSignedCert:SelfSignedCert": {"certPem": CERTIFICATE},
            "tls:index/locallySignedCert:LocallySignedCert": {"certPem": CERTIFICATE},
            "tls:index/certRequest:CertRequest": {"certRequestPem": "REQUEST PEM"},
        }.get(args.typ, {})
        # A real preview knows no computed value: what depends on one must not decide which resources exist.
        return f"{args.name}-id", made if self.preview else made | computed

    def call(self, args: pulumi.runtime.MockCallArgs) -> dict[Any, Any]:
        return {}


class Recorder(MockMonitor):
    def __init__(self, mocks: Mocks, built: Built) -> None:
        super().__init__(mocks)
        self.built = built

    def RegisterResource(self, request: Any) -> Any:
        # The stack itself is registered only by the first program of a process.
        if request.type != "pulumi:pulumi:Stack":
            self.built.requests.append(request)
        return super().RegisterResource(request)


@pytest.fixture(autouse=True)
def _no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_on_the_engine", lambda *_: True)


@pytest.fixture(params=[True, False], ids=["preview", "up"])
def preview(request: pytest.FixtureRequest) -> Iterator[bool]:
    yield request.param


def build(
    config: dict[str, Any], *, preview: bool, stack: str = "test", held: tuple[str, ...] = ("browser", "observability")
) -> Built:
    """held: the keys of which Pulumi has encrypted something."""
    built = Built()
    mocks = Mocks(preview)
    pulumi.runtime.set_mocks(mocks, PROJECT, stack, preview, monitor=Recorder(mocks, built))
    texts = {
        f"{PROJECT}:{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in ({"engine": "registry-only"} | config).items()
    }
    pulumi.runtime.set_all_config(texts, [f"{PROJECT}:{key}" for key in held])

    def note(name: str, value: Any) -> None:
        pulumi.Output.from_input(value).apply(lambda known: built.outputs.update({name: known}))

    @pulumi.runtime.test
    def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pulumi, "export", note)
            runpy.run_path(str(paths.CHECKOUT / "__main__.py"))

    run()
    return built


def urn(request: Any) -> tuple[str, str, str]:
    return (request.parent, request.type, request.name)


def test_every_resource_has_one_place_and_a_parent(preview: bool):
    built = build(CONFIG, preview=preview)
    assert len({urn(request) for request in built.requests}) == len(built.requests) > 30
    assert all(request.parent for request in built.requests)


def test_preview_and_update_register_the_same_resources():
    assert {urn(r) for r in build(CONFIG, preview=True).requests} == {
        urn(r) for r in build(CONFIG, preview=False).requests
    }


@pytest.mark.parametrize(
    ("config", "count"), [(CONFIG, 4), (LOGIN, 5), (WATCHED, 9)], ids=["plain", "login", "watched"]
)
def test_every_container_is_hardened(config: dict[str, Any], count: int, preview: bool):
    containers = build(config, preview=preview).of("docker:index/container:Container")
    assert len(containers) == count
    for container in containers:
        given = container.object
        capable = list(given["capabilities"]["adds"]) if "adds" in given["capabilities"] else []
        vpn_node = container.name.endswith("vpn-node-container")
        assert capable == (["CAP_NET_ADMIN"] if vpn_node else []), container.name
        assert list(given["capabilities"]["drops"]) == ["ALL"]
        assert given["readOnly"] is True
        assert list(given["securityOpts"]) == ["no-new-privileges"]
        assert given["memory"] == given["memorySwap"] > 0
        assert given["restart"] == "unless-stopped"
        assert given["destroyGraceSeconds"] >= 10
        assert given["networkMode"] == "bridge"
        assert (given["user"] == "0:0") == vpn_node
        assert bool("ports" in given and list(given["ports"])) == vpn_node
        labels = {row["label"]: row["value"] for row in given["labels"]}
        assert labels["fortress.stack"] == "test"
        assert labels["fortress.component"]


def test_the_page_and_its_login_are_there_only_where_the_config_says_so():
    def names(config: dict[str, Any]) -> set[str]:
        return {request.name for request in build(config, preview=False).requests}

    plain = names(CONFIG)
    assert not [name for name in plain if "login" in name]
    assert names(CONFIG | {"browser": {}}) == plain
    more = names(LOGIN) - plain
    assert {"fortress-networks-login", "fortress-login", "fortress-login-files", "fortress-login-container"} <= more
    assert all("login" in name for name in more)
    networks = {each.name: each.object for each in build(LOGIN, preview=False).of("docker:index/network:Network")}
    assert [name for name, given in networks.items() if not given["internal"]] == [
        "fortress-networks-wan",
        "fortress-networks-login",
    ]


def test_a_page_touches_the_vpn_node_and_the_gateway_by_their_files_alone():
    def kept(config: dict[str, Any]) -> dict[str, str]:
        touched = ("fortress-gateway-files", "fortress-vpn-node-files", "fortress-pki-server-request")
        return {
            request.name: str(request.object)
            for request in build(config, preview=False).requests
            if request.name not in touched
        }

    assert kept(CONFIG | {"browser": {}}) == kept(CONFIG)


def test_the_servers_certificate_names_the_page_too():
    [plain] = [r for r in build(CONFIG, preview=False).requests if r.name == "fortress-pki-server-request"]
    assert list(plain.object["dnsNames"]) == ["ollama.fortress.internal"]
    [both] = [r for r in build(LOGIN, preview=False).requests if r.name == "fortress-pki-server-request"]
    assert list(both.object["dnsNames"]) == ["ollama.fortress.internal", "chat.ollama.fortress.internal"]


def test_certificates_that_nobody_measures_live_as_long_as_one_that_is_measured():
    """Of the hop, the gateway has its own and the authority; it is asked for the days that are left."""
    built = build(CONFIG | {"pki": {"ca_epoch": "authorities", "leaf_epoch": "leaves"}}, preview=False)
    leaves, authorities = (
        built.of(f"tls:index/{token}")
        for token in ("locallySignedCert:LocallySignedCert", "selfSignedCert:SelfSignedCert")
    )
    assert {each.name.removeprefix("fortress-pki-") for each in leaves} == {"server", "hop-server", "hop-client"}
    assert {each.replacement_trigger.string_value for each in leaves} == {"leaves"}, "renewed without the others"
    assert {each.name for each in authorities} == {f"fortress-pki-{which}-authorities" for which in ("ca", "hop-ca")}
    for found in (leaves, authorities):
        assert len({each.object["validityPeriodHours"] for each in found}) == 1


def test_an_authority_that_is_believed_keeps_its_name_and_an_overlap_has_both():
    def named(**pki: str) -> dict[str, str]:
        built = build(CONFIG | {"pki": pki}, preview=False).of("tls:index/selfSignedCert:SelfSignedCert")
        return {each.name.removeprefix("fortress-pki-"): each.object["subject"]["commonName"] for each in built}

    first = {"ca": "ollama-fortress", "hop-ca": "ollama-fortress hop"}
    assert named() == first
    both = first | {"ca-2": "ollama-fortress 2", "hop-ca-2": "ollama-fortress hop 2"}
    assert named(ca_epoch="2", previous_ca_epoch="1") == both


@pytest.mark.parametrize(
    ("named", "refused"),
    [("chat.ollama.fortress.internal", False), ("*.ollama.fortress.internal", False), ("*.fortress.internal", True)],
)
def test_a_certificate_of_ones_own_must_name_the_page(named: str, refused: bool, tmp_path: Path):
    pem, key = Authority("own").leaf("ollama.fortress.internal", named)
    files = {"certificate_file": tmp_path / "chain.pem", "key_file": tmp_path / "key.pem"}
    for path, text in zip(files.values(), (pem, key), strict=True):
        path.write_text(text)
    config = CONFIG | {"gateway": {name: str(path) for name, path in files.items()}}
    assert build(config, preview=True).requests
    if refused:
        with pytest.raises(pulumi.RunError, match="but the page is at chat"):
            build(config | {"browser": {}}, preview=True)
    else:
        assert build(config | {"browser": {}}, preview=True).requests


def test_who_has_a_certificate_of_ones_own_believes_who_signed_it(tmp_path: Path):
    company = Authority("company")
    pem, key = company.leaf("ollama.fortress.internal")
    (tmp_path / "key.pem").write_text(key)
    gateway = {"certificate_file": str(tmp_path / "chain.pem"), "key_file": str(tmp_path / "key.pem")}

    def believed(chain: str, **changed: str) -> str:
        (tmp_path / "chain.pem").write_text(chain)
        return build(CONFIG | {"gateway": gateway | changed}, preview=False).outputs["ca_certificate"]

    # Nobody needs the private authority, whose certificate is not shown; of a public one the chain has an
    # intermediate at most, and every client the rest.
    assert believed(pem + company.pem) == company.pem
    assert believed(company.pem) == company.pem
    (tmp_path / "chain.pem").write_text(company.pem)
    with pytest.raises(pulumi.RunError, match="certificate_file names no host, but the page is at chat"):
        build(CONFIG | {"gateway": gateway, "browser": {}}, preview=True)
    assert believed(pem) == CERTIFICATE
    for chain in ("", pem + key, "-----BEGIN CERTIFICATE-----"):
        with pytest.raises(pulumi.RunError, match=f"{PROJECT}:gateway.certificate_file .*chain.pem"):
            believed(chain)
    for place in gateway:
        with pytest.raises(pulumi.RunError, match=f"{PROJECT}:gateway.{place} .*missing.pem: No such file"):
            believed(pem, **{place: str(tmp_path / "missing.pem")})


def test_the_endpoint_has_the_port_that_the_tunnel_has(preview: bool):
    own = CONFIG["wireguard"] | {"relay_port": 8443}
    assert build(CONFIG, preview=preview).outputs["endpoint"] == "https://ollama.fortress.internal"
    moved = build(CONFIG | {"wireguard": own}, preview=preview)
    assert moved.outputs["endpoint"] == "https://ollama.fortress.internal:8443"


def test_a_long_domain_is_no_common_name_and_stays_a_name():
    domain = f"{'a' * 40}.{'b' * 40}.example.com"
    [request] = [
        r for r in build(CONFIG | {"domain": domain}, preview=False).requests if r.name == "fortress-pki-server-request"
    ]
    assert list(request.object["dnsNames"]) == [domain]
    assert len(request.object["subject"]["commonName"]) <= 64


def test_no_script_outgrows_what_linux_takes_as_one_argument():
    users = {f"user{n:02}": {"devices": [f"a-device-with-a-long-name-{m:02}" for m in range(60)]} for n in range(40)}
    wide = CONFIG["wireguard"] | {"subnet4": "10.0.0.0/8"}
    requests = build(CONFIG | {"users": users, "wireguard": wide}, preview=False).requests
    commands = [each.object for each in requests if each.type.startswith("command:")]
    scripts = [each[key] for each in commands for key in ("create", "delete") if key in each]
    assert max(len(text) for text in scripts) < 128 * 1024
    assert any(re.search(r"^# and \d+ more$", text, re.MULTILINE) for text in scripts), "nothing was left out"


def networks_of(config: dict[str, Any]) -> dict[str, bool]:
    """Part -> is it internal?"""
    found = build(config, preview=False).of("docker:index/network:Network")
    return {each.name.removeprefix("fortress-networks-"): each.object["internal"] for each in found}


def test_the_forms_of_observability_are_a_network_more_each():
    plain = {"wan": False, "edge": True, "model": True, "heart": True}
    assert networks_of(CONFIG | {"observability": "off"}) == plain
    assert networks_of(CONFIG) == plain | {"watch": True}
    assert networks_of(WATCHED) == plain | {"watch": True, "telemetry": True}
    assert networks_of(TOLD) == plain | {"watch": True, "telemetry": True, "notify": False, "storage": False}


def test_what_watches_touches_no_other_part():
    def kept(config: dict[str, Any]) -> dict[str, str]:
        return {
            request.name: str(request.object)
            for request in build(config, preview=False).requests
            if "observability" not in request.name and request.name != "fortress-networks-telemetry"
        }

    assert kept(WATCHED) == kept(CONFIG)


def test_a_way_out_is_only_where_somebody_is_told_or_a_store_is_asked():
    def attached(config: dict[str, Any]) -> dict[str, set[str]]:
        found = build(config, preview=False).of("docker:index/container:Container")
        return {
            each.name.removeprefix("fortress-"): {
                row["name"].removeprefix("fortress-test-") for row in each.object["networksAdvanced"]
            }
            for each in found
        }

    silent, told = attached(WATCHED), attached(TOLD)
    assert silent["observability-prometheus"] == {"telemetry", "watch"}
    assert silent["gateway-container"] == {"edge", "model", "watch"}
    for part in ("collector", "loki", "alertmanager", "node-exporter"):
        assert silent[f"observability-{part}"] == {"telemetry"}
    assert told["observability-alertmanager"] == {"telemetry", "notify"}
    assert told["observability-loki"] == {"telemetry", "storage"}
    more = {"observability-alertmanager", "observability-loki"}
    assert {name for name in told if told[name] != silent[name]} == more


@pytest.mark.parametrize(("gpus", "given"), [("all", "all"), (["GPU-1", "GPU-2"], "device=GPU-1,GPU-2")])
def test_a_gpu_is_watched_from_a_container_without_network_where_there_is_one(gpus: Any, given: str):
    def made(config: dict[str, Any]) -> dict[str, Any]:
        found = build(config, preview=False).of("docker:index/container:Container")
        return {each.object["name"].removeprefix("fortress-test-"): each.object for each in found}

    alone, beside = made(WATCHED), made(WATCHED | {"ollama": {"gpus": gpus}})
    assert set(beside) - set(alone) == {"gpu"}
    assert set(made(CONFIG | {"ollama": {"gpus": gpus}})) == set(made(CONFIG)), "lite has no container more"
    gpu, exporter = beside["gpu"], beside["node-exporter"]
    assert (gpu["networkMode"], list(gpu["networksAdvanced"])) == ("none", [])
    assert {name for name, each in beside.items() if "gpus" in each} == {"gpu", "ollama"}
    assert gpu["gpus"] == beside["ollama"]["gpus"] == given
    assert (gpu["readOnly"], list(gpu["capabilities"]["drops"]), gpu["user"]) == (True, ["ALL"], "108:108")
    assert "adds" not in gpu["capabilities"] or not list(gpu["capabilities"]["adds"])
    [written] = gpu["volumes"]
    assert written["containerPath"] == "/var/log/gpu"
    assert "readOnly" not in written
    read = {row["containerPath"]: row["volumeName"] for row in exporter["volumes"] if row["readOnly"]}
    assert read["/var/log/gpu"] == written["volumeName"] == "fortress-test-gpu"
    # GpuGone says nothing of a GPU that never said anything: no `up` ends with one.
    assert (gpu["wait"], list(gpu["healthcheck"]["tests"])) == (True, ["CMD", "gpu-watch", "health"])
    assert "--collector.textfile.directory=/var/log/gpu" in exporter["command"]
    assert "--collector.textfile.directory=/var/log/gpu" not in alone["node-exporter"]["command"]


def test_lines_and_figures_are_protected_and_what_can_be_had_again_is_not():
    built = build(WATCHED | {"protect": True}, preview=False).of("docker:index/volume:Volume")
    guarded = {each.object["name"].removeprefix("fortress-test-"): each.protect for each in built}
    assert {name for name, protect in guarded.items() if protect} == {
        "audit",
        "state",
        "tunnel",
        "models",
        "loki",
        "prometheus",
    }
    assert set(guarded) >= {"collector", "alertmanager"}


@pytest.mark.parametrize("config", [CONFIG, LOGIN, WATCHED], ids=["plain", "login", "watched"])
def test_before_an_up_the_same_volumes_are_known_as_protected(config: dict[str, Any]):
    config = config | {"protect": True}
    built = build(config, preview=False).of("docker:index/volume:Volume")
    settings = load("test", {f"{PROJECT}:{k}": v for k, v in ({"engine": "registry-only"} | config).items()})
    protected = {each.object["name"].removeprefix("fortress-test-") for each in built if each.protect}
    assert protected == deployed.guarded(settings)


def test_grafana_is_there_where_its_image_can_be_pulled(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("components.fortress._image", lambda name, _: f"fortress/{name}:test")
    online = build(WATCHED | {"engine": "online"}, preview=False)
    names = {each.name for each in build(WATCHED, preview=False).requests}
    more = {each.name for each in online.requests} - names
    assert {name for name in more if not name.startswith("fortress-grafana")} == set()
    [made] = [each.object for each in online.of("docker:index/container:Container") if "grafana" in each.name]
    assert {row["name"] for row in made["networksAdvanced"]} == {"fortress-test-watch", "fortress-test-telemetry"}
    assert not list(made["envs"]) if "envs" in made else True
    password = grafana_password(Seed.from_hex(SEED))
    [sent] = [each for each in online.requests if each.name == "fortress-grafana-files"]
    plain, hidden = _split(sent.object)
    assert password in hidden
    assert password not in plain


def test_the_trails_are_read_and_never_written_by_what_watches():
    containers = {each.name: each for each in build(WATCHED, preview=False).of("docker:index/container:Container")}
    mounted = containers["fortress-observability-collector"].object["volumes"]
    rights = {row["containerPath"]: "readOnly" in row and row["readOnly"] for row in mounted}
    trails = {"/var/log/gateway": True, "/var/log/vpn-node": True}
    assert rights == {"/config": True, "/var/lib/collector": False, **trails}
    exporter = containers["fortress-observability-node-exporter"].object["volumes"]
    assert all(row["readOnly"] for row in exporter)


@pytest.mark.parametrize(
    ("config", "place"),
    [(LOGIN, "browser.client_secret"), (TOLD, "observability.alerts.webhook.url")],
    ids=["login", "told"],
)
def test_a_secret_that_pulumi_was_given_in_plain_text_is_refused(config: dict[str, Any], place: str):
    with pytest.raises(pulumi.RunError, match=f"(?s)is a secret in plain text.*config set --secret --path '{PROJECT}:"):
        build(config, preview=True, held=())
    assert build(config, preview=True, held=(place.partition(".")[0],)).requests


def test_no_resource_is_asked_for_whose_id_is_its_secret():
    """Ids are never encrypted; the official RandomBytes, RandomId and RandomString write what they made there."""
    random = [each.type for each in build(CONFIG, preview=False).requests if each.type.startswith("random:")]
    assert set(random) == {"random:index/randomPassword:RandomPassword"}


@pytest.mark.parametrize(
    ("config", "more"),
    [
        (CONFIG, []),
        (LOGIN, [LOGIN["browser"]["client_secret"], cookie_secret(Seed.from_hex(SEED), "1")]),
        (TOLD, [STORE_KEY, HOOK]),
    ],
    ids=["plain", "login", "told"],
)
def test_no_secret_travels_in_plain_text(config: dict[str, Any], more: list[str]):
    built = build(config, preview=False)
    seed = Seed.from_hex(SEED)
    secrets = [KEY, api_key(seed, "bob", "1"), wireguard_private(seed, "alice", "laptop", "1")]
    secrets.append(wireguard_psk(seed, "bob", "default", "1"))
    secrets += more
    # Somebody else chose it: a hash of it could be guessed back.
    hashed = [hashlib.sha256(secret.encode()).hexdigest()[:16] for secret in more[:1]]
    seen_under_cover: set[str] = set()
    for request in built.requests:
        plain, hidden = _split(request.object)
        for secret in secrets:
            assert secret not in plain, f"{request.name} carries a secret in plain text"
            seen_under_cover |= {secret} if secret in hidden else set()
        assert not [text for text in hashed if text in plain]
    assert seen_under_cover >= {KEY, *more}, "not even under cover, so nothing is shown"


@pytest.mark.parametrize(
    ("config", "files"),
    [(TOLD, ["observability-alertmanager", "observability-loki"]), (LOGIN, ["login"])],
    ids=["told", "login"],
)
def test_the_name_of_a_revision_tells_nothing_of_a_secret_that_somebody_chose(
    config: dict[str, Any], files: list[str], monkeypatch: pytest.MonkeyPatch
):
    """It is a hash in plain text, and all else in the archive may be known: short passwords could be tried."""

    def revisions(built: Built) -> dict[str, str]:
        scripts = {each.name: each.object["create"] for each in built.of("command:local:Command")}
        found = {name: re.findall(r"^rev=(\w{64})$", scripts[f"fortress-{name}-files"], re.MULTILINE) for name in files}
        return {name: revision for name, [revision] in found.items()}

    built = build(config, preview=False)
    one, again = revisions(built), revisions(build(config, preview=False))
    assert one == again
    for request in built.requests:
        assert SEED not in _split(request.object)[0], f"{request.name} carries the salt in plain text"
    monkeypatch.setitem(globals(), "SEED", bytes(32).hex())
    other = revisions(build(config, preview=False))
    assert not [name for name in files if one[name] == other[name]]


def test_only_files_with_a_secret_that_somebody_chose_have_a_salt():
    salted = {each.name for each in build(LOGIN, preview=False).requests if each.name.endswith("-salt")}
    assert salted == {"fortress-login-files-salt"}
    told = {each.name for each in build(TOLD, preview=False).requests if each.name.endswith("-salt")}
    assert told == {f"fortress-observability-{part}-files-salt" for part in ("alertmanager", "loki")}
    assert not [each for each in build(WATCHED, preview=False).requests if each.name.endswith("-salt")]


def _split(struct: Any) -> tuple[str, str]:
    """(text outside secret envelopes, text inside them) of one request, base64 archives unpacked."""
    from google.protobuf import json_format

    plain: list[str] = []
    hidden: list[str] = []

    def walk(value: Any, into: list[str]) -> None:
        if isinstance(value, dict):
            if "4dabf18193072939515e22adb298388d" in value:
                walk(value.get("value"), hidden)
            else:
                for key, inner in value.items():
                    into.append(key)
                    walk(inner, into)
        elif isinstance(value, list):
            for inner in value:
                walk(inner, into)
        else:
            into.append(_readable(str(value)))

    walk(json_format.MessageToDict(struct), plain)
    return "\n".join(plain), "\n".join(hidden)


def _readable(text: str) -> str:
    import base64
    import binascii

    try:
        return text + base64.b64decode("".join(text.split()), validate=True).decode(errors="replace")
    except (binascii.Error, ValueError):
        return text


def test_two_fortresses_stand_side_by_side(preview: bool):
    settings = load("test", {f"{PROJECT}:{k}": v for k, v in ({"engine": "registry-only"} | CONFIG).items()})
    built = Built()
    mocks = Mocks(preview)
    pulumi.runtime.set_mocks(mocks, PROJECT, "test", preview, monitor=Recorder(mocks, built))

    @pulumi.runtime.test
    def run() -> None:
        Fortress("one", FortressArgs(settings=settings))
        Fortress("two", FortressArgs(settings=settings))

    run()
    names = [request.object["name"] for request in built.of("docker:index/container:Container")]
    assert len(set(names)) == len(names) == 8
    assert len({urn(request) for request in built.requests}) == len(built.requests)


def test_a_new_user_touches_no_other_users_resources():
    more = CONFIG | {"users": CONFIG["users"] | {"carol": {}}}
    before, after = build(CONFIG, preview=False), build(more, preview=False)
    assert {urn(r)[2] for r in after.requests} - {urn(r)[2] for r in before.requests} == {"fortress-identity-carol"}
    containers = [{r.name: r.object for r in built.of("docker:index/container:Container")} for built in (before, after)]
    assert containers[0] == containers[1]


def test_one_command_tells_a_container_of_all_its_files_so_an_up_reloads_it_at_most_once():
    built = build(WATCHED, preview=False)
    scripts = [request.object["create"] for request in built.of("command:local:Command")]
    told = [name for script in scripts for name in re.findall(r"^image=.* name=(\S+)$", script, re.MULTILINE)]
    assert len(told) == len(set(told))
    assert [name for name in told if name.endswith("-gateway")] == ["fortress-test-gateway"]


ROTATED = CONFIG | {
    "users": {
        "alice": {
            **{"role": "admin", "keyless": True},
            "devices": [{"name": "laptop", "epoch": "2", "previous_epoch": "1"}, "phone"],
        },
        "bob": {"epoch": "2", "previous_epoch": "1"},
    }
}


def _files_of(built: Built, component: str) -> str:
    """Every text of one component's files, secret ones included."""
    [sent] = [each for each in built.of("command:local:Command") if each.name == f"fortress-{component}-files"]
    return "\n".join(_split(sent.object))


def test_while_keys_are_renewed_old_and_new_are_known_together_and_nothing_of_others_moves():
    before, rotating = build(CONFIG, preview=False), build(ROTATED, preview=False)
    done = build(CONFIG | {"users": _without_previous(ROTATED["users"])}, preview=False)
    seed = Seed.from_hex(SEED)
    hashes = {epoch: key_hash(api_key(seed, "bob", epoch)) for epoch in ("1", "2")}
    peers = {epoch: wireguard_public(wireguard_private(seed, "alice", "laptop", epoch)) for epoch in ("1", "2")}
    addresses = {"1": "10.66.124.207", "2": "10.66.124.206"}
    for built, epochs in ((before, {"1"}), (rotating, {"1", "2"}), (done, {"2"})):
        gateway, vpn_node = _files_of(built, "gateway"), _files_of(built, "vpn-node")
        assert {epoch for epoch, known in hashes.items() if known in gateway} == epochs
        assert {epoch for epoch, known in peers.items() if known in vpn_node} == epochs
        assert {epoch for epoch, known in addresses.items() if f'"wireguard|{known}"' in gateway} == epochs
        assert {epoch for epoch, known in addresses.items() if f"AllowedIPs = {known}/32" in vpn_node} == epochs
        phone = wireguard_public(wireguard_private(seed, "alice", "phone", "1"))
        assert phone in vpn_node and key_hash(api_key(seed, "alice", "1")) in gateway
    touched = {name for name, given in _objects(rotating).items() if given != _objects(before)[name]}
    assert {name for name in touched if name.startswith("fortress-")} == {
        "fortress-gateway-files", "fortress-vpn-node-files",
    }  # fmt: skip
    assert {urn(each) for each in rotating.requests} == {urn(each) for each in before.requests}


def _without_previous(users: dict[str, Any]) -> dict[str, Any]:
    alice, bob = users["alice"], users["bob"]
    laptop = {"name": "laptop", "epoch": "2"}
    return {"alice": {**alice, "devices": [laptop, "phone"]}, "bob": {"epoch": bob["epoch"]}}


def _objects(built: Built) -> dict[str, Any]:
    return {each.name: each.object for each in built.requests}


def test_a_bundle_holds_the_new_keys_only():
    seed, bundles = Seed.from_hex(SEED), _bundles(ROTATED)
    before = _bundles(CONFIG)
    assert bundles["bob"]["api_key"].strip() == api_key(seed, "bob", "2")
    laptop = bundles["alice"]["wireguard-laptop.conf"]
    assert wireguard_private(seed, "alice", "laptop", "2") in laptop
    assert "Address = 10.66.124.206/32" in laptop
    old = (api_key(seed, "bob", "1"), wireguard_private(seed, "alice", "laptop", "1"), "10.66.124.207")
    for files in bundles.values():
        assert not [word for word in old if word in "\n".join(files.values())]
    for user, name in (("alice", "api_key"), ("alice", "wireguard-phone.conf"), ("bob", "wireguard-default.conf")):
        assert bundles[user][name] == before[user][name], f"{user}'s {name} moved"


def _bundles(config: dict[str, Any]) -> dict[str, dict[str, str]]:
    settings = load("test", {f"{PROJECT}:{k}": v for k, v in ({"engine": "registry-only"} | config).items()})
    pulumi.runtime.set_mocks(Mocks(False), PROJECT, "test", False)
    found: dict[str, dict[str, str]] = {}

    @pulumi.runtime.test
    def run() -> pulumi.Output[None]:
        fortress = Fortress("fortress", FortressArgs(settings=settings))
        return pulumi.Output.all(**fortress.bundles).apply(found.update)

    run()
    return found


@pytest.fixture
def over_ssh(tmp_path: Path) -> dict[str, Any]:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    there = {"address": "box.example.com", "user": "deploy", "host_key": public, "private_key_file": str(key)}
    return CONFIG | {"host": {"ssh": there}}


def test_on_a_host_reached_by_ssh_every_command_goes_there(
    over_ssh: dict[str, Any], preview: bool, monkeypatch: pytest.MonkeyPatch
):
    here = build(CONFIG, preview=preview)
    monkeypatch.setattr(images, "_on_the_engine", lambda *_: pytest.fail("an engine was asked"))
    built = build(over_ssh, preview=preview)
    remote, sent = built.of("command:remote:Command"), built.of("command:local:Command")
    assert {request.name for request in (*remote, *sent)} == {each.name for each in here.of("command:local:Command")}
    assert all("-ollama-host-model-" in request.name for request in sent)
    for request in sent:
        assert request.object["create"].startswith("ssh -F none ")
        assert request.object["delete"].startswith("ssh -F none ")
    provider = built.of("pulumi:providers:docker")[0].object
    assert provider["host"] == "ssh://deploy@box.example.com:22"
    text = Path(over_ssh["host"]["ssh"]["private_key_file"]).read_text().splitlines()[1]
    for request in built.requests:
        assert text not in _split(request.object)[0], f"{request.name} carries the private key in plain text"


def test_a_gguf_file_is_sent_by_this_machine_and_read_on_the_host(over_ssh: dict[str, Any], tmp_path: Path):
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    more = over_ssh | {"models": [{"name": "own", "source": str(file)}]}
    (sent,) = build(more, preview=False).of("command:local:Command")
    assert sent.name == "fortress-ollama-host-model-own-latest"
    assert sent.object["create"].startswith("{\nssh -F none ")
    assert sent.object["create"].endswith(f"}} < {file}")
    assert "stdin" not in sent.object


def test_another_source_of_a_model_is_an_update_of_the_same_resource(over_ssh: dict[str, Any], tmp_path: Path):
    """Of another type it would be another resource, and the old one's delete takes away what the new one made."""
    file = tmp_path / "own.gguf"
    file.write_bytes(b"GGUF")
    for there in (CONFIG, over_ssh):
        found: set[tuple[tuple[str, str, str], tuple[str, ...]]] = set()
        for source in ({}, {"source": "builtin"}, {"source": str(file)}):
            built = build(there | {"models": [{"name": "own", **source}]}, preview=False)
            [model] = [each for each in built.requests if each.name == "fortress-ollama-host-model-own-latest"]
            found.add((urn(model), tuple(alias.spec.type for alias in model.aliases)))
        assert len(found) == 1


def test_a_refused_config_stops_the_program_with_its_sentence():
    with pytest.raises(pulumi.RunError, match="did you mean 'users'"):
        build({"user": {}}, preview=True)


@pytest.mark.parametrize("file", STACK_FILES, ids=lambda file: file.name)
def test_every_example_stack_builds(file: Path, preview: bool):
    config = yaml.safe_load(file.read_text())["config"]
    built = build({key.removeprefix(f"{PROJECT}:"): value for key, value in config.items()}, preview=preview)
    assert built.of("docker:index/container:Container")


def test_there_are_examples():
    assert STACK_FILES
