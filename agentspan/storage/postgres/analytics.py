"""Answers questions about many runs by SQL. The answers equal those of storage.row_by_row."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from agentspan.model.rows import AgentInstanceRow
from agentspan.schemas import signatures
from agentspan.schemas.signatures import ErrorParts, Signature
from agentspan.storage.answers import (
    BOUNDS_MS,
    FailureSum,
    FoundSpan,
    RunBrief,
    RunList,
    RunSum,
    RunSummary,
    RunTotals,
    Stat,
    StepUse,
    brief_of,
)
from agentspan.storage.postgres import searching
from agentspan.storage.postgres.connection import Connection, rows_of, storable
from agentspan.storage.postgres.connections import Connections
from agentspan.storage.postgres.index import words
from agentspan.storage.postgres.index.numbers import Numbers, statistics
from agentspan.storage.postgres.index.state import Cursor, current
from agentspan.storage.postgres.index.words import Words
from agentspan.storage.postgres.statements import FAILED, compared, quoted
from agentspan.storage.questions import (
    BriefsWhere,
    FailureSums,
    Question,
    RunFilter,
    RunSort,
    RunSums,
    RunsWhere,
    Search,
    SpanStats,
    StepUses,
)

_USED = "filter (where is_aggregate = 0)"
_SUMMED = "agent_instance_id, status, input_tokens, output_tokens, cost_usd, is_aggregate"


def _summed(spans: str) -> str:
    return f"""
select agent_instance_id as id, count(*) as spans, count(*) filter (where status = 'failed') as failed,
       count(*) filter (where status in ('pending', 'active')) as open,
       (sum(input_tokens) {_USED})::bigint as input_tokens, (sum(output_tokens) {_USED})::bigint as output_tokens,
       sum(cost_usd) {_USED} as cost
from {spans} group by 1
"""


def _both(column: str) -> str:
    """Return the SQL that adds a column of `x` and `l`. Null counts as 0, unless both are null."""
    return f"case when l.{column} is null then x.{column} else coalesce(x.{column}, 0) + l.{column} end as {column}"


_ALL = _summed("agent_spans")
_LATE = _summed(f"(select {_SUMMED} from finished_spans s where {{0}} union all select {_SUMMED} from open_spans) late")
_INDEXED = f"""
select coalesce(x.id, l.id) as id, coalesce(x.spans, 0) + coalesce(l.spans, 0) as spans,
       coalesce(x.failed, 0) + coalesce(l.failed, 0) as failed, coalesce(l.open, 0) as open,
       {_both("input_tokens")}, {_both("output_tokens")}, {_both("cost")}
from (
    select agent_instance_id as id, spans, failed, input_tokens, output_tokens, cost from index_runs{{1}}
) x full join ({_LATE}) l on l.id = x.id
"""


def sums_of_runs(cursor: Cursor | None) -> tuple[str, list[object]]:
    """Return the SELECT that sums up the spans of each run, and its values.

    Args:
        cursor: the position of the numbers index in the snapshot in which the SELECT is executed; None reads all spans.
    """
    if cursor is None:
        return _ALL, []
    if not cursor.rewritten:
        return _INDEXED.format(cursor.pending, ""), []
    late = f"{cursor.pending} or s.agent_instance_id = any(%s)"
    rewritten = list(cursor.rewritten)
    return _INDEXED.format(late, " where agent_instance_id <> all(%s)"), [rewritten, rewritten]


_FAILURES = f"""
select agent_instance_id, id, parent_span_id, coalesce(started_at, inserted_at), schema_name, label, result_payload
from agent_spans where agent_instance_id = any(%s) and {FAILED} order by agent_instance_id, id
"""
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


def failure_sums(connection: Connection, asked: FailureSums) -> list[FailureSum]:
    """Return the failures of the asked runs, summed up by run and signature."""
    rows = rows_of(connection, _FAILURES, (storable(list(asked.run_ids)),))
    return [found for run, failed in groupby(rows, key=lambda row: row[0]) for found in _sums(run, list(failed))]


def step_uses(connection: Connection, asked: StepUses) -> list[StepUse]:
    """Return how often the asked runs used each span type and label."""
    return [*map(StepUse._make, rows_of(connection, _USES, (storable(list(asked.run_ids)),)))]


def _sums(run: str, failed: list[Any]) -> list[FailureSum]:
    """Return one run's failures, summed up by signature. Skips a failure that only passes on a child's error."""
    errors: dict[str, ErrorParts] = {id: signatures.error_parts(result) for _, id, *_, result in failed}
    passing = {
        parent for _, id, parent, *_ in failed if parent in errors and signatures.passes_on(errors[parent], errors[id])
    }
    sums: dict[Signature, FailureSum] = {}
    for _, id, _, at, schema_name, label, _ in failed:
        if id in passing:
            continue
        signature = signatures.named(signatures.key_of(schema_name, label, errors[id]))
        before = sums.get(signature) or FailureSum(run, signature, 0, at, at, id)
        sums[signature] = FailureSum(
            run, signature, before.spans + 1, min(before.first_at, at), max(before.last_at, at), max(before.span_id, id)
        )
    return list(sums.values())


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
# Narrow rows are selected first: else the sort for the percentiles would write payloads to disk.
_NARROW = f"""
with s as materialized (
    select schema_name, label, status, {FAILED} as failed, {_DURATION} as ms, input_tokens, output_tokens, cost_usd,
           is_aggregate
    from agent_spans where true{{0}}
)"""
# Each span counts in the group of its type and, if it has a label, in the group of its type and label.
_STATS = f"""{_NARROW}
select schema_name, case when grouping(label) = 0 then label end, count(*), count(*) filter (where failed),
       count(*) filter (where status = 'cancelled'), count(*) filter (where status in ('pending', 'active')),
       percentile_disc(array[0.5, 0.95, 0.99]) within group (order by ms) filter (where {_RAN}),
       max(ms) filter (where {_RAN}), coalesce(sum(ms) filter (where {_RAN}), 0.0),
       sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cost_usd), max(is_aggregate)
