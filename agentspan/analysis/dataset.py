"""Runs as a dataset for evaluations, a row a run: what it was given, said, answered and had to answer, and its scores.

A column has one type in all rows, so that pyarrow, `datasets`, pandas and DuckDB load it: as lines of JSON, CSV (lists
as JSON) or Parquet. A text that is missing is empty. `analysis.dataset_import` reads it back.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from agentspan import clock, jsontext
from agentspan.analysis import chat, parquet
from agentspan.analysis.endings import ending_of
from agentspan.analysis.failed_step import failed_step
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.model.scores import NOTE
from agentspan.model.status import FINISH_STATUSES
from agentspan.schemas.aggregates import built_in_part
from agentspan.schemas.meaning import error_text
from agentspan.schemas.signatures import error_parts, run_signature, signature
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, NewestScores, SpansOf, Tags
from agentspan.storage.row_by_row import Name, names_of, uses_of

BATCH = 100
"""Runs whose names, tags and scores are read together, and rows of a row group."""
INPUT = ("input", "inputs", "question", "query", "prompt")
"""Members of the metadata that are what a run was given; the first that is there counts."""
EXPECTED = ("expected", "expected_output", "reference_output", "reference", "ground_truth")
"""Members of the metadata, names of scores and beginnings of notes that say what a run had to return."""
Kind = Literal["text", "texts", "number", "time", "messages", "scores"]
COLUMNS: dict[str, Kind] = {
    "id": "text",
    "external_identifier": "text",
    "agent": "text",
    "version": "text",
    "task": "text",
    "session": "text",
    "user": "text",
    "tags": "texts",
    "status": "text",
    "started_at": "time",
    "duration_ms": "number",
    "git_commit": "text",
    "system": "text",
    "input": "text",
    "expected": "text",
    "output": "text",
    "messages": "messages",
    "error": "text",
    "failed_step": "text",
    "signature": "text",
    "scores": "scores",
}
SCORE = ("name", "value", "label", "explanation", "source", "identifier", "span_id")
"""The members of a score."""
_OF_STEP = ("input", "goal", "arguments")
_GONE = ("agent_instance", None)


def rows(storage: Storage, run_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield a row for each of these runs, with the members of COLUMNS."""
    ids = iter(run_ids)
    while batch := list(islice(ids, BATCH)):
        found = storage.ask(Find(*batch)).rows
        runs = [run for id in batch if isinstance(run := found.get(id, _GONE)[1], AgentInstanceRow)]
        names, tags = names_of(storage, runs), storage.ask(Tags(batch))
        scores: dict[str, list[ScoreRow]] = {id: [] for id in batch}
        for score in storage.ask(NewestScores(batch)):
            scores[score.agent_instance_id].append(score)
        for run in runs:
            row = _row(run, names[run.id], tags[run.id], scores[run.id], [*storage.ask(SpansOf(run.id))])
            # `datasets` takes the types of the first 10 MB, in which a column of nulls would have none
            yield {name: (row[name] or "") if COLUMNS[name] == "text" else row[name] for name in COLUMNS}


