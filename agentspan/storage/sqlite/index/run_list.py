"""The runs that match a filter, with their sums: from the index, in SQL."""

import sqlite3

from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.answers import RunBrief, RunList, RunSummary, RunTotals
from agentspan.storage.questions import BriefsWhere, RunsWhere
from agentspan.storage.run_filter import RunFilter, RunSort, has_meta, is_said_in
from agentspan.storage.sqlite.index import wanted_runs
from agentspan.storage.sqlite.index.span_sums import USED
from agentspan.storage.sqlite.statements import column_of

OPEN_SUMS = f"""
select s.agent_instance_id as id, count(*) as spans, sum(input_tokens) filter (where {USED}) as input_tokens,
       sum(output_tokens) filter (where {USED}) as output_tokens, sum(cost_usd) filter (where {USED}) as cost
from main.open_spans o cross join recorded.agent_spans s where s.rowid = o.row group by 1
"""
RUNS = f"""
from recorded.agent_instances i
left join main.runs r on r.id = i.id
left join ({OPEN_SUMS}) o on o.id = i.id
left join recorded.agents a on a.id = i.agent_id
left join recorded.agent_versions v on v.id = i.agent_version_id
"""


def _both(column: str) -> str:
    """Return the SQL of the sum over finished and open spans; null if neither has a value."""
    return f"case when o.{column} is null then r.{column} else ifnull(r.{column}, 0) + o.{column} end"


SUMS = (
    "ifnull(r.spans, 0) + ifnull(o.spans, 0) as spans, ifnull(r.failed, 0) as failed, ifnull(o.spans, 0) as open, "
    f"{_both('input_tokens')} as input_tokens, {_both('output_tokens')} as output_tokens, {_both('cost')} as cost, "
    "i.duration_ms"
)
COLUMNS = ", ".join(f"i.{column}" for column in AgentInstanceRow._fields)
OWN_TEXTS = (
    "i.id, a.name, v.external_identifier, i.external_identifier, i.metadata, i.result, i.error, i.termination_reason"
)
NAMES = "ifnull(a.name, i.agent_id), ifnull(v.external_identifier, i.agent_version_id)"
AGENTS = "select id, name from recorded.agents where name is not null"
VERSIONS = "select id, external_identifier from recorded.agent_versions where external_identifier is not null"
# Names are looked up in Python: SQLite leaves out a join of which no column is read.
BRIEFS = f"""
select i.id, i.agent_id, i.agent_version_id, i.status, i.task, coalesce(i.started_at, i.inserted_at), i.error,
       ifnull(r.spans, 0) + ifnull(o.spans, 0), ifnull(r.failed, 0), {_both("input_tokens")}, {_both("output_tokens")}
{RUNS}"""
RESULT = column_of("agent_span", "result_payload", "s", "recorded")
# The failed spans are found in the index: a file has few of them.
ERROR = f"""
(is_said_in(?, i.error, i.termination_reason) or i.id in (
  select distinct n.id from main.facts f cross join recorded.agent_spans s cross join main.runs n
  where f.failed and s.rowid = f.row and is_said_in(?, {RESULT}) and n.run = f.run))
"""
HAS_TAG = "exists (select 1 from recorded.tags t where t.agent_instance_id = i.id and t.tag = ?)"
TOKENS = (
    "case when input_tokens is null and output_tokens is null then null "
    "else ifnull(input_tokens, 0) + ifnull(output_tokens, 0) end"
)
SORTED: dict[RunSort, str] = {
    "started": "",
    "duration": "i.duration_ms desc nulls last, ",
    "cost": "cost desc nulls last, ",
    "tokens": f"{TOKENS} desc nulls last, ",
    "spans": "spans desc, ",
    "failed": "failed desc, ",
}


