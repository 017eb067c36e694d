"""Turns values of the program into JSON: once, in the calling thread, before anything is stored. Never raises.

All payloads, results, errors and metadata are captured by this module. Only here are credentials redacted and limits
applied. The arguments of a decorated function are bound to names without `inspect` (0.5 µs against 4).
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any, Literal, cast, overload

from pydantic_core import to_json

from agentspan import host
from agentspan.host import let_through
from agentspan.journal.records import Element, Parts
from agentspan.jsontext import LIST, LIST_TEXT
from agentspan.recording.capture.credentials import names_credential
from agentspan.recording.capture.plain import MAX_DEPTH, Plain
from agentspan.recording.capture.redaction import Redaction, is_harmless_name, marked_sensitive
from agentspan.recording.capture.repeats import Captured, Repeats, snapshot
from agentspan.recording.capture.values import MAX_INT_BITS, Limits, class_name, encode, exact_text, shrink, unharmed
from agentspan.tuning import STANDARD, Tuning

to_json({})  # the first call takes a lock; a signal handler that records during it would wait for ever

MAX_STACKTRACE = 16_384
"""The most characters of a stack trace: its last ones."""
MAX_MESSAGE = 16_384
"""The most characters of the message of an exception; more are cut with `…`."""
MAX_LINE = 4096
MAX_FRAMES = 64
"""The most frames of a stack trace: its last ones."""
MAX_MEMBERS = 20
"""The most exceptions that `exceptions` has of a group, and five times as many with nested groups; others are counted
in `more_exceptions`."""
MAX_TRACED = 200
"""The number of exceptions, with their causes and the members of groups, up to which all stack traces are written."""

GLANCE = 32 * 1024
"""The number of characters of plain JSON that are checked without noting the checked containers: a note takes as long
as a check. Nested shared lists can have any number of values; without notes, they are checked up to this size."""
LONG = 4096
"""The size of a payload, in characters, above which its lists are compared with lists that were captured before."""
MANY = 24
"""The length above which a list is checked with notes at once: it is probably a history, longer than GLANCE."""
_LIST_TEXT = LIST_TEXT.encode()
NOT_JSON = -(2**60)
_NO_NOTES: dict[tuple[int, int], int] = {}
_NOT_WRITTEN = '{"$not_json":{}}'
_LONGEST_NAME = 100
_MOST = 1 << MAX_INT_BITS
_LEAST = -_MOST


class Capture:
    """Turns values into JSON text for one recorder.

    Args:
        limits: how much of a payload is kept.
        redaction: replaces credentials; None if nothing is redacted.
        keep_sensitive: store the values that are marked as sensitive (see model.columns).
        tuning: sizes, for tests; see agentspan/tuning.py.
    """

    __slots__ = (
        "_depth",
        "_glance",
        "_items",
        "_keep_sensitive",
        "_payload",
        "_suspicious",
        "_tuning",
        "_value",
        "_wrapped_payload",
        "_wrapped_value",
        "limits",
        "redaction",
    )

    def __init__(
        self,
        limits: Limits,
        redaction: Redaction | None,
        *,
        keep_sensitive: bool = False,
        tuning: Tuning = STANDARD,
    ) -> None:
        self.limits = limits
        self.redaction = redaction
        # Copies for the common case: 0.2 µs faster than access through `limits` and `redaction`.
        self._value, self._payload, self._depth, self._items = limits[:4]
        self._depth = min(limits.depth, MAX_DEPTH)
        wraps = self._depth >= 2 and self._items >= 2 and self._value >= _LONGEST_NAME
        self._wrapped_value = self._value if wraps else -1
        self._glance = min(self._payload, GLANCE)
        self._wrapped_payload = self._glance if wraps else -1
        self._keep_sensitive = keep_sensitive
        self._tuning = tuning
        kept = None if keep_sensitive else marked_sensitive()
        self._suspicious = kept if redaction is None else redaction.suspicious

    @overload
    def object(self, value: Mapping[str, Any]) -> str: ...
    @overload
    def object(self, value: Mapping[str, Any], repeats: Repeats | None) -> str | Parts: ...
    def object(self, value: Mapping[str, Any], repeats: Repeats | None = None) -> str | Parts:
        """Return a mapping as JSON text (1 µs for 300 bytes). Any other value becomes the member `input`.

        Args:
            repeats: the lists captured before in the same run. With it, a mapping with long lists is returned in parts.
        """
        try:
            if type(value) is dict:
                notes = None if repeats is None else _NO_NOTES
                room = _room(value, self._glance, self._items, self._value, self._depth, notes)
                if room < 0 or (repeats is not None and self._glance - room > LONG):  # mostly neither
                    room, parts = self._long(value, room, repeats)
                    if parts is not None:
                        return parts
                # The common case: plain JSON within the limits, and nothing to redact. In pieces of 64 kB, 1 MB had 45
                # page faults instead of 240, and took 5 % less time for ASCII, but 8 % more for other texts.
                if room >= 0:
                    data = to_json(value, inf_nan_mode="strings")  # values added by another thread become JSON, too
                    text = data.decode()
                    if len(text) <= self._payload and (self._suspicious is None or not self._suspicious(text, data)):
                        return text
        except Exception as raised:
            if type(raised) is not RecursionError:  # no stack left for a call
                let_through(raised)
        try:
            return self._slowly(value)
        except Exception as raised:  # no stack left, or no memory
            if type(raised) is not RecursionError:
                let_through(raised)
            return _NOT_WRITTEN

    def _long(self, value: dict[str, Any], room: int, repeats: Repeats | None) -> tuple[int, Parts | None]:
        """Check a dict longer than GLANCE. Return the room that it leaves (see _room), and its parts or None."""
        most = self._glance
        if NOT_JSON < room < 0 and (most < self._payload or repeats is not None):
            most = self._payload
            room = _room(value, most, self._items, self._value, self._depth, {})
        if repeats is None or most - room <= LONG:
            return room, None
        return room, self._in_parts(value, repeats, is_plain=room >= 0)

    def unchanged(self, value: dict[str, Any], before: str = "", members: int = 0) -> str | None:
        """Return plain JSON as text if it is within the limits and nothing in it may need redaction; else None.

        Args:
            before: the text of members of the same object that were written earlier.
            members: the number of members in `before`.
        """
        items = self._items
        if self._left(value, self._payload - len(before)) < 0:
            return None
        if len(value) + members > items:
            return None
        data = to_json(value)
        text = data.decode()
        return None if self._suspicious is not None and self._suspicious(text, data) else text

    def call(self, name: str, head: str, arguments: dict[str, Any]) -> str:
        """Return a call as JSON text: its `name` and its `arguments`.

        Args:
            head: the text up to the arguments (see head_of_call).
            arguments: by parameter name.
        """
        try:
            room = self._wrapped_payload - len(head)
            if head and _room(arguments, room, self._items, self._value, self._depth - 1) >= 0:
                text = f"{head}{to_json(arguments, inf_nan_mode='strings').decode()}}}"
                if len(text) <= self._payload and (self._suspicious is None or not self._suspicious(text)):
                    return text
        except Exception as raised:
            let_through(raised)
        return self.object({"name": name, "arguments": arguments})

    def output(self, value: Any) -> str:
        """Return the return value of a function as the JSON text of a result: a dict itself, any other as `output`."""
        try:
            kind = type(value)
            if (
                (kind is str and len(value) <= self._wrapped_value)  # the most common
                or (
                    kind is list
                    and len(value) <= MANY
                    and _room(value, self._wrapped_payload, self._items, self._value, self._depth - 1) >= 0
                )
            ):
                data = to_json(value, inf_nan_mode="strings")
                text = f'{{"output":{data.decode()}}}'
                if len(text) <= self._payload and (self._suspicious is None or not self._suspicious(text, data)):
                    return text
        except Exception as raised:
            if type(raised) is not RecursionError:  # no stack left for a call
                let_through(raised)
        return self.object(value if issubclass(type(value), dict) else {"output": value})  # `__class__` may be anything

    def failure(self, error: dict[str, Any]) -> str:
        """Return the description of an exception, from the method `error`, as the JSON text of a result."""
        text = self._redacted_error(error) or self.object({"error": error})
        if text is _NOT_WRITTEN and error["type"] in ("RecursionError", "MemoryError"):  # no stack or memory left
            return f'{{"error":{{"type":"{error["type"]}","message":"{_UNREADABLE}","stacktrace":""}}}}'
        return text

    def _redacted_error(self, error: dict[str, Any]) -> str | None:
        """Return the JSON text of a description from `error`, whose texts are redacted; None if more must be done."""
        with unharmed:
            is_redacted = self.redaction is None or (not self.redaction.has_rule and _has_plain_types(error))
            if is_redacted and _room({"error": error}, self._payload, self._items, self._value, self._depth) >= 0:
                text = to_json({"error": error}).decode()
                return text if len(text) <= self._payload else None
        return None

    def text(self, text: str) -> str:
        """Return a text redacted, for a column of a table."""
        text = exact_text(text)
        return text if self.redaction is None else self.redaction.text(text)

    def error(self, exception: BaseException) -> dict[str, Any]:
        """Describe an exception by `type` (module and name), `message` and `stacktrace` (if too long, its end).

        The members of an exception group are listed in `exceptions`, each with its type and message.
        """
        with unharmed:
            described = self._exception(exception, 0, [5 * MAX_MEMBERS])
            described["stacktrace"] = self._stacktrace(exception, described)
            return described
        return {"type": _name(type(exception)), "message": _UNREADABLE, "stacktrace": ""}

    def _in_parts(self, value: dict[str, Any], repeats: Repeats, *, is_plain: bool) -> Parts | None:
        """Return a dict in parts: its lists of objects are compared with earlier captures. None if it has no such list.

        Only new elements count for the limit of a payload, so that a long history is not cut.

        Args:
            is_plain: whether the dict is known to be plain JSON within the limits.
        """
        rest: dict[str, Any] = {}
        lists: list[list[Element]] = []
        new = 0
        fresh = partial(self._objects, is_plain=is_plain)
        for key, item in value.items():
            rest[key] = item
            if type(item) is not list or len(item) < 2 or type(key) is not str or names_credential(key):
                continue
            held = item if is_plain else snapshot(item, self._depth - 2) if len(item) <= self._items else None
            taken = None if held is None else repeats.take(key, item, held, fresh)
            if taken is not None:
                rest[key] = LIST
                lists.append(taken.elements)
                new += taken.new
        if not lists or not (is_plain or self._left(rest, self._payload) >= 0):
            return None
        data = self._redacted(to_json(rest, inf_nan_mode="strings"), rest, "")
        around = data.split(_LIST_TEXT)
        if len(around) != len(lists) + 1:  # the user's rule has replaced the placeholder of a list
            return None
        if new + len(data) > self._payload:
            repeats.forget()
            return None
        return Parts(around, lists)

    def _objects(self, items: Sequence[Any], name: str, *, is_plain: bool) -> list[Captured] | None:
        """Capture elements of a list; None if an element is no object. One search for credentials covers all elements.

        Args:
            name: the name of the member that the list is in.
            is_plain: whether the elements are known to be plain JSON within the limits.
        """
        texts = [to_json(item, inf_nan_mode="strings") if is_plain or self._is_plain(item) else b"" for item in items]
        is_clean = self._suspicious is None or not self._suspicious(b"\n".join(texts))
        found: list[Captured] = []
        for item, text in zip(items, texts, strict=True):
            if text and type(item) is dict:
                data = text if is_clean else self._redacted(text, item, name)
                found.append(Captured(data, len(data)))
                continue
            walk = self._walk()
            plain = walk.of(item, name)
            if type(plain) is not dict:
                return None
            data = encode(plain).encode()
            found.append(Captured(data, len(data) - walk.blob_characters))
        return found

    def _left(self, value: dict[str, Any], room: int) -> int:
        """Return the result of `_room`. A long value is checked a second time with notes, so each container once."""
        glance = min(room, GLANCE)
        left = _room(value, glance, self._items, self._value, self._depth)
        if left >= 0 or left <= NOT_JSON or glance == room:
            return left if left < 0 else left + room - glance
        return _room(value, room, self._items, self._value, self._depth, {})

    def _is_plain(self, item: Any) -> bool:
        return type(item) is dict and self._left(item, self._payload) >= 0

    def _redacted(self, data: bytes, item: Any, name: str) -> bytes:
        """Return the JSON text `data` of the plain JSON `item`, redacted."""
        if self._suspicious is None or not self._suspicious(data):
            return data
        return encode(self._walk().of(item, name)).encode()

    def _walk(self) -> Plain:
        return Plain(self.limits, self.redaction, keep_sensitive=self._keep_sensitive, tuning=self._tuning)

    def _slowly(self, value: Any) -> str:
        walk = self._walk()
        plain = walk.of(value)
        if type(plain) is not dict:
            plain = {"input": plain}
        text = encode(plain)
        if len(text) - walk.blob_characters > self.limits.payload:
            text = encode(shrink(plain, self.limits.payload, walk.blobs))
        return text

    def _exception(self, exception: BaseException, depth: int, room: list[int]) -> dict[str, Any]:
        room[0] -= 1
        described: dict[str, Any] = {"type": _type_name(exception), "message": self._message(exception)}
        if isinstance(exception, BaseExceptionGroup) and depth < MAX_MEMBERS:
            members = _members(exception)
            listed: list[dict[str, Any]] = []
            for member in members[:MAX_MEMBERS]:
                if room[0] <= 0:
                    break
                listed.append(self._exception(member, depth + 1, room))
            described["exceptions"] = listed
            if len(members) > len(listed):
                described["more_exceptions"] = len(members) - len(listed)
        return described

    def _message(self, exception: BaseException) -> str:
        with unharmed:
            message = exact_text(str(exception))
            shown = message[:MAX_MESSAGE] if self.redaction is None else self.redaction.start(message, MAX_MESSAGE)
            return _text(shown + "…" if len(message) > MAX_MESSAGE else shown)
        return _UNREADABLE

    def _stacktrace(self, exception: BaseException, described: dict[str, Any]) -> str:
        with host.importing:
            from agentspan.recording.capture import stacktraces  # 8 ms, for the first failure only

        with unharmed:
            if _are_few(exception):
                lines = stacktraces.of_exception(exception, MAX_FRAMES)
            else:
                lines = stacktraces.of_frames(exception.__traceback__, MAX_FRAMES)
                lines.append(f"{described['type']}: {described['message']}")
            if self.redaction is None:
                return _text("".join(map(self._line, lines))[-MAX_STACKTRACE:])
            # In parts (each frame, and the lines between frames), so that each part is redacted once.
            kinds = groupby(lines, key=lambda line: id(line) if type(line) is stacktraces.FrameText else 0)
            parts = ["".join(map(self._line, each)) for _, each in kinds]
            return _text(self.redaction.end(parts, MAX_STACKTRACE))
        return ""

    def _line(self, line: str) -> str:
        """Return a line of a stack trace, cut at MAX_LINE: a long message must not displace the other lines."""
        if len(line) <= MAX_LINE:
            return line
        return (line[:MAX_LINE] if self.redaction is None else self.redaction.start(line, MAX_LINE)) + "…\n"


_UNREADABLE = "(its message could not be read)"
_name = type.__dict__["__name__"].__get__  # works also if a metaclass overrides the attribute


def _type_name(exception: BaseException) -> str:
    name = class_name(exception)
    module = type.__dict__["__module__"].__get__(type(exception))
    return name if module in ("builtins", "__main__") else f"{module}.{name}"


def _members(exception: BaseExceptionGroup[Any]) -> tuple[BaseException, ...]:
    """Return the members of an exception group, also if its class overrides the attribute."""
    members: tuple[BaseException, ...] = BaseExceptionGroup.__dict__["exceptions"].__get__(exception)
    return members


def _are_few(exception: BaseException) -> bool:
    """Return whether an exception has at most MAX_TRACED causes and members. Formatting takes 50 µs for each."""
    found, waiting, seen = 0, [exception], {id(exception)}
    while waiting:
        found += 1
        if found > MAX_TRACED:
            return False
        one = waiting.pop()
        for other in (one.__cause__, one.__context__):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                waiting.append(other)
        if isinstance(one, BaseExceptionGroup):
            waiting += _members(one)[:MAX_TRACED]  # traceback formats a member once for each group that has it
    return True


def _has_plain_types(error: dict[str, Any]) -> bool:
    """Return whether the names of classes in a description need no redaction."""
    return is_harmless_name(error["type"]) and all(map(_has_plain_types, error.get("exceptions", ())))


def head_of_call(name: str) -> str:
    """Return the JSON text of a call up to its arguments; "" if the name is long or not a plain identifier."""
    short = len(name) <= _LONGEST_NAME and name.isidentifier() and name.isascii()
    return f'{{"name":"{name}","arguments":' if short else ""


def _room(
    value: Any, room: int, items: int, longest: int, depth: int, sizes: dict[tuple[int, int], int] | None = None
) -> int:
    """Return about how many of `room` characters a dict or list leaves. Negative if it is too long or not plain JSON.

    Plain JSON is dicts with texts as keys, lists, texts, finite numbers, booleans and None, of exactly these types:
    encoding and decoding give the same value (0.5 µs for 300 bytes). The check stops as soon as no room is left, so a
    list that is in a value a thousand times is not checked a thousand times.

    Args:
        sizes: notes of the characters of each checked container, by its id and depth, so that no container is checked
            twice. With _NO_NOTES nothing is noted, and the result for a value with a list above MANY is -1.

    Returns:
        the remaining room; NOT_JSON if the value is not plain JSON, or beyond another limit than `room`.
    """
    length = len(value)
    room -= length + 2  # brackets, and the least that a member takes
    if room < 0 or length > items or depth <= 0:
        return room if room < 0 else NOT_JSON
    if type(value) is dict:
        for key in value:
            if type(key) is not str:
                return NOT_JSON
        value = value.values()
    for item in value:
        kind = type(item)
        if kind is str:
            length = len(item)
            if length > longest:
                return NOT_JSON
            room -= length
        elif kind is dict or kind is list:
            if sizes is None:
                room = _room(item, room, items, longest, depth - 1)
            elif sizes is _NO_NOTES:
                room = -1 if len(item) > MANY and kind is list else _room(item, room, items, longest, depth - 1, sizes)
            elif (left := _flat_room(item, room, items, longest, depth - 1)) is not None:  # most messages
                room = left
            else:
                place = id(item), depth
                size = sizes.get(place)
                left = _room(item, room, items, longest, depth - 1, sizes) if size is None else room - size
                sizes[place] = room - left
                room = left
            if room < 0:
                return room
        elif kind is float:
            if item - item != 0:  # NaN or infinite
                return NOT_JSON
        elif kind is int:
            if not _LEAST < item < _MOST:
                return NOT_JSON
        elif item is not None and kind is not bool:
            return NOT_JSON
    return room


def _flat_room(value: Any, room: int, items: int, longest: int, depth: int) -> int | None:
    """Return the result of `_room` for a small dict of texts, else None. The check is as fast as looking up a note."""
    length = len(value)
    if type(value) is not dict or length > 4 or length > items or depth <= 0:
        return None
    room -= length + 2
    for key, item in value.items():
        if type(key) is not str or type(item) is not str or len(item) > longest:
            return None
        room -= len(item)
    return room


def _text(text: str) -> str:
    """Replace lone surrogates, which no reader of the file could decode."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


