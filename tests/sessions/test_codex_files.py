"""Rollouts are found where Codex writes them, and come into a storage as runs, in any order and form of their files."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import agentspan
from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.sessions.codex import FORMATS, id_of
from agentspan.sessions.importing import Importer
from agentspan.storage.access import scan
from agentspan.storage.questions import SpansOf
from tests.sessions.codex_rollouts import (
    CHILD,
    GRANDCHILD,
    THREAD,
    call,
    context,
    done,
    event,
    header,
    output,
    prompt,
    said,
    tokens,
    turn,
    usage,
)

CODEX = FORMATS[0]


def spawn_of(child: str, seconds: float) -> list[Any]:
    """Return the records of a call that spawned a thread."""
    end = event(seconds, "collab_agent_spawn_end", call_id=f"s{child}", new_thread_id=child)
    return [call(seconds, f"s{child}", "spawn_agent"), end, output(seconds, f"s{child}", "{}")]


def thread(id: str, seconds: float, *, parent: str | None = None, child: str | None = None) -> list[Any]:
    """Return the rollout of a thread that has two answers."""
    spawn = {"subagent": {"thread_spawn": {"parent_thread_id": parent, "depth": 1}}}
    about = {} if parent is None else {"source": spawn}
    begin = [header(id, seconds, **about), turn(seconds), context(seconds), *prompt(seconds, f"task of {id[14:18]}")]
    spawned = [] if child is None else spawn_of(child, seconds)
    first = [*said(seconds, "I look."), *spawned, tokens(seconds, usage(100, 10))]
    last = [*said(seconds + 1, "Done."), tokens(seconds + 1, usage(200, 20), usage(300, 30)), done(seconds + 1)]
    return [*begin, *first, *last]


FAMILY = {
    THREAD: thread(THREAD, 1, child=CHILD),
    CHILD: thread(CHILD, 3, parent=THREAD, child=GRANDCHILD),
    GRANDCHILD: thread(GRANDCHILD, 5, parent=CHILD),
}


def write(folder: Path, id: str, records: list[Any], ending: str = "", hour: str = "03") -> Path:
    """Write a rollout, and return its path. It was changed long ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"rollout-2026-01-02T{hour}-00-00-{id}.jsonl{ending}"
    text = "".join(f"{json.dumps(each)}\n" for each in records).encode()
    if ending == ".zst":
        import zstandard

        text = zstandard.compress(text)
    path.write_bytes(gzip.compress(text) if ending == ".gz" else text)
    os.utime(path, ns=(10**18, 10**18 + len(records)))
    return path


def import_source(database: Database, *folders: Path) -> Importer:
    """Bring the rollouts of folders into a database."""
    importer = Importer(Context(database.storage), {"codex": CODEX}, now=lambda: 2 * 10**18)
    for folder in folders:
        for source in CODEX.sources(folder):
            importer.import_source(source)
    assert not importer.problems
    return importer


def runs_of(database: Database) -> list[tuple[AgentInstanceRow, list[AgentSpanRow]]]:
    """Return the runs of a database with their spans."""
    runs = list(scan(database.storage, AgentInstanceRow))
    return [(run, list(database.storage.ask(SpansOf(run.id)))) for run in runs]


def test_roots_are_below_the_folder_of_codex() -> None:
    names = ["sessions", "archived_sessions"]
    assert CODEX.roots({"CODEX_HOME": "/c"}) == [Path("/c", name) for name in names]
    assert CODEX.roots({"HOME": "/home/ann"}) == [Path("/home/ann/.codex", name) for name in names]


def test_rollouts_lie_by_day_flat_and_archived_and_each_counts_once(tmp_path: Path) -> None:
    plain = write(tmp_path / "sessions" / "2026" / "01" / "02", THREAD, [header()])
    write(tmp_path / "sessions" / "2026" / "01" / "02", THREAD, [header()], ".zst")
    packed = write(tmp_path / "sessions", CHILD, [header(CHILD)], ".gz")
    archived = write(tmp_path / "archived_sessions", GRANDCHILD, [header(GRANDCHILD)])
    (tmp_path / "sessions" / "notes.jsonl").write_text("{}")
    (tmp_path / "history.jsonl").write_text("{}")
    found = list(CODEX.sources(tmp_path))
    assert [source.path for source in found] == [plain, packed, archived]
    assert [source.project for source in found] == ["/home/ann/shop"] * 3


def test_a_packed_rollout_that_is_broken_hides_no_other(tmp_path: Path) -> None:
    whole, broken = (write(tmp_path, id, [header(id)], ".gz") for id in (THREAD, CHILD))
    packed = broken.read_bytes()
    broken.write_bytes(packed[:12] + b"\xff" * 20 + packed[32:])
    assert [(source.path, source.project) for source in CODEX.sources(tmp_path)] == [
        (whole, "/home/ann/shop"), (broken, None)
    ]  # fmt: skip


def test_a_thread_stands_before_those_it_started_though_names_have_local_times(tmp_path: Path) -> None:
    child = write(tmp_path, CHILD, [header(CHILD)], hour="02")
    parent = write(tmp_path, THREAD, [header()], hour="03")
    assert [source.path for source in CODEX.sources(tmp_path)] == [parent, child]


