"""Answers questions about many runs by SQL. The answers equal those of storage.row_by_row.

The part of the index with the numbers of finished spans is here, too: a narrow row for each (`index_facts`), and sums
for each run (`index_runs`). A group is a span type and a label; its number is a hash of both, so that it is known
before the group is stored. A bucket is a range of durations, much smaller than those of a histogram, so that few spans
share one with a percentile.

Statistics take two passes over `index_facts`, without a sort of all durations. The first pass counts and adds up each
bucket of each group. The counts tell the bucket of each percentile, and its place in the bucket. The second pass reads
only the buckets with a percentile. Late spans, which are all spans without an index, are read as facts.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import Any

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage import row_by_row
from agentspan.storage.postgres.connection import Connection, Statement, read, rows_of, rows_of_each, storable
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.index import Cursor, Part, current, late
from agentspan.storage.postgres.reads import QUARTERS
from agentspan.storage.postgres.statements import FAILED, compared, quoted
from agentspan.storage.questions import (
    BriefsWhere,
    FailureSums,
    Question,
    RunFilter,
    RunSort,
    RunSums,
    RunsWhere,
    SpanStats,
    StepUses,
    TimedSums,
    Used,
)
from agentspan.storage.sums import (
    BOUNDS_MS,
    CANCELLED,
    FailureSum,
    Groups,
    RunBrief,
    RunList,
    RunSum,
    RunSummary,
    RunTotals,
    SpanGroup,
    Stat,
    StepUse,
    TimedSum,
    brief_of,
    groups_of,
)

_USED = "filter (where is_aggregate = 0)"
_USES_OF_RUN = ("input_tokens", "output_tokens", "cost")
_SUMMED = f"agent_instance_id, status, input_tokens, output_tokens, cost_usd, is_aggregate, {FAILED} as failed"


def _plus(one: str, other: str) -> str:
    """Return the SQL sum of two values. It is null only if both are."""
    return f"case when {other} is null then {one} else coalesce({one}, 0) + {other} end"


_SPANS_OF_RUNS = f"""
select coalesce(x.id, l.id) as id, coalesce(x.spans, 0) + coalesce(l.spans, 0) as spans,
       coalesce(x.failed, 0) + coalesce(l.failed, 0) as failed, coalesce(l.open, 0) as open,
       {", ".join(f"{_plus(f'x.{used}', f'l.{used}')} as {used}" for used in _USES_OF_RUN)}
from (
    select agent_instance_id as id, spans, failed, input_tokens, output_tokens, cost from index_runs{{1}}
) x full join (
    select agent_instance_id as id, count(*) as spans, count(*) filter (where failed) as failed,
           count(*) filter (where status in ('pending', 'active')) as open,
           (sum(input_tokens) {_USED})::bigint as input_tokens, (sum(output_tokens) {_USED})::bigint as output_tokens,
           sum(cost_usd) {_USED} as cost
    from (select {_SUMMED} from finished_spans s where {{0}} union all select {_SUMMED} from open_spans) late group by 1
) l on l.id = x.id
"""


def sums_of_runs(cursor: Cursor | None) -> tuple[str, list[object]]:
    """Return the SELECT that sums up the spans of each run, and its values.

    Args:
        cursor: the position of the numbers index in the snapshot in which the SELECT is executed; None reads all spans.
    """
    is_late, rewritten = late(cursor)
    kept = " where agent_instance_id <> all(%s)" if rewritten else "" if cursor is not None else " where false"
    return _SPANS_OF_RUNS.format(is_late, kept), [*rewritten, *rewritten]


_EMPTY = "'{}'"  # signatures depend on results only
_FAILURES = (
    f"select {', '.join(_EMPTY if field == 'payload' else quoted(field) for field in AgentSpanRow._fields)} "
    f"from agent_spans where agent_instance_id = any(%s) and {FAILED} order by agent_instance_id, id"
)
# A reason is the finish_reason of the latest span that has one.
_USES = f"""
select run, schema_name, label, count(*), count(*) filter (where failed), max(at),
       (array_agg(reason order by at desc, reason desc) filter (where reason is not null))[1]
