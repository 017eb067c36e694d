"""The migrations of a file, in order; each leads to the next file version (`user_version`).

The first migration creates the tables of the first release. Files from before the first release have the versions up to
BEFORE, and are refused (see before_release). A migration is never edited or removed: files of every version are in use,
and each version must mean the same tables everywhere. So a migration contains its SQL and column names in full, and
uses nothing from model/rows.py, which describes the newest version only. New files run all migrations, too.

To change the tables, add a function to the end of MIGRATIONS and change model/rows.py. A new column must be nullable
or have a default, because a program with an older agentspan that has the file open inserts rows without it. A changed
view also needs a new version, with a migration that does nothing: all views are created again after the migrations
(see tables).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from agentspan.storage.identity import new_account

if TYPE_CHECKING:
    from sqlite_utils import Database

Migration = Callable[["Database"], None]
BEFORE = 9
"""The last version of files from before the first release."""

_TABLES = (
    """CREATE TABLE "accounts" (
   "id" TEXT PRIMARY KEY,
   "environment_id" TEXT NOT NULL,
   "agent_deployment_id" TEXT NOT NULL,
   "partition" INTEGER NOT NULL,
   "inserted_at" TEXT NOT NULL
) STRICT""",
    """CREATE TABLE "agents" (
   "id" TEXT PRIMARY KEY,
   "external_identifier" TEXT,
   "name" TEXT NOT NULL,
   "description" TEXT,
   "status" TEXT NOT NULL,
   "inserted_at" TEXT NOT NULL,
   "updated_at" TEXT NOT NULL,
   "owner_person_id" TEXT,
   "team_id" TEXT,
   "risk_profile_id" TEXT
) STRICT""",
    """CREATE UNIQUE INDEX "idx_agents_external_identifier"
    ON "agents" ("external_identifier")""",
    """CREATE TABLE "agent_versions" (
   "id" TEXT PRIMARY KEY,
   "agent_id" TEXT NOT NULL REFERENCES "agents"("id"),
   "external_identifier" TEXT NOT NULL,
   "name" TEXT,
   "description" TEXT,
   "runtime_environment" TEXT,
   "inserted_at" TEXT NOT NULL,
   "updated_at" TEXT NOT NULL
) STRICT""",
    """CREATE UNIQUE INDEX "idx_agent_versions_agent_id_external_identifier"
    ON "agent_versions" ("agent_id", "external_identifier")""",
    """CREATE TABLE "agent_schema_versions" (
   "id" TEXT PRIMARY KEY,
   "agent_id" TEXT NOT NULL REFERENCES "agents"("id"),
   "external_identifier" TEXT,
   "content_hash" TEXT NOT NULL,
   "span_type_schemas" TEXT NOT NULL,
   "quality_schemas" TEXT,
   "inserted_at" TEXT NOT NULL,
   "updated_at" TEXT NOT NULL
) STRICT""",
    """CREATE UNIQUE INDEX "idx_agent_schema_versions_agent_id_content_hash"
    ON "agent_schema_versions" ("agent_id", "content_hash")""",
    """CREATE TABLE "agent_instances" (
   "id" TEXT PRIMARY KEY,
   "agent_id" TEXT NOT NULL REFERENCES "agents"("id"),
   "agent_version_id" TEXT NOT NULL REFERENCES "agent_versions"("id"),
   "agent_schema_version_id" TEXT NOT NULL REFERENCES "agent_schema_versions"("id"),
   "external_identifier" TEXT,
   "status" TEXT NOT NULL,
   "purpose" TEXT NOT NULL,
   "metadata" TEXT,
   "result" TEXT,
   "error" TEXT,
   "quality_payloads" TEXT,
   "quality_summaries" TEXT,
   "termination_reason" TEXT,
   "started_at" TEXT,
   "finished_at" TEXT,
   "duration_ms" REAL,
   "inserted_at" TEXT NOT NULL,
   "updated_at" TEXT NOT NULL,
   "writer_id" TEXT,
   "closed_by" TEXT,
   "closed_at" TEXT,
   "ended_late" INTEGER,
   "git_commit" TEXT,
   "session" TEXT,
   "user" TEXT,
   "task" TEXT,
   "git_dirty" INTEGER
) STRICT""",
    """CREATE UNIQUE INDEX "idx_agent_instances_agent_id_external_identifier"
    ON "agent_instances" ("agent_id", "external_identifier")""",
    """CREATE TABLE "agent_spans" (
   "id" TEXT PRIMARY KEY,
   "agent_id" TEXT NOT NULL,
   "agent_instance_id" TEXT NOT NULL REFERENCES "agent_instances"("id"),
   "parent_span_id" TEXT,
   "schema_name" TEXT NOT NULL,
   "schema_title" TEXT NOT NULL,
   "status" TEXT NOT NULL,
   "payload" TEXT NOT NULL,
   "result_payload" TEXT,
   "summary" TEXT,
   "label" TEXT,
   "started_at" TEXT,
   "finished_at" TEXT,
   "duration_ms" REAL,
   "input_tokens" INTEGER,
   "output_tokens" INTEGER,
   "cost_usd" REAL,
   "inserted_at" TEXT NOT NULL,
   "updated_at" TEXT NOT NULL,
   "writer_id" TEXT,
   "closed_by" TEXT,
   "closed_at" TEXT,
   "ended_late" INTEGER,
   "is_aggregate" INTEGER NOT NULL DEFAULT 0,
   "sensitive_encoding" INTEGER NOT NULL DEFAULT 0,
   "contents" INTEGER NOT NULL DEFAULT 0,
   "response_id" TEXT,
   "cache_write_tokens" INTEGER
) STRICT""",
    """CREATE TABLE "writers" (
   "id" TEXT PRIMARY KEY,
   "host" TEXT NOT NULL,
   "boot_id" TEXT NOT NULL,
   "pid" INTEGER NOT NULL,
   "process_start" TEXT NOT NULL,
   "program" TEXT NOT NULL,
   "inserted_at" TEXT NOT NULL
) STRICT""",
    """CREATE TABLE "refused_changes" (
   "id" TEXT PRIMARY KEY,
   "subject" TEXT NOT NULL,
   "agent_instance_id" TEXT,
   "why" TEXT NOT NULL,
   "stored_status" TEXT,
   "wanted" TEXT NOT NULL,
   "writer_id" TEXT,
   "inserted_at" TEXT NOT NULL
) STRICT""",
    """CREATE INDEX "idx_agent_spans_agent_instance_id_id"
    ON "agent_spans" ("agent_instance_id", "id")""",
    """CREATE INDEX "idx_agent_instances_agent_id_id"
    ON "agent_instances" ("agent_id", "id")""",
    """CREATE TABLE "schema_violations" (
   "id" INTEGER PRIMARY KEY,
   "agent_span_id" TEXT NOT NULL REFERENCES "agent_spans"("id"),
   "side" TEXT NOT NULL,
   "path" TEXT NOT NULL,
   "keyword" TEXT NOT NULL,
   "message" TEXT NOT NULL
) STRICT""",
    """CREATE INDEX "idx_schema_violations_agent_span_id"
    ON "schema_violations" ("agent_span_id")""",
    """CREATE TABLE "idempotency_keys" (
   "operation" TEXT NOT NULL,
   "key" TEXT NOT NULL,
   "request_hash" TEXT NOT NULL,
   "subject" TEXT NOT NULL,
   "inserted_at" TEXT NOT NULL,
   PRIMARY KEY ("operation", "key")
) STRICT""",
    """CREATE TABLE "content_runs" (
   "id" INTEGER PRIMARY KEY AUTOINCREMENT,
   "agent_instance_id" TEXT NOT NULL UNIQUE REFERENCES "agent_instances"("id")
) STRICT""",
    """CREATE TABLE "contents" (
   "id" INTEGER PRIMARY KEY,
   "run" INTEGER NOT NULL REFERENCES "content_runs"("id"),
   "text" TEXT NOT NULL
) STRICT""",
    """CREATE TABLE "blobs" (
   "id" INTEGER PRIMARY KEY,
   "run" INTEGER NOT NULL REFERENCES "content_runs"("id"),
   "sha256" TEXT NOT NULL,
   "media_type" TEXT NOT NULL,
   "data" BLOB NOT NULL
) STRICT""",
    """CREATE UNIQUE INDEX "idx_blobs_run_sha256"
    ON "blobs" ("run", "sha256")""",
    """CREATE TABLE "otel_traces" (
   "id" TEXT PRIMARY KEY,
   "agent_instance_id" TEXT NOT NULL REFERENCES "agent_instances"("id"),
   "inserted_at" TEXT NOT NULL
) STRICT""",
    """CREATE INDEX "idx_otel_traces_agent_instance_id"
    ON "otel_traces" ("agent_instance_id")""",
    """CREATE TABLE "otel_logs" (
   "id" TEXT PRIMARY KEY,
   "trace_id" TEXT NOT NULL,
   "span_id" TEXT NOT NULL,
   "time_ns" INTEGER NOT NULL,
   "record" TEXT NOT NULL,
   "inserted_at" TEXT NOT NULL
) STRICT""",
    """CREATE INDEX "idx_otel_logs_trace_id"
    ON "otel_logs" ("trace_id")""",
    """CREATE TABLE "tags" (
   "id" TEXT PRIMARY KEY,
   "agent_instance_id" TEXT NOT NULL REFERENCES "agent_instances"("id"),
   "tag" TEXT NOT NULL,
   "inserted_at" TEXT NOT NULL
) STRICT""",
    """CREATE UNIQUE INDEX "idx_tags_agent_instance_id_tag"
    ON "tags" ("agent_instance_id", "tag")""",
    """CREATE TABLE "scores" (
   "id" TEXT PRIMARY KEY,
   "agent_instance_id" TEXT NOT NULL REFERENCES "agent_instances"("id"),
   "target_type" TEXT NOT NULL,
   "target_id" TEXT NOT NULL,
   "name" TEXT NOT NULL,
   "value" REAL,
   "label" TEXT,
   "source" TEXT NOT NULL,
   "identifier" TEXT,
   "inserted_at" TEXT NOT NULL,
   "explanation" TEXT
) STRICT""",
    """CREATE INDEX "idx_scores_agent_instance_id"
    ON "scores" ("agent_instance_id")""",
)
"""The tables are STRICT, so that SQLite enforces column types. Ids grow, so indexes on `(…, id)` only append."""


def _first(db: "Database") -> None:
    for statement in _TABLES:
        db.execute(statement)
    db.table("accounts").insert(new_account()._asdict())


def _view_of_spans_from_its_row(db: "Database") -> None:
    """Do nothing: the new version makes `tables.migrate` create the views again, because the view `spans` changed."""


def _finish_reason(db: "Database") -> None:
    db.execute("ALTER TABLE agent_spans ADD COLUMN finish_reason TEXT")


MIGRATIONS: tuple[Migration, ...] = (_first, _view_of_spans_from_its_row, _finish_reason)
"""All migrations, in order. Each receives the file as an sqlite-utils Database; all run in the same transaction."""


def newest(migrations: Sequence[Migration]) -> int:
    """Return the version of a file after these migrations."""
    return BEFORE + len(migrations)
