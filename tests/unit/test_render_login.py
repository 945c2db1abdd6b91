"""oauth2-proxy's config: reviewed, and accepted by oauth2-proxy itself."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import images
from components.login import UID
from images import reference
from render import oauth2_proxy
from settings import StackSettings
from settings.keys import Seed, cookie_secret
from settings.users import User
from tests.unit.conftest import Golden
from tests.unit.gateway.harness import Authority
from tests.unit.test_browser_settings import GITHUB, OIDC, settings

SCRIPT = Path(images.__file__).parent / "login" / "login"
BY_ITSELF = ["docker", "run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"]
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
            *BY_ITSELF,
            "--user",
            f"{UID}:{UID}",
            "-v",
            f"{tmp_path}:/config:ro",
            "--entrypoint",
            "oauth2-proxy",
            image,
        ]
        run += ["--config", "/config/current/oauth2-proxy.cfg", "--config-test"]
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


def test_the_people_are_those_with_an_address_and_nobody_else(golden: Golden):
    of = settings(GITHUB)
    users = {"bob": {"email": "bob@example.com"}, "ann": {"email": "a.n+n@example.com"}, "ci": {"service": True}}
    of = of.model_copy(update={"users": {name: User.model_validate(each) for name, each in users.items()}})
    golden.check("oauth2-proxy/people", oauth2_proxy.people(of))


class Trail:
    """`login trail` as the container runs it, with oauth2-proxy's words for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "people").write_text('# made\n"bob@example.com" bob\n"a.n+n@example.com" ann\n')

    def __call__(self, *said: str, word: str = "trail", path: Path = SCRIPT.parent, **more: str) -> list[Any]:
        """path: folder of the programs that it finds first."""
        places = {"LOGIN_CONFIG": self.folder, "LOGIN_LOG": self.folder, "LOGIN_PIPE": self.folder / "said"}
        found = f"{path}:{SCRIPT.parent}:{SCRIPT.parents[1] / 'trails'}:{os.environ['PATH']}"
        done = subprocess.run(
            ["sh", str(SCRIPT), word],
            input="".join(f"{line}\n" for line in said),
            env={"PATH": found, **{name: str(place) for name, place in places.items()}, **more},
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.out, self.err = done.stdout, done.stderr
        file = self.folder / "auth.json"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    return Trail(tmp_path)


@pytest.mark.parametrize(
    ("email", "user"),
    [
        ("bob@example.com", "bob"),
        ("Bob@Example.COM", "bob"),
        ("a.n+n@example.com", "ann"),
        ("aXn+n@example.com", "unknown"),
        ("stranger@example.com", "unknown"),
        ("-", "unknown"),
        ("", "unknown"),
        (".*", "unknown"),
        ('\\"} $(id) `id` ; rm', "unknown"),
        ("bob@example.com eve", "unknown"),
    ],
)
def test_only_an_address_of_the_config_has_a_name_and_no_address_is_written(email: str, user: str, trail: Trail):
    [event] = trail(f'signed-in AuthSuccess 10.66.1.2 "{email}"')
    assert event.pop("time").endswith("Z")
    assert event == {"event": "login", "result": "success", "user": user, "address": "10.66.1.2"}
    assert "example" not in (trail.folder / "auth.json").read_text()
    assert (trail.out, (trail.folder / "auth.json").stat().st_mode & 0o777) == ("", 0o644)


def test_what_is_no_sign_in_goes_nowhere(trail: Trail):
    told = trail(
        '[2027/01/15 08:00:00] [oauthproxy.go:921] "&{GET 0xbe34a0 map[Cookie:[__Host-fortress=s3ssion]]"',
        'signed-in AuthFailure fd66::1 "-"',
        '[2027/01/15 08:00:00] [proxy.go:89] "\\nsigned-in AuthSuccess 10.66.3.4 \\"bob@example.com\\"\\n"',
        'signed-in AuthError 10.66.1.2","x" "-"',
        'signed-in AuthOdd 10.66.1.2 "bob@example.com"',
        ' not signed-in AuthSuccess 10.66.1.2 "bob@example.com"',
    )
    assert [(each["result"], each["address"]) for each in told] == [("failure", "fd66::1"), ("error", "10.66.1.2")]
    assert (trail.out, trail.err) == ("", "login: an unknown result of a sign-in: AuthOdd\n")


def test_the_trail_is_rotated_and_bounded(trail: Trail):
    (trail.folder / "auth.json").write_text("{}\n")
    for day in range(1, 9):
        (trail.folder / f"auth-2027010{day}T000000Z.json").write_text("{}\n")
    assert len(trail('signed-in AuthSuccess 10.66.1.2 "-"', LOGIN_BYTES="2")) == 1
    assert len(list(trail.folder.glob("auth-*.json"))) == 4


def test_old_sign_ins_go_where_nobody_signs_in(trail: Trail, tmp_path_factory: pytest.TempPathFactory):
    old = '{"time":"2020-01-01T00:00:00.000Z","event":"login"}\n'
    (trail.folder / "auth.json").write_text(old)
    proxy = tmp_path_factory.mktemp("bin") / "oauth2-proxy"
    proxy.write_text("#!/bin/sh\nexec sleep 2\n")
    proxy.chmod(0o755)
    assert trail(word="run", path=proxy.parent) == []
    assert [file.read_text() for file in trail.folder.glob("auth-*.json")] == [old]


def test_a_sign_in_that_cannot_be_written_down_is_said_and_stops_nobody(trail: Trail):
    (trail.folder / "auth.json").mkdir()
    assert trail(*['signed-in AuthSuccess 10.66.1.2 "-"'] * 2) == []
    assert trail.err.count("a sign-in was not written down") == 2


def test_an_error_has_no_query_of_an_address_and_the_last_one_is_heard(tmp_path: Path):
    """As with Google, where its check of a token could not be asked."""
    proxy = tmp_path / "oauth2-proxy"
    asked = (
        '[internal_util.go:70] "failed: Get \\"https://example.com/tokeninfo?access_token=ya29.s3cret\\": no such host"'
    )
    proxy.write_text(f"#!/bin/sh\nprintf '%s\\n' '{asked}' 'ERROR: no issuer' >&2\nexit 1\n")
    proxy.chmod(0o755)
    tmp_path.chmod(0o755)
    image = reference("login", os.environ.get("FORTRESS_ENGINE", "registry-only"))
    run = [*BY_ITSELF, "--tmpfs", "/tmp:mode=1777", "-v", f"{proxy}:/usr/bin/oauth2-proxy:ro", image]
    done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        asked.replace("access_token=ya29.s3cret", "..."),
        "ERROR: no issuer",
        "login: oauth2-proxy or its trail died",
    ]
