"""A machine with a Docker engine: this one, or one reached by SSH. All shell of the program is written here.

Files reach a container as one directory per component, written by a one-shot container of the component's own
image: the account that deploys needs the right to use Docker, nothing more, and the same script serves both kinds
of host. A revision is written beside the running one, checked by the program that will read it, and only then
becomes `current` by one rename; the running container is told afterwards.
"""

import base64
import hashlib
import io
import shlex
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import pulumi
import pulumi_command as command
import pulumi_docker as docker
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key
from pulumi import Input, Output, ResourceOptions

from components.identity import seed
from fortress import ssh
from images.base import OURS
from settings import PROJECT, HostSettings, SshSettings

ROOT = "/var/lib/ollama-fortress"
"""Where component directories lie on every host, whatever checkout made them."""
SALT = "salt"
"""A file that no program reads: 256 random bits, beside secrets that could be guessed from a hash."""

ABOUT_BYTES = 96 * 1024
"""Of plain words about one delivery, at most."""


@dataclass(frozen=True, kw_only=True)
class Consumer:
    """The program that reads a component's files."""

    image: str
    uid: int
    check: str
    """Shell run in a one-shot container of `image`, with the new revision at /config/current; not 0 refuses it."""
    container: str
    """Name of the running container, told by `reload` after the switch."""
    reload: str = "HUP"
    check_rights: str = ""
    """Options of `docker run` that the check needs beyond those of every one-shot container."""


@dataclass(frozen=True, kw_only=True)
class HostArgs:
    settings: HostSettings
    stack: str


class Host(pulumi.ComponentResource):
    """Files, commands and the Docker provider of one machine."""

    provider: docker.Provider

    def __init__(self, name: str, args: HostArgs, opts: ResourceOptions | None = None) -> None:
        super().__init__("fortress:index:Host", name, {}, opts)
        self.args = args
        self.provider = self._docker(name)
        self.register_outputs({})

    def _docker(self, name: str) -> docker.Provider:
        there = self.args.settings.ssh
        if there is not None:
            ssh.make_folder()
        return docker.Provider(
            f"{name}-docker",
            host=ssh.docker_host(self.args.settings),
            ssh_opts=None if there is None else ssh.options(there),
            opts=ResourceOptions(parent=self),
        )

    def command(
        self,
        name: str,
        *,
        create: Input[str],
        delete: Input[str] | None = None,
        stdin: Input[str] | None = None,
        opts: ResourceOptions,
    ) -> pulumi.Resource:
        """Run shell on the host at create, and again whenever its text or stdin changes: it must be idempotent.

        Secrets travel in `stdin` only; a failing command prints its text.
        """
        prologue = self._prologue()
        text = Output.concat(prologue, create)
        removal = None if delete is None else Output.concat(prologue, delete)
        there = self.args.settings.ssh
        if there is None:
            return self._here(name, text, removal, stdin, opts)
        return command.remote.Command(
            name,
            connection=command.remote.ConnectionArgs(
                host=there.address,
                port=there.port,
                user=there.user,
                host_key=there.host_key,
                private_key=Output.secret(_private_key(there)),
                dial_error_limit=3,
            ),
            create=text,
            delete=removal,
            stdin=stdin,
            add_previous_output_in_env=False,
            logging=command.remote.Logging.NONE,
            opts=ResourceOptions.merge(opts, _SECRET_OUTPUTS),
        )

    def send(
        self,
        name: str,
        *,
        file: Path | None = None,
        stdin: Input[str] | None = None,
        create: str,
        delete: str,
        opts: ResourceOptions,
    ) -> pulumi.Resource:
        """Like `command`, but of one type on every host: another kind of input makes no other resource of it.

        file: of this machine, as standard input: any size, and in no state.

        The shell still runs on the host: this machine only holds the file open, and calls `ssh` where that is needed.
        """
        text, removal = self._prologue() + create, self._prologue() + delete
        there = self.args.settings.ssh
        if there is not None:
            text, removal = ssh.shell(there, text), ssh.shell(there, removal)
            # What `command` made here before is the same resource, else its `delete` undoes what this one creates. It
            # is replaced, for the official plugin updates no state that holds a `connection`, which this type has not.
            before = ResourceOptions(aliases=[pulumi.Alias(type_=_REMOTE)], replace_on_changes=["connection"])
            opts = ResourceOptions.merge(opts, before)
        if file is None:
            return self._here(name, text, removal, stdin, opts)
        # `~` stays as it is written: another machine must get the same plan.
        path = str(file)
        source = f'"$HOME"/{shlex.quote(path[2:])}' if path.startswith("~/") else shlex.quote(path)
        return self._here(name, f"{{\n{text}\n}} < {source}", f"{{\n{removal}\n}} < /dev/null", None, opts)

    def _here(
        self,
        name: str,
        create: Input[str],
        delete: Input[str] | None,
        stdin: Input[str] | None,
        opts: ResourceOptions,
    ) -> pulumi.Resource:
        return command.local.Command(
            name,
            create=create,
            delete=delete,
            stdin=stdin,
            add_previous_output_in_env=False,
            logging=command.local.Logging.NONE,
            opts=ResourceOptions.merge(opts, _SECRET_OUTPUTS),
        )

    def _prologue(self) -> str:
        socket = self.args.settings.docker_socket
        return f"set -eu\nexport DOCKER_HOST=unix://{shlex.quote(socket)}\n"

    def files(
        self,
        name: str,
        *,
        component: str,
        files: Mapping[str, Input[str]],
        consumer: Consumer,
        about: Sequence[str] = (),
        chosen: Sequence[str] = (),
        opts: ResourceOptions,
    ) -> "HostFiles":
        """Deliver a component's files.

        component: directory name under the stack's own directory.
        files: relative path -> text; secret or not, all of it travels by stdin.
        about: plain words for the preview (users, addresses): never a secret.
        chosen: files with a secret that somebody else chose, maybe a short one: the preview shows no hash of it, and
            the revision's tells nothing of it, for it is of a random file as well.
        """
        directory = f"{ROOT}/{self.args.stack}/{component}"
        if any(path in files for path in chosen):
            files = {**files, SALT: seed(f"{name}-salt", ResourceOptions(parent=opts.parent))}
            chosen = [*chosen, SALT]
        archive = Output.all(**files).apply(lambda texts: _archive(texts, consumer.uid))
        summary = Output.all(**files).apply(lambda texts: _summary(texts, about, chosen))
        # The hashes are of whole texts, keys of 256 bit or the salt included: nothing can be guessed from them.
        plain = Output.unsecret(summary)
        revision = Output.unsecret(archive.apply(lambda text: hashlib.sha256(text.encode()).hexdigest()))
        delivered = self.command(
            name,
            create=Output.all(plain, revision).apply(
                lambda parts: _deliver(parts[0], parts[1], directory, consumer),
            ),
            delete=_remove(directory, consumer.image),
            stdin=Output.secret(archive),
            opts=opts,
        )
        return HostFiles(directory=directory, revision=revision, delivered=delivered)


