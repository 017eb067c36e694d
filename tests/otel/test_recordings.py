"""Recordings of real instrumentors: each span's type, status, tokens and summary, and the runs that they make.

`AGENTSPAN_TEST_OTEL` names a folder with whole recordings, one finished span a line, on which the types and the tokens
are checked against what the conventions say; without it those tests are skipped.
"""

import gzip
import json
import os
import random
from dataclasses import replace
from typing import Any

import pytest

from agentspan.otel.mapping.mapped import map_span
from tests.otel.recorded import FOLDER, NAMES, outline, recorded, runs_of, steps_of, trees
from tests.otel.whole import expected_type, paths, said_by_calls, spans_of, steps_in, whole


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


@whole
def test_types_are_right_in_whole_recordings() -> None:
    right = total = 0
    for path in paths():
        for step in steps_in(path):
            total += 1
            right += step.mapped.type == expected_type(step.span)
    assert total >= 700
    assert right / total >= 0.95, f"{right} of {total}"


@whole
def test_most_types_are_known_when_a_span_begins_in_whole_recordings() -> None:
    right = total = 0
    for path in paths():
        with gzip.open(path) as lines:
            begun = [json.loads(line)["capture"].get("attributes_at_start") or () for line in lines]
        for span, at_start in zip(spans_of(path), begun, strict=True):
            attributes = {name: value for name, value in span.attributes.items() if name in at_start}
            active = replace(span, end_ns=None, attributes=attributes, events=(), status="UNSET")
            total += 1
            right += map_span(active).type == map_span(span).type
    assert right / total >= 0.95, f"{right} of {total}"


@whole
def test_tokens_are_those_of_the_calls_in_whole_recordings() -> None:
    for path in paths():
        steps = steps_in(path)
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
        assert counted == said_by_calls(steps), path.name


@whole
def test_every_model_call_and_tool_has_what_was_said_in_whole_recordings() -> None:
    for path in paths():
        for step in steps_in(path):
            payload = step.mapped.payload
            if step.mapped.type == "tool":
                assert payload["name"], (path.name, outline(step))
                assert "arguments" in payload, (path.name, outline(step))
            if step.mapped.type == "llm" and step.mapped.status == "complete":
                assert payload.get("model"), (path.name, outline(step))
