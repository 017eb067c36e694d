"""Summary templates: Mustache, compiled to a small renderer over plain JSON. Not chevron's renderer.

chevron's tokenizer is the parser. Its renderer reads files for partials, falls through to `getattr`, calls what
it finds and escapes HTML, so the tokens are rendered here: by look-ups in dicts and lists, nothing else, 4× faster.
Three members can be asked of any value: `_inline` (on one line, at most 80 characters), `_args`
(an object as `k=v, k=v`) and `_count` (how many items an array or object has).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from agentspan.errors import TemplateError
from agentspan.text import cut, one_line

MAX_TEMPLATE = 4096
MAX_TAGS = 64
MAX_DEPTH = 2
MAX_ITEMS = 20
MAX_SUMMARY = 200
MAX_INLINE = 80
_ENOUGH = 4 * MAX_SUMMARY  # characters after which the rest is sure to be cut away

_TAG = re.compile(r"\{\{\{[^{}]*\}\}\}|\{\{[^{}]*\}\}")
_KEY = re.compile(r"(\.|[^\s.{}|%]+(\.[^\s.{}|%]+)*)\Z")
_MISSING: Any = object()

Path = tuple[str, ...]
Stack = list[Any]
"""What names are looked up in: the context, and in a section what the section is about on top of it."""
Part = str | Callable[[Stack], str]


class Template:
    """A compiled template; `render` never raises, and its time is bounded by the limits above.

    Raises:
        TemplateError: not Mustache, too large or too deep, or a partial or delimiter change. The message says
            which, and `unsupported` tells whether it looks like Liquid, which other clients send.
    """

    __slots__ = ("_parts", "names")

    def __init__(self, source: str) -> None:
        paths: set[str] = set()
        self._parts = _compile(source, paths)
        self.names = frozenset(paths)

    def render(self, context: Mapping[str, Any]) -> str:
        """Render over a plain JSON object (1.5–4 µs)."""
        return one_line(_joined(self._parts, [context]), MAX_SUMMARY)


def _compile(source: str, names: set[str]) -> tuple[Part, ...]:
    if not isinstance(source, str):
        raise TemplateError("template", "must be a string")
    if len(source) > MAX_TEMPLATE:
        raise TemplateError("template", f"has {len(source)} characters; at most {MAX_TEMPLATE} are allowed")
    if "{%" in source or any("|" in tag for tag in _TAG.findall(source)):
        raise TemplateError("template", "looks like Liquid; summaries are Mustache: {{field}}, {{#field}}…{{/field}}")
    if "{{" in _TAG.sub("", source):
        raise TemplateError("template", "has a {{ that is never closed, or one brace too many")
    if len(_TAG.findall(source)) > MAX_TAGS:
        raise TemplateError("template", f"has more than {MAX_TAGS} tags")
    return _nest(iter(_tokens(source)), 0, names)


def _tokens(source: str) -> list[tuple[str, str]]:
    from chevron.tokenizer import ChevronError, tokenize  # 4 ms, for the first template only

    try:
        return list(tokenize(source))
    except IndexError:
        raise TemplateError("template", "has an empty tag {{}}") from None
    except ChevronError as error:
        raise TemplateError("template", " ".join(str(error).split())) from None


def _nest(tokens: Iterator[tuple[str, str]], depth: int, names: set[str]) -> tuple[Part, ...]:
    """Compile tokens up to the end of their section: literals stay text, the rest become closures over the stack."""
    parts: list[Part] = []
    for kind, key in tokens:
        if kind == "literal":
            parts.append(key)
        elif kind == "end":
            break
        elif kind in ("variable", "no escape"):
            parts.append(_variable(_getter(_path(key, names), depth)))
        elif kind in ("section", "inverted section"):
            if depth == MAX_DEPTH:
                raise TemplateError("template", f"has sections nested deeper than {MAX_DEPTH}")
            make = _section if kind == "section" else _inverted
            parts.append(make(_getter(_path(key, names), depth), _nest(tokens, depth + 1, names)))
        elif kind == "partial":
            raise TemplateError("template", "has a partial {{> …}}; a summary stands by itself")
        else:
            raise TemplateError("template", "changes the delimiters or has an unclosed {{{; use {{field}}")
    return tuple(parts)


def _path(key: str, names: set[str]) -> Path:
    if not _KEY.match(key):
        raise TemplateError("template", "has a tag that is no name; use {{field}} or {{object.field}}")
    if key == ".":
        return ()
    path = tuple(key.split("."))
    names.add(path[0])
    return path


def _joined(parts: tuple[Part, ...], stack: Stack) -> str:
    out = ""
    for part in parts:
        out += part if type(part) is str else part(stack)  # type: ignore[operator]
    return out


def _variable(get: Callable[[Stack], Any]) -> Part:
    def text(stack: Stack) -> str:
        value = get(stack)
        if type(value) is str:
            return value if len(value) <= _ENOUGH else value[:_ENOUGH]
        return _shown(value)

    return text


def _section(get: Callable[[Stack], Any], parts: tuple[Part, ...]) -> Part:
    def text(stack: Stack) -> str:
        value = get(stack)
        if _is_empty(value):
            return ""
        out = ""
        for item in value[:MAX_ITEMS] if type(value) is list else (value,):
            stack.append(item)
            out += _joined(parts, stack)
            stack.pop()
            if len(out) > _ENOUGH:
                break
        return out

    return text


def _inverted(get: Callable[[Stack], Any], parts: tuple[Part, ...]) -> Part:
    def text(stack: Stack) -> str:
        if not _is_empty(get(stack)):
            return ""
        stack.append(None)
        out = _joined(parts, stack)
        stack.pop()
        return out

    return text


def _is_empty(value: Any) -> bool:
    # 0 is a value ("0 hits" must show), unlike in Mustache's Python port.
    return value is _MISSING or (not value and type(value) is not int and type(value) is not float)


def _getter(path: Path, depth: int) -> Callable[[Stack], Any]:
    """Return the look-up of a path: outside sections there is one context to look in, so nothing is searched."""
    if not path:
        return lambda stack: stack[-1]
    first, rest = path[0], path[1:]
    if depth == 0 and not rest:
        return lambda stack: stack[0].get(first, _MISSING)
    if depth == 0 and len(rest) == 1 and rest[0] in _VIRTUAL:
        virtual = _VIRTUAL[rest[0]]
        return lambda stack: virtual(stack[0].get(first, _MISSING))
    if depth == 0:
        return lambda stack: _follow(stack[0].get(first, _MISSING), rest)

    def search(stack: Stack) -> Any:
        for context in reversed(stack):
            if type(context) is dict and first in context:
                return _follow(context[first], rest)
        return _MISSING

    return search


def _follow(value: Any, rest: Path) -> Any:
    for name in rest:
        if name in _VIRTUAL:
            value = _VIRTUAL[name](value)
        elif type(value) is dict:
            value = value.get(name, _MISSING)
        elif type(value) is list and name.isdecimal() and len(name) < 6 and int(name) < len(value):
            value = value[int(name)]
        else:
            return _MISSING
    return value


def _shown(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    if type(value) is float:
        return repr(value)
    if type(value) is int:  # int → str is quadratic, and refused over 4,300 digits
        return repr(value) if value.bit_length() <= 256 else "(a very large number)"
    return ""  # missing, null, a bare object or array


def _inline(value: Any) -> Any:
    if type(value) is str:
        return one_line(value, MAX_INLINE)
    return _MISSING if value is _MISSING or value is None else inline(value, MAX_INLINE)


def _args(value: Any) -> Any:
    if type(value) is not dict:
        return _inline(value)
    text = ""
    for key, item in value.items():
        name = key if key.isidentifier() and len(key) < MAX_INLINE else one_line(key, MAX_INLINE)
        shown = one_line(item, MAX_INLINE // 2) if type(item) is str else inline(item, MAX_INLINE // 2)
        text = f"{text}, {name}={shown}" if text else f"{name}={shown}"
        if len(text) > MAX_INLINE:
            return cut(text, MAX_INLINE)
    return text


def _count(value: Any) -> Any:
    return len(value) if type(value) is list or type(value) is dict else _MISSING


_VIRTUAL: Mapping[str, Callable[[Any], Any]] = {"_inline": _inline, "_args": _args, "_count": _count}


def inline(value: Any, limit: int) -> str:
    """Write any JSON value on one line of at most `limit` characters, looking at no more of it than that needs."""
    if type(value) is str:
        return one_line(value, limit)
    out: list[str] = []
    _write(value, out, [2 * limit], 0)
    return one_line("".join(out), limit)


def _write(value: Any, out: list[str], room: list[int], depth: int) -> None:
    """Append compact JSON until `room` is used up."""
    if room[0] <= 0:
        return
    if type(value) is dict or type(value) is list:
        if depth > 8:
            out.append("…")
            return
        opening, closing = "{}" if type(value) is dict else "[]"
        out.append(opening)
        room[0] -= 2
        for index, item in enumerate(value):
            if room[0] <= 0:
                break
            if index:
                out.append(",")
            if type(value) is dict:
                out.append(f'"{item[: room[0] + 1]}":')
                room[0] -= len(item) + 4
                item = value[item]
            _write(item, out, room, depth + 1)
        out.append(closing)
        return
    if type(value) is str:
        text = f'"{value[: room[0] + 1]}"'
    elif value is None:
        text = "null"
    else:
        text = _shown(value)
    out.append(text)
    room[0] -= len(text)
