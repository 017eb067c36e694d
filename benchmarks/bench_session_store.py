"""Measures ClaudeSessionStore: an append of 1, 10 and 100 entries beside bare SQLite, and loading 10,000 entries.

    python benchmarks/bench_session_store.py [FOLDER]

The bare form is the least that a store over SQLite does: one table, one INSERT for each entry, one durable commit.
"""

import asyncio
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentspan.sessions import ClaudeSessionStore

KEY = {"project_key": "-home-ada-garden", "session_id": "11111111-2222-4333-8444-555555555555"}
ENTRY_BYTES = 2000


def entries(first: int, count: int) -> list[dict[str, Any]]:
    """Return entries of about 2 kB, the mean of real sessions."""
    text = "water " * ((ENTRY_BYTES - 400) // 6)
    return [
        {
            "parentUuid": f"00000000-0000-4000-8000-{number - 1:012d}",
            "isSidechain": False,
            "cwd": "/home/ada/garden",
            "sessionId": KEY["session_id"],
            "version": "2.1.0",
            "type": "user",
            "message": {"role": "user", "content": text},
            "uuid": f"00000000-0000-4000-8000-{number:012d}",
            "timestamp": "2026-03-01T10:00:00.000Z",
        }
        for number in range(first, first + count)
    ]


class Bare:
    """A store in a few lines over sqlite3: as durable as ours, with the same key of idempotency."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        for statement in (
            "pragma journal_mode = wal",
            "pragma synchronous = normal",
            "create table entries (id integer primary key, project text, session text, uuid text, entry text)",
            "create unique index by_uuid on entries (project, session, uuid)",
        ):
            self._connection.execute(statement)

    def append(self, some: list[dict[str, Any]]) -> None:
        """Append entries."""
        rows = [(KEY["project_key"], KEY["session_id"], each["uuid"], json.dumps(each)) for each in some]
        self._connection.execute("begin immediate")
        self._connection.executemany(
            "insert or ignore into entries (project, session, uuid, entry) values (?, ?, ?, ?)", rows
        )
        self._connection.execute("commit")

    def load(self) -> list[Any]:
        """Return all entries."""
        found = self._connection.execute(
            "select entry from entries where session = ? order by id", (KEY["session_id"],)
        )
        return [json.loads(entry) for (entry,) in found]


def median_ms(append: Callable[[list[dict[str, Any]]], None], size: int, times: int, first: int) -> float:
    """Return the median milliseconds of an append of `size` entries."""
    taken = []
    for number in range(times):
        some = entries(first + number * size, size)
        start = time.perf_counter()
        append(some)
        taken.append((time.perf_counter() - start) * 1000)
    return statistics.median(taken)


def compared(folder: Path, size: int, times: int) -> tuple[float, float, float]:
    """Return the milliseconds of an append: bare, ours without steps, ours while steps are derived."""
    bare = Bare(folder / f"bare{size}.db")
    with (
        ClaudeSessionStore(folder / f"kept{size}.db", record=False) as kept,
        ClaudeSessionStore(folder / f"ours{size}.db") as ours,
    ):
        loop = asyncio.new_event_loop()

        def by(store: ClaudeSessionStore) -> Callable[[list[dict[str, Any]]], None]:
            return lambda some: loop.run_until_complete(store.append(KEY, some))

        for append in (bare.append, by(kept), by(ours)):
            append(entries(10**9, 1))
        found = (
            median_ms(bare.append, size, times, 1),
            median_ms(by(kept), size, times, 1),
            median_ms(by(ours), size, times, 1),
        )
        loop.close()
    return found


def loading(folder: Path, count: int) -> tuple[float, float]:
    """Return the milliseconds of loading `count` entries: bare, ours."""
    bare, found = Bare(folder / "bare_load.db"), [0.0, 0.0]
    with ClaudeSessionStore(folder / "ours_load.db", record=False) as store:
        for first in range(0, count, 500):
            bare.append(entries(first, 500))
            asyncio.run(store.append(KEY, entries(first, 500)))
        loads: tuple[Callable[[], list[Any]], ...] = (bare.load, lambda: asyncio.run(store.load(KEY)) or [])
        for place, load in enumerate(loads):
            start = time.perf_counter()
            assert len(load()) == count
            found[place] = (time.perf_counter() - start) * 1000
    return found[0], found[1]


def main() -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        for size, times in ((1, 300), (10, 200), (100, 60)):
            bare, kept, ours = compared(Path(folder), size, times)
            print(
                f"append of {size:3}: bare {bare:6.2f} ms, entries only {kept:6.2f} ms ({kept / bare:.1f} x), "
                f"with steps {ours:6.2f} ms ({ours / bare:.1f} x)"
            )
        bare, ours = loading(Path(folder), 10_000)
        print(f"load of 10,000: bare {bare:.0f} ms, ours {ours:.0f} ms ({ours / bare:.1f} x)")


if __name__ == "__main__":
    main()
