"""Collects facts from Claude Code's records: about the session as a whole, and about one conversation in it.

`Facts` collects the values of the Session. `Thread` keeps the open calls of one conversation: the main one, or that of
a sub-agent.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from agentspan.arriving import Outcome, Session, Status, Step, object_in, part_of, present, task_of, text_in, unicode_of
from agentspan.ground import text
from agentspan.sessions import claude_steps as steps

AGENT = "claude-code"
MILLI = 1_000_000
_PATHS = re.compile(r"(?<![\w/])/[^\s`'\"]+")
_KNOWN_UUIDS = 20_000
"""The fewest records of a file whose times are kept. A record's parent is nearly always one of the last hundred."""
_OPEN_CALLS = 8
"""The most model calls of a conversation to which further records may be added."""
_MOST_LISTED = 200
_NOTED = ("sessionId", "version", "cwd", "gitBranch", "entrypoint")
"""Members of records that say something about the session, in the order that `Facts._note_changed` unpacks."""


K = TypeVar("K")
V = TypeVar("V")


class Recent(dict[K, V | None], Generic[K, V]):
    """A map that keeps its latest entries: at least `size`, and fewer than twice as many. `[]` is None for others.

    Entries are dropped by the half: to delete the oldest entry of a dict, Python searches it from the start. The dict
    itself holds the younger ones, so that finding one of these calls no function of ours.
    """

    __slots__ = ("_older", "_size")

    def __init__(self, size: int) -> None:
        self._size = size
        self._older: dict[K, V | None] = {}

    def __missing__(self, key: K) -> V | None:
        return self._older.get(key)

    def get(self, key: K, default: Any = None) -> Any:
        """Return a value, as `[]` does; `default` if there is none."""
        found = self[key]
        return default if found is None else found

    def put(self, key: K, value: V) -> None:
        """Set a value."""
        self[key] = value
        if len(self) >= self._size:
            self._older = dict(self)
            self.clear()


class Clock:
    """Gives the steps of one file start times in the order of the file.

    Times of the source are in milliseconds, and often equal: the steps of one millisecond get a microsecond each.
    """

    __slots__ = ("_known", "_last", "_taken")

    def __init__(self) -> None:
        self._known: Recent[str, int] = Recent(_KNOWN_UUIDS)
        self._taken: Recent[int, int] = Recent(_KNOWN_UUIDS)
        self._last: int | None = None

    def time_of(self, record: Mapping[str, Any]) -> int | None:
        """Return a record's time in milliseconds: not before its parent's, and for one without, that before it."""
        get = record.get
        millis = steps.millis_of(get("timestamp"))
        parent = get("parentUuid")
        above = self._known[parent] if type(parent) is str else None
        if millis is None:
            millis = self._last if above is None else above
        elif above is not None and above > millis:
            millis = above
        if millis is not None:
            self._last = millis
            uuid = get("uuid")
            if type(uuid) is str:
                self._known.put(uuid, millis)
        return millis

    def known(self, uuid: Any) -> int | None:
        """Return the time of a record that was read; None if it was not, or long ago."""
        return self._known[uuid] if type(uuid) is str else None

    def was_read(self, uuid: str) -> bool:
        """Return whether a record with this uuid was read, not long ago."""
        return self._known.get(uuid) is not None

    def asked(self, record: Mapping[str, Any], millis: int) -> int:
        """Return the time of a record's parent, or its own if the parent is not known."""
        parent = record.get("parentUuid")
        above = self._known[parent] if type(parent) is str else None
        return millis if above is None or above > millis else above

    def start(self, millis: int) -> int:
        """Return the next free start time of a millisecond, in nanoseconds."""
        count = self._taken[millis] or 0
        self._taken.put(millis, count + 1)
        return millis * MILLI + count * 1000

    def count(self, millis: int) -> int:
        """Return how many steps have started in a millisecond."""
        return self._taken[millis] or 0


