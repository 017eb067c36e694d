"""Tools of all tests of the contract: rows, steps that must succeed, and skipping what a storage does not claim."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from agentspan.model.changes import Applied, Move, Put, Unit
from agentspan.model.rows import AgentInstanceRow, Row
from agentspan.model.status import LEAVES
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Question
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.rows import T1, Rows


class Base:
    """Steps of the tests."""

    rows = Rows()

    def claimed(self, storage: Storage, name: str) -> Any:
        """Return what provides a capability; skip the test where the storage does not claim it."""
        can = storage.capabilities()
        provider = getattr(can, name)
        if provider is None or provider is False:
            pytest.skip(f"the storage {can.backend!r} does not claim {name}")
        return provider

    def answered(self, storage: Storage, question: type[Question[Any]]) -> None:
        """Skip the test where the storage has no answer of its own to a question."""
        can = storage.capabilities()
        if question not in can.answers:
            pytest.skip(f"the storage {can.backend!r} does not answer {question.__name__}")

    @contextlib.contextmanager
    def opened_again(self, storage: Storage) -> Iterator[Storage]:
        """Open what a storage claims as its location; skip the test where it claims none."""
        again = open_direct(self.claimed(storage, "location"))
        try:
            yield again
        finally:
            again.close()

    def instance(self, storage: Storage) -> AgentInstanceRow:
        """Put an active instance, and what it refers to."""
        agent = self.rows.agent()
        version, schema, instance = self.rows.family(agent)
        self.put(storage, agent, version, schema, instance)
        return instance

    def put(self, storage: Storage, *rows: Row) -> None:
        """Put rows, a unit each."""
        outcomes = storage.apply([Unit((Put(row),)) for row in rows])
        assert all(isinstance(outcome, Applied) for outcome in outcomes)

    def move(self, storage: Storage, move: Move) -> None:
        """Apply a move whose guard holds."""
        assert storage.apply([Unit((move,))]) == [Applied()]

    def end(self, storage: Storage, instance: AgentInstanceRow) -> AgentInstanceRow:
        """Complete an instance; return its row as it is then."""
        values = {"status": "complete", "finished_at": T1, "updated_at": T1}
        self.move(storage, Move("agent_instance", instance.id, LEAVES["complete"], values))
        return instance._replace(status="complete", finished_at=T1, updated_at=T1)

    def terminate(self, storage: Storage, instance: AgentInstanceRow, reason: str = "enough") -> None:
        """Terminate an instance."""
        values = {"status": "terminated", "termination_reason": reason}
        outcomes = storage.apply([Unit((Move("agent_instance", instance.id, LEAVES["terminated"], values),))])
        assert isinstance(outcomes[0], Applied)

    def stored(self, storage: Storage, id: str) -> Row | None:
        """Return the row that is stored under an id; None where there is none."""
        found = storage.ask(Find(id)).rows.get(id)
        return None if found is None else found[1]
