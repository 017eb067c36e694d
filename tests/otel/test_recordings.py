"""Recordings of real instrumentors: each span's type, status, tokens and summary, and the runs that they make.

`AGENTSPAN_TEST_OTEL` names a folder with whole recordings, one finished span a line, on which the types and the tokens
are checked against what the conventions say; without it those tests are skipped.
"""

import gzip
import json
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentspan.otel.duplicates import call_of
from agentspan.otel.mapping.mapped import map_span
from agentspan.otel.span import Event, Log, OtelSpan, Scope
from agentspan.otel.traces import Step, runs_of
from tests.otel.recorded import FOLDER, NAMES, outline, recorded, steps_of, trees

WHOLE = os.environ.get("AGENTSPAN_TEST_OTEL")
whole = pytest.mark.skipif(not WHOLE, reason="AGENTSPAN_TEST_OTEL names no folder")


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_reads_as_before(name: str) -> None:
    told = trees(*recorded(name))
    path = FOLDER / f"{name}.txt"
    if os.environ.get("AGENTSPAN_TEST_REWRITE"):
        path.write_text(told)
    assert told == path.read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_spans_does_not_matter(name: str) -> None:
    spans, logs = recorded(name)
    shuffled = spans.copy()
    random.Random(7).shuffle(shuffled)
    assert trees(shuffled, logs) == trees(spans, logs)


@pytest.mark.parametrize("name", NAMES)
def test_no_attribute_is_lost(name: str) -> None:
    """Each attribute's value is in the payload or the result, as it was or parsed; or it repeats another one."""
    for span, mapped in steps_of(*recorded(name)):
        stored = json.dumps([mapped.payload, mapped.result_payload])
        for key, value in span.attributes.items():
            kept = key in mapped.payload.get("attributes", {}) or _is_in(value, stored)
            assert kept or key in SAID_ELSEWHERE or key.startswith(PARTED), (span.name, key)


SAID_ELSEWHERE = {  # the type of the span, and values that are no more than others of it
    "openinference.span.kind",
    "traceloop.span.kind",
    "langsmith.span.kind",
    "gen_ai.operation.name",
    "logfire.span_type",
    "input.mime_type",
    "output.mime_type",
    "llm.token_count.total",
    "gen_ai.usage.total_tokens",
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.client.operation.time_to_first_chunk",
    "llm.invocation_parameters",
    "error.type",
}
PARTED = (  # texts of JSON, and flat lists, whose parts are the fields
    "llm.input_messages.",
    "llm.output_messages.",
    "llm.tools.",
    "retrieval.documents.",
    "embedding.embeddings.",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.definitions",
    "gen_ai.tool.call.",
    "gen_ai.task.",
    "gen_ai.prompt",
    "gen_ai.completion",
    "traceloop.entity.",
    "pydantic_ai.",
    "final_result",
    "input.value",
    "output.value",
)


def _is_in(value: Any, stored: str) -> bool:
    if isinstance(value, list):
        return all(_is_in(item, stored) for item in value)
    return json.dumps(value) in stored


def test_agents_tokens_are_not_counted_and_duplicates_are_found() -> None:
    steps = steps_of(*recorded("pydantic-ai"))
    run = runs_of(steps)[0]
    agents = [step for step in run.steps if step.mapped.type == "agent"]
    calls = [step for step in run.steps if step.mapped.type == "llm"]
    assert {bool((step.mapped.result_payload or {}).get("input_tokens")) for step in agents} == {True}
    assert len(calls) == 8
    assert len(run.duplicate_of) == 2, "the SDK of one provider traces itself, inside of the framework's spans"


def _spans(path: Path) -> Iterator[OtelSpan]:
    with gzip.open(path) as lines:
        for item in map(json.loads, lines):
            events = tuple(Event(e["name"], e["time_unix_nano"], e["attributes"]) for e in item["events"])
            scope = Scope(*(item["scope"].get(key) or "" for key in ("name", "version", "schema_url")))
            fields: dict[str, Any] = {name: item[name] for name in ("trace_id", "span_id", "parent_span_id", "name")}
            fields |= {"start_ns": item["start_time_unix_nano"], "end_ns": item["end_time_unix_nano"]}
            fields |= {"status": item["status"]["code"], "status_message": item["status"]["description"]}
            fields |= {"kind": item["kind"], "attributes": item["attributes"], "resource": item["resource"]}
            yield OtelSpan(**fields, events=events, scope=scope)


def _logs(path: Path) -> Iterator[Log]:
    if path.exists():
        with gzip.open(path) as lines:
            for item in map(json.loads, lines):
                event = Event(item["event_name"], item["observed_timestamp"], item["attributes"], item["body"])
                yield Log(item["trace_id"], item["span_id"], event)


def _whole() -> list[Path]:
    folder = Path(WHOLE or "/nonexistent")
    return sorted(path for path in folder.glob("*.jsonl.gz") if ".logs." not in path.name)


def _steps(path: Path) -> list[Step]:
    return steps_of(list(_spans(path)), list(_logs(Path(str(path).replace(".jsonl.gz", ".logs.jsonl.gz")))))


