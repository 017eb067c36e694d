"""Copies between storages of all kinds: everything is there afterwards, however often a copy was broken off."""

import itertools
import json
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import clock
from agentspan.errors import InvalidValue, StorageError
from agentspan.maintenance.copying import Copied, copy
from agentspan.model.changes import Move, Outcome, Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, Row, Violation
from agentspan.storage.access import scan
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, Query, SpansOf
from agentspan.storage.registry import open_direct
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.contract import Rows
from agentspan.tuning import STANDARD, Tuning
from tests.cli.calling import call, process
from tests.maintenance.copied import everything, fill
from tests.tuned import tuned
from tests.waiting import until

Make = Callable[[str], Any]


@pytest.fixture
def make(tmp_path: Path, request: pytest.FixtureRequest, tuning: Tuning) -> Iterator[Make]:
    """Make an empty storage of a kind."""
    made: list[Storage] = []

    def new(kind: str) -> Storage:
        if kind == "postgres":
            storage = open_direct(request.getfixturevalue("postgres_location"), tuning=tuning)
        else:
            path = tmp_path / f"{len(made)}.db"
            storage = MemoryStorage(tuning=tuning) if kind == "memory" else SQLiteStorage(path, tuning=tuning)
        made.append(storage)
        return storage

    yield new
    for storage in made:
        storage.close()


KINDS = [pair for pair in itertools.product(("memory", "sqlite", "postgres"), repeat=2) if pair != ("postgres",) * 2]


@pytest.mark.parametrize(("of", "to"), KINDS, ids=lambda kind: kind)
def test_everything_is_copied_as_it_is(make: Make, of: str, to: str) -> None:
    source, target = make(of), make(to)
    fill(source)
    stored, account = everything(source), target.ask(Account())
    done = copy(source, target)
    assert target.ask(Account()) == account
    assert (done.runs, done.spans, done.changed, done.left_out) == (3, 12, 0, 0)
    assert everything(target) == stored
    assert everything(source) == stored
    assert copy(source, target) == Copied(0, 0, 0, 0, 0, ())
    assert copy(target, source) == Copied(0, 0, 0, 0, 0, ())


@pytest.mark.parametrize(("of", "to"), [("sqlite", "postgres"), ("postgres", "sqlite"), ("sqlite", "memory")])
def test_a_later_copy_brings_what_has_changed(make: Make, of: str, to: str) -> None:
    source, target = make(of), make(to)
    fill(source)
    copy(source, target)
    db = agentspan.open(source)
    is_open = next(scan(source, AgentSpanRow, {"status": "active"}))
    run = next(scan(source, AgentInstanceRow, {"status": "active"}))
    db.agent_spans.finish(is_open.id, "failed", {"error": "no"})
    late = db.agent_spans.create(run.id, "step", "active", {"n": 1})
    db.agent_spans.finish(late.id)
    db.agent_instances.update(run.id, tags=["weekly"], metadata={"a": 1})
    db.agent_instances.finish(run.id)
    db.scores.record(run.id, "reward", 1)
    db.agents.update(run.agent_id, name="renamed")
    finished = next(scan(source, AgentSpanRow, {"status": "complete"}))
    violation = Violation("result_payload", "$.x", "type", "is not of type string")
    move = Move(
        "agent_span", finished.id, frozenset({"complete"}), {"cost_usd": 0.25, "updated_at": clock.now()}, (violation,)
    )
    source.apply([Unit((move,))])
    tags = {row.id for row in source.ask(Query("tag")).rows}
    done = copy(source, target)
    assert (done.runs, done.spans, done.left_out) == (0, 1, 0)
    wanted, got = everything(source), everything(target)
    got["tag"] = [row for row in got["tag"] if row.id in tags]  # a copy removes nothing
    assert got == wanted


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_the_later_row_stays(make: Make, kind: str) -> None:
    """A span that ended in the target is never open again, even if a copy of an earlier state comes."""
    source, target = make("memory"), make(kind)
    fill(source)
    copy(source, target)
    db = agentspan.open(target)
    span, run = (next(scan(target, row, {"status": "active"})) for row in (AgentSpanRow, AgentInstanceRow))
    db.agent_spans.finish(span.id)
    db.agent_instances.finish(run.id)
    stored = everything(target)
    assert copy(source, target).changed == 0
    assert everything(target) == stored
    assert copy(target, source).changed == 2
    assert everything(source) == stored


