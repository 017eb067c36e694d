"""Decodes the records of Claude Code's session files, of the main file and of those of sub-agents, into steps.

Records of one model answer (same message id and request id) become one `llm` step with the last usage. Steps stand in
the order of the file: a step starts not before the record that is its parent in the graph.

Left out on purpose:
- `progress` (its messages stand in the sub-agent's file; it only links that to the tool call), `file-history-*`,
  `last-prompt`, `atis-latch`, `tools-used`, and `summary` lines about other sessions: bookkeeping that repeats or says
  nothing;
- `api-request-blob`: the messages of a request once more, as they were sent; a system prompt and the tools are kept
  once a conversation, though they are written with every start;
- the messages that a compaction has kept and a fork copies, without their tokens, if they were read before;
- text that was queued and taken back before the agent read it;
- signatures of thinking, and the data of redacted thinking: nobody but the provider can read them;
- `mode`, titles, links, worktrees and the like become metadata of the run.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from agentspan.arriving import (
    Record,
    Status,
    Step,
    Unread,
    commit_in,
    object_in,
    part_of,
    text_in,
    tokens_in,
    unicode_of,
)
from agentspan.sessions import claude_steps as steps
from agentspan.sessions.claude_agents import Agents
from agentspan.sessions.claude_calls import Calls
from agentspan.sessions.claude_facts import MILLI, Clock, Facts, Recent, Thread
from agentspan.sessions.claude_output import Output
from agentspan.sessions.formats import LineDecoder, Source
from agentspan.sessions.reading import plain_path

_LOADS = json.JSONDecoder(parse_constant=lambda _: None)
_RAW_DECODE = _LOADS.raw_decode
_STOPS = ("Stop", "SubagentStop")
_TOOL_HOOKS = ("PreToolUse", "PostToolUse", "PostToolUseFailure")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_AGENT = re.compile(r"agent-(.+?)(?:\.meta\.json|\.jsonl)\Z")
_MOST_DOCUMENT = 8 * 2**20
_MOST_UNTIMED = 100
_MOST_HELD = 100
_MOST_SENT = 200
_MOST_SEEN = 5000
_RECENT = 16

_EVENTS = frozenset({
    "turn_duration", "away_summary", "local_command", "informational", "bridge_status", "api_refusal",
    "model_refusal_fallback", "session_start", "error", "init", "permission_retry", "api_metrics",
})  # fmt: skip
"""The subtypes of system records that are events."""
_ATTACHMENTS = frozenset({
    "agent_listing_delta", "auto_mode", "auto_mode_exit", "batching_reminder_sent", "budget_usd",
    "command_permissions", "compact_file_reference", "date", "date_change", "deferred_tools_delta", "diagnostics",
    "directory", "dynamic_skill", "edited_image_file", "edited_text_file", "environment", "file",
    "hook_additional_context", "hook_permission_decision", "hook_stopped_continuation", "hook_system_message",
    "instructions", "invoked_skills", "mcp_instructions_delta", "mcp_resource", "model", "nested_memory",
    "opened_file_in_ide", "output_style", "plan_mode", "plan_mode_exit", "plan_mode_reentry", "prompt_snapshot",
    "read_truncation_notice", "relevant_memories", "remote_session_change", "selected_lines_in_ide",
    "session_context", "silent_turn_reminder", "skill_listing", "task_reminder", "task_status", "todo",
    "todo_reminder", "token_usage", "total_tokens_reminder", "ultra_effort_enter", "ultra_effort_exit",
})  # fmt: skip
"""The types of attachments that are events. Hooks and queued commands are other steps."""
_HOOKS = frozenset({"hook_success", "hook_blocking_error", "hook_non_blocking_error", "hook_error_during_execution"})
_LEFT_OUT = frozenset(
    {"file-history-snapshot", "file-history-delta", "last-prompt", "atis-latch", "tools-used", "api-request-blob"}
)
_COMMON = frozenset({
    "parentUuid", "isSidechain", "userType", "cwd", "sessionId", "session_id", "version", "gitBranch", "slug",
    "type", "uuid", "timestamp", "entrypoint", "isMeta", "subtype", "level", "logicalParentUuid", "sessionKind",
})  # fmt: skip
"""Members of events that say nothing about them."""


class _File:
    """One file of a session, while it is decoded.

    Attributes:
        thread: the sub-agent whose file it is; None for the main file, and before its first record.
        document: what was read of a file that is one JSON document; None for files of records.
        is_counted: whether the document was counted as not understood.
        seen: the hashes of its latest lines that have a uuid.
    """

    __slots__ = ("clock", "document", "is_counted", "is_main", "path", "seen", "thread")

    def __init__(self, path: Path, *, is_main: bool) -> None:
        self.path, self.is_main, self.is_counted = path, is_main, False
        self.clock = Clock()
        self.seen: Recent[int, bool] = Recent(_MOST_SEEN)
        self.thread: Thread | None = None
        self.document = bytearray() if plain_path(path).name.endswith(".json") else None


class ClaudeDecoder(LineDecoder):
    """Decodes the files of one session: the main file, then those of its sub-agents and workflows."""

    def __init__(self, source: Source) -> None:
        name = plain_path(source.path).name
        stem = name.removesuffix(".jsonl")
        self._out = Output(Facts(stem if _ID.match(stem) else None), name)
        self._began_unnamed = self._out.facts.id is None
        self._agents = Agents(self._out)
        self._calls = Calls(self._out, self._agents)
        self._file = _File(source.path, is_main=True)
        self._out.clock = self._file.clock
        self._files = {source.path: self._file}
        self._top = self._out.main
        if (orphan := _AGENT.match(name)) is not None:  # the main file is gone: the sub-agent stands for the session
            self._file.thread = self._top = self._agents.agent(orphan[1], source.path)
        self._queued: list[str] = []
        self._steered: list[tuple[str, str]] = []
        self._stops: list[Any] = []
        self._untimed: list[dict[str, Any]] = []
        self._held: list[Record] = []
        self._announced = False

    def feed(self, file: Path, line: bytes) -> Iterable[Record]:
        """Decode one line; return the steps that ended with it."""
        if file is not self._file.path:
            self._open(file)
        self._out.size = len(line)
        if self._file.document is not None:
            self._document(self._file, line)
            return self._sent()
        try:
            found = from_json(line, allow_inf_nan=False, cache_strings="keys")
        except ValueError:
            found = None
        if type(found) is dict:
            if not self._is_repeated(found, line):
                self._take(found)
        else:
            for record in self._pieces(line.decode("utf-8", "replace")):
                self._take(record)
        return self._sent() if self._out.records or not self._announced else ()  # half of the lines end no step

    def rest(self) -> Iterable[Record]:
        """Return the steps that have not ended, as they are now, and the Session."""
        out = self._out
        for file in self._files.values():
            if file.document and not self._read_document(file, bytes(file.document) + b"}") and not file.is_counted:
                file.is_counted = True
                out.unread("a document that is no JSON")
        threads = [out.main, *self._agents.threads.values()]
        for thread in threads:
            out.flush(thread)
            out.records += thread.open.values()
            for key, early in thread.early.items():
                self._calls.without_call(thread, key, early)
        self._agents.emit_changed()
        return self._sent(resting=True)

    def _sent(self, *, resting: bool = False) -> list[Record]:
        """Return the collected records, and keep none: they may be long. None before the session's facts are known."""
        records, self._out.records = self._out.records, []
        if self._began_unnamed:
            records = [self._named(record) for record in records]
        if self._announced and not resting:
            return records
        facts = self._out.facts
        if self._announced:
            return [facts.session(self._top), *records]
        self._held += records
        is_known = facts.id is not None and facts.started is not None
        waits = facts.version is None and not (resting and self._held) and len(self._held) < _MOST_HELD
        if resting and not is_known:
            lacking = ("a sessionId", self._held) if facts.id is None else ("a timestamp", self._untimed)
            return [Unread(None, f"a record without {lacking[0]}", len(lacking[1]))] if lacking[1] else []
        if not is_known or waits:
            return []
        held, self._held, self._announced = [self._named(record) for record in self._held], [], True
        return [facts.session(self._top), *held]

    def _named(self, record: Record) -> Record:
        """Return a record of the session, also one that was made before a line had named it."""
        id = self._out.session
        return record._replace(session=id) if isinstance(record, Step) and record.session != id else record

    def _is_repeated(self, record: Mapping[str, Any], line: bytes) -> bool:
        """Return whether a line stands in the file a second time, as after two files were put together."""
        if type(record.get("uuid")) is not str:
            return False
        hashed, seen = hash(line), self._file.seen
        if seen[hashed]:
            return True
        seen.put(hashed, True)
        return False

    def _open(self, path: Path) -> None:
        """Make a file the current one."""
        file = self._files.get(path)
        if file is None:
            file = self._files[path] = _File(path, is_main=False)
        self._file = file
        self._out.clock = file.clock
        file.path = path

    def _take(self, record: dict[str, Any]) -> None:
        """Decode one record."""
        file, out = self._file, self._out
        kind = record.get("type")
        millis = out.clock.time_of(record)
        if file.is_main:
            out.facts.note(record, millis)
        if self._untimed and out.facts.started is not None:
            untimed, self._untimed = self._untimed, []
            for each in untimed:
                self._take(each)
        if kind == "progress":
            self._agents.progress(record)
            return
        handler = _HANDLERS.get(kind) if type(kind) is str else None
        if handler is None and self._took_without_time(record, kind):
            return
        if millis is None and (millis := out.facts.started) is None:
            self._untimed.append(record)  # no record before it has a time either
            if len(self._untimed) > _MOST_UNTIMED:
                self._untimed.pop(0)
                out.unread("a record without a time")
            return
        is_main = file.is_main and file.thread is None and record.get("isSidechain") is not True
        thread = out.thread = out.main if is_main else self._thread_of(file, record)
        if out.copied and self._is_copy(record, kind, millis):
            return
        if thread.id is not None:
            self._agents.extend(thread, record, millis)
        if handler is None:
            out.unknown(record, kind if type(kind) is str else "unknown", millis)
        else:
            handler(self, record, millis)

    def _is_copy(self, record: dict[str, Any], kind: Any, millis: int) -> bool:
        """Return whether a record is a message from before the compaction that a fork has copied, without its tokens.

        It becomes a message; if the original was read, nothing.
        """
        out, uuid = self._out, steps.uuid_of(record)
        if type(uuid) is not str or uuid not in out.copied:
            return False
        was_read = out.copied.pop(uuid)
        message = object_in(record.get("message"))
        if kind in ("user", "assistant") and not was_read:
            payload = {"role": kind, "content": message.get("content"), "copied": True}
            at = out.clock.start(millis)
            key = unicode_of(f"copied:{uuid}")
            out.emit(Step(out.session, key, out.thread.top, "message", at, at, "complete", payload))
        return True

    def _took_without_time(self, record: dict[str, Any], kind: Any) -> bool:
        """Decode a record that is metadata, a line of a journal, or left out; return whether it is one of these."""
        if type(kind) is not str:
            return False
        if (meta := _METADATA.get(kind)) is not None:
            if self._file.is_main:
                meta(self, record)
            return True
        if kind in ("started", "result") and "agentId" in record:
            self._agents.journal(self._file.path, record, kind)
            return True
        return kind in _LEFT_OUT

    def _thread_of(self, file: _File, record: Mapping[str, Any]) -> Thread:
        """Return the conversation of a record that is not of the main one."""
        if (thread := file.thread) is not None:
            return thread
        if file.is_main:
            return self._agents.side_of(record)
        name = plain_path(file.path).name
        found = _AGENT.match(name)
        id = found[1] if found is not None else text_in(record.get("agentId")) or name
        file.thread = self._agents.agent(id, file.path)
        return file.thread

    def _pieces(self, text: str) -> Iterable[dict[str, Any]]:
        """Yield the records of a line that is not one record: a crash or two writers can leave two on one."""
        at, text = 0, text.strip(" \t\r\n\0\ufeff")
        try:
            while at < len(text):
                found, end = _RAW_DECODE(text, at)
                if type(found) is not dict:
                    break
                yield found
                at = end
                while at < len(text) and text[at] in " \t\0":
                    at += 1
        except (ValueError, RecursionError):
            pass
        if at < len(text) or not text:
            self._out.unread("a line that is no JSON")

    def _assistant(self, record: Mapping[str, Any], millis: int) -> None:
        self._calls.assistant(record, millis)

    def _user(self, record: Mapping[str, Any], millis: int) -> None:
        message = object_in(record.get("message"))
        content = message.get("content")
        if record.get("isCompactSummary") is True:
            self._summary(record, content, millis)
            return
        results = 0
        if type(content) is list:
            blocks = steps.blocks_of(content)
            others = [block for block in blocks if block.get("type") != "tool_result"]
            results = len(blocks) - len(others)
            structured = record.get("toolUseResult") if results == 1 else None
            for block in blocks if results else ():
                if block.get("type") == "tool_result":
                    self._calls.tool_result(block, record, structured, millis)
            if results and not others:
                return
            is_text = len(others) == 1 and others[0].get("type") == "text"
            content = others[0].get("text", others) if is_text else others
        self._said(record, content, millis, beside_result=results > 0)

    def _said(self, record: Mapping[str, Any], content: Any, millis: int, *, beside_result: bool) -> None:
        """Decode a text of a person or of the program."""
        text = steps.plain_text(content)
        thread = self._out.thread
        kind = steps.kind_of_text(text)
        if kind == "interruption":
            self._interrupted(record, text, millis)
        elif record.get("isMeta") is True:
            payload = {"role": "system", "content": content}
            if (call := text_in(record.get("sourceToolUseID"))) is not None:
                payload["call_id"] = call
            self._out.message(record, payload, millis)
        elif thread.id is not None:
            self._told(record, content, millis)
        elif kind == "prompt":
            self._prompt(record, content, text, millis, steering=beside_result)
        else:
            self._notice(record, kind, text, millis)

    def _prompt(self, record: Mapping[str, Any], content: Any, text: str, millis: int, *, steering: bool) -> None:
        thread = self._out.thread
        self._out.flush(thread)
        if not steering:
            self._out.cancel_open(thread, millis)
            self._rewound(record)
            self._out.facts.prompts += 1
            self._out.facts.prompt(text)
            thread.state, thread.error = None, None
        payload: dict[str, Any] = {"role": "user", "content": content}
        if (source := text_in(record.get("promptSource"))) is not None:
            payload["source"] = source
        if steering:
            payload["steering"] = True
        self._out.message(record, payload, millis)

    def _told(self, record: Mapping[str, Any], content: Any, millis: int) -> None:
        """Decode a text of the caller to a sub-agent: the first one is its goal, later ones steer it."""
        thread = self._out.thread
        thread.state = None
        if thread.is_compaction:
            self._out.message(record, {"role": "system", "content": content}, millis)
        elif thread.goal is None:
            thread.goal = content
            if self._top is thread:
                self._out.facts.prompt(steps.plain_text(content))
        else:
            self._out.message(record, {"role": "user", "content": content, "steering": True}, millis)

    def _notice(self, record: Mapping[str, Any], kind: str, text: str, millis: int) -> None:
        if kind == "command":
            command = steps.command_of(text)
            if command.partition(" ")[0] not in steps.LOCAL_COMMANDS:
                self._out.facts.prompt(command)
                self._out.thread.state = self._out.thread.error = None
            self._out.event(record, millis, "command", command)
            return
        if kind == "task-notification":
            self._agents.finish_task(text, millis)
        self._out.event(record, millis, kind, text)

    def _interrupted(self, record: Mapping[str, Any], text: str, millis: int) -> None:
        thread = self._out.thread
        self._out.flush(thread)
        self._out.cancel_open(thread, millis)
        self._out.event(record, millis, "interrupted", text, "warning")
        thread.state, thread.error = "interrupted", None

    def _summary(self, record: Mapping[str, Any], content: Any, millis: int) -> None:
        """Add the summary to the compaction before it."""
        thread = self._out.thread
        summary = steps.plain_text(content) or content
        step, thread.compaction = thread.compaction, None
        if step is None:
            at = self._out.clock.start(millis)
            payload: dict[str, Any] = {"trigger": "unknown"}
            key = self._out.key(record, millis)
            step = Step(self._out.session, key, thread.top, "compaction", at, at, "complete", payload)
        self._out.emit(step._replace(result={**(step.result or {}), "summary": summary}))

    def _system(self, record: Mapping[str, Any], millis: int) -> None:
        kind = record.get("subtype")
        thread = self._out.thread
        if kind in ("compact_boundary", "microcompact_boundary"):
            self._compaction(record, kind, millis)
        elif kind == "api_error":
            self._failed_call(record, millis)
        elif kind == "stop_hook_summary":
            self._stop_hooks(record, millis)
        elif type(kind) is str and kind in _EVENTS:
            if thread is self._top:
                self._out.facts.listing(kind, record)
            content = record.get("content")
            more = {name: value for name, value in record.items() if name not in _COMMON and name != "content"}
            level = text_in(record.get("level")) or "info"
            if kind == "local_command" and type(content) is str and steps.kind_of_text(content) == "command":
                content = steps.command_of(content)
            has_text = content is not None
            content = content if has_text else more or None
            self._out.event(record, millis, kind, content, level, more if has_text else {})
        else:
            self._out.unknown(record, f"system:{kind}", millis)
        if kind == "turn_duration" and thread.state is None and thread.calls:
            last = next(reversed(thread.calls.values()))
            thread.state = "answered" if last.texts else None

    def _stop_hooks(self, record: Mapping[str, Any], millis: int) -> None:
        """Decode the summary of the hooks at the end of a turn, unless each has a record of its own before it."""
        payload, result = steps.stop_hooks_of(record)
        infos, call = record.get("hookInfos"), record.get("toolUseID")
        hooks = len(infos) if type(infos) is list else 0
        says_more = result.keys() - {"errors"}
        if not hooks or says_more or self._stops.count(call) < hooks:
            self._hook(record, payload, result, millis, failed="errors" in result)

    def _failed_call(self, record: Mapping[str, Any], millis: int) -> None:
        thread = self._out.thread
        payload, result = steps.api_error_of(record)
        model = thread.model or "unknown"
        start = self._out.clock.start(self._out.clock.asked(record, millis))
        key, end = self._out.key(record, millis), max(start, millis * MILLI)
        payload = {"model": model, **payload, **thread.settings}
        self._out.emit(Step(self._out.session, key, thread.top, "llm", start, end, "failed", payload, result))
        if payload.get("attempt", 0) >= payload.get("max_retries", 1):
            thread.state, thread.error = "error", result["error"]

    def _attachment(self, record: Mapping[str, Any], millis: int) -> None:
        attachment = object_in(record.get("attachment"))
        kind = attachment.get("type")
        if type(kind) is not str:
            self._out.unknown(record, "attachment", millis)
        elif kind in _HOOKS:
            payload, result = steps.hook_of(attachment)
            if payload.get("event") in _STOPS:
                self._stops.append(attachment.get("toolUseID"))
                del self._stops[:-_RECENT]
            if tokens_in(attachment.get("durationMs")):
                payload["duration_ms"] = attachment["durationMs"]
            self._hook(record, payload, result, millis, failed=kind != "hook_success")
        elif kind == "queued_command":
            self._queued_command(record, attachment, millis)
        else:
            if kind not in _ATTACHMENTS:
                self._out.unread(f"attachment of type {kind[:60]}")
            if self._out.thread is self._top:
                self._out.facts.listing(kind, attachment)
            if kind == "prompt_snapshot" and not self._is_new(attachment.get("systemPrompt"), attachment.get("tools")):
                return
            self._out.event(record, millis, kind, {name: value for name, value in attachment.items() if name != "type"})

    def _is_new(self, *parts: Any) -> bool:
        """Return whether one of these parts of a request has not been read in this conversation.

        Not in this session: which of its files is read first is chance while they grow.
        """
        hashes = {part_of(json.dumps(part, sort_keys=True)) for part in parts if part}
        sent = self._out.thread.sent
        is_new = not hashes <= sent
        if len(sent) < _MOST_SENT:
            sent |= hashes
        return is_new

    def _request(self, record: Mapping[str, Any], millis: int) -> None:
        """Note the settings of a request: they belong to the model call that follows."""
        self._out.thread.settings = steps.settings_of(record.get("params"))

    def _shape(self, record: Mapping[str, Any], millis: int) -> None:
        """Decode the system prompt and the tools of the requests that follow."""
        shape = object_in(record.get("shape"))
        if self._out.thread is self._top:
            self._out.facts.listing("api-request-shape", shape)
        if self._is_new(shape.get("system"), shape.get("tools")):
            self._out.event(record, millis, "api-request-shape", shape)

    def _cost(self, record: Mapping[str, Any]) -> None:
        cost = record.get("totalCostUSD")
        if type(cost) in (int, float):
            self._out.facts.metadata["stated_cost_usd"] = cost

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
            self._out.unknown(record, f"queue-operation:{operation}", millis)

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
        elif text.partition(" ")[0] not in steps.LOCAL_COMMANDS:  # a command has a record of its own
            self._out.message(record, {"role": "user", "content": content, "steering": True}, millis)

    def _summary_line(self, record: Mapping[str, Any]) -> None:
        if self._out.clock.known(record.get("leafUuid")) is not None:  # others describe other sessions
            self._out.facts.title(0, record.get("summary"))

    def _permission(self, record: Mapping[str, Any]) -> None:
        if (mode := text_in(record.get("permissionMode"))) is not None:
            self._out.facts.set_permission(mode)

    def _link(self, record: Mapping[str, Any]) -> None:
        for member, name in (("prUrl", "pull_requests"), ("frameUrl", "frames")):
            if (url := text_in(record.get(member))) is not None:
                self._out.facts.list(name, url)

    def _worktree(self, record: Mapping[str, Any]) -> None:
        commit = commit_in(object_in(record.get("worktreeSession")).get("originalHeadCommit"))
        self._out.facts.commit = commit or self._out.facts.commit
        self._plain(record)

    def _plain(self, record: Mapping[str, Any]) -> None:
        kind = str(record.get("type"))
        more = {name: value for name, value in record.items() if name not in _COMMON and name != "lastSequenceNum"}
        if more:
            self._out.facts.metadata[kind.replace("-", "_")] = next(iter(more.values())) if len(more) == 1 else more

    def _compaction(self, record: Mapping[str, Any], kind: str, millis: int) -> None:
        out, thread = self._out, self._out.thread
        out.flush(thread)
        payload, result = steps.compaction_of(record)
        at = out.clock.start(self._compaction_start(record, payload, millis))
        end = max(at, millis * MILLI)
        step = Step(
            out.session, out.key(record, millis), thread.top, "compaction", at, end, "complete", payload, result
        )
        out.emit(step)
        if kind == "compact_boundary":
            thread.compaction = step
            out.copied = {uuid: out.clock.was_read(uuid) for uuid in steps.preserved_of(record)}
            self._agents.compacted(record.get("logicalParentUuid"), step.key)

    def _compaction_start(self, record: Mapping[str, Any], payload: Mapping[str, Any], millis: int) -> int:
        """Return when a compaction began: its record is written when it ends."""
        took = tokens_in(object_in(payload.get("details")).get("durationMs"))
        last = self._out.clock.known(record.get("logicalParentUuid"))
        if not took and payload["trigger"] == "auto" and last is not None:  # nothing happens in between
            return min(millis, last)
        return max(0, millis - took)

    def _hook(
        self, record: Mapping[str, Any], payload: dict[str, Any], result: dict[str, Any], millis: int, *, failed: bool
    ) -> None:
        out = self._out
        call = unicode_of(f"tool:{payload.get('call_id')}")
        is_known = call in out.thread.open or str(payload.get("event")) in _TOOL_HOOKS
        parent = call if is_known and "call_id" in payload else out.thread.top
        start = out.clock.start(max(0, millis - tokens_in(payload.get("duration_ms"))))
        if failed and "error" not in result:
            result["error"] = {"type": "hook_error", "message": "the hook failed"}
        status: Status = "failed" if failed else "complete"
        end = max(start, millis * MILLI)
        out.emit(
            Step(out.session, out.key(record, millis), parent, "hook", start, end, status, payload, result or None)
        )

    def _rewound(self, record: Mapping[str, Any]) -> None:
        """Mark the steps of a branch that a prompt replaces: it has the parent of an earlier prompt."""
        parent, uuid = record.get("parentUuid"), record.get("uuid")
        if type(parent) is str and type(uuid) is str:
            self._out.records += self._out.rewinds.prompt(parent, uuid)

    def _document(self, file: _File, line: bytes) -> None:
        """Decode a line of a file that is one JSON document."""
        assert file.document is not None
        if len(file.document) + len(line) > _MOST_DOCUMENT:
            file.document.clear()
            self._out.unread("a document that is too long")
            return
        may_end = not file.document or line.rstrip() == b"}"
        file.document += line
        if may_end and self._read_document(file, bytes(file.document)):
            file.document.clear()

    def _read_document(self, file: _File, text: bytes) -> bool:
        """Decode a document; return whether it is complete. (A last line without a line end is not fed.)"""
        try:
            found = _LOADS.decode(text.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            return False
        name, about = plain_path(file.path).name, object_in(found)
        if (agent := _AGENT.match(name)) is not None:
            self._agents.meta(self._agents.agent(agent[1], file.path), about)
        else:
            self._agents.snapshot(self._agents.workflow(name.removesuffix(".json")), about)
        return True


_Handler = Callable[[ClaudeDecoder, dict[str, Any], int], None]
_HANDLERS: dict[str, _Handler] = {
    "user": ClaudeDecoder._user,
    "assistant": ClaudeDecoder._assistant,
    "system": ClaudeDecoder._system,
    "attachment": ClaudeDecoder._attachment,
    "queue-operation": ClaudeDecoder._queue,
    "api-request": ClaudeDecoder._request,
    "api-request-shape": ClaudeDecoder._shape,
}
_METADATA: dict[str, Callable[[ClaudeDecoder, dict[str, Any]], None]] = {
    "summary": ClaudeDecoder._summary_line,
    "ai-title": lambda self, record: self._out.facts.title(1, record.get("aiTitle")),
    "custom-title": lambda self, record: self._out.facts.title(2, record.get("customTitle")),
    "permission-mode": ClaudeDecoder._permission,
    "pr-link": ClaudeDecoder._link,
    "frame-link": ClaudeDecoder._link,
    "worktree-state": ClaudeDecoder._worktree,
    "cost-state": ClaudeDecoder._cost,
    **dict.fromkeys(
        ("mode", "agent-name", "agent-color", "agent-setting", "bridge-session", "relocated",
         "continued-in", "tag"),
        ClaudeDecoder._plain,
    ),
}  # fmt: skip
"""How records become metadata of the run, by their type."""
