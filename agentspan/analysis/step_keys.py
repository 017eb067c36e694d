"""Keys of steps, which identify the same step in two runs.

Times are not part of a key. Payloads are compared in canonical form: the order of members, ids of calls, stack traces
and addresses of objects do not matter. Free text of models and people has a digest of its own, because it differs from
run to run.
"""

import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.analysis.tree import Node
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.builtin import built_in_part

CALL_IDS = frozenset({"call_id", "tool_call_id", "tool_use_id", "toolCallId", "response_id", "request_id", "run_id"})
"""Payload members that identify one call, and so differ in each run."""
PROMPTS = frozenset({"messages", "prompt", "input", "contents", "history"})
"""Payload members of an llm step that hold the conversation so far."""
INSTRUCTIONS = frozenset({"system", "developer"})
"""Roles of messages that the program writes; people and models write all others."""
SAYING = frozenset({"llm", "message"})
"""Span types that hold free text of a model or a person."""
BY_MODEL = frozenset({"llm", "embedding", "rerank"})
"""Span types whose label is the model's name."""
SHORTEST_PROSE = 8
"""The least number of words of a text that counts as prose."""

_CALL_ID = re.compile(r"(?:call|toolu|chatcmpl|resp|msg|fc|rs|run|req|lc)[_-]|[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-")
_TO_CLEAN = re.compile(rf'"(?:id|stacktrace|{"|".join(sorted(CALL_IDS))})"\s*:|"arguments"\s*:\s*"')
_MAY_BE_PROSE = re.compile(r'[a-z0-9]{2}[.!?…][\s\\"]')
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_CODE = re.compile(r"[=;{}<>]")
_SENTENCE = re.compile(r"[a-z0-9]{2}[.!?…](?:\s|$)")


class Key(NamedTuple):
    """The keys by which two steps are compared, from the strictest to the loosest.

    Attributes:
        exact: type, label and arguments.
        course: type, label and arguments without free text; for an llm step, the calls that it made instead of the
            arguments.
        sort: type and label; for a step of a model, only the type.
    """

    exact: tuple[str, str | None, bytes]
    course: tuple[str, str | None, bytes]
    sort: tuple[str, str | None]


class Step(NamedTuple):
    """A span, or several attempts of which all but the last failed, with its keys.

    A named tuple: creating 20,000 frozen dataclasses takes 30 ms longer.

    Attributes:
        node: the tree node of the last attempt.
        key: the keys by which the step is compared.
        type: the built-in span type, without the prefix of its package.
        arguments, fixed, result, calls: digests of the payload, of the payload without free text, of the result, and
            of the tool calls in the result of a model.
        attempts: the number of attempts.
    """

    node: Node
    key: Key
    type: str
    arguments: bytes
    fixed: bytes
    result: bytes
    calls: bytes
    attempts: int = 1

    @property
    def says(self) -> bool:
        """True if the step holds free text of a model or a person."""
        return self.type in SAYING

    @property
    def span(self) -> AgentSpanRow:
        """The span of the last attempt."""
        return self.node.span


class _Digests(NamedTuple):
    whole: bytes
    fixed: bytes
    calls: bytes


