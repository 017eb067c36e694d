"""Renders the viewer's pages: the templates, and the values that all of them have.

Addresses are relative, so that the application can be mounted anywhere.
"""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from agentspan.serve.logins import cookie
from agentspan.serve.responses import route_path
from agentspan.storage.protocol import Storage
from agentspan.text import visible
from agentspan.viewer import export
from agentspan.viewer.address import Address, address_of
from agentspan.viewer.pages import PAGES
from agentspan.viewer.texts import chart, spark

BAR = [("", "Runs"), *((page.name, page.title) for page in PAGES if page.in_bar)]
"""The paths and the titles of the pages in the bar."""


class Html:
    """The pages of one storage.

    Attributes:
        file: the storage's file for people: its path or URL, without a password.
    """

    def __init__(self, storage: Storage, *, has_session: bool, read_only: bool) -> None:
        location = storage.capabilities().location
        self.file = "memory" if location is None else str(location)
        self._has_session = has_session
        self._read_only = read_only

    def page(self, name: str, request: Request, *, status: int = 200, **values: Any) -> Response:
        """Answer with a template, and these values."""
        text = self.rendered(name, request=request, **values)
        return HTMLResponse(text.encode("utf-8", "backslashreplace"), status)

    def rendered(self, name: str, *, request: Request, **values: Any) -> str:
        """Return a template with the values that all pages have, and these."""
        theme = cookie(request, "agentspan_theme")
        common: dict[str, Any] = {
            "up": up(request),
            "version": export.version(),
            "theme": theme if theme in ("dark", "light") else None,
            "has_session": self._has_session,
            "read_only": self._read_only,
            "file": self.file,
            "file_name": self.file.rstrip("/").rpartition("/")[2] or self.file,
            "pages": BAR,
            "address": Address(),
        }
        return templates().get_template(name).render({**common, **values})


def path_of(request: Request) -> str:
    """Return a request's path below where the application is mounted, without a slash at its start."""
    return route_path(request.scope).lstrip("/")


def up(request: Request) -> str:
    """Return the relative address of the viewer's first page."""
    return "../" * path_of(request).count("/")


def wants_page(request: Request) -> bool:
    """Return whether a request is for a page, not for a script's JSON."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def address_in(request: Request) -> Address:
    """Return the address of a page: the filter and the parameters in its query."""
    return address_of(request.query_params.multi_items())


@cache
def templates() -> Environment:
    """Return the templates. Each expression in them is escaped, and its invisible characters are made visible."""
    loader = PackageLoader("agentspan.serve")
    found = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=20,
        finalize=_shown,
    )
    found.filters |= {"chart": chart, "spark": lambda series: spark([value for value, _ in series])}
    return found


def _shown(value: Any) -> Any:
    """Make invisible characters in a template's expression visible. `{{ name|e }}` keeps a form's value unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
