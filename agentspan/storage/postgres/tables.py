"""The views of a schema, and the SQL functions that the views use. Each migration makes them anew."""

from agentspan.model.columns import SHOWN_OF_SPANS
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.postgres.statements import SPAN_TABLES, listed

VERSION = "select version from storage_version"

# One view over open and finished spans: conditions and orders still use the indexes of both tables.
_ALL_SPANS = " union all ".join(f"select {listed(AgentSpanRow._fields)} from {table}" for table in SPAN_TABLES)

# JSON may have an escaped NUL, or half of a surrogate pair, which no text of PostgreSQL can hold: U+FFFD replaces them.
# A text that is no JSON gives null. Neither may fail a whole SELECT.
_TEXT_AT = r"""
create or replace function json_text_at(text text, variadic path text[]) returns text language plpgsql immutable as $$
begin
    return text::json #>> path;
exception when others then
    begin
        return regexp_replace(text, '\\u(0000|d[89a-f]..)', '\ufffd', 'gi')::json #>> path;
    exception when others then
        return null;
    end;
end $$
"""
_TYPE_AT = """
create or replace function json_type_at(text text, variadic path text[]) returns text language plpgsql immutable as $$
begin
    return json_typeof(text::json #> path);
exception when others then
    return null;
end $$
"""

# A span that sums up others repeats what they used: counting both would double the run's tokens and cost.
_USED = "filter (where s.is_aggregate = 0)"
_RUNS = f"""
select i.id as run, a.name as agent, v.external_identifier as version, i.status, i.started_at, i.finished_at,
       i.duration_ms, count(s.id) as spans, count(s.id) filter (where s.status = 'failed') as failed_spans,
       sum(s.input_tokens) {_USED} as input_tokens, sum(s.output_tokens) {_USED} as output_tokens,
       sum(s.cost_usd) {_USED} as cost_usd, json_text_at(i.error, 'message') as error, i.metadata, i.result,
       i.closed_by, i.closed_at, i.session, i."user", i.task,
       (select string_agg(tag, ', ' order by tag) from tags t where t.agent_instance_id = i.id) as tags
from agent_instances i
join agents a on a.id = i.agent_id
join agent_versions v on v.id = i.agent_version_id
left join agent_spans s on s.agent_instance_id = i.id
group by i.id, a.id, v.id
"""
_SPANS = f"""
select a.name as agent, {", ".join(f"s.{column} as {name}" for column, name in SHOWN_OF_SPANS.items())},
       case when s.status = 'failed' or s.result_payload like '%"error"%' then coalesce(
           json_text_at(s.result_payload, 'error', 'message'),
           case when json_type_at(s.result_payload, 'error') = 'string'
                then json_text_at(s.result_payload, 'error') end,
           case when s.status = 'failed' and json_type_at(s.result_payload, 'error_type') = 'string'
                then json_text_at(s.result_payload, 'message') end
       ) end as error,
       s.payload, s.result_payload
from agent_spans s join agents a on a.id = s.agent_id
"""
FUNCTIONS = (_TEXT_AT, _TYPE_AT)
VIEWS = {"agent_spans": _ALL_SPANS, "runs": _RUNS, "spans": _SPANS}
