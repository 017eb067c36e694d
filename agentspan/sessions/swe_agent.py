"""Reads the trajectories of SWE-agent and mini-swe-agent: `.traj` and `.traj.json`, one JSON document a run.

A message of the assistant is an `llm`. Each of its tool calls is a `tool` with the message that answers it. Where the
model writes a command as text, the command is a `tool` named `bash`, and the next message is its output.

The files have no id: a session's id is a hash of the last names of the path and of the first answer. Most have no
times. Steps are then in order from the epoch on, a microsecond apart, but a tool takes the time that the file states.

Left out: demonstrations (`is_demo`), which are counted in the metadata, and the list `trajectory`, which repeats the
history, but for the times of its tools.
"""

import json
import re
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving import (
    Outcome,
    Record,
    Session,
    Step,
    Unread,
    decoded,
    list_in,
    object_in,
    parsed,
    part_of,
    present,
    several,
    task_of,
    text_of,
    text_or_none,
    unknown,
)
from agentspan.sessions.formats import Format, Source, head_of, walk
from agentspan.sessions.reading import opened

NAME = "swe-agent"
ENDINGS = (".traj", ".traj.json")
_HISTORY = re.compile(rb'"(?:role|history|messages|trajectory)"')
_COMMAND = re.compile(r"```(?:mswea_bash_command|bash|sh)\s*\n(.*?)\n?```", re.DOTALL)
_RETURNED = re.compile(r"<returncode>(-?\d+)</returncode>", re.ASCII)
_STEP_NS = 1000
_LIMITS = ("cost", "context", "limit", "format", "timeout", "time")
"""Words in the status of a run that ended at a limit."""
_MESSAGE = frozenset(
    {"role", "content", "thought", "action", "tool_calls", "tool_call_ids", "tool_call_id", "message_type", "agent",
     "extra", "thinking_blocks", "is_demo", "name", "cache_control", "tags"}
)  # fmt: skip


class _Facts(NamedTuple):
    """The facts of a run in a document.

    Attributes:
        mini: True for mini-swe-agent.
        messages: the history.
        took_s: the seconds of each action, as far as they are known.
    """

    mini: bool
    messages: list[Any]
    info: dict[str, Any]
    config: dict[str, Any]
    took_s: list[float]


def decode(path: Path, after: str | None = None) -> Iterator[Record]:
    """Decode one file.

    Raises:
        OSError: the file cannot be read.
    """
    with opened(path) as file:
        data = file.read()
    document = parsed(data)
    if not isinstance(document, dict | list):
        yield Unread(None, "a file that is no JSON object")
        return
    yield from _Reader(path, _facts_of(document)).records()


def _facts_of(document: dict[str, Any] | list[Any]) -> _Facts:
    if isinstance(document, list):
        return _Facts(True, document, {}, {}, [])
    info = object_in(document.get("info"))
    took = [_number(object_in(each).get("execution_time"), 1e9) or 0.0 for each in list_in(document.get("trajectory"))]
    if "messages" in document:
        return _Facts(True, several(document["messages"]), info, object_in(info.get("config")), took)
    config = object_in(decoded(document.get("replay_config")))
    return _Facts(False, several(document.get("history")), info, config, took)


