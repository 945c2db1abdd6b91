from collections.abc import Iterator

import pytest

from tests.deployment import Client, Deployment, deployed


@pytest.fixture(scope="session")
def fortress() -> Iterator[Deployment]:
    with deployed() as deployment:
        yield deployment


def _client(name: str, device: str | None = None):
    @pytest.fixture(scope="session", name=name)
    def client(fortress: Deployment) -> Iterator[Client]:
        made = Client(fortress, name, device)
        yield made
        made.close()

    return client


ada = _client("ada", "laptop")
bob = _client("bob")
slow = _client("slow")
narrow = _client("narrow")
terse = _client("terse")