def lines(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield a line of JSON for each of these runs, in ASCII, without line ends."""
    return map(json.dumps, rows(storage, run_ids))


def csv_lines(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a CSV file with a header: lists are JSON, what is missing is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows(storage, run_ids):
        writer.writerow(json.dumps(value) if isinstance(value, list) else value for value in row.values())
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def write_parquet(storage: Storage, run_ids: Sequence[str], path: Path) -> int:
    """Write a Parquet file; return its bytes. A file that exists is replaced when the new one is whole.

    Raises:
        InvalidValue: pyarrow is not installed, or the file cannot be written.
    """
    arrow, writing = parquet.modules()
    text, number = arrow.string(), arrow.float64()
    function = arrow.struct([("name", text), ("arguments", text)])
    call = arrow.struct([("id", text), ("type", text), ("function", function)])
    kinds = {
        "text": text,
        "texts": arrow.list_(text),
        "number": number,
        "time": arrow.timestamp("us", tz="UTC"),
        "messages": arrow.list_(
            arrow.struct(
                [
                    ("role", text),
                    ("content", text),
                    ("name", text),
                    ("tool_calls", arrow.list_(call)),
                    ("tool_call_id", text),
                ]
            )
        ),
        "scores": arrow.list_(arrow.struct([(name, number if name == "value" else text) for name in SCORE])),
    }
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    timed = (
        {**row, "started_at": None if row["started_at"] is None else clock.to_datetime(row["started_at"])}
        for row in rows(storage, run_ids)
    )
    try:
        parquet.write_file(arrow, writing, path, schema, timed, batch=BATCH)
        return path.stat().st_size
    except OSError as error:
        raise InvalidValue("output", f"{path} cannot be written: {error.strerror or error}") from error


def _row(
    run: AgentInstanceRow, name: Name, tags: Sequence[str], scores: Sequence[ScoreRow], spans: Sequence[AgentSpanRow]
) -> dict[str, Any]:
    metadata = {} if run.metadata is None else jsontext.decode(run.metadata)
    said = chat.conversation(spans)
    step = failed_step(run, spans)
    failed = None if step is None else next(span for span in spans if span.id == step.span_id)
    error = None if run.error is None else error_text({"error": jsontext.decode(run.error)})
    if error is None and failed is not None:
        parts = error_parts(failed.result_payload)
        error = ": ".join(text for text in (parts.type, parts.message) if text) or None
    return {
        "id": run.id,
        "external_identifier": run.external_identifier,
        "agent": name.agent,
        "version": name.version,
        "task": run.task,
        "session": run.session,
        "user": run.user,
        "tags": [*tags],
        "status": run.status,
        "started_at": run.started_at,
        "duration_ms": run.duration_ms,
        "git_commit": run.git_commit,
        "system": chat.first_of(said, "system"),
        "input": _input(metadata, said, spans),
        "expected": _expected(metadata, scores),
        "output": _output(run, said, spans),
        "messages": said,
        "error": error,
        "failed_step": None if failed is None else " ".join(filter(None, (failed.schema_title, failed.label))),
        "signature": _signature(run, failed, spans),
        "scores": [_score_of(score) for score in scores],
    }


def _score_of(score: ScoreRow) -> dict[str, Any]:
    """Return a score; with the `span_id` of the span that it is about, "" for one of the run."""
    return {
        "name": score.name,
        "value": score.value,
        "label": score.label or "",
        "explanation": score.explanation or "",
        "source": score.source,
        "identifier": score.identifier or "",
        "span_id": score.target_id if score.target_type == "agent_span" else "",
    }


def _signature(run: AgentInstanceRow, failed: AgentSpanRow | None, spans: Sequence[AgentSpanRow]) -> str | None:
    if failed is not None:
        return signature(failed).id
    if run.status != "failed":
        return None
    return (run_signature(run.error) or ending_of(run.status, uses_of(run.id, spans))).id


def _input(metadata: dict[str, Any], said: Sequence[chat.ChatMessage], spans: Sequence[AgentSpanRow]) -> str | None:
    """Return what a run was given: its own input, else the first message of a user, else what its first step was."""
    own = next((metadata[name] for name in INPUT if metadata.get(name) is not None), None)
    if own is not None:
        return chat.as_text(own)
    asked = chat.first_of(said, "user")
    first = next(iter(_top(spans)), None)
    if asked is not None or first is None:
        return asked
    payload = jsontext.decode(first.payload)
    given = payload if isinstance(payload, dict) else {}
    return chat.as_text(next((given[name] for name in _OF_STEP if name in given), None))


def _output(run: AgentInstanceRow, said: Sequence[chat.ChatMessage], spans: Sequence[AgentSpanRow]) -> str | None:
    """Return the answer of a run: its result, else that of the one step around all, else the last text of a model."""
    answer = chat.answer_in(said)
    own = None if run.result is None else _outcome(run.result)
    if own is not None and not (isinstance(own, list) and answer is not None):  # the pieces of a stream are a list
        return chat.as_text(own)
    top = _top(spans)
    if len(top) == 1 and built_in_part(top[0].schema_name) in ("agent", "chain") and top[0].status == "complete":
        around = None if top[0].result_payload is None else _outcome(top[0].result_payload)
        if isinstance(around, str):
            return around
    ended = [span for span in top if span.status in FINISH_STATUSES and span.result_payload is not None]
    if answer is not None or not ended or ended[-1].status == "failed":
        return answer
    return chat.as_text(_outcome(ended[-1].result_payload or "null"))


def _outcome(text: str) -> Any:
    """Return a result, or its `output` if that is all of it."""
    result = jsontext.decode(text)
    return result["output"] if isinstance(result, dict) and result.keys() == {"output"} else result


def _top(spans: Sequence[AgentSpanRow]) -> list[AgentSpanRow]:
    top = [span for span in spans if span.parent_span_id is None]
    return sorted(top, key=lambda span: (span.started_at or span.inserted_at, span.id))


def _expected(metadata: dict[str, Any], scores: Sequence[ScoreRow]) -> str | None:
    """Return what a run had to return: by its metadata, else a score `expected`, else a note `expected: …`."""
    told = next((metadata[name] for name in EXPECTED if metadata.get(name) is not None), None)
    if told is not None:
        return chat.as_text(told)
    of_run = [score for score in reversed(scores) if score.target_type == "agent_instance"]
    for score in of_run:
        if score.name in EXPECTED:
            return score.explanation or score.label or chat.as_text(score.value)
    for score in of_run:
        head, colon, rest = (score.explanation or "").partition(":")
        if score.name == NOTE and colon and head.strip().lower() in EXPECTED:
            return rest.strip()
    return None
