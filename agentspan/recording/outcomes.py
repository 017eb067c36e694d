"""Receives the outcomes of a recorder's changes: learns of terminations, and fits changes that were refused."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from agentspan.errors import InvalidAction, NotFound, StorageError
from agentspan.interrupts import let_through
from agentspan.model.changes import Move, Put, PutSpans, Refused, Unit, unit_of
from agentspan.model.refusals import termination_behind
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.recording.sink import WAIT_S
from agentspan.recovery.committer import Listener
from agentspan.recovery.rebasing import with_agents
from agentspan.recovery.writers import this_process

if TYPE_CHECKING:
    from agentspan.recording.run import Run
    from agentspan.recording.tracer import Tracer


class Outcomes(Listener):
    """The outcomes of one tracer's changes."""

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    def fault(self, error: Exception) -> None:
        """See Listener."""
        self._tracer._fault(error)

    def recovered(self) -> None:
        """See Listener."""
        self._tracer._recovered()

    def terminated(self, unit: Unit, reason: str) -> None:
        """Tell a run of this process that somebody terminated it; of several, find out which."""
        change = unit.changes[0]
        try:
            if isinstance(change, PutSpans):
                self._learn({row.agent_instance_id for row in change.rows})
            elif isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
                run = self._tracer._runs.get(change.row.agent_instance_id)
                if run is not None:
                    run._learn(reason)
            elif isinstance(change, Move) and change.type == "agent_span":
                found = self._tracer._store.find(change.id, instance_id=change.instance_id)
                self._tell(found.terminated)
            elif isinstance(change, Move):
                self._tell({change.id: reason})
        except StorageError:  # it is learned at the next look
            pass

    def terminations(self) -> dict[str, str]:
        """Return which runs of this process that go on are terminated, and why."""
        ids = [run.id for run in self._active_runs()]
        return dict(self._tracer._store.find(*ids).terminated) if ids else {}

    def has_runs(self) -> bool:
        """Tell whether runs of this process go on."""
        return bool(self._active_runs())

    def _active_runs(self) -> "list[Run]":
        return [run for run in self._tracer._runs.all() if run.status == "active"]

    def learn(self, terminations: dict[str, str]) -> None:
        """Tell runs of this process that they are terminated."""
        for id, reason in terminations.items():
            run = self._tracer._runs.get(id)
            if run is not None:
                run._learn(reason)

    def _learn(self, ids: Collection[str]) -> None:
        self.learn(dict(self._tracer._store.find(*ids).terminated))

    def _tell(self, terminations: Mapping[str, str]) -> None:
        """Let runs learn of it that have no further span that would."""
        for id, reason in terminations.items():
            run = self._tracer._runs.get(id)
            if run is not None:
                run._learn(reason)
                run._tell()

    def refused(self, unit: Unit, refused: Refused) -> None:
        """See Listener."""
        terminated_id = termination_behind(refused)
        if terminated_id is None:  # else it was to be expected
            self._tracer._fault(_refusal(unit, refused))
        elif self._tracer._runs.get(terminated_id) is not None:
            found = self._tracer._store.find(terminated_id, instance_id=terminated_id)
            reason = found.terminated.get(terminated_id, "")
            self._tell({terminated_id: reason})

    def missing(self, unit: Unit) -> Unit | None:
        """Return a unit as it fits what is stored now, or None if it does not.

        A run whose file was deleted is registered once more, in the new one. What belongs to a run that could not be
        registered at first was refused only because it came with it.
        """
        try:
            return self._fitting(unit)
        except StorageError:
            raise
        except Exception as error:
            let_through(error)
            self._tracer._fault(error, reraise=False)
            return None

    def _fitting(self, unit: Unit) -> Unit | None:
        change = unit.changes[0]
        if isinstance(change, Move):
            found = self._tracer._store.find(change.id, instance_id=change.instance_id)
            return unit if change.id in found.rows else None
        if not isinstance(change, Put) or not isinstance(change.row, AgentSpanRow):
            return None
        tracer, instance_id = self._tracer, change.row.agent_instance_id
        run = tracer._runs.get(instance_id)
        if not tracer._may_be_unstored(instance_id) and not self._is_another_file():
            run = None  # somebody has removed it
        if run is not None and run._register_again() is not None:
            tracer._store.apply((unit_of(Put(this_process(tracer._writer_id), minted=True)),), wait_s=WAIT_S)
        located = tracer._store.find(instance_id, instance_id=instance_id).rows.get(instance_id)
        if not located or not isinstance(located[1], AgentInstanceRow):
            return None
        return with_agents(unit, {instance_id: located[1].agent_id})

    def _is_another_file(self) -> bool:
        return self._tracer._store.account().id != self._tracer._context.account.id

    def registered(self, instance: AgentInstanceRow) -> None:
        """Let a run know the agent that it is registered with after all."""
        self._tracer._registrations.pop(instance.id, None)
        run = self._tracer._runs.get(instance.id)
        if run is not None:
            run._instance = instance


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
