"""What was recorded is shown as it was recorded, in a real browser. Pages are exported files and need no server."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.recorded import Recording, database

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page


def expect(locator: Any) -> Any:
    """Playwright's assertions, which wait."""
    from playwright.sync_api import expect as expect_

    return expect_(locator)


class Pages:
    """Runs that are recorded and shown."""

    def __init__(self, folder: Path, open_page: Opener) -> None:
        self.db = database(folder / "runs.db")
        self.folder = folder
        self.open_page = open_page

    def recording(self, agent: str = "a") -> Recording:
        return Recording(self.db, agent)

    def show(self, run: Recording, view: str = "tree", **options: Any) -> "Page":
        path = self.folder / f"{run.id}.html"
        path.write_text(export.html(self.db.storage, [run.finish(100)]), encoding="utf-8")
        return self.open_page(f"{path.as_uri()}#view={view}", **options)


@pytest.fixture
def pages(tmp_path: Path, open_page: Opener) -> Pages:
    return Pages(tmp_path, open_page)


def detail_of(page: "Page", row: int) -> "Locator":
    page.locator("#tree .row:not([hidden])").nth(row).click()
    return page.locator("#detail")


def test_only_a_failure_gets_the_box_of_a_failure(pages: Pages) -> None:
    run = pages.recording()
    nothing: tuple[Any, ...] = (False, None, "", {}, [])
    for number, error in enumerate(nothing):
        run.span("step", {"n": number}, {"error": error}, begin=number)
    run.span("step", {"n": 5}, {"error": {"type": "Late", "message": {"2": 1, "1": 2}}}, begin=5)
    run.span("step", {"n": 6}, {"error": False}, status="failed", begin=6)
    page = pages.show(run)
    for row in range(5):
        detail = detail_of(page, row)
        expect(detail.locator(".payload")).to_have_count(2)
        expect(detail.locator(".failure")).to_have_count(0)
    expect(detail_of(page, 5).locator(".failure")).to_have_text('Late{"2":1,"1":2}')
    expect(detail_of(page, 6).locator(".failure")).to_have_text("Errorfalse")


def test_json_has_the_order_and_the_numbers_of_the_text(pages: Pages) -> None:
    run = pages.recording()
    text = '{"to": "a", "to": "b", "n": [1e400, 12345678901234567890, 1.50]}'
    run.span("step", {"10": 1, "2": 2, "b": 3, "1": 4, "text": text})
    detail = detail_of(pages.show(run), 0)
    expect(detail.locator(".members").first.locator(".key")).to_have_text(
        ["10", "2", "b", "1", "text", "to", "to", "n"]
    )
    expect(detail.locator(".members").last.locator(".number")).to_have_text(["1e400", "12345678901234567890", "1.50"])
