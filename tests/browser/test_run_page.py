"""The page of one run: why it failed, the slowest steps, numbers, tracebacks, following, judgements, the next run."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.gestures import expect, press, selected
from tests.browser.recorded import Recording, at, database
from tests.serve.servers import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

TRACE = """Traceback (most recent call last):
  File "/app/agent.py", line 7, in run
    book(4)
  File "/app/lib/python3.11/site-packages/httpx/_client.py", line 914, in send
    response = self._send(request)
  File "/app/lib/python3.11/site-packages/httpx/_models.py", line 3, in raise_for_status
  File "/app/agent.py", line 9, in check
    raise Full()
agent.Full: no seat 4"""


class Site(NamedTuple):
    """A server, and the runs in its file."""

    server: Server
    failed: str
    passed: str
    before: str
    going: str
    file: str

    def of(self, run: str) -> str:
        return f"{self.server.url}/runs/{run}"


@pytest.fixture(scope="module")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests."""
    folder = tmp_path_factory.mktemp("run-page")
    with database(folder / "runs.db") as db:
        ids = []
        for fails in (False, True, True):
            run = Recording(db, "booker", task="7")
            root = run.span("agent", {"name": "booker"}, {"steps": 3}, begin=0, end=9)
            question = {"role": "user", "content": "Book it, please"}
            run.span("message", question, parent=root, begin=0.1, end=0.1)
            said = {"text": "I book it now", "input_tokens": 9, "output_tokens": 7}
            run.span("llm", {"model": "m", "messages": [question]}, said, parent=root, begin=1, end=4)
            around = run.span("chain", {"name": "booking"}, {}, parent=root, begin=4, end=5)
            error = {"error": {"type": "Full", "message": "no seat 4", "stacktrace": TRACE}}
            tool = {"name": "book", "arguments": {"seat": 4}}
            if fails:
                run.span("tool", tool, error, status="failed", parent=around, begin=4.2, end=4.9)
            else:
                run.span("tool", tool, {"output": "done"}, parent=around, begin=4.2, end=4.9)
            db.agent_instances.finish(run.id, "failed" if fails else "complete", timestamp=at(9))
            ids.append(run.id)
        trial: Any = {"agent_schema_version": {}, "purpose": "eval", "task": "seat 4", "metadata": {"trial": 1}}
        before = db.agent_instances.register("worker", agent_version={"external_identifier": "0.9"}, **trial).id
        going = db.agent_instances.register("worker", agent_version={}, **trial).id
        db.agent_instances.start(going)
        for number in range(60):
            db.agent_spans.create(going, "tool", "complete", {"name": f"early{number}"}, {"output": 1})
        file = folder / "run.html"
        file.write_text(export.html(db.storage, [ids[2]]), encoding="utf-8")
    with serving(folder / "runs.db") as server:
        yield Site(server, ids[2], ids[0], before, going, file.as_uri())
        assert "Traceback" not in server.stderr


def test_the_details_of_a_failed_run_begin_with_why(site: Site, open_page: Opener) -> None:
    page = open_page(site.of(site.failed))
    card = page.locator("#detail > :first-child")
    expect(card).to_contain_text("Why it failed")
    expect(card.locator(".sentence")).to_have_text("Step 5 failed: Tool book(seat=4)")
    for text in ("Full: no seat 4", '{"seat": 4}', "Book it, please", "I book it now", "1× in 1 other run"):
        expect(card).to_contain_text(text)
    compare = card.get_by_role("link", name="Compare")
    expect(compare).to_have_attribute("href", f"../compare?a={site.passed}&b={site.failed}")
    expect(card.locator("a", has_text="other run")).to_have_attribute(
        "href", re.compile(r"^\.\./failures\?signature=\w+$")
    )
    card.locator(".sentence button").click()
    expect(selected(page)).to_contain_text("Tool book")
    expect(page.locator("#detail .facts")).to_contain_text("#5")
    trace = page.locator("#detail .trace")
    assert trace.inner_text().startswith("agent.Full: no seat 4")
    expect(trace.locator("details summary")).to_have_text("2 frames of httpx")
    expect(trace.locator("details")).not_to_have_attribute("open", "")
    expect(trace.get_by_text("raise Full()")).to_be_visible()
    expect(trace.get_by_text("self._send(request)")).to_be_hidden()
    page.goto(site.of(site.passed))
    page.wait_for_selector("html[data-ready]")
    expect(page.locator("#detail h2")).to_contain_text("booker")
    expect(page.locator(".cause")).to_have_count(0)


