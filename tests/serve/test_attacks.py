"""A server under requests that were made to stop it: it answers others, needs little memory, and ends in time."""

import gzip
import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.otel.requests import export_request, protobuf_of
from tests.serve.otlp import field
from tests.serve.servers import Api, Server

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux"),
]

MANY = 2_000_000
MB = 2**20
JSON = {"Content-Type": "application/json"}
PACKED = {"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip"}
PACKED_JSON = {**JSON, "Content-Encoding": "gzip"}
Attack = Callable[[str], tuple[str, bytes, dict[str, str]]]

END_S, PING_S, MEMORY_MB = 3, 0.25, 300
"""What holds on a quiet machine."""
ROOM = 10
"""Times as long as PING_S for the slowest, twice as long as END_S: other tests run beside these."""


def packed(body: bytes, headers: dict[str, str] = PACKED, path: str = "/v1/traces") -> Attack:
    return lambda run: (path, gzip.compress(body, 1), headers)


def payload(body: bytes) -> Attack:
    def attack(run: str) -> tuple[str, bytes, dict[str, str]]:
        start = b'{"details":{"agent_instance_id":"%s","schema_name":"s","status":"active","payload":' % run.encode()
        return "/api/v1/agent_spans", start + body + b"}}", JSON

    return attack


def text(part: str, length: int = 3_000_000) -> Attack:
    return payload(json.dumps({"a": (part * (length // len(part)))}).encode())


def real_spans(number: int) -> bytes:
    spans = [{"spanId": f"{index + 1:016x}", "name": "x"} for index in range(number)]
    return protobuf_of(export_request(*spans))


PROSE = "The quick brown fox jumps over the lazy dog. "
ATTACKS: dict[str, Callable[[], Attack]] = {
    "spans": lambda: packed(field(1, field(2, b"\x12\x00" * MANY))),
    "scopes": lambda: packed(field(1, b"\x12\x00" * MANY)),
    "resources": lambda: packed(b"\x0a\x00" * MANY),
    "attributes of a resource": lambda: packed(field(1, field(1, b"\x0a\x00" * MANY))),
    "attributes of a scope": lambda: packed(field(1, field(2, field(1, b"\x1a\x00" * MANY) + field(2, b"\x0a\x01a")))),
    "attributes of spans": lambda: packed(field(1, field(2, field(2, b"\x4a\x00" * 90_000) * 100))),
    "log records": lambda: packed(field(1, field(2, b"\x12\x00" * MANY)), path="/v1/logs"),
    "spans in JSON": lambda: packed(
        b'{"resourceSpans":[{"scopeSpans":[{"spans":[%s{}]}]}]}' % (b"{}," * 900_000), PACKED_JSON
    ),
    "members in JSON": lambda: packed(b'{%s"a":0}' % b"".join(b'"%x":0,' % n for n in range(590_000)), PACKED_JSON),
    "members of gzip": lambda: lambda run: ("/v1/traces", gzip.compress(b"") * 50_000, PACKED),
    "as many spans as may be": lambda: packed(real_spans(49_000)),
    "curl": lambda: text("curl -u"),
    "mysql": lambda: text("mysql -p-"),
    "docker login": lambda: text("docker login "),
    "password in SQL": lambda: text("user x password '"),
    "passwords apart": lambda: text(f"password: 'hunter2x' {PROSE}", 9_500_000),
    "members": lambda: payload(b'{"password":"x"%s}' % b"".join(b',"k%d":1' % n for n in range(700_000))),
    "as many members as may be": lambda: payload(
        b'{"password":"x"%s}' % b"".join(b',"k%d":1' % n for n in range(299_000))
    ),
    "numbers": lambda: payload(b'{"password":"x","a":[%s1]}' % (b"1," * 4_000_000)),
}


def memory(server: Server, name: str) -> float:
    """A figure of a process, in MB."""
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


class Sending(threading.Thread):
    """One request, in the background."""

    def __init__(self, server: Server, attack: tuple[str, bytes, dict[str, str]]) -> None:
        super().__init__(daemon=True)
        self._server, (self._path, self._body, self._headers) = server, attack
        self.status = 0
        self.start()

    def run(self) -> None:
        try:
            url = f"{self._server.url}{self._path}"
            self.status = httpx.post(url, content=self._body, headers=self._headers, timeout=300).status_code
        except httpx.TransportError:
            pass  # the server has ended


USUAL = {"spans", "log records", "members in JSON", "members of gzip", "curl", "members", "numbers"}
"""One of each kind: the others take the server through the same code, for up to half a minute."""


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, id=name, marks=() if name in USUAL else pytest.mark.nightly) for name, make in ATTACKS.items()],
)
def test_a_server_answers_others_and_ends(make: Callable[[], Attack], tmp_path: Path) -> None:
    server = Server(tmp_path / "runs.db")
    try:
        with server.client() as client:
            run = Api(client).instance("a")
            attack = make()(run)
            httpx.post(f"{server.url}/v1/traces", content=b"", headers={**JSON}, timeout=60)
            for _ in range(3):
                assert client.get("/ping").status_code == 200
            idle = memory(server, "VmRSS")
            began = time.monotonic()
            sending, pings = Sending(server, attack), list[float]()
            while sending.is_alive() or not pings:
                start = time.monotonic()
                assert client.get("/ping").status_code == 200
                pings.append(time.monotonic() - start)
                time.sleep(0.01)
            took = time.monotonic() - began
            grown = memory(server, "VmHWM") - idle
            assert sending.status in (200, 400, 413)
        Sending(server, attack)
        time.sleep(min(0.3, took / 3))
        start = time.monotonic()
        code, end = server.end(), time.monotonic() - start
        middle = statistics.median(pings)
        figures = f"{took:5.2f} s; ping {middle:.3f}, {max(pings):.3f} s; {grown:3.0f} MB; ended after {end:.2f} s"
        assert code == 0, figures
        assert end < END_S * 2, figures
        assert middle < PING_S, figures
        assert max(pings) < PING_S * ROOM, figures
        assert grown < MEMORY_MB, figures
    finally:
        server.kill()
