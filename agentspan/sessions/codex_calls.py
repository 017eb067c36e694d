"""Makes the tool calls of a Codex thread from its response items and the events that say how they ended."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from agentspan.arriving import Status, Step, as_asked, decoded, id_in, list_in, object_in, present
from agentspan.sessions import codex_records as values
from agentspan.sessions.codex_answers import Answers
from agentspan.sessions.codex_records import without
from agentspan.sessions.codex_thread import Tape, spawn_key

MOST_ENDED = 32
"""The most ended calls whose end events are waited for: a command may go on in the background."""
_SEARCHES = ("web_search_end", "WebSearch")
_INPUTS = ("command", "arguments", "changes", "query")
_NAMES = {
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


class Call:
    """A tool call that has not ended."""

    __slots__ = (
        "child",
        "ended",
        "ended_ns",
        "id",
        "is_events",
        "is_spawn",
        "key",
        "payload",
        "server",
        "start",
        "type",
    )

    def __init__(self, id: str, key: str, name: str, arguments: Any, start: int) -> None:
        self.id, self.key, self.start = id, key, start
        self.type = "tool"
        self.payload: dict[str, Any] = {"name": name, "arguments": arguments, "call_id": id}
        self.server: dict[str, Any] | None = None
        self.ended: tuple[dict[str, Any], list[str]] | None = None
        self.ended_ns: int | None = None
        self.is_events = False
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

    def bind(self, event: dict[str, Any]) -> None:
        """Make the call one of an MCP server, or one that spawned a thread, as its end event says."""
        invocation = object_in(event.get("invocation"))
        server, tool = event.get("server") or invocation.get("server"), invocation.get("tool") or event.get("tool")
        if type(server) is str and type(tool) is str:
            arguments = invocation.get("arguments", event.get("arguments"))
            self.serve(server, tool, self.payload["arguments"] if arguments is None else arguments)
            event.pop("invocation", None)
            if event.get("result") is not None:
                self.server = values.result_of_mcp(event.pop("result"))
        if self.is_spawn:
            receivers = list_in(event.get("receiver_thread_ids")) or [None]
            self.child = id_in(event.get("new_thread_id")) or id_in(receivers[0]) or self.child

    def result(self, output: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result, from the recorded output and the end event."""
        if self.type == "mcp":
            answer = {("result" if name == "output" else name): value for name, value in output.items()}
            output = answer if self.server is None else {**without(output, "output"), **self.server}
        if self.ended is not None:
            output = values.merged(output, self.ended)
        return output or None

    def step(self, session: str, end: int | None, status: Status, output: dict[str, Any]) -> Step:
        """Return the step of the call."""
        key = self.key if self.child is None else spawn_key(self.child)
        return Step(session, key, None, self.type, self.start, end, status, self.payload, self.result(output))


