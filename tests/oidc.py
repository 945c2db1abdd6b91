"""An OpenID provider of the tests' own: a real dex in a container, over https, with an authority of its own.

It listens at an address of this machine, so that containers with a way out, clients of tests and this process all reach
it under the one name that is its issuer.
"""

import html
import json
import re
import secrets
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from fortress import stack_file
from images import reference
from offline import build
from tests.deployment import PAGE, Deployment, deployed, printed
from tests.unit.gateway.harness import Authority

PASSWORD = "password"
_HASH = "$2a$10$2b2cU8CPhOTaGrs1HRQuAueS7JTT5ZHsHSzYiFPm1leZck7Mc8T4W"
PEOPLE = ("ada@example.com", "bob@example.com", "stranger@example.com")


@dataclass(frozen=True)
class Provider:
    """A running dex, and one application that is registered there."""

    issuer: str
    ca_file: Path
    client_id: str
    client_secret: str
    container: str

    def browser(self, **more: Any) -> dict[str, Any]:
        """The browser section of a stack whose people sign in here; its secret as the program gets it."""
        return {
            "provider": "oidc",
            "issuer_url": self.issuer,
            "ca_file": str(self.ca_file),
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            **more,
        }

    def sign_in(self, url: str, email: str, password: str = PASSWORD) -> str:
        """Do what a person does at the provider, from where the page has sent it. Returns: the callback's address."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with httpx.Client(verify=context, timeout=20) as client:
            reply = client.get(url)
            for _ in range(10):
                if reply.is_redirect:
                    url = urljoin(str(reply.url), reply.headers["location"])
                    if not url.startswith(self.issuer):
                        return url
                    reply = client.get(url)
                    continue
                form = re.search(r'<form[^>]*action="([^"]*)"', reply.text)
                assert reply.status_code == 200, f"dex answered {reply.status_code}: {reply.text[:2000]}"
                assert form is not None, f"dex shows no form: {reply.text[:2000]}"
                assert "Invalid" not in reply.text, "dex refuses this password"
                action = urljoin(str(reply.url), html.unescape(form[1]) or str(reply.url))
                reply = client.post(action, data={"login": email, "password": password})
        raise AssertionError(f"dex led in circles: {url}")


def _config(issuer: str, listen: str, application: dict[str, Any], people: Sequence[str]) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "storage": {"type": "memory"},
        "web": {"https": listen, "tlsCert": "/dex/server.pem", "tlsKey": "/dex/server.key"},
        "oauth2": {"skipApprovalScreen": True},
        "enablePasswordDB": True,
        "staticClients": [application],
        "staticPasswords": [
            {"email": email, "hash": _HASH, "username": email.partition("@")[0], "userID": f"id-{number}"}
            for number, email in enumerate(people)
        ],
    }


@contextmanager
def provider(
    folder: Path,
    hosts: Sequence[str],
    *,
    address: str | None = None,
    people: Sequence[str] = PEOPLE,
    engine: str = "registry-only",
) -> Iterator[Provider]:
    """A dex that knows `people`, all with PASSWORD, and sends them back to these hosts' /oauth2/callback.

    folder: empty; it must outlive the deployment that believes its authority.
    hosts: with ports, as browsers write them.
    address: of this machine; without, the one that its default route leaves from.
    """
    address = address or stack_file.own_address()
    with socket.socket() as probe:
        probe.bind((address, 0))
        listen = f"{address}:{probe.getsockname()[1]}"
    authority = Authority("test provider")
    certificate, key = authority.leaf(address)
    application = {
        "id": "fortress",
        "name": "fortress",
        "secret": secrets.token_urlsafe(24),
        "redirectURIs": [f"https://{host}/oauth2/callback" for host in hosts],
    }
    issuer = f"https://{listen}/dex"
    config = _config(issuer, listen, application, people)
    for name, text in {
        "ca.pem": authority.pem,
        "server.pem": certificate,
        "server.key": key,
        "config.yaml": json.dumps(config),  # JSON is YAML
    }.items():
        (folder / name).write_text(text)
    program = build.build("dex")
    # Any image with a file system: the program needs nothing of it.
    carrier = reference("gateway", engine)
    run = ["docker", "run", "-d", "--network", "host", "--read-only", "--cap-drop", "ALL", "--user", "65534:65534"]
    run += ["-v", f"{folder}:/dex:ro", "-v", f"{program}:/usr/bin/dex:ro", "--entrypoint", "/usr/bin/dex", carrier]
    container = subprocess.run(
        [*run, "serve", "/dex/config.yaml"], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        _until_it_answers(issuer, folder / "ca.pem", container)
        yield Provider(issuer, folder / "ca.pem", application["id"], application["secret"], container)
    finally:
        subprocess.run(["docker", "rm", "-f", container], capture_output=True, check=False)


def _until_it_answers(issuer: str, ca_file: Path, container: str) -> None:
    context = ssl.create_default_context(cafile=str(ca_file))
    for _ in range(100):
        try:
            if httpx.get(f"{issuer}/.well-known/openid-configuration", verify=context).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.1)
    raise AssertionError(f"dex does not answer at {issuer}: {printed(container)}")


HOSTS = (PAGE, "10.66.0.1:8443", "[fd66:66:66:66::1]:8443")
"""Of the page of a deployment that keeps the defaults."""


@contextmanager
def deployed_with_login(
    folder: Path, observability: str = "lite", **users: Any
) -> Iterator[tuple[Deployment, Provider]]:
    """A fortress whose people sign in at a dex: `ada` and `bob` with their addresses in PEOPLE; `users` on top.

    folder: empty, for the provider's files.
    """
    deployment = Deployment.fresh()
    deployment.config["observability"] = observability
    with provider(folder, HOSTS, engine=deployment.engine) as running:
        for name in ("ada", "bob"):
            deployment.config["users"][name]["email"] = f"{name}@example.com"
        deployment.config["users"]["ada"]["keyless"] = False  # nobody but ada's session says who she is
        deployment.config["users"] |= users
        browser = running.browser()
        secret = browser.pop("client_secret")
        deployment.config["browser"] = browser
        deployment.encrypt("browser.client_secret", secret)
        with deployed(deployment):
            yield deployment, running
