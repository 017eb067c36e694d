"""Spans of OpenTelemetry that begin and end in several threads at the same moment."""

from collections import deque
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from agentspan import Tracer
from agentspan.otel import SpanProcessor, processor_traces
from agentspan.otel.processor import LiveRecording
from agentspan.otel.traces import call_of
from agentspan.recording.tracer import recorder_of
from tests.impatient import at_once, elsewhere
from tests.otel.replaying import spans_in

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", "gen_ai.provider.name": "openai"}


@pytest.fixture
def live(tmp_path: Path) -> Any:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    yield LiveRecording(recorder_of(tracer))
    tracer.shutdown()


def test_a_call_that_ends_just_after_its_trace_was_settled_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    outer = provider.get_tracer("openinference.instrumentation.litellm").start_span("completion", attributes=CHAT)
    around = trace.set_span_in_context(outer)
    late = provider.get_tracer("litellm").start_span("chat m", around, attributes=CHAT)
    real = processor_traces.CallsOfRun.settle

    def settle(self: Any, since_ns: int) -> None:
        real(self, since_ns)
        if late.is_recording():  # another thread's, before the end of the trace is noted
            late.end()

    monkeypatch.setattr(processor_traces.CallsOfRun, "settle", settle)
    outer.end()
    assert tracer.flush()
    assert sorted(span.schema_name for span in spans_in(tracer.storage)) == ["chat m", "llm"]
    provider.shutdown()
    tracer.shutdown()


def test_a_trace_is_found_at_each_moment_of_its_end(live: LiveRecording) -> None:
    class Watched(dict[int, Any]):
        """The traces that go on. When one was removed, another thread looks for it."""

        def pop(self, key: int, default: Any = None) -> Any:
            removed = super().pop(key, default)
            found.append(live._traces.get(key))
            return removed

    trace: Any = SimpleNamespace(root=(7, 1), is_own=False, has_ended=False)
    found: list[Any] = []
    live._traces.going_on = Watched({7: trace})
    live._traces.end(trace)
    assert found == [trace]


def test_each_trace_that_waits_is_closed_once_by_threads_that_come_together(
    live: LiveRecording, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[int] = []
    monkeypatch.setattr(live, "_close_open", closed.append)
    for _ in range(40):
        live._waiting.extend((0.0, number) for number in range(300))  # type: ignore[misc]
        assert at_once(4, lambda thread: live._close_late()) == []
        assert sorted(closed) == [*range(300)]
        closed.clear()


@pytest.mark.parametrize("waiting", [[0.0], [0.0, 1e9]])
def test_a_trace_that_another_thread_closes_meanwhile_is_closed_once(
    live: LiveRecording, monkeypatch: pytest.MonkeyPatch, waiting: list[float]
) -> None:
    class Watched(deque[Any]):
        """The traces that wait. When one was looked at, another thread closes what is late."""

        def __getitem__(self, place: Any) -> Any:
            found = super().__getitem__(place)
            live._waiting = deque(self)
            elsewhere(live._close_late)
            self.clear()
            self.extend(live._waiting)
            live._waiting = self
            return found

    closed: list[float] = []
    monkeypatch.setattr(live, "_close_open", closed.append)
    live._waiting = Watched((due, due) for due in waiting)
    live._close_late()
    assert closed == [0.0]
    assert [due for due, _ in [*live._waiting]] == waiting[1:]


def test_a_call_that_two_threads_compare_at_the_same_moment_is_one_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanProcessor(tracer))
    span: Any = provider.get_tracer("openai").start_span("chat m", attributes=CHAT)
    span.end()
    seen = processor_traces._Seen(SimpleNamespace(id="span", parent_span_id=None), span)  # type: ignore[arg-type]
    found = list[Any]()

    def meanwhile(*args: Any) -> Any:
        monkeypatch.setattr(processor_traces, "call_of", call_of)
        elsewhere(lambda: (seen.read(), found.append(seen.call)))
        return call_of(*args)

    monkeypatch.setattr(processor_traces, "call_of", meanwhile)
    seen.read()
    assert found == [seen.call] != [None]
    provider.shutdown()
    tracer.shutdown()
