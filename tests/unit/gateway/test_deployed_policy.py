"""Attacks on the gateway as it is deployed, with raw sockets where a polite client would hide them."""

import contextlib
import json
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.unit.gateway.harness import BODY_LIMIT_MB, DOMAIN, KEYS, STRANGER, TUNNEL4, TUNNEL6, USERS, Bench, settings

ALICE, BOB, CAROL = KEYS["alice"], KEYS["bob"], KEYS["carol"]
LAPTOP, LAPTOP6, PHONE = "10.66.3.4", "fd66:66:66:66::34", "10.66.5.6"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "a secret prompt"}]}
HELLO = json.dumps(CHAT).encode()
IMPATIENT = {"ollama": {"load_timeout_s": 10}}


def generate(prompt: str = "1 0", model: str = "tiny") -> dict[str, Any]:
    """For any route: of the two, only the one that the route knows goes on."""
    return {"model": model, "prompt": prompt, "messages": [{"role": "user", "content": prompt}]}


def request(
    line: str, *headers: str, key: str | None = BOB, body: bytes = b"", host: str = DOMAIN, close: bool = True
) -> bytes:
    rows = [line, f"Host: {host}", *headers]
    if key:
        rows.append(f"Authorization: Bearer {key}")
    if close:
        rows.append("Connection: close")
    return "\r\n".join([*rows, "", ""]).encode("latin-1") + body


def status(data: bytes) -> int:
    return int(data.split(b" ")[1]) if data else 0


# Identity: rows 1-7, 21, 23 of the attack table.


@pytest.mark.parametrize(
    "value",
    [
        None, "", "Bearer", "Bearer ", "Bearer " + "0" * 64, f"Bearer {BOB[:-1]}", f"Bearer {BOB}x",
        f"Bearer x, Bearer {BOB}", f"Bearer  {BOB}", f"Bearer\t{BOB}", f"Basic {BOB}", BOB, f"Bearer {BOB.upper()}",
    ],
)  # fmt: skip
def test_without_a_valid_key_nothing_is_heard_behind(value: str | None, quiet: Bench):
    headers = [] if value is None else [("Authorization", value)]
    for method, path in (("POST", "/api/chat"), ("GET", "/api/tags"), ("GET", "/v1/models"), ("HEAD", "/")):
        reply = quiet.ask(method, path, headers=headers, body=CHAT if method == "POST" else None)
        assert reply.status == 401, (path, reply)
        assert reply.headers["www-authenticate"] == "Bearer"
    assert quiet.ask("GET", "/", headers=headers).status == 404
    assert quiet.heard() == []


def test_a_space_behind_the_key_is_trimmed(quiet: Bench):
    assert quiet.ask("GET", "/api/tags", headers={"Authorization": f"Bearer {BOB}  "}).status == 200


@pytest.mark.parametrize("keys", [("0" * 64, BOB), (BOB, "0" * 64), (BOB, BOB), (BOB, ALICE)])
def test_two_keys_are_no_key(keys: tuple[str, str], quiet: Bench):
    rows = [("Authorization", f"Bearer {key}") for key in keys]
    assert quiet.ask("POST", "/api/chat", headers=rows, body=CHAT).status == 400
    assert quiet.heard() == []


FORGED = {
    "X-Forwarded-User": "alice", "X-Forwarded-Email": "a@b.c", "X-Forwarded-Groups": "admin", "X-Remote-User": "alice",
    "X-Auth-Request-User": "alice", "Remote-User": "alice", "Cf-Access-Jwt-Assertion": "x", "X-Api-Client": "alice",
    "Tailscale-User-Login": "alice", "X-Real-IP": LAPTOP, "X-Forwarded-For": LAPTOP, "Forwarded": f"for={LAPTOP}",
    "X-Api-Key": ALICE, "Cookie": "session=1", "Proxy-Authorization": f"Bearer {ALICE}",
}  # fmt: skip


def test_forged_identity_proves_nothing_and_never_goes_on(quiet: Bench):
    assert quiet.ask("POST", "/api/chat", headers=FORGED, body=CHAT).status == 401
    assert quiet.audit()[-1]["address"] == STRANGER
    assert quiet.heard() == []
    more = {**FORGED, "Origin": "https://evil.example", "Upgrade": "websocket", "Accept-Encoding": "gzip"}
    assert quiet.ask("POST", "/api/chat", key=BOB, headers=more, body=CHAT).status == 200
    (heard,) = quiet.heard()
    assert {name for name, _ in heard["headers"]} <= {"Host", "Content-Length", "Content-Type", "X-Request-Id"}
    assert dict(heard["headers"])["Host"] == "localhost:11434"
    assert quiet.audit()[-1]["principal"] == "bob"


