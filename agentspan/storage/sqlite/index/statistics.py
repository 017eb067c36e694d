"""Statistics of spans from the index: sums of buckets of durations, and each percentile from within its bucket."""

import sqlite3
from array import array
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from agentspan.storage.answers import BOUNDS_MS, Stat
from agentspan.storage.questions import SpanStats
from agentspan.storage.span_groups import CANCELLED, Groups, SpanGroup, groups_of
from agentspan.storage.sqlite.index import wanted_runs
from agentspan.storage.sqlite.index.run_groups import FIRST_LETTER
from agentspan.storage.sqlite.index.span_sums import MICROS

CELLS = "select * from cells"
WITHIN = (
    "select grp, bucket, count(*), sum(failed), sum(ms), max(ms), sum(input_tokens), sum(output_tokens), sum(cost) "
    "from facts where true{0} group by grp, bucket"
)
OF_RUNS = """
select u.grp, sum(u.spans), sum(u.cancelled), sum(u.failed), sum(u.ms), sum(u.input_tokens), sum(u.output_tokens),
       sum(u.cost), group_concat(u.histogram, '')
from temp.wanted_numbers w cross join run_groups u where u.run = w.run group by u.grp
"""
"""The sums of some runs, without a look at all facts: half of a million spans in 0.15 s instead of 0.7."""
NEVER_RAN = f"""
select sum(input_tokens), sum(output_tokens), sum(cost) from facts
where grp = ? and bucket = {CANCELLED} and {wanted_runs.OF_FACT}
"""
OPEN = (
    "select schema_name, ifnull(label, ''), count(*), max(is_aggregate), "
    "sum(input_tokens), sum(output_tokens), sum(cost_usd) from main.open_spans o "
    "cross join recorded.agent_spans s where s.rowid = o.row{0} group by 1, 2"
)
AT_PLACE = "select ms from facts where grp in ({0}) and bucket = ? order by ms limit 1 offset ?"
IN_BUCKET = "select ms from facts where grp = ? and bucket = ?{0} order by ms"


class Window(NamedTuple):
    """A time, and some runs, as conditions on the index and on the recorded file, each with its values."""

    facts: str
    micros: list[str]
    spans: str
    texts: list[str]


def span_stats(connection: sqlite3.Connection, asked: SpanStats) -> list[Stat]:
    """Return the statistics of the spans that began in a time, in any order."""
    runs = asked.runs
    window = _window(asked.since, asked.until)
    groups: Groups = {}
    if runs is not None:
        wanted_runs.restrict(connection, runs)
        wanted_runs.number(connection, runs)
        facts, spans = f"{window.facts} and {wanted_runs.OF_FACT}", f"{window.spans} and {wanted_runs.OF_SPAN}"
        window = window._replace(facts=facts, spans=spans)
    if runs is not None and not window.micros:
        _add_finished_of_runs(connection, groups)
    else:
        _add_finished(connection, groups, window)
    _add_open(connection, groups, window)
    durations = Durations(connection, window)
    return [_stat(*key, group, durations) for key, group in groups.items()]


def _window(since: str | None, until: str | None) -> Window:
    bounds = [(sign, bound) for sign, bound in ((">=", since), ("<", until)) if bound is not None]
    return Window(
        "".join(f" and at {sign} {MICROS.format('?')}" for sign, _ in bounds),
        [bound for _, bound in bounds for _ in range(2)],  # the expression has it twice
        "".join(f" and coalesce(s.started_at, s.inserted_at) {sign} ?" for sign, _ in bounds),
        [bound for _, bound in bounds],
    )


Names = dict[int, tuple[str, str, bool]]


def _names(connection: sqlite3.Connection) -> Names:
    found = connection.execute("select grp, schema_name, label, is_aggregate from groups")
    return {id: (name, label, bool(is_aggregate)) for id, name, label, is_aggregate in found}


def _add_finished(connection: sqlite3.Connection, groups: Groups, window: Window) -> None:
    names = _names(connection)
    cells = connection.execute(WITHIN.format(window.facts) if window.facts else CELLS, window.micros)
    for id, bucket, spans, failed, ms, longest, *used in cells:
        name, label, is_aggregate = names[id]
        for group in groups_of(groups, name, label):
            group.add_cell(id, bucket, spans, failed, ms, longest)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or is_aggregate


def _add_finished_of_runs(connection: sqlite3.Connection, groups: Groups) -> None:
    """Add the finished spans of the numbered runs (see wanted_runs): from their sums, not from all facts."""
    names = _names(connection)
    for id, spans, cancelled, failed, ms, *used, letters in connection.execute(OF_RUNS).fetchall():
        name, label, is_aggregate = names[id]
        ran = {bucket: letters.count(chr(FIRST_LETTER + bucket)) for bucket in range(len(BOUNDS_MS) + 1)}
        for group in groups_of(groups, name, label):
            group.add_sums(id, spans, cancelled, failed, ms, ran)
            group.add_used(used)
            if cancelled:
                group.add_used(connection.execute(NEVER_RAN, (id,)).fetchone())
            group.is_aggregate = group.is_aggregate or is_aggregate


def _add_open(connection: sqlite3.Connection, groups: Groups, window: Window) -> None:
    found = connection.execute(OPEN.format(window.spans), window.texts)
    for schema_name, label, spans, is_aggregate, *used in found:
        for group in groups_of(groups, schema_name, label):
            group.add_open(spans)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or bool(is_aggregate)


class Durations:
    """The durations in a window, by their places in a bucket.

    Args:
        connection: to the index.
        window: where it restricts nothing, one duration is stepped to. Else those of a bucket that are within are read
            once, for the label, for its type and for each percentile.
    """

    def __init__(self, connection: sqlite3.Connection, window: Window) -> None:
        self._connection = connection
        self._window = window
        self._read: dict[tuple[int, int], array[float]] = {}
        self._merged: dict[tuple[frozenset[int], int], Sequence[float]] = {}

    def at(self, ids: Collection[int], bucket: int, place: int) -> float:
        """Return the duration at a place, from zero, of those of these groups in a bucket."""
        if self._window.facts:
            return self._within(frozenset(ids), bucket)[place]
        sql = AT_PLACE.format(", ".join(map(str, ids)))
        value: float = self._connection.execute(sql, (bucket, place)).fetchone()[0]
        return value

    def _within(self, ids: frozenset[int], bucket: int) -> Sequence[float]:
        if (ids, bucket) not in self._merged:
            each = [self._in_bucket(id, bucket) for id in sorted(ids)]
            self._merged[ids, bucket] = each[0] if len(each) == 1 else sorted(chain.from_iterable(each))
        return self._merged[ids, bucket]

    def _in_bucket(self, id: int, bucket: int) -> "array[float]":
        if (id, bucket) not in self._read:
            sql = IN_BUCKET.format(self._window.facts)
            self._read[id, bucket] = array("d", self._values(sql, id, bucket))
        return self._read[id, bucket]

    def _values(self, sql: str, id: int, bucket: int) -> Iterator[float]:
        return (ms for (ms,) in self._connection.execute(sql, (id, bucket, *self._window.micros)))


def _stat(schema_name: str, label: str | None, group: SpanGroup, durations: Durations) -> Stat:
    def percentile(percent: int) -> float | None:
        found = group.place(percent)
        return None if found is None else durations.at(group.ids, *found)

    histogram = tuple(group.ran.get(bucket, 0) for bucket in range(len(BOUNDS_MS) + 1))
    return group.stat(schema_name, label, percentile, histogram)