class _Reader:
    """Reads one document."""

    def __init__(self, path: Path, facts: _Facts) -> None:
        self._facts = facts
        self._path = path
        answer = next((each for each in facts.messages if object_in(each).get("role") == "assistant"), None)
        names = json.dumps([*path.parts[-3:-1], _stem(path), answer])
        self._session = sha256(names.encode()).hexdigest()[:16]
        model = object_in(object_in(facts.config.get("agent")).get("model") or facts.config.get("model"))
        self._model = text_or_none(model.get("name")) or text_or_none(model.get("model_name")) or "unknown"
        self._time_ns = 0
        self._actions = 0
        self._waiting: dict[str, Step] = {}
        self._demos = 0

    def records(self) -> Iterator[Record]:
        times = [time_ns for each in self._facts.messages if (time_ns := _stated(each)) is not None]
        self._time_ns = min(times, default=0)
        session = self._session_of(self._time_ns)
        yield session
        steps: dict[str, Step] = {}
        for number, message in enumerate(self._facts.messages, start=1):
            for record in self._message(number, message):
                if isinstance(record, Step):
                    steps[record.key] = record
                else:
                    yield record
        yield from steps.values()
        ended_ns = max((step.end_ns or step.start_ns for step in steps.values()), default=session.started_ns)
        demos = {"demonstrations": self._demos} if self._demos else {}
        yield session._replace(ended_ns=ended_ns, metadata={**session.metadata, **demos})

    def _message(self, number: int, message: Any) -> Iterator[Record]:
        self._time_ns = max(self._time_ns + (_STEP_NS if number > 1 else 0), _stated(message) or 0)
        key = str(number)
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            yield Unread(self._session, "a message without a role")
            yield unknown(self._session, key, None, "message", self._time_ns, message)
        elif message.get("is_demo") is True:
            self._demos += 1
        elif message["role"] == "assistant":
            yield from self._answer(key, message)
        elif (found := self._answered(message)) is not None:
            yield self._ended(found, message)
        else:
            payload = {"role": message["role"], "content": message.get("content"), **_rest(message)}
            yield self._step(key, "message", payload, None)

    def _answer(self, key: str, message: dict[str, Any]) -> Iterator[Record]:
        """Yield the model call of an assistant's message, and its tools, which are open."""
        self._waiting.clear()
        text = text_of(message.get("content"))
        extra = object_in(message.get("extra"))
        calls = [call for each in list_in(message.get("tool_calls")) if (call := _call(each)) is not None]
        result: dict[str, Any] = {"text": text} if text else {}
        if calls:
            result["tool_calls"] = calls
        if message.get("thinking_blocks"):
            result["thinking"] = _thinking(message["thinking_blocks"])
        result |= _usage(extra)
        agent = {} if message.get("agent") in (None, "main", "primary") else {"agent": message["agent"]}
        yield self._step(key, "llm", {"model": self._model, **agent, **_rest(message)}, result)
        made = calls or [{"name": "bash", "arguments": {"command": each}} for each in _commands(message, text)]
        for number, call in enumerate(made, start=1):
            self._time_ns += _STEP_NS
            payload = {"name": call["name"], "arguments": call["arguments"]}
            payload |= {"call_id": call["id"]} if call.get("id") else {}
            step = self._step(f"{key}/{number}", "tool", payload, None)
            self._waiting[call.get("id") or step.key] = step
            yield step

    def _answered(self, message: Mapping[str, Any]) -> Step | None:
        """Return the open tool that a message answers; None if it answers none."""
        ids = [*list_in(message.get("tool_call_ids")), message.get("tool_call_id")]
        for id in ids:
            if isinstance(id, str) and id in self._waiting:
                return self._waiting.pop(id)
        is_output = message["role"] in ("user", "tool") and not any(isinstance(id, str) for id in ids)
        return self._waiting.pop(next(iter(self._waiting))) if is_output and self._waiting else None

    def _ended(self, step: Step, message: Mapping[str, Any]) -> Step:
        content = message.get("content")
        result: dict[str, Any] = {"output": content, **_rest(message)}
        returned = _RETURNED.search(content) if isinstance(content, str) else None
        if returned is not None and len(returned[1]) < 10:
            result |= {"exit_code": int(returned[1]), "is_error": int(returned[1]) != 0}
        took_s = self._facts.took_s[self._actions] if self._actions < len(self._facts.took_s) else 0.0
        self._actions += 1
        self._time_ns = max(self._time_ns, step.start_ns + int(took_s * 1e6) * 1000)
        return step._replace(end_ns=self._time_ns, result=result)

    def _step(self, key: str, kind: str, payload: dict[str, Any], result: dict[str, Any] | None) -> Step:
        return Step(self._session, key, None, kind, self._time_ns, self._time_ns, "complete", payload, result)

    def _session_of(self, started_ns: int) -> Session:
        info, config = self._facts.info, self._facts.config
        status = text_or_none(info.get("exit_status"))
        outcome = _outcome(status)
        prompt = next((text_of(each.get("content")) for each in self._facts.messages
                       if object_in(each).get("role") == "user" and not each.get("is_demo")), "")  # fmt: skip
        system = next((text_of(each.get("content")) for each in self._facts.messages
                       if object_in(each).get("role") == "system"), "")  # fmt: skip
        version = text_or_none(info.get("swe_agent_version")) or text_or_none(info.get("mini_version"))
        parts = {
            "model": None if self._model == "unknown" else self._model,
            "cli_version": version,
            "system_prompt": part_of(system) if system else None,
            "tools": part_of(object_in(config.get("agent")).get("tools")) if config.get("agent") else None,
        }
        kept = {name: value for name, value in info.items() if name not in ("config", "submission")}
        error = {"type": status, "message": "the run ended with this status"} if outcome == "error" and status else None
        return Session(
            self._session,
            "mini-swe-agent" if self._facts.mini else "swe-agent",
            started_ns,
            version,
            outcome=outcome,
            output=info.get("submission"),
            error=error,
            task=_stem(self._path) if not prompt else task_of(prompt) or None,
            fingerprint=present(parts),
            metadata={**kept, "instance": _stem(self._path), "models": [self._model]},
        )


