"""The index beside a file gives the same answers as reading every row, whatever happened in between."""

import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.runs import find_runs, run_briefs, stats
from agentspan.analysis.search import Hits, search
from agentspan.api.context import Context
from agentspan.errors import StorageError
from agentspan.jsontext import encode
from agentspan.maintenance import rederive
from agentspan.maintenance.prune import prune
from agentspan.model.changes import Put, PutSpans, Unit
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import (
    BackUp,
    FailureSums,
    Find,
    Query,
    RemoveRuns,
    RunFilter,
    RunSums,
    RunsWhere,
    StepUses,
    Used,
)
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.storage.sqlite.index import answers as index_answers
from agentspan.storage.sqlite.index import full_text, index_file
from agentspan.storage.sqlite.index.full_text import FullText
from agentspan.storage.sqlite.index.span_sums import SpanSums
from agentspan.storage.sums import RunList, Stat
from agentspan.testing.contract.base import Rows
from agentspan.tuning import STANDARD
from tests.storage.plain import Plain
from tests.tiers import longer

# Faults put into its SQL are found by the first to the fifth; what these miss, forty missed too.
LIVES = longer("AGENTSPAN_TEST_LIVES", 1, 2, 300)
PARTS = SpanSums(1), FullText(1)


def version(can_delete: bool) -> tuple[int, ...]:
    """The version of SQLite here, or one that cannot delete texts from an index."""
    return sqlite3.sqlite_version_info if can_delete else (3, 42, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def rounded(value: Any) -> Any:
    """Sums of floats depend on their order in the last digits."""
    if isinstance(value, float):
        return pytest.approx(value)
    if isinstance(value, RunList):
        return [[rounded(v) for v in run] for run in value.runs], value.total, [rounded(v) for v in value.totals]
    if isinstance(value, Stat):
        return [rounded(getattr(value, name)) for name in Stat.__slots__]
    return [rounded(item) for item in value] if isinstance(value, list | tuple) else value


QUESTIONS: list[Callable[[Any], Any]] = [
    find_runs,
    lambda storage: find_runs(storage, RunFilter(failed=True), limit=3, offset=1),
    lambda storage: find_runs(storage, RunFilter(agent="b", status="active", grep="B"), limit=None),
    lambda storage: sorted(storage.ask(FailureSums(ids_of(storage))), key=repr),
    lambda storage: sorted(storage.ask(StepUses(ids_of(storage))), key=repr),
    lambda storage: sorted(storage.ask(Used(frozenset({"tool", "llm"}), "f*"))),
    run_briefs,
    lambda storage: sorted(storage.ask(RunSums(ids_of(storage)[::2])), key=repr),
    stats,
    lambda storage: stats(storage, runs=ids_of(storage)[::2]),
    lambda storage: stats(storage, since="2026-01-01T00:00:30.000000Z", runs=ids_of(storage)[1::2]),
    lambda storage: stats(storage, since="2026-01-01T00:00:30.000000Z", until="2026-01-01T00:01:00.000000Z"),
    lambda storage: search(storage, "fetch", limit=4, offset=2),
    lambda storage: search(storage, "again").total,
    lambda storage: search(storage, "done fetch").total,
    lambda storage: said(search(storage, "message", limit=1000)),
    lambda storage: said(search(storage, "message seven", limit=1000)),
]


def ids_of(storage: Any) -> list[str]:
    """All runs."""
    return [run.run.id for run in find_runs(storage, limit=None).runs]


def said(hits: Hits) -> Any:
    """Hits in the order of ids: those of the index are in the order in which spans were stored."""
    return sorted(hits.hits), hits.total


def assert_same(storage: SQLiteStorage) -> None:
    assert RunsWhere in storage.capabilities().answers
    for question in QUESTIONS:
        assert rounded(question(storage)) == rounded(question(Plain(storage)))


NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
HISTORY = [{"role": "user", "content": f"this is message {number}"} for number in NUMBERS]


class Life:
    """Random changes to a file."""

    def __init__(self, db: agentspan.Database, seed: int) -> None:
        self.db = db
        self.random = random.Random(seed)
        self.runs: list[str] = []
        self.open: list[str] = []
        self.at = 0.0

    def step(self) -> None:
        """Do something that can happen to a file."""
        getattr(self, self.random.choice(("register", "begin", "begin", "begin", "end", "end", "whole", "other")))()

    def register(self) -> None:
        run = self.db.agent_instances.register(self.random.choice("ab"))
        self.db.agent_instances.start(run.id)
        self.runs.append(run.id)

    def _create(self, status: str, result: dict[str, Any] | None = None) -> agentspan.AgentSpan | None:
        live = [run for run in self.runs if self.db.agent_instances.get(run).status == "active"]
        if not live:
            return None
        self.at += self.random.random()
        kind, payload = self.random.choice(
            (
                ("tool", {"name": "fetch", "arguments": {"n": self.at}}),
                ("llm", {"model": "m", "input_tokens": 3, "cost_usd": 0.1}),
                ("agent", {"name": "fetch", "input_tokens": 50}),
                ("a:agent:b", {"name": "fetch", "input_tokens": 50}),
                ("x:y:agent", {"name": "fetch", "input_tokens": 50}),
                ("custom", {"text": "fetch"}),
                ("llm", {"messages": HISTORY[: self.random.randrange(9)]}),
                ("agent", {"messages": HISTORY[: self.random.randrange(9)], "text": "seven " * 100}),
            )
        )
        times = (
            {"started_at": f"2026-01-01T00:{self.at / 60:02.0f}:{self.at % 60:09.6f}Z"} if status != "pending" else {}
        )
        run = self.random.choice(live)
        around = [id for id in self.open if self.db.agent_spans.get(id).agent_instance_id == run]
        parent = self.random.choice([None, *around])
        return self.db.agent_spans.create(run, kind, status, payload, result, parent_span_id=parent, **times)  # type: ignore[arg-type]

    def begin(self) -> None:
        span = self._create(self.random.choice(("active", "pending")))
        if span is not None:
            self.open.append(span.id)

    def whole(self) -> None:
        self._create("complete", {"output": "done"})

    def end(self) -> None:
        if not self.open:
            return
        id = self.open.pop(self.random.randrange(len(self.open)))
        if self.db.agent_spans.get(id).status == "pending":
            self.db.agent_spans.finish(id, "cancelled")
        elif self.db.agent_spans.get(id).status == "active":
            if self.random.random() < 0.5:
                reason = self.random.choice(("stop", "length"))
                returned = self.random.random() < 0.3
                result = (
                    {"output": "done 7", "is_error": True} if returned else {"output": "done", "finish_reason": reason}
                )
                self.db.agent_spans.finish(id, "complete", result)
            else:
                error = {"type": "E", "message": f"{self.random.choice('ab')} failed {self.at}"}
                self.db.agent_spans.finish(id, "failed", self.random.choice(({"error": error}, {"output": "done"})))

    def other(self) -> None:
        """Finish a run, change summaries, or remove what has finished."""
        what = self.random.randrange(4)
        storage = self.db.storage
        if what == 0 and self.runs:
            run = self.db.agent_instances.get(self.random.choice(self.runs))
            if run.status == "active":
                self.db.agent_instances.finish(run.id, self.random.choice(("complete", "failed")))
        elif what == 1:
            schemas = [{"name": "tool", "params_schema": {}, "template": f"again {self.random.random()}"}]
            for agent in self.db.agents.list():
                self.db.agent_schema_versions.create(agent.id, span_type_schemas=schemas)
            runs: Any = storage.ask(Query("agent_instance")).rows
            list(rederive.summaries(Context(storage), iter(runs)))
        elif what == 2:
            prune(Context(storage), older_than="9999-01-01T00:00:00.000000Z", keep_failed=self.random.random() < 0.5)
            self.runs = [row.id for row in storage.ask(Query("agent_instance")).rows]
            self.open = [id for id in self.open if id in storage.ask(Find(id)).rows]
        elif what == 3 and self.runs:
            run = self.db.agent_instances.get(self.random.choice(self.runs))
            if run.status == "active" and self.random.random() < 0.3:
                self.db.agent_instances.terminate(run.id, "enough")


@pytest.mark.parametrize("seed", range(LIVES))
def test_answers_are_exact_whatever_happened(path: Path, seed: int) -> None:
    few = STANDARD._replace(index_pause_s=0, index_numbers_batch_spans=7, index_words_batch_spans=5)
    with agentspan.open(SQLiteStorage(path, tuning=few, sqlite_version=version(seed % 4 != 3))) as db:
        life = Life(db, seed)
        for number in range(120):
            life.step()
            if number % 8 == 7:
                if life.random.random() < 0.5:
                    stats(db.storage)  # the numbers alone
                else:
                    assert_same(db.storage)  # type: ignore[arg-type]
        assert_same(db.storage)  # type: ignore[arg-type]


def test_the_last_half_of_a_millisecond_belongs_to_its_second(path: Path) -> None:
    """SQLite rounds times to milliseconds, and so did the index: .9997 s counted as the next second."""
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        start, end = "2026-01-01T00:00:59.999702Z", "2026-01-01T00:01:30Z"
        db.agent_spans.create(
            run.id, "tool", "complete", {"name": "fetch"}, {"output": 1}, started_at=start, finished_at=end
        )
        assert stats(db.storage, since="2026-01-01T00:01:00.000000Z") == []
        assert len(stats(db.storage, until="2026-01-01T00:01:00.000000Z")) == 2  # the type and its label
        assert_same(db.storage)  # type: ignore[arg-type]


def record(path: Path, runs: int = 3) -> None:
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(runs):
        with tracer.run("a"), tracer.span("tool", {"name": "fetch", "arguments": {"n": number}}):
            pass
    tracer.shutdown()


def ask(path: Path) -> tuple[int, int, int]:
    with agentspan.open(path, read_only=True) as db:
        found = find_runs(db.storage)
        return found.total, found.totals.spans, search(db.storage, "fetch").total


def test_what_was_indexed_is_not_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path)
    assert ask(path) == (3, 3, 3)
    taken = []
    take = SpanSums.take
    monkeypatch.setattr(SpanSums, "take", lambda *args: (taken.append(args[2:]), take(*args))[1])
    assert ask(path) == (3, 3, 3)
    record(path, 2)
    assert ask(path) == (5, 5, 5)
    assert taken == [(3, 3), (3, 5)]


