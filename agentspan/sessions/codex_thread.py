"""The facts of one Codex thread: its header, the settings of its turns, how it ended, and the place in its file."""

import re
from typing import Any

from agentspan.arriving import (
    Outcome,
    Record,
    Session,
    Step,
    Unread,
    commit_in,
    id_in,
    list_in,
    ns_of,
    object_in,
    part_of,
    present,
    task_of,
    unknown,
)
from agentspan.sessions.codex_records import is_timed_id, mark_of

AGENT = "codex"
"""The name of the agent in runs."""
_IN_MINUTE = re.compile(r"[0-5][0-9]\.[0-9]{3}Z$")
TICK_NS = 2_000
"""Records of the same millisecond are this far apart, so that runs keep their order. A model call fits in between."""
USERS_OWN = frozenset({"user_instructions", "AGENTS.md"})
"""The marks of messages with instructions of the user or the project."""


class Thread:
    """The facts of a thread, which grow with its file.

    Args:
        id: the thread's id as the file's name has it.
    """

    def __init__(self, id: str) -> None:
        self.id = id
        self.is_begun = False
        self.started_ns = self.ended_ns = 0
        self.header: dict[str, Any] = {}
        self.root: str | None = None
        self.model: str | None = None
        self.settings: dict[str, Any] = {}
        self.call: dict[str, Any] = {"model": "unknown"}
        self.permission: str | None = None
        self.models: dict[str, None] = {}
        self.title: str | None = None
        self.prompt: Any = None
        self.task: str | None = None
        self.outcome: Outcome | None = None
        self.output: str | None = None
        self.error: dict[str, Any] | None = None
        self.instructions: list[str] = []
        self.skills: str | None = None

    def begin(self, header: dict[str, Any], time_ns: int | None) -> None:
        """Note the first record. Only the first header of a file says whose the file is."""
        self.is_begun = True
        self.header = header
        self.id = id_in(header.get("id")) or self.id
        started_ns = ns_of(header.get("timestamp"))
        if started_ns is None:
            started_ns = time_ns if time_ns is not None else _ns_of_id(self.id)
        self.started_ns = self.ended_ns = started_ns
        self.settle(header)
        self.instruct(id_in(header.get("instructions")))

    def settle(self, context: dict[str, Any]) -> None:
        """Note the settings of the calls that follow: model, effort, permissions."""
        model = id_in(context.get("model"))
        if model is not None:
            self.model = model
            self.models[model] = None
        effort = context.get("effort") or context.get("reasoning_effort")
        if effort is None and "model" in context and "collaboration_mode" in context:
            of_mode = object_in(object_in(context["collaboration_mode"]).get("settings"))
            effort = of_mode.get("reasoning_effort")
        provider = context.get("model_provider") or context.get("model_provider_id")
        found = present({"provider": id_in(provider), "effort": id_in(effort)})
        tier = present({"service_tier": id_in(context.get("service_tier"))})
        # Only a profile, which newer versions write a second time, says less than the sandbox of the turn.
        if self.permission is None or "sandbox_policy" in context:
            self.permission = _permission_of(context) or self.permission
        more = present({"permission_mode": self.permission})
        self.settings = {**self.settings, **found, **tier, **more}
        self.call = {"model": self.model or "unknown", **self.settings}

    def instruct(self, text: str | None) -> None:
        """Note instructions of the user or the project."""
        if text is not None and (hashed := part_of(text)) not in self.instructions:
            self.instructions.append(hashed)

    def read(self, texts: list[str]) -> None:
        """Note the instructions and the list of skills that are among the texts of a message."""
        for text in texts:
            mark = mark_of(text)
            if mark in USERS_OWN:
                self.instruct(text)
            elif mark == "skills_instructions":
                self.skills = part_of(text)

    def ask(self, text: str, content: Any) -> None:
        """Note a prompt: the first one names the task."""
        if self.prompt is None:
            self.prompt, self.task = content, task_of(text) or None

    def end(self, outcome: Outcome | None, error: dict[str, Any] | None = None) -> None:
        """Note how a turn ended; None for a turn that goes on."""
        self.outcome, self.error = outcome, error

    @property
    def forked_from(self) -> str | None:
        """The thread that this one continues: the first one of the chain, as far as the file says."""
        base = object_in(self.header.get("history_base"))
        return self.root or id_in(self.header.get("forked_from_id")) or id_in(base.get("thread_id"))

    @property
    def copies_history(self) -> bool:
        """True if the file begins with a copy of another thread's records, by its header."""
        header = self.header
        return id_in(header.get("forked_from_id")) is not None and not object_in(header.get("history_base"))

    def session(self) -> Session:
        """Return the session as it is now."""
        header = self.header
        kind, spawn = _sub_agent(header)
        parent = id_in(spawn.get("parent_thread_id")) or id_in(header.get("parent_thread_id"))
        is_sub_agent = kind is not None and parent is not None and parent != self.id
        git = object_in(header.get("git"))
        return Session(
            self.id,
            AGENT,
            self.started_ns,
            id_in(header.get("cli_version")),
            max(self.started_ns, self.ended_ns),
            outcome=self.outcome,
            output=self.output,
            error=self.error,
            task=self.task or id_in(git.get("branch")),
            conversation=parent if is_sub_agent else self.forked_from,
            parent=(parent or "", spawn_key(self.id) if kind == "thread_spawn" else None) if is_sub_agent else None,
            name=self._name(spawn) or kind if is_sub_agent else None,
            goal=self.prompt if is_sub_agent else None,
            fingerprint=self._fingerprint(),
            metadata=self._metadata(git, kind),
            git_commit=commit_in(git.get("commit_hash")),
        )

    def _name(self, spawn: dict[str, Any]) -> str | None:
        names = (each.get(f"agent_{name}") for name in ("nickname", "role") for each in (self.header, spawn))
        return next((name for name in names if id_in(name)), None)

    def _fingerprint(self) -> dict[str, str]:
        header = self.header
        system = id_in(object_in(header.get("base_instructions")).get("text"))
        tools = list_in(header.get("dynamic_tools"))
        return present(
            {
                "model": self.model,
                "system_prompt": None if system is None else part_of(system),
                "instructions": part_of(" ".join(self.instructions)) if self.instructions else None,
                "tools": part_of(tools) if tools else None,
                "skills": self.skills,
                "permission_mode": self.permission,
                "effort": self.settings.get("effort"),
                "cli_version": id_in(header.get("cli_version")),
            }
        )

    def _metadata(self, git: dict[str, Any], kind: str | None) -> dict[str, Any]:
        header, source = self.header, self.header.get("source")
        return present(
            {
                "cwd": id_in(header.get("cwd")),
                "git_branch": id_in(git.get("branch")),
                "repository": id_in(git.get("repository_url")),
                "entrypoint": id_in(header.get("originator")),
                "source": f"subagent {kind}" if kind is not None else id_in(source),
                "agent_role": id_in(header.get("agent_role")),
                "title": self.title,
                "models": list(self.models) or None,
                "history_mode": id_in(header.get("history_mode")),
                "parent_thread_id": id_in(header.get("parent_thread_id")),
                "forked_from_id": id_in(header.get("forked_from_id")),
            }
        )


