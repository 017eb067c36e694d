"""Decodes the records of a Codex rollout into the steps of its thread.

The response items are what the model read and wrote; most events repeat them, and add what only the program knows: exit
codes, server answers, changed files. A step is made once, from both. The forms that the product has written over time
(bare items, envelopes, completed items) are decoded alike.

Left out on purpose, because it is a copy or bookkeeping: the copied begin of a fork, the encrypted text of reasoning,
snapshots of the prompt's parts (`world_state`: the messages hold the texts), rate limits, times of turns, state lines
of the first form, later copies of the header, and texts of instructions that this file has had already.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from agentspan.sessions import codex_records as values
from agentspan.sessions.codex_records import count_in, known, list_in, object_in, text_in, texts_of, without
from agentspan.sessions.codex_thread import USERS_OWN, Thread, spawn_key
from agentspan.sessions.formats import LineDecoder
from agentspan.sessions.records import Record, Session, Step, Unread, unknown

TICK_NS = 2_000
"""Records of the same millisecond are this far apart, so that runs keep their order. A model call fits in between."""
MOST_ENDED = 32
"""The most commands that go on in the background whose end is waited for."""
COPIED_NS = 2_000_000_000
"""The time within which the copied begin of a fork is written, for versions whose turns have no timed ids."""


class _Answer:
    """One answer of the model: the response items between two counts of tokens."""

    __slots__ = ("calls", "end", "is_over", "key", "mirrored", "phase", "start", "texts", "thoughts")

    def __init__(self, key: str, start: int) -> None:
        self.key, self.start, self.end = key, start, start
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[dict[str, Any]] = []
        self.mirrored: list[tuple[str, str]] = []
        self.phase: str | None = None
        self.is_over = False

    def mirror(self, kind: str, text: str) -> None:
        """Note a text that an event repeats, before or after its item."""
        if text not in (self.thoughts if kind == "thought" else self.texts):
            self.mirrored.append((kind, text))

    def add(self, kind: str, text: str) -> None:
        """Add the text of an item."""
        if (kind, text) in self.mirrored:
            self.mirrored.remove((kind, text))
        (self.thoughts if kind == "thought" else self.texts).append(text)

    def result(self) -> dict[str, Any]:
        """Return the texts and calls. A text that only an event has is one of the answer's."""
        texts = self.texts + [text for kind, text in self.mirrored if kind == "text"]
        thoughts = self.thoughts + [text for kind, text in self.mirrored if kind == "thought"]
        found: dict[str, Any] = {}
        if texts:
            found["text"] = "\n\n".join(texts)
        if thoughts:
            found["thinking"] = "\n\n".join(thoughts)
        if self.calls:
            found["tool_calls"] = self.calls
        return found if self.phase is None else {**found, "phase": self.phase}


