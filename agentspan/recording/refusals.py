"""What a recorder does with a unit that the storage refused: written as it fits now, or kept in a row of its own.

Here it also learns that a run was terminated: a span was put all the same, or one was closed by somebody else.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from agentspan import clock
from agentspan.errors import StorageError
from agentspan.model.changes import Move, Put, PutSpans, Refused, Unit, unit_of
from agentspan.model.refusals import refused_change, termination_behind
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.operations import agent_instances
from agentspan.operations.writers import this_process
from agentspan.recording.sink import WAIT_S

if TYPE_CHECKING:
    from agentspan.recording.tracer import Tracer


class Refusals:
    """The refusals of one tracer."""

    def __init__(self, tracer: "Tracer") -> None:
        self._tracer = tracer

    def terminated(self, unit: Unit, reason: str) -> None:
        """Tell a run of this process that somebody terminated it; of several, find out which."""
        change = unit.changes[0]
        if isinstance(change, PutSpans):
            try:
                self._learn({row.agent_instance_id for row in change.rows})
            except StorageError:  # it is learned at the next look
                pass
        elif isinstance(change, Put) and isinstance(change.row, AgentSpanRow):
            run = self._tracer._runs.get(change.row.agent_instance_id)
            if run is not None:
                run._learn(reason)

    def look(self) -> None:
        """Learn whether somebody terminated the runs of this process that go on."""
        self._learn([id for id, run in list(self._tracer._runs.items()) if run.status == "active"])

    def _learn(self, ids: Collection[str]) -> None:
        for id, reason in self._tracer._store.find(*ids).terminated.items() if ids else ():
            run = self._tracer._runs.get(id)
            if run is not None:
                run._learn(reason)

    def instead(self, unit: Unit, refused: Refused) -> Unit | None:
        """Return what to write instead of a refused unit: the same as it fits now, or a row that keeps it."""
        try:
            again = self._fitting(unit, refused)
            if again is not None:
                return again
            terminated_id = termination_behind(refused)
            if terminated_id is not None and terminated_id in self._tracer._runs:
                reason = self._tracer._store.find(terminated_id).terminated.get(terminated_id, "")
                self._tracer._runs[terminated_id]._learn(reason)
                self._tracer._runs[terminated_id]._tell()
            return unit_of(refused_change(self._tracer._ids.new(), unit, refused, self._tracer._writer_id, clock.now()))
        except Exception as error:
            self._tracer._fault(error, reraise=False)
            return None

    def _fitting(self, unit: Unit, refused: Refused) -> Unit | None:
        """Return a unit as it fits what is stored now, or None if it does not.

        A run's registration that had to wait may find its agent made by others; a run whose file was deleted is
        registered once more, in the new one; and what belongs to either was refused only because it came with it.
        """
        if refused.why == "not_unique" and len(unit.changes) > 1:
            again, instance = agent_instances.rebased(self._tracer._context, unit)
            self._now_registered(instance)
            return again
        if refused.why != "missing":
            return None
        change = unit.changes[0]
        if isinstance(change, Move):
            return unit if change.id in self._tracer._store.find(change.id).rows else None
        if not isinstance(change, Put) or not isinstance(change.row, AgentSpanRow):
            return None
        tracer, instance_id = self._tracer, change.row.agent_instance_id
        run = tracer._runs.get(instance_id)
        if run is not None and run._register_again() is not None:
            tracer._store.apply((unit_of(Put(this_process(tracer._writer_id), minted=True)),), wait_s=WAIT_S)
        located = tracer._store.find(instance_id).rows.get(instance_id)
        if not located or not isinstance(located[1], AgentInstanceRow):
            return None
        return agent_instances.with_agents(unit, {instance_id: located[1].agent_id})

    def _now_registered(self, instance: AgentInstanceRow) -> None:
        """Let everything of a run know the agent that it is registered with after all."""
        run = self._tracer._runs.get(instance.id)
        if run is not None:
            run._instance = instance
        agents = {instance.id: instance.agent_id}
        self._tracer._sink_of_all().rewrite(lambda unit: agent_instances.with_agents(unit, agents))
