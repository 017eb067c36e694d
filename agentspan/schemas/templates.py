"""Summary templates: Mustache, compiled to a small renderer over plain JSON. Not chevron's renderer.

chevron's tokenizer is the parser. Its renderer reads files for partials, falls through to `getattr`, calls what
it finds and escapes HTML, so the tokens are rendered here: by look-ups in dicts and lists, nothing else, 4× faster.
Three members can be asked of any value: `_inline` (on one line, at most 80 characters), `_args`
(an object as `k=v, k=v`) and `_count` (how many items an array or object has).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentspan.errors import TemplateError
from agentspan.text import one_line

MAX_TEMPLATE = 4096
MAX_TAGS = 64
MAX_DEPTH = 2
MAX_ITEMS = 20
MAX_SUMMARY = 200
MAX_INLINE = 80
_ENOUGH = 4 * MAX_SUMMARY  # characters after which the rest is sure to be cut away

_TAG = re.compile(r"\{\{\{[^{}]*\}\}\}|\{\{[^{}]*\}\}")
_KEY = re.compile(r"(\.|[^\s.{}|%]+(\.[^\s.{}|%]+)*)\Z")
_VIRTUAL = frozenset({"_inline", "_args", "_count"})
_MISSING: Any = object()

Path = tuple[str, ...]
Program = tuple[tuple[int, Any, Any], ...]
"""Instructions: (_LITERAL, text, None), (_VARIABLE, path, None), (_SECTION or _INVERTED, path, program)."""

_LITERAL, _VARIABLE, _SECTION, _INVERTED = range(4)


class Template:
    """A compiled template; `render` never raises, and its time is bounded by the limits above.

    Raises:
        TemplateError: not Mustache, too large or too deep, or a partial or delimiter change. The message says
            which, and `unsupported` tells whether it looks like Liquid, which other clients send.
    """

    __slots__ = ("names", "program")

    def __init__(self, source: str) -> None:
        self.program = _compile(source)
        self.names = frozenset(_names(self.program))

    def render(self, context: Mapping[str, Any]) -> str:
        """Render over a plain JSON object (2–5 µs)."""
        out: list[str] = []
        _run(self.program, [context], out, _ENOUGH)
        return one_line("".join(out), MAX_SUMMARY)


def _compile(source: str) -> Program:
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
    return _nest(iter(_tokens(source)), 0)


def _tokens(source: str) -> list[tuple[str, str]]:
    from chevron.tokenizer import ChevronError, tokenize  # 4 ms, for the first template only

    try:
        return list(tokenize(source))
    except IndexError:
        raise TemplateError("template", "has an empty tag {{}}") from None
    except ChevronError as error:
        raise TemplateError("template", " ".join(str(error).split())) from None


def _nest(tokens: Any, depth: int) -> Program:
    program: list[tuple[int, Any, Any]] = []
    for kind, key in tokens:
        if kind == "literal":
            program.append((_LITERAL, key, None))
        elif kind == "end":
            break
        elif kind in ("variable", "no escape"):
            program.append((_VARIABLE, _path(key), None))
        elif kind in ("section", "inverted section"):
            if depth == MAX_DEPTH:
                raise TemplateError("template", f"has sections nested deeper than {MAX_DEPTH}")
            inner = _nest(tokens, depth + 1)
            program.append((_SECTION if kind == "section" else _INVERTED, _path(key), inner))
        elif kind == "partial":
            raise TemplateError("template", "has a partial {{> …}}; a summary stands by itself")
        else:
            raise TemplateError("template", "changes the delimiters or has an unclosed {{{; use {{field}}")
    return tuple(program)


def _path(key: str) -> Path:
    if not _KEY.match(key):
        raise TemplateError("template", "has a tag that is no name; use {{field}} or {{object.field}}")
    return () if key == "." else tuple(key.split("."))


def _names(program: Program) -> Iterator[str]:
    for kind, path, inner in program:
        if kind != _LITERAL and path:
            yield path[0]
        if inner is not None:
            yield from _names(inner)


def _run(program: Program, stack: list[Any], out: list[str], room: int) -> int:
    """Append the rendered text to `out`; return the characters that are left of `room`."""
    for kind, what, inner in program:
        if kind == _LITERAL:
            out.append(what)
            room -= len(what)
        elif kind == _VARIABLE:
            value = _look_up(what, stack)
            text = value if type(value) is str else _shown(value)
            out.append(text if len(text) <= _ENOUGH else text[:_ENOUGH])
            room -= len(text)
        else:
            value = _look_up(what, stack)
            # 0 is a value ("0 hits" must show), unlike in Mustache's Python port.
            empty = value is _MISSING or (not value and type(value) is not int and type(value) is not float)
            if empty is (kind == _INVERTED):
                room = _run_section(inner, [value] if empty else value, stack, out, room)
        if room <= 0:
            break
    return room


def _run_section(program: Program, value: Any, stack: list[Any], out: list[str], room: int) -> int:
    for item in value[:MAX_ITEMS] if type(value) is list else (value,):
        stack.append(item)
        room = _run(program, stack, out, room)
        stack.pop()
        if room <= 0:
            break
    return room


def _look_up(path: Path, stack: list[Any]) -> Any:
    if not path:
        return stack[-1]
    first = path[0]
    for context in reversed(stack):
        if type(context) is dict and first in context:
            value = context[first]
            break
    else:
        return _MISSING
    if len(path) == 1:
        return value
    for name in path[1:]:
        if name in _VIRTUAL:
            value = _virtual(name, value)
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


def _virtual(name: str, value: Any) -> Any:
    if name == "_count":
        return len(value) if type(value) in (list, dict) else _MISSING
    if name == "_args" and type(value) is dict:
        text = ""
        for key, item in value.items():
            text += f"{', ' if text else ''}{key[:MAX_INLINE]}={inline(item, MAX_INLINE // 2)}"
            if len(text) > MAX_INLINE:
                break
        return one_line(text, MAX_INLINE)
    return _MISSING if value is _MISSING or value is None else inline(value, MAX_INLINE)


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
