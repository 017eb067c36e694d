"""Runs as ATIF, the Agent Trajectory Interchange Format of Harbor: strict version 1.7, one document a run.

Messages and model calls are steps of a trajectory. A tool call stands with its result in the step of the model call
that requested it, else in a step of its own. An agent is an embedded trajectory, to which the result of its tool call
refers. Hooks, compactions and events are steps of the system, and each other span is a step of the agent without a
model call. Messages that are sent to a model again are not
repeated.

The format has one time a step, no status, and fixed members. `extra.agentspan` of each object has the rest: the type,
parent, status and times of the span, and what the object does not say of its payload and result. Lists that payloads
repeat, such as the messages of model calls, stand once in a pool of the document. So an import of the document gives
the same tree (see sessions.atif).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from agentspan import jsontext
from agentspan.analysis import messages
from agentspan.analysis.messages import SENT, Message
from agentspan.analysis.tree import Node, build, every, in_time
from agentspan.arriving.atif_objects import (
    MCP,
    OWN,
    UNKNOWN,
    agent_of,
    difference,
    message_of,
    model_call_of,
    tool_call_of,
    whole,
)
from agentspan.arriving.json_values import object_in
from agentspan.blobs import blobs_in, described, ending_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.span_types import error_text
from agentspan.storage.access import instance
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import NewestScores, SpansOf, Tags
from agentspan.storage.row_by_row import summaries_of
from agentspan.storage.sums import RunSummary

VERSION = "ATIF-v1.7"
DEEPEST = 20
"""The largest depth at which a nested agent is a trajectory of its own.

Deeper agents are steps: parsers limit depth.
"""
IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
"""The types of images that the format allows."""
_CONTEXT: dict[str, Any] = {"context": True}
_POOLED = frozenset({*SENT, "tools"})
"""The members of payloads whose lists stand in the pool."""
_LONG = 200
"""The fewest characters of a repeated text that stands in the pool."""
_TEXTS = frozenset({"system", "instructions", "system_prompt"})
_TOOLS = frozenset({"tool", "mcp"})
_OF_SYSTEM = frozenset({"event", "hook", "compaction"})
"""The types of spans that the agent did not do itself: they become steps of the source `system`."""


def documents(storage: Storage, run_ids: Iterable[str], images: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the document of each run.

    Args:
        images: the folder with the images of the runs, each in a file named by its SHA-256, as a path from the
            document; None if there is none.
    """
    for id in run_ids:
        for run in summaries_of(storage, [instance(storage, id)]):
            yield _Document(storage, run, images).document()


def lines(storage: Storage, run_ids: Iterable[str], images: str | None = None) -> Iterator[str]:
    """Yield the document of each run as a line of JSON, without line ends (see documents)."""
    return map(jsontext.text_of, documents(storage, run_ids, images))


