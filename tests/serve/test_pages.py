"""Pages across runs: sent part by part, and kept until the file changes."""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse

import agentspan
from agentspan.errors import InvalidValue
from agentspan.model.changes import Put, Unit
from agentspan.serve.kept import Kept
from agentspan.serve.pages import Pages
from agentspan.storage.protocol import Storage
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing.contract.base import Rows
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part
from tests.waiting import until


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[SQLiteStorage]:
    """A file that was written long ago."""
    storage = SQLiteStorage(tmp_path / "runs.db")
    _age(tmp_path)
    yield storage
    storage.close()


def _age(folder: Path) -> None:
    for path in folder.glob("runs.db*"):
        os.utime(path, ns=(1, 1))


def _render(name: str, **values: Any) -> str:
    shown = {"page.html": "<{parts}>", "refused.html": "[{message}]"}.get(name, name + " {n};")
    return shown.format(**values)


def _request(query: str = "") -> Request:
    scope = {"type": "http", "method": "GET", "path": "/p", "query_string": query.encode(), "headers": []}
    return Request({**scope, "path_params": {}})


async def _text(response: Any) -> str:
    if not isinstance(response, StreamingResponse):
        return bytes(response.body).decode()
    return "".join([piece.decode() async for piece in response.body_iterator])  # type: ignore[union-attr]


class Counted:
    """A page of two parts that counts how often each is read."""

    def __init__(self) -> None:
        self.reads = [0, 0]
        self.may_end = threading.Event()
        self.page = Page("p", "P", (Part("first", self._first), Part("second", self._second)))

    def _first(self, storage: Storage, address: Address) -> dict[str, Any]:
        self.reads[0] += 1
        return {"n": self.reads[0]}

    def _second(self, storage: Storage, address: Address) -> dict[str, Any]:
        self.reads[1] += 1
        self.may_end.wait(20)
        if address.get("refuse"):
            raise InvalidValue("refuse", "this cannot be")
        return {"n": self.reads[1]}


def test_the_first_part_is_sent_before_the_second_one_is_there(storage: SQLiteStorage) -> None:
    counted = Counted()

    async def look() -> list[str]:
        response = await Pages(storage, Kept(storage)).answer(counted.page, _request(), _render)
        assert isinstance(response, StreamingResponse)
        pieces: list[str] = []
        async for piece in response.body_iterator:
            pieces.append(piece.decode())  # type: ignore[union-attr]
            if len(pieces) == 1:
                assert counted.reads[1] in (0, 1)
                counted.may_end.set()
        return pieces

    begin, second, end = asyncio.run(look())
    assert (begin.startswith("<first 1;"), "working" in begin, second, end) == (True, True, "second 1;", ">")


def test_a_page_is_kept_until_the_file_changes(storage: SQLiteStorage, tmp_path: Path) -> None:
    counted = Counted()
    counted.may_end.set()
    pages = Pages(storage, Kept(storage))

    async def look() -> list[str]:
        return [await _text(await pages.answer(counted.page, _request(), _render)) for _ in range(3)]

    assert asyncio.run(look())[1:] == ["<first 1;second 1;>"] * 2
    stamp = pages.stamp()
    storage.apply([Unit((Put(Rows().agent()),), "agent")])
    _age(tmp_path)
    assert pages.stamp() != stamp
    until(lambda: asyncio.run(look())[2] == "<first 2;second 2;>")


def test_equal_requests_at_the_same_time_read_once(storage: SQLiteStorage) -> None:
    counted = Counted()

    async def look() -> list[str]:
        pages = Pages(storage, Kept(storage))
        asked = [_text(await pages.answer(counted.page, _request(), _render)) for _ in range(4)]
        counted.may_end.set()
        return await asyncio.gather(*asked)

    assert len(set(asyncio.run(look()))) == 1
    assert counted.reads == [1, 1]


def test_another_address_is_another_page_and_a_refused_part_is_a_sentence(storage: SQLiteStorage) -> None:
    counted = Counted()
    counted.may_end.set()

    async def look() -> list[str]:
        pages = Pages(storage, Kept(storage))
        return [await _text(await pages.answer(counted.page, _request(query), _render)) for query in ("", "refuse=1")]

    plain, refused = asyncio.run(look())
    assert plain.endswith("second 1;>")
    assert refused.endswith("[refuse: this cannot be]>")


def test_a_storage_without_a_file_keeps_nothing_for_longer_than_it_took() -> None:
    counted = Counted()
    counted.may_end.set()
    with agentspan.open(":memory:") as db:
        pages = Pages(db.storage, Kept(db.storage))
        assert pages.stamp() is None

        def look() -> list[int]:
            async def answer() -> None:
                await _text(await pages.answer(counted.page, _request(), _render))

            asyncio.run(answer())
            return counted.reads

        until(lambda: look() > [1, 1])
