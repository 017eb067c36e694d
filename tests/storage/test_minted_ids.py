"""A minted id that a row of its type has is refused by every backend, whatever else of the row clashes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentspan.model.changes import Put, PutSpans, Refused, Unit
from agentspan.model.rows import RefusedChangeRow, Row, WriterRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.contract import T0, Rows

ROWS = Rows()
AGENT = ROWS.agent("a")
VERSION, SCHEMA, RUN = ROWS.family(AGENT)
RUN = RUN._replace(external_identifier="run")
SPAN = ROWS.span(RUN)
WRITER = WriterRow(ROWS.ids.new(), "host", "boot", 1, "start", "program", T0)
REFUSED = RefusedChangeRow(ROWS.ids.new(), SPAN.id, RUN.id, "status", None, "{}", None, T0)
ALL: tuple[Row, ...] = (AGENT, VERSION, SCHEMA, RUN, SPAN, WRITER, REFUSED)


@pytest.fixture(params=["memory", "sqlite"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    made: Storage = MemoryStorage() if request.param == "memory" else SQLiteStorage(tmp_path / "runs.db")
    made.apply([Unit(tuple(Put(row) for row in ALL))])
    yield made
    made.close()


@pytest.mark.parametrize("row", ALL, ids=lambda row: type(row).__name__)
@pytest.mark.parametrize("others", [False, True], ids=["alone", "with another change"])
def test_a_minted_id_that_is_used_is_refused_with_the_row_that_has_it(storage: Storage, row: Row, others: bool) -> None:
    beside = (Put(ROWS.agent(), minted=True),) if others else ()
    assert storage.apply([Unit((*beside, Put(row, minted=True)))]) == [Refused("id_used", row)]
    (outcome,) = storage.apply([Unit((PutSpans([ROWS.span(RUN), SPAN]),))])
    assert isinstance(outcome, Refused)
    assert outcome.why == "id_used"
    assert [each.id for each in storage.ask(SpansOf(RUN.id))] == [SPAN.id]


def test_a_minted_id_is_refused_before_unique_columns_are_compared(storage: Storage) -> None:
    for row in (VERSION, SCHEMA, RUN):
        changed = row._replace(updated_at="2027-01-01T00:00:00.000000Z")
        assert storage.apply([Unit((Put(changed, minted=True),))]) == [Refused("id_used", row)]
