"""Decodes one sample of an Inspect log: its events become steps.

A span is a `chain`, that of an agent an `agent`. A tool's span and its event are one `tool`. A message is a step where
a model reads it for the first time, so a call of a model has no messages. Left out on purpose: raw requests and answers
of providers, texts with colours for a terminal, and those changes of the state that are messages or outputs (they are
steps) or larger than 2,000 characters (their paths are kept).
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from agentspan.arriving import (
    Record,
    Status,
    Step,
    Unread,
    count_in,
    list_in,
    ns_of,
    number_in,
    object_in,
    present,
    text_in,
    unknown,
)
from agentspan.sessions.inspect_messages import (
    Seen,
    Texts,
    calls_in,
    content_of,
    name_of,
    others_in,
    server_calls_in,
    texts_in,
    thinking_in,
)

MOST_SMALL = 2000
"""The most characters of JSON of a change of the state, or of a score's metadata, that is kept."""
_BASE = frozenset({"uuid", "span_id", "timestamp", "working_start", "event", "pending"})
_IN_MESSAGES = ("/messages", "/output")
_PASSED = frozenset({"approve", "modify", "continue"})
_LEVELS = {"sample_limit": "warning", "interrupt": "warning"}
_DEPTH = 50
"""The most levels of events inside of events."""


class _Span(NamedTuple):
    key: str
    parent: str | None
    type: str | None
    name: str
    start_ns: int
    metadata: Any = None


