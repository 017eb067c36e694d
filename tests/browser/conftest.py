"""A real Chromium, what it must never do on any page, and a server to look at."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.recorded import database, failing_run, hostile_run, long_run
from tests.checkout import ROOT
from tests.serve.servers import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

HEADLESS = Path("/usr/bin/chromium-headless-shell")
"""The same engine without the program around it: it takes half of the processor time."""
CHROMIUM = HEADLESS if HEADLESS.exists() else Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
]  # fmt: skip
WAIT_MS = 20_000
Opener = Callable[..., "Page"]
SPANS = 10_000
"""Of the long run."""


# Of a module, not of the session: while its driver runs, nothing else in this thread can run an event loop.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Debian's Chromium; without one the tests are skipped on somebody's machine, and fail in CI."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError:
        _without("needs Playwright")
    if not CHROMIUM.exists():
        _without(f"needs Chromium at {HEADLESS} (apt-get install --no-install-recommends chromium-headless-shell)")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


def _without(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def open_page(browser: "Browser") -> Iterator[Opener]:
    """Open pages in sessions of their own; at the end, none of them may have complained, or loaded anything else."""
    opened: list[tuple[Page, list[str]]] = []

    def open_(url: str, *, width: int = 1280, color_scheme: str = "light", ready: bool = True) -> "Page":
        context = browser.new_context(
            viewport={"width": width, "height": 800},
            color_scheme=color_scheme,  # type: ignore[arg-type]
            bypass_csp=False,
        )
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        complaints: list[str] = []
        opened.append((page, complaints))

        def dismiss(dialog: "Dialog") -> None:
            complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", dismiss)
        page.on(
            "console",
            lambda said: complaints.append(f"{said.type}: {said.text}") if said.type in ("error", "warning") else None,
        )
        page.on("request", lambda request: None if _is_own(request.url, url) else complaints.append(request.url))
        page.goto(url)
        if ready:
            page.wait_for_selector("html[data-ready]")
        return page

    yield open_
    for page, complaints in opened:
        expected = getattr(page, "expected", ())
        left = [text for text in complaints if not any(part in text for part in expected)]
        page.context.close()
        assert left == []


def _is_own(asked: str, url: str) -> bool:
    return asked.startswith(("data:", "blob:")) or asked.split("/")[:3] == url.split("/")[:3]


class Site:
    """A server, and the runs in its file."""

    def __init__(self, server: Server, failing: str, long: str, hostile: str) -> None:
        self.server = server
        self.failing, self.long, self.hostile = (f"{server.url}/runs/{id}" for id in (failing, long, hostile))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests that change nothing."""
    path = tmp_path_factory.mktemp("viewer") / "runs.db"
    with database(path) as db:
        runs = failing_run(db), long_run(db, SPANS), hostile_run(db)
    with serving(path) as server:
        yield Site(server, *runs)
        assert "Traceback" not in server.stderr


@pytest.fixture(scope="session")
def shots() -> Path:
    """Where pictures go, for people to look at."""
    folder = Path(os.environ.get("AGENTSPAN_SHOTS", ROOT / "build" / "shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
