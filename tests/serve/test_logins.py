"""Login sessions and logouts beyond one server: restarts, several servers of one file, and what a copy of it has."""

import logging
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from freezegun import freeze_time
from starlette.applications import Starlette

import agentspan
from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.serve.app import create_app
from agentspan.serve.logins import AccessToken, LoginStore
from agentspan.serve.viewer_routes import routes
from agentspan.serve.writes import WriteQueue
from agentspan.storage.questions import BackUp
from agentspan.tuning import STANDARD, Tuning
from tests.serve.asgi import Client

TOKEN = "s3cret-token"
HTML = {"Accept": "text/html"}
SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "data/runs.db"
    path.parent.mkdir()
    agentspan.SQLiteStorage(path).close()
    return path


class Browser:
    """A server of a file, and a browser with one cookie that it keeps whatever the server says."""

    def __init__(self, db: Database, cookie: tuple[str, str] | None, token: str, tuning: Tuning) -> None:
        ctx = Context(db.storage)
        pages = routes(ctx, WriteQueue(ctx), token=AccessToken(token), read_only=False, tuning=tuning)
        self.client = Client(Starlette(routes=pages))  # a tenth of the time of create_app, which has all of the API
        self.cookie = cookie or self.log_in(token)

    def log_in(self, token: str) -> tuple[str, str]:
        assert self.client.post("/login", json={"token": token}, headers=SAME).status_code == 200
        ((name, value),) = self.client.cookies.items()
        return name, value

    def sees(self) -> bool:
        return self.ask("GET", "/").status_code == 200

    def log_out(self) -> None:
        self.ask("POST", "/logout", json={})

    def ask(self, method: str, path: str, **options: Any) -> Any:
        self.client.cookies.clear()
        self.client.cookies.set(*self.cookie)
        response = self.client.request(method, path, headers={**HTML, **SAME}, **options)
        self.client.cookies.clear()
        return response


class Browse(Protocol):
    def __call__(
        self, db: Path, cookie: tuple[str, str] | None = None, *, token: str = TOKEN, tuning: Tuning = STANDARD
    ) -> Browser: ...


@pytest.fixture
def browse() -> Iterator[Browse]:
    """Make browsers, each before a server that was started for it."""
    with ExitStack() as stack:

        def made(
            db: Path, cookie: tuple[str, str] | None = None, *, token: str = TOKEN, tuning: Tuning = STANDARD
        ) -> Browser:
            browser = Browser(stack.enter_context(agentspan.open(db)), cookie, token, tuning)
            stack.callback(browser.client.close)
            return browser

        yield made


def logins(db: Path) -> Path:
    return db.with_name("runs.db-logins")


def ended(db: Path) -> list[str]:
    return sorted(name for name in os.listdir(logins(db)) if name != "secret")


def test_a_session_outlives_a_restart_and_so_does_its_logout(db: Path, browse: Browse) -> None:
    first = browse(db)
    other = browse(db)
    restarted = browse(db, first.cookie)
    assert restarted.sees()
    restarted.log_out()
    assert not restarted.sees()
    assert not browse(db, first.cookie).sees()
    assert browse(db, other.cookie).sees()


def test_a_logout_holds_for_each_server_of_the_file(db: Path, browse: Browse) -> None:
    one = browse(db)
    two = browse(db, one.cookie)
    assert two.sees()
    one.log_out()
    assert not two.sees()
    two.log_out()  # again
    assert len(ended(db)) == 1


def test_a_session_ends_with_its_token(db: Path, browse: Browse) -> None:
    browser = browse(db)
    assert not browse(db, browser.cookie, token="another-token").sees()


def test_the_secret_is_private_and_not_in_the_file_or_its_copies(db: Path, browse: Browse, tmp_path: Path) -> None:
    browser = browse(db)
    secret = (logins(db) / "secret").read_bytes()
    assert len(secret) == 32
    assert stat.S_IMODE((logins(db) / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(logins(db).stat().st_mode) == 0o700
    with agentspan.open(db) as opened:
        opened.storage.ask(BackUp(tmp_path / "copy.db"))
    for path in (*db.parent.glob("runs.db*"), *tmp_path.glob("copy.db*")):
        assert path.is_dir() or secret not in path.read_bytes(), path
    assert not browse(tmp_path / "copy.db", browser.cookie).sees()


def test_without_its_folder_every_session_has_ended(db: Path, browse: Browse) -> None:
    kept, gone = browse(db), browse(db)
    gone.log_out()
    shutil.rmtree(logins(db))
    assert not browse(db, kept.cookie).sees()
    assert not browse(db, gone.cookie).sees()


def test_a_server_without_a_token_keeps_nothing(db: Path) -> None:
    with agentspan.open(db) as opened:
        create_app(opened)
    assert not logins(db).exists()


def test_logouts_are_forgotten_once_their_sessions_have_expired(db: Path, browse: Browse) -> None:
    with freeze_time("2026-01-01"):
        browse(db).log_out()
        browse(db).log_out()
        assert len(ended(db)) == 2
    with freeze_time("2026-02-15"):
        browse(db).log_out()
        assert len(ended(db)) == 1


def test_too_many_logouts_end_all_sessions_instead_of_being_forgotten(
    db: Path, browse: Browse, caplog: pytest.LogCaptureFixture
) -> None:
    browsers = [browse(db, tuning=STANDARD._replace(kept_logouts=1)) for _ in range(3)]
    with caplog.at_level(logging.WARNING):
        for browser in browsers[:2]:
            browser.log_out()
    assert "all login sessions have ended" in caplog.text
    assert [browse(db, browser.cookie).sees() for browser in browsers] == [False] * 3
    assert browse(db).sees()


@pytest.mark.parametrize("trouble", ["others", "file", "link"])
def test_a_folder_that_is_not_ours_is_not_used_and_logouts_still_hold(
    db: Path, browse: Browse, tmp_path: Path, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    if trouble == "others":
        logins(db).mkdir()
        logins(db).chmod(0o777)
    elif trouble == "file":
        logins(db).write_bytes(b"")
    else:
        logins(db).symlink_to(tmp_path)
    with caplog.at_level(logging.WARNING):
        browser = browse(db)
    assert "logins end with this process" in caplog.text
    assert browser.sees()
    browser.log_out()
    assert not browser.sees()
    assert not browse(db, browser.cookie).sees()


def test_a_secret_that_was_not_written_whole_is_replaced(db: Path, browse: Browse) -> None:
    logins(db).mkdir(mode=0o700)
    (logins(db) / "secret").touch(mode=0o600)
    browser = browse(db)
    assert browse(db, browser.cookie).sees()
    assert LoginStore(db).secret == LoginStore(db).secret
