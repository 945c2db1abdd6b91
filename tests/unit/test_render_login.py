"""oauth2-proxy's config: reviewed, and accepted by oauth2-proxy itself."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.login import UID
from images import reference
from render import oauth2_proxy
from settings import StackSettings
from settings.keys import Seed, cookie_secret
from tests.unit.conftest import Golden
from tests.unit.gateway.harness import Authority
from tests.unit.test_browser_settings import GITHUB, OIDC, settings

CASES: dict[str, dict[str, Any]] = {
    "github": GITHUB,
    "google": {**GITHUB, "provider": "google", "domain": "chat.example.org", "session_hours": 24},
    "oidc": {**OIDC, "ca_file": "ca.pem"},
}


def text(of: StackSettings) -> str:
    return oauth2_proxy.config(of, of.plan)


@pytest.mark.parametrize("case", CASES)
def test_the_golden_files_are_the_reviewed_ones(case: str, golden: Golden):
    golden.check(f"oauth2-proxy/{case}.cfg", text(settings(CASES[case])))


@pytest.mark.parametrize("case", CASES)
def test_oauth2_proxy_itself_accepts_the_files_without_asking_anybody(case: str, tmp_path: Path):
    current = tmp_path / "current"
    current.mkdir()
    tmp_path.chmod(0o755)
    files = {
        "oauth2-proxy.cfg": text(settings(CASES[case])),
        "client-secret": "s3cret",
        "cookie-secret": cookie_secret(Seed(b"s" * 32), "1"),
        "provider-ca.pem": Authority("golden").pem,
    }

    def check() -> subprocess.CompletedProcess[str]:
        for name, content in files.items():
            (current / name).write_text(content)
        image = reference("login", os.environ.get("FORTRESS_ENGINE", "registry-only"))
        run = [
            "docker",
            "run",
            "--rm",
            "--network",
            "none",
            "--read-only",
            "--cap-drop",
            "ALL",
            "--user",
            f"{UID}:{UID}",
        ]
        run += ["-v", f"{tmp_path}:/config:ro", image, "--config", "/config/current/oauth2-proxy.cfg", "--config-test"]
        return subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)

    said = check()
    assert said.returncode == 0, said.stderr
    assert "WARNING" not in said.stderr
    files["oauth2-proxy.cfg"] += "no_such_option = true\n"
    assert check().returncode != 0, "the check takes anything"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "word", ["skip_auth", "ping_user_agent", "trusted_ips", "whitelist", "htpasswd", "gcp", "metrics", "jwt"]
)
def test_what_has_let_strangers_in_before_is_absent(case: str, word: str):
    assert word not in text(settings(CASES[case]))


def test_no_secret_is_in_the_config():
    assert "s3cret" not in text(settings(GITHUB))
