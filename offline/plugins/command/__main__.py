"""pulumi-resource-command: shell on this machine, or on one reached by SSH with a pinned key."""

import asyncio
import secrets
import subprocess

import asyncssh

from offline.plugins.provider import UNKNOWN, Diff, Failed, Refused, Values, compare, is_unknown, known_only, serve

SHARED = ("create", "update", "delete", "stdin", "triggers", "environment", "logging", "addPreviousOutputInEnv")


class LocalCommand:
    token = "command:local:Command"  # noqa: S105
    properties = (*SHARED, "interpreter", "dir")

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        known_only(news, self.properties)
        if news.get("addPreviousOutputInEnv", True):
            raise Refused("addPreviousOutputInEnv", "the registry-only plugin needs `false` here")
        return news

    def diff(self, id_: str, old_inputs: Values, olds: Values, news: Values) -> Diff:
        return Diff(compare(old_inputs, news))

    def create(self, name: str, inputs: Values, preview: bool) -> tuple[str, Values]:
        if preview:
            return "", inputs | {"stdout": UNKNOWN, "stderr": UNKNOWN}
        return name + secrets.token_hex(4), inputs | self._output(inputs, "create")

    def read(self, id_: str, inputs: Values, props: Values) -> tuple[str, Values, Values]:
        return id_, inputs, props

    def update(self, id_: str, old_inputs: Values, olds: Values, news: Values, preview: bool) -> Values:
        if preview:
            return news | {"stdout": UNKNOWN, "stderr": UNKNOWN}
        if "update" not in news and "create" not in news:
            return news | {"stdout": olds.get("stdout", ""), "stderr": olds.get("stderr", "")}
        return news | self._output(news, "update" if "update" in news else "create")

    def delete(self, id_: str, inputs: Values, props: Values) -> None:
        if props.get("delete"):
            self._output(props, "delete")

    def _output(self, inputs: Values, part: str) -> Values:
        text = inputs.get(part)
        if not text:
            return {"stdout": "", "stderr": ""}
        code, stdout, stderr = self.run(inputs, text)
        if code != 0:
            # stdin may hold secrets and is never quoted; the command's own words may be read.
            raise Failed(f"exit status {code}: running {text!r}:\n{stdout}{stderr}")
        return {"stdout": stdout.rstrip("\n"), "stderr": stderr.rstrip("\n")}

    def run(self, inputs: Values, text: str) -> tuple[int, str, str]:
        import os

        done = subprocess.run(
            [*(inputs.get("interpreter") or ["/bin/sh", "-c"]), text],
            input=inputs.get("stdin") or "",
            cwd=inputs.get("dir"),
            env={**os.environ, **(inputs.get("environment") or {})},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


class RemoteCommand(LocalCommand):
    token = "command:remote:Command"  # noqa: S105
    properties = (*SHARED, "connection")
    connection = ("host", "port", "user", "privateKey", "hostKey", "dialErrorLimit", "perDialTimeout")

    def check(self, name: str, olds: Values, news: Values, seed: bytes) -> Values:
        inputs = super().check(name, olds, news, seed)
        connection = inputs.get("connection") or {}
        if is_unknown(connection):
            return inputs
        for key in connection:
            if key not in self.connection and not key.startswith("__"):
                raise Refused(f"connection.{key}", "the registry-only plugin does not implement this property")
        if not connection.get("hostKey"):
            raise Refused("connection.hostKey", "write the host's public key; without it any host would be believed")
        if inputs.get("environment"):
            raise Refused("environment", "an SSH server drops it unless it is told to accept it; use stdin")
        defaults = {"port": 22, "user": "root", "dialErrorLimit": 10, "perDialTimeout": 15}
        return inputs | {"connection": defaults | connection}

    def run(self, inputs: Values, text: str) -> tuple[int, str, str]:
        return asyncio.run(_over_ssh(inputs["connection"], text, inputs.get("stdin") or ""))


async def _over_ssh(to: Values, text: str, stdin: str) -> tuple[int, str, str]:
    trusted = asyncssh.import_public_key(to["hostKey"])
    where = f"{to['user']}@{to['host']}:{to['port']}"
    last: Exception | None = None
    for attempt in range(max(1, int(to["dialErrorLimit"]))):
        try:
            async with asyncssh.connect(
                to["host"],
                port=int(to["port"]),
                username=to["user"],
                client_keys=[asyncssh.import_private_key(to["privateKey"])] if to.get("privateKey") else None,
                known_hosts=([trusted], [], []),
                agent_path=None,
                connect_timeout=int(to["perDialTimeout"]),
                config=None,
            ) as connection:
                done = await connection.run(text, input=stdin, check=False)
                code = done.exit_status if done.exit_status is not None else 255
                return code, str(done.stdout or ""), str(done.stderr or "")
        except asyncssh.HostKeyNotVerifiable as error:
            raise Failed(f"{where} shows another host key than the pinned one; nothing was sent") from error
        except asyncssh.PermissionDenied as error:
            raise Failed(f"{where} does not accept the private key") from error
        except (OSError, asyncssh.Error) as error:
            last = error
            await asyncio.sleep(min(2**attempt, 8))
    raise Failed(f"cannot reach {where} by SSH: {last}")


if __name__ == "__main__":
    serve("1.2.1", [LocalCommand(), RemoteCommand()])