def test_the_index_is_as_private_as_the_file_and_may_be_deleted(path: Path) -> None:
    record(path)
    assert ask(path) == (3, 3, 3)
    beside = index_file.path_of(path)
    assert beside.name == "runs.db-index"
    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    index_file.discard(path)
    assert not beside.exists()
    assert ask(path) == (3, 3, 3)


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_an_index_that_cannot_be_used_is_made_anew(path: Path, content: bytes) -> None:
    record(path)
    ask(path)
    index_file.discard(path)
    index_file.path_of(path).write_bytes(content)
    assert ask(path) == (3, 3, 3)
    with sqlite3.connect(index_file.path_of(path)) as connection:
        assert connection.execute("select count(*) from facts").fetchone() == (3,)
    connection.close()


@pytest.mark.parametrize("statement", ["drop table facts", "drop table state", "drop table texts", "delete from state"])
def test_an_index_that_somebody_has_changed_is_made_anew(path: Path, statement: str) -> None:
    record(path)
    ask(path)
    with sqlite3.connect(index_file.path_of(path)) as connection:
        connection.execute(statement)
    connection.close()
    assert ask(path) == (3, 3, 3)
    record(path, 1)
    assert ask(path) == (4, 4, 4)


def child_then_parent_fail(db: agentspan.Database, meanwhile: Callable[[], object]) -> None:
    """Record a span that fails by the error of one in it, which was indexed before."""
    run = db.agent_instances.register("a")
    db.agent_instances.start(run.id)
    failed = {"error": {"type": "E", "message": "no answer"}}
    parent = db.agent_spans.create(run.id, "tool", "active", {"name": "fetch"})
    db.agent_spans.create(run.id, "tool", "failed", {"name": "fetch"}, failed, parent_span_id=parent.id)
    meanwhile()
    db.agent_spans.finish(parent.id, "failed", failed)


