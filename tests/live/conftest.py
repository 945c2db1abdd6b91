import time
from collections.abc import Iterator

import pytest

from tests.deployment import PROMPT, Client, Deployment, deployed
from tests.watched import Watched


@pytest.fixture(scope="session")
def fortress() -> Iterator[Deployment]:
    deployment = Deployment.fresh()
    deployment.config["observability"] = "full"
    with deployed(deployment) as made:
        began = time.time()
        yield made
        _nothing_that_was_said_or_opens_anything_is_to_be_seen(made, began)


def _nothing_that_was_said_or_opens_anything_is_to_be_seen(fortress: Deployment, began: float) -> None:
    """After all of these tests, whatever they did."""
    watched = Watched(fortress)
    last = fortress.audit()[-1]["request_id"]
    Client.wait_until(lambda: watched.is_there(last, began), "the last line in Loki", 15)
    time.sleep(16)  # until the figures have been asked for once more
    shown = watched.shown(began)
    for secret in (PROMPT, *fortress.keys()):
        assert secret not in shown


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
