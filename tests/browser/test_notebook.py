"""What a notebook shows, in a page around it: the frame works, reaches nothing, and leaves the page alone."""

from pathlib import Path
from typing import Any

import pytest

import agentspan
from tests.browser.conftest import Opener
from tests.browser.hostile import Hostile
from tests.browser.recorded import failing_run

# What the web views of notebooks in editors forbid, if they have a policy: a frame inherits it.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src https: http: data:; child-src https: data:"
)


def page_around(shown: str, *, policy: str = "") -> str:
    """A page with an input that has the focus, and the output of a cell far below."""
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">' if policy else ""
    return (
        f'<!doctype html><html data-ready><meta charset="utf-8">{meta}<title>x</title><body><input id="cell" autofocus>'
        f'<div style="height:1500px"></div>{shown}<div style="height:1500px"></div></body></html>'
    )


@pytest.mark.parametrize("policy", ["", POLICY])
def test_a_run_in_a_notebook_is_the_viewer_and_leaves_the_page_alone(
    open_page: Opener, tmp_path: Path, shots: Path, policy: str
) -> None:
    with agentspan.open(tmp_path / "runs.db") as db:
        shown = db.run(failing_run(db))._repr_html_()  # type: ignore[attr-defined]
    path = tmp_path / "page.html"
    path.write_text(page_around(shown, policy=policy), encoding="utf-8")
    page = open_page(path.as_uri(), color_scheme="dark")
    page.expected = ("Blocked autofocusing",)  # type: ignore[attr-defined]  # of a dialog that is closed
    frame = page.frame_locator("iframe")
    frame.locator("html[data-ready]").wait_for()
    assert page.evaluate("[scrollY, document.activeElement.id]") == [0, "cell"]
    page.locator("iframe").scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    frame.locator(".row").first.click()
    page.keyboard.press("e")
    frame.locator("#detail").get_by_text("TimeoutError").first.wait_for()
    frame.get_by_role("tab", name="Conversation").click()
    frame.locator("#turns").get_by_text("Why are invoices late?").wait_for()
    assert page.evaluate("scrollY") == before
    assert page.url == path.as_uri()
    page.screenshot(path=shots / f"notebook{'-policy' if policy else ''}.png")


def test_a_run_in_a_notebook_cannot_reach_the_page(open_page: Opener, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        hostile = Hostile(db)
        hostile.write(path)
        results: tuple[Any, ...] = (
            db,
            db.run(hostile.recording.id),
            db.runs(),
            db.why(),
            db.stats(),
            db.run(hostile.recording.id).steps,
        )
        shown = "".join(each._repr_html_() for each in results)
    (tmp_path / "page.html").write_text(page_around(shown), encoding="utf-8")
    page = open_page((tmp_path / "page.html").as_uri())
    page.expected = ("Blocked autofocusing",)  # type: ignore[attr-defined]
    page.frame_locator("iframe").locator("html[data-ready]").wait_for()
    page.locator("iframe").scroll_into_view_if_needed()
    page.frame_locator("iframe").locator(".row").first.click()
    assert page.evaluate("window.hit") is None
    (frame,) = page.frames[1:]
    assert frame.evaluate("window.hit") is None
    assert frame.evaluate("origin") == "null"
    assert frame.evaluate("(() => { try { return parent.document.title } catch (error) { return error.name } })()") == (
        "SecurityError"
    )
