"""The list of runs: its page, the JSON that brings it up to date, and exports of several runs."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentspan.analysis import by_name, dataset
from agentspan.analysis.runs import ANY_MARK, ids_of
from agentspan.errors import InvalidValue
from agentspan.serve.kept import Kept
from agentspan.serve.responses import respond, streamed
from agentspan.serve.viewer_html import Html, address_in
from agentspan.storage.protocol import Storage
from agentspan.viewer import export
from agentspan.viewer.address import Address
from agentspan.viewer.answer import answer
from agentspan.viewer.listing import (
    COLUMNS,
    FORM,
    MORE,
    PAGE,
    SINCE,
    agent_names,
    found_steps,
    listing,
    marks,
    sort_of,
    unsummed,
)

MOST_SELECTED = 100
"""The most runs that one request marks or exports."""


class RunList:
    """The handlers of the list of runs.

    Args:
        sums_s: how long the page waits for sums and causes; without them it is sent, and its script asks again.
        one_by_one: runs reads that take much memory, one at a time.
    """

    def __init__(
        self, storage: Storage, html: Html, kept: Kept[Any], one_by_one: Executor, *, sums_s: float | None
    ) -> None:
        self._storage = storage
        self._html = html
        self._kept = kept
        self._one_by_one = one_by_one
        self._sums_s = sums_s
        self._listings: dict[Address, asyncio.Task[dict[str, Any]]] = {}

    async def page(self, request: Request) -> Response:
        """Answer with the list of runs."""
        address = address_in(request)
        found = await self._listing(address, self._sums_s)
        if found is None:
            found = await asyncio.to_thread(unsummed, self._storage, address)
        agents = await asyncio.to_thread(agent_names, self._storage)
        marked = await self._kept.get("marks", partial(marks, self._storage))
        after, agent, mark = address.offset + len(found["runs"]), address.word("agent"), address.word("mark")
        known = [(name, value) for name, value in address.words if name not in FORM]
        return self._html.page(
            "runs.html",
            request,
            address=address,
            answer=await self._answer(address, self._sums_s),
            agents=agents if not agent or agent in agents else [agent, *agents],
            marks=marked if mark in ("", ANY_MARK, *marked) else [mark, *marked],
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

    async def data(self, request: Request) -> Response:
        """Answer with the list of runs as JSON, to update the page."""
        found = await self._listing(address_in(request))
        assert found is not None  # None only with a time limit
        return respond(found)

    async def answer_data(self, request: Request) -> Response:
        """Answer with the answer above the list, with causes, as JSON (see viewer.answer)."""
        found = await self._answer(address_in(request))
        assert found is not None  # None only with a time limit
        return respond(found)

    async def steps_data(self, request: Request) -> Response:
        """Answer with the steps that contain the text of the list's filter (see found_steps)."""
        read = partial(found_steps, self._storage, address_in(request))
        return respond(await asyncio.get_running_loop().run_in_executor(self._one_by_one, read))

    async def export(self, request: Request) -> Response:
        """Answer with several runs as one file: a page, or with `format=dataset` the lines of a dataset.

        Runs are named by `run`. Without one, a dataset has all runs that match the filter of the address.
        """
        address, ids = address_in(request), request.query_params.getlist("run")[:MOST_SELECTED]
        is_dataset = address.get("format") == "dataset"
        if not ids and (not is_dataset or address.ignored):
            raise InvalidValue("run", "must name at least one run")
        runs = await asyncio.to_thread(self._named, ids, address)
        name = f"{len(runs)}-runs.{'jsonl' if is_dataset else 'html'}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        if is_dataset:
            lines = (f"{line}\n".encode() for line in dataset.lines(self._storage, runs))
            return await streamed(lines, "application/jsonl", headers, self._one_by_one)
        parts = (part.encode("utf-8", "backslashreplace") for part in export.parts(self._storage, runs))
        return await streamed(parts, "text/html", headers, self._one_by_one)

    def _named(self, ids: Sequence[str], address: Address) -> list[str]:
        """Return the ids of the named runs, or of those that match a filter, in the order of `agentspan export`."""
        if ids:
            return [by_name.find_run(self._storage, id).id for id in dict.fromkeys(ids)]
        return ids_of(self._storage, address.filter())[::-1]

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