def test_the_role_is_the_keys_owner(quiet: Bench):
    body = {"source": "tiny", "destination": "mine"}
    assert quiet.ask("POST", "/api/copy", key=BOB, body=body).status == 403
    assert quiet.ask("GET", "/api/copy", key=BOB).status == 403
    assert quiet.heard() == []
    assert quiet.ask("POST", "/api/copy", key=ALICE, body=body).status == 200
    assert len(quiet.heard()) == 1


def test_a_key_in_a_trailer_is_no_key(quiet: Bench):
    body = b"%x\r\n%b\r\n0\r\nAuthorization: Bearer %b\r\n\r\n" % (len(HELLO), HELLO, BOB.encode())
    data = request("POST /api/chat HTTP/1.1", "Transfer-Encoding: chunked", key=None, body=body)
    assert status(quiet.raw(data)) == 401
    assert quiet.heard() == []


def test_a_second_request_of_a_connection_proves_itself(quiet: Bench):
    two = request("GET /api/tags HTTP/1.1", close=False) + request("GET /api/tags HTTP/1.1", key=None)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", quiet.raw(two))
    assert statuses == [b"200", b"401"]
    assert len(quiet.heard()) == 1


def test_anthropics_header_is_a_key_on_anthropics_route_only(quiet: Bench):
    assert quiet.ask("POST", "/v1/messages", headers={"x-api-key": BOB}, body=CHAT).status == 200
    assert quiet.ask("POST", "/v1/messages", headers={"x-api-key": "0" * 64}, body=CHAT).status == 401
    assert quiet.ask("POST", "/api/chat", headers={"x-api-key": BOB}, body=CHAT).status == 401


# Keyless.


@pytest.mark.parametrize("address", [LAPTOP, LAPTOP6])
def test_a_keyless_user_is_proven_by_the_tunnel(address: str, quiet: Bench):
    assert quiet.ask("POST", "/api/chat", address=address, body=CHAT).status == 200
    line = quiet.audit()[-1]
    assert (line["principal"], line["proof"], line["device"], line["address"]) == (
        "alice", "address", "laptop", address,
    )  # fmt: skip


def test_the_tunnel_proves_nobody_who_did_not_ask_for_it(quiet: Bench):
    assert quiet.ask("GET", "/api/tags", address=PHONE).status == 401
    assert quiet.ask("GET", "/api/tags", address=STRANGER).status == 401
    assert quiet.ask("GET", "/api/tags", address=LAPTOP, key="0" * 64).status == 401


def test_on_the_listener_without_proxy_protocol_no_address_proves_anybody(quiet: Bench):
    assert quiet.ask("GET", "/api/tags", address=None, port=8444, key=BOB).status == 200
    assert quiet.ask("GET", "/api/tags", address=None, port=8444).status == 401
    line = f"PROXY TCP4 {LAPTOP} {TUNNEL4} 1 443\r\n".encode()
    with socket.create_connection((quiet.host(3), 8444), timeout=5) as plain:
        plain.sendall(line + request("GET /api/tags HTTP/1.1", key=None))
        with contextlib.suppress(OSError):
            assert b" 200 " not in plain.recv(4096)
    assert len(quiet.heard()) == 1


def test_proxy_protocol_is_believed_from_the_relay_only(quiet: Bench):
    """The Ollama stand-in is a neighbour on this network: it may say what it likes."""
    script = (
        f"exec 3<>/dev/tcp/{quiet.host(3)}/8443; printf 'PROXY TCP4 {LAPTOP} {TUNNEL4} 1 443\\r\\n"
        "GET /api/tags HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; timeout 3 cat <&3"
    )
    said = quiet.containers["ollama"].exec_run(["bash", "-c", script]).output
    assert b" 400 " in said  # plain HTTP on the TLS port; the audit line shows whom the gateway saw
    assert quiet.audit()[-1]["address"] == quiet.host(5)
    assert quiet.audit()[-1]["relay"] == ""


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=lambda headers: "-".join(headers.values()),
)
def test_a_foreign_page_cannot_act_for_a_keyless_user(headers: dict[str, str], quiet: Bench):
    reply = quiet.ask("POST", "/api/chat", address=LAPTOP, headers=headers, body=CHAT)
    assert (reply.status, quiet.audit()[-1]["reason"]) == (403, "cross-site")
    assert quiet.heard() == []
    own = {"Origin": f"https://{DOMAIN}", "Sec-Fetch-Site": "same-origin"}
    assert quiet.ask("POST", "/api/chat", address=LAPTOP, headers=own, body=CHAT).status == 200
    reply = quiet.ask("POST", "/api/chat", key=BOB, headers=headers, body=CHAT)
    assert reply.status == 200
    assert "access-control-allow-origin" not in reply.headers


# Routes and methods: rows 8-15.


