"""Serves the pages across runs: the first part at once, each later part as soon as it is there."""

import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from agentspan.errors import AgentspanError
from agentspan.serve.kept import Kept
from agentspan.storage.protocol import Storage
from agentspan.viewer.address import Address, address_of
from agentspan.viewer.page import Page, Part

Render = Callable[..., str]
"""Renders a template by its name and values."""


class Pages:
    """The handlers of the pages across runs, over one storage."""

    def __init__(self, storage: Storage, kept: Kept[Any]) -> None:
        self._storage = storage
        self._kept = kept

    async def answer(self, page: Page, request: Request, render: Render) -> Response:
        """Answer with a page. It is streamed unless all its parts are kept."""
        address = address_of([*request.query_params.multi_items(), *request.path_params.items()])
        marker = secrets.token_hex(16)  # stands for the parts in the page around them
        first, *later = page.parts
        values = self._values(page, address)
        text = render(first.template, **values, is_first=True, **await self._read(page, first, address))
        around = render("page.html", **values, parts=marker)
        before, _, after = around.partition(marker)
        begin = before + text
        if all(self._kept.has(_key(page, part, address)) for part in later):
            rest = [await self._part(page, part, address, render) for part in later]
            return HTMLResponse(_bytes("".join([begin, *rest, after])))

        async def pieces() -> AsyncIterator[bytes]:
            yield _bytes(begin + '<p class="working" role="status">Adding up…</p>\n')
            for part in later:
                yield _bytes(await self._part(page, part, address, render))
            yield _bytes(after)

        return StreamingResponse(pieces(), media_type="text/html")

    def stamp(self) -> str | None:
        """Return a text that changes with each commit; None if commits cannot be noticed."""
        stamp = self._kept.stamp()
        return None if stamp is None else hashlib.sha256(repr(stamp).encode()).hexdigest()[:16]

    async def _part(self, page: Page, part: Part, address: Address, render: Render) -> str:
        """Return the text of a later part. A refusal becomes a sentence in its place: the page has begun already."""
        values = self._values(page, address)
        try:
            return render(part.template, **values, is_first=False, **await self._read(page, part, address))
        except AgentspanError as error:
            return render("refused.html", **values, message=str(error))

    async def _read(self, page: Page, part: Part, address: Address) -> Any:
        return await self._kept.get(_key(page, part, address), partial(part.read, self._storage, address))

    @staticmethod
    def _values(page: Page, address: Address) -> dict[str, Any]:
        return {"page": page, "address": address}


def _key(page: Page, part: Part, address: Address) -> tuple[str, Part, Address]:
    return page.name, part, address


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")