def test_a_file_shows_the_same_card_and_no_form(site: Site, open_page: Opener) -> None:
    page = open_page(site.file)
    card = page.locator("#detail > :first-child")
    expect(card.locator(".sentence")).to_have_text("Step 5 failed: Tool book(seat=4)")
    expect(card).to_contain_text(site.passed)
    expect(card.locator("a")).to_have_count(0)
    press(page, "e")
    expect(selected(page)).to_contain_text("Tool book")
    press(page, "m")
    expect(page.locator("#said")).to_have_text("A run in a file cannot be judged.")
    press(page, "s")
    expect(selected(page)).to_contain_text("Agent booker")
    expect(page.locator("#tree .row.selected .own")).to_have_text("5.0 s")


def test_the_cause_is_gone_to_once_a_slow_run_is_loaded(site: Site, open_page: Opener) -> None:
    page = open_page(site.server.url, ready=False)
    held: list[Route] = []
    page.route("**/spans?*", lambda route: held.append(route) if not held else route.continue_())
    page.goto(site.of(site.failed))
    expect(page.locator("#help")).to_be_visible()
    press(page, "e")
    expect(page.locator("#said")).to_contain_text("as soon as the run is loaded")
    page.fill("#search", "#4")
    expect(page.locator("#found")).to_have_text("loading…")
    held[0].continue_()
    expect(selected(page)).to_contain_text("Tool book")
    expect(page.locator("#said")).to_be_hidden()
    expect(page.locator("#found")).to_have_text("1")
    page.locator("#search").press("Enter")
    expect(selected(page)).to_contain_text("booking")


def test_the_slowest_steps_are_gone_to_by_the_time_of_their_own(site: Site, open_page: Opener) -> None:
    page = open_page(site.of(site.failed))
    expect(page.locator("#tree .row .own").first).to_have_text("5.0 s")
    for key, title in (("s", "Agent booker"), ("s", "I book it now"), ("s", "Tool book"), ("S", "I book it now")):
        press(page, key)
        expect(selected(page)).to_contain_text(title)
    expect(page.locator("#said")).to_have_text("Number 2 of 4 by self time: 3.0 s")
    press(page, "g")
    expect(page.locator("#detail .facts")).to_contain_text("self5.0 s")


def test_the_slowest_step_is_gone_to_once_its_own_time_is_known(site: Site, open_page: Opener) -> None:
    page = open_page(site.server.url, ready=False)
    held: list[Route] = []
    for each in ("spans?*", "own-times"):
        page.route(f"**/{each}", lambda route: held.append(route) if len(held) < 2 else route.continue_())
    page.goto(site.of(site.failed))
    expect(page.locator("#help")).to_be_visible()
    press(page, "s")
    expect(page.locator("#said")).to_have_text("Goes to the slowest step as soon as the run is loaded…")
    held[0].continue_()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#tree .row.selected").count() == 0
    held[1].continue_()
    expect(selected(page)).to_contain_text("Agent booker")
    expect(page.locator("#said")).to_have_text("Number 1 of 4 by self time: 5.0 s")


