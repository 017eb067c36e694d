"""Decodes model calls and tool calls in the records of Claude Code."""

from collections.abc import Mapping
from typing import Any

from agentspan.arriving import Status, Step, as_asked, object_in, text_in, unicode_of
from agentspan.sessions import claude_steps as steps
from agentspan.sessions.claude_agents import Agents
from agentspan.sessions.claude_facts import MILLI, Call, Early, Recent, Thread
from agentspan.sessions.claude_output import Output

_MOST_OPEN = 1000
_MOST_EARLY = 16
_MOST_ENDED = 5000
_LEAST_WAIT_MS = 1000
"""The shortest wait that is noted between a tool call and the time that the tool took: for a person's permission."""


class Calls:
    """Decodes the model calls and tool calls of a session."""

    def __init__(self, out: Output, agents: Agents) -> None:
        self._out = out
        self._agents = agents
        self._ended_keys: Recent[str, bool] = Recent(_MOST_ENDED)

    def assistant(self, record: Mapping[str, Any], millis: int) -> None:
        """Decode a record of the model."""
        message = object_in(record.get("message"))
        model = text_in(message.get("model"))
        if model == steps.SYNTHETIC or record.get("isApiErrorMessage") is True:
            self.said_itself(record, message, millis)
            return
        thread = self._out.thread
        call = self._call_of(thread, record, message, millis)
        call.changed = True
        call.end = max(call.end, millis * MILLI)
        if type(usage := message.get("usage")) is dict:
            call.usage = usage
        reason = text_in(message.get("stop_reason"))
        if reason is not None:
            call.result["finish_reason"] = reason
        if record.get("isAbortedMidStream") is True:
            call.result["aborted"] = record.get("errorDetails") or True
        has_tools = False
        for block in steps.blocks_of(message.get("content")):
            has_tools |= self._block(call, block, record, millis)
        self._stands(thread, call, reason, has_tools=has_tools)

    def _call_of(self, thread: Thread, record: Mapping[str, Any], message: Mapping[str, Any], millis: int) -> Call:
        """Return the model call that a record belongs to: a new one, or that with its message and request."""
        id, request = text_in(message.get("id")), text_in(record.get("requestId"))
        key = unicode_of(f"llm:{id or record.get('uuid') or millis}:{request or ''}")
        call = thread.calls.get(key)
        if call is None:
            self._out.flush(thread)
            call = self._new_call(record, key, text_in(message.get("model")), millis)
            thread.add(call)
            if id is not None:
                call.result["response_id"] = id
            if request is not None:
                call.result["request_id"] = request
        return call

    def _new_call(self, record: Mapping[str, Any], key: str, model: str | None, millis: int) -> Call:
        """Return a new model call: it begins at the time of the record that it answers."""
        payload: dict[str, Any] = {"model": model or "unknown"}
        if (provider := steps.provider_of(model)) is not None:
            payload["provider"] = provider
        if (effort := text_in(record.get("effort"))) is not None:
            payload["effort"] = effort
        if (skill := text_in(record.get("attributionSkill"))) is not None:
            payload["skill"] = skill
        thread = self._out.thread
        payload |= thread.settings
        if thread.is_compaction:
            payload["purpose"] = "compaction"
        elif self._out.facts.permission is not None and thread.id is None:
            payload["permission_mode"] = self._out.facts.permission
        if model is not None and model != thread.model:
            thread.model = thread.model or model
            self._out.facts.list("models", model)
        return Call(key, self._out.clock.start(self._out.clock.asked(record, millis)), payload)

    def _block(self, call: Call, block: dict[str, Any], record: Mapping[str, Any], millis: int) -> bool:
        """Add a content block to a model call; return whether it calls a tool."""
        kind = block.get("type")
        if kind == "text":
            if (text := text_in(block.get("text"))) is not None and text not in call.texts:
                call.texts.append(text)
        elif kind in ("thinking", "redacted_thinking"):
            if (text := text_in(block.get("thinking"))) is not None and text not in call.thoughts:
                call.thoughts.append(text)
        elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
            self._call_tool(call, block, record, millis)
            return bool(kind == "tool_use")
        elif type(kind) is str and kind.endswith("_tool_result") and self._ended(block, record, millis):
            pass
        else:
            call.blocks.append(block)
        return False

    def _call_tool(self, call: Call, block: dict[str, Any], record: Mapping[str, Any], millis: int) -> None:
        id = text_in(block.get("id"))
        type_, payload = steps.call_of(block)
        uuid = record.get("uuid")
        key = unicode_of(f"tool:{id or uuid or millis}")
        call.calls.append({"id": id, "name": block.get("name"), "arguments": as_asked(payload["arguments"])})
        if block.get("type") != "tool_use":
            payload["runs_at"] = "provider"
        open_ = self._out.thread.open
        if key in open_ or self._ended_keys[key]:
            return
        open_[key] = Step(
            self._out.session, key, self._out.thread.top, type_, self._out.clock.start(millis), None, "active", payload
        )
        early = self._out.thread.early.pop(key, None)
        if early is not None:
            self._ended(early.block, early.record, early.millis, early.structured)
        elif len(open_) > _MOST_OPEN:
            self._out.cancel(open_.pop(next(iter(open_))), millis)

    def _stands(self, thread: Thread, call: Call, reason: str | None, *, has_tools: bool) -> None:
        """Note the outcome of a conversation after a record of the model."""
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

    def said_itself(self, record: Mapping[str, Any], message: Mapping[str, Any], millis: int) -> None:
        """Keep a message that Claude Code wrote in the place of the model: an error, or that nothing was asked."""
        text = steps.plain_text(message.get("content"))
        is_error = record.get("isApiErrorMessage") is True
        kind = record.get("error")
        self._out.event(
            record, millis, "api_error" if is_error else "synthetic", text, "error" if is_error else "info",
            {} if kind is None else {"error": kind},
        )  # fmt: skip
        if is_error:
            thread = self._out.thread
            thread.state = "limit" if steps.is_limit(text, kind) else "error"
            thread.error = {"type": text_in(kind) or "api_error", "message": text}

    def tool_result(self, block: dict[str, Any], record: Mapping[str, Any], structured: Any, millis: int) -> None:
        """Decode the result of a tool call.

        Args:
            block: the `tool_result` block.
            structured: the record's toolUseResult, if the record has no other result.
        """
        key = unicode_of(f"tool:{block.get('tool_use_id')}")
        if self._ended_keys[key] or self._ended(block, record, millis, structured):
            return  # some versions write a result twice
        early = self._out.thread.early
        early[key] = Early(block, record, structured, millis, self._out.clock.start(millis))
        if len(early) > _MOST_EARLY:
            key = next(iter(early))
            self.without_call(self._out.thread, key, early.pop(key))
            self._out.unread("a tool result without its call")

    def without_call(self, thread: Thread, key: str, early: Early) -> None:
        """Emit a result without a call, as the call of an unknown tool. A call that comes later replaces it."""
        id = text_in(early.block.get("tool_use_id"))
        payload = {"name": "unknown", "arguments": None, **({} if id is None else {"call_id": id})}
        result = steps.result_of("tool", payload, early.block, early.structured)
        at = early.start
        status: Status = "cancelled" if steps.was_stopped(early.block, early.record) else "complete"
        self._out.records.append(Step(self._out.session, key, thread.top, "tool", at, at, status, payload, result))

    def _ended(self, block: dict[str, Any], record: Mapping[str, Any], millis: int, structured: Any = None) -> bool:
        """End the step of the tool that a result belongs to; return whether there is one."""
        key = unicode_of(f"tool:{block.get('tool_use_id')}")
        thread = self._out.thread
        step = thread.open.pop(key, None) or thread.late.pop(key, None)
        if step is None:
            return False
        self._ended_keys.put(key, True)
        result = steps.result_of(step.type, step.payload, block, structured)
        status: Status = "cancelled" if steps.was_stopped(block, record) else "complete"
        end = max(step.start_ns, millis * MILLI)
        waited_ms = (end - step.start_ns) // MILLI - steps.took_ms(block, record, structured)
        if waited_ms >= _LEAST_WAIT_MS:
            result["waited_ms"] = waited_ms
        self._out.emit(
            # Step._replace takes twice as long as the constructor
            Step(step.session, key, step.parent, step.type, step.start_ns, end, status, step.payload, result)
        )
        self._agents.ended_call(
            step, structured, end, "failed" if status == "complete" and "is_error" in result else status
        )
        return True