class SampleDecoder:
    """Decodes the events of one sample, in their order.

    Args:
        session: the id of the session.
        start_ns: the time of an event without one that is the first.
        texts: the attachments.
        pool: the messages that model calls refer to.

    Attributes:
        last_ns: the latest time of an event.
        graded: the names of the scorers that called a model.
    """

    def __init__(self, session: str, start_ns: int, texts: Texts, pool: Sequence[Any]) -> None:
        self.session = session
        self.last_ns = start_ns
        self.graded: set[str] = set()
        self._texts = texts
        self._seen = Seen(texts, pool)
        self._open: dict[str, _Span] = {}
        self._parents: dict[str, tuple[str | None, str | None, str]] = {}  # of each span: parent, type, name
        self._tools: dict[str, None] = {}  # open spans of tools without an event yet
        self._times: set[int] = set()
        self._keys: dict[str, str] = {}  # of tools' events: the keys of their steps, which their spans have given

    def feed(self, events: Sequence[Any], first: int = 0) -> Iterator[Record]:
        """Decode further events of the sample.

        Args:
            first: the number of the first one.
        """
        yield from self._walk(events, None, "", first)

    def messages(self, found: Any) -> Iterator[Record]:
        """Decode the messages of the sample that no model has read."""
        yield from self._new(self._seen.new_in(found), None, self.last_ns)

    def rest(self) -> Iterator[Record]:
        """Return the spans that have no end."""
        for span in [*self._open.values()]:
            yield self._chain(span, self.last_ns, "cancelled")
        self._open.clear()

    def _walk(
        self, events: Sequence[Any], parent: str | None, prefix: str, first: int = 0, depth: int = 0
    ) -> Iterator[Record]:
        stack: list[_Span] = []  # steps of logs before spans
        for number, event in enumerate(events, first):
            if type(event) is not dict:
                yield Unread(self.session, "an event that is no object")
                continue
            at = self._time(event)
            key = text_in(event.get("uuid")) or f"{prefix}{number}"
            kind = event.get("event")
            if kind == "step":
                yield from self._step(event, key, parent, stack, at)
                continue
            above = self._above(event, stack[-1].key if stack else parent)
            decode = _KINDS.get(kind) if type(kind) is str else None
            if decode is None:
                yield Unread(self.session, f"event of type {kind}")
                yield unknown(self.session, key, above, str(kind), self._own_time(at), self._texts.whole(event))
                continue
            metadata = event.get("metadata")
            for record in decode(self, event, key, above, at):
                if metadata and type(record) is Step and record.type != "message":
                    record.payload.setdefault("metadata", self._texts.whole(metadata))
                yield record
            inner = list_in(event.get("events")) if kind in ("tool", "subtask") else ()
            if inner and depth < _DEPTH:
                yield from self._walk(inner, self._keys.get(key, key), f"{key}/", depth=depth + 1)
            elif inner:
                yield Unread(self.session, "events that are nested too deep", len(inner))
        for span in reversed(stack):
            yield self._chain(span, self.last_ns, "cancelled")

    def _above(self, event: Mapping[str, Any], parent: str | None) -> str | None:
        id = event.get("span_id")
        if event.get("event") == "span_begin":
            id = event.get("parent_id")
        return id if type(id) is str and id in self._parents else parent

    def _time(self, event: Mapping[str, Any]) -> int:
        at = ns_of(event.get("timestamp"))
        if at is None:
            return self.last_ns
        self.last_ns = max(self.last_ns, at)
        return at

    def _own_time(self, at: int) -> int:
        """Return a time that no earlier step has: microseconds keep the order of the log."""
        while at in self._times:
            at += 1000
        self._times.add(at)
        return at

    def _end(self, event: Mapping[str, Any], start_ns: int, seconds: Any = None) -> int:
        """Return the end of an event: its own, else its start and its duration."""
        end = ns_of(event.get("completed"))
        if end is None:
            end = start_ns + int((number_in(seconds) or 0.0) * 1e9)
        end = max(start_ns, end)
        self.last_ns = max(self.last_ns, end)
        return end

    def _one(
        self, key: str, parent: str | None, type: str, at: int, payload: dict[str, Any],
        result: dict[str, Any] | None = None, end: int | None = None, status: Status = "complete",
    ) -> Step:  # fmt: skip
        start = self._own_time(at)
        return Step(self.session, key, parent, type, start, max(start, end or at), status, payload, result)

    # Spans

    def _span_begin(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        id = text_in(event.get("id")) or key
        kind, name = text_in(event.get("type")), str(event.get("name") or "span")
        span = _Span(id, above, kind, name, self._own_time(at), self._texts.whole(event.get("metadata")))
        self._open[id] = span
        self._parents[id] = (above, span.type, span.name)
        if span.type == "tool":
            self._tools[id] = None
        yield from ()

    def _span_end(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        span = self._open.pop(str(event.get("id")), None)
        if span is None:
            return
        self._tools.pop(span.key, None)
        yield self._chain(span, at, "complete")

    def _chain(self, span: _Span, end_ns: int, status: Status) -> Step:
        kind = "agent" if span.type == "agent" else "chain"
        payload = present({"name": span.name, "kind": span.type, "metadata": span.metadata})
        end = max(span.start_ns, end_ns)
        return Step(self.session, span.key, span.parent, kind, span.start_ns, end, status, payload)

    def _step(
        self, event: dict[str, Any], key: str, parent: str | None, stack: list[_Span], at: int
    ) -> Iterator[Record]:
        if event.get("action") == "begin":
            above = stack[-1].key if stack else parent
            name = str(event.get("name") or "step")
            stack.append(_Span(key, above, text_in(event.get("type")), name, self._own_time(at)))
            self._parents[key] = (above, stack[-1].type, name)
        elif stack:
            yield self._chain(stack.pop(), at, "complete")

    def _note_grader(self, above: str | None) -> None:
        for _ in range(len(self._parents)):
            if above is None or above not in self._parents:
                return
            above, kind, name = self._parents[above]
            if kind == "scorer":
                self.graded.add(name)
                return

    # Messages and models

    def _new(self, messages: Iterator[dict[str, Any]], above: str | None, at: int) -> Iterator[Record]:
        for message in messages:
            content = self._texts.whole(message.get("content"))
            name = sha256(repr(name_of(message, content)).encode("utf-8", "surrogatepass")).hexdigest()[:24]
            payload = {"role": str(message.get("role") or "user"), "content": content_of(content)}
            if message.get("tool_calls"):
                payload["tool_calls"] = calls_in(message, self._texts)
            yield self._one(f"message:{name}", above, "message", at, payload)

    def _sample_init(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        messages = list_in(object_in(event.get("state")).get("messages"))
        if not messages:
            given = object_in(event.get("sample")).get("input")
            messages = given if type(given) is list else [{"role": "user", "content": given}]
        yield from self._new(self._seen.new_in(messages), above, at)

    def _model(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        yield from self._new(self._seen.new_of(event), above, at)
        self._note_grader(above)
        output = object_in(event.get("output"))
        choice = object_in((list_in(output.get("choices")) or [None])[0])
        message = object_in(choice.get("message"))
        content = self._texts.whole(message.get("content"))
        if message:
            self._seen.add(message)
        start = self._own_time(at)
        end = max(start, self._end(event, at, output.get("time")))
        error = text_in(event.get("error")) or text_in(output.get("error"))
        status: Status = "failed" if error else "cancelled" if event.get("pending") else "complete"
        result = {**_answer(message, content, self._texts), **usage_of(output.get("usage"))}
        result |= present({
            "finish_reason": choice.get("stop_reason"), "response_model": text_in(output.get("model")),
            "response_id": text_in(object_in(object_in(event.get("call")).get("response")).get("id")),
        })  # fmt: skip
        if error:
            failure = {"type": "error", "message": self._texts.whole(error), "traceback": event.get("traceback")}
            result["error"] = present({name: self._texts.whole(value) for name, value in failure.items()})
        yield Step(self.session, key, above, "llm", start, end, status, _called(event), result)
        for number, call in enumerate(server_calls_in(content)):
            yield self._server_call(call, f"{key}:{number}", key, end)

    def _server_call(self, call: dict[str, Any], key: str, above: str, at: int) -> Step:
        error = call.get("error")
        result = {"output": call.get("result"), "is_error": error is not None, **present({"structured": error})}
        if call.get("tool_type") == "mcp_call":
            payload = {"method": "tools/call", "server": call.get("context"), "target": call.get("name")}
            payload = {**present(payload), "arguments": call["arguments"]}
            result["result"] = result.pop("output")
            return self._one(key, above, "mcp", at, payload, result)
        payload = {"name": str(call.get("name")), "arguments": call["arguments"], "call_id": call.get("id")}
        return self._one(key, above, "tool", at, present(payload), result)

    def _tool(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        name, id = str(event.get("function") or "tool"), text_in(event.get("id"))
        span = self._span_of_tool(name, above)
        if id is not None:
            self._seen.add_call(id)
        arguments = self._texts.whole(event.get("arguments"))
        payload = present({"name": name, "arguments": arguments, "call_id": id, "agent": event.get("agent")})
        output = self._texts.whole(event.get("result"))
        result: dict[str, Any] = {"output": content_of(output)} | present({"truncated": event.get("truncated")})
        status = _tool_status(event, self._texts, result)
        end = self._end(event, at, event.get("working_time"))
        if span is not None:
            self._keys[key] = span.key
        yield self._one(self._keys.get(key, key), above, "tool", at, payload, result, end, status)

    def _span_of_tool(self, name: str, above: str | None) -> _Span | None:
        """Return the open span of a tool's call, which then is no step of its own."""
        for id in self._tools:
            span = self._open.get(id)
            if span is not None and span.name == name and span.parent == above:
                del self._tools[id], self._open[id]
                return span
        return None

    # Other events

    def _subtask(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        payload = present({"name": str(event.get("name") or "subtask"), "input": self._texts.whole(event.get("input"))})
        result = {"output": self._texts.whole(event.get("result"))}
        end = self._end(event, at, event.get("working_time"))
        self._parents[key] = (above, text_in(event.get("type")), payload["name"])
        yield self._one(key, above, "chain", at, payload, result, end)

    def _score(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        score = self._texts.whole(object_in(event.get("score")))
        name = text_in(event.get("scorer")) or self._scorer_above(above)
        value, label = value_of(score.get("value"))
        answer = {
            "score": value,
            "label": label,
            "explanation": score.get("explanation"),
            "answer": score.get("answer"),
        }
        metadata = score.get("metadata")
        if metadata and len(json.dumps(metadata)) <= MOST_SMALL:
            answer["metadata"] = metadata
        payload = present({"name": name, "target": event.get("target"), "intermediate": event.get("intermediate")})
        yield self._one(key, above, "evaluation", at, payload, present(answer))

    def _scorer_above(self, above: str | None) -> str:
        kind, name = self._parents.get(above or "", (None, None, ""))[1:]
        return name if kind == "scorer" else "score"

    def _sandbox(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        action = str(event.get("action"))
        names = ("cmd", "file", "options", "input")
        content = present({name: self._texts.whole(event.get(name)) for name in names})
        result = present({"output": self._texts.whole(event.get("output")), "exit_code": count_in(event.get("result"))})
        payload = {"name": f"sandbox {action}", "level": "info", "content": content}
        yield self._one(key, above, "event", at, payload, result, self._end(event, at))

    def _approval(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        name = text_in(event.get("approver")) or text_in(event.get("reviewer")) or "approval"
        decision = event.get("decision")
        about = {"message": event.get("message"), "call": event.get("call"), "modified": event.get("modified")}
        payload = {"name": name, "stage": event.get("event"), "subject": self._texts.whole(present(about))}
        result = present({"action": decision, "reason": self._texts.whole(event.get("explanation"))})
        yield self._one(key, above, "guardrail", at, payload, {"passed": str(decision) in _PASSED, **result})

    def _input(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        texts = self._texts.whole({name: event.get(name) for name in ("message", "input", "fields", "content")})
        payload = {"prompt": texts["message"] or "input", **present({"fields": texts["fields"]})}
        response = texts["input"] if texts["content"] is None else texts["content"]
        yield self._one(
            key, above, "human", at, payload, present({"response": response, "decision": event.get("outcome")})
        )

    def _compaction(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        names = ("role", "source", "metadata")
        payload = {"trigger": event.get("type"), "tokens_before": event.get("tokens_before")}
        payload |= {name: event.get(name) for name in names}
        yield self._one(
            key, above, "compaction", at, present(payload), present({"tokens_after": event.get("tokens_after")})
        )

    def _logger(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        message = object_in(self._texts.whole(event.get("message")))
        where = f"{message.get('filename')}:{message.get('lineno')}"
        payload = {"name": "log", "level": message.get("level"), "content": message.get("message"), "where": where}
        yield self._one(key, above, "event", at, payload)

    def _error(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        error = error_of(self._texts.whole(event.get("error")))
        payload = {"name": "error", "level": "error", "content": error["message"]}
        yield self._one(key, above, "event", at, payload, {"error": error}, status="failed")

    def _changes(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        changes = [
            change for change in list_in(event.get("changes"))
            if not str(object_in(change).get("path")).startswith(_IN_MESSAGES) or event.get("event") == "store"
        ]  # fmt: skip
        if not changes:
            return
        content: Any = self._texts.whole(changes)
        if len(json.dumps(content)) > MOST_SMALL:
            content = {"left_out": len(changes), "paths": [object_in(change).get("path") for change in changes[:20]]}
        yield self._one(key, above, "event", at, {"name": event["event"], "level": "debug", "content": content})

    def _plain(self, event: dict[str, Any], key: str, above: str | None, at: int) -> Iterator[Record]:
        kind = event["event"]
        content = self._texts.whole({name: value for name, value in event.items() if name not in _BASE})
        payload = {"name": kind, "level": _LEVELS.get(kind, "info"), "content": present(content)}
        yield self._one(key, above, "event", at, payload)


_Decode = Callable[[SampleDecoder, dict[str, Any], str, str | None, int], Iterator[Record]]
_KINDS: dict[str, _Decode] = {
    "span_begin": SampleDecoder._span_begin,
    "span_end": SampleDecoder._span_end,
    "sample_init": SampleDecoder._sample_init,
    "model": SampleDecoder._model,
    "tool": SampleDecoder._tool,
    "subtask": SampleDecoder._subtask,
    "score": SampleDecoder._score,
    "sandbox": SampleDecoder._sandbox,
    "approval": SampleDecoder._approval,
    "review": SampleDecoder._approval,
    "input": SampleDecoder._input,
    "compaction": SampleDecoder._compaction,
    "logger": SampleDecoder._logger,
    "error": SampleDecoder._error,
    "state": SampleDecoder._changes,
    "store": SampleDecoder._changes,
    **dict.fromkeys(
        ("anchor", "branch", "checkpoint", "info", "interrupt", "sample_limit", "score_edit", "sentinel"),
        SampleDecoder._plain,
    ),
}


def _called(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a model call: the model and its settings."""
    provider, slash, model = str(event.get("model") or "?").partition("/")
    payload = present(object_in(event.get("config")))
    payload |= {"model": model, "provider": provider} if slash else {"model": provider}
    tools = [object_in(tool).get("name") for tool in list_in(event.get("tools"))]
    if tools:
        payload["tools"] = tools
        payload["tool_choice"] = event.get("tool_choice")
    return payload | present({name: event.get(name) for name in ("role", "requested_model", "cache", "retries")})


def _answer(message: Mapping[str, Any], content: Any, texts: Texts) -> dict[str, Any]:
    found: dict[str, Any] = {"text": texts_in(content), "thinking": thinking_in(content), "content": others_in(content)}
    calls = calls_in(message, texts)
    return present({**found, "tool_calls": calls or None})


def usage_of(found: Any) -> dict[str, Any]:
    """Return the tokens of a usage. Inspect's input tokens exclude the cache; ours include it."""
    usage = object_in(found)
    sent, read, write = (
        count_in(usage.get(name)) for name in ("input_tokens", "input_tokens_cache_read", "input_tokens_cache_write")
    )
    whole = None if sent is None else sent + (read or 0) + (write or 0)
    return present({
        "input_tokens": whole, "cached_tokens": read, "cache_write_tokens": write,
        "output_tokens": count_in(usage.get("output_tokens")),
        "reasoning_tokens": count_in(usage.get("reasoning_tokens")),
        "stated_cost_usd": number_in(usage.get("total_cost")),
    })  # fmt: skip


def _tool_status(event: Mapping[str, Any], texts: Texts, result: dict[str, Any]) -> Status:
    """Return the status of a tool's call, and set the error in its result."""
    error = texts.whole(event.get("error"))
    if type(error) is dict:
        result["is_error"] = True
        result["error"] = {"type": str(error.get("type") or "error"), "message": str(error.get("message") or "")}
        return "cancelled" if error.get("type") == "cancelled" else "failed"
    if event.get("failed"):
        result["is_error"] = True
        result["error"] = {"type": "exception", "message": "the tool raised an exception that ended the sample"}
        return "failed"
    return "cancelled" if event.get("pending") else "complete"


def error_of(found: Any) -> dict[str, Any]:
    """Return an error of a sample: its type, if the message begins with one, its message and its traceback."""
    error = object_in(found) or {"message": found}
    message = str(error.get("message") or "")
    name = message.partition("(")[0]
    kind = name if name.isidentifier() else "error"
    return present({"type": kind, "message": message, "traceback": text_in(error.get("traceback"))})


_VALUES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0, True: 1.0, False: 0.0}
_MOST_LABEL = 200


def value_of(value: Any) -> tuple[float | None, str | None]:
    """Return the number and the label of a score's value. The letters C, I, P and N have Inspect's numbers."""
    if type(value) is bool:
        return _VALUES[value], None
    if type(value) in (int, float):
        return number_in(value), None if value == value else "unscored"
    if type(value) is not str:
        return None, None if value is None else json.dumps(value)[:_MOST_LABEL]
    if value in _VALUES:
        return _VALUES[value], value
    try:
        return number_in(float(value)), value[:_MOST_LABEL]
    except ValueError:
        return None, value[:_MOST_LABEL] or None