from s group by grouping sets ((schema_name), (schema_name, label)) having grouping(label) = 1 or label <> ''
"""
_HISTOGRAMS = f"""
select schema_name, label, width_bucket({_DURATION}, %s::double precision[]), count(*)
from agent_spans where {_RAN}{{0}} group by 1, 2, 3
"""
_RUN_SUMS = f"""
select agent_instance_id, schema_name, nullif(label, ''), count(*), count(*) filter (where {FAILED}),
       sum({_DURATION}), sum(input_tokens)::bigint, sum(output_tokens)::bigint, sum(cost_usd), max(is_aggregate) = 1
from agent_spans where agent_instance_id = any(%s) and {_RAN} group by 1, 2, 3
"""
_HAS_TAG = "exists (select 1 from tags t where t.agent_instance_id = i.id and t.tag = %s)"
_FILTERED_HERE = frozenset(
    {"agent", "version", "session", "status", "since", "until", "failed", "grep", "git_commit", "task", "tags", "ids"}
)
_FILTERED_ELSEWHERE = {name: value for name, value in RunFilter()._asdict().items() if name not in _FILTERED_HERE}
"""Filters that are applied row by row, with their defaults."""


class PostgresAnalytics:
    """Answers questions about many runs.

    Args:
        connections: the connections of the storage.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        tuning = connections.tuning
        self._numbers = Numbers(tuning.postgres_numbers_batch_spans, tuning.postgres_numbers_late_spans)
        self._words = Words(tuning.postgres_words_batch_spans, tuning.postgres_words_late_spans)

    def runs_where(self, asked: RunsWhere) -> RunList | None:
        """Return a page of the matching runs, and sums over all of them; None for a filter that SQL does not apply."""
        if any(getattr(asked.filter, name) != default for name, default in _FILTERED_ELSEWHERE.items()):
            return None
        where, values = _where(asked.filter)
        with current(self._connections, self._numbers, asked.progress) as (connection, cursor):
            summed, of_sums = sums_of_runs(cursor)
            sql = _FOUND.format(where, summed, _SORTED[asked.sort])
            rows = rows_of(connection, sql, (*of_sums, *values, asked.limit, asked.offset))
        total, *sums = rows[0][:_TOTALS]
        width = _TOTALS + len(AgentInstanceRow._fields)
        found = [row for row in rows if row[_TOTALS] is not None]  # beyond the last page, one row has totals only
        runs = [RunSummary(AgentInstanceRow._make(row[_TOTALS:width]), *row[width:]) for row in found]
        return RunList(runs, total, RunTotals(*sums))

    def briefs_where(self, asked: BriefsWhere) -> list[RunBrief] | None:
        """Return all matching runs in brief; None for a filter that SQL does not apply."""
        found = self.runs_where(RunsWhere(asked.filter, progress=asked.progress))
        return None if found is None else [*map(brief_of, found.runs)]

    def span_stats(self, asked: SpanStats) -> list[Stat]:
        """Return statistics of spans, from the index if it can be used."""
        wanted = None if asked.runs is None else storable(list(asked.runs))
        with current(self._connections, self._numbers, asked.progress) as (connection, cursor):
            if cursor is not None:
                return statistics(connection, cursor, asked.since, asked.until, wanted)
            return self._from_all_spans(connection, asked.since, asked.until, wanted)

    def _from_all_spans(
        self, connection: Connection, since: str | None, until: str | None, runs: list[str] | None
    ) -> list[Stat]:
        bounds = [(sign, bound) for sign, bound in ((">=", since), ("<", until)) if bound is not None]
        window = "".join(f" and {compared('coalesce(started_at, inserted_at)', sign, bound)}" for sign, bound in bounds)
        values: list[object] = [bound for _, bound in bounds]
        if runs is not None:
            window += " and agent_instance_id = any(%s)"
            values.append(runs)
        found = rows_of(connection, _STATS.format(window), values)
        cells = rows_of(connection, _HISTOGRAMS.format(window), [list(BOUNDS_MS), *values])
        histograms: dict[tuple[str, str | None], list[int]] = {}
        for name, label, bucket, count in cells:
            for key in ((name, None), (name, label)) if label else ((name, None),):
                histograms.setdefault(key, [0] * (len(BOUNDS_MS) + 1))[bucket] += count
        return [_stat(row, histograms.get((row[0], row[1]))) for row in found]

    def search(self, asked: Search) -> tuple[list[FoundSpan], int]:
        """Return a page of the spans whose text, without repeats of earlier spans, has all words; and their number."""
        asked = asked.changed(runs=None if asked.runs is None else storable(list(asked.runs)))
        with current(self._connections, self._words, asked.progress) as (connection, cursor):
            if cursor is not None:
                return words.search(connection, cursor, asked, tuning=self._connections.tuning)
            return searching.search(connection, asked)

    def run_sums(self, asked: RunSums) -> list[RunSum]:
        """Return the sums of the asked runs by run, span type and label."""
        with self._connections.reading() as connection:
            return [*map(RunSum._make, rows_of(connection, _RUN_SUMS, (storable(list(asked.runs)),)))]

    def failure_sums(self, asked: FailureSums) -> list[FailureSum]:
        """Return the failures of the asked runs, summed up by run and signature."""
        with self._connections.reading() as connection:
            return failure_sums(connection, asked)

    def step_uses(self, asked: StepUses) -> list[StepUse]:
        """Return how often the asked runs used each span type and label."""
        with self._connections.reading() as connection:
            return step_uses(connection, asked)


