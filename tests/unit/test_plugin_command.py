"""The command plugin answers what the official plugin answered; over SSH it tells nothing to the wrong host."""

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from offline.plugins.command import __main__ as command
from offline.plugins.command.__main__ import LocalCommand, RemoteCommand
from offline.plugins.provider import UNKNOWN, Failed, Refused
from tests.unit.replay import UNCHANGED, Aborted, Replay, bare, secrets_in, swapped, verdict

OFFICIAL = Replay("command", LocalCommand(), RemoteCommand(), config_marks=command.CONFIG_MARKS)
PLACEHOLDER = "<OPENSSH PRIVATE KEY PEM>"
"""What the recordings hold in the place of a private key."""


# Replayed


@pytest.mark.parametrize("call", OFFICIAL.params("CheckConfig"))
def test_the_providers_own_config_carries_the_recorded_mark(call: Any) -> None:
    request = {key: value for key, value in call["request"].items() if key != "id"}
    assert OFFICIAL.answer("CheckConfig", request) == call["response"]


@pytest.mark.parametrize("marks", [{}, command.CONFIG_MARKS])
def test_a_provider_of_either_set_of_plugins_is_unchanged_under_the_other(marks: Any) -> None:
    request = {"type": "pulumi:providers:command", "name": "default", "news": {"version": "1.2.1"} | marks}
    request |= {"oldInputs": {"version": "1.2.1"}, "olds": {"version": "1.2.1"}}
    assert OFFICIAL.answer("DiffConfig", request)["changes"] == "DIFF_NONE"
    swap = request | {"news": request["oldInputs"], "oldInputs": request["news"]}
    assert OFFICIAL.answer("DiffConfig", swap)["changes"] == "DIFF_NONE"


@pytest.mark.parametrize("call", OFFICIAL.params("Check"))
def test_check_gives_the_recorded_inputs(call: Any) -> None:
    found, wanted = OFFICIAL.answer("Check", call["request"])["inputs"], bare(call["response"]["inputs"])
    if bare(call["request"]["news"]).get("stdin") == UNKNOWN:
        # The official plugin shows a secret that is not yet known as empty; here it stays unknown, which is true.
        assert wanted["stdin"] == ""
        wanted["stdin"] = UNKNOWN
    assert bare(found) == wanted
    if "connection" in found:
        # The engine marks again what came marked as a whole; a key inside is marked here, whatever the program says.
        assert secrets_in(found["connection"]) == [PLACEHOLDER]


@pytest.mark.parametrize("call", OFFICIAL.params("Diff"))
def test_diff_gives_the_recorded_verdict(call: Any) -> None:
    assert OFFICIAL.verdict(call["request"]) == verdict(call["response"])


@pytest.mark.parametrize("call", OFFICIAL.params("Create", "Update", preview=True))
def test_a_preview_equals_the_recorded_one(call: Any) -> None:
    found = OFFICIAL.answer(call["method"], call["request"])
    assert bare(found["properties"]) == bare(call["response"]["properties"])
    assert found["properties"]["stdout"] == found["properties"]["stderr"] == UNKNOWN
    # An id that the next run would not keep is none.
    assert "id" not in found


@pytest.mark.parametrize("call", OFFICIAL.params("Read"))
def test_read_gives_the_recorded_state(call: Any) -> None:
    found, wanted = OFFICIAL.answer("Read", call["request"]), call["response"]
    assert found["id"] == wanted["id"]
    for key in ("inputs", "properties"):
        assert bare(found[key]) == bare(wanted[key])


