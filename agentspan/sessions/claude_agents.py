"""Puts the sub-agents of a session of Claude Code together: their conversations, and the tool calls that started them.

A sub-agent's records stand in a file of its own, or (in old versions) in the main file. What links it to its tool call
may come in any order: the tool's result, a progress record, or the small file beside the sub-agent's file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentspan.arriving import Status, Step, object_in, text_in, tokens_in, unicode_of
from agentspan.sessions import claude_steps as steps
from agentspan.sessions.claude_facts import MILLI, Recent, Thread, finished_task
from agentspan.sessions.claude_output import Output

_MOST_SIDES = 10_000
_BY_RECORD, _BY_CALL, _BY_FILE = range(3)
"""Where the name of a sub-agent stands: the last of these is the best."""
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


class Agents:
    """The sub-agents and workflows of a session.

    Attributes:
        threads: their conversations by id.
    """

    def __init__(self, out: Output) -> None:
        self._out = out
        self.threads: dict[str, Thread] = {}
        self._sides: Recent[str, Thread] = Recent(_MOST_SIDES)
        self._tasks: dict[str, Thread] = {}
        self._compactions: dict[str, str] = {}

    def agent(self, id: str, file: Path | None = None) -> Thread:
        """Return the conversation of a sub-agent."""
        thread = self.threads.get(id)
        if thread is None:
            thread = self.threads[id] = Thread(id, unicode_of(f"agent:{id}"))
            if id.startswith("acompact-"):
                thread.is_compaction, thread.top, thread.changed = True, None, False
        if file is not None and thread.link is None and not thread.is_compaction:
            at = file.parent
            if at.parent.name == "workflows":
                thread.link, thread.changed = self.workflow(at.name).top, True
        return thread

    def workflow(self, run: str) -> Thread:
        """Return the conversation that stands for a workflow: its agents are below it."""
        thread = self.threads.get(f"workflow:{run}")
        if thread is None:
            thread = self.threads[f"workflow:{run}"] = Thread(f"workflow:{run}", unicode_of(f"workflow:{run}"))
            thread.names[_BY_RECORD] = "workflow"
        return thread

    def side_of(self, record: Mapping[str, Any]) -> Thread:
        """Return the conversation of a sub-agent whose records stand in the main file."""
        id, uuid, parent = record.get("agentId"), record.get("uuid"), record.get("parentUuid")
        thread = self._sides[parent] if type(parent) is str else None
        if type(id) is str and id:
            thread = self.agent(id)
        if thread is None:
            thread = self.agent(f"side-{uuid if type(uuid) is str else self._out.size}")
            prompt = steps.plain_text(object_in(record.get("message")).get("content"))
            self._link_by_prompt(thread, prompt)
        if type(uuid) is str:
            self._sides.put(uuid, thread)
        return thread

    def _link_by_prompt(self, thread: Thread, prompt: str) -> None:
        """Put a sub-agent below the open tool call with its prompt."""
        linked = {other.link for other in self.threads.values()}
        for step in self._out.main.open.values():
            arguments = object_in(step.payload.get("arguments"))
            is_agent = step.payload.get("name") in steps.AGENT_TOOLS and step.key not in linked
            if is_agent and arguments.get("prompt") == prompt:
                self.link(thread, step)
                return

    def extend(self, thread: Thread, record: Mapping[str, Any], millis: int) -> None:
        """Note the time of a sub-agent's record."""
        thread.changed = not thread.is_compaction
        if thread.start is None:
            thread.start = self._out.clock.start(millis)
        thread.end = max(thread.end or 0, millis * MILLI)
        parent = record.get("parentUuid")
        if thread.is_compaction and type(parent) is str and (key := self._compactions.get(parent)) is not None:
            self._put_below(thread, key)
        elif thread.is_compaction and type(parent) is str:
            thread.parents.add(parent)
        if _BY_RECORD not in thread.names and (name := text_in(record.get("attributionAgent"))) is not None:
            thread.names[_BY_RECORD] = name

    def link(self, thread: Thread, step: Step) -> None:
        """Put a sub-agent below the step of the tool call that started it."""
        thread.changed = not thread.is_compaction
        thread.link = step.key
        arguments = object_in(step.payload.get("arguments"))
        thread.names[_BY_CALL] = text_in(arguments.get("subagent_type")) or str(step.payload.get("name"))
        thread.told = text_in(arguments.get("prompt")) or thread.told
        thread.asked = step.start_ns

    def _find_link(self, thread: Thread, tool: str) -> None:
        """Put a sub-agent below a tool call that may be open still."""
        key = unicode_of(f"tool:{tool}")
        for other in (self._out.main, *self.threads.values()):
            if (step := other.open.get(key)) is not None:
                self.link(thread, step)
                return
        thread.link, thread.changed = key, not thread.is_compaction

    def progress(self, record: Mapping[str, Any]) -> None:
        """Link a sub-agent to its tool call. Other records repeat all else that a progress record says."""
        data = record.get("data")
        if type(data) is not dict or data.get("type") != "agent_progress":
            return
        id, tool = text_in(data.get("agentId")), text_in(record.get("parentToolUseID"))
        if id is None or tool is None:
            return
        thread = self.agent(id)
        if thread.link is None:
            self._find_link(thread, tool)

    def ended_call(self, step: Step, structured: Any, end: int, status: Status) -> None:
        """Note the result of a tool call that has run a sub-agent or started a workflow."""
        name = step.payload.get("name")
        if name in steps.AGENT_TOOLS:
            run = object_in(structured)
            threads = [each for each in self.threads.values() if each.link == step.key]
            if (id := text_in(run.get("agentId"))) is not None:
                threads = [self.agent(id)]
            for thread in threads:
                self.link(thread, step)
                if run.get("isAsync") is not True:
                    thread.done = end, status
                self._note_totals(thread, run)
        elif name == "Workflow":
            self._started_workflow(step, object_in(structured))

    def _started_workflow(self, step: Step, run: Mapping[str, Any]) -> None:
        if (flow := text_in(run.get("runId"))) is not None:
            thread = self.workflow(flow)
            self.link(thread, step)
            thread.names[_BY_CALL] = text_in(run.get("workflowName")) or "workflow"
            if (task := text_in(run.get("taskId"))) is not None:
                self._tasks[task] = thread

    def _note_totals(self, thread: Thread, run: Mapping[str, Any]) -> None:
        thread.resolved = thread.resolved or text_in(run.get("resolvedModel"))
        for name, ours in _TOTALS.items():
            if count := tokens_in(run.get(name)):
                thread.result[ours] = count

    def finish_task(self, text: str, millis: int) -> None:
        """Note the end of a sub-agent or workflow in the background."""
        found = finished_task(text)
        thread = None if found is None else self.threads.get(found[0]) or self._tasks.get(found[0])
        if found is not None and thread is not None:
            thread.done, thread.changed = (millis * MILLI, found[1]), True
            if found[2]:
                thread.result["output"] = found[2]

    def journal(self, file: Path, record: Mapping[str, Any], kind: str) -> None:
        """Decode a line of a workflow's journal: an agent started, or has a result."""
        id = text_in(record.get("agentId"))
        if id is None:
            self._out.unread("a line of a journal without an agent")
            return
        thread = self.agent(id, file)
        thread.changed = True
        if kind == "result":
            thread.result["output"] = record.get("result")
            thread.done = 0, "complete"

    def meta(self, thread: Thread, about: Mapping[str, Any]) -> None:
        """Decode the description beside a sub-agent's file: its name, and the tool call that started it."""
        thread.changed = not thread.is_compaction
        if (tool := text_in(about.get("toolUseId"))) is not None and thread.link != f"tool:{tool}":
            self._find_link(thread, tool)
        if (name := text_in(about.get("name")) or text_in(about.get("agentType"))) is not None:
            thread.names[_BY_FILE] = name

    def snapshot(self, thread: Thread, about: Mapping[str, Any]) -> None:
        """Decode the last state of a workflow."""
        thread.changed = True
        if (name := text_in(about.get("workflowName")) or text_in(about.get("name"))) is not None:
            thread.names[_BY_FILE] = name
        status = _FLOW_STATES.get(str(about.get("status")))
        if status is not None:
            thread.done = 0, status
        for name in ("result", "output", "error"):
            if (value := about.get(name)) is not None:
                thread.result["error" if name == "error" else "output"] = value
        thread.result["snapshot"] = {name: value for name, value in about.items() if name not in _SNAPSHOT}

    def emit_changed(self) -> None:
        """Emit the steps of the sub-agents and workflows that have changed, or have not ended."""
        if self._out.facts.started is None:
            return
        begin = self._out.facts.started * MILLI
        changed = [each for each in self.threads.values() if each.changed and not each.is_compaction]
        above = {each.link for each in changed}
        for thread in self.threads.values():
            if thread.top in above and str(thread.id).startswith("workflow:"):
                self._span(thread)
                changed += [] if thread.changed else [thread]
        for thread in changed:
            step = thread.agent_step(self._out.session, begin)
            thread.changed = step.status == "active"  # the end of the session ends it
            self._out.records.append(step)

    def _span(self, flow: Thread) -> None:
        """Set the times of a workflow: from its first agent's to its last agent's."""
        within = [each for each in self.threads.values() if each.link == flow.top and each.start is not None]
        flow.start = min((each.start for each in within if each.start is not None), default=flow.start)
        flow.end = max((each.end or 0 for each in within), default=flow.end)

    def _put_below(self, thread: Thread, key: str) -> None:
        """Put the model call of a compaction, and its prompt, below the compaction's step."""
        if thread.top == key:
            return
        thread.top = key
        self._out.records += [step._replace(parent=key) for step in thread.messages]
        for call in thread.calls.values():
            call.changed = True

    def compacted(self, logical: Any, key: str) -> None:
        """Put the model call of a compaction, in a file of its own, below the compaction's step.

        Args:
            logical: the uuid of the last record before the compaction.
            key: the key of the compaction's step.
        """
        if type(logical) is not str:
            return
        self._compactions[logical] = key
        for other in self.threads.values():
            if other.is_compaction and logical in other.parents:
                self._put_below(other, key)
