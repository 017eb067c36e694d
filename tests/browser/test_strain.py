"""The viewer under strain: very long texts, a server that is away, a run that goes on while somebody reads."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.gestures import TOKEN, expect, press, selected
from tests.browser.recorded import Recording, database
from tests.browser.recorded import at as moment
from tests.checkout import ROOT
from tests.serve.servers import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page, Route

pytestmark = pytest.mark.full

LINES = "".join(f"{number}: why are invoices late? \U0001f600 " + "\n" * (number % 3 == 0) for number in range(8_000))
ONE_LINE = "0123456é\U0001f600" * 12_000
"""Each character counts: a block of an even number of them would end inside a pair."""

LARGE_SPANS = int(os.environ.get("AGENTSPAN_TEST_LARGE_SPANS", "5"))
"""Spans of 9 MB; 40 of them take 20 seconds. Without a limit they would take 370 MB in the browser."""


class Site:
    """A server, and the runs in its file."""

    def __init__(self, server: Server, texts: str, going: str) -> None:
        self.server = server
        self.texts, self.going = (f"{server.url}/runs/{id}" for id in (texts, going))


@pytest.fixture(scope="module")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests."""
    path = tmp_path_factory.mktemp("strain") / "runs.db"
    with database(path) as db:
        texts = Recording(db, "writer")
        texts.span("step", {"content": LINES}, {"ok": True})
        texts.span("step", {"list": [ONE_LINE]}, {"error": {"message": LINES}}, status="failed")
        texts.finish(2)
        going = Recording(db, "worker", metadata={"plan": {"goal": {"of": "a reader"}}})
        for number in range(60):
            going.span("step", {"n": number}, begin=number + 1, end=number + 2)
    with serving(path) as server:
        yield Site(server, texts.id, going.id)
        assert "Traceback" not in server.stderr


# Long texts

WATCH_LAYOUT = """() => {
    window.laidOut = 0;
    document.addEventListener("contentvisibilityautostatechange", (event) => { if (!event.skipped) laidOut++; });
}"""
COPIED = """() => document.addEventListener("copy", (event) => {
    window.copied = event.clipboardData.getData("text/plain");
})"""


def show_all(page: "Page", part: "Locator") -> "Locator":
    """Show all of a long text; the element with it."""
    part.get_by_role("button", name="Show all").click()
    expect(part.locator(".block").first).to_be_visible()
    return part


def saved_by(page: "Page", part: "Locator") -> tuple[str, str]:
    """The name and the text of the file that "Download" saves."""
    with page.expect_download() as saving:
        part.get_by_role("button", name="Download").click()
    return saving.value.suggested_filename, Path(saving.value.path()).read_bytes().decode()


def test_a_long_text_is_shown_whole_in_blocks_of_which_few_are_laid_out(site: Site, open_page: Opener) -> None:
    page = open_page(site.texts)
    press(page, "j")
    text = page.locator("#detail .string.long")
    span = page.evaluate("document.getElementById('detail').dataset.span")
    assert saved_by(page, text) == (f"{span}-payload-content.txt", LINES)
    page.evaluate(WATCH_LAYOUT)
    show_all(page, text)
    assert page.evaluate("document.activeElement.classList.contains('long')")
    blocks = page.evaluate("[...document.querySelectorAll('#detail .block')].map((block) => block.textContent)")
    assert "".join(blocks) == LINES
    assert all(block.endswith("\n") for block in blocks[:-1])
    assert max(map(len, blocks)) < 20_000
    assert 0 < page.evaluate("laidOut") < 10 < len(blocks)
    # Blocks that are not laid out are as high as they will be, so that the scroll bar does not jump.
    height = "document.querySelector('#detail .long').offsetHeight"
    before = page.evaluate(height)
    page.evaluate("document.querySelectorAll('.block').forEach((block) => (block.style.contentVisibility = 'visible'))")
    assert 0.8 < before / page.evaluate(height) < 1.25
    assert saved_by(page, text)[1] == LINES