from (
    select agent_instance_id as run, schema_name, nullif(label, '') as label, {FAILED} as failed,
           finish_reason as reason,
           (extract(epoch from coalesce(started_at, inserted_at)) * 1000000)::bigint as at
    from agent_spans where agent_instance_id = any(%s) and status not in ('pending', 'active')
) used group by 1, 2, 3
"""


def failure_sums(connections: Connections, asked: FailureSums) -> list[FailureSum]:
    """Return the failures of the asked runs, summed up by run and signature."""
    rows = read(connections.reading, _FAILURES, (storable(list(asked.run_ids)),))
    spans = map(AgentSpanRow._make, rows)
    return [
        found
        for run, failed in groupby(spans, key=lambda span: span.agent_instance_id)
        for found in row_by_row.failures_of(run, failed)
    ]


def step_uses(connections: Connections, asked: StepUses) -> list[StepUse]:
    """Return how often the asked runs used each span type and label."""
    return [*map(StepUse._make, read(connections.reading, _USES, (storable(list(asked.run_ids)),)))]


_RUNS = """
from agent_instances i
left join ({1}) s on s.id = i.id
left join agents a on a.id = i.agent_id
left join agent_versions v on v.id = i.agent_version_id
"""
_SUMS = (
    "coalesce(s.spans, 0) as spans, coalesce(s.failed, 0) as failed, coalesce(s.open, 0) as open, s.input_tokens, "
    "s.output_tokens, s.cost, i.duration_ms as ran_ms"
)
_COLUMNS = ", ".join(f"i.{quoted(column)}" for column in AgentInstanceRow._fields)
_NAMES = "coalesce(a.name, i.agent_id) as agent, coalesce(v.external_identifier, i.agent_version_id) as version"
_OWN_TEXTS = (
    "i.id, a.name, v.external_identifier, i.external_identifier, i.metadata, i.result, i.error, i.termination_reason"
)
_FOUND = f"""
with matching as materialized (select {_COLUMNS}, {_NAMES}, {_SUMS} {_RUNS}{{0}})
select t.*, page.* from (
    select count(*), coalesce(sum(spans), 0)::bigint, coalesce(sum(failed), 0)::bigint, coalesce(sum(open), 0)::bigint,
           sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cost), sum(ran_ms) from matching
) t left join (select * from matching order by {{2}}id desc limit %s offset %s) page on true order by {{2}}id desc
"""
_SORTED: dict[RunSort, str] = {
    "started": "",
    "duration": "ran_ms desc nulls last, ",
    "cost": "cost desc nulls last, ",
    "tokens": "case when num_nulls(input_tokens, output_tokens) < 2 "
    "then coalesce(input_tokens, 0) + coalesce(output_tokens, 0) end desc nulls last, ",
    "spans": "spans desc, ",
    "failed": "failed desc, ",
}
_TOTALS = 8
"""The number of columns with totals, with which each row of _FOUND begins."""

_RAN = "status in ('complete', 'failed')"
_DURATION = "coalesce(duration_ms, 0)"
_RUN_SUMS = f"""
select agent_instance_id, schema_name, nullif(label, ''), count(*), count(*) filter (where {FAILED}),
       sum({_DURATION}), sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cost_usd), max(is_aggregate) = 1
from agent_spans where agent_instance_id = any(%s) and {_RAN} group by 1, 2, 3
"""
_TIMED_SUMS = f"""
select agent_instance_id, schema_name, nullif(label, ''), {QUARTERS}, {_RAN}, count(*), sum(input_tokens)::bigint,
       sum(output_tokens)::bigint, sum(cost_usd)
