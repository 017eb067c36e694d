"""The store of the Claude Agent SDK: entries come back verbatim, and become the run that the session's file gives."""

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan import clock, jsontext
from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrived
from agentspan.arriving.records import Record
from agentspan.database import Database
from agentspan.errors import DatabaseBusy, DatabaseUnusable, InDoubt, InvalidValue
from agentspan.model.changes import Outcome, Unit
from agentspan.model.rows import AgentInstanceRow, SessionEntryRow, SessionFileRow, SessionSummaryRow
from agentspan.sessions import ClaudeSessionStore
from agentspan.sessions.claude import FORMATS
from agentspan.sessions.deriving import Deriver
from agentspan.sessions.entries import Address, Entries, verbatim
from agentspan.sessions.formats import Format, LineDecoder, Source
from agentspan.sessions.importing import LIVE_S, Importer
from agentspan.storage.access import Wrapper, scan
from agentspan.storage.protocol import Storage
from tests.sessions.claude_entries import (
    AGENT,
    KEY,
    META,
    SESSION,
    SUB_AGENT,
    WITH_AGENT,
    prompt,
    turn,
    uuid_of,
    written,
)
from tests.sessions.stored_rows import rows_of, spans_of

CLAUDE = FORMATS[0]


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture
def kept(db: Database) -> Iterator[ClaudeSessionStore]:
    """A store over each storage that derives nothing."""
    with ClaudeSessionStore(db, record=False) as store:
        yield store


@pytest.fixture
def store(db: Database) -> Iterator[ClaudeSessionStore]:
    """A store over each storage."""
    with ClaudeSessionStore(db) as store:
        yield store


# Entries


def test_entries_come_back_in_order_and_equal(kept: ClaudeSessionStore) -> None:
    odd = {"type": "x", "b": 1, "a": [1.0, None, "\ud800 \u0000 é 😀", {"z": {}, "y": 2**70}]}
    entries: list[Any] = [odd, {"type": "y"}]
    run(kept.append(KEY, entries))
    run(kept.append(KEY, [{"type": "x", "n": 1e-7}]))
    loaded = run(kept.load(KEY))
    assert json.dumps(loaded) == json.dumps([*entries, {"type": "x", "n": 1e-7}])
    assert run(kept.load({**KEY, "session_id": "other"})) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_a_value_decodes_to_the_value_that_was_encoded(value: Any) -> None:
    assert json.dumps(jsontext.decode(verbatim(value))) == json.dumps(value)


def test_an_entry_is_stored_once_by_its_uuid(kept: ClaudeSessionStore) -> None:
    one, two, plain = {"type": "x", "uuid": "1"}, {"type": "x", "uuid": "2"}, {"type": "title"}
    run(kept.append(KEY, [one, one, plain]))
    run(kept.append(KEY, [one, two, plain]))
    run(kept.append(AGENT, [one]))
    assert run(kept.load(KEY)) == [one, plain, two, plain]
    assert run(kept.load(AGENT)) == [one]


def test_appends_at_once_are_stored_in_the_order_of_the_calls(kept: ClaudeSessionStore) -> None:
    async def appended() -> None:
        await asyncio.gather(*(kept.append(KEY, [{"type": "x", "n": n}]) for n in range(60)))

    run(appended())
    assert [entry["n"] for entry in run(kept.load(KEY))] == list(range(60))


def test_an_append_that_was_cancelled_before_its_turn_stores_nothing(kept: ClaudeSessionStore) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(kept.append(KEY, [{"type": "x"}]))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kept.append(KEY, [{"type": "y"}])

    run(cancelled())
    assert run(kept.load(KEY)) == [{"type": "y"}]


