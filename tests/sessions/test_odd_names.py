"""Ids, paths and kinds of records may be any text, also such as no storage keeps, and may hold credentials."""

import os
from pathlib import Path

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrival
from agentspan.arriving.records import Unread
from agentspan.model.rows import AgentInstanceRow, ScoreRow, SessionFileRow
from agentspan.recording.capture.plain import SentRedaction
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from tests.sessions import codex_rollouts as rollouts
from tests.sessions.arrivals import arrive, session
from tests.sessions.installed import text_of, turns
from tests.sessions.threads import FORMATS, put, thread
from tests.sessions.toy import TOY

KEY = "ghp_" + "a1B2c3" * 6


@pytest.mark.parametrize("id", ["\ud800", "a\0b", "x" * 10_000, "a\nb", "../../etc"])
def test_a_session_may_have_any_id(storage: Storage, tmp_path: Path, id: str) -> None:
    name = f"rollout-2026-01-02T03-00-00-{rollouts.THREAD}.jsonl"
    put(tmp_path, name, thread(id, 0))
    importer = Importer(Context(storage), FORMATS, now=lambda: 2 * 10**18)
    importer.import_source(Source("codex", tmp_path / name))
    assert len([*scan(storage, AgentInstanceRow)]) == 1
    assert not importer.is_new(Source("codex", tmp_path / name))


def test_a_file_may_have_a_name_that_is_no_text(storage: Storage, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.toy"))
    path.write_text(text_of(turns(2)))
    for read in (1, 0):
        importer = Importer(Context(storage), {"toy": TOY}, now=lambda: 2 * 10**18)
        importer.import_source(Source("toy", path))
        assert importer.read == read
    assert len([*scan(storage, AgentInstanceRow)]) == 1


def test_a_kind_of_record_is_one_short_line(storage: Storage) -> None:
    arrived = arrive(storage, session(), Unread("s", "record of type a\nb\x1b[31m" + "x" * 1000))
    (what,) = arrived.unread
    assert what.startswith("record of type a b")
    assert len(what) <= 200
    assert what.isprintable()


def test_a_credential_in_an_id_is_not_stored(tmp_path: Path) -> None:
    name = f"rollout-2026-01-02T03-00-00-{rollouts.THREAD}.jsonl"
    put(tmp_path, name, thread(KEY, 0, cwd=f"/src/{KEY}"))
    with agentspan.open(tmp_path / "a.db") as database:
        importer = Importer(Context(database.storage, redacts=SentRedaction()), FORMATS, now=lambda: 2 * 10**18)
        importer.import_source(Source("codex", tmp_path / name))
        assert len([*scan(database.storage, SessionFileRow)]) == 1
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.glob("a.db*"))


def test_a_credential_in_a_score_is_not_stored(tmp_path: Path) -> None:
    score = {"name": f"match {KEY}", "value": 1.0, "label": f"C {KEY}", "explanation": f"Because of {KEY}."}
    with agentspan.open(tmp_path / "a.db") as database:
        arrival = Arrival(Context(database.storage, redacts=SentRedaction()))
        arrival.take("toy", [session(scores=(score,))])
        arrival.finish(live=False)
        (row,) = scan(database.storage, ScoreRow)
        assert row.explanation is not None
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.glob("a.db*"))
