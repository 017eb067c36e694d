"""Scores in OpenTelemetry: events, log records and annotations come in as scores, and go out as events."""

from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.model.rows import ScoreRow
from agentspan.otel import SpanProcessor
from agentspan.otel.mapping.judgements import RESULT
from agentspan.otel.receiving import Receiver
from agentspan.otel.sdk import span_of
from agentspan.otel.span import Event, Log, OtelSpan
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from tests.cli.calling import call
from tests.otel.recorded import span


def event(name: str, **more: Any) -> Event:
    said = {"gen_ai.evaluation.name": name, **{f"gen_ai.evaluation.{field}": value for field, value in more.items()}}
    return Event(RESULT, 3_000_000_000, {name.replace("__", "."): value for name, value in said.items()})


def stored(storage: Storage) -> list[tuple[Any, ...]]:
    rows = sorted(scan(storage, ScoreRow), key=lambda row: (row.target_type, row.name))
    return [(row.target_type, row.name, row.value, row.label, row.source, row.identifier) for row in rows]


def test_an_evaluation_event_of_a_span_is_a_score_of_it(storage: Storage) -> None:
    judged = span(
        {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"},
        events=(
            event("relevance", score__value=0.5, score__label="half", explanation="so so"),
            event("passed", score__value=True),
            event("broken"),
            Event(RESULT, 0, {"gen_ai.evaluation.score.value": 1}),
        ),
    )
    receiver = Receiver(Context(storage))
    for _ in range(2):
        receiver.store([judged])
        receiver = Receiver(Context(storage))  # one that knows nothing of what is stored
    assert stored(storage) == [
        ("agent_span", "passed", 1.0, None, "code", None),
        ("agent_span", "relevance", 0.5, "half", "code", None),
    ]
    row = next(scan(storage, ScoreRow, {"name": "relevance"}))
    assert (row.inserted_at, row.explanation) == ("1970-01-01T00:00:03.000000Z", "so so")
    (run,) = agentspan.open(storage).agent_instances.list()
    assert [found.id for found in storage.ask(SpansOf(run.id))] == [row.target_id]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_evaluation_that_is_a_log_record_may_come_before_its_span_or_after_it(
    storage: Storage, order: tuple[int, int]
) -> None:
    receiver = Receiver(Context(storage))
    log = Log("a" * 32, "b" * 16, event("relevance", score__value=0.5))
    parts: tuple[tuple[list[OtelSpan], list[Log]], ...] = (([span({"gen_ai.operation.name": "chat"})], []), ([], [log]))
    for number in (*order, 1):
        receiver.store(*parts[number])
    assert stored(storage) == [("agent_span", "relevance", 0.5, None, "code", None)]
    (run,) = agentspan.open(storage).agent_instances.list()
    (kept,) = storage.ask(SpansOf(run.id))
    assert "evaluation" not in kept.payload


def test_annotations_and_evaluations_of_openinference_are_scores_of_the_span_or_of_its_run(storage: Storage) -> None:
    said: dict[str, Any] = {
        "openinference.span.kind": "LLM",
        "annotations.0.annotation.name": "hallucination",
        "annotations.0.annotation.label": "factual",
        "annotations.0.annotation.annotator_kind": "LLM",
        "annotations.0.annotation.identifier": "judge-v2",
        "annotations.1.annotation.name": "tone",
        "annotations.1.annotation.score": 1,
        "annotations.1.annotation.annotator_kind": "HUMAN",
        "annotations.2.annotation.name": "says nothing",
        "evaluations.0.evaluation.name": "length",
        "evaluations.0.evaluation.score": 0.25,
        "trace.evaluations.0.evaluation.name": "correctness",
        "trace.evaluations.0.evaluation.score": 0.95,
        "session.annotations.0.annotation.name": "csat",
        "session.annotations.0.annotation.score": 5,
    }
    Receiver(Context(storage)).store([span(said)], is_whole=True)
    assert stored(storage) == [
        ("agent_instance", "correctness", 0.95, None, "code", None),
        ("agent_span", "hallucination", None, "factual", "model", "judge-v2"),
        ("agent_span", "length", 0.25, None, "code", None),
        ("agent_span", "tone", 1.0, None, "human", None),
    ]


def test_what_goes_out_comes_in_again_as_it_was(tmp_path: Path) -> None:
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    tracer = agentspan.Tracer(source, raise_errors=True)
    with tracer.run("a", task="book", tags=["b", "a"]) as run, tracer.span("llm", model="m") as step:
        step.score("correct", label="yes", by="human", identifier="mia")
        run.score("reward", 0.5, explanation="slow")
        run.score("reward", 1)
    tracer.shutdown()
    call(source, "export", "all", "--format", "otlp", "-o", str(tmp_path / "x"))
    text = (tmp_path / "x").read_text()
    assert text.count("gen_ai.evaluation.result") == 3
    for _ in range(2):
        assert call(target, "import", "--from", "otlp", str(tmp_path / "x")).exit_code == 0
    with agentspan.open(source) as original, agentspan.open(target) as copy:
        assert _said(copy, run.id, step.id) == _said(original, run.id, step.id)
        found = copy.agent_instances.get(run.id)
        assert (found.task, found.tags) == ("book", ["a", "b"])


def _said(db: Database, *ids: str) -> list[Any]:
    return [db.scores.list(id, history=True) for id in ids]


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_a_live_span_is_judged_and_its_export_adds_nothing(tmp_path: Path, durability: Any) -> None:
    sdk: Any = pytest.importorskip("opentelemetry.sdk.trace", reason="needs opentelemetry-sdk")
    exporting: Any = pytest.importorskip(
        "opentelemetry.sdk.trace.export.in_memory_span_exporter", reason="needs opentelemetry-sdk"
    )
    export: Any = pytest.importorskip("opentelemetry.sdk.trace.export", reason="needs opentelemetry-sdk")
    tracer = agentspan.Tracer(tmp_path / "runs.db", raise_errors=True, durability=durability)
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    kept = exporting.InMemorySpanExporter()
    provider.add_span_processor(SpanProcessor(tracer))
    provider.add_span_processor(export.SimpleSpanProcessor(kept))
    said: dict[str, Any] = {"openinference.span.kind": "AGENT", "trace.annotations.0.annotation.name": "csat"}
    said |= {"trace.annotations.0.annotation.score": 5, "trace.annotations.0.annotation.annotator_kind": "HUMAN"}
    with provider.get_tracer("x").start_as_current_span("agent", attributes=said) as made:
        made.add_event(RESULT, {"gen_ai.evaluation.name": "relevance", "gen_ai.evaluation.score.value": 0.5})
    provider.shutdown()
    tracer.flush()
    wanted = [
        ("agent_instance", "csat", 5.0, None, "human", None),
        ("agent_span", "relevance", 0.5, None, "code", None),
    ]
    assert stored(tracer.storage) == wanted
    Receiver(Context(tracer.storage)).store([span_of(each) for each in kept.get_finished_spans()])
    assert stored(tracer.storage) == wanted
    tracer.shutdown()
