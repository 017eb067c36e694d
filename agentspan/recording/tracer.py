"""Tracer: records into one storage. It is the public facade of a Recorder, and receives its outcomes."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar, Unpack, overload

from agentspan import host
from agentspan.errors import DatabaseBusy, InvalidAction, NotFound, StorageError
from agentspan.host import page
from agentspan.journal.names import run_of, with_agents
from agentspan.model.changes import Move, Purpose, Put, PutSpans, Refused, Unit, termination_behind
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.recording.beginning import DEFAULT_TYPE
from agentspan.recording.blocks import RunBlock, SpanBlock, span_block
from agentspan.recording.generators import Reduce
from agentspan.recording.propagation import Propagated
from agentspan.recording.recorder import Recorder
from agentspan.recording.settings import Settings, SettingsArguments, settings_from, with_settings
from agentspan.recording.sinks.protocol import RunListener
from agentspan.recording.span_and_run import OnTerminate, Run, Span, active_face
from agentspan.recording.span_state import SpanState, disabled_run, disabled_span
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find


class Outcomes(RunListener):
    """Receives the outcomes of one recorder's changes, and passes terminations on to its runs."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def fault(self, error: Exception) -> None:
        """Count and log a fault."""
        self._recorder.faults.add(error)

    def recovered(self) -> None:
        """Note that the storage accepts changes again."""
        self._recorder.faults.storage_recovered()

    def terminated(self, unit: Unit, reason: str) -> None:
        """Notify the terminated run of a unit. Of a unit with spans of several runs, look up which are terminated."""
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
        """Notify runs of this process that they were terminated. Their `on_terminate` is called at their next span."""
        for id, reason in terminations.items():
            run = self._recorder.runs.get(id)
            if run is not None:
                run.learn(reason)

    def _learn(self, ids: Collection[str]) -> None:
        self.learn(dict(self._recorder.store.ask(Find(*ids)).terminated))

    def _tell(self, terminations: Mapping[str, str]) -> None:
        """Notify terminated runs, and call their `on_terminate` at once: a run may have no further span to do it."""
        for id, reason in terminations.items():
            run = self._recorder.runs.get(id)
            if run is not None:
                run.learn(reason)
                run.tell()

    def refused(self, unit: Unit, refused: Refused) -> None:
        """Log a refused change; if it was refused because its run is terminated, notify the run instead."""
        terminated_id = termination_behind(refused)
        if terminated_id is None:  # a refusal by a termination is no fault
            self._recorder.faults.add(_refusal(unit, refused))
        elif self._recorder.runs.get(terminated_id) is not None:
            found = self._recorder.store.ask(Find(terminated_id, instance_id=terminated_id))
            reason = found.terminated.get(terminated_id, "")
            self._tell({terminated_id: reason})

    def missing(self, unit: Unit) -> Unit | None:
        """Return a unit that can be applied now in place of one whose run was not stored; None if there is none.

        If the file was deleted or replaced, the run is registered again in the new file. A unit may also have been
        refused only because the registration of its run was refused in the same commit.
        """
        try:
            return self._fitting(unit)
        except StorageError:
            raise
        except Exception as error:
            self._recorder.faults.add(error, reraise=False)
            return None

    def _fitting(self, unit: Unit) -> Unit | None:
        change, recorder, instance_id = unit.changes[-1], self._recorder, run_of(unit)
        if isinstance(change, Move) and instance_id is None:
            found = recorder.store.ask(Find(change.id, instance_id=change.instance_id))
            return unit if change.id in found.rows else None
        if instance_id is None:
            return None
        run = recorder.runs.get(instance_id)
        is_stored = instance_id not in recorder.runs.unconfirmed
        if run is not None and is_stored and run.stored_in == recorder.destination.identity_now():
            run = None  # the run was removed from the storage
        if run is not None:
            recorder.store.apply((recorder.writer,), wait_s=recorder.tuning.recording_wait_s)
            run.register_again()
        located = recorder.store.ask(Find(instance_id, instance_id=instance_id)).rows.get(instance_id)
        if not located or not isinstance(located[1], AgentInstanceRow):
            if run is not None and instance_id in recorder.runs.unconfirmed:  # its changes must wait for the run
                raise DatabaseBusy(f"the run {instance_id} is not stored yet; it is tried again")
            return None
        return with_agents(unit, {instance_id: located[1].agent_id})

    def registered(self, instance: AgentInstanceRow) -> None:
        """Set the stored row of a run, with the agent that the run was registered with."""
        self._recorder.destination.learn()
        self._recorder.follow_file()
        self._recorder.runs.unconfirmed.pop(instance.id, None)
        run = self._recorder.runs.get(instance.id)
        if run is not None:
            run.confirm(instance)