@pytest.mark.parametrize(
    "path",
    [
        "/api/../api/pull", "/api/chat/../pull", "/api/chat/..%2fpull", "/api/%2e%2e/pull", "/api/.%2e/pull",
        "//api/pull", "/api/%70ull", "/API/PULL", "/api/pull/", "/api/chat/", "/api/chat;a=b", "//api/chat",
        "/api/%63hat", "/api/../api/chat", "/api/x/../chat", "/api/./chat", "/API/CHAT", "/api/%c0%ae%c0%ae/chat",
        "/api/%e0%80%ae/chat", "/api/chat\\..\\pull", "/api/chat%20", "/api/chat%3Fx", "/-/models", "/-/error/200",
        "/api/pull", "/api/push", "/api/me", "/api/signout", "/api/user/keys/x", "/api/status", "/debug/pprof/heap",
        "/api/experimental/model-recommendations", "/api/experimental/web_search", "/api/experimental/web_fetch",
        "/v1/audio/transcriptions", "/metrics", "/.env", "/oauth2/auth", "/_auth", "/%5fauth", "/healthz", "/v1/",
        "/v1", "/api", "/api/", "/v1/files", "/api/blobs",
    ],
)  # fmt: skip
def test_a_closed_or_unknown_path_is_404_for_everybody(path: str, quiet: Bench):
    for key in (None, BOB, ALICE):
        reply = quiet.ask("POST", path, key=key, body=CHAT)
        assert reply.status == 404, (path, key, reply)
    assert quiet.heard() == []
    assert quiet.audit()[-1]["route"] == "unknown"


def test_the_refusal_of_pull_names_the_way_out(quiet: Bench):
    for path in ("/api/pull", "/api/push"):
        assert "models:" in quiet.ask("POST", path, key=ALICE, body={"model": "x"}).json["error"]


@pytest.mark.parametrize("target", ["\\api\\chat", "/x/..%2f..%2f..%2fapi/chat", "*", "api/chat", "/api/chat%zz"])
def test_a_target_that_is_no_path_is_400(target: str, quiet: Bench):
    reply = quiet.ask("POST", target, key=ALICE, body=CHAT)
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/json"
    assert quiet.heard() == []


@pytest.mark.parametrize("path", ["/api/chat%00", "/api/chat%0d%0aX: y"])
def test_control_characters_in_a_path_lead_nowhere(path: str, quiet: Bench):
    assert quiet.ask("POST", path, key=ALICE, body=CHAT).status in (400, 404)
    assert quiet.heard() == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "COPY", "FOO"])
def test_a_wrong_method_is_405_and_says_what_is_allowed(method: str, quiet: Bench):
    reply = quiet.ask(method, "/api/chat", key=BOB)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert quiet.ask(method, "/api/chat").status == 401
    assert quiet.heard() == []


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_a_read_is_only_read(method: str, quiet: Bench):
    reply = quiet.ask(method, "/api/tags", key=BOB)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")
    assert quiet.heard() == []


@pytest.mark.parametrize(("line", "wanted"), [
    ("TRACE /api/chat HTTP/1.1", 405), ("CONNECT evil.example:443 HTTP/1.1", 405), ("post /api/chat HTTP/1.1", 400),
    ("POST /api/chat HTTP/2.0", 505), ("PRI * HTTP/2.0", 400), ("POST /api/chat HTTP/1.1 x", 400),
])  # fmt: skip
def test_odd_request_lines(line: str, wanted: int, quiet: Bench):
    reply = quiet.raw(request(line, "Content-Length: 0"))
    assert status(reply) in ({wanted, 400} if wanted == 505 or "PRI" in line else {wanted}), reply
    assert quiet.heard() == []


def test_http_0_9_and_1_0_without_a_host_get_nothing(quiet: Bench):
    assert b"tiny" not in quiet.raw(b"GET /api/tags\r\n\r\n")
    assert status(quiet.raw(b"GET /api/tags HTTP/1.0\r\nAuthorization: Bearer " + BOB.encode() + b"\r\n\r\n")) != 200
    assert quiet.heard() == []


def test_the_query_stays_here(quiet: Bench):
    assert quiet.ask("GET", "/api/tags?secret=1", key=BOB).status == 200
    assert quiet.heard()[-1]["uri"] == "/api/tags"
    assert "secret" not in json.dumps(quiet.audit()[-1])


def test_head_of_the_root_is_for_the_cli(quiet: Bench):
    assert quiet.ask("HEAD", "/", key=BOB).status == 200
    assert quiet.ask("HEAD", "/", address=LAPTOP).status == 200
    assert quiet.ask("GET", "/", key=BOB).status == 404
    assert [row["method"] for row in quiet.heard()] == ["HEAD", "HEAD"]