Kind = Literal["function", "coroutine", "generator", "async generator"]

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def kind_of(fn: Any) -> Kind:
    """Return the kind of a function, which decides what a call returns: a value, an awaitable or a generator.

    The kind of a partial is that of its function; the kind of an object is that of its `__call__`.
    """
    while issubclass(type(fn), functools.partial):  # `__class__` may be anything, or raise
        fn = fn.func
    for called in (fn, getattr(type(fn), "__call__", None)):  # noqa: B004 (its kind matters, not whether there is one)
        with unharmed:  # the attributes of an object may raise: then its `__call__` decides
            if inspect.iscoroutinefunction(called) or _is_awaited(called):
                return "coroutine"
            if inspect.isasyncgenfunction(called):
                return "async generator"
            if inspect.isgeneratorfunction(called):
                return "generator"
    return "function"


def name_of(fn: Any) -> str:
    """Return the name of a function, or for an object without a name, the name of its class."""
    with unharmed:
        name = getattr(fn, "__name__", None)
        if type(name) is str and name:
            return name
    return class_name(fn).rpartition(".")[2]


def wrapper_of(fn: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator like functools.wraps that works also for an object whose attributes raise."""

    def wrap(wrapper: Callable[..., Any]) -> Any:
        with unharmed:
            return functools.update_wrapper(wrapper, fn)
        wrapper.__wrapped__ = fn  # type: ignore[attr-defined]
        return wrapper

    return wrap


def _is_awaited(fn: Any) -> bool:
    """Return whether `types.coroutine` has made a generator function awaitable; its yields go to the event loop."""
    code = getattr(fn, "__code__", None)
    return inspect.iscode(code) and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


class Arguments:
    """The parameters of one function.

    Attributes:
        name: the name of the function.
        head: the JSON text of a call's payload, up to the arguments.
    """

    __slots__ = ("_count", "_defaults", "_partial", "_positional", "_signature", "_skip", "head", "name")

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._partial = cast("functools.partial[Any]", fn) if issubclass(type(fn), functools.partial) else None
        fn = fn if self._partial is None else self._partial.func
        self.name = name_of(fn)
        self.head = head_of_call(self.name)
        signature = inspect.signature(lambda *args, **kwargs: None)
        with unharmed:  # some builtins have none, and an object may raise anything
            signature = inspect.signature(fn)
        parameters = list(signature.parameters.values())
        # `self` and `cls` are skipped: they tell little about the call, and their repr may be anything.
        self._skip = 1 if parameters and parameters[0].name in ("self", "cls") else 0
        parameters = parameters[self._skip :]
        self._defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        self._positional = tuple(p.name for p in parameters if p.kind is not p.KEYWORD_ONLY)
        self._count = len(parameters)
        variadic = any(p.kind in _VARIADIC for p in parameters)
        self._signature = signature if variadic or self._partial is not None else None

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call by parameter name, with defaults. A call that will fail may have fewer."""
        if self._signature is not None:
            return self._bind_slowly(args, kwargs)
        bound = dict(zip(self._positional, args[self._skip :] if self._skip else args))  # noqa: B905 (0.1 µs)
        if kwargs:
            bound.update(kwargs)
        if len(bound) < self._count:
            for name, default in self._defaults.items():
                bound.setdefault(name, default)
        return bound

    def _bind_slowly(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        assert self._signature is not None
        if self._partial is not None:
            args, kwargs = (*self._partial.args, *args), {**self._partial.keywords, **kwargs}
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError:  # the call itself will say so
            return {"args": list(args), "kwargs": dict(kwargs)}
        bound.apply_defaults()
        named = dict(list(bound.arguments.items())[self._skip :])
        for name, parameter in self._signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                rest = named.pop(name, {})
                named.update(
                    {f"**{key}" if key in named else key: rest[key] for key in rest}
                )  # f(1, a=2): f(a, /, **b)
        return named
