"""bin/bootstrap: the virtualenv is made with what the machine has."""

import shutil
import subprocess
from pathlib import Path

from fortress import paths


def test_a_service_without_a_home_variable_has_its_accounts_home_folder(tmp_path: Path) -> None:
    checkout, home, tools = (tmp_path / name for name in ("checkout", "home", "tools"))
    uv = home / ".cache" / "ollama-fortress" / "uv" / "bin" / "uv"
    for folder in (checkout / "bin", checkout / ".venv", uv.parent, tools):
        folder.mkdir(parents=True)
    shutil.copy(paths.CHECKOUT / "bin" / "bootstrap", checkout / "bin")
    (checkout / "uv.lock").touch()
    for name in ("cmp", "cp", "cut", "dirname", "id"):
        (tools / name).symlink_to(shutil.which(name) or name)
    for program, says in ((tools / "getent", f"ada:x:1000:1000::{home}:/bin/sh"), (uv, "made by the uv at home")):
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(checkout / "bin" / "bootstrap")],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "made by the uv at home\n", "")
