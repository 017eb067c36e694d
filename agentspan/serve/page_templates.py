"""The templates of the viewer's pages, which are in the folder templates."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from agentspan.text import visible


@cache
def templates() -> Environment:
    """Return the templates; each expression in them is escaped, and shows characters that cannot be seen."""
    loader = PackageLoader("agentspan.serve")
    return Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=20,
        finalize=_shown,
    )


def _shown(value: Any) -> Any:
    """Return the value of an expression as it is written into a page; `{{ name|e }}` writes a form's value as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
