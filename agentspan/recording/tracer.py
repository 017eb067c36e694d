"""Tracer: records into one storage. The public facade of a Recorder, and of the outcomes of its changes."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

from agentspan import forks
from agentspan.errors import DatabaseBusy, InvalidAction, NotFound, StorageError
from agentspan.forks import page
from agentspan.interrupts import let_through
from agentspan.journal.names import run_of, with_agents
from agentspan.model.changes import Move, Put, PutSpans, Refused, Unit
from agentspan.model.refusals import termination_behind
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import Purpose
from agentspan.recording.beginning import DEFAULT_TYPE
from agentspan.recording.blocks import RunBlock, SpanBlock, span_block
from agentspan.recording.generators import Reduce
from agentspan.recording.propagation import Propagated
from agentspan.recording.recorder import LiveRun, Recorder
from agentspan.recording.settings import Settings, SettingsArguments, settings_from, with_settings
from agentspan.recording.sinks.protocol import RunListener
from agentspan.recording.span_and_run import OnTerminate, Run, Span, active_face
from agentspan.recording.span_state import SpanState, disabled_run, disabled_span
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find


class Outcomes(RunListener):
    """The outcomes of one recorder's changes."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def fault(self, error: Exception) -> None:
        """Count and log a fault."""
        self._recorder.faults.add(error)

    def recovered(self) -> None:
        """Note that the storage accepts changes again."""
        self._recorder.faults.storage_recovered()

    def terminated(self, unit: Unit, reason: str) -> None:
        """Notify the run of this process that was terminated; of several, find out which."""
        change = unit.changes[0]
        try:
            if isinstance(change, PutSpans):
                self._learn({row.agent_instance_id for row in change.rows})
            elif isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
                run = self._recorder.runs.get(change.row.agent_instance_id)
                if run is not None:
                    run.learn(reason)
            elif isinstance(change, Move) and change.type == "agent_span":
                found = self._recorder.store.ask(Find(change.id, instance_id=change.instance_id))
                self._tell(found.terminated)
            elif isinstance(change, Move):
                self._tell({change.id: reason})
        except StorageError:  # it is learned at the next look
            pass

    def terminations(self) -> dict[str, str]:
        """Return the reason for each active run of this process that is terminated."""
        ids = [run.id for run in self._recorder.runs.active()]
        return dict(self._recorder.store.ask(Find(*ids)).terminated) if ids else {}

    def has_runs(self) -> bool:
        """Return whether a run of this process is active."""
        return bool(self._recorder.runs.active())

    def learn(self, terminations: Mapping[str, str]) -> None:
        """Tell runs that they were terminated."""
        for id, reason in terminations.items():
            run = self._recorder.runs.get(id)
            if run is not None:
                run.learn(reason)

    def _learn(self, ids: Collection[str]) -> None:
        self.learn(dict(self._recorder.store.ask(Find(*ids)).terminated))

    def _tell(self, terminations: Mapping[str, str]) -> None:
        """Let runs learn of it that have no further span that would."""
        for id, reason in terminations.items():
            run = self._recorder.runs.get(id)
            if run is not None:
                run.learn(reason)
                run.tell()

    def refused(self, unit: Unit, refused: Refused) -> None:
        """Log a change that came too late."""
        terminated_id = termination_behind(refused)
        if terminated_id is None:  # else it was to be expected
            self._recorder.faults.add(_refusal(unit, refused))
        elif self._recorder.runs.get(terminated_id) is not None:
            found = self._recorder.store.ask(Find(terminated_id, instance_id=terminated_id))
            reason = found.terminated.get(terminated_id, "")
            self._tell({terminated_id: reason})

    def missing(self, unit: Unit) -> Unit | None:
        """Return a unit as it fits what is stored now, or None if it does not.

        A run whose file was deleted or replaced is registered once more, in the new one, if it has no row there. What
        belongs to a run that could not be registered at first was refused only because it came with it.
        """
        try:
            return self._fitting(unit)
        except StorageError:
            raise
        except Exception as error:
            let_through(error)
            self._recorder.faults.add(error, reraise=False)
            return None

    def _fitting(self, unit: Unit) -> Unit | None:
        change, recorder, instance_id = unit.changes[-1], self._recorder, run_of(unit)
        if isinstance(change, Move) and instance_id is None:
            found = recorder.store.ask(Find(change.id, instance_id=change.instance_id))
            return unit if change.id in found.rows else None
        if instance_id is None:
            return None
        run: LiveRun | None = recorder.runs.get(instance_id)
        is_stored = instance_id not in recorder.runs.unconfirmed
        if run is not None and is_stored and run.stored_in == recorder.destination.identity_now():
            run = None  # somebody has removed it
        if run is not None:
            recorder.store.apply((recorder.writer,), wait_s=recorder.tuning.recording_wait_s)
            run.register_again()
        located = recorder.store.ask(Find(instance_id, instance_id=instance_id)).rows.get(instance_id)
        if not located or not isinstance(located[1], AgentInstanceRow):
            if run is not None and instance_id in recorder.runs.unconfirmed:  # it waits, so what follows it waits too
                raise DatabaseBusy(f"the run {instance_id} is not stored yet; it is tried again")
            return None
        return with_agents(unit, {instance_id: located[1].agent_id})

    def registered(self, instance: AgentInstanceRow) -> None:
        """Let a run know the agent that it is registered with."""
        self._recorder.destination.learn()
        self._recorder.follow_file()
        self._recorder.runs.unconfirmed.pop(instance.id, None)
        run = self._recorder.runs.get(instance.id)
        if run is not None:
            run.confirm(instance)