class _Document:
    """The document of one run.

    Attributes:
        known: a cache of messages (see messages.sent).
        images: the folder with images (see documents).
    """

    def __init__(self, storage: Storage, run: RunSummary, images: str | None) -> None:
        self._storage = storage
        self._run = run
        self._pool: list[Any] = []
        self._places: dict[str, int] = {}
        self.known: messages.Known = {}
        self.images = images

    def document(self) -> dict[str, Any]:
        row = self._run.run
        roots = build(self._storage.ask(SpansOf(row.id)))
        owner = roots[0] if len(roots) == 1 and is_agent(roots[0].span) else None
        trajectory = Trajectory(self, owner.span if owner else None, owner.children if owner else roots, 0)
        agent = {"name": whole(self._run.agent) or "agent", "version": whole(self._run.version) or "default"}
        session = {"session_id": whole(row.session or row.id), "trajectory_id": row.id}
        document = {"schema_version": VERSION, **session, "agent": agent, **trajectory.members(agent)}
        own = {"version": 1, "run": self._about(row), **trajectory.own(document)}
        document["extra"] = {OWN: {**own, **({"pool": self._pool} if self._pool else {})}}
        return document

    def _about(self, row: AgentInstanceRow) -> dict[str, Any]:
        """Return the facts about a run for which ATIF has no member."""
        names = ("id", "status", "started_at", "finished_at", "task", "session", "user", "git_commit", "purpose")
        found = {name: value for name in names if (value := getattr(row, name)) is not None}
        for name in ("metadata", "result", "error"):
            if (text := getattr(row, name)) is not None:
                found[name] = jsontext.decode(text)
        if tags := self._storage.ask(Tags([row.id])).get(row.id):
            found["tags"] = [*tags]
        kept = ("name", "value", "label", "explanation", "source", "identifier")
        scores = [
            {name: value for name in kept if (value := getattr(score, name)) is not None}
            for score in self._storage.ask(NewestScores([row.id]))
            if score.target_type == "agent_instance"
        ]
        return {**found, **({"scores": scores} if scores else {})}

    def pooled(self, payload: Any) -> tuple[Any, dict[str, Any]]:
        """Return a payload without the members that stand in the pool, and their places by member."""
        if not isinstance(payload, dict):
            return payload, {}
        found: dict[str, Any] = {}
        for name, value in payload.items():
            if name in _POOLED and isinstance(value, list):
                found[name] = self._ranges([self._place(element) for element in value])
            elif name in _TEXTS and isinstance(value, str) and len(value) >= _LONG:
                found[name] = self._place(value)
        return {name: value for name, value in payload.items() if name not in found}, found

    def _place(self, element: Any) -> int:
        text = messages.json_of(element)
        place = self._places.setdefault(text, len(self._pool))
        if place == len(self._pool):
            self._pool.append(element)
        return place

    def _ranges(self, places: Sequence[int]) -> list[list[int]]:
        found: list[list[int]] = []
        for place in places:
            if found and found[-1][1] == place:
                found[-1][1] += 1
            else:
                found.append([place, place + 1])
        return found


def is_agent(span: AgentSpanRow) -> bool:
    """Return whether a span is the call of an agent, which has steps of its own."""
    return built_in_part(span.schema_name) == "agent"


