"""What names a storage: paths, `:memory:`, URLs; and what is never shown of it."""

import multiprocessing
import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import agentspan
from agentspan.cli import main
from agentspan.errors import DatabaseUnusable, InvalidValue
from agentspan.storage import registry
from agentspan.storage.location import Location, parse
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage

URL = "fake://anna:s3%20cret@host/runs?password=hunter2&x=1"


class Entry:
    """An entry point whose backend opens what `opener` does."""

    name, value = "fake", "somewhere:opener"

    def __init__(self, opener: Any) -> None:
        self._opener = opener

    def load(self) -> Any:
        return self._opener


def install(monkeypatch: pytest.MonkeyPatch, opener: Any) -> None:
    monkeypatch.setattr(registry, "_installed", lambda: [Entry(opener)])


@pytest.mark.parametrize(
    ("text", "scheme", "path"),
    [
        ("runs.db", "sqlite", "runs.db"),
        ("./x:y", "sqlite", "x:y"),
        ("/a/b:c", "sqlite", "/a/b:c"),
        ("2026-11-25T10:00.db", "sqlite", "2026-11-25T10:00.db"),
        ("sqlite:///a/b.db", "sqlite", "/a/b.db"),
        (":memory:", "memory", None),
        ("postgresql://host/db", "postgresql", None),
        ("x:y", "x", None),
    ],
)
def test_a_location_is_a_path_or_begins_with_a_name(text: str, scheme: str, path: str | None) -> None:
    location = parse(text)
    assert (location.scheme, location.path) == (scheme, None if path is None else Path(path))


def test_an_unknown_name_is_an_error_that_lists_the_known_ones_and_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (agentspan.open, agentspan.configure, agentspan.Tracer):
        with pytest.raises(
            InvalidValue, match=r"no storage called 'x'; known are memory, postgres, postgresql, sqlite"
        ):
            use("x:y")
    result = CliRunner().invoke(main, ["--db", "nobody://u:pw@h", "runs"])
    assert (result.exit_code, "no storage called 'nobody'" in result.output, "pw" in result.output) == (2, True, False)
    assert list(tmp_path.iterdir()) == []
    agentspan.SQLiteStorage("./x:y").close()
    assert (tmp_path / "x:y").exists()


def test_a_backend_is_opened_by_its_name_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    kept = MemoryStorage()

    def opener(location: Location, *, read_only: bool, wait_s: float) -> Storage:
        opened.append(location.text)
        return kept

    install(monkeypatch, opener)
    monkeypatch.setenv("AGENTSPAN_DB", URL)
    assert agentspan.open(URL).storage is agentspan.open().storage is kept
    assert CliRunner().invoke(main, ["runs"]).exit_code == 0
    assert opened == [URL] * 3


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    def opener(location: Location, *, read_only: bool, wait_s: float) -> Storage:
        raise RuntimeError(f"cannot connect to {location.text} as anna with 's3 cret'")

    install(monkeypatch, opener)
    with pytest.raises(DatabaseUnusable) as raised:
        agentspan.open(URL)
    said = f"{raised.value} {parse(URL)!r} {parse(URL)}"
    assert raised.value.__cause__ is None
    assert "fake://anna:***@host/runs?password=***&x=1" in said
    assert not [secret for secret in ("s3 cret", "s3%20cret", "hunter2") if secret in said]


def step(name: str) -> tuple[str, int]:
    """What a worker calls: records, and returns what that process counts as failed."""
    with agentspan.span("tool", {"name": name}):
        pass
    return name, agentspan.health().failed


@pytest.mark.full
@pytest.mark.skipif(sys.platform == "win32", reason="needs the working folder of the parent")
def test_a_worker_of_a_process_that_records_in_memory_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENTSPAN_DB", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(agentspan.__file__).parents[1]))
    agentspan.configure(":memory:", raise_errors=True)
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool, agentspan.run("main"):
            name, failed = pool.submit(agentspan.propagate(step), "x").result()
        with agentspan.run("main"):
            assert pickle.loads(pickle.dumps(agentspan.propagate(step)))("y") == ("y", 0)
    finally:
        agentspan.shutdown()
    assert name == "x"
    assert failed > 0
    assert list(tmp_path.iterdir()) == []
