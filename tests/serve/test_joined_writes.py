"""A response is sent by one system call where it can be, and nothing of it is kept back."""

import socket
from pathlib import Path
from typing import Any

import pytest

from agentspan.serve.connections import JoinedWrites
from tests.serve.servers import serving


class Transport:
    """A transport that notes what is written to it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.written.append(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_extra_info(self, name: str) -> str:
        return name


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def turn() -> list[Any]:
    return []


@pytest.fixture
def joined(transport: Transport, turn: list[Any]) -> JoinedWrites:
    return JoinedWrites(transport, turn.append)


def test_head_and_body_are_one_write(joined: JoinedWrites, transport: Transport) -> None:
    joined.write(b"head ")
    assert transport.written == []
    joined.write(b"body")
    assert transport.written == [b"head body"]


def test_what_nothing_follows_is_sent_at_the_end_of_the_turn(
    joined: JoinedWrites, transport: Transport, turn: list[Any]
) -> None:
    joined.write(b"head")
    turn.pop()()
    assert transport.written == [b"head"]
    joined.write(b"")
    assert turn == []


def test_at_most_one_write_waits(joined: JoinedWrites, transport: Transport) -> None:
    for part in (b"1", b"2", b"3", b"4", b"5"):
        joined.write(part)
    assert transport.written == [b"12", b"34"]


def test_closing_sends_what_waits(joined: JoinedWrites, transport: Transport, turn: list[Any]) -> None:
    joined.write(b"last")
    joined.close()
    assert transport.written == [b"last"]
    assert joined.is_closing()
    turn.pop()()
    assert transport.written == [b"last"]


def test_the_rest_is_the_transport_s_own(joined: JoinedWrites) -> None:
    assert joined.get_extra_info("peername") == "peername"


@pytest.mark.full
def test_a_response_of_a_server_comes_in_one_piece(tmp_path: Path) -> None:
    with serving(tmp_path / "runs.db") as server:
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
                connection.sendall(b"GET /api/v1/ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
                head, blank, body = connection.recv(65536).partition(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 200")
                assert blank
                assert body.endswith(b"}")
