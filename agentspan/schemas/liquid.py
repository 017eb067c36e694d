"""Summary templates in Liquid, which clients of the API register: official TypeScript packages do.

python-liquid (the extra `liquid`) is the engine, in the sandbox of liquid_engine. It is imported for the first Liquid
template only. Templates of a program's own span types are Mustache (see templates).
"""

import re
from collections.abc import Mapping
from typing import Any

from agentspan import host
from agentspan.errors import TemplateError
from agentspan.schemas.templates import MAX_SUMMARY, MAX_TEMPLATE, RESERVED, Template
from agentspan.text import lazy_pattern, one_line

MAX_LIQUID_TAGS = 100
_TAG = lazy_pattern(r"\{\{[^{}]*\}\}")
_OPENING = lazy_pattern(r"\{\{|\{%")
_MARKS = lazy_pattern(r"\||\w\[|\{\{-|-\}\}")
_KEYWORD_MEMBER = lazy_pattern(
    r""""[^"]*"|'[^']*'|\.(and|as|blank|cols|contains|continue|else|empty|false|for|if|in|limit|nil|not|null|offset|or|"""
    r"""required|reversed|true|with)\b(?![-?])"""
)
_LONG_SPACE = lazy_pattern(r"\s{100}")


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
        self._render = _engine().compiled(_checked(source))
        self.reserved = frozenset(name for name in RESERVED if name in source)
        self.asks = bool(self.reserved - {"_error"})

    def render(self, context: Mapping[str, Any], reserved: Mapping[str, Any] | None = None, /) -> str | None:
        """Return one line of at most 200 characters; None where Liquid has an error or takes too long. Never raises."""
        names = {**context, **reserved} if reserved else context
        text = self._render(names)
        return None if text is None else one_line(text, MAX_SUMMARY)


def is_liquid(source: str) -> bool:
    """Return whether a template is Liquid: it has `{%`, a filter, a member in brackets or `{{-`. `{{a.b}}` is not."""
    return "{%" in source or any(_MARKS.search(tag) for tag in _TAG.findall(source))


def client_template(source: str) -> Template | LiquidTemplate:
    """Compile a template that a client registered, Mustache or Liquid.

    Raises:
        TemplateError: the template cannot be used; LiquidMissing if only the extra `liquid` is lacking.
    """
    if not isinstance(source, str):  # in a file that another program edited
        raise TemplateError("template", "must be a string")
    return LiquidTemplate(source) if is_liquid(source) else Template(source)


def _checked(source: str) -> str:
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
        raise LiquidMissing(
            "template", "is Liquid: pip install 'agentspan-sqlite[liquid]' to have it rendered"
        ) from None
    return liquid_engine