class _Call:
    """A tool call that has not ended."""

    __slots__ = ("child", "ended", "ended_ns", "id", "is_spawn", "key", "payload", "server", "start", "type")

    def __init__(self, id: str, key: str, name: str, arguments: Any, start: int) -> None:
        self.id, self.key, self.start = id, key, start
        self.type = "tool"
        self.payload: dict[str, Any] = {"name": name, "arguments": arguments, "call_id": id}
        self.server: dict[str, Any] | None = None
        self.ended: tuple[dict[str, Any], list[str]] | None = None
        self.ended_ns: int | None = None
        self.is_spawn = name == "spawn_agent"
        self.child: str | None = None

    def serve(self, server: str, tool: str, arguments: Any) -> None:
        """Make the call one of an MCP server."""
        self.type = "mcp"
        call = {"method": "tools/call", "server": server, "target": tool, "arguments": arguments}
        self.payload = {**call, "call_id": self.id}

    def end(self, event: dict[str, Any], time: int) -> None:
        """Note the end event of the call."""
        self.ended, self.ended_ns = values.ended_of(event), time

    def result(self, output: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result, from the recorded output and the end event."""
        if self.type == "mcp":
            answer = {("result" if name == "output" else name): value for name, value in output.items()}
            output = answer if self.server is None else {**without(output, "output"), **self.server}
        if self.ended is not None:
            output = values.merged(output, self.ended)
        return output or None

    def step(self, session: str, end: int | None, status: Any, output: dict[str, Any]) -> Step:
        """Return the step of the call."""
        key = self.key if self.child is None else spawn_key(self.child)
        return Step(session, key, None, self.type, self.start, end, status, self.payload, self.result(output))


class CodexDecoder(LineDecoder):
    """Decodes one rollout, line by line. Keeps open calls and the open answer, and the last texts of an answer.

    Args:
        id: the thread's id as the file's name has it; the header's id goes before it.
    """

    def __init__(self, id: str) -> None:
        self._thread = Thread(id)
        self._out: list[Record] = []
        self._line = 0
        self._second = ""
        self._second_ns = 0
        self._stamp = -1
        self._time = 0
        self._boundary: int | None = None
        self._copied: int | None = None
        self._has_turn_ids = False
        self._has_user_events = False
        self._counts_records = False
        self._is_flat = False
        self._pending: tuple[str, int, dict[str, Any]] | None = None
        self._prompted: str | None = None
        self._prompts = 0
        self._answer: _Answer | None = None
        self._said: tuple[list[str], list[str]] = [], []
        self._calls: dict[str, _Call] = {}
        self._ended: OrderedDict[str, tuple[_Call, Step]] = OrderedDict()
        self._used: set[str] = set()
        self._search: str | None = None
        self._noted: set[str] = set()
        self._total: Any = None
        self._context: int | None = None
        self._compaction: Step | None = None
        self._unconfirmed = 0
        self._last_error: str | None = None

    def feed(self, file: Path, line: bytes) -> Iterable[Record]:
        self._out = out = []
        self._line += 1
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return [Unread(self._thread.id if self._thread.is_begun else None, "a line that is no JSON")]
        if type(record) is not dict:
            return [Unread(self._thread.id if self._thread.is_begun else None, "a record that is no object")]
        self._record(record)
        return out

    def rest(self) -> Iterator[Record]:
        thread = self._thread
        if not thread.is_begun:
            return
        yield self._session()
        if self._pending is not None:
            yield self._prompt_step(*self._pending[:2], self._pending[2]["content"])
        if self._answer is not None:
            yield self._answer_step(self._answer, {}, "complete")
        for call in self._calls.values():
            if not call.is_spawn or call.child is not None:
                yield call.step(thread.id, None, "active", {})

    def _session(self) -> Session:
        """Return the session as it is now. The first form does not say that a turn has ended: its last answer does."""
        session, answer = self._thread.session(), self._answer
        if not self._is_flat or answer is None or answer.calls or not answer.texts:
            return session
        return session._replace(
            outcome="answered", output=answer.result()["text"], ended_ns=max(session.ended_ns or 0, answer.end)
        )

    def _record(self, record: dict[str, Any]) -> None:
        kind, payload = record.get("type"), record.get("payload")
        if type(payload) is not dict:
            kind, payload = self._of_flat(record, kind)
            if payload is None:
                return
        time = self._time_of(record.get("timestamp"))
        if not self._thread.is_begun:
            self._begin(kind, payload)
            if kind == "session_meta":
                return
        if self._copied is not None and self._is_copied(kind, payload, time):
            return
        if self._pending is not None and not (kind == "event_msg" and payload.get("type") in _OF_USER):
            self._settle_pending()
        handler = _RECORDS.get(kind) if type(kind) is str else None
        if handler is None:
            self._unknown(kind, record, time)
        else:
            handler(self, payload, time)

    def _of_flat(self, record: dict[str, Any], kind: Any) -> tuple[Any, dict[str, Any] | None]:
        """Return the kind and the payload of a record of the first form, which has no envelope."""
        if "payload" in record:
            return kind, {"payload": record["payload"]}
        if "record_type" in record:
            return None, None
        self._is_flat = True
        if kind is None and "id" in record:
            return "session_meta", record
        return ("response_item" if kind not in _RECORDS else kind) if type(kind) is str else kind, record

    def _time_of(self, text: Any) -> int:
        """Return the time of a record: the source's, and a tick more for each record of the same time before it."""
        if type(text) is str and len(text) == 24 and text[:19] == self._second and text[20:23].isdecimal():
            stamp = self._second_ns + int(text[20:23]) * 1_000_000
        else:
            found = values.ns_of_text(text)
            if found is None:
                found = self._stamp if self._stamp >= 0 else self._thread.started_ns
            elif len(text) == 24 and text[19] == "." and text[23] == "Z":
                self._second, self._second_ns = text[:19], found - found % 1_000_000_000
            stamp = found
        self._time = self._time + TICK_NS if stamp == self._stamp else stamp
        self._stamp = stamp
        return self._time

    def _begin(self, kind: Any, payload: dict[str, Any]) -> None:
        thread = self._thread
        is_header = kind == "session_meta"
        thread.begin(payload if is_header else {}, self._stamp if self._stamp > 0 else None)
        if self._stamp <= 0:
            self._stamp = self._time = thread.started_ns
        if is_header and thread.copies_history:
            self._copied = self._stamp
        self._out.append(thread.session())
        base = object_in(payload.get("base_instructions"))
        if is_header:
            self._note("base_instructions", text_in(base.get("text")))
            self._note("instructions", text_in(payload.get("instructions")))
            self._note("dynamic_tools", list_in(payload.get("dynamic_tools")) or None)
        self._thread.ended_ns = max(self._thread.ended_ns, self._time)

    # The copied begin of a fork.

    def _is_copied(self, kind: Any, payload: dict[str, Any], time: int) -> bool:
        """Return whether a record is one of the thread that this one was forked from.

        The copies have the time of the fork. The fork's own records begin with the first turn whose id is not older
        than the thread. Versions whose turns have no such ids are told by a pause after the copies.
        """
        if kind == "event_msg" and payload.get("type") in ("task_started", "turn_started"):
            self._has_turn_ids = self._has_turn_ids or values.is_later_id(payload.get("turn_id"), "")
            if values.is_later_id(payload.get("turn_id"), self._thread.id):
                self._copied = None
                return False
        if not self._has_turn_ids and time - (self._copied or 0) > COPIED_NS:
            self._copied = None
            return False
        self._learn(kind, payload)
        return True

    def _learn(self, kind: Any, payload: dict[str, Any]) -> None:
        """Take from a copied record what later records need: the total of tokens, settings, instructions."""
        if kind == "session_meta" and (id := text_in(payload.get("id"))) not in (None, self._thread.id):
            self._thread.root = id
        elif kind == "turn_context":
            self._thread.settle(payload)
        elif kind == "event_msg" and payload.get("type") == "token_count":
            self._total = object_in(payload.get("info")).get("total_token_usage", self._total)
        elif kind == "response_item" and payload.get("role") == "user":
            for text in texts_of(payload.get("content")):
                if values.mark_of(text) in USERS_OWN:
                    self._thread.instruct(text)

    # Headers and settings.

    def _header(self, payload: dict[str, Any], time: int) -> None:
        if self._line == 2 and text_in(payload.get("id")) not in (None, self._thread.id):
            self._copied = time
            self._learn("session_meta", payload)

    def _settings(self, payload: dict[str, Any], time: int) -> None:
        self._thread.settle(payload)
        own = text_in(payload.get("user_instructions"))
        self._thread.instruct(own)
        self._note("user_instructions", own)
        self._note("developer_instructions", text_in(payload.get("developer_instructions")))

    def _applied(self, payload: dict[str, Any], time: int) -> None:
        self._thread.settle(object_in(payload.get("thread_settings")))

    def _renamed(self, payload: dict[str, Any], time: int) -> None:
        self._thread.title = text_in(payload.get("thread_name")) or self._thread.title

    def _nothing(self, payload: dict[str, Any], time: int) -> None:
        """Leave out bookkeeping."""

    def _note(self, name: str, content: Any, role: str | None = None) -> None:
        """Keep instructions and other texts that the program put into the conversation, each once in a file."""
        if content is None or (hashed := values.short_hash(content)) in self._noted:
            return
        self._noted.add(hashed)
        payload = {"name": name, "level": "info", "content": content} | ({} if role is None else {"role": role})
        self._time += 1_000 if self._time == self._thread.started_ns else 0
        self._out.append(self._moment(f"{name}:{self._line}", "event", self._time, payload))

    def _moment(self, key: str, type: str, time: int, payload: dict[str, Any]) -> Step:
        self._thread.ended_ns = max(self._thread.ended_ns, time)
        return Step(self._thread.id, key, None, type, time, time, "complete", payload)

    def _told(self, payload: dict[str, Any], time: int, level: str = "info") -> None:
        """Keep an event that has no meaning of its own here."""
        name = text_in(payload.get("type")) or "event"
        content = without(payload, "type") or None
        self._out.append(
            self._moment(
                f"{name}:{self._line}", "event", time, known({"name": name, "level": level, "content": content})
            )
        )

    def _warned(self, payload: dict[str, Any], time: int) -> None:
        self._told(payload, time, "warning")

    def _unknown(self, kind: Any, record: dict[str, Any], time: int) -> None:
        name = kind if type(kind) is str else "?"
        payload = record.get("payload", record)
        inner = payload.get("type") if type(payload) is dict and payload is not record else None
        name = f"{name}:{inner}" if type(inner) is str else name
        self._out.append(Unread(self._thread.id, f"record of type {name[:80]}"))
        self._out.append(unknown(self._thread.id, f"record:{self._line}", None, name, time, record))
        self._thread.ended_ns = max(self._thread.ended_ns, time)

    # Prompts.

    def _message(self, payload: dict[str, Any], time: int) -> None:
        role, content = payload.get("role"), payload.get("content")
        if role == "assistant":
            answer = self._answering(time)
            answer.phase = text_in(payload.get("phase")) or answer.phase
            for text in texts_of(content):
                answer.add("text", text)
        elif role == "user":
            self._asked(content, time)
        else:
            name = role if type(role) is str and role else "message"
            self._note(name, values.content_of(content), name)

    def _asked(self, content: Any, time: int) -> None:
        """Hold a message of the role user back until the next record says whether a person wrote it."""
        texts = texts_of(content)
        text = "\n".join(texts)
        if self._prompted is not None and (text == self._prompted or not text):
            self._prompted = None
            return
        for each in texts:
            if values.mark_of(each) in USERS_OWN:
                self._thread.instruct(each)
        key = f"prompt:{self._line}"
        self._pending = (key, time, {"text": text, "content": values.content_of(content)})

    def _settle_pending(self) -> None:
        """Keep a message that no event repeats: it is a prompt only in files without such events."""
        assert self._pending is not None
        (key, time, said), self._pending = self._pending, None
        mark = values.mark_of(said["text"])
        if mark is None and (self._is_flat or not self._has_user_events):
            self._prompt(key, time, said["text"], said["content"])
            return
        payload = {"name": mark or "context", "level": "info", "content": said["content"], "role": "user"}
        self._out.append(self._moment(key, "event", time, payload))
        self._boundary = max(self._boundary or 0, time)

    def _user_event(self, payload: dict[str, Any], time: int) -> None:
        self._has_user_events = True
        text = text_in(payload.get("message")) or ""
        images = list_in(payload.get("images"))
        self._prompted_by(text, [text, *({"type": "input_image", "image_url": each} for each in images)], time)

    def _user_item(self, item: dict[str, Any], time: int) -> None:
        self._has_user_events = True
        content = item.get("content")
        self._prompted_by("\n".join(texts_of(content)), content, time)

    def _prompted_by(self, text: str, content: Any, time: int) -> None:
        """Keep a prompt: with the content of its message, which has its images, if that stood before."""
        if self._pending is not None:
            (key, time, said), self._pending = self._pending, None
            self._prompt(key, time, text or said["text"], said["content"])
            return
        self._prompted = text
        parts = [{"type": "text", "text": each} if type(each) is str else each for each in list_in(content)]
        self._prompt(f"prompt:{self._line}", time, text, values.content_of(parts))

    def _prompt(self, key: str, time: int, text: str, content: Any) -> None:
        self._thread.ask(text, content)
        self._out.append(self._prompt_step(key, time, content))
        self._prompts += 1
        self._boundary = max(self._boundary or 0, time)

    def _prompt_step(self, key: str, time: int, content: Any) -> Step:
        payload = {"role": "user", "content": content} | ({"steering": True} if self._prompts else {})
        return self._moment(key, "message", time, payload)

    def _from_agent(self, payload: dict[str, Any], time: int) -> None:
        content = values.content_of(payload.get("content"))
        more = known({"author": payload.get("author"), "recipient": payload.get("recipient")})
        message = {"role": "agent", "content": content, **more}
        self._out.append(self._moment(f"message:{self._line}", "message", time, message))

    # Answers of the model.

    def _answering(self, time: int) -> _Answer:
        """Return the open answer. An item after the output of a tool begins the next one."""
        if self._answer is not None and self._answer.is_over:
            self._close({})
        if self._answer is None:
            start = time if self._boundary is None else min(self._boundary + 1_000, time)
            self._answer = _Answer(f"llm:{self._line}", start)
        self._answer.end = max(self._answer.end, time)
        return self._answer

    def _reasoning(self, payload: dict[str, Any], time: int) -> None:
        answer = self._answering(time)
        for text in texts_of(payload.get("summary")) + texts_of(payload.get("content")):
            answer.add("thought", text)

    def _mirror(self, kind: str, texts: list[str], time: int) -> None:
        said = self._said[kind == "thought"]
        for text in texts:
            if self._answer is None and text in said:
                said.remove(text)
            elif text:
                self._answering(time).mirror(kind, text)

    def _agent_event(self, payload: dict[str, Any], time: int) -> None:
        self._mirror("text", texts_of(payload.get("message")), time)

    def _thought_event(self, payload: dict[str, Any], time: int) -> None:
        self._mirror("thought", texts_of(payload.get("text")), time)

    def _agent_item(self, item: dict[str, Any], time: int) -> None:
        self._mirror("text", texts_of(item.get("content")), time)

    def _thought_item(self, item: dict[str, Any], time: int) -> None:
        self._mirror("thought", texts_of(item.get("summary_text")) + texts_of(item.get("raw_content")), time)

    def _close(self, usage: dict[str, Any], status: Literal["complete", "cancelled"] = "complete") -> None:
        """End the open answer, with its tokens. Tokens without an answer are of a call that the file leaves out."""
        answer, self._answer = self._answer, None
        if answer is None:
            if not any(type(value) is int and value for value in usage.values()):
                return
            start = self._time if self._boundary is None else min(self._boundary + 1_000, self._time)
            answer = _Answer(f"llm:{self._line}", start)
            answer.end = self._time
        self._said = answer.texts[-8:], answer.thoughts[-8:]
        step = self._answer_step(answer, usage, status)
        text = (step.result or {}).get("text")
        if text is not None:
            self._thread.output = text
            if self._is_flat and not answer.calls:
                self._thread.end("answered")
        self._out.append(step)

    def _answer_step(self, answer: _Answer, usage: dict[str, Any], status: Any) -> Step:
        self._thread.ended_ns = max(self._thread.ended_ns, answer.end)
        result = {**answer.result(), **usage}
        payload = self._model()
        return Step(self._thread.id, answer.key, None, "llm", answer.start, answer.end, status, payload, result)

    def _model(self) -> dict[str, Any]:
        return {"model": self._thread.model or "unknown", **self._thread.settings}

    def _failed(self, error: Any, time: int, retry: dict[str, Any] | None = None) -> None:
        """Keep a model call that failed; a second record of the same error adds nothing."""
        outcome, found = values.error_of(error)
        if retry is None:
            self._thread.end(outcome, found)
            if self._last_error == found["message"]:
                return
            self._last_error = found["message"]
        self._close({})
        start = time if self._boundary is None else min(self._boundary + 1_000, time)
        payload = self._model() | ({} if retry is None else {"retry": retry})
        key = f"llm:{self._line}"
        self._out.append(Step(self._thread.id, key, None, "llm", start, time, "failed", payload, {"error": found}))
        self._thread.ended_ns = max(self._thread.ended_ns, time)
        self._boundary = time

    def _error_event(self, payload: dict[str, Any], time: int) -> None:
        self._failed(without(payload, "type"), time)

    def _stream_error(self, payload: dict[str, Any], time: int) -> None:
        self._failed(without(payload, "type"), time, without(payload, "type", "codex_error_info"))

    # Tokens.

    def _usage(self, payload: dict[str, Any], time: int) -> None:
        self._counts_records = True
        usage = object_in(payload.get("usage"))
        self._context = count_in(usage.get("total_tokens"))
        self._close({**values.usage_of(usage), **known({"response_id": text_in(payload.get("response_id"))})})

    def _count(self, payload: dict[str, Any], time: int) -> None:
        """Attribute tokens to the open answer. An event whose total has not changed repeats the one before."""
        info = payload.get("info")
        if type(info) is not dict:
            return
        total, last = info.get("total_token_usage"), object_in(info.get("last_token_usage"))
        if total is None and not last:
            self._told(payload, time)
            return
        is_new, before, self._total = total != self._total, self._total, total
        size = count_in(last.get("total_tokens"))
        self._compacted_to(size, time)
        self._context = size if size is not None else self._context
        if self._counts_records or not is_new or (before is None and self._thread.header.get("history_base")):
            return
        self._close(values.usage_of(last) if last else values.usage_between(before, total))

    def _compacted_to(self, size: int | None, time: int) -> None:
        """Give the last compaction the size of the context after it, which the next count of tokens says."""
        if self._compaction is not None and size is not None:
            step, self._compaction = self._compaction, None
            self._out.append(step._replace(result={**(step.result or {}), "tokens_after": size}))

    # Tool calls.

    def _called(self, payload: dict[str, Any], time: int) -> None:
        kind = payload["type"]
        name = text_in(payload.get("name")) or kind.removesuffix("_call")
        if kind == "web_search_call" and self._is_search_known(payload, time):
            return
        if kind == "function_call":
            arguments = values.arguments_of(payload.get("arguments"))
        elif kind == "custom_tool_call":
            arguments = payload.get("input")
        elif "action" in payload or "arguments" in payload:
            arguments = payload.get("action", payload.get("arguments"))
        else:
            arguments = without(payload, "type", "id", "call_id", "status", "result") or None
        id = text_in(payload.get("call_id")) or text_in(payload.get("id")) or f"call:{self._line}"
        call = self._opened(id, name, arguments, time)
        if (server := values.server_of(name, payload.get("namespace"))) is not None:
            call.serve(*server, arguments)
        self._answering(time).calls.append({"id": id, "name": name})
        if kind in ("web_search_call", "image_generation_call"):
            self._search = id
            self._finish(call, time, known({"output": _generated(payload.get("result"))}))

    def _is_search_known(self, payload: dict[str, Any], time: int) -> bool:
        """Return whether an event has told of a web search already: its item may lack the id."""
        id, self._search = self._search, None
        if id is None or id in self._ended or text_in(payload.get("id")) not in (None, id):
            return False
        self._answering(time).calls.append({"id": id, "name": "web_search"})
        return True

    def _opened(self, id: str, name: str, arguments: Any, time: int) -> _Call:
        """Begin a call. A second call of the same id is another step."""
        key = id if id not in self._used else f"{id}:{self._line}"
        self._used.add(id)
        call = self._calls[id] = _Call(id, key, name, arguments, time)
        return call

    def _output(self, payload: dict[str, Any], time: int) -> None:
        id, output = payload.get("call_id"), payload.get("output")
        if output is None:
            output = without(payload, "type", "id", "call_id", "status") or None
        call = self._calls.get(id) if type(id) is str else None
        if self._answer is not None:
            self._answer.is_over = True
        self._boundary = max(self._boundary or 0, time)
        if call is None:
            self._unknown("response_item", {"payload": payload}, time)
            return
        result = values.output_of(output)
        if call.is_spawn and call.child is None:
            said = object_in(values.arguments_of(output))
            call.child = text_in(said.get("agent_id")) or text_in(said.get("thread_id"))
        self._finish(call, time, result, "cancelled" if values.is_aborted(output) else "complete")

    def _finish(self, call: _Call, time: int, output: dict[str, Any], status: str = "complete") -> None:
        """End a call. Its time ends with its end event, if that stands before the output."""
        self._calls.pop(call.id, None)
        end = time if call.ended_ns is None else call.ended_ns
        step = call.step(self._thread.id, max(call.start, end), status, output)
        self._thread.ended_ns = max(self._thread.ended_ns, end)
        self._out.append(step)
        if call.ended is None and call.type == "tool" and status == "complete":
            self._ended[call.id] = call, step
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)

    def _end_event(self, payload: dict[str, Any], time: int) -> None:
        """Add the end event of a call to it; a call without an item, such as a person's own command, is its own step."""
        id = text_in(payload.get("call_id")) or text_in(payload.get("callId")) or text_in(payload.get("id"))
        call = self._calls.get(id or "")
        if id not in self._used and payload.get("type") in _SEARCHES and self._search in self._ended:
            id, self._search = self._search, None
        if call is not None:
            self._bind(call, payload)
            call.end(payload, time)
        elif id is not None and id in self._ended:
            call, step = self._ended.pop(id)
            result = values.merged(step.result or {}, values.ended_of(payload))
            self._out.append(step._replace(result=result))
        elif id is None or id not in self._used:
            self._alone(id or f"call:{self._line}", payload, time)

    def _bind(self, call: _Call, payload: dict[str, Any]) -> None:
        """Make a call one of an MCP server, or one that spawned a thread, as its end event says."""
        invocation = object_in(payload.get("invocation"))
        server, tool = payload.get("server") or invocation.get("server"), invocation.get("tool") or payload.get("tool")
        if type(server) is str and type(tool) is str:
            arguments = invocation.get("arguments", payload.get("arguments"))
            call.serve(server, tool, arguments if arguments is not None else call.payload["arguments"])
            if payload.get("result") is not None:
                call.server = values.result_of_mcp(payload.pop("result"))
            payload.pop("invocation", None)
        if call.is_spawn:
            receivers = list_in(payload.get("receiver_thread_ids"))
            call.child = text_in(payload.get("new_thread_id")) or (text_in(receivers[0]) if receivers else None)

    def _alone(self, id: str, payload: dict[str, Any], time: int) -> None:
        kind = text_in(payload.get("type")) or "tool"
        name = text_in(payload.get("tool")) or _ITEM_NAMES.get(kind) or kind.removesuffix("_end")
        self._search = id if kind in _SEARCHES else None
        duration = values.ms_of_duration(payload.get("duration"))
        start = time if duration is None else max(0, time - int(min(duration, 2**40) * 1_000_000))
        arguments = next(
            (payload[each] for each in ("command", "arguments", "changes", "query") if each in payload), None
        )
        call = self._opened(id, name, arguments, start)
        self._bind(call, payload)
        call.end(without(payload, "command", "arguments", "changes", "query"), time)
        self._finish(call, time, {})

    def _began(self, payload: dict[str, Any], time: int) -> None:
        """Note a call that only events name; the item of a call, if there is one, stands before."""
        id = text_in(payload.get("call_id")) or text_in(payload.get("callId"))
        if id is not None and id not in self._used and "tool" in payload:
            self._opened(id, text_in(payload["tool"]) or "tool", payload.get("arguments"), time)

    def _answered(self, payload: dict[str, Any], time: int) -> None:
        """End a call that only events name; else add to the call."""
        call = self._calls.get(text_in(payload.get("call_id")) or text_in(payload.get("callId")) or "")
        if call is not None and "content_items" in payload:
            call.end(without(payload, "content_items", "arguments", "tool"), time)
            if call.payload["call_id"] not in {each["id"] for each in (self._answer.calls if self._answer else ())}:
                self._finish(call, time, {"output": values.content_of(payload["content_items"])})
        else:
            self._end_event(payload, time)

    def _spawned(self, payload: dict[str, Any], time: int) -> None:
        """Bind a started thread to the call that spawned it; a thread without a call gets a step of its own."""
        thread = text_in(payload.get("agent_thread_id"))
        if thread is not None and payload.get("kind") == "started":
            id = text_in(payload.get("call_id")) or text_in(payload.get("event_id"))
            calls = [call for call in self._calls.values() if call.is_spawn and call.child is None]
            call = self._calls.get(id or "") or (calls[-1] if calls else None)
            if call is not None and call.is_spawn:
                call.child = thread
                return
            key, name = spawn_key(thread), "sub_agent_activity"
            content = {"name": name, "level": "info", "content": without(payload, "type")}
            self._out.append(self._moment(key, "event", time, content))
            return
        self._told(payload, time)

    def _cancel(self, time: int) -> None:
        """Cancel the calls whose turn ended without their output; a call with an end event has ended."""
        for call in list(self._calls.values()):
            self._finish(call, time, {}, "cancelled" if call.ended is None else "complete")

    # Turns.

    def _turn(self, payload: dict[str, Any], time: int) -> None:
        self._cancel(time)
        self._close({})
        self._prompts, self._last_error = 0, None
        self._boundary = time
        self._thread.ended_ns = max(self._thread.ended_ns, time)
        self._thread.end(None)

    def _turn_ended(self, payload: dict[str, Any], time: int) -> None:
        self._cancel(time)
        self._close({})
        self._thread.ended_ns = max(self._thread.ended_ns, time)
        if payload.get("error") is not None:
            self._failed(payload["error"], time)
        elif self._last_error is None or text_in(payload.get("last_agent_message")) is not None:
            self._thread.output = text_in(payload.get("last_agent_message")) or self._thread.output
            self._thread.end("answered")

    def _aborted(self, payload: dict[str, Any], time: int) -> None:
        if self._answer is not None and not self._answer.is_over:
            self._close({}, "cancelled")
        self._close({})
        self._cancel(time)
        self._warned(payload, time)
        self._thread.end("limit" if payload.get("reason") == "budget_limited" else "interrupted")

    def _compacted(self, payload: dict[str, Any], time: int) -> None:
        """Keep a compaction. Its summary is its message, or the last text of the history that replaced the old one."""
        self._unconfirmed += 1
        self._compacts(payload, time)

    def _compacts(self, payload: dict[str, Any], time: int) -> None:
        self._close({})
        history = [each for each in list_in(payload.get("replacement_history")) if type(each) is dict]
        summary: Any = text_in(payload.get("message"))
        if summary is None and history:
            summary = [known({"role": each.get("role"), "content": values.content_of(each.get("content"))})
                       for each in history if "content" in each] or None  # fmt: skip
        before = known({"trigger": "auto" if self._prompts else "manual", "tokens_before": self._context})
        start = min(time, time if self._boundary is None else self._boundary + 1_000)
        result = known({"summary": summary, "kept": len(history) or None})
        self._thread.ended_ns = max(self._thread.ended_ns, time)
        key = f"compaction:{self._line}"
        self._compaction = Step(
            self._thread.id, key, None, "compaction", start, time, "complete", before, result or None
        )
        self._out.append(self._compaction)
        self._boundary = time

    def _confirmed(self, payload: dict[str, Any], time: int) -> None:
        """Count a compaction that its own record has kept already; keep it where there is no such record."""
        if self._unconfirmed:
            self._unconfirmed -= 1
        else:
            self._compacts({}, time)

    # Records within records.

    def _item(self, payload: dict[str, Any], time: int) -> None:
        kind = payload.get("type")
        kind = kind if type(kind) is str else ""
        handler = _ITEMS.get(kind)
        if handler is not None:
            handler(self, payload, time)
        elif kind.endswith("_call"):
            self._called(payload, time)
        elif kind.endswith("_output"):
            self._output(payload, time)
        else:
            self._unknown("response_item", {"type": "response_item", "payload": payload}, time)

    def _event(self, payload: dict[str, Any], time: int) -> None:
        kind = payload.get("type")
        handler = _EVENTS.get(kind) if type(kind) is str else None
        if handler is None:
            self._unknown("event_msg", {"type": "event_msg", "payload": payload}, time)
        else:
            handler(self, payload, time)

    def _completed(self, payload: dict[str, Any], time: int) -> None:
        item = payload.get("item")
        kind = item.get("type") if type(item) is dict else None
        handler = _COMPLETED.get(kind) if type(kind) is str else None
        if handler is None or type(item) is not dict:
            self._unknown(f"item_completed:{kind}", {"type": "event_msg", "payload": payload}, time)
        else:
            handler(self, item, time)

    def _hook(self, payload: dict[str, Any], time: int) -> None:
        run = object_in(payload.get("run"))
        event = text_in(run.get("event_name"))
        name = text_in(run.get("id")) or event or "hook"
        more = known({"name": name, "event": event})
        result = {"output": run.get("entries"), "structured": without(run, "entries", "id", "event_name")}
        step = self._moment(f"hook:{self._line}", "hook", time, more)
        self._out.append(step._replace(result=result))


