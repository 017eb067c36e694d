"""Decodes the trace items of OpenAI's Agents SDK, as its processors export them. A trace is a session.

The items are lines of JSON, or objects `{"data": [...]}`, in lines or as one document. A span is written when it ends,
and a trace has no time of its own, so a session begins with the first span of the file. A trace without spans carries
nothing. A call of a model holds all messages again; a message is a step where it stands for the first time.

An error stands on a span and again on the agents around it. It is kept once; an agent that repeats it has failed, too.
Exported `response` spans have neither model nor text: only a live recording has these.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from agentspan.arriving import (
    Record,
    Session,
    Status,
    Step,
    Unread,
    count_in,
    decoded,
    json_of,
    list_in,
    ns_of,
    object_in,
    part_of,
    present,
    task_of,
    text_in,
    unicode_of,
    unknown,
)
from agentspan.sessions.formats import Format, LineDecoder, Source, head_of, walk

NAME = "openai-agents"
UNNAMED = "Agent workflow"
"""The SDK's name for a workflow that the program did not name."""
_ITEM = re.compile(rb'"object"\s*:\s*"trace(?:\.span)?"')
_MICROSECOND = 1000
_MOST_CALLS = 1000
"""The most tool calls of a trace that wait for their span."""
_DETAILS = {
    "cached_tokens": ("input_tokens_details", "prompt_tokens_details"),
    "cache_write_tokens": ("input_tokens_details", "prompt_tokens_details"),
    "reasoning_tokens": ("output_tokens_details", "completion_tokens_details"),
}


