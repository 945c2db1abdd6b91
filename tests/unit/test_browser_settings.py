"""The browser section: what it takes, and what it says when it refuses."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from fortress import stack_file
from settings import ConfigRefused, Provider, StackSettings, load

GITHUB = {"provider": "github", "client_id": "Iv1.abc", "client_secret": "s3cret"}
OIDC = {**GITHUB, "provider": "oidc", "issuer_url": "https://login.example.com/realms/home"}
USERS: dict[str, Any] = {
    "alice": {"keyless": True},
    "bob": {"email": "bob@example.com"},
    "ci": {"service": True, "email": "ci@example.com", "keyless": True},
    "dave": {},
}


def settings(browser: Any, **more: Any) -> StackSettings:
    config = {"users": USERS, "wireguard": {"endpoint": "vpn.example.com:51820"}, "browser": browser, **more}
    return load("test", {f"ollama-fortress:{key}": value for key, value in config.items()})


def refusal(browser: Any, **more: Any) -> str:
    with pytest.raises(ConfigRefused) as caught:
        settings(browser, **more)
    return str(caught.value)


def test_without_the_section_there_is_no_page():
    built = settings(None)
    assert (built.browser, built.login, built.browser_hosts, built.browser_users) == (None, None, (), ())


def test_an_empty_section_is_the_page_for_keyless_users():
    built = settings({})
    assert built.login is None
    assert built.browser_users == ("alice",)
    assert built.browser_hosts == ("chat.ollama.fortress.internal", "10.66.0.1:8443", "[fd66:66:66:66::1]:8443")


def test_with_a_provider_everybody_with_an_address_may_sign_in_but_no_service():
    built = settings(GITHUB)
    assert built.login is Provider.GITHUB
    assert built.browser_users == ("alice", "bob")


def test_ports_stand_behind_a_host_only_where_a_browser_writes_them():
    wireguard = {"endpoint": "vpn.example.com:51820", "relay_port": 444}
    built = settings({"port": 443, "domain": "talk.example.com"}, wireguard=wireguard)
    assert built.browser_hosts == ("talk.example.com:444", "10.66.0.1", "[fd66:66:66:66::1]")


@pytest.mark.parametrize("issuer", ["https://login.example.com", "https://10.1.2.3:5556/dex", "https://[fd00::1]/x/"])
def test_an_issuer_is_any_https_address_without_a_query(issuer: str):
    built = settings(OIDC | {"issuer_url": issuer})
    assert built.browser is not None
    assert built.browser.issuer_url == issuer


@pytest.mark.parametrize(
    ("browser", "says"),
    [
        ({"domian": "x.example.com"}, "unknown key 'domian'; did you mean 'domain'?"),
        ({"provider": "microsoft"}, "browser.provider"),
        ({"provider": "github"}, "there is no client_id; register an application there"),
        ({"provider": "github", "client_id": "x"}, "there is no client_secret; run `pulumi config set --secret --path"),
        ({**OIDC, "issuer_url": None}, "there is no issuer_url; write it like https://login.example.com"),
        ({**OIDC, "issuer_url": "http://login.example.com"}, "is not the issuer of an OpenID provider"),
        ({**OIDC, "issuer_url": "https://login.example.com/?x=1"}, "is not the issuer of an OpenID provider"),
        ({**OIDC, "issuer_url": 'https://x"\nemail_domains = ["*"]'}, "is not the issuer of an OpenID provider"),
        ({**GITHUB, "issuer_url": "https://github.com"}, "issuer_url is for provider: oidc; github is known"),
        ({**GITHUB, "ca_file": "ca.pem"}, "ca_file is for provider: oidc"),
        ({**GITHUB, "client_id": 'x"\n'}, "is not a client id"),
        ({**GITHUB, "client_secret": "two words"}, "it was not copied whole"),
        ({**GITHUB, "client_secret": ""}, "it was not copied whole"),
        ({"client_id": "x"}, "client_id is written, but no provider that it is for"),
        ({"session_hours": 0}, "browser.session_hours"),
        ({"domain": "ollama.fortress.internal"}, "the API's own name, where no cookie may count; write another"),
        ({"port": 443}, "which is the API's port at the tunnel address (wireguard.relay_port)"),
        ({**GITHUB, "provider": "google"}, "which sends nobody back to chat.ollama.fortress.internal"),
    ],
)
def test_a_refusal_names_the_setting_and_the_way_out(browser: dict[str, Any], says: str):
    said = refusal(browser)
    assert says in said
    assert "s3cret" not in said
    assert "two words" not in said


def test_google_takes_a_name_below_a_public_domain():
    assert settings({**GITHUB, "provider": "google", "domain": "chat.example.org"}).login is Provider.GOOGLE


def test_a_name_that_would_be_too_long_is_refused():
    assert "write a shorter browser.domain" in refusal({}, domain=".".join(["a" * 60] * 4) + ".example")


def test_a_page_that_nobody_could_open_is_refused():
    nobody = {"bob": {"email": "bob@example.com"}, "ci": {"service": True, "keyless": True}}
    assert "Write `keyless: true` at a user, or a provider" in refusal({}, users=nobody)
    assert "Give an `email` to a user who is no service" in refusal(GITHUB, users={"dave": {}})


def test_the_secret_is_in_no_text_of_the_settings():
    assert "s3cret" not in repr(settings(GITHUB)) + str(settings(GITHUB).model_dump())


def test_an_encrypted_secret_needs_not_be_read(tmp_path: Path):
    file = tmp_path / "Pulumi.home.yaml"
    config = {
        "ollama-fortress:users": USERS,
        "ollama-fortress:wireguard": {"endpoint": "vpn.example.com:51820"},
        "ollama-fortress:browser": {**GITHUB, "client_secret": {"secure": "v1:abc"}},
    }
    file.write_text(yaml.safe_dump({"config": config}))
    assert load("home", stack_file.read(file)).login is Provider.GITHUB