def test_one_model_is_described_by_the_gateway(quiet: Bench):
    assert quiet.ask("GET", "/v1/models/tiny", key=BOB).json["id"] == "tiny:latest"
    assert quiet.ask("GET", "/v1/models/llama3.2:9b", key=BOB).json["error"]["code"] == "no-such-model"
    assert quiet.ask("GET", "/v1/models/evil", key=BOB).status == 403
    assert quiet.ask("GET", "/v1/models/x:cloud", key=ALICE).status == 403
    assert quiet.ask("GET", "/v1/models/..%2f..%2fapi%2fpull", key=ALICE).status in (400, 404)
    assert quiet.ask("GET", "/v1/models/tiny").status == 401
    assert {row["uri"] for row in quiet.heard()} == {"/v1/models"}


@pytest.mark.parametrize("path", ["/api/tags", "/api/ps", "/v1/models"])
def test_a_list_shows_a_caller_the_models_it_may_use(path: str, quiet: Bench):
    def shown(key: str) -> set[str]:
        reply = quiet.ask("GET", path, key=key)
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        return {row.get("model") or row["id"] for row in reply.json.get("models", reply.json.get("data"))}

    assert shown(ALICE) == {"tiny:latest", "llama3.2:3b", "other:1b"}
    assert shown(BOB) == {"tiny:latest", "llama3.2:3b"}
    assert {row["uri"] for row in quiet.heard()} == {path}


def test_the_head_of_a_list_has_no_body(quiet: Bench):
    reply = quiet.ask("HEAD", "/api/tags", key=BOB)
    assert (reply.status, reply.body) == (200, b"")
    assert int(reply.headers["content-length"]) > 0


@pytest.mark.parametrize("path", ["/-/api/tags", "/-/v1/models", "/-/models", "/-/error/500"])
def test_no_client_reaches_what_is_internal(path: str, quiet: Bench):
    assert quiet.ask("GET", path, key=ALICE).status == 404
    assert quiet.heard() == []


def test_upload_is_for_admins_where_it_is_switched_on(quiet: Bench):
    digest = "sha256:" + "a" * 64
    assert quiet.ask("POST", f"/api/blobs/{digest}", key=ALICE, body=b"x" * 100_000).status == 200
    assert quiet.ask("POST", f"/api/blobs/{digest}", key=BOB, body=b"x").status == 403
    assert quiet.ask("POST", "/api/blobs/sha256:..%2f..%2fx", key=ALICE, body=b"x").status in (400, 404)
    assert quiet.ask("POST", "/api/create", key=ALICE, body={"model": "m", "from": "evil.example/x"}).status == 400
    (heard,) = quiet.heard()
    assert (heard["uri"], len(heard["body"])) == (f"/api/blobs/{digest}", 100_000)


# Framing: rows 16-26, 33-36.

CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HELLO), HELLO)


@pytest.mark.parametrize(("headers", "body"), [
    (["Content-Length: 6", "Transfer-Encoding: chunked"], b"0\r\n\r\nG"),
    (["Transfer-Encoding: chunked", "Content-Length: 6"], CHUNKED + b"GET /api/pull HTTP/1.1\r\n\r\n"),
    (["Transfer-Encoding: xchunked"], CHUNKED), (["Transfer-Encoding: chunked, identity"], CHUNKED),
    (["Transfer-Encoding:\tchunked, chunked"], CHUNKED), (["Transfer-Encoding: chunked"] * 2, CHUNKED),
    (["Transfer-Encoding : chunked"], CHUNKED), (["X-A: 1\r\n Transfer-Encoding: chunked"], CHUNKED),
    (["Content-Length: 5"] * 2, HELLO), (["Content-Length: 5", "Content-Length: 6"], HELLO),
    (["Content-Length: 2, 2"], HELLO), (["Content-Length: +2"], HELLO), (["Content-Length: -1"], HELLO),
    (["Content-Length: 0x2"], HELLO), (["Content-Length: " + "9" * 23], HELLO),
    (["Transfer-Encoding: chunked"], b"fffffffffffffffff\r\nx\r\n0\r\n\r\n"),
    (["Transfer-Encoding: chunked"], b"-1\r\nx\r\n0\r\n\r\n"),
    (["X-A: a\rb"], b""), (["X-A: a\0b"], b""),
])  # fmt: skip
def test_a_request_that_two_parsers_could_cut_differently_is_refused(headers: list[str], body: bytes, quiet: Bench):
    reply = quiet.raw(request("POST /api/chat HTTP/1.1", *headers, body=body))
    assert status(reply) in (400, 501), reply
    assert reply.count(b"HTTP/1.1 ") == 1
    assert quiet.heard() == []


def test_chunked_in_http_1_0_is_refused(quiet: Bench):
    reply = quiet.raw(request("POST /api/chat HTTP/1.0", "Transfer-Encoding: chunked", body=CHUNKED))
    assert status(reply) == 400
    assert quiet.heard() == []


