"""A certificate of one's own and another port in the tunnel: `make up` ends with its question, bundles are right."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment import DOMAIN, Client, Deployment, deployed
from tests.unit.gateway.harness import Authority

PORT = 8443
URL = f"https://{DOMAIN}:{PORT}"


@pytest.fixture(scope="module")
def company() -> Authority:
    return Authority("company")


@pytest.fixture(scope="module")
def fortress(company: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder: Path = tmp_path_factory.mktemp("certificate")
    pem, key = company.leaf(DOMAIN)
    (folder / "chain.pem").write_text(pem + company.pem)
    (folder / "key.pem").write_text(key)
    deployment = Deployment.fresh()
    deployment.config["wireguard"]["relay_port"] = PORT
    deployment.config["gateway"] = {"certificate_file": str(folder / "chain.pem"), "key_file": str(folder / "key.pem")}
    with deployed(deployment) as made:  # it fails where the question has no answer
        yield made


def test_every_word_of_where_it_is_has_the_port(fortress: Deployment):
    assert fortress.outputs()["endpoint"] == URL
    shown = fortress.fortress("status")
    assert URL in shown and f"https://10.66.0.1:{PORT}" in shown


def test_the_commands_of_the_bundle_believe_who_signed_it(fortress: Deployment, company: Authority):
    assert fortress.bundle("bob")["ca.pem"] == company.pem
    bob = Client(fortress, "bob")
    try:
        page = fortress.bundle("bob")["README.md"]
        [ask] = [line.strip() for line in page.splitlines() if "/api/generate" in line]
        said = bob.run(
            *("sh", "-c", f'cd /tmp/bundle; printf "Authorization: Bearer %s\\n" "$(cat api_key)" | {ask}'), timeout=60
        )
        assert '"done":true' in said
        assert bob.curl("/api/tags", host=f"{DOMAIN}:{PORT}").status == 200
        assert bob.run("curl", "-s", f"{URL}/api/tags", check=False) == "", "it is believed without its authority"
    finally:
        bob.close()
