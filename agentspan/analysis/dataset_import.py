"""Reads a dataset (see analysis.dataset) back as lines of an export: a run for each row, a step for each message.

What a dataset does not have is not there again: times of steps, tokens, stack traces. Ids are made of those of the
runs, so that importing twice stores each run once.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from hashlib import sha256
from itertools import chain
from typing import IO, Any, NamedTuple

from agentspan import clock, ids
from agentspan.analysis import parquet
from agentspan.analysis.dataset import COLUMNS, SCORE
from agentspan.analysis.jsonl import FIRST
from agentspan.errors import InvalidValue
from agentspan.model.schema_versions import fields_of
from agentspan.model.status import INSTANCE_STATUSES
from agentspan.schemas.meaning import describe
from agentspan.schemas.signatures import type_title
from agentspan.schemas.span_types import fallback, title_of
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find

MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""
_HEAD = 16
"""Characters of an id that hold its time and partition."""
Row = dict[str, Any]


def is_dataset(head: bytes) -> bool:
    """Return whether a file with this first line is a dataset: of Parquet, CSV or JSON."""
    if head.startswith(MAGIC) or head.rstrip(b"\r\n") == ",".join(COLUMNS).encode():
        return True
    try:
        first = json.loads(head)
    except (RecursionError, ValueError):
        return False
    return isinstance(first, dict) and "type" not in first and {"id", "agent", "messages"} <= first.keys()


def export_lines(storage: Storage, source: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines of an export with the runs of a dataset, but for those that the storage has from elsewhere.

    Raises:
        InvalidValue: a row is none of a dataset, or pyarrow is missing for a Parquet file.
    """
    yield json.dumps(FIRST).encode()
    referred: dict[tuple[str, str], Referred] = {}
    done = 0
    try:
        for row in _rows(source):
            yield from [json.dumps(line).encode() for line in _lines_of(storage, row, referred)]
            done += 1
    except InvalidValue:
        raise
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError, csv.Error):
        raise InvalidValue(f"row {done + 1}", "is no run of a dataset that `export` wrote") from None


def _rows(source: IO[bytes]) -> Iterator[Row]:
    source.seek(0)
    head = source.readline()
    source.seek(0)
    if head.startswith(MAGIC):
        _, reading = parquet.modules()
        batches: Iterable[Any] = reading.ParquetFile(source).iter_batches(batch_size=100)
        yield from chain.from_iterable(batch.to_pylist() for batch in batches)
    elif head.lstrip().startswith(b"{"):
        yield from map(json.loads, source)
    else:
        csv.field_size_limit(2**31 - 1)  # the conversation of a run is one field
        for values in csv.DictReader(line.decode("utf-8") for line in source):
            yield {name: _from_csv(name, values[name]) for name in COLUMNS}


def _from_csv(name: str, text: str) -> Any:
    if COLUMNS[name] in ("texts", "messages", "scores"):
        return json.loads(text)
    return (float(text) if text else None) if COLUMNS[name] == "number" else text


class Referred(NamedTuple):
    """The ids of what a run refers to."""

    agent: str
    version: str
    schema: str


