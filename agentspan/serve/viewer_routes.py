"""The viewer's routes: pages that show runs, and the JSON that these pages load.

Addresses are relative, so that the application can be mounted anywhere. No route of the viewer is part of the API:
programs use /api, people use the pages.
"""

import asyncio
import gzip
import json
import re
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from agentspan.analysis import by_name
from agentspan.analysis.context_diff import since_previous
from agentspan.api.context import Context
from agentspan.api.runs import TerminateInstance
from agentspan.api.spans import ScoreInstance, ScoreTarget
from agentspan.blobs import ANY_TYPE, AUDIO, IMAGES, ending_of
from agentspan.errors import AgentspanError, InvalidValue, NotFound
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.scores import MARK, NOTE, typed
from agentspan.serve.kept import Conversations, Kept
from agentspan.serve.logins import AccessToken, LoginSessions, cookie, is_own_page
from agentspan.serve.pages import Pages
from agentspan.serve.responses import encoded, refuse, refuse_error, refuse_guess, respond, route_path, streamed
from agentspan.serve.writes import WriteQueue
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, NewestScores
from agentspan.text import visible
from agentspan.tuning import STANDARD, Tuning
from agentspan.viewer import data, export
from agentspan.viewer.address import Address, address_of, number
from agentspan.viewer.answer import answer
from agentspan.viewer.conversation import blobs_of
from agentspan.viewer.listing import (
    COLUMNS,
    FORM,
    MORE,
    PAGE,
    SINCE,
    agent_names,
    found_steps,
    listing,
    sort_of,
    unsummed,
)
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
READERS = 2
"""The threads that read spans for pages. Each has an answer in memory and a connection with a cache of 2 MiB."""
LARGE = 100_000
"""Bytes from which an answer is compressed: 10,000 spans are 1.7 MB, and 0.24 MB after 6 ms."""
MATCHES = 5000
"""The most spans that a search in a run marks."""
MOST_SELECTED = 100
"""The most runs that one request marks or exports."""
LONGEST_FORM = 64 * 2**10
"""The most bytes that a page sends: a token, the reason of a termination, or a note."""
_NAMES = [page.name for page in PAGES]
_PAGE = re.compile(rf"(?:(?:{'|'.join(['runs', *_NAMES])})(?:/[A-Za-z0-9_-]+)+|{'|'.join(_NAMES)})?")
"""The path of a page. It has no dot, neither plain nor as `%2e`: an address with dots could leave the viewer."""
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


def routes(
    ctx: Context, write_queue: WriteQueue, *, token: AccessToken | None, read_only: bool, tuning: Tuning = STANDARD
) -> list[Route]:
    """Return the viewer's routes over one storage."""
    viewer = Viewer(ctx, write_queue, token=token, read_only=read_only, tuning=tuning)
    guarded: list[tuple[str, Handler, str]] = [
        ("/", viewer.runs, "GET"),
        ("/runs.json", viewer.runs_data, "GET"),
        ("/answer.json", viewer.answer_data, "GET"),
        ("/steps.json", viewer.steps_data, "GET"),
        ("/export", viewer.export_runs, "GET"),
        ("/marks", viewer.mark, "POST"),
        ("/stamp", viewer.stamp, "GET"),
        *((path, viewer.page(page), "GET") for page in PAGES for path in page.paths),
        ("/runs/{run_id}", viewer.run, "GET"),
        ("/runs/{run_id}/facts", viewer.or_page(viewer.facts), "GET"),
        ("/runs/{run_id}/spans", viewer.or_page(viewer.spans), "GET"),
        ("/runs/{run_id}/spans/{span_id}", viewer.or_page(viewer.span), "GET"),
        ("/runs/{run_id}/spans/{span_id}/blobs/{sha256}", viewer.blob, "GET"),
        ("/runs/{run_id}/spans/{span_id}/context", viewer.or_page(viewer.context), "GET"),
        ("/runs/{run_id}/conversation", viewer.or_page(viewer.conversation, "conversation"), "GET"),
        ("/runs/{run_id}/stats", viewer.or_page(viewer.stats, "stats"), "GET"),
        ("/runs/{run_id}/search", viewer.or_page(viewer.search), "GET"),
        ("/runs/{run_id}/why", viewer.or_page(viewer.why), "GET"),
        ("/runs/{run_id}/own-times", viewer.or_page(viewer.own_times), "GET"),
        ("/runs/{run_id}/scores", viewer.score, "POST"),
        ("/runs/{run_id}/export", viewer.export, "GET"),
        ("/runs/{run_id}/terminate", viewer.terminate, "POST"),
        ("/logout", viewer.logout, "POST"),
    ]
    return [
        *(Route(path, viewer.guarded(handler), methods=[method]) for path, handler, method in guarded),
        Route("/login", viewer.login_page, methods=["GET"]),
        Route("/login", viewer.login, methods=["POST"]),
        Route("/static/{name}", static, methods=["GET"]),
    ]


