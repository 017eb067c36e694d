"""Signatures of failures: the stable name of a group of equal failures, from the data of one failed span alone.

A signature is versioned. A released version always computes the same signatures: a new rule becomes a new version,
beside the old one. `tests/schemas/signature_vectors.json` has the frozen examples.
"""

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.failing import is_error, returned_text
from agentspan.schemas.span_types import error_in, error_type, fallback, title_of
from agentspan.text import lazy_pattern, one_line

VERSION = 1
"""The version of new signatures. It is part of the hashed text, so ids of two versions never collide."""
MAX_MESSAGE = 2000
"""The most characters of a message that are read."""
MAX_TEXT = 200
"""The most characters of a message that count, after its values are removed."""
MAX_FRAMES = 4
"""The number of innermost frames that count: equal failures may be reached in different ways."""
MAX_TITLE = 60
"""The most characters of a span type's title in a signature's text."""
USUAL_REASONS = frozenset({"stop", "tool_calls", "end_turn", "tool_use", "STOP", "completed"})
"""Reasons of a model to stop that a signature's text omits, because nothing was cut."""
RUN_TYPE = "run"
"""Stands for the span type in the signature of a run's own error."""

_VALUES = lazy_pattern(
    r"""
      '(?<!\w')[^'\n]{0,200}'(?!\w)
    | "[^"\n]{0,200}"
    | `[^`\n]{0,200}`
    | [0-9][A-Za-z0-9]*(?:(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|(?:[.,:][0-9]+)+)?
    | [A-Za-z](?<![A-Za-z0-9][A-Za-z])[A-Za-z]*
      (?:[0-9][A-Za-z0-9]*(?:(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})?|:[/\\][^\s<>"']*)
    | [/\\](?<![\w/\\)~.][/\\])(?:[\w.@+-]+[/\\])+[\w.@+-]*
    | [~.](?<![\w.][~.])\.?[/\\](?:[\w.@+-]+[/\\])*[\w.@+-]*
    """,
    re.VERBOSE,
)
"""Quoted texts; words with digits, which may be a uuid; URLs; paths. Each branch begins with a character, so that the
scanner skips all other characters: 12 µs for a message of 100 characters, and 60 with named groups."""
_UUID = lazy_pattern(r"[0-9a-fA-F]{8}-")
_HEX = lazy_pattern(r"0[xX][0-9a-fA-F]+|(?=[0-9]*[a-fA-F])[0-9a-fA-F]{8,}")
_ID = lazy_pattern(r"(?=.{6})(?:[A-Za-z]+[0-9]+[A-Za-z]|[0-9]+[A-Za-z]+[0-9])")
_NUMBER = lazy_pattern(r"[0-9]+(?:[.,:][0-9]+)*")
_FRAME = lazy_pattern(r'File "([^"\n]*)", line \d+, in ([^\n]+)')
_JS_FRAME = lazy_pattern(r" at (?:async )?([^\s(]+(?: \[as [^\]\n]+\])?) \(([^()\n]*?):\d+:\d+\)")
_CHAINS = (
    "\nThe above exception was the direct cause of the following exception:\n",
    "\nDuring handling of the above exception, another exception occurred:\n",
)
_FOREIGN = lazy_pattern(
    r"[/\\](?:site-packages|dist-packages|node_modules)[/\\]|[/\\]lib[/\\]python3|^<frozen|^node:"
    r"|[/\\]agentspan[/\\](?:recording|otel)[/\\]"
)
_LAMBDA = lazy_pattern(r"<locals>\.|<|>")


class Signature(NamedTuple):
    """The name of a group of equal failures.

    Attributes:
        id: 12 hexadecimal digits.
        text: the failed step and its error, in one line without values: `Tool fetch: TimeoutError: no answer in <n> s`.
    """

    id: str
    text: str


class ErrorParts(NamedTuple):
    """An error as it was recorded.

    Attributes:
        type: without its module; "" where none is known.
        message: "" where there is none.
        stacktrace: "" where there is none.
    """

    type: str
    message: str
    stacktrace: str


class Key(NamedTuple):
    """The parts that a signature is made from: the failures of a group are equal in all of them."""

    schema_name: str
    label: str
    error_type: str
    frames: tuple[str, ...]
    message: str


def signature(span: AgentSpanRow) -> Signature:
    """Return the signature of a failed span."""
    return named(key_of(span.schema_name, span.label, error_parts(span.result_payload)))


def run_signature(error_text: str | None) -> Signature | None:
    """Return the signature of a run's own error, as stored; None if it has none."""
    if error_text is None:
        return None
    error = error_parts(error_text)
    return named(key_of(RUN_TYPE, None, error)) if any(error) else None


