"""The SQL that joins a payload from its stored text and its parts, with only SQLite's own functions.

`agent_spans.contents` is 0 for a span whose payload and result are stored whole. Else bit 1 means that the payload has
references to parts, and bit 2 that the result has. Bits 4 and 8 mean the same for references to blobs. The remaining
bits are the number of the run in `content_runs`.

Part n of run r is the row r * 2^32 + n of `contents`, so that a list is one range of rows, read in the order of the
table. With the run's id as a column, and an index on it, the same pages took four times as long.

Base64 in payloads is stored as bytes, once per run, and replaced in the payload by a reference, such as
`$blob:7:image/png:3145728:SHA256;`: the number of the blob in its run, its media type, its size, and the SHA-256 of its
bytes. `$blob-url` means base64 with `-_`. A payload cannot forge a reference, because a recorded `$blob` is stored as
`$blob=`. Plain SQL returns the references; the backend replaces them by base64.
"""

import re
import sqlite3
import weakref
from collections.abc import Callable
from hashlib import sha256

from agentspan.blobs import LEAST, blobs_in, encoded

PAYLOAD, RESULT = 1, 2
"""The bits of `agent_spans.contents` for references in the payload and in the result."""
RUN = 16
"""The factor of the run's number in `agent_spans.contents`: the lowest four bits are flags."""
ROOM = 2**32
"""The number of rowids of `contents` that are reserved for each run."""
BIT = {"payload": PAYLOAD, "result_payload": RESULT}
BLOB_BIT = {"payload": 4, "result_payload": 8}
BITS = {column: BIT[column] | BLOB_BIT[column] for column in BIT}
ALL_BITS = RUN - 1
WHOLE_BLOBS = "whole_blobs"
"""The name of the SQL function that replaces references to blobs by base64. Only the backend's connections have it."""


def whole(column: str, table: str, schema: str = "") -> str:
    """Return the SQL of a column of a span, joined from its stored text and its parts.

    In a text with one reference, the usual case, the parts replace the reference: half the time of joining all members.
    A text with several `{"$content` may quote a reference in a deeper object, so its members are joined one by one.
    The operator `->` keeps the bytes of a member; `json_extract` would change 1e400 to `Infinity`.

    Args:
        column: `payload` or `result_payload`.
        table: the name, or the alias, of `agent_spans` in the statement.
        schema: the attached database with `contents`; "" for the main database, which a view must not name.
    """
    text, parts = f"{table}.{column}", f"{schema}.contents" if schema else "contents"
    each = f"from json_each({text}) m"
    joined = _joined(table, parts)
    value = f"case when {IS_REFERENCE} then {joined} else {text} -> m.fullkey end"
    members = f"group_concat(json_quote(m.key) || ':' || {value}, ',')"
    more = f"instr(substr({text}, instr({text}, {_MARK}) + 1), {_MARK})"
    return (
        f"case when not {table}.contents & {BIT[column]} then {text} "
        f"when {more} then (select '{{' || {members} || '}}' {each}) "
        f"else ifnull((select replace({text}, m.value, {joined}) {each} where {IS_REFERENCE}), {text}) end"
    )


def with_blobs(column: str, table: str, schema: str = "") -> str:
    """Return the SQL of a column of a span as it was recorded: its parts are joined, and blobs are base64 again."""
    text = whole(column, table, schema)
    blobs = f"{WHOLE_BLOBS}({text}, {_first(table)})"
    return f"case when {table}.contents & {BLOB_BIT[column]} then {blobs} else {text} end"


def error_text(table: str) -> str:
    """Return the SQL of a result's `error` if it is a long text and so stored as a part; else null."""
    number = f"""({table}.result_payload ->> '$.error."$content"')"""
    return (
        f"case when {table}.contents & {RESULT} and {number} is not null "
        f"then (select c.text ->> '$' from contents c where c.id = {_first(table)} + {number}) end"
    )


def failed_step(table: str) -> str:
    """Return the SQL condition for a failed step, as schemas.failing has it. A member `is_error` is never a part.

    It uses `case`, so that only results with the name, or with escapes that may spell it, are parsed.
    """
    result = f"{table}.result_payload"
    last = f"(select e.type = 'true' from json_each({result}) e where e.key = 'is_error' order by e.id desc limit 1)"
    return (
        f"case when {table}.status <> 'complete' then {table}.status = 'failed' "
        f"when (instr({result}, '\"is_error\"') or instr({result}, '\\u')) and json_valid({result}) "
        f"then ifnull({last}, 0) else 0 end"
    )


def missing(column: str) -> str:
    """Return the SELECT that counts references in a column to missing parts."""
    return (
        f"select count(*) from agent_spans s cross join json_each(s.{column}) m cross join {_ranges()} "
        f"where s.contents & {BIT[column]} and {IS_REFERENCE} "
        f"and (select count(*) from contents c where {_is_in_range('s')}) <> {_LAST} - {_FIRST} + 1"
    )


_MARK = """'{"$content'"""
IS_REFERENCE = f"(m.type = 'object' and substr(m.value, 1, 10) = {_MARK})"
LIST, ONE = """'$."$contents"'""", """'$."$content"'"""
_FIRST, _LAST = "cast(r.value as integer)", "cast(substr(r.value, instr(r.value, '-') + 1) as integer)"


def _joined(table: str, parts: str) -> str:
    """Return the SQL of the JSON text to which a member `m`, a reference, refers; null if a part is missing.

    A single range is parsed as two numbers. `json_each` is used only for several ranges.
    """
    numbers = "substr(m.value, 15)"
    rows = f"{parts} c where c.id between {_first(table)} + cast({numbers} as integer) and"
    last = f"{_first(table)} + cast(substr({numbers}, instr({numbers}, '-') + 1) as integer)"
    several = f"{_ranges()} cross join {parts} c where {_is_in_range(table)}"
    return (
        f"case when substr(m.value, 11, 1) <> 's' "
        f"then (select c.text from {parts} c where c.id = {_first(table)} + (m.value ->> {ONE})) "
        f"when instr(m.value, ',') then '[' || (select ifnull(group_concat(c.text, ','), '') from {several}) || ']' "
        f"else '[' || (select ifnull(group_concat(c.text, ','), '') from {rows} {last}) || ']' end"
    )


def _ranges() -> str:
    """Return the SQL of a table `r` with one row per range of a member `m`, a reference; values are `1-25` or `31`."""
    return f"""json_each('["' || replace(coalesce(m.value ->> {LIST}, m.value ->> {ONE}), ',', '","') || '"]') r"""


def _first(table: str) -> str:
    """Return the SQL of the rowid before the first part of a span's run."""
    return f"({table}.contents / {RUN}) * {ROOM}"


def _is_in_range(table: str) -> str:
    return f"c.id between {_first(table)} + {_FIRST} and {_first(table)} + {_LAST}"


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
        if not pieces and ("$" not in text or MARK not in text):  # one character is found in a tenth of the time
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