class Viewer:
    """The handlers of the viewer's routes, over one storage."""

    def __init__(
        self, ctx: Context, write_queue: WriteQueue, *, token: AccessToken | None, read_only: bool, tuning: Tuning
    ) -> None:
        self._storage = ctx.storage
        self._write_queue = write_queue
        self._sessions = LoginSessions(token, ctx.storage, tuning.kept_logouts)
        self._read_only = read_only
        self._sums_s = tuning.run_list_sums_s
        self._kept: Kept[Any] = Kept(ctx.storage)
        self._pages = Pages(ctx.storage, self._kept)
        self._conversations = Conversations(ctx.storage, self._kept.stamp)
        self._file = _file_of(ctx.storage)
        self._listings: dict[Address, asyncio.Task[dict[str, Any]]] = {}
        self._one_by_one = ThreadPoolExecutor(1, "agentspan-viewer")
        self._reads = ThreadPoolExecutor(READERS, "agentspan-reads")
        self._details = ThreadPoolExecutor(1, "agentspan-details")

    def guarded(self, handler: Handler) -> Handler:
        """Return a handler that checks the login session first, and adds the viewer's headers."""

        async def guard(request: Request) -> Response:
            try:
                if not await self._is_allowed(request):
                    return _with_headers(self._to_login(request))
                response = await handler(request)
            except AgentspanError as error:
                response = refuse_error(error, request.scope)
                if _wants_page(request):
                    sentence = json.loads(bytes(response.body))["message"]
                    status = response.status_code
                    response = self._page("problem.html", request, status=status, problem=status, message=sentence)
            return _with_headers(response)

        return guard

    # Pages

    async def runs(self, request: Request) -> Response:
        """Answer with the list of runs."""
        address = _address(request)
        found = await self._listing(address, self._sums_s)
        if found is None:
            found = await asyncio.to_thread(unsummed, self._storage, address)
        agents = await asyncio.to_thread(agent_names, self._storage)
        after, agent = address.offset + len(found["runs"]), address.word("agent")
        known = [(name, value) for name, value in address.words if name not in FORM]
        return self._page(
            "runs.html",
            request,
            address=address,
            answer=await self._answer(address, self._sums_s),
            agents=agents if not agent or agent in agents else [agent, *agents],
            since=SINCE,
            columns=COLUMNS,
            sort=sort_of(address),
            fields=[*known, *((name, "") for name in MORE if not address.word(name))],
            field_names=MORE,
            more=bool(known),
            newer=None if not address.offset else address.same(offset=max(0, address.offset - PAGE) or None),
            older=address.same(offset=after) if after < found["total"] else None,
            **found,
        )

    def page(self, page: Page) -> Handler:
        """Return the handler of a page across runs."""

        async def handler(request: Request) -> Response:
            return await self._pages.answer(page, request, partial(self._rendered, request=request))

        return handler

    async def run(self, request: Request) -> Response:
        """Answer with a run's page. The page then loads its spans as JSON."""
        run = await self._found(request)
        if run.id != request.path_params["run_id"]:
            return RedirectResponse(run.id, 303)
        facts = await asyncio.to_thread(data.run_facts, self._storage, run, counted=False)
        return self._page(
            "run.html",
            request,
            address=_address(request),
            run=facts,
            data=Markup(export.embedded(facts)),
            shell=Markup(export.shell()),
        )

    async def login_page(self, request: Request) -> Response:
        """Answer with the form for the token."""
        onward = _onward(request.query_params.get("next", ""))
        if await self._is_allowed(request):
            return _with_headers(RedirectResponse(onward, 303))
        return _with_headers(self._page("login.html", request, next=onward))

    async def export(self, request: Request) -> Response:
        """Answer with a run as one file."""
        run = await self._found(request)
        headers = {"Content-Disposition": f'attachment; filename="run-{run.id}.html"'}
        # JSON in it is ASCII, but the name of an agent may have half a character.
        parts = (part.encode("utf-8", "backslashreplace") for part in export.parts(self._storage, [run.id]))
        return await streamed(parts, "text/html", headers, self._one_by_one)

    async def export_runs(self, request: Request) -> Response:
        """Answer with several runs as one file."""
        ids = request.query_params.getlist("run")[:MOST_SELECTED]
        runs = [await asyncio.to_thread(by_name.find_run, self._storage, id) for id in ids]
        if not runs:
            raise InvalidValue("run", "must name at least one run")
        headers = {"Content-Disposition": f'attachment; filename="{len(runs)}-runs.html"'}
        parts = (
            part.encode("utf-8", "backslashreplace") for part in export.parts(self._storage, [run.id for run in runs])
        )
        return await streamed(parts, "text/html", headers, self._one_by_one)

    # JSON

    async def runs_data(self, request: Request) -> Response:
        """Answer with the list of runs as JSON, to update the page."""
        found = await self._listing(_address(request))
        assert found is not None  # None only with a time limit
        return respond(found)

    async def stamp(self, request: Request) -> Response:
        """Answer with a text that is another one after each commit; null if that is unknown."""
        return respond({"stamp": await asyncio.to_thread(self._pages.stamp)})

    async def answer_data(self, request: Request) -> Response:
        """Answer with what happened lately, with causes, as JSON (see answer)."""
        found = await self._answer(_address(request))
        assert found is not None  # None only with a time limit
        return respond(found)

    async def steps_data(self, request: Request) -> Response:
        """Answer with the steps that contain the text of the list's filter (see found_steps)."""
        return respond(await self._alone(found_steps, self._storage, _address(request)))

    async def facts(self, request: Request) -> Response:
        """Answer with the facts at the head of a run's page, as JSON (see data.run_facts)."""
        run = await self._found(request)
        return respond(await asyncio.to_thread(data.run_facts, self._storage, run))

    async def spans(self, request: Request) -> Response:
        """Answer with spans as columns (see data.columns). If only changed spans are asked for, the run is added."""
        after, since = request.query_params.get("after", ""), request.query_params.get("since")
        cursor = request.query_params.get("cursor")

        def read() -> Response:
            run = by_name.find_run(self._storage, request.path_params["run_id"])
            if since is None and cursor is None:
                limit = data.CHUNK if after else data.FIRST_CHUNK
                return _compressed(
                    request, respond(data.columns(self._storage, run, after=after, limit=limit, cursor=""))
                )
            facts = data.run_facts(self._storage, run)  # read first, so that no counted span is missing
            from_all = "" if since == "" else None
            start = cursor or from_all
            found = data.columns(self._storage, run, after=after, since=since, cursor=start)
            return _compressed(request, respond({**found, "run": facts}))

        return await asyncio.get_running_loop().run_in_executor(self._reads, read)

    async def span(self, request: Request) -> Response:
        """Answer with one span in full."""
        run_id, span_id = request.path_params["run_id"], request.path_params["span_id"]
        return await streamed(self._detail(run_id, span_id), "application/json", executor=self._details)

    async def blob(self, request: Request) -> Response:
        """Answer with the bytes of an image, a sound or another blob in a span."""
        run_id, span_id = request.path_params["run_id"], request.path_params["span_id"]

        def read() -> Response:
            return blob_response(self._found_span(run_id, span_id), request.path_params["sha256"])

        return await asyncio.get_running_loop().run_in_executor(self._details, read)

    async def context(self, request: Request) -> Response:
        """Answer with what a model call read, compared with the call before it (see context_diff.since_previous)."""
        run_id, span_id = request.path_params["run_id"], request.path_params["span_id"]

        def read() -> dict[str, Any]:
            return since_previous(self._storage, self._found_span(run_id, span_id))

        return respond(await self._alone(read))

    async def conversation(self, request: Request) -> Response:
        """Answer with turns of the conversation from `offset` on, or around the `span`, and with its sections."""
        run = await self._found(request)
        offset, span_id = number(request.query_params.get("offset")), request.query_params.get("span")

        def read() -> Response:
            span = None if span_id is None else self._found_span(run.id, span_id)
            page = self._conversations.page(run.id, offset, span)
            return _compressed(request, Response(page, media_type="application/json"))

        return await self._alone(read)

    async def stats(self, request: Request) -> Response:
        """Answer with the run's statistics."""
        run = await self._found(request)

        def read() -> Response:
            return _compressed(request, respond(data.statistics(self._storage, run.id)))

        return await asyncio.get_running_loop().run_in_executor(self._reads, read)

    async def search(self, request: Request) -> Response:
        """Answer with the ids of the spans that contain the words, and the number of all such spans."""
        run = await self._found(request)
        words = request.query_params.get("q", "")
        found = await self._alone(data.matches, self._storage, run.id, words)
        return respond({"ids": found[:MATCHES], "total": len(found)})

    # What changes something

    async def terminate(self, request: Request) -> Response:
        """Terminate a run."""
        if self._read_only:
            return refuse("not_permitted", "this server only reads")
        if not is_own_page(request):
            return refuse("not_permitted", "only this server's own pages may do that; programs use /api")
        form = await _said(request)
        fields = {"agent_instance_id": request.path_params["run_id"], "reason": form.get("reason")}
        await self._write_queue.run(TerminateInstance(fields))
        run = await self._found(request)
        return respond({"run": await asyncio.to_thread(data.run_facts, self._storage, run)})

    async def mark(self, request: Request) -> Response:
        """Mark runs with a label, and perhaps a note; without a label, withdraw their marks."""
        if self._read_only:
            return refuse("not_permitted", "this server only reads")
        if not is_own_page(request):
            return refuse("not_permitted", "only this server's own pages may do that; programs use /api")
        form = await _said(request)
        ids, label = form.get("runs"), form.get("label") or None
        if not isinstance(ids, list) or not 0 < len(ids) <= MOST_SELECTED:
            raise InvalidValue("runs", f"must be a list of 1 to {MOST_SELECTED} ids")
        judged = {"label": label, "explanation": form.get("note") or None} if label else {"withdraw": True}
        for id in ids:
            fields = {"agent_instance_id": id, "name": MARK, "source": "human", **judged}
            await self._write_queue.run(ScoreInstance(fields))
        return respond({"marked": len(ids)})

    async def login(self, request: Request) -> Response:
        """Check the token, and begin a login session."""
        if not is_own_page(request):
            return _with_headers(refuse("not_permitted", "only this server's own page may log in"))
        form = await _said(request)
        wait_s = self._sessions.wait_s(request)
        if wait_s:
            return _with_headers(refuse_guess(wait_s))
        if not self._sessions.is_token(form.get("token"), request):
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

    # More of a run's page

    def or_page(self, handler: Handler, view: str = "tree") -> Handler:
        """Return a handler of JSON that sends somebody who opens its address to the run's page with the same view."""

        async def answer(request: Request) -> Response:
            if not _wants_page(request):
                return await handler(request)
            span = request.path_params.get("span_id")
            place = {"span": span} if span else {"view": view} if view != "tree" else {}
            run_id = quote(request.path_params["run_id"], safe="")
            return RedirectResponse(f"{_up(request)}runs/{run_id}{f'#{urlencode(place)}' if place else ''}", 303)

        return answer

    async def why(self, request: Request) -> Response:
        """Answer with why the run failed (see data.why), kept until the file changes."""
        run = await self._found(request)

        def state() -> tuple[object, ...]:
            scores = self._storage.ask(NewestScores([run.id]))
            return run, self._storage.ask(Counts([run.id]))[run.id], *(score.id for score in scores)

        key = ("why", *await asyncio.to_thread(state))
        return respond(await self._kept.get(key, partial(data.why, self._storage, run)))

    async def own_times(self, request: Request) -> Response:
        """Answer with the time of each span in which none of its children ran (see data.own_times)."""
        run = await self._found(request)
        return respond(await self._alone(data.own_times, self._storage, run.id))

    async def score(self, request: Request) -> Response:
        """Add or remove a score, a mark or a note of the run or of one of its spans, as `agentspan score` does."""
        if self._read_only:
            return refuse("not_permitted", "this server only reads")
        if not is_own_page(request):
            return refuse("not_permitted", "only this server's own pages may do that; programs use /api")
        form = await _said(request)
        run = await self._found(request)
        span_id = form.get("span_id")
        if span_id is not None:
            await asyncio.to_thread(self._found_span, run.id, str(span_id))
        await self._write_queue.run(ScoreTarget(_judged(form) | {"target_id": span_id or run.id}))
        return respond({"run": await asyncio.to_thread(data.run_facts, self._storage, run)})

    async def _is_allowed(self, request: Request) -> bool:
        if self._sessions.waits:
            return await asyncio.to_thread(self._sessions.allows, request)
        return self._sessions.allows(request)

    async def _listing(self, address: Address, patience_s: float | None = None) -> dict[str, Any] | None:
        """Return the runs with their sums; None after `patience_s`: adding them up goes on for the next request."""
        task = self._listings.get(address)
        if task is None:
            task = self._listings[address] = asyncio.create_task(asyncio.to_thread(listing, self._storage, address))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            task.add_done_callback(lambda _: self._listings.pop(address, None))
        await asyncio.wait({task}, timeout=patience_s)
        return task.result() if task.done() else None

    async def _answer(self, address: Address, patience_s: float | None = None) -> dict[str, Any] | None:
        """Return the answer above the list; after `patience_s` without its causes, or None."""
        asked = address._replace(own=())

        def begin(*, with_causes: bool) -> "asyncio.Task[dict[str, Any]]":
            read = partial(answer, self._storage, asked, with_causes=with_causes)
            task = asyncio.ensure_future(self._kept.get(("answer", asked, with_causes), read))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            return task

        if patience_s is None or self._kept.has(("answer", asked, True)):
            return await begin(with_causes=True)
        first = begin(with_causes=False)
        await asyncio.wait({first}, timeout=patience_s)
        if not first.done():
            return None
        whole = begin(with_causes=True)
        await asyncio.wait({whole}, timeout=patience_s)
        return whole.result() if whole.done() else first.result()

    async def _alone(self, read: Callable[..., T], *arguments: Any) -> T:
        """Run a read that takes much memory. Such reads run one at a time, in a thread of their own."""
        return await asyncio.get_running_loop().run_in_executor(self._one_by_one, partial(read, *arguments))

    async def _found(self, request: Request) -> AgentInstanceRow:
        return await asyncio.to_thread(by_name.find_run, self._storage, request.path_params["run_id"])

    def _detail(self, run_id: str, span_id: str) -> Iterator[bytes]:
        """Yield a full span as one piece. A span of 10 MB takes 100 MB meanwhile, so one is made at a time."""
        yield encoded(data.detail(self._storage, self._found_span(run_id, span_id)))

    def _found_span(self, run_id: str, span_id: str) -> AgentSpanRow:
        span = by_name.find_span(self._storage, span_id)
        if not isinstance(span, AgentSpanRow) or span.agent_instance_id != run_id:
            raise NotFound("this run has no such span")
        return span

    def _to_login(self, request: Request) -> Response:
        if not _wants_page(request):
            return refuse("not_authenticated", "log in first")
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{_up(request)}login?{urlencode({'next': _path(request) + query})}", 303)

    def _page(self, name: str, request: Request, *, status: int = 200, **values: Any) -> Response:
        return HTMLResponse(self._rendered(name, request=request, **values).encode("utf-8", "backslashreplace"), status)

    def _rendered(self, name: str, *, request: Request, **values: Any) -> str:
        """Return a template with the values that all pages have, and these."""
        theme = cookie(request, "agentspan_theme")
        common: dict[str, Any] = {
            "up": _up(request),
            "version": export.version(),
            "theme": theme if theme in ("dark", "light") else None,
            "has_session": self._sessions.is_asked,
            "read_only": self._read_only,
            "file": self._file,
            "file_name": self._file.rstrip("/").rpartition("/")[2] or self._file,
            "pages": BAR,
            "address": Address(),
        }
        return templates().get_template(name).render({**common, **values})


