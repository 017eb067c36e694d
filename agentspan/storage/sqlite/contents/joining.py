"""The SQL that puts a payload together from its text and its parts, with nothing but SQLite's own functions.

`agent_spans.contents` is 0 for a span whose payload and result are stored whole. Else its lowest bit is set where the
payload has references to parts, the next one where the result has; the two bits after them say the same of references
to blobs (see blobs); and the rest is the number of the run in `content_runs`.
Part n of run r is the row r * 2^32 + n of `contents`: a list is one range of rows, read in the order of the table.
(With the run's id as a column, and an index on it, the same pages took four times as long.)
"""

PAYLOAD, RESULT = 1, 2
"""The bits of `agent_spans.contents`."""
RUN = 16
"""The place of the run's number in `agent_spans.contents`."""
ROOM = 2**32
"""The rows of `contents` that a run has room for."""
BIT = {"payload": PAYLOAD, "result_payload": RESULT}
BLOB_BIT = {"payload": 4, "result_payload": 8}
BITS = {column: BIT[column] | BLOB_BIT[column] for column in BIT}
ALL_BITS = RUN - 1
WHOLE_BLOBS = "whole_blobs"
"""The function that puts base64 back, of the connections of the backend only."""


def whole(column: str, table: str, schema: str = "") -> str:
    """Return the SQL of a column of a span, put together: `json_each` finds the references among its members.

    `->` gives a member byte for byte, where `json_extract` makes `Infinity` of 1e400.

    Args:
        column: `payload` or `result_payload`.
        table: the name, or the alias, of `agent_spans` in the statement.
        schema: the attached database that it is in; "" for the connection's own, which a view must not name.
    """
    parts = f"{schema}.contents" if schema else "contents"
    rows = f"{_ranges()} cross join {parts} c where {_is_in_range(table)}"
    elements = f"(select ifnull(group_concat(c.text, ','), '') from {rows})"
    one = f"(select c.text from {parts} c where c.id = {_first(table)} + (m.value ->> {ONE}))"
    value = (
        f"case when {IS_LIST} then '[' || {elements} || ']' when {IS_ONE} then {one} "
        f"else {table}.{column} -> m.fullkey end"
    )
    members = f"group_concat(json_quote(m.key) || ':' || {value}, ',') || '}}' from json_each({table}.{column}) m"
    return f"case when {table}.contents & {BIT[column]} then (select '{{' || {members}) else {table}.{column} end"


def with_blobs(column: str, table: str, schema: str = "") -> str:
    """Return the SQL of a column of a span as it was recorded: put together, with the base64 of blobs in it."""
    text = whole(column, table, schema)
    blobs = f"{WHOLE_BLOBS}({text}, {_first(table)})"
    return f"case when {table}.contents & {BLOB_BIT[column]} then {blobs} else {text} end"


def error_text(table: str) -> str:
    """Return the SQL of a result's `error` that is a long text, which is a part; null for others."""
    number = f"""({table}.result_payload ->> '$.error."$content"')"""
    return (
        f"case when {table}.contents & {RESULT} and {number} is not null "
        f"then (select c.text ->> '$' from contents c where c.id = {_first(table)} + {number}) end"
    )


def missing(column: str) -> str:
    """Return the SELECT of the number of references whose parts are not there."""
    return (
        f"select count(*) from agent_spans s cross join json_each(s.{column}) m cross join {_ranges()} "
        f"where s.contents & {BIT[column]} and ({IS_LIST} or {IS_ONE}) "
        f"and (select count(*) from contents c where {_is_in_range('s')}) <> {_LAST} - {_FIRST} + 1"
    )


IS_LIST = """(m.type = 'object' and substr(m.value, 1, 13) = '{"$contents":')"""
IS_ONE = """(m.type = 'object' and substr(m.value, 1, 12) = '{"$content":')"""
LIST, ONE = """'$."$contents"'""", """'$."$content"'"""
_FIRST, _LAST = "cast(r.value as integer)", "cast(substr(r.value, instr(r.value, '-') + 1) as integer)"


def _ranges() -> str:
    """Return the SQL of the ranges of a member `m`, as rows `r` whose values are `1-25` or `31`."""
    return f"""json_each('["' || replace(coalesce(m.value ->> {LIST}, m.value ->> {ONE}), ',', '","') || '"]') r"""


def _first(table: str) -> str:
    """Return the SQL of the row before the first part of a span's run."""
    return f"({table}.contents / {RUN}) * {ROOM}"


def _is_in_range(table: str) -> str:
    return f"c.id between {_first(table)} + {_FIRST} and {_first(table)} + {_LAST}"
