"""Debian's Chromium, and a page in it that writes down whatever a page should not do."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request

from fortress import paths
from tests.browser.namespace import Namespace

SCREENSHOTS = paths.CHECKOUT / "build" / "screenshots"
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# Without fonts there are no letters to measure.
PACKAGES = ("chromium", "fonts-noto-core", "fonts-noto-mono", "libnss3-tools")
ARGUMENTS = ["--no-sandbox"] if os.geteuid() == 0 else []
"""Chromium refuses to be root with its sandbox; it is shown nothing here but our own page."""


def executable() -> str:
    """Where Chromium is; on Debian as root it is installed for the tests, as Docker is."""
    there = [shutil.which("chromium"), shutil.which("certutil"), Path("/usr/share/fonts/truetype/noto").is_dir()]
    if not all(there):
        assert os.geteuid() == 0 and Path("/etc/debian_version").exists(), (
            f"these tests need Chromium: install {' '.join(PACKAGES)}"
        )
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
            done = subprocess.run(["apt-get", *command], env=quiet, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"apt-get {command[0]}: {done.stderr[-2000:]}"
    found = shutil.which("chromium")
    assert found is not None, "the package chromium has no chromium"
    return found


def believe(home: Path, name: str, authority: str) -> None:
    """What a person does with a private CA: install it in the browser. authority: PEM."""
    database = home / ".pki" / "nssdb"
    certutil = ["certutil", "-d", f"sql:{database}"]
    if not database.is_dir():
        database.mkdir(parents=True)
        subprocess.run([*certutil, "-N", "--empty-password"], capture_output=True, check=True)
    subprocess.run(
        [*certutil, "-A", "-n", name, "-t", "C,,"], input=authority, text=True, capture_output=True, check=True
    )


@contextmanager
def launched(playwright: Playwright, network: Namespace, folder: Path, *arguments: str) -> Iterator[Browser]:
    """A Chromium in a network; `folder` is its home, where it finds the authorities that it believes."""
    browser = playwright.chromium.launch(
        executable_path=network.wrapper(executable(), folder),
        args=[*ARGUMENTS, *arguments],
        env={**os.environ, "HOME": str(folder)},
    )
    try:
        yield browser
    finally:
        browser.close()


@dataclass
class Watched:
    """A page, and what it did beside what it was asked for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    """Errors of scripts and of the console; a status that is no success is in `statuses` instead."""
    violations: list[str] = field(default_factory=list)
    """What the Content-Security-Policy has stopped."""
    foreign: list[str] = field(default_factory=list)
    """Requests to any origin but those that it belongs to."""
    statuses: set[int] = field(default_factory=set)

    def _console(self, message: ConsoleMessage) -> None:
        status = re.match(r"Failed to load resource: the server responded with a status of (\d+)", message.text)
        if status:
            self.statuses.add(int(status[1]))
        elif message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _request(self, request: Request, origins: tuple[str, ...]) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" not in origins:
            self.foreign.append(request.url)

    def is_clean(self, *statuses: int) -> None:
        assert (self.errors, self.violations, self.foreign) == ([], [], [])
        assert self.statuses <= set(statuses), f"answers with {self.statuses}, which this test did not plan"


VIOLATIONS = """document.addEventListener('securitypolicyviolation',
    event => window.violated(event.effectiveDirective + ' ' + event.blockedURI));"""


@contextmanager
def watched(browser: Browser, *origins: str, **options: Any) -> Iterator[Watched]:
    """A page of a browser profile of its own, which has been nowhere yet."""
    context = browser.new_context(**{"viewport": DESK, "locale": "en-GB", "timezone_id": "Europe/Berlin", **options})
    try:
        page = context.new_page()
        page.set_default_timeout(10_000)
        seen = Watched(page)
        page.expose_function("violated", lambda what: seen.violations.append(what))
        page.add_init_script(VIOLATIONS)
        page.on("console", seen._console)
        page.on("pageerror", lambda error: seen.errors.append(str(error)))
        page.on("request", lambda request: seen._request(request, origins))
        yield seen
    finally:
        context.close()


def picture(page: Page, name: str) -> None:
    """A screenshot as test output: build/screenshots/<name>.png."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled", caret="initial")
