"""Receives the outcomes of a recorder's changes: terminations go to its runs, and refused changes are adapted."""

from collections.abc import Collection, Mapping

from agentspan.errors import DatabaseBusy, InvalidAction, NotFound, StorageError
from agentspan.interrupts import let_through
from agentspan.model.changes import Move, Put, PutSpans, Refused, Unit
from agentspan.model.refusals import termination_behind
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.recording.recorder import LiveRun, Recorder
from agentspan.recording.sinks.protocol import RunListener
from agentspan.recovery.names import run_of, with_agents
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
