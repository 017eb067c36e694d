"""Whole recordings of real instrumentors, in the folder that AGENTSPAN_TEST_OTEL names, and what they should become."""

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentspan.otel.span import Event, Log, OtelSpan, Scope
from agentspan.otel.traces import Step, call_of
from tests.otel.recorded import steps_of

FOLDER = os.environ.get("AGENTSPAN_TEST_OTEL")
whole = pytest.mark.skipif(not FOLDER, reason="opt-in: AGENTSPAN_TEST_OTEL names a folder with recordings")


def spans_of(path: Path) -> Iterator[OtelSpan]:
    """The spans of a recording."""
    with gzip.open(path) as lines:
        for item in map(json.loads, lines):
            events = tuple(Event(e["name"], e["time_unix_nano"], e["attributes"]) for e in item["events"])
            name, version, url = (item["scope"].get(key) or "" for key in ("name", "version", "schema_url"))
            scope = Scope(name, version, url)
            fields: dict[str, Any] = {name: item[name] for name in ("trace_id", "span_id", "parent_span_id", "name")}
            fields |= {"start_ns": item["start_time_unix_nano"], "end_ns": item["end_time_unix_nano"]}
            fields |= {"status": item["status"]["code"], "status_message": item["status"]["description"]}
            fields |= {"kind": item["kind"], "attributes": item["attributes"], "resource": item["resource"]}
            yield OtelSpan(**fields, events=events, scope=scope)


def logs_of(path: Path) -> Iterator[Log]:
    """The log records of a recording of spans."""
    path = Path(str(path).replace(".jsonl.gz", ".logs.jsonl.gz"))
    if path.exists():
        with gzip.open(path) as lines:
            for item in map(json.loads, lines):
                event = Event(item["event_name"], item["observed_timestamp"], item["attributes"], item["body"])
                yield Log(item["trace_id"], item["span_id"], event)


def paths() -> list[Path]:
    """The recordings of spans."""
    folder = Path(FOLDER or "/nonexistent")
    return sorted(path for path in folder.glob("*.jsonl.gz") if ".logs." not in path.name)


def steps_in(path: Path) -> list[Step]:
    """Each span of a recording with what agentspan records of it."""
    return steps_of(list(spans_of(path)), list(logs_of(path)))


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
    "plan": "chain",
    "vector_db_retrieve": "retrieval",
    "create_agent": "custom",
}


def expected_type(span: OtelSpan) -> str:
    """The type by the tables of the conventions, written down once more, without the code that is tested."""
    said = span.attributes
    if span.name.endswith("._prepare_chat_with_tools"):
        return "chain"  # LlamaIndex's instrumentor calls it one of a model
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


def said_by_calls(steps: list[Step]) -> dict[str, int]:
    """The tokens of each provider's answer once: by the answer's id, and of instrumentors beside the SDK's own."""
    by_answer: dict[object, tuple[int, int]] = {}
    for number, (span, mapped) in enumerate(steps):
        said = span.attributes
        if expected_type(span) not in ("llm", "embedding"):
            continue
        tokens_in = said.get("gen_ai.usage.input_tokens", said.get("llm.token_count.prompt"))
        tokens_out = said.get("gen_ai.usage.output_tokens", said.get("llm.token_count.completion"))
        call = call_of(span, mapped)
        key = (call.response if call is not None else None) or number
        known = by_answer.get(key, (0, 0))
        if span.scope.name != "com.anthropic.sdk.python" or key not in by_answer:
            by_answer[key] = (tokens_in or known[0], tokens_out or known[1])
    return {"in": sum(each[0] for each in by_answer.values()), "out": sum(each[1] for each in by_answer.values())}
