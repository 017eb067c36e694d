"""The logs of `llm`: conversations of the older tables and threads of the newer ones."""

import json
import os
import sqlite3
from base64 import b64decode
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.llm_logs import FORMATS, decode, position
from tests.sessions.stored import stored

(FORMAT,) = FORMATS
OLD = """
create table _llm_migrations (name text);
create table conversations (id text primary key, name text, model text);
create table responses (id text primary key, model text, prompt text, system text, prompt_json text, options_json text,
    response text, response_json text, conversation_id text, duration_ms integer, datetime_utc text,
    input_tokens integer, output_tokens integer, token_details text, schema_id text, resolved_model text);
create table attachments (id text primary key, type text, path text, url text, content blob);
create table prompt_attachments (response_id text, attachment_id text, "order" integer,
    primary key (response_id, attachment_id));
create table fragments (id integer primary key, hash text, content text);
create table prompt_fragments (response_id text, fragment_id integer, "order" integer,
    primary key (response_id, fragment_id, "order"));
create table tools (id integer primary key, name text);
create table tool_responses (tool_id integer, response_id text);
create table tool_calls (id integer primary key, response_id text, name text, arguments text, tool_call_id text);
create table tool_results (id integer primary key, response_id text, name text, output text, tool_call_id text,
    exception text);
create table schemas (id text primary key, content text);
"""
NEW = """
create table threads (id text primary key, name text, forked_from text);
create table turns (id text primary key, thread_id text, parent_message_hash text, tip_message_hash text, model text,
    resolved_model text, options_json text, schema_id text, input_tokens integer, output_tokens integer,
    token_details text, duration_ms integer, datetime_utc text, response_json text);
create table messages (hash text primary key, parent_hash text, role text);
create table parts (id integer primary key, message_hash text, position integer, type text, tool_name text, text text,
    payload text);
create table turn_tools (turn_id text, tool_id integer, primary key (turn_id, tool_id));
create index idx_turns_thread_id on turns (thread_id);
create unique index idx_parts_message_hash_position on parts (message_hash, position);
"""
PNG = b"\x89PNG\r\n\x1a\n" + bytes(40)


def id_of(number: int) -> str:
    """Return a ULID; a higher number was made an hour later."""
    return f"01kdy{number:02d}{'0' * 19}"


def at(minute: int) -> str:
    """Return a time."""
    return f"2026-01-02T03:{minute:02d}:00+00:00"


def insert(base: sqlite3.Connection, table: str, *rows: dict[str, Any]) -> None:
    """Insert rows."""
    for row in rows:
        names = ", ".join(f'"{name}"' for name in row)
        base.execute(f"insert into {table} ({names}) values ({', '.join('?' * len(row))})", [*row.values()])


def response(number: int, conversation: str | None, minute: int, **members: Any) -> dict[str, Any]:
    """Return a row of the older table."""
    row = {"id": id_of(number), "model": "m", "conversation_id": conversation, "datetime_utc": at(minute),
           "duration_ms": 1000, "input_tokens": 12, "output_tokens": 5, "response": "",
           "options_json": "{}"}  # fmt: skip
    return {**row, **members}


RESPONSES = (
    response(1, "c1", 1, prompt="Weather in Rome 5?", system="be brief", resolved_model="gpt-4o-mini-2024",
             options_json='{"temperature": 0.1}', token_details='{"prompt_tokens_details": {"cached_tokens": 4}}'),
    response(2, "c1", 2, prompt="", response="Sunny.", response_json='{"id": "r2"}',
             token_details='{"cache_read_input_tokens": 7}'),
    response(3, None, 3, prompt="alone", response="yes"),
)  # fmt: skip
IMAGE = '{"attachment": {"id": "x"}}'
FAILED = '{"name": "look", "output": "", "tool_call_id": "k", "exception": "KeyError: no"}'
TURNS: tuple[tuple[dict[str, Any], Sequence[tuple[str, str | None, str, Sequence[dict[str, Any]]]]], ...] = (
    ({"id": id_of(11), "thread_id": "t1", "parent_message_hash": "b", "tip_message_hash": "c", "datetime_utc": at(4)}, (
        ("a", None, "system", ({"type": "text", "text": "be brief"},)),
        ("b", "a", "user", ({"type": "text", "text": "Weather?"}, {"type": "attachment", "payload": IMAGE})),
        ("c", "b", "assistant", (
            {"type": "reasoning", "text": "hm"},
            {"type": "tool_call", "payload": '{"name": "look", "arguments": {"at": 1}, "tool_call_id": "k"}'})),
    )),
    ({"id": id_of(12), "thread_id": "t1", "parent_message_hash": "d", "tip_message_hash": "e", "datetime_utc": at(5)}, (
        ("d", "c", "tool", (
            {"type": "tool_result", "payload": FAILED},)),
        ("e", "d", "assistant", ({"type": "text", "payload": '{"text_ref": [{"literal": "It "}, {"fragment": 1}]}'},)),
    )),
    ({"id": id_of(13), "thread_id": "t2", "parent_message_hash": "f", "tip_message_hash": "g", "datetime_utc": at(6)}, (
        ("f", "e", "user", ({"type": "text", "text": "and now?"},)),
        ("g", "f", "assistant", ({"type": "text", "text": "the same"},)),
    )),
)  # fmt: skip


