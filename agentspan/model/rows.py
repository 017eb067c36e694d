"""The rows that are stored, one class a table. Each column is listed here, once: its name, place, type and default.

SQL, views, data frames and what `span` prints are made from these fields, and `model.columns` reads them. Migrations
alone write their columns out, since they are never edited; a test compares what they make with these classes.

Values are what a file holds: text, numbers, None. Named tuples, because a row is created for every span and bound to
SQL as it is: 0.5 µs against 2.3 for a frozen dataclass and its conversion.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

Value = str | int | float | None
Time = Annotated[str, "time"]
"""Text that sorts: ISO 8601, UTC, six digits and `Z` (see clock)."""
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
]


class AccountRow(NamedTuple):
    """The file itself: the fixed local ids that the API has on its resources, and the partition of all ids."""

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
    """A version of an agent, known by the agent and its external_identifier."""

    id: str
    agent_id: str
    external_identifier: str
    name: str | None
    description: str | None
    runtime_environment: JsonObject | None
    inserted_at: Time
    updated_at: Time


class AgentSchemaVersionRow(NamedTuple):
    """A set of span types and quality schemas, known by the agent and the hash of its content."""

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

    If it was closed for its program, `closed_by` is `terminated` or `abandoned`, and `closed_at` is the time of that.
    `ended_late` is 1 where its own end came later and replaced the status (but not `terminated`), result and times.
    `git_commit` is the commit of the git checkout in which its program ran, 40 or 64 hexadecimal digits. `session` is
    the conversation that it belongs to, `user` the person it ran for. `task` names what it had to do: runs of the same
    task can be compared. `git_dirty` is 1 if tracked files of the checkout differed from the commit, 0 if they did not,
    None if that is not known.
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
    """What a span's payloads and type mean: the last columns of its row, and the violations, which are no column.

    It is derived once, when the span is written (see schemas.meaning), and goes as one value to the row and the change.
    A new column comes before `violations`, and at the end of AgentSpanRow; a test compares both.

    `is_aggregate` is 1 where the span sums up others: it repeats their tokens and cost, which sums leave out (see
    schemas.aggregates). `response_id` is the provider's id of a model's answer; `cache_write_tokens` is how many of
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
        """Return the values of the columns, by name."""
        return dict(zip(DERIVED, self, strict=False))


DERIVED = Meaning._fields[:-1]
"""The columns of a span that are derived from its payloads and its type."""
OF_PAYLOAD, AT_END = DERIVED[:2], DERIVED[2:]
"""Those that follow from the payload and the type alone; those that an end sets."""


class AgentSpanRow(NamedTuple):
    """One step of a run; closed_by, closed_at and ended_late as in AgentInstanceRow, from `label` on as in Meaning.

    `sensitive_encoding` is 1 where its client says that values are marked as sensitive, or one is (see
    model.sensitive).
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

    `boot_id` is of the machine's start, followed by the namespace of its pids, and by that of its times where it is not
    the host's; `process_start` is what the system says of when the process began, in its own unit (Linux: ticks since
    boot, which differ between namespaces of times).
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

    `subject` is the id that it was about, `wanted` a JSON object of columns and values, `why` is of changes.Refused.
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
    """The run of a trace of OpenTelemetry, decided when the first of its spans was stored.

    `id` is the trace's, 32 hexadecimal digits. A run that is a process has many traces. They go with their run.
    """

    id: str
    agent_instance_id: str
    inserted_at: Time


class OtelLogRow(NamedTuple):
    """A log record of OpenTelemetry with a message of a span. It may come before its span, or after it.

    `record` has its name, attributes and body; it is kept for some minutes only.
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
    """A judgement of a run or of a span. Rows are only added: a judgement changes by a newer row.

    `target_id` is the run or span, of the type `target_type`; `agent_instance_id` the run that it is or belongs to.
    `value` is a number, `label` a word such as `good`; a mark has no value. `source` is who judged: human, model or
    code. `identifier` names the judge where several judge the same thing. Of the rows with the same target, name and
    identifier the newest counts: the one with the greatest inserted_at, then id. One without value, label and
    explanation withdraws those before it.
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
)


def instance_of(row: Row) -> str:
    """Return the id of the instance that a span belongs to, or that a row itself has."""
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
}
TYPE_OF: Mapping[type[Row], ResourceType] = {row: type_ for type_, row in ROWS.items()}

UNIQUE: Mapping[ResourceType, tuple[str, ...]] = {
    "agent": ("external_identifier",),
    "agent_version": ("agent_id", "external_identifier"),
    "agent_schema_version": ("agent_id", "content_hash"),
    "agent_instance": ("agent_id", "external_identifier"),
    "tag": ("agent_instance_id", "tag"),
}
"""Columns that no two rows of a type share, besides the id; a None among them is never a clash."""

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
"""Columns that name an existing row. Not parent_span_id, and not the target of a score: between processes a child, or a
score, can arrive before its span."""
