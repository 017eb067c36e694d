"""Helpers of the contract tests: rows, steps that must succeed, and skips for capabilities that a storage lacks."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentspan import ids
from agentspan.model.changes import LEAVES, Applied, Move, Put, Refused, Unit
from agentspan.model.columns import Column, columns_of
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    Row,
    Value,
    Violation,
)
from agentspan.storage.patience import Patience, waiting
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Query, Question
from agentspan.storage.registry import open_direct

T0, T1, T2 = (f"2026-01-01T00:00:0{second}.000000Z" for second in range(3))


_EXAMPLES: dict[str, Value] = {"time": T1, "object": '{"a":[1]}', "list": "[2]", "json": "3", "flag": 1}
_OF_TYPES: dict[type, Value] = {int: 7, float: 0.25}


def _example_of(column: Column) -> Value:
    """Return a value that a column may hold. A text contains the name of the column."""
    return _EXAMPLES.get(column.holds or "", _OF_TYPES.get(column.type, f"a {column.name}"))


class Rows:
    """Makes rows that refer to each other, with new ids."""

    def __init__(self) -> None:
        self.ids = ids.IdSource(7)

    def agent(self, name: str | None = None) -> AgentRow:
        """Return a pending agent; without a name it has no external identifier."""
        return AgentRow(self.ids.new(), name, name or "nameless", None, "pending", T0, T0)

    def family(self, agent: AgentRow) -> tuple[AgentVersionRow, AgentSchemaVersionRow, AgentInstanceRow]:
        """Return a version, a schema version and an active instance of an agent."""
        version = AgentVersionRow(self.ids.new(), agent.id, self.ids.new(), None, None, None, T0, T0)
        schema = AgentSchemaVersionRow(self.ids.new(), agent.id, None, self.ids.new(), "[]", None, T0, T0)
        values: dict[str, Any] = dict.fromkeys(AgentInstanceRow._fields)
        values.update(id=self.ids.new(), agent_id=agent.id, agent_version_id=version.id, status="active")
        values.update(agent_schema_version_id=schema.id, purpose="live", inserted_at=T0, updated_at=T0, started_at=T0)
        values.update(git_commit="a1" * 20, session="trip-7", user="mia", task="book", git_dirty=1)
        return version, schema, AgentInstanceRow(**values)

    def span(self, instance: AgentInstanceRow, **changed: Any) -> AgentSpanRow:
        """Return an active span of an instance."""
        values: dict[str, Any] = dict.fromkeys(AgentSpanRow._fields)
        values.update(id=self.ids.new(), agent_id=instance.agent_id, agent_instance_id=instance.id, status="active")
        values.update(schema_name="tool", schema_title="Tool", payload="{}", started_at=T0)
        values.update(is_aggregate=0, sensitive_encoding=0, inserted_at=T0, updated_at=T0)
        values.update(changed)
        return AgentSpanRow(**values)

    def full_span(self, instance: AgentInstanceRow) -> AgentSpanRow:
        """Return a span with a value in each column, which was closed and ended late."""
        values: dict[str, Any] = {column.name: _example_of(column) for column in columns_of("agent_span")}
        values.update(id=self.ids.new(), agent_id=instance.agent_id, agent_instance_id=instance.id)
        values.update(parent_span_id=self.ids.new(), status="complete", closed_by="abandoned")
        return AgentSpanRow(**values)


def finish(span_id: str, status: str = "complete", **values: Any) -> Move:
    """Return a move of a span to a terminal status, with its guard."""
    return Move("agent_span", span_id, LEAVES[status], {"status": status, "updated_at": T1, **values})


def why_refused(storage: Storage, unit: Unit) -> str | None:
    """Apply a unit; return the reason of its refusal, or None if it is applied."""
    (outcome,) = storage.apply([unit])
    return outcome.why if isinstance(outcome, Refused) else None


def violation(side: Any = "payload", path: str = "$.a") -> Violation:
    """Return a violation of a payload or a result payload."""
    return Violation(side, path, "type", "is not of type string")


def spans_of(storage: Storage, query: Query) -> list[AgentSpanRow]:
    """Return the spans on a page of a query."""
    return [row for row in storage.ask(query).rows if isinstance(row, AgentSpanRow)]


@contextlib.contextmanager
def racing(*works: Callable[[], object], switch_s: float = 0.005) -> Iterator[None]:
    """Call functions in threads, which take turns each `switch_s` seconds; the with-block ends after they returned."""
    threads = [threading.Thread(target=work) for work in works]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(switch_s)
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)


class Base:
    """Steps that the contract tests share."""

    rows = Rows()

    def claimed(self, storage: Storage, name: str) -> Any:
        """Return the provider of a capability; skip the test if the storage does not claim the capability."""
        can = storage.capabilities()
        provider = getattr(can, name)
        if provider is None or provider is False:
            pytest.skip(f"the storage {can.backend!r} does not claim {name}")
        return provider

    def answered(self, storage: Storage, question: type[Question[Any]]) -> None:
        """Skip the test if the storage does not answer a question by itself, only row by row."""
        can = storage.capabilities()
        if question not in can.answers:
            pytest.skip(f"the storage {can.backend!r} does not answer {question.__name__}")

    def patient(self, storage: Storage, patience: Patience) -> Storage:
        """Return the storage for a caller with a patience; skip the test if the storage has no method for that."""
        if not hasattr(storage, "waiting"):
            pytest.skip(f"the storage {storage.capabilities().backend!r} does not have waiting")
        return waiting(storage, patience)

    @contextlib.contextmanager
    def opened_again(self, storage: Storage) -> Iterator[Storage]:
        """Open the location of a storage a second time; skip the test if the storage claims no location."""
        again = open_direct(self.claimed(storage, "location"))
        try:
            yield again
        finally:
            again.close()

    def instance(self, storage: Storage, **changed: Any) -> AgentInstanceRow:
        """Put an active instance, with the agent and the versions that it refers to; return the instance."""
        agent = self.rows.agent()
        version, schema, instance = self.rows.family(agent)
        instance = instance._replace(**changed)
        self.put(storage, agent, version, schema, instance)
        return instance

    def put(self, storage: Storage, *rows: Row) -> None:
        """Put rows, each in a unit of its own."""
        outcomes = storage.apply([Unit((Put(row),)) for row in rows])
        assert all(isinstance(outcome, Applied) for outcome in outcomes)

    def move(self, storage: Storage, move: Move) -> None:
        """Apply a move whose guard holds."""
        assert storage.apply([Unit((move,))]) == [Applied()]

    def end(self, storage: Storage, instance: AgentInstanceRow) -> AgentInstanceRow:
        """Complete an instance; return its new row."""
        values = {"status": "complete", "finished_at": T1, "updated_at": T1}
        self.move(storage, Move("agent_instance", instance.id, LEAVES["complete"], values))
        return instance._replace(status="complete", finished_at=T1, updated_at=T1)

    def terminate(self, storage: Storage, instance: AgentInstanceRow, reason: str = "enough") -> None:
        """Terminate an instance."""
        values = {"status": "terminated", "termination_reason": reason}
        outcomes = storage.apply([Unit((Move("agent_instance", instance.id, LEAVES["terminated"], values),))])
        assert isinstance(outcomes[0], Applied)

    def stored(self, storage: Storage, id: str) -> Row | None:
        """Return the stored row of an id; None if there is none."""
        found = storage.ask(Find(id)).rows.get(id)
        return None if found is None else found[1]
