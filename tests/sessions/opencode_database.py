"""Makes databases in the form of OpenCode's, with invented content."""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

START = 1_700_000_000_000
SCHEMA = """
CREATE TABLE project (id TEXT PRIMARY KEY, worktree TEXT);
CREATE TABLE session (id TEXT PRIMARY KEY, project_id TEXT, parent_id TEXT, directory TEXT, title TEXT, version TEXT,
    agent TEXT, permission TEXT, revert TEXT, time_created INTEGER, time_updated INTEGER, time_archived INTEGER);
CREATE TABLE message (id TEXT PRIMARY KEY, session_id TEXT, time_created INTEGER, time_updated INTEGER, data TEXT);
CREATE TABLE part (id TEXT PRIMARY KEY, message_id TEXT, session_id TEXT, time_created INTEGER, time_updated INTEGER,
    data TEXT);
CREATE TABLE credential (id TEXT PRIMARY KEY, value TEXT);
CREATE INDEX message_by_session ON message (session_id, time_created, id);
CREATE INDEX part_by_message ON part (message_id, id);
CREATE INDEX part_by_session ON part (session_id);
INSERT INTO project VALUES ('pro', '/work/boat');
INSERT INTO credential VALUES ('c', 'secret');
"""

Row = tuple[str, tuple[Any, ...]]
"""A statement and its values."""


def create(path: Path, *, wal: bool = False, schema: str = SCHEMA) -> sqlite3.Connection:
    """Create an empty database, and return its connection."""
    connection = sqlite3.connect(path)
    if wal:
        connection.execute("PRAGMA journal_mode = wal")
    connection.executescript(schema)
    return connection


def write(path: Path, rows: Iterable[Row], *, wal: bool = False) -> Path:
    """Write rows into a new database, and close it."""
    with closing(create(path, wal=wal)) as connection:
        for statement, values in rows:
            connection.execute(statement, values)
        connection.commit()
    return path


def session(id: str, at: int, *, parent: str | None = None, updated: int | None = None, **fields: Any) -> Row:
    """Return a row of a session that starts at a second."""
    found = {"title": f"Title of {id}", "version": "1.2.3", "agent": "build", "directory": "/work/boat"} | fields
    names = ["id", "project_id", "parent_id", "time_created", "time_updated", *found]
    values = (id, "pro", parent, ms(at), ms(at if updated is None else updated), *found.values())
    return f"INSERT INTO session ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", values


def message(id: str, session: str, at: int, data: Any, *, written: int | None = None) -> Row:
    """Return a row of a message of a second."""
    text = data if isinstance(data, str) else json.dumps(data)
    when = ms(at if written is None else written)
    return "INSERT OR REPLACE INTO message VALUES (?, ?, ?, ?, ?)", (id, session, ms(at), when, text)


def part(id: str, message: str, session: str, at: float, data: Any) -> Row:
    """Return a row of a part of a second."""
    text = data if isinstance(data, str) else json.dumps(data)
    return "INSERT OR REPLACE INTO part VALUES (?, ?, ?, ?, ?, ?)", (id, message, session, ms(at), ms(at), text)


def ms(second: float) -> int:
    """Return the milliseconds since the epoch of a second of the fixtures."""
    return START + int(second * 1000)


def user(at: int) -> dict[str, Any]:
    """Return the data of a prompt."""
    return {"role": "user", "time": {"created": ms(at)}, "agent": "build"}


def tokens(input: int, output: int, reasoning: int = 0, read: int = 0, write: int = 0) -> dict[str, Any]:
    """Return tokens as a message has them."""
    return {"input": input, "output": output, "reasoning": reasoning, "cache": {"read": read, "write": write}}


def answer(at: int, done: int | None, parent: str = "m1", **more: Any) -> dict[str, Any]:
    """Return the data of an answer."""
    time = {"created": ms(at)} | ({} if done is None else {"completed": ms(done)})
    about = {"role": "assistant", "parentID": parent, "modelID": "gpt-4o", "providerID": "openai", "mode": "build"}
    return {**about, "time": time, "cost": 0, "tokens": tokens(0, 0), **more}


def text(what: str, start: float, end: float, kind: str = "text") -> dict[str, Any]:
    """Return the data of a text or of a reasoning."""
    return {"type": kind, "text": what, "time": {"start": ms(start), "end": ms(end)}}


def tool(name: str, start: float, end: float | None, **state: Any) -> dict[str, Any]:
    """Return the data of a tool call."""
    time = {"start": ms(start)} | ({} if end is None else {"end": ms(end)})
    status = "running" if end is None else "completed"
    told = {"status": status, "input": {"of": name}, "output": f"output of {name}", "time": time} | state
    return {"type": "tool", "tool": name, "callID": f"call_{name}_{start}", "state": told}


FINISH = {"type": "step-finish", "reason": "tool-calls", "tokens": tokens(10, 5, 2, 3, 4), "cost": 0.25}
STOP = {"type": "step-finish", "reason": "stop", "tokens": tokens(20, 6), "cost": 0.5}


def turn(session: str = "s1", at: int = 0, name: str = "m") -> list[Row]:
    """Return the rows of a prompt and an answer of two model calls with a tool, in the order they are written."""
    asked, answered = f"{name}1", f"{name}2"
    return [
        message(asked, session, at + 1, user(at + 1)),
        part(f"{name}p1", asked, session, at + 1, {"type": "text", "text": "Caulk the hull of boat 12"}),
        message(answered, session, at + 2, answer(at + 2, None, asked)),
        part(f"{name}p2", answered, session, at + 3, {"type": "step-start", "snapshot": "abc"}),
        part(f"{name}p3", answered, session, at + 3, text("Which seam?", at + 3, at + 4, "reasoning")),
        part(f"{name}p4", answered, session, at + 5, tool("look", at + 5, None)),
        part(f"{name}p4", answered, session, at + 5, tool("look", at + 5, at + 7, metadata={"exit": 2})),
        part(f"{name}p5", answered, session, at + 8, FINISH),
        part(f"{name}p6", answered, session, at + 9, {"type": "step-start"}),
        part(f"{name}p7", answered, session, at + 10, text("The hull is tight.", at + 10, at + 11)),
        part(f"{name}p8", answered, session, at + 12, STOP),
        message(answered, session, at + 2, answer(at + 2, at + 12, asked, finish="stop"), written=at + 12),
    ]
