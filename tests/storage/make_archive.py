"""Makes the archives of `files`, for the versions that this code writes: `python -m tests.storage.make_archive`.

Run it before a migration is added; the archives of before stay. Each has a file or a schema with rows of every table,
and `runs.jsonl`, the export of it by the code that made it. That of SQLite has the index beside the file, too, and the
journal of a program that was killed.
"""

import gzip
import json
import subprocess
import sys
import tarfile
import tempfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import agentspan
from agentspan.storage.sqlite.migrations import CURRENT
from tests.postgres import programs, server
from tests.storage.old_files import FILES

QUALITY = {"name": "helpfulness", "schema": {"type": "object"}, "template": "{{score}} of 1"}
TYPES = [{"name": "lookup", "params_schema": {"type": "object", "required": ["city"]}, "template": "in {{city}}"}]
KILLED = """
import agentspan, os, signal, sys
from agentspan.tuning import STANDARD
agentspan.configure(sys.argv[1], tuning=STANDARD._replace(drain_tick_s=500.0))
with agentspan.run("killed", task="airline-1", tags=["nightly"]):
    with agentspan.span("llm", {"model": "m", "messages": [{"role": "user", "content": "hi " * 200}]}) as step:
        step.set_result({"text": "hello", "input_tokens": 3, "output_tokens": 2})
    with agentspan.span("tool", {"name": "open"}):
        os.kill(os.getpid(), signal.SIGKILL)
"""


def fill(db: agentspan.Database) -> None:
    """Put rows into every table."""
    agent = db.agents.create("by id", external_identifier="by-id", owner_person_id="mia", team_id="team-1")
    version = {"span_type_schemas": TYPES, "quality_schemas": [QUALITY]}
    run = db.agent_instances.register(agent.id, agent_schema_version=version, agent_version={"name": "2"})
    db.agent_instances.start(run.id)
    first = db.agent_spans.create(run.id, "lookup", "active", {"town": "Paris"}, idempotency_key="create-1")
    db.agent_spans.finish(first.id, result_payload={"output": "found"})
    said: list[dict[str, Any]] = []
    for number in range(6):
        said.append({"role": "user", "content": f"{number}: " + "what is there to see? " * 20})
        payload = {"model": "m", "messages": said, "image": b64encode(bytes(range(256)) * 12).decode()}
        db.agent_spans.create(
            run.id, "llm", "complete", payload, {"text": "a tower", "input_tokens": 90, "output_tokens": 3}
        )
    db.agent_spans.create(
        run.id, "tool", "failed", {"name": "fetch"}, {"error": {"type": "TimeoutError", "message": "30 s"}}
    )
    db.agent_spans.create(run.id, "tool", "pending", {"name": "later", "arguments": {"$contents": "1-2"}})
    db.agent_spans.create(run.id, "agent", "complete", {"name": "sub", "input_tokens": 540})
    marked = {"name": "pay", "arguments": {"pin": {"$sensitive": "pin", "value": "4711"}}}
    db.agent_spans.create(run.id, "tool", "complete", marked)
    db.agent_instances.record_quality(run.id, "helpfulness", {"score": 0.9})
    db.scores.record(run.id, "reward", value=1.0, by="code")
    db.scores.record(first.id, "correct", label="good", by="human", explanation="it is")
    db.agent_instances.finish(run.id)


def exported(db: agentspan.Database) -> str:
    """Return all runs as lines of JSON."""
    from agentspan.maintenance.jsonl import lines

    runs = sorted(run.id for run in db.agent_instances.list(page_size=100))
    return "\n".join(lines(db.storage, runs)) + "\n"


def lacking(now: str, then: str) -> list[dict[str, Any]]:
    """Return the rows of an export that another one has not, or has with other values.

    What was open then may be closed now: its program is dead, where that can be known.
    """
    ends = {"status", "finished_at", "duration_ms", "updated_at", "closed_by", "closed_at"}
    rows = {row.get("id"): row for row in map(json.loads, now.splitlines())}
    return [
        row
        for row in map(json.loads, then.splitlines())
        if "id" in row  # not the first and the last line
        and any(
            rows.get(row["id"], {}).get(name) != value
            for name, value in row.items()
            if name not in ends or not (row.get("status") == "active" or row.get("closed_by"))
        )
    ]


def of_file(folder: Path) -> None:
    """Make the archive of a file."""
    path = folder / "runs.db"
    with agentspan.open(path) as db:
        fill(db)
        db.stats()
        db.search("tower")
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    with tempfile.TemporaryDirectory() as other:
        copied = Path(other, "all")
        subprocess.run(["cp", "-a", str(folder), str(copied)], check=True)
        with agentspan.open(copied / "runs.db") as db:  # recovers the journal
            (folder / "runs.jsonl").write_text(exported(db))
    with tarfile.open(FILES / f"version-{CURRENT}.tar.gz", "w:gz") as tar:
        for each in sorted(folder.iterdir()):
            tar.add(each, each.name)


def of_schema(url: str, bin: Path) -> None:
    """Make the archive of a schema: its statements, and the export."""
    from agentspan.storage.postgres import migrations  # needs psycopg

    with agentspan.open(f"{url}?schema=archived") as db:
        fill(db)
        db.stats()
        text = exported(db)
    dump = [str(bin / "pg_dump"), "--inserts", "--no-owner", "--no-privileges", "-n", "archived", url]
    sql = subprocess.run(dump, check=True, capture_output=True, text=True).stdout
    statements = "\n".join(line for line in sql.splitlines() if line and not line.startswith(("\\", "--")))
    version = migrations.newest(migrations.MIGRATIONS)
    data = json.dumps({"sql": statements, "runs": text}).encode()
    (FILES / f"schema-{version}.json.gz").write_bytes(gzip.compress(data, mtime=0))


def main() -> None:
    """Make both."""
    with tempfile.TemporaryDirectory() as folder:
        of_file(Path(folder))
    bin = programs()
    assert bin is not None, "PostgreSQL is needed, too"
    with server() as url:
        of_schema(url, bin)


if __name__ == "__main__":
    main()
