"""The rows that are stored, one class a table. Each column is listed here, once: its name, place, type and default.

SQL, views, data frames and the output of `agentspan show SPAN` are made of these fields, read by `model.columns`. Only
migrations write their columns out, since they are never edited; a test compares their tables with these classes.

Values have the types of a file: text, numbers, None. Rows are named tuples, because a row is created for every span and
bound to SQL unchanged: 0.5 µs against 2.3 for a frozen dataclass and its conversion.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

Value = str | int | float | None
Time = Annotated[str, "time"]
"""A time as text that sorts: ISO 8601, UTC, with six digits and `Z` (made by `clock`)."""
JsonObject = Annotated[str, "object"]
JsonList = Annotated[str, "list"]
Json = Annotated[str, "json"]
"""JSON of any type."""
Flag = Annotated[int, "flag"]
"""1 for yes; 0 or None for no."""
Side = Literal["payload", "result_payload"]
ResourceType = Literal[
    "account",
    "agent",
    "agent_version",
    "agent_schema_version",
    "agent_instance",
    "agent_span",
    "writer",
    "refused_change",
    "otel_trace",
    "otel_log",
    "tag",
    "score",
    "session_file",
    "session_entry",
    "session_summary",
]


class AccountRow(NamedTuple):
    """The file itself, in one row: its ids of account, environment and deployment for the API, and the partition.

    Attributes:
        id: primary key; the `account_id` of all resources.
        environment_id: the `environment_id` of all instances.
        agent_deployment_id: the `agent_deployment_id` of all instances.
        partition: the 30-bit number in all ids of this file.
        inserted_at: when the file was made.
    """

    id: str
    environment_id: str
    agent_deployment_id: str
    partition: int
    inserted_at: Time


class AgentRow(NamedTuple):
    """An agent, which groups runs.

    `owner_person_id`, `team_id` and `risk_profile_id` are ids of the API's service, kept as its clients send them: a
    file has no people, teams and risk profiles.

    Attributes:
        external_identifier: your own name for it, unique.
        name: for people.
        description: for people.
        status: `pending` until its first run starts, then `active`; `retired` by hand.
        owner_person_id: its owner in the API's service, as a client said.
        team_id: its team there.
        risk_profile_id: its risk profile there.
    """

    id: str
    external_identifier: str | None
    name: str
    description: str | None
    status: str
    inserted_at: Time
    updated_at: Time
    owner_person_id: str | None = None
    team_id: str | None = None
    risk_profile_id: str | None = None


class AgentVersionRow(NamedTuple):
    """A version of an agent, identified by the agent and the external_identifier.

    Attributes:
        agent_id: references `agents`.
        external_identifier: the version; unique for an agent; `default` when none was given.
        name: for people.
        description: for people.
        runtime_environment: the environment that the client sent.
    """

    id: str
    agent_id: str
    external_identifier: str
    name: str | None
    description: str | None
    runtime_environment: JsonObject | None
    inserted_at: Time
    updated_at: Time


class AgentSchemaVersionRow(NamedTuple):
    """A set of span types and quality schemas, identified by the agent and the hash of its content.

    Attributes:
        agent_id: references `agents`.
        external_identifier: the name under which it was first registered.
        content_hash: SHA-256 of the content, as hex; unique for an agent.
        span_type_schemas: a list of span types: `name`, `title`, `description`, `params_schema`, `result_schema`,
            `template` and others that clients send.
        quality_schemas: a list of quality schemas: `name`, `schema`, `title`, `template`; the one without a name
            has the name `""`.
    """

    id: str
    agent_id: str
    external_identifier: str | None
    content_hash: str
    span_type_schemas: JsonList
    quality_schemas: JsonList | None
    inserted_at: Time
    updated_at: Time


class AgentInstanceRow(NamedTuple):
    """One run of an agent.

    Attributes:
        agent_id: references `agents`.
        agent_version_id: references `agent_versions`.
        agent_schema_version_id: references `agent_schema_versions`.
        external_identifier: your own name for it, unique for an agent.
        status: as a span's, or `terminated`.
        purpose: `live`, `smoke_test`, `eval`.
        metadata: the input of the run.
        result: the output of the run.
        error: the exception that ended it: `type`, `message`, `stacktrace`.
        quality_payloads: its evaluations, by the name of their quality schema; the one without a name has the name
            `""`.
        quality_summaries: the summaries of its evaluations, by the same name.
        termination_reason: the reason that was passed to `terminate`, or null.
        started_at: null while pending.
        finished_at: null until it has finished.
        duration_ms: milliseconds.
        inserted_at: when it was registered.
        updated_at: when it last changed.
        writer_id: the process that recorded it; null when registered by id.
        closed_by: why it was closed: `terminated`, or `abandoned` (its program died, and `doctor` closed it); null
            if it was not closed.
        closed_at: the time of that close, or null.
        ended_late: 1 if its own end came after the close: result, error, times and status are those of its own end
            (`terminated` stays); else null.
        git_commit: the commit of the git checkout in which its program ran, 40 or 64 hexadecimal digits; null where
            there is none, and when registered by id.
        session: the conversation that it belongs to, as its program named it.
        user: the person that it ran for, as its program named them.
        task: what it had to do, as its program named it.
        git_dirty: 1 if tracked files of the checkout differed from `git_commit`, 0 if they did not; null where git
            did not say so.
    """

    id: str
    agent_id: str
    agent_version_id: str
    agent_schema_version_id: str
    external_identifier: str | None
    status: str
    purpose: str
    metadata: JsonObject | None
    result: JsonObject | None
    error: JsonObject | None
    quality_payloads: JsonObject | None
    quality_summaries: JsonObject | None
    termination_reason: str | None
    started_at: Time | None
    finished_at: Time | None
    duration_ms: float | None
    inserted_at: Time
    updated_at: Time
    writer_id: str | None
    closed_by: str | None
    closed_at: Time | None = None
    ended_late: Flag | None = None
    git_commit: str | None = None
    session: str | None = None
    user: str | None = None
    task: str | None = None
    git_dirty: Flag | None = None


class Violation(NamedTuple):
    """One place where a payload does not match its schema. Contains no value of the payload."""

    side: Side
    path: str
    keyword: str
    message: str


class Meaning(NamedTuple):
    """The values derived from a span's payloads and type: the last columns of its row, and the violations (no column).

    schemas.span_types derives them once, when the span is written. A new column comes before `violations` here, and at
    the end of AgentSpanRow; a test compares both.

    `is_aggregate` is 1 if the span sums up other spans. It repeats their tokens and cost, so sums leave it out (see
    schemas.builtin). `response_id` is the provider's id of a model's answer; `cache_write_tokens` is how many of
    the input tokens were written to the provider's cache; `finish_reason` is why the model stopped, in its provider's
    word.
    """

    label: str | None = None
    is_aggregate: Flag = 0
    summary: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    response_id: str | None = None
    cache_write_tokens: int | None = None
    finish_reason: str | None = None
    violations: tuple[Violation, ...] = ()

    def by_column(self) -> dict[str, Any]:
        """Return the derived values by column, without the violations."""
        return dict(zip(DERIVED, self, strict=False))


DERIVED = Meaning._fields[:-1]
"""The columns of a span that are derived from its payloads and its type."""
OF_PAYLOAD, AT_END = DERIVED[:2], DERIVED[2:]
"""The derived columns that follow from the payload and the type alone, and those that the end of a span sets."""


class AgentSpanRow(NamedTuple):
    """One step of a run. Columns such as `label` are derived from its payloads and type; `contents` is a column only.

    Attributes:
        agent_id: the agent of its run.
        agent_instance_id: its run; references `agent_instances`.
        parent_span_id: its parent; not a foreign key, so that a child may be stored before its parent.
        schema_name: the span type's name, as recorded.
        schema_title: the span type's title.
        status: `pending`, `active`, `complete`, `failed`, `cancelled`.
        payload: the input of the step.
        result_payload: the output of the step: an object, or by id and over HTTP any other JSON; null until it has
            finished.
        summary: one line about the span; null if the type has no template.
        label: the model's or tool's name, for types that have one.
        started_at: null while pending.
        finished_at: null until it has finished.
        duration_ms: milliseconds; 0 when cancelled.
        input_tokens: the member of that name in its payloads, or another name of it.
        output_tokens: the same.
        cost_usd: US dollars; the same, else by its model's prices.
        inserted_at: when it was created.
        updated_at: when it last changed.
        writer_id: the process that recorded it, an id of `writers`; null when created by id.
        closed_by: why it was closed: `terminated` (its run was terminated), `abandoned` (its program died, and
            `doctor` closed it); null if it was not closed.
        closed_at: the time of that close, or null.
        ended_late: 1 if its own end came after the close, and replaced status, result and times; else null.
        is_aggregate: 1 if the span is an aggregate by its `schema_name`, else 0; sums leave aggregates out.
        sensitive_encoding: 1 if values in its payloads are marked as sensitive, or its client said so, else 0.
        contents: 0 if `payload` and `result_payload` are whole, else which of them has references to `contents` and
            `blobs`.
        response_id: the provider's id of a model's answer: the member of that name in its payloads.
        cache_write_tokens: how many of the input tokens were written to the provider's cache: the member of that
            name.
        finish_reason: why the model, or the agent, stopped: the text `finish_reason`, `stop_reason` or `stopReason`
            of its result.
    """

    id: str
    agent_id: str
    agent_instance_id: str
    parent_span_id: str | None
    schema_name: str
    schema_title: str
    status: str
    payload: JsonObject
    result_payload: Json | None
    started_at: Time | None
    finished_at: Time | None
    duration_ms: float | None
    inserted_at: Time
    updated_at: Time
    writer_id: str | None
    closed_by: str | None
    closed_at: Time | None = None
    ended_late: Flag | None = None
    sensitive_encoding: Flag = 0
    label: str | None = None
    is_aggregate: Flag = 0
    summary: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    response_id: str | None = None
    cache_write_tokens: int | None = None
    finish_reason: str | None = None


class WriterRow(NamedTuple):
    """A process that recorded, with the fields that later decide whether it is still alive.

    A process has a row for each tracer that it records with, and a forked child has rows of its own.

    Attributes:
        host: the machine's name.
        boot_id: the id of this boot of the machine, a space, and the namespace of process ids (each container has
            its own). In a time namespace other than the host's, also a space and that namespace. Linux only; else
            empty.
        pid: process id, within that namespace.
        process_start: the start of the process, in ticks since boot, as its time namespace counts them. Linux only;
            else empty.
        program: the name of the script or module.
    """

    id: str
    host: str
    boot_id: str
    pid: int
    process_start: str
    program: str
    inserted_at: Time


class RefusedChangeRow(NamedTuple):
    """A change of a recorder that the storage refused: the span had ended before, or its run is not in the file.

    So the change is not lost. A damaged place in the journal of a killed program is a row, too. `wanted` is redacted
    and limited like payloads. `prune` removes the rows with their run.

    Attributes:
        subject: id of the span or run that was to be changed or created; not a foreign key. For `damaged`, the file
            of the journal.
        agent_instance_id: its run, if it is known.
        why: `status` (the span or run had finished), `missing` (it, or its run, is not in the file), `id_used` or
            `not_unique`; for a place in a journal, `damaged` or `unreadable`.
        stored_status: the status that the row had in the file; null if it is not in the file.
        wanted: the columns that were to be set, and their values; JSON columns as text. For a place in a journal,
            the problem, in `said`.
        writer_id: the process that wanted the change, an id of `writers`.
    """

    id: str
    subject: str
    agent_instance_id: str | None
    why: str
    stored_status: str | None
    wanted: JsonObject
    writer_id: str | None
    inserted_at: Time


class OtelTraceRow(NamedTuple):
    """The run that a trace of OpenTelemetry belongs to, decided when the first span of the trace was stored.

    Later spans go to the same run. `prune` removes the rows with their run.

    Attributes:
        id: primary key: the trace id, 32 hexadecimal digits.
        agent_instance_id: the run; references `agent_instances`. A run of a process has many traces.
    """

    id: str
    agent_instance_id: str
    inserted_at: Time


class OtelLogRow(NamedTuple):
    """A log record of OpenTelemetry that holds a message of a span, as older conventions send it.

    It may arrive before or after the span. A row is removed ten minutes after it came.

    Attributes:
        trace_id: of the span.
        span_id: of the span, as OpenTelemetry has it.
        time_ns: nanoseconds since 1970.
        record: `name`, `attributes`, `body`.
    """

    id: str
    trace_id: str
    span_id: str
    time_ns: int
    record: JsonObject
    inserted_at: Time


class TagRow(NamedTuple):
    """A tag of a run: a word that groups runs, such as `nightly`. A run has each tag once.

    Attributes:
        agent_instance_id: the run; references `agent_instances`.
        tag: unique in the run.
    """

    id: str
    agent_instance_id: str
    tag: str
    inserted_at: Time


class ScoreRow(NamedTuple):
    """A judgement of a run or of a span. Rows are never changed: a newer row replaces a judgement.

    Of the rows with the same target, name and identifier, the newest counts: the row with the greatest inserted_at,
    then id. A row without value, label and explanation withdraws the earlier rows.

    Attributes:
        agent_instance_id: the run that is judged, or whose span is; references `agent_instances`.
        target_type: `agent_instance` or `agent_span`.
        target_id: the run or the span; a score may be stored before its span.
        name: what was judged, such as `reward`; `mark` and `note` are names for people.
        value: the number.
        label: the word, such as `good`.
        source: `human`, `model` or `code`.
        identifier: the judge, where several judge the same thing.
        inserted_at: when it was given.
        explanation: why.
    """

    id: str
    agent_instance_id: str
    target_type: str
    target_id: str
    name: str
    value: float | None
    label: str | None
    source: str
    identifier: str | None
    inserted_at: Time
    explanation: str | None


class SessionFileRow(NamedTuple):
    """A file of a coding agent's session that was read, and how far.

    `prune` leaves these rows, so that a removed run does not come back by itself.

    Attributes:
        format: the name of the format, such as `claude`.
        path: the absolute path, without the ending of a compressed file; unique for a format.
        session: the session's id in the source; None for a file of many sessions.
        first: the key of the session's first step: a copy of the session begins with the same one.
        agent_instance_id: the run; it may have been removed since.
        size: bytes, when it was read last.
        changed_ns: the time of its last change, nanoseconds since 1970.
        read_to: all steps before this place are stored.
        head: a hash of its first bytes, and how many these are.
        state: the version of the decoder, whether the session went on, a position in a database.
    """

    id: str
    format: str
    path: str
    session: str | None
    first: str | None
    agent_instance_id: str | None
    size: int
    changed_ns: int
    read_to: int
    head: str
    state: JsonObject
    inserted_at: Time
    updated_at: Time


class SessionEntryRow(NamedTuple):
    """One entry of a session that the Claude Agent SDK stored with `ClaudeSessionStore`, verbatim and not redacted.

    Attributes:
        id: primary key; it grows with the order of the entries.
        project_key: the SDK's key of the project.
        session: the session's id.
        subpath: the part of the session, such as a sub-agent; empty for the session itself.
        uuid: the entry's own id; unique for the three columns before.
        entry: the entry.
    """

    id: str
    project_key: str
    session: str
    subpath: str
    uuid: str | None
    entry: JsonObject
    inserted_at: Time


class SessionSummaryRow(NamedTuple):
    """The state of all entries with one key of the Claude Agent SDK: a session, or a part of it, such as a sub-agent.

    Attributes:
        project_key: as in `session_entries`.
        session: as there.
        subpath: as there; unique together with the two before.
        last_entry: the id of the newest entry with this key.
        summary: what the store notes of the key, with the SDK's own summary of a session.
    """

    id: str
    project_key: str
    session: str
    subpath: str
    last_entry: str
    summary: JsonObject
    inserted_at: Time
    updated_at: Time


Row = (
    AccountRow
    | AgentRow
    | AgentVersionRow
    | AgentSchemaVersionRow
    | AgentInstanceRow
    | AgentSpanRow
    | WriterRow
    | RefusedChangeRow
    | OtelTraceRow
    | OtelLogRow
    | TagRow
    | ScoreRow
    | SessionFileRow
    | SessionEntryRow
    | SessionSummaryRow
)


def with_agents(rows: Sequence[AgentSpanRow], agents: Mapping[str, str]) -> Sequence[AgentSpanRow]:
    """Return spans with the agent of their run. A run that is put again in another file may have another agent.

    Args:
        agents: the ids of agents, by the id of the run.
    """
    wrong = [row for row in rows if agents.get(row.agent_instance_id, row.agent_id) != row.agent_id]
    if not wrong:
        return rows
    return [row._replace(agent_id=agents.get(row.agent_instance_id, row.agent_id)) for row in rows]


def instance_of(row: Row) -> str:
    """Return the id of a span's instance; for any other row, its own id."""
    return row.agent_instance_id if isinstance(row, AgentSpanRow) else row.id


