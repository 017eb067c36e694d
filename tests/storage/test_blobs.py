"""Base64 in payloads is stored as bytes, once in a run of a file, and read as it was."""

import hashlib
import json
import os
import sqlite3
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.analysis.search import search
from agentspan.jsontext import encode
from agentspan.model.changes import Move, Put, PutSpans, Remove, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Damage, Find, Outlines, Query, RemoveRuns, SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.contract.base import Rows, finish
from tests.tiers import examples

ROWS = Rows()
AGENT = ROWS.agent("a")
VERSION, SCHEMA, RUN = ROWS.family(AGENT)
OTHER = RUN._replace(id=ROWS.ids.new())
PNG = b"\x89PNG\r\n\x1a\n" + Random(1).randbytes(3000)
B64 = b64encode(PNG).decode()
HASH = hashlib.sha256(PNG).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def begun(storage: Storage) -> None:
    storage.apply([Unit(tuple(Put(row) for row in (AGENT, VERSION, SCHEMA, RUN, OTHER)))])


def span(payload: Any, result: Any = None, run: AgentInstanceRow = RUN, **values: Any) -> AgentSpanRow:
    texts = [None if each is None else each if isinstance(each, str) else encode(each)[0] for each in (payload, result)]
    return ROWS.span(run, **values)._replace(payload=texts[0] or "{}", result_payload=texts[1])


def sql(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def image(data: str = B64) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def said(number: int, *more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": f"{number}" * 200}, *more]}


def problems(storage: Storage) -> list[str]:
    return storage.ask(Damage())


@pytest.mark.full
def test_an_image_in_a_history_is_stored_once_as_bytes(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    data = b"\x89PNG\r\n\x1a\n" + Random(2).randbytes(3 * 2**20)
    text = b64encode(data).decode()
    history = [said(0, image(text))]
    rows = []
    for step in range(1, 41):
        history.append(said(step))
        rows.append(span({"messages": history}))
        storage.apply([Unit((Put(rows[-1], minted=True),))])
    assert sql(path, "select media_type, length(data), sha256 from blobs") == [
        ("image/png", len(data), hashlib.sha256(data).hexdigest())
    ]
    assert all(found == row for found, row in zip(storage.ask(SpansOf(RUN.id)), rows, strict=True))
    storage.close()
    assert os.path.getsize(path) < len(data) + 300_000


def test_plain_sql_shows_type_size_and_hash_of_a_blob(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    row = span({"arguments": {"image": B64}}, {"messages": [said(1), said(2, image())]})
    storage.apply([Unit((Put(row),))])
    reference = f"$blob:1:image/png:3008:{HASH};"
    ((payload, result),) = sql(path, "select payload, result_payload from spans")
    assert json.loads(payload) == {"arguments": {"image": reference}}
    assert json.loads(result)["messages"][1]["content"][1]["image_url"]["url"] == f"data:image/png;base64,{reference}"
    joined = f"select b.data from spans s join blobs b on b.sha256 = '{HASH}' where instr(s.payload, b.sha256)"
    assert sql(path, joined) == [(PNG,)]
    assert storage.ask(Find(row.id)).rows[row.id][1] == row


def test_every_read_gives_the_payload_as_it_was(path: Path) -> None:
    with agentspan.open(path) as db:
        begun(db.storage)
        results = ({"output": B64}, {"error": B64})
        rows = [
            span({"messages": [said(1), image()]}, result, status=status)
            for result, status in zip(results, ("complete", "failed"), strict=True)
        ]
        db.storage.apply([Unit((PutSpans(rows[:1]), Put(rows[1])))])
        assert list(db.storage.ask(SpansOf(RUN.id))) == rows
        assert db.storage.ask(Query("agent_span")).rows == rows
        assert db.storage.ask(Query("agent_span", {"payload": rows[0].payload})).rows == rows
        of_agent = Query("agent_span", {"agent_id": AGENT.id}, limit=5)
        assert db.storage.ask(of_agent).rows == rows
        assert [row.result_payload for row in db.storage.ask(Outlines(RUN.id))] == [None, rows[1].result_payload]
        guarded = Move("agent_span", rows[0].id, frozenset(), {"summary": "s"}, unchanged={"payload": rows[0].payload})
        assert db.storage.apply([Unit((guarded,))]) != []
        (changed,) = db.storage.ask(Query("agent_span", {"summary": "s"})).rows
        assert changed == rows[0]._replace(summary="s")


FORGED = f"$blob:1:image/png:3008:{HASH};"


@pytest.mark.parametrize("forged", [FORGED, f"$blob={FORGED}", "$blob$blob=", f"data:image/png;base64,{FORGED}"])
def test_a_reference_cannot_be_forged(path: Path, forged: str) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    payloads = [
        {"output": B64},
        {"output": forged},
        {"output": forged, "long": "x y" * 400},
        {"messages": [said(1), {"role": forged}], forged: B64},
        {"messages": [said(1), said(2, image()), {"role": forged}], "n": forged},
    ]
    rows = [span(payload, payload) for payload in payloads]
    storage.apply([Unit((PutSpans(rows),))])
    assert list(storage.ask(SpansOf(RUN.id))) == rows
    assert sql(path, "select count(*) from blobs") == [(1,)]
    assert problems(storage) == []


@pytest.mark.full
@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary(min_size=0, max_size=1000),
            st.sampled_from(["", "\n", "=", "-", " ", "$blob:", "A", "\\"]),
            st.booleans(),
            st.integers(0, 1400),
        ),
        max_size=5,
    )
)
def test_any_bytes_and_what_only_looks_like_base64_are_read_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, said_: list[tuple[bytes, str, bool, int]]
) -> None:
    path = tmp_path_factory.mktemp("blobs") / "runs.db"
    texts = []
    for data, odd, is_for_urls, at in said_:
        text = (urlsafe_b64encode if is_for_urls else b64encode)(Random(3).randbytes(len(data) + 500) + data).decode()
        texts.append(text[:at] + odd + text[at:])
    rows = [span({"messages": texts[:length], "all": texts[0]}, {"output": texts[-1]}) for length in range(len(texts))]
    storages: list[Storage] = [SQLiteStorage(path), MemoryStorage()]
    for storage in storages:
        begun(storage)
        storage.apply([Unit((PutSpans(rows),))] if rows else [])
        assert storage.ask(Query("agent_span")).rows == rows
    assert problems(storages[0]) == []
    for storage in storages:
        storage.close()


