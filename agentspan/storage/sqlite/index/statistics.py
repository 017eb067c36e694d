"""Statistics of spans from the index: sums of buckets of durations, and each percentile from within its bucket."""

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from agentspan.storage.analytics import BOUNDS_MS, Stat
from agentspan.storage.sqlite.index import wanted_runs
from agentspan.storage.sqlite.index.span_sums import CANCELLED, MICROS

CELLS = "select * from cells"
WITHIN = (
    "select grp, bucket, count(*), sum(failed), sum(ms), max(ms), sum(input_tokens), sum(output_tokens), sum(cost) "
    "from facts where true{0} group by grp, bucket"
)
OPEN = (
    "select schema_name, ifnull(label, ''), count(*), max(is_aggregate), "
    "sum(input_tokens), sum(output_tokens), sum(cost_usd) from main.open_spans o "
    "cross join recorded.agent_spans s where s.rowid = o.row{0} group by 1, 2"
)
AT_PLACE = "select ms from facts where grp in ({0}) and bucket = ?{1} order by ms limit 1 offset ?"


class Window(NamedTuple):
    """A time, and some runs, as conditions on the index and on the recorded file, each with its values."""

    facts: str
    micros: list[str]
    spans: str
    texts: list[str]


class Group:
    """The sums of a label's spans, or of a type's: the finished ones by bucket, and the open ones."""

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.ran: dict[int, int] = {}
        self.count = self.failed = self.cancelled = self.open = 0
        self.total = 0.0
        self.longest: float | None = None
        self.used: list[Any] = [None, None, None]
        self.is_aggregate = False

    def add_cell(self, id: int, bucket: int, spans: int, failed: int, ms: float, longest: float) -> None:
        """Add the finished spans of a bucket of a group in the index."""
        self.ids.add(id)
        self.count += spans
        if bucket == CANCELLED:
            self.cancelled += spans
            return
        self.ran[bucket] = self.ran.get(bucket, 0) + spans
        self.failed += failed
        self.total += ms
        self.longest = longest if self.longest is None else max(self.longest, longest)

    def add_open(self, spans: int) -> None:
        """Add open spans."""
        self.count += spans
        self.open += spans

    def add_used(self, used: Sequence[Any]) -> None:
        """Add tokens and cost."""
        self.used = [b if a is None else a if b is None else a + b for a, b in zip(self.used, used, strict=True)]

    def place(self, percent: int) -> tuple[int, int] | None:
        """Return the bucket in which a percentile lies, and its place within that (nearest rank)."""
        place = -(-sum(self.ran.values()) * percent // 100) - 1
        for bucket in sorted(self.ran):
            if place < self.ran[bucket]:
                return bucket, place
            place -= self.ran[bucket]
        return None


Groups = dict[tuple[str, str | None], Group]


def statistics(
    connection: sqlite3.Connection, since: str | None, until: str | None, runs: Collection[str] | None = None
) -> list[Stat]:
    """Return the statistics of the spans that began in a time, in any order.

    Args:
        runs: ids of the only runs whose spans count; all when left out.
    """
    window = _window(since, until)
    if runs is not None:
        wanted_runs.restrict(connection, runs)
        facts, spans = f"{window.facts} and {wanted_runs.OF_FACT}", f"{window.spans} and {wanted_runs.OF_SPAN}"
        window = window._replace(facts=facts, spans=spans)
    groups: Groups = {}
    _add_finished(connection, groups, window)
    _add_open(connection, groups, window)
    return [_stat(connection, *key, group, window) for key, group in groups.items()]


def _window(since: str | None, until: str | None) -> Window:
    bounds = [(sign, bound) for sign, bound in ((">=", since), ("<", until)) if bound is not None]
    return Window(
        "".join(f" and at {sign} {MICROS.format('?')}" for sign, _ in bounds),
        [bound for _, bound in bounds for _ in range(2)],  # the expression has it twice
        "".join(f" and coalesce(s.started_at, s.inserted_at) {sign} ?" for sign, _ in bounds),
        [bound for _, bound in bounds],
    )


def _of(groups: Groups, schema_name: str, label: str) -> list[Group]:
    """Return the type's group, and the label's where there is one."""
    keys = [(schema_name, None), (schema_name, label)] if label else [(schema_name, None)]
    return [groups.setdefault(key, Group()) for key in keys]


def _add_finished(connection: sqlite3.Connection, groups: Groups, window: Window) -> None:
    found = connection.execute("select grp, schema_name, label, is_aggregate from groups").fetchall()
    names = {id: (name, label) for id, name, label, _ in found}
    aggregates = {id for id, *_, is_aggregate in found if is_aggregate}
    cells = connection.execute(WITHIN.format(window.facts) if window.facts else CELLS, window.micros)
    for id, bucket, spans, failed, ms, longest, *used in cells:
        for group in _of(groups, *names[id]):
            group.add_cell(id, bucket, spans, failed, ms, longest)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or id in aggregates


def _add_open(connection: sqlite3.Connection, groups: Groups, window: Window) -> None:
    found = connection.execute(OPEN.format(window.spans), window.texts)
    for schema_name, label, spans, is_aggregate, *used in found:
        for group in _of(groups, schema_name, label):
            group.add_open(spans)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or bool(is_aggregate)


def _stat(connection: sqlite3.Connection, schema_name: str, label: str | None, group: Group, window: Window) -> Stat:
    def percentile(percent: int) -> float | None:
        found = group.place(percent)
        if found is None:
            return None
        sql = AT_PLACE.format(", ".join(map(str, group.ids)), window.facts)
        value: float = connection.execute(sql, (found[0], *window.micros, found[1])).fetchone()[0]
        return value

    input_tokens, output_tokens, cost_usd = group.used
    return Stat(
        schema_name,
        label,
        group.count,
        group.failed,
        group.cancelled,
        group.open,
        percentile(50),
        percentile(95),
        percentile(99),
        group.longest,
        group.total,
        tuple(group.ran.get(bucket, 0) for bucket in range(len(BOUNDS_MS) + 1)),
        input_tokens,
        output_tokens,
        cost_usd,
        group.is_aggregate,
    )
