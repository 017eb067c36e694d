"""The sessions of OpenCode's database, and of its older tree of files."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.database import Database
from agentspan.sessions import opencode
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from tests.sessions.opencode_database import (
    FINISH,
    SCHEMA,
    answer,
    create,
    message,
    ms,
    part,
    session,
    text,
    tokens,
    tool,
    turn,
    user,
    write,
)
from tests.sessions.stored_rows import stored
from tests.tiers import examples

(FORMAT,) = opencode.FORMATS


def decoded(path: Path, after: str | None = None) -> list[Record]:
    return list(opencode.decode(path, after))


def steps(records: list[Record], id: str = "s1") -> dict[str, Step]:
    return {each.key: each for each in records if isinstance(each, Step) and each.session == id}


def last_session(records: list[Record], id: str = "s1") -> Session:
    return [each for each in records if isinstance(each, Session) and each.id == id][-1]


def seconds(ns: int | None) -> float | None:
    return None if ns is None else (ns // 1_000_000 - ms(0)) / 1000


def test_a_message_is_its_model_calls_and_tools(tmp_path: Path) -> None:
    found = decoded(write(tmp_path / "opencode.db", [session("s1", 0), *turn()]))
    of = steps(found)
    assert [(each.type, seconds(each.start_ns), seconds(each.end_ns), each.status) for each in of.values()] == [
        ("message", 1, 1, "complete"),
        ("llm", 2, 5, "complete"),
        ("tool", 5, 7, "complete"),
        ("llm", 8, 12, "complete"),
    ]
    assert of["mp4"].result == {"output": "output of look", "exit_code": 2, "structured": {"exit": 2}}
    assert of["m2"].payload == {"model": "gpt-4o", "provider": "openai", "mode": "build"}
    assert of["m2"].result == {
        "thinking": "Which seam?",
        "tool_calls": [{"id": "call_look_5", "name": "look", "arguments": {"of": "look"}}],
        "finish_reason": "tool-calls",
        "input_tokens": 17,
        "cached_tokens": 3,
        "cache_write_tokens": 4,
        "output_tokens": 7,
        "reasoning_tokens": 2,
        "stated_cost_usd": 0.25,
    }
    about = last_session(found)
    assert (about.agent, about.version, about.outcome, about.output) == (
        "opencode", "1.2.3", "answered", "The hull is tight.",
    )  # fmt: skip
    assert about.task == "caulk the hull of boat #"
    assert about.metadata["cwd"] == "/work/boat"
    assert about.fingerprint["model"] == "openai/gpt-4o"


def test_sub_agents_hang_under_their_calls_at_any_depth(tmp_path: Path) -> None:
    rows = [
        session("child", 3, parent="s1", agent="scout"),
        session("s1", 0),
        session("grandchild", 4, parent="child"),
        message("a", "s1", 1, answer(1, 2)),
        part("task1", "a", "s1", 1, tool("task", 1, 2, metadata={"sessionId": "child"})),
        message("b", "child", 3, answer(3, 4)),
        part("task2", "b", "child", 3, tool("task", 3, 4, metadata={"sessionID": "grandchild"})),
        message("c", "grandchild", 4, user(4)),
        part("d", "c", "grandchild", 4, {"type": "text", "text": "Look"}),
    ]
    found = decoded(write(tmp_path / "opencode.db", rows))
    assert [each.id for each in found if isinstance(each, Session)] == [
        "s1", "s1", "child", "child", "grandchild", "grandchild",
    ]  # fmt: skip
    assert last_session(found, "child").parent == ("s1", "task1")
    assert (last_session(found, "child").name, last_session(found, "child").goal) == ("scout", None)
    assert last_session(found, "grandchild").parent == ("child", "task2")
    assert last_session(found, "grandchild").goal == "Look"


def test_only_changed_sessions_are_decoded_and_those_above_them_named(tmp_path: Path) -> None:
    rows = [
        session("s1", 0),
        session("other", 1),
        session("child", 2, parent="s1"),
        *turn(),
        *turn("other", 0, "o"),
        message("late", "child", 10_000, user(10_000)),
    ]
    found = decoded(write(tmp_path / "opencode.db", rows), str(ms(10_000)))
    assert {each.id for each in found if isinstance(each, Session)} == {"s1", "child"}
    assert {each.session for each in found if isinstance(each, Step)} == {"child"}
    assert last_session(found).outcome == "answered"
    assert FORMAT.position is not None
    assert FORMAT.position(tmp_path / "opencode.db") == str(ms(10_000))


def test_sessions_whose_parents_are_each_other_or_missing_are_runs(tmp_path: Path) -> None:
    rows = [session("a", 0, parent="b"), session("b", 1, parent="a"), session("c", 2, parent="c"), session("d", 3)]
    rows.append(session("e", 4, parent="gone"))
    found = decoded(write(tmp_path / "opencode.db", rows))
    assert [each.id for each in found if isinstance(each, Session)][::2] == ["b", "a", "c", "d", "e"]
    assert last_session(found, "e").parent is None


def _copied(rows: list[Any], to: str) -> list[Any]:
    """Return rows as a fork copies them: with new ids, and the times of the messages."""
    copies = []
    for statement, values in rows:
        renamed = tuple(f"copy-{to}-{each}" if isinstance(each, str) and each[:1] == "m" else each for each in values)
        copies.append((statement, tuple(to if each == "s1" else each for each in renamed)))
    return copies


def test_what_a_fork_copied_is_left_out(tmp_path: Path) -> None:
    rows = [session("s1", 0), *turn(), session("fork", 50, title="Title of s1 (fork #1)"), *_copied(turn(), "fork")]
    rows += [*turn("fork", 60, "n"), session("again", 90), *_copied(_copied(turn(), "fork"), "again")]
    found = decoded(write(tmp_path / "opencode.db", rows))
    assert list(steps(found, "fork")) == ["n1", "n2", "np4", "np6"]
    assert last_session(found, "fork").conversation == "s1"
    assert last_session(found, "fork").metadata["copied_messages"] == 2


def test_a_fork_without_its_original_keeps_everything(tmp_path: Path) -> None:
    rows = [session("fork", 50), *_copied(turn(), "fork")]
    found = decoded(write(tmp_path / "opencode.db", rows))
    assert len(steps(found, "fork")) == 4
    assert last_session(found, "fork").conversation is None


@pytest.mark.parametrize(
    ("name", "status", "outcome"),
    [("APIError", "failed", "error"), ("MessageAbortedError", "cancelled", "interrupted"),
     ("ContextOverflowError", "failed", "limit")],
)  # fmt: skip
def test_an_error_ends_the_call_and_the_session(tmp_path: Path, name: str, status: str, outcome: str) -> None:
    error = {"name": name, "data": {"message": "no more", "statusCode": 429, "responseHeaders": {"key": "secret"}}}
    rows = [
        session("s1", 0),
        message("m1", "s1", 1, user(1)),
        message("m2", "s1", 2, answer(2, 9, error=error)),
        part("p1", "m2", "s1", 3, {"type": "retry", "attempt": 1, "error": error, "time": {"created": ms(4)}}),
        part("p2", "m2", "s1", 5, tool("look", 5, None)),
    ]
    found = decoded(write(tmp_path / "opencode.db", rows))
    of = steps(found)
    assert (of["m2"].status, of["p1"].status, of["p2"].status) == (status, "failed", "cancelled")
    assert of["p1"].payload["attempt"] == 1
    assert (of["m2"].result or {})["error"] == {"type": name, "message": "no more", "status_code": 429}
    assert last_session(found).outcome == outcome
    assert "secret" not in str(found)


def test_a_tool_that_failed_or_was_aborted(tmp_path: Path) -> None:
    rows = [
        session("s1", 0),
        message("m2", "s1", 2, answer(2, 9)),
        part("p1", "m2", "s1", 5, tool("look", 5, 6, status="error", error="no such file", output=None)),
        part("p2", "m2", "s1", 5, tool("look", 5, 6, status="error", error="Tool execution aborted")),
    ]
    of = steps(decoded(write(tmp_path / "opencode.db", rows)))
    assert (of["p1"].status, of["p2"].status) == ("failed", "cancelled")
    assert of["p1"].result == {"output": "no such file", "is_error": True}


def test_a_compaction_ends_with_its_summary(tmp_path: Path) -> None:
    rows = [
        session("s1", 0),
        *turn(),
        message("n1", "s1", 20, user(20)),
        part("n2", "n1", "s1", 20, {"type": "compaction", "auto": True}),
        message("n3", "s1", 21, answer(21, 25, "n1", summary=True, mode="compaction", tokens=tokens(9, 8))),
        part("n4", "n3", "s1", 22, text("What was done", 22, 24)),
    ]
    of = steps(decoded(write(tmp_path / "opencode.db", rows)))
    assert of["n2"].type == "compaction"
    assert of["n2"].payload == {"trigger": "auto", "tokens_before": 26}
    assert (of["n2"].result, seconds(of["n2"].end_ns)) == ({"summary": "What was done"}, 25)
    assert "n1" not in of


def test_an_image_is_a_block_with_its_bytes(tmp_path: Path) -> None:
    image = {"type": "file", "mime": "image/png", "url": "data:image/png;base64,QUJD", "filename": "hull.png"}
    rows = [
        session("s1", 0),
        message("m1", "s1", 1, user(1)),
        part("p1", "m1", "s1", 1, {"type": "text", "text": "Read", "synthetic": True}),
        part("p2", "m1", "s1", 1, image),
        part("p3", "m1", "s1", 1, {"type": "text", "text": "What is it?"}),
    ]
    found = decoded(write(tmp_path / "opencode.db", rows))
    assert steps(found)["m1"].payload["content"][1] == {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"},
        "filename": "hull.png",
    }
    assert last_session(found).task == "what is it?"


def test_what_is_unknown_is_kept_and_counted(tmp_path: Path) -> None:
    rows = [
        session("s1", 0),
        message("m1", "s1", 1, {"role": "oracle"}),
        message("m2", "s1", 2, answer(2, 3)),
        part("p1", "m2", "s1", 2, {"type": "dream", "of": "boats"}),
        part("p2", "m2", "s1", 2, "no json"),
        message("m3", "s1", 3, "{"),
    ]
    found = decoded(write(tmp_path / "opencode.db", rows))
    assert {each.what for each in found if isinstance(each, Unread)} == {
        "message of role oracle", "a part that is no JSON", "part of type dream", "a message that is no JSON",
    }  # fmt: skip
    assert steps(found)["p1"].payload["content"] == {"type": "dream", "of": "boats"}


def test_a_prompt_while_the_agent_works_is_steering(tmp_path: Path) -> None:
    rows = [session("s1", 0), *turn(), message("m3", "s1", 6, user(6))]
    rows.append(part("p", "m3", "s1", 6, {"type": "text", "text": "The other seam"}))
    of = steps(decoded(write(tmp_path / "opencode.db", rows)))
    assert [key for key, step in of.items() if step.payload.get("steering")] == ["m3"]


@pytest.mark.parametrize("more", [[], [message("m9", "s1", 30, answer(30, 31))]])
def test_an_answer_without_an_end_goes_on_until_another_one_follows(tmp_path: Path, more: list[Any]) -> None:
    rows = [session("s1", 0), message("m2", "s1", 2, answer(2, None)), message("m3", "s1", 20, user(20)), *more]
    rows.append(part("p", "m2", "s1", 3, tool("look", 3, None)))
    of = steps(decoded(write(tmp_path / "opencode.db", rows)))
    assert (of["m2"].status, of["p"].status) == (("complete", "cancelled") if more else ("active", "active"))


def test_sessions_that_are_long_over_are_not_live(tmp_path: Path) -> None:
    path = write(
        tmp_path / "opencode.db", [session("old", 0), *turn("old"), session("s1", 5000), *turn("s1", 5000, "n")]
    )
    os.utime(path, ns=(0, ms(5013) * 1_000_000))
    with agentspan.open(tmp_path / "a.db") as database:
        for second, status in ((5020, "active"), (9000, "complete")):
            import_source(database, path, now_ns=ms(second) * 1_000_000)
            assert {run["external_identifier"]: run["status"] for run, _ in stored(database)} == {
                "opencode:old": "complete",
                "opencode:s1": status,
            }


def import_source(database: Database, path: Path, now_ns: int = 4 * 10**18) -> Importer:
    # Later than the file, so that nothing is live.
    one = Importer(Context(database.storage), {"opencode": FORMAT}, now=lambda: now_ns)
    for source in FORMAT.sources(path):
        one.import_source(source)
    return one


def test_rows_that_are_added_one_by_one_give_the_rows_of_the_whole(tmp_path: Path) -> None:
    added = [session("s1", 0), *turn(), session("fork", 50), *_copied(turn(), "fork")[:2], *turn("fork", 60, "n")]
    added += [session("child", 80, parent="s1"), *turn("child", 81, "c")]
    added.append(part("x", "m2", "s1", 80, tool("task", 80, 95, metadata={"sessionId": "child"})))
    with agentspan.open(tmp_path / "whole.db") as database:
        import_source(database, write(tmp_path / "opencode.db", added))
        whole = stored(database)
    (tmp_path / "grown").mkdir()
    file = tmp_path / "grown" / "opencode.db"
    with agentspan.open(tmp_path / "pieces.db") as database, closing(create(file, wal=True)) as connection:
        for statement, values in added:
            connection.execute(statement, values)
            connection.commit()
            import_source(database, file)
        assert stored(database) == whole
        again = import_source(database, file)
        assert (again.arrived.spans, again.arrived.changed, again.read) == (0, 0, 0)


def test_a_copy_of_the_file_adds_nothing(tmp_path: Path) -> None:
    rows = [session("s1", 0), *turn()]
    (tmp_path / "copy").mkdir()
    with agentspan.open(tmp_path / "a.db") as database:
        import_source(database, write(tmp_path / "opencode.db", rows))
        before = stored(database)
        copied = import_source(database, write(tmp_path / "copy" / "opencode.db", rows))
        assert stored(database) == before
        assert (copied.arrived.spans, copied.arrived.changed) == (0, 0)


@pytest.mark.parametrize("wal", [False, True])
def test_nothing_is_left_beside_the_file(tmp_path: Path, wal: bool) -> None:
    path = write(tmp_path / "opencode.db", [session("s1", 0), *turn()], wal=wal)
    before = path.read_bytes(), sorted(os.listdir(tmp_path))
    assert decoded(path)
    assert list(FORMAT.sources(tmp_path)) == [Source("opencode", path, (tmp_path / "opencode.db-wal",))]
    assert (path.read_bytes(), sorted(os.listdir(tmp_path))) == before


def test_a_file_in_use_is_read_with_its_log_and_not_disturbed(tmp_path: Path) -> None:
    path = tmp_path / "opencode.db"
    with closing(create(path, wal=True)) as connection:
        for statement, values in [session("s1", 0), *turn()]:
            connection.execute(statement, values)
        connection.commit()
        before = sorted(os.listdir(tmp_path))
        reading = opencode.decode(path, None)
        next(reading)
        connection.execute("INSERT INTO project VALUES ('more', '/')")
        connection.commit()
        assert len(steps(list(reading))) == 4
        assert sorted(os.listdir(tmp_path)) == before


def test_only_the_tables_of_sessions_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "opencode.db", [session("s1", 0), *turn()])
    read: set[str] = set()

    def noting(action: int, table: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_READ and table:
            read.add(table)
        return sqlite3.SQLITE_OK

    connect = sqlite3.connect

    def watched(*args: Any, **how: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **how)
        connection.set_authorizer(noting)
        return connection

    monkeypatch.setattr(sqlite3, "connect", watched)
    list(FORMAT.sources(tmp_path))
    assert FORMAT.position is not None
    decoded(path, FORMAT.position(path))
    assert read <= {"session", "project", "message", "part"}


def test_a_database_of_another_version_has_other_columns(tmp_path: Path) -> None:
    path = tmp_path / "kilo.db"
    schema = """
        CREATE TABLE session (id TEXT, title TEXT, surprise TEXT);
        CREATE TABLE message (id TEXT, session_id TEXT, data TEXT);
        CREATE TABLE part (id TEXT, message_id TEXT, session_id TEXT, data TEXT);
    """
    with closing(create(path, schema=schema)) as connection:
        connection.execute("INSERT INTO session VALUES ('s1', 'Old', NULL)")
        connection.execute("INSERT INTO message VALUES ('m1', 's1', ?)", (json.dumps(user(1)),))
        connection.commit()
    assert [each.path for each in FORMAT.sources(path)] == [path]
    assert list(FORMAT.sources(tmp_path)) == []
    found = decoded(path, "1")
    assert last_session(found).agent == "kilo"
    assert list(steps(found)) == ["m1"]


def test_other_files_are_no_sources(tmp_path: Path) -> None:
    (tmp_path / "opencode.db").write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    (tmp_path / "opencode-next.db").write_text("text")
    assert list(FORMAT.sources(tmp_path)) == []
    assert list(FORMAT.sources(tmp_path / "opencode.db")) == []


def _tree(folder: Path) -> Path:
    def put(name: str, content: Any) -> Path:
        file = folder / "storage" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
        return file

    put("message/s1/m1.json", {"id": "m1", **user(1)})
    put("message/s1/m2.json", {"id": "m2", **answer(2, 9, tokens=tokens(3, 4), parts=["pb", "pa"])})
    put("part/m1/pz.json", {"id": "pz", "type": "text", "text": "Caulk it"})
    put("part/m2/pa.json", {"id": "pa", **FINISH})
    put("part/m2/pb.json", {"id": "pb", **tool("look", 3, 4)})
    put("session/pro/child.json", {"id": "child", "parentID": "s1", "time": {"created": ms(3)}})
    put("message/child/mc.json", {"id": "mc", **user(3)})
    return put("session/pro/s1.json", {"id": "s1", "title": "Hull", "time": {"created": ms(0)}, "directory": "/work"})


def test_the_older_tree_of_files(tmp_path: Path) -> None:
    path = _tree(tmp_path)
    child, own = FORMAT.sources(tmp_path)
    assert (child.path.name, own.path) == ("child.json", path)
    assert [file.name for file in own.parts] == ["m1.json", "m2.json", "pz.json", "pa.json", "pb.json"]
    found = decoded(path)
    of = steps(found)
    assert [(each.type, each.key) for each in of.values()] == [("message", "m1"), ("llm", "m2"), ("tool", "pb")]
    assert (of["m2"].result or {})["input_tokens"] == 17
    assert last_session(found).metadata["title"] == "Hull"
    below = decoded(child.path)
    assert {each.session for each in below if isinstance(each, Step)} == {"child"}
    assert last_session(below, "child").parent == ("s1", None)


def test_names_in_the_tree_lead_to_no_other_folder(tmp_path: Path) -> None:
    path = _tree(tmp_path)
    (tmp_path / "storage" / "session" / "m9.json").write_text("{}")
    path.write_text(json.dumps({"id": "../session", "time": {"created": ms(0)}}))
    assert not [each for each in decoded(path) if isinstance(each, Step)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_a_pipe_in_the_tree_is_not_waited_for(tmp_path: Path) -> None:
    path = _tree(tmp_path)
    whole = steps(decoded(path))
    os.mkfifo(tmp_path / "storage/message/s1/m3.json")
    found = decoded(path)
    assert steps(found) == whole
    assert [each.what for each in found if isinstance(each, Unread)] == ["a message that is no JSON"]


def test_the_sessions_of_a_file_are_listed_without_their_messages(tmp_path: Path) -> None:
    path = write(tmp_path / "opencode.db", [session("s1", 0, updated=9), session("child", 1, parent="s1")])
    assert list(opencode.sessions_of(path)) == [("/work/boat", ms(0) * 1_000_000, ms(9) * 1_000_000)]


def test_roots_follow_the_environment() -> None:
    assert FORMAT.roots({"HOME": "/h"}) == [Path("/h/.local/share/opencode")]
    assert FORMAT.roots({"XDG_DATA_HOME": "/x", "OPENCODE_DB": "/y/z.db"}) == [Path("/y/z.db"), Path("/x/opencode")]
    assert FORMAT.roots({"XDG_DATA_HOME": "/x", "OPENCODE_DB": "opencode-dev.db"}) == [Path("/x/opencode")]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "role",
    "time",
    "tokens",
    "error",
    "finish",
    "model",
    "summary",
    "parentID",
    "system",
    "tools",
    "cost",
    "path",
)
PART_FIELDS = ("text", "time", "state", "tool", "callID", "tokens", "url", "auto", "error", "attempt", "reason")
KINDS = (
    "text",
    "reasoning",
    "tool",
    "file",
    "step-start",
    "step-finish",
    "retry",
    "compaction",
    "patch",
    "subtask",
    "x",
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]) | JUNK}, optional=dict.fromkeys(FIELDS[1:], JUNK)
)
STATES = st.dictionaries(
    st.sampled_from(["status", "input", "output", "error", "metadata", "time", "attachments"]), JUNK
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS) | JUNK}, optional=dict.fromkeys(PART_FIELDS, JUNK) | {"state": STATES | JUNK}
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.tuples(MESSAGES | JUNK, st.lists(PARTS | JUNK, max_size=4)), max_size=4), JUNK, JUNK)
def test_hostile_rows_never_raise(messages: list[tuple[Any, list[Any]]], time: Any, name: Any) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp"), f"agentspan-hostile-{os.getpid()}.db")
    path.unlink(missing_ok=True)
    try:
        with closing(create(path)) as connection:
            connection.execute(*_odd("session", "s1", None, name, time))
            for number, (data, parts) in enumerate(messages):
                connection.execute(*_odd("message", f"m{number}", "s1", time, json.dumps(data)))
                for place, each in enumerate(parts):
                    connection.execute(*_odd("part", f"p{number}.{place}", f"m{number}", "s1", time, json.dumps(each)))
            connection.commit()
        found = decoded(path)
        assert all(step.start_ns > 0 for step in found if isinstance(step, Step))
    finally:
        path.unlink(missing_ok=True)


def _odd(table: str, *values: Any) -> tuple[str, list[Any]]:
    columns = {
        "session": "id, parent_id, title, time_created",
        "message": "id, session_id, time_created, data",
        "part": "id, message_id, session_id, time_created, data",
    }
    plain = [each if isinstance(each, str | None) or _fits(each) else json.dumps(each) for each in values]
    plain = [each.encode(errors="replace") if isinstance(each, str) and not each.isascii() else each for each in plain]
    return f"INSERT INTO {table} ({columns[table]}) VALUES ({', '.join('?' * len(values))})", plain


def _fits(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def test_the_schema_of_the_fixtures_has_credentials() -> None:
    assert "credential" in SCHEMA
