"""Registers a run: returns the changes that put its instance, and its missing agent and versions. Changes agents.

A schema version is identified by its content: the same span types and quality schemas are one version of an agent.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from agentspan.errors import InvalidAction, InvalidValue
from agentspan.model import instances
from agentspan.model.changes import PURPOSES, Change, Move, Put
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSchemaVersionRow, AgentVersionRow, TagRow, Value

SpanTypeSchema = Mapping[str, Any]
"""A span type in the form of the API: a mapping with the keys of FIELDS."""

FIELDS = ("name", "title", "description", "params_schema", "result_schema", "template", "result_template", "data_risk")


class SchemaFields(NamedTuple):
    """The fields of a schema version before it is stored, in the order of its row. Schemas are canonical JSON text."""

    external_identifier: str | None
    content_hash: str
    span_type_schemas: str
    quality_schemas: str | None


def fields_of(
    span_type_schemas: Sequence[SpanTypeSchema],
    quality_schemas: "Sequence[QualitySchema]" = (),
    external_identifier: str | None = None,
) -> SchemaFields:
    """Return the fields of a schema version with this content."""
    text, quality = canonical(span_type_schemas), canonical_quality(quality_schemas)
    return SchemaFields(external_identifier, content_hash(text, quality), text, quality)


def canonical(span_type_schemas: Sequence[SpanTypeSchema]) -> str:
    """Return JSON text that is equal for equal content: sorted by name, nulls and unknown fields dropped."""
    return _canonical(span_type_schemas, FIELDS)


def _canonical(schemas: Sequence[Mapping[str, Any]], fields: tuple[str, ...]) -> str:
    items = [{field: item[field] for field in fields if item.get(field) is not None} for item in schemas]
    items.sort(key=lambda item: str(item["name"]))
    return json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_FOR_PEOPLE = frozenset({"name", "title", "description", "$comment", "default", "examples", "example"})
_FOR_CHECKS = frozenset({"const", "enum", "pattern", "template", "result_template"})


def admitted(schemas: Sequence[SpanTypeSchema], admit: Callable[[str], str]) -> list[SpanTypeSchema]:
    """Return span types or quality schemas in which `admit` has replaced each text for people.

    Texts for people are names, titles, descriptions, comments, defaults and examples. Texts that a check or a template
    needs stay.
    """
    return [_admitted(each, admit, is_for_people=False) for each in schemas]


def _admitted(value: Any, admit: Callable[[str], str], *, is_for_people: bool) -> Any:
    if isinstance(value, str):
        return admit(value) if is_for_people else value
    if isinstance(value, list):
        return [_admitted(item, admit, is_for_people=is_for_people) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: item if key in _FOR_CHECKS else _admitted(item, admit, is_for_people=is_for_people or key in _FOR_PEOPLE)
        for key, item in value.items()
    }


QualitySchema = Mapping[str, Any]
"""A quality schema in the form of the API: a mapping with the keys of QUALITY_FIELDS."""

UNNAMED = ""
"""The name under which the one unnamed quality schema and its payload are stored. No other schema has this name."""
QUALITY_FIELDS = ("name", "title", "description", "schema", "template", "data_risk")


def canonical_quality(quality_schemas: Sequence[QualitySchema]) -> str | None:
    """Return canonical JSON text of quality schemas; None if there are none."""
    if not quality_schemas:
        return None
    items = [
        {field: item[field] for field in QUALITY_FIELDS if item.get(field) is not None} for item in quality_schemas
    ]
    items.sort(key=lambda item: str(item["name"]))
    return json.dumps(items, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def content_hash(text: str, quality: str | None = None) -> str:
    """Return the SHA-256 of canonical texts, as hex."""
    return hashlib.sha256((text + (quality or "")).encode("utf-8", "surrogatepass")).hexdigest()


def updated(agent: AgentRow, values: dict[str, Value], now: str) -> Move:
    """Return the move that sets columns of an agent."""
    return Move("agent", agent.id, frozenset(), {**values, "updated_at": now})


def retire(agent: AgentRow, now: str) -> Move:
    """Return the move that retires an agent. The agent and its runs stay stored.

    Raises:
        InvalidAction: the agent is retired already.
    """
    if agent.status == "retired":
        raise InvalidAction(f"agent {agent.id} is retired already")
    return Move("agent", agent.id, frozenset({"pending", "active"}), {"status": "retired", "updated_at": now})


def reinstate(agent: AgentRow, *, was_used: bool, now: str) -> Move:
    """Return the move that undoes a retirement: the agent becomes active, or pending if it was not `was_used`.

    Args:
        was_used: True if an instance of the agent has started.

    Raises:
        InvalidAction: the agent is not retired.
    """
    if agent.status != "retired":
        raise InvalidAction(f"agent {agent.id} is {agent.status}: only a retired one can be reinstated")
    status = "active" if was_used else "pending"
    return Move("agent", agent.id, frozenset({"retired"}), {"status": status, "updated_at": now})


def available_actions(agent: AgentRow, *, has_instances: bool) -> dict[str, bool]:
    """Return which operations on an agent would succeed now."""
    retired = agent.status == "retired"
    return {"update": True, "retire": not retired, "reinstate": retired, "delete": not has_instances}


DEFAULT = "default"
"""The external_identifier of an agent or a version without a name."""
MAX_TAGS = 100
"""The most tags of one run."""


class VersionFields(NamedTuple):
    """The fields of an agent version before it is stored; `runtime_environment` is JSON text."""

    external_identifier: str = DEFAULT
    name: str | None = None
    description: str | None = None
    runtime_environment: str | None = None


class Registration(NamedTuple):
    """A run that is to be registered.

    Attributes:
        id: the instance's PFID.
        agent: the external_identifier of the agent, which is also the name of a new one.
        version, schema: the agent version and the schema version.
        purpose: one of PURPOSES.
        metadata: JSON text of an object.
        external_identifier: the client's own name for the instance.
        started_at: the time of the start: the run is active at once. None: the run is pending.
        writer_id: the process that records the run; None for a run by id.
        minted: True if the id is certainly new, so that no lookup is needed.
        update_version: True to set the name and description of a stored version to those of `version`.
        git_commit: the commit of the checkout in which the program runs; None for a run by id.
        session, user: the conversation that the run belongs to, and the person that it runs for.
        task: the name of the run's task.
        tags: words that group runs, each once.
        git_dirty: whether files of the checkout differ from the commit; None if that is not known.
    """

    id: str
    agent: str
    version: VersionFields
    schema: SchemaFields
    purpose: str
    metadata: str | None
    external_identifier: str | None = None
    started_at: str | None = None
    writer_id: str | None = None
    minted: bool = True
    update_version: bool = False
    git_commit: str | None = None
    session: str | None = None
    user: str | None = None
    task: str | None = None
    tags: tuple[str, ...] = ()
    git_dirty: bool | None = None


class References(NamedTuple):
    """The stored rows that a registration refers to; None for each row that must be created."""

    agent: AgentRow | None
    version: AgentVersionRow | None
    schema: AgentSchemaVersionRow | None


def check_purpose(purpose: str) -> None:
    """Check a run's purpose.

    Raises:
        InvalidValue: it is none of PURPOSES.
    """
    if purpose not in PURPOSES:
        raise InvalidValue("purpose", f"must be one of {', '.join(PURPOSES)}")


class Referred(NamedTuple):
    """The rows that a run refers to, stored or yet to be put."""

    agent: AgentRow
    version: AgentVersionRow
    schema: AgentSchemaVersionRow


def references(
    wanted: Registration, stored: References, new_id: Callable[[], str], now: str
) -> tuple[list[Change], Referred]:
    """Return the changes that put a run's missing agent, version and schema version, and all three of these rows."""
    changes: list[Change] = []
    agent, version, schema = stored
    if agent is None:
        status = "active" if wanted.started_at else "pending"
        agent = AgentRow(new_id(), wanted.agent, wanted.agent, None, status, now, now)
        changes.append(Put(agent, minted=True))
    elif wanted.started_at and agent.status == "pending":
        changes.extend(instances.activate(agent, now))
    if version is None:
        version = AgentVersionRow(new_id(), agent.id, *wanted.version, now, now)
        changes.append(Put(version, minted=True))
    elif wanted.update_version and version[2:6] != wanted.version and any(wanted.version[1:]):
        fields = wanted.version._asdict()
        values: dict[str, Value] = {field: value for field, value in fields.items() if value is not None}
        changes.append(Move("agent_version", version.id, frozenset(), values | {"updated_at": now}))
    if schema is None:
        schema = AgentSchemaVersionRow(new_id(), agent.id, *wanted.schema, now, now)
        changes.append(Put(schema, minted=True))
    return changes, Referred(agent, version, schema)


