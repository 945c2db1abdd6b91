from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gateway.harness import Bench, running
from tests.unit.gateway.oracle import Oracle


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with running(folder) as started:
        yield started


@pytest.fixture(scope="package")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    return Oracle(tmp_path_factory.mktemp("oracle"))


@pytest.fixture
def quiet(bench: Bench) -> Iterator[Bench]:
    """A bench whose door is open, and behind which nothing has been heard yet."""
    bench.until_ready()
    bench.forget()
    yield bench