def _stem(path: Path) -> str:
    name = path.name
    return next((name.removesuffix(ending) for ending in ENDINGS[::-1] if name.endswith(ending)), name)


def _stated(message: Any) -> int | None:
    """Return the time that a message states, in nanoseconds since the epoch."""
    seconds = _number(object_in(object_in(message).get("extra")).get("timestamp"), 2**37)
    return None if seconds is None else int(seconds * 1e6) * 1000


def _number(value: Any, most: float) -> float | None:
    """Return a number from 0 to `most`; None for anything else."""
    return float(value) if type(value) in (int, float) and 0 <= value < most else None


def _call(value: Any) -> dict[str, Any] | None:
    """Return a requested call of OpenAI's form with its arguments decoded; None for another form."""
    function = object_in(object_in(value).get("function"))
    if not isinstance(function.get("name"), str):
        return None
    arguments = decoded(function.get("arguments"))
    return {"id": text_or_none(value.get("id")), "name": function["name"], "arguments": arguments}


def _commands(message: Mapping[str, Any], text: str) -> list[str]:
    """Return the commands that an answer without tool calls has, as the agent read them, else as the text has them."""
    action = message.get("action")
    if isinstance(action, str) and action:
        return [action]
    stated = list_in(object_in(message.get("extra")).get("actions"))
    found = [each if isinstance(each, str) else object_in(each).get("command") for each in stated]
    return [each for each in found if isinstance(each, str)] or _COMMAND.findall(text)[:1]


def _thinking(blocks: Any) -> str:
    return "\n".join(text for each in list_in(blocks) if isinstance(text := object_in(each).get("thinking"), str))


def _usage(extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens and the cost that mini-swe-agent keeps of an answer."""
    usage = object_in(object_in(extra.get("response")).get("usage"))
    return present(
        {
            "input_tokens": usage.get("prompt_tokens"),
            "output_tokens": usage.get("completion_tokens"),
            "cached_tokens": object_in(usage.get("prompt_tokens_details")).get("cached_tokens"),
            "stated_cost_usd": extra.get("cost"),
        }
    )


def _rest(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of a message that no field of a step holds, in one member `extra`."""
    used = ("timestamp", "actions", "response", "cost")
    found = {name: value for name, value in message.items() if name not in _MESSAGE}
    found |= {name: value for name, value in object_in(message.get("extra")).items() if name not in used}
    return {"extra": found} if found else {}


def _outcome(status: str | None) -> Outcome | None:
    """Return the outcome by the status, such as `submitted`, `exit_cost`, or `LimitsExceeded`."""
    if status is None:
        return None
    word = status.lower()
    if word.startswith("submitted ("):  # SWE-agent submits what there is when it stops early
        word = word.removeprefix("submitted (")
    elif word.startswith("submitted"):
        return "answered"
    if any(limit in word for limit in _LIMITS):
        return "limit"
    return "interrupted" if "interrupt" in word or "exit_command" in word else "error"


def _sources(path: Path) -> Iterator[Source]:
    """Yield the trajectories in a folder, or the file itself if it is one."""
    for file in walk(path, *ENDINGS) if path.is_dir() else [path]:
        if file.name.endswith(ENDINGS) and _HISTORY.search(head_of(file)):
            yield Source(NAME, file, project=None)


FORMATS = [Format(NAME, "SWE-agent", lambda environment: (), _sources, decode=decode)]
