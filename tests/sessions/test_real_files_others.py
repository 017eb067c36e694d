"""Real files of Inspect, llm and OpenAI's Agents SDK: what was counted in them independently is what is decoded."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.cli import main
from agentspan.sessions import inspect_logs, llm_logs, openai_agents
from agentspan.sessions.formats import Format, Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.reading import lines_of
from tests.sessions.stored import stored

FOLDER = os.environ.get("AGENTSPAN_TEST_SESSIONS")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="needs AGENTSPAN_TEST_SESSIONS")
FORMS = {"inspect": inspect_logs.FORMATS[0], "llm": llm_logs.FORMATS[0], "openai-agents": openai_agents.FORMATS[0]}
TYPES = {"model": "llm", "tool": "tool", "score": "evaluation", "input": "human"}
"""The events of Inspect that are one step each, and the types of these steps."""


def facts() -> dict[str, Any]:
    """Return the facts about files, by their path."""
    found: dict[str, Any] = json.loads(Path(FOLDER or "", "manifest.json").read_text())["facts"] if FOLDER else {}
    return found


def files(*folders: str) -> list[str]:
    """Return the files below folders of the data."""
    return [name for name in facts() if name.startswith(tuple(f"{folder}/" for folder in folders))]


INSPECT = files("inspect", "generated/inspect")
LLM = files("generated/llm", "generated/llm-old")
AGENTS = files("generated/openai-agents")


def format_of(name: str) -> Format:
    """Return the format of a file of the data."""
    return FORMS["inspect" if name in INSPECT else "llm" if name in LLM else "openai-agents"]


def decoded(name: str) -> list[Record]:
    """Return what a file is decoded to, and check its steps."""
    path, format = Path(FOLDER or "", name), format_of(name)
    records: list[Record] = []
    if format.decode is not None:
        records += format.decode(path, None)
    else:
        assert format.lines is not None
        decoder = format.lines(Source(format.name, path))
        with path.open("rb") as file:
            for line in lines_of(file):
                records += decoder.feed(path, line.text)
        records += decoder.rest()
    steps = [record for record in records if type(record) is Step]
    keys = {(step.session, step.key) for step in steps}
    assert len(keys) == len(steps)
    assert all(step.parent is None or (step.session, step.parent) in keys for step in steps)
    assert not [record for record in records if type(record) is Unread]
    return records


def steps_in(records: list[Record]) -> Iterator[Step]:
    """Yield the steps."""
    return (record for record in records if type(record) is Step)


def sessions_in(records: list[Record]) -> dict[str, Session]:
    """Return the last state of each session."""
    return {record.id: record for record in records if type(record) is Session}


def tokens(records: list[Record]) -> dict[str, tuple[int, int]]:
    """Return the tokens in and out by model, with the provider before it where one is known."""
    sums: Counter[tuple[str, str]] = Counter()
    for step in steps_in(records):
        if step.type == "llm":
            model = "/".join(filter(None, (step.payload.get("provider"), step.payload["model"])))
            for name in ("input_tokens", "output_tokens"):
                sums[model, name] += (step.result or {}).get(name, 0)
    models = {model for model, _ in sums}
    return {model: (sums[model, "input_tokens"], sums[model, "output_tokens"]) for model in models}


@pytest.mark.parametrize("name", INSPECT)
def test_logs_of_inspect(name: str) -> None:
    fact, records = facts()[name], decoded(name)
    sessions, types = sessions_in(records), Counter(step.type for step in steps_in(records))
    has_samples = fact["samples"] > 0
    assert len(sessions) == max(1, fact["samples"]), "a log without samples is one run"
    assert {session.agent for session in sessions.values()} == {fact["task"]}
    assert tokens(records) == {
        model: (usage["input_tokens"], usage["output_tokens"]) for model, usage in fact["tokens"].items()
    }
    if has_samples:
        for event, type in TYPES.items():
            assert types[type] == fact["events"].get(event, 0), event
        assert Counter(score["name"] for each in sessions.values() for score in each.scores) == fact["scores"]
    names = [step.payload.get("name") for step in steps_in(records) if step.type == "event"]
    assert (names.count("error"), names.count("log")) == (fact["errors"], fact["events"].get("logger", 0))
    assert sum(session.outcome == "error" for session in sessions.values()) == fact["errors"]


@pytest.mark.parametrize("name", INSPECT)
def test_spans_and_steps_of_inspect_are_in_the_tree(name: str) -> None:
    fact, records = facts()[name], decoded(name)
    spans = fact["events"].get("span_begin", 0) + fact["events"].get("step", 0) // 2
    tools = sum(step.type == "tool" for step in steps_in(records))
    chains = sum(step.type in ("chain", "agent") for step in steps_in(records))
    assert chains == spans - tools, "the span of a tool and its event are one step"


@pytest.mark.parametrize("name", LLM)
def test_logs_of_llm(name: str) -> None:
    fact, records = facts()[name], decoded(name)
    tables, types = fact["tables"], Counter(step.type for step in steps_in(records))
    assert len(sessions_in(records)) == tables.get("threads", 0) + tables["conversations"]
    assert types["llm"] == tables.get("turns", 0) + tables["responses"]
    assert types["tool"] == 1
    assert tokens(records) == {model: (sums["input"], sums["output"]) for model, sums in fact["tokens"].items()}


@pytest.mark.parametrize("name", AGENTS)
def test_trace_items(name: str) -> None:
    fact, records = facts()[name], decoded(name)
    types = Counter(step.type for step in steps_in(records))
    spans = fact["spans"]
    assert len(sessions_in(records)) == fact["traces"]
    expected = {"agent": "agent", "llm": "generation", "tool": "function", "chain": "custom"}
    assert {type: types[type] for type in expected} == {type: spans[kind] for type, kind in expected.items()}
    assert (types["guardrail"], types["handoff"]) == (spans["guardrail"], spans["handoff"])
    results = [step.result or {} for step in steps_in(records)]
    own, again = sum("error" in result for result in results), sum("failed_in" in result for result in results)
    assert (own + again, again) == (fact["errors"], 1), "an error that stands twice counts once"


@pytest.mark.parametrize("name", [*INSPECT, *LLM, *AGENTS])
def test_twice_adds_nothing(name: str, tmp_path: Path) -> None:
    format = format_of(name)
    source = Source(format.name, Path(FOLDER or "", name))
    with agentspan.open(tmp_path / "a.db") as database:
        found = []
        for _ in range(2):
            one = Importer(Context(database.storage), {format.name: format}, again=True, now=lambda: 2**63)
            one.import_source(source)
            found.append(stored(database))
        assert found[0] == found[1]
        assert (one.arrived.spans, one.arrived.changed, one.problems) == (0, 0, [])


@pytest.mark.full
def test_what_prompts_cost_adds_up_to_the_total_of_all_files(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "all.db") as db:
        result = CliRunner().invoke(main, ["import", str(FOLDER), "--db", str(tmp_path / "all.db")])
        assert result.exit_code == 0, result.output
        found = db.costs("prompt")
        assert found.total.calls > 1000
        for name in ("calls", "input_tokens", "output_tokens", "cost_usd", "unpriced_calls", "unpriced_tokens"):
            rows = sum(getattr(row.spent, name) or 0 for row in found.rows)
            assert rows == pytest.approx(getattr(found.total, name), rel=1e-12), name
