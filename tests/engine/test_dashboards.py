"""After real traffic every panel of every dashboard shows something: asked of the deployed Prometheus and Loki."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from render import dashboards
from render.dashboards import Query, Source, drawn
from tests import oidc
from tests.deployment import Client, Deployment, docker
from tests.engine.test_login import Browser
from tests.unit import test_gpu_watch as gpu
from tests.watched import Watched

PICTURES = Path(__file__).parent.parent.parent / "build" / "dashboards"
SCRAPES_S = 60
"""Three of them and what comes between: a rate needs two."""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("dex")
    folder.chmod(0o755)
    spender = {"keyless": True, "limits": {"tokens_per_day": 100_000, "requests_per_minute": 600, "burst": 600}}
    with oidc.deployed_with_login(folder, observability="full", spender=spender) as (deployment, provider):
        made = Watched(deployment)
        show_gpus(deployment, tmp_path_factory.mktemp("gpu"))
        use(deployment, provider)
        yield made


def show_gpus(deployment: Deployment, folder: Path) -> None:
    """What gpu-watch writes of two, in a file that the exporter reads anyway: none is here."""
    watch = gpu.Watch(folder)
    watch.answers(gpu.RTX, gpu.A100)
    assert watch() == 0
    script = "cat > /var/log/vpn-node/gpu.prom"
    docker("exec", "-i", deployment.container("vpn-node"), "sh", "-c", script, stdin=(folder / "gpu.prom").read_text())


def use(deployment: Deployment, provider: oidc.Provider) -> None:
    """A little of everything that is counted, for as long as three scrapes take."""
    browser, spender, slow = Browser(deployment, provider), Client(deployment, "spender"), Client(deployment, "slow")
    people: list[Client] = [browser, spender, slow]
    try:
        assert browser.sign_in("ada@example.com").status == 302
        end = time.monotonic() + SCRAPES_S
        while time.monotonic() < end:
            assert spender.ask().status == 200
            assert browser.ask(key="0" * 64).status == 401
            assert slow.ask().status in (200, 429)
            assert browser.curl("/api/copy", "-d", '{"source": "tiny", "destination": "x"}').status == 403
            assert browser.curl("/api/pull", "-d", "{}").status == 404
            with spender.stream(200) as stream:
                stream.bytes_for(2)
        deployment.fortress("block", "narrow", "--for", "1h")
        spender.move(beside=True)
        assert spender.ask().status == 200
        time.sleep(20)
    finally:
        for each in people:
            each.close()


def get(watched: Watched) -> drawn.Get:
    def ask(source: Source, path: str, given: dict[str, str]) -> Any:
        there = watched.plan.telemetry
        host, port = (there.loki, 3100) if source is Source.LOKI else (there.prometheus, 9090)
        return watched.ask(source.value, f"http://{host}:{port}{path}?{urlencode(given)}")["data"]

    return ask


@pytest.mark.parametrize(("where", "query"), dashboards.questions("5m"), ids=lambda each: str(each)[:70])
def test_every_panel_has_something_to_show(where: str, query: Query, watched: Watched):
    path = drawn.PATHS[(query.source, query.instant)]
    given = {"query": query.text}
    if not query.instant:
        given |= {"start": f"{time.time() - 300:.0f}", "end": f"{time.time():.0f}", "step": "15"}
    assert get(watched)(query.source, path, given)["result"], f"nothing at {where}: {query.text}"


@pytest.mark.parametrize("board", dashboards.BOARDS, ids=lambda board: board.name)
def test_every_dashboard_is_drawn_from_what_is_there(board: Any, watched: Watched):
    svg = drawn.draw(board, get(watched), now=datetime.now(UTC), seconds=300)
    PICTURES.mkdir(parents=True, exist_ok=True)
    (PICTURES / f"{board.name}.svg").write_text(svg)
    assert ">nothing<" not in svg
