"""Runs are found by the file that a tool was called with, and by the folder in which they worked."""

from pathlib import Path

import pytest

import agentspan
from agentspan.analysis.features import Feature, run_features
from agentspan.analysis.filter_words import parse
from agentspan.analysis.runs import ids_of, run_briefs
from agentspan.database import Database
from agentspan.schemas.commands import runs_tests
from agentspan.schemas.file_paths import is_path, paths_of
from tests.cli.calling import call, lines
from tests.sessions.steps import START, Told, arrive

EDITED = "/work/shop/src/cart.py"


def store(database: Database, id: str, folder: str, *steps: tuple[str, object, int]) -> str:
    told = Told(id, started_ns=START + int(id) * 10**13, metadata={"cwd": folder}, outcome="answered")
    told.ask("please look at cart.py")
    for name, arguments, code in steps:
        told.tool(name, arguments, "ok", also={"exit_code": code})
    return arrive(database, told)[0]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (EDITED, True),
        ("src/cart.py", True),
        ("cart.py", True),
        ("./src/cart.py", True),
        ("art.py", False),
        ("/src/cart.py", False),
        ("/other/shop/src/cart.py", False),
    ],
)
def test_a_path_is_found_by_its_end(tmp_path: Path, asked: str, found: bool) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        edited = store(database, "1", "/work/shop", ("Edit", {"file_path": EDITED}, 0))
        store(database, "2", "/work/shop", ("Bash", {"command": f"cat {EDITED}"}, 0))
        assert ids_of(database.storage, parse(f"touched={asked}")) == ([edited] if found else [])


def test_a_relative_path_of_a_tool_is_found_by_the_whole_one() -> None:
    assert is_path("src/cart.py", EDITED)
    assert not is_path("rc/cart.py", EDITED)


def test_headers_of_patches_and_changes_name_files() -> None:
    patch = '{"arguments": {"input": "*** Begin Patch\\n*** Add File: a.py\\n+x\\n*** Move to: b.py\\n*** End Patch"}}'
    assert [*paths_of("tool", patch)] == ["a.py", "b.py"]
    assert [*paths_of("tool", '{"arguments": {"changes": {"c.py": {"type": "update"}}}}')] == ["c.py"]
    assert not [*paths_of("message", patch)]


@pytest.mark.parametrize(
    ("project", "found"),
    [
        ("/work/shop", ["1", "2"]),
        ("/work/shop/", ["1", "2"]),
        ("/work", ["1", "2", "3"]),
        ("/work/s*", ["1", "2", "3"]),
        ("/work/sho", []),
        ("shop", ["1", "2"]),
        ("s*", ["1", "2", "3"]),
        ("web", ["2"]),
    ],
)
def test_a_project_is_a_folder_and_what_is_below_it(tmp_path: Path, project: str, found: list[str]) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        ids = {
            store(database, id, folder): id
            for id, folder in (("1", "/work/shop"), ("2", "/work/shop/web"), ("3", "/work/shops"))
        }
        assert sorted(ids[id] for id in ids_of(database.storage, parse(f"project={project}"))) == found


def test_the_project_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with agentspan.open(tmp_path / "a.db") as database:
        id = store(database, "1", str(tmp_path.resolve() / "below"))
        assert ids_of(database.storage, parse("project=.")) == [id]


def test_runs_and_prune_take_these_filters(tmp_path: Path) -> None:
    db = tmp_path / "a.db"
    with agentspan.open(db) as database:
        store(database, "1", "/work/shop", ("Edit", {"file_path": EDITED}, 0))
        store(database, "2", "/work/blog")
    assert "1 of 1 run" in lines(db, "runs", "--touched", "cart.py")[-1]
    printed = call(db, "prune", "--project", "blog")
    assert printed.exit_code == 0, printed.output
    assert "1 of 1 run" in lines(db, "runs")[-1]


@pytest.mark.parametrize(
    "command",
    [
        "pytest -q", "cd /work/shop && python -m pytest tests", "CI=1 uv run pytest", "npm test", "pnpm run test",
        "cargo test --all", "go test ./...", ".venv/bin/pytest", "npx vitest run", "timeout 60 make test",
        "python manage.py test",
    ],
)  # fmt: skip
def test_commands_that_run_tests(command: str) -> None:
    assert runs_tests({"command": command})
    assert runs_tests({"command": ["bash", "-lc", command]})


@pytest.mark.parametrize("command", ["echo pytest", "pip install pytest", "npm test-utils", "cat pytest.ini", "make"])
def test_other_commands_run_no_tests(command: str) -> None:
    assert not runs_tests({"command": command})


def test_exit_codes_and_runs_of_tests_are_features(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        tested = {"command": "pytest"}
        codes = [(1, 0), (1,), (0,), (0,), (0, 1), (1,), (0,)]
        ids = [
            store(database, str(number), "/w", *(("Bash", tested, code) for code in own))
            for number, own in enumerate(codes)
        ]
        ids += [store(database, str(7 + number), "/w", ("Bash", {"command": "ls"}, 0)) for number in range(4)]
        found = {each.text: each for each in run_features(database.storage, run_briefs(database.storage))}
    assert _numbers(found["Tool Bash with exit_code != 0"], ids) == [0, 1, 4, 5]
    assert found["tests run"].opposite == "no tests run"
    assert _numbers(found["the last tests failed"], ids) == [1, 4, 5]
    assert _numbers(found["tests failed"], ids) == [0, 1, 4, 5]


def _numbers(feature: Feature, ids: list[str]) -> list[int]:
    return sorted(ids.index(id) for id in feature.runs)
