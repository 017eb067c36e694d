"""Decodes the sessions of OpenCode and of programs that share its database, such as Kilo.

A message of the assistant holds one or more model calls: `step-start` and `step-finish` parts delimit them. A call ends
with its last text, or when its last tool call arrived; the tools run after that. A call that another attempt follows is
a failed one (`retry`). Tokens of the input exclude those of the cache in the file, and those of the output exclude
reasoning: both are added.

A fork is a session with copies of all messages, under new ids and with the times of the originals, which are before the
fork's own start. Copies whose original is found are left out, and the session's conversation is the original's.

Left out on purpose: `snapshot` (a hash of the files), a tool's texts for display, the headers of failed requests, and
the address where a session is shared.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from agentspan.arriving import (
    Outcome,
    Record,
    Session,
    Status,
    Step,
    Unread,
    as_asked,
    id_in,
    list_in,
    object_in,
    part_of,
    task_of,
    text_in,
    tokens_in,
    unknown,
)
from agentspan.sessions.formats import About, Format, Source, home, walk
from agentspan.sessions.opencode_files import (
    DatabaseStore,
    Row,
    Store,
    TreeStore,
    files_of,
    is_database,
    position,
    storage_of,
)
from agentspan.sessions.reading import Unreadable
from agentspan.sessions.timeline import MS, Timeline, ms_ns

_DATABASE = re.compile(r"opencode(?:-[\w.-]+)?\.db")
_PRODUCTS = ("kilo", "mimocode", "zcode")
"""Other programs that write this format, by the names of their files or folders."""
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,")
_LIMITS = frozenset({"MessageOutputLengthError", "ContextOverflowError"})
_ABORTED = "MessageAbortedError"
_FAR_NS = 2**63
_SILENT = frozenset({"step-start", "step-finish", "snapshot", "text", "reasoning"})


class _Call:
    """One model call of a message: its key, and its parts."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.parts: list[Row] = []
        self.finish: dict[str, Any] | None = None
        self.finish_ns: int | None = None