@pytest.mark.parametrize("is_finished", [True, False])
def test_search_finds_the_type_of_a_blob_and_no_words_in_its_base64(path: Path, is_finished: bool) -> None:
    storage, memory = SQLiteStorage(path), MemoryStorage()
    row = span({"output": B64}, status="complete" if is_finished else "active")
    word = max(B64.replace("+", "/").split("/")[1:-1], key=len)
    for each in (storage, memory):
        begun(each)
        each.apply([Unit((Put(row),))])
        found = search(each, "image png")
        assert [(hit.span_id, hit.snippet) for hit in found.hits] == [(row.id, '{"output":"[image/png, 3.0 kB]"}')]
        assert search(each, word).total == 0


def test_each_run_has_its_own_and_they_go_with_it(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    rows = [span({"output": B64}, run=run) for run in (RUN, OTHER)]
    storage.apply([Unit((PutSpans(rows),))])
    assert sql(path, "select count(*), count(distinct run) from blobs") == [(2, 2)]
    ended = {"status": "complete", "updated_at": "x"}
    storage.apply([Unit((finish(rows[0].id),)), Unit((Move("agent_instance", RUN.id, frozenset({"active"}), ended),))])
    assert storage.ask(RemoveRuns([RUN.id], 5.0)) == (1, 1)
    assert storage.ask(Query("agent_span")).rows == rows[1:]
    storage.apply([Unit((Remove("agent_span", rows[1].id), Remove("agent_instance", OTHER.id)))])
    assert sql(path, "select (select count(*) from blobs), (select count(*) from content_runs)") == [(0, 0)]


def test_the_end_of_a_span_and_its_updates_have_blobs(path: Path) -> None:
    with agentspan.open(path) as db:
        tracer = agentspan.Tracer(db.storage, durability="commit", raise_errors=True)
        with tracer.run("painter"), tracer.span("llm", {"messages": [image()]}) as written:
            written.update_payload({"sketch": PNG})
            written.set_result({"image": PNG[:-1]})
        tracer.flush()
        (row,) = db.storage.ask(Query("agent_span")).rows
        assert json.loads(row.payload) == {"messages": [image()], "sketch": B64}  # type: ignore[union-attr]
        assert json.loads(row.result_payload or "")["image"] == b64encode(PNG[:-1]).decode()  # type: ignore[union-attr]
        assert sql(path, "select length(data) from blobs") == [(3008,), (3007,)]
        assert problems(db.storage) == []


def test_blobs_that_are_gone_or_changed_are_damage(path: Path) -> None:
    storage = SQLiteStorage(path)
    begun(storage)
    rows = [span({"messages": [said(1), said(2, image())], "more": [PNG[:-2].hex(), B64[:2000]]}, {"output": B64[4:]})]
    storage.apply([Unit((PutSpans(rows),))])
    assert sql(path, "select id & 4294967295, length(data) from blobs") == [(1, 3008), (2, 1500), (3, 3005)]
    connection = sqlite3.connect(path)
    connection.execute("delete from blobs where length(data) = 3008")
    connection.execute("update blobs set data = x'00' where length(data) = 1500")
    connection.commit()
    connection.close()
    assert problems(storage) == ["1 row of blobs cannot be read", "1 reference to blobs that are not there"]
    (row,) = storage.ask(Query("agent_span")).rows
    assert f"base64,{FORGED}" in row.payload  # type: ignore[union-attr]
