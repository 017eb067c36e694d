"""Summary templates: Mustache, compiled to a Python function over plain JSON.

chevron's tokenizer is the parser. chevron's renderer is not used: it reads files for partials, uses `getattr`, calls
functions that it finds, and escapes HTML. Instead the tokens are compiled to a function that only looks up members of
dicts and lists. Its source consists of fixed pieces; texts and names of the template are constants, never source.
Every value has three virtual members: `_inline` (the value on one line, at most 80 characters), `_args` (an object as
`k=v, k=v`) and `_count` (the number of items of an array or object).

Clients of the API also register templates in Liquid: official TypeScript packages do. python-liquid (the extra
`liquid`) is the engine, in the sandbox of liquid_engine. It is imported for the first Liquid template only.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from agentspan import host
from agentspan.errors import TemplateError
from agentspan.text import cut, one_line

MAX_TEMPLATE = 4096
"""The most characters of a template; a longer one is a `TemplateError`."""
MAX_TAGS = 64
"""The most tags of a template."""
MAX_DEPTH = 2
"""The most levels of sections in a template."""
MAX_ITEMS = 20
"""The most items of an array that a section of a template shows."""
MAX_SUMMARY = 200
"""The most characters of a summary; more are cut with `…`."""
MAX_INLINE = 80
"""The most characters of `_inline` and `_args` in a template; more are cut with `…`. A value in `_args`
has half as many."""
_ENOUGH = 4 * MAX_SUMMARY  # characters; text behind them is always cut

_TAG = re.compile(r"\{\{\{[^{}]*\}\}\}|\{\{[^{}]*\}\}")
_KEY = re.compile(r"(\.|[^\s.{}|%]+(\.[^\s.{}|%]+)*)\Z")

RESERVED = frozenset({"_status", "_schema", "_duration", "_error"})
"""Names that mean a property of the span itself, never a member of a payload."""


Render = Callable[..., str]
"""A compiled template: a function from a context and reserved names to one line of at most 200 characters."""


class Template:
    """A compiled template.

    Attributes:
        reserved: the reserved names in it.
        asks: whether it has a reserved name other than `_error`, which only failed spans have.
        render: the compiled function (1.5–3 µs). Takes a plain JSON object and the values of the reserved names, and
            returns one line of text. It never raises, and the limits above bound its time.

    Raises:
        TemplateError: not Mustache, too large or too deep, a partial, or changed delimiters; the message says which.
    """

    __slots__ = ("asks", "render", "reserved")

    def __init__(self, source: str) -> None:
        program = _Program()
        program.nest(_checked_tokens(source), 0)
        self.render: Render = program.function()
        self.reserved = RESERVED & program.names
        self.asks = bool(self.reserved - {"_error"})


def _checked_tokens(source: str) -> Iterator[tuple[str, str]]:
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
    return iter(_tokens(source))


def _tokens(source: str) -> list[tuple[str, str]]:
    with host.importing:
        from chevron.tokenizer import ChevronError, tokenize  # 4 ms, for the first template only

    try:
        return list(tokenize(source))
    except IndexError:
        raise TemplateError("template", "has an empty tag {{}}") from None
    except ChevronError as error:
        raise TemplateError("template", " ".join(str(error).split())) from None


class _Program:
    """Compiles the tokens of one template to the source of its render function.

    In the source, `c0` is the context, `c1` and `c2` are the values of the open sections, and `out` is the text so far.
    `clean` is True while `one_line` would change only spaces in `out`. `one_line` is not called if `out` is clean and
    short, and has no spaces to change. Values of `_inline` and `_args` are clean. Another value is checked if it has at
    most MAX_INLINE characters; a longer one makes `out` unclean.
    """

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._lines = ["def render(c0, reserved=None):", " out = ''", " clean = constants_are_clean"]
        self._constants: dict[str, Any] = {}
        self._constants_are_clean = True
        self._is_clean = [False]  # whether the value of each level is clean text

    def function(self) -> Render:
        self._lines.append(f" if clean and len(out) <= {MAX_SUMMARY} and '  ' not in out and out.strip() == out:")
        self._lines.append("  return out")
        self._lines.append(f" return one_line(out, {MAX_SUMMARY})")
        scope: dict[str, Any] = {**_HELPERS, **self._constants, "constants_are_clean": self._constants_are_clean}
        exec("\n".join(self._lines), scope)  # fixed pieces only: see the module's first lines
        render: Render = scope["render"]
        return render

    def nest(self, tokens: Iterator[tuple[str, str]], depth: int) -> None:
        """Write the code of the tokens up to the end of their section."""
        for kind, key in tokens:
            if kind == "literal":
                self._constants_are_clean = self._constants_are_clean and key.isprintable()
                self._line(depth, f"out += {self._constant(key)}")
            elif kind == "end":
                return
            elif kind in ("variable", "no escape"):
                self._variable(key, depth)
            elif kind in ("section", "inverted section"):
                self._section(kind == "inverted section", key, tokens, depth)
            elif kind == "partial":
                raise TemplateError("template", "has a partial {{> …}}; a summary stands by itself")
            else:
                raise TemplateError("template", "changes the delimiters or has an unclosed {{{; use {{field}}")

    def _variable(self, key: str, depth: int) -> None:
        found, is_clean = self._look_up(key, depth)
        if is_clean:
            self._line(depth, f"out += {found} or ''")
            return
        self._line(depth, f"v = {found}")
        self._line(depth, f"if type(v) is not str or len(v) > {_ENOUGH}: v = shown(v)")
        self._line(depth, f"clean = clean and len(v) <= {MAX_INLINE} and v.isprintable()")
        self._line(depth, "out += v")

    def _section(self, inverted: bool, key: str, tokens: Iterator[tuple[str, str]], depth: int) -> None:
        if depth == MAX_DEPTH:
            raise TemplateError("template", f"has sections nested deeper than {MAX_DEPTH}")
        found, is_clean = self._look_up(key, depth)
        self._line(depth, f"v = {found}")
        # 0 counts as present ("0 hits" must show), unlike in Mustache's Python port.
        there = "v" if is_clean else "v or (v is not None and type(v) in numbers)"
        items = "nothing" if inverted else "(v,)" if is_clean else "items(v)"
        self._line(depth, f"for c{depth + 1} in {items} if {there} else {'once' if inverted else 'nothing'}:")
        self._line(depth + 1, f"if len(out) > {_ENOUGH}: break")
        self._is_clean.append(is_clean and not inverted)
        self.nest(tokens, depth + 1)
        self._is_clean.pop()

    def _look_up(self, key: str, depth: int) -> tuple[str, bool]:
        """Return the expression of a value, and whether the value is None or clean text."""
        if not _KEY.match(key):
            raise TemplateError("template", "has a tag that is no name; use {{field}} or {{object.field}}")
        if key == ".":
            return f"c{depth}", self._is_clean[depth]
        first, *rest = key.split(".")
        self.names.add(first)
        name = self._constant(first)
        if first in RESERVED:
            found = f"(reserved.get({name}) if reserved else None)"
        elif depth == 0:  # there is one context only
            found = f"c0.get({name})"
        else:
            found = f"c0.get({name})"
            for level in range(1, depth + 1):
                found = f"(c{level}[{name}] if type(c{level}) is dict and {name} in c{level} else {found})"
        for member in rest:
            if member in _VIRTUAL:  # no call for a missing value
                found = f"({member}(m) if (m := {found}) is not None else None)"
            else:
                found = f"member({found}, {self._constant(member)})"
        return found, bool(rest) and rest[-1] in _CLEAN

    def _constant(self, text: str) -> str:
        name = f"k{len(self._constants)}"
        self._constants[name] = text
        return name

    def _line(self, depth: int, code: str) -> None:
        self._lines.append(" " * (depth + 1) + code)


def _member(value: Any, name: str) -> Any:
    if type(value) is dict:
        return value.get(name)
    if type(value) is list and name.isdecimal() and len(name) < 6 and int(name) < len(value):
        return value[int(name)]
    return None


def _items(value: Any) -> Any:
    return value[:MAX_ITEMS] if type(value) is list else (value,)


def _shown(value: Any) -> str:
    if type(value) is str:
        return value[:_ENOUGH]
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
    if type(value) is list and (text := _text_of_blocks(value)) is not None:
        return one_line(text, MAX_INLINE)
    return None if value is None else inline(value, MAX_INLINE)


_TEXTS, _IMAGES = frozenset({"text", "input_text", "output_text"}), frozenset({"image", "input_image", "image_url"})
_MOST_BLOCKS = 20


def _text_of_blocks(value: list[Any]) -> str | None:
    """Return the text of the content blocks of a message, with `[image]` for images; None if others are among them."""
    texts = []
    for block in value[:_MOST_BLOCKS]:
        kind = block.get("type") if type(block) is dict else None
        if type(kind) is not str:
            return None
        if kind in _TEXTS and type(block.get("text")) is str:
            texts.append(block["text"][: 2 * MAX_INLINE])
        elif kind in _IMAGES:
            texts.append("[image]")
        else:
            return None
    return " ".join(texts) if texts else None


_PATHS = frozenset({"file_path", "filePath", "path", "notebook_path", "absolute_path"})
"""Names of arguments of coding agents' tools that are paths of files: the end of a path says which file it is."""