OPENINFERENCE = {
    "AGENT": "agent",
    "CHAIN": "chain",
    "PROMPT": "chain",
    "LLM": "llm",
    "TOOL": "tool",
    "RETRIEVER": "retrieval",
    "EMBEDDING": "embedding",
    "GUARDRAIL": "guardrail",
}
LANGSMITH = {
    "llm": "llm",
    "tool": "tool",
    "chain": "chain",
    "prompt": "chain",
    "parser": "chain",
    "retriever": "retrieval",
}
TRACELOOP = {"workflow": "chain", "task": "chain", "agent": "agent", "tool": "tool", "handoff": "handoff"}
GENAI = {
    "chat": "llm",
    "execute_tool": "tool",
    "invoke_agent": "agent",
    "embeddings": "embedding",
    "invoke_workflow": "chain",
    "agent_step": "chain",
    "execute_task": "chain",
    "vector_db_retrieve": "retrieval",
    "create_agent": "custom",
}


def _expected(span: OtelSpan) -> str:
    """The type by the tables of the conventions, written down once more, without the code that is tested."""
    said = span.attributes
    if "openinference.span.kind" in said:
        is_handoff = span.name.startswith("handoff to ")
        return "handoff" if is_handoff else OPENINFERENCE[said["openinference.span.kind"]]
    if "langsmith.span.kind" in said:
        if said.get("langsmith.metadata.lc_agent_name") == span.name:
            return "agent"
        return LANGSMITH[said["langsmith.span.kind"]]
    if "mcp.method.name" in said:
        return "mcp"
    operation = said.get("gen_ai.operation.name", "")
    if "traceloop.span.kind" in said and operation != "vector_db_retrieve":
        return TRACELOOP[said["traceloop.span.kind"]]
    return GENAI.get(operation, "custom")


@whole
def test_types_are_right_in_whole_recordings() -> None:
    right = total = 0
    for path in _whole():
        for step in _steps(path):
            total += 1
            right += step.mapped.type == _expected(step.span)
    assert total >= 700
    assert right / total >= 0.95, f"{right} of {total}"


@whole
def test_most_types_are_known_when_a_span_begins_in_whole_recordings() -> None:
    right = total = 0
    for path in _whole():
        with gzip.open(path) as lines:
            begun = [json.loads(line)["capture"].get("attributes_at_start") or () for line in lines]
        for span, at_start in zip(_spans(path), begun, strict=True):
            attributes = {name: value for name, value in span.attributes.items() if name in at_start}
            active = replace(span, end_ns=None, attributes=attributes, events=(), status="UNSET")
            total += 1
            right += map_span(active).type == map_span(span).type
    assert right / total >= 0.95, f"{right} of {total}"


@whole
def test_tokens_are_those_of_the_calls_in_whole_recordings() -> None:
    for path in _whole():
        steps = _steps(path)
        counted = {"in": 0, "out": 0}
        for run in runs_of(steps):
            for step in run.steps:
                id = (step.span.trace_id, step.span.span_id)
                if step.mapped.type in ("llm", "embedding") and id not in run.duplicate_of:
                    result = step.mapped.result_payload or {}
                    counted["in"] += result.get("input_tokens") or 0
                    counted["out"] += result.get("output_tokens") or 0
            elsewhere = [step for step in run.steps if step.mapped.type not in ("llm", "embedding", "agent")]
            assert not [step for step in elsewhere if "input_tokens" in (step.mapped.result_payload or {})]
        assert counted == _said_by_calls(steps), path.name


def _said_by_calls(steps: list[Step]) -> dict[str, int]:
    """The tokens of each provider's answer once: by the answer's id, and of instrumentors beside the SDK's own."""
    by_answer: dict[object, tuple[int, int]] = {}
    for number, (span, mapped) in enumerate(steps):
        said = span.attributes
        if _expected(span) not in ("llm", "embedding"):
            continue
        tokens_in = said.get("gen_ai.usage.input_tokens", said.get("llm.token_count.prompt"))
        tokens_out = said.get("gen_ai.usage.output_tokens", said.get("llm.token_count.completion"))
        call = call_of(span, mapped)
        key = (call.response if call is not None else None) or number
        known = by_answer.get(key, (0, 0))
        if span.scope.name != "com.anthropic.sdk.python" or key not in by_answer:
            by_answer[key] = (tokens_in or known[0], tokens_out or known[1])
    return {"in": sum(each[0] for each in by_answer.values()), "out": sum(each[1] for each in by_answer.values())}


@whole
def test_every_model_call_and_tool_has_what_was_said_in_whole_recordings() -> None:
    for path in _whole():
        for step in _steps(path):
            payload = step.mapped.payload
            if step.mapped.type == "tool":
                assert payload["name"], (path.name, outline(step))
                assert "arguments" in payload, (path.name, outline(step))
            if step.mapped.type == "llm" and step.mapped.status == "complete":
                assert payload.get("model"), (path.name, outline(step))
