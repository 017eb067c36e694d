"""Reads ATIF, the Agent Trajectory Interchange Format of Harbor, versions 1.0 to 1.8: one document a file, or a line.

A trajectory is a session. A step of the user or the system is a `message`. A step of the agent is an `llm`, and each of
its tool calls a `tool` with the results of the observation. An embedded trajectory of a sub-agent is an `agent` below
the tool call that refers to it. Members that the format does not have are kept in `extra` of a payload.

The format has one time a step, and steps may have none. Then a step is one microsecond after the step before it, and
the first one has the first time of the document, else the epoch. Steps begin and end at their time.

Left out: steps that are copied from another trajectory (`is_copied_context`), which are counted in the metadata.
A document that agentspan exported has the facts without a member of the format in `extra`; its steps are restored.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, cast

from agentspan.arriving import (
    RESULT,
    Outcome,
    Record,
    Session,
    Status,
    Step,
    Unread,
    agent_of,
    commit_in,
    content_of,
    first_prompt,
    foreign_extra,
    last_answer,
    list_in,
    message_of,
    model_call_of,
    object_in,
    own_of,
    parsed,
    part_of,
    patched,
    several,
    task_of,
    text_of,
    text_or_none,
    time_of,
    tool_call_of,
    unknown,
)
from agentspan.ground import built_in_part, jsontext
from agentspan.sessions.formats import Format, Source, walk
from agentspan.sessions.reading import first_bytes, opened

NAME = "atif"
_VERSION = re.compile(rb'"schema_version"\s*:\s*"ATIF-v')
_KNOWN = re.compile(r"ATIF-v1\.[0-8](\.\d+)?\Z", re.ASCII)
_CONTINUED = re.compile(r"-cont-\d+\Z", re.ASCII)
"""The end of the session id of a continuation, as Harbor's agents write it."""
_STATUSES = frozenset({"active", "complete", "failed", "cancelled"})
_OUTCOMES: Mapping[str, Outcome] = {
    "complete": "answered", "failed": "error", "cancelled": "interrupted", "terminated": "interrupted",
}  # fmt: skip
_ROOT = frozenset({
    "schema_version", "session_id", "trajectory_id", "agent", "steps", "notes", "final_metrics",
    "continued_trajectory_ref", "extra", "subagent_trajectories",
})  # fmt: skip
_AGENT = frozenset({"name", "version", "model_name", "tool_definitions", "extra"})
_MOST_CHARACTERS = 2**27
"""The most characters of a list whose elements stand in the pool: a small file could name a large one a million times.
"""
_STEP_NS = 1000


class _Trajectory(NamedTuple):
    """A trajectory to be read.

    Attributes:
        document: the object.
        owner: the key of its agent span; None for the root.
        prefix: the begin of the keys of its steps.
        start_ns: the time of its first step, if that has none.
        embedded: the embedded trajectories that its steps may refer to, by trajectory_id or session_id.
    """

    document: dict[str, Any]
    owner: str | None
    prefix: str
    start_ns: int
    embedded: Mapping[str, dict[str, Any]]


class _Place(NamedTuple):
    """The place of a step of the format: the key and the time of its span, and its trajectory."""

    at: _Trajectory
    key: str
    time_ns: int


def decode(path: Path, after: str | None = None) -> Iterator[Record]:
    """Decode the documents of a file: the whole file, or one a line.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        yield from _decoded(path)
    except (EOFError, zlib.error):
        yield Unread(None, "a compressed file that is not whole")


def _decoded(path: Path) -> Iterator[Record]:
    with opened(path) as file:
        first = file.readline()
        if isinstance(parsed(first), dict):
            yield from _of_line(first)
            for line in file:  # one at a time: an export of many runs is large
                yield from _of_line(line)
            return
        data = first + file.read()
    if isinstance(document := parsed(data), dict):
        yield from document_records(document, _digest(data))
        return
    lines = [line for line in data.splitlines() if line.strip()]
    if len(lines) < 2 or not any(isinstance(parsed(line), dict) for line in lines):
        yield Unread(None, "a file that is no JSON object")
        return
    for line in lines:
        yield from _of_line(line)


def _of_line(line: bytes) -> Iterator[Record]:
    """Decode a file's line, which is a document or blank."""
    document = parsed(line)
    if isinstance(document, dict):
        yield from document_records(document, _digest(line.strip()))
    elif line.strip():
        yield Unread(None, "a line that is no JSON")


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:16]


def document_records(document: dict[str, Any], digest: str) -> Iterator[Record]:
    """Return the session, the steps and what was not understood of one document.

    Args:
        document: the decoded JSON object.
        digest: a hash of the document, the session's id if it has none.
    """
    return _Reader(document, digest).records()


