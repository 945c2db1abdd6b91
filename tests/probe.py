"""A small Pulumi program of its own for one test, run by a real `pulumi` on a state of its own."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any


class Probe:
    """`environment`: where `pulumi` and its plugins are, beside this process's own."""

    def __init__(self, folder: Path, program: str, stack: str, environment: dict[str, str]) -> None:
        self.folder, self.stack, self.last_code = folder, stack, 0
        (folder / "state").mkdir(parents=True)
        self.environment = (
            os.environ
            | environment
            | {"PULUMI_BACKEND_URL": f"file://{folder}/state", "PULUMI_CONFIG_PASSPHRASE": "not secret"}
        )
        (folder / "Pulumi.yaml").write_text("name: probe\nruntime: python\n")
        (folder / "__main__.py").write_text(program)
        self("stack", "init", stack)

    def __call__(self, *arguments: str, check: bool = True) -> str:
        done = subprocess.run(
            ["pulumi", *arguments, "--non-interactive"],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert not check or done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        self.last_code = done.returncode
        return done.stdout + done.stderr

    def up(self, *options: str, check: bool = True) -> str:
        return self("up", "--yes", "--skip-preview", *options, check=check)

    def planned(self, *options: str) -> dict[str, str]:
        """Resource -> what a preview would do with it."""
        shown = json.loads(self("preview", "--json", *options))
        steps = ((step["urn"].split("::")[-1], step["op"]) for step in shown["steps"])
        return {name: operation for name, operation in steps if operation not in ("same", "refresh")}

    def outputs(self) -> Any:
        return json.loads(self("stack", "output", "--json"))