def test_threads_append_to_one_session_at_once(kept: ClaudeSessionStore) -> None:
    def work(number: int) -> None:
        for n in range(20):
            run(kept.append(KEY, [{"type": "x", "thread": number, "n": n}]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loaded = run(kept.load(KEY))
    assert [[each["n"] for each in loaded if each["thread"] == number] for number in range(4)] == [[*range(20)]] * 4


def test_two_stores_over_one_storage_never_lose_an_entry(db: Database) -> None:
    stores = [Entries(db.storage, None), Entries(db.storage, None)]
    for n in range(20):
        assert stores[n % 2].append(Address("p", "s"), [{"type": "x", "n": n}])
    assert [entry["n"] for entry in cast(Any, stores[0].load(Address("p", "s")))] == list(range(20))


def test_two_stores_append_the_same_entries_at_once(db: Database) -> None:
    """As two programs do, of which each mirrors the session: each entry is stored once, and the summary counts it."""

    def fold(before: Any, key: Any, entries: Any) -> Any:
        return {"data": {"entries": (before["data"]["entries"] if before else 0) + len(entries)}}

    def work(entries: Entries) -> None:
        for n in range(0, 40, 2):
            entries.append(Address("p", "s"), [{"type": "x", "uuid": str(n + each), "n": n + each} for each in (0, 1)])

    stores = [Entries(db.storage, fold) for _ in range(3)]
    threads = [threading.Thread(target=work, args=(each,)) for each in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry["n"] for entry in cast(Any, stores[0].load(Address("p", "s")))] == list(range(40))
    assert stores[1].summaries("p")[0]["data"] == {"entries": 40}


def test_an_entry_comes_after_one_of_a_host_whose_clock_is_ahead(kept: ClaudeSessionStore, db: Database) -> None:
    ahead = Entries(db.storage, None)
    ahead._id_after = lambda last: "1" + "0" * 31  # type: ignore[method-assign]
    ahead.append(Address(KEY["project_key"], SESSION), [{"type": "x", "n": 0}])
    for n in range(1, 50):
        run(kept.append(KEY, [{"type": "x", "n": n}]))
    assert [entry["n"] for entry in run(kept.load(KEY))] == list(range(50))


@pytest.mark.parametrize(
    "key",
    [{}, {"project_key": "p"}, {"project_key": 1, "session_id": "s"}, {**KEY, "subpath": ""}, {**KEY, "subpath": 1}],
)
def test_a_key_without_its_parts_is_refused(kept: ClaudeSessionStore, key: Any) -> None:
    with pytest.raises(InvalidValue):
        run(kept.append(key, [{"type": "x"}]))


def test_sessions_summaries_and_subkeys_are_listed(db: Database) -> None:
    def fold(before: Any, key: Any, entries: Any) -> Any:
        data = {"entries": (before["data"]["entries"] if before else 0) + len(entries)}
        return {"session_id": key["session_id"], "mtime": 0, "data": data}

    entries = Entries(db.storage, fold)
    address = Address("p", "s")
    entries.append(address, [{"type": "x", "uuid": "1"}])
    first = entries.sessions("p")
    entries.append(address, [{"type": "x", "uuid": "1"}, {"type": "x", "uuid": "2"}])
    entries.append(address._replace(subpath="subagents/agent-1"), [{"type": "x"}])
    (listed,) = entries.sessions("p")
    assert (listed["session_id"], entries.sessions("other")) == ("s", [])
    assert 1e12 < first[0]["mtime"] < listed["mtime"]
    assert entries.summaries("p") == [{**listed, "data": {"entries": 2}}]  # the repeated entry counts once
    assert entries.subkeys("p", "s") == ["subagents/agent-1"]


def test_without_the_sdk_there_are_no_summaries(db: Database) -> None:
    entries = Entries(db.storage, None)
    entries.append(Address("p", "s"), [{"type": "x"}])
    assert (len(entries.sessions("p")), entries.summaries("p")) == (1, [])


def test_deleting_a_session_deletes_its_subkeys_only(kept: ClaudeSessionStore) -> None:
    for key in (KEY, AGENT, {**KEY, "session_id": "other"}, {**KEY, "project_key": "other"}):
        run(kept.append(key, [{"type": "x", "uuid": "1"}]))
    run(kept.delete({**KEY, "session_id": "unknown"}))
    run(kept.delete(KEY))
    assert run(kept.load(KEY)) is run(kept.load(AGENT)) is None
    assert run(kept.list_subkeys(KEY)) == []
    assert run(kept.load({**KEY, "session_id": "other"})) == [{"type": "x", "uuid": "1"}]
    run(kept.append(KEY, [{"type": "x", "uuid": "1"}]))
    assert len(run(kept.load(KEY))) == 1


class _Doubtful(Wrapper[Storage]):
    """A storage whose first commits are in doubt, and one that is refused as busy at last."""

    def __init__(self, direct: Storage, *, commits: bool, times: int) -> None:
        super().__init__(direct)
        self.commits, self.times = commits, times

    def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        if not self.times:
            return super().apply(units, wait_s=wait_s)
        self.times -= 1
        if self.commits:
            super().apply(units, wait_s=wait_s)
        raise InDoubt("the connection broke")


@pytest.mark.parametrize("commits", [True, False])
def test_an_append_in_doubt_is_stored_once(db: Database, commits: bool) -> None:
    entries = Entries(_Doubtful(db.storage, commits=commits, times=1), None)
    assert entries.append(Address("p", "s"), [{"type": "title"}])
    assert entries.load(Address("p", "s")) == [{"type": "title"}]


def test_an_append_that_loses_each_race_says_so(db: Database) -> None:
    entries = Entries(_Doubtful(db.storage, commits=False, times=1000), None)
    with pytest.raises(DatabaseBusy):
        entries.append(Address("p", "s"), [{"type": "title"}])


def test_an_append_is_one_commit_and_needs_no_read(db: Database) -> None:
    class Counting(Wrapper[Storage]):
        asked: ClassVar[list[Any]] = []
        applied: ClassVar[list[list[Unit]]] = []

        def ask(self, question: Any) -> Any:
            self.asked.append(question)
            return super().ask(question)

        def apply(self, units: Any, *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
            self.applied.append(units)
            return super().apply(units, wait_s=wait_s)

    counting = Counting(db.storage)
    entries = Entries(counting, None)
    entries.append(Address("p", "s"), [{"type": "x"}])
    counting.asked.clear()
    counting.applied.clear()
    entries.append(Address("p", "s"), [{"type": "x", "uuid": str(n)} for n in range(100)])
    entries.load(Address("p", "s"))
    assert ([len(units) for units in counting.applied], len(counting.asked)) == ([1], 1)


def test_a_replaced_file_gets_later_entries(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with ClaudeSessionStore(path, record=False) as store:
        run(store.append(KEY, [{"type": "x", "n": 1}]))
        for name in tmp_path.glob("runs.db*"):
            name.unlink()
        run(store.append(KEY, [{"type": "x", "n": 2}]))
        assert run(store.load(KEY)) == [{"type": "x", "n": 2}]


# Opening


def test_the_store_is_the_file_that_every_command_uses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path / "mine.db"))
    with ClaudeSessionStore() as store:
        run(store.append(KEY, turn(1)))
    with agentspan.open() as database:
        assert [row.session for row in scan(database.storage, AgentInstanceRow)] == [SESSION]


def test_what_cannot_work_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="both False"):
        ClaudeSessionStore(tmp_path / "a.db", keep_entries=False, record=False)
    with pytest.raises(DatabaseUnusable):
        ClaudeSessionStore(tmp_path / "no folder" / "a.db")


def test_importing_the_package_imports_neither_the_sdk_nor_a_storage() -> None:
    program = (
        "import sys, agentspan.sessions; "
        "print([n for n in sys.modules if n.startswith(('claude_agent_sdk', 'anyio', 'agentspan.storage', 'sqlite3'))])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"


def test_the_event_loop_goes_on_while_the_disk_is_busy(tmp_path: Path) -> None:
    with ClaudeSessionStore(tmp_path / "a.db", record=False) as store:
        is_free = threading.Event()
        direct = store._opened.entries.append
        store._opened.entries.append = lambda *args: is_free.wait(5) and direct(*args)  # type: ignore[method-assign]

        async def both() -> None:
            append = asyncio.create_task(store.append(KEY, [{"type": "x"}]))
            await asyncio.sleep(0.05)
            assert not append.done()
            is_free.set()
            await append

        run(both())


# Steps


def test_what_is_appended_is_a_run_with_steps(store: ClaudeSessionStore, db: Database) -> None:
    run(store.append(KEY, turn(1)[:3]))
    assert store.flush()
    (row,) = scan(db.storage, AgentInstanceRow)
    assert (row.external_identifier, row.status, row.session) == (f"claude:{SESSION}", "active", SESSION)
    run(store.append(KEY, turn(1)[3:]))
    store.close()
    assert [span["schema_name"] for span in spans_of(db)] == ["message", "llm", "tool", "llm"]
    assert rows_of(db)[0][0]["status"] == "complete"


def imported(folder: Path, database: Database) -> list[Any]:
    """Bring in the session's files, and return the rows."""
    importer = Importer(Context(database.storage), {"claude": CLAUDE}, now=lambda: time.time_ns() + 10**13)
    for source in CLAUDE.sources(folder):
        importer.import_source(source)
    return same_rows(database)


def same_rows(database: Database) -> list[Any]:
    """Return the rows of runs and spans without the part of an id that differs between databases."""
    return [
        (row, [{**span, "parent_span_id": (span["parent_span_id"] or "")[16:]} for span in spans])
        for row, spans in rows_of(database)
    ]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_the_rows_are_those_of_the_sessions_file(tmp_path: Path, size: int) -> None:
    main = written(tmp_path / "files", WITH_AGENT)
    side = main.with_suffix("") / "subagents"
    side.mkdir(parents=True)
    (side / "agent-a1.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in SUB_AGENT))
    (side / "agent-a1.meta.json").write_text(json.dumps(META))
    with agentspan.open(tmp_path / "files.db") as database:
        wanted = imported(tmp_path / "files", database)
    with agentspan.open(tmp_path / "store.db") as database:
        with ClaudeSessionStore(database) as store:
            run(store.append(AGENT, [{"type": "agent_metadata", **META}]))
            for at in range(0, 4, size):
                for key, entries in ((KEY, WITH_AGENT), (AGENT, SUB_AGENT)):
                    if some := entries[at : at + size]:
                        run(store.append(key, some))
                assert store.flush()
        assert same_rows(database) == wanted
        assert [span["schema_name"] for span in spans_of(database)] == ["message", "llm", "tool", "agent", "llm", "llm"]
        before = [row.id for row in scan(database.storage, AgentInstanceRow)]
        assert imported(tmp_path / "files", database) == wanted  # nothing twice
        assert [row.id for row in scan(database.storage, AgentInstanceRow)] == before


def test_entries_of_another_kind_break_nothing(store: ClaudeSessionStore, db: Database) -> None:
    odd: list[Any] = [{"type": "x"}, {"type": 1, "n": None}, {}, {"type": "user"}, {"type": "agent_metadata"}]
    run(store.append({**KEY, "session_id": "odd"}, odd))
    run(store.append(KEY, [*odd, *turn(1), *odd]))
    assert store.flush()
    assert run(store.load({**KEY, "session_id": "odd"})) == odd
    assert {"message", "llm", "tool"} <= {span["schema_name"] for span in spans_of(db)}


def test_steps_are_redacted_and_entries_are_not(store: ClaudeSessionStore, db: Database) -> None:
    secret = "sk-ant-api03-" + "a1B2" * 20
    run(store.append(KEY, [prompt(1, f"the key is {secret}")]))
    assert store.flush()
    assert secret in json.dumps(run(store.load(KEY)))
    assert secret not in json.dumps(spans_of(db))


def test_without_entries_there_are_only_steps(db: Database) -> None:
    with ClaudeSessionStore(db, keep_entries=False) as store:
        for at in range(1, 20, 4):
            run(store.append(KEY, turn(at)[:2]))
            run(store.append(KEY, turn(at)[2:]))
            assert store.flush()
        assert run(store.load(KEY)) is None
        assert run(store.list_sessions(KEY["project_key"])) == run(store.list_session_summaries("x")) == []
    assert not [*scan(db.storage, SessionEntryRow), *scan(db.storage, SessionSummaryRow)]
    ((row, spans),) = rows_of(db)
    assert (len(spans), row["status"]) == (20, "complete")
    assert {span["status"] for span in spans} == {"complete"}


def test_without_recording_there_are_only_entries(kept: ClaudeSessionStore, db: Database) -> None:
    run(kept.append(KEY, turn(1)))
    assert kept.flush()
    kept.close()
    assert rows_of(db) == []
    assert run(kept.load(KEY)) == turn(1)


def test_the_run_stays_when_the_session_is_deleted(store: ClaudeSessionStore, db: Database) -> None:
    run(store.append(KEY, turn(1)))
    run(store.delete(KEY))
    assert len(spans_of(db)) == 4
    run(store.append(KEY, turn(1)))  # such as by the SDK's own import
    assert store.flush()
    assert len(spans_of(db)) == 4


def context_of(database: Database) -> Context:
    return Context(database.storage)


def derive_stored(ctx: Context, format: Format) -> Arrived:
    """Derive all entries in a storage that were not derived, as a store does that is opened."""
    deriver = Deriver(ctx, Entries(ctx.storage, None), format)
    for of in deriver.pending():
        deriver.derive(of)
    return deriver.arrived


@pytest.mark.parametrize("derived", [0, 3, 6])
def test_a_new_store_derives_what_a_killed_one_has_left(db: Database, derived: int) -> None:
    entries = Entries(db.storage, None)
    whole = turn(1) + turn(5)
    address = Address(KEY["project_key"], SESSION)
    if derived:
        entries.append(address, whole[:derived])
        derive_stored(context_of(db), CLAUDE)
    entries.append(address, whole[derived:])
    with ClaudeSessionStore(db) as store:
        store._deriving.start()  # type: ignore[union-attr]
        assert until(lambda: len(rows_of(db)) == 1 and len(spans_of(db)) == 8)
    stored = rows_of(db)
    assert derive_stored(context_of(db), CLAUDE).spans == 0
    assert rows_of(db) == stored


def until(is_so: Callable[[], object], wait_s: float = 5.0) -> bool:
    """Wait until something is so; return whether it is."""
    end = time.monotonic() + wait_s
    while not is_so():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_a_session_that_does_not_go_on_ends(db: Database) -> None:
    Entries(db.storage, None).append(Address(KEY["project_key"], SESSION), turn(1))
    derive_stored(context_of(db), CLAUDE)
    assert rows_of(db)[0][0]["status"] == "active"
    later = time.time_ns() + int((LIVE_S + 10) * 1e9)
    with clock.replaced(lambda: later, clock.monotonic_ns):
        derive_stored(context_of(db), CLAUDE)
    assert rows_of(db)[0][0]["status"] == "complete"
    assert not Deriver(context_of(db), Entries(db.storage, None), CLAUDE).pending()


def test_a_newer_decoder_derives_all_entries_again(db: Database) -> None:
    Entries(db.storage, None).append(Address(KEY["project_key"], SESSION), turn(1))
    derive_stored(context_of(db), CLAUDE)
    (note,) = scan(db.storage, SessionFileRow)
    assert (note.session, note.format) == (SESSION, "claude")
    deriver = Deriver(context_of(db), Entries(db.storage, None), CLAUDE._replace(version=CLAUDE.version + 1))
    assert len(deriver.pending()) == 1
    deriver.derive(deriver.pending()[0])
    assert (deriver.pending(), deriver.arrived.spans, len(spans_of(db))) == ([], 0, 4)


def test_a_run_that_was_pruned_does_not_come_back(db: Database) -> None:
    entries = Entries(db.storage, None)
    entries.append(Address(KEY["project_key"], SESSION), turn(1))
    newer = CLAUDE._replace(version=CLAUDE.version + 1)
    later = time.time_ns() + int((LIVE_S + 10) * 1e9)
    derive_stored(context_of(db), CLAUDE)
    with clock.replaced(lambda: later, clock.monotonic_ns):
        derive_stored(context_of(db), CLAUDE)
    db.prune(older_than=clock.to_text(time.time_ns()))
    for format in (CLAUDE, newer):
        assert derive_stored(context_of(db), format).spans == 0
    assert rows_of(db) == []
    entries.append(Address(KEY["project_key"], SESSION), turn(5))
    # What is new is recorded, with the last call before it, which the decoder still holds.
    assert derive_stored(context_of(db), CLAUDE).spans == 5


class _Faulty(LineDecoder):
    """A decoder with a fault."""

    def __init__(self, source: Source) -> None:
        self._decoder = cast(Any, CLAUDE.lines)(source)

    def feed(self, file: Path, line: bytes) -> Any:
        if b"break" in line:
            raise RuntimeError("a fault")
        return self._decoder.feed(file, line)

    def rest(self) -> list[Record]:
        return [*self._decoder.rest()]


def test_a_fault_of_a_decoder_stops_no_other_session(
    db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    faulty: Format = CLAUDE._replace(lines=_Faulty)
    monkeypatch.setattr("agentspan.sessions.registry.formats", lambda: {"claude": faulty})
    with ClaudeSessionStore(db) as store:
        run(store.append({**KEY, "session_id": "other"}, [{"type": "break"}]))
        run(store.append(KEY, turn(1)))
        assert store.flush()
        assert len(spans_of(db)) == 4
    assert "RuntimeError" in caplog.text


def test_a_store_that_nobody_holds_ends_its_thread(tmp_path: Path) -> None:
    store = ClaudeSessionStore(tmp_path / "a.db")
    run(store.append(KEY, turn(1)))
    thread = store._deriving._thread  # type: ignore[union-attr]
    assert thread is not None
    del store
    thread.join(5)
    assert not thread.is_alive()


PROGRAM = """
import asyncio, os, sys
from agentspan.sessions import ClaudeSessionStore
from tests.sessions.claude_entries import KEY, turn, prompt
number, how = int(sys.argv[2]), sys.argv[3]
store = ClaudeSessionStore(sys.argv[1])
async def main():
    for n in range(10):
        await store.append(KEY, [prompt(100 * number + n + 1, f"{number} {n}")])
    if how == "kill":
        os.kill(os.getpid(), 9)
asyncio.run(main())
"""


def program(path: Path, number: int, how: str) -> "subprocess.Popen[bytes]":
    """Start a program that appends ten prompts to the session."""
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    command = [sys.executable, "-c", PROGRAM, str(path), str(number), how]
    return subprocess.Popen(command, env=environment)


@pytest.mark.full
def test_programs_append_to_one_session_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    programs = [program(path, number, "exit") for number in range(3)]
    assert [each.wait(60) for each in programs] == [0, 0, 0]
    with agentspan.open(path) as database, ClaudeSessionStore(database) as store:
        loaded = run(store.load(KEY))
        assert len({entry["uuid"] for entry in loaded}) == len(loaded) == 30
        mine = [entry["uuid"] for entry in loaded if entry["message"]["content"].startswith("1 ")]
        assert mine == [uuid_of(101 + n) for n in range(10)]
        assert until(lambda: len(spans_of(database)) == 30)  # each program derived at its exit


@pytest.mark.full
def test_a_killed_program_has_stored_what_it_appended(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    assert program(path, 1, "kill").wait(60) == -9
    with agentspan.open(path) as database, ClaudeSessionStore(database) as store:
        assert len(run(store.load(KEY))) == 10
        assert until(lambda: rows_of(database) and len(spans_of(database)) == 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_uses_the_same_store(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        store = ClaudeSessionStore(tmp_path / "a.db")
        run(store.append(KEY, turn(1)))
        child = os.fork()
        if not child:
            code = 1
            try:
                run(store.append(KEY, turn(5)))
                code = 0 if store.flush() and len(spans_of(database)) == 8 else 2
                store.close()
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        run(store.append(KEY, turn(9)))
        store.close()
        assert len(run(ClaudeSessionStore(database, record=False).load(KEY))) == 12
        assert len(spans_of(database)) == 12


def test_an_append_never_waits_for_deriving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_free = threading.Event()
    derive = Deriver.derive
    monkeypatch.setattr(Deriver, "derive", lambda *args, **how: is_free.wait(10) and derive(*args, **how))
    with ClaudeSessionStore(tmp_path / "a.db") as store:
        for at in range(1, 40, 4):
            run(store.append(KEY, turn(at)))
        assert not store.flush(0.0)
        is_free.set()
        assert store.flush()
    with agentspan.open(tmp_path / "a.db") as database:
        assert len(spans_of(database)) == 40
