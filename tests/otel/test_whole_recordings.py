"""Whole recordings, by every way by which spans come: one tree, types and tokens right, each span once in any order.

`AGENTSPAN_TEST_OTEL` names their folder; without it these tests are skipped. `tests/otel/recordings` has smaller ones.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from agentspan import Tracer
from agentspan.analysis.tree import sums
from agentspan.api.context import Context
from agentspan.arriving.identity import span_id
from agentspan.model.rows import OtelTraceRow
from agentspan.otel import SpanProcessor
from agentspan.otel.otlp.requests import decode
from agentspan.otel.receiving import Receiver, import_spans
from agentspan.otel.span import Log, OtelSpan
from agentspan.recording.capture.plain import SentRedaction
from agentspan.serve import create_app
from agentspan.storage.access import unique
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from tests.otel.exporting import log_requests, trace_requests
from tests.otel.replaying import replay, runs_in, spans_in, tree
from tests.otel.requests import body_of, protobuf_of
from tests.otel.whole import FOLDER, expected_type, logs_of, paths, said_by_calls, spans_of, steps_in, whole
from tests.serve.asgi import Client
from tests.serve.otlp import JSON, PROTOBUF

pytestmark = whole
each = pytest.mark.parametrize("path", paths(), ids=lambda path: path.name.partition(".")[0])


def imported(spans: list[OtelSpan], logs: list[Log]) -> MemoryStorage:
    storage = MemoryStorage()
    import_spans(Context(storage, redacts=SentRedaction()), spans, logs)
    return storage


def statuses(storage: Storage) -> set[str]:
    return {row.status for row in spans_in(storage)} | {row.status for row in runs_in(storage)}


def check(storage: Storage, path: Path) -> None:
    """Each span is stored once, below the parent that was recorded, in one run a trace, with its type; none is open."""
    spans, stored = list(spans_of(path)), {row.id: row for row in spans_in(storage)}
    steps = [step for step in steps_in(path) if step.mapped.is_step]
    assert len(stored) == len(steps)
    duplicates = right = 0
    for step in steps:
        trace = unique(storage, OtelTraceRow, id=step.span.trace_id)
        assert trace is not None
        run = trace.agent_instance_id
        row = stored[span_id(run, step.span.trace_id, step.span.span_id)]
        parent = step.span.parent_span_id
        assert row.agent_instance_id == run
        assert row.parent_span_id == (None if parent is None else span_id(run, step.span.trace_id, parent))
        is_duplicate = "duplicate_of" in json.loads(row.payload)
        duplicates += is_duplicate
        right += is_duplicate or row.schema_name == expected_type(step.span) or expected_type(step.span) == "custom"
    assert right >= 0.95 * len(steps)
    assert statuses(storage) <= {"complete", "failed"}
    said = said_by_calls(steps)
    assert (sums(stored.values()).tokens or 0) == said["in"] + said["out"]
    assert len(spans) >= len(steps)


@each
def test_through_the_processor(path: Path, tmp_path: Path) -> None:
    spans, logs = list(spans_of(path)), list(logs_of(path))
    expected = tree(imported(spans, logs))
    for name, seed in (("in order", 0), ("shuffled", 5)):
        tracer = Tracer(tmp_path / f"{name}.db", raise_errors=True)
        for _ in range(2):
            processor = SpanProcessor(tracer)
            replay(processor, spans, seed=seed)
            processor.shutdown()
            assert tracer.flush()
            assert tree(tracer.storage) == expected
            check(tracer.storage, path)
        health = tracer.health()
        assert (health.failed, health.refused, health.waiting) == (0, 0, 0)
        tracer.shutdown()


@each
@pytest.mark.parametrize("encoding", ["protobuf", "json"])
@pytest.mark.parametrize("seed", [0, 5])
def test_over_the_wire(path: Path, encoding: str, seed: int) -> None:
    spans, logs = list(spans_of(path)), list(logs_of(path))
    expected = tree(imported(spans, logs))
    if seed:
        random.Random(seed).shuffle(spans)
    requests: list[tuple[str, dict[str, Any]]] = [("traces", request) for request in trace_requests(spans)]
    requests += [("logs", request) for request in log_requests(logs)]
    if seed:
        random.Random(seed).shuffle(requests)
    storage = MemoryStorage()
    with Client(create_app(storage)) as client:
        for _ in range(2):
            for signal, request in requests:
                body = protobuf_of(request, signal) if encoding == "protobuf" else body_of(request)
                headers = PROTOBUF if encoding == "protobuf" else JSON
                answer = client.post(f"/v1/{signal}", content=body, headers=headers)
                assert (answer.status_code, answer.content) == (200, b"" if encoding == "protobuf" else b"{}")
            Receiver(Context(storage)).end_idle(-1.0)
            check(storage, path)
            assert tree(storage) == expected


def bodies() -> dict[str, list[Path]]:
    """The bodies of requests that exporters sent, by their program."""
    found: dict[str, list[Path]] = {}
    for path in sorted(Path(FOLDER or "/nonexistent", "otlp").glob("*.bin")):
        found.setdefault(path.name.rpartition("-traces-")[0], []).append(path)
    return found


@pytest.mark.parametrize("program", bodies())
def test_bodies_as_they_were_sent(program: str) -> None:
    spans: list[OtelSpan] = []
    storage = MemoryStorage()
    with Client(create_app(storage)) as client:
        for _ in range(2):
            for path in bodies()[program]:
                said = json.loads(path.with_suffix(".headers.json").read_text())["headers"]
                kept = {name.lower(): value for name, value in said.items()}
                headers = {name: kept[name] for name in ("content-type", "content-encoding") if name in kept}
                answer = client.post("/v1/traces", content=path.read_bytes(), headers=headers)
                assert answer.status_code == 200, answer.content
                spans += decode("traces", path.read_bytes(), kept["content-type"], kept.get("content-encoding")).spans
    Receiver(Context(storage)).end_idle(-1.0)
    assert len(spans) > 0
    assert tree(storage) == tree(imported(spans, []))
    assert statuses(storage) <= {"complete", "failed"}
