"""`fortress block` on a running fortress: at once, whole, and for longer than the next `up`."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fortress import in_gateway
from tests.deployment import DOMAIN, Client, Deployment, docker

CUT_WITHIN_S = 2


def test_a_blocked_user_is_cut_off_at_once_and_no_up_lets_it_in_again(fortress: Deployment, bob: Client):
    ada = Client(fortress, "ada", device="laptop")
    before = fortress.containers()
    try:
        with bob.stream() as his, ada.stream() as hers:
            assert his.flows()
            assert hers.flows()
            with his.read(1 << 16):
                assert "bob is blocked until 20" in fortress.fortress("block", "bob", "--for", "1h")
            his.bytes_for(CUT_WITHIN_S)
            assert his.bytes_for(2) == 0, "a blocked user's stream goes on"
            assert hers.flows(), "another user's stream was cut"
        reply = bob.ask()
        assert (reply.status, bob.curl("/v1/models").status) == (403, 403)
        assert "blocked" in reply.body
        assert ada.curl("/api/tags", key=bob.key).status == 403, "a blocked user's key works in another tunnel"

        fortress.up()
        assert bob.ask().status == 403, "`up` let a blocked user in"
        found = json.loads(fortress.fortress("status", "--json"))
        [row] = found["blocked"]
        assert (row["user"], row["by"]) == ("bob", in_gateway.operator())
        assert {each["component"]: each["health"] for each in found["containers"]}["gateway"] == "healthy"
        assert "bob" in fortress.fortress("status")

        assert "bob is not blocked any more" in fortress.fortress("unblock", "bob")
        Client.wait_until(lambda: bob.ask().status == 200, "answer for whom nobody blocks", CUT_WITHIN_S)

        with _mute_ollama(fortress), _waiting(bob) as his, _waiting(ada) as hers:
            assert (his.poll(), hers.poll()) == (None, None)
            assert "open streams are cut" in fortress.fortress("block", "bob")
            assert his.wait(CUT_WITHIN_S) != 0, "a blocked user's answer came"
            assert hers.poll() is None, "another user's request was cut"
        fortress.fortress("unblock", "bob")
        Client.wait_until(lambda: bob.ask().status == 200, "answer for whom nobody blocks", CUT_WITHIN_S)

        assert "(bob/default) is blocked for good" in fortress.fortress("block", _tunnel_address(bob))
        Client.wait_until(lambda: bob.ask().status == 403, "refusal of the address", CUT_WITHIN_S)
        assert bob.ask(key=None).status == bob.ask(key=ada.key).status == 403, "a refusal tells who is known"
        assert ada.ask().status == 200
        fortress.fortress("unblock", "--all")
        Client.wait_until(lambda: bob.ask().status == 200, "answer for whom nobody blocks", CUT_WITHIN_S)
    finally:
        fortress.fortress("unblock", "--all", check=False)
        ada.close()
    assert fortress.containers() == before
    told = [line for line in fortress.commands() if "block" in line["command"]]
    assert [line["command"] for line in told[:4]] == ["block", "unblock", "block", "unblock"]
    assert [line["about"] for line in told[:2]] == ["bob", "bob"]
    assert {line["by"] for line in told} == {in_gateway.operator()}
    assert told[0]["until"] > told[0]["time"]
    assert {line["reason"] for line in fortress.audit() if line["verdict"] == "cut"} >= {"blocked"}


def test_a_word_that_is_nobody_is_refused_and_the_users_are_named(fortress: Deployment):
    said = " ".join(fortress.fortress("block", "bop", check=False).split())
    assert fortress.last_code == 1
    assert "'bop' is neither an address nor a user of this deployment; known users: ada, bob," in said
    said = " ".join(fortress.fortress("block", "bob", "--for", "soon", check=False).split())
    assert fortress.last_code == 1
    assert "write it like 30s, 10m, 1h or 7d" in said


@contextmanager
def _mute_ollama(fortress: Deployment) -> Iterator[None]:
    """As while it loads a large model."""
    docker("pause", fortress.container("ollama"))
    try:
        yield
    finally:
        docker("unpause", fortress.container("ollama"))


@contextmanager
def _waiting(client: Client) -> "Iterator[subprocess.Popen[bytes]]":
    body = json.dumps({"model": "tiny", "prompt": "hello", "stream": False, "options": {"num_predict": 4}})
    proof = ["--cacert", "/tmp/bundle/ca.pem", "-H", f"Authorization: Bearer {client.key}"]
    ask = ["curl", "-sf", "-o", "/dev/null", *proof, "-d", body, f"https://{DOMAIN}/api/generate"]
    process = subprocess.Popen(["docker", "exec", client.id, *ask])
    try:
        time.sleep(1)
        yield process
    finally:
        client.end("curl")
        process.kill()
        process.wait()


def _tunnel_address(client: Client) -> str:
    [line] = [line for line in client.run("ip", "-o", "-4", "addr", "show", "wgclient").splitlines() if "inet" in line]
    return line.split("inet ")[1].split("/")[0]