def test_a_mark_is_given_seen_and_taken_back(site: Site, open_page: Opener) -> None:
    page = open_page(site.of(site.failed))
    press(page, "m")
    expect(page.locator("#score-of")).to_have_text("this run")
    page.locator("#score-dialog").get_by_role("button", name="Save").click()
    expect(page.locator("#score-problem")).to_contain_text("Give a mark")
    page.locator("#score-bad").click()
    page.fill("#score-note", "it <b>loops</b>")
    page.fill("#score-judge", "ann")
    press(page, "Enter")
    scores = page.locator("#detail .scores li")
    expect(scores).to_contain_text("mark bad: it <b>loops</b>")
    expect(scores.locator(".who")).to_contain_text(re.compile(r"human ann · \d{4}-\d\d-\d\d \d\d:\d\d:\d\d"))
    press(page, "e", "m")
    expect(page.locator("#score-of")).to_contain_text("step #5, Tool book")
    expect(page.locator("#score-judge")).to_have_value("ann")
    page.fill("#score-name", "correct")
    page.fill("#score-value", "false")
    press(page, "Enter")
    expect(scores).to_contain_text("correct 0")
    scores.get_by_role("button", name="Remove correct").click()
    expect(scores).to_have_count(0)


def test_a_live_run_is_followed_until_the_reader_moves(site: Site, open_page: Opener) -> None:
    page = open_page(site.of(site.going))
    follow = page.locator("#follow")
    expect(follow).to_have_text("Follow")
    case = page.locator("#case")
    expect(case).to_contain_text("Trial 1 of case seat 4 in evaluation worker")
    expect(case.get_by_role("link", name="1 pending")).to_have_attribute("href", site.before)
    where = "../versions?agent=worker&base=0.9&head=default#cases"
    expect(case.get_by_role("link", name="All cases")).to_have_attribute("href", where)
    assert scrolled(page) == 0
    press(page, "f")
    expect(follow).to_have_attribute("aria-pressed", "true")
    with database(site.server.db) as db:

        def begin(name: str) -> None:
            db.agent_spans.create(site.going, "tool", "complete", {"name": name}, {"output": 1})

        for number in range(30):
            begin(f"late{number}")
        expect(page.locator("#tree .row", has_text="late29")).to_be_in_viewport()
        press(page, "k")
        expect(follow).to_have_text("Follow")
        press(page, "g")
        expect(selected(page)).to_contain_text("early0")
        begin("last")
        expect(page.locator("#fact-spans")).to_have_text("91")
        assert scrolled(page) < 100
        press(page, "f")
        expect(page.locator("#tree .row", has_text="last")).to_be_in_viewport()
        db.agent_instances.finish(site.going)
    expect(follow).to_be_hidden()
    press(page, "f")
    expect(page.locator("#said")).to_contain_text("has ended")


def scrolled(page: "Page") -> int:
    return int(page.evaluate("document.getElementById('tree').scrollTop"))


def test_the_next_run_of_the_list_is_a_key_away(site: Site, open_page: Opener) -> None:
    page = open_page(f"{site.server.url}/?agent=booker", ready=False)
    expect(page.locator("#runs tr")).to_have_count(3)
    page.locator("#runs a").first.click()
    page.wait_for_selector("html[data-ready]")
    assert page.url == f"{site.of(site.failed)}?agent=booker"
    press(page, "K")
    expect(page.locator("#said")).to_have_text("This is the first run of the list.")
    press(page, "J")
    page.wait_for_url(lambda url: site.failed not in url)
    page.wait_for_selector("html[data-ready]")
    press(page, "J")
    page.wait_for_url(f"{site.of(site.passed)}?agent=booker")
    page.wait_for_selector("html[data-ready]")
    page.get_by_role("link", name="Runs", exact=True).click()
    page.wait_for_url("**/?agent=booker")


def test_an_address_of_json_leads_to_the_view(site: Site, open_page: Opener) -> None:
    page = open_page(f"{site.of(site.failed)}/stats")
    assert page.url == f"{site.of(site.failed)}#view=stats"
    expect(page.locator("#stats tbody tr").first).to_be_visible()
