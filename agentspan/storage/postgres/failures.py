"""Failed spans by signature, and the steps that runs used: read from the failed spans, and summed up by PostgreSQL."""

from itertools import groupby
from typing import Any

from agentspan.schemas import signatures
from agentspan.schemas.signatures import ErrorParts, Signature
from agentspan.storage.answers import FailureSum, StepUse
from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import rows_of, storable
from agentspan.storage.postgres.statements import FAILED
from agentspan.storage.questions import FailureSums, StepUses

_FAILURES = f"""
select agent_instance_id, id, parent_span_id, coalesce(started_at, inserted_at), schema_name, label, result_payload
from agent_spans where agent_instance_id = any(%s) and {FAILED} order by agent_instance_id, id
"""
_IS_LLM = """(schema_name = 'llm' or strpos(schema_name, ':') > 0
and starts_with(substr(schema_name, strpos(schema_name, ':') + 1) || ':', 'llm:'))"""
_REASON = f"""case when {_IS_LLM} and json_type_at(result_payload, 'finish_reason') = 'string'
then json_text_at(result_payload, 'finish_reason') collate "C" end"""
# The reason of the latest span that has one.
_USES = f"""
select run, schema_name, label, count(*), count(*) filter (where failed), max(at),
       (array_agg(reason order by at desc, reason desc) filter (where reason is not null))[1]
from (
    select agent_instance_id as run, schema_name, nullif(label, '') as label, {FAILED} as failed, {_REASON} as reason,
           (extract(epoch from coalesce(started_at, inserted_at)) * 1000000)::bigint as at
    from agent_spans where agent_instance_id = any(%s) and status not in ('pending', 'active')
) used group by 1, 2, 3
"""


def failure_sums(connection: Connection, asked: FailureSums) -> list[FailureSum]:
    """Return the failures of these runs by run and signature."""
    rows = rows_of(connection, _FAILURES, (storable(list(asked.run_ids)),))
    return [found for run, failed in groupby(rows, key=lambda row: row[0]) for found in _sums(run, list(failed))]


def step_uses(connection: Connection, asked: StepUses) -> list[StepUse]:
    """Return how often these runs used each type and label."""
    return [*map(StepUse._make, rows_of(connection, _USES, (storable(list(asked.run_ids)),)))]


def _sums(run: str, failed: list[Any]) -> list[FailureSum]:
    """Return the failures of one run by signature, without those that only pass on a child's error."""
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