def test_a_single_file_is_known_by_its_content(tmp_path: Path) -> None:
    first = [{"id": "x", "timestamp": "2025-01-02T03:04:05.000Z", "instructions": None}]
    cases: list[tuple[str, list[Any], int]] = [
        ("a", [header()], 1), ("b", first, 1), ("c", [{"type": "user"}], 0), ("d", [1], 0),
    ]  # fmt: skip
    for name, records, is_one in cases:
        path = tmp_path / f"{name}.txt"
        path.write_text("".join(f"{json.dumps(each)}\n" for each in records))
        assert len(list(CODEX.sources(path))) == is_one
    (tmp_path / "e.txt").write_bytes(b"\xff{")
    assert list(CODEX.sources(tmp_path / "e.txt")) == []
    assert list(CODEX.sources(tmp_path / "nowhere")) == []


def test_the_id_is_in_the_name() -> None:
    assert id_of(Path(f"rollout-2026-01-02T03-00-00-{THREAD}.jsonl.zst")) == THREAD
    assert id_of(Path("mine.jsonl")) == "mine"


def test_sub_agents_are_below_the_call_that_spawned_them_with_their_tokens(tmp_path: Path) -> None:
    for id, records in FAMILY.items():
        write(tmp_path / "rollouts", id, records)
    with agentspan.open(tmp_path / "a.db") as database:
        import_source(database, tmp_path / "rollouts")
        ((run, spans),) = runs_of(database)
    by_id = {span.id: span for span in spans}
    agents = [span for span in spans if span.schema_name == "agent"]
    assert (run.external_identifier, run.status) == (f"codex:{THREAD}", "complete")
    assert [span.input_tokens for span in sorted(agents, key=lambda span: span.started_at or "")] == [600, 300]
    above = [by_id[span.parent_span_id or ""] for span in agents]
    assert [(span.schema_name, span.label) for span in above] == [("tool", "spawn_agent")] * 2
    assert sum(span.input_tokens or 0 for span in spans if not span.is_aggregate) == 900


def test_a_sub_agent_without_its_parent_is_a_run_of_its_own(tmp_path: Path) -> None:
    write(tmp_path / "rollouts", CHILD, FAMILY[CHILD])
    with agentspan.open(tmp_path / "a.db") as database:
        import_source(database, tmp_path / "rollouts")
        assert [run.external_identifier for run, _ in runs_of(database)] == [f"codex:{CHILD}"]


def test_a_file_that_was_archived_or_compressed_since_adds_nothing(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        path = write(tmp_path / "sessions", THREAD, FAMILY[THREAD][:8])
        import_source(database, tmp_path)
        path.unlink()
        path = write(tmp_path / "sessions", THREAD, FAMILY[THREAD], ".zst")
        assert not import_source(database, tmp_path).arrived.runs
        path.unlink()
        write(tmp_path / "archived_sessions", THREAD, FAMILY[THREAD])
        again = import_source(database, tmp_path)
        assert (again.read, again.arrived.spans, again.arrived.changed) == (1, 0, 0)
        assert len(runs_of(database)) == 1


def test_a_broken_compressed_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "rollouts", THREAD, FAMILY[THREAD], ".zst")
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes(40) + data[80:])
    with agentspan.open(tmp_path / "a.db") as database:
        importer = Importer(Context(database.storage), {"codex": CODEX}, now=lambda: 2 * 10**18)
        for source in CODEX.sources(tmp_path / "rollouts"):
            importer.import_source(source)
        assert [problem.startswith(str(path)) for problem in importer.problems] == [True]


def test_a_sub_agent_that_is_read_before_the_call_that_spawned_it_has_its_place(tmp_path: Path) -> None:
    found = []
    for name, first in [("a", 4), ("b", len(FAMILY[THREAD]))]:
        with agentspan.open(tmp_path / f"{name}.db") as database:
            write(tmp_path / name, THREAD, FAMILY[THREAD][:first])
            write(tmp_path / name, CHILD, FAMILY[CHILD])
            import_source(database, tmp_path / name)
            write(tmp_path / name, THREAD, FAMILY[THREAD])
            import_source(database, tmp_path / name)
            found.append(
                [
                    [(span.id[16:], span.schema_name, span.input_tokens) for span in spans]
                    for _, spans in runs_of(database)
                ]
            )
    assert found[0] == found[1]
    assert len(found[0]) == 1


def test_a_sub_agent_that_was_read_before_its_parent_is_moved_below_it(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        write(tmp_path / "a", CHILD, FAMILY[CHILD][:8])
        import_source(database, tmp_path / "a")
        write(tmp_path / "a", THREAD, FAMILY[THREAD])
        write(tmp_path / "a", CHILD, FAMILY[CHILD])
        import_source(database, tmp_path / "a")
        runs = {run.external_identifier: spans for run, spans in runs_of(database)}
        assert runs.keys() == {f"codex:{THREAD}"}
        assert [span.input_tokens for span in runs[f"codex:{THREAD}"] if span.schema_name == "agent"] == [300]
