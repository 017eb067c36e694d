"""Runs as a dataset for evaluations, one row per run: input, conversation, output, expected output and scores.

Each column has one type in all rows, so that pyarrow, `datasets`, pandas and DuckDB can load the file: lines of JSON,
CSV (lists as JSON) or Parquet. A missing text is empty. `export_lines` reads a dataset back.

The conversation of a run has each message once: messages that are sent to a model again are left out. Only the
outermost models count: messages inside nested agents and inside tools are left out. The viewer's conversation has all
threads (viewer.conversation).
"""

import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, TypedDict

from agentspan import clock, ids, jsontext
from agentspan.analysis import messages, tables
from agentspan.analysis.failures import ending_of, failed_step
from agentspan.analysis.messages import Message
from agentspan.analysis.tree import in_time, is_session, run_error, span_error
from agentspan.errors import InvalidValue
from agentspan.maintenance.jsonl import FIRST
from agentspan.model.changes import FINISH_STATUSES, INSTANCE_STATUSES
from agentspan.model.registration import fields_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, ScoreRow
from agentspan.model.scores import NOTE
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.signatures import error_parts, run_signature, signature, type_title
from agentspan.schemas.span_types import describe, fallback, title_of
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, NewestScores, SpansOf
from agentspan.storage.row_by_row import Name, has_failed, uses_of
from agentspan.text import from_cell, no_formula


class Function(TypedDict):
    """The tool that a model requests, with the arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A tool call; `type` is always `function`."""

    id: str
    type: str
    function: Function


class ChatMessage(TypedDict):
    """A chat message. `name` and `tool_call_id` are "" if missing. Images and other media are left out."""

    role: str
    content: str
    name: str
    tool_calls: list[ToolCall] | None
    tool_call_id: str


def conversation(spans: Sequence[AgentSpanRow], *, of_session: bool = False) -> list[ChatMessage]:
    """Return the conversation in the spans of a run, the system prompt of its first call first.

    Args:
        of_session: whether the run is the session of a coding agent (see messages.with_arguments).
    """
    reader = _Reader(partial(messages.with_arguments, used=messages.arguments_by_call(spans), is_session=of_session))
    for span in in_time(_outermost(spans)):
        match built_in_part(span.schema_name):
            case "message":
                reader.read_message(span)
            case "llm":
                reader.read_llm(span)
            case "tool":
                reader.read_tool(span)
    return _with_ids([_chat(message) for message in (*reader.system, *reader.messages)])


def _outermost(spans: Sequence[AgentSpanRow]) -> list[AgentSpanRow]:
    """Return the spans that are nested in at most as many agents and tools as the outermost model call is."""
    by_id = {span.id: span for span in spans}
    depths: dict[str, int] = {}
    for span in spans:
        way: list[AgentSpanRow] = []
        at: AgentSpanRow | None = span
        while at is not None and at.id not in depths and at not in way:  # rows made by hand can form a cycle
            way.append(at)
            at = by_id.get(at.parent_span_id or "")
        for each in reversed(way):
            above = by_id.get(each.parent_span_id or "")
            is_deeper = above is not None and built_in_part(above.schema_name) in ("agent", "tool")
            depths[each.id] = depths.get(each.parent_span_id or "", 0) + is_deeper
    models = [depths[span.id] for span in spans if built_in_part(span.schema_name) == "llm" and not span.is_aggregate]
    deepest = min(models, default=max(depths.values(), default=0))
    return [span for span in spans if depths[span.id] <= deepest and not span.is_aggregate]