from agent_spans where agent_instance_id = any(%s) and is_aggregate = 0 group by 1, 2, 3, 4, 5
"""
_HAS_TAG = "exists (select 1 from tags t where t.agent_instance_id = i.id and t.tag = %s)"


def runs_where(connections: Connections, asked: RunsWhere) -> RunList:
    """Return a page of the matching runs, and sums over all of them; NotImplemented for a filter that SQL lacks."""
    if asked.filter.meta or asked.filter.error is not None:
        return NotImplemented  # type: ignore[no-any-return]
    where, values = _where(asked.filter)
    with current(connections, numbers_of(connections), asked.progress) as (connection, cursor):
        summed, of_sums = sums_of_runs(cursor)
        sql = _FOUND.format(where, summed, _SORTED[asked.sort])
        rows = rows_of(connection, sql, (*of_sums, *values, asked.limit, asked.offset))
    total, *sums = rows[0][:_TOTALS]
    width = _TOTALS + len(AgentInstanceRow._fields)
    found = [row for row in rows if row[_TOTALS] is not None]  # beyond the last page, one row has totals only
    runs = [RunSummary(AgentInstanceRow._make(row[_TOTALS:width]), *row[width:]) for row in found]
    return RunList(runs, total, RunTotals(*sums))


def _where(filter: RunFilter) -> tuple[str, list[object]]:
    """Return a filter as a WHERE clause, and its values."""
    version = "coalesce(v.external_identifier, i.agent_version_id)"
    own = "session", "status", "task", "purpose"
    equal = {version: filter.version, **{f"i.{each}": getattr(filter, each) for each in own}}
    found: list[tuple[str, tuple[str, ...]]] = []
    if filter.agent is not None:
        found.append(("%s in (a.name, a.id, a.external_identifier)", (filter.agent,)))
    found += [(f"{column} = %s", (value,)) for column, value in equal.items() if value is not None]
    for sign, bound in ((">=", filter.since), ("<", filter.until)):
        if bound is not None:
            found.append((compared("coalesce(i.started_at, i.inserted_at)", sign, bound), (bound,)))
    if filter.failed:
        found.append(("(i.status = 'failed' or s.failed > 0)", ()))
    if filter.grep is not None:
        texts = _OWN_TEXTS.split(", ")
        has_text = " or ".join(f'position(lower(%s) in lower({text} collate "unicode")) > 0' for text in texts)
        found.append((f"({has_text})", (filter.grep,) * len(texts)))
    if filter.git_commit is not None:
        found.append(("starts_with(i.git_commit, %s)", (filter.git_commit.lower(),)))
    found += [(_HAS_TAG, (tag,)) for tag in filter.tags]
    # PostgreSQL accepts neither undecodable bytes of a command line nor a NUL: both are replaced.
    texts_of_words = (value.encode("utf-8", "replace").decode() for _, each in found for value in each)
    values: list[object] = [value.replace("\0", "\N{REPLACEMENT CHARACTER}") for value in texts_of_words]
    conditions = [condition for condition, _ in found]
    if filter.ids is not None:
        conditions.append("i.id = any(%s)")
        values.append(storable(sorted(filter.ids)))
    return (f" where {' and '.join(conditions)}" if conditions else ""), values


def briefs_where(connections: Connections, asked: BriefsWhere) -> list[RunBrief]:
    """Return all matching runs in brief; NotImplemented for a filter that SQL lacks."""
    found = runs_where(connections, RunsWhere(asked.filter, progress=asked.progress))
    return found if found is NotImplemented else [*map(brief_of, found.runs)]


def run_sums(connections: Connections, asked: RunSums) -> list[RunSum]:
    """Return the sums of the asked runs by run, span type and label."""
    return [*map(RunSum._make, read(connections.reading, _RUN_SUMS, (storable(list(asked.runs)),)))]


def timed_sums(connections: Connections, asked: TimedSums) -> list[TimedSum]:
    """Return the tokens and costs of the asked runs by run, span type, label and quarter of an hour."""
    return [*map(TimedSum._make, read(connections.reading, _TIMED_SUMS, (storable(list(asked.runs)),)))]


FINE = 16
"""The number of index buckets in each bucket of a histogram."""
BOUNDS: tuple[float, ...] = (
    *(BOUNDS_MS[0] * number / FINE for number in range(1, FINE)),
    *(low * (high / low) ** (number / FINE) for low, high in pairwise(BOUNDS_MS) for number in range(FINE)),
    BOUNDS_MS[-1],
)
"""The lower bounds of all buckets but the first, in milliseconds. The bounds of histograms are among them."""

GROUP = "hashtextextended(s.schema_name || E'\\x1f' || coalesce(s.label, ''), 0)"
AT = "coalesce(s.started_at, s.inserted_at)"
_BOUNDS = ", ".join(map(repr, BOUNDS))
FACT = (
    f"{AT} as at, coalesce(s.duration_ms, 0) as ms, {GROUP} as grp, (case when s.status = 'cancelled' then {CANCELLED} "
    f"else width_bucket(coalesce(s.duration_ms, 0), array[{_BOUNDS}]::double precision[]) end)::smallint as bucket, "
    f"{FAILED} as failed, s.cost_usd as cost, s.input_tokens, s.output_tokens, s.agent_instance_id"
)
"""The columns of `index_facts`, computed from a finished span, `s`."""
COLUMNS = "at, ms, grp, bucket, failed, cost, input_tokens, output_tokens, agent_instance_id"


_ADDED = ", ".join(f"{used} = {_plus(f'index_runs.{used}', f'excluded.{used}')}" for used in _USES_OF_RUN)
_TAKE = f"""
with fresh as materialized (
    select {FACT}, s.schema_name, coalesce(s.label, '') as label, s.status, s.is_aggregate
    from finished_spans s where {{0}}
), facts as (
    insert into index_facts ({COLUMNS}) select {COLUMNS} from fresh order by grp, bucket, ms
), groups as (
    insert into index_groups (grp, schema_name, label, is_aggregate)
    select grp, schema_name, label, max(is_aggregate) from fresh group by 1, 2, 3
    on conflict (grp) do update set is_aggregate = excluded.is_aggregate
    where excluded.is_aggregate > index_groups.is_aggregate
)
insert into index_runs (agent_instance_id, spans, failed, input_tokens, output_tokens, cost)
select agent_instance_id, count(*), count(*) filter (where failed), sum(input_tokens) {_USED},
       sum(output_tokens) {_USED}, sum(cost) {_USED} from fresh group by 1