_REMOTE = "command:remote:Command"
_SECRET_OUTPUTS = ResourceOptions(additional_secret_outputs=["stdout", "stderr"])


def _private_key(there: SshSettings) -> str:
    """The key's text, or a refusal: Pulumi's command plugins sign with the key itself, not through an agent."""
    where = f"{PROJECT}:host.ssh.private_key_file {there.private_key_file}"
    try:
        text = there.private_key_file.expanduser().read_text()
        load = load_ssh_private_key if "OPENSSH PRIVATE KEY" in text else load_pem_private_key
        load(text.encode(), password=None)
    except OSError as error:
        raise pulumi.RunError(f"{where}: {error.strerror}; write the path of a private key that you can read") from None
    except TypeError:
        raise pulumi.RunError(
            f"{where} needs a passphrase, and nobody is there to type it; make a key of its own for deployments "
            "(`ssh-keygen -t ed25519 -N ''`) and let the host accept that"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise pulumi.RunError(
            f"{where} is no private key that OpenSSH made; `ssh-keygen -t ed25519` makes one"
        ) from None
    return text


@dataclass(frozen=True)
class HostFiles:
    """A delivered component directory; containers mount `directory` and depend on `delivered`."""

    directory: str
    revision: Output[str]
    delivered: pulumi.Resource


def _archive(texts: Mapping[str, str], uid: int) -> str:
    """A tar in base64, the same bytes for the same files: text is all that stdin carries."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        folders = sorted({str(parent) for path in texts for parent in Path(path).parents if str(parent) != "."})
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, 0o500, uid, uid
            tar.addfile(entry)
        for path in sorted(texts):
            content = texts[path].encode()
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o400, uid, uid
            tar.addfile(entry, io.BytesIO(content))
    return base64.encodebytes(buffer.getvalue()).decode()


def _summary(texts: Mapping[str, str], about: Sequence[str], chosen: Sequence[str]) -> str:
    shown = [path for path in sorted(texts) if path not in chosen]
    hashes = [f"# {path} {hashlib.sha256(texts[path].encode()).hexdigest()[:16]}" for path in shown]
    return "\n".join([*(f"# {line}" for line in _as_many_as_fit(about)), *hashes])


def _as_many_as_fit(about: Sequence[str]) -> list[str]:
    """A shell is given its script as one argument, which Linux lets have 128 KiB; what is in it has its hash anyway."""
    ends = accumulate(len(line) + len("# \n") for line in about)
    fit = sum(end <= ABOUT_BYTES for end in ends)
    return [*about[:fit], f"and {len(about) - fit} more"] if fit < len(about) else [*about]


_WRITER = (
    "docker run --pull never --rm -i --network none --user 0:0 --read-only --cap-drop ALL "
    "--security-opt no-new-privileges"
)
_OWNER = "--cap-add CHOWN --cap-add DAC_OVERRIDE --cap-add FOWNER --entrypoint /bin/sh"

# Asked before anything runs: the engine would say that the image is missing, and not what to do.
_FOUND = """\
[ -n "$found" ] || {{
  echo "this host's Docker engine has no image $image; run" >&2
  echo "\\`bin/fortress images build --stack {stack}\\`, then this again" >&2
  exit 1
}}"""

_RECEIVE = """\
set -eu; umask 077; cd /target
trap '[ $? = 0 ] || { rm -rf ".new-$rev"
  echo "the config was not written to $dir on this host, and the old one stays: make room on its disk, then up again"
} >&2' EXIT
rm -rf ".new-$rev"; mkdir ".new-$rev"
base64 -d | tar -x -p --same-owner -C ".new-$rev"
chown "$uid:$uid" ".new-$rev"; chmod 0500 ".new-$rev"
# A directory of that name is the same revision, complete by the rename that made it.
if [ -d "rev-$rev" ]; then rm -rf ".new-$rev"; else mv -T ".new-$rev" "rev-$rev"; fi
chmod 0755 ."""

_SWITCH = """\
set -eu
cd /target
# A refused revision goes, unless it is the running one, refused by a new image or a new check.
( sh -c "$check" ) >&2 || { [ "$(readlink current)" = "rev-$rev" ] || rm -rf -- "rev-$rev"; exit 1; }
ln -sfn "rev-$rev" .current; mv -T .current current
for old in .new-* rev-*; do [ "$old" = "rev-$rev" ] || rm -rf -- "$old"; done"""


# What is not running reads the new files when it starts: that of a crash loop as well, whose `.State.Running` is true
# while it waits for its restart. It may crash between question and word, and be back before it is asked again. What is
# paused would go on with the old files: it counts as running, and the engine says that it must be unpaused first.
# Not `docker kill --signal`: the engine takes any signal for a stop by hand, and would not restart the container after
# its next crash or reboot (`unless-stopped`; seen on engine 20.10).
_TELL = """\
tell() {{
  runs=$(docker ps -q --filter "name=^$name\\$" --filter status=running --filter status=paused) || return 1
  [ -z "$runs" ] || docker exec "$name" /bin/sh -c 'kill -{signal} 1'
}}
tell 2>/dev/null || {{ sleep 1; tell 2>/dev/null; }} || {{ sleep 1; tell; }}"""


def _deliver(summary: str, revision: str, directory: str, consumer: Consumer) -> str:
    """The script of one delivery: what differs between two revisions stands in its first lines."""
    environment = '-e dir="$dir" -e rev="$rev" -e uid="$uid" -e check="$check"'
    # A check runs without the container's own networks, so addresses that it will have must be bindable.
    bindable = "--sysctl net.ipv4.ip_nonlocal_bind=1"
    scratch = " ".join(f"--tmpfs {path}" for path in ("/tmp", "/run", "/var/log/gateway", "/var/lib/gateway"))  # noqa: S108
    return f"""{summary}