def test_a_chunked_body_is_read_and_goes_on_with_its_length(quiet: Bench):
    reply = quiet.raw(request("POST /api/chat HTTP/1.1", "Transfer-Encoding: chunked", body=CHUNKED))
    assert status(reply) == 200
    assert json.loads(quiet.heard()[-1]["body"]) == {**CHAT, "options": {"num_predict": 4096}}


def test_websockets_are_never_opened(quiet: Bench):
    upgrade = ["Upgrade: websocket", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"]
    data = request("GET /api/tags HTTP/1.1", *upgrade).replace(b"Connection: close", b"Connection: Upgrade, close")
    assert status(quiet.raw(data)) == 200
    assert "Upgrade" not in dict(quiet.heard()[-1]["headers"])


@pytest.mark.parametrize(("line", "headers", "wanted"), [
    ("GET /api/tags HTTP/1.1", ["X-Long: " + "a" * 9000], 400),
    ("GET /api/tags HTTP/1.1", [f"X-{i}: " + "a" * 4000 for i in range(40)], 400),
    ("GET /api/tags?" + "a" * 9000 + " HTTP/1.1", [], 414),
    ("GET /api/tags HTTP/1.1", [f"X-{i}: 1" for i in range(2000)], 400),
])  # fmt: skip
def test_headers_have_limits(line: str, headers: list[str], wanted: int, quiet: Bench):
    reply = quiet.raw(request(line, *headers))
    assert status(reply) == wanted
    assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
    assert quiet.heard() == []


@pytest.mark.parametrize("key", [None, BOB])
def test_a_body_above_the_limit_is_413_before_it_is_sent(key: str | None, quiet: Bench):
    data = request("POST /api/chat HTTP/1.1", "Content-Length: 100000000", "Expect: 100-continue", key=key)
    assert status(quiet.raw(data)) == 413
    assert quiet.heard() == []
    line = quiet.audit()[-1]
    assert (line["principal"], line["route"]) == ("bob" if key else "", "/api/chat"), "nginx refuses, and names nobody"


def test_a_chunked_body_above_the_limit_is_413(quiet: Bench):
    piece = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    data = request("POST /api/chat HTTP/1.1", "Transfer-Encoding: chunked", body=piece * (BODY_LIMIT_MB + 1))
    assert status(quiet.raw(data)) in (413, 0)
    assert quiet.audit()[-1]["status"] == 413
    assert quiet.heard() == []


def test_a_small_route_takes_a_small_body(quiet: Bench):
    body = json.dumps({"model": "tiny", "x": "y" * 100_000}).encode()
    assert quiet.ask("POST", "/api/show", key=BOB, body=body).status == 413
    assert quiet.ask("POST", "/api/chat", key=BOB, body=body).status == 200


def test_a_large_body_goes_through_whole(quiet: Bench):
    image = "A" * (BODY_LIMIT_MB * 1024 * 1024 - 1000)
    message = {"role": "user", "content": "what is this?", "images": [image]}
    assert quiet.ask("POST", "/api/chat", key=BOB, body={**CHAT, "messages": [message]}).status == 200
    assert len(quiet.heard()[-1]["body"]) > len(image)


def test_a_large_body_without_a_key_is_not_read(quiet: Bench):
    reply = quiet.ask("POST", "/api/chat", body=b"x" * 4_000_000)
    assert reply.status in (401, 0)
    assert quiet.audit()[-1]["status"] == 401
    assert quiet.heard() == []


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "identity", ""])
def test_an_encoded_body_is_415(encoding: str, quiet: Bench):
    assert quiet.ask("POST", "/api/chat", key=BOB, headers={"Content-Encoding": encoding}, body=CHAT).status == 415
    assert quiet.heard() == []


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b"", 400), (b"{", 400), (b"[]", 400), (b'{"model":"tiny"}{}', 400), (b'{"model":"tiny","MODEL":"evil"}', 400),
        (b'{"model":"evil"}', 403), (b'{"model":"x:cloud"}', 403), (b'{"model":"\xff"}', 400),
    ],
)  # fmt: skip
def test_a_bad_body_goes_nowhere_and_its_words_are_not_in_the_audit_line(body: bytes, wanted: int, quiet: Bench):
    assert quiet.ask("POST", "/api/chat", key=BOB, body=body).status == wanted
    line = quiet.audit()[-1]
    assert (line["model"], line["verdict"]) == ("unknown", "refused")
    assert quiet.heard() == []


def test_of_two_equal_keys_ollama_sees_the_one_that_was_judged(quiet: Bench):
    assert quiet.ask("POST", "/api/chat", key=BOB, body=b'{"model":"evil","model":"tiny"}').status == 200
    assert quiet.heard()[-1]["body"] == '{"model":"tiny","options":{"num_predict":4096}}'
    assert quiet.ask("POST", "/api/chat", key=BOB, body=b'{"model":"tiny","model":"evil"}').status == 403