def test_a_long_line_is_found_and_copied_as_it_is(site: Site, open_page: Opener, tmp_path: Path) -> None:
    page = open_page(site.texts)
    press(page, "j", "j")
    show_all(page, page.locator("#detail .string.long").first)
    blocks = page.evaluate("[...document.querySelectorAll('#detail .string .block')].map((block) => block.textContent)")
    assert "".join(blocks) == ONE_LINE  # no half of a pair was escaped
    assert len(blocks) > 10
    page.evaluate(COPIED)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#detail .string.long'))")
    press(page, "Control+c")
    assert page.evaluate("copied") == ONE_LINE
    show_all(page, page.locator("#detail .failure .long"))
    assert page.evaluate("window.find('7997: why', false, false, true)")
    expect(page.locator("#detail .failure .block").last).to_be_in_viewport()
    payload = page.locator("#detail .payload").first
    payload.get_by_role("button", name="Text").click()
    name, text = saved_by(page, payload.locator(".source"))
    assert name.endswith("-payload.json")
    assert json.loads(text) == {"list": [ONE_LINE]}
    run = tmp_path / "run.html"
    with database(site.server.db) as db:
        run.write_text(export.html(db.storage, [site.texts.rpartition("/")[2]]), encoding="utf-8")
    page = open_page(run.as_uri())
    press(page, "j")
    assert saved_by(page, page.locator("#detail .string.long"))[1] == LINES


def test_details_are_kept_up_to_a_number_of_bytes(site: Site, open_page: Opener) -> None:
    kept = 3  # of 9 million characters, in 64 MiB with two bytes each
    with database(site.server.db) as db:
        run = Recording(db, "writer")
        for number in range(LARGE_SPANS):
            run.span("step", {"content": f"{number} " + "a" * 9_000_000})
        run.finish(2)
    page = open_page(f"{site.server.url}/runs/{run.id}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/spans/" in request.url else None)
    numbers = [*range(LARGE_SPANS), *reversed(range(LARGE_SPANS - 1))]
    for step, number in enumerate(numbers):
        press(page, "j" if step < LARGE_SPANS else "k")
        expect(page.locator("#detail .string")).to_contain_text(re.compile(rf"^{number} a"))
    assert len(asked) == LARGE_SPANS + LARGE_SPANS - kept
    inspector = page.context.new_cdp_session(page)
    inspector.send("HeapProfiler.collectGarbage")
    assert inspector.send("Runtime.getHeapUsage")["usedSize"] < 80e6


# A run under way

PLACE = """() => new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => {
    resolve(document.querySelector("#tree .row.selected")?.getBoundingClientRect().top);
})))"""
"""Where the selected row is, once it has been drawn."""


def test_new_steps_leave_the_reader_alone(site: Site, open_page: Opener) -> None:
    page = open_page(site.going)
    detail = page.locator("#detail")

    run = site.going.rpartition("/")[2]
    with database(site.server.db) as db:

        def record(*, begin: float) -> None:
            before = int(page.locator("#fact-spans").inner_text())
            db.agent_spans.create(
                run, "step", "complete", {"n": "new"}, started_at=moment(begin), finished_at=moment(begin)
            )
            expect(page.locator("#fact-spans")).to_have_text(str(before + 1))

        # The overview of the run: what is folded, focused and selected there.
        expect(detail.locator(".json")).to_contain_text("a reader")
        detail.locator("summary", has_text="plan").click()
        detail.get_by_role("button", name="Text").focus()
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#detail h2'))")
        record(begin=3)
        expect(detail.locator(".json .string")).to_be_hidden()
        assert page.evaluate("document.activeElement.textContent") == "Text"
        assert page.evaluate("String(getSelection())") == "worker 1.2"

        # The tree: the place of the selected step, and the focus.
        press(page, *["j"] * 40)
        expect(selected(page)).to_contain_text("38")
        page.locator("#tree").focus()
        where, detail_of = page.evaluate(PLACE), page.evaluate("document.getElementById('detail').dataset.span")
        record(begin=5)
        assert page.evaluate(PLACE) == where
        assert page.evaluate("document.activeElement.id") == "tree"
        assert page.evaluate("document.getElementById('detail').dataset.span") == detail_of

        # The scroll, at the end too; and an open step that ends: only its result is new.
        page.evaluate("document.getElementById('tree').scrollTop = 1e6")
        step = db.agent_spans.create(run, "step", "active", {"list": [[1], [2]]}, started_at=moment(90)).id
        expect(page.locator("#fact-spans")).to_have_text("63")
        below = "(tree => tree.scrollHeight - tree.clientHeight - tree.scrollTop)(document.getElementById('tree'))"
        assert page.evaluate(below) > 20
        page.evaluate("document.getElementById('tree').scrollTop = 1e6")
        page.locator("#tree .row", has_text="list").click()
        payload = detail.locator(".payload").first
        payload.locator("summary", has_text="list").click()
        copy = detail.locator(".facts").get_by_role("button", name="Copy")  # in a part that changes
        copy.focus()
        db.agent_spans.finish(step, "complete", {"said": "done"})
        expect(detail.locator(".payload").nth(1)).to_contain_text("done")
        expect(detail.locator(".head .state")).to_have_text("complete")
        expect(payload.locator(".members .members").first).to_be_hidden()
        expect(copy).to_be_focused()