rev={revision}
dir={shlex.quote(directory)}
image={shlex.quote(consumer.image)} uid={consumer.uid} name={shlex.quote(consumer.container)}
check={shlex.quote(consumer.check)}
found=$(docker images -q "$image")
{_FOUND.format(stack=Path(directory).parent.name)}
{_WRITER} {_OWNER} {environment} -v "$dir:/target" "$image" -c {shlex.quote(_RECEIVE)}
{_WRITER} {_OWNER} {environment} {bindable} {consumer.check_rights} {scratch} -v "$dir:/target" \\
  -v "$dir/rev-$rev:/config/current:ro" "$image" -c {shlex.quote(_SWITCH)} </dev/null
{_TELL.format(signal=consumer.reload)}
"""


def _remove(directory: str, image: str) -> str:
    parent, _, leaf = directory.rpartition("/")
    root, _, stack = parent.rpartition("/")
    script = f"rm -rf -- /root/{stack}/{leaf}; rmdir -- /root/{stack} 2>/dev/null || :"
    return f"""\
image={shlex.quote(image)}
found=$(docker images -q "$image")
# Any other of ours can remove as well: after an update, no checkout builds that one any more.
[ -n "$found" ] || found=$(docker images -q "{OURS}/*" | head -n 1)
{_FOUND.format(stack=stack)}
{_WRITER} --cap-add DAC_OVERRIDE --cap-add FOWNER --entrypoint /bin/sh -v {root}:/root \\
  "$found" -c {shlex.quote(script)} </dev/null
"""
