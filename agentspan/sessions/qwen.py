"""Decodes the sessions of Qwen Code as its newer versions write them: records with `uuid`, `parentUuid` and `message`.

An answer of the model is one `assistant` record, with the calls of tools in it; each result is a `tool_result` record.
A rewind is a `system` record that hangs on the record before the rewound prompt: what came in between stays, and is
marked `rewound`. A fork copies all records of a session under their uuids, with `forkedFrom`.

Sub-agents in the background have files of their own, without tokens. Those in the foreground have none: their model
and tool calls are known from telemetry records only, without what the tools returned, and stand below an agent.

Left out on purpose: `attribution_snapshot` (who wrote which line), and telemetry that repeats other records, of which
only the durations are used.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving import (
    Record,
    Step,
    Unread,
    id_in,
    list_in,
    ns_of,
    object_in,
    parsed,
    task_of,
    text_in,
    tokens_in,
    unknown,
)
from agentspan.sessions.formats import LineDecoder, Source, head_of, walk
from agentspan.sessions.google import (
    Log,
    asked_of,
    call_of,
    content_of,
    outcome_of,
    parts_of,
    record_of,
    text_of,
    thinking_of,
    tokens_of,
)
from agentspan.sessions.reading import plain_path
from agentspan.sessions.timeline import MS

AGENT = "qwen-code"
ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_AGENT_TOOLS = frozenset({"agent", "task"})
_KINDS = frozenset({"user", "assistant", "tool_result", "system"})


class _Call(NamedTuple):
    """A tool call that has not ended, and the record that it stands in."""

    step: Step
    name: str
    record: str


class _Log(Log):
    """One session, or one sub-agent with a file of its own."""

    def __init__(self, id: str, parent: tuple[str, str | None] | None, name: str | None) -> None:
        super().__init__(id, AGENT, parent, name)
        self.open: dict[str, _Call] = {}
        self.agents: dict[str, Step] = {}
        self.took: dict[str, int] = {}
        self.waited_ns = 0
        self.count = 0

    def take(self, record: dict[str, Any], size: int) -> Iterator[Step | Unread]:
        """Return the steps of a record."""
        self.count += 1
        key = id_in(record.get("uuid")) or f"record:{self.count}"
        ns = ns_of(record.get("timestamp")) or self.ended_ns or self.started_ns or 1
        self.ended_ns = max(self.ended_ns, ns)
        self._note(record)
        kind = id_in(record.get("type"))
        decode = _DECODERS.get(kind or "")
        if decode is None:
            found: list[Step | Unread] = [*self._unknown(record, key, ns, f"record of type {(kind or '?')[:40]}")]
        else:
            found = [*decode(self, record, key, ns)]
        if record.get("subtype") != "rewind":
            self.branch.add(key, [each for each in found if isinstance(each, Step)], size)
        if kind != "system":
            self.last_ns = max(self.last_ns, ns)
        yield from found

    def _unknown(self, record: dict[str, Any], key: str, ns: int, what: str) -> Iterator[Step | Unread]:
        yield unknown(self.id, key, None, what, self.time.at(ns), record)
        yield Unread(self.id, what)

    def _note(self, record: dict[str, Any]) -> None:
        """Note the facts of the session that each record has."""
        version = id_in(record.get("version"))
        if version is not None and version != "unknown":
            self.version = version
        for name, field in (("cwd", "cwd"), ("git_branch", "gitBranch")):
            if value := text_in(record.get(field)):
                self.metadata[name] = value
        if original := id_in(object_in(record.get("forkedFrom")).get("sessionId")):
            self.conversation = original

    def user(self, record: dict[str, Any], key: str, ns: int) -> Iterator[Step | Unread]:
        """Return the step of a prompt, or of a notice that the model reads as one."""
        parts = parts_of(object_in(record.get("message")).get("parts"))
        payload: dict[str, Any] = {"role": "user", "content": content_of(parts)}
        subtype = text_in(record.get("subtype"))
        if subtype is not None:
            payload |= {"role": "system", "kind": subtype}
        elif text_in(record.get("externalInputKind")):
            payload["steering"] = True
        else:
            text = text_of(parts)
            self.task, self.goal = self.task or task_of(text) or None, self.goal or text
        self.outcome, self.waited_ns = None, 0
        yield self.moment(key, "message", self.time.at(ns), payload)

    def assistant(self, record: dict[str, Any], key: str, ns: int) -> Iterator[Step | Unread]:
        """Return the steps of an answer: the model call, and its calls of tools, which go on."""
        parts = parts_of(object_in(record.get("message")).get("parts"))
        model, usage = text_in(record.get("model")), record.get("usageMetadata")
        calls = [object_in(part["functionCall"]) for part in parts if "functionCall" in part]
        texts = [part for part in parts if "functionCall" not in part]
        text = text_of(texts)
        if model is None and type(usage) is not dict:  # a sub-agent's file says nothing of its model calls
            if text:
                yield self.moment(key, "message", self.time.at(ns), {"role": "assistant", "content": text})
        else:
            yield self._answer(record, key, ns, texts, calls)
        for number, call in enumerate(calls):
            yield self._called(call, key, ns, number)
        if text:
            self.answer = text
        self.outcome = None if calls else "answered"

    def _answer(
        self, record: dict[str, Any], key: str, ns: int, parts: list[dict[str, Any]], calls: list[dict[str, Any]]
    ) -> Step:
        model = text_in(record.get("model")) or next(reversed(self.models), "unknown")
        self.models[model] = None
        result: dict[str, Any] = {"text": text_of(parts)}
        if thinking := thinking_of(parts):
            result["thinking"] = thinking
        if calls:
            result["tool_calls"] = [*map(asked_of, calls)]
        if type(usage := record.get("usageMetadata")) is dict:
            result |= _usage(usage)
        payload: dict[str, Any] = {"model": model}
        if window := tokens_in(record.get("contextWindowSize")):
            payload["context_window"] = window
        began = ns - self.waited_ns if self.waited_ns else self.last_ns or ns
        self.waited_ns = 0
        start = self.time.at(min(max(began, self.last_ns), ns))
        return Step(self.id, key, None, "llm", start, max(start, ns), "complete", payload, result)

    def _called(self, call: dict[str, Any], record: str, ns: int, number: int) -> Step:
        id = id_in(call.get("id"))
        name = text_in(call.get("name")) or "?"
        display = _mcp_display(name)
        kind, payload = call_of(name, call.get("args"), id, display)
        key = id or f"{record}:{number}"
        step = Step(self.id, key, None, kind, self.time.at(ns), None, "active", payload)
        self.open[key] = _Call(step, name, record)
        return step

    def tool_result(self, record: dict[str, Any], key: str, ns: int) -> Iterator[Step | Unread]:
        """Return the end of a tool call."""
        parts = parts_of(object_in(record.get("message")).get("parts"))
        told = object_in(record.get("toolCallResult"))
        ids = [object_in(part.get("functionResponse")).get("id") for part in parts]
        id = next((found for each in (told.get("callId"), *ids) if (found := id_in(each))), None)
        call = self.open.pop(id or "", None)
        if call is None:
            yield from self._unknown(record, key, ns, "a tool result without a call")
            return
        step = call.step
        result = outcome_of(parts, step.type, call.name)
        if (structured := told.get("resultDisplay")) not in (None, ""):
            result["structured"] = structured
        status = text_in(told.get("status"))
        response = object_in(next((part["functionResponse"] for part in parts if "functionResponse" in part), None))
        if status == "error" or (status is None and "error" in object_in(response.get("response"))):
            result["is_error"] = True
            if kind := text_in(told.get("errorType")):
                result["error_type"] = kind
        state: Any = "cancelled" if status == "cancelled" else "failed" if "is_error" in result else "complete"
        if state == "cancelled":
            self.outcome = "interrupted"
        if took := tokens_in(told.get("durationMs")):
            result["duration_ms"] = took
        began = self.took.pop(step.key, None)
        start = step.start_ns if began is None or began <= step.start_ns else self.time.at(began)
        ended = step._replace(start_ns=start, end_ns=max(start, ns), status=state, result=result)
        agent = self.agents.pop(step.key, None)
        if agent is not None:
            yield agent._replace(end_ns=ended.end_ns, status=state)
        self.branch.add(call.record, [ended], 0)
        yield ended

    def system(self, record: dict[str, Any], key: str, ns: int) -> Iterator[Step | Unread]:
        """Return the steps of a record of the program itself."""
        subtype, payload = id_in(record.get("subtype")) or "?", object_in(record.get("systemPayload"))
        if subtype == "ui_telemetry":
            yield from self._telemetry(object_in(payload.get("uiEvent")), key, ns)
        elif subtype == "rewind":
            yield from self._rewind(record, key, ns)
        elif subtype == "chat_compression":
            yield self._compaction(payload, key, ns)
        elif subtype == "custom_title":
            self.metadata["title"] = payload.get("customTitle")
        elif subtype == "agent_launch_prompt":
            self.goal = self.goal or payload.get("displayText")
        elif subtype in ("slash_command", "at_command", "agent_bootstrap"):
            kept = {name: value for name, value in payload.items() if name not in ("history", "outputHistoryItems")}
            event = {"name": subtype, "level": "info", "content": kept}
            yield self.moment(key, "event", self.time.at(ns), event)
        elif subtype != "attribution_snapshot":
            yield from self._unknown(record, key, ns, f"record of type system:{subtype[:40]}")

    def _compaction(self, payload: dict[str, Any], key: str, ns: int) -> Step:
        info = object_in(payload.get("info"))
        summary = next((text for each in list_in(payload.get("compressedHistory")) if (text := _said(each))), None)
        before, after = tokens_in(info.get("originalTokenCount")), tokens_in(info.get("newTokenCount"))
        result = {"tokens_after": after, "summary": summary}
        return self.moment(key, "compaction", self.time.at(ns), {"tokens_before": before}, result)

    def _rewind(self, record: dict[str, Any], key: str, ns: int) -> Iterator[Step | Unread]:
        steps, count = self.branch.cut({id_in(record.get("parentUuid")) or ""}, is_kept=True)
        for step in steps:
            self.open.pop(step.key, None)
        yield from self.rewound(key, {"to": record.get("parentUuid"), "records": count}, steps, ns)

    def _telemetry(self, event: dict[str, Any], key: str, ns: int) -> Iterator[Step | Unread]:
        name = (text_in(event.get("event.name")) or "").rpartition(".")[2]
        waited = tokens_in(event.get("duration_ms")) * MS
        if name == "api_response" and not event.get("subagent_name"):
            self.waited_ns = waited
        elif name in ("api_response", "api_error", "api_cancel"):
            yield from self._other_call(event, name, key, ns, waited)
        elif name == "tool_call":
            yield from self._tool_call(event, key, ns, waited)

    def _tool_call(self, event: dict[str, Any], key: str, ns: int, took: int) -> Iterator[Step]:
        """Note how long a tool ran; return the step of one that a sub-agent in the foreground called."""
        name, arguments = text_in(event.get("function_name")) or "?", event.get("function_args")
        _, is_below, rest = (text_in(event.get("prompt_id")) or "").partition("#")
        if not is_below:
            for id, call in self.open.items():
                if call.name == name and call.step.payload.get("arguments") == arguments:
                    self.took[id] = max(1, ns - took)
                    return
            return
        parent = yield from self._agent(rest.partition("#")[0].rpartition("-")[0], ns - took)
        kind, payload = call_of(name, arguments, None, _mcp_display(name))
        start = self.time.at(max(1, ns - took))
        status = text_in(event.get("status"))
        state: Any = {"error": "failed", "cancelled": "cancelled"}.get(status or "", "complete")
        result = {"is_error": True, "error": event.get("error")} if state == "failed" else None
        yield Step(self.id, key, parent, kind, start, max(start, ns), state, payload, result)

    def _other_call(self, event: dict[str, Any], name: str, key: str, ns: int, waited: int) -> Iterator[Step | Unread]:
        """Return the step of a model call that only telemetry tells of: one that failed, or of a sub-agent."""
        parent = None
        if agent := text_in(event.get("subagent_name")):
            parent = yield from self._agent(agent, ns - waited)
        payload: dict[str, Any] = {"model": text_in(event.get("model")) or "unknown"}
        start = self.time.at(max(1, ns - waited))
        if name == "api_response":
            get = event.get
            result: dict[str, Any] = tokens_of(
                get("input_token_count"), get("cached_content_token_count"), get("output_token_count"),
                get("thoughts_token_count"), 0, get("total_token_count"),
            )  # fmt: skip
            if text := text_in(event.get("response_text")):
                result = {"text": text, **result}
            state: Any = "complete"
        else:
            state = "failed" if name == "api_error" else "cancelled"
            error = {"type": event.get("error_type") or name, "message": event.get("error_message")}
            result = {"error": error}
            if status := tokens_in(event.get("status_code")):
                payload["status_code"] = status
            if not agent:
                self.outcome, self.error = ("error", error) if state == "failed" else ("interrupted", None)
        yield Step(self.id, key, parent, "llm", start, max(start, ns), state, payload, result)

    def _agent(self, name: str, ns: int) -> Generator[Step, None, str | None]:
        """Return the key of the agent in the foreground, whose step is yielded when it is first met."""
        calls = [call for call in self.open.values() if call.name in _AGENT_TOOLS]
        named = (call for call in calls if object_in(call.step.payload.get("arguments")).get("subagent_type") == name)
        call = next(named, calls[0] if calls else None)
        if call is None:
            return None
        above = call.step.key
        if above not in self.agents:
            arguments = object_in(call.step.payload.get("arguments"))
            goal = arguments.get("prompt") or arguments.get("description")
            payload = {"name": name, **({} if goal is None else {"goal": goal})}
            start = self.time.at(max(ns, call.step.start_ns))
            self.agents[above] = Step(self.id, f"{above}:agent", above, "agent", start, None, "active", payload)
            self.branch.add(call.record, [self.agents[above]], 0)
            yield self.agents[above]
        return f"{above}:agent"

    def rest(self) -> Iterator[Record]:
        """Return the session, and the steps that have not ended."""
        yield self.session()
        yield from (call.step for call in self.open.values())
        yield from self.agents.values()


_DECODERS: dict[str, Callable[[_Log, dict[str, Any], str, int], Iterator[Step | Unread]]] = {
    "user": _Log.user,
    "assistant": _Log.assistant,
    "tool_result": _Log.tool_result,
    "system": _Log.system,
}


def _usage(usage: dict[str, Any]) -> dict[str, int]:
    get = usage.get
    return tokens_of(
        get("promptTokenCount"), get("cachedContentTokenCount"), get("candidatesTokenCount"),
        get("thoughtsTokenCount"), get("toolUsePromptTokenCount"), get("totalTokenCount"),
    )  # fmt: skip


def _mcp_display(name: str) -> str | None:
    """Return the name for people of an MCP tool, whose name for the model is `mcp__SERVER__TOOL`."""
    _, begin, rest = name.partition("mcp__")
    server, _, tool = rest.partition("__")
    return f"{tool} ({server} MCP Server)" if begin and server and tool and name.startswith("mcp__") else None


def _said(content: Any) -> str:
    return text_of(parts_of(object_in(content).get("parts")))


class QwenDecoder(LineDecoder):
    """Decodes the records of a session and of its sub-agents in the background."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._logs: dict[Path, _Log] = {}
        self._shown: set[Path] = set()
        self._callers: dict[str, str] = {}

    def feed(self, file: Path, line: bytes) -> Iterable[Record]:
        """Decode one line."""
        log = self._logs.get(file)
        record = record_of(line, None if log is None else log.id)
        if record is None or isinstance(record, Unread):
            return () if record is None else [record]
        return self._records(self._opened(file, record) if log is None else log, file, record, len(line))

    def rest(self) -> Iterable[Record]:
        """Return the sessions, and the steps that have not ended."""
        for log in self._logs.values():
            self._attach(log)
            yield from log.rest()

    def _records(self, log: _Log, file: Path, record: dict[str, Any], size: int) -> list[Record]:
        found: list[Record] = [*log.take(record, size)]
        for each in found:
            if isinstance(each, Step):
                if log.first is None and log.parent is None:
                    log.first = each.key
                if each.payload.get("name") in _AGENT_TOOLS:
                    self._callers[each.key] = log.id
        if file not in self._shown and any(isinstance(each, Step) for each in found):
            self._shown.add(file)
            found.insert(0, log.session())
        return found

    def _opened(self, file: Path, record: dict[str, Any]) -> _Log:
        session = id_in(record.get("sessionId")) or plain_path(file).stem
        agent = id_in(record.get("agentId"))
        if agent is None or (file == self._source.path and not record.get("isSidechain")):
            log = _Log(session, None, None)
        else:
            name = id_in(record.get("agentName"))
            log = _Log(agent, (session, None), name)
            self._attach(log)
        log.started_ns = ns_of(record.get("timestamp")) or 0
        self._logs[file] = log
        return log

    def _attach(self, log: _Log) -> None:
        """Attach a sub-agent to the tool call that started it: its id is its name and that call's id."""
        if log.parent is not None and log.parent[1] is None:
            call = next((call for call in self._callers if log.id.endswith(f"-{call}")), None)
            if call is not None:
                log.parent = self._callers[call], call