def register(wanted: Registration, stored: References, new_id: Callable[[], str], now: str) -> tuple[Change, ...]:
    """Return the changes that register a run, in order: its missing agent and versions, the instance, its tags.

    Args:
        new_id: returns a new PFID for each row that is put besides the instance.
        now: the current time as stored text.
    """
    changes, referred = references(wanted, stored, new_id, now)
    return (*changes, *instance_changes(wanted, referred, new_id, now))


def registration(wanted: Registration, referred: Referred, new_id: Callable[[], str], now: str) -> tuple[Change, ...]:
    """Return the changes that register a run without a read of the storage: they put all rows that the run refers to.

    Before they are applied, `journal.names` finds the rows that are stored already, and their ids. Until then, the run
    and its spans have no `agent_id`.
    """
    instance, *tags = instance_changes(wanted, referred, new_id, now)
    row = cast(AgentInstanceRow, instance.row)._replace(agent_id="")
    return (*_put(referred), instance._replace(row=row), *tags)


def renaming(id: str, referred: Referred) -> tuple[Change, ...]:
    """Return the changes that move a run to another agent or version without a read of the storage."""
    agent, version, schema = referred
    return (*_put(referred), instances.renamed(id, agent.id, version.id, schema.id))


def _put(referred: Referred) -> list[Put]:
    return [Put(row, minted=True) for row in referred]


_NOT_YET: dict[str, Any] = dict.fromkeys(
    ("result", "error", "quality_payloads", "quality_summaries", "termination_reason", "finished_at", "closed_by"), None
)
"""The columns of a run that are set later."""


def instance_changes(wanted: Registration, referred: Referred, new_id: Callable[[], str], now: str) -> list[Put]:
    """Return the changes that put an instance and its tags, the instance first."""
    agent, version, schema = referred
    row = AgentInstanceRow(
        id=wanted.id,
        agent_id=agent.id,
        agent_version_id=version.id,
        agent_schema_version_id=schema.id,
        external_identifier=wanted.external_identifier,
        status="active" if wanted.started_at else "pending",
        purpose=wanted.purpose,
        metadata=wanted.metadata,
        **_NOT_YET,
        duration_ms=None,
        started_at=wanted.started_at,
        inserted_at=now,
        updated_at=now,
        writer_id=wanted.writer_id,
        git_commit=wanted.git_commit,
        session=wanted.session,
        user=wanted.user,
        task=wanted.task,
        git_dirty=None if wanted.git_dirty is None else int(wanted.git_dirty),
    )
    tags = [Put(TagRow(new_id(), wanted.id, tag, now), minted=True) for tag in wanted.tags]
    return [Put(row, minted=wanted.minted), *tags]