class Call:
    """A model call: what its records said so far. One answer of the API is written as several records."""

    __slots__ = ("blocks", "calls", "changed", "end", "key", "payload", "result", "start", "texts", "thoughts", "usage")

    def __init__(self, key: str, start: int, payload: dict[str, Any]) -> None:
        self.key, self.start, self.end, self.payload = key, start, start, payload
        self.result: dict[str, Any] = {}
        self.usage: dict[str, Any] = {}
        self.texts: list[str] = []
        self.thoughts: list[str] = []
        self.calls: list[Any] = []
        self.blocks: list[Any] = []
        self.changed = True

    def step(self, session: str, parent: str | None) -> Step:
        """Return the step of the call as it is now."""
        result: dict[str, Any] = {}
        for name, parts in (("text", self.texts), ("thinking", self.thoughts)):
            if parts:
                result[name] = "\n\n".join(parts)
        if self.calls:
            result["tool_calls"] = [*self.calls]
        if self.blocks:
            result["blocks"] = [*self.blocks]
        result |= self.result
        result |= steps.usage_of(self.usage)
        status: Status = "cancelled" if "aborted" in result else "complete"
        return Step(
            session, self.key, parent, "llm", self.start, max(self.start, self.end), status, self.payload, result
        )


class Early(NamedTuple):
    """A tool result whose call has not been read: its block, record, structured result and time."""

    block: dict[str, Any]
    record: Mapping[str, Any]
    structured: Any
    millis: int
    start: int


class Thread:
    """One conversation: the main one, or a sub-agent's.

    Attributes:
        id: the agent's id; None for the main conversation.
        top: the key of the step that has its steps; None for the main conversation.
        link: the key of the step above its agent step.
        is_compaction: whether it is the model call of a compaction: it has no agent step.
        calls: the latest model calls by key.
        open: the steps of tools without a result, by key.
        late: the tools that were cancelled last: a result may still come.
        messages, parents: the steps of messages of a compaction, and the uuids of the parents of its records: they may
            have to be put below its step.
        early: results whose calls stand later in the file, or nowhere.
        state: the outcome so far, or None while the agent works.
        compaction: the latest compaction without a summary.
        names: its names, by their rank.
        asked: the start of the tool call that started it, in ns.
        told, goal: its task, by the tool call and by its own records.
        model, resolved: its model, by its own records and by the tool's result.
        sent: hashes of the system prompts and lists of tools that were read.
        settings: the settings of its latest request, as members of the payload of a model call.
        done: when the tool call that started it ended, in ns; and its status.
    """

    __slots__ = (
        "asked", "calls", "changed", "compaction", "done", "early", "end", "error", "goal", "id", "is_compaction",
        "late", "link", "messages", "model", "names", "open", "output",
        "parents", "resolved", "result", "sent", "settings", "start", "state", "told", "top",
    )  # fmt: skip

    def __init__(self, id: str | None, top: str | None = None) -> None:
        self.id, self.top = id, top
        self.link: str | None = None
        self.is_compaction = False
        self.calls: OrderedDict[str, Call] = OrderedDict()
        self.open: dict[str, Step] = {}
        self.early: dict[str, Early] = {}
        self.messages: list[Step] = []
        self.parents: set[str] = set()
        self.late: dict[str, Step] = {}
        self.state: Outcome | None = None
        self.error: dict[str, Any] | None = None
        self.output: Any = None
        self.compaction: Step | None = None
        self.start: int | None = None
        self.end: int | None = None
        self.done: tuple[int, Status] | None = None
        self.names: dict[int, str] = {}
        self.asked: int | None = None
        self.resolved: str | None = None
        self.goal: Any = None
        self.told: Any = None
        self.model: str | None = None
        self.result: dict[str, Any] = {}
        self.sent: set[str] = set()
        self.settings: dict[str, Any] = {}
        self.changed = id is not None

    def add(self, call: Call) -> None:
        """Add a model call. The oldest one is dropped if there are too many."""
        self.calls[call.key] = call
        if len(self.calls) > _OPEN_CALLS:
            self.calls.popitem(last=False)

    def agent_step(self, session: str, started: int) -> Step:
        """Return the agent step as it is now.

        Args:
            started: when the session started, for an agent of which nothing else is known.
        """
        start = self.start or self.asked or started
        payload: dict[str, Any] = {"name": self.names[max(self.names)] if self.names else "agent", "agent_id": self.id}
        goal = self.told if self.told is not None else self.goal
        if goal is not None:
            payload["goal"] = goal
        if (model := self.model or self.resolved) is not None:
            payload["model"] = model
        status: Status = "active"
        end = max(start, self.end or start)
        if self.done is not None:
            status, end = self.done[1], max(end, self.done[0])
        elif self.state is not None:
            status = _STATUS[self.state]
        result = dict(self.result)
        if self.output is not None:
            result.setdefault("output", self.output)
        if self.error is not None and status == "failed":
            result["error"] = self.error
        ended = None if status == "active" else end
        return Step(session, self.top or "", self.link, "agent", start, ended, status, payload, result or None)


