"""The methods of a Database that read runs: what the command line shows, and tables of pandas and polars."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.tables import RUNS, SPANS
from agentspan.database import Database
from agentspan.errors import AgentspanError, InvalidValue, NotFound
from agentspan.recording.git_commit import commit_replaced


@pytest.fixture
def runs(db: Database) -> list[str]:
    found = []
    for name in ("a", "b"):
        run = db.agent_instances.register(name)
        db.agent_instances.start(run.id)
        db.agent_spans.create(run.id, "llm", "complete", {"model": "m", "input_tokens": 5, "cost_usd": 0.5}, {})
        db.agent_spans.create(run.id, "tool", "active", {"name": "fetch"})
        db.agent_instances.finish(run.id)
        found.append(run.id)
    return found


def test_it_asks_what_the_command_line_asks(db: Database, runs: list[str]) -> None:
    assert db.runs(agent="b").totals.spans == 2
    assert db.runs(since="2020-01-01T00:00:00Z", limit=1).total == 2
    assert [stat.label for stat in db.stats("-")] == [None, "m", None, "fetch"]
    assert db.stats(until="2020-01-01T00:00:00Z") == []
    assert db.runs(git_commit="").total == 0  # runs by id have none
    assert db.search("fetch").total == 2
    assert db.search("fetch", run=runs[0]).hits[0].run_id == runs[0]
    with pytest.raises(InvalidValue, match="since: must be such as 90s"):
        db.runs(since="soon")
    with pytest.raises(InvalidValue, match="since: a time without an offset"):
        db.runs(since=datetime(2020, 1, 1))
    assert db.runs(agent="b@default", since="7d", until="2999-01-01", sort="spans").total == 1
    assert db.runs(meta={"nothing": 1}).total == db.runs(session="s", error="x").total == 0
    assert db.search("fetch", agent="b").total == db.stats(agent="b")[0].count == 1
    with pytest.raises(NotFound, match="no agent is named 'c'; agents: 'a', 'b'"):
        db.stats(agent="c")
    with pytest.raises(InvalidValue, match="exclude each other"):
        db.search("fetch", run="-", failed=True)
    with pytest.raises(TypeError, match="not selected by 'colour'"):
        db.runs(colour="red")  # type: ignore[call-arg]
    assert db.runs(since="2020-01-01T00:00:00").total == 2


def test_runs_are_found_by_the_beginning_of_their_commit(tracer: agentspan.Tracer) -> None:
    made = []
    for commit in ("ab" * 20, "ac" * 20, None):
        with commit_replaced(commit), tracer.run("a") as run:
            made.append(run.id)
    tracer.flush()
    opened = agentspan.open(tracer.storage)
    found = {
        beginning: [run.run.id for run in opened.runs(git_commit=beginning).runs] for beginning in ("a", "AB", "b")
    }
    assert found == {"a": [made[1], made[0]], "AB": [made[0]], "b": []}


READS: dict[str, Callable[[Database], object]] = {
    "runs": lambda db: db.runs(),
    "stats": lambda db: db.stats(),
    "stats_by_version": lambda db: db.stats_by_version(),
    "search": lambda db: db.search("a"),
    "diff": lambda db: db.diff("a", "b"),
    "why": lambda db: db.why(),
    "why of one": lambda db: db.why("-"),
    "drift": lambda db: db.drift("a@1", "a@2"),
    "dataframe": lambda db: db.dataframe(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reading_a_file_that_does_not_exist_makes_none(tmp_path: Path, read: Callable[[Database], object]) -> None:
    with agentspan.open(tmp_path / "no.db") as db:
        for _ in range(2):
            with pytest.raises(agentspan.DatabaseUnusable, match=r"no\.db does not exist; nothing has been recorded"):
                read(db)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("first", ["an operation", "the storage", "another program"])
def test_a_file_that_is_made_after_it_was_opened_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    monkeypatch.chdir(tmp_path)
    db = agentspan.open("late.db")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    if first == "an operation":
        db.agent_instances.register("a")
    elif first == "the storage":
        with agentspan.Tracer(db.storage).run("a"):
            pass
    else:
        with agentspan.open(tmp_path / "late.db") as other:
            other.agent_instances.register("a")
    assert [run.agent for run in db.runs().runs] == ["a"]
    assert not [*(tmp_path / "other").iterdir()]
    db.close()
    with pytest.raises(agentspan.StorageError, match="closed"):
        db.runs()


def test_many_threads_make_one_file(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "late.db") as db, ThreadPoolExecutor(8) as pool:
        storages = [*pool.map(lambda _: db.storage, range(8))]
        assert all(storage is storages[0] for storage in storages)
        made = [*pool.map(lambda number: db.agent_instances.register(f"a{number}").id, range(8))]
        assert {run.run.id for run in db.runs().runs} == {*made}


def test_reading_makes_no_folder_either(tmp_path: Path) -> None:
    db = agentspan.open(tmp_path / ".agentspan" / "late.db")
    with pytest.raises(agentspan.DatabaseUnusable, match="does not exist"):
        db.runs()
    assert list(tmp_path.iterdir()) == []
    db.agents.create("a")
    assert db.runs().total == 0
    db.close()


def test_a_file_that_is_opened_read_only_must_exist(tmp_path: Path) -> None:
    with pytest.raises(agentspan.DatabaseUnusable, match="does not exist"):
        agentspan.open(tmp_path / "runs.db", read_only=True)
    agentspan.SQLiteStorage(tmp_path / "runs.db").close()
    with agentspan.open(tmp_path / "runs.db", read_only=True) as db:
        assert db.runs().total == 0
        with pytest.raises(agentspan.NotPermitted):
            db.agent_instances.register("a")
    with pytest.raises(agentspan.StorageError, match="closed"):
        db.runs()


@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_data_frames(db: Database, runs: list[str], engine: Any) -> None:
    pytest.importorskip(engine, reason=f"needs {engine}")
    spans = db.dataframe(engine=engine)
    assert list(spans.columns) == list(SPANS)
    assert list(spans["run"]) == [runs[0], runs[0], runs[1], runs[1]]
    assert list(spans["status"]) == ["complete", "active"] * 2
    assert spans["cost_usd"].sum() == 1.0
    assert spans["input_tokens"].sum() == 10
    assert "UTC" in str(spans["started_at"].dtype)
    assert len(db.dataframe(run=runs[1], engine=engine)) == 2
    frame = db.dataframe("runs", engine=engine)
    assert list(frame.columns) == list(RUNS)
    assert list(frame["open_spans"]) == [1, 1]
    assert list(frame["agent"]) == ["a", "b"]
    with pytest.raises(agentspan.NotFound):
        db.dataframe(run="nothing", engine=engine)


@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_a_frame_of_runs_has_task_tags_mark_note_and_a_column_for_each_score(tmp_path: Path, engine: Any) -> None:
    pytest.importorskip(engine, reason=f"needs {engine}")
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True)
    with tracer.run("a", task="t-1", session="s", user="u", tags=["y", "x"]) as run:
        run.score("reward", 0.5, label="half")
        run.score("reward", 1, by="model", identifier="judge")
        run.score("mark", label="bad", by="human")
        run.score("note", explanation="ask Mia", by="human")
    with tracer.run("a", task="t-2"):
        pass
    tracer.flush()
    frame = agentspan.open(tracer.storage).dataframe("runs", engine=engine)
    assert list(frame.columns) == [*RUNS, "score_reward"]
    assert frame["score_reward"].max() == 1.0  # of two judges the newest
    told = {name: next(iter(frame[name])) for name in ("task", "session", "user", "mark", "note")}
    assert told == {"task": "t-1", "session": "s", "user": "u", "mark": "bad", "note": "ask Mia"}
    assert [list(tags) for tags in frame["tags"]] == [["x", "y"], []]
    assert list(frame["mark"].isnull() if engine == "pandas" else frame["mark"].is_null()) == [False, True]
    tracer.shutdown()


@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_a_frame_of_nothing_has_its_columns(db: Database, engine: Any) -> None:
    pytest.importorskip(engine, reason=f"needs {engine}")
    frame = db.dataframe(engine=engine)
    assert (len(frame), list(frame.columns)) == (0, list(SPANS))


def test_without_pandas_and_polars_it_says_what_to_install(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(AgentspanError, match=r"neither pandas nor polars is installed; run: .* pandas"):
        db.dataframe()
    with pytest.raises(AgentspanError, match=r"polars is not installed; run: .* polars"):
        db.dataframe(engine="polars")
    with pytest.raises(InvalidValue, match="engine: must be pandas or polars"):
        db.dataframe(engine="excel")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="table: must be spans or runs"):
        db.dataframe("else")  # type: ignore[arg-type]