class Calls:
    """The tool calls of a thread.

    Args:
        tape: the place in the rollout.
        answers: the model calls of the thread.
    """

    def __init__(self, tape: Tape, answers: Answers) -> None:
        self._tape = tape
        self._answers = answers
        self._open: dict[str, Call] = {}
        self._ended: OrderedDict[str, tuple[Call, Step, dict[str, Any]]] = OrderedDict()
        self._used: set[str] = set()
        self._search: str | None = None

    def active(self) -> Iterator[Step]:
        """Yield the steps of open calls. A call that spawns a thread has no key before the thread is known."""
        for call in self._open.values():
            if not call.is_spawn or call.child is not None:
                yield call.step(self._tape.thread.id, None, "active", {})

    def called(self, payload: dict[str, Any], time: int) -> None:
        """Begin a call that the model wrote."""
        kind = payload["type"]
        if kind == "web_search_call" and self._is_search_known(payload, time):
            return
        name = id_in(payload.get("name")) or kind.removesuffix("_call")
        arguments = _arguments_of(kind, payload)
        id = id_in(payload.get("call_id")) or id_in(payload.get("id")) or f"call:{self._tape.line}"
        call = self._begin(id, name, arguments, time)
        if (server := values.server_of(name, payload.get("namespace"))) is not None:
            call.serve(*server, arguments)
        self._answers.answering(time).calls.append({"id": id, "name": name, "arguments": as_asked(arguments)})
        if kind in ("web_search_call", "image_generation_call"):
            self._search = id
            self._finish(call, time, present({"output": _generated(payload.get("result"))}))

    def _is_search_known(self, payload: dict[str, Any], time: int) -> bool:
        """Return whether an event has told of a web search already: its item may lack the id."""
        id, self._search = self._search, None
        if id is None or id in self._ended or id_in(payload.get("id")) not in (None, id):
            return False
        self._answers.answering(time).calls.append({"id": id, "name": "web_search"})
        return True

    def _begin(self, id: str, name: str, arguments: Any, time: int) -> Call:
        """Begin a call. A second call of the same id is another step."""
        key = id if id not in self._used else f"{id}:{self._tape.line}"
        self._used.add(id)
        if (before := self._open.get(id)) is not None:
            self._finish(before, time, {}, "cancelled")
        call = self._open[id] = Call(id, key, name, arguments, time)
        return call

    def output(self, payload: dict[str, Any], time: int) -> None:
        """End a call with the output that the model reads."""
        id, output = id_in(payload.get("call_id")), payload.get("output")
        if output is None:
            output = without(payload, "type", "id", "call_id", "status") or None
        call = self._open.get(id or "")
        if self._answers.open is not None:
            self._answers.open.is_over = True
        self._tape.read(time)
        if call is None:
            self._tape.not_known(payload, time, "output without its call")
            return
        if call.is_spawn and call.child is None:
            said = object_in(decoded(output))
            call.child = id_in(said.get("agent_id")) or id_in(said.get("thread_id"))
        self._finish(call, time, values.output_of(output), "cancelled" if values.is_aborted(output) else "complete")

    def _finish(self, call: Call, time: int, output: dict[str, Any], status: Status = "complete") -> None:
        """End a call. Its time ends with its end event, if that stands before the output."""
        self._open.pop(call.id, None)
        end = time if call.ended_ns is None else call.ended_ns
        step = call.step(self._tape.thread.id, max(call.start, end), status, output)
        self._tape.emit(step)
        if call.ended is None and status == "complete":
            self._ended[call.id] = call, step, output
            if len(self._ended) > MOST_ENDED:
                self._ended.popitem(last=False)

    def end_event(self, payload: dict[str, Any], time: int) -> None:
        """Add its end event to a call. A call without an item, such as a person's own command, is a step too."""
        id = _id_of(payload) or id_in(payload.get("id"))
        if id not in self._used and payload.get("type") in _SEARCHES and self._search in self._ended:
            id, self._search = self._search, None
        if id is None or id not in self._used:
            self._alone(id or f"call:{self._tape.line}", payload, time)
        elif (call := self._open.get(id)) is not None:
            call.bind(payload)
            call.end(payload, time)
        elif (ended := self._ended.pop(id, None)) is not None:
            self._end_late(*ended, payload)
        elif payload.get("type") not in ("exec_command_end", "CommandExecution"):
            self._tape.told(payload, time)

    def _end_late(self, call: Call, step: Step, output: dict[str, Any], payload: dict[str, Any]) -> None:
        """Add the end event to a call that has ended: its output was read while the command went on."""
        if not call.is_spawn:
            call.bind(payload)
        call.ended = values.ended_of(payload)
        again = call.step(step.session, step.end_ns, step.status, output)
        self._tape.emit(again._replace(key=step.key))

    def _alone(self, id: str, payload: dict[str, Any], time: int) -> None:
        kind = id_in(payload.get("type")) or "tool"
        name = id_in(payload.get("tool")) or _NAMES.get(kind) or kind.removesuffix("_end")
        self._search = id if kind in _SEARCHES else None
        duration_ms = values.ms_of_duration(payload.get("duration")) or 0
        start = time - int(min(duration_ms, 2**31) * 1_000_000)
        arguments = next((payload[each] for each in _INPUTS if each in payload), None)
        call = self._begin(id, name, arguments, start if start > 0 else time)
        call.bind(payload)
        call.end(without(payload, *_INPUTS), time)
        self._finish(call, time, {})

    def began(self, payload: dict[str, Any], time: int) -> None:
        """Begin a call that has events but no item: the item of a call comes before its events in the file."""
        id = _id_of(payload)
        if id is not None and id not in self._used:
            self._begin(id, id_in(payload.get("tool")) or "tool", payload.get("arguments"), time).is_events = True

    def answered(self, payload: dict[str, Any], time: int) -> None:
        """End a call that has events but no item in the session file; add the event to any other call."""
        call = self._open.get(_id_of(payload) or "")
        if call is None or not call.is_events:
            self.end_event(payload, time)
            return
        call.end(without(payload, "content_items", "arguments", "tool"), time)
        self._finish(call, time, present({"output": values.content_of(payload.get("content_items"))}))

    def spawned(self, payload: dict[str, Any], time: int) -> None:
        """Bind a started thread to the call that spawned it; a thread without a call gets a step of its own."""
        thread = id_in(payload.get("agent_thread_id"))
        if thread is None or payload.get("kind") != "started":
            self._tape.told(payload, time)
            return
        calls = [call for call in self._open.values() if call.is_spawn and call.child is None]
        id = _id_of(payload) or id_in(payload.get("event_id")) or id_in(payload.get("id"))
        named = self._open.get(id or "")
        call = named if named in calls else calls[-1] if calls else None
        if call is not None:
            call.child = thread
        elif spawn_key(thread) not in self._used:
            content = {"name": "sub_agent_activity", "level": "info", "content": without(payload, "type")}
            self._tape.emit(self._tape.moment(spawn_key(thread), "event", time, content))
        self._used.add(spawn_key(thread))

    def cancel(self, time: int) -> None:
        """Cancel the calls whose turn ended without their output; a call with an end event has ended."""
        for call in list(self._open.values()):
            self._finish(call, time, {}, "cancelled" if call.ended is None else "complete")


def _id_of(payload: dict[str, Any]) -> str | None:
    return id_in(payload.get("call_id")) or id_in(payload.get("callId"))


def _arguments_of(kind: str, payload: dict[str, Any]) -> Any:
    if kind == "function_call":
        return decoded(payload.get("arguments"))
    for name in ("input", "action", "arguments"):
        if name in payload:
            return payload[name]
    return without(payload, "type", "id", "call_id", "status", "result") or None


def _generated(result: Any) -> Any:
    """Return a generated image as a block; other values unchanged."""
    if type(result) is not str or not result:
        return result
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": result}}
