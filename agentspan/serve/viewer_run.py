"""The page of a run, and the data that it loads: facts, spans, the conversation, statistics, a search."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from agentspan.analysis import by_name
from agentspan.analysis.context_diff import since_previous
from agentspan.blobs import ANY_TYPE, AUDIO, IMAGES, ending_of
from agentspan.errors import NotFound
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.serve.kept import Conversations, Kept
from agentspan.serve.responses import encoded, respond, streamed
from agentspan.serve.viewer_html import Html, address_in, up, wants_page
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, NewestScores
from agentspan.viewer import data, export
from agentspan.viewer.address import number
from agentspan.viewer.conversation import blobs_of

READERS = 2
"""The threads that read spans for pages. Each has an answer in memory and a connection with a cache of 2 MiB."""
LARGE = 100_000
"""Bytes from which an answer is compressed: 10,000 spans are 1.7 MB, and 0.24 MB after 6 ms."""
MATCHES = 5000
"""The most spans that a search in a run marks."""
T = TypeVar("T")
Handler = Callable[[Request], Awaitable[Response]]


class OneRun:
    """The handlers of the page of a run.

    Args:
        one_by_one: runs reads that take much memory, one at a time.
    """

    def __init__(self, storage: Storage, html: Html, kept: Kept[Any], one_by_one: Executor) -> None:
        self._storage = storage
        self._html = html
        self._kept = kept
        self._conversations = Conversations(storage, kept.stamp)
        self._one_by_one = one_by_one
        self._reads = ThreadPoolExecutor(READERS, "agentspan-reads")
        self._details = ThreadPoolExecutor(1, "agentspan-details")

    async def page(self, request: Request) -> Response:
        """Answer with a run's page. The page then loads its spans as JSON."""
        run = await run_of(self._storage, request)
        if run.id != request.path_params["run_id"]:
            return RedirectResponse(run.id, 303)
        facts = await asyncio.to_thread(data.run_facts, self._storage, run, counted=False)
        return self._html.page(
            "run.html",
            request,
            address=address_in(request),
            run=facts,
            code=self._code(run.id),
            data=Markup(export.embedded(facts)),
            shell=Markup(export.shell()),
        )

    def _code(self, run_id: str) -> str:
        """Return the line of Python that shows the run in a notebook; "" for a storage that only this process has."""
        if self._storage.capabilities().location is None:
            return ""
        return f"import agentspan; agentspan.open({self._html.file!r}).run({run_id!r})"

    def or_page(self, handler: Handler, view: str = "tree") -> Handler:
        """Return a handler of JSON that sends somebody who opens its address to the run's page with the same view."""

        async def answer(request: Request) -> Response:
            if not wants_page(request):
                return await handler(request)
            span = request.path_params.get("span_id")
            place = {"span": span} if span else {"view": view} if view != "tree" else {}
            run_id = quote(request.path_params["run_id"], safe="")
            return RedirectResponse(f"{up(request)}runs/{run_id}{f'#{urlencode(place)}' if place else ''}", 303)

        return answer

    async def export(self, request: Request) -> Response:
        """Answer with a run as one file."""
        run = await run_of(self._storage, request)
        headers = {"Content-Disposition": f'attachment; filename="run-{run.id}.html"'}
        # JSON in it is ASCII, but the name of an agent may have half a character.
        parts = (part.encode("utf-8", "backslashreplace") for part in export.parts(self._storage, [run.id]))
        return await streamed(parts, "text/html", headers, self._one_by_one)

    async def facts(self, request: Request) -> Response:
        """Answer with the facts at the head of a run's page, as JSON (see data.run_facts)."""
        run = await run_of(self._storage, request)
        return respond(await asyncio.to_thread(data.run_facts, self._storage, run))

    async def spans(self, request: Request) -> Response:
        """Answer with spans as columns (see data.columns). If only changed spans are asked for, the run is added."""
        after, since = request.query_params.get("after", ""), request.query_params.get("since")
        cursor = request.query_params.get("cursor")

        def read() -> Response:
            run = by_name.find_run(self._storage, request.path_params["run_id"])
            if since is None and cursor is None:
                limit = data.CHUNK if after else data.FIRST_CHUNK
                found = data.columns(self._storage, run, after=after, limit=limit, cursor="")
                return _compressed(request, respond(found))
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
        sha256 = request.path_params["sha256"]
        read = partial(blob_response, self._storage, run_id, span_id, sha256)
        return await asyncio.get_running_loop().run_in_executor(self._details, read)

    async def context(self, request: Request) -> Response:
        """Answer with the context of a model call, compared with the previous one (see context_diff.since_previous)."""
        run_id, span_id = request.path_params["run_id"], request.path_params["span_id"]
        span = await self._alone(span_of, self._storage, run_id, span_id)
        return respond(await self._alone(since_previous, self._storage, span))

    async def conversation(self, request: Request) -> Response:
        """Answer with turns of the conversation from `offset` on, or around the `span`, and with its sections."""
        run = await run_of(self._storage, request)
        offset, span_id = number(request.query_params.get("offset")), request.query_params.get("span")

        def read() -> Response:
            span = None if span_id is None else span_of(self._storage, run.id, span_id)
            page = self._conversations.page(run, offset, span)
            return _compressed(request, Response(page, media_type="application/json"))

        return await self._alone(read)

    async def stats(self, request: Request) -> Response:
        """Answer with the run's statistics."""
        run = await run_of(self._storage, request)

        def read() -> Response:
            return _compressed(request, respond(data.statistics(self._storage, run.id)))

        return await asyncio.get_running_loop().run_in_executor(self._reads, read)

    async def search(self, request: Request) -> Response:
        """Answer with the ids of the spans that contain the words, and the number of all such spans."""
        run = await run_of(self._storage, request)
        words = request.query_params.get("q", "")
        found = await self._alone(data.matches, self._storage, run.id, words)
        return respond({"ids": found[:MATCHES], "total": len(found)})

    async def why(self, request: Request) -> Response:
        """Answer with why the run failed (see data.why), kept as pages are, while the run stays the same."""
        run = await run_of(self._storage, request)

        def state() -> tuple[object, ...]:
            scores = self._storage.ask(NewestScores([run.id]))
            return run, self._storage.ask(Counts([run.id]))[run.id], *(score.id for score in scores)

        key = ("why", *await asyncio.to_thread(state))
        return respond(await self._kept.get(key, partial(data.why, self._storage, run)))

    async def own_times(self, request: Request) -> Response:
        """Answer with the time of each span in which none of its children ran (see data.own_times)."""
        run = await run_of(self._storage, request)
        return respond(await self._alone(data.own_times, self._storage, run.id))

    async def _alone(self, read: Callable[..., T], *arguments: Any) -> T:
        """Run a read that takes much memory. Such reads run one at a time, in a thread of their own."""
        return await asyncio.get_running_loop().run_in_executor(self._one_by_one, partial(read, *arguments))

    def _detail(self, run_id: str, span_id: str) -> Iterator[bytes]:
        """Yield a full span as one piece. A span of 10 MB takes 100 MB meanwhile, so one is made at a time."""
        yield encoded(data.detail(self._storage, span_of(self._storage, run_id, span_id)))