def runs_where(connection: sqlite3.Connection, asked: RunsWhere) -> RunList:
    """Return a page of the runs that match, and the sums over all of them.

    Args:
        connection: to the index, which is current, with the recorded file attached.
    """
    limit = -1 if asked.limit is None else asked.limit
    where, values = _restricted(connection, asked.filter)
    page = f"select {COLUMNS}, {NAMES}, {SUMS} {RUNS}{where}"
    if asked.sort == "started":
        page += " order by i.id desc"
    else:  # a sorted expression may not name the columns of the answer
        page = f"select * from ({page}) i order by {SORTED[asked.sort]}id desc"
    rows = connection.execute(f"{page} limit ? offset ?", (*values, limit, asked.offset)).fetchall()
    totals = (
        "select count(*), ifnull(sum(spans), 0), ifnull(sum(failed), 0), ifnull(sum(open), 0), "
        f"sum(input_tokens), sum(output_tokens), sum(cost), sum(duration_ms) from (select {SUMS} {RUNS}{where})"
    )
    total, *sums = connection.execute(totals, values).fetchone()
    width = len(AgentInstanceRow._fields)
    runs = [RunSummary(AgentInstanceRow._make(row[:width]), *row[width:]) for row in rows]
    return RunList(runs, total, RunTotals(*sums))


def briefs_where(connection: sqlite3.Connection, asked: BriefsWhere) -> list[RunBrief]:
    """Return all runs that match, the latest first."""
    where, values = _restricted(connection, asked.filter)
    agents, versions = (dict(connection.execute(names).fetchall()) for names in (AGENTS, VERSIONS))
    rows = connection.execute(f"{BRIEFS}{where} order by i.id desc", values)
    return [
        RunBrief(
            id,
            agent,
            agents.get(agent, agent),
            versions.get(version, version),
            status,
            task,
            began,
            error,
            spans,
            failed,
            input_tokens,
            output_tokens,
        )
        for id, agent, version, status, task, began, error, spans, failed, input_tokens, output_tokens in rows
    ]


def _restricted(connection: sqlite3.Connection, filter: RunFilter) -> tuple[str, list[str]]:
    """Make the functions and the table that the conditions of a filter need; return those, and their values."""
    if filter.ids is not None:
        wanted_runs.restrict(connection, filter.ids)
    connection.create_function("is_said_in", -1, is_said_in)
    connection.create_function("has_meta", 1, lambda metadata: has_meta(metadata, filter.meta))
    return _where(filter)


def _where(filter: RunFilter) -> tuple[str, list[str]]:
    """Return the conditions in SQL, and their values."""
    found: list[tuple[str, tuple[str, ...]]] = []
    if filter.agent is not None:
        found.append(("? in (a.name, a.id, a.external_identifier)", (filter.agent,)))
    if filter.version is not None:
        found.append(("ifnull(v.external_identifier, i.agent_version_id) = ?", (filter.version,)))
    if filter.session is not None:
        found.append(("i.session = ?", (filter.session,)))
    if filter.status is not None:
        found.append(("i.status = ?", (filter.status,)))
    if filter.since is not None:
        found.append(("coalesce(i.started_at, i.inserted_at) >= ?", (filter.since,)))
    if filter.until is not None:
        found.append(("coalesce(i.started_at, i.inserted_at) < ?", (filter.until,)))
    if filter.failed:
        found.append(("(i.status = 'failed' or r.failed > 0)", ()))
    if filter.git_commit is not None:
        found.append(("instr(i.git_commit, ?) = 1", (filter.git_commit.lower(),)))
    if filter.grep is not None:
        found.append((f"is_said_in(?, {OWN_TEXTS})", (filter.grep,)))
    if filter.meta:
        found.append(("has_meta(i.metadata)", ()))
    if filter.task is not None:
        found.append(("i.task = ?", (filter.task,)))
    found += [(HAS_TAG, (tag,)) for tag in filter.tags]
    if filter.ids is not None:
        found.append(("i.id in (select id from temp.wanted)", ()))
    if filter.error is not None:
        found.append((ERROR, (filter.error, filter.error)))
    # A shell's odd bytes are no text for SQLite.
    values = [value.encode("utf-8", "replace").decode() for _, each in found for value in each]
    conditions = " and ".join(condition for condition, _ in found)
    return f" where {conditions}" if conditions else "", values