def test_one_slow_answer_does_not_silence_the_page(site: Site, open_page: Opener) -> None:
    page = open_page(site.going)
    slow = iter([2.5])  # seconds; ten times as long would be 25

    def hold(route: "Route") -> None:
        time.sleep(next(slow, 0))
        route.continue_()

    page.route("**/spans?*", hold)
    with page.expect_response("**/spans?*"):
        pass
    before = int(page.locator("#fact-spans").inner_text())
    with database(site.server.db) as db:
        db.agent_spans.create(site.going.rpartition("/")[2], "step", "complete", {"n": "after"}, started_at=moment(2))
    expect(page.locator("#fact-spans")).to_have_text(str(before + 1))


def test_new_steps_leave_readers_of_the_other_views_alone(site: Site, open_page: Opener) -> None:
    with database(site.server.db) as db:
        run = Recording(db, "worker")
        first = run.span("tool", {"name": "first"}, status="active")
        run.span("tool", {"name": "second"}, {"output": 2}, begin=2, end=3)
        page = open_page(f"{site.server.url}/runs/{run.id}#view=conversation")
        expect(page.locator(".turn")).to_have_count(2)
        focused = page.locator(".turn").nth(1).get_by_role("button", name="Open span")
        focused.focus()
        db.agent_spans.finish(first, "complete", {"output": "the first is done"})
        expect(page.locator(".turn").first).to_contain_text("the first is done")
        expect(focused).to_be_focused()
        press(page, "3")
        row = page.locator("#stats tr", has=page.locator("th", has_text=re.compile("^second$")))
        row.get_by_role("button").focus()
        page.evaluate("getSelection().selectAllChildren(document.querySelector('#stats .hint:last-child'))")
        run.span("step", {"n": 1}, begin=4, end=5)
        expect(page.locator("#stats")).to_contain_text("step")
        expect(row.get_by_role("button")).to_be_focused()
        assert "Durations are those" in page.evaluate("String(getSelection())")


# A program that was killed

KILLED = """
import os, signal, sys, time, agentspan
agentspan.configure(db=sys.argv[1])
with agentspan.run("worker"), agentspan.span("agent", {"name": "worker"}):
    with agentspan.span("tool", {"name": "first"}):
        time.sleep(0.05)
    with agentspan.span("tool", {"name": "last"}):
        os.kill(os.getpid(), signal.SIGKILL)
"""
BARS = """() => [...document.querySelectorAll("#tree .row:not([hidden])")].map((row) => {
    const bar = row.querySelector(".bar"), lane = row.querySelector(".lane").getBoundingClientRect();
    const { left, right } = bar.getBoundingClientRect();
    return [bar.classList.contains("killed"), (left - lane.left) / lane.width, (right - lane.left) / lane.width];
})"""


