"""Names, ids, keys and reasons with a NUL are refused by id, in both backends; payloads keep it."""

from collections.abc import Callable
from typing import Any

import pytest

import agentspan
from agentspan import Database
from agentspan.storage.questions import Violations

BAD = "a\x00b"


def register(db: Database, **fields: Any) -> Any:
    return db.agent_instances.register(**{"agent_id": "researcher", **fields})


CALLS: dict[str, tuple[str, Callable[[Database], object]]] = {
    "agent name": ("name", lambda db: db.agents.create(BAD)),
    "agent description": ("description", lambda db: db.agents.create("a", BAD)),
    "agent identifier": ("external_identifier", lambda db: db.agents.create("a", external_identifier=BAD)),
    "agent id": ("id", lambda db: db.agents.create("a", id=BAD)),
    "agent key": ("idempotency_key", lambda db: db.agents.create("a", idempotency_key=BAD)),
    "agent shown": ("external_identifier", lambda db: db.agents.show(external_identifier=BAD)),
    "agent changed": ("name", lambda db: db.agents.update(db.agents.create("a").id, BAD)),
    "run's agent": ("agent_id", lambda db: register(db, agent_id=BAD)),
    "run identifier": ("external_identifier", lambda db: register(db, external_identifier=BAD)),
    "run purpose": ("purpose", lambda db: register(db, purpose=BAD)),
    "version name": ("agent_version.name", lambda db: register(db, agent_version={"name": BAD})),
    "version identifier": (
        "agent_version.external_identifier",
        lambda db: register(db, agent_version={"external_identifier": BAD}),
    ),
    "version description": ("agent_version.description", lambda db: register(db, agent_version={"description": BAD})),
    "schema version": (
        "agent_schema_version.external_identifier",
        lambda db: register(db, agent_schema_version={"external_identifier": BAD}),
    ),
    "type name": (
        "agent_schema_version.span_type_schemas[0].name",
        lambda db: register(db, agent_schema_version={"span_type_schemas": [{"name": BAD}]}),
    ),
    "type title": (
        "agent_schema_version.span_type_schemas[0].title",
        lambda db: register(db, agent_schema_version={"span_type_schemas": [{"name": "a", "title": BAD}]}),
    ),
    "reason": ("reason", lambda db: db.agent_instances.terminate(register(db).id, BAD)),
    "quality": ("name", lambda db: db.agent_instances.record_quality(register(db).id, BAD, {})),
    "span type": ("schema_name", lambda db: db.agent_spans.create(register(db).id, BAD, "active")),
    "span id": ("id", lambda db: db.agent_spans.create(register(db).id, "a", "active", id=BAD)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_nul_is_refused_and_its_field_is_named(db: Database, name: str) -> None:
    field, call = CALLS[name]
    with pytest.raises(agentspan.InvalidValue) as caught:
        call(db)
    assert caught.value.field == field


def test_no_row_has_an_id_with_a_nul(db: Database) -> None:
    with pytest.raises(agentspan.NotFound):
        db.agent_spans.create(register(db).id, "a", "active", parent_span_id=BAD)
    with pytest.raises(agentspan.NotFound):
        db.agent_instances.get(BAD)


def test_payloads_keep_a_nul_and_what_is_derived_from_them_has_none(db: Database) -> None:
    schema = {"title": BAD, "type": "object", "required": [BAD], "properties": {f"\x00{BAD}": {"type": "integer"}}}
    item = {"name": "step", "params_schema": schema, "template": "did {{what}}"}
    run = register(db, agent_schema_version={"span_type_schemas": [item]})
    payload = {"what": BAD, f"\x00{BAD}": BAD}
    span = db.agent_spans.create(run.id, "step", "active", payload)
    stored = db.agent_spans.get(span.id)
    assert (stored.payload, stored.summary, stored.schema_title) == (payload, "did a\ufffdb", "a\ufffdb")
    violations = db.storage.ask(Violations([span.id]))[span.id]
    assert len(violations) == 2
    assert not any("\x00" in text for violation in violations for text in violation)
    assert any("\ufffd" in violation.path for violation in violations)