def write(path: Path, responses: int = 9, turns: int = 9) -> Path:
    """Write a file of both families with their first rows."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as base, base:
        base.executescript(OLD + NEW)
        insert(base, "conversations", {"id": "c1", "name": "Weather in Rome 5?"})
        insert(
            base, "attachments", {"id": "x", "type": "image/png", "content": PNG}, {"id": "y", "url": "http://a/b.pdf"}
        )
        insert(base, "fragments", {"id": 1, "content": "is sunny"})
        insert(base, "tools", {"id": 1, "name": "look"})
        insert(base, "threads", {"id": "t1", "name": "Weather?"}, {"id": "t2", "forked_from": "t1"})
        for row in RESPONSES[:responses]:
            insert(base, "responses", row)
        _fill(base, responses)
        for turn, messages in TURNS[:turns]:
            insert(base, "turns", {"model": "m", "input_tokens": 12, "output_tokens": 5, "duration_ms": 500, **turn})
            for hash, parent, role, parts in messages:
                insert(base, "messages", {"hash": hash, "parent_hash": parent, "role": role})
                insert(
                    base, "parts", *({"message_hash": hash, "position": at, **part} for at, part in enumerate(parts))
                )
        if turns:
            insert(base, "turn_tools", {"turn_id": id_of(11), "tool_id": 1})
    os.utime(path, ns=(1, 10**18 + responses * 10 + turns))
    return path


def _fill(base: sqlite3.Connection, responses: int) -> None:
    """Insert what belongs to the first responses."""
    if responses > 0:
        insert(base, "prompt_attachments", {"response_id": id_of(1), "attachment_id": "y", "order": 0})
        insert(base, "prompt_fragments", {"response_id": id_of(1), "fragment_id": 1, "order": 0})
        insert(base, "tool_responses", {"tool_id": 1, "response_id": id_of(1)})
        call = {"response_id": id_of(1), "name": "look", "arguments": '{"at": "Rome"}', "tool_call_id": "k1"}
        insert(base, "tool_calls", call)
    if responses > 1:
        insert(base, "tool_results", {"response_id": id_of(2), "name": "look", "output": "sun", "tool_call_id": "k1"})


def steps_of(records: Sequence[Record], session: str) -> list[Step]:
    """Return the steps of a session in their order."""
    steps = [record for record in records if type(record) is Step and record.session == session]
    assert len({step.key for step in steps}) == len({step.start_ns for step in steps}) == len(steps)
    return sorted(steps, key=lambda step: step.start_ns)


def sessions_of(records: Sequence[Record]) -> dict[str, Session]:
    """Return the last state of each session."""
    return {record.id: record for record in records if type(record) is Session}


def test_conversations_of_the_older_tables(tmp_path: Path) -> None:
    records = [*decode(write(tmp_path / "logs.db", turns=0), None)]
    assert [*sessions_of(records)] == ["c1", id_of(3)]
    system, prompt, call, tool, answer = steps_of(records, "c1")
    assert system.payload == {"role": "system", "content": "be brief"}
    text, document = prompt.payload["content"]
    assert text["text"] == "is sunny\nWeather in Rome 5?"
    assert document == {"type": "document", "source": {"type": "url", "url": "http://a/b.pdf"}}
    assert call.payload == {
        "model": "gpt-4o-mini-2024", "requested_model": "m", "temperature": 0.1, "tools": ["look"],
    }  # fmt: skip
    assert call.result is not None
    assert (call.result["input_tokens"], call.result["cached_tokens"]) == (12, 4)
    assert (tool.payload["arguments"], tool.result, tool.status) == ({"at": "Rome"}, {"output": "sun"}, "complete")
    assert answer.result is not None
    assert (answer.result["input_tokens"], answer.result["response_id"]) == (19, "r2"), "Anthropic's cache is added"
    session = sessions_of(records)["c1"]
    assert (session.agent, session.output, session.task) == ("llm", "Sunny.", "is sunny weather in rome #?")
    assert session.fingerprint.keys() == {"model", "system_prompt", "tools"}
    assert session.metadata == {"title": "Weather in Rome 5?", "models": ["gpt-4o-mini-2024", "m"]}


def test_threads_of_the_newer_tables(tmp_path: Path) -> None:
    records = [*decode(write(tmp_path / "logs.db", responses=0), None)]
    system, prompt, call, tool, answer = steps_of(records, "t1")
    assert system.payload["role"] == "system"
    text, image = prompt.payload["content"]
    assert (text["text"], image["source"]["media_type"]) == ("Weather?", "image/png")
    assert b64decode(image["source"]["data"]) == PNG
    assert call.result is not None
    assert (call.result["thinking"], call.result["tool_calls"][0]["name"]) == ("hm", "look")
    assert tool.result == {"output": "", "is_error": True, "error": {"type": "KeyError", "message": "no"}}
    assert (tool.status, (answer.result or {})["text"]) == ("failed", "It is sunny")


def test_a_fork_has_only_its_own_messages(tmp_path: Path) -> None:
    records = [*decode(write(tmp_path / "logs.db", responses=0), None)]
    assert [step.type for step in steps_of(records, "t2")] == ["message", "llm"]
    assert sessions_of(records)["t2"].conversation == "t1"


@pytest.mark.parametrize("family", ["responses", "turns"])
def test_a_file_that_grows_gives_the_rows_of_the_whole(tmp_path: Path, family: str) -> None:
    found = []
    for pieces in ([3], [1, 2, 2, 3]):
        with agentspan.open(tmp_path / f"{len(pieces)}.db") as database:
            for count in pieces:
                path = write(tmp_path / "logs.db", **{"responses": 0, "turns": 0, family: count})
                one = Importer(Context(database.storage), {"llm": FORMAT}, now=lambda: 2 * 10**18)
                one.import_source(Source("llm", path))
                assert not one.problems
                assert not one.arrived.unread
            found.append(stored(database))
    assert found[0] == found[1]


def test_only_conversations_with_new_calls_are_read_again(tmp_path: Path) -> None:
    before = position(write(tmp_path / "logs.db", turns=0))
    assert before == id_of(3)
    records = [*decode(write(tmp_path / "logs.db"), before)]
    assert "t1" in sessions_of(records)
    assert "c1" not in sessions_of([*decode(write(tmp_path / "logs.db"), id_of(13))])


def test_a_conversation_that_ended_long_before_the_newest_call_is_over(tmp_path: Path) -> None:
    newest = f"01m8hwn3e4{'0' * 16}"
    path = write(tmp_path / "logs.db", turns=1)
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("update turns set id = ?, datetime_utc = '2026-11-28T20:13:26+00:00'", (newest,))
    sessions = sessions_of([*decode(path, None)])
    assert {id: session.is_over for id, session in sessions.items()} == {"c1": True, id_of(3): True, "t1": False}


def test_a_call_without_a_result_is_cancelled(tmp_path: Path) -> None:
    records = [*decode(write(tmp_path / "logs.db", responses=1, turns=0), None)]
    assert steps_of(records, "c1")[-1].status == "cancelled"


def test_the_file_is_found_by_its_folder_and_its_content(tmp_path: Path) -> None:
    path = write(tmp_path / "logs.db")
    assert [source.path for source in FORMAT.sources(tmp_path)] == [path]
    assert FORMAT.roots({"LLM_USER_PATH": str(tmp_path)}) == [path]
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as base, base:
        base.execute("create table responses (id text)")
    assert [*FORMAT.sources(other)] == []


def test_a_file_in_wal_mode_is_read_and_stays_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "logs.db")
    with closing(sqlite3.connect(path)) as base:
        base.execute("pragma journal_mode = wal")
    assert sessions_of([*decode(path, None)])
    assert [file.name for file in tmp_path.iterdir()] == ["logs.db"]


VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=6) | st.binary(max_size=6)


@given(
    value=VALUES,
    column=st.sampled_from(["id", "model", "prompt", "options_json", "response_json", "duration_ms", "datetime_utc",
                            "input_tokens", "token_details", "conversation_id"]),
    payload=st.sampled_from(['{"text_ref": 5}', "[1]", '{"attachment": 3}', "{", json.dumps({"arguments": [[]]})]),
)  # fmt: skip
def test_values_of_any_type_never_raise(
    tmp_path_factory: pytest.TempPathFactory, value: Any, column: str, payload: str
) -> None:
    path = write(tmp_path_factory.getbasetemp() / "any.db")
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(f"update responses set {column} = ? where id = ?", (value, id_of(2)))
        base.execute("update parts set payload = ?", (payload,))
        base.execute("update messages set parent_hash = 'g' where hash = 'a'")
    for record in decode(path, None):
        assert isinstance(record, Session | Step | Unread)
    position(path)


def test_a_broken_file_is_counted_in_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "logs.db")
    whole = path.read_bytes()
    for cut in (20, 200, 5000, len(whole) // 2):
        path.write_bytes(whole[:cut])
        told = [record for record in decode(path, None) if type(record) is Unread]
        assert len(told) >= 1
        assert {each.what for each in told} <= {
            "a database that cannot be read whole", "a conversation that cannot be read whole",
        }  # fmt: skip
