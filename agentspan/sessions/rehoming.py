"""Finds runs of sessions whose files came too early, so that they can be stored again in their place.

A sub-agent that arrives before the session that started it gets a run of its own, and a fork that arrives before its
original has the steps that it copied. When the awaited session arrives, the run is removed and its files are read
again. A run with scores, an open run, and a run of which a file is gone stay as they are.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from agentspan.arriving import Session, about_of, state_of
from agentspan.ground import (
    OPEN,
    AgentInstanceRow,
    Context,
    Move,
    Query,
    RemoveRuns,
    SessionFileRow,
    Unit,
    clock,
    scan,
    unique,
)
from agentspan.sessions.formats import Format, Source
from agentspan.sessions.reading import PACKED


class Moving(NamedTuple):
    """A run that was removed: the notes about its files, which say that nothing was read, and its sources."""

    notes: Sequence[SessionFileRow]
    sources: Sequence[Source]


def awaited(ctx: Context, format: str, session: Session, *, is_own_run: bool) -> str | None:
    """Return the noted id of the session that should have come before this one; None for most sessions."""
    if session.parent is not None:
        return about_of(ctx, session.parent[0]) if is_own_run else None
    original = about_of(ctx, session.conversation)
    if session.first is None or original in (None, about_of(ctx, session.id)) or has_come(ctx, format, original):
        return None
    return original


def has_come(ctx: Context, format: str, session: str | None) -> bool:
    """Return whether the run of a session is stored, by its noted id."""
    notes = ctx.storage.ask(Query("session_file", {"format": format, "session": session})).rows
    runs = {note.agent_instance_id for note in notes if isinstance(note, SessionFileRow)}
    return any(run is not None and unique(ctx.storage, AgentInstanceRow, id=run) is not None for run in runs)


def removed(ctx: Context, format: Format, run_id: str, session: str) -> Moving | None:
    """Remove a run of which all files can be read again; return None if it stays.

    The notes are reset first: a program that dies in between leaves files that the next import reads.

    Args:
        session: the noted id of the session that it awaited.
    """
    run = unique(ctx.storage, AgentInstanceRow, id=run_id)
    if run is None or run.status in OPEN or RemoveRuns not in ctx.storage.capabilities().answers:
        return None
    if not has_come(ctx, format.name, session):
        return None
    if ctx.storage.ask(Query("score", {"agent_instance_id": run_id}, limit=1)).rows:
        return None
    rows = [row for row in scan(ctx.storage, SessionFileRow) if row.agent_instance_id == run_id]
    sources = _sources_of(format, rows)
    if sources is None:
        return None
    values: dict[str, Any] = {"agent_instance_id": None, "size": 0, "changed_ns": 0, "read_to": 0, "head": ""}
    values["updated_at"] = clock.now()
    moves = [Unit((Move("session_file", row.id, frozenset(), values),)) for row in rows]
    ctx.storage.apply(moves, wait_s=ctx.wait_s)
    ctx.storage.ask(RemoveRuns([run_id], ctx.wait_s))
    return Moving([row._replace(**cast(Any, values)) for row in rows], sources)


def _sources_of(format: Format, rows: Iterable[SessionFileRow]) -> list[Source] | None:
    """Return the sources of noted files; None if one of them is gone."""
    found: dict[Path, Source] = {}
    for row in rows:
        paths = (Path(f"{row.path}{ending}") for ending in ("", *PACKED))
        path = next((path for path in paths if path.is_file()), None)
        if path is None or row.format != format.name:
            return None
        if not any(path in source.files for source in found.values()):
            found.update((source.path, source) for source in format.sources(path))
        if not any(path in source.files for source in found.values()):
            return None
    return [*found.values()]


def awaiting(notes: Iterable[SessionFileRow]) -> dict[tuple[str, str], set[str]]:
    """Return the runs that await a session, by its format and id."""
    found: dict[tuple[str, str], set[str]] = {}
    for note in notes:
        awaited_id = state_of(note).get("awaits")
        if awaited_id is not None and note.agent_instance_id is not None:
            found.setdefault((note.format, awaited_id), set()).add(note.agent_instance_id)
    return found
