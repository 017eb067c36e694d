"""The types of the page's JSON, static/types.d.ts: they have the members that Python writes, no more and no fewer."""

import re
from collections.abc import Collection
from dataclasses import fields
from typing import Any

import pytest

from agentspan.analysis import by_name
from agentspan.analysis.calls import File, Shown
from agentspan.analysis.context_diff import since_previous
from agentspan.analysis.costs import Chapter
from agentspan.analysis.messages import Call, Message, Part
from agentspan.analysis.runs import Rest
from agentspan.database import Database
from agentspan.model.rows import AgentSpanRow, Violation
from agentspan.storage.answers import SpanCounts
from agentspan.storage.sums import Stat
from agentspan.viewer import data, export
from agentspan.viewer.address import Address
from agentspan.viewer.answer import answer
from agentspan.viewer.conversation import Section
from agentspan.viewer.listing import found_steps, listing, unsummed
from agentspan.viewer.turns import Turn, TurnCall

INTERFACE = re.compile(r"^interface (\w+)(?: extends (\w+))? \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
MEMBER = re.compile(r"^  (\w+)\??:", re.MULTILINE)


def members(name: str) -> set[str]:
    """The members of an interface, with those that it inherits."""
    found = {match[1]: (match[2], match[3]) for match in INTERFACE.finditer(export.text("types.d.ts"))}
    parent, body = found[name]
    return set(MEMBER.findall(body)) | (members(parent) if parent else set())


@pytest.fixture
def written(db: Database) -> dict[str, Any]:
    """JSON that Python writes, by the name of its type; of a run with an llm span that does not match its schema."""
    budget = {"budget": {"usd": 5}}
    run = db.agent_instances.register("a", agent_version={}, agent_schema_version={}, metadata=budget).id
    db.agent_instances.start(run)
    payload = {"model": 7, "messages": [{"role": "user", "content": "Hello"}]}
    span = db.agent_spans.create(run, "llm", "complete", payload, {"text": "Hi"}).id
    db.agent_spans.create(run, "message", "complete", {"role": "user", "content": "Go on"}, {})
    db.agent_spans.create(run, "tool", "failed", {"name": "x"}, {"error": "no"})
    db.scores.record(run, "reward", 0)
    trial: Any = {"purpose": "eval", "task": "late", "metadata": {"trial": 1}}
    failed = db.agent_instances.register("a", agent_version={}, agent_schema_version={}, **trial).id
    db.agent_instances.start(failed)
    db.agent_spans.create(failed, "tool", "failed", {"name": "x"}, {"error": "no"})
    db.agent_instances.finish(failed, "failed")
    row, stored = by_name.find_run(db.storage, run), by_name.find_span(db.storage, span)
    assert isinstance(stored, AgentSpanRow)
    columns, statistics = data.columns(db.storage, row), data.statistics(db.storage, run)
    detail, page = data.detail(db.storage, stored), listing(db.storage, Address())
    found = found_steps(db.storage, Address((("grep", "hello"),)))
    return {
        "Run": (facts := data.run_facts(db.storage, row)),
        "Score": facts["scores"][0],
        "Budget": facts["budget"],
        "CaseOfTrial": (case := data.run_facts(db.storage, by_name.find_run(db.storage, failed))["case"]),
        "CaseRun": case["trials"][0],
        "Why": data.why(db.storage, by_name.find_run(db.storage, failed))["why"],
        "OwnTimes": data.own_times(db.storage, run),
        "SpanChunk": columns,
        "SentColumns": columns["columns"],
        "SpanType": columns["types"][0],
        "Failure": columns["failures"][0],
        "SpanDetail": detail,
        "SpanMessage": detail["messages"][0],
        "ContextChange": (context := since_previous(db.storage, stored)),
        "ContextSource": context["sources"][0],
        "ContextElement": context["changes"][0],
        "Statistics": statistics,
        "Stat": statistics["stats"][0],
        "PromptUse": statistics["prompts"][0],
        "Answer": (happened := answer(db.storage, Address(), with_causes=True)),
        "AnswerPart": happened["parts"][0],
        "AnswerCause": happened["causes"][0],
        "AnswerBar": happened["bars"][0],
        "RunListPage": page,
        "RunRow": page["runs"][0],
        "FoundSteps": found,
        "FoundStep": found["steps"][0],
    }


@pytest.mark.parametrize(
    "name",
    [
        "Run", "SpanChunk", "SentColumns", "SpanType", "Failure", "SpanDetail", "SpanMessage", "Statistics", "Stat",
        "RunListPage", "RunRow", "Answer", "AnswerPart", "AnswerCause", "AnswerBar",
        "FoundSteps", "FoundStep", "ContextChange", "ContextSource", "ContextElement", "Score", "Why", "OwnTimes",
        "CaseOfTrial", "CaseRun", "PromptUse",
    ],
)  # fmt: skip
def test_the_types_describe_the_json(written: dict[str, Any], name: str) -> None:
    assert members(name) == set(written[name])


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("SpanCounts", SpanCounts._fields),
        ("Turn", Turn.__annotations__),
        ("Section", Section.__annotations__),
        ("ShownCall", Shown._fields),
        ("Chapter", {*Chapter._fields, "turn"}),
        ("EditedFile", File._fields),
        ("Message", Message.__annotations__),
        ("Call", Call.__annotations__),
        ("TurnCall", TurnCall.__annotations__),
        ("Part", Part.__annotations__),
        ("Violation", Violation._fields),
        ("StatRest", Rest._fields),
        ("Stat", {"kind", "left", *(field.name for field in fields(Stat))}),
    ],
)
def test_the_types_describe_the_rows(name: str, names: Collection[str]) -> None:
    assert members(name) == set(names)


def test_the_list_has_the_same_form_while_it_is_added_up(db: Database) -> None:
    assert members("RunListPage") == set(unsummed(db.storage, Address()))