def test_a_failure_that_passes_on_one_that_was_indexed_does_not_count(path: Path) -> None:
    with agentspan.open(path) as db:
        child_then_parent_fail(db, lambda: db.storage.ask(FailureSums(ids_of(db.storage))))
        (found,) = db.storage.ask(FailureSums(ids_of(db.storage)))
    assert (found.spans, found.signature.text) == (1, "Tool fetch: E: no answer")


MESSAGES = [{"role": "user", "content": f"message {number} is about a {word}"} for number, word in enumerate("xyz")]


def span_within_another(db: agentspan.Database) -> tuple[str, str]:
    """Record a span with messages, and one with the same in it that ends, and is searched, first."""
    run = db.agent_instances.register("a")
    db.agent_instances.start(run.id)
    outer = db.agent_spans.create(run.id, "agent", "active", {"messages": MESSAGES[:2]}).id
    inner = db.agent_spans.create(run.id, "llm", "complete", {"messages": MESSAGES}, {}).id
    assert {hit.span_id for hit in search(db.storage, "message").hits} == {outer, inner}
    db.agent_spans.finish(outer)
    return outer, inner


@pytest.mark.parametrize("can_delete", [True, False])
def test_a_text_goes_over_to_the_span_that_said_it_first_when_that_ends(path: Path, can_delete: bool) -> None:
    with agentspan.open(SQLiteStorage(path, sqlite_version=version(can_delete))) as db:
        outer, inner = span_within_another(db)
        for words, first, repeats in (("x", outer, 1), ("y", outer, 1), ("z", inner, 0)):
            assert [(hit.span_id, hit.repeats) for hit in search(db.storage, f"a {words}").hits] == [(first, repeats)]
        found = search(db.storage, "message")
        assert [(hit.span_id, hit.repeats) for hit in found.hits] == [(inner, 0), (outer, 1)]
        assert found == search(Plain(db.storage), "message")


