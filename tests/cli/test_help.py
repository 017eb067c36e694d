"""Help: commands in groups, two examples of each; other names of commands; what an unknown name is answered with."""

import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import agentspan
from agentspan.cli import main
from agentspan.cli.app import COMMANDS, HELPS, called, meant
from agentspan.cli.examples import EXAMPLES
from agentspan.cli.group import ALIASES, with_command
from agentspan.cli.output import columns_of, program
from tests.cli.calling import EVERY, NAMES, call, lines, named

ELSEWHERE = {
    "open",
    "record",
    "run",
    "sessions",
    "watch",
    "tail",
    "serve",
    "import",
    "copy",
    "init",
    "backup",
    "demo",
    "mcp",
    "setup",
}
"""The commands whose examples are parsed alone: they go on, need other files, or look at this machine."""


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Path]:
    """A file with two versions of an agent, one of which fails; the latest run is active and has 12 steps."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    for version in ("1.1", "1.2") * 3:
        try:
            with tracer.run("researcher", version=version, task="book", session="chat-7") as run:
                run.score("reward", float(version == "1.2"))
                for _ in range(2):
                    with tracer.span("llm", {"model": "m", "messages": [{"role": "user", "content": "hi"}]}):
                        pass
                if version == "1.1":
                    raise TimeoutError("read timed out")
                run.set_result({"output": "timeout booking"})
        except TimeoutError:
            pass
    latest = tracer.run("researcher", version="1.2")
    latest.__enter__()
    for number in range(12):
        with tracer.span("llm", {"model": "m", "messages": [{"role": "user", "content": f"hi {number}"}]}):
            pass
    tracer.flush()
    yield path
    latest.__exit__(None, None, None)
    tracer.shutdown()


def test_each_command_has_two_examples_that_parse() -> None:
    assert set(EXAMPLES) == set(EVERY)
    for name, examples in EXAMPLES.items():
        assert len(examples) == 2
        for about, example in examples:
            called_as, arguments = meant(with_command(shlex.split(example.partition(" >> ")[0])))
            assert called_as == name or name == "run"  # its examples are those of its ways
            named(called_as).make_context(name, arguments, parent=click.Context(main))
            assert columns_of(about) <= 40
            assert columns_of(example) <= 46  # with the name of the program it fits on 60 columns
            assert about[:1].islower()
            assert about[-1].isalnum()


def test_the_help_of_a_command_without_examples_has_none(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(EXAMPLES, "stats")
    result = call(db, "stats", "--help")
    assert (result.exit_code, "Examples" in result.output) == (0, False)


@pytest.mark.parametrize("name", sorted(set(EVERY) - ELSEWHERE))
def test_the_examples_of_a_command_work(db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.agentspan.check.budget]\nsteps = 100\n")
    (tmp_path / "app.py").write_text("agent = str")
    (tmp_path / "c.jsonl").write_text('{"input": 1}')
    monkeypatch.syspath_prepend(str(tmp_path))
    for number, (_, example) in enumerate(EXAMPLES[name]):
        result = call(db, *shlex.split(example.partition(" >> ")[0]))
        if name == "allow" or (name == "terminate" and number):  # the run has no budget, or ended by the first
            assert result.exit_code == 1
            continue
        assert result.exit_code == (3 if name == "check" else 0), (example, result.output)  # the latest run is active
        assert result.output, example


def help_of(name: str, columns: int) -> list[str]:
    """Return the lines of the help of a command, or of all, in a terminal of a width."""
    words = [*filter(None, [name]), "--help"]
    return CliRunner().invoke(main, words, terminal_width=columns, catch_exceptions=False).output.splitlines()


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_help_fits_the_terminal(columns: int) -> None:
    for name in ("", *EVERY):
        shown = help_of(name, columns)
        assert max(map(columns_of, shown)) <= columns, name
        if name:
            assert sum(line.startswith(f"    agentspan {called(name)[:4]}") for line in shown) == 2
            assert shown[-5] == "Examples:"


def test_what_the_list_says_of_a_command_is_the_first_sentence_of_its_help() -> None:
    for name in EVERY:
        assert " ".join((named(name).help or "").partition("\n\n")[0].split()) == HELPS[name]


def test_each_group_has_its_commands_with_whole_sentences() -> None:
    shown = "\n".join(help_of("", 200))
    assert len(COMMANDS) == 6
    for title, helps in COMMANDS.items():
        listed = shown.partition(f"\n{title}:\n")[2].partition("\n\n")[0].splitlines()
        assert [line.split()[0] for line in listed] == [*helps]
        assert all(line.endswith(".") for line in listed)


@pytest.mark.parametrize("name", ALIASES)
def test_other_names_mean_the_same(db: Path, name: str) -> None:
    assert lines(db, name, "-n", "2") == lines(db, ALIASES[name], "-n", "2")
    assert "Usage: main runs " in call(db, name, "--help").output


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("--json runs", "runs --json"),
        ("--agent runs show", "show --agent runs"),
        ("-n 3 ls", "ls -n 3"),  # an option that the overview has not
    ],
)
def test_options_before_a_command_are_answered_with_the_call_that_is_meant(db: Path, words: str, command: str) -> None:
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 2
    assert done.output.splitlines()[-1].endswith(f" {command}")
    assert "Error: the options of a command stand after its name: " in done.output


def test_an_unknown_command_is_answered_with_those_that_may_be_meant(db: Path) -> None:
    for typed, close in (("shwo", "show"), ("Runs", "runs"), ("exprot", "export"), ("statistics", "stats")):
        result = call(db, typed)
        assert result.exit_code == 2
        assert re.search(rf"No such command '{typed}'; is .*\b{close}\b.*meant\?", result.output), result.output
    result = call(db, "zzzz", columns=60)
    assert result.exit_code == 2
    assert all(name in result.output for name in NAMES)
    assert max(map(len, result.output.splitlines())) <= 60


@pytest.mark.parametrize(
    ("filter", "there"),
    [
        ("--score rewrd>=1", "is 'reward' meant?"),
        ("--score none>=1", "scores: 'reward'"),
        ("--mark godo", "is 'good' meant?"),
        ("--version 1.3", ""),
        ("--agent researcher --version 1.3", "is '1.2' or '1.1' meant?"),
        ("--task 9", "tasks: 'book'"),
        ("--tag x", "there are no tags yet"),
        ("--session chat-8", "is 'chat-7' meant?"),
    ],
)
def test_a_value_that_no_run_has_is_answered_with_those_that_there_are(db: Path, filter: str, there: str) -> None:
    call(db, "score", "-", "reward", "1")
    call(db, "score", "-", "--mark", "good")
    shown = " ".join(lines(db, "runs", *filter.split(), columns=200))
    assert shown.startswith("no run matches ")
    assert shown.endswith(there)


def test_an_unknown_run_is_answered_with_runs_near_it(db: Path) -> None:
    with agentspan.open(db) as opened:
        id = opened.agent_instances.list(sorting="-id")[0].id
    assert f"; near it: {id[:10]}" in call(db, "show", f"{id[:8]}zzz").output
    assert f"; the latest: {id[:10]}" in call(db, "show", "zzz").output
    assert f"; near it: {id[:10]}" in call(db, "why", f"{id[:-4]}0000").output


@pytest.mark.parametrize(
    ("called", "found", "shown"),
    [
        ("/opt/env/bin/agentspan", None, "/opt/env/bin/agentspan"),
        ("/opt/env/bin/agentspan", "/usr/bin/agentspan", "/opt/env/bin/agentspan"),
        (".venv/bin/agentspan", None, ".venv/bin/agentspan"),
        ("/opt/an env/bin/agentspan", None, "'/opt/an env/bin/agentspan'"),
        (__file__, __file__, "agentspan"),
        ("/usr/lib/python3/pytest", None, "agentspan"),
        ("/x/agentspan/__main__.py", None, "python3 -m agentspan"),
    ],
)
def test_commands_to_copy_name_the_program_as_it_was_called(
    monkeypatch: pytest.MonkeyPatch, called: str, found: str | None, shown: str
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "agentspan"])
    monkeypatch.setattr(shutil, "which", lambda name: found)
    assert program() == shown


def test_an_error_names_the_program_as_it_was_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(tmp_path / "runs.db", "init").exit_code == 0
    monkeypatch.setattr(sys, "argv", ["/opt/env/bin/agentspan"])
    monkeypatch.setattr(shutil, "which", lambda name: None)
    for name in (["show", "-"], ["runs"]):
        assert "`/opt/env/bin/agentspan demo` records a run" in call(tmp_path / "runs.db", *name, columns=120).output
