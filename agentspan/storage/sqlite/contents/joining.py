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
    """Return the SQL of a column of a span, put together from its text and its parts.

    A text with one reference, which most have, gets its parts in the place of it: half the time of joining all members
    again. A text that says `{"$content` more than once may quote a reference in a deeper object, so its members are
    joined one by one. `->` gives a member byte for byte, where `json_extract` makes `Infinity` of 1e400.

    Args:
        column: `payload` or `result_payload`.
        table: the name, or the alias, of `agent_spans` in the statement.
        schema: the attached database that it is in; "" for the connection's own, which a view must not name.
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
        f"where s.contents & {BIT[column]} and {IS_REFERENCE} "
        f"and (select count(*) from contents c where {_is_in_range('s')}) <> {_LAST} - {_FIRST} + 1"
    )


_MARK = """'{"$content'"""
IS_REFERENCE = f"(m.type = 'object' and substr(m.value, 1, 10) = {_MARK})"
LIST, ONE = """'$."$contents"'""", """'$."$content"'"""
_FIRST, _LAST = "cast(r.value as integer)", "cast(substr(r.value, instr(r.value, '-') + 1) as integer)"


def _joined(table: str, parts: str) -> str:
    """Return the SQL of what stands in the place of a member `m` that is a reference; null if a part is not there.

    One range is two numbers in the text; `json_each` reads the ranges only where there are several.
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
    """Return the SQL of the ranges of a member `m`, as rows `r` whose values are `1-25` or `31`."""
    return f"""json_each('["' || replace(coalesce(m.value ->> {LIST}, m.value ->> {ONE}), ',', '","') || '"]') r"""


def _first(table: str) -> str:
    """Return the SQL of the row before the first part of a span's run."""
    return f"({table}.contents / {RUN}) * {ROOM}"


def _is_in_range(table: str) -> str:
    return f"c.id between {_first(table)} + {_FIRST} and {_first(table)} + {_LAST}"
