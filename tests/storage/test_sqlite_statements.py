"""The exact SQL that recording and operations emit: counts and text, never seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.model.rows import AgentSpanRow

COLUMNS = ", ".join(AgentSpanRow._fields)
AGENT = "coalesce((select agent_id from agent_instances where id = ?3), ?2)"
MARKS = ", ".join(AGENT if number == 2 else f"?{number}" for number in range(1, len(AgentSpanRow._fields) + 1))
INSERT = f"insert into agent_spans ({COLUMNS}) select {MARKS}"
FINISH = (
    "update agent_spans set status = ?, result_payload = ?, summary = ?, finished_at = ?, duration_ms = ?, "
    "input_tokens = ?, output_tokens = ?, cost_usd = ?, updated_at = ? where id = ? and status in ('active')"
)


class Recorder:
    """The statements of a tracer's writer, as they were prepared."""

    def __init__(self, path: Path) -> None:
        self.tracer = agentspan.Tracer(path, raise_errors=True, durability="commit")
        self.seen: list[str] = []
        journals = self.tracer.storage.capabilities().journals
        storage = None if journals is None else journals.direct
        assert isinstance(storage, agentspan.SQLiteStorage)
        self.connection = storage.direct._connections.writer()

    def start(self) -> None:
        self.connection.set_trace_callback(self._see)

    def _see(self, statement: str) -> None:
        # The driver shows statements with their values; what is fixed is what stands before the first value.
        self.seen.append(statement)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(tmp_path / "runs.db")
    yield made
    made.tracer.shutdown()


def test_a_span_is_one_insert_and_one_update(recorder: Recorder) -> None:
    with recorder.tracer.run("a"):
        recorder.start()
        with recorder.tracer.span("tool", {"name": "x"}) as span:
            span.set_result({"output": 1})
        recorder.connection.set_trace_callback(None)
    assert [statement.split(" ", 3)[:2] for statement in recorder.seen] == [
        ["insert", "into"],
        ["update", "agent_spans"],
    ]
    assert recorder.seen[0].startswith(f"{INSERT.split(', input_tokens')[0]}) select ")  # it has not used anything yet
    assert recorder.seen[1].endswith("and status in ('active')")


def test_the_statements_are_the_ones_that_are_documented() -> None:
    from agentspan.model.changes import LEAVES
    from agentspan.storage.sqlite import statements

    assert statements.INSERT[AgentSpanRow] == INSERT
    columns = (
        "status",
        "result_payload",
        "summary",
        "finished_at",
        "duration_ms",
        "input_tokens",
        "output_tokens",
        "cost_usd",
        "updated_at",
    )
    assert statements.update("agent_span", columns, LEAVES["complete"]) == FINISH


def test_registering_a_run_again_inserts_one_row(recorder: Recorder) -> None:
    with recorder.tracer.run("a", version="1"):
        pass
    recorder.start()
    with recorder.tracer.run("a", version="1"):
        pass
    recorder.connection.set_trace_callback(None)
    verbs = [statement.split(" ")[0].lower() for statement in recorder.seen]
    assert verbs == ["begin", "insert", "commit", "update"]


def test_the_unused_columns_of_an_update_are_not_touched(recorder: Recorder) -> None:
    with recorder.tracer.run("a") as run:
        span = run.create_span("tool", {"name": "x"})
        recorder.start()
        span.start()
        recorder.connection.set_trace_callback(None)
    (statement,) = recorder.seen
    assert statement.startswith("update agent_spans set status = 'active', started_at = ")
    assert "payload" not in statement
