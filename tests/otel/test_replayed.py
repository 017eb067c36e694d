"""Recordings replayed through the processor: the same trees as the import of the same file, whatever the order."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentspan import Tracer
from agentspan.api.context import Context
from agentspan.otel import SpanProcessor
from agentspan.otel.receiving import import_spans
from agentspan.recording.capture.plain import SentRedaction
from agentspan.storage.memory import MemoryStorage
from tests.otel.recorded import NAMES, recorded
from tests.otel.replaying import replay, runs_in, spans_in, tree

OWN = {"llama-index"}
"""Recordings with a root that looks like an agent's when it starts, and is none at its end: its run stays its own."""


@pytest.fixture
def tracer(tmp_path: Path) -> Iterator[Tracer]:
    made = Tracer(tmp_path / "runs.db", raise_errors=True)
    yield made
    made.shutdown()


@pytest.mark.full
@pytest.mark.parametrize("tells_late", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_recording_is_as_its_import(tracer: Tracer, name: str, tells_late: bool) -> None:
    spans, logs = recorded(name)
    imported = MemoryStorage()
    import_spans(Context(imported, redacts=SentRedaction()), spans, logs)
    expected = tree(imported)
    for _ in range(2):
        processor = SpanProcessor(tracer)
        replay(processor, spans, tells_late=tells_late)
        processor.shutdown()
        assert tracer.flush()
        assert tree(tracer.storage) == expected
        health = tracer.health()
        assert (health.failed, health.refused, health.waiting) == (0, 0, 0)
    assert {row.status for row in runs_in(tracer.storage)} <= {"complete", "failed"}
    if name not in OWN:
        assert sorted(run.external_identifier or "" for run in runs_in(tracer.storage)) == sorted(
            run.external_identifier or "" for run in runs_in(imported)
        )


@pytest.mark.full
@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_ends_does_not_matter(tracer: Tracer, name: str) -> None:
    spans, logs = recorded(name)
    imported = MemoryStorage()
    import_spans(Context(imported, redacts=SentRedaction()), spans, logs)
    processor = SpanProcessor(tracer)
    replay(processor, spans, seed=3)
    processor.shutdown()
    assert tracer.flush()
    assert tree(tracer.storage) == tree(imported)
    assert {span.status for span in spans_in(tracer.storage)} <= {"complete", "failed"}