async def run_of(storage: Storage, request: Request) -> AgentInstanceRow:
    """Return the run that the path of a request names.

    Raises:
        NotFound: there is no such run.
    """
    return await asyncio.to_thread(by_name.find_run, storage, request.path_params["run_id"])


def span_of(storage: Storage, run_id: str, span_id: str) -> AgentSpanRow:
    """Return a span of a run.

    Raises:
        NotFound: the run has no such span.
    """
    span = by_name.find_span(storage, span_id)
    if not isinstance(span, AgentSpanRow) or span.agent_instance_id != run_id:
        raise NotFound("this run has no such span")
    return span


def _compressed(request: Request, answer: Response) -> Response:
    """Return a large answer compressed, for a browser that reads that. A thread calls it: 1 MB takes 6 ms."""
    if len(answer.body) < LARGE or "gzip" not in request.headers.get("accept-encoding", ""):
        return answer
    packed = gzip.compress(answer.body, 1)
    headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(packed, 200, headers, media_type="application/json")


BLOB_POLICY = "default-src 'none'; sandbox"
"""The content security policy of a blob, for a browser that opens it in a tab of its own."""


def blob_response(storage: Storage, run_id: str, span_id: str, sha256: str) -> Response:
    """Return the bytes of a span that have this hash. Images, except SVG, and audio are shown; others are downloads.

    Raises:
        NotFound: the span has no such bytes.
    """
    span = span_of(storage, run_id, span_id)
    found = next((blob for hash, blob in blobs_of(span) if hash == sha256), None)
    if found is None:
        raise NotFound("this span has no such bytes")
    headers = {"Content-Security-Policy": BLOB_POLICY, "X-Content-Type-Options": "nosniff"}
    if found.media_type in IMAGES | AUDIO:
        return Response(found.data, headers=headers, media_type=found.media_type)
    headers["Content-Disposition"] = f'attachment; filename="{sha256[:16]}.{ending_of(found.media_type)}"'
    return Response(found.data, headers=headers, media_type=ANY_TYPE)
