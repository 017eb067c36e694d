"""A PostgreSQL server for tests: on loopback, in a temporary folder, as a user without rights; it ends with the tests.

It is found where Debian's packages put it, or in the folder that AGENTSPAN_TEST_POSTGRES names. Where there is none,
the tests that need it are skipped; with AGENTSPAN_TEST_POSTGRES=1, as in CI, they fail; with `no` they never run.
"""

import contextlib
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentspan.storage.location import Location

OLDEST = 16
ENVIRONMENT = "AGENTSPAN_TEST_POSTGRES"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "max_parallel_workers_per_gather": "0",
    "log_min_messages": "panic",
}
_numbers = itertools.count()


def programs() -> Path | None:
    """Return the folder with `postgres` and `initdb` of the newest version; None where there is none."""
    named = os.environ.get(ENVIRONMENT, "")
    if named == "no":
        return None
    if os.path.isabs(named):
        return Path(named)
    found = [(int(path.parts[-3]), path.parent) for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    on_path = shutil.which("postgres")
    if on_path is not None:
        said = subprocess.run([on_path, "--version"], capture_output=True, text=True, check=True).stdout
        version = re.search(r"\) (\d+)", said)
        found.append((int(version[1]) if version else 0, Path(on_path).resolve().parent))
    newest = max(found, default=None)
    return newest[1] if newest is not None and newest[0] >= OLDEST else None


def _as_nobody() -> dict[str, Any]:
    """Return how a process is started without rights: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    import pwd

    with contextlib.suppress(KeyError):
        user = pwd.getpwnam("postgres")
        return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return {"user": 65534, "group": 65534, "extra_groups": []}


class Server:
    """A server that can be killed and started again.

    Args:
        settings: instead of, or besides, those of tests.

    Attributes:
        url: of its database.
    """

    def __init__(self, **settings: str) -> None:
        bin = programs()
        if bin is None:
            problem = f"needs PostgreSQL {OLDEST} or newer (apt-get install postgresql)"
            if os.environ.get(ENVIRONMENT, "no") != "no":
                pytest.fail(problem)
            pytest.skip(problem)
        pytest.importorskip("psycopg", reason="needs psycopg")
        self._how = how = _as_nobody()
        shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # not TMPDIR: only its owner may enter it
        self._folder = folder = Path(tempfile.mkdtemp(prefix="agentspan-postgres-", dir=shared or "/tmp"))
        if how:
            os.chown(folder, how["user"], how["group"])
        data = folder / "data"
        options = ["-A", "trust", "-U", "agentspan", "-E", "UTF8", "--locale=C", "--no-sync"]
        made = [str(bin / "initdb"), "-D", str(data), *options]
        done = subprocess.run(made, cwd=folder, capture_output=True, text=True, check=False, **how)
        assert done.returncode == 0, done.stderr
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        set_to = {**SETTINGS, **settings}
        options = [part for name, value in set_to.items() for part in ("-c", f"{name}={value}")]
        self._command = [str(bin / "postgres"), "-D", str(data), "-p", str(self.port), *options]
        self._started: subprocess.Popen[bytes] | None = None
        self.url = f"postgresql://agentspan:sesame@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._started = subprocess.Popen(
            self._command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **self._how
        )
        _await(self.port, self._started)

    def kill(self) -> None:
        """Kill it with all its children, as a power failure does; what the system has of its files stays."""
        self.signal(signal.SIGKILL)
        assert self._started is not None
        self._started.wait()
        self._started = None
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and all its children."""
        assert self._started is not None
        parent = self._started.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in [parent, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def remove(self) -> None:
        """End it, and delete its files."""
        if self._started is not None:
            self._started.send_signal(signal.SIGQUIT)
            self._started.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def server() -> Iterator[str]:
    """Start a server; yield the URL of its database. Skip the test where there is no PostgreSQL."""
    started = Server()
    try:
        started.start()
        yield started.url
    finally:
        started.remove()


def _await(port: int, started: "subprocess.Popen[bytes]") -> None:
    import psycopg

    for _ in range(600):
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(f"postgresql://agentspan@127.0.0.1:{port}/postgres", connect_timeout=2).close()
            return
        assert started.poll() is None, "the server ended"
        time.sleep(0.05)
    raise AssertionError("the server does not answer")


class Emptied:
    """Schemas for tests, one after the other: to empty one takes a tenth of the time of making another.

    Args:
        url: of the database.
    """

    def __init__(self, url: str) -> None:
        import psycopg

        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)
        self._deletes: dict[str, str] = {}

    def new(self) -> Location:
        """Return a schema of its own."""
        return Location("postgresql", f"{self.url}?schema=tests_{os.getpid()}_{next(_numbers)}")

    @contextlib.contextmanager
    def lent(self) -> Iterator[Location]:
        """Lend the schema that tests share; all rows but the account are gone afterwards."""
        yield Location("postgresql", f"{self.url}?schema=shared")
        self.empty("shared")

    def end_connections(self) -> None:
        """Let the server end all connections of agentspan."""
        self._connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'agentspan'"
        )

    def empty(self, schema: str) -> None:
        """Delete all rows of a schema but the account."""
        if not self._deletes.get(schema):  # a test may have left the schema without tables
            found = self._connection.execute(
                "select string_agg(format('delete from %%I.%%I', nspname, relname), ';') from pg_class "
                "join pg_namespace n on n.oid = relnamespace where nspname = %s and relkind in ('r', 'p') "
                "and not relispartition and relname not in ('storage_version', 'accounts')",
                (schema,),
            ).fetchone()
            self._deletes[schema] = (found and found[0]) or ""
        self._connection.execute(self._deletes[schema].encode())

    def close(self) -> None:
        """Close its own connection."""
        self._connection.close()


def prepare_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let psycopg prepare no statement: preparing one, the fifth time that it is sent, is a round trip."""
    never = property(lambda _: None, lambda *_: None)  # connecting sets the number
    monkeypatch.setattr("psycopg._preparing.PrepareManager.prepare_threshold", never)