on conflict (agent_instance_id) do update set spans = index_runs.spans + excluded.spans,
failed = index_runs.failed + excluded.failed, {_ADDED}
"""
_TABLES = ("index_facts", "index_runs")


class Numbers(Part):
    """The part of the index with the numbers of finished spans, for statistics and for sums of runs."""

    name = "numbers"
    of_runs = _TABLES
    of_all = ("index_groups",)
    statements = (_TAKE, *_TABLES)

    def take(self, connection: Connection, condition: str, values: Sequence[object]) -> None:
        """Add the numbers of the finished spans for which a condition holds."""
        connection.execute(_TAKE.format(condition), values)


def numbers_of(connections: Connections) -> Numbers:
    """Return the part of the index with the numbers, with the sizes of these connections."""
    tuning = connections.tuning
    return Numbers(tuning.postgres_numbers_batch_spans, tuning.postgres_numbers_late_spans)


PERCENTS = (50, 95, 99)
_LATE_FACTS = f"select {FACT} from finished_spans s where"
_FACTS = f"select {COLUMNS} from index_facts s where"
_CELLS = """
select grp, bucket, count(*), count(*) filter (where failed), sum(ms), max(ms), sum(input_tokens)::bigint,
       sum(output_tokens)::bigint, sum(cost) from ({0}) f group by 1, 2
"""
_GROUPS = "select grp, schema_name, label, is_aggregate from index_groups"
_LATE_GROUPS = f"""
select distinct {GROUP}, s.schema_name, coalesce(s.label, ''), s.is_aggregate from finished_spans s where {{0}}
"""
_OPEN = """
select s.schema_name, coalesce(s.label, ''), count(*), max(s.is_aggregate), sum(s.input_tokens)::bigint,
       sum(s.output_tokens)::bigint, sum(s.cost_usd) from open_spans s where true{0} group by 1, 2