def _refusal(unit: Unit, refused: Refused) -> Exception:
    change = unit.changes[-1]
    assert not isinstance(change, PutSpans)  # a refused unit of several spans is parted into units of one span
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

    Attributes:
        recorded: transitions on disk, in the storage or in the journal in front of it. `flush` returns whether all are
            in the storage.
        failed: transitions that are lost.
        waiting: transitions that could not be written yet. They are retried.
        redacted: texts and values that were kept out of the file.
        refused: transitions that came too late. They are in the table `refused_changes`.
        spooled_bytes: size of the records in the journal that are not in the storage yet.
        oldest_s: seconds that the oldest transition outside the storage has waited, at least.
        last_error: the error of the latest attempt to write to the storage; None if that attempt succeeded.
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
    """Records into one storage. The functions of the package share one Tracer; make another for a second storage.

    Args:
        db: a file, `":memory:"` or a Storage; AGENTSPAN_DB, else ./agentspan.db, when left out.
        settings: the settings of `agentspan.configure`, by keyword.

    Attributes:
        enabled: whether the tracer records.
        storage: the storage that it records into; `agentspan.open(tracer.storage)` reads it. Absent if disabled.

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
        """Wrap `fn` so that each call records under the span that is active now (see agentspan.propagate)."""
        return Propagated(fn, self._recorder)

    def current_span(self) -> Span | None:
        """Return the innermost active span of the current thread or task, or None."""
        if not self.enabled:
            return Span(disabled_span(self._recorder, DEFAULT_TYPE))
        node = self._recorder.innermost()
        return active_face(node) if type(node) is SpanState else None

    def current_run(self) -> Run | None:
        """Return the active run of the current thread or task, or None."""
        node = self._recorder.innermost()
        run = node.run if isinstance(node, SpanState) else node
        if run is None:
            return None if self.enabled else Run(disabled_run(self._recorder))
        found: Run = active_face(run)
        return found

    def health(self) -> Health:
        """Return the counts of transitions that were recorded, wait, and are lost."""
        if not page[0]:
            host.renew()
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
        """Write waiting records for at most `wait_s` seconds. Return True if everything is in the storage."""
        return self._recorder.flush(wait_s)

    def shutdown(self, wait_s: float = 5.0) -> None:
        """Flush and close the storage. Later transitions are counted as failed. A second call does nothing."""
        self._recorder.shutdown(wait_s)


def new_recorder(
    db: str | os.PathLike[str] | Location | Storage | None,
    settings: Settings,
    *,
    broken: Exception | None = None,
    open_wait_s: float = 10.0,
) -> Recorder:
    """Return a Recorder whose outcomes go to its runs. Args as in Recorder."""
    return Recorder(db, settings, Outcomes, broken=broken, open_wait_s=open_wait_s)


def recorder_of(tracer: Tracer) -> Recorder:
    """Return what a tracer records with, for agentspan's own modules."""
    return tracer._recorder


def tracer_of(recorder: Recorder) -> Tracer:
    """Return a new Tracer for an existing recorder."""
    tracer = Tracer.__new__(Tracer)
    tracer._show(recorder)
    return tracer
