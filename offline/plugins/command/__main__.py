"""pulumi-resource-command: shell on this machine, or on one reached by SSH with a pinned key."""

import asyncio
import json
import os
import secrets
import subprocess
from typing import Any

import asyncssh

from offline.plugins.provider import UNKNOWN, Diff, Failed, Refused, Values, compare, known_only, secret, serve

SHARED = ("create", "update", "delete", "stdin", "triggers", "environment", "logging", "addPreviousOutputInEnv")
ALIVE_EVERY_S, ALIVE_TRIES = 15, 3
"""A host that says nothing to so many questions is gone: after a network change a command would never end."""
CONFIG_MARKS = {"__pulumi-go-provider-version": "1.2.0"}


class LocalCommand:
    token = "command:local:Command"  # noqa: S105
    properties = (*SHARED, "interpreter", "dir")

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        known_only(news, self.properties)
        return news

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(compare(old_inputs, news))

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs | {"stdout": UNKNOWN, "stderr": UNKNOWN}
        return name + secrets.token_hex(4), inputs | self._output(inputs, "create", {})

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values]:
        return id_, inputs, props

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        if preview:
            return news | {"stdout": UNKNOWN, "stderr": UNKNOWN}
        part = "update" if news.get("update") else "create"
        if not news.get(part):
            return news | {"stdout": olds.get("stdout", ""), "stderr": olds.get("stderr", "")}
        return news | self._output(news, part, olds)

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        if props.get("delete"):
            self._output(props, "delete", props)

    def _output(self, inputs: Values, part: str, before: Values) -> Values:
        text = inputs.get(part)
        if not text:
            return {"stdout": "", "stderr": ""}
        told = before if inputs.get("addPreviousOutputInEnv", True) else {}
        code, stdout, stderr = self.run(inputs, text, told)
        if code != 0:
            # stdin may hold secrets and is never quoted; the command's own words may be read.
            quoted = json.dumps(text, ensure_ascii=False)
            raise Failed(f"exit status {code}: running {quoted}:\n{stdout}{stderr}")
        return {"stdout": stdout.removesuffix("\n"), "stderr": stderr.removesuffix("\n")}

    def run(self, inputs: Values, text: str, told: Values) -> tuple[int, str, str]:
        """Run the text. told: earlier outputs, which it finds in its environment where they are not empty."""
        earlier = {f"PULUMI_COMMAND_{key.upper()}": told.get(key) for key in ("stdout", "stderr")}
        try:
            done = subprocess.run(
                [*(inputs.get("interpreter") or ["/bin/sh", "-c"]), text],
                input=inputs.get("stdin") or "",
                cwd=inputs.get("dir"),
                env={
                    **os.environ,
                    **(inputs.get("environment") or {}),
                    **{key: value for key, value in earlier.items() if value},
                },
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        except OSError as error:
            raise Failed(f"cannot start the interpreter or enter the directory: {error}") from error
        return done.returncode, done.stdout, done.stderr


class RemoteCommand(LocalCommand):
    token = "command:remote:Command"  # noqa: S105
    properties = (*SHARED, "connection")
    connection = ("host", "port", "user", "privateKey", "hostKey", "dialErrorLimit", "perDialTimeout")

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        inputs = super().check(name, olds, news, seed)
        if inputs.get("addPreviousOutputInEnv", True):
            raise Refused(
                "addPreviousOutputInEnv", "an SSH server drops it; the registry-only plugin needs `false` here"
            )
        if inputs.get("environment"):
            raise Refused("environment", "an SSH server drops it unless it is told to accept it; use stdin")
        connection = inputs.get("connection") or {}
        if connection == UNKNOWN:
            return inputs
        for key in connection:
            if key not in self.connection and not key.startswith("__"):
                raise Refused(f"connection.{key}", "the registry-only plugin does not implement this property")
        for key, what in (("host", "host"), ("privateKey", "private key"), ("hostKey", "host's public key")):
            if not connection.get(key):
                raise Refused(f"connection.{key}", f"is missing; write the {what}")
        defaults = {"port": 22, "user": "root", "dialErrorLimit": 10, "perDialTimeout": 15}
        whole = defaults | connection
        for key in ("dialErrorLimit", "perDialTimeout"):
            if whole[key] != UNKNOWN and whole[key] < 1:
                raise Refused(f"connection.{key}", "the registry-only plugin needs 1 or more")
        return inputs | {"connection": whole | {"privateKey": secret(whole["privateKey"])}}

    def run(self, inputs: Values, text: str, told: Values) -> tuple[int, str, str]:
        return asyncio.run(_over_ssh(inputs["connection"], text, inputs.get("stdin") or ""))


async def _over_ssh(to: Values, text: str, stdin: str) -> tuple[int, str, str]:
    where = f"{to['user']}@{to['host']}:{to['port']}"
    pinned = _readable(asyncssh.import_public_key, to, "hostKey")
    own = _readable(asyncssh.import_private_key, to, "privateKey")
    limit = int(to["dialErrorLimit"])
    last: Exception | None = None
    for attempt in range(limit):
        if attempt:
            await asyncio.sleep(min(2 ** (attempt - 1), 8))
        try:
            async with asyncssh.connect(
                to["host"],
                port=int(to["port"]),
                username=to["user"],
                client_keys=[own],
                known_hosts=([pinned], [], []),
                agent_path=None,
                connect_timeout=int(to["perDialTimeout"]),
                keepalive_interval=ALIVE_EVERY_S,
                keepalive_count_max=ALIVE_TRIES,
                config=None,
            ) as connection:
                done = await connection.run(text, input=stdin, check=False, errors="replace")
                if done.exit_status is None:
                    raise Failed(f"{where} fell silent or closed the connection while a command ran; run this again")
                return done.exit_status, str(done.stdout or ""), str(done.stderr or "")
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
            raise Failed(f"{where} shows another host key than the pinned one; nothing was sent") from error
        except asyncssh.PermissionDenied as error:
            raise Failed(f"{where} does not accept the private key") from error
        except (OSError, asyncssh.Error) as error:
            last = error
    raise Failed(f"cannot reach {where} by SSH: {last}")


def _readable(read: Any, to: Values, key: str) -> Any:
    try:
        return read(to[key])
    except (ValueError, asyncssh.Error):
        # The cause may quote the key.
        raise Failed(f"connection.{key} cannot be read as a key without a passphrase") from None


if __name__ == "__main__":
    serve("1.2.1", [LocalCommand(), RemoteCommand()], config_marks=CONFIG_MARKS)