_STATUS: dict[Outcome, Status] = {
    "answered": "complete",
    "interrupted": "cancelled",
    "error": "failed",
    "limit": "failed",
}


class Facts:
    """Collects the facts of a session from its records."""

    def __init__(self, id: str | None) -> None:
        self.id = id
        self.started: int | None = None
        self.ended: int | None = None
        self.version: str | None = None
        self.first: str | None = None
        self.task: str | None = None
        self.fork: str | None = None
        self.permission: str | None = None
        self.commit: str | None = None
        self.prompts = 0
        self.metadata: dict[str, Any] = {}
        self._listed: dict[str, dict[str, None]] = {}
        self._tools: set[str] = set()
        self._agents: set[str] = set()
        self._skills: str | None = None
        self._system_prompt: str | None = None
        self._instructions: str | None = None
        self._title: tuple[int, str] | None = None
        self._seen: tuple[Any, ...] = ()

    def note(self, record: Mapping[str, Any], millis: int | None) -> None:
        """Note the facts that every record of the main conversation has: its time, and the state of the program."""
        get = record.get
        if millis is not None:
            if self.started is None:
                self.started = self.ended = millis
            elif millis > (self.ended or 0):
                self.ended = millis
        seen, mode = tuple(map(get, _NOTED)), get("permissionMode")  # apart, because prompts alone have it
        if self.first is None and type(uuid := steps.uuid_of(record)) is str:
            self.first = unicode_of(uuid)
        if "forkedFrom" in record and self.fork is None:
            self.fork = text_in(object_in(get("forkedFrom")).get("sessionId"))
        if seen != self._seen:
            self._seen = seen
            self._note_changed(seen, mode)
        elif mode is not None and mode != self.permission and type(mode) is str:
            self.set_permission(mode)

    def _note_changed(self, seen: tuple[Any, ...], permission: Any) -> None:
        session, version, cwd, branch, entry = seen
        if type(session) is str and session:
            session = unicode_of(session)
            if self.id is None:
                self.id = session
            elif session != self.id and self.fork is None:
                self.fork = session
        if type(version) is str and version:
            self.version = self.version or version
            self.list("versions", version)
        if type(permission) is str:
            self.set_permission(permission)
        for name, value in (("cwd", cwd), ("git_branch", branch), ("entrypoint", entry)):
            if type(value) is str and value:
                self.metadata.setdefault(name, value)
        if type(branch) is str and branch and branch != self.metadata.get("git_branch"):
            self.list("git_branches", branch)

    def set_permission(self, mode: str) -> None:
        """Note a permission mode. The first one belongs to the fingerprint."""
        self.permission = mode
        self.metadata.setdefault("permission_mode", mode)
        self.list("permission_modes", mode)

    def list(self, name: str, value: str) -> None:
        """Add a value to a list of the metadata, once."""
        listed = self._listed.setdefault(name, {})
        if len(listed) < _MOST_LISTED:
            listed[value] = None

    def title(self, rank: int, title: Any) -> None:
        """Note a title. One of a higher rank is kept, of the same rank the last."""
        if type(title) is str and title and (self._title is None or rank >= self._title[0]):
            self._title = rank, title

    def prompt(self, words: str) -> None:
        """Note a prompt, or a slash command."""
        if self.task is None and words:
            self.task = task_of(words) or None
            if words.startswith("/"):
                self.title(-1, text.one_line(words, 120))

    def listing(self, kind: str, attachment: Mapping[str, Any]) -> None:
        """Note the prompt, tools, agents and skills that the model was sent.

        Args:
            kind: the type of an attachment or of a record, or the subtype of a system record.
        """
        if kind == "deferred_tools_delta":
            self._tools.update(steps.names_of(attachment.get("addedNames")))
        elif kind == "agent_listing_delta":
            self._agents.update(steps.names_of(attachment.get("addedTypes")))
        elif kind == "skill_listing" and self._skills is None and type(text := attachment.get("content")) is str:
            self._skills = part_of(text)
        elif kind == "prompt_snapshot" and self._system_prompt is None:
            # The prompt names folders of the project and of the user.
            texts = steps.names_of(attachment.get("systemPrompt"))
            self._system_prompt = part_of("\n".join(_PATHS.sub("#", text) for text in texts))
        elif kind == "instructions" and self._instructions is None:
            files = [each.get for each in steps.blocks_of(attachment.get("files"))]
            self._instructions = part_of("\n".join(f"{get('type')}\n{get('content')}" for get in files))
        elif kind == "api-request-shape":
            names = (each.get("name") for each in steps.blocks_of(attachment.get("tools")))
            self._tools.update(name for name in names if type(name) is str)
        elif kind == "init":
            self._tools.update(steps.names_of(attachment.get("tools")))

    def session(self, thread: Thread) -> Session:
        """Return the session as it is now.

        Args:
            thread: the main conversation.
        """
        assert self.id is not None
        assert self.started is not None
        metadata = dict(self.metadata)
        for name, listed in self._listed.items():
            if len(listed) > 1 or name in ("models", "pull_requests", "frames"):
                # Models in alphabetical order: which file of a growing session is read first is chance.
                metadata[name] = sorted(listed) if name == "models" else [*listed]
        if self._title is not None:
            metadata["title"] = self._title[1]
        metadata["prompts"] = self.prompts
        return Session(
            self.id,
            AGENT,
            self.started * MILLI,
            self.version,
            ended_ns=(self.ended or self.started) * MILLI,
            outcome=thread.state,
            output=thread.output,
            error=thread.error if thread.state in ("error", "limit") else None,
            task=self.task or self.metadata.get("git_branch"),
            conversation=self.fork,
            first=self.first,
            fingerprint=self._fingerprint(thread),
            metadata=metadata,
            git_commit=self.commit,
        )

    def _fingerprint(self, thread: Thread) -> dict[str, str]:
        parts = {
            "model": thread.model,
            "permission_mode": self.metadata.get("permission_mode"),
            "cli_version": self.version,
            "system_prompt": self._system_prompt,
            "sent_instructions": self._instructions,
            "skills": self._skills,
            "tools": part_of("\n".join(sorted(self._tools))) if self._tools else None,
            "agents": part_of("\n".join(sorted(self._agents))) if self._agents else None,
        }
        return present(parts)


_TASK_ID = re.compile(r"<task-id>\s*(.*?)\s*</task-id>", re.DOTALL)
_TASK_STATUS = re.compile(r"<status>\s*(\w+)\s*</status>")
_TASK_RESULT = re.compile(r"<result>\s*(.*)\s*</result>", re.DOTALL)
_TASK_STATES: dict[str, Status] = {"completed": "complete", "failed": "failed", "killed": "cancelled"}


def finished_task(text: str) -> tuple[str, Status, str | None] | None:
    """Return the id, the status and the result of a background task that a notification reports; None for others."""
    id, status, result = _TASK_ID.search(text), _TASK_STATUS.search(text), _TASK_RESULT.search(text)
    if id is None or status is None or status[1] not in _TASK_STATES:
        return None
    return id[1], _TASK_STATES[status[1]], None if result is None else result[1]
