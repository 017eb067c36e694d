"""The pytest plugin, in a pytest of its own, and what importing costs."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan.testing
from tests.testing.pytests import ROOT, run_pytest

AGENT = """
import agentspan

@agentspan.span
def search(query):
    return [query]

def main():
    agentspan.configure("runs.db")
    with agentspan.run("researcher"):
        search("flights")
    agentspan.shutdown()
"""


def test_the_fixture_captures_what_a_program_records(tmp_path: Path) -> None:
    test = """
import pytest
from agent import main, search

ids = set()

@pytest.mark.parametrize("time", [1, 2])
def test_main(captured_runs, time):
    assert len(captured_runs) == 0
    main()
    captured_runs.one().assert_called("search", query="flights")
    ids.add(captured_runs.one().id)
    assert len(ids) == 1

def test_alone(captured_runs):
    search("x")
    assert captured_runs.one().name == "program"
"""
    said = run_pytest(tmp_path, agent=AGENT, test_it=test)
    assert "3 passed" in said
    assert not (tmp_path / "runs.db").exists()
    assert not (tmp_path / "agentspan.db").exists()


@pytest.mark.full
def test_what_was_configured_before_is_in_use_again_after_each_test(tmp_path: Path) -> None:
    conftest = "import agentspan\nagentspan.configure('real.db')\n"
    test = """
import agentspan, pytest
from agentspan.testing import load
from agent import main, search

def test_1():
    search("before")

def test_2(captured_runs):
    agentspan.configure("other.db")
    search("captured")

@pytest.mark.xfail(strict=True)
def test_3(captured_runs):
    agentspan.shutdown()
    search("captured too")
    raise ValueError

def test_4():
    search("after")
    with load("real.db") as runs:
        assert [run.spans[0].arguments["query"] for run in runs] == ["before", "after"]
"""
    said = run_pytest(tmp_path, conftest=conftest, agent=AGENT, test_it=test)
    assert "3 passed, 1 xfailed" in said
    assert {path.name for path in tmp_path.glob("*.db")} == {"real.db"}


def test_a_failure_shows_the_line_of_the_test_and_the_run(tmp_path: Path) -> None:
    test = """
from agent import main

def test_main(captured_runs):
    main()
    run = captured_runs.one()
    run.assert_called("hotel", stars=5)

def test_two(captured_runs):
    main()
    main()
    captured_runs.one()
"""
    said = run_pytest(tmp_path, agent=AGENT, test_it=test)
    assert "2 failed" in said
    assert ">       run.assert_called" in said
    assert "E       AssertionError: hotel(stars=5) was never called" in said
    assert 'E       └─✓ tool · Tool search(query=flights) → ["flights"]' in said
    assert "AssertionError: 2 runs were recorded, not one" in said
    assert "raise AssertionError" not in said  # the frames of the package are hidden


@pytest.mark.full
def test_a_run_of_pytest_that_does_not_use_it_pays_for_nothing_more_than_the_package(tmp_path: Path) -> None:
    test = """
import sys

def test_nothing():
    import agentspan
    own = {name for name in sys.modules if name.startswith("agentspan.testing")}
    assert own == {"agentspan.testing", "agentspan.testing.plugin"}
    heavy = {"sqlite3", "sqlite_utils", "pydantic.main", "jsonschema", "click", "agentspan.storage.memory"}
    assert not heavy & set(sys.modules)
"""
    assert "1 passed" in run_pytest(tmp_path, test_it=test)


@pytest.mark.full
def test_the_fixture_is_described(tmp_path: Path) -> None:
    assert "captured_runs -- " in run_pytest(tmp_path, "--fixtures")


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


def test_importing_the_package_needs_no_pytest_and_no_storage() -> None:
    code = (
        "import sys, agentspan\nbefore = set(sys.modules)\nimport agentspan.testing\n"
        "print(sorted(set(sys.modules) - before))"
    )
    assert run_python(code) == "['agentspan.testing']"


@pytest.mark.full
def test_no_name_but_the_plugin_and_the_contract_needs_pytest() -> None:
    code = (
        "import sys; sys.modules['pytest'] = None\nimport agentspan.testing as t\n"
        "for name in set(t.__all__) - {'StorageContract'}: getattr(t, name)\n"
        "print(sorted(t.__all__) == t.__dir__() == dir(t))"
    )
    assert run_python(code) == "True"


@pytest.mark.full
def test_names_are_what_they_say_whatever_was_imported_first() -> None:
    code = (
        "import pkgutil, importlib, agentspan.testing as t\n"
        "for m in pkgutil.iter_modules(t.__path__): importlib.import_module(f'agentspan.testing.{m.name}')\n"
        "print([n for n in t.__all__ if not callable(getattr(t, n))])"
    )
    assert run_python(code) == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(agentspan.testing, "nonsense")


def test_pytest_finds_the_plugin_by_itself() -> None:
    (found,) = importlib.metadata.entry_points(group="pytest11", name="agentspan")
    assert found.load().captured_runs