@pytest.mark.parametrize("kind", ["memory", "sqlite", "postgres"])
def test_agents_that_both_made_become_one(make: Make, kind: str) -> None:
    source, target = make("sqlite"), make(kind)
    fill(source)
    db = agentspan.open(target)
    theirs = db.agent_instances.register("agent 0", agent_version={"external_identifier": "0"})
    agents = {row.id for row in target.ask(Query("agent")).rows}
    done = copy(source, target)
    assert (done.runs, done.spans, done.left_out) == (3, 12, 0)
    assert len(target.ask(Query("agent")).rows) == 2
    assert agents <= {row.id for row in target.ask(Query("agent")).rows}
    runs = list(scan(target, AgentInstanceRow, {"agent_id": theirs.agent_id}))
    assert len(runs) == 3
    assert {span.agent_id for run in runs for span in target.ask(SpansOf(run.id))} == {theirs.agent_id}
    assert copy(source, target) == Copied(0, 0, 0, 0, 0, ())


def test_a_run_that_cannot_be_there_is_named_and_costs_no_other(make: Make) -> None:
    source, target = make("sqlite"), make("memory")
    for storage in (source, target):
        db = agentspan.open(storage)
        for name in ("same", f"own of {type(storage).__name__}"):
            run = db.agent_instances.register("a", agent_version={"external_identifier": "1"}, external_identifier=name)
            db.agent_spans.create(run.id, "step", "complete", {})
    done = copy(source, target)
    assert (done.runs, done.spans, done.left_out) == (1, 1, 2)
    assert [why for _, why in done.examples] == [
        "another run of its agent has its external_identifier there",
        "what it belongs to is not there",
    ]


def test_a_text_that_the_target_cannot_store_costs_only_its_row(make: Make) -> None:
    source, target = make("memory"), make("postgres")
    fill(source)
    spans = list(scan(source, AgentSpanRow))
    bad = spans[5]._replace(id=Rows().ids.new(), label="half \ud800")
    source.apply([Unit((Put(bad),))])
    done = copy(source, target)
    assert (done.runs, done.spans, done.left_out) == (3, 12, 1)
    assert [id for id, _ in done.examples] == [bad.id]
    assert "half" not in done.examples[0].why


def test_only_runs_since_a_time_are_copied_with_all_that_belongs_to_them(make: Make) -> None:
    source, target = make("sqlite"), make("memory")
    fill(source, runs=4)
    runs = list(scan(source, AgentInstanceRow))
    since = runs[2].started_at
    assert copy(source, target, since=since).runs == 2
    assert [run.id for run in scan(target, AgentInstanceRow)] == [runs[2].id, runs[3].id]
    assert {row.agent_instance_id for row in target.ask(Query("tag")).rows} == {runs[2].id, runs[3].id}
    assert len(target.ask(Query("score")).rows) == 2
    copy(source, target)
    assert everything(target) == everything(source)


class Breaking:
    """A storage whose writes end the program after so many of them."""

    def __init__(self, storage: Storage, writes: int) -> None:
        self._storage, self._left = storage, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def apply(self, *args: Any, **how: Any) -> list[Outcome]:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        return self._storage.apply(*args, **how)