"""
_PLACES = """
select w.number, (array_agg(f.ms order by f.ms))[w.place]
from unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[]) w(number, grp, bucket, place)
join ({0}) f on f.grp = w.grp and f.bucket = w.bucket group by w.number, w.place
"""
_HISTOGRAM = tuple(bisect_right(BOUNDS_MS, low) for low in (0.0, *BOUNDS))
"""For each index bucket, the histogram bucket that contains it."""


_Source = tuple[str, Sequence[object]]
"""A SELECT of facts, and its values."""


def span_stats(connections: Connections, asked: SpanStats) -> list[Stat]:
    """Return the statistics of the asked spans, in any order: of indexed spans from the index, else from the spans."""
    bounds = [(sign, bound) for sign, bound in ((">=", asked.since), ("<", asked.until)) if bound is not None]
    values: list[object] = [bound for _, bound in bounds]
    wanted = ""
    if asked.runs is not None:
        wanted = " and s.agent_instance_id = any(%s)"
        values.append(storable(list(asked.runs)))
    of_index, of_spans = (
        "".join(f" and {compared(at, sign, bound)}" for sign, bound in bounds) + wanted for at in ("s.at", AT)
    )
    with current(connections, numbers_of(connections), asked.progress) as (connection, cursor):
        is_late, rewritten = late(cursor)
        sources: list[_Source] = [(f"{_LATE_FACTS} {is_late}{of_spans}", [*rewritten, *values])]
        names = [Statement(_LATE_GROUPS.format(is_late), rewritten)]
        if cursor is not None:
            kept = "s.agent_instance_id <> all(%s)" if rewritten else "true"
            sources.append((f"{_FACTS} {kept}{of_index}", [*rewritten, *values]))
            names.append(Statement(_GROUPS))
        groups: Groups = {}
        named = [name for found in rows_of_each(connection, names) for name in found]
        used_sources = [source for source in sources if _add_finished(connection, groups, named, source)]
        for name, label, spans, is_aggregate, *used in rows_of(connection, _OPEN.format(of_spans), values):
            for group in groups_of(groups, name, label):
                group.add_open(spans)
                group.add_used(used)
                group.is_aggregate = group.is_aggregate or bool(is_aggregate)
        found = _percentiles(connection, groups, used_sources)
    return [_stat(*key, group, found) for key, group in groups.items()]


_USERS = "select distinct s.agent_instance_id from index_facts s where s.grp = any(%s)"
_OTHER_USERS = """
select agent_instance_id, schema_name, label from finished_spans s where {0} and label <> ''
union select agent_instance_id, schema_name, label from open_spans where label <> ''
"""


def used(connections: Connections, asked: Used) -> frozenset[str]:
    """Return the ids of the runs with a span of the asked types and label."""
    with current(connections, numbers_of(connections), asked.progress) as (connection, cursor):
        is_late, rewritten = late(cursor)
        others = rows_of(connection, _OTHER_USERS.format(is_late), rewritten)
        found = {run for run, name, label in others if asked.includes(name, label)}
        if cursor is not None:
            groups = [group for group, name, label, _ in rows_of(connection, _GROUPS) if asked.includes(name, label)]
            found |= {run for (run,) in rows_of(connection, _USERS, (groups,)) if run not in rewritten}
    return frozenset(found)


def _add_finished(
    connection: Connection, groups: Groups, names: Sequence[tuple[int, str, str, int]], source: _Source
) -> bool:
    """Add the spans of a source to the groups; return whether the source has any spans."""
    sql, values = source
    named = {id: (name, label) for id, name, label, _ in names}
    aggregates = {id for id, *_, is_aggregate in names if is_aggregate}
    cells = rows_of(connection, _CELLS.format(sql), values)
    for id, bucket, spans, failed, ms, longest, *used in cells:
        for group in groups_of(groups, *named[id]):
            group.add_cell(id, bucket, spans, failed, ms, longest)
            group.add_used(used)
            group.is_aggregate = group.is_aggregate or id in aggregates
    return bool(cells)


def _percentiles(connection: Connection, groups: Groups, sources: Sequence[_Source]) -> dict[tuple[int, int], float]:
    """Return the duration of each percentile, by group and percent, of the groups with complete or failed spans."""
    numbers: dict[tuple[int, int], int] = {}
    asked: list[tuple[int, int, int, int]] = []
    for group in groups.values():
        for percent in PERCENTS:
            found = group.place(percent)
            if found is not None:
                bucket, place = found
                number = numbers.setdefault((id(group), percent), len(numbers))
                asked += [(number, each, bucket, place + 1) for each in group.ids]
    if not asked:
        return {}
    columns = [list(column) for column in zip(*asked, strict=True)]
    facts = " union all ".join(sql for sql, _ in sources)
    by_number = dict(
        rows_of(connection, _PLACES.format(facts), (*columns, *(v for _, parameters in sources for v in parameters)))
    )
    return {key: by_number[number] for key, number in numbers.items()}


def _stat(schema_name: str, label: str | None, group: SpanGroup, percentiles: dict[tuple[int, int], float]) -> Stat:
    histogram = [0] * (len(BOUNDS_MS) + 1)
    for bucket, spans in group.ran.items():
        histogram[_HISTOGRAM[bucket]] += spans
    return group.stat(schema_name, label, lambda percent: percentiles.get((id(group), percent)), tuple(histogram))


ANSWERS: Mapping[type[Question[Any]], Callable[[Connections, Any], Any]] = {
    RunsWhere: runs_where,
    BriefsWhere: briefs_where,
    SpanStats: span_stats,
    RunSums: run_sums,
    TimedSums: timed_sums,
    FailureSums: failure_sums,
    StepUses: step_uses,
    Used: used,
}
"""The function for each type of question."""
