"""Reads of both backends: pages after an id, totals that are left out, the violations of many spans."""

from itertools import accumulate
from typing import Any

import pytest

from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentSpanRow, Row, Violation
from agentspan.storage import access
from agentspan.storage.answers import CutRows
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query, Violations
from agentspan.testing.contract import Rows
from tests.tuned import tuned

ROWS = Rows()
VIOLATION = Violation("payload", "$.a", "type", "must be text")


def recorded(storage: Storage, spans: int) -> list[AgentSpanRow]:
    agent = ROWS.agent()
    version, schema, run = ROWS.family(agent)
    made = [ROWS.span(run) for _ in range(spans)]
    rows: list[Row] = [agent, version, schema, run, *made]
    storage.apply([Unit(tuple(Put(row) for row in rows))])
    return made


def test_a_page_begins_after_an_id(storage: Storage) -> None:
    spans = recorded(storage, 5)
    assert storage.ask(Query("agent_span", after=spans[1].id, limit=2)).rows == spans[2:4]
    assert storage.ask(Query("agent_span", after=spans[3].id, descending=True, limit=2)).rows == [spans[2], spans[1]]
    assert storage.ask(Query("agent_span", after=spans[4].id)).rows == []
    where = {"agent_instance_id": spans[0].agent_instance_id}
    recorded(storage, 1)
    assert storage.ask(Query("agent_span", where, after=spans[2].id, offset=1)).rows == [spans[4]]


def test_rows_in_another_order_have_no_place_after_an_id() -> None:
    with pytest.raises(ValueError, match="another order"):
        Query("agent_span", after="x", order="started_at")


def test_a_total_is_counted_only_where_it_is_asked_for(storage: Storage) -> None:
    spans = recorded(storage, 5)
    assert storage.ask(Query("agent_span", limit=2)).total is None
    assert storage.ask(Query("agent_span")).total is None
    for query in (
        Query("agent_span", with_total=True),
        Query("agent_span", limit=2, with_total=True),
        Query("agent_span", limit=0, with_total=True),
        Query("agent_span", after=spans[3].id, with_total=True),
        Query("agent_span", offset=4, with_total=True),
    ):
        assert storage.ask(query).counted() == 5, query


def test_violations_of_many_spans_are_read_together(storage: Storage) -> None:
    spans = recorded(storage, 3)
    late = [ROWS.span(ROWS.family(ROWS.agent())[2])._replace(agent_instance_id=spans[0].agent_instance_id)]
    second = VIOLATION._replace(side="result_payload")
    storage.apply([Unit((Put(late[0], violations=(VIOLATION, second)),))])
    many = [*(span.id for span in spans), *(ROWS.ids.new() for _ in range(1200)), late[0].id]
    found = storage.ask(Violations(many, instance_id=spans[0].agent_instance_id))
    assert [*found] == many
    assert found[late[0].id] == [VIOLATION, second]
    assert not any(violations for id, violations in found.items() if id != late[0].id)
    assert storage.ask(Violations([])) == {}


@tuned(page_rows=2)
@pytest.mark.parametrize("descending", [False, True])
def test_a_scan_yields_every_row_once_in_the_order_of_ids(storage: Storage, descending: bool) -> None:
    for number in (0, 1, 2, 3, 4, 5):
        spans = recorded(storage, number)
        where = {"agent_instance_id": spans[0].agent_instance_id if spans else "none"}
        found = list(access.scan(storage, AgentSpanRow, where, descending=descending))
        assert found == (spans[::-1] if descending else spans)
    pages = [len(page) for page in access.pages(storage, AgentSpanRow, where)]
    assert pages == [2, 2, 1]


@tuned(page_rows=2)
def test_a_scan_goes_on_where_rows_are_removed_and_put_meanwhile(storage: Storage) -> None:
    runs = [recorded(storage, 1)[0].agent_instance_id for _ in range(4)]
    storage.apply([])
    seen = []
    for span in access.scan(storage, AgentSpanRow):
        seen.append(span.agent_instance_id)
        if len(seen) == 1:
            runs.append(recorded(storage, 1)[0].agent_instance_id)
    assert seen == runs


@pytest.mark.parametrize("most_bytes", [0, 99, 100, 101, 250, 299, 300, 10_000])
@pytest.mark.parametrize("page", [{}, {"order": "started_at", "descending": True}, {"offset": 1, "limit": 2}])
def test_a_page_ends_with_the_row_that_passes_a_number_of_bytes(
    storage: Storage, most_bytes: int, page: dict[str, Any]
) -> None:
    """The ids of its others are known. A storage may have the whole page instead, as memory has."""
    rows = recorded(storage, 1)
    run = rows[0].agent_instance_id
    made = [
        ROWS.span(ROWS.family(ROWS.agent())[2])._replace(
            agent_instance_id=run, payload=f'{{"n":"{"x" * (100 - 8)}"}}', started_at=f"2026-01-0{day}T00:00:00.000000Z"
        )
        for day in (3, 1, 2)
    ]
    storage.apply([Unit(tuple(map(Put, made)))])
    query = Query("agent_span", {"agent_instance_id": run, "status": made[0].status}, with_total=True, **page)
    whole, cut = storage.ask(query), storage.ask(query.changed(most_bytes=most_bytes))
    assert cut.total == whole.total
    rest = cut.rest if isinstance(cut, CutRows) else []
    assert cut.rows == whole.rows[: len(cut.rows)]
    assert [row.id for row in whole.rows] == [*(row.id for row in cut.rows), *rest]
    sizes = [len(row.payload) + len(row.result_payload or "") for row in whole.rows if isinstance(row, AgentSpanRow)]
    passing = [number for number, up_to in enumerate(accumulate(sizes)) if up_to > most_bytes]
    if not isinstance(storage, MemoryStorage):
        assert isinstance(cut, CutRows) == bool(passing)
        assert len(cut.rows) == (passing[0] + 1 if passing else len(sizes))
