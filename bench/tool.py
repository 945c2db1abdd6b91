"""The load program (bench/load/), built from Go's own library alone and kept in the user's cache by its content."""

import hashlib
import os
import subprocess
from pathlib import Path

from fortress import paths
from fortress.errors import Stop
from offline import build

SOURCE = Path(__file__).parent / "load"
NAME = "load"


def folder() -> Path:
    """The folder that holds the program and nothing else, so that a container can mount it.

    Raises: Stop with the compiler's words.
    """
    digest = hashlib.sha256()
    for file in sorted(SOURCE.iterdir()):
        digest.update(file.read_bytes())
    home = paths.cache() / "bench" / f"load-{digest.hexdigest()[:16]}"
    with build.alone(home):
        if not home.exists():
            with build.workshop(home) as work:
                command = [build.go(), "build", "-trimpath", "-buildvcs=false", "-o", str(work / "it" / NAME), "."]
                environment = os.environ | {"CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local"}
                done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False)
                if done.returncode != 0:
                    raise Stop(f"the bench's load program does not build:\n{done.stderr.strip()[-2000:]}")
                (work / "it").chmod(0o755)
                (work / "it").rename(home)
    return home
