"""Runs of tests in a pytest of its own: where they are kept, what a failure shows, budgets of marked tests."""

import json
import re
from pathlib import Path

import pytest

import agentspan
from agentspan.testing import load
from tests.cli.calling import lines
from tests.testing.pytests import run_pytest

KEPT = Path(".agentspan", "tests.db")

AGENT = """
import agentspan

@agentspan.span("tool")
def search(query):
    if query == "hotels":
        raise TimeoutError("read timed out")
    return [query]

def travel(*queries):
    with agentspan.run("traveller", version="1.2"):
        for number, query in enumerate(queries):
            with agentspan.span("step", {"number": number}):  # lines that are alike would be folded
                pass
            search(query)
"""


@pytest.mark.full
def test_a_failed_test_shows_the_end_of_its_run_and_the_command_that_opens_it(tmp_path: Path) -> None:
    test = """
from agent import travel

def test_passes():
    travel("unseen")

def test_raises():
    travel(*(f"flight {number}" for number in range(10)), "hotels")

def test_asserts():
    travel("a")
    travel("b")
    assert False

def test_captured(captured_runs):
    travel("c")
    assert False

def test_own_file(tmp_path):
    import agentspan
    agentspan.configure(tmp_path / "own.db")
    travel("d")
    agentspan.shutdown()
    assert False

def test_records_nothing():
    assert False
"""
    said = run_pytest(tmp_path, "--tb=line", "--basetemp=base", "-rA", agent=AGENT, test_it=test)
    assert "5 failed, 1 passed" in said
    assert "unseen" not in said
    shown = re.split(r"_{3,} test_\w+ _{3,}\n", run_pytest(tmp_path, "--basetemp=base"))[1:]
    raises, asserts, captured, own_file, nothing = shown
    lines = raises[raises.index("- agentspan -") :].splitlines()
    run = re.fullmatch(r"run (\w+)( · .*)?", lines[1])
    assert run is not None
    (head,) = [line for line in lines if line.startswith("✗ traveller 1.2 · failed")]
    assert "test test_it.py::test_raises" in " ".join(lines[1 : lines.index(head)])
    tree = lines[lines.index("… 11 lines above") + 1 : -1]
    assert len(tree) == 12
    assert "└─✗ Tool search(query=hotels)" in tree[-2]
    assert tree[-1].strip() == "TimeoutError: read timed out"
    assert lines[-1] == f"agentspan show {run[1]} --db {KEPT}"
    assert "Tool search(query=b)" in asserts
    assert "1 other run of this test" in asserts
    assert "Tool search(query=c)" in captured
    assert "agentspan show" not in captured  # it is in memory
    assert "Tool search(query=d)" in own_file
    assert "own.db" in own_file
    assert "- agentspan -" not in nothing


def test_a_run_has_the_test_that_recorded_it(tmp_path: Path) -> None:
    test = """
import subprocess, sys
import pytest, agentspan
from agent import travel

@pytest.fixture
def started():
    with agentspan.run("in a fixture", task="a task of its own", metadata={"a": 1}):
        pass

class TestTrip:
    @pytest.mark.parametrize("to", ["berlin"])
    def test_goes(self, to, started):
        travel(to)

def test_elsewhere():
    subprocess.run([sys.executable, "-c", "import agentspan\\nwith agentspan.run('other'): pass"], check=True)

def test_in_memory(captured_runs):
    travel("a")
    assert "test" not in (captured_runs.one().metadata or {})
"""
    assert "3 passed" in run_pytest(tmp_path, agent=AGENT, test_it=test)
    goes, elsewhere = "test_it.py::TestTrip::test_goes[berlin]", "test_it.py::test_elsewhere"
    with agentspan.open(tmp_path / KEPT) as db:
        found = db.runs().runs[::-1]
        assert [(run.agent, run.run.task, json.loads(run.run.metadata or "")) for run in found] == [
            ("in a fixture", "a task of its own", {"test": goes, "a": 1}),
            ("traveller", goes, {"test": goes}),
            ("other", elsewhere, {"test": elsewhere}),
        ]
    head = lines(tmp_path / KEPT, "show", "traveller@1.2", columns=200)[0]
    assert f" · test {goes}" in head
    assert "task" not in head
    assert lines(tmp_path / KEPT, "runs", "--meta", f"test={goes}")[-1].startswith("2 of 2 runs")