ROWS: Mapping[ResourceType, type[Row]] = {
    "account": AccountRow,
    "agent": AgentRow,
    "agent_version": AgentVersionRow,
    "agent_schema_version": AgentSchemaVersionRow,
    "agent_instance": AgentInstanceRow,
    "agent_span": AgentSpanRow,
    "writer": WriterRow,
    "refused_change": RefusedChangeRow,
    "otel_trace": OtelTraceRow,
    "otel_log": OtelLogRow,
    "tag": TagRow,
    "score": ScoreRow,
    "session_file": SessionFileRow,
    "session_entry": SessionEntryRow,
    "session_summary": SessionSummaryRow,
}
TYPE_OF: Mapping[type[Row], ResourceType] = {row: type_ for type_, row in ROWS.items()}

UNIQUE: Mapping[ResourceType, tuple[str, ...]] = {
    "agent": ("external_identifier",),
    "agent_version": ("agent_id", "external_identifier"),
    "agent_schema_version": ("agent_id", "content_hash"),
    "agent_instance": ("agent_id", "external_identifier"),
    "tag": ("agent_instance_id", "tag"),
    "session_file": ("format", "path"),
    "session_entry": ("project_key", "session", "subpath", "uuid"),
    "session_summary": ("project_key", "session", "subpath"),
}
"""Columns whose values together are unique in a table, besides the id. Values with a None never clash."""

REFERENCES: Mapping[ResourceType, Mapping[str, ResourceType]] = {
    "agent_version": {"agent_id": "agent"},
    "agent_schema_version": {"agent_id": "agent"},
    "agent_instance": {
        "agent_id": "agent",
        "agent_version_id": "agent_version",
        "agent_schema_version_id": "agent_schema_version",
    },
    "agent_span": {"agent_instance_id": "agent_instance"},
    "otel_trace": {"agent_instance_id": "agent_instance"},
    "tag": {"agent_instance_id": "agent_instance"},
    "score": {"agent_instance_id": "agent_instance"},
}
"""Columns that must name an existing row. parent_span_id and the target of a score need not: between processes, a child
or a score can arrive before its span."""