class StepKeys:
    """Computes the keys of steps. Caches digests of payloads, because most payloads of two runs are equal."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], _Digests] = {}

    def step(self, node: Node) -> Step:
        """Return the step of a tree node: its span and the keys."""
        span = node.span
        type_ = built_in_part(span.schema_name)
        payload = self._digests(type_, "payload", span.payload)
        result = self._digests(type_, "result", span.result_payload or "null")
        label = None if type_ in BY_MODEL else span.label
        fixed = result.calls if type_ == "llm" else payload.fixed
        return Step(
            node,
            Key(
                (span.schema_name, span.label, payload.whole),
                (span.schema_name, label, fixed),
                (span.schema_name, label),
            ),
            type_,
            payload.whole,
            payload.fixed,
            result.whole,
            result.calls,
        )

    def _digests(self, type_: str, side: str, text: str) -> _Digests:
        known = (type_, side, text)
        found = self._known.get(known)
        if found is None:
            found = self._known[known] = _digests(type_, side, text)
        return found


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()


def _digests(type_: str, side: str, text: str) -> _Digests:
    try:
        value = cleaned(text)
        whole = _canonical(value)
        has_words = side == "payload" and (type_ in SAYING or _MAY_BE_PROSE.search(text) is not None)
        fixed = _canonical(_without_words(type_, value)) if has_words else whole
        calls = _canonical(list(_calls(value))) if side == "result" and type_ == "llm" else b""
    except RecursionError:  # nested too deep to normalize: compare the raw text
        whole = fixed = _digest(text)
        calls = b""
    return _Digests(whole, fixed, calls)


def _canonical(value: Any) -> bytes:
    text = jsontext.canonical(value)
    return _digest(_ADDRESS.sub(" at 0x", text) if " at 0x" in text else text)


def cleaned(text: str) -> Any:
    """Decode a payload, and remove what differs in each run: ids of calls and stack traces.

    Raises:
        RecursionError: the payload is nested too deep.
    """
    value = jsontext.decode(text)
    return _cleaned(value) if _TO_CLEAN.search(text) else value


def _cleaned(value: Any) -> Any:
    if type(value) is dict:
        return {key: _member(key, item) for key, item in value.items() if not _is_volatile(key, item)}
    if type(value) is list:
        return [_cleaned(item) for item in value]
    return value


def _member(key: str, value: Any) -> Any:
    if key != "arguments":
        return _cleaned(value)
    if type(value) is str and value[:1] == "{":  # chat completions encode arguments as JSON text
        try:
            return jsontext.decode(value)
        except ValueError:
            return value
    return value  # the agent chose an id among the arguments, so it is kept


def _is_volatile(key: str, value: Any) -> bool:
    if key in CALL_IDS or key == "stacktrace":
        return True
    return key == "id" and type(value) is str and _CALL_ID.match(value) is not None


def _without_words(type_: str, value: Any) -> Any:
    """Return a decoded payload without the free text of models and people."""
    if type(value) is not dict:
        return value
    if type_ == "llm":
        rest = {key: item for key, item in value.items() if key not in PROMPTS}
        return [rest, [_instructions(value[key]) for key in sorted(PROMPTS & value.keys())]]
    if type_ == "message":
        return {key: item for key, item in value.items() if key != "content"}
    return _without_prose(value)


def _instructions(prompt: Any) -> list[Any]:
    if type(prompt) is not list:
        return []
    return [message for message in prompt if type(message) is dict and message.get("role") in INSTRUCTIONS]


def _without_prose(value: Any) -> Any:
    if type(value) is dict:
        return {key: _without_prose(item) for key, item in value.items()}
    if type(value) is list:
        return [_without_prose(item) for item in value]
    return "…" if type(value) is str and is_prose(value) else value


def is_prose(text: str) -> bool:
    """Return whether a text consists of sentences, such as a thought or a mail, rather than a query, code or data."""
    return (
        len(text) > 4 * SHORTEST_PROSE
        and len(text.split(None, SHORTEST_PROSE)) > SHORTEST_PROSE
        and _CODE.search(text) is None
        and _SENTENCE.search(text) is not None
    )


def tools_of(step: Step) -> tuple[str, ...]:
    """Return the names of the tools of a step: its own for a tool step, the called ones for an llm step, else none."""
    span = step.span
    if step.type == "tool":
        return (span.label,) if span.label else ()
    if step.type != "llm" or span.result_payload is None:
        return ()
    try:
        return tuple(name for name, _ in _calls(cleaned(span.result_payload)))
    except RecursionError:
        return ()


def _calls(value: Any) -> Iterator[Any]:
    """Yield the name and arguments of each tool call in a model's result, in the form of any provider."""
    if type(value) is list:
        for item in value:
            yield from _calls(item)
    elif type(value) is dict:
        name, arguments = value.get("name"), value.get("arguments", value.get("input", value.get("args")))
        if type(name) is str and arguments is not None:
            yield [name, _without_prose(arguments)]
        else:
            for key, item in value.items():
                if type(item) in (dict, list) and key != "error":
                    yield from _calls(item)
