"""Spans that are put together: each value comes back, whichever columns have none in a statement."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agentspan.model.changes import Applied, PutSpans, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.operations.context import Context
from agentspan.otel.receiving import Receiver
from agentspan.storage.protocol import Query
from agentspan.storage.sqlite.storage import SQLiteStorage
from tests.otel.recorded import span

CLOSED: dict[str, Any] = {"closed_by": "abandoned", "closed_at": "2026-01-02T03:04:05.000000Z", "ended_late": 1}
USED: dict[str, Any] = {
    "input_tokens": 0,
    "output_tokens": 7,
    "cost_usd": 0.5,
    "response_id": "r",
    "cache_write_tokens": 3,
}
LONG = '{"text":"' + "It rains in Seattle. " * 60 + '"}'


def _stored_run(storage: SQLiteStorage) -> tuple[AgentInstanceRow, AgentSpanRow]:
    """A run, and the row of its only span."""
    Receiver(Context(storage)).store([span({})])
    (run,) = storage.page(Query("agent_instance")).rows
    assert isinstance(run, AgentInstanceRow)
    (row,) = storage.iter_spans(run.id)
    return run, row


@pytest.mark.parametrize("number", [2, 7, 56])
@pytest.mark.parametrize("payload", ["{}", LONG], ids=["short", "long"])
@pytest.mark.parametrize(
    "seldom",
    [{}, CLOSED, USED, CLOSED | USED, {"ended_late": 0}, {"cost_usd": 0.0}, {"cache_write_tokens": 3}],
    ids=lambda values: "-".join(values),
)
@pytest.mark.parametrize("every", [1, 6], ids=["in all", "in some"])
def test_each_value_comes_back(tmp_path: Path, number: int, payload: str, seldom: dict[str, Any], every: int) -> None:
    with closing(SQLiteStorage(tmp_path / "runs.db")) as storage:
        run, row = _stored_run(storage)
        rows = [
            row._replace(id=row.id[:30] + f"{each:02d}", payload=payload, **({} if each % every else seldom))
            for each in range(number)
        ]
        assert storage.apply([Unit((PutSpans(rows),))]) == [Applied()]
        found = {each.id: each for each in storage.iter_spans(run.id)}
        assert [found[each.id] for each in rows] == rows


def test_columns_without_a_value_are_not_bound(tmp_path: Path) -> None:
    with closing(SQLiteStorage(tmp_path / "runs.db")) as storage:
        _, row = _stored_run(storage)
        rows = [row._replace(id=row.id[:30] + f"{each:02d}") for each in range(6)]
        seen: list[str] = []
        storage._connections.writer().set_trace_callback(seen.append)
        storage.apply([Unit((PutSpans(rows),))])
        inserts = [statement for statement in seen if statement.startswith("insert into agent_spans")]
        assert len(inserts) == 2
        assert not any("closed_by" in statement or "input_tokens" in statement for statement in inserts)