def _generated(result: Any) -> Any:
    """Return a generated image as a block; other values unchanged."""
    if type(result) is not str or not result:
        return result
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": result}}


_SEARCHES = ("web_search_end", "WebSearch")
_ITEM_NAMES = {
    "exec_command_end": "shell",
    "CommandExecution": "shell",
    "patch_apply_end": "apply_patch",
    "FileChange": "apply_patch",
    "WebSearch": "web_search",
    "ImageView": "view_image",
    "view_image_tool_call": "view_image",
    "ImageGeneration": "image_generation",
}
"""The names of calls that have no item of their own, such as the commands that a person ran."""

Handler = Callable[[CodexDecoder, dict[str, Any], int], None]
_D = CodexDecoder
_OF_USER = frozenset({"user_message", "item_completed"})
_RECORDS: dict[str, Handler] = {
    "session_meta": _D._header,
    "turn_context": _D._settings,
    "response_item": _D._item,
    "event_msg": _D._event,
    "compacted": _D._compacted,
    "token_usage_record": _D._usage,
    "world_state": _D._nothing,
    "inter_agent_communication_metadata": _D._nothing,
}
_ITEMS: dict[str, Handler] = {
    "message": _D._message,
    "reasoning": _D._reasoning,
    "agent_message": _D._from_agent,
    "ghost_snapshot": _D._told,
    "compaction": _D._told,
    "compaction_summary": _D._told,
    "context_compaction": _D._told,
}
_EVENTS: dict[str, Handler] = {
    "user_message": _D._user_event,
    "agent_message": _D._agent_event,
    "agent_reasoning": _D._thought_event,
    "agent_reasoning_raw_content": _D._thought_event,
    "agent_reasoning_section_break": _D._nothing,
    "token_count": _D._count,
    "task_started": _D._turn,
    "turn_started": _D._turn,
    "task_complete": _D._turn_ended,
    "turn_complete": _D._turn_ended,
    "turn_aborted": _D._aborted,
    "context_compacted": _D._confirmed,
    "thread_settings_applied": _D._applied,
    "thread_name_updated": _D._renamed,
    "item_completed": _D._completed,
    "item_started": _D._nothing,
    "error": _D._error_event,
    "stream_error": _D._stream_error,
    "dynamic_tool_call_request": _D._began,
    "dynamic_tool_call_response": _D._answered,
    "sub_agent_activity": _D._spawned,
    "hook_completed": _D._hook,
    "hook_started": _D._nothing,
    **dict.fromkeys(
        ("exec_command_end", "patch_apply_end", "mcp_tool_call_end", "web_search_end", "image_generation_end",
         "view_image_tool_call", "collab_agent_spawn_end", "collab_waiting_end", "collab_agent_interaction_end",
         "collab_close_end", "collab_resume_end"),
        _D._end_event,
    ),
    **dict.fromkeys(
        ("exec_command_begin", "patch_apply_begin", "mcp_tool_call_begin", "web_search_begin", "image_generation_begin",
         "collab_agent_spawn_begin", "collab_waiting_begin", "collab_agent_interaction_begin", "collab_close_begin",
         "collab_resume_begin", "exec_command_output_delta", "terminal_interaction"),
        _D._nothing,
    ),
    **dict.fromkeys(
        ("entered_review_mode", "exited_review_mode", "thread_rolled_back", "plan_update", "turn.completed",
         "turn_diff", "background_event", "undo_started", "undo_completed", "thread_goal_updated", "model_reroute",
         "guardian_assessment", "exec_approval_request", "apply_patch_approval_request", "request_user_input",
         "request_permissions", "elicitation_request", "session_configured", "mcp_startup_complete",
         "mcp_startup_update", "shutdown_complete"),
        _D._told,
    ),
    **dict.fromkeys(("warning", "deprecation_notice", "guardian_warning"), _D._warned),
}  # fmt: skip
_COMPLETED: dict[str, Handler] = {
    "UserMessage": _D._user_item,
    "AgentMessage": _D._agent_item,
    "Reasoning": _D._thought_item,
    "ContextCompaction": _D._confirmed,
    **dict.fromkeys(
        ("CommandExecution", "FileChange", "McpToolCall", "WebSearch", "ImageView", "ImageGeneration",
         "CollabAgentToolCall", "DynamicToolCall"),
        _D._end_event,
    ),
    **dict.fromkeys(("Plan", "EnteredReviewMode", "ExitedReviewMode", "HookPrompt"), _D._told),
}  # fmt: skip
