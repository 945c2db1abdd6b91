"""A client with nothing but its bundle, against the deployed fortress."""

import json

import pytest

from tests.deployment import PROMPT, Client, Deployment

STREAM = f"""
import httpx, json, os, sys, time
key = open('/tmp/bundle/api_key').read().strip()
body = {{'model': 'tiny', 'prompt': '{PROMPT}', 'options': {{'num_predict': 200}}}}
gaps, last, reads = [], None, 0
with httpx.stream('POST', 'https://ollama.fortress.internal/api/generate', json=body, timeout=60,
                  verify='/tmp/bundle/ca.pem', headers={{'Authorization': 'Bearer ' + key}}) as answer:
    for part in answer.iter_raw():
        reads += 1
        last = part
    print(json.dumps({{'status': answer.status_code, 'reads': reads, 'last': last.decode()}}))
"""


def test_the_stock_ollama_cli_works_without_a_key(terse: Client):
    listed = terse.run("/tmp/bundle/fortress-run", "ollama", "list")
    assert "tiny" in listed
    said = terse.run("/tmp/bundle/fortress-run", "ollama", "run", "tiny", PROMPT, timeout=60)
    assert said.strip()


def test_the_ollama_cli_of_a_user_without_keyless_is_refused(bob: Client):
    assert "tiny" not in bob.run("/tmp/bundle/fortress-run", "ollama", "list", check=False)


def test_chunks_arrive_one_by_one(bob: Client):
    # Of 200; a busy client finds some of them together, and may be busy once. Whoever holds them back always does.
    for _ in range(3):
        seen = json.loads(bob.python(STREAM))
        assert seen["status"] == 200
        if seen["reads"] > 40:
            break
    assert seen["reads"] > 40, "chunks were held back and came together"
    assert '"done":true' in seen["last"]


def test_the_openai_package_streams(bob: Client):
    script = (
        "from openai import OpenAI\n"
        "parts = list(OpenAI().chat.completions.create(model='tiny', stream=True, max_tokens=30,"
        f" messages=[{{'role': 'user', 'content': '{PROMPT}'}}]))\n"
        "print(len(parts))\n"
    )
    assert int(bob.run("/tmp/bundle/fortress-run", "python3", "-c", script)) > 10


def test_the_ollama_package_streams(bob: Client):
    script = (
        "import os, ollama\n"
        "client = ollama.Client(headers={'Authorization': 'Bearer ' + os.environ['OPENAI_API_KEY']})\n"
        f"print(len(list(client.generate('tiny', '{PROMPT}', stream=True, options={{'num_predict': 30}}))))\n"
    )
    assert int(bob.run("/tmp/bundle/fortress-run", "python3", "-c", script)) > 10


@pytest.mark.parametrize("host", ["ollama.fortress.internal", "10.66.0.1", "[fd66:66:66:66::1]"])
def test_it_answers_by_name_and_by_tunnel_address(host: str, bob: Client):
    assert bob.curl("/api/version", host=host).status == 200


def test_tls_1_2_is_refused(bob: Client):
    assert bob.curl("/api/version").status == 200
    assert bob.curl("/api/version", "--tls-max", "1.2").status == 0


def test_a_foreign_name_gets_no_answer(bob: Client):
    foreign = ["--connect-to", "evil.example:443:10.66.0.1:443", "-k"]
    assert bob.curl("/api/version", *foreign, host="evil.example").status == 0
    assert bob.curl("/api/version", "-H", "Host: evil.example").status in (0, 421)
    assert bob.curl("/api/version", "-H", "Host: 10.66.0.1").status == 421


@pytest.mark.parametrize(
    "key", [None, "", "0" * 64, "x", "0" * 63, "A" * 64], ids=["none", "empty", "unknown", "short", "63", "upper"]
)
def test_without_a_valid_key_the_answer_is_401(key: str | None, bob: Client):
    assert bob.ask(key=key).status == 401
    assert bob.curl("/api/tags", key=key).status == 401


def test_a_wrong_key_is_refused_even_where_the_tunnel_would_prove_the_user(ada: Client):
    assert ada.curl("/api/tags", key=None).status == 200
    assert ada.curl("/api/tags", key="0" * 64).status == 401


