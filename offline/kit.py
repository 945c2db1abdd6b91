"""The registry-only kit, made ready: our own build of the CLI, the language host and the four resource plugins.

Chosen by fortress/engine.py where neither Pulumi's downloads nor a container registry is reached.
"""

import hashlib
import os
from pathlib import Path

from rich.console import Console

from offline import build
from offline.language_host import install as language_host
from offline.plugins import install as plugins


def prepare(console: Console, *, python: Path) -> tuple[Path, Path]:
    """Leave with a `pulumi` that can run the program.

    python: interpreter of the project's virtualenv; plugins and language host run under it.
    Returns: (folder with `pulumi` and its language host, PULUMI_HOME); both named by their content.
    """
    with console.status("registry-only engine: building pulumi (about 5 minutes, once)"):
        cli = build.build("pulumi")
    digest = hashlib.sha256(f"{cli}{python}".encode())
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    kit = build.cache() / "kit" / digest.hexdigest()[:16]
    bin_dir, home = kit / "bin", kit / "home"
    ready = kit / ".ready"
    with build.alone(kit):
        if not ready.exists():
            bin_dir.mkdir(parents=True, exist_ok=True)
            # A hard link: through a symbolic one the CLI would look for its language host beside the target.
            own = bin_dir / "pulumi"
            own.unlink(missing_ok=True)
            os.link(cli, own)
            language_host.install(bin_dir, python, digest.hexdigest()[:16])
            plugins.install(home, python, digest.hexdigest()[:16])
            ready.touch()
    return bin_dir, home
