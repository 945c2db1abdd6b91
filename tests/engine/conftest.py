from collections.abc import Iterator

import pytest

from tests.deployment import Client, Deployment, deployed
from tests.watched import Told


@pytest.fixture(scope="session")
def fortress() -> Iterator[Deployment]:
    with deployed() as deployment:
        yield deployment


@pytest.fixture
def bob(fortress: Deployment) -> Iterator[Client]:
    made = Client(fortress, "bob")
    yield made
    made.close()


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    with Told() as listening:
        yield listening
