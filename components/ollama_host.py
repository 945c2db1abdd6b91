"""The OllamaHost: Ollama on a network of its own, and a TLS sidecar as its only neighbour.

Owns both containers, the model volume and the declared models.
"""

import base64
import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_docker as docker
from pulumi import ResourceOptions

from components.container import Attachment, ContainerSpec, gpus, hardened
from components.host import Consumer, Host, HostFiles
from components.names import Names
from components.networks import Networks
from components.pki import Certificate
from components.volume import volume
from models.tiny_gguf import packed, tiny_gguf
from render import nginx
from settings import Model, StackSettings

OLLAMA, SIDECAR = "ollama", "ollama-sidecar"
PORT = 11434
TINY_PARAMETERS = "PARAMETER num_predict 256"
"""It knows no end of its own: without this, one question keeps it talking for ten seconds."""


@dataclass(frozen=True, kw_only=True)
class OllamaHostArgs:
    settings: StackSettings
    host: Host
    names: Names
    networks: Networks
    server: Certificate
    """The sidecar's certificate; clients are proven by its authority too."""
    image: str
    sidecar_image: str


class OllamaHost(pulumi.ComponentResource):
    """Ollama without egress, root or neighbour but the sidecar."""

    def __init__(self, name: str, args: OllamaHostArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:OllamaHost", name, {}, opts)
        self.args = args
        self.models = volume(
            f"{name}-models", "models", host=args.host, names=args.names, parent=self, protect=args.settings.protect
        )
        self.ollama = self._ollama(name)
        self.sidecar_files = self._sidecar_files(name)
        self.sidecar = self._sidecar(name)
        # One after the other, on the way in and on the way out: pulls share one network, and two `ollama rm` at the
        # same moment trip over the folder that both tidy up ("remove /models/manifests/...: no such file").
        there: list[pulumi.Resource] = [self.ollama]
        if any(model.source is None for model in args.settings.models):
            there.append(self._interrupted_pulls(name))
        before = there
        for model in args.settings.models:
            before = [*there, self._model(name, model, before)]
        self.register_outputs({})

    def _ollama(self, name: str) -> docker.Container:
        limits, plan = self.args.settings.ollama, self.args.settings.plan
        container, _ = hardened(
            f"{name}-ollama",
            host=self.args.host,
            names=self.args.names,
            spec=ContainerSpec(
                component=OLLAMA,
                image=self.args.image,
                user="1000:1000",
                entrypoints=["ollama"],
                command=["serve"],
                envs={
                    "HOME": "/home/ollama",
                    "OLLAMA_HOST": f"{plan.heart.ollama}:{PORT}",
                    "OLLAMA_MODELS": "/models",
                    "OLLAMA_NO_CLOUD": "1",
                    "OLLAMA_NOPRUNE": "1",
                    "OLLAMA_NOHISTORY": "1",
                    "OLLAMA_NUM_PARALLEL": str(limits.num_parallel),
                    "OLLAMA_MAX_QUEUE": str(limits.max_queue),
                    "OLLAMA_KEEP_ALIVE": limits.keep_alive,
                    "OLLAMA_CONTEXT_LENGTH": str(limits.context_length),
                    "OLLAMA_LOAD_TIMEOUT": f"{limits.load_timeout_s}s",
                },
                networks=[Attachment(self.args.networks.heart, str(plan.heart.ollama))],
                memory_mb=limits.memory_mb,
                cpus=limits.cpus,
                gpus=gpus(limits),
                pids=limits.pids,
                tmpfs={
                    "/tmp": "nosuid,nodev,size=256m,mode=1777",  # noqa: S108
                    "/home/ollama": "nosuid,nodev,noexec,size=16m,uid=1000,gid=1000,mode=0700",
                },
                volumes={"/models": self.models},
                grace_s=30,
                health=["ollama", "ls"],
            ),
            opts=ResourceOptions(parent=self),
        )
        return container

    def _sidecar_files(self, name: str) -> HostFiles:
        settings, server = self.args.settings, self.args.server
        return self.args.host.files(
            f"{name}-sidecar-files",
            component=SIDECAR,
            files={
                "nginx.conf": nginx.sidecar(settings, settings.plan),
                "tls/server.pem": server.pem,
                "tls/server.key": server.key,
                "client-ca.pem": server.authority,
            },
            consumer=Consumer(
                image=self.args.sidecar_image,
                uid=101,
                check="nginx -t -q -c /config/current/nginx.conf",
                container=self.args.names.of(SIDECAR),
            ),
            opts=ResourceOptions(parent=self),
        )

    def _sidecar(self, name: str) -> docker.Container:
        plan = self.args.settings.plan
        container, _ = hardened(
            f"{name}-sidecar",
            host=self.args.host,
            names=self.args.names,
            spec=ContainerSpec(
                component=SIDECAR,
                image=self.args.sidecar_image,
                user="101:101",
                entrypoints=["nginx"],
                command=["-c", "/config/current/nginx.conf", "-g", "daemon off;"],
                networks=[
                    Attachment(self.args.networks.model, str(plan.model.sidecar)),
                    Attachment(self.args.networks.heart, str(plan.heart.sidecar)),
                ],
                memory_mb=128,
                tmpfs={"/tmp": "nosuid,nodev,noexec,size=64m,mode=1777"},  # noqa: S108
                files=self.sidecar_files,
                grace_s=30,
                health=["nginx-health"],
            ),
            opts=ResourceOptions(parent=self),
        )
        return container

    def _model(self, name: str, model: Model, before: list[pulumi.Resource]) -> pulumi.Resource:
        """Put one declared model into Ollama, and take it out again when its line goes."""
        container = self.args.names.of(OLLAMA)
        remove = _remove(container, model.tagged)
        opts = ResourceOptions(
            parent=self,
            depends_on=before,
            delete_before_replace=True,
        )
        resource_name = f"{name}-model-{model.resource}"
        if model.source is None:
            return self.args.host.send(resource_name, create=self._pull(model.tagged), delete=remove, opts=opts)
        if model.source == "builtin":
            text = base64.encodebytes(packed()).decode()
            digest = hashlib.sha256(tiny_gguf()).hexdigest()
            create = _create(container, model.tagged, "base64 -d | gunzip", digest, parameters=TINY_PARAMETERS)
            return self.args.host.send(resource_name, stdin=text, create=create, delete=remove, opts=opts)
        path = Path(model.source)
        if not path.expanduser().is_file():
            raise pulumi.RunError(
                f"ollama-fortress:models: {model.name}: there is no file {model.source}; write the path of a "
                ".gguf file on this machine"
            )
        with path.expanduser().open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        create = _create(container, model.tagged, "cat", digest)
        return self.args.host.send(resource_name, file=path, create=create, delete=remove, opts=opts)

    def _interrupted_pulls(self, name: str) -> pulumi.Resource:
        """Take away what an interrupted pull left, also on `destroy`: no state knows of it, and it holds the volume."""
        text = self._forget_pull()
        opts = ResourceOptions(parent=self, depends_on=[self.ollama])
        return self.args.host.command(f"{name}-interrupted-pulls", create=text, delete=text, opts=opts)

    def _forget_pull(self) -> str:
        """Shell that removes the container and the network of a pull whose end never came."""
        names = self.args.names
        ours = " ".join(f"--filter label={key}={value}" for key, value in names.labels("model-pull").items())
        container, network = (f'{ours} --filter "name=^{names.of(part)}$"' for part in ("model-pull", "pull"))
        return (
            # The engine may be removing it already (`--rm`), which it answers with an error.
            "for _ in $(seq 50); do\n"
            f'  old=$(docker ps -aq {container}); [ -n "$old" ] || break\n'
            "  docker rm -f $old >/dev/null 2>&1 || sleep 0.2\n"
            "done\n"
            f"for old in $(docker network ls -q {network}); do\n"
            '  docker network rm "$old" >/dev/null || ! docker network inspect "$old" >/dev/null 2>&1\n'
            "done\n"
        )

    def _pull(self, model: str) -> str:
        """A server of its own, in a container of its own with a way out, that lives as long as the pull."""
        names, plan = self.args.names, self.args.settings.plan
        network = names.of("pull")
        labels = " ".join(f"--label {key}={value}" for key, value in names.labels("model-pull").items())
        script = (
            "ollama serve >/tmp/serve.log 2>&1 & server=$!\n"
            "for _ in $(seq 60); do ollama ls >/dev/null 2>&1 && break; sleep 0.5; done\n"
            f"ollama pull {shlex.quote(model)} </dev/null; result=$?\n"
            "kill $server; wait; exit $result\n"
        )
        return (
            # A signal, a reboot or a lost SSH connection ends the shell without its trap.
            f"{self._forget_pull()}"
            f"network=$(docker network create {labels} --subnet {plan.pull.cidr} {network})\n"
            # By its id: an interrupted one that still runs must not take away its successor's.
            "trap 'docker network rm \"$network\" >/dev/null' EXIT\n"
            f"docker run --pull never --rm --name {names.of('model-pull')} {labels} --network {network} "
            "--user 1000:1000 --read-only --cap-drop ALL --security-opt no-new-privileges --pids-limit 256 --memory 2g "
            "--tmpfs /tmp --tmpfs /home/ollama:uid=1000,gid=1000 "
            "-e HOME=/home/ollama -e OLLAMA_MODELS=/models -e OLLAMA_NO_CLOUD=1 -e OLLAMA_NOPRUNE=1 "
            f"-v {names.of('models')}:/models --entrypoint /bin/sh {shlex.quote(self.args.image)} "
            f"-c {shlex.quote(script)}\n"
        )


def _create(container: str, model: str, unpack: str, digest: str, parameters: str = "") -> str:
    script = (
        "set -eu; umask 077; rm -rf /models/.incoming; mkdir /models/.incoming; cd /models/.incoming\n"
        "trap 'rm -rf /models/.incoming' EXIT\n"
        f"{unpack} > model.gguf\n"
        f"printf 'FROM ./model.gguf\\n{parameters}\\n' > Modelfile\n"
        f"ollama create {shlex.quote(model)} -f Modelfile\n"
    )
    return f"# {model} {digest}\ndocker exec -i {container} /bin/sh -c {shlex.quote(script)}\n"


def _remove(container: str, model: str) -> str:
    name = shlex.quote(model)
    return (
        f'[ "$(docker inspect -f "{{{{.State.Running}}}}" {container} 2>/dev/null)" = true ] || exit 0\n'
        f"docker exec {container} ollama show {name} >/dev/null 2>&1 || exit 0\n"
        f"docker exec {container} ollama rm {name} >/dev/null\n"
    )