class _Reader:
    """Collects the messages of spans, which must be read in order.

    Attributes:
        system: the system prompt of the first model call.
        messages: all other messages.

    Args:
        whole: returns a model's result with the arguments of its tool calls.
    """

    def __init__(self, whole: Callable[[Any], Any]) -> None:
        self._whole = whole
        self.system: list[Message] = []
        self.messages: list[Message] = []
        self._known: messages.Known = {}
        self._places: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._answers: list[int] = []  # answers of tool spans that were not sent to a model so far

    def read_message(self, span: AgentSpanRow) -> None:
        for message in messages.spoken(span):
            if message["role"] == "system":
                self.system += [] if self.system else [message]
            elif not (
                message["role"] == "assistant" and self.messages and self.messages[-1]["text"] == message["text"]
            ):
                self._add(message)

    def read_llm(self, span: AgentSpanRow) -> None:
        payload = jsontext.value_of(span.payload)
        if isinstance(payload, dict) and "duplicate_of" in payload:
            return
        sent = messages.sent(payload, self._known)
        self.system = self.system or [message for message, _ in sent if message["role"] == "system"]
        sent = [(message, key) for message, key in sent if message["role"] != "system"]
        seen: Counter[tuple[str, ...]] = Counter()
        for message, key in sent:
            seen[key] += 1
            places = self._places[key]
            if seen[key] <= len(places) and not (message is sent[-1][0] and self._is_next(message)):
                self._complete(places[seen[key] - 1], message)
            elif message["role"] == "tool" and (at := self._answer(message)) is not None:
                self.messages[at] = {**message, "name": message["name"] or self.messages[at]["name"]}
                places.append(at)
            else:
                self._add(message)
        for message in messages.answered(self._whole(jsontext.value_of(span.result_payload))):
            if message["text"] or message["calls"]:
                self._add(message)

    def read_tool(self, span: AgentSpanRow) -> None:
        payload, result = jsontext.value_of(span.payload), jsontext.value_of(span.result_payload)
        output = result.get("output", result) if isinstance(result, dict) else result
        text = span_error(span) if output is result else None
        if text is None:
            text = "" if output is None or output == {} else messages.text_of(output)[0]
        call_id = payload.get("call_id") if isinstance(payload, dict) else None
        answer = messages.answer_of(text, span.label, call_id if isinstance(call_id, str) else None)
        self._answers.append(len(self.messages))
        self.messages.append(answer)

    def _add(self, message: Message) -> None:
        self._places[messages.key_of(message)].append(len(self.messages))
        self.messages.append(message)

    def _is_next(self, message: Message) -> bool:
        """Return whether a repeated user message is a new turn: some programs send only the latest message."""
        last = self.messages[-1] if self.messages else None
        return message["role"] == "user" and last is not None and last["role"] == "assistant" and not last["calls"]

    def _complete(self, at: int, again: Message) -> None:
        """Add the ids of tool calls from a repeated message, if the collected message has calls without ids."""
        if any(call["id"] is None for call in self.messages[at]["calls"]):
            self.messages[at] = {**self.messages[at], "calls": again["calls"]}

    def _answer(self, message: Message) -> int | None:
        """Return the index of the collected tool answer that a tool message repeats; None if no answer fits.

        The same call id wins over the same text, and the same text over the first answer without a call id.
        """
        left, call_id = self._answers, message["call_id"]
        of_call = [at for at in left if call_id is not None and self.messages[at]["call_id"] == call_id]
        of_text = [at for at in left if self.messages[at]["text"] == message["text"]]
        unnamed = [at for at in left if call_id is None or self.messages[at]["call_id"] is None]
        found = next(iter([*of_call, *of_text, *unnamed]), None)
        if found is not None:
            left.remove(found)
        return found