@tuned(copy_commit_rows=3, page_rows=2, copy_cursor_s=0.0)
@pytest.mark.parametrize(("of", "to"), [("sqlite", "postgres"), ("postgres", "sqlite")])
def test_a_copy_that_is_broken_off_after_any_commit_goes_on(make: Make, of: str, to: str, tuning: Tuning) -> None:
    source, target = make(of), make(to)
    fill(source, runs=4, spans=3)
    broken = 0
    while True:
        try:
            copy(source, Breaking(target, 2), tuning=tuning)
            break
        except KeyboardInterrupt:
            broken += 1
    assert broken > 5
    assert everything(target) == everything(source)


@tuned(page_rows=1, copy_cursor_s=0.0)
def test_what_is_stored_while_a_copy_is_broken_off_is_copied_too(make: Make, tuning: Tuning) -> None:
    """Also in runs before the place at which it goes on."""
    source, target = make("sqlite"), make("sqlite")
    fill(source, runs=4)
    looked = iter([False, False, True])
    copy(source, target, stop=lambda: next(looked), tuning=tuning)
    runs = list(scan(source, AgentInstanceRow))
    assert [run.id for run in scan(target, AgentInstanceRow)] == [run.id for run in runs[:3]]
    db = agentspan.open(source)
    open_span = next(span for span in source.ask(SpansOf(runs[2].id)) if span.status == "active")
    db.agent_spans.finish(open_span.id)
    db.agent_instances.finish(runs[2].id)
    copy(source, target, tuning=tuning)
    assert everything(target) == everything(source)
    assert not list(Path(target.path).parent.glob("*-copies"))


def test_a_copy_follows_its_source(make: Make) -> None:
    often = STANDARD._replace(copy_look_s=0.02, copy_compare_s=1.0)
    source, target = make("sqlite"), make("postgres")
    done = threading.Event()
    how = {"follow": True, "stop": done.is_set, "tuning": often}
    following = threading.Thread(target=copy, args=(source, target), kwargs=how)
    following.start()
    try:
        fill(source)
        tracer = agentspan.Tracer(source.path, raise_errors=True, durability="commit")
        with tracer.run("live", tags=["now"]), tracer.span("tool"):
            until(lambda: target.ask(Query("agent_span", {"schema_name": "tool", "status": "active"})).rows)
        tracer.shutdown()
        until(lambda: everything(target) == everything(source))
    finally:
        done.set()
        following.join()


class Away(MemoryStorage):
    """A storage that cannot be reached now and then."""

    is_away = False

    def apply(self, units: Sequence[Unit], **how: Any) -> list[Outcome]:
        if self.is_away:
            raise StorageError("it cannot be reached")
        return super().apply(units, **how)


def test_a_copy_that_follows_outlives_a_target_that_is_away_or_emptied(make: Make) -> None:
    source, target = make("sqlite"), Away()
    fill(source)
    done, failures, results = threading.Event(), list[str](), list[Copied]()
    how: Any = {"follow": True, "stop": done.is_set, "on_failure": lambda error: failures.append(str(error))}
    often = STANDARD._replace(copy_look_s=0.02, copy_compare_s=0.1)
    following = threading.Thread(target=lambda: results.append(copy(source, target, tuning=often, **how)))
    following.start()
    try:
        until(lambda: everything(target) == everything(source))
        target.is_away = True
        db = agentspan.open(source)
        late = db.agent_instances.register("agent 0", agent_version={"external_identifier": "0"})
        db.agent_instances.start(late.id)
        span = db.agent_spans.create(late.id, "step", "active", {})
        until(lambda: failures)
        db.agent_spans.finish(span.id, "complete")
        db.agent_instances.terminate(late.id, "enough")
        target.is_away = False
        until(lambda: everything(target) == everything(source))
        assert set(failures) == {"it cannot be reached"}
        vars(target).update(vars(MemoryStorage()))
        until(lambda: everything(target) == everything(source))
    finally:
        done.set()
        following.join()
    assert (results[0].left_out, results[0].examples) == (0, ())


