"""The SQL that joins a payload from its stored text and its parts, with only SQLite's own functions.

`agent_spans.contents` is 0 for a span whose payload and result are stored whole. Else bit 1 means that the payload has
references to parts, and bit 2 that the result has. Bits 4 and 8 mean the same for references to blobs (see blobs). The
remaining bits are the number of the run in `content_runs`.

Part n of run r is the row r * 2^32 + n of `contents`, so that a list is one range of rows, read in the order of the
table. With the run's id as a column, and an index on it, the same pages took four times as long.
"""

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