def _chat(message: Message) -> ChatMessage:
    made: list[ToolCall] = [
        {"id": call["id"] or "", "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for call in message["calls"]
    ]
    return {
        "role": message["role"],
        "content": message["text"],
        "name": message["name"] or "",
        "tool_calls": made or None,
        "tool_call_id": message["call_id"] or "",
    }


def _with_ids(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Assign ids to tool calls without one, and to the answers that follow them in the same order."""
    left: list[ToolCall] = []
    for number, message in enumerate(messages, start=1):
        if message["tool_calls"]:
            left = [*message["tool_calls"]]
            for place, call in enumerate(left, start=1):
                call["id"] = call["id"] or f"call_{number}_{place}"
        elif message["role"] == "tool" and left:
            same = [call for call in left if call["id"] == message["tool_call_id"]]
            call = (same or [call for call in left if call["function"]["name"] == message["name"]] or left)[0]
            message["tool_call_id"] = message["tool_call_id"] or call["id"]
            left.remove(call)
    return messages


def first_of(messages: Sequence[ChatMessage], role: str) -> str | None:
    """Return the text of the first message of a role with a text; None if no message has one."""
    return next((message["content"] for message in messages if message["role"] == role and message["content"]), None)


def answer_in(messages: Sequence[ChatMessage]) -> str | None:
    """Return the last text of a model in a conversation; None if no model message has a text."""
    return first_of([*reversed(messages)], "assistant")


def as_text(value: Any) -> str | None:
    """Return a text unchanged, and any other value as JSON text; None for None."""
    return value if value is None or isinstance(value, str) else messages.json_of(value)


BATCH = 100
"""The number of runs whose names, tags and scores are read together, and of rows in a Parquet row group."""
INPUT = ("input", "inputs", "question", "query", "prompt")
"""Members of a run's metadata that can hold its input; the first one present counts."""
EXPECTED = ("expected", "expected_output", "reference_output", "reference", "ground_truth")
"""Names of the expected output of a run: as a member of its metadata, the name of a score, or the start of a note."""
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
"""The members of a score in a dataset."""
_OF_STEP = ("input", "goal", "arguments")


def rows(storage: Storage, run_ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield one dataset row per run, with the members of COLUMNS."""
    for batch in tables.runs_in_batches(storage, run_ids, BATCH):
        scores: dict[str, list[ScoreRow]] = {run.id: [] for run, _, _ in batch}
        for score in storage.ask(NewestScores([*scores])):
            scores[score.agent_instance_id].append(score)
        for run, name, tags in batch:
            row = _row(run, name, tags, scores[run.id], [*storage.ask(SpansOf(run.id))])
            # `datasets` infers types from the first 10 MB, where a column of nulls would have no type
            yield {name: (row[name] or "") if COLUMNS[name] == "text" else row[name] for name in COLUMNS}


def lines(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield one line of JSON per run, in ASCII, without line ends."""
    return map(json.dumps, rows(storage, run_ids))


def csv_lines(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a CSV file with a header: lists are JSON, what is missing is empty, no text is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)  # else \r is not in quotes
    text.write(",".join(COLUMNS) + "\n")
    for row in rows(storage, run_ids):
        writer.writerow(json.dumps(value) if isinstance(value, list) else no_formula(value) for value in row.values())
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()


def write_parquet(storage: Storage, run_ids: Sequence[str], path: Path) -> int:
    """Write a dataset as a Parquet file; return its size in bytes. An existing file is replaced atomically.

    Raises:
        InvalidValue: pyarrow is not installed, or the file cannot be written.
    """
    arrow, writing = tables.modules()
    text, number = arrow.string(), arrow.float64()

    def texts(*names: str) -> list[tuple[str, Any]]:
        return [(name, text) for name in names]

    call = arrow.struct([*texts("id", "type"), ("function", arrow.struct(texts("name", "arguments")))])
    calls = [("tool_calls", arrow.list_(call))]
    kinds = {
        "text": text,
        "texts": arrow.list_(text),
        "number": number,
        "time": arrow.timestamp("us", tz="UTC"),
        "messages": arrow.list_(arrow.struct([*texts("role", "content", "name"), *calls, *texts("tool_call_id")])),
        "scores": arrow.list_(arrow.struct([(name, number if name == "value" else text) for name in SCORE])),
    }
    schema = arrow.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])
    timed = (
        {**row, "started_at": None if row["started_at"] is None else clock.to_datetime(row["started_at"])}
        for row in rows(storage, run_ids)
    )
    try:
        tables.write_file(arrow, writing, path, schema, timed, batch=BATCH)
        return path.stat().st_size
    except OSError as error:
        raise InvalidValue("output", f"{path} cannot be written: {error.strerror or error}") from error


def _row(
    run: AgentInstanceRow, name: Name, tags: Sequence[str], scores: Sequence[ScoreRow], spans: Sequence[AgentSpanRow]
) -> dict[str, Any]:
    metadata = {} if run.metadata is None else jsontext.decode(run.metadata)
    messages = conversation(spans, of_session=is_session(run))
    step = failed_step(run, spans)
    failed = None if step is None else next(span for span in spans if span.id == step.span_id)
    error = run_error(run)
    if error is None and failed is not None:
        parts = error_parts(failed.result_payload)
        error = ": ".join(text for text in (parts.type, parts.message) if text) or None
    return {
        **run._asdict(),
        **name._asdict(),
        "tags": [*tags],
        "system": first_of(messages, "system"),
        "input": _input(metadata, messages, spans),
        "expected": _expected(metadata, scores),
        "output": _output(run, messages, spans),
        "messages": messages,
        "error": error,
        "failed_step": None if failed is None else " ".join(filter(None, (failed.schema_title, failed.label))),
        "signature": _signature(run, failed, spans),
        "scores": [_score_of(score) for score in scores],
    }


def _score_of(score: ScoreRow) -> dict[str, Any]:
    """Return a score as a dict. `span_id` is the id of the judged span; "" if the score judges the run."""
    texts = {name: getattr(score, name) or "" for name in SCORE[:-1]}
    return {**texts, "value": score.value, "span_id": score.target_id if score.target_type == "agent_span" else ""}


def _signature(run: AgentInstanceRow, failed: AgentSpanRow | None, spans: Sequence[AgentSpanRow]) -> str | None:
    if failed is not None:
        return signature(failed).id
    if run.status != "failed":
        return None
    return (run_signature(run.error) or ending_of(run.status, uses_of(run.id, spans))).id


def _input(metadata: dict[str, Any], messages: Sequence[ChatMessage], spans: Sequence[AgentSpanRow]) -> str | None:
    """Return the input of a run: from its metadata, else the first user message, else the input of its first step."""
    own = next((metadata[name] for name in INPUT if metadata.get(name) is not None), None)
    if own is not None:
        return as_text(own)
    asked = first_of(messages, "user")
    first = next(iter(_top(spans)), None)
    if asked is not None or first is None:
        return asked
    payload = jsontext.decode(first.payload)
    members = payload if isinstance(payload, dict) else {}
    return as_text(next((members[name] for name in _OF_STEP if name in members), None))


def _output(run: AgentInstanceRow, messages: Sequence[ChatMessage], spans: Sequence[AgentSpanRow]) -> str | None:
    """Return the output of a run: its result, else that of its only root step, else the last text of a model.

    Without any text of a model, it is the result of the last root step, unless that step failed.
    """
    answer = answer_in(messages)
    own = None if run.result is None else _outcome(run.result)
    if own is not None and not (isinstance(own, list) and answer is not None):  # a list may be the chunks of a stream
        return as_text(own)
    top = _top(spans)
    if len(top) == 1 and built_in_part(top[0].schema_name) in ("agent", "chain") and top[0].status == "complete":
        around = None if top[0].result_payload is None else _outcome(top[0].result_payload)
        if isinstance(around, str):
            return around
    ended = [span for span in top if span.status in FINISH_STATUSES and span.result_payload is not None]
    if answer is not None or not ended or has_failed(ended[-1]):
        return answer
    return as_text(_outcome(ended[-1].result_payload or "null"))


def _outcome(text: str) -> Any:
    """Return a decoded result; only its `output` if the result has no other member."""
    result = jsontext.decode(text)
    return result["output"] if isinstance(result, dict) and result.keys() == {"output"} else result


def _top(spans: Sequence[AgentSpanRow]) -> list[AgentSpanRow]:
    return in_time(span for span in spans if span.parent_span_id is None)


def _expected(metadata: dict[str, Any], scores: Sequence[ScoreRow]) -> str | None:
    """Return the expected output of a run: from its metadata, else a score `expected`, else a note `expected: …`."""
    expected = next((metadata[name] for name in EXPECTED if metadata.get(name) is not None), None)
    if expected is not None:
        return as_text(expected)
    of_run = [score for score in reversed(scores) if score.target_type == "agent_instance"]
    for score in of_run:
        if score.name in EXPECTED:
            return score.explanation or score.label or as_text(score.value)
    for score in of_run:
        head, colon, rest = (score.explanation or "").partition(":")
        if score.name == NOTE and colon and head.strip().lower() in EXPECTED:
            return rest.strip()
    return None


MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""
_HEAD = 16
"""The number of characters of an id that encode its time and partition."""
Row = dict[str, Any]


def is_dataset(head: bytes) -> bool:
    """Return whether the first line of a file identifies a dataset in Parquet, CSV or JSON."""
    if head.startswith(MAGIC) or head.rstrip(b"\r\n") == ",".join(COLUMNS).encode():
        return True
    try:
        first = json.loads(head)
    except (RecursionError, ValueError):
        return False
    return isinstance(first, dict) and "type" not in first and {"id", "agent", "messages"} <= first.keys()


def export_lines(storage: Storage, source: IO[bytes]) -> Iterator[bytes]:
    """Convert a dataset to the lines of an export, which `agentspan import` can read.

    A run that the storage already has with spans of its own, recorded or imported from another file, is left out.

    Raises:
        InvalidValue: a row is not a row of a dataset, or pyarrow, which a Parquet file needs, is missing.
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
        _, reading = tables.modules()
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
    return (float(text) if text else None) if COLUMNS[name] == "number" else from_cell(text)


class Referred(NamedTuple):
    """The ids of the agent, agent version and schema version that a run refers to."""

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
    if run in stored and len(stored) < 2:  # recorded, or imported from another file: keep the real steps
        return
    which = (row["agent"], row["version"])
    of = referred.get(which) or Referred(id_of("agent"), id_of("version"), id_of("schema"))
    if which not in referred:
        referred[which] = of
        yield from _references(row, of, began)
    texts = {name: row[name] or None for name in ("external_identifier", "task", "session", "user", "git_commit")}
    members = {name: row[name] for name in ("input", "expected") if row[name]}
    changed = {"inserted_at": began, "updated_at": began}
    yield {"type": "agent_instance", "id": run, "agent_id": of.agent, "agent_version_id": of.version, "status": status,
           "agent_schema_version_id": of.schema, "purpose": "live", "started_at": began,
           "finished_at": None if status in ("pending", "active") else began, "duration_ms": row["duration_ms"],
           "metadata": members or None, "result": {"output": row["output"]} if row["output"] else None,
           "error": _error(row["error"]) if row["error"] and status == "failed" else None,
           **texts, **changed}  # fmt: skip
    for tag in row["tags"]:
        yield {"type": "tag", "id": id_of("tag", tag), "agent_instance_id": run, "tag": tag, "inserted_at": began}
    for number, score in enumerate(row["scores"]):
        if not score["span_id"]:  # a dataset has no spans, so scores of spans are left out
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
    """Yield one span per message: of type llm, tool or message. Each starts a microsecond after the previous one."""
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
            asking = asked.get(message["tool_call_id"])
            payload = {"name": message["name"], "call_id": message["tool_call_id"], "arguments": _decoded(asking)}
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
    """Return the index of the message that answers for the failed tool step; None if no message does."""
    if not row["failed_step"]:
        return None
    kind, _, name = row["failed_step"].partition(" ")
    found = [number for number, message in enumerate(row["messages"]) if message["name"] == name]
    return found[-1] if found and kind == type_title("tool") else None


def _error(text: str) -> Row:
    """Parse the text of an error, `Type: message` or only a message, into its members."""
    head, colon, message = text.partition(": ")
    return {"type": head, "message": message} if colon and head.isidentifier() else {"message": text}


def _decoded(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (RecursionError, ValueError):
        return text
