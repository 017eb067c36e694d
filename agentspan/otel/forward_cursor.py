"""A file beside a database that notes what was forwarded to each target, so that forwarding goes on where it ended."""

import hashlib
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from agentspan import files

_TABLE = """
create table if not exists sent (
    target text not null, run text not null, spans blob not null, has_run integer not null, primary key (target, run)
) without rowid
"""
_SCORES = """
create table if not exists sent_scores (
    target text not null, run text not null, scores blob not null, primary key (target, run)
) without rowid
"""
_SIZE = 10
"""Bytes that are kept of a span or score: a hash of its id."""


class SentOfRun(NamedTuple):
    """The forwarded part of a run: hashes of the ids of its spans, and whether the span of the run itself."""

    spans: frozenset[bytes] = frozenset()
    has_run: bool = False


def hashed(id: str) -> bytes:
    """Return what is kept of the id of a span or score."""
    return hashlib.sha256(id.encode()).digest()[:_SIZE]


class Cursor:
    """The forwarded parts of runs, for one target.

    Args:
        path: the file. It is made if there is none.
        target: the target's address.
    """

    def __init__(self, path: Path, target: str) -> None:
        self._path, self._target = path, target
        files.ensure(path)
        with closing(self._open()) as connection:
            connection.execute(_TABLE)
            connection.execute(_SCORES)

    def counts(self) -> dict[str, tuple[int, bool]]:
        """Return how many spans were forwarded of each run, and whether the run itself."""
        sql = "select run, length(spans), has_run from sent where target = ?"
        with closing(self._open()) as connection:
            rows = connection.execute(sql, (self._target,)).fetchall()
        return {run: (size // _SIZE, bool(has_run)) for run, size, has_run in rows}

    def of(self, run: str) -> SentOfRun:
        """Return what was forwarded of a run."""
        sql = "select spans, has_run from sent where target = ? and run = ?"
        with closing(self._open()) as connection:
            row = connection.execute(sql, (self._target, run)).fetchone()
        return SentOfRun() if row is None else SentOfRun(_hashes(row[0]), bool(row[1]))

    def scores(self) -> dict[str, set[bytes]]:
        """Return hashes of the ids of the scores that were forwarded, by run."""
        sql = "select run, scores from sent_scores where target = ?"
        with closing(self._open()) as connection:
            return {run: {*_hashes(found)} for run, found in connection.execute(sql, (self._target,))}

    def add(self, run: str, spans: Iterable[str], *, with_run: bool, scores: Iterable[str] = ()) -> None:
        """Note that spans and scores of a run were forwarded, durably."""
        sql = (
            "insert into sent values (?, ?, ?, ?) on conflict do update "
            "set spans = cast(spans || excluded.spans as blob), has_run = max(has_run, excluded.has_run)"
        )
        of_scores = (
            "insert into sent_scores values (?, ?, ?) on conflict do update "
            "set scores = cast(scores || excluded.scores as blob)"
        )
        hashes = b"".join(map(hashed, scores))
        with closing(self._open()) as connection:
            connection.execute("begin immediate")
            connection.execute(sql, (self._target, run, b"".join(map(hashed, spans)), int(with_run)))
            if hashes:
                connection.execute(of_scores, (self._target, run, hashes))
            connection.execute("commit")

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=30)
        connection.execute("pragma synchronous = full")
        return connection


def _hashes(found: bytes) -> frozenset[bytes]:
    return frozenset(found[at : at + _SIZE] for at in range(0, len(found), _SIZE))
