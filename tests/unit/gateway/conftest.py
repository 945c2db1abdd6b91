from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.gateway.harness import Bench, running


@pytest.fixture(scope="package")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with running(folder) as started:
        yield started
