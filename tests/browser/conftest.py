from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from tests.browser.chromium import Watched, launched, watched
from tests.browser.namespace import Namespace, empty
from tests.browser.stand_in import StandIn, serving


@pytest.fixture(scope="session")
def network() -> Iterator[Namespace]:
    with empty() as namespace:
        yield namespace


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:  # one for all: a process can have no second one
        yield started


@pytest.fixture(scope="session")
def chromium(playwright: Playwright, network: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with launched(playwright, network, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture
def gateway(network: Namespace) -> Iterator[StandIn]:
    with serving(network) as stand_in:
        yield stand_in


@pytest.fixture
def opened(chromium: Browser, gateway: StandIn) -> Iterator[Callable[..., Watched]]:
    """Opens the page. Whatever a test does, at its end the page has done nothing that it should not."""
    with ExitStack() as open_ones:
        all_of_them: list[Watched] = []

        def open_page(**options: Any) -> Watched:
            seen = open_ones.enter_context(watched(chromium, gateway.origin, **options))
            all_of_them.append(seen)
            seen.page.goto(gateway.origin)
            return seen

        yield open_page
        for seen in all_of_them:
            seen.is_clean(*gateway.planned)


@pytest.fixture
def page(opened: Callable[..., Watched]) -> Page:
    return opened().page
