"""The rows that are stored, one class a table. Each column is listed here, once: its name, place, type and default.

SQL, views, data frames and the output of `agentspan show SPAN` are made of these fields, read by `model.columns`. Only
migrations write their columns out, since they are never edited; a test compares their tables with these classes.

Values have the types of a file: text, numbers, None. Rows are named tuples, because a row is created for every span and
bound to SQL unchanged: 0.5 µs against 2.3 for a frozen dataclass and its conversion.
"""

from collections.abc import Mapping
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
    """The file itself: its ids of account, environment and deployment for the API, and the partition of its ids."""

    id: str
    environment_id: str
    agent_deployment_id: str
    partition: int
    inserted_at: Time


class AgentRow(NamedTuple):
    """An agent, which groups runs.

    `owner_person_id`, `team_id` and `risk_profile_id` are ids of the API's service, kept as its clients send them: a
    file has no people, teams and risk profiles.
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
    """A version of an agent, identified by the agent and the external_identifier."""

    id: str
    agent_id: str
    external_identifier: str
    name: str | None
    description: str | None
    runtime_environment: JsonObject | None
    inserted_at: Time
    updated_at: Time


class AgentSchemaVersionRow(NamedTuple):
    """A set of span types and quality schemas, identified by the agent and the hash of its content."""

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

    If the run was closed for its program, `closed_by` is `terminated` or `abandoned`, and `closed_at` is the time of
    the close. `ended_late` is 1 if the run's own end arrived after the close, and replaced the status (except
    `terminated`), result and times. `git_commit` is the commit of the git checkout in which the program ran, 40 or 64
    hexadecimal digits. `git_dirty` is 1 if tracked files of the checkout differed from the commit, 0 if they did not,
    None if that is not known. `session` is the conversation that the run belongs to, `user` the person that it ran for.
    `task` is the name of its task: runs of the same task can be compared.
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
    """One step of a run.

    AgentInstanceRow describes closed_by, closed_at and ended_late; Meaning describes the columns from `label` on.
    `sensitive_encoding` is 1 if the client declared that values are marked as sensitive, or if a value is marked (see
    model.columns).
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

    `boot_id` identifies the machine's boot, followed by the pid namespace of the process, and by its time namespace if
    that is not the host's. `process_start` is the start of the process in the unit of the system (Linux: ticks since
    boot, which differ between time namespaces).
    """

    id: str
    host: str
    boot_id: str
    pid: int
    process_start: str
    program: str
    inserted_at: Time


class RefusedChangeRow(NamedTuple):
    """A change of a recorder that the storage refused: the span was finished before, or its run was removed.

    `subject` is the id of the row to change, `wanted` a JSON object of columns and values. `why` is the reason of
    changes.Refused, or `damaged` or `unreadable` for a part of a journal that could not be recovered.
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

    `id` is the trace id, 32 hexadecimal digits. A run that is a whole process has many traces. Rows are removed with
    their run.
    """

    id: str
    agent_instance_id: str
    inserted_at: Time


class OtelLogRow(NamedTuple):
    """A log record of OpenTelemetry that holds a message of a span. It may arrive before or after the span.

    `record` has the name, attributes and body of the log record. A row is kept for some minutes only.
    """

    id: str
    trace_id: str
    span_id: str
    time_ns: int
    record: JsonObject
    inserted_at: Time


class TagRow(NamedTuple):
    """A tag of a run: a word that groups runs, such as `nightly`. A run has each tag once."""

    id: str
    agent_instance_id: str
    tag: str
    inserted_at: Time


class ScoreRow(NamedTuple):
    """A judgement of a run or of a span. Rows are never changed: a newer row replaces a judgement.

    `target_id` is the judged run or span, `target_type` its type, and `agent_instance_id` the run or the span's run.
    `value` is a number, `label` a word such as `good`; a mark has no value. `source` is who judged: human, model or
    code. `identifier` names the judge if several judge the same target. Of the rows with the same target, name and
    identifier, the newest counts: the row with the greatest inserted_at, then id. A row without value, label and
    explanation withdraws the earlier rows.
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

    `format` is the name of the format, `path` the absolute path, `session` the session's id in the source, or None for
    a file of many sessions. `first` is the key of the session's first step: a copy of the session begins with the
    same one. `size` is the file's size in bytes and `changed_ns` its time of change (nanoseconds since
    the epoch) when it was read last. All rows from its first `read_to` bytes are stored; `head` is a hash of its first
    bytes, by which a replaced file is known. `state` is a JSON object of the module sessions.importing. The run may
    have been removed since.
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
    """One entry of a session that the Claude Agent SDK stored, verbatim: `entry` is its JSON.

    `project_key`, `session` and `subpath` are the SDK's key; `subpath` is empty for the main session. `uuid` is the
    entry's own id, unique within the key, or None. Entries with greater ids came later.
    """

    id: str
    project_key: str
    session: str
    subpath: str
    uuid: str | None
    entry: JsonObject
    inserted_at: Time


class SessionSummaryRow(NamedTuple):
    """The state of all entries with one key of the Claude Agent SDK: those of a main session, or of a sub-agent.

    `project_key`, `session` and `subpath` are the key, as in SessionEntryRow, and `last_entry` is the id of its newest
    entry. `summary` is a JSON object of the module sessions.entries, with the SDK's own summary of a main session.
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
