"""Each command that reads prints no line that is wider than the terminal, also in ASCII, with the right exit code.

Commands to copy are never cut, and neither is a payload that is shown in full.
"""

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import agentspan
from agentspan.cli import main
from agentspan.cli.output import columns_of

READING = [
    "runs",
    "runs --failed --score reward>=0",
    "runs --agent nobody-has-this-name --version 7",
    "runs --task no-task-has-this-name",
    "show -",
    "show - --full",
    "show - --failed",
    "show - --slow 3",
    "show - --payloads",
    "show -#2 --around",
    "show -#1 --context",
    "diff -#6 --context",
    "diff booking@1 booking@2",
    "diff - 'booking@2' --full",
    "search findme",
    "search nothing-has-this-word",
    "stats",
    "stats -",
    "stats --by version",
    "sql 'select * from runs'",
    "sql 'select summary, status from spans'",
    "why",
    "why -",
    "why --outcome reward>=1",
    "doctor",
    "doctor --schemas --all",
    "doctor --tables",
    "prune --older-than 30d --dry-run",
    "record --list",
    "tail - --one",
]
CODES = {"runs --agent nobody-has-this-name --version 7": 1}


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of two versions with long names, failures, scores, several scripts, and a session of 60 steps."""
    path = tmp_path_factory.mktemp("widths") / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    long = "a long name with several words in it, 日本語 and é"
    for number in range(8):
        try:
            with tracer.run("booking", version=str(number % 2 + 1), task=f"{long} {number % 4}", tags=[long]) as run:
                run.score("reward", float(number % 2), explanation=long)
                with tracer.span("llm", {"model": long, "messages": [{"role": "user", "content": f"findme {long}"}]}):
                    pass
                for step in range(3):
                    with tracer.span("tool", {"name": f"{long} {step}", "arguments": {"x": long * 9}}):
                        if step == 1 and number % 2 == 0:
                            raise TimeoutError(f"{long} " * 20)
                with tracer.span("custom", {"x": long}), tracer.span("llm", {"model": "m"}) as span:
                    span.set_result({"text": long * 20, "input_tokens": 123_456, "cost_usd": 12.5})
        except TimeoutError:
            pass
    tracer.shutdown()
    return path


def shown(db: Path, command: str, columns: int, charset: str) -> list[str]:
    result = CliRunner(charset=charset).invoke(
        main, ["--db", str(db), *shlex.split(command)], env={"COLUMNS": str(columns)}, catch_exceptions=False
    )
    assert result.exit_code == CODES.get(command, 0), result.output
    return result.stdout_bytes.decode(charset).splitlines()


@pytest.mark.parametrize("command", READING)
def test_no_line_is_wider_than_the_terminal(db: Path, command: str) -> None:
    for columns in (60, 80, 120, 200):
        for line in shown(db, command, columns, "utf-8"):
            assert columns_of(line) <= columns or "agentspan" in line or str(db) in line, (columns, line)


@pytest.mark.parametrize("command", READING)
def test_no_line_is_wider_than_a_terminal_of_ascii(db: Path, command: str) -> None:
    for line in shown(db, command, 80, "agentspan_ascii"):
        assert len(line) <= 80 or "agentspan" in line or str(db) in line, line