@pytest.mark.full
def test_runs_are_kept_below_the_rootdir_and_out_of_git_wherever_tests_go(tmp_path: Path) -> None:
    conftest = "from agent import travel\ntravel('before any test')\n"
    test = """
import subprocess, sys
from pathlib import Path
from agent import travel

ROOT = Path(__file__).parent

def test_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    travel("in a test")
    subprocess.run([sys.executable, "-c", "from agent import travel; travel('in a process')"], check=True, cwd=ROOT)
"""
    assert "1 passed" in run_pytest(tmp_path, "--basetemp=base", agent=AGENT, conftest=conftest, test_it=test)
    with load(tmp_path / KEPT) as runs:
        queries = [span.arguments["query"] for run in runs for span in run.find("search")]
    assert sorted(queries) == ["before any test", "in a process", "in a test"]
    assert (tmp_path / ".agentspan" / ".gitignore").read_text() == "*\n"
    assert {path.relative_to(tmp_path) for path in tmp_path.rglob("*.db")} == {KEPT}


@pytest.mark.full
def test_where_nothing_is_recorded_no_file_appears_and_agentspan_is_not_imported(tmp_path: Path) -> None:
    conftest = """
import sys

def pytest_unconfigure():
    print("imported:", sorted(name for name in sys.modules if name.startswith("agentspan.")))
"""
    said = run_pytest(tmp_path, conftest=conftest, test_it="def test_nothing(): pass\ndef test_fails(): assert False\n")
    assert "1 failed, 1 passed" in said
    own = "['agentspan.testing', 'agentspan.testing.plugin']"  # the entry point is a copy outside of the package
    assert own in said
    assert "agentspan.testing.kept_runs" not in said
    assert not (tmp_path / ".agentspan").exists()


@pytest.mark.full
@pytest.mark.parametrize(("ini", "file"), [("agentspan_db = off", "agentspan.db"), ("agentspan_db = x.db", "x.db")])
def test_a_setting_names_another_file_or_none(tmp_path: Path, ini: str, file: str) -> None:
    test = "from agent import travel\ndef test_it():\n    travel('a')\n    assert False\n"
    said = run_pytest(tmp_path, ini=ini, agent=AGENT, test_it=test)
    assert f"--db {file}" in said
    assert [path.name for path in tmp_path.glob("*.db")] == [file]
    assert not (tmp_path / ".agentspan").exists()


@pytest.mark.full
def test_processes_of_xdist_share_the_file_and_show_their_runs(tmp_path: Path) -> None:
    test = """
import pytest
from agent import travel

@pytest.mark.parametrize("number", range(12))
def test_it(number):
    travel(f"flight {number}")
    assert number != 7
"""
    said = run_pytest(tmp_path, "-p", "xdist.plugin", "-n", "2", agent=AGENT, test_it=test)
    assert "1 failed, 11 passed" in said
    assert "Tool search(query=flight 7)" in said
    assert f"--db {KEPT}" in said
    with load(tmp_path / KEPT) as runs:
        queries = {span.arguments["query"] for run in runs for span in run.find("search")}
    assert queries == {f"flight {number}" for number in range(12)}


