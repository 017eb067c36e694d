"""The viewer's routes: who may see its pages, with which headers, and the login.

No route of the viewer is part of the API: programs use /api, people use the pages.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from agentspan.api.context import Context
from agentspan.errors import AgentspanError, NotFound
from agentspan.serve.kept import Kept
from agentspan.serve.logins import AccessToken, LoginSessions, is_own_page
from agentspan.serve.pages import Pages
from agentspan.serve.responses import refuse, refuse_error, refuse_guess, respond
from agentspan.serve.viewer_changes import Changes, form_of
from agentspan.serve.viewer_html import Html, path_of, up, wants_page
from agentspan.serve.viewer_run import OneRun
from agentspan.serve.viewer_runs import RunList
from agentspan.serve.writes import WriteQueue
from agentspan.tuning import STANDARD, Tuning
from agentspan.viewer import export
from agentspan.viewer.page import Page
from agentspan.viewer.pages import PAGES

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FOREVER = "public, max-age=31536000, immutable"
_NAMES = [page.name for page in PAGES]
_PAGE = re.compile(rf"(?:(?:{'|'.join(['runs', *_NAMES])})(?:/[A-Za-z0-9_-]+)+|{'|'.join(_NAMES)})?")
"""The path of a page. It has no dot, neither plain nor as `%2e`: an address with dots could leave the viewer."""
Handler = Callable[[Request], Awaitable[Response]]


def routes(
    ctx: Context, write_queue: WriteQueue, *, token: AccessToken | None, read_only: bool, tuning: Tuning = STANDARD
) -> list[Route]:
    """Return the viewer's routes over one storage."""
    sessions = LoginSessions(token, ctx.storage, tuning.kept_logouts)
    html = Html(ctx.storage, has_session=sessions.is_asked, read_only=read_only)
    kept: Kept[Any] = Kept(ctx.storage)
    one_by_one = ThreadPoolExecutor(1, "agentspan-viewer")
    access = Access(sessions, html)
    pages = Pages(ctx.storage, kept)
    runs = RunList(ctx.storage, html, kept, one_by_one, sums_s=tuning.run_list_sums_s)
    run = OneRun(ctx.storage, html, kept, one_by_one)
    changes = Changes(ctx.storage, write_queue, read_only=read_only)

    def across(page: Page) -> Handler:
        async def handler(request: Request) -> Response:
            return await pages.answer(page, request, partial(html.rendered, request=request))

        return handler

    async def stamp(_: Request) -> Response:
        """Answer with a text that changes with each commit; null if commits cannot be noticed."""
        return respond({"stamp": await asyncio.to_thread(pages.stamp)})

    guarded: list[tuple[str, Handler, str]] = [
        ("/", runs.page, "GET"),
        ("/runs.json", runs.data, "GET"),
        ("/answer.json", runs.answer_data, "GET"),
        ("/steps.json", runs.steps_data, "GET"),
        ("/export", runs.export, "GET"),
        ("/marks", changes.of_own_page(changes.mark), "POST"),
        ("/stamp", stamp, "GET"),
        *((path, across(page), "GET") for page in PAGES for path in page.paths),
        ("/runs/{run_id}", run.page, "GET"),
        ("/runs/{run_id}/facts", run.or_page(run.facts), "GET"),
        ("/runs/{run_id}/spans", run.or_page(run.spans), "GET"),
        ("/runs/{run_id}/spans/{span_id}", run.or_page(run.span), "GET"),
        ("/runs/{run_id}/spans/{span_id}/blobs/{sha256}", run.blob, "GET"),
        ("/runs/{run_id}/spans/{span_id}/context", run.or_page(run.context), "GET"),
        ("/runs/{run_id}/conversation", run.or_page(run.conversation, "conversation"), "GET"),
        ("/runs/{run_id}/stats", run.or_page(run.stats, "stats"), "GET"),
        ("/runs/{run_id}/search", run.or_page(run.search), "GET"),
        ("/runs/{run_id}/why", run.or_page(run.why), "GET"),
        ("/runs/{run_id}/own-times", run.or_page(run.own_times), "GET"),
        ("/runs/{run_id}/scores", changes.of_own_page(changes.score), "POST"),
        ("/runs/{run_id}/export", run.export, "GET"),
        ("/runs/{run_id}/allow", changes.of_own_page(changes.allow), "POST"),
        ("/runs/{run_id}/terminate", changes.of_own_page(changes.terminate), "POST"),
        ("/logout", access.logout, "POST"),
    ]
    return [
        *(Route(path, access.guarded(handler), methods=[method]) for path, handler, method in guarded),
        Route("/login", access.login_page, methods=["GET"]),
        Route("/login", access.login, methods=["POST"]),
        Route("/static/{name}", static, methods=["GET"]),
        _Nowhere("/{path:path}", access.guarded(_nothing)),
    ]


