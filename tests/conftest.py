"""Fixtures: all storage backends behind the same names. And the Hypothesis profile of all tests."""

import atexit
import gc
import itertools
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import agentspan
from agentspan.database import Database
from agentspan.recording.git_commit import commit_replaced
from agentspan.schemas.span_types import REGISTRY
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.registry import open_direct
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.tuning import STANDARD, Tuning
from tests import postgres, tiers
from tests.tiers import (  # noqa: F401  (hooks)
    pytest_addoption,
    pytest_collection,
    pytest_sessionfinish,
    pytest_xdist_auto_num_workers,
)


def pytest_configure(config: pytest.Config) -> None:
    """Settle the tier, and how many examples a property has: without a deadline, since a machine is slow at times."""
    tiers.settle(config)
    settings.register_profile(
        "agentspan",
        max_examples=tiers.examples(60),
        deadline=None,
        derandomize=os.environ[tiers.ENVIRONMENT] != "nightly",
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    settings.load_profile("agentspan")


# What somebody has set for other programs changes neither a test nor a program that a test starts.
_OTHERS = (
    "AGENTSPAN_", "GIT_", "OTEL_", "PG", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "COLUMNS", "LINES", "LESS", "PAGER",
    "PYTHONUNBUFFERED",
)  # fmt: skip
for _name in [*os.environ]:
    if _name.startswith(_OTHERS) and not _name.startswith(("AGENTSPAN_TEST_", "AGENTSPAN_SHOTS", "AGENTSPAN_TORTURE")):
        del os.environ[_name]
for _name in ("NO_PROXY", "no_proxy"):  # a proxy is for what the tests fetch, not for their servers
    os.environ[_name] = ",".join(filter(None, (os.environ.get(_name), "127.0.0.1,localhost")))

# Journals in front of servers are nobody's but these tests'.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="agentspan-state-")
atexit.register(shutil.rmtree, os.environ["XDG_STATE_HOME"], ignore_errors=True)

# A shell that starts the tests in the background lets them ignore Ctrl-C, and with them each program that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Times that commands print are local.
os.environ["TZ"] = "UTC"
time.tzset()

ON_POSTGRES = (
    "analysis/test_id_prefixes.py", "analysis/test_reading.py", "analysis/test_runs.py", "analysis/test_search.py",
    "analysis/test_costs.py", "analysis/test_session_runs.py", "analysis/test_side_by_side.py",
    "analysis/test_versions.py",
    "analysis/test_stats.py", "maintenance/", "api/", "recording/test_blocks.py", "recording/test_faults.py",
    "recording/test_running.py", "recording/test_runs_apart.py", "recording/test_termination.py", "serve/test_blobs.py",
    "sessions/test_claude_store.py", "storage/", "viewer/test_data.py",
)  # fmt: skip
"""The tests that run on PostgreSQL too, where a round trip to a server is more than the work of most of them."""


BY_CONTRACT = ("storage/", "recording/test_running.py")
"""The tests that run on each backend in the quick tier, too. For others the contract proves that backends agree."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run on SQLite in the quick tier what runs on several storages; the contract shows that they agree."""
    folder = Path(__file__).parent
    names = {path: path.relative_to(folder).as_posix() for path in {item.path for item in items}}
    kept = []
    for item in items:
        backend, name = _backend(item), names[item.path]
        if backend != "postgres" or name.startswith(ON_POSTGRES):
            kept.append(item)
        if backend in ("memory", "postgres") and not name.startswith(BY_CONTRACT):
            item.add_marker(pytest.mark.full)
    items[:] = kept
    tiers.keep(config, items)


def _backend(item: pytest.Item) -> object:
    callspec = getattr(item, "callspec", None)
    return None if callspec is None else callspec.params.get("storage")


def pytest_collection_finish() -> None:
    """Take the collected tests and the imported modules out of the garbage collector's work.

    They stay until the end. A full collection among them takes 0.3 s, and a tenth of the tests ask for one.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Emptied]:
    """A PostgreSQL server of this process's tests, started when the first one needs it."""
    with postgres.server() as url:
        schemas = postgres.Emptied(url)
        yield schemas
        schemas.close()


@pytest.fixture
def postgres_location(postgres_server: postgres.Emptied) -> Iterator[Location]:
    """An empty schema, the same one for each test."""
    with postgres_server.lent() as location:
        yield location


@pytest.fixture
def tuning() -> Tuning:
    """The sizes and times of a test's storages; `tests.tuned` gives it others."""
    return STANDARD


@pytest.fixture(scope="session")
def _new_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with its tables, which tests copy: to make one takes 5 ms, and waits for the disk three times."""
    path = tmp_path_factory.mktemp("new") / "runs.db"
    SQLiteStorage(path).close()
    return path


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, tuning: Tuning, _new_file: Path) -> Iterator[Storage]:
    """One storage of each kind."""
    if request.param == "postgres":
        made = open_direct(request.getfixturevalue("postgres_location"), tuning=tuning)
    elif request.param == "memory":
        made = MemoryStorage(tuning=tuning)
    else:
        made = SQLiteStorage(shutil.copy(_new_file, tmp_path / "runs.db"), tuning=tuning)
    yield made
    made.close()


@pytest.fixture
def db(storage: Storage) -> Database:
    """The operations by id over each storage."""
    return agentspan.open(storage)


@pytest.fixture
def tracer(storage: Storage) -> Iterator[agentspan.Tracer]:
    """A tracer over each storage that raises agentspan's own faults. A server may be slow: a late answer is one."""
    made = agentspan.Tracer(storage, raise_errors=True, tuning=STANDARD._replace(recording_wait_s=5.0))
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def small_heap() -> None:
    """For a file whose tests collect garbage often: what other files have left is not gone through each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _same_span_types() -> Iterator[None]:
    """What a test registers is gone after it."""
    types = dict(REGISTRY._types)
    yield
    if types != REGISTRY._types:
        REGISTRY._types, REGISTRY._resolved = types, {}
        REGISTRY.version += 1


@pytest.fixture(autouse=True)
def _no_commit() -> Iterator[None]:
    """What a test records in this process is the same in a git checkout and outside."""
    with commit_replaced(None):
        yield


@pytest.fixture(scope="session")
def _default_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths for tests that name no file. With `tmp_path`, a folder would be made for each of the 8,300 tests."""
    folder = tmp_path_factory.mktemp("default")
    return (folder / f"{number}.db" for number in itertools.count())


@pytest.fixture(autouse=True)
def _fresh_default_tracer(_default_files: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test records into another's file, or into the checkout."""
    from agentspan.recording import tracer

    monkeypatch.setenv("AGENTSPAN_DB", str(next(_default_files)))
    yield
    tracer.forget()
