"""Golden files, and the real programs that must accept them."""

import difflib
import os
import subprocess
from pathlib import Path

import pytest

from images import ImageError, reference

GOLDEN = Path(__file__).parent.parent / "golden"


class Golden:
    """Reviewed texts. A mismatch prints the difference; FORTRESS_GOLDEN=write (`make golden`) takes it over."""

    def check(self, name: str, text: str, folder: Path = GOLDEN) -> None:
        path = folder / name
        if os.environ.get("FORTRESS_GOLDEN") == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        known = path.read_text() if path.exists() else ""
        if text != known:
            lines = difflib.unified_diff(known.splitlines(), text.splitlines(), f"golden/{name}", "now", lineterm="")
            pytest.fail("\n".join([*lines, "meant? make golden, read the diff, commit both"]), pytrace=False)


@pytest.fixture
def golden() -> Golden:
    return Golden()


class VpnNode:
    """The image in which the real wg, nft and haproxy are; nothing it does reaches this machine."""

    def __init__(self, image: str) -> None:
        self.image = image

    def run(self, script: str, *arguments: str, stdin: str = "", mount: Path | None = None) -> str:
        """Run a shell script without network and return what it prints; a failure fails the test with its words."""
        done = subprocess.run(
            [
                *("docker", "run", "--rm", "-i", "--network", "none", "--cap-drop", "ALL", "--cap-add", "NET_ADMIN"),
                *("--device", "/dev/net/tun", "--sysctl", "net.ipv6.conf.all.disable_ipv6=0"),
                *(("--volume", f"{mount}:/config:ro") if mount else ()),
                *("--entrypoint", "/bin/sh", self.image, "-c", script, "sh", *arguments),
            ],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def vpn_node() -> VpnNode:
    for engine in ("registry-only", "online"):
        try:
            return VpnNode(reference("vpn-node", engine))
        except ImageError as error:
            missing = str(error)
    pytest.fail(f"the real wg, nft and haproxy are needed here: {missing}", pytrace=False)
