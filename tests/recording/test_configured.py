"""`agentspan.open` without an argument: the database that `configure` was given."""

import re
from inspect import cleandoc, signature
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.recording.settings import Settings
from agentspan.recording.tracer import forget
from agentspan.tuning import STANDARD


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGENTSPAN_DB", raising=False)
    yield
    forget()


def record(db: Any) -> str:
    agentspan.configure(db, raise_errors=True)
    with agentspan.run("mine") as run:
        pass
    return run.id


def opened() -> list[str]:
    with agentspan.open() as db:
        found = [summary.run.id for summary in db.runs().runs]
        assert {run.id for run in db.agent_instances.list()} == set(found)
    return found


@pytest.mark.parametrize("is_shut_down", [False, True])
def test_a_file_is_opened(is_shut_down: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id = record("mine.db")
    if is_shut_down:
        agentspan.shutdown()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    assert opened() == [id]


def test_a_storage_in_memory_is_read_and_stays_open() -> None:
    first = record(":memory:")
    second = record(":memory:")
    assert opened() == opened() == [second, first]
    storage = agentspan.MemoryStorage()
    third = record(storage)
    assert opened() == [third]
    assert record(storage) != third


def test_a_storage_of_a_file_gets_a_connection_of_its_own(tmp_path: Path) -> None:
    storage = agentspan.open(tmp_path / "mine.db").storage
    id = record(storage)
    assert opened() == [id]
    with agentspan.open() as db:
        assert db.storage is not storage


def test_without_a_database_it_is_the_default_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSPAN_DB", str(tmp_path / "named.db"))
    id = record(None)
    assert opened() == [id]
    forget()
    agentspan.configure("mine.db")
    forget()
    assert opened() == [id]


def test_what_is_named_counts_more() -> None:
    id = record("mine.db")
    record("other.db")
    with agentspan.open("mine.db") as reading:
        assert [summary.run.id for summary in reading.runs().runs] == [id]


def test_a_capture_is_not_opened(tmp_path: Path) -> None:
    from agentspan.testing import capture

    id = record(None)
    with capture(), agentspan.run("captured"):
        assert opened() == [id]


def test_a_setting_has_one_default_and_is_described_in_the_help_of_configure() -> None:
    names = [*Settings._fields]
    for function in (agentspan.configure, agentspan.Tracer):
        parameters = [*signature(function).parameters.values()][1:]
        assert {each.name: each.default for each in parameters} == Settings._field_defaults
        assert [each.name for each in parameters] == names
    described = re.findall(r"^ {4}(\w+): ", cleandoc(agentspan.configure.__doc__ or ""), re.MULTILINE)
    assert described[: len(names) + 1] == ["db", *names]


@pytest.mark.parametrize("function", [agentspan.open, agentspan.configure, agentspan.Tracer, agentspan.SQLiteStorage])
def test_help_names_the_sizes_and_times_and_does_not_list_them(function: Any) -> None:
    assert str(signature(function).parameters["tuning"].default) == "STANDARD"
    assert str(STANDARD._replace(page_rows=2)) == "STANDARD._replace(page_rows=2)"


def test_sizes_and_times_are_values() -> None:
    small = STANDARD._replace(page_rows=2)
    assert (small.page_rows, STANDARD.page_rows) == (2, 500)
    assert small._replace(page_rows=500) == STANDARD
    assert small == STANDARD._replace(page_rows=2) != STANDARD
    with pytest.raises(TypeError, match="page_row"):
        STANDARD._replace(page_row=2)
    with pytest.raises(AttributeError, match="page_rows"):
        STANDARD.page_rows = 2
