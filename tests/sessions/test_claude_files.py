"""Where Claude Code's sessions lie, and which files belong to one session."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.model.rows import AgentInstanceRow
from agentspan.sessions.claude import FORMATS, keeps_days, roots, sources
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.storage.access import scan
from tests.sessions.claude_files import CONVERSATION, OTHER, SESSION, Decoded, assistant, text, user

SIDE = {"isSidechain": True, "agentId": "a7"}
AGENT = [user("s1", None, 2, "Find it.", **SIDE), assistant("s2", "s1", 3, text("Here."), id="msg_s", **SIDE)]


def write(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(f"{json.dumps(each)}\n" for each in records).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_roots_are_those_of_the_environment() -> None:
    assert roots({"HOME": "/h"}) == [Path("/h/.claude/projects"), Path("/h/.config/claude/projects")]
    assert roots({"CLAUDE_CONFIG_DIR": "/a, /b"}) == [Path("/a/projects"), Path("/b/projects")]


@pytest.mark.parametrize(
    ("settings", "days"),
    [(None, 30), ('{"cleanupPeriodDays": 99}', 99), ("{", 30), ("[]", 30), ('{"cleanupPeriodDays": "x"}', 30)],
)
def test_sessions_are_kept_as_long_as_the_settings_say(settings: str | None, days: int, tmp_path: Path) -> None:
    if settings is not None:
        (tmp_path / "settings.json").write_text(settings)
    assert keeps_days({"CLAUDE_CONFIG_DIR": str(tmp_path)}) == days
    assert FORMATS[0].keeps_days is keeps_days


def test_a_session_has_its_sidecars_as_parts(tmp_path: Path) -> None:
    project = tmp_path / "-src-shop"
    main = write(project / f"{SESSION}.jsonl", CONVERSATION)
    beside = project / SESSION
    parts = [
        write(beside / "subagents" / "agent-a7.jsonl", AGENT),
        write(beside / "subagents" / "agent-a7.meta.json", [{"toolUseId": "t1"}]),
        write(beside / "subagents" / "workflows" / "w1" / "agent-a8.jsonl", AGENT),
        write(beside / "subagents" / "workflows" / "w1" / "journal.jsonl", [{"type": "started", "agentId": "a8"}]),
        write(beside / "workflows" / "w1.json", [{"runId": "w1"}]),
    ]
    write(beside / "tool-results" / "x.txt", ["no session"])
    whole = Source("claude", main, tuple(parts), "/src/shop")
    assert [*sources(tmp_path)] == [whole]
    for path in (main, *parts[:4]):
        assert [*sources(path)] == [whole], path


def test_old_sidecars_lie_beside_their_session_or_are_orphans(tmp_path: Path) -> None:
    main = write(tmp_path / f"{SESSION}.jsonl", CONVERSATION)
    own = write(tmp_path / "agent-a7.jsonl", AGENT)
    orphan = write(tmp_path / "agent-b1.jsonl", [{**each, "sessionId": OTHER} for each in AGENT])
    found = {source.path: source for source in sources(tmp_path)}
    assert found.keys() == {main, orphan}
    assert found[main].parts == (own,)
    assert [*sources(own)] == [found[main]]
    assert [*sources(orphan)] == [found[orphan]]
    assert FORMATS[0].lines is not None
    decoder = FORMATS[0].lines(found[orphan])
    lines = [
        *decoder.feed(orphan, orphan.read_bytes().splitlines()[0]),
        *decoder.feed(orphan, orphan.read_bytes().splitlines()[1]),
    ]
    decoded = Decoded([*lines, *decoder.rest()])
    assert (decoded.known.id, decoded.known.task, decoded.known.outcome) == (OTHER, "find it.", "answered")
    assert decoded.one("llm").parent == "agent:a7" or decoded.one("llm").parent == "agent:b1"


def test_orphans_of_the_new_layout_are_sessions_of_their_own(tmp_path: Path) -> None:
    orphan = write(tmp_path / SESSION / "subagents" / "agent-a7.jsonl", AGENT)
    meta = write(tmp_path / SESSION / "subagents" / "agent-a7.meta.json", [{"name": "scout"}])
    assert [*sources(tmp_path)] == [Source("claude", orphan, (meta,), "/src/shop")]


def test_a_compressed_session_is_found_and_a_plain_one_comes_first(tmp_path: Path) -> None:
    packed = write(tmp_path / f"{SESSION}.jsonl.gz", CONVERSATION)
    assert [source.path for source in sources(tmp_path)] == [packed]
    assert [source.path for source in sources(packed)] == [packed]
    plain = write(tmp_path / f"{SESSION}.jsonl", CONVERSATION)
    assert [source.path for source in sources(tmp_path)] == [plain]


@pytest.mark.parametrize(
    "lines",
    [
        [{"timestamp": "2026-03-01T10:00:00.000Z", "type": "session_meta", "payload": {"id": "x"}}],
        [{"uuid": "u", "parentUuid": None, "sessionId": "s", "type": "user", "message": {"role": "user", "parts": []}}],
        [{"sessionId": "s", "projectHash": "h", "startTime": "x"}],
        [{"text": 'a text about "isSidechain": true'}],
        [],
    ],
)
def test_files_of_others_are_no_sessions(lines: list[Any], tmp_path: Path) -> None:
    path = write(tmp_path / f"{SESSION}.jsonl", lines)
    assert [*sources(tmp_path)] == [*sources(path)] == []


def test_a_path_that_is_nothing_has_no_sessions(tmp_path: Path) -> None:
    assert [*sources(tmp_path / "none.jsonl")] == [*sources(tmp_path / "none")] == []
    (tmp_path / "broken.jsonl.gz").write_bytes(b"no gzip")
    packed = gzip.compress(b'{"sessionId":"x"}' * 2000)
    (tmp_path / "inside.jsonl.gz").write_bytes(packed[:12] + b"\xff" * 20 + packed[32:])
    assert [*sources(tmp_path)] == []


def test_any_name_will_do_for_a_session_that_somebody_moved(tmp_path: Path) -> None:
    path = write(tmp_path / "saved.jsonl", CONVERSATION)
    (source,) = sources(path)
    assert FORMATS[0].lines is not None
    decoder = FORMATS[0].lines(source)
    for line in path.read_bytes().splitlines():
        decoder.feed(path, line)
    assert Decoded(decoder.rest()).known.id == SESSION


def test_a_fork_adds_only_what_is_new(tmp_path: Path) -> None:
    main = write(tmp_path / f"{SESSION}.jsonl", CONVERSATION)
    copied = [{**each, "sessionId": OTHER, "forkedFrom": {"sessionId": SESSION}} for each in CONVERSATION]
    fork = write(tmp_path / f"{OTHER}.jsonl", [*copied, user("u9", "a3", 60, "And now?")])
    with agentspan.open(tmp_path / "a.db") as database:
        importer = Importer(Context(database.storage), {"claude": FORMATS[0]}, now=lambda: 2 * 10**18)
        for path in (main, fork):
            importer.import_source(Source("claude", path))
        assert (importer.arrived.spans, importer.arrived.inherited) == (5, 4)
        assert {run.session for run in scan(database.storage, AgentInstanceRow)} == {SESSION}
