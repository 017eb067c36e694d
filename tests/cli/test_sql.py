"""`agentspan sql`: a question in SQL, and nothing else."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

import agentspan
from tests.cli.calling import call, lines


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(3):
        with tracer.run("a"), tracer.span("tool", {"name": "fetch", "arguments": {"n": number}}):
            pass
    tracer.shutdown()
    return path


def test_a_table_csv_and_json(db: Path) -> None:
    query = "select type, count(*) as n, null as missing, 0.5 as half from spans group by 1"
    assert lines(db, "sql", query) == ["type  n  missing  half", "tool  3            0.5", "1 row"]
    text = call(db, "sql", query, "--format", "csv").output
    assert list(csv.reader(io.StringIO(text))) == [["type", "n", "missing", "half"], ["tool", "3", "", "0.5"]]
    document = json.loads(call(db, "sql", query, "--json").output)
    assert document == {"columns": ["type", "n", "missing", "half"], "rows": [["tool", 3, None, 0.5]], "total": 1}
    assert call(db, "sql", query, "--format", "json").output == call(db, "sql", query, "--json").output
    assert call(db, "sql", "-", stdin="select 1 as one\n").output == "one\n  1\n1 row\n"
    assert lines(db, "sql", "select 1 where 0")[-1] == "0 rows"


def test_no_text_in_csv_is_a_formula(db: Path) -> None:
    query = "select ? as '=name', -5 as n, -0.5 as half"
    formulas = ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "'=1"]
    for text in [*formulas, "a=1", "-5", "-1.5e3", "", "'quoted'"]:
        literal = "'" + text.replace("'", "''") + "'"
        out = call(db, "sql", query.replace("?", literal), "--format", "csv").output
        header, row = csv.reader(io.StringIO(out))
        marked = f"'{text}" if text in formulas else text
        assert (header[0], row) == ("'=name", [marked.replace("\t", "    "), "-5", "-0.5"]), text


@pytest.mark.parametrize(
    ("status", "result", "error"),
    [
        ("failed", {"error": {"type": "ValueError", "message": "no such flight"}}, "ValueError: no such flight"),
        ("failed", {"error": {"error_type": "ValueError", "message": "no such flight"}}, "ValueError: no such flight"),
        ("failed", {"error": "no such flight"}, "no such flight"),
        ("failed", {"error_type": "Error", "message": "no such flight", "stacktrace": "at f"}, "Error: no such flight"),
        ("failed", {"error": {"type": "shop.errors.KeyError", "message": "a.b: 'c'"}}, "KeyError: a.b: 'c'"),
        ("failed", {"error": {"type": "asyncio.exceptions.CancelledError", "message": ""}}, "CancelledError"),
        ("failed", {"error": {"type": 4, "message": "no such flight"}}, "no such flight"),
        ("failed", {"message": "data"}, None),
        ("complete", {"error_type": "none", "message": "data"}, None),
    ],
)
def test_the_error_of_the_view_is_type_and_message_in_each_form_that_clients_send(
    db: Path, status: Any, result: dict[str, Any], error: str | None
) -> None:
    with agentspan.open(db) as database:
        run = database.agent_instances.register("client")
        span = database.agent_spans.create(run.id, "x:llm", status=status, payload={}, result_payload=result)
    query = f"select error from spans where span = '{span.id}'"
    assert json.loads(call(db, "sql", query, "--json").output)["rows"] == [[error]]


@pytest.mark.parametrize(
    "query",
    [
        "delete from agent_spans",
        "update agent_spans set status = 'x'",
        "insert into agents values (1)",
        "drop table agent_spans",
        "create table x (a)",
        "create temp table x (a)",
        "vacuum",
        "vacuum into 'other.db'",
        "attach 'other.db' as other",
        "pragma journal_mode = delete",
        "pragma query_only = off",
        "pragma user_version = 7",
        "pragma wal_checkpoint(truncate)",
        "begin immediate",
        "select load_extension('x')",
        "select 1; delete from agent_spans",
        "with x as (select 1) delete from agent_spans",
        "reindex",
        "analyze",
    ],
)
def test_nothing_can_be_written(db: Path, query: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = db.read_bytes()
    result = call(db, "sql", query)
    assert result.exit_code == 1
    assert result.output.startswith("Error: SQLite says: You can" if ";" in query else "Error: sql only reads; SQLite")
    assert db.read_bytes() == before
    assert not Path("other.db").exists()
    assert lines(db, "sql", "select count(*) n from agent_spans") == ["n", "3", "1 row"]


@pytest.mark.parametrize("query", ["selec", "select * from nothing", "", "select '\x1b[31m' || bad"])
def test_what_is_wrong_is_said(db: Path, query: str) -> None:
    result = call(db, "sql", query)
    assert "\x1b" not in result.output
    assert result.exit_code == (0 if query == "" else 1)


def test_what_describes_the_tables_may_be_asked(db: Path) -> None:
    assert "agent_spans" in call(db, "sql", "select name from sqlite_master").output
    assert "duration_ms" in call(db, "sql", "pragma table_info(agent_spans)").output
    assert lines(db, "sql", "select x'00ff' as b, json_extract('{\"a\": 1}', '$.a') as j")[1].split() == [
        "x'00ff'",
        "1",
    ]
