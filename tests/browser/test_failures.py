"""A run with many failures, types and labels in an exported file: what caused others is found, and all of it fits."""

import re
from typing import TYPE_CHECKING

import pytest

from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.recorded import Recording, database

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full

STACKTRACE = "Traceback (most recent call last):\n" + '  File "deep.py", line 7, in walk\n    walk()\n' * 400
TYPES, TOOLS = 80, 70


@pytest.fixture(scope="module")
def file(browser: object, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of an exported run: 39 equal failures, an error that passes through three spans, and many types."""
    folder = tmp_path_factory.mktemp("failures")
    with database(folder / "runs.db") as db:
        run = Recording(db, "retry")

        def failed(name: str, message: str, parent: str | None, begin: float, end: float, trace: str = "") -> str:
            error = {"type": "ValueError", "message": message, "stacktrace": trace}
            payload = {"name": name, "arguments": {"at": begin}}
            return run.span("tool", payload, {"error": error}, status="failed", parent=parent, begin=begin, end=end)

        outer = failed("outer", "no luck", None, 0, 60)
        middle = failed("middle", "no luck", outer, 1, 50)
        for number in range(39):
            failed("fetch", "timed out", middle, 2 + number, 3 + number)
        failed("deepest", "no luck", middle, 49, 50, f"{STACKTRACE}ValueError: the last line")
        run.span("message", {"role": "user", "content": "then"}, parent=outer, begin=51, end=52)
        handled = failed("handled", "other", None, 61, 70)
        failed("first", "timed out", handled, 62, 63)
        run.span("message", {"role": "user", "content": "goes on"}, parent=handled, begin=64, end=65)
        for number in range(TYPES):
            run.span(f"type{number}", {}, {}, begin=71, end=72)
        for number in range(TOOLS):
            run.span("tool", {"name": f"tool{number}"}, {}, begin=72, end=73)
        id = run.finish(75)
        path = folder / "run.html"
        path.write_text(export.html(db.storage, [id]), encoding="utf-8")
    return path.as_uri()


def press(page: "Page", *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_causes_are_found_equal_failures_are_one_row_and_a_traceback_shows_its_end(
    file: str, open_page: Opener
) -> None:
    from playwright.sync_api import expect

    page = open_page(file)
    selected = page.locator("#tree .row.selected")
    rows = page.locator("#tree .row:not([hidden]) .text")
    expect(rows.nth(2)).to_have_text("39 × Tool fetch failed")
    expect(rows.nth(3)).to_contain_text("Tool deepest")

    press(page, "e")
    expect(selected).to_have_attribute(
        "aria-label", re.compile(r"^#[0-9]+ 39 × Tool fetch failed, ValueError: timed out, .*39\.0 s")
    )
    expect(selected).to_have_attribute("aria-expanded", "false")
    press(page, "e")
    expect(selected).to_contain_text("Tool deepest")
    trace = page.locator("#detail .failure details")
    trace.evaluate("details => details.open = true")
    expect(trace).to_contain_text("ValueError: the last line")
    expect(trace).not_to_contain_text("Traceback (most recent call last):")
    trace.get_by_role("button", name=re.compile("characters before")).click()
    expect(trace).to_contain_text("Traceback (most recent call last):")
    for name in ("Tool handled", "Tool first", "Tool fetch"):  # neither of those that the error passed through
        press(page, "e")
        expect(selected).to_contain_text(name)

    press(page, "l", "j")
    expect(selected).to_contain_text("Tool fetch(at=3)")
    press(page, "e")
    expect(selected).to_contain_text("Tool fetch(at=4)")
    press(page, "h", "h")
    expect(selected).to_contain_text("39 × Tool fetch failed")
    press(page, "L")
    expect(selected).to_contain_text("Tool fetch(at=2)")
    press(page, "H", "L", "g", "j", "j", " ")
    expect(selected).to_contain_text("39 × Tool fetch failed")


def test_many_types_and_labels_are_shown_on_demand(file: str, open_page: Opener) -> None:
    from playwright.sync_api import expect

    page = open_page(file)
    press(page, "3")
    rows = page.locator("#stats tbody tr")
    more = page.locator("#stats tbody").get_by_role("button", name=re.compile("^Show "))
    expect(rows).to_have_count(60 + 2)
    expect(more.last).to_have_text(f"Show {TYPES + 2 - 51} more types")
    expect(more.first).to_have_text(f"Show {TOOLS + 5 - 8} labels that occur once")
    more.first.click()
    expect(page.locator("#stats tr", has_text=re.compile("^tool69"))).to_have_count(1)
    more.last.click()
    expect(more).to_have_count(0)
    expect(rows).to_have_count(TYPES + TOOLS + 2 + 6)
