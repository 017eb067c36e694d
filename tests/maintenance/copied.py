"""Everything that a storage holds, to be compared; and a storage with something of each kind."""

from collections.abc import Iterator
from typing import Any

import agentspan
from agentspan import ids
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import ROWS, AgentInstanceRow, OtelLogRow, OtelTraceRow, RefusedChangeRow, Row, WriterRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import StoredKeys, Violations

T0 = "2026-01-01T00:00:00.000000Z"


def everything(storage: Storage) -> dict[str, list[Any]]:
    """All rows but the account, the violations and the keys of a storage."""
    found: dict[str, list[Any]] = {type_: list(scan(storage, row)) for type_, row in ROWS.items() if type_ != "account"}
    spans = [row.id for row in found["agent_span"]]
    found["violations"] = sorted((id, sorted(some)) for id, some in storage.ask(Violations(spans)).items() if some)
    found["keys"] = storage.ask(StoredKeys(limit=1_000_000))
    return found


def fill(storage: Storage, *, runs: int = 3, spans: int = 4) -> None:
    """Store something of each kind; one run and some spans are open, one run is terminated."""
    db = agentspan.open(storage)
    for number in range(runs):
        run = db.agent_instances.register(
            f"agent {number % 2}",
            agent_version={"external_identifier": str(number)},
            agent_schema_version={
                "span_type_schemas": [
                    {"name": "step", "params_schema": {"properties": {"n": {"type": "string"}}}, "template": "{{n}}"}
                ]
            },
            tags=["nightly", f"t{number}"],
            task="book",
            idempotency_key=f"register-{number}",
        )
        db.agent_instances.start(run.id)
        for n in range(spans):
            payload = {"n": n if n % 2 else "ü", "text": "x" * 50 * n}
            span = db.agent_spans.create(run.id, "step", "active", payload, idempotency_key=f"create-{number}-{n}")
            if n % 4 != 3:
                db.agent_spans.finish(span.id, "failed" if n % 3 == 2 else "complete", {"n": n})
        db.scores.record(run.id, "reward", 0.1 * number, explanation="why")
        if number % 3 == 1:
            db.agent_instances.terminate(run.id, "enough")
        elif number % 3 == 0:
            db.agent_instances.finish(run.id)
    source = ids.IdSource(3)
    run_id = next(scan(storage, AgentInstanceRow)).id
    for row in rows_beside(source, run_id):
        storage.apply([Unit((Put(row),))])


def rows_beside(source: ids.IdSource, run_id: str) -> Iterator[Row]:
    """Rows that no operation by id makes."""
    yield WriterRow(source.new(), "host", "boot", 7, "1", "prog", T0)
    yield RefusedChangeRow(source.new(), source.new(), run_id, "status", "complete", "{}", None, T0)
    yield OtelTraceRow("a" * 32, run_id, T0)
    yield OtelLogRow(source.new(), "a" * 32, "b" * 16, 7, '{"name": "x"}', T0)