class _Log:
    """Decodes one session.

    Args:
        row: the fields of the session.
        above: the id of the session that started this one, and the key of the step there.
    """

    def __init__(self, store: Store, row: dict[str, Any], agent: str, above: tuple[str, str | None] | None) -> None:
        self.store, self.row, self.agent, self.above = store, row, agent, above
        self.id: str = row["id"]
        self.started_ns = ms_ns(row.get("time_created")) or 1
        self.ended_ns = self.last_ns = self.started_ns
        self.time = Timeline()
        self.models: dict[str, None] = {}
        self.parts: dict[str, str] = {}
        self.originals: list[str] = []
        self.copies = 0
        self.task: str | None = None
        self.goal: str | None = None
        self.answer: str | None = None
        self.cwd: str | None = None
        self.outcome: Outcome | None = None
        self.error: dict[str, Any] | None = None
        self.compaction: tuple[str, Step] | None = None
        self.tokens = 0
        self.busy_until_ns = 0

    def session(self) -> Session:
        """Return the session as far as it is known."""
        get = self.row.get
        permissions = get("permission")
        fingerprint = {
            "model": next(iter(self.models), None),
            "cli_version": text_in(get("version")),
            "agent": text_in(get("agent")),
            "permission_mode": part_of(permissions) if permissions else None,
            **self.parts,
        }
        return Session(
            self.id, self.agent, self.started_ns, id_in(get("version")), ended_ns=self.ended_ns,
            outcome=self.outcome, output=self.answer, error=self.error, task=self.task,
            conversation=self.originals[0] if self.originals else None, parent=self.above,
            name=(text_in(get("agent")) or "subagent") if self.above else None, goal=self.goal if self.above else None,
            fingerprint={name: value for name, value in fingerprint.items() if value}, metadata=self._metadata(),
        )  # fmt: skip

    def _metadata(self) -> dict[str, Any]:
        get = self.row.get
        found = {
            "cwd": text_in(get("directory")) or self.cwd,
            "title": text_in(get("title")),
            "project": text_in(get("worktree")),
            "agent": text_in(get("agent")),
            "revert": get("revert"),
            "archived_at": tokens_in(get("time_archived")),
            "lines_added": tokens_in(get("summary_additions")),
            "lines_deleted": tokens_in(get("summary_deletions")),
            "files_changed": tokens_in(get("summary_files")),
            "copied_messages": self.copies,
            "models": [*self.models],
        }
        return {name: value for name, value in found.items() if value}

    def records(self) -> Iterator[Step | Unread]:
        """Yield the steps of all messages."""
        waiting: list[Row] = []
        for message in self.store.messages(self.id):
            if message.data is None:
                yield Unread(self.id, "a message that is no JSON")
            elif not self._is_copy(message):
                if message.data.get("role") == "assistant":
                    yield from self._messages(waiting, is_last=False)
                    waiting = []
                waiting.append(message)
        yield from self._messages(waiting, is_last=True)
        if self.compaction is not None:
            yield self.compaction[1]

    def _messages(self, messages: list[Row], *, is_last: bool) -> Iterator[Step | Unread]:
        """Yield the steps of messages; `is_last` if no answer follows them, so that theirs may go on."""
        for message in messages:
            yield from self._message(message, is_last=is_last)

    def _is_copy(self, message: Row) -> bool:
        """Return whether a message is a fork's copy of one that another session has."""
        created = message.created_ns
        if self.above is not None or created is None or created >= self.started_ns:
            return False
        if not self._has_original(_identity(message.data or {}), created // MS):
            return False
        self.copies += 1
        return True

    def _has_original(self, wanted: tuple[Any, ...], created_ms: int) -> bool:
        """Return whether another session has the original of a message; those that had one before are tried first."""
        for owner in self.originals:
            if any(_identity(other.data or {}) == wanted for other in self.store.at(owner, created_ms)):
                return True
        for owner, other in self.store.same_time(created_ms, self.id, self.started_ns // MS):
            if _identity(other.data or {}) == wanted:
                self.originals.append(owner)
                return True
        return False

    def _message(self, message: Row, *, is_last: bool) -> Iterator[Step | Unread]:
        data, parts = message.data or {}, []
        for part in self.store.parts(message.id):
            if part.data is None:
                yield Unread(self.id, "a part that is no JSON")
            else:
                parts.append(part)
        created = message.created_ns or self.last_ns
        self.ended_ns = max(self.ended_ns, created)
        role = text_in(data.get("role"))
        if role == "user":
            yield from self._user(message, data, parts, created)
        elif role == "assistant":
            yield from self._assistant(message, _MessageState(data, is_last=is_last), parts, created)
        else:
            yield unknown(self.id, message.id, None, "message", self.time.at(created), data)
            yield Unread(self.id, f"message of role {(id_in(role) or '?')[:40]}")

    def _user(self, message: Row, data: dict[str, Any], parts: list[Row], created: int) -> Iterator[Step | Unread]:
        for name, field in (("system_prompt", "system"), ("tools", "tools")):
            if value := data.get(field):
                self.parts[name] = part_of(value)
        compactions = [part for part in parts if (part.data or {}).get("type") == "compaction"]
        for part in compactions:
            yield from self._other(part, created, message.id)
        shown = [part.data or {} for part in parts if part not in compactions]
        typed = "\n\n".join(text for each in shown if not each.get("synthetic") and (text := text_in(each.get("text"))))
        if compactions and not shown:
            return
        content = [_block(each) for each in shown]
        payload: dict[str, Any] = {"role": "user", "content": content}
        if len(shown) == 1 and typed:
            payload["content"] = typed
        elif shown and all(each.get("synthetic") for each in shown):
            payload |= {"role": "system", "kind": "synthetic"}
        if created < self.busy_until_ns:
            payload["steering"] = True
        self.task, self.goal = self.task or task_of(typed) or None, self.goal or typed or None
        self.outcome, self.error = None, None
        start = self.time.at(created)
        self.last_ns = max(self.last_ns, created)
        yield Step(self.id, message.id, None, "message", start, start, "complete", payload)

    def _assistant(
        self, message: Row, state: "_MessageState", parts: list[Row], created: int
    ) -> Iterator[Step | Unread]:
        data = state.data
        model = text_in(data.get("modelID")) or text_in(object_in(data.get("model")).get("modelID"))
        provider = text_in(data.get("providerID")) or text_in(object_in(data.get("model")).get("providerID"))
        self.models[f"{provider}/{model}" if provider and model else model or "unknown"] = None
        self.cwd = self.cwd or text_in(object_in(data.get("path")).get("cwd"))
        payload = {"model": model or "unknown", "provider": provider}
        payload |= {name: data[name] for name in ("agent", "mode", "variant") if text_in(data.get(name))}
        payload = {name: value for name, value in payload.items() if value is not None}
        calls = _calls(message.id, parts)
        for call in calls:
            is_last = call is calls[-1]
            yield from self._call(call, payload, created, state, is_last=is_last, is_only=len(calls) == 1)
            created = self.last_ns
        if state.error is not None and calls[-1].finish is not None:
            start = self.time.at(state.completed_ns or self.last_ns)
            event = {"name": state.error["type"], "level": "error", "content": state.error}
            yield Step(self.id, f"{message.id}:error", None, "event", start, start, "failed", event)
        self.ended_ns = max(self.ended_ns, self.last_ns, state.completed_ns or 0)
        self.busy_until_ns = _FAR_NS if state.is_open else state.completed_ns or 0
        self._conclude(data, state, calls[-1])
        yield from self._summary(message, data, state)

    def _conclude(self, data: dict[str, Any], state: "_MessageState", call: _Call) -> None:
        """Note the outcome of the session after a message."""
        finish = text_in(data.get("finish")) or text_in((call.finish or {}).get("reason"))
        self.error = None
        if state.error is not None:
            kind = state.error["type"]
            self.outcome = "interrupted" if kind == _ABORTED else "limit" if kind in _LIMITS else "error"
            self.error = state.error if self.outcome == "error" else None
        elif finish == "length":
            self.outcome = "limit"
        else:
            is_open = finish in (None, "tool-calls", "unknown") and not (finish is None and state.completed_ns)
            self.outcome = None if is_open else "answered"

    def _summary(self, message: Row, data: dict[str, Any], state: "_MessageState") -> Iterator[Step]:
        """End a compaction with the answer that summarises."""
        if self.compaction is None or data.get("summary") is not True or data.get("parentID") != self.compaction[0]:
            return
        step, self.compaction = self.compaction[1], None
        end = state.completed_ns
        if end is None:
            yield step
            return
        result = {"summary": self.answer}
        yield step._replace(end_ns=max(step.start_ns, end), status="complete", result=result)

    def _call(
        self, call: _Call, payload: dict[str, Any], began: int, state: "_MessageState", *, is_last: bool, is_only: bool
    ) -> Iterator[Step | Unread]:
        start = self.time.at(began)
        steps = [each for part in call.parts for each in self._other(part, began, call.key, state, payload)]
        result = self._result(call, state if is_only else None)
        status: Status = "complete"
        if call.finish is None and is_last:
            status = state.status_of(has_result=bool(result))
            if state.error is not None:
                result["error"] = state.error
        answered = _end_of(call) or (state.completed_ns if is_last else None)
        end = None if status == "active" else max(start, answered or start)
        ends = [step.end_ns for step in steps if isinstance(step, Step) and step.end_ns is not None]
        self.last_ns = max(self.last_ns, began, answered or 0, call.finish_ns or 0, *ends)
        yield Step(self.id, call.key, None, "llm", start, end, status, payload, result or None)
        yield from steps

    def _result(self, call: _Call, state: "_MessageState | None") -> dict[str, Any]:
        """Return the result of a call; `state` if the message has no other, so that its tokens are the call's."""
        found = [part.data or {} for part in call.parts]
        texts = [text for each in found if each.get("type") == "text" and (text := text_in(each.get("text")))]
        thoughts = [text for each in found if each.get("type") == "reasoning" and (text := text_in(each.get("text")))]
        tools = [
            {"id": get("callID"), "name": get("tool"), "arguments": as_asked(object_in(get("state")).get("input"))}
            for get in (each.get for each in found if each.get("type") == "tool")
        ]
        result: dict[str, Any] = {}
        if texts:
            result["text"] = self.answer = "\n\n".join(texts)
        if thoughts:
            result["thinking"] = "\n\n".join(thoughts)
        if tools:
            result["tool_calls"] = tools
        finish = call.finish or {}
        reason = text_in(finish.get("reason")) or (None if state is None else text_in(state.data.get("finish")))
        if reason:
            result["finish_reason"] = reason
        told = finish if "tokens" in finish or state is None else state.data
        tokens = _tokens(object_in(told.get("tokens")))
        if any(tokens.values()):
            self.tokens = tokens["input_tokens"] + tokens["output_tokens"]
            result |= tokens
            cost: Any = told.get("cost")
            if type(cost) in (int, float) and 0 <= cost < 1e9:
                result["stated_cost_usd"] = cost
        return result

    def _other(
        self,
        part: Row,
        began: int,
        call: str,
        state: "_MessageState | None" = None,
        payload: dict[str, Any] | None = None,
    ) -> Iterator[Step | Unread]:
        """Yield the steps of a part that is no text of a model call.

        Args:
            call: the key of the model call, or the id of the message.
        """
        data = part.data or {}
        kind = id_in(data.get("type")) or "?"
        ns = part.created_ns or ms_ns(object_in(data.get("time")).get("start")) or began
        if kind == "tool":
            yield self._tool(part, data, ns, state)
        elif kind == "retry":
            yield self._retry(part, data, ns, payload or {})
        elif kind == "compaction":
            step = self._compacted(part, data, began)
            if state is None:
                self.compaction = call, step
            else:
                yield step._replace(end_ns=step.start_ns, status="complete")
        elif kind in ("patch", "file", "subtask", "agent"):
            start = self.time.at(ns)
            event = {"name": kind, "level": "info", "content": _block(data)}
            yield Step(self.id, part.id, None, "event", start, start, "complete", event)
        elif kind not in _SILENT:
            yield unknown(self.id, part.id, None, kind, self.time.at(ns), data)
            yield Unread(self.id, f"part of type {kind[:40]}")

    def _compacted(self, part: Row, data: dict[str, Any], ns: int) -> Step:
        payload: dict[str, Any] = {"trigger": "auto" if data.get("auto") else "manual"}
        if data.get("overflow"):
            payload["overflow"] = True
        if self.tokens:
            payload["tokens_before"] = self.tokens
        return Step(self.id, part.id, None, "compaction", self.time.at(ns), None, "active", payload)

    def _retry(self, part: Row, data: dict[str, Any], ns: int, payload: dict[str, Any]) -> Step:
        at = ms_ns(object_in(data.get("time")).get("created")) or ns
        start = self.time.at(at)
        asked = {**payload, "attempt": tokens_in(data.get("attempt"))}
        result = {"error": _error(object_in(data.get("error")))}
        return Step(self.id, part.id, None, "llm", start, start, "failed", asked, result)

    def _tool(self, part: Row, data: dict[str, Any], ns: int, state: "_MessageState | None") -> Step:
        told = object_in(data.get("state"))
        times = object_in(told.get("time"))
        name, status = text_in(data.get("tool")) or "?", text_in(told.get("status"))
        payload: dict[str, Any] = {"name": name, "arguments": told.get("input"), "call_id": data.get("callID")}
        if name == "skill" and (skill := text_in(object_in(told.get("input")).get("name"))):
            payload["skill"] = skill
        began = ms_ns(times.get("start")) or ns
        start, end = self.time.at(began), ms_ns(times.get("end")) or began
        step = Step(self.id, part.id, None, "tool", start, max(start, end), "complete", payload)
        result = _tool_result(told)
        if status == "error":
            is_aborted = (text_in(told.get("error")) or "").lower().startswith("tool execution aborted")
            return step._replace(status="cancelled" if is_aborted else "failed", result={**result, "is_error": True})
        if status == "completed":
            return step._replace(result=result)
        if state is not None and not state.is_open:
            return step._replace(end_ns=max(start, state.completed_ns or start), status="cancelled")
        return step._replace(end_ns=None, status="active")


class _MessageState:
    """The end of a message: its error, when it was completed, and whether it may go on."""

    def __init__(self, data: dict[str, Any], *, is_last: bool) -> None:
        self.data = data
        self.completed_ns = ms_ns(object_in(data.get("time")).get("completed"))
        self.error = _error(data["error"]) if type(data.get("error")) is dict else None
        self.is_open = is_last and self.completed_ns is None and self.error is None

    def status_of(self, *, has_result: bool) -> Status:
        """Return the status of the last model call, which has no end of its own."""
        if self.error is not None:
            return "cancelled" if self.error["type"] == _ABORTED else "failed"
        if self.is_open:
            return "active"
        was_killed = self.completed_ns is None and not has_result
        return "cancelled" if was_killed else "complete"


def _calls(message: str, parts: list[Row]) -> list[_Call]:
    """Return the model calls of a message. The first one has the message's id as its key: it may have no parts yet."""
    calls = [_Call(message)]
    is_begun = False
    is_delimited = any((part.data or {}).get("type") == "step-start" for part in parts)
    for part in parts:
        data = part.data or {}
        kind = data.get("type")
        if kind == "step-start":
            if is_begun:
                calls.append(_Call(part.id))
            is_begun = True
        elif kind == "step-finish" and (is_begun or not is_delimited):
            calls[-1].finish, calls[-1].finish_ns = data, part.created_ns
        calls[-1].parts.append(part)
    return calls


def _end_of(call: _Call) -> int | None:
    """Return when the model's answer was there: its last text, or its last tool call; None if that is not known."""
    ends = []
    has_tools = False
    for part in call.parts:
        data = part.data or {}
        kind = data.get("type")
        if kind in ("text", "reasoning"):
            ends.append(ms_ns(object_in(data.get("time")).get("end")))
        elif kind == "tool":
            has_tools = True
            ends.append(part.created_ns or ms_ns(object_in(object_in(data.get("state")).get("time")).get("start")))
    if not has_tools:
        ends.append(call.finish_ns)
    return max((end for end in ends if end is not None), default=None)


def _tokens(tokens: dict[str, Any]) -> dict[str, int]:
    cache = object_in(tokens.get("cache"))
    read, write = tokens_in(cache.get("read")), tokens_in(cache.get("write"))
    reasoning = tokens_in(tokens.get("reasoning"))
    return {
        "input_tokens": tokens_in(tokens.get("input")) + read + write,
        "cached_tokens": read,
        "cache_write_tokens": write,
        "output_tokens": tokens_in(tokens.get("output")) + reasoning,
        "reasoning_tokens": reasoning,
    }


def _tool_result(state: dict[str, Any]) -> dict[str, Any]:
    output = state.get("error") if state.get("output") is None else state["output"]
    result: dict[str, Any] = {"output": output}
    metadata = object_in(state.get("metadata"))
    exit_code = metadata.get("exit")
    if type(exit_code) is int:
        result["exit_code"] = exit_code
    structured = {name: value for name, value in metadata.items() if value != output and name != "preview"}
    if structured:
        result["structured"] = structured
    if attachments := [_block(object_in(each)) for each in list_in(state.get("attachments"))]:
        result["attachments"] = attachments
    return result


def _error(error: dict[str, Any]) -> dict[str, Any]:
    """Return an error of a message as an object with `type` and `message`."""
    data = object_in(error.get("data"))
    found: dict[str, Any] = {
        "type": text_in(error.get("name")) or "error",
        "message": text_in(data.get("message")) or text_in(error.get("message")),
    }
    for name, field in (("status_code", "statusCode"), ("is_retryable", "isRetryable"), ("body", "responseBody")):
        if data.get(field) is not None:
            found[name] = data[field]
    return found


def _block(part: dict[str, Any]) -> dict[str, Any]:
    """Return a part as a block of content."""
    url = text_in(part.get("url"))
    if part.get("type") == "file" and url and (found := _DATA.match(url)):
        kind = "image" if found[1].startswith("image/") else "document"
        source = {"type": "base64", "media_type": found[1], "data": url[found.end() :]}
        name = {"filename": part["filename"]} if text_in(part.get("filename")) else {}
        return {"type": kind, "source": source, **name}
    return {name: value for name, value in part.items() if name not in ("id", "sessionID", "messageID")}


def _identity(data: dict[str, Any]) -> tuple[Any, ...]:
    """Return a value that is equal for a message and for its copy in a fork."""
    return tuple(data.get(name) for name in ("role", "time", "agent", "modelID", "providerID", "tokens", "cost"))


class _Reading:
    """Decodes the sessions of a store, those that start others before these."""

    def __init__(self, store: Store, agent: str, changed: set[str]) -> None:
        self._agent, self._changed = agent, changed
        self._rows = {row["id"]: (row, store) for row in store.sessions()}
        self._first = store
        self._seen: set[str] = set()
        self._spawned: dict[str, dict[str, str]] = {}

    def records(self) -> Iterator[Record]:
        """Yield the records of the changed sessions, and the Session of each one above them."""
        for id in [id for id in self._rows if id in self._changed]:
            for each in self._line(id):
                yield from self._session(each)

    def _line(self, id: str) -> list[str]:
        """Return a session and those above it that have not been decoded, the highest first."""
        line: list[str] = []
        above: str | None = id
        while above is not None and above not in self._seen and above not in line and self._has(above):
            line.append(above)
            above = text_in(self._rows[above][0].get("parent_id"))
        return line[::-1]

    def _has(self, id: str) -> bool:
        if id not in self._rows and (store := self._first.above(id)) is not None:
            self._rows |= {row["id"]: (row, store) for row in store.sessions()}
        return id in self._rows

    def _session(self, id: str) -> Iterator[Record]:
        self._seen.add(id)
        row, store = self._rows[id]
        log = _Log(store, row, self._agent, self._above(id, text_in(row.get("parent_id"))))
        yield log.session()
        for record in log.records():
            if id in self._changed:
                yield record
        yield log.session()

    def _above(self, id: str, parent: str | None) -> tuple[str, str | None] | None:
        if parent is None or parent == id or not self._has(parent) or parent not in self._seen:
            return None
        if parent not in self._spawned:
            self._spawned[parent] = self._rows[parent][1].spawned(parent)
        return parent, self._spawned[parent].get(id)


def sessions_of(path: Path) -> list[About]:
    """Return the sessions of a file without decoding them, but for sub-agents; none if it cannot be read now."""
    try:
        store: DatabaseStore | TreeStore = TreeStore(path) if path.suffix == ".json" else DatabaseStore(path)
        with closing(store):
            return [_about(row) for row in store.sessions() if text_in(row.get("parent_id")) is None]
    except (sqlite3.Error, Unreadable):
        return []


def _about(row: Mapping[str, Any]) -> About:
    started_ns = ms_ns(row.get("time_created")) or 1
    return About(text_in(row.get("directory")), started_ns, ms_ns(row.get("time_updated")) or started_ns)


def decode(path: Path, after: str | None) -> Iterator[Record]:
    """Decode a database, or the file of a session in the older tree.

    Args:
        after: the position at the last reading: sessions that have not changed since are left out.
    """
    store: DatabaseStore | TreeStore = TreeStore(path) if path.suffix == ".json" else DatabaseStore(path)
    with closing(store):
        yield from _Reading(store, _agent_of(path), store.changed(after)).records()


def _agent_of(path: Path) -> str:
    """Return the name of the product that wrote a file, from its name and its folder's."""
    names = f"{path.stem}/{path.parent.name}".lower()
    return next((product for product in _PRODUCTS if product in names), "opencode")


def _position(path: Path) -> str:
    return "" if path.suffix == ".json" else position(path)


def _sources(path: Path) -> Iterator[Source]:
    for file in walk(path, ".db", ".json") if path.is_dir() else filter(Path.is_file, [path]):
        if file.suffix == ".json":
            if _is_info(file):
                yield _tree(file)
        elif (file == path or _DATABASE.fullmatch(file.name)) and is_database(file):
            yield _database(file)


_GROWING = 2
"""The last messages of a session in the older tree whose parts are looked at for changes."""


def _database(path: Path) -> Source:
    return Source("opencode", path, (Path(f"{path}-wal"),))


def _is_info(file: Path) -> bool:
    """Return whether a file is that of a session in the older tree."""
    return file.parent.parent.name == "session" and (storage_of(file) / "message").is_dir()


def _tree(file: Path) -> Source:
    """Return the source of a session: its messages, and of the last ones the parts, which still come and change."""
    storage = storage_of(file)
    messages = files_of(storage / "message", file.stem)
    parts = [part for message in messages[-_GROWING:] for part in files_of(storage / "part", message.stem)]
    return Source("opencode", file, (*messages, *parts))


def _roots(environment: Mapping[str, str]) -> list[Path]:
    base = environment.get("XDG_DATA_HOME")
    data = (Path(base) if base else home(environment) / ".local" / "share") / "opencode"
    own = environment.get("OPENCODE_DB")
    file = data / own if own and own != ":memory:" else None
    return [data] if file is None or (file.parent == data and _DATABASE.fullmatch(file.name)) else [file, data]


FORMATS: list[Format] = [
    Format("opencode", "OpenCode", _roots, _sources, decode=decode, position=_position, about=sessions_of, version=2)
]
