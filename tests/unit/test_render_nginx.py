"""nginx's files: the reviewed text, accepted by nginx itself, and no value can leave its place."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import images
from images import catalogue, reference
from render import browser, nginx, page
from render.principals import policy_files, principals
from render.syntax import NotInItsPlace
from settings import StackSettings
from tests.unit.conftest import Golden
from tests.unit.gateway.harness import ADDRESSES, Authority

HASH = "c" * 64


def stack(**more: Any) -> StackSettings:
    return StackSettings.model_validate(
        {
            "stack": "golden",
            "engine": "online",
            "users": {"alice": {"role": "admin", "keyless": True}, "bob": {"models": ["tiny"]}},
            "wireguard": {"endpoint": "vpn.example.com:51820"},
            **more,
        }
    )


UPLOAD = {"gateway": {"model_upload": True}}
CORS = {"gateway": {"cors_origins": ["https://chat.example.com"]}}
PAGE: dict[str, Any] = {
    "browser": {"provider": "github", "client_id": "x", "client_secret": "x"},
    "users": {"alice": {"role": "admin", "keyless": True}, "bob": {"email": "bob@example.com"}},
}
VARIANTS = {
    "gateway.conf": lambda: nginx.gateway(stack(), stack().plan),
    "gateway-upload.conf": lambda: nginx.gateway(stack(**UPLOAD), stack().plan),
    "gateway-cors.conf": lambda: nginx.gateway(stack(**CORS), stack().plan),
    "gateway-page.conf": lambda: nginx.gateway(stack(**PAGE), stack().plan),
    "sidecar.conf": lambda: nginx.sidecar(stack(), stack().plan),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_golden_files_are_the_reviewed_ones(name: str, golden: Golden):
    golden.check(f"nginx/{name}", VARIANTS[name]())


@pytest.mark.parametrize("name", ["page", "page-keyless"])
def test_the_golden_file_of_the_page_is_the_reviewed_one(name: str, golden: Golden, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(page, "paths", lambda: {"/": "index.html", "/chat.js": "chat.js"})
    golden.check(f"nginx/{name}.conf", browser.server(stack(**(PAGE if name == "page" else {"browser": {}}))))


@pytest.mark.parametrize(
    ("conf", "domain"),
    [
        *((name, None) for name in VARIANTS),
        ("gateway.conf", ".".join(["a" * 60] * 4) + ".example"),
        ("gateway-page.conf", ".".join(["a" * 60] * 4) + ".ex"),
    ],
)
def test_nginx_itself_accepts_the_files(conf: str, domain: str | None, tmp_path: Path):
    config = stack(
        **({"domain": domain} if domain else {}),
        **(UPLOAD if "upload" in conf else CORS if "cors" in conf else PAGE if "page" in conf else {}),
    )
    authority = Authority("golden")
    pem, key = authority.leaf("x.example")
    files = policy_files() | {
        "nginx.conf": (nginx.sidecar if "sidecar" in conf else nginx.gateway)(config, config.plan),
        "principals.js": principals(config, {("alice", "default"): ADDRESSES["alice", "laptop"]}, {"alice": HASH}),
        **{name: pem for name in ("tls/server.pem", "hop/client.pem")},
        **{name: key for name in ("tls/server.key", "hop/client.key")},
        **{name: authority.pem for name in ("hop/ca.pem", "client-ca.pem")},
    }
    if config.browser is not None:
        files |= {"browser.conf": browser.server(config)}
    for path, text in files.items():
        target = tmp_path / "config" / "current" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    said = subprocess.run(
        [
            *("docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp"),
            *("--sysctl", "net.ipv4.ip_nonlocal_bind=1", "--tmpfs", "/var/log/gateway:uid=101,gid=101"),
            *("-v", f"{tmp_path / 'config'}:/config:ro", "--entrypoint", "nginx"),
            *(reference("gateway", os.environ.get("FORTRESS_ENGINE", "registry-only")), "-t", "-q"),
            *("-c", "/config/current/nginx.conf"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (said.returncode, said.stderr.strip()) == (0, "")


def test_every_open_route_has_a_location_and_nothing_else_has():
    text = nginx.gateway(stack(), stack().plan)
    paths = [row["path"] for row in nginx.routes("0.35.0")]
    for path in paths:
        assert f"{path} {{\n            set $args" in text
    assert text.count("js_access gateway.admit;") == len(paths)
    table = json.loads(nginx.ROUTES.read_text())
    for never in [*table["never"], *table["declared"], "/api/create", "/api/blobs"]:
        assert never.partition("/:")[0] + " {" not in text


def test_upload_needs_its_switch_and_an_ollama_without_the_known_hole():
    uploads = {"/api/create", "/api/blobs/"}

    def paths(version: str, switch: bool) -> set[str]:
        return {row["path"] for row in nginx.routes(version, model_upload=switch)}

    assert uploads <= paths("0.35.0", True)
    assert not uploads & paths("0.35.0", False)
    assert not uploads & paths("0.32.15", True)
    assert "api/create" not in nginx.gateway(stack(engine="registry-only", **UPLOAD), stack().plan)


@pytest.mark.parametrize("mode", images.MODES)
def test_the_ollama_of_each_engine_has_routes_that_somebody_has_read(mode: str):
    assert nginx.routes(catalogue.load().ollama_version(mode))


def test_a_newer_ollama_in_the_catalogue_is_refused_until_its_routes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    newer = tmp_path / "catalogue.yaml"
    newer.write_text(catalogue.FILE.read_text().replace("tag: 0.35.0", "tag: 0.36.0"))
    known = catalogue.load(newer)
    monkeypatch.setattr(catalogue, "load", lambda: known)
    with pytest.raises(ValueError, match=r"Ollama 0\.36\.0 are not known"):
        nginx.gateway(stack(), stack().plan)
    assert nginx.gateway(stack(engine="registry-only"), stack().plan)


def test_an_ollama_whose_routes_nobody_has_read_is_refused_by_name():
    with pytest.raises(ValueError, match=r"Ollama 0\.36\.0 are not known"):
        nginx.routes("0.36.0")


@pytest.mark.parametrize("word", ["worker_shutdown_timeout", "auth_request", "limit_conn", "http2 on", "proxy_cache"])
def test_what_would_break_a_promise_is_absent(word: str):
    assert word not in nginx.gateway(stack(), stack().plan)


@given(st.text(min_size=1, max_size=40) | st.sampled_from(["a.b; evil on", "a.b\n}", "a$b.c", "a{b.c", 'a"b.c']))
def test_no_domain_can_leave_its_place(domain: str):
    try:
        config = stack(domain=domain)
    except ValidationError:
        config = stack().model_copy(update={"domain": domain})  # past the settings, the renderer still refuses
    try:
        text = nginx.gateway(config, config.plan)
    except NotInItsPlace:
        return
    assert text.replace(domain, "ollama.fortress.internal").count("\n") == VARIANTS["gateway.conf"]().count("\n")
    assert not set(domain) & set(" \n\r\t;{}$\"'#\\")


@given(st.lists(st.text(max_size=20), max_size=3))
def test_principals_are_data_whatever_they_hold(models: list[str]):
    config = stack()
    bob = config.users["bob"].model_copy(update={"models": tuple(models)})
    config = config.model_copy(update={"users": {**config.users, "bob": bob}})
    text = principals(config, {}, {"bob": HASH})
    head, _, body = text.partition("export default ")
    assert head.startswith("// ") and head.count("\n") == 1
    assert json.loads(body.rstrip().removesuffix(";"))["users"]["bob"]["models"] == models


def test_old_and_new_key_and_address_are_one_users_while_both_are_valid():
    old = {("bob", "pc"): ADDRESSES["bob", "default"]}
    both = {("bob", "pc"): (*ADDRESSES["bob", "default"], *ADDRESSES["alice", "laptop"])}
    alone, rotating = (
        json.loads(text.partition("export default ")[2].rstrip()[:-1])
        for text in (
            principals(stack(), old, {"alice": "a" * 64, "bob": HASH}),
            principals(stack(), both, {"alice": "a" * 64, "bob": HASH}, {"bob": "d" * 64}),
        )
    )
    assert rotating["keys"] == alone["keys"] | {"d" * 64: "bob"}
    assert len(rotating["addresses"]) == 4
    assert all(row == {"user": "bob", "device": "pc"} for row in rotating["addresses"].values())
    assert rotating["users"] == alone["users"]


def test_a_keys_text_is_not_among_the_principals_and_an_id_names_their_state():
    first = principals(stack(), {}, {"bob": HASH})
    again, other = principals(stack(), {}, {"bob": HASH}), principals(stack(), {}, {"bob": "d" * 64})
    assert first == again
    assert json.loads(first.partition("export default ")[2].rstrip()[:-1])["id"] not in other