def _refusal(unit: Unit, refused: Refused) -> Exception:
    change = unit.changes[-1]
    assert not isinstance(change, PutSpans)  # nothing is refused before it stands alone
    id = change.row.id if isinstance(change, Put) else change.id
    if refused.why == "status":
        status = getattr(refused.stored, "status", "finished")
        return InvalidAction(
            f"{id} was {status} already when this program wanted to change it; somebody else was first"
        )
    return NotFound(f"{id} could not be recorded: the row that it belongs to is not in the file ({refused.why})")


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

    Raises:
        DatabaseUnusable: the file cannot be used; the message says what to do.
    """

    enabled: bool
    storage: Storage

    @with_settings
    def __init__(
        self,
        db: str | os.PathLike[str] | Location | Storage | None = None,
        **settings: Unpack[SettingsArguments],
    ) -> None:
        self._show(new_recorder(db, settings_from("Tracer", settings)))

    def _show(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.enabled = recorder.enabled
        if recorder.is_open:
            self.storage = recorder.destination.storage

    def _resolve(self) -> Recorder:
        return self._recorder

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
        return Propagated(fn, self._recorder)

    def current_span(self) -> Span | None:
        """Return the innermost span that is active here, in this thread or task."""
        if not self.enabled:
            return Span(disabled_span(self._recorder, DEFAULT_TYPE))
        node = self._recorder.innermost()
        return active_face(node) if type(node) is SpanState else None

    def current_run(self) -> Run | None:
        """Return the run that is active here, in this thread or task."""
        node = self._recorder.innermost()
        run = node.run if isinstance(node, SpanState) else node
        if run is None:
            return None if self.enabled else Run(disabled_run(self._recorder))
        found: Run = active_face(run)
        return found

    def health(self) -> Health:
        """Count what was recorded, what waits, and what is lost."""
        if not page[0]:
            forks.renew()
        recorder = self._recorder
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
        return self._recorder.flush(wait_s)

    def shutdown(self, wait_s: float = 5.0) -> None:
        """Flush and close the storage; what is recorded afterwards is counted as failed. Twice is fine."""
        self._recorder.shutdown(wait_s)


def new_recorder(
    db: str | os.PathLike[str] | Location | Storage | None,
    settings: Settings,
    *,
    broken: Exception | None = None,
    open_wait_s: float = 10.0,
) -> Recorder:
    """Return a recorder for spans and runs; see Recorder."""
    return Recorder(db, settings, Outcomes, broken=broken, open_wait_s=open_wait_s)


def recorder_of(tracer: Tracer) -> Recorder:
    """Return what a tracer records with, for agentspan's own modules."""
    return tracer._recorder


def tracer_of(recorder: Recorder) -> Tracer:
    """Return the facade of a recorder."""
    tracer = Tracer.__new__(Tracer)
    tracer._show(recorder)
    return tracer
