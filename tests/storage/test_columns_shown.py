"""A column of spans that is declared in its row is in all that shows spans, with no list of columns of its own."""

import json
from typing import Any

import pytest

import agentspan
from agentspan.cli.show import show_span
from agentspan.model.changes import Put, Unit
from agentspan.model.columns import SHOWN_OF_SPANS, columns_of, values_of
from agentspan.model.rows import DERIVED, AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Select
from agentspan.testing.contract.base import Rows
from agentspan.viewer.data import detail


@pytest.fixture
def span(storage: Storage) -> AgentSpanRow:
    """A stored span with a value in each column."""
    rows = Rows()
    agent = rows.agent("a")
    version, schema, run = rows.family(agent)
    span = rows.full_span(run)
    storage.apply([Unit((Put(row),)) for row in (agent, version, schema, run)])
    storage.apply([Unit((Put(span),))])
    return span


def shown(span: AgentSpanRow) -> dict[str, Any]:
    """The values of the columns that people look at, by the name that the column has there."""
    return {name: getattr(span, column) for column, name in SHOWN_OF_SPANS.items()}


def test_every_column_has_another_value(span: AgentSpanRow) -> None:
    assert None not in span
    assert {*SHOWN_OF_SPANS} >= {*DERIVED}


def test_the_view_has_the_columns_that_people_look_at(storage: Storage, span: AgentSpanRow) -> None:
    if Select not in storage.capabilities().answers:
        assert isinstance(storage, agentspan.MemoryStorage)
        return
    answer = storage.ask(Select("select * from spans"))
    found = dict(zip(answer.columns, answer.rows[0], strict=True))
    assert {name: str(found.pop(name))[:10] for name in shown(span)} == {
        name: str(value)[:10] for name, value in shown(span).items()
    }
    assert found == {"agent": "a", "error": None, "payload": span.payload, "result_payload": span.result_payload}


@pytest.mark.parametrize("engine", ["pandas", "polars"])
def test_a_data_frame_has_the_columns_that_people_look_at(storage: Storage, span: AgentSpanRow, engine: Any) -> None:
    pytest.importorskip(engine, reason=f"needs {engine}")
    frame = agentspan.open(storage).dataframe(engine=engine)
    (row,) = frame.to_dict("records") if engine == "pandas" else frame.to_dicts()
    for column in columns_of("agent_span"):
        if column.name in SHOWN_OF_SPANS:
            value, stored = row[SHOWN_OF_SPANS[column.name]], getattr(span, column.name)
            assert (value.isoformat("T", "microseconds")[:26] if column.holds == "time" else value) == (
                stored[:26] if column.holds == "time" else stored
            ), column.name


def test_one_span_is_printed_with_every_column(
    storage: Storage, span: AgentSpanRow, capsys: pytest.CaptureFixture[str]
) -> None:
    with agentspan.open(storage) as db:
        show_span(db.storage, span, as_json=True)
        found = json.loads(capsys.readouterr().out)["span"]
        show_span(db.storage, span, as_json=False)
        text = capsys.readouterr().out
    times = {column.name for column in columns_of("agent_span") if column.holds == "time"}
    assert {name: found[name] for name in span._fields if name not in times} == {
        name: value for name, value in values_of(span).items() if name not in times
    }
    assert None not in [found[name] for name in times]
    for name in SHOWN_OF_SPANS.keys() - times:
        assert str(getattr(span, name)) in text, name


def test_the_page_of_a_span_has_every_column(storage: Storage, span: AgentSpanRow) -> None:
    found = detail(storage, span)
    of_tree = {"label", "status", "duration_ms", "input_tokens", "output_tokens", "cost_usd"}
    own = {"id", "summary", "started_at", "finished_at", "schema_name"} | {"agent_instance_id", "parent_span_id"}
    assert found["closed"]
    assert {*found["facts"]} == {*SHOWN_OF_SPANS} - of_tree - own - {"closed_by"}
    assert found["facts"]["response_id"] == span.response_id
