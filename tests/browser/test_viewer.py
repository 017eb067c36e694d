"""The viewer as a person uses it, in a real browser: views of a run, files, and looks."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import agentspan
from agentspan.viewer import export
from tests.browser.conftest import Opener, Site
from tests.browser.gestures import EVERYTHING, assert_harmless, expect, press, selected
from tests.browser.recorded import Recording, database
from tests.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.full

# Views of a run


def test_arguments_of_a_call_are_shown_whole(open_page: Opener, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with database(path) as db:
        run = Recording(db, "translator")
        run.span(
            "tool", {"name": "translate", "arguments": {"from": {"text": "chat", "language": "fr"}}}, {"output": 1}
        )
        page_of_run = tmp_path / "run.html"
        page_of_run.write_text(export.html(db.storage, [run.finish(1)]), encoding="utf-8")
    page = open_page(page_of_run.as_uri() + "#view=conversation")
    expect(page.locator("#turns .args").first).to_contain_text('{"text":"chat","language":"fr"}')


def test_keys_of_the_tree_leave_the_other_views_alone(site: Site, open_page: Opener) -> None:
    page = open_page(site.long)
    press(page, "j", "2")
    panel = page.locator("#panel-conversation")
    expect(panel).to_be_focused()
    expect(page.locator(".turn").first).to_be_visible()
    before = selected(page).text_content()
    press(page, "PageDown", "+", " ")
    until(lambda: panel.evaluate("panel => panel.scrollTop") > 100)
    assert page.locator("#tree .row.selected .text").text_content() == before
    press(page, "e")
    expect(page.locator("#tree")).to_be_visible()
    expect(page.locator("#detail .failure")).to_contain_text("page 399")
    press(page, "2", "/")
    page.keyboard.type("page 9199")
    expect(page.locator("#found")).to_have_text("1")
    press(page, "Enter")
    expect(selected(page)).to_contain_text("fetch(page=9199)")
    expect(page.locator("#tree")).to_be_visible()


def test_statistics_say_how_long_steps_take(site: Site, open_page: Opener, shots: Path) -> None:
    page = open_page(site.failing)
    press(page, "3")
    row = page.locator("#stats tr", has_text="search_logs")
    expect(row).to_contain_text("30.0 s")
    expect(row).to_contain_text("1 · 100%")
    expect(row.locator("svg")).to_have_attribute("aria-label", "1 from 20.0 s")
    page.screenshot(path=shots / "stats.png")
    row.get_by_role("button").click()
    expect(selected(page)).to_contain_text("Tool search_logs")


def test_search_finds_summaries_and_payloads(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "/")
    page.keyboard.type("no answ")  # only in the result
    expect(page.locator("#found")).to_have_text("1")
    press(page, "Enter")
    expect(selected(page)).to_contain_text("Tool search_logs")
    expect(page.locator("#found")).to_have_text("1 of 1")
    press(page, "Escape")
    expect(page.locator("#search")).to_have_value("")
    expect(page.locator("#tree .match")).to_have_count(0)
    press(page, "/")
    page.keyboard.type("nowhere at all")
    expect(page.locator("#found")).to_have_text("no match")


def test_a_link_leads_to_the_span(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "e")
    page.wait_for_url("**#span=*")
    again = open_page(page.url)
    expect(selected(again)).to_contain_text("Tool search_logs")
    press(page, "e", "3")
    page.wait_for_url("**view=stats")
    again.goto(page.url)  # the same page with another hash: nothing is loaded
    expect(again.locator("#panel-stats")).to_be_visible()
    press(again, "1")
    expect(selected(again)).to_contain_text("step")


# Files


def test_the_exported_file_works_by_itself(site: Site, open_page: Opener, tmp_path: Path) -> None:
    with agentspan.open(site.server.db, read_only=True) as db:
        ids = [url.rpartition("/")[2] for url in (site.failing, site.hostile)]
        (tmp_path / "run.html").write_text(export.html(db.storage, ids), encoding="utf-8")
    page = open_page((tmp_path / "run.html").as_uri())
    press(page, "e")
    expect(page.locator("#detail .failure h3")).to_have_text("TimeoutError")
    press(page, "/")
    page.keyboard.type("no answer")
    expect(page.locator("#found")).to_have_text("1 of 1")
    press(page, "Escape", "2")
    expect(page.locator(".turn")).to_have_count(4)
    press(page, "3")
    expect(page.locator("#stats")).to_contain_text("search_logs")
    expect(page.locator("#terminate")).to_be_hidden()
    page.select_option("#runs-list", ids[1])
    expect(page.locator("#agent")).to_contain_text("<script>")
    for key in EVERYTHING:
        press(page, key)
        assert_harmless(page)


def test_the_exported_file_is_what_the_server_saves(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    with page.expect_download() as saving:
        page.get_by_role("link", name="Save as one file").click()
    saved = Path(saving.value.path()).read_text(encoding="utf-8")
    with agentspan.open(site.server.db, read_only=True) as db:
        assert saved == export.html(db.storage, [site.failing.rpartition("/")[2]])


# Looks


def background(page: "Page") -> str:
    """The colour of the page."""
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_dark_follows_the_system_and_the_button(site: Site, open_page: Opener, shots: Path) -> None:
    dark, light = (open_page(site.failing, color_scheme=scheme) for scheme in ("dark", "light"))
    assert background(dark) != background(light)
    press(dark, "e")
    press(light, "e")
    expect(dark.locator("#detail .failure")).to_be_visible()
    expect(light.locator("#detail .failure")).to_be_visible()
    dark.screenshot(path=shots / "dark.png")
    light.screenshot(path=shots / "light.png")
    was = background(dark)
    light.click("#theme")
    assert background(light) == was
    expect(light.locator("#theme")).to_have_attribute("aria-pressed", "true")
    light.reload()
    assert background(light) == was  # the server sends the page dark
    light.goto(site.server.url)
    assert background(light) == was


@pytest.mark.parametrize("width", [1280, 800])
def test_nothing_sticks_out_or_jumps(site: Site, open_page: Opener, shots: Path, width: int) -> None:
    for name, url in (("failing", site.failing), ("hostile", site.hostile), ("list", site.server.url)):
        page = open_page(url, width=width, ready=name != "list")
        page.wait_for_load_state()
        places = (
            "['.top', '#runs', '#tree', '#detail'].map((q) => document.querySelector(q)?.getBoundingClientRect().top)"
        )
        before = page.evaluate(places)
        if name != "list":
            press(page, "j", "j", "e")
            expect(page.locator("#detail[aria-busy=false]")).to_have_count(1)
        assert page.evaluate(
            "document.documentElement.scrollWidth <= innerWidth && document.body.scrollHeight <= innerHeight"
        )
        assert page.evaluate(places) == before
        wide = "[...document.querySelectorAll('#detail, .list')].filter((e) => e.scrollWidth > e.clientWidth).length"
        assert page.evaluate(wide) == 0
        page.screenshot(path=shots / f"{name}-{width}.png")