BAR = [("", "Runs"), *((page.name, page.title) for page in PAGES if page.in_bar)]
"""The paths and the titles of the pages in the bar."""


def _file_of(storage: Storage) -> str:
    """Return the storage's file for people: its path or URL, without a password."""
    location = storage.capabilities().location
    return "memory" if location is None else str(location)


def _judged(form: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a score from a form: `name` and `value`, or `mark`, or only a `note`; or `remove`.

    Raises:
        InvalidValue: the form has a name and a mark, or a value that is no text.
    """
    name, value, mark, note = (form.get(key) or None for key in ("name", "value", "mark", "note"))
    who = {"identifier": form.get("identifier") or None, "source": "human"}
    if form.get("remove"):
        return {"name": name, "withdraw": True, **who}
    if name and mark:
        raise InvalidValue("mark", "has no name: it is a score of the name `mark`")
    if value is not None and not isinstance(value, str):
        raise InvalidValue("value", "must be text, as a person types it")
    judgement = mark if value is None else typed(value)
    number, label = (None, judgement) if isinstance(judgement, str) else (judgement, None)
    return {"name": name or (MARK if mark else NOTE), "value": number, "label": label, "explanation": note, **who}


def _compressed(request: Request, answer: Response) -> Response:
    """Return a large answer compressed, for a browser that reads that. A thread calls it: 1 MB takes 6 ms."""
    if len(answer.body) < LARGE or "gzip" not in request.headers.get("accept-encoding", ""):
        return answer
    packed = gzip.compress(answer.body, 1)
    headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(packed, 200, headers, media_type="application/json")


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


def _path(request: Request) -> str:
    """Return a request's path below where the application is mounted, without a slash at its start."""
    return route_path(request.scope).lstrip("/")


def _up(request: Request) -> str:
    """Return the relative address of the viewer's first page."""
    return "../" * _path(request).count("/")


def _with_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def _wants_page(request: Request) -> bool:
    """Return whether a request is for a page, not for a script's JSON."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "")


def _address(request: Request) -> Address:
    return address_of(request.query_params.multi_items())


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


async def _said(request: Request) -> dict[str, Any]:
    try:
        body = await request.body()
        form = json.loads(body) if len(body) <= LONGEST_FORM else None
    except (ValueError, RecursionError):
        form = None
    if not isinstance(form, dict):
        raise InvalidValue("body", "must be a JSON object")
    return form


BLOB_POLICY = "default-src 'none'; sandbox"
"""The content security policy of a blob, for a browser that opens it in a tab of its own."""


def blob_response(span: AgentSpanRow, sha256: str) -> Response:
    """Return the bytes of a span that have this hash. Images, except SVG, and audio are shown; others are downloads.

    Raises:
        NotFound: the span has no such bytes.
    """
    found = next((blob for hash, blob in blobs_of(span) if hash == sha256), None)
    if found is None:
        raise NotFound("this span has no such bytes")
    headers = {"Content-Security-Policy": BLOB_POLICY, "X-Content-Type-Options": "nosniff"}
    if found.media_type in IMAGES | AUDIO:
        return Response(found.data, headers=headers, media_type=found.media_type)
    headers["Content-Disposition"] = f'attachment; filename="{sha256[:16]}.{ending_of(found.media_type)}"'
    return Response(found.data, headers=headers, media_type=ANY_TYPE)


@cache
def templates() -> Environment:
    """Return the templates. Each expression in them is escaped, and its invisible characters are made visible."""
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
    """Make invisible characters in a template's expression visible. `{{ name|e }}` keeps a form's value unchanged."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