@pytest.mark.full
@pytest.mark.parametrize("seed", range(4))
def test_spans_may_arrive_in_another_order_than_they_began(path: Path, seed: int) -> None:
    few = STANDARD._replace(index_pause_s=0, index_words_batch_spans=4)
    chance, made = random.Random(seed), Rows()
    agent = made.agent("a")
    agent_version, schema, run = made.family(agent)
    with agentspan.open(SQLiteStorage(path, tuning=few, sqlite_version=version(seed % 2 == 0))) as db:
        db.storage.apply([Unit(tuple(Put(row) for row in (agent, agent_version, schema, run)))])
        spans = [
            made.span(run, status=chance.choice(("active", "complete", "failed")))._replace(
                payload=encode({"messages": HISTORY[chance.randrange(3) : chance.randrange(9)]})[0],
                result_payload=chance.choice((None, encode({"documents": HISTORY[chance.randrange(8) :]})[0])),
            )
            for _ in range(40)
        ]
        chance.shuffle(spans)
        while spans:
            some, spans = spans[:7], spans[7:]
            db.storage.apply([Unit((PutSpans(some),))])
            for words in ("message", "five", "message seven", "six nothing"):
                found = said(search(db.storage, words, limit=100))
                assert found == said(search(Plain(db.storage), words, limit=100))


