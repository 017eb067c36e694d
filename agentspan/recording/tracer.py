"""Tracer: records into one storage. The public facade of a Recorder."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

from agentspan import forks
from agentspan.forks import page
from agentspan.model.status import Purpose
from agentspan.recording.beginning import DEFAULT_TYPE
from agentspan.recording.blocks import RunBlock, SpanBlock, disabled_run, disabled_span, span_block
from agentspan.recording.generators import Reduce
from agentspan.recording.outcomes import Outcomes
from agentspan.recording.propagation import Propagated
from agentspan.recording.recorder import Recorder
from agentspan.recording.settings import Settings, SettingsArguments, settings_from, with_settings
from agentspan.recording.span_and_run import OnTerminate, Run, Span
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage

P = ParamSpec("P")
R = TypeVar("R")


class Health(NamedTuple):
    """The state of recording, counted in transitions since the tracer was made.

    `recorded` are on disk, in the storage or in the journal before it (`flush` tells whether all are in the storage);
    `waiting` could not be written yet and are tried again; `failed` are lost.
    `redacted` counts the texts and values that were kept out of the file, `refused` the transitions that came too late:
    they are in the table `refused_changes`.
    `spooled_bytes` of records are in the journal and not in the storage yet. `oldest_s` is for how many seconds, at
    least, the oldest of what is not in the storage has waited. `last_error` says why the storage took nothing when it
    was tried last; it is None where the storage took something.
    """

    recorded: int = 0
    failed: int = 0
    waiting: int = 0
    redacted: int = 0
    refused: int = 0
    spooled_bytes: int = 0
    oldest_s: float = 0.0
    last_error: str | None = None


class Tracer:
    """Records into one storage. The functions of the package use one; make more for those who want two.

    Args:
        db: a file, `":memory:"` or a Storage; AGENTSPAN_DB, else ./agentspan.db, when left out.
        settings: those of `agentspan.configure`, by keyword.

    Attributes:
        enabled: whether it records.
        storage: where it records; `agentspan.open(tracer.storage)` reads it back. A disabled one has none.
        recorder: what records, for modules of agentspan.

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """

    enabled: bool
    storage: Storage
    recorder: Recorder

    @with_settings
    def __init__(
        self,
        db: str | os.PathLike[str] | Location | Storage | None = None,
        **settings: Unpack[SettingsArguments],
    ) -> None:
        self._show(new_recorder(db, settings_from("Tracer", settings)))

    def _show(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.enabled = recorder.enabled
        if recorder.is_open:
            self.storage = recorder.destination.storage

    def _resolve(self) -> Recorder:
        return self.recorder

    @overload
    def span(self, fn: Callable[P, R], /) -> Callable[P, R]: ...
    @overload
    def span(
        self,
        schema_name: str = DEFAULT_TYPE,
        payload: Mapping[str, Any] | None = None,
        *,
        reduce: Reduce | None = None,
        **members: Any,
    ) -> SpanBlock: ...
    def span(self, schema_name: Any = DEFAULT_TYPE, payload: Any = None, *, reduce: Any = None, **members: Any) -> Any:
        """Record a step: a with-block, or a decorator (see agentspan.span)."""
        return span_block(self._resolve, schema_name, payload, reduce, members)

    def run(
        self,
        name: str,
        *,
        version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        purpose: Purpose = "live",
        session: str | None = None,
        user: str | None = None,
        task: str | None = None,
        tags: Collection[str] | None = None,
        on_terminate: OnTerminate | None = None,
    ) -> RunBlock:
        """Record a run of an agent: a with-block, or a decorator (see agentspan.run)."""
        return RunBlock(
            self._resolve,
            name,
            version=version,
            metadata=metadata,
            purpose=purpose,
            session=session,
            user=user,
            task=task,
            tags=tags,
            on_terminate=on_terminate,
        )

    def propagate(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Carry what is active here to where `fn` will be called (see agentspan.propagate)."""
        return Propagated(fn, self.recorder)

    def current_span(self) -> Span | None:
        """Return the innermost span that is active here, in this thread or task."""
        node = self.recorder.innermost()
        return node if type(node) is Span else None if self.enabled else disabled_span(self.recorder, DEFAULT_TYPE)

    def current_run(self) -> Run | None:
        """Return the run that is active here, in this thread or task."""
        node = self.recorder.innermost()
        run = node.run if isinstance(node, Span) else node
        return disabled_run(self.recorder) if run is None and not self.enabled else run

    def health(self) -> Health:
        """Count what was recorded, what waits, and what is lost."""
        if not page[0]:
            forks.renew()
        recorder = self.recorder
        redaction, lost = recorder.capture.redaction, recorder.faults.lost
        redacted = 0 if redaction is None else redaction.count
        if recorder.sink is None:
            return Health(0, lost, 0, redacted)
        counts = recorder.sink.counts()
        return Health(
            counts.recorded,
            counts.failed + lost,
            counts.waiting,
            redacted,
            counts.refused,
            counts.spooled_bytes,
            round(counts.oldest_s, 3),
            counts.last_error,
        )

    def flush(self, wait_s: float = 5.0) -> bool:
        """Write what waits, for at most `wait_s` seconds; tell whether everything is in the storage."""
        return self.recorder.flush(wait_s)

    def shutdown(self, wait_s: float = 5.0) -> None:
        """Flush and close the storage; what is recorded afterwards is counted as failed. Twice is fine."""
        self.recorder.shutdown(wait_s)


def new_recorder(
    db: str | os.PathLike[str] | Location | Storage | None,
    settings: Settings,
    *,
    broken: Exception | None = None,
    open_wait_s: float = 10.0,
) -> Recorder:
    """Return a recorder for spans and runs; see Recorder."""
    return Recorder(db, settings, Outcomes, broken=broken, open_wait_s=open_wait_s)


def tracer_of(recorder: Recorder) -> Tracer:
    """Return the facade of a recorder."""
    tracer = Tracer.__new__(Tracer)
    tracer._show(recorder)
    return tracer
