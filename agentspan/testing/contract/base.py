"""What all tests of the contract use: rows, and steps that must succeed."""

from agentspan.model.changes import Applied, Move, Put, Unit
from agentspan.model.rows import AgentInstanceRow, Row
from agentspan.storage.protocol import Storage
from agentspan.testing.contract.rows import Rows


class Base:
    """Steps of the tests."""

    rows = Rows()

    def instance(self, storage: Storage) -> AgentInstanceRow:
        """Put an instance, and what it refers to."""
        agent = self.rows.agent()
        version, schema, instance = self.rows.family(agent)
        self.put(storage, agent, version, schema, instance)
        return instance

    def put(self, storage: Storage, *rows: Row) -> None:
        """Put rows, a unit each."""
        outcomes = storage.apply([Unit((Put(row),)) for row in rows])
        assert all(isinstance(outcome, Applied) for outcome in outcomes)

    def stored(self, storage: Storage, id: str) -> Row | None:
        """Return the row that is stored under an id; None where there is none."""
        found = storage.find(id).rows.get(id)
        return None if found is None else found[1]

    def move(self, storage: Storage, move: Move) -> None:
        """Apply a move whose guard holds."""
        assert storage.apply([Unit((move,))]) == [Applied()]
