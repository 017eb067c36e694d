"""An index beside a file: sums and words of its spans. Its modules are imported with the first question for it."""

from typing import Any

from agentspan.storage.questions import (
    BriefsWhere,
    FailureSums,
    Question,
    RunSums,
    RunsWhere,
    Search,
    SpanStats,
    StepUses,
    Used,
)

INDEXED: frozenset[type[Question[Any]]] = frozenset(
    {RunsWhere, BriefsWhere, SpanStats, RunSums, FailureSums, StepUses, Used, Search}
)
"""The questions that it answers."""