class Host:
    """An SSH server without a shell: it keeps what it is told and answers what it is set to."""

    def __init__(self) -> None:
        self.key, client = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
        self.private, self.allowed = private(client), public(client)
        self.heard: list[tuple[str, str]] = []
        self.says = (0, "", "")
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        assert self.ready.wait(10)

    def _serve(self) -> None:
        self.loop.run_until_complete(self._listen())
        self.ready.set()
        self.loop.run_forever()

    async def _listen(self) -> None:
        allowed = asyncssh.import_authorized_keys(self.allowed)
        self.acceptor = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[self.key], authorized_client_keys=allowed, process_factory=self._answer
        )

    async def _answer(self, process: asyncssh.SSHServerProcess[str]) -> None:
        self.heard.append((process.command or "", await process.stdin.read()))
        code, stdout, stderr = self.says
        process.stdout.write(stdout)
        process.stderr.write(stderr)
        process.exit(code)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.acceptor.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)

    def connection(self, **changed: Any) -> dict[str, Any]:
        found = {"host": "127.0.0.1", "port": self.acceptor.get_port(), "user": "root"}
        keys = {"privateKey": self.private, "hostKey": public(self.key)}
        return found | keys | {"dialErrorLimit": 2, "perDialTimeout": 5} | changed


def private(key: asyncssh.SSHKey) -> str:
    return key.export_private_key().decode()


def public(key: asyncssh.SSHKey) -> str:
    return key.export_public_key().decode().strip()


@pytest.fixture
def host() -> Iterator[Host]:
    found = Host()
    yield found
    found.close()
    # asyncio.run leaves its thread without a loop (the engine's calls have threads of their own, a test has this one),
    # and Pulumi's mocks in later tests ask for one.
    asyncio.set_event_loop(asyncio.new_event_loop())