ANSWERS: Mapping[type[Question[Any]], Callable[[PostgresAnalytics, Any], Any]] = {
    RunsWhere: PostgresAnalytics.runs_where,
    BriefsWhere: PostgresAnalytics.briefs_where,
    SpanStats: PostgresAnalytics.span_stats,
    Search: PostgresAnalytics.search,
    RunSums: PostgresAnalytics.run_sums,
    FailureSums: PostgresAnalytics.failure_sums,
    StepUses: PostgresAnalytics.step_uses,
}
"""The method for each type of question. It returns None for a question that SQL cannot answer."""


def _stat(row: Sequence[Any], histogram: list[int] | None) -> Stat:
    name, label, count, failed, cancelled, are_open, percentiles, longest, total, *used, is_aggregate = row
    p50, p95, p99 = percentiles or (None, None, None)
    input_tokens, output_tokens, cost_usd = used
    return Stat(
        name,
        label,
        count,
        failed,
        cancelled,
        are_open,
        p50,
        p95,
        p99,
        longest,
        total,
        tuple(histogram or [0] * (len(BOUNDS_MS) + 1)),
        input_tokens,
        output_tokens,
        cost_usd,
        bool(is_aggregate),
    )


def _where(filter: RunFilter) -> tuple[str, list[object]]:
    """Return a filter as a WHERE clause, and its values."""
    found: list[tuple[str, tuple[str, ...]]] = []
    if filter.agent is not None:
        found.append(("%s in (a.name, a.id, a.external_identifier)", (filter.agent,)))
    if filter.version is not None:
        found.append(("coalesce(v.external_identifier, i.agent_version_id) = %s", (filter.version,)))
    for column, value in (("session", filter.session), ("status", filter.status), ("task", filter.task)):
        if value is not None:
            found.append((f"i.{column} = %s", (value,)))
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