class _Reader:
    """Reads one document."""

    def __init__(self, document: dict[str, Any], digest: str) -> None:
        self._document = document
        self._session = (
            text_or_none(document.get("trajectory_id")) or text_or_none(document.get("session_id")) or digest
        )
        self._own = own_of(document)
        self._copied = 0
        self._pool = list_in(self._own.get("pool"))
        self._sizes = [0, *accumulate(len(jsontext.text_of(element)) for element in self._pool)]
        self._too_long = 0
        self._used: set[int] = set()  # embedded trajectories that a step has referred to, by the object's id
        self._queue: list[_Trajectory] = []
        self._read: list[tuple[_Trajectory, int]] = []  # with the time of the last step
        self._parents = _parents_of(document)

    def records(self) -> Iterator[Record]:
        start_ns = next(_times(self._document), 0)
        embedded = _by_id(self._document)
        root_key = text_or_none(object_in(self._own.get("span")).get("id"))
        session = self._session_of(start_ns)
        yield session
        if _KNOWN.match(str(self._document.get("schema_version"))) is None:
            yield Unread(self._session, "a schema_version that is not one of ATIF 1.0 to 1.8")
        if root_key is not None:
            yield self._agent(_Place(_Trajectory({}, None, "", 0, {}), root_key, start_ns), self._document, {})
        self._queue.append(_Trajectory(self._document, root_key, "", start_ns, embedded))
        ended_ns = session.ended_ns or 0
        while self._queue or self._read:
            for record in self._trajectory(self._queue.pop()) if self._queue else self._unreferred(*self._read.pop()):
                if isinstance(record, Step):
                    ended_ns = max(ended_ns, record.end_ns or record.start_ns)
                yield record
        if self._too_long:
            yield Unread(self._session, "a list that is too long", self._too_long)
        copied = {"copied_steps": self._copied} if self._copied else {}
        if not self._own:
            yield session._replace(ended_ns=ended_ns, metadata={**session.metadata, **copied})

    def _trajectory(self, at: _Trajectory) -> Iterator[Record]:
        time_ns = at.start_ns - _STEP_NS
        for number, step in enumerate(several(at.document.get("steps")), start=1):
            stated = time_of(written := object_in(step).get("timestamp"))
            if written is not None and stated is None:
                yield Unread(self._session, "a timestamp that is no time")
            time_ns = max(time_ns + _STEP_NS, stated or 0)
            place = _Place(at, f"{at.prefix}{number}", time_ns)
            if not isinstance(step, dict):
                yield Unread(self._session, "a step that is no object")
                yield unknown(self._session, place.key, at.owner, "step", time_ns, step)
                continue
            for record in self._step(place, step):
                if isinstance(record, Step):
                    time_ns = max(time_ns, record.start_ns)
                yield record
        self._read.append((at, time_ns))

    def _unreferred(self, at: _Trajectory, time_ns: int) -> Iterator[Record]:
        """Yield the agents of the embedded trajectories to which no step of the document refers."""
        for number, each in enumerate(several(at.document.get("subagent_trajectories")), start=1):
            if not isinstance(each, dict):
                yield Unread(self._session, "a sub-agent that is no object")
            elif id(each) not in self._used:
                yield from self._sub_agent(_Place(at, f"{at.prefix}agent-{number}", time_ns), each, {})

    def _step(self, place: _Place, step: dict[str, Any]) -> Iterator[Record]:
        own = own_of(step)
        if own.get("context") is True:
            return
        if step.get("is_copied_context") is True:
            self._copied += 1
            return
        if own.get("carrier") is not True:
            yield from self._of_step(place, step, own)
        calls = several(step.get("tool_calls"))
        by_call, loose = _results_of(step, calls)
        for number, (call, results) in enumerate(zip(calls, by_call, strict=True), start=1):
            at = place._replace(key=f"{place.key}/{number}", time_ns=place.time_ns + _STEP_NS * number)
            yield from self._call(at, call, results)
        for number, result in enumerate(loose, start=1):
            time_ns = place.time_ns + _STEP_NS * (len(calls) + number)
            at = place._replace(key=f"{place.key}/observation-{number}", time_ns=time_ns)
            yield from self._loose(at, result)
            yield from self._references(at, result, place.at.owner)

    def _of_step(self, place: _Place, step: dict[str, Any], own: Mapping[str, Any]) -> Iterator[Record]:
        """Yield the span of a step itself, without its tool calls."""
        kind = text_or_none(own.get("type"))
        is_dispatch = step.get("llm_call_count") == 0 and type(step.get("llm_call_count")) is int
        if kind is not None and own.get("plain") is True:
            yield self._stated(place, own, kind, {}, None)
        elif kind is not None and built_in_part(kind) == "message":
            yield self._stated(place, own, kind, message_of(step), None)
        elif step.get("source") == "agent" and not is_dispatch:
            payload, result = model_call_of(step, object_in(place.at.document.get("agent")).get("model_name"))
            yield self._stated(place, own, kind or "llm", payload, result)
        elif step.get("source") != "agent" or text_of(step.get("message")) or foreign_extra(step):
            if step.get("source") not in ("user", "system", "agent"):
                yield Unread(self._session, "a step of an unknown source")
            yield self._stated(place, own, "message", message_of(step), None)

    def _loose(self, place: _Place, result: Any) -> Iterator[Record]:
        """Yield the event of an observation's result that belongs to no tool call."""
        of = object_in(result).get("source_call_id")
        if of is not None:
            yield Unread(self._session, "an observation of an unknown tool call")
        content = content_of(result.get("content")) if isinstance(result, dict) else result
        extra = foreign_extra(result, RESULT)
        if content is None and not extra and of is None:
            return  # it only refers to a sub-agent
        payload = {"name": "observation", "content": content, **({"extra": extra} if extra else {})}
        payload |= {} if of is None else {"call_id": of}
        yield self._stated(place, {}, "event", payload, None)

    def _call(self, place: _Place, call: Any, results: Sequence[Any]) -> Iterator[Record]:
        if not isinstance(call, dict):
            yield Unread(self._session, "a tool call that is no object")
            yield unknown(self._session, place.key, place.at.owner, "tool_call", place.time_ns, call)
            return
        own = own_of(call)
        if own.get("requested") is True:
            return
        kind, payload, result = tool_call_of(call, results)
        step = self._stated(place, own, text_or_none(own.get("type")) or kind, payload, result)
        yield step
        for each in results:
            yield from self._references(place._replace(key=step.key, time_ns=step.start_ns), each, step.key)

    def _references(self, place: _Place, result: Any, parent: str | None) -> Iterator[Record]:
        """Yield the spans below the references to sub-agents in a result."""
        for number, reference in enumerate(several(object_in(result).get("subagent_trajectory_ref")), start=1):
            at = place._replace(key=f"{place.key}/agent-{number}")
            found = _referred(place.at, object_in(reference))
            if found is None or id(found) in self._used:
                yield self._elsewhere(at, reference, parent)
            else:
                yield from self._sub_agent(at, found, {"parent": parent, "reference": reference})

    def _elsewhere(self, place: _Place, reference: Any, parent: str | None) -> Step:
        """Return the span of a sub-agent whose trajectory stands in another file."""
        facts = object_in(reference)
        name = next((found for key in ("trajectory_path", "trajectory_id", "session_id")
                     if (found := text_or_none(facts.get(key)))), "agent")  # fmt: skip
        payload = {"name": name, "reference": reference}
        return Step(self._session, place.key, parent, "agent", place.time_ns, place.time_ns, "complete", payload)

    def _sub_agent(self, place: _Place, document: dict[str, Any], facts: Mapping[str, Any]) -> Iterator[Record]:
        """Yield the agent span of an embedded trajectory, and let its steps be read later."""
        self._used.add(id(document))
        step = self._agent(place, document, facts)
        yield step
        embedded = {**place.at.embedded, **_by_id(document)}
        prefix = f"{step.key}/"
        self._queue.append(_Trajectory(document, step.key, prefix, step.start_ns + _STEP_NS, embedded))

    def _agent(self, place: _Place, document: dict[str, Any], facts: Mapping[str, Any]) -> Step:
        own = {**facts, **object_in(own_of(document).get("span"))}
        payload, result = agent_of(document)
        if not own.get("id"):
            payload |= _facts_of(document)
            if object_in(facts.get("reference")).keys() - {"trajectory_id"}:
                payload["reference"] = facts["reference"]
        times = [*_times(document)]
        start_ns = min(times, default=place.time_ns)
        end_ns = max(times, default=start_ns)
        placed = place._replace(time_ns=max(place.time_ns, start_ns))
        step = self._stated(placed, own, text_or_none(own.get("type")) or "agent", payload, result)
        parent = facts.get("parent") if "parent" in facts and not own.get("id") else step.parent
        return step._replace(parent=parent, end_ns=step.end_ns if "status" in own else max(end_ns, step.start_ns))

    def _stated(
        self, place: _Place, own: Mapping[str, Any], kind: str, payload: dict[str, Any], result: dict[str, Any] | None
    ) -> Step:
        """Return the step of an object, with the facts that an export states about its span."""
        key, at = text_or_none(own.get("id")), place.time_ns
        if key is None:
            return Step(self._session, place.key, place.at.owner, kind, at, at, "complete", payload, result)
        stated = own.get("status")
        status: Status = cast(Status, stated) if isinstance(stated, str) and stated in _STATUSES else "active"
        started, finished = time_of(own.get("started_at")), time_of(own.get("finished_at"))
        start_ns = at if started is None else started
        end_ns = None if status == "active" else max(start_ns, finished or start_ns)
        whole = patched("payload", own, payload) or {}
        pooled = self._pooled(own)
        return Step(
            self._session, key, self._parents.get(key, place.at.owner), _type_of(kind), start_ns, end_ns, status,
            whole | pooled, patched("result", own, result),
        )  # fmt: skip

    def _pooled(self, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the lists of a payload whose elements stand in the document's pool."""
        found: dict[str, Any] = {}
        for name, ranges in object_in(own.get("pooled")).items():
            if isinstance(ranges, int):
                found[name] = self._pool[ranges] if 0 <= ranges < len(self._pool) else None
                continue
            pairs = [each for each in list_in(ranges) if _is_range(each, len(self._pool))]
            size = sum(self._sizes[end] - self._sizes[start] for start, end in pairs)
            if size > _MOST_CHARACTERS:
                self._too_long += 1
                continue
            found[name] = [element for start, end in pairs for element in self._pool[start:end]]
        return found

    def _session_of(self, start_ns: int) -> Session:
        document, run = self._document, object_in(self._own.get("run"))
        agent = object_in(document.get("agent"))
        times = [*_times(document)]
        answer, prompt = last_answer(document), first_prompt(document)
        stated_id = text_or_none(document.get("session_id"))
        session = Session(
            self._session,
            text_or_none(agent.get("name")) or "agent",
            start_ns,
            text_or_none(agent.get("version")),
            max(times, default=start_ns),
            None if answer is None else "answered",
            answer,
            task=None if prompt is None else task_of(prompt) or None,
            conversation=None if stated_id is None else _CONTINUED.sub("", stated_id),
            fingerprint=_fingerprint(document),
            metadata=_metadata(document),
        )
        return _of_run(session, run) if run else session


def _type_of(kind: str) -> str:
    """Return a span type that can be stored: a stated one may hold anything."""
    return kind if len(kind) <= 200 and kind.isprintable() else "unknown:event"


def _of_run(session: Session, run: Mapping[str, Any]) -> Session:
    """Return a session with the facts that an export states about its run."""
    metadata = dict(object_in(run.get("metadata")))
    parts = object_in(object_in(metadata.pop("fingerprint", None)).get("parts"))
    stated = metadata.pop("outcome", None)
    status = run.get("status")
    outcome = _OUTCOMES.get(status) if isinstance(status, str) else None
    result: Any = run.get("result")
    started, finished = time_of(run.get("started_at")), time_of(run.get("finished_at"))
    is_plain = isinstance(result, dict) and [*result] == ["output"]
    return session._replace(
        started_ns=session.started_ns if started is None else started,
        ended_ns=session.ended_ns if finished is None else finished,
        outcome="limit" if outcome == "error" and stated == "limit" else outcome,
        output=result["output"] if is_plain else result,
        error=run["error"] if isinstance(run.get("error"), dict) else None,
        task=text_or_none(run.get("task")),
        fingerprint={name: part for name, part in parts.items() if isinstance(part, str)},
        metadata=metadata,
        git_commit=commit_in(run.get("git_commit")),
        scores=tuple(score for each in list_in(run.get("scores")) if (score := _score(each)) is not None),
    )


def _score(value: Any) -> dict[str, Any] | None:
    """Return a stated score if it is one."""
    found = {name: text[:200] for name in ("name", "label", "explanation", "identifier")
             if (text := text_or_none(object_in(value).get(name)))}  # fmt: skip
    number = object_in(value).get("value")
    if isinstance(number, int | float) and abs(number) < 1e300:
        found["value"] = number  # type: ignore[assignment]
    source = object_in(value).get("source")
    is_score = "name" in found and len(found) > 1
    return {**found, "source": source if source in ("human", "model", "code") else "code"} if is_score else None


def _fingerprint(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of the agent that a document names."""
    agent = object_in(document.get("agent"))
    prompts: list[str] = []
    for step in list_in(document.get("steps")):
        if object_in(step).get("source") != "system":
            break
        prompts.append(text_of(step.get("message")))
    tools = agent.get("tool_definitions")
    found = {
        "model": text_or_none(agent.get("model_name")),
        "cli_version": text_or_none(agent.get("version")),
        "tools": part_of(tools) if isinstance(tools, list) else None,
        "system_prompt": part_of("\n".join(prompts)) if prompts else None,
    }
    return {name: part for name, part in found.items() if part is not None}


def _metadata(document: Mapping[str, Any]) -> dict[str, Any]:
    agent = object_in(document.get("agent"))
    return {
        **({"models": [agent["model_name"]]} if text_or_none(agent.get("model_name")) else {}),
        **_facts_of(document),
    }


def _facts_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts in a document about itself, without its steps and tool definitions."""
    agent = object_in(document.get("agent"))
    found: dict[str, Any] = {
        name: document[name]
        for name in ("schema_version", "trajectory_id", "notes", "final_metrics", "continued_trajectory_ref")
        if document.get(name) is not None
    }
    found |= {name: value for name, value in document.items() if name not in _ROOT}
    extra = foreign_extra(document)
    more = foreign_extra(agent, _AGENT)
    return {**found, **({"extra": extra} if extra else {}), **({"agent_extra": more} if more else {})}


def _times(document: Mapping[str, Any]) -> Iterator[int]:
    """Yield the times of a document's steps that are not copied, as far as they have one."""
    for step in list_in(document.get("steps")):
        if not object_in(step).get("is_copied_context"):
            found = time_of(object_in(step).get("timestamp"))
            if found is not None:
                yield found


def _by_id(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the embedded trajectories of a document by their ids. Before 1.7 the session_id was the id."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("session_id", "trajectory_id"):
        for each in list_in(document.get("subagent_trajectories")):
            if isinstance(each, dict) and _is_text(each.get(name)):
                found[each[name]] = each
    return found


def _referred(at: _Trajectory, reference: Mapping[str, Any]) -> dict[str, Any] | None:
    for name in ("trajectory_id", "session_id"):
        id = reference.get(name)
        if isinstance(id, str) and id in at.embedded:
            return at.embedded[id]
    return None


def _results_of(step: Mapping[str, Any], calls: Sequence[Any]) -> tuple[list[list[Any]], list[Any]]:
    """Return the results of a step's observation for each tool call, and those of no call.

    A result without the id of a call belongs to the only call of its step.
    """
    by_call: list[list[Any]] = [[] for _ in calls]
    loose: list[Any] = []
    places = {id: n for n, call in enumerate(calls) if isinstance(id := object_in(call).get("tool_call_id"), str)}
    observation = step.get("observation")
    for result in several(observation.get("results") if isinstance(observation, dict) else observation):
        if own_of(result).get("context") is True:
            continue
        of = object_in(result).get("source_call_id")
        place = places.get(of) if isinstance(of, str) else None
        if of is None and len(calls) == 1 and isinstance(result, dict):
            place = 0
        (loose if place is None else by_call[place]).append(result)
    return by_call, loose


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_range(value: Any, most: int) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2 and type(value[0]) is type(value[1]) is int
    return is_pair and 0 <= value[0] <= value[1] <= most


def _parents_of(document: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the parents that an export states, by the key of the span; without unknown ones and circles."""
    stated: dict[str, str | None] = {}
    known: set[str] = set()
    stack: list[Any] = [document]
    while stack:
        trajectory = object_in(stack.pop())
        owns = [object_in(own_of(trajectory).get("span"))]
        for step in map(object_in, list_in(trajectory.get("steps"))):
            owns += [own_of(step), *map(own_of, list_in(step.get("tool_calls")))]
        for own in owns:
            if (id := text_or_none(own.get("id"))) is not None:
                known.add(id)
                if "parent" in own:
                    stated[id] = text_or_none(own["parent"])
        stack += list_in(trajectory.get("subagent_trajectories"))
    return _without_circles({id: parent for id, parent in stated.items() if parent is None or parent in known})


def _without_circles(parents: dict[str, str | None]) -> dict[str, str | None]:
    done: set[str] = set()
    for id in [*parents]:
        way: list[str] = []
        at: str | None = id
        while at is not None and at not in done and at in parents:
            done.add(at)
            way.append(at)
            at = parents[at]
        if at is not None and at in way:
            parents[at] = None
    return parents


def _sources(path: Path) -> Iterator[Source]:
    """Yield the trajectories in a folder, or the file itself if it is one."""
    for file in walk(path, ".json", ".jsonl", ".json.gz", ".jsonl.gz") if path.is_dir() else [path]:
        if _VERSION.search(first_bytes(file) or b""):
            yield Source(NAME, file)


FORMATS = [Format(NAME, "ATIF", lambda environment: (), _sources, decode=decode)]