def test_another_users_key_works_in_any_tunnel_and_counts_as_its_owner(fortress: Deployment, ada: Client, bob: Client):
    assert ada.ask(key=bob.key).status == 200
    line = fortress.audit()[-1]
    assert (line["principal"], line["proof"], line["device"]) == ("bob", "key", "")


def test_admin_routes_are_for_admins(ada: Client, bob: Client):
    body = ["-d", json.dumps({"source": "tiny", "destination": "copied"})]
    assert bob.curl("/api/copy", *body).status == 403
    assert ada.curl("/api/copy", *body).status == 200
    gone = ["-X", "DELETE", "-d", json.dumps({"model": "copied"})]
    assert bob.curl("/api/delete", *gone).status == 403
    assert ada.curl("/api/delete", *gone).status == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "FOO"])
def test_a_wrong_method_is_405_and_says_what_is_allowed(method: str, bob: Client):
    reply = bob.curl("/api/chat", "-X", method)
    assert (reply.status, reply.headers.get("allow")) == (405, "POST")


NEVER = [
    *("/api/pull", "/api/push", "/api/create", "/api/me", "/api/signout", "/api/user/keys/x", "/api/status"),
    *("/api/experimental/web_search", "/api/experimental/web_fetch", "/v1/audio/transcriptions", "/debug/pprof/heap"),
    *("/metrics", "/.env", "/api/blobs/sha256:" + "0" * 64, "/api/unknown", "//api/chat", "/api/chat/", "/API/CHAT"),
    *("/api/../api/chat", "/api/%63hat", "/api/chat;a=b", "/api/chat%00"),
]


@pytest.mark.parametrize("path", NEVER)
def test_a_closed_or_unknown_route_is_404_for_everybody(path: str, ada: Client):
    assert ada.curl("/api/tags").status == 200, "the door itself is shut, so the next line would prove nothing"
    assert ada.curl(path, "-d", '{"model":"tiny"}').status in ((404,) if "%00" not in path else (400, 404))


def test_a_model_that_is_not_granted_is_403_in_the_callers_shape(narrow: Client):
    native = narrow.ask()
    openai = narrow.ask(path="/v1/chat/completions")
    anthropic = narrow.ask(path="/v1/messages")
    assert [reply.status for reply in (native, openai, anthropic)] == [403, 403, 403]
    assert json.loads(native.body).keys() == {"error"}
    assert json.loads(openai.body)["error"]["code"] == "model-not-granted"
    assert json.loads(anthropic.body)["type"] == "error"


@pytest.mark.parametrize("name", ["gpt-oss:120b-cloud", "x:cloud", "X:CLOUD"])
def test_a_cloud_model_is_refused(name: str, ada: Client):
    reply = ada.ask(model=name)
    assert (reply.status, "cloud" in reply.body) == (403, True)


def test_limits_name_themselves_and_say_when_to_come_back(slow: Client):
    replies = [slow.ask() for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 429, 429]
    assert int(replies[2].headers["retry-after"]) > 0
    assert "requests_per_minute" in replies[2].body


def test_one_user_at_the_limit_does_not_touch_another(slow: Client, bob: Client):
    while slow.ask().status == 200:
        pass
    assert bob.ask().status == 200


def test_every_answer_tells_browsers_and_caches_to_keep_off_and_names_no_version(bob: Client):
    for reply in (bob.curl("/api/tags"), bob.curl("/nowhere"), bob.ask(key="x")):
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers.get("server", "nginx") == "nginx"
        assert "1.30" not in str(reply.headers) + reply.body


def test_every_request_leaves_one_audit_line_without_what_was_said(fortress: Deployment, bob: Client):
    before = len(fortress.audit())
    bob.ask(prompt="the secret plan", path="/api/generate")
    bob.ask(key="wrong")
    bob.curl("/nowhere?secret=1")
    lines = fortress.audit()[before:]
    assert [(line["status"], line["principal"], line["route"]) for line in lines] == [
        (200, "bob", "/api/generate"),
        (401, "", "/api/generate"),
        (404, "bob", "unknown"),
    ]
    assert "secret" not in json.dumps(lines)
    assert bob.key not in json.dumps(lines)
