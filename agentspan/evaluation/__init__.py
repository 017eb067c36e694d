"""Evaluations: run cases through an agent, score its runs, and compare them with those of another version.

from agentspan.evaluation import cases, exact

print(agentspan.evaluate(answer, cases("failures.jsonl"), [exact], name="booking", version="2.1"))
"""

from agentspan.evaluation.answers import Evaluation, Trial
from agentspan.evaluation.case_files import Case, cases
from agentspan.evaluation.evaluating import evaluate
from agentspan.evaluation.plan import Plan
from agentspan.evaluation.scorers import calls, contains, exact, json_schema, under
from agentspan.evaluation.verdicts import Comparison

__all__ = [
    "Case", "Comparison", "Evaluation", "Plan", "Trial", "calls", "cases", "contains", "evaluate", "exact",
    "json_schema", "under",
]  # fmt: skip
