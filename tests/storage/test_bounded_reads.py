"""What goes through all runs reads them page by page: no page is larger than another, and none is read twice."""

from collections.abc import Callable

import pytest
from click.testing import CliRunner

import agentspan
from agentspan.analysis.runs import find_runs, stats
from agentspan.analysis.search import search
from agentspan.cli.export import export_command
from agentspan.cli.keep import rederive_command
from agentspan.cli.tail import Follower
from agentspan.database import Database
from agentspan.storage import access
from agentspan.storage.answers import Rows
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import Query, SpansOf
from agentspan.tuning import STANDARD
from tests.cli.calling import work_of

RUNS = 7
PAGES = 4
"""Seven runs in pages of two."""


class Paged(MemoryStorage):
    """Notes how many runs, or spans of several runs, each page has."""

    def __init__(self) -> None:
        super().__init__(tuning=STANDARD._replace(page_rows=2))
        self.pages: list[int] = []

    def _page(self, query: Query) -> Rows:
        found = super()._page(query)
        if query.limit != 0 and query.type in ("agent_instance", "agent_span"):
            self.pages.append(len(found.rows))
        return found


def follow(db: Database) -> None:
    follower = Follower(db.storage)
    for _ in range(RUNS):
        follower.look()
        follower.leave()
    assert follower.look() == []


def prune(db: Database) -> None:
    assert db.prune(older_than="2030-01-01T00:00:00Z", dry_run=True).runs == RUNS - 1


def found(db: Database) -> None:
    page = find_runs(db.storage, limit=3, offset=1)
    assert (len(page.runs), page.total, page.totals.spans) == (3, RUNS, RUNS)


def searched(db: Database) -> None:
    hits = search(db.storage, "look", limit=2, offset=1)
    assert (len(hits.hits), hits.total) == (2, RUNS)
    ids = [span.id for run in list(access.scan(db.storage, agentspan.model.rows.AgentInstanceRow))[::-1]
           for span in db.storage.ask(SpansOf(run.id))]  # fmt: skip
    assert [hit.span_id for hit in hits.hits] == ids[1:3]


@pytest.mark.parametrize(
    ("work", "pages"),
    [
        (follow, RUNS + 1),
        (prune, 1 + PAGES),  # first the newest run
        (found, PAGES),
        (searched, 2 * PAGES),
        (lambda db: stats(db.storage), PAGES),
        (lambda db: db.doctor(), 4),  # pending and active runs, pending and active spans
        (lambda db: work_of(rederive_command)(db, run=None, summaries=True, prices=False, as_json=True), PAGES),
        (lambda db: work_of(export_command)(db, runs=["all"], form="jsonl", output=None, as_json=True), PAGES),
    ],
    ids=["follow", "prune", "find_runs", "search", "stats", "doctor", "rederive", "export"],
)
def test_all_runs_are_read_in_pages(work: Callable[[Database], object], pages: int) -> None:
    storage = Paged()
    db = agentspan.open(storage)
    for number in range(RUNS):
        run = db.agent_instances.register(agent_id="a")
        db.agent_instances.start(run.id)
        span = db.agent_spans.create(run.id, "tool", "active", {"name": "look"})
        if number:  # the first stays open
            db.agent_spans.finish(span.id, timestamp="2029-01-01T00:00:00Z")
            db.agent_instances.finish(run.id, timestamp="2029-01-01T00:00:00Z")
    storage.pages.clear()
    with CliRunner().isolation():
        work(db)
    assert max(storage.pages) <= 2
    assert len(storage.pages) == pages
