"""An index beside a file: sums and words of its spans. Its modules are imported with the first question for it."""

from typing import Any

from agentspan.storage.questions import (
    BriefsWhere,
    CachedCalls,
    FailureSums,
    Question,
    RunSums,
    RunsWhere,
    Search,
    SpanStats,
    StepUses,
    TimedSums,
    Used,
)

INDEXED: frozenset[type[Question[Any]]] = frozenset(
    {RunsWhere, BriefsWhere, SpanStats, RunSums, TimedSums, FailureSums, StepUses, Used, CachedCalls, Search}
)
"""The questions that it answers."""
