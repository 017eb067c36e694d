"""The viewer as a person uses it, in a real browser."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import agentspan
from agentspan.model.changes import Put, unit_of
from agentspan.viewer import export
from tests.browser.conftest import Opener
from tests.browser.gestures import TOKEN, count_of, expect, press, selected
from tests.browser.recorded import HOSTILE, Recording, database, failing_run, hostile_run, long_run
from tests.checkout import ROOT
from tests.serve.servers import Server, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page

SPANS = 10_000


class Site:
    """A server, and the runs in its file."""

    def __init__(self, server: Server, failing: str, long: str, hostile: str) -> None:
        self.server = server
        self.failing, self.long, self.hostile = (f"{server.url}/runs/{id}" for id in (failing, long, hostile))


@pytest.fixture(scope="module")
def site(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One server for all tests that change nothing."""
    path = tmp_path_factory.mktemp("viewer") / "runs.db"
    with database(path) as db:
        runs = failing_run(db), long_run(db, SPANS), hostile_run(db)
    with serving(path) as server:
        yield Site(server, *runs)
        assert "Traceback" not in server.stderr


@pytest.fixture(scope="module")
def shots() -> Path:
    """Where pictures go, for people to look at."""
    folder = Path(os.environ.get("AGENTSPAN_SHOTS", ROOT / "build" / "shots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Large runs


def test_ten_thousand_spans_take_few_elements_wherever_one_scrolls(site: Site, open_page: Opener) -> None:
    page = open_page(site.long)
    expect(page.locator("#fact-spans")).to_have_text("10,000")
    room = page.evaluate("document.getElementById('tree-room').offsetHeight")
    assert room == SPANS * 26
    for part in (0, 0.5, 1):
        page.evaluate(
            "part => { const t = document.getElementById('tree'); t.scrollTop = part * t.scrollHeight; }", part
        )
        number = round(part * (SPANS - 1))
        expect(page.locator(f"#row-{number}")).to_be_visible()
        assert page.evaluate("document.querySelectorAll('*').length") < 1000


# The keyboard, and who does not see


def test_the_tree_is_walked_with_keys(site: Site, open_page: Opener) -> None:
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


def test_e_goes_from_error_to_error_and_unfolds_what_hides_them(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
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


def test_a_screen_reader_hears_a_tree(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "j", "j", "j", "j")
    expect(selected(page)).to_contain_text("Tool search_logs")
    tree = page.locator("#tree")
    assert tree.get_attribute("role") == "tree"
    row = page.locator(f"#{tree.get_attribute('aria-activedescendant')}")
    expect(row).to_have_attribute("role", "treeitem")
    expect(row).to_have_attribute("aria-level", "2")
    expect(row).to_have_attribute("aria-posinset", "3")
    expect(row).to_have_attribute("aria-setsize", "7")
    expect(row).to_have_attribute("aria-selected", "true")
    expect(row).to_have_attribute(
        "aria-label", re.compile(r"^Tool search_logs.*, TimeoutError: no answer, 30\.0 s, failed$")
    )
    assert tree.get_attribute("tabindex") == "0"
    press(page, "Enter")
    expect(page.locator("#detail")).to_be_focused()
    press(page, "Escape")
    expect(tree).to_be_focused()


def test_every_control_has_a_name(site: Site, open_page: Opener) -> None:
    for url in (site.failing, site.server.url):
        page = open_page(url, ready=False)
        page.wait_for_load_state()
        nameless = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, a")].filter((e) => !e.hidden)
            .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)"""
        )
        assert nameless == []


def test_the_keys_are_explained(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "?")
    expect(page.locator("#help-dialog")).to_be_visible()
    press(page, "j")
    expect(page.locator("#tree .row.selected")).to_have_count(0)
    press(page, "Escape")
    expect(page.locator("#help-dialog")).to_be_hidden()


# What is shown


def test_a_span_shows_what_went_in_and_what_came_out(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "j", "j", "j")
    detail = page.locator("#detail")
    expect(detail.locator("h2")).to_contain_text("LLM gpt-4.1")
    expect(detail.locator(".message.user")).to_contain_text("Why are invoices late?")
    expect(detail.locator(".message.assistant")).to_contain_text("I will look.")
    expect(detail.locator(".call")).to_have_text("search_logs(query=timeout)")
    expect(detail).to_contain_text("812 in, 95 out")
    expect(detail.locator(".payload").first).to_contain_text("messages")


def test_numbers_are_not_rounded(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, "e", "e")
    expect(page.locator("#detail .json .number").first).to_have_text(str(2**63 + 1))


def test_json_folds_also_within_a_text(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    press(page, *"jjjjjj")
    result = page.locator("#detail .payload").nth(1)
    expect(result).to_contain_text('told"{1}"')
    expect(result.locator(".number", has_text="1")).to_be_visible()
    result.locator("summary", has_text="told").click()
    expect(result.locator(".number", has_text="1")).to_be_hidden()
    result.get_by_role("button", name="Text").click()
    expect(result.locator(".source")).to_contain_text('"told": "{\\"a\\": [{\\"b\\": 1}]}"')


def test_time_is_zoomed_and_moved(site: Site, open_page: Opener) -> None:
    page = open_page(site.failing)
    ruler = "[...document.querySelectorAll('#axis .ruler span')].map((mark) => mark.textContent + mark.style.left)"
    before = page.evaluate(ruler)
    assert [mark.split(" s")[0] for mark in before[1:]] == ["15", "30"]
    press(page, "e", "z")
    expect(page.locator("#axis .brush")).to_be_visible()
    expect(page.locator(".row.selected .bar")).to_be_visible()  # the rows are drawn anew
    width = page.evaluate(
        "document.querySelector('.row.selected .bar').offsetWidth / document.querySelector('.lane').offsetWidth"
    )
    assert 0.7 < width < 1
    assert page.evaluate(ruler) != before
    press(page, "0")
    expect(page.locator("#axis .brush")).to_be_hidden()
    assert page.evaluate(ruler) == before


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
    turns.nth(2).hover()
    turns.nth(2).get_by_text("Open span").click()
    expect(selected(page)).to_contain_text("Tool search_logs")
    expect(page.locator("#tree")).to_be_visible()


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
    press(page, "PageDown", "j", "h")
    page.wait_for_function("() => document.getElementById('panel-conversation').scrollTop > 100")
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


# The list


def test_the_list_leads_to_a_run_and_can_be_filtered(site: Site, open_page: Opener, shots: Path) -> None:
    page = open_page(site.server.url, ready=False)
    expect(page.locator("#runs tr")).to_have_count(3)
    expect(page.locator("#count")).to_contain_text("3 of 3 runs")
    page.screenshot(path=shots / "runs.png")
    page.select_option("[name=agent]", "researcher")
    page.wait_for_url("**/?agent=researcher")
    expect(page.locator("#runs tr")).to_have_count(1)
    expect(page.locator("#runs tr")).to_contain_text("ticket=OPS-1")
    press(page, "j", "Enter")
    page.wait_for_selector("html[data-ready]")
    assert page.url.startswith(site.failing)
    page.get_by_role("link", name="Runs").click()
    expect(page.locator("#runs tr")).to_have_count(3)


# Other processes

WRITER = """
import sys, agentspan
db = agentspan.open(sys.argv[1])
for line in sys.stdin:
    what, *given = line.split()
    if what == "begin":
        made = db.agent_spans.create(given[0], "tool", "active", {"name": given[1]}).id
    elif what == "end":
        made = db.agent_spans.finish(given[0], given[1], {"output": "it is done"}).id
    elif what == "run":
        made = db.agent_instances.register(given[0], agent_version={}, agent_schema_version={}).id
        db.agent_instances.start(made)
    elif what == "finish":
        made = db.agent_instances.finish(given[0]).id
    print(made, flush=True)
"""


class Writer:
    """Another process, which writes what it is told."""

    def __init__(self, db: Path) -> None:
        command = [sys.executable, "-c", WRITER, str(db)]
        self.process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)

    def __call__(self, *words: str) -> str:
        assert self.process.stdin
        assert self.process.stdout
        print(*words, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def live(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Writer]]:
    """A server, and a process that writes into its file."""
    path = tmp_path_factory.mktemp("live") / "runs.db"
    agentspan.open(path).close()
    writer = Writer(path)
    with serving(path) as server:
        yield server, writer
    writer.close()


def test_a_run_under_way_is_followed(live: tuple[Server, Writer], open_page: Opener) -> None:
    server, write = live
    run = write("run", "worker")
    first = write("begin", run, "alpha")
    page = open_page(f"{server.url}/runs/{run}")
    expect(page.locator("#live")).to_be_visible()
    press(page, "j")
    expect(page.locator("#detail .hint")).to_contain_text("has not finished")
    write("begin", run, "beta")
    expect(page.locator("#tree .row:not([hidden])")).to_have_count(2)
    write("end", first, "complete")
    expect(page.locator("#tree .row.selected .mark.complete")).to_be_visible()
    expect(page.locator("#detail")).to_contain_text("it is done")
    press(page, "2")
    turns = page.locator(".turn")
    expect(turns).to_have_count(2)
    turns.first.evaluate("(node) => (node.kept = true)")
    write("begin", run, "gamma")
    expect(turns).to_have_count(3)
    expect(turns.locator(".place")).to_have_text(["1", "2", "3"])
    assert turns.first.evaluate("(node) => node.kept")  # with what the reader unfolded in it
    write("finish", run)
    expect(page.locator("#status")).to_have_text("complete")


def test_a_change_that_comes_with_an_old_stamp_is_seen_too(live: tuple[Server, Writer], open_page: Opener) -> None:
    server, write = live
    run = write("run", "worker")
    write("begin", run, "alpha")
    page = open_page(f"{server.url}/runs/{run}")
    with agentspan.open(server.db) as db:
        (row,) = db.storage.iter_spans(run)
        late = row._replace(id=db.pfids()[0], updated_at="2026-01-01T00:00:00.000000Z")
        db.storage.apply([unit_of(Put(late))])
    expect(page.locator("#tree .row:not([hidden])")).to_have_count(2)


def test_the_list_is_brought_up_to_date(live: tuple[Server, Writer], open_page: Opener) -> None:
    server, write = live
    page = open_page(f"{server.url}/?agent=newcomer", ready=False)
    expect(page.locator("#nothing")).to_be_visible()
    run = write("run", "newcomer")
    expect(page.locator("#runs tr")).to_have_count(1)
    expect(page.locator("#runs tr .mark.active")).to_be_visible()
    write("begin", run, "alpha")
    expect(page.locator("#runs [data-cell=spans]")).to_have_text("1")
    write("finish", run)
    expect(page.locator("#runs tr .mark.complete")).to_be_visible()
    page.locator("#runs a").click()
    page.wait_for_selector("html[data-ready]")


def test_a_run_in_chunks_is_loaded_whole(live: tuple[Server, Writer], open_page: Opener) -> None:
    server, _ = live
    with database(server.db) as db:
        run = long_run(db, 20_500)
    page = open_page(f"{server.url}/runs/{run}")
    expect(page.locator("#fact-spans")).to_have_text("20,500")
    assert page.evaluate("document.getElementById('tree-room').offsetHeight") == 20_500 * 26
    press(page, "G")
    expect(selected(page)).to_contain_text("fetch")
    assert count_of(page, "#tree .row:not([hidden])") < 60


def test_a_run_is_terminated_with_a_reason(live: tuple[Server, Writer], open_page: Opener) -> None:
    server, write = live
    run = write("run", "worker")
    write("begin", run, "alpha")
    page = open_page(f"{server.url}/runs/{run}")
    page.get_by_role("button", name="Terminate…").click()
    page.fill("#reason", "it loops <b>")
    press(page, "Enter")
    expect(page.locator("#status")).to_have_text("terminated")
    expect(page.locator("#terminate")).to_be_hidden()
    expect(page.locator("#tree .mark.failed")).to_be_visible()
    with agentspan.open(server.db, read_only=True) as db:
        assert db.agent_instances.get(run).termination_reason == "it loops <b>"
    with agentspan.open(server.db) as db:
        (span,) = db.agent_spans.list(run)
        db.agent_spans.finish(span.id)
        db.agent_instances.finish(run)
    page.reload()
    expect(page.locator("#detail")).to_contain_text("its own end came after the termination")
    page.locator("#tree .row:not([hidden])").first.click()
    expect(page.locator("#detail")).to_contain_text("by being terminated; its own end came after the termination")


def test_a_server_that_is_away_is_noticed_and_so_is_its_return(tmp_path: Path, open_page: Opener) -> None:
    with database(tmp_path / "runs.db") as db:
        run = Recording(db, "worker").id
    with serving(tmp_path / "runs.db") as server:
        page = open_page(f"{server.url}/runs/{run}")
        page.expected = ("ERR_CONNECTION_REFUSED", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET")  # type: ignore[attr-defined]
    expect(page.locator("#lost")).to_be_visible()
    with serving(tmp_path / "runs.db", "--port", str(server.port)):
        expect(page.locator("#lost")).to_be_hidden()


# Who may see


@pytest.fixture(scope="module")
def guarded(browser: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server that wants a token, and only reads."""
    path = tmp_path_factory.mktemp("guarded") / "runs.db"
    with database(path) as db:
        run = Recording(db, "worker").id
    with serving(path, "--read-only", AGENTSPAN_TOKEN=TOKEN) as server:
        yield Site(server, run, run, run)


def test_one_logs_in_and_out(guarded: Site, open_page: Opener, shots: Path) -> None:
    page = open_page(guarded.failing, ready=False)
    page.expected = ("403", "401")  # type: ignore[attr-defined]
    expect(page.locator("#token")).to_be_focused()
    page.screenshot(path=shots / "login.png")
    page.fill("#token", "wrong")
    press(page, "Enter")
    expect(page.locator("#problem")).to_have_text("That is not this server's token.")
    page.fill("#token", TOKEN)
    press(page, "Enter")
    page.wait_for_selector("html[data-ready]")
    assert page.url.startswith(guarded.failing)
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in cookie["value"]
    expect(page.locator("#terminate")).to_be_hidden()  # this server only reads
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/login")
    assert page.context.cookies() == []
    page.goto(guarded.server.url)
    expect(page.locator("#token")).to_be_visible()


# Hostile payloads

EVERYTHING = ("j", "j", "j", "j", "j", "e", "2", "3", "1")


def assert_harmless(page: "Page") -> None:
    """Nothing of a payload became an element."""
    assert (
        count_of(page, "#tree img, #tree script, main img, main svg:not(.histogram), main a, [onload], [onerror]") == 0
    )
    assert page.evaluate(
        "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes]).every(a => !/^on/i.test(a.name))"
    )


def test_hostile_payloads_stay_text(site: Site, open_page: Opener) -> None:
    listed = open_page(site.server.url, ready=False)
    expect(listed.locator("#runs")).to_contain_text(HOSTILE[:100])
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
    press(page, "/")
    page.keyboard.type(HOSTILE)
    expect(page.locator("#found")).not_to_have_text("")
    assert_harmless(page)


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
