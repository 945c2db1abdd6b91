"""Ollama's own decoding, as a program: what it would obey of a request.

Built from main.go beside the kit's pinned go.mod, with the flags of the kit's own Ollama build, so that Go finds most
of it in its cache. Without a Go toolchain `offline.build.go` gets one; where it cannot, the tests fail and say so.
"""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from offline import build

HERE = Path(__file__).parent


class Oracle:
    def __init__(self, folder: Path) -> None:
        for file in (HERE / "main.go", *build.TOOLS["ollama"].module.glob("go.*")):
            shutil.copy(file, folder)
        self.program = folder / "oracle"
        command = [build.go(), "build", "-trimpath", "-buildvcs=false", "-mod=readonly", "-o", str(self.program), "."]
        environment = os.environ | build.TOOLS["ollama"].environment()
        built = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert built.returncode == 0, f"the oracle does not build:\n{built.stderr[-4000:]}"

    def keys(self) -> dict[str, list[str]]:
        """The JSON keys of each request struct."""
        return json.loads(subprocess.run([self.program, "keys"], capture_output=True, check=True).stdout)

    def obeys(self, cases: list[tuple[str, bytes]]) -> list[dict[str, Any]]:
        """For each (path, body): what Ollama would obey, or {"refused": why}."""
        lines = [json.dumps({"path": path, "body": base64.b64encode(body).decode()}) for path, body in cases]
        said = subprocess.run(
            [self.program], input="\n".join(lines).encode(), capture_output=True, check=True, timeout=120
        )
        return [json.loads(line) for line in said.stdout.splitlines()]