def test_errors_have_the_shape_of_the_callers_api(quiet: Bench):
    for key, wanted in ((None, 401), (BOB, 403)):
        body = {"model": "evil"}
        native = quiet.ask("POST", "/api/chat", key=key, body=body)
        openai = quiet.ask("POST", "/v1/chat/completions", key=key, body=body)
        anthropic = quiet.ask("POST", "/v1/messages", key=key, body=body)
        assert [reply.status for reply in (native, openai, anthropic)] == [wanted] * 3
        assert isinstance(native.json["error"], str)
        assert set(openai.json["error"]) == {"message", "type", "param", "code"}
        assert (anthropic.json["type"], set(anthropic.json["error"])) == ("error", {"type", "message"})


# TLS and names: rows 41-44, 59.


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1", "TLSv1_2"])
def test_only_tls_1_3_is_spoken(version: str, quiet: Bench):
    context = quiet.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else this client itself would not try
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        quiet.connect(context=context)
    with quiet.connect() as connection:
        assert connection.version() == "TLSv1.3"


def test_a_foreign_sni_ends_the_handshake(quiet: Bench):
    context = quiet.context()
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        quiet.connect(sni="evil.example", context=context)


@pytest.mark.parametrize("host", ["evil.example", DOMAIN, "localhost", "127.0.0.1", "10.66.0.2", "", "_"])
def test_without_sni_only_a_tunnel_address_is_answered(host: str, quiet: Bench):
    assert quiet.raw(request("GET /api/tags HTTP/1.1", host=host), sni=None) == b"" or host == ""
    assert quiet.heard() == []


@pytest.mark.parametrize("host", [TUNNEL4, f"[{TUNNEL6}]"])
def test_a_tunnel_address_is_served_without_sni(host: str, quiet: Bench):
    assert quiet.ask("GET", "/api/tags", host=host, sni=None, key=BOB).status == 200


@pytest.mark.parametrize(("host", "wanted"), [(TUNNEL4, 421), ("evil.example", 0), (f"{DOMAIN}.", 200)])
def test_sni_and_host_must_agree(host: str, wanted: int, quiet: Bench):
    assert quiet.ask("GET", "/api/tags", host=host, key=BOB).status == wanted
    assert len(quiet.heard()) == (1 if wanted == 200 else 0)


def test_plain_http_is_400_without_a_redirect(quiet: Bench):
    with quiet.plain(STRANGER) as plain:
        plain.sendall(request("GET /api/tags HTTP/1.1"))
        said = plain.recv(65536)
    assert status(said) == 400
    assert b"ocation:" not in said


