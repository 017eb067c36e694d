"""Trajectories of other programs, in a folder with facts that were counted independently."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agentspan.analysis import atif
from agentspan.arriving.records import Session, Step, Unread
from agentspan.sessions.atif import FORMATS, decode
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import SpansOf
from tests.sessions.trajectories import arrived, check, tree_of

FOLDER = os.environ.get("AGENTSPAN_TEST_SESSIONS", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="needs AGENTSPAN_TEST_SESSIONS")


def facts() -> list[tuple[Path, dict[str, Any]]]:
    """Return the trajectories in the folder, each with its facts."""
    if not FOLDER:
        return []
    stated = json.loads(Path(FOLDER, "manifest.json").read_text())["facts"]
    (format,) = FORMATS
    found = [source.path for source in format.sources(Path(FOLDER))]
    return [(path, stated[name]) for path in found if (name := str(path.relative_to(FOLDER))) in stated]


FACTS = facts()


def test_there_are_trajectories() -> None:
    assert FACTS


@pytest.mark.parametrize(("path", "stated"), FACTS, ids=[path.name for path, _ in FACTS])
def test_steps_and_tokens_equal_the_facts(path: Path, stated: dict[str, Any]) -> None:
    found = [*decode(path)]
    session = next(each for each in found[::-1] if isinstance(each, Session))
    steps = [each for each in found if isinstance(each, Step)]
    assert [each for each in found if isinstance(each, Unread)] == []
    assert (session.agent, session.version) == (stated["agent"], stated["agent_version"])
    assert session.conversation == stated["session"]
    assert session.metadata["schema_version"] == stated["schema"]
    assert session.metadata["final_metrics"] == stated["final_metrics"]
    assert session.metadata.get("copied_steps", 0) == stated["copied"]
    roles = Counter(step.payload["role"] for step in steps if step.type == "message")
    calls = [step for step in steps if step.type == "llm"]
    assert {**roles, "agent": len(calls)} == stated["steps"]
    tools = [step for step in steps if step.type in ("tool", "mcp")]
    assert (len(tools), sum(step.result is not None for step in tools)) == (
        stated["tool_calls"],
        stated["observations"],
    )
    assert sum(step.type == "agent" for step in steps) == stated["subagents"]
    sums: Counter[str] = Counter()
    for step in calls:
        sums.update({name: value for name, value in (step.result or {}).items() if isinstance(value, int | float)})
    tokens = stated["tokens_of_steps"]
    assert (sums["input_tokens"], sums["output_tokens"]) == (
        tokens.get("prompt_tokens", 0),
        tokens.get("completion_tokens", 0),
    )
    assert sums["stated_cost_usd"] == pytest.approx(tokens.get("cost_usd", 0))


@pytest.mark.parametrize(("path", "stated"), FACTS, ids=[path.name for path, _ in FACTS])
def test_an_export_of_the_import_is_strict_and_imported_equal(path: Path, stated: dict[str, Any]) -> None:
    storage, again = MemoryStorage(), MemoryStorage()
    id = arrived(storage, json.loads(path.read_text()))
    (document,) = atif.documents(storage, [id])
    check(document)
    run = arrived(again, document)
    assert tree_of(again, run) == tree_of(storage, id)
    assert len([*again.ask(SpansOf(run))]) >= stated["tool_calls"]