class TraceDecoder:
    """Makes the steps of one trace from its spans, in the order in which they ended.

    Args:
        trace: the id of the trace.

    Attributes:
        output: the latest answer of a model.
        task: the name of the task, from the first prompt; None without one.
        models: the models that were called.
        error: the error of the agent that ended last; None if it did not fail. The error of a tool is no end.
    """

    def __init__(self, trace: str) -> None:
        self.trace = trace
        self.output: str | None = None
        self.task: str | None = None
        self.models: dict[str, None] = {}
        self.error: dict[str, Any] | None = None
        self._latest: dict[str, Any] | None = None
        self._broken: dict[str | None, bool] = {}  # of open agents: whether their latest turn had an error of its own
        self._seen: Counter[str] = Counter()
        self._calls: deque[tuple[str, Any, str]] = deque(maxlen=_MOST_CALLS)
        self._failed: dict[str, str] = {}  # of spans that have not ended: the span inside that failed

    def span(self, item: Mapping[str, Any]) -> Iterator[Record]:
        """Return the steps of a span: its messages, and itself."""
        key, parent = str(item.get("id")), text_in(item.get("parent_id"))
        start = ns_of(item.get("started_at"))
        end = ns_of(item.get("ended_at"))
        if start is None:
            start = end or 0
            yield Unread(self.trace, "a span without a time")
        data = object_in(item.get("span_data"))
        made = type_of(data)
        if made is None:
            kind = str(data.get("type"))
            yield Unread(self.trace, f"span of type {kind}")
            yield unknown(self.trace, key, parent, kind, start, dict(item))
            return
        payload, result = _KINDS[made](self, data)
        if made in ("generation", "response"):
            yield from self._messages(data.get("input"), parent, start)
        status = self._failure(item, key, parent, result)
        if made == "turn":
            self._broken[parent] = "error" in result  # such as of a guardrail: the run of the agent raises it
        if made == "agent":
            status = "failed" if self._broken.pop(key, False) else status
            self.error = self._latest if status == "failed" else None
        if made == "generation" and not result and status == "complete":
            status = "failed"  # a call without an answer: the error stands on the agent
        if end is None:
            status = "active"
        if item.get("metadata"):
            payload["metadata"] = item["metadata"]
        type = _TYPES[made](data)
        yield Step(self.trace, key, parent, type, start, end and max(start, end), status, payload, result or None)

    def _failure(self, item: Mapping[str, Any], key: str, parent: str | None, result: dict[str, Any]) -> Status:
        """Return the status of a span, and set the error in its result, unless a span inside of it has it."""
        inside, found = self._failed.pop(key, None), item.get("error")
        error = object_in(found)
        if inside is not None and error:
            result["failed_in"] = inside
        elif found:
            result["error"] = self._latest = error_of(found)
        if parent is not None and (found or inside is not None):
            self._failed[parent] = key if inside is None else inside
        return "failed" if found else "complete"

    def _messages(self, found: Any, parent: str | None, start: int) -> Iterator[Step]:
        """Return the messages that stand in no earlier call. They end just before the call begins."""
        items = [{"role": "user", "content": found}] if type(found) is str else list_in(found)
        new = [*self._new(object_in(each) for each in items)]
        for number, (key, payload) in enumerate(new):
            if self.task is None and payload["role"] == "user":
                self.task = task_of(" ".join(_texts(payload["content"]))) or None
            at = start - (len(new) - number) * _MICROSECOND
            yield Step(self.trace, key, parent, "message", at, at, "complete", payload)

    def _new(self, items: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
        here: Counter[str] = Counter()
        for item in items:
            role = item.get("role")
            if type(role) is not str or role == "assistant" or item.get("content") is None:
                continue  # answers and results of tools are steps
            name = sha256(repr((role, item["content"])).encode("utf-8", "surrogatepass")).hexdigest()[:24]
            here[name] += 1
            if here[name] > self._seen[name]:
                self._seen[name] = here[name]
                yield f"message:{name}:{here[name]}", {"role": role, "content": content_of(item["content"])}

    def called(self, name: str, arguments: Any) -> str | None:
        """Return the id of the earliest call of a tool that waits for its span, and remove it."""
        for call in self._calls:
            if call[0] == name and call[1] == arguments:
                self._calls.remove(call)
                return call[2]
        return None

    def answered(self, found: dict[str, Any], model: str) -> dict[str, Any]:
        """Note the answer of a model, and return it without its empty members."""
        for call in list_in(found.get("tool_calls")):
            if type(call.get("id")) is str:
                self._calls.append((call.get("name"), call.get("arguments"), call["id"]))
        if found.get("text"):
            self.output = found["text"]
        self.models[model] = None
        return present(found)


def type_of(data: Mapping[str, Any]) -> str | None:
    """Return the type of a span, with `task` and `turn` for the SDK's own; None for one that is not known."""
    kind = data.get("type")
    if kind == "custom":
        own = object_in(data.get("data")).get("sdk_span_type")
        return own if own in ("task", "turn") else "custom"
    return kind if type(kind) is str and kind in _KINDS else None


def schema_of(data: Mapping[str, Any]) -> str:
    """Return the schema_name of a span's step."""
    kind = type_of(data)
    return "unknown:event" if kind is None else _TYPES[kind](data)


def begun_payload(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the payload of a span that has begun, as far as it is known by then."""
    kind = type_of(data)
    return {"name": str(data.get("type"))} if kind is None else _KINDS[kind](TraceDecoder(""), data)[0]


def error_of(found: Any) -> dict[str, Any]:
    """Return an error with its type and message: the SDK's message names the kind, its data the cause."""
    error = object_in(found) or {"message": found}
    data = object_in(error.get("data"))
    message, cause = str(error.get("message")), data.get("error")
    return {"type": message, "message": str(cause) if cause else message, **({"data": data} if data else {})}


_Made = tuple[dict[str, Any], dict[str, Any]]


def _agent(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    payload = {name: data.get(name) or None for name in ("handoffs", "tools", "output_type")}
    return {"name": _name(data, "agent"), **present(payload)}, {}


def _generation(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    model = text_in(data.get("model")) or "?"
    payload = {**present(object_in(data.get("model_config"))), "model": model}
    usage = usage_of(data.get("usage"))
    outputs = list_in(data.get("output"))
    if not outputs and not usage:
        decoder.models[model] = None
        return payload, {}
    return payload, decoder.answered({**answer_of(outputs), **usage}, model)


def _response(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    response = object_in(data.get("response"))
    model = text_in(response.get("model")) or "?"
    tools = [object_in(tool).get("name") or object_in(tool).get("type") for tool in list_in(response.get("tools"))]
    settings = {name: response.get(name) for name in ("temperature", "top_p", "reasoning", "tool_choice")}
    system = content_of(response.get("instructions"))
    payload = {"model": model, **present({**settings, "system": system, "tools": tools or None})}
    usage = usage_of(data.get("usage") or response.get("usage"))
    id = text_in(data.get("response_id")) or text_in(response.get("id"))
    found = {**answer_of(list_in(response.get("output"))), **usage, "response_id": id}
    if not response:
        found.pop("text")
    return payload, decoder.answered({**found, "finish_reason": response.get("status")}, model)


def _function(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    name, arguments = _name(data, "function"), decoded(data.get("input"))
    mcp = object_in(data.get("mcp_data"))
    output = data.get("output")
    call_id = decoder.called(name, arguments)
    if mcp:
        server = text_in(mcp.get("server"))
        payload = present({"server": server, "target": name, "arguments": arguments, "call_id": call_id})
        return {"method": "tools/call", **payload}, present({"result": output})
    return present({"name": name, "arguments": arguments, "call_id": call_id}), present({"output": output})


def _own(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    own = object_in(data.get("data"))
    about = {name: value for name, value in own.items() if name not in ("sdk_span_type", "name", "usage")}
    about |= present({"sums": own.get("usage")})  # a `usage` would count, and the calls inside have it, too
    label = text_in(own.get("name")) or _name(data, "custom")
    return {**about, "name": label, "kind": own.get("sdk_span_type")}, {}


def _mcp_tools(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    return {"method": "tools/list", **present({"server": data.get("server")})}, present({"result": data.get("result")})


def _transcription(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    payload, sound = _voice(decoder, data), object_in(data.get("input"))
    return {**payload, "input": _sound(sound)}, present({"text": data.get("output")})


def _speech(decoder: TraceDecoder, data: Mapping[str, Any]) -> _Made:
    result = {"output": _sound(object_in(data.get("output"))), "first_content_at": data.get("first_content_at")}
    return {**_voice(decoder, data), **present({"input": data.get("input")})}, present(result)


def _voice(decoder: TraceDecoder, data: Mapping[str, Any]) -> dict[str, Any]:
    model = text_in(data.get("model")) or "?"
    decoder.models[model] = None
    return {**present(object_in(data.get("model_config"))), "model": model, "kind": data.get("type")}


def _sound(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "audio", "format": found.get("format"), "data": found.get("data")}


def _name(data: Mapping[str, Any], default: str) -> str:
    return text_in(data.get("name")) or default


_KINDS: dict[str, Callable[[TraceDecoder, Mapping[str, Any]], _Made]] = {
    "agent": _agent,
    "generation": _generation,
    "response": _response,
    "function": _function,
    "handoff": lambda _, data: ({name: str(data.get(name) or "?") for name in ("from_agent", "to_agent")}, {}),
    "guardrail": lambda _, data: ({"name": _name(data, "guardrail")}, {"passed": data.get("triggered") is not True}),
    "custom": lambda _, data: ({"name": _name(data, "custom"), **present({"input": data.get("data") or None})}, {}),
    "task": _own,
    "turn": _own,
    "mcp_tools": _mcp_tools,
    "transcription": _transcription,
    "speech": _speech,
    "speech_group": lambda _, data: ({"name": "speech_group", **present({"input": data.get("input")})}, {}),
}


def _always(type: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda data: type


_TYPES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    **{name: _always(name) for name in ("agent", "handoff", "guardrail")},
    **{name: _always("llm") for name in ("generation", "response", "transcription", "speech")},
    **{name: _always("chain") for name in ("custom", "task", "turn", "speech_group")},
    "mcp_tools": _always("mcp"),
    "function": lambda data: "mcp" if object_in(data.get("mcp_data")) else "tool",
}


# Answers of models, in the forms of the Responses API and of chat completions


def answer_of(outputs: list[Any]) -> dict[str, Any]:
    """Return the text, reasoning, tool calls and other items of an answer."""
    texts: list[str] = []
    thinking: list[str] = []
    calls: list[dict[str, Any]] = []
    others: list[Any] = []
    items = map(object_in, outputs)  # a streamed chat completion is exported as a whole response
    flat = (each for item in items for each in (list_in(item.get("output")) if _is_response(item) else [item]))
    for item in map(object_in, flat):
        kind = item.get("type")
        if kind == "function_call":
            calls.append(present(_call(item.get("call_id"), item)))
        elif kind == "reasoning":
            thinking += [
                text for part in (*list_in(item.get("summary")), *list_in(item.get("content"))) if (text := _text(part))
            ]
        elif kind == "message" or item.get("role") is not None:
            texts += _texts(item.get("content"))
            calls += [
                _call(each.get("id"), object_in(each.get("function")))
                for each in map(object_in, list_in(item.get("tool_calls")))
            ]
        elif item:
            others.append(dict(item))
    found = {"text": "\n".join(texts), "thinking": "\n".join(thinking) or None}
    return {**found, "tool_calls": calls or None, "content": others or None}


def _is_response(item: Mapping[str, Any]) -> bool:
    return item.get("object") == "response" and type(item.get("output")) is list


def _call(id: Any, function: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": id, "name": function.get("name"), "arguments": decoded(function.get("arguments"))}


def _texts(content: Any) -> list[str]:
    if type(content) is str:
        return [content]
    return [text for part in list_in(content) if (text := _text(part))]


def _text(part: Any) -> str | None:
    found = object_in(part)
    return text_in(found.get("text")) or text_in(found.get("refusal"))


def content_of(content: Any) -> Any:
    """Return the content of a message; of one that is one text, the text."""
    parts = list_in(content)
    if len(parts) == 1 and object_in(parts[0]).get("type") in ("input_text", "output_text", "text"):
        return object_in(parts[0]).get("text")
    return [_block(part) for part in parts] if parts else content


def _block(part: Any) -> Any:
    url = object_in(part).get("image_url")
    url = object_in(url).get("url") if type(url) is dict else url
    if type(url) is str and url.startswith("data:"):
        head, base64, data = url.partition(";base64,")
        if base64:
            return {"type": "image", "source": {"type": "base64", "media_type": head[5:], "data": data}}
    return part


def usage_of(found: Any) -> dict[str, Any]:
    """Return the tokens of a usage, in the names of the Responses API or of chat completions.

    The SDK writes zeros where a stream reported no usage: then no tokens are known.
    """
    usage = object_in(found)
    counts = {
        "input_tokens": count_in(usage.get("input_tokens", usage.get("prompt_tokens"))),
        "output_tokens": count_in(usage.get("output_tokens", usage.get("completion_tokens"))),
    }
    for name, groups in _DETAILS.items():
        values = (count_in(object_in(usage.get(group)).get(name)) for group in groups)
        counts[name] = next((value for value in values if value is not None), None)
    for name in ("cached_input_tokens", "cache_write_input_tokens"):
        counts[name.replace("_input", "")] = counts[name.replace("_input", "")] or count_in(usage.get(name))
    return present(counts) if any(counts.values()) else {}


# Files


class _Trace:
    """A trace in a file, while it is decoded.

    Attributes:
        about: its item; empty until it came.
        decoder: makes its steps.
        session: its Session; None before its first span.
    """

    def __init__(self, id: str) -> None:
        self.about: Mapping[str, Any] = {}
        self.decoder = TraceDecoder(id)
        self.session: Session | None = None

    def span(self, item: Mapping[str, Any]) -> Iterator[Record]:
        """Return the records of a span."""
        start = ns_of(item.get("started_at")) or ns_of(item.get("ended_at"))
        if self.session is None:
            self.session = begun(self.decoder.trace, self.about, start or 0)
            yield self.session
        yield from self.decoder.span(item)
        end = max(self.session.ended_ns or 0, ns_of(item.get("ended_at")) or start or 0)
        is_root = item.get("parent_id") is None
        self.session = ended(self.session, self.decoder, end, is_over=is_root)


def begun(trace: str, about: Mapping[str, Any], start_ns: int) -> Session:
    """Return the Session of a trace that has begun.

    Args:
        about: the trace's item; empty if it is not known.
    """
    name, group = text_in(about.get("workflow_name")), text_in(about.get("group_id"))
    metadata = {"trace_id": trace, **present({"metadata": about.get("metadata")})}
    return Session(trace, name or UNNAMED, start_ns, conversation=group, metadata=metadata)


def ended(session: Session, decoder: TraceDecoder, end_ns: int, *, is_over: bool) -> Session:
    """Return the Session of a trace after a further span.

    Args:
        is_over: True if the span had no parent. More may come in a trace of several runs of agents.
    """
    is_over = is_over or session.is_over
    metadata = {**session.metadata, **({"models": [*decoder.models]} if decoder.models else {})}
    models = [model for model in decoder.models if model != "?"]
    session = session._replace(
        ended_ns=end_ns, output=decoder.output, task=decoder.task, metadata=metadata,
        fingerprint={"model": models[0] if len(models) == 1 else part_of(models)} if models else {}, is_over=is_over,
    )  # fmt: skip
    if decoder.error is not None:
        error = {name: decoder.error[name] for name in ("type", "message")}
        return session._replace(outcome="error", error=error)
    return session._replace(outcome="answered") if is_over else session


class ItemDecoder(LineDecoder):
    """Decodes a file of items.

    Args:
        source: the file.
    """

    def __init__(self, source: Source) -> None:
        self._traces: dict[str, _Trace] = {}
        self._document: list[bytes] | None = None
        self._is_first = True

    def feed(self, file: Path, line: bytes) -> Iterator[Record]:
        """Decode one line."""
        if self._document is not None:
            self._document.append(line)
            return
        try:
            found = json_of(line) if line.strip() else []
        except (ValueError, RecursionError):
            if self._is_first and line.lstrip()[:1] in (b"{", b"["):  # the document may have many lines
                self._document = [line]
            else:
                yield Unread(None, "a line that is no JSON")
            return
        self._is_first = False
        del line  # it may be long, and storing what is yielded needs memory, too
        yield from self._items(found)

    def rest(self) -> Iterator[Record]:
        """Return the sessions as they are now; of a document, all its records."""
        if self._document is not None and self._document[-1].strip()[-1:] in (b"}", b"]"):
            yield from self._whole(self._document)
        for trace in self._traces.values():
            if trace.session is not None:
                yield trace.session

    def _whole(self, lines: list[bytes]) -> Iterator[Record]:
        try:
            found = json.loads(b"\n".join(lines))
        except (ValueError, RecursionError):
            yield Unread(None, "a line that is no JSON", len(lines))
            return
        self._traces.clear()
        yield from self._items(found)

    def _items(self, found: Any) -> Iterator[Record]:
        items = found if type(found) is list else list_in(object_in(found).get("data")) or [found]
        for item in items:
            kind = object_in(item).get("object")
            if kind == "trace":
                self._trace(item.get("id")).about = item
            elif kind == "trace.span":
                yield from self._trace(item.get("trace_id")).span(item)
            else:
                yield Unread(None, f"item of type {kind}" if kind is not None else "a line that is no item")

    def _trace(self, id: Any) -> _Trace:
        name = unicode_of(str(id))
        trace = self._traces.get(name)
        if trace is None:
            trace = self._traces[name] = _Trace(name)
        return trace


def _sources(path: Path) -> Iterator[Source]:
    files = walk(path, ".jsonl", ".json") if path.is_dir() else [path]
    for file in files:
        if (file is path or "trace" in file.name) and _ITEM.search(head_of(file)):
            yield Source(NAME, file)


FORMATS: list[Format] = [Format(NAME, "OpenAI Agents", lambda environment: (), _sources, lines=ItemDecoder)]
