"""The main ways through the viewer, in a real browser: the few of its tests that are quick enough to run each time.

They share one Chromium and one server. The parts of the JavaScript that need no page have their tests in
tests/viewer/javascript.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.browser.conftest import Opener
from tests.browser.gestures import EVERYTHING, assert_harmless, expect, press, selected
from tests.browser.recorded import HOSTILE, database, failing_run, hostile_run
from tests.serve.servers import Server, serving


class Site(NamedTuple):
    """A server, and the runs in its file: the addresses of two, and the id of the one that goes on."""

    server: Server
    failing: str
    hostile: str
    going: str


@pytest.fixture(scope="module")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests."""
    path = tmp_path_factory.mktemp("ways") / "runs.db"
    with database(path) as db:
        going = db.agent_instances.register("worker", agent_version={}, agent_schema_version={}).id
        db.agent_instances.start(going)
        failing, hostile = failing_run(db), hostile_run(db)
    with serving(path) as server:
        yield Site(server, f"{server.url}/runs/{failing}", f"{server.url}/runs/{hostile}", going)
        assert "Traceback" not in server.stderr


def test_the_list_leads_to_a_run_and_can_be_filtered(site: Site, open_page: Opener, shots: Path) -> None:
    page = open_page(site.server.url, ready=False)
    expect(page.locator("#runs tr")).to_have_count(3)
    expect(page.locator("#count")).to_contain_text("3 of 3 runs")
    expect(page.locator("#runs")).to_contain_text(HOSTILE[:100])
    page.screenshot(path=shots / "runs.png")
    page.select_option("[name=agent]", "researcher")
    page.wait_for_url("**/?agent=researcher")
    expect(page.locator("#runs tr")).to_have_count(1)
    expect(page.locator("#runs tr")).to_contain_text("Why are invoices late?")
    press(page, "j", "Enter")
    page.wait_for_selector("html[data-ready]")
    assert page.url.startswith(site.failing)
    page.get_by_role("link", name="Runs", exact=True).click()
    page.wait_for_url("**/?agent=researcher")  # the list as it was left
    expect(page.locator("#runs tr")).to_have_count(1)


def test_the_tree_is_walked_with_keys_to_what_failed(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "j")
    expect(selected(page)).to_contain_text("Agent researcher: find the cause")
    press(page, "j")
    expect(selected(page)).to_contain_text("user: Why are invoices late?")
    press(page, "k", "k", "k")
    expect(selected(page)).to_contain_text("Agent researcher")
    press(page, "G")
    expect(selected(page)).to_contain_text("The report holds a lock.")
    press(page, "h")
    expect(selected(page)).to_contain_text("Agent researcher")
    press(page, "h")
    expect(page.locator("#tree .row:not([hidden])")).to_have_count(1)
    expect(page.locator("#tree .row.selected")).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#tree .row.selected .error")).to_have_text("+8")
    press(page, "l", "l")
    expect(selected(page)).to_contain_text("user: Why are invoices late?")
    press(page, "H")
    expect(page.locator("#tree .row:not([hidden])")).to_have_count(1)
    press(page, "L")
    expect(page.locator("#tree .row:not([hidden])")).to_have_count(9)
    # e goes from error to error, and unfolds what hides them.
    press(page, "H", "e")
    expect(selected(page)).to_contain_text("Tool search_logs")
    expect(page.locator("#detail .failure h3")).to_have_text("TimeoutError")
    expect(page.locator("#detail .failure .trace")).to_contain_text('File "a.py", line 1')
    press(page, "e")
    expect(page.locator("#detail .failure")).to_contain_text("again")
    press(page, "e")
    expect(selected(page)).to_contain_text("Tool search_logs")
    press(page, "E")
    expect(page.locator("#detail .failure")).to_contain_text("again")


def test_the_conversation_reads_like_one(site: Site, open_page: Opener, shots: Path) -> None:
    page = open_page(site.failing)
    press(page, "2")
    turns = page.locator(".turn")
    expect(turns).to_have_count(4)
    texts = turns.all_inner_texts()
    assert "Why are invoices late?" in texts[0]
    assert "I will look." in texts[1]
    assert "search_logs" in texts[2]
    assert "TimeoutError: no answer" in texts[2]
    assert "The report holds a lock." in texts[3]
    page.screenshot(path=shots / "conversation.png")
    turns.nth(3).get_by_text("The report holds a lock.").click()
    expect(turns.nth(3)).to_have_attribute("aria-current", "true")
    expect(page.locator("#detail h2")).to_contain_text("The report holds a lock.")
    page.wait_for_url("**#span=*view=conversation")
    turns.nth(2).hover()
    turns.nth(2).get_by_text("Open span").click()
    expect(selected(page)).to_contain_text("Tool search_logs")
    expect(page.locator("#tree")).to_be_visible()


def test_a_run_under_way_is_followed(site: Site, open_page: Opener) -> None:
    with database(site.server.db) as db:

        def begin(name: str) -> str:
            return db.agent_spans.create(site.going, "tool", "active", {"name": name}).id

        first = begin("alpha")
        page = open_page(f"{site.server.url}/runs/{site.going}")
        expect(page.locator("#live")).to_be_visible()
        press(page, "j")
        expect(page.locator("#detail .hint")).to_contain_text("has not finished")
        begin("beta")
        expect(page.locator("#tree .row:not([hidden])")).to_have_count(2)
        db.agent_spans.finish(first, "complete", {"output": "it is done"})
        expect(page.locator("#tree .row.selected .mark.complete")).to_be_visible()
        expect(page.locator("#detail")).to_contain_text("it is done")
        press(page, "2")
        turns = page.locator(".turn")
        expect(turns).to_have_count(2)
        turns.first.evaluate("(node) => (node.kept = true)")
        begin("gamma")
        expect(turns).to_have_count(3)
        expect(turns.locator(".place")).to_have_text(["1", "2", "3"])
        assert turns.first.evaluate("(node) => node.kept")  # with what the reader unfolded in it
        db.agent_instances.finish(site.going)
        expect(page.locator("#status")).to_have_text("passed")


def test_hostile_payloads_stay_text(site: Site, open_page: Opener) -> None:
    page = open_page(site.hostile)
    for key in EVERYTHING:
        press(page, key)
        expect(page.locator("#detail[aria-busy=false]")).to_have_count(1)
        assert_harmless(page)
    press(page, "j", "j")
    expect(page.locator("#detail h2")).to_contain_text("<script>alert('a')</script>")
    press(page, "2")
    expect(page.locator("#turns")).to_contain_text("<img src=x onerror=alert('c')>")
    expect(page.locator("#turns")).to_contain_text("a\\u202eb\\u0000c\\u001b[31md\\u200fe\\u2066f")
    page.fill("#search", HOSTILE)
    expect(page.locator("#found")).not_to_have_text("")
    assert_harmless(page)
