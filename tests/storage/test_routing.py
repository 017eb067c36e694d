"""The run that changes and reads by id name: always the right one, and recording always names it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.model.changes import Move, Outcome, Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.answers import Found
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import Find
from agentspan.storage.sqlite import SQLiteStorage


class Routed:
    """Compares each run that is named with the run of what is stored, and lists what named none."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.named = 0
        self.unnamed: list[str] = []

    def apply(self, units: Sequence[Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0) -> list[Outcome]:
        for change in (change for unit in units for change in unit.changes):
            if isinstance(change, Move) and change.type == "agent_span":
                self._compare(change.id, change.instance_id)
            for ref in change.refs if isinstance(change, Put) else ():
                if ref.type == "agent_span":
                    self._compare(ref.id, ref.instance_id)
        return super().apply(units, stop_at_refusal=stop_at_refusal, wait_s=wait_s)  # type: ignore[misc]

    def ask(self, question: Any) -> Any:
        if not isinstance(question, Find) or question.instance_id is None:
            return super().ask(question)  # type: ignore[misc]
        found: Found = super().ask(Find(*question.ids, key=question.key))  # type: ignore[misc]
        if found.rows:
            runs = {row.agent_instance_id for _, row in found.rows.values() if isinstance(row, AgentSpanRow)}
            runs |= {row.id for _, row in found.rows.values() if isinstance(row, AgentInstanceRow)}
            assert runs <= {question.instance_id}
        return found

    def _compare(self, id: str, instance_id: str | None) -> None:
        if instance_id is None:
            self.unnamed.append(id)
            return
        self.named += 1
        stored = super().ask(Find(id)).rows.get(id)  # type: ignore[misc]
        assert stored is None or stored[1].agent_instance_id == instance_id


class RoutedMemory(Routed, MemoryStorage):
    """In dictionaries."""


class RoutedFile(Routed, SQLiteStorage):
    """In a file."""


@pytest.fixture(params=["memory", "commit", "journal"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[agentspan.Tracer, Any]]:
    storage: Any = RoutedMemory() if request.param == "memory" else RoutedFile(tmp_path / "runs.db")
    tracer = agentspan.Tracer(
        storage, raise_errors=True, durability="journal" if request.param == "journal" else "commit"
    )
    yield tracer, storage
    tracer.shutdown()


def test_recording_names_the_run_of_every_span(recording: tuple[agentspan.Tracer, Any]) -> None:
    tracer, storage = recording
    with tracer.run("a") as run:
        pending = run.create_span("tool", {"name": "x"})
        with tracer.span("tool", {"name": "x"}) as span:
            tracer.flush()
            span.update_payload({"name": "y"})
            tracer.flush()
        with tracer.span("llm", {"model": "m"}):
            tracer.flush()
        pending.start()
        tracer.flush()
        pending.finish()
        cancelled = run.create_span("tool", {"name": "z"})
        tracer.flush()
        cancelled.cancel()
        tracer.flush()
    tracer.flush()
    assert storage.unnamed == []
    assert storage.named == 6


def test_operations_by_id_name_the_run_that_they_have_found(tmp_path: Path) -> None:
    for storage in (RoutedMemory(), RoutedFile(tmp_path / "runs.db")):
        db = agentspan.open(storage)
        run = db.agent_instances.register(agent_id="a")
        db.agent_instances.start(run.id)
        parent = db.agent_spans.create(run.id, "tool", "pending", {"name": "x"})
        db.agent_spans.create(run.id, "tool", "active", {"name": "y"}, parent_span_id=parent.id)
        db.agent_spans.start(parent.id)
        db.agent_spans.finish(parent.id)
        db.agent_instances.terminate(run.id, "enough")
        db.doctor()
        db.close()
        assert storage.named >= 3
        assert storage.unnamed == [parent.id]  # a parent that is named with a run that is known already is not read
