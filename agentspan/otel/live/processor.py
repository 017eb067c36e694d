"""SpanProcessor: records the spans of a TracerProvider of OpenTelemetry's SDK. Never raises, never blocks for long."""

import atexit
import threading
import weakref
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor as _SpanProcessor

from agentspan import forks
from agentspan.forks import Renewal, page
from agentspan.interrupts import let_through
from agentspan.otel.live.recording import LiveRecording
from agentspan.recording.default import get_recorder
from agentspan.recording.recorder import Recorder
from agentspan.recording.tracer import Tracer


class SpanProcessor(_SpanProcessor):
    """Records the spans of a TracerProvider, each in the file when it starts.

        provider.add_span_processor(agentspan.otel.SpanProcessor())

    Args:
        tracer: where to record; where `agentspan.configure` says, when left out.
    """

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer
        self._live: LiveRecording | None = None
        _processors.add(self)

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Record an active span."""
        try:
            live = self._live if page[0] else None
            if live is None or live.recorder is not (get_recorder() if self._tracer is None else self._tracer.recorder):
                live = self._usable()
            if live is not None:
                live.start(span)
        except Exception as error:
            let_through(error)
            self._recorder().faults.lose(error, reraise=False)

    def on_end(self, span: Any) -> None:
        """Record how it ended."""
        try:
            live = self._live if page[0] else None
            if live is None or live.recorder is not (get_recorder() if self._tracer is None else self._tracer.recorder):
                live = self._usable()
            if live is not None:
                live.end(span)
        except Exception as error:
            let_through(error)
            self._recorder().faults.lose(error, reraise=False)

    def shutdown(self) -> None:
        """Close the spans that have not ended, and end the run of the process. What comes afterwards begins another.

        Where other processors record into the same tracer, the last of them does that.
        """
        with _lock:
            live, self._live = self._live, None
            if live is not None:
                _give_back(live)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Write what waits; return whether everything is in the storage."""
        return self._recorder().flush(timeout_millis / 1000)

    def _recorder(self) -> Recorder:
        if not page[0]:
            forks.renew()
        return get_recorder() if self._tracer is None else self._tracer.recorder

    def _usable(self) -> LiveRecording | None:
        """Return what records now; None where nothing does."""
        if not page[0]:
            forks.renew()
        recorder = get_recorder() if self._tracer is None else self._tracer.recorder
        live = self._live
        if live is None or live.recorder is not recorder:
            return self._recording(recorder) if recorder.enabled else None
        return live

    def _recording(self, recorder: Recorder) -> LiveRecording:
        with _lock:
            if self._live is not None:  # `configure` made another one
                _give_back(self._live)
            live = _recordings.get(id(recorder))
            if live is None:
                live = _recordings[id(recorder)] = LiveRecording(recorder)
            live.users += 1
            self._live = live
            return live


_lock = threading.RLock()
_recordings: dict[int, LiveRecording] = {}
"""By the id of their recorder, which they keep."""


def _give_back(live: LiveRecording) -> None:
    live.users -= 1
    if live.users:
        return
    _recordings.pop(id(live.recorder), None)
    if live.recorder.is_usable:
        try:
            live.close()
            live.recorder.flush(2.0)
        except Exception as error:
            let_through(error)
            live.recorder.faults.lose(error, reraise=False)


_processors: "weakref.WeakSet[SpanProcessor]" = weakref.WeakSet()


def _shut_down_all() -> None:
    for processor in forks.members(_processors):
        processor.shutdown()


def _renew_all() -> None:
    global _lock
    _lock = threading.RLock()  # another thread of the parent may have held it
    for live in _recordings.values():
        live.renew()


atexit.register(_shut_down_all)  # before the recorder's own, which was registered earlier; a provider may have none
forks.renewal(Renewal.LOCKS, _renew_all)