def _lines_of(storage: Storage, row: Row, referred: dict[tuple[str, str], Referred]) -> Iterator[Row]:
    run, status = row["id"], row["status"]
    if not ids.is_pfid(run) or status not in INSTANCE_STATUSES:
        raise ValueError("no run")
    began = clock.parse(row["started_at"]) if row["started_at"] else clock.to_text(ids.decode(run)[0] * 1_000_000)

    def id_of(*key: str) -> str:
        randomness = sha256("\x1f".join((run, *key)).encode("utf-8", "surrogatepass")).digest()
        return str(run[:_HEAD]) + ids.encode_randomness(randomness)

    stored = storage.ask(Find(run, id_of("span", "0"), instance_id=run)).rows
    if run in stored and len(stored) < 2:  # recorded, or imported from another file: it has its own steps
        return
    which = (row["agent"], row["version"])
    of = referred.get(which) or Referred(id_of("agent"), id_of("version"), id_of("schema"))
    if which not in referred:
        referred[which] = of
        yield from _references(row, of, began)
    texts = {name: row[name] or None for name in ("external_identifier", "task", "session", "user", "git_commit")}
    told = {name: row[name] for name in ("input", "expected") if row[name]}
    changed = {"inserted_at": began, "updated_at": began}
    yield {"type": "agent_instance", "id": run, "agent_id": of.agent, "agent_version_id": of.version, "status": status,
           "agent_schema_version_id": of.schema, "purpose": "live", "started_at": began,
           "finished_at": None if status in ("pending", "active") else began, "duration_ms": row["duration_ms"],
           "metadata": told or None, "result": {"output": row["output"]} if row["output"] else None,
           "error": _error(row["error"]) if row["error"] and status == "failed" else None,
           **texts, **changed}  # fmt: skip
    for tag in row["tags"]:
        yield {"type": "tag", "id": id_of("tag", tag), "agent_instance_id": run, "tag": tag, "inserted_at": began}
    for number, score in enumerate(row["scores"]):
        if not score["span_id"]:  # the span that one is about is not in the dataset
            values = {name: score[name] if name == "value" else score[name] or None for name in SCORE[:-1]}
            yield {"type": "score", "id": id_of("score", score["name"], score["identifier"]), "agent_instance_id": run,
                   "target_type": "agent_instance", "target_id": run, "inserted_at": _after(began, number),
                   **values}  # fmt: skip
    yield from _spans(row, of.agent, began, id_of)


def _references(row: Row, of: Referred, began: str) -> Iterator[Row]:
    """Yield the agent, version and schema version of a run."""
    fields, changed = fields_of([]), {"inserted_at": began, "updated_at": began}
    yield {"type": "agent", "id": of.agent, "external_identifier": row["agent"], "name": row["agent"],
           "status": "active", **changed}  # fmt: skip
    yield {"type": "agent_version", "id": of.version, "agent_id": of.agent, "external_identifier": row["version"],
           **changed}  # fmt: skip
    yield {"type": "agent_schema_version", "id": of.schema, "agent_id": of.agent, "content_hash": fields.content_hash,
           "span_type_schemas": json.loads(fields.span_type_schemas), **changed}  # fmt: skip


def _spans(row: Row, agent: str, began: str, id_of: Callable[..., str]) -> Iterator[Row]:
    """Yield a span for each message, a microsecond after the one before: a model's, a tool's, or of a person."""
    asked: dict[str, Any] = {}
    failing = _failing(row)
    for number, message in enumerate(row["messages"]):
        role, text = message["role"], message["content"]
        status: str = "complete"
        payload: Row
        result: Row | None = None
        if role == "assistant":
            made = message["tool_calls"] or []
            asked.update({call["id"]: call["function"]["arguments"] for call in made})
            kind, payload = "llm", {"messages": []}
            result = {"text": text, "tool_calls": made}
        elif role == "tool":
            given = asked.get(message["tool_call_id"])
            payload = {"name": message["name"], "call_id": message["tool_call_id"], "arguments": _decoded(given)}
            kind, result = "tool", {"output": text}
            if number == failing:
                status, result = "failed", {"output": text, "error": _error(row["error"])}
        else:
            kind, payload = "message", {"role": role, "content": text}
        at = _after(began, number)
        meaning = describe(fallback(kind), kind, status, payload, result, 0.0)
        yield {"type": "agent_span", "id": id_of("span", str(number)), "agent_id": agent,
               "agent_instance_id": row["id"], "schema_name": kind, "schema_title": title_of(fallback(kind), kind),
               "status": status, "payload": payload, "result_payload": result, "started_at": at, "finished_at": at,
               "duration_ms": 0.0, "inserted_at": at, "updated_at": at, "sensitive_encoding": 0,
               **meaning.by_column()}  # fmt: skip


def _after(began: str, micros: int) -> str:
    return clock.parse(clock.to_datetime(began) + timedelta(microseconds=micros))


def _failing(row: Row) -> int | None:
    """Return the number of the message that is the answer of the failed step; None where it is not among them."""
    if not row["failed_step"]:
        return None
    kind, _, name = row["failed_step"].partition(" ")
    found = [number for number, message in enumerate(row["messages"]) if message["name"] == name]
    return found[-1] if found and kind == type_title("tool") else None


def _error(text: str) -> Row:
    """Return an error from its text, `Type: message`."""
    head, colon, message = text.partition(": ")
    return {"type": head, "message": message} if colon and head.isidentifier() else {"message": text}


def _decoded(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (RecursionError, ValueError):
        return text
