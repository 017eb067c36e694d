"""A sandbox for python-liquid and its filters: no files, no attributes of objects, bounded steps, loops and texts.

Importing this module imports python-liquid, an extra; only schemas.templates does, when it compiles a template.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from io import StringIO
from typing import Any, TextIO

from liquid import Environment, RenderContext
from liquid.builtin.content import Literal
from liquid.builtin.filters import array, math, misc, string
from liquid.builtin.illegal import Illegal
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.assign_tag import AssignTag
from liquid.builtin.tags.capture_tag import CaptureTag
from liquid.builtin.tags.case_tag import CaseTag
from liquid.builtin.tags.comment_tag import CommentTag
from liquid.builtin.tags.decrement_tag import DecrementTag
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.builtin.tags.for_tag import BreakTag, ContinueTag, ForTag
from liquid.builtin.tags.if_tag import IfTag
from liquid.builtin.tags.increment_tag import IncrementTag
from liquid.builtin.tags.inline_comment_tag import InlineCommentTag
from liquid.builtin.tags.unless_tag import UnlessTag
from liquid.exceptions import LiquidError
from liquid.undefined import Undefined

from agentspan.errors import TemplateError
from agentspan.host import guard
from agentspan.text import one_line

MAX_TEXT = 100_000
"""Characters of a text that a template makes; a text of a payload may be longer."""
MAX_LIST = 1000
_MAX_BITS = 256
_MAX_WORDS_TEXT = 2 * MAX_TEXT
_TIME_FORMAT = re.compile(r"(?:%[-_0^#]?[A-Za-z%]|[^%]){0,60}\Z")


class OutOfSteps(Exception):
    """A rendering is stopped, because it takes too many steps or makes too long a text."""


class Items(list[Any]):
    """An array of a payload. It equals an empty array only if it is empty: comparing contents could take long."""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, list) and not self and not other)

    __hash__ = None


class Members(dict[str, Any]):
    """An object of a payload. It equals an empty object only if it is empty: comparing contents could take long."""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, dict) and not self and not other)

    __hash__ = None


def within(value: Any) -> tuple[Any, int]:
    """Return a value in the form that templates use, and the steps that reading it costs.

    Raises:
        OutOfSteps: a number of more than 256 bits.
    """
    if type(value) is str:
        return value, 1 + (len(value) >> 12)
    if type(value) is dict:
        return Members(value), 1 + (len(value) >> 8)
    if type(value) is list:
        return Items(value), 1 + (len(value) >> 8)
    if type(value) is int and value.bit_length() > _MAX_BITS:
        raise OutOfSteps
    return value, 1


def text_of(value: Any) -> str:
    """Return a value as text: nothing for null, objects and arrays, `true` and `false` for booleans."""
    if isinstance(value, str):
        return value
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is int:
        return repr(within(value)[0])
    if type(value) is float:
        return repr(value)
    return f"{value.start}..{value.stop - 1}" if isinstance(value, range) else ""


def _list(value: Any) -> list[Any]:
    """Return the items of a value, arrays in arrays flattened, as Liquid's array filters take it."""
    if value is None or isinstance(value, Undefined):
        return []
    found: list[Any] = []
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, (list, tuple, range)):
            if len(found) + len(pending) + len(each) > MAX_LIST:
                raise OutOfSteps
            pending.extend(reversed(each))
        else:
            found.append(within(each)[0])
    return found


def _member(item: Any, name: Any) -> Any:
    return within(item.get(name))[0] if isinstance(item, dict) and isinstance(name, str) else None


def _join(items: list[Any], separator: Any = " ") -> str:
    texts, between = [text_of(item) for item in items], text_of(separator)
    if sum(map(len, texts)) + len(between) * len(texts) > MAX_TEXT:
        raise OutOfSteps
    return between.join(texts)


def _is_ordered(keys: list[Any]) -> bool:
    kinds = {type(key) for key in keys}
    return kinds <= {str} or kinds <= {int, float}


def _sort(items: list[Any], name: Any = None, *, change: Callable[[Any], Any] = lambda key: key) -> list[Any]:
    if name is not None:
        with_key = [item for item in items if _member(item, name) is not None]
        without = [item for item in items if _member(item, name) is None]
        keys = [change(_member(item, name)) for item in with_key]
    else:
        with_key, without, keys = items, [], [change(item) for item in items]
    if not _is_ordered(keys):
        raise TypeError("cannot be compared")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return [*(with_key[number] for number in order), *without]


def _sort_natural(items: list[Any], name: Any = None) -> list[Any]:
    return _sort(items, name, change=lambda key: text_of(key).lower())


def _uniq(items: list[Any], name: Any = None) -> list[Any]:
    seen: set[tuple[str, Any]] = set()
    kept = []
    for item in items:
        key = item if name is None else _member(item, name)
        mark = (str(isinstance(key, bool)), id(key) if isinstance(key, (dict, list)) else key)
        if mark not in seen:
            seen.add(mark)
            kept.append(item)
    return kept


