"""Stores base64 in payloads as bytes, once per run, and replaces it in the payload by a reference.

A reference is `$blob:7:image/png:3145728:SHA256;`: the number of the blob in its run, its media type, its size, and the
SHA-256 of its bytes. `$blob-url` means base64 with `-_`. A payload cannot forge a reference, because a recorded `$blob`
is stored as `$blob=`. `agent_spans.contents` has a flag for payloads with references. Plain SQL returns the references;
the backend replaces them by base64.
"""

import re
import sqlite3
import weakref
from collections.abc import Callable
from hashlib import sha256

from agentspan.blobs import LEAST, blobs_in, encoded
from agentspan.storage.sqlite.contents.joining import BLOB_BIT, ROOM, RUN, WHOLE_BLOBS

MARK = "$blob"
INSERT = "insert into blobs (id, run, sha256, media_type, data) values (?, ?, ?, ?, ?)"
KNOWN = "select id from blobs where run = ? and sha256 = ?"
LAST = "select id from blobs where id between ? and ? order by id desc limit 1"
REFERRING = (
    f"select cast(text as blob), run * {ROOM} from contents where instr(text, '{MARK}:') or instr(text, '{MARK}-url:')"
    + "".join(
        f" union all select cast({column} as blob), (contents / {RUN}) * {ROOM} from agent_spans where contents & {bit}"
        for column, bit in BLOB_BIT.items()
    )
)
"""The SELECT of stored texts that may have references to blobs, with the rowid before the first blob of their run."""

_REFERENCE = re.compile(r"\$blob(?:=|(-url)?:([0-9]{1,10}):[a-z0-9.+/-]{1,130}:[0-9]{1,19}:([0-9a-f]{64});)")


class Blobs:
    """The blobs of one run within a write transaction. `write` stores new blobs.

    Args:
        connection: a connection with an open write transaction.
        run: returns the number of the run; assigns one if the run has none.
        is_known: whether the run has a number already, so that it may have stored blobs.
    """

    def __init__(self, connection: sqlite3.Connection, run: Callable[[], int], *, is_known: bool) -> None:
        self._connection = connection
        self._run = run
        self._is_known = is_known
        self._last: int | None = None
        self._new: list[tuple[int, int, str, str, bytes]] = []
        self._added: dict[str, int] = {}

    def taken(self, text: str) -> str:
        """Return JSON text with base64 replaced by references to blobs; the same object if there is no base64.

        The result depends only on the text, so that equal list elements stay equal.
        """
        pieces: list[str] = []
        copied = 0
        for blob in blobs_in(text) if len(text) >= LEAST else ():
            hash = sha256(blob.data).hexdigest()
            number = self._number(hash, blob.media_type, blob.data)
            kind = f"{MARK}-url" if blob.is_for_urls else MARK
            reference = f"{kind}:{number}:{blob.media_type}:{len(blob.data)}:{hash};"
            pieces += (text[copied : blob.start].replace(MARK, f"{MARK}="), reference)
            copied = blob.end
        if not pieces and MARK not in text:
            return text
        return "".join((*pieces, text[copied:].replace(MARK, f"{MARK}=")))

    def write(self) -> None:
        """Store the new blobs. The run's number must be stored already."""
        new, self._new = self._new, []
        self._connection.executemany(INSERT, new)
        self._added = {}
        self._is_known = self._is_known or bool(new)

    def _number(self, hash: str, media_type: str, data: bytes) -> int:
        number, run = self._added.get(hash), self._run()
        first = run * ROOM
        if number is None and self._is_known:
            found = self._connection.execute(KNOWN, (run, hash)).fetchone()
            number = None if found is None else found[0] - first
        if number is not None:
            return number
        if self._last is None:
            last = self._connection.execute(LAST, (first, first + ROOM - 1)).fetchone()
            self._last = 0 if last is None else last[0] - first
        self._last += 1
        self._new.append((first + self._last, run, hash, media_type, data))
        self._added[hash] = self._last
        return self._last


def damage(connection: sqlite3.Connection) -> list[str]:
    """Return one sentence for each kind of damage to the blobs of a file: changed bytes, missing blobs."""
    changed = missing = 0
    known: set[tuple[int, str]] = set()
    for id, hash, data in connection.execute("select id, sha256, data from blobs"):
        known.add((id, hash))
        changed += sha256(data).hexdigest() != hash
    for text, first in connection.execute(REFERRING):
        for found in _REFERENCE.finditer(text.decode("utf-8", "replace")):
            missing += bool(found[2]) and (first + int(found[2]), found[3]) not in known
    sentences = [f"{changed} row{'s' * (changed != 1)} of blobs cannot be read"] if changed else []
    return sentences + ([f"{missing} reference{'s' * (missing != 1)} to blobs that are not there"] if missing else [])


def register(connection: sqlite3.Connection, schema: str = "") -> None:
    """Register the SQL function that replaces references to blobs by base64.

    Args:
        connection: the connection. The function refers to it weakly, because a strong reference would keep it open.
        schema: the attached database with the blobs; "" for the main database.
    """
    known = weakref.ref(connection)
    select = f"select data from {f'{schema}.' if schema else ''}blobs where id = ?"

    def whole(text: str | None, first: int) -> str | None:
        connection = known()
        if text is None or connection is None:
            return text

        def put_back(found: re.Match[str]) -> str:
            if not found[2]:
                return MARK
            row = connection.execute(select, (first + int(found[2]),)).fetchone()
            return found[0] if row is None else encoded(row[0], is_for_urls=bool(found[1]))  # `doctor` reports it

        return _REFERENCE.sub(put_back, text)

    connection.create_function(WHOLE_BLOBS, 2, whole)
