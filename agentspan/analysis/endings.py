"""How a run ended, from the steps that it used."""

from collections.abc import Collection

from agentspan.schemas.aggregates import built_in_part
from agentspan.schemas.signatures import Signature, ending_signature
from agentspan.storage.answers import StepUse


def ending_of(status: str, uses: Collection[StepUse]) -> Signature:
    """Return the signature of how a run ended.

    Args:
        status: the run's.
        uses: the steps that it used.
    """
    in_time = sorted(uses, key=lambda use: (use.last_at, use.schema_name, use.label or ""), reverse=True)
    step = in_time[0] if in_time else None
    tool = next((use for use in in_time if use.label and built_in_part(use.schema_name) == "tool"), None)
    model = next((use for use in in_time if use.reason is not None), None)
    return ending_signature(
        status,
        None if tool is None else tool.label,
        None if step is None else step.schema_name,
        None if model is None else model.reason,
    )