_MOST_SORTED = 30
"""The most members that are sorted: of a larger object, the first ones are shown only."""


def arguments_text(value: Any) -> Any:
    """Return an object as `key=value, …` on one line of about 80 characters; any other value as `_inline` does.

    Members that are false or null come last. Of a long path, the end is shown.
    """
    if type(value) is not dict:
        return _inline(value)
    text = ""
    items: Iterable[tuple[str, Any]] = value.items()
    if len(value) <= _MOST_SORTED and (False in value.values() or None in value.values()):
        shown_first = [member for member in items if member[1] is not False and member[1] is not None]
        items = shown_first + [member for member in items if member[1] is False or member[1] is None]
    for key, item in items:
        name = key if key.isidentifier() and len(key) < MAX_INLINE else one_line(key, MAX_INLINE)
        if type(item) is str:
            is_path = len(item) > MAX_INLINE // 2 and key in _PATHS and "\n" not in item
            shown = one_line(f"…{item[1 - MAX_INLINE // 2 :]}" if is_path else item, MAX_INLINE // 2)
        else:
            shown = inline(item, MAX_INLINE // 2)
        text = f"{text}, {name}={shown}" if text else f"{name}={shown}"
        if len(text) > MAX_INLINE:
            return cut(text, MAX_INLINE)
    return text


def _count(value: Any) -> Any:
    return len(value) if type(value) is list or type(value) is dict else None


_VIRTUAL: Mapping[str, Callable[[Any], Any]] = {"_inline": _inline, "_args": arguments_text, "_count": _count}
_CLEAN = frozenset({"_inline", "_args"})
_HELPERS: Mapping[str, Any] = {
    "__builtins__": {"dict": dict, "len": len, "str": str, "type": type},
    "items": _items,
    "member": _member,
    "nothing": (),
    "numbers": (int, float),
    "once": (None,),
    "one_line": one_line,
    "shown": _shown,
    **_VIRTUAL,
}


def inline(value: Any, limit: int) -> str:
    """Return any JSON value on one line of at most `limit` characters. Reads only as much of it as that needs."""
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


MAX_LIQUID_TAGS = 100
_LIQUID_TAG = re.compile(r"\{\{[^{}]*\}\}")
_OPENING = re.compile(r"\{\{|\{%")
_MARKS = re.compile(r"\||\w\[|\{\{-|-\}\}")
_KEYWORD_MEMBER = re.compile(
    r""""[^"]*"|'[^']*'|\.(and|as|blank|cols|contains|continue|else|empty|false|for|if|in|limit|nil|not|null|offset|or|"""
    r"""required|reversed|true|with)\b(?![-?])"""
)
_LONG_SPACE = re.compile(r"\s{100}")


class LiquidMissing(TemplateError):
    """A template is Liquid, and python-liquid is not installed."""


class LiquidTemplate:
    """A compiled Liquid template.

    Attributes:
        reserved: the reserved names in it.
        asks: whether it has a reserved name other than `_error`, which only failed spans have.

    Raises:
        TemplateError: not Liquid, too large, or with a tag or filter that is not allowed; the message says which.
        LiquidMissing: python-liquid is not installed.
    """

    __slots__ = ("_render", "asks", "reserved")

    def __init__(self, source: str) -> None:
        self._render = _engine().compiled(_checked_liquid(source), _ENOUGH)
        self.reserved = frozenset(name for name in RESERVED if name in source)
        self.asks = bool(self.reserved - {"_error"})

    def render(self, context: Mapping[str, Any], reserved: Mapping[str, Any] | None = None, /) -> str | None:
        """Return one line of at most 200 characters; None where Liquid has an error or takes too long. Never raises."""
        names = {**context, **reserved} if reserved else context
        text = self._render(names)
        return None if text is None else one_line(text, MAX_SUMMARY)


def is_liquid(source: str) -> bool:
    """Return whether a template is Liquid: it has `{%`, a filter, a member in brackets or `{{-`. `{{a.b}}` is not."""
    return "{%" in source or any(_MARKS.search(tag) for tag in _LIQUID_TAG.findall(source))


def client_template(source: str) -> Template | LiquidTemplate:
    """Compile a template that a client registered, Mustache or Liquid.

    Raises:
        TemplateError: the template cannot be used; LiquidMissing if only the extra `liquid` is lacking.
    """
    if not isinstance(source, str):  # in a file that another program edited
        raise TemplateError("template", "must be a string")
    return LiquidTemplate(source) if is_liquid(source) else Template(source)


def _checked_liquid(source: str) -> str:
    """Return a template, after checking that its tags are closed and few: else python-liquid's lexer takes long.

    Members named like a keyword (`input.offset`) are put into brackets, because python-liquid refuses them otherwise.
    """
    if len(source) > MAX_TEMPLATE:
        raise TemplateError("template", f"has {len(source)} characters; at most {MAX_TEMPLATE} are allowed")
    if _LONG_SPACE.search(source):
        raise TemplateError("template", "has a hundred white-space characters in a row")
    parts: list[str] = []
    end = tags = 0
    while (opening := _OPENING.search(source, end)) is not None:
        start, end = end, source.find("}}" if opening[0] == "{{" else "%}", opening.end())
        if end < 0:
            raise TemplateError("template", f"has a {opening[0]} that is never closed")
        parts += source[start : opening.start()], _KEYWORD_MEMBER.sub(_in_brackets, source[opening.start() : end])
        tags += 1
    if tags > MAX_LIQUID_TAGS:
        raise TemplateError("template", f"has more than {MAX_LIQUID_TAGS} tags")
    return "".join([*parts, source[end:]])


def _in_brackets(found: re.Match[str]) -> str:
    return f'["{found[1]}"]' if found[1] else found[0]


def _engine() -> Any:
    try:
        with host.importing:
            from agentspan.schemas import liquid_engine  # python-liquid takes 150 ms, for the first template only
    except ImportError:
        from agentspan import installing

        raise LiquidMissing("template", f"is Liquid; to have it rendered, run: {installing.extra('liquid')}") from None
    return liquid_engine
