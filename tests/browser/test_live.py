"""The viewer beside other processes: runs that go on, a server that is away, and a login."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import agentspan
from agentspan.model.changes import Put, unit_of
from agentspan.storage.questions import SpansOf
from tests.browser.conftest import Opener, Site
from tests.browser.gestures import TOKEN, count_of, expect, press, selected
from tests.browser.recorded import Recording, database, long_run
from tests.checkout import ROOT
from tests.serve.servers import Server, serving

pytestmark = pytest.mark.full

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
    agentspan.SQLiteStorage(path).close()
    with closing(Writer(path)) as writer, serving(path) as server:
        yield server, writer


def test_a_change_that_comes_with_an_old_stamp_is_seen_too(live: tuple[Server, Writer], open_page: Opener) -> None:
    server, write = live
    run = write("run", "worker")
    write("begin", run, "alpha")
    page = open_page(f"{server.url}/runs/{run}")
    with agentspan.open(server.db) as db:
        (row,) = db.storage.ask(SpansOf(run))
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