def test_a_storage_is_not_copied_to_itself(make: Make, tmp_path: Path) -> None:
    source = make("sqlite")
    with pytest.raises(InvalidValue, match="SRC itself"):
        copy(source, SQLiteStorage(source.path))
    for names in (("0.db", "./0.db"), ("none.db", "x.db")):
        result = call(Path("unused"), "copy", *(str(tmp_path / name) for name in names))
        assert result.exit_code == 1
    assert not (tmp_path / "x.db").exists()


def test_the_command_says_what_is_new(tmp_path: Path, postgres_location: Location) -> None:
    file, url = str(tmp_path / "runs.db"), postgres_location.text
    storage = SQLiteStorage(file)
    fill(storage)
    said = call(Path("unused"), "copy", file, url)
    assert said.exit_code == 0
    assert said.output.startswith("3 runs and 12 spans copied to postgresql://")
    assert "sesame" not in said.output
    back = call(Path("unused"), "copy", url, str(tmp_path / "back.db"), "--json", "--since", "2025-01-01")
    assert json.loads(back.output)["spans"] == 12
    copied = SQLiteStorage(tmp_path / "back.db")
    assert everything(copied) == everything(storage)
    storage.close()
    copied.close()


@pytest.mark.full
def test_commands_answer_from_a_copy_and_its_copy_as_from_the_source(
    tmp_path: Path, postgres_location: Location
) -> None:
    """All but the account, which is each storage's own."""
    names = [str(tmp_path / "runs.db"), postgres_location.text, str(tmp_path / "back.db")]
    source = SQLiteStorage(names[0])
    fill(source)
    source.close()
    for of, to in itertools.pairwise(names):
        assert call(Path("unused"), "copy", of, to).exit_code == 0
    accounts = {name: storage_account(name) for name in names}
    commands = ["runs --json", "show - --json", "stats --json", "export all", "search x --json", "why --json"]
    for command in (each.split() for each in commands):
        said = {name: call(Path(name), *command).output for name in names[::2]}
        said[names[1]] = call(names[1], *command).output  # type: ignore[arg-type]
        for name, ids in accounts.items():
            for number, id in enumerate(ids):
                said[name] = said[name].replace(id, f"account {number}")
            # Each storage adds up floats in an order of its own.
            said[name] = re.sub(r"\d+\.\d{9,}", lambda found: str(round(float(found[0]), 6)), said[name])
        assert said[names[1]] == said[names[0]], command
        assert said[names[2]] == said[names[0]], command


def storage_account(name: str) -> tuple[str, str, str]:
    """The ids of the account of a storage."""
    storage = open_direct(name)
    account = storage.ask(Account())
    storage.close()
    return account.id, account.environment_id, account.agent_deployment_id


@pytest.mark.full
def test_a_command_that_is_killed_at_random_moments_goes_on(tmp_path: Path, postgres_location: Location) -> None:
    names = [str(tmp_path / "of.db"), postgres_location.text, str(tmp_path / "back.db")]
    source = SQLiteStorage(names[0])
    fill(source, runs=2)
    rows = Rows()
    for _ in range(3):
        agent = rows.agent()
        version, schema, run = rows.family(agent)
        spans = [rows.span(run, payload=json.dumps({"t": "x" * 2000})) for _ in range(600)]
        everything_of_run: list[Row] = [agent, version, schema, run, *spans]
        source.apply([Unit((Put(row),)) for row in everything_of_run])
    chance = random.Random(7)
    for of, to in itertools.pairwise(names):
        for _ in range(2):
            started = process(Path("unused"), "copy", of, to)
            time.sleep(0.5 + chance.random() * 0.6)
            started.send_signal(signal.SIGKILL)
            started.communicate()
        assert call(Path("unused"), "copy", of, to).exit_code == 0
    stored = everything(source)
    source.close()
    for name in names[1:]:
        storage = open_direct(name)
        assert everything(storage) == stored
        storage.close()