@pytest.mark.parametrize("call", OFFICIAL.params("Create", "Update", preview=False))
def test_what_ran_gives_the_recorded_outputs(
    call: Any, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = bare(call["response"]["properties"])
    request = call["request"]
    if "connection" in wanted:
        recorded = wanted["connection"]
        wanted["connection"] = host.connection()
        host.says = (0, wanted["stdout"] + "\n", "")
        request = {
            key: bare(value) | {"connection": host.connection()} if key in ("properties", "news") else value
            for key, value in request.items()
        }
        assert set(wanted["connection"]) == set(recorded)
    found = OFFICIAL.answer(call["method"], request)
    assert bare(found["properties"]) == wanted
    asked = bare(request.get("news") or request["properties"])
    text = asked.get("update", asked["create"]) if call["method"] == "Update" else asked["create"]
    if "connection" in wanted:
        assert host.heard == [(text, asked["stdin"])]
    if call["method"] == "Create":
        name = call["request"]["name"]
        for each in (found, call["response"]):
            assert each["id"].startswith(name)
            assert len(bytes.fromhex(each["id"].removeprefix(name))) == 4


def test_no_secret_is_in_an_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call = next(each.values[0] for each in OFFICIAL.params("Create", preview=False) if "local-stdin" in each.id)
    answer = OFFICIAL.answer("Create", call["request"])
    (told,) = secrets_in(call["request"]["properties"])
    assert bare(answer["properties"])["stdin"] == told
    assert told not in answer["id"] and answer["id"][: len("local-stdin")] == "local-stdin"


# Commands on this machine


def run(**inputs: Any) -> Any:
    return LocalCommand().create("x", inputs, False)[1]


def test_a_failing_command_prints_its_text_and_words_and_never_its_stdin() -> None:
    with pytest.raises(Failed) as failed:
        run(create='cat >/dev/null; echo "out"; echo err >&2; exit 3', stdin="a secret")
    text = r'"cat >/dev/null; echo \"out\"; echo err >&2; exit 3"'
    assert str(failed.value) == f"exit status 3: running {text}:\nout\nerr\n"


def test_the_failure_reaches_the_user_as_it_is() -> None:
    request = {"type": LocalCommand.token, "name": "x", "properties": {"create": "exit 1", "stdin": "a secret"}}
    with pytest.raises(Aborted, match=r'^exit status 1: running "exit 1":\n$'):
        OFFICIAL.answer("Create", request)


def test_one_line_end_is_taken_from_the_outputs_and_bytes_that_are_no_text_do_no_harm() -> None:
    assert run(create=r"printf 'a\n\n'")["stdout"] == "a\n"
    assert run(create=r"printf '\377'")["stdout"] == "\ufffd"


def test_a_command_runs_where_and_how_it_is_told(tmp_path: Path) -> None:
    assert run(create="pwd", dir=str(tmp_path))["stdout"] == str(tmp_path)
    assert run(create="$0", interpreter=["/bin/sh", "-c", "echo $N"], environment={"N": "n"})["stdout"] == "n"
    with pytest.raises(Failed, match="cannot start the interpreter or enter the directory"):
        run(create="pwd", dir=str(tmp_path / "nowhere"))


def test_an_update_runs_update_else_create_and_a_deletion_runs_delete_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = {
        part: f"echo {part} $PULUMI_COMMAND_STDOUT >>{log}; echo {part}d" for part in ("create", "update", "delete")
    }
    resource = LocalCommand()
    id_, made = resource.create("x", both, False)
    made = resource.update(id_, both, made, both, False)
    one = {key: value for key, value in both.items() if key != "update"} | {"addPreviousOutputInEnv": False}
    made = resource.update(id_, both, made, one, False)
    resource.delete(id_, one, made)
    resource.delete(id_, {}, {"create": both["create"]})
    assert log.read_text().splitlines() == ["create", "update created", "create", "delete"]
    assert resource.update(id_, {}, made, {"delete": "false"}, False)["stdout"] == "created"


def test_triggers_are_an_update_here_and_a_replacement_by_the_program() -> None:
    """As recorded: the SDK asks for the replacement (`replaceOnChanges`), the plugin does not."""
    calls = [each.values[0] for each in OFFICIAL.params("Diff")]
    triggered = next(each for each in calls if "triggers" in each["response"].get("diffs", []))
    found = OFFICIAL.verdict(triggered["request"])
    assert (found["detailedDiff"]["triggers[0]"], found["replaces"]) == ("UPDATE", [])


@pytest.mark.parametrize("key", ["assetPaths", "archivePaths", "nonsense"])
def test_what_is_not_implemented_is_refused_by_name(key: str) -> None:
    for resource in (LocalCommand(), RemoteCommand()):
        with pytest.raises(Refused) as refused:
            resource.check("x", {}, {"create": "true", key: ["*"]}, b"")
        assert refused.value.prop == key


# Commands over SSH


def over_ssh(host: Host, connection: dict[str, Any] | None = None, **inputs: Any) -> Any:
    asked = {"create": "wc -c", "stdin": "a secret", "addPreviousOutputInEnv": False} | inputs
    checked = RemoteCommand().check("x", {}, asked | {"connection": connection or host.connection()}, b"")
    return RemoteCommand().create("x", bare(checked), False)[1]


def test_a_command_over_ssh_gives_its_outputs_and_its_failure(host: Host) -> None:
    host.says = (0, "8\n", "noted\n")
    made = over_ssh(host)
    assert (made["stdout"], made["stderr"], host.heard) == ("8", "noted", [("wc -c", "a secret")])
    host.says = (4, "", "no\n")
    with pytest.raises(Failed, match=r'^exit status 4: running "wc -c":\nno\n$'):
        over_ssh(host)


@pytest.mark.parametrize("kind", ["ssh-ed25519", "ecdsa-sha2-nistp256"])
def test_another_host_key_than_the_pinned_one_is_refused_and_nothing_is_sent(host: Host, kind: str) -> None:
    over_ssh(host)
    host.heard.clear()
    other = public(asyncssh.generate_private_key(kind))
    with pytest.raises(Failed, match=r"^root@127\.0\.0\.1:\d+ shows another host key than the pinned one; nothing was"):
        over_ssh(host, host.connection(hostKey=other))
    assert host.heard == []


def test_a_private_key_that_the_host_does_not_know_is_refused_in_one_sentence(host: Host) -> None:
    other = private(asyncssh.generate_private_key("ssh-ed25519"))
    with pytest.raises(Failed, match=r"^root@127\.0\.0\.1:\d+ does not accept the private key$"):
        over_ssh(host, host.connection(privateKey=other))
    assert host.heard == []


def test_a_host_that_cannot_be_reached_is_said_after_as_many_tries_as_asked(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    nowhere = host.connection(dialErrorLimit=3)
    host.close()
    monkeypatch.setattr(command.asyncio, "sleep", sleep)
    with pytest.raises(Failed, match=r"^cannot reach root@127\.0\.0\.1:\d+ by SSH: .*Connect call failed") as failed:
        over_ssh(host, nowhere)
    assert "\n" not in str(failed.value)
    assert waits == [1, 2]


def test_a_host_that_falls_silent_under_a_command_ends_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a network change: nothing comes any more, not even the end of the connection."""
    woken = threading.Event()

    class Silent(list[tuple[str, str]]):
        def append(self, heard: tuple[str, str]) -> None:
            super().append(heard)
            woken.wait(20)  # and the whole server with it

    monkeypatch.setattr(command, "ALIVE_EVERY_S", 0.2)
    host.heard = Silent()
    begun = time.monotonic()
    try:
        with pytest.raises(Failed, match=r"^root@127\.0\.0\.1:\d+ fell silent or closed the connection while"):
            over_ssh(host)
    finally:
        woken.set()
    assert time.monotonic() - begun < 10, "it waited for the end of what answers nothing"
    assert host.heard == [("wc -c", "a secret")]


@pytest.mark.parametrize("key", ["privateKey", "hostKey"])
def test_an_unreadable_key_is_said_without_quoting_it(host: Host, key: str) -> None:
    with pytest.raises(Failed, match=f"^connection.{key} cannot be read as a key") as failed:
        over_ssh(host, host.connection(**{key: "not a key"}))
    assert "not a key" not in str(failed.value)
    assert failed.value.__suppress_context__


@pytest.mark.parametrize(
    ("given", "prop"),
    [
        ({"hostKey": ""}, "connection.hostKey"),
        ({"privateKey": ""}, "connection.privateKey"),
        ({"host": ""}, "connection.host"),
        ({"password": "p"}, "connection.password"),
        ({"proxy": {"host": "h"}}, "connection.proxy"),
        ({"dialErrorLimit": -1}, "connection.dialErrorLimit"),
    ],
)
def test_a_connection_that_cannot_be_is_refused_by_name(host: Host, given: Any, prop: str) -> None:
    with pytest.raises(Refused) as refused:
        over_ssh(host, host.connection(**given))
    assert refused.value.prop == prop


@pytest.mark.parametrize("prop", ["environment", "addPreviousOutputInEnv"])
def test_what_an_ssh_server_would_drop_is_refused_by_name(host: Host, prop: str) -> None:
    with pytest.raises(Refused) as refused:
        over_ssh(host, **{prop: {"N": "1"}})
    assert refused.value.prop == prop


def test_a_connection_known_only_later_is_checked_later(host: Host) -> None:
    asked = {"create": "true", "addPreviousOutputInEnv": False}
    assert RemoteCommand().check("x", {}, asked | {"connection": UNKNOWN}, b"")["connection"] == UNKNOWN
    known = swapped(host.connection(dialErrorLimit=UNKNOWN), lambda text: UNKNOWN if text == "127.0.0.1" else text)
    checked = RemoteCommand().check("x", {}, asked | {"connection": known}, b"")["connection"]
    assert (checked["host"], checked["dialErrorLimit"]) == (UNKNOWN, UNKNOWN)


def test_what_this_plugin_made_stays_as_it_is(host: Host) -> None:
    host.says = (0, "done\n", "")
    made = over_ssh(host)
    inputs = {key: value for key, value in made.items() if key not in ("stdout", "stderr")}
    known = {"type": RemoteCommand.token, "name": "x", "id": "x00000000"}
    assert OFFICIAL.verdict(known | {"oldInputs": inputs, "olds": made, "news": inputs}) == verdict(
        UNCHANGED | {"hasDetailedDiff": True}
    )
    read = OFFICIAL.answer("Read", known | {"inputs": inputs, "properties": made})
    assert (read["inputs"], read["properties"]) == (inputs, made)