class Tape:
    """A place in a rollout: the thread, the number and the time of the line, and the records that the line yields.

    Args:
        thread: the facts of the thread.

    Attributes:
        out: the records that the current line yields.
        line, time, stamp: the number of the line, its time in runs, and its time in the source.
        boundary: the time of the last thing that the model reads in its next call.
        prompts: the prompts of the current turn.
        is_flat: whether the rollout has the first form, of bare items without events.
        has_turns: whether events say where turns start and end. Without them, an answer without calls is an end.
    """

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.out: list[Record] = []
        self.line = self.time = self.prompts = 0
        self.stamp = -1
        self.boundary: int | None = None
        self.is_flat = self.has_turns = False
        self._minute = ""
        self._minute_ns = 0

    def time_of(self, text: Any) -> int:
        """Return the time of a record: the source's, and a tick more for each record of the same time before it."""
        if type(text) is str and text[:17] == self._minute and _IN_MINUTE.match(text, 17):
            stamp = self._minute_ns + int(text[17:19]) * 1_000_000_000 + int(text[20:23]) * 1_000_000
        else:
            stamp = self._other_time(text)
        self.time = self.time + TICK_NS if stamp == self.stamp else stamp
        self.stamp = stamp
        return self.time

    def _other_time(self, text: Any) -> int:
        found = ns_of(text)
        if found is None:
            return self.stamp if self.stamp >= 0 else self.thread.started_ns
        if _IN_MINUTE.match(text, 17):
            self._minute, self._minute_ns = text[:17], found - found % 60_000_000_000
        return found

    def call_start(self, time: int) -> int:
        """Return the start of a model call that wrote something at a time: the end of the last input that it read."""
        return time if self.boundary is None else min(self.boundary + TICK_NS // 2, time)

    def read(self, time: int) -> None:
        """Note the time of something that the model reads in its next call."""
        self.boundary = max(self.boundary or 0, time)

    def emit(self, step: Step) -> None:
        """Add a step to the records of the line."""
        end = step.start_ns if step.end_ns is None else step.end_ns
        if end > self.thread.ended_ns:
            self.thread.ended_ns = end
        self.out.append(step)

    def moment(self, key: str, type: str, time: int, payload: dict[str, Any]) -> Step:
        """Return a step without a duration."""
        return Step(self.thread.id, key, None, type, time, time, "complete", payload)

    def told(self, payload: dict[str, Any], time: int, level: str = "info") -> None:
        """Add an event that has no meaning of its own here."""
        name = id_in(payload.get("type")) or "event"
        content = {each: value for each, value in payload.items() if each != "type" and value is not None}
        told = present({"name": name, "level": level, "content": content or None})
        self.emit(self.moment(f"{name}:{self.line}", "event", time, told))

    def not_known(self, record: dict[str, Any], time: int, *kinds: Any) -> None:
        """Add a record of an unknown kind, and count it.

        Args:
            kinds: the record's type, and that of what is in it.
        """
        name = ":".join(kind[:60] for kind in kinds if type(kind) is str) or "?"
        self.out.append(Unread(self.thread.id, f"record of type {name}"))
        self.emit(unknown(self.thread.id, f"record:{self.line}", None, name, time, record))


def spawn_key(thread: str) -> str:
    """Return the key of the step that spawned a thread. The thread's own file does not say the id of that call."""
    return f"spawn:{thread}"


def _sub_agent(header: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """Return the kind of a sub-agent, such as `thread_spawn` or `review`, and the header's facts about its start."""
    of = object_in(header.get("source")).get("subagent")
    if type(of) is dict and of:
        kind, spawn = next(iter(of.items()))
        return kind, object_in(spawn)
    return id_in(of), {}


def _permission_of(context: dict[str, Any]) -> str | None:
    """Return the approval and the sandbox of a turn: `on-request, workspace-write`."""
    approval = context.get("approval_policy")
    sandbox: Any = None
    for name in ("sandbox_policy", "permission_profile"):
        value = context.get(name)
        sandbox = sandbox or id_in(value) or id_in(object_in(value).get("type") or object_in(value).get("mode"))
    sandbox = "danger-full-access" if sandbox == "disabled" else sandbox
    if type(approval) is dict and approval:
        approval = next(iter(approval))
    return ", ".join(each for each in (id_in(approval), sandbox) if each) or None


def _ns_of_id(id: str) -> int:
    """Return the time in a UUID of version 7, in nanoseconds since the epoch; 0 for other ids."""
    digits = id[:8] + id[9:13]
    millis = int(digits, 16) if is_timed_id(id) and _is_hex(digits) else 0
    return millis * 1_000_000 if millis < 2**42 else 0


def _is_hex(text: str) -> bool:
    return all(each in "0123456789abcdefABCDEF" for each in text)