def test_the_hop_wants_the_gateways_certificate(quiet: Bench):
    from tests.unit.gateway.harness import Authority

    def through(pair: tuple[str, str] | None) -> bytes:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=quiet.hop.pem)
        if pair:
            for name, text in zip(("c.pem", "c.key"), pair, strict=True):
                (quiet.folder / name).write_text(text)
            context.load_cert_chain(quiet.folder / "c.pem", quiet.folder / "c.key")
        plain = socket.create_connection((quiet.host(4), 8443), timeout=5)
        with context.wrap_socket(plain, server_hostname="ollama-sidecar") as connection:
            connection.sendall(b"GET /api/tags HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            with contextlib.suppress(ssl.SSLError):
                return connection.recv(65536)
        return b""

    assert status(through(quiet.client_pair)) == 200
    quiet.forget()
    stranger, served = Authority("another").leaf("gateway", client=True), quiet.hop.leaf("gateway")
    for pair in (None, stranger, served):
        assert status(through(pair)) in (0, 400)
    assert quiet.heard() == []


def test_no_page_shows_a_version_or_a_name_of_what_is_behind(quiet: Bench):
    replies = [
        quiet.raw(request("GET /nothing HTTP/1.1")),
        quiet.raw(request("GET /api/tags HTTP/1.1", key=None)),
        quiet.raw(b"GARBAGE\r\n\r\n"),
        quiet.raw(request("POST /api/chat HTTP/1.1", "Content-Length: 999999999")),
        quiet.raw(request("TRACE / HTTP/1.1")),
        quiet.raw(request("GET /api/tags HTTP/1.1")),
    ]
    for reply in replies:
        head, _, body = reply.partition(b"\r\n\r\n")
        assert re.search(rb"(?i)nginx/|\d+\.\d+\.\d+|sidecar|172\.|<html|openresty|njs", head + body) is None, reply
        assert b"nginx" not in body
        if head:
            assert b"nosniff" in head and b"no-store" in head and b"X-Request-Id" in head


# Streaming.


def read_until(connection: ssl.SSLSocket, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return data


def opened(bench: Bench, user: str, prompt: str, path: str = "/api/generate", key: str | None = None) -> ssl.SSLSocket:
    body = json.dumps(generate(prompt)).encode()
    connection = bench.connect()
    connection.sendall(
        request(f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", key=key or KEYS[user], body=body)
    )
    return connection


@pytest.mark.parametrize("path", ["/api/generate", "/v1/chat/completions"])
def test_every_chunk_leaves_as_soon_as_it_was_written(path: str, quiet: Bench):
    with opened(quiet, "bob", "8 300", path) as stream:
        late: list[float] = []
        for number in range(8):
            data = read_until(stream, b'"n":%d' % number)
            assert data.count(b'"n":') == 1, "chunks came together"
            written = int(data.rpartition(b'"at":')[2].partition(b"}")[0])
            late.append(time.time() * 1000 - written)
        assert b'"done":true' in read_until(stream, b"0\r\n\r\n")
    # A busy machine holds one up now and then; whoever buffers holds up all.
    assert sorted(late)[len(late) // 2] < 100, late


def test_the_audit_line_of_a_stream_says_how_it_ended(quiet: Bench):
    quiet.ask("POST", "/api/generate", key=BOB, body=generate("3 50"))
    line = quiet.audit()[-1]
    assert set(line) == {
        "time", "request_id", "principal", "proof", "device", "relay", "address", "route", "method", "status",
        "verdict", "reason", "model", "agent", "tokens_in", "tokens_out", "first_token_s", "duration_s", "queued_s",
        "bytes", "completion", "tls",
    }  # fmt: skip
    assert (line["verdict"], line["model"], line["completion"], line["tls"]) == (
        "allowed",
        "tiny",
        "finished",
        "TLSv1.3",
    )
    with opened(quiet, "bob", "50 50") as stream:
        read_until(stream, b'"n":1')
    time.sleep(0.5)
    line = quiet.audit()[-1]
    assert (line["status"], line["completion"]) in ((499, "cut"), (200, "cut"))


def test_no_prompt_and_no_key_is_in_any_log(quiet: Bench):
    quiet.ask("POST", "/api/chat", key=BOB, body=CHAT)
    text = json.dumps(quiet.audit()) + quiet.logs("gateway") + quiet.logs("sidecar")
    assert "secret" not in text
    assert BOB not in text


# Limits.


def test_the_rate_limit_names_itself_and_is_nobody_elses(quiet: Bench):
    replies = [quiet.ask("POST", "/api/generate", key=KEYS["slow"], body=generate()) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 429, 429]
    assert "requests_per_minute" in replies[2].json["error"]
    assert 1 <= int(replies[2].headers["retry-after"]) <= 30
    assert quiet.audit()[-1]["reason"] == "requests_per_minute"
    assert quiet.ask("POST", "/api/generate", key=BOB, body=generate()).status == 200
    assert quiet.ask("GET", "/api/tags", key=KEYS["slow"]).status == 200, "reads are counted apart"


def test_reads_have_a_limit_of_their_own(quiet: Bench):
    statuses = [quiet.ask("GET", "/api/version", key=KEYS["slow"]).status for _ in range(8)]
    assert statuses[-1] == 429
    assert quiet.audit()[-1]["reason"] == "reads_per_minute"


def test_streams_are_counted_and_given_back_however_they_end(quiet: Bench):
    def one(prompt: str = "1 0") -> int:
        return quiet.ask("POST", "/api/generate", key=KEYS["narrow"], body=generate(prompt)).status

    for _ in range(2):  # the second time proves that the first gave everything back
        with opened(quiet, "narrow", "100 50") as first, opened(quiet, "narrow", "100 50") as second:
            read_until(first, b'"n":1')
            read_until(second, b'"n":1')
            reply = quiet.ask("POST", "/api/generate", key=KEYS["narrow"], body=generate())
            assert (reply.status, quiet.audit()[-1]["reason"]) == (429, "concurrent")
            assert quiet.ask("POST", "/api/generate", key=BOB, body=generate()).status == 200
        time.sleep(0.3)
    for prompt in ("broken", "1 0", "3 10"):
        assert [one(prompt) for _ in range(4)].count(429) == 0
    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(one, ["5 100"] * 6)) == [200, 200, 429, 429, 429, 429]
    bad = [quiet.ask("POST", "/api/generate", key=KEYS["narrow"], body=b"{").status for _ in range(4)]
    assert bad == [400] * 4


@pytest.mark.parametrize(("path", "status"), [("/nothing", b"404"), ("/-/error/429", b"404"), ("/api/chat", b"401")])
def test_a_refusal_waits_for_no_body(path: str, status: bytes, quiet: Bench):
    with quiet.connect() as slow:
        slow.sendall(request(f"POST {path} HTTP/1.1", "Content-Length: 1000", key=None, body=b"{"))
        slow.settimeout(3)
        assert slow.recv(65536).split(b" ")[1] == status


def test_an_answer_that_never_ends_is_cut_and_gives_its_slot_back(quiet: Bench):
    quiet.reload(settings(stack=IMPATIENT, longest_answer_s=10, read_timeout_s=10, slots=1))
    since = time.monotonic()
    with opened(quiet, "bob", "1000 100") as endless:
        while endless.recv(65536):
            assert time.monotonic() - since < 13
    line = quiet.audit()[-1]
    assert (line["verdict"], line["reason"], line["completion"]) == ("cut", "too-long", "cut")
    assert line["duration_s"] >= 10
    assert quiet.ask("POST", "/api/generate", key=ALICE, body=generate()).status == 200
    quiet.reload(settings(model_upload=True))


def test_a_flood_without_a_key_is_stopped_and_hurts_no_key(quiet: Bench):
    stranger = "10.66.88.88"

    def flood(_: int) -> list[bytes]:
        data = request("GET /api/tags HTTP/1.1", key=None, close=False) * 99 + request(
            "GET /api/tags HTTP/1.1", key=None
        )
        return re.findall(rb"HTTP/1\.1 (\d+)", quiet.raw(data, stranger))

    with ThreadPoolExecutor(3) as pool:
        seen = [code for codes in pool.map(flood, range(3)) for code in codes]
    assert set(seen) == {b"401", b"429"}
    assert quiet.ask("GET", "/api/tags", key=BOB, address=stranger).status == 200


# Ollama away.


def test_without_ollama_the_answer_is_502_in_the_callers_shape(quiet: Bench):
    quiet.containers["ollama"].stop(timeout=1)
    try:
        reply = quiet.ask("POST", "/v1/chat/completions", key=BOB, body=CHAT)
        line = quiet.audit()[-1]
    finally:
        quiet.containers["ollama"].start()
        quiet.until_ready()
    assert reply.status in (502, 504)
    assert reply.json["error"]["code"].startswith("upstream-")
    assert b"nginx" not in reply.body
    assert line["verdict"] == "failed"
    assert quiet.ask("POST", "/api/chat", key=BOB, body=CHAT).status == 200


def test_a_list_that_ollama_does_not_give_is_504(quiet: Bench):
    quiet.reload(settings(stack=IMPATIENT, read_timeout_s=10))
    quiet.containers["ollama"].pause()
    try:
        reply = quiet.ask("GET", "/api/tags", key=BOB)
        line = quiet.audit()[-1]
    finally:
        quiet.containers["ollama"].unpause()
        quiet.reload(settings(model_upload=True))
    assert (reply.status, line["verdict"], line["reason"]) == (504, "failed", "upstream-slow")


# Revocation: promise 2. Last, for it changes who is known.


def test_a_removed_user_is_dead_within_five_seconds_and_others_stream_on(bench: Bench):
    with (
        opened(bench, "bob", "300 50") as bobs,
        opened(bench, "alice", "150 50") as alices,
        bench.connect("10.66.7.8") as carols,
        bench.connect() as slow_head,
        bench.connect() as slow_body,
    ):
        head = request("POST /api/generate HTTP/1.1", f"Content-Length: {len(HELLO)}", body=HELLO)
        slow_head.sendall(head[:30])
        slow_body.sendall(head[:-10])
        read_until(bobs, b'"n":1')
        read_until(alices, b'"n":1')
        body = json.dumps(generate("300 50")).encode()
        carols.sendall(request("POST /api/generate HTTP/1.1", f"Content-Length: {len(body)}", key=None, body=body))
        read_until(carols, b'"n":1')
        left: dict[str, Any] = {name: dict(user) for name, user in USERS.items() if name != "bob"}
        left["carol"]["keyless"] = False
        bench.reload(settings(left))
        started = time.monotonic()
        for name, stream in (("bob", bobs), ("carol", carols)):
            stream.settimeout(6)
            data = b""
            with contextlib.suppress(OSError):
                data = read_until(stream, b'"done":true')
            assert b'"done":true' not in data
            assert time.monotonic() - started < 5, f"{name} was still heard"
        bench.forget()
        slow_head.sendall(head[30:])
        slow_body.sendall(head[-10:])
        for slow in (slow_head, slow_body):
            assert status(read_until(slow, b"\r\n\r\n")) == 401, "a request begun before the switch was let in after it"
        assert bench.heard() == []
        assert bench.ask("GET", "/api/tags", key=BOB).status == 401
        assert bench.ask("GET", "/api/tags", address="10.66.7.8").status == 401
        assert bench.ask("GET", "/api/tags", key=CAROL).status == 200
        assert b'"done":true' in read_until(alices, b'"done":true'), "another's stream was cut"
    assert {line["reason"] for line in bench.audit()[-8:]} >= {"revoked"}
    bench.reload(settings(model_upload=True))
    assert bench.ask("POST", "/api/generate", key=BOB, body=generate("20 100")).body.count(b'"n":') == 20