def sources(path: Path) -> Iterator[Source]:
    """Yield the sources of this form in a folder, or of a file."""
    if path.is_dir():
        for file in walk(path, *ENDINGS):
            if file.parent.name == "chats" and is_session(file):
                yield _source(file)
    elif path.is_file() and is_session(path):
        yield _source(path)


def _source(file: Path) -> Source:
    folder = file.parent.parent / "subagents" / plain_path(file).stem
    parts = sorted((_begin(each).get("timestamp") or "", each) for each in walk(folder, *ENDINGS))
    return Source("qwen", file, tuple(each for _, each in parts), text_in(_begin(file).get("cwd")))


def _begin(file: Path) -> dict[str, Any]:
    """Return the first record of a file as far as its beginning says; an empty one if it is no JSON."""
    line, _, _ = head_of(file).partition(b"\n")
    return object_in(parsed(line))


def is_session(file: Path) -> bool:
    """Return whether a file has records of this form. Those of Claude Code, which look alike, have no `parts`."""
    if file.suffix in (".gz", ".zst"):
        return file.parent.name == "chats" and not file.name.startswith("session-")
    for line in head_of(file).splitlines()[:20]:
        record = object_in(parsed(line))
        if "uuid" not in record or text_in(record.get("type")) not in _KINDS:
            continue
        if "parts" in object_in(record.get("message")) or "systemPayload" in record:
            return True
    return False
