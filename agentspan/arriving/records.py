"""The records that decoders of session files yield: the session itself, its steps, and what was not understood.

`arriving` stores these values. Decoders are pure: bytes in, values out. They use neither runs nor ids of agentspan.
Keys and session ids are the source's own, so the same step of a file that is read again, has grown, or was copied
always gets the same id.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Status = Literal["active", "complete", "failed", "cancelled"]
Outcome = Literal["answered", "interrupted", "error", "limit"]
"""How a session ended: with an answer, stopped by a person, with an error, or at a limit of tokens, turns or usage."""


class Session(NamedTuple):
    """One session: a conversation of a person with an agent. The first value that a decoder yields for a session.

    A later Session with the same id replaces the earlier one: a decoder yields it again when it knows more.

    Attributes:
        id: the session's id in the source.
        agent: the name of the product, such as `claude-code`.
        started_ns: the time of the first record, in nanoseconds since the epoch. It never differs for a session.
        version: the version of the product.
        ended_ns: the time of the last record; None if that is not known.
        outcome: how the session ended; None if that is not known.
        output: the last answer.
        error: an object with `type` and `message`, if the session ended with an error.
        task: the name of the task: the normal form of the first prompt, or a branch. Runs of a task can be compared.
        conversation: the id of the session that this one resumes or forks; None for the session's own id.
        first: the key of the session's first step. Sessions with the same `first` are copies of each other's begin:
            steps with the same key are stored once, in the session that was stored first.
        parent: the id of the session that started this one as a sub-agent, and the key of the step there, or None. The
            steps are then stored in the parent's run, below an agent span.
        name: the name of the sub-agent; only with `parent`.
        goal: the task of the sub-agent; only with `parent`.
        fingerprint: the parts that the agent was made of: a hash or a name of `model`, `instructions`, `system_prompt`,
            `tools`, `permission_mode`, `skills` …. A part that is not known is left out.
        metadata: further facts: `cwd`, `git_branch`, `title`, `entrypoint` ….
        git_commit: the commit of the checkout, 40 or 64 hexadecimal digits.
        scores: judgements that the source has, as objects with `name`, `value`, `label`, `explanation`, `source`. One
            that was edited has also `edit`, the number of its edits, and `at_ns`, the time of the last one.
        is_over: True if the source says that the session never goes on. Its run ends even while its file is written.
    """

    id: str
    agent: str
    started_ns: int
    version: str | None = None
    ended_ns: int | None = None
    outcome: Outcome | None = None
    output: Any = None
    error: Mapping[str, Any] | None = None
    task: str | None = None
    conversation: str | None = None
    first: str | None = None
    parent: tuple[str, str | None] | None = None
    name: str | None = None
    goal: Any = None
    fingerprint: Mapping[str, str] = {}
    metadata: Mapping[str, Any] = {}
    git_commit: str | None = None
    scores: tuple[Mapping[str, Any], ...] = ()
    is_over: bool = False


class Step(NamedTuple):
    """One step of a session. A later Step with the same session and key replaces the earlier one.

    Attributes:
        session: the id of the session.
        key: the name of the step in the source, unique in the session, such as the id of a tool call.
        parent: the key of the step above; None for a step of the session itself.
        type: the schema_name of its span: `llm`, `tool`, `mcp`, `message`, `agent`, `compaction`, `hook`, `event`.
        status: of its span: active, complete, failed or cancelled.
        start_ns, end_ns: nanoseconds since the epoch; `end_ns` is None while the step is active.
        payload, result: the input and the output, with the fields of the built-in span types. Tokens of `llm`
            are in the result: `input_tokens` with those of the cache, `cached_tokens`, `cache_write_tokens`,
            `output_tokens`. A cost that the source states is `stated_cost_usd`. An `agent` needs no tokens: they
            are summed up when it is stored.
    """

    session: str
    key: str
    parent: str | None
    type: str
    start_ns: int
    end_ns: int | None
    status: Status
    payload: dict[str, Any]
    result: dict[str, Any] | None = None


class Unread(NamedTuple):
    """Something that a decoder could not read or did not understand.

    Attributes:
        session: the id of the session; None if it is not known.
        what: what it is, without a value of it: `a line that is no JSON`, `record of type x`.
        times: how often.
    """

    session: str | None
    what: str
    times: int = 1


Record = Session | Step | Unread
"""A value that a decoder yields."""


_VARIABLE = re.compile(r"#?\b(?:[0-9a-f]{8}-[0-9a-f-]{27}|(?=[a-f]*[0-9])[0-9a-f]{7,64})\b|#?\d+", re.ASCII)
_PATH = re.compile(r"https?://|[~.]+[/\\].|[/\\][^/\\]+[/\\.]|[a-z]:\\|[^/\\]+[/\\].*[/\\.]")
_TASK_CHARACTERS = 80
_SEARCHED_CHARACTERS = 2000


def task_of(text: str) -> str:
    """Return the name of a task: the normal form of a prompt, equal for prompts that differ in details only.

    Letters are lower case and white space is one space. URLs, paths, ids, hashes and numbers are replaced by `#`. At
    most 80 characters.
    """
    words = text[:_SEARCHED_CHARACTERS].lower().split()
    plain = ("#" if _PATH.match(word) is not None and not word.startswith("</") else word for word in words)
    return _VARIABLE.sub("#", " ".join(plain))[:_TASK_CHARACTERS].rstrip()


def as_asked(arguments: Any) -> Any:
    """Return the arguments of a tool call for the model's answer: the call's step has them whole.

    Of a text of more than 1,000 characters, the first 200 are repeated, and `…`: as a whole it would be stored twice.
    """
    if type(arguments) is dict:
        return {name: as_asked(value) if type(value) is str else value for name, value in arguments.items()}
    return arguments if type(arguments) is not str or len(arguments) <= 1000 else f"{arguments[:200]}…"


def unknown(session: str, key: str, parent: str | None, kind: str, time_ns: int, record: Any) -> Step:
    """Return the step that keeps a record of an unknown kind: its payload is the record.

    Args:
        kind: the record's type in the source.
        time_ns: the record's time, or that of the record before it.
        record: the whole record.
    """
    payload = {"name": kind, "level": "unknown", "content": record}
    return Step(session, key, parent, "unknown:event", time_ns, time_ns, "complete", payload)
