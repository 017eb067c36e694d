"""The contract finds what is wrong with a storage: each mutant by the test that is named, and a sound one by none."""

import inspect
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.errors import AgentspanError
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    BackUp,
    CachedCalls,
    ChangedSpans,
    Compact,
    Damage,
    NewestScores,
    Notes,
    Outlines,
    Partitions,
    RemoveRuns,
    RunsWhere,
    Select,
    SpanSums,
    StoredKeys,
    Touched,
    WaitAtMost,
)
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.testing import StorageContract
from tests.storage.entry_points import install
from tests.storage.json_storage import JsonStorage
from tests.storage.mutants import MUTANTS, subtle
from tests.storage.mutants.claiming import Capable
from tests.storage.mutants.parting import Parted
from tests.storage.sqlite_contract import SQLiteContract as Proved

SUBTLE = [mutant for mutant in MUTANTS if mutant.__module__ == subtle.__name__]
TESTS = sorted(name for name, _ in inspect.getmembers(StorageContract, inspect.isfunction) if name.startswith("test_"))
FIELDS = ("location", "journals", "keeps_contents")
"""What a storage can claim to be."""
TESTED = {
    BackUp, CachedCalls, ChangedSpans, Compact, Damage, NewestScores, Notes, Outlines, Partitions, RemoveRuns,
    RunsWhere, Select, SpanSums, StoredKeys, Touched, WaitAtMost,
}  # fmt: skip
"""Questions after which tests are named that are skipped."""


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Entry points of the backends that have a location."""
    install(monkeypatch, tmp_path / "1", "jsonfile", "tests.storage.json_storage:open_json")
    install(monkeypatch, tmp_path / "2", "mutant", "tests.storage.mutants.claiming:open_mutant")


class Hurried(Proved):
    """For mutants that wait for ever."""

    long_s = 1.5


def new(backend: type[Any], folder: Path) -> Storage:
    """An empty storage of a class."""
    if issubclass(backend, MemoryStorage):
        return backend()
    if issubclass(backend, SQLiteStorage):
        return backend(folder / "runs.db")
    name = "jsonfile://" if backend is JsonStorage else f"mutant://{backend.__name__}"
    return agentspan.open(f"{name}{folder}/runs.json").storage


def verdict(backend: type[Any], test: str, folder: Path, contract: type[StorageContract] = Proved) -> str:
    """Run one test of the contract: `passed`, `skipped: …` or `failed: …`. Another error is a fault of the mutant."""
    folder.mkdir()
    storage = new(backend, folder)
    try:
        getattr(contract(), test)(storage)
    except pytest.skip.Exception as skipped:
        return f"skipped: {skipped}"
    except (AssertionError, pytest.fail.Exception, AgentspanError) as failed:
        return f"failed: {failed}"
    finally:
        SQLiteStorage.close(storage) if isinstance(storage, SQLiteStorage) else storage.close()
    return "passed"


@pytest.mark.full
@pytest.mark.parametrize(("mutant", "test"), MUTANTS.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_mutant_is_found_by_the_test_that_is_named(mutant: type[Any], test: str, tmp_path: Path) -> None:
    assert verdict(mutant, test, tmp_path / "mutant", Hurried).startswith("failed")


@pytest.mark.nightly
@pytest.mark.parametrize("mutant", SUBTLE, ids=lambda mutant: mutant.__name__)
def test_a_mutant_with_a_single_fault_is_found_by_no_other_test(mutant: type[Any], tmp_path: Path) -> None:
    failed = [test for test in TESTS if verdict(mutant, test, tmp_path / test).startswith("failed")]
    assert failed == [MUTANTS[mutant]]


@pytest.mark.full
@pytest.mark.parametrize("backend", [MemoryStorage, Capable, Parted], ids=lambda b: b.__name__)
def test_a_sound_storage_passes_and_what_it_does_not_claim_is_skipped_by_name(
    backend: type[Any], tmp_path: Path
) -> None:
    verdicts = {test: verdict(backend, test, tmp_path / test) for test in TESTS}
    assert {test: said for test, said in verdicts.items() if said.startswith("failed")} == {}
    skipped = {said.rpartition(" ")[2] for said in verdicts.values() if said.startswith("skipped")}
    claims = new(backend, tmp_path).capabilities()
    lacks = {name for name in FIELDS if getattr(claims, name) in (None, False)} | ({"waiting"} - {*dir(backend)})
    assert skipped == lacks | {question.__name__ for question in TESTED - claims.answers}


def test_each_test_of_the_contract_finds_a_mutant() -> None:
    assert len(MUTANTS) >= 23
    assert sorted(set(MUTANTS.values())) == TESTS