def _where(items: list[Any], name: Any, value: Any = None) -> list[Any]:
    if value is None or isinstance(value, Undefined):
        return [item for item in items if _member(item, name) not in (False, None)]
    return [item for item in items if _member(item, name) == value]


def _reject(items: list[Any], name: Any, value: Any = None) -> list[Any]:
    kept = {id(item) for item in _where(items, name, value)}
    return [item for item in items if id(item) not in kept]


def _compact(items: list[Any], name: Any = None) -> list[Any]:
    return [item for item in items if (item if name is None else _member(item, name)) is not None]


def _concat(items: list[Any], more: Any) -> list[Any]:
    if not isinstance(more, (list, tuple, range)):
        raise TypeError("is no array")
    return items + _list(more)


def _sum(items: list[Any], name: Any = None) -> Any:
    return array.sum_([item if name is None else _member(item, name) for item in items])


def _replace(text: str, old: Any, new: Any = "") -> str:
    found, made = text_of(old), text_of(new)
    if len(text) + text.count(found) * (len(made) - len(found)) > max(MAX_TEXT, len(text)):
        raise OutOfSteps
    return text.replace(found, made)


def _split(text: str, separator: Any = "") -> Any:
    if len(text) > MAX_TEXT:
        raise OutOfSteps
    return string.split(text, text_of(separator))


def _truncatewords(text: str, *args: Any) -> Any:
    return string.truncatewords(text[:_MAX_WORDS_TEXT], *args)


def _slice(value: Any, *args: Any) -> Any:
    return string.slice_(value if isinstance(value, (list, str)) else text_of(value), *args)


def _strip_html(text: str) -> str:
    """Remove tags in linear time; Python's parser of HTML is quadratic for `<` after `<`."""
    return re.sub(r"<[^<>]*>", "", text)


def _date(value: Any, wanted: Any = "") -> str:
    shown = text_of(value)
    form = text_of(wanted)
    try:
        if type(value) is int or shown.isdecimal():
            time = datetime.fromtimestamp(int(value), UTC)
        else:
            time = datetime.fromisoformat(shown)
    except (ValueError, OverflowError, OSError):
        return shown  # unchanged, also `now`: a summary must not depend on the time of rendering
    if not form or not _TIME_FORMAT.match(form):
        return shown
    return time.strftime(form)