def test_a_killed_run_has_bars_up_to_the_last_known_moment(open_page: Opener, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    program = subprocess.run([sys.executable, "-c", KILLED, path], cwd=ROOT, timeout=60, check=False)
    assert program.returncode == -signal.SIGKILL
    with database(path) as db:
        (run,) = db.agent_instances.list()
        for closed in (False, True):
            if closed:
                db.doctor()
            exported = tmp_path / f"{closed}.html"
            exported.write_text(export.html(db.storage, [run.id]), encoding="utf-8")
            page = open_page(exported.as_uri())
            expect(page.locator("#tree .row:not([hidden])")).to_have_count(3)
            root, first, last = page.evaluate(BARS)
            assert [root[0], first[0], last[0]] == [True, False, True]
            assert 0 <= root[1] <= first[1]
            assert root[2] == pytest.approx(1, abs=0.01)
            assert first[2] < 1.01
            assert last[1] < last[2] <= 1.001  # within the lane, and so visible
            press(page, "j")
            if not closed:
                expect(page.locator("#fact-took")).to_contain_text("≥")
                expect(page.locator("#detail .brief")).to_contain_text("not known; the run's last known moment is +")


# A server that is away

AWAY = ("ERR_FAILED",)


def refuse(route: "Route") -> None:
    """Answer nothing, as a server that is away."""
    route.abort()


def test_a_page_whose_first_request_fails_asks_again(site: Site, open_page: Opener) -> None:
    page = open_page(site.server.url, ready=False)
    page.expected = AWAY  # type: ignore[attr-defined]
    asked: list[str] = []
    page.on("requestfailed", lambda request: asked.append(request.url))
    page.route("**/spans?*", refuse)
    page.goto(site.texts)
    lost = page.locator("#lost")
    expect(lost).to_contain_text("The server does not answer. Next try in")
    page.wait_for_event("requestfailed")  # by itself
    expect(lost).to_contain_text("Next try in 2 s")
    page.unroute("**/spans?*")
    lost.get_by_role("button", name="Try now").click()
    page.wait_for_selector("html[data-ready]")
    expect(lost).to_be_hidden()
    assert 2 <= len(asked) <= 4

    # The details of a span too, and the list of runs while its sums are not ready.
    page.route("**/spans/*", refuse)
    press(page, "j")
    expect(page.locator("#detail .error-text")).to_contain_text("The server does not answer. Try again")
    page.unroute("**/spans/*")
    page.locator("#detail .error-text button").click()
    expect(page.locator("#detail .string")).to_contain_text("why are invoices late?")

    def unready(route: "Route") -> None:
        answer = route.fetch()
        body = answer.text().replace('data-page="runs"', 'data-page="runs" data-preparing="true"')
        route.fulfill(response=answer, body=body.replace("data-run=", "data-old="))

    page.route(f"{site.server.url}/", unready)
    page.route("**/runs.json", refuse)
    page.goto(f"{site.server.url}/")
    expect(lost).to_contain_text("The server does not answer.")
    assert page.locator("#runs tr[data-run]").count() == 0
    page.unroute("**/runs.json")
    expect(page.locator("#runs tr[data-run]")).not_to_have_count(0)
    expect(lost).to_be_hidden()

    # The search in the steps goes on with the first answer to anything, too.
    page.route("**/steps.json*", refuse)
    page.goto(f"{site.server.url}/?grep=invoices")
    expect(page.locator("#found-count")).to_contain_text("could not be searched: The server does not answer.")
    page.unroute("**/steps.json*")
    expect(page.locator("#found-steps a")).not_to_have_count(0)


def test_the_banner_goes_with_the_first_answer_to_anything(site: Site, open_page: Opener) -> None:
    page = open_page(site.going)
    page.expected = AWAY  # type: ignore[attr-defined]
    page.route("**/spans?*", refuse)
    lost = page.locator("#lost")
    expect(lost).to_be_visible()
    page.route("**/spans?*", lambda route: None)  # from now on these requests wait for ever
    press(page, "j")
    expect(page.locator("#detail .json .number").first).to_be_visible()
    expect(lost).to_be_hidden()


def test_the_login_keeps_filters_and_span_and_the_logout_says_that_it_failed(tmp_path: Path, open_page: Opener) -> None:
    with database(tmp_path / "runs.db") as db:
        run = Recording(db, "worker", metadata={"why": "late & lost"})
        run.span("step", {"n": 1})
        span = run.span("step", {"n": 2})
    with serving(tmp_path / "runs.db", AGENTSPAN_TOKEN=TOKEN) as server:
        page = open_page(f"{server.url}/?agent=worker&grep=late+%26+lost", ready=False)
        page.expected = (*AWAY, "401")  # type: ignore[attr-defined]
        page.fill("#token", TOKEN)
        press(page, "Enter")
        page.wait_for_url(f"{server.url}/?agent=worker&grep=late+%26+lost")
        expect(page.locator("#look")).to_have_value("late & lost")
        expect(page.locator("#runs tr")).to_have_count(1)
        page.context.clear_cookies()
        page.goto(f"{server.url}/runs/{run.id}#span={span}&view=conversation")
        page.fill("#token", TOKEN)
        press(page, "Enter")
        page.wait_for_selector("html[data-ready]")
        assert page.url == f"{server.url}/runs/{run.id}#span={span}&view=conversation"
        press(page, "1")
        expect(selected(page)).to_contain_text("2")
        page.route("**/logout", refuse)
        page.get_by_role("button", name="Log out").click()
        problem = page.get_by_text("You are still logged in. The server does not answer.")
        expect(problem).to_be_visible()
        for _ in range(2):  # the run is followed: an answer to that hides nothing
            page.wait_for_event("response")
        expect(problem).to_be_visible()
        page.unroute("**/logout")
        page.get_by_role("button", name="Log out").click()
        page.wait_for_url("**/login")
        # Only a page of this server is next, whatever the address says.
        for elsewhere in ("//evil.example/", "https:evil.example", "javascript:alert(1)", "?a//evil", "./?\\evil"):
            page.goto(f"{server.url}/login?next={elsewhere}#span=x")
            assert page.locator("#login").get_attribute("data-next") == "./"