class _Nowhere(Route):
    """The route of a person whose address no other route has. A program gets the refusal of the API."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_asked = scope["type"] == "http" and wants_page(Request(scope))
        return super().matches(scope) if is_asked else (Match.NONE, {})


async def _nothing(_: Request) -> Response:
    raise NotFound("there is no such page")


class Access:
    """Checks who may see the viewer, and adds its headers; the login."""

    def __init__(self, sessions: LoginSessions, html: Html) -> None:
        self._sessions = sessions
        self._html = html

    def guarded(self, handler: Handler) -> Handler:
        """Return a handler that checks the login session first, and adds the viewer's headers."""

        async def guard(request: Request) -> Response:
            try:
                if not await self._is_allowed(request):
                    return _with_headers(self._to_login(request))
                response = await handler(request)
            except AgentspanError as error:
                response = refuse_error(error, request.scope)
                if wants_page(request):
                    sentence = json.loads(bytes(response.body))["message"]
                    status = response.status_code
                    response = self._html.page("problem.html", request, status=status, problem=status, message=sentence)
            return _with_headers(response)

        return guard

    async def login_page(self, request: Request) -> Response:
        """Answer with the form for the token."""
        onward = _onward(request.query_params.get("next", ""))
        if await self._is_allowed(request):
            return _with_headers(RedirectResponse(onward, 303))
        return _with_headers(self._html.page("login.html", request, next=onward))

    async def login(self, request: Request) -> Response:
        """Check the token, and begin a login session."""
        if not is_own_page(request):
            return _with_headers(refuse("not_permitted", "only this server's own page may log in"))
        form = await form_of(request)
        wait_s = self._sessions.wait_s(form.get("token"), request)
        if wait_s:
            return _with_headers(refuse_guess(wait_s))
        if wait_s is not None:
            return _with_headers(refuse("bad_authtoken", "That is not this server's token.", status=403))
        response = respond({"next": _onward(form.get("next"))})
        if self._sessions.is_asked:
            self._sessions.begin(request, response)
        return _with_headers(response)

    async def logout(self, request: Request) -> Response:
        """End the session."""
        if not is_own_page(request):
            return refuse("not_permitted", "only this server's own pages may log out")
        response = respond({})
        if self._sessions.waits:
            await asyncio.to_thread(self._sessions.end, request, response)
        else:
            self._sessions.end(request, response)
        return response

    async def _is_allowed(self, request: Request) -> bool:
        if self._sessions.waits:
            return await asyncio.to_thread(self._sessions.allows, request)
        return self._sessions.allows(request)

    def _to_login(self, request: Request) -> Response:
        if not wants_page(request):
            return refuse("not_authenticated", "log in first")
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{up(request)}login?{urlencode({'next': path_of(request) + query})}", 303)


STATIC: dict[str, tuple[Callable[[], str], str]] = {
    "viewer.js": (export.script, "text/javascript"),
    "viewer.css": (export.style, "text/css"),
}


async def static(request: Request) -> Response:
    """Answer with the script or the style sheet. Their addresses have a version, which changes with the contents."""
    name = request.path_params["name"]
    if name not in STATIC:
        return _with_headers(refuse("not_found", "there is no such path"))
    content, kind = STATIC[name]
    headers = {"Vary": "Accept-Encoding"}
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
    body = export.packed(content()) if "Content-Encoding" in headers else content()
    response = _with_headers(Response(body, headers=headers, media_type=kind))
    response.headers["Cache-Control"] = FOREVER if request.query_params.get("v") == export.version() else "no-cache"
    return response


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _onward(where: object) -> str:
    """Return the address to redirect to after the login, always within the viewer."""
    where = where.removeprefix("./") if isinstance(where, str) else ""
    path, _, _ = where.partition("?")
    if not where or not _PAGE.fullmatch(path) or "//" in where or "\\" in where:
        return "./"
    try:
        onward = quote(where[:2000], safe="/?=&%+-_.~")
    except UnicodeEncodeError:  # half a character, which JSON can escape
        return "./"
    return f"./{onward}" if where.startswith("?") else onward
