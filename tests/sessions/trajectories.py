"""What the tests of ATIF share: a strict check of a document's structure, its import, and trees to compare."""

import json
from datetime import datetime
from typing import Any

from agentspan import jsontext
from agentspan.analysis.tree import Node, build
from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrival
from agentspan.arriving.records import Session, Step, Unread
from agentspan.sessions.atif import document_records
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf

MEMBERS = {
    "trajectory": {
        "schema_version", "session_id", "trajectory_id", "agent", "steps", "notes", "final_metrics",
        "continued_trajectory_ref", "extra", "subagent_trajectories",
    },
    "agent": {"name", "version", "model_name", "tool_definitions", "extra"},
    "step": {
        "step_id", "timestamp", "source", "model_name", "reasoning_effort", "message", "reasoning_content",
        "tool_calls", "observation", "metrics", "is_copied_context", "llm_call_count", "extra",
    },
    "call": {"tool_call_id", "function_name", "arguments", "extra"},
    "result": {"source_call_id", "content", "subagent_trajectory_ref", "extra"},
    "reference": {"trajectory_id", "session_id", "trajectory_path", "extra"},
    "metrics": {
        "prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "prompt_token_ids", "completion_token_ids",
        "logprobs", "extra",
    },
    "final_metrics": {
        "total_prompt_tokens", "total_completion_tokens", "total_cached_tokens", "total_cost_usd", "total_steps",
        "extra",
    },
}  # fmt: skip
"""The members that the format allows, by kind of object. All others are forbidden."""
OF_AGENTS = {"model_name", "reasoning_effort", "reasoning_content", "tool_calls", "metrics"}
MEDIA_TYPES = {"image/jpeg", "image/png", "image/gif", "image/webp"}


def check(document: dict[str, Any], *, embedded: bool = False) -> None:
    """Assert that a trajectory is strict ATIF 1.7.

    Args:
        embedded: True for the trajectory of a sub-agent.
    """
    _members(document, "trajectory", {"schema_version", "agent", "steps"})
    assert document["schema_version"] == "ATIF-v1.7"
    assert _is_text(document.get("trajectory_id")) or not embedded
    agent = document["agent"]
    _members(agent, "agent", {"name", "version"})
    assert _is_text(agent["name"])
    assert _is_text(agent["version"])
    assert all(isinstance(tool, dict) for tool in agent.get("tool_definitions", ()))
    for name, value in _members(document.get("final_metrics", {}), "final_metrics", set()).items():
        assert isinstance(value, dict if name == "extra" else float | int), name
    assert [step["step_id"] for step in document["steps"]] == [*range(1, len(document["steps"]) + 1)]
    assert document["steps"]
    below = document.get("subagent_trajectories", [])
    ids = [each["trajectory_id"] for each in below]
    assert len(ids) == len(set(ids))
    referred = [id for step in document["steps"] for id in _step(step)]
    assert sorted(referred) == sorted(ids)
    for each in below:
        check(each, embedded=True)


def _members(value: dict[str, Any], kind: str, needed: set[str]) -> dict[str, Any]:
    assert isinstance(value, dict), kind
    assert needed <= {*value} <= MEMBERS[kind], (kind, {*value} - MEMBERS[kind])
    assert isinstance(value.get("extra", {}), dict)
    return value


def _step(step: dict[str, Any]) -> list[str]:
    """Check a step; return the ids of the trajectories that it refers to."""
    _members(step, "step", {"step_id", "source", "message"})
    assert step["source"] in ("system", "user", "agent")
    assert step["source"] == "agent" or not OF_AGENTS & {*step}
    assert step.get("llm_call_count") != 0 or not {"metrics", "reasoning_content"} & {*step}
    if "timestamp" in step:
        datetime.fromisoformat(step["timestamp"])
    _content(step["message"])
    for name, value in _members(step.get("metrics", {}), "metrics", set()).items():
        assert type(value) in ((int, float) if name == "cost_usd" else (int,)), name
    calls = [
        _members(call, "call", {"tool_call_id", "function_name", "arguments"}) for call in step.get("tool_calls", ())
    ]
    for call in calls:
        assert _is_text(call["tool_call_id"])
        assert _is_text(call["function_name"])
        assert isinstance(call["arguments"], dict)
    results = step.get("observation", {"results": []})["results"]
    assert {each.get("source_call_id") for each in results} <= {None, *(call["tool_call_id"] for call in calls)}
    found: list[str] = []
    for each in results:
        _content(_members(each, "result", set()).get("content", ""))
        for reference in each.get("subagent_trajectory_ref", ()):
            found.append(_members(reference, "reference", {"trajectory_id"})["trajectory_id"])
    return found


def _content(value: Any) -> None:
    if isinstance(value, str):
        value.encode()
        return
    for part in value:
        if part["type"] == "text":
            assert {*part} == {"type", "text"}
        else:
            assert {*part} == {"type", "source"}
            assert part["source"]["media_type"] in MEDIA_TYPES
            assert {*part["source"]} == {"media_type", "path"}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def read(document: Any) -> tuple[Session, list[Step], list[Unread]]:
    """Return the last session, the steps and what was not understood of a document."""
    found = [*document_records(json.loads(json.dumps(document)), "digest")]
    sessions = [each for each in found if isinstance(each, Session)]
    return (
        sessions[-1],
        [each for each in found if isinstance(each, Step)],
        [each for each in found if isinstance(each, Unread)],
    )


def arrived(storage: Storage, document: Any) -> str:
    """Store a document; return the id of its run."""
    arrival = Arrival(Context(storage))
    found = [*document_records(json.loads(json.dumps(document)), "digest")]
    arrival.take("atif", found)
    arrival.finish(live=False)
    assert isinstance(found[0], Session)
    place = arrival.place("atif", found[0].id)
    assert place is not None
    return place.run


TOTALS = ("input_tokens", "output_tokens", "cost_usd")


def tree_of(storage: Storage, run_id: str) -> list[Any]:
    """Return the tree of a run's spans without ids and totals of agents, in an order that does not depend on them."""
    return sorted(map(_node, build(storage.ask(SpansOf(run_id)))), key=json.dumps)


def _node(node: Node) -> list[Any]:
    span = node.span
    result = None if span.result_payload is None else jsontext.decode(span.result_payload)
    if span.is_aggregate:  # an import sums the tokens up
        result = {name: value for name, value in (result or {}).items() if name not in TOTALS} or None
    payload = json.dumps(jsontext.decode(span.payload), sort_keys=True)
    times = [span.started_at or span.inserted_at, span.finished_at]
    below = sorted(map(_node, node.children), key=json.dumps)
    return [*times, span.schema_name, span.status, payload, json.dumps(result, sort_keys=True), below]


def document(*steps: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return a trajectory of an agent with these steps, which are numbered."""
    numbered = [{"step_id": number, **step} for number, step in enumerate(steps, start=1)]
    agent = {"name": "tinker", "version": "2.0", "model_name": "gpt-4o"}
    return {"schema_version": "ATIF-v1.6", "session_id": "s-1", "agent": agent, "steps": numbered, **members}
