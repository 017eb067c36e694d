"""The server's token: how strong it must be, how often it may be guessed, and which Host it is asked by."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

import agentspan
from agentspan.errors import InvalidValue
from agentspan.serve import logins
from agentspan.serve.app import create_app
from agentspan.serve.logins import AccessToken, check
from tests.checkout import ROOT
from tests.serve.asgi import Client
from tests.serve.servers import Server, refusal, serving

TOKEN = "s3cret-token"
RIGHT = TOKEN.encode()
SAME = {"Sec-Fetch-Site": "same-origin"}


class Clock:
    """A monotonic clock that only moves when it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(logins, "monotonic", clock)
    return clock


def guess(token: AccessToken, number: int, *client: Any) -> bool:
    """Send a wrong token that differs from the others; return whether it was one of those that are allowed."""
    wait_s = token.wait_s(f"guess-{number}".encode(), client)
    assert wait_s is not None
    return wait_s == 0


def guesses(token: AccessToken, host: str, first: int = 100) -> int:
    """Count how many of many guesses at once were allowed, each over a connection of its own."""
    return sum(guess(token, n, host, n) for n in range(first, first + 1000))


@pytest.mark.parametrize("weak", ["x", "hunter2", "12345678901", "a" * 40, "abababababab", ""])
def test_a_token_that_can_be_guessed_is_refused(weak: str) -> None:
    with pytest.raises(InvalidValue, match=r"at least 12 characters.*token_urlsafe") as raised:
        create_app(agentspan.MemoryStorage(), token=weak)
    assert len(weak) < 3 or weak not in str(raised.value)
    check(TOKEN)


@pytest.mark.full
def test_a_server_does_not_start_with_a_weak_token(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "agentspan", "serve", "--create", "--port", "0", "--db", str(tmp_path / "runs.db")]
    done = subprocess.run(command, cwd=ROOT, env={"AGENTSPAN_TOKEN": "zyx"}, capture_output=True, text=True)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert "token: must have at least 12 characters" in said
    assert "zyx" not in said
    assert not (tmp_path / "runs.db").exists()


def test_an_address_guesses_a_few_times_and_then_slowly(clock: Clock) -> None:
    token = AccessToken(TOKEN)
    assert guesses(token, "192.0.2.1") == logins.OF_AN_ADDRESS.at_once
    assert token.wait_s(b"another", ("192.0.2.1", 5)) == logins.OF_AN_ADDRESS.then_every_s
    clock.now += 3600
    assert guesses(token, "192.0.2.1", 2000) == logins.OF_AN_ADDRESS.at_once
    clock.now += logins.OF_AN_ADDRESS.then_every_s
    assert guesses(token, "192.0.2.1", 4000) == 1
    assert guess(token, 0, "192.0.2.2", 1)
    assert not guess(token, 0, "192.0.2.1", 1)


def test_the_right_token_is_accepted_whatever_was_guessed_before(clock: Clock) -> None:
    token = AccessToken(TOKEN)
    guesses(token, "192.0.2.1")
    for n in range(80):  # each on a new connection, beside one guess a second
        clock.now += 1
        guess(token, 5000 + n, "192.0.2.1", n)
        assert token.wait_s(RIGHT, ("192.0.2.1", 9000 + n)) is None
    assert token.wait_s(RIGHT, None) is None
    assert token.wait_s(RIGHT + b"x", None) == token.wait_s(RIGHT[:-1], None) == token.wait_s(b"", None) == 0


def test_the_addresses_of_one_ipv6_network_are_one(clock: Clock) -> None:
    token = AccessToken(TOKEN)
    made = sum(guess(token, n, f"2001:db8:0:1::{n:x}", n) for n in range(100))
    assert made == logins.OF_AN_ADDRESS.at_once
    assert guess(token, 0, "2001:db8:0:2::1", 1)


def test_the_same_wrong_token_again_is_no_further_guess(clock: Clock) -> None:
    token = AccessToken(TOKEN)
    for n in range(1000):  # a worker with an old token, which tries again for ever
        assert token.wait_s(b"the old token", ("192.0.2.1", n)) == 0
    assert guess(token, 0, "192.0.2.1", 7)


@pytest.mark.full
def test_what_is_remembered_of_guesses_is_bounded(clock: Clock) -> None:
    token = AccessToken(TOKEN)
    for n in range(logins.REMEMBERED * 2):
        clock.now += 10
        host = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        assert guess(token, n, host, 1)
        assert token.wait_s(RIGHT, (host, 2)) is None
    assert token.remembered <= 2 * logins.REMEMBERED


def test_a_guess_too_many_is_answered_with_429_and_when_to_try_again(clock: Clock) -> None:
    with Client(create_app(agentspan.MemoryStorage(), token=TOKEN)) as client:
        wrong = [client.get("/api/v1/ping", headers={"Authorization": f"Bearer guess-{n}"}) for n in range(5)]
        wrong += [client.post("/login", json={"token": f"login-{n}"}, headers=SAME) for n in range(6)]
        assert [refusal(each)[0] for each in wrong] == [401] * 5 + [403] * 5 + [429]
        for late in (wrong[-1], client.get("/api/v1/ping", headers={"Authorization": f"Bearer {TOKEN}x"})):
            assert refusal(late) == (429, "not_permitted")
            assert late.headers["retry-after"] == "3"
            assert "set-cookie" not in late.headers
        assert refusal(client.get("/api/v1/ping")) == (401, "not_authenticated")  # gives no token, so it is no guess
        assert client.get("/api/v1/ping", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.post("/login", json={"token": TOKEN}, headers=SAME).status_code == 200


@pytest.mark.parametrize(("host", "status"), [("evil.example", 403), ("localhost", 200), ("127.0.0.1:9", 200)])
def test_a_server_of_this_machine_with_a_token_checks_the_host(guarded: Server, host: str, status: int) -> None:
    headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"{guarded.url}/api/v1/ping", headers=headers, timeout=30).status_code == status


def test_behind_a_proxy_the_right_token_is_accepted_beside_guesses(guarded: Server) -> None:
    def status(token: str, address: str) -> int:
        headers = {"Authorization": f"Bearer {token}", "X-Forwarded-For": address}
        return httpx.get(f"{guarded.url}/api/v1/ping", headers=headers, timeout=30).status_code

    guessed = [status(f"guess-{number}", f"203.0.113.{number}, 192.0.2.1") for number in range(12)]
    assert guessed == [401] * 10 + [429] * 2
    assert status("another guess", "192.0.2.2") == 401
    assert status(TOKEN, "192.0.2.1") == 200
    assert httpx.get(f"{guarded.url}/api/v1/ping", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


@pytest.mark.full
def test_further_hosts_can_be_allowed(tmp_path: Path) -> None:
    with serving(tmp_path / "runs.db", "--allowed-host", "runs.example", AGENTSPAN_TOKEN=TOKEN) as server:
        for host, status in (("runs.example", 200), ("localhost", 200), ("evil.example", 403)):
            headers = {"Host": host, "Authorization": f"Bearer {TOKEN}"}
            assert httpx.get(f"{server.url}/api/v1/ping", headers=headers, timeout=30).status_code == status