def ending_signature(status: str, last_tool: str | None, last_step: str | None, reason: str | None) -> Signature:
    """Return the signature of the ending of a run in which no step failed.

    Args:
        status: the run's status.
        last_tool: the label of the last tool that it called.
        last_step: the span type of its last step.
        reason: the last recorded reason of the model to stop; None without one.
    """
    parts = (str(VERSION), "ending", status, last_tool or "", last_step or "", reason or "")
    digest = blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=6)
    steps = [
        f"last tool {last_tool}" if last_tool else "no tool called",
        f"last step {type_title(last_step)}" if last_step else "no steps",
        f"the model stopped at {reason}" if reason and reason not in USUAL_REASONS else "",
    ]
    return Signature(digest.hexdigest(), one_line(f"{status}: {', '.join(filter(None, steps))}", MAX_TEXT + 100))


def key_of(schema_name: str, label: str | None, error: ErrorParts) -> Key:
    """Return the key of an error in a span of a type."""
    return Key(schema_name, label or "", error.type, own_frames(error.stacktrace), without_values(error.message))


def named(key: Key) -> Signature:
    """Return the signature of a key."""
    parts = (str(VERSION), key.schema_name, key.label, key.error_type, "\x1e".join(key.frames), key.message)
    digest = blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=6)
    step = " ".join(text for text in (type_title(key.schema_name), key.label) if text)
    error_text = ": ".join(text for text in (key.error_type, key.message) if text) or "failed without an error"
    return Signature(digest.hexdigest(), one_line(f"{step}: {error_text}", MAX_TEXT + 100))


@lru_cache(1000)
def type_title(schema_name: str) -> str:
    """Return the title of a span type by its name alone, whatever title is registered."""
    return "Run" if schema_name == RUN_TYPE else one_line(title_of(fallback(schema_name), schema_name), MAX_TITLE)


def error_parts(result: str | None) -> ErrorParts:
    """Return the error in the JSON text of a failed span's result, or of a run's error.

    If a call returned its error as its result (`is_error`), the message is the returned text.
    """
    decoded = jsontext.decoded(result)
    error = error_in(decoded)
    if error is None and type(decoded) is dict:
        if is_error(decoded):
            return ErrorParts("", returned_text(decoded), "")
        error = decoded if "message" in decoded or "type" in decoded else None
    if type(error) is str:
        return ErrorParts("", error, "")
    if type(error) is not dict:
        return ErrorParts("", "", "")
    return ErrorParts(error_type(error) or "", _text(error.get("message")), _text(error.get("stacktrace")))


def without_values(message: str) -> str:
    """Return the beginning of a message with numbers, ids, quoted texts, URLs and paths left out, in one line."""
    return " ".join(_VALUES.sub(_blank, message[:MAX_MESSAGE]).split())[:MAX_TEXT]


def error_without_values(error: ErrorParts) -> str:
    """Return an error as `Type: message`, the message without its values; "" where there is neither."""
    return ": ".join(text for text in (error.type, without_values(error.message)) if text)


def own_frames(stacktrace: str) -> tuple[str, ...]:
    """Return the functions of the program that an exception passed, the innermost ones, without line numbers.

    Frames of installed packages, of the standard library and of agentspan do not count. Of an exception and its causes,
    the frames of the exception itself count. A function that calls itself counts once.
    """
    if not stacktrace:
        return ()
    last = max(stacktrace.rfind(chain) for chain in _CHAINS)
    functions: list[str] = []
    for function in _own(stacktrace if last < 0 else stacktrace[last + 1 :]):
        if not functions or functions[-1] != function:
            functions.append(function)
    return tuple(functions[-MAX_FRAMES:])


def passes_on(error: ErrorParts, of_child: ErrorParts) -> bool:
    """Return whether an error only passes on a child's error: it is equal, quotes it, or was raised because of it."""
    if not error.type and not error.message:
        return True
    if (error.type, error.message) == (of_child.type, of_child.message):
        return True
    if not of_child.message:
        return bool(of_child.type) and f"\n{of_child.type}\n" in error.stacktrace
    return of_child.message in error.message or f"{of_child.type}: {of_child.message}" in error.stacktrace


def _blank(found: re.Match[str]) -> str:
    value = found[0]
    first = value[0]
    if first in "'\"`":
        return "<text>"
    if first in "/\\~.":
        return "<path>"
    if ":/" in value or ":\\" in value:
        return "<url>" if "://" in value else "<path>"
    if len(value) == 36 and _UUID.match(value):
        return "<uuid>"
    if _HEX.fullmatch(value):
        return "<hex>"
    return "<id>" if _ID.match(value) else _NUMBER.sub("<n>", value)


def _own(stacktrace: str) -> list[str]:
    python = _FRAME.findall(stacktrace)
    if python:
        return [_LAMBDA.sub("", function) for file, function in python if _is_own(file)]
    javascript = _JS_FRAME.findall(stacktrace)
    return [function for function, file in reversed(javascript) if _is_own(file)]  # the innermost frame is first


@lru_cache(10_000)
def _is_own(file: str) -> bool:
    return _FOREIGN.search(file) is None


def _text(value: Any) -> str:
    return value if type(value) is str else ""