def test_a_marked_test_fails_with_the_reason_if_a_run_breaks_its_budget(tmp_path: Path) -> None:
    test = """
import agentspan, pytest
from agent import search, travel

pytestmark = pytest.mark.agentspan(steps=6)

def test_fits():
    travel("a", "b", "c")

def test_too_many():
    travel("first")
    travel("a", "b", "c", "d")
    travel("last")

@pytest.mark.agentspan(steps=19, forbidden=["search"], required=["book"], error_rate=0, cost_usd=0.1, duration_s=60)
def test_calls(captured_runs):
    travel("a", "b", "c", "d")

def test_open():
    run = agentspan.get_tracer().run("held")
    with run:
        for query in "abcd":
            search(query)
        raise AssertionError("its own failure")

def test_nothing():
    pass

@pytest.mark.agentspan(step=1)
def test_unknown():
    raise AssertionError("not run")

@pytest.mark.agentspan(forbidden="search")
def test_type():
    raise AssertionError("not run")

@pytest.mark.agentspan(3)
def test_no_name():
    raise AssertionError("not run")
"""
    said = run_pytest(tmp_path, agent=AGENT, test_it=test)
    assert "4 failed, 1 passed, 3 errors" in said
    assert re.search(r"\nbudget steps: over 6 in 1 of 3 runs, most 8 · run (\w+)\n", said)
    assert "Tool search(query=d)" in said  # the run that broke it is drawn, not the last one
    assert "query=last" not in said
    assert "calls forbidden: search is called" in said
    assert "calls required: book is not called" in said
    assert said.count("\nthe runs of the test break") == 2
    assert "its own failure" in said
    assert "recorded no run in this process" in said
    assert "has no argument 'step'; there are cost_usd, tokens, steps, duration_s, error_rate, required, forb" in said
    assert "calls forbidden must be a list of names" in said
    assert "takes arguments with names" in said
    assert "not run" not in said


@pytest.mark.full
def test_a_run_that_is_still_open_counts_with_what_it_has(tmp_path: Path) -> None:
    test = """
import agentspan, pytest
from agent import search

@pytest.fixture
def run():
    with agentspan.run("held") as run:
        yield run

@pytest.mark.agentspan(steps=1)
def test_it(run):
    search("a")
    search("b")
"""
    assert "budget steps: 2, limit 1" in run_pytest(tmp_path, agent=AGENT, test_it=test)


@pytest.mark.full
def test_the_oldest_runs_go_when_the_file_is_too_large(tmp_path: Path) -> None:
    test = "from agent import travel\ndef test_it():\n    for n in range(8): travel(f'{n}' + 100_000 * 'x')\n"
    assert "1 passed" in run_pytest(tmp_path, ini="agentspan_db_max_bytes = 500000", agent=AGENT, test_it=test)
    with load(tmp_path / KEPT) as runs:
        left = [span.arguments["query"][0] for run in runs for span in run.find("search")]
    assert 0 < len(left) < 8
    assert left[-1] == "7"
    assert (tmp_path / KEPT).stat().st_size < 500_000


def test_a_size_that_is_no_number_is_refused_and_named(tmp_path: Path) -> None:
    ini = "agentspan_db_max_bytes = 50MB"
    assert "agentspan_db_max_bytes is no whole number" in run_pytest(tmp_path, ini=ini, test_it="def test_it(): pass\n")


@pytest.mark.full
def test_a_file_that_cannot_be_pruned_is_left_as_it_is_and_fails_no_test(tmp_path: Path) -> None:
    (tmp_path / ".agentspan").mkdir()
    (tmp_path / KEPT).write_bytes(b"no database" * 1000)
    ini = "agentspan_db_max_bytes = 1000"
    assert "1 passed in" in run_pytest(tmp_path, ini=ini, test_it="def test_it(): pass\n")
    assert (tmp_path / KEPT).read_bytes() == b"no database" * 1000


def test_only_a_folder_of_agentspan_is_created(tmp_path: Path) -> None:
    agentspan.SQLiteStorage(tmp_path / ".agentspan" / "runs.db").close()
    with pytest.raises(agentspan.DatabaseUnusable, match="does not exist; create it"):
        agentspan.open(tmp_path / "agentspan" / "runs.db")
    with pytest.raises(agentspan.DatabaseUnusable, match="cannot be created"):
        agentspan.open(tmp_path / "missing" / ".agentspan" / "runs.db")
    with pytest.raises(agentspan.DatabaseUnusable, match="does not exist"):
        agentspan.open(tmp_path / "b" / ".agentspan" / "runs.db", read_only=True)
    assert [path.name for path in tmp_path.iterdir()] == [".agentspan"]
