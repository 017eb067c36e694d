"""Decodes the records of Claude Code's session files, of the main file and of those of sub-agents, into steps.

Records of one model answer (same message id and request id) become one `llm` step with the last usage. Steps stand in
the order of the file: a step starts not before the record that is its parent in the graph.

Left out on purpose:
- `progress` (its messages stand in the sub-agent's file; it only links that to the tool call), `file-history-*`,
  `last-prompt`, `atis-latch`, and `summary` lines about other sessions: bookkeeping that repeats or says nothing;
- text that was queued and taken back before the agent read it;
- signatures of thinking, and the data of redacted thinking: nobody but the provider can read them;
- `mode`, titles, links, worktrees and the like become metadata of the run.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from agentspan.sessions import claude_steps as steps
from agentspan.sessions.claude_facts import AGENT, MILLI, Call, Clock, Facts, Thread, finished_task
from agentspan.sessions.claude_rewinds import Rewinds
from agentspan.sessions.formats import LineDecoder, Source
from agentspan.sessions.reading import plain_path
from agentspan.sessions.records import Record, Status, Step, Unread, unknown

_LOADS = json.JSONDecoder(parse_constant=lambda _: None)
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_AGENT = re.compile(r"agent-(.+?)(?:\.meta\.json|\.jsonl)\Z")
_MOST_DOCUMENT = 8 * 2**20
_MOST_LINKS = 10_000
_MOST_WAITING = 1000
_RECENT = 16

_EVENTS = frozenset(
    {
        "turn_duration", "away_summary", "local_command", "informational", "bridge_status", "api_refusal",
        "model_refusal_fallback", "session_start", "error", "permission_retry", "api_metrics",
    }
)  # fmt: skip
"""The subtypes of system records that are events."""
_ATTACHMENTS = frozenset(
    {
        "agent_listing_delta", "auto_mode", "auto_mode_exit", "batching_reminder_sent", "budget_usd",
        "command_permissions", "compact_file_reference", "date_change", "deferred_tools_delta", "diagnostics",
        "directory", "dynamic_skill", "edited_image_file", "edited_text_file", "file", "hook_additional_context",
        "hook_permission_decision", "hook_stopped_continuation", "hook_system_message", "invoked_skills",
        "mcp_instructions_delta", "mcp_resource", "nested_memory", "opened_file_in_ide", "output_style", "plan_mode",
        "plan_mode_exit", "plan_mode_reentry", "read_truncation_notice", "relevant_memories", "selected_lines_in_ide",
        "silent_turn_reminder", "skill_listing", "task_reminder", "task_status", "todo", "todo_reminder",
        "token_usage", "total_tokens_reminder", "ultra_effort_enter", "ultra_effort_exit",
    }
)  # fmt: skip
"""The types of attachments that are events. Hooks and queued commands are other steps."""
_HOOKS = frozenset({"hook_success", "hook_blocking_error", "hook_non_blocking_error", "hook_error_during_execution"})
_LEFT_OUT = frozenset({"file-history-snapshot", "file-history-delta", "last-prompt", "atis-latch"})
_COMMON = frozenset(
    {
        "parentUuid", "isSidechain", "userType", "cwd", "sessionId", "session_id", "version", "gitBranch", "slug", "type",
        "uuid", "timestamp", "entrypoint", "isMeta", "subtype", "level", "logicalParentUuid", "sessionKind",
    }
)  # fmt: skip
"""Members of events that say nothing about them."""


class ClaudeDecoder(LineDecoder):
    """Decodes the files of one session: the main file, then those of its sub-agents and workflows."""

    def __init__(self, source: Source) -> None:
        self._main_file = source.path
        name = plain_path(source.path).name
        stem = name.removesuffix(".jsonl")
        self._facts = Facts(stem if _ID.match(stem) else None)
        orphan = _AGENT.match(name)
        self._main = Thread(None)
        self._threads: dict[str, Thread] = {}
        self._clocks: dict[Path, Clock] = {}
        self._files: dict[Path, Thread] = {}
        self._sides: dict[str, Thread] = {}
        self._links: dict[str, tuple[str, str | None, Any, int]] = {}
        self._compactions: dict[str, str] = {}
        self._documents: dict[Path, bytearray] = {}
        self._queued: list[str] = []
        self._steered: list[tuple[str, str]] = []
        self._rewinds = Rewinds()
        self._out: list[Record] = []
        self._held: list[Record] = []
        self._announced = False
        self._thread = self._main
        self._clock = Clock()
        self._size = 0
        if orphan is not None:
            self._files[source.path] = self._agent(orphan[1], source.path)

    # The seam

    def feed(self, file: Path, line: bytes) -> Iterable[Record]:
        """Decode one line; return the steps that ended with it."""
        self._out = []
        self._size = len(line)
        if plain_path(file).name.endswith(".json"):
            self._document(file, line)
        else:
            for record in self._records_of(line):
                self._take(file, record)
        return self._sent()

    def rest(self) -> Iterable[Record]:
        """Return the steps that have not ended, as they are now, and the Session."""
        self._out = []
        for file, text in self._documents.items():
            if text:
                self._read_document(file, bytes(text) + b"}", last=True)
        threads = [self._main, *self._threads.values()]
        for thread in threads:
            self._flush(thread)
        for thread in threads:
            for step in thread.open.values():
                self._out.append(step)
        self._agents()
        return self._sent(resting=True)

    def _sent(self, *, resting: bool = False) -> list[Record]:
        """Return the collected records; none before the session's id, begin and version are known."""
        out, facts = self._out, self._facts
        if self._announced:
            return [facts.session(self._top()), *out] if resting else out
        self._held += out
        if facts.id is None or facts.started is None or (facts.version is None and not (resting and self._held)):
            return []
        held, self._held, self._announced = self._held, [], True
        return [facts.session(self._top()), *held]

    def _top(self) -> Thread:
        """Return the conversation that stands for the session: the sub-agent's, if its main file is gone."""
        return self._files.get(self._main_file, self._main)

    def _records_of(self, line: bytes) -> Iterable[dict[str, Any]]:
        """Yield the records of a line. A crash or two writers can leave two on one."""
        try:
            text = line.decode("utf-8", "replace").strip()
            found: Any = _LOADS.decode(text)
        except (ValueError, RecursionError):
            yield from self._pieces(line.decode("utf-8", "replace"))
            return
        if type(found) is dict:
            yield found
        else:
            self._unread("a line that is no record")

    def _pieces(self, text: str) -> Iterable[dict[str, Any]]:
        at, text = 0, text.strip(" \t\r\n\0")
        try:
            while at < len(text):
                found, at = _LOADS.raw_decode(text, at)
                if type(found) is not dict:
                    break
                yield found
                while at < len(text) and text[at] in " \t\0":
                    at += 1
        except (ValueError, RecursionError):
            pass
        if at < len(text) or not text:
            self._unread("a line that is no JSON")

    def _unread(self, what: str) -> None:
        self._out.append(Unread(self._facts.id, what))

    def _emit(self, step: Step) -> None:
        self._out.append(step)
        if self._thread is self._main:
            self._rewinds.keep(step, self._size)

    # One record

    def _take(self, file: Path, record: dict[str, Any]) -> None:
        clock = self._clocks.get(file)
        if clock is None:
            clock = self._clocks[file] = Clock()
        self._clock = clock
        kind = record.get("type")
        is_main = file == self._main_file
        millis = clock.time_of(record)
        if is_main:
            self._facts.note(record, millis)
        if kind == "progress":
            self._progress(record)
            return
        if type(kind) is not str:
            kind = "unknown"
        meta = _METADATA.get(kind)
        if meta is not None:
            if is_main:
                meta(self, record)
            return
        if kind in _LEFT_OUT:
            return
        if kind in ("started", "result") and "agentId" in record:
            self._journal(file, record, kind)
            return
        if millis is None:  # nothing before it has a time either
            self._unread("a record without a time")
            return
        thread = self._thread = self._thread_of(file, record, is_main=is_main)
        if thread.id is not None:
            self._extend(thread, record, millis)
        handler = _HANDLERS.get(kind)
        if handler is None:
            self._unknown(record, kind, millis)
        else:
            handler(self, record, millis)

    def _thread_of(self, file: Path, record: Mapping[str, Any], *, is_main: bool) -> Thread:
        if is_main and file not in self._files:
            return self._side_of(record) if record.get("isSidechain") is True else self._main
        thread = self._files.get(file)
        if thread is None:
            found = _AGENT.match(plain_path(file).name)
            id = found[1] if found is not None else steps.text_of(record.get("agentId")) or plain_path(file).name
            thread = self._files[file] = self._agent(id, file)
        return thread

    def _side_of(self, record: Mapping[str, Any]) -> Thread:
        """Return the conversation of a sub-agent whose records stand in the main file."""
        id, uuid, parent = record.get("agentId"), record.get("uuid"), record.get("parentUuid")
        thread = self._sides.get(parent) if type(parent) is str else None
        if type(id) is str and id:
            thread = self._agent(id)
        if thread is None:
            thread = self._agent(f"side-{uuid if type(uuid) is str else self._size}")
            prompt = steps.plain_text(steps.object_of(record.get("message")).get("content"))
            for key, step in self._main.open.items():
                arguments = steps.object_of(step.payload.get("arguments"))
                if step.payload.get("name") in steps.AGENT_TOOLS and arguments.get("prompt") == prompt:
                    self._link(thread, key, step)
        if type(uuid) is str:
            self._sides[uuid] = thread
            if len(self._sides) > _MOST_LINKS:
                del self._sides[next(iter(self._sides))]
        return thread

    def _agent(self, id: str, file: Path | None = None) -> Thread:
        """Return the conversation of a sub-agent."""
        thread = self._threads.get(id)
        if thread is None:
            thread = self._threads[id] = Thread(id, f"agent:{id}")
            if id.startswith("acompact-"):
                thread.is_compaction, thread.top, thread.changed = True, None, False
        if file is not None and thread.link is None and not thread.is_compaction:
            at = file.parent
            if at.parent.name == "workflows":
                thread.link, thread.changed = self._workflow(at.name).top, True
        return thread

    def _workflow(self, run: str) -> Thread:
        thread = self._threads.get(f"workflow:{run}")
        if thread is None:
            thread = self._threads[f"workflow:{run}"] = Thread(f"workflow:{run}", f"workflow:{run}")
            thread.name = "workflow"
        return thread

    def _extend(self, thread: Thread, record: Mapping[str, Any], millis: int) -> None:
        """Note the time of a sub-agent's record."""
        thread.changed = not thread.is_compaction
        if thread.start is None:
            thread.start = self._clock.start(millis)
        thread.end = max(thread.end or 0, millis * MILLI)
        parent = record.get("parentUuid")
        if thread.is_compaction and type(parent) is str and (key := self._compactions.get(parent)) is not None:
            thread.top = key
        elif thread.is_compaction and type(parent) is str:
            thread.told = parent
        if thread.name is None and (name := steps.text_of(record.get("attributionAgent"))) is not None:
            thread.name = name

    # Model calls

    def _assistant(self, record: Mapping[str, Any], millis: int) -> None:
        message = steps.object_of(record.get("message"))
        model = steps.text_of(message.get("model"))
        if model == steps.SYNTHETIC or record.get("isApiErrorMessage") is True:
            self._said_itself(record, message, millis)
            return
        thread = self._thread
        id, request = steps.text_of(message.get("id")), steps.text_of(record.get("requestId"))
        key = f"llm:{id or record.get('uuid') or millis}:{request or ''}"
        call = thread.call(key)
        if call is None:
            self._flush(thread)
            call = self._new_call(record, key, model, millis)
            thread.add(call)
            if id is not None:
                call.result["response_id"] = id
            if request is not None:
                call.result["request_id"] = request
        call.changed = True
        call.end = max(call.end, millis * MILLI)
        call.result |= steps.usage_of(message.get("usage"))
        reason = steps.text_of(message.get("stop_reason"))
        if reason is not None:
            call.result["finish_reason"] = reason
        if record.get("isAbortedMidStream") is True:
            call.result["aborted"] = record.get("errorDetails") or True
        has_tools = False
        for block in steps.blocks_of(message.get("content")):
            has_tools |= self._block(call, block, record, millis)
        self._stands(thread, call, reason, has_tools=has_tools)

    def _new_call(self, record: Mapping[str, Any], key: str, model: str | None, millis: int) -> Call:
        """Return a new model call: it begins at the time of the record that it answers."""
        parent = record.get("parentUuid")
        asked = self._clock.known.get(parent, millis) if type(parent) is str else millis
        payload: dict[str, Any] = {"model": model or "unknown"}
        if model is not None and model.startswith("claude"):
            payload["provider"] = "anthropic"
        for name, ours in (("effort", "effort"), ("attributionSkill", "skill")):
            if (value := steps.text_of(record.get(name))) is not None:
                payload[ours] = value
        thread = self._thread
        if thread.is_compaction:
            payload["purpose"] = "compaction"
        elif self._facts.permission is not None and thread.id is None:
            payload["permission_mode"] = self._facts.permission
        if model is not None:
            thread.model = thread.model or model
            self._facts.list("models", model)
        return Call(key, self._clock.start(min(asked, millis)), payload)

    def _block(self, call: Call, block: dict[str, Any], record: Mapping[str, Any], millis: int) -> bool:
        """Add a content block to a model call; return whether it calls a tool."""
        kind = block.get("type")
        if kind == "text":
            if (text := steps.text_of(block.get("text"))) is not None and text not in call.texts:
                call.texts.append(text)
        elif kind in ("thinking", "redacted_thinking"):
            if (text := steps.text_of(block.get("thinking"))) is not None and text not in call.thoughts:
                call.thoughts.append(text)
        elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            self._call_tool(call, block, record, millis)
            return kind == "tool_use"
        elif type(kind) is str and kind.endswith("_tool_result") and self._ended(block, record, millis):
            pass
        else:
            call.blocks.append(block)
        return False

    def _call_tool(self, call: Call, block: dict[str, Any], record: Mapping[str, Any], millis: int) -> None:
        id = steps.text_of(block.get("id"))
        type_, payload = steps.call_of(block)
        uuid = record.get("uuid")
        key = f"tool:{id or uuid or millis}"
        arguments = payload["arguments"]
        short = arguments
        if type(arguments) is dict:  # long ones stand in the tool's step
            short = {name: value for name, value in arguments.items() if type(value) is not str or len(value) < 200}
        call.calls.append({"id": id, "name": block.get("name"), "arguments": short})
        if block.get("type") != "tool_use":
            payload["runs_at"] = "provider"
        open_ = self._thread.open
        if key in open_:
            return
        open_[key] = Step(
            self._session, key, self._thread.top, type_, self._clock.start(millis), None, "active", payload
        )
        if len(open_) > _MOST_WAITING:
            self._cancel(open_.pop(next(iter(open_))), millis)

    @property
    def _session(self) -> str:
        return self._facts.id or plain_path(self._main_file).name

    def _stands(self, thread: Thread, call: Call, reason: str | None, *, has_tools: bool) -> None:
        """Note how a conversation stands after a model's record."""
        thread.error = None
        if has_tools:
            thread.state = None
        elif reason in ("end_turn", "stop_sequence", None):
            thread.state = "answered" if call.texts and not (call.calls and reason is None) else None
        elif reason in ("max_tokens", "model_context_window_exceeded"):
            thread.state = "limit"
            thread.error = {"type": reason, "message": "the answer was cut at the limit of tokens"}
        elif reason == "refusal":
            thread.state, thread.error = "error", {"type": reason, "message": "the model refused to answer"}
        elif reason == "tool_use":
            thread.state = None
        if call.texts and not has_tools:
            thread.output = "\n\n".join(call.texts)

    def _flush(self, thread: Thread) -> None:
        """Emit the model calls of a conversation that have changed."""
        for call in thread.calls.values():
            if call.changed:
                call.changed = False
                step = call.step(self._session, thread.top)
                self._out.append(step)
                if thread is self._main:
                    self._rewinds.keep(step, self._size)

    def _said_itself(self, record: Mapping[str, Any], message: Mapping[str, Any], millis: int) -> None:
        """Keep a message that Claude Code wrote in the place of the model: an error, or that nothing was asked."""
        text = steps.plain_text(message.get("content"))
        is_error = record.get("isApiErrorMessage") is True
        kind = record.get("error")
        self._event(
            record, millis, "api_error" if is_error else "synthetic", text, "error" if is_error else "info",
            **({} if kind is None else {"error": kind}),
        )  # fmt: skip
        if is_error:
            thread = self._thread
            thread.state = "limit" if steps.is_limit(text, kind) else "error"
            thread.error = {"type": steps.text_of(kind) or "api_error", "message": text}

    # What stands in records of the user

    def _user(self, record: Mapping[str, Any], millis: int) -> None:
        message = steps.object_of(record.get("message"))
        content = message.get("content")
        if record.get("isCompactSummary") is True:
            self._summary(record, content, millis)
            return
        blocks: list[dict[str, Any]] = []
        results = 0
        if type(content) is list:
            blocks = steps.blocks_of(content)
            found = [block for block in blocks if block.get("type") == "tool_result"]
            results = len(found)
            structured = record.get("toolUseResult") if results == 1 else None
            for block in found:
                self._tool_result(block, record, structured, millis)
            blocks = [block for block in blocks if block.get("type") != "tool_result"]
            if results and not blocks:
                return
            content = blocks[0].get("text", blocks) if len(blocks) == 1 and blocks[0].get("type") == "text" else blocks
        self._said(record, content, millis, beside_result=results > 0)

    def _said(self, record: Mapping[str, Any], content: Any, millis: int, *, beside_result: bool) -> None:
        """Decode what a person or the program said."""
        text = steps.plain_text(content)
        thread = self._thread
        kind = steps.kind_of_text(text)
        if kind == "interruption":
            self._interrupted(record, text, millis)
        elif record.get("isMeta") is True:
            payload = {"role": "system", "content": content}
            if (call := steps.text_of(record.get("sourceToolUseID"))) is not None:
                payload["call_id"] = call
            self._message(record, payload, millis)
        elif thread.id is not None:
            self._told(record, content, millis)
        elif kind == "prompt":
            self._prompt(record, content, text, millis, steering=beside_result)
        else:
            self._notice(record, kind, text, millis)

    def _prompt(self, record: Mapping[str, Any], content: Any, text: str, millis: int, *, steering: bool) -> None:
        thread = self._thread
        self._flush(thread)
        if not steering:
            self._rewound(record, millis)
            for key in [*thread.open]:
                self._cancel(thread.open.pop(key), millis)
            self._facts.prompts += 1
            self._facts.prompt(text)
            thread.state, thread.error = None, None
        payload: dict[str, Any] = {"role": "user", "content": content}
        if (source := steps.text_of(record.get("promptSource"))) is not None:
            payload["source"] = source
        if steering:
            payload["steering"] = True
        self._message(record, payload, millis)

    def _told(self, record: Mapping[str, Any], content: Any, millis: int) -> None:
        """Decode what the caller told a sub-agent: first its goal, later steering."""
        thread = self._thread
        thread.state = None
        if thread.is_compaction:
            self._message(record, {"role": "system", "content": content}, millis)
        elif thread.goal is None:
            thread.goal = content
            if self._top() is thread:
                self._facts.prompt(steps.plain_text(content))
        else:
            self._message(record, {"role": "user", "content": content, "steering": True}, millis)

    def _notice(self, record: Mapping[str, Any], kind: str, text: str, millis: int) -> None:
        if kind == "command":
            command = steps.command_of(text)
            self._facts.prompt(command)
            self._event(record, millis, "command", command)
            self._thread.state = None if self._thread.state == "interrupted" else self._thread.state
            return
        if kind == "task-notification":
            self._finish_task(text, millis)
        self._event(record, millis, kind, text)

    def _finish_task(self, text: str, millis: int) -> None:
        """Note the end of a sub-agent in the background."""
        found = finished_task(text)
        thread = self._threads.get(found[0]) if found is not None else None
        if found is not None and thread is not None:
            thread.done, thread.changed = (millis * MILLI, found[1]), True
            if found[2]:
                thread.result["output"] = found[2]

    def _interrupted(self, record: Mapping[str, Any], text: str, millis: int) -> None:
        thread = self._thread
        self._flush(thread)
        for key in [*thread.open]:
            self._cancel(thread.open.pop(key), millis)
        self._event(record, millis, "interrupted", text, "warning")
        thread.state, thread.error = "interrupted", None

    def _cancel(self, step: Step, millis: int) -> None:
        self._emit(step._replace(end_ns=max(step.start_ns, millis * MILLI), status="cancelled"))

    def _message(self, record: Mapping[str, Any], payload: dict[str, Any], millis: int) -> None:
        at = self._clock.start(millis)
        self._emit(
            Step(self._session, self._key(record, millis), self._thread.top, "message", at, at, "complete", payload)
        )

    def _key(self, record: Mapping[str, Any], millis: int) -> str:
        """Return the key of a record that is one step: its uuid, or its time and kind."""
        uuid = record.get("uuid")
        if type(uuid) is str and uuid:
            return uuid
        return f"{record.get('type')}:{millis}:{self._clock.taken.get(millis, 0)}"

    def _summary(self, record: Mapping[str, Any], content: Any, millis: int) -> None:
        """Add the summary to the compaction before it."""
        thread = self._thread
        summary = steps.plain_text(content) or content
        step, thread.compaction = thread.compaction, None
        if step is None:
            at = self._clock.start(millis)
            payload: dict[str, Any] = {"trigger": "unknown"}
            step = Step(
                self._session, self._key(record, millis), thread.top, "compaction", at, at, "complete", payload, {}
            )
        self._emit(step._replace(result={**(step.result or {}), "summary": summary}))

    # Tools

    def _tool_result(self, block: dict[str, Any], record: Mapping[str, Any], structured: Any, millis: int) -> None:
        if not self._ended(block, record, millis, structured):
            self._unread("a tool result without its call")
            id = block.get("tool_use_id")
            key = f"result:{id if type(id) is str else self._key(record, millis)}"
            at = self._clock.start(millis)
            self._emit(unknown(self._session, key, self._thread.top, "tool_result", at, dict(record)))

    def _ended(self, block: dict[str, Any], record: Mapping[str, Any], millis: int, structured: Any = None) -> bool:
        """End the step of the tool that a result belongs to; return whether there is one."""
        key = f"tool:{block.get('tool_use_id')}"
        thread = self._thread
        step = thread.open.pop(key, None)
        if step is None:
            return False
        result = steps.result_of(step.type, step.payload, block, structured)
        status: Status = "cancelled" if steps.was_stopped(block, record) else "complete"
        end = max(step.start_ns, millis * MILLI)
        self._emit(step._replace(end_ns=end, status=status, result=result))
        self._ended_agent(
            step, key, structured, end, status if "is_error" not in result or status != "complete" else "failed"
        )
        return True

    def _ended_agent(self, step: Step, key: str, structured: Any, end: int, status: Status) -> None:
        """Note the result of a tool call that has run a sub-agent or started a workflow."""
        run = steps.object_of(structured)
        id = steps.text_of(run.get("agentId"))
        if id is not None and step.payload.get("name") in steps.AGENT_TOOLS:
            thread = self._agent(id)
        elif step.payload.get("name") == "Workflow" and (flow := steps.text_of(run.get("runId"))) is not None:
            thread = self._workflow(flow)
            thread.name = steps.text_of(run.get("workflowName")) or thread.name
        else:
            for thread in self._threads.values():
                if thread.link == key:
                    thread.done, thread.changed = (end, status), True
            return
        self._link(thread, key, step)
        if run.get("isAsync") is not True and step.payload.get("name") in steps.AGENT_TOOLS:
            thread.done = end, status
        thread.model = thread.model or steps.text_of(run.get("resolvedModel"))
        for name in ("totalTokens", "totalToolUseCount", "totalDurationMs"):
            if count := steps.number_of(run.get(name)):
                thread.result[_TOTALS[name]] = count

    def _link(self, thread: Thread, key: str, step: Step) -> None:
        """Put a sub-agent below the tool call that started it."""
        thread.changed = True
        if thread.link is None or not thread.link.startswith("tool:"):
            thread.link = key
        arguments = steps.object_of(step.payload.get("arguments"))
        thread.name = steps.text_of(arguments.get("subagent_type")) or thread.name or step.payload.get("name")
        thread.told = steps.text_of(arguments.get("prompt")) or thread.told
        if thread.start is None:
            thread.end = thread.end or step.start_ns
            self._links.setdefault(thread.id or "", (key, None, None, step.start_ns))

    def _progress(self, record: Mapping[str, Any]) -> None:
        """Link a sub-agent to its tool call. Nothing else of a progress record is kept: its messages stand elsewhere."""
        data = record.get("data")
        if type(data) is not dict or data.get("type") != "agent_progress":
            return
        id, tool = steps.text_of(data.get("agentId")), steps.text_of(record.get("parentToolUseID"))
        if id is None or tool is None:
            return
        thread = self._agent(id)
        if thread.link is None:
            self._find_link(thread, tool)

    def _find_link(self, thread: Thread, tool: str) -> None:
        """Put a sub-agent below a tool call that may be open still."""
        key = f"tool:{tool}"
        thread.changed = not thread.is_compaction
        for other in (self._main, *self._threads.values()):
            if (step := other.open.get(key)) is not None:
                self._link(thread, key, step)
                return
        thread.link = key

    def _agents(self) -> None:
        """Emit the steps of the sub-agents that have changed."""
        for id, thread in self._threads.items():
            if thread.is_compaction or not thread.changed or self._facts.started is None:
                continue
            thread.changed = False
            started = self._links[id][3] if id in self._links else self._facts.started * MILLI
            self._out.append(thread.agent_step(self._session, started))

    # Records of the program

    def _system(self, record: Mapping[str, Any], millis: int) -> None:
        kind = record.get("subtype")
        thread = self._thread
        if kind in ("compact_boundary", "microcompact_boundary"):
            self._compaction(record, kind, millis)
        elif kind == "api_error":
            self._failed_call(record, millis)
        elif kind == "stop_hook_summary":
            payload, result = steps.stop_hooks_of(record)
            self._hook(record, payload, result, millis, failed="errors" in result)
        elif type(kind) is str and kind in _EVENTS:
            content = record.get("content")
            more = {name: value for name, value in record.items() if name not in _COMMON and name != "content"}
            level = steps.text_of(record.get("level")) or "info"
            if kind == "local_command" and type(content) is str and steps.kind_of_text(content) == "command":
                content = steps.command_of(content)
            self._event(record, millis, kind, content if content is not None else more or None, level,
                        **(more if content is not None else {}))  # fmt: skip
        else:
            self._unknown(record, f"system:{kind}", millis)
        if kind == "turn_duration" and thread.state is None and thread.calls:
            last = next(reversed(thread.calls.values()))
            thread.state = "answered" if last.texts else None

    def _compaction(self, record: Mapping[str, Any], kind: str, millis: int) -> None:
        thread = self._thread
        self._flush(thread)
        payload, result = steps.compaction_of(record)
        at = self._clock.start(millis)
        step = Step(
            self._session, self._key(record, millis), thread.top, "compaction", at, at, "complete", payload, result
        )
        self._emit(step)
        if kind == "compact_boundary":
            thread.compaction = step
            logical = record.get("logicalParentUuid")
            if type(logical) is str:
                self._compactions[logical] = step.key
                for other in self._threads.values():
                    if other.is_compaction and other.told == logical:
                        other.top = step.key
                        for call in other.calls.values():
                            call.changed = True

    def _failed_call(self, record: Mapping[str, Any], millis: int) -> None:
        thread = self._thread
        payload, result = steps.api_error_of(record)
        model = thread.model or "unknown"
        parent = record.get("parentUuid")
        asked = self._clock.known.get(parent, millis) if type(parent) is str else millis
        start = self._clock.start(min(asked, millis))
        step = Step(
            self._session, self._key(record, millis), thread.top, "llm", start, max(start, millis * MILLI), "failed",
            {"model": model, **payload}, result,
        )  # fmt: skip
        self._emit(step)
        if payload.get("attempt", 0) >= payload.get("max_retries", 1):
            thread.state, thread.error = "error", result["error"]

    def _hook(
        self, record: Mapping[str, Any], payload: dict[str, Any], result: dict[str, Any], millis: int, *, failed: bool
    ) -> None:
        call = f"tool:{payload.get('call_id')}"
        is_known = call in self._thread.open or str(payload.get("event")) in ("PreToolUse", "PostToolUse")
        parent = call if is_known and "call_id" in payload else self._thread.top
        start = self._clock.start(millis)
        if failed and "error" not in result:
            result["error"] = {"type": "hook_error", "message": "the hook failed"}
        status: Status = "failed" if failed else "complete"
        key = self._key(record, millis)
        self._emit(Step(self._session, key, parent, "hook", start, start, status, payload, result or None))

    def _attachment(self, record: Mapping[str, Any], millis: int) -> None:
        attachment = steps.object_of(record.get("attachment"))
        kind = attachment.get("type")
        if kind in _HOOKS:
            payload, result = steps.hook_of(attachment)
            if steps.number_of(attachment.get("durationMs")):
                payload["duration_ms"] = attachment["durationMs"]
            self._hook(record, payload, result, millis, failed=kind != "hook_success")
        elif kind == "queued_command":
            self._queued_command(record, attachment, millis)
        elif type(kind) is str:
            if kind not in _ATTACHMENTS:
                self._unread(f"attachment of type {kind[:60]}")
            self._facts.listing(kind, attachment)
            self._event(record, millis, kind, {name: value for name, value in attachment.items() if name != "type"})
        else:
            self._unknown(record, "attachment", millis)

    # Text that was typed while the agent worked

    def _queued_command(self, record: Mapping[str, Any], attachment: Mapping[str, Any], millis: int) -> None:
        content = attachment.get("prompt")
        self._steer(record, content, steps.plain_text(content), millis, "attachment")

    def _queue(self, record: Mapping[str, Any], millis: int) -> None:
        operation, content = record.get("operation"), record.get("content")
        if operation == "enqueue":
            self._queued.append(content if type(content) is str else "")
            del self._queued[:-100]
        elif operation == "popAll":
            self._queued.clear()
        elif operation in ("dequeue", "remove"):
            text = content if type(content) is str else self._queued[0] if self._queued else ""
            if text in self._queued:
                self._queued.remove(text)
            if operation == "remove" and text:
                self._steer(record, text, text, millis, "queue")
        else:
            self._unknown(record, f"queue-operation:{operation}", millis)

    def _steer(self, record: Mapping[str, Any], content: Any, text: str, millis: int, source: str) -> None:
        """Decode steering text, which newer versions write twice: as an operation of the queue and as an attachment."""
        other = ("queue" if source == "attachment" else "attachment"), text
        if other in self._steered:
            self._steered.remove(other)
            return
        self._steered.append((source, text))
        del self._steered[:-_RECENT]
        kind = steps.kind_of_text(text)
        if kind == "task-notification":
            self._notice(record, kind, text, millis)
        else:
            self._message(record, {"role": "user", "content": content, "steering": True}, millis)

    # Workflows and small documents

    def _journal(self, file: Path, record: Mapping[str, Any], kind: str) -> None:
        """Decode a line of a workflow's journal: an agent started, or has a result."""
        id = steps.text_of(record.get("agentId"))
        if id is None:
            self._unread("a line of a journal without an agent")
            return
        thread = self._agent(id, file)
        thread.changed = True
        if kind == "result":
            thread.result["output"] = record.get("result")
            thread.done = thread.end or 0, "complete"
            thread.state = thread.state or "answered"

    def _document(self, file: Path, line: bytes) -> None:
        """Decode a file that is one JSON document, which may have many lines."""
        text = self._documents.setdefault(file, bytearray())
        if len(text) + len(line) > _MOST_DOCUMENT:
            text.clear()
            self._unread("a document that is too long")
            return
        text += line
        if line.rstrip().endswith(b"}"):
            self._read_document(file, bytes(text))

    def _read_document(self, file: Path, text: bytes, *, last: bool = False) -> None:
        try:
            found = _LOADS.decode(text.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            if last:
                self._unread("a document that is no JSON")
            return
        finally:
            if last:
                self._documents[file].clear()
        self._documents[file].clear()
        name = plain_path(file).name
        about = steps.object_of(found)
        if (agent := _AGENT.match(name)) is not None:
            self._meta(self._agent(agent[1], file), about)
        else:
            self._snapshot(self._workflow(name.removesuffix(".json")), about)

    def _meta(self, thread: Thread, about: Mapping[str, Any]) -> None:
        """Decode what stands beside a sub-agent's file: its name and the tool call that started it."""
        thread.changed = not thread.is_compaction
        if (tool := steps.text_of(about.get("toolUseId"))) is not None and thread.link != f"tool:{tool}":
            self._find_link(thread, tool)
        name = steps.text_of(about.get("name")) or steps.text_of(about.get("agentType"))
        thread.name = name or thread.name

    def _snapshot(self, thread: Thread, about: Mapping[str, Any]) -> None:
        """Decode the last state of a workflow."""
        thread.changed = True
        thread.name = steps.text_of(about.get("workflowName")) or steps.text_of(about.get("name")) or thread.name
        status = _FLOW_STATES.get(str(about.get("status")))
        if status is not None:
            thread.done = max(thread.end or 0, *(other.end or 0 for other in self._threads.values())), status
        for name in ("result", "output", "error"):
            if (value := about.get(name)) is not None:
                thread.result["error" if name == "error" else "output"] = value
        thread.result["snapshot"] = {name: value for name, value in about.items() if name not in _SNAPSHOT}

    # What is left

    def _rewound(self, record: Mapping[str, Any], millis: int) -> None:
        """Mark the steps of a branch that a prompt replaces: it has the parent of an earlier prompt."""
        parent, uuid = record.get("parentUuid"), record.get("uuid")
        if type(parent) is not str or type(uuid) is not str:
            return
        for step in self._rewinds.prompt(parent, uuid):
            self._out.append(step)
            self._main.open.pop(step.key, None)
        # open calls of the branch are cancelled by the prompt itself

    def _event(
        self, record: Mapping[str, Any], millis: int, name: str, content: Any, level: str = "info", **more: Any
    ) -> None:
        at = self._clock.start(millis)
        payload = {"name": name, "level": level, "content": content, **more}
        self._emit(
            Step(self._session, self._key(record, millis), self._thread.top, "event", at, at, "complete", payload)
        )

    def _unknown(self, record: Mapping[str, Any], kind: str, millis: int) -> None:
        kind = kind[:60]
        self._unread(f"record of type {kind}")
        at = self._clock.start(millis)
        self._emit(unknown(self._session, self._key(record, millis), self._thread.top, kind, at, dict(record)))

    # Metadata

    def _summary_line(self, record: Mapping[str, Any]) -> None:
        if record.get("leafUuid") in self._clock.known:  # others describe other sessions
            self._facts.title(0, record.get("summary"))

    def _permission(self, record: Mapping[str, Any]) -> None:
        if (mode := steps.text_of(record.get("permissionMode"))) is not None:
            self._facts.set_permission(mode)

    def _pull_request(self, record: Mapping[str, Any]) -> None:
        if (url := steps.text_of(record.get("prUrl"))) is not None:
            self._facts.list("pull_requests", url)

    def _frame(self, record: Mapping[str, Any]) -> None:
        if (url := steps.text_of(record.get("frameUrl"))) is not None:
            self._facts.list("frames", url)

    def _plain(self, record: Mapping[str, Any]) -> None:
        kind = str(record.get("type"))
        more = {name: value for name, value in record.items() if name not in _COMMON and name != "lastSequenceNum"}
        if more:
            self._facts.metadata[kind.replace("-", "_")] = next(iter(more.values())) if len(more) == 1 else more


_TOTALS = {
    "totalTokens": "reported_tokens",
    "totalToolUseCount": "reported_tool_calls",
    "totalDurationMs": "reported_duration_ms",
}
_FLOW_STATES: dict[str, Status] = {
    "completed": "complete", "complete": "complete", "succeeded": "complete", "success": "complete",
    "failed": "failed", "error": "failed", "killed": "cancelled", "cancelled": "cancelled", "stopped": "cancelled",
}  # fmt: skip
_SNAPSHOT = frozenset({"result", "output", "error", "workflowName", "name", "status"})
_Handler = Callable[[ClaudeDecoder, dict[str, Any], int], None]
_HANDLERS: dict[str, _Handler] = {
    "user": ClaudeDecoder._user,
    "assistant": ClaudeDecoder._assistant,
    "system": ClaudeDecoder._system,
    "attachment": ClaudeDecoder._attachment,
    "queue-operation": ClaudeDecoder._queue,
}
_METADATA: dict[str, Callable[[ClaudeDecoder, dict[str, Any]], None]] = {
    "summary": ClaudeDecoder._summary_line,
    "ai-title": lambda self, record: self._facts.title(1, record.get("aiTitle")),
    "custom-title": lambda self, record: self._facts.title(2, record.get("customTitle")),
    "permission-mode": ClaudeDecoder._permission,
    "pr-link": ClaudeDecoder._pull_request,
    "frame-link": ClaudeDecoder._frame,
    **dict.fromkeys(
        ("mode", "agent-name", "agent-color", "agent-setting", "bridge-session", "worktree-state", "relocated",
         "continued-in", "tag"),
        ClaudeDecoder._plain,
    ),
}  # fmt: skip
"""How records become metadata of the run, by their type."""