def test_the_index_does_not_grow_with_what_is_repeated(path: Path) -> None:
    sizes = []
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        said = " ".join("abcdefgh") * 9
        messages = [{"role": "user", "content": f"message {number} {said}"} for number in range(50)]
        for _ in range(2):
            for _ in range(100):
                db.agent_spans.create(run.id, "llm", "complete", {"messages": messages}, {})
            found = search(db.storage, "message 7 a")
            sizes.append(
                [sql(index_file.path_of(path), f"select {what}") for what in ("count(*) from text_parts", WORDS)]
            )
        assert (found.total, found.hits[0].repeats) == (1, 199)
    (parts, words), (later_parts, later_words) = sizes
    assert parts == later_parts == 50
    assert later_words < words + 100 * 10  # summaries and short members


WORDS = "sum(length(block)) from texts_data"


def sql(path: Path, query: str) -> Any:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchone()[0]
    finally:
        connection.close()


class Recording:
    """A connection that keeps the SQL that it runs."""

    def __init__(self, connection: sqlite3.Connection, ran: set[str]) -> None:
        self._connection = connection
        self._ran = ran

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: Any) -> Any:
        self._ran.add(sql)
        return self._connection.execute(sql, *values)

    def executemany(self, sql: str, *values: Any) -> Any:
        self._ran.add(sql)
        return self._connection.executemany(sql, *values)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_the_version_of_a_part_follows_from_all_sql_that_it_runs(
    path: Path, part: index_file.Part, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: set[str] = set()
    for name in ("create", "take", "forget"):
        method = getattr(type(part), name)
        monkeypatch.setattr(type(part), name, lambda self, to, *args, do=method: do(self, Recording(to, ran), *args))
    record(path)
    ask(path)
    with agentspan.open(path) as db:
        runs = [run.id for run in db.agent_instances.list()]
        db.storage.ask(RemoveRuns(runs[:1], 5))
        assert ask(path) == (2, 2, 2)
        span_within_another(db)
    assert ask(path) == (3, 4, 2)
    with agentspan.open(path) as db:
        child_then_parent_fail(db, lambda: ask(path))
    assert ask(path) == (4, 6, 4)
    can_delete = FullText(1).can_delete
    deletes = full_text.DELETES if can_delete else ""
    listed = {statement.replace("{deletes}", deletes) for statement in part.statements}
    assert ran <= listed
    if can_delete or isinstance(part, SpanSums):
        assert ran == listed - ({full_text.OUTDATED} if can_delete else set())


@pytest.mark.parametrize("part", [SpanSums, FullText])
@pytest.mark.parametrize("what", ["statements", "other"])
def test_a_part_that_other_sql_made_is_made_anew(
    path: Path, part: type[index_file.Part], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(path)
    ask(path)
    with monkeypatch.context() as later:
        changed: Any = (*part.statements, "-- counts otherwise") if what == "statements" else part.other + 1
        later.setattr(part, what, changed)
        made: list[str] = []
        for each in (SpanSums, FullText):
            create = each.create
            later.setattr(each, "create", lambda self, to, do=create: (made.append(self.name), do(self, to))[1])
        assert ask(path) == (3, 3, 3)
        assert made == [part.name]
        assert ask(path) == (3, 3, 3)
        assert made == [part.name]


def test_a_mistake_in_a_question_is_not_hidden_behind_the_slow_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path)

    def mistaken(connection: sqlite3.Connection, *_: object, **__: object) -> None:
        connection.execute("select i.nonsense from main.runs i")

    monkeypatch.setitem(index_answers.ANSWERS, RunsWhere, mistaken)
    with pytest.raises(StorageError, match="no such column"):
        ask(path)


@pytest.mark.parametrize("with_gaps", [False, True])
def test_a_vacuum_by_somebody_changes_no_answer(path: Path, with_gaps: bool) -> None:
    record(path, 6)
    ask(path)
    with agentspan.open(path) as db:
        runs = [run.id for run in db.agent_instances.list()]
        if with_gaps:
            db.storage.ask(RemoveRuns(runs[1:3], 5))
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("vacuum")
    connection.close()
    left = 4 if with_gaps else 6
    assert ask(path) == (left, left, left)
    record(path, 2)
    assert ask(path) == (left + 2,) * 3


def test_an_index_of_another_version_or_of_another_file_is_made_anew(path: Path, tmp_path: Path) -> None:
    record(path, 1)
    ask(path)
    connection = sqlite3.connect(index_file.path_of(path))
    connection.execute("pragma user_version = 99")
    connection.close()
    assert ask(path) == (1, 1, 1)
    record(tmp_path / "other.db", 2)
    ask(tmp_path / "other.db")
    os.replace(index_file.path_of(tmp_path / "other.db"), index_file.path_of(path))
    assert ask(path) == (1, 1, 1)


def test_an_older_copy_of_the_file_in_its_place_is_noticed(path: Path, tmp_path: Path) -> None:
    record(path, 2)
    with agentspan.open(path) as db:
        db.storage.ask(BackUp(tmp_path / "copy.db"))
    record(path, 3)
    assert ask(path) == (5, 5, 5)
    os.replace(tmp_path / "copy.db", path)
    record(path, 4)
    assert ask(path) == (6, 6, 6)


def test_without_a_place_for_an_index_the_answers_are_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path)

    def refused(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("agentspan.disk.open", refused)
    assert ask(path) == (3, 3, 3)
    assert not index_file.path_of(path).exists()


def test_without_full_text_search_every_row_is_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record(path)

    def missing(*args: object) -> None:
        raise sqlite3.OperationalError("no such module: fts5")

    monkeypatch.setattr(FullText, "create", missing)
    assert ask(path) == (3, 3, 3)


def test_building_says_how_far_it_is(path: Path) -> None:
    record(path, 5)
    seen: list[tuple[int, int]] = []
    with agentspan.open(path, read_only=True, tuning=STANDARD._replace(index_words_batch_spans=2)) as db:
        assert search(db.storage, "fetch", progress=lambda *at: seen.append(at)).total == 5
        assert seen == [(2, 5), (4, 5)]
        search(db.storage, "fetch", progress=lambda *at: seen.append(at))
    assert len(seen) == 2


@pytest.mark.full
def test_many_processes_may_make_the_index_at_once(path: Path) -> None:
    record(path, 40)
    code = (
        "import sys, agentspan\n"
        "with agentspan.open(sys.argv[1]) as reading:\n"
        "    print(reading.runs().totals.spans, sum(s.count for s in reading.stats()), reading.search('fetch').total)"
    )
    command = [sys.executable, "-W", "error", "-c", code, str(path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert {process.communicate()[0] for process in started} == {"40 80 40\n"}


@pytest.mark.full
def test_several_may_ask_at_once_while_others_record(path: Path) -> None:
    record(path, 1)
    failures: list[object] = []

    def work() -> None:
        try:
            for _ in range(10):
                runs, spans, hits = ask(path)
                assert 1 <= runs <= 21
                assert 1 <= spans <= hits <= 21
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        record(path, 2)
    for thread in threads:
        thread.join()
    assert failures == []
    assert ask(path) == (21, 21, 21)


def test_recording_never_writes_to_the_notes_of_rewrites(path: Path) -> None:
    record(path)
    ask(path)
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("a") as run:
        with tracer.span("tool", {"name": "x"}) as span:
            span.update_payload({"arguments": {"n": 1}})
        planned = run.create_span("tool", {"name": "y"})
        planned.update_payload({"arguments": {"n": 2}})
        planned.start()
        planned.finish()
    tracer.shutdown()
    with agentspan.open(path) as db:
        db.doctor()
        runs: Any = db.storage.ask(Query("agent_instance")).rows
        assert sum(progress.changed for progress in rederive.summaries(Context(db.storage), iter(runs))) == 0
    with sqlite3.connect(path) as connection:
        assert connection.execute("select name from sqlite_master where name = 'rewritten_runs'").fetchall() == []
    connection.close()


def test_memory_has_no_answers_of_its_own() -> None:
    assert RunsWhere not in MemoryStorage().capabilities().answers
    assert SpanSums.name != FullText.name