class Trajectory:
    """The steps of a run, or of an agent in it, while they are written.

    Args:
        document: the document.
        owner: the span of the agent; None for a run.
        nodes: the spans directly below.
        depth: the number of agents above.
    """

    def __init__(self, document: _Document, owner: AgentSpanRow | None, nodes: Sequence[Node], depth: int) -> None:
        self._document = document
        self._owner = owner
        self._depth = depth
        self._steps: list[dict[str, Any]] = []
        self._embedded: list[dict[str, Any]] = []
        self._seen: Counter[tuple[str, ...]] = Counter()
        self._open: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}  # requested calls: their step and call
        self._calls: dict[str, tuple[dict[str, Any], str]] = {}  # tool spans: their step, and the id of the call
        self._model: str | None = None
        self._tools: list[Any] | None = None
        self._costs: list[float] = []
        self._write(nodes)

    def _write(self, nodes: Sequence[Node]) -> None:
        rows, agents = _own_rows(nodes, nested=self._depth >= DEEPEST)
        for row in in_time([*rows, *(node.span for node in agents.values())]):
            kind = built_in_part(row.schema_name)
            payload, result = jsontext.value_of(row.payload), jsontext.value_of(row.result_payload)
            repeats = isinstance(payload, dict) and "duplicate_of" in payload
            if row.cost_usd is not None and not row.is_aggregate:
                self._costs.append(row.cost_usd)
            if row.id in agents:
                self._sub_agent(agents[row.id])
            elif kind == "llm" and not repeats:
                self._model_call(row, payload, result)
            elif kind in _TOOLS and not repeats:
                self._tool(row, payload, result)
            elif kind == "message" and not repeats:
                self._message(row, payload, result)
            else:
                self._other(row, payload, result)
        if not self._steps:
            self._step("system", "No steps were recorded.", {OWN: _CONTEXT})

    def members(self, agent: dict[str, Any]) -> dict[str, Any]:
        """Return the members of the trajectory with its steps; set the model and the tools of `agent`."""
        if self._model is not None:
            agent["model_name"] = self._model
        if self._tools is not None:
            agent["tool_definitions"] = self._tools
        embedded = {"subagent_trajectories": self._embedded} if self._embedded else {}
        return {"steps": self._steps, "final_metrics": self._metrics(), **embedded}

    def own(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return the facts about the agent's span for which ATIF has no member; {} for a run."""
        if self._owner is None:
            return {}
        payload, result = jsontext.value_of(self._owner.payload), jsontext.value_of(self._owner.result_payload)
        return {"span": self._own(self._owner, payload, result, *agent_of(document))}

    @property
    def cost_usd(self) -> float | None:
        """The cost of the steps and of all agents below; None if none is known."""
        return sum(self._costs) if self._costs else None

    def _metrics(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in ("prompt_tokens", "completion_tokens", "cached_tokens"):
            values = [step["metrics"][name] for step in self._steps if name in step.get("metrics", ())]
            if values:
                found[f"total_{name}"] = sum(values)
        if self.cost_usd is not None:
            found["total_cost_usd"] = self.cost_usd
        return {**found, "total_steps": len(self._steps)}

    def _own(
        self,
        row: AgentSpanRow,
        payload: Any,
        result: Any,
        native_payload: Mapping[str, Any],
        native_result: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Return the facts about a span that its ATIF object, with these native parts, does not contain."""
        rest, pooled = self._document.pooled(payload)
        times = {"started_at": row.started_at or row.inserted_at, "finished_at": row.finished_at}
        owner = None if self._owner is None else self._owner.id
        return {
            "id": row.id,
            "type": row.schema_name,
            **({"parent": row.parent_span_id} if row.parent_span_id != owner else {}),
            "status": row.status,
            **{name: value for name, value in times.items() if value is not None},
            **difference("payload", rest, native_payload),
            **difference("result", result, native_result),
            **({"pooled": pooled} if pooled else {}),
        }

    def _step(self, source: str, message: Any, extra: dict[str, Any], **members: Any) -> dict[str, Any]:
        step = {"step_id": len(self._steps) + 1, "source": source, "message": message, **members, "extra": extra}
        self._steps.append(step)
        return step

    def _message(self, row: AgentSpanRow, payload: Any, result: Any) -> None:
        for message in messages.spoken(row):
            self._seen[_mark(message)] += 1
        role, content = (payload.get("role"), payload.get("content")) if isinstance(payload, dict) else (None, payload)
        source = {"user": "user", "human": "user", "assistant": "agent"}.get(
            role if isinstance(role, str) else "", "system"
        )
        more = {"llm_call_count": 0} if source == "agent" else {}
        step = self._step(source, _content(content, self._document.images), {}, timestamp=_time(row), **more)
        step["extra"] = {OWN: self._own(row, payload, result, message_of(step), None)}

    def _model_call(self, row: AgentSpanRow, payload: Any, result: Any) -> None:
        given = object_in(payload)
        self._context(row, payload)
        model = given.get("model")
        named = {"model_name": whole(model)} if isinstance(model, str) and model else {}
        self._model = self._model or named.get("model_name")
        if self._tools is None and isinstance(tools := given.get("tools"), list) and tools:
            self._tools = [_strict(tool) for tool in tools if isinstance(tool, dict)]
        answer = [] if result is None else messages.answered(result)
        for message in answer:
            self._seen[_mark(message)] += 1
        thinking = object_in(result).get("thinking")
        effort = given.get("effort")
        members: dict[str, Any] = {
            "timestamp": _time(row),
            **named,
            **({"reasoning_effort": whole(effort)} if isinstance(effort, str) else {}),
            **({"reasoning_content": whole(thinking)} if isinstance(thinking, str) and thinking else {}),
            **({"metrics": metrics} if (metrics := _usage(row, object_in(result))) else {}),
            "llm_call_count": 1,
        }
        text = "\n".join(message["text"] for message in answer if message["text"])
        step = self._step("agent", whole(text), {}, **members)
        self._request(row, step, [call for message in answer for call in message["calls"]])
        step["extra"] = {OWN: self._own(row, payload, result, *model_call_of(step, None))}

    def _request(self, row: AgentSpanRow, step: dict[str, Any], requested: Sequence[messages.Call]) -> None:
        """Write the tool calls that a model requested. The spans that follow may be theirs."""
        calls: list[dict[str, Any]] = []
        used: set[str] = set()
        for number, call in enumerate(requested, start=1):
            id = whole(call["id"] or "")
            id = id if id and id not in used else f"{row.id}/{number}"
            used.add(id)
            written = {
                "tool_call_id": id,
                "function_name": whole(call["name"]) or UNKNOWN,
                "arguments": _arguments(jsontext.decoded(call["arguments"], call["arguments"])),
                "extra": {OWN: {"requested": True}},
            }
            calls.append(written)
            self._open[id] = step, written
        if calls:
            step["tool_calls"] = calls

    def _context(self, row: AgentSpanRow, payload: Any) -> None:
        """Write the messages that a model call sent for the first time."""
        here: Counter[tuple[str, ...]] = Counter()
        for message, _ in messages.sent(payload, self._document.known):
            mark = _mark(message)
            here[mark] += 1
            if here[mark] > self._seen[mark]:
                self._seen[mark] = here[mark]
                self._sent(row, message)

    def _sent(self, row: AgentSpanRow, message: Message) -> None:
        text = _message_text(message)
        if message["role"] == "tool":
            found = self._open.get(whole(message["call_id"] or ""))
            if found is not None:
                result = {"source_call_id": found[1]["tool_call_id"], "content": text, "extra": {OWN: _CONTEXT}}
                _results(found[0]).append(result)
                return
            observation = {"results": [{"content": text, "extra": {OWN: _CONTEXT}}]}
            self._step(
                "agent", "", {OWN: _CONTEXT}, timestamp=_time(row), llm_call_count=0, observation=observation
            )  # fmt: skip
        elif message["role"] == "assistant":
            more = {"llm_call_count": 0, "is_copied_context": True}
            self._step("agent", text, {OWN: _CONTEXT}, timestamp=_time(row), **more)
        else:
            source = "user" if message["role"] == "user" else "system"
            self._step(source, text, {OWN: _CONTEXT}, timestamp=_time(row))

    def _tool(self, row: AgentSpanRow, payload: Any, result: Any) -> None:
        given = object_in(payload)
        name = given.get("name") if built_in_part(row.schema_name) == "tool" else _mcp_name(given)
        name = whole(name) if isinstance(name, str) and name else row.label or row.schema_name
        arguments = given.get("arguments")
        step, call = self._requested(given, name, arguments) or self._dispatched(row, name, arguments)
        output = _output(row, result, self._document.images)
        text = messages.text_of(object_in(result).get("output"))[0]
        self._seen.update(
            {("tool", each) for each in (given.get("call_id"), call["tool_call_id"], text) if isinstance(each, str)}
        )
        results: list[Any] = []
        if output is not None:
            results = [{"source_call_id": call["tool_call_id"], "content": output}]
            _results(step).extend(results)
        self._calls[row.id] = step, call["tool_call_id"]
        _, native_payload, native_result = tool_call_of({**call, "extra": {}}, results)
        call["extra"] = {OWN: self._own(row, payload, result, native_payload, native_result)}

    def _requested(self, given: Mapping[str, Any], name: str, arguments: Any) -> tuple[Any, Any] | None:
        """Return the step and the requested call of a tool span; None if no model call requested it."""
        id = given.get("call_id")
        if isinstance(id, str):
            found = self._open.get(whole(id))
            return self._open.pop(whole(id)) if found is not None and found[1]["function_name"] == name else None
        wanted = _arguments(arguments)
        for key, (step, call) in self._open.items():
            if call["function_name"] == name and call["arguments"] == wanted:
                del self._open[key]
                return step, call
        return None

    def _dispatched(self, row: AgentSpanRow, name: str, arguments: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return a step of its own for a tool span, and its call."""
        id = object_in(jsontext.value_of(row.payload)).get("call_id")
        call: dict[str, Any] = {
            "tool_call_id": whole(id) if isinstance(id, str) and id else row.id,
            "function_name": name,
        }
        call["arguments"] = _arguments(arguments)
        more: dict[str, Any] = {"timestamp": _time(row), "llm_call_count": 0, "tool_calls": [call]}
        return self._step("agent", "", {OWN: {"carrier": True}}, **more), call

    def _sub_agent(self, node: Node) -> None:
        row = node.span
        below = Trajectory(self._document, row, node.children, self._depth + 1)
        if below.cost_usd is not None:
            self._costs.append(below.cost_usd)
        given = object_in(jsontext.value_of(row.payload))
        texts = {name: value for name in ("name", "version") if isinstance(value := given.get(name), str) and value}
        agent = {"name": whole(texts.get("name", row.schema_title)), "version": whole(texts.get("version", UNKNOWN))}
        document = {"schema_version": VERSION, "trajectory_id": row.id, "agent": agent, **below.members(agent)}
        own = below.own(document)
        owner = None if self._owner is None else self._owner.id
        if row.parent_span_id != owner:
            own["span"]["parent"] = row.parent_span_id
        else:
            own["span"].pop("parent", None)
        document["extra"] = {OWN: own}
        self._embedded.append(document)
        self._refer(row)

    def _refer(self, row: AgentSpanRow) -> None:
        """Write the reference to the trajectory of an agent: at its tool call, else in a step of its own."""
        reference = {"trajectory_id": row.id}
        step, call = self._calls.get(row.parent_span_id or "", (None, None))
        if step is None:
            refers = {"results": [{"subagent_trajectory_ref": [reference]}]}
            more: dict[str, Any] = {"timestamp": _time(row), "llm_call_count": 0, "observation": refers}
            self._step("agent", whole(row.summary or row.schema_title), {OWN: {"carrier": True}}, **more)
            return
        results = _results(step)
        found = next((each for each in results if each.get("source_call_id") == call), None)
        if found is None:
            found = {"source_call_id": call, "extra": {OWN: {"context": True}}}
            results.append(found)
        found.setdefault("subagent_trajectory_ref", []).append(reference)

    def _other(self, row: AgentSpanRow, payload: Any, result: Any) -> None:
        own = {**self._own(row, payload, result, {}, None), "plain": True}
        title = whole(described(row.summary or row.label or row.schema_title))
        if built_in_part(row.schema_name) in _OF_SYSTEM:
            self._step("system", title, {OWN: own}, timestamp=_time(row))
        else:
            self._step("agent", title, {OWN: own}, timestamp=_time(row), llm_call_count=0)


def _own_rows(nodes: Sequence[Node], *, nested: bool) -> tuple[list[AgentSpanRow], dict[str, Node]]:
    """Return the spans that are not below an agent, and the agents among them.

    Args:
        nested: True if agents, and all spans below them, are steps of this trajectory. Then no agents are returned.
    """
    if nested:
        return [node.span for node in every([*nodes])], {}
    rows: list[AgentSpanRow] = []
    agents: dict[str, Node] = {}
    stack = [*nodes]
    while stack:
        node = stack.pop()
        if is_agent(node.span):
            agents[node.span.id] = node
        else:
            rows.append(node.span)
            stack += node.children
    return rows, agents


def _time(row: AgentSpanRow) -> str:
    return row.started_at or row.inserted_at


def _mark(message: Message) -> tuple[str, ...]:
    """Return a key that is equal for a message and its repetition, which clients may write in another form."""
    if message["role"] == "tool":
        return "tool", message["call_id"] or message["text"]
    calls = (part for call in message["calls"] for part in (call["name"], messages.exact(call["arguments"])))
    return (message["role"], message["text"], *calls)


def _message_text(message: Message) -> str:
    """Return the text of a message, with the names of its other parts in brackets."""
    parts = [f"[{part['name']}]" for part in message["others"]]
    return whole("\n".join(text for text in (message["text"], *parts) if text))


def _content(value: Any, images: str | None) -> Any:
    """Return the content of a message as the format has it: a text, or parts that are texts and images."""
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list) and value and all(isinstance(part, dict) for part in value):
        return [_part(part, images) for part in value]
    return "" if value is None else whole(described(messages.json_of(value)))


def _part(part: Mapping[str, Any], images: str | None) -> dict[str, Any]:
    text = part.get("text")
    if isinstance(text, str) and part.get("type") in (None, "text", "input_text", "output_text"):
        return {"type": "text", "text": whole(text)}
    source = object_in(part.get("source"))
    media_type, url = source.get("media_type"), source.get("url")
    if isinstance(media_type, str) and media_type in IMAGES and isinstance(url, str) and part.get("type") == "image":
        return {"type": "image", "source": {"media_type": media_type, "path": whole(url)}}
    written = messages.json_of(part)
    blobs = [*blobs_in(written)]
    if images is not None and len(blobs) == 1 and blobs[0].media_type in IMAGES:
        path = f"{images}/{sha256(blobs[0].data).hexdigest()}.{ending_of(blobs[0].media_type)}"
        return {"type": "image", "source": {"media_type": blobs[0].media_type, "path": path}}
    return {"type": "text", "text": whole(described(written))}


def _output(row: AgentSpanRow, result: Any, images: str | None) -> Any:
    """Return the content of a tool's result: its output, else its error; None if it has neither."""
    if result is None:
        return None
    if not isinstance(result, dict):
        return _content(result, images)
    name = "result" if built_in_part(row.schema_name) == "mcp" else "output"
    if name in result:
        return _content(result[name], images)
    return whole(error_text(result) or "") if "error" in result else None


def _mcp_name(given: Mapping[str, Any]) -> str:
    names = [value if isinstance(value := given.get(name), str) else "" for name in ("server", "target", "method")]
    server, target, method = names
    return f"{MCP}{server}__{target}" if server and target else target or method


def _arguments(value: Any) -> dict[str, Any]:
    """Return the arguments of a tool as an object."""
    found = _strict(value)
    return found if isinstance(found, dict) else {} if found is None else {"input": found}


def _strict(value: Any) -> Any:
    """Return a value whose texts are whole: the format's validator refuses others as names of members."""
    try:
        return _whole(value)
    except RecursionError:
        return whole(messages.json_of(value))


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return whole(value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return {whole(name): _whole(each) for name, each in value.items()} if isinstance(value, dict) else value


def _usage(row: AgentSpanRow, result: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens and the cost of a model call."""
    cached = result.get("cached_tokens")
    stated = result.get("stated_cost_usd")
    cost = row.cost_usd if row.cost_usd is not None else stated if type(stated) in (int, float) else None
    found = {
        "prompt_tokens": row.input_tokens,
        "completion_tokens": row.output_tokens,
        "cached_tokens": cached if type(cached) is int else None,
        "cost_usd": cost,
    }
    return {name: value for name, value in found.items() if value is not None}


def _results(step: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = step.setdefault("observation", {"results": []})["results"]
    return found
