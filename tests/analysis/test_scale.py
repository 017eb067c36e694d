"""A file with many runs is answered from its index: the work grows with the runs, not with the spans."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from make_runs import make

import agentspan
from agentspan.analysis.drift import drift
from agentspan.analysis.outcomes import parse
from agentspan.analysis.runs import find_runs, ids_of, run_briefs, stats
from agentspan.analysis.search import search
from agentspan.analysis.why import why
from agentspan.storage.questions import RunFilter
from agentspan.storage.sqlite.index import index_file
from agentspan.storage.sqlite.index.full_text import LISTED_FROM
from tests.cli.calling import lines
from tests.tiers import longer

pytestmark = pytest.mark.full

SPANS = longer("AGENTSPAN_TEST_SPANS", 20_000, 20_000, 1_000_000)
STEPS = 100


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "runs.db"
    with agentspan.open(path) as db:
        made = make(db.storage, SPANS)
        assert made >= SPANS
    return path


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "judged.db"
    with agentspan.open(path) as db:
        make(db.storage, SPANS, verdicts=True)
    return path


class Work:
    """Counts the steps of SQLite's machine that answering takes."""

    steps = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    opened, work = index_file.opened, Work()

    @contextmanager
    def counted(*args: Any, **how: Any) -> Iterator[Any]:
        with opened(*args, **how) as connection:

            def count() -> int:
                work.steps += STEPS
                return 0

            connection.set_progress_handler(count, STEPS)
            yield connection

    monkeypatch.setattr(index_file, "opened", counted)
    return work


def test_answers_take_a_part_of_the_work_that_reading_every_row_would(path: Path, work: Work) -> None:
    with agentspan.open(path, read_only=True) as db:
        storage = db.storage
        found = find_runs(storage)
        assert search(storage, "nothing").total == 0
        built, work.steps = work.steps, 0
        assert built > 20 * SPANS
        again = find_runs(storage)
        assert again == found
        assert again.totals.spans >= SPANS
        assert sum(stat.count for stat in stats(storage) if stat.label is None) == again.totals.spans
        assert find_runs(storage, RunFilter(failed=True), limit=1).total > 0
        found_why = why(storage)
        assert found_why.failed > 0
        assert sum(group.spans for group in found_why.groups) > 0
        assert work.steps < 12 * SPANS  # a few dozen for each run, and a thousandth of each group
        work.steps = 0
        assert search(storage, "flight", limit=5).total > SPANS // 2
        assert work.steps < 12 * SPANS
        codes = search(storage, "R000*", limit=3)
        assert codes.total > 0
        code = next(code for code in codes.hits[0].snippet.split() if code.lower().startswith("r000"))
        assert search(storage, code.strip('",…}')).total >= 1


def test_verdicts_on_many_runs_look_at_runs_and_failures_not_at_each_span(judged: Path, work: Work) -> None:
    with agentspan.open(judged, read_only=True) as db:
        storage = db.storage
        runs = run_briefs(storage)
        assert sum(run.failed for run in runs) > SPANS // 30
        work.steps = 0
        assert why(storage).failed > 0
        assert work.steps < 7 * SPANS  # failures of passed runs are compared, too
        work.steps = 0
        by_score = why(storage, judge=parse("reward>=1"))
        assert sum(group.spans for group in by_score.groups) > SPANS // 200
        assert work.steps < 8 * SPANS
        work.steps = 0
        first, second = (RunFilter(version=version) for version in "12")
        assert drift(storage, first, second).head_runs > 0
        assert work.steps < 25 * SPANS
        ids = ids_of(storage, second)
        work.steps = 0
        found = stats(storage, runs=ids)
        assert sum(stat.count for stat in found if stat.label is None) == sum(
            run.spans for run in runs if run.version == "2"
        )
        assert work.steps < 12 * SPANS  # reading the facts of all spans takes 40


def test_a_large_run_is_shown_whole(path: Path) -> None:
    if SPANS < 20_000:
        pytest.skip("needs AGENTSPAN_TEST_SPANS of 20,000 or more")
    with agentspan.open(path, read_only=True) as db:
        large = next(run.run.id for run in find_runs(db.storage, limit=None).runs if run.spans >= 10_000)
    shown = lines(path, "show", large, "--full")
    assert len([line for line in shown if "▕" in line]) == 10_000


def test_a_search_of_many_spans_in_some_runs_counts_as_one_of_all_runs(path: Path) -> None:
    with agentspan.open(path) as db:
        every = search(db.storage, "flight*", limit=1)
        assert every.total >= LISTED_FROM
        agents = [ids_of(db.storage, RunFilter(agent=name)) for name in ("airline", "researcher", "triage")]
        found = [search(db.storage, "flight*", limit=3, runs=runs) for runs in agents]
        assert sum(each.total for each in found) == every.total
        for each, runs in zip(found, agents, strict=True):
            assert {hit.run_id for hit in each.hits} <= {*runs}
