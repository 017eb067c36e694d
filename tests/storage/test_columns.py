"""The columns of each table are listed once, in the row classes: what names them by position or in SQL agrees."""

import sqlite3
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import agentspan
from agentspan import clock, jsontext
from agentspan.journal.deriving import Batch
from agentspan.journal.records import CREATED, FINISHED, SEPARATOR, Elements
from agentspan.model import columns, spans
from agentspan.model.rows import DERIVED, ROWS, AgentSpanRow, Meaning, ResourceType
from agentspan.model.spans import Times
from agentspan.schemas.span_types import Registry, describe
from agentspan.storage.sqlite.migrations import table_of

SQL = {str: "TEXT", int: "INTEGER", float: "REAL"}
NS = 1_767_225_600_000_000_000


@pytest.mark.parametrize("type_", ROWS)
def test_the_tables_of_a_file_are_declared_as_the_rows_are(tmp_path: Path, type_: ResourceType) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    connection = sqlite3.connect(path)
    found = {
        name: (of, bool(required or in_key), default)
        for _, name, of, required, default, in_key in connection.execute(f"pragma table_info({table_of(type_)})")
    }
    connection.close()
    if type_ == "agent_span":  # how payloads are stored, which is nothing of the row's
        assert found.pop("contents") == ("INTEGER", True, "0")
    assert found == {
        column.name: (
            SQL[column.type],
            not column.nullable,
            None if column.default is None else repr(column.default),
        )
        for column in columns.columns_of(type_)
    }
    assert set(found) == set(ROWS[type_]._fields)
    if type_ != "agent_span":  # whose derived columns are the last ones of its row
        assert tuple(found) == ROWS[type_]._fields


def test_the_columns_that_are_derived_are_the_last_ones_of_a_span_as_their_meaning_has_them() -> None:
    derived = get_type_hints(Meaning, include_extras=True)
    of_row = get_type_hints(AgentSpanRow, include_extras=True)
    assert derived.pop("violations")
    assert list(of_row.items())[-len(derived) :] == list(derived.items())
    assert {name: AgentSpanRow._field_defaults[name] for name in derived} == Meaning().by_column()


def test_what_a_column_holds_stands_beside_its_name() -> None:
    by_name = {column.name: column for column in columns.columns_of("agent_span")}
    assert by_name["result_payload"] == ("result_payload", str, True, "json", None)
    assert by_name["payload"] == ("payload", str, False, "object", None)
    assert by_name["started_at"] == ("started_at", str, True, "time", None)
    assert by_name["is_aggregate"] == ("is_aggregate", int, False, "flag", 0)
    assert by_name["cost_usd"] == ("cost_usd", float, True, None, None)
    assert columns.json_columns("agent_schema_version") == ("span_type_schemas", "quality_schemas")


def test_a_span_that_is_made_by_position_has_each_value_in_the_column_of_its_name() -> None:
    meaning = {name: name for name in DERIVED}
    times = {name: name for name in Times._fields}
    names = ("id", "agent_id", "agent_instance_id", "parent_span_id", "schema_name", "schema_title", "status")
    values: dict[str, Any] = {name: name for name in (*names, "payload", "result_payload", "writer_id")}
    put = spans.created(**values, times=Times(**times), meaning=Meaning(**meaning), now="now")  # type: ignore[arg-type]
    assert put.row == AgentSpanRow(
        **{**values, **meaning, **times}, inserted_at="now", updated_at="now", closed_by=None
    )


def test_a_span_from_a_journal_has_each_value_in_the_column_of_its_name() -> None:
    payload, result = (
        '{"model":"m"}',
        '{"text":"t","input_tokens":2,"output_tokens":3,"cost_usd":0.5,"response_id":"r-1","cache_write_tokens":7}',
    )
    created = [CREATED, "id", "run", "agent", "parent", "llm", "active", str(NS), payload]
    ended = [FINISHED, "id", "complete", str(NS + 2_500_000), "1500000", result]
    batch = Batch("writer", lambda _, name: Registry().resolve(name), Elements(in_parts=False))
    batch.add([SEPARATOR.join(fields).encode() for fields in (created, ended)])
    ((put,),) = [unit.changes for unit in batch.units(lambda _: {})]
    span_type = Registry().resolve("llm")
    values = jsontext.decode(payload), jsontext.decode(result)
    assert put.rows == [  # type: ignore[union-attr]
        AgentSpanRow(
            id="id",
            agent_id="agent",
            agent_instance_id="run",
            parent_span_id="parent",
            schema_name="llm",
            schema_title=span_type.title or "",
            status="complete",
            payload=payload,
            result_payload=result,
            started_at=clock.to_text(NS),
            finished_at=clock.to_text(NS + 2_500_000),
            duration_ms=1.5,
            inserted_at=clock.to_text(NS),
            updated_at=clock.to_text(NS + 2_500_000),
            writer_id="writer",
            closed_by=None,
            **describe(span_type, "llm", "complete", *values, 1.5).by_column(),
        )
    ]