def _of_text(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, *args: function(text_of(value), *args)


def _of_items(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value, *args: function(_list(value), *args)


def _of_any(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, (list, range)) and len(value) else None


def _last(value: Any) -> Any:
    return value[-1] if isinstance(value, (list, range)) and len(value) else None


def _size(value: Any) -> int:
    return len(value) if isinstance(value, (str, list, dict, range)) else 0


class _Plain:
    """The setting that python-liquid's text filters read: texts are no HTML, so filters need not escape them."""

    autoescape = False


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda value: function(value, environment=_Plain)


_FUNCTIONS: Iterable[tuple[Callable[[Callable[..., Any]], Callable[..., Any]], Mapping[str, Callable[..., Any]]]] = (
    (
        _of_text,
        {
            "append": lambda text, more: text + text_of(more),
            "prepend": lambda text, more: text_of(more) + text,
            "capitalize": string.capitalize,
            "date": _date,
            "downcase": string.downcase,
            "escape": _plain(string.escape),
            "escape_once": _plain(string.escape_once),
            "lstrip": string.lstrip,
            "newline_to_br": _plain(string.newline_to_br),
            "remove": lambda text, old: _replace(text, old),
            "remove_first": lambda text, old: text.replace(text_of(old), "", 1),
            "remove_last": lambda text, old: string.remove_last(text, text_of(old)),
            "replace": _replace,
            "replace_first": lambda text, old, new="": text.replace(text_of(old), text_of(new), 1),
            "replace_last": lambda text, old, new="": string.replace_last(text, text_of(old), text_of(new)),
            "rstrip": string.rstrip,
            "split": _split,
            "squish": string.squish,
            "strip": string.strip,
            "strip_html": _strip_html,
            "strip_newlines": _plain(string.strip_newlines),
            "truncate": string.truncate,
            "truncatewords": _truncatewords,
            "upcase": string.upcase,
            "url_decode": string.url_decode,
            "url_encode": _plain(string.url_encode),
        },
    ),
    (
        _of_items,
        {
            "compact": _compact,
            "concat": _concat,
            "find": lambda items, *args: next(iter(_where(items, *args)), None),
            "has": lambda items, *args: bool(_where(items, *args)),
            "join": _join,
            "map": lambda items, name: [_member(item, name) for item in items],
            "reject": _reject,
            "reverse": lambda items: items[::-1],
            "sort": _sort,
            "sort_natural": _sort_natural,
            "sum": _sum,
            "uniq": _uniq,
            "where": _where,
        },
    ),
    (
        _of_any,
        {
            "abs": math.abs_,
            "at_least": math.at_least,
            "at_most": math.at_most,
            "ceil": math.ceil,
            "default": misc.default,
            "divided_by": math.divided_by,
            "first": _first,
            "floor": math.floor,
            "last": _last,
            "minus": math.minus,
            "modulo": math.modulo,
            "plus": math.plus,
            "round": math.round_,
            "size": _size,
            "slice": _slice,
            "times": math.times,
        },
    ),
)


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    def bounded(value: Any, *args: Any, context: Any, **named: Any) -> Any:
        room = max(MAX_TEXT, len(value) if isinstance(value, str) else 0)
        for each in (value, *args):
            context.spend(within(each)[1])
        made, steps = within(function(value, *args, **named))
        context.spend(steps)
        if isinstance(made, str) and len(made) > room:
            raise OutOfSteps
        return made

    bounded.with_context = True  # type: ignore[attr-defined]  # python-liquid passes the context then
    return bounded


FILTERS: Mapping[str, Callable[..., Any]] = {
    name: _bounded(shape(function)) for shape, functions in _FUNCTIONS for name, function in functions.items()
}
"""The filters by name. Each raises OutOfSteps beyond its bounds."""


MAX_LIQUID_STEPS = 5000
"""Look-ups, filters and iterations of one rendering: 20 ms."""


class _Enough(Exception):
    """The output is longer than any summary."""


class _Written:
    """The output of a template. It stops the rendering once it is longer than `enough` characters."""

    def __init__(self, enough: int) -> None:
        self.text = ""
        self._enough = enough

    def write(self, text: str) -> int:
        self.text += text[: self._enough + 1]
        if len(self.text) > self._enough:
            raise _Enough
        return len(text)


class _Captured(StringIO):
    """The output of a `capture` block, of at most MAX_TEXT characters."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > MAX_TEXT:
            raise OutOfSteps
        return super().write(text)


class _Context(RenderContext):
    """The names of one rendering, and the steps that it may still take."""

    __slots__ = ("steps",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = MAX_LIQUID_STEPS

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise OutOfSteps

    def get(self, path: Any, **kwargs: Any) -> object:
        found, steps = within(super().get(path, **kwargs))
        self.spend(steps)
        return found

    def assign(self, key: str, val: Any) -> None:
        self.spend(1)
        super().assign(key, val)

    def stopindex(self, key: str, index: int | None = None) -> int:
        if index is not None and index > MAX_TEXT:  # before python-liquid makes a list of a reversed range
            raise OutOfSteps
        return super().stopindex(key, index)

    def loop(self, namespace: Mapping[str, object], forloop: Any) -> Any:
        forloop.it = self._counted(forloop.it)
        return super().loop(namespace, forloop)

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(1)
            yield item

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        return _Captured()


class _OutputNode(OutputNode):
    """`{{ … }}` as our own renderer shows values: a bare object or array is empty."""

    def render_to_output(self, context: Any, buffer: TextIO) -> int:
        context.spend(1)
        return buffer.write(text_of(self.expression.evaluate(context)))


class _Output(Output):
    node_class = _OutputNode


class _Echo(EchoTag):
    node_class: Any = _OutputNode


_TAGS = (
    Literal, _Output, Illegal, IfTag, UnlessTag, CaseTag, ForTag, BreakTag, ContinueTag, AssignTag, CaptureTag,
    CommentTag, InlineCommentTag, IncrementTag, DecrementTag, _Echo,
)  # fmt: skip


class _Environment(Environment):
    block_nesting_limit = 10

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        for tag in _TAGS:
            self.add_tag(tag)
        for name, function in FILTERS.items():
            self.add_filter(name, function)


_environment = _Environment()


def compiled(source: str, enough: int) -> Callable[[Mapping[str, Any]], str | None]:
    """Return the function that renders a template. It returns None instead of raising.

    Args:
        source: the template.
        enough: the most characters of the output; the text behind them is left out.

    Raises:
        TemplateError: the template is not Liquid, or has a tag or a filter that is not allowed.
    """
    try:
        template = _environment.from_string(source)
        unknown = [name for name in template.analyze(include_partials=False).filters if name not in FILTERS]
    except (LiquidError, RecursionError) as error:
        problem = one_line(str(error), 100) if isinstance(error, LiquidError) else "nested too deep"
        raise TemplateError("template", f"is Liquid that cannot be rendered: {problem}") from None
    if unknown:
        raise TemplateError("template", f"has a filter that is not available: {one_line(unknown[0], 40)}")

    def render(names: Mapping[str, Any]) -> str | None:
        written = _Written(enough)
        with guard():  # out of steps, nested too deep, or a filter on an odd value
            try:
                template.render_with_context(_Context(template, globals=names), written)  # type: ignore[arg-type]
            except _Enough:
                pass
            return written.text
        return None

    return render
