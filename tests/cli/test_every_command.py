"""What holds for every command: one JSON document, nothing of a payload as a control sequence, pipes that end."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.storage.questions import SpansOf
from tests.cli.calling import EVERY, call, named, process
from tests.tiers import longer

HOSTILE = "".join(map(chr, range(32))) + "\x7f\x9b31m\u202e\u2066\ud800\x1b]0;title\x07\x1b[2J"


def record(db: Path, text: str) -> agentspan.Run:
    """Record a run in which everything that a payload can reach has this text in it."""
    tracer = agentspan.Tracer(db, raise_errors=True)

    @tracer.run(f"n{text}", version=f"v{text}", metadata={text: text})
    def run() -> None:
        with tracer.span(f"s{text}", {text: text, "word": f"findme {text}"}) as span:
            span.set_result({"output": text})
        for _ in range(5):
            with tracer.span("chain", {"name": f"again{text}"}):
                pass
        with tracer.span("llm", {"model": f"m{text}"}):
            pass
        with tracer.span("tool", {"name": f"t{text}", "arguments": {text: text}}):
            raise ZeroDivisionError(text)

    with tracer.run("other", task="other", session="talk"), tracer.span("tool", {"name": f"t{text}"}):
        pass
    with pytest.raises(ZeroDivisionError):
        run()
    tracer.shutdown()
    with agentspan.open(db, read_only=True) as opened:
        return opened.agent_instances.list(sorting="-id")[0]  # type: ignore[return-value]


def commands(db: Path, folder: Path) -> dict[str, list[list[str]]]:
    """Every command, with what it may be given, by its name."""
    with agentspan.open(db, read_only=True) as opened:
        # `evaluate` adds a run without steps, which is the latest one then.
        run = next(each for each in opened.agent_instances.list(sorting="-id") if each.purpose != "eval")
        spans = [span.id for span in opened.storage.ask(SpansOf(run.id))]
    empty = folder / "check.toml"
    empty.write_text("[budget]\nsteps = 1000\n")
    cases = folder / "cases.jsonl"
    cases.write_text('{"id": "a\\u001b[31m", "input": "\\u001b[31m"}\n')
    return {
        "overview": [["overview"], ["overview", "--failed"], ["overview", "--task", "no\x1b[31m"]],
        "skill": [["skill"], ["skill", "instrument"]],
        "runs": [["runs"], ["runs", "--failed", "--grep", "n"], ["runs", "--agent", HOSTILE.replace("\x00", "")]],
        "show": [
            *(["show", "-", *more] for more in ([], ["--full"], ["--payloads"], ["--failed"], ["--slow", "3"])),
            *(["show", id, *more] for id in (*spans, "nothing\x1b[31m") for more in ([], ["--around"])),
        ],
        "diff": [
            ["diff", "-", "-"],
            ["diff", run.id, "-", "--full", "--against", "all"],
            ["diff", "-", run.id, "--markdown"],
            ["diff", "--base", "task=other", "--head", "failed"],
            ["diff", "--base", "task=other", "--head", "all", "--markdown"],
            ["diff", "task=other", "status=failed", "--markdown"],
        ],
        "why": [["why"], ["why", "-"], ["why", "--outcome", "reward>=1", "--limit", "0"]],
        "check": [["check", "--config", str(empty)], ["check", "all", "--config", str(empty), "--markdown"]],
        "evaluate": [
            ["evaluate", "json:loads", "--cases", str(cases), "--name", "e\x1b[31m"],
            ["evaluate", "json:no\x1b[31m", "--cases", str(cases)],
        ],
        "tail": [["tail", "-", "--one"]],
        "cost": [["cost"], *(["cost", "--by", by] for by in ("day", "agent", "project", "tool", "version", "session"))],
        "stats": [["stats"], ["stats", "-"], ["stats", "--by", "version"]],
        "search": [
            *(["search", *words] for words in (["findme"], ["findme", "--run", "-"], ["\x1b[31m"])),
            *(["search", words, "--by-run"] for words in ("findme", run.id, "\x1b[31m")),
        ],
        "session": [["session", "talk"], ["session", "no\x1b[31m"]],
        "versions": [["versions"], ["versions", run.agent_id], ["versions", "no\x1b[31m"]],
        "sql": [
            ["sql", "select * from spans"],
            ["sql", "select * from spans", "--format", "csv"],
            ["sql", "select json_extract(payload, '$.word') as \"a\x1b[31m\" from spans"],
            ["sql", "select json_extract(payload, '$.word') from spans", "--format", "csv"],
            ["sql", "select \x1b[31m\ud800"],
        ],
        "export": [
            ["export", "-"],
            ["export", "all", "--format", "markdown"],
            ["export", "all", "--format", "compact"],
            ["export", "all", "--format", "otlp"],
            ["export", "all", "--format", "dataset"],
            ["export", "-", "-o", str(folder / "x")],
        ],
        "import": [["import", str(folder / "x")], ["import", str(folder / "no\x1b[31m")]],
        "rederive": [["rederive"], ["rederive", "-", "--prices"], ["rederive", "-", "--summaries"]],
        "score": [
            ["score", "-", "--mark", "bad\x1b[31m", "--note", "why\x1b[31m"],
            ["score", spans[0], "--note", "noted"],
            ["score", "-", "--remove"],
            ["score", "no\x1b[31m", "--mark", "bad"],
            ["score", "-", "na\x1b[31mme", "bad\x1b[31m", "--note", "why\x1b[31m", "--as", "me\x1b[31m"],
            ["score", spans[0], "reward", "-0.5"],
            ["score", "-", "na\x1b[31mme", "--remove", "--as", "me\x1b[31m"],
            ["score", "no\x1b[31m", "reward", "1"],
        ],
        "allow": [["allow", "-", "--steps", "+2", "--as", "me\x1b[31m"], ["allow", "-"], ["allow", "no\x1b[31m"]],
        "terminate": [["terminate", "-", "--reason", "why\x1b[31m"]],
        "doctor": [["doctor"], ["doctor", "--dry-run"], ["doctor", "--schemas", "--all"], ["doctor", "--tables"]],
        "prune": [["prune", "--older-than", "30d", "--dry-run"], ["prune", "--max-size", "\x1b[31m"], ["prune"]],
        "backup": [["backup", str(folder / f"copy{len(list(folder.iterdir()))}")]],
        "copy": [
            ["copy", str(db), str(folder / f"copied{len(list(folder.iterdir()))}.db")],
            ["copy", "ftp://\x1b[31m"],
            ["copy", "http://\x1b[31m", "--header", "\x1b[31m"],
            ["copy", "http://[\x1b[31m"],
        ],
        "demo": [["demo"]],
        "sessions": [["sessions"], ["sessions", "no\x1b[31m"]],
        "watch": [["watch", "--unattended"], ["watch", "no\x1b[31m"]],
        "record": [["record", "--list"]],
        "completion": [["completion", "bash"], ["completion", "\x1b[31m"]],
        "init": [["init"], ["init", "no\x1b[31m://x"]],
    }


def bad_characters(output: str) -> list[str]:
    return [c for c in output if c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160 or c in "\u202e\u2066\ud800")]


@pytest.mark.full
@settings(
    max_examples=longer("AGENTSPAN_TEST_EXAMPLES", 1, 1, 80),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@example(text=HOSTILE)
@given(text=st.text(st.characters(max_codepoint=0x2070), max_size=20))
def test_nothing_of_a_payload_is_a_control_sequence(
    text: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    db = folder / "runs.db"
    record(db, text)
    every = commands(db, folder)
    assert set(every) == set(EVERY) - {"serve", "open", "mcp", "run", "setup"}
    for name, variants in every.items():
        for variant in variants:
            for arguments in (variant, [*variant, "--json"]) if "--format" not in variant else (variant,):
                output = call(db, *arguments).output
                assert bad_characters(output) == [], (name, arguments)


def test_every_command_answers_with_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    db = tmp_path / "runs.db"
    record(db, "text")
    for name in EVERY:
        if not any("--json" in option.opts for option in named(name).params if isinstance(option, click.Option)):
            assert name in ("serve", "watch", "completion", "mcp", "run", "setup", "skill")
            continue
        if name == "open":  # starts a server: tests/cli/test_open.py
            continue
        arguments = commands(db, tmp_path)[name][0]
        if name == "export":
            call(db, "export", "all", "-o", str(tmp_path / "x"))
        result = call(db, *arguments, "--json")
        if name in ("terminate", "allow"):  # the run has ended
            assert result.exit_code == 1
            continue
        assert result.exit_code == 0, (name, result.output)
        assert isinstance(json.loads(result.output), dict), name
        assert result.output.isascii()


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [
        ["runs"],
        ["show", "-", "--full"],
        ["stats"],
        ["search", "findme"],
        ["export", "all"],
        ["sql", "select * from spans"],
    ],
)
def test_a_reader_that_goes_away_ends_a_command_quietly(tmp_path: Path, arguments: list[str]) -> None:
    db = tmp_path / "runs.db"
    tracer = agentspan.Tracer(db, raise_errors=True)
    for _ in range(60):
        with tracer.run("a"):
            for number in range(20):
                with tracer.span("custom", {"word": "findme " * 100, "n": number}):
                    pass
    tracer.shutdown()
    call(db, "search", "findme")
    started = process(db, *arguments)
    assert started.stdout is not None
    assert started.stderr is not None
    started.stdout.close()
    errors = started.stderr.read()
    started.stderr.close()
    assert (started.wait(), errors) == (0, "")


@pytest.mark.full
def test_on_a_terminal_there_are_colours_unless_no_color_and_long_runs_go_through_the_pager(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty", reason="needs pty")
    db = tmp_path / "runs.db"
    tracer = agentspan.Tracer(db, raise_errors=True)
    with tracer.run("a"):
        for number in range(60):
            with tracer.span("tool", {"name": f"tool{number}"}):
                pass
    tracer.shutdown()

    def at_a_terminal(*arguments: str, **env: str) -> str:
        main_end, other_end = pty.openpty()
        environment = {
            **os.environ,
            "COLUMNS": "80",
            "LINES": "24",
            "TERM": "xterm",
            "PAGER": "sed s/^/paged:/",
            "LC_ALL": "C.UTF-8",
            **env,
        }
        if "NO_COLOR" not in env:
            environment.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "agentspan", "--db", str(db), *arguments]
        started = subprocess.Popen(command, stdin=other_end, stdout=other_end, stderr=subprocess.PIPE, env=environment)
        os.close(other_end)
        shown = b""
        try:
            while part := os.read(main_end, 65536):
                shown += part
        except OSError:  # Linux says so when the other end is closed
            pass
        os.close(main_end)
        assert started.communicate()[1] == b""
        assert started.returncode == 0
        return shown.decode()

    shown = at_a_terminal("show", "-")
    assert shown.count("paged:") == 62
    assert "tool59" in shown
    assert "paged:" not in at_a_terminal("show", "-", "--slow", "3")
    coloured = at_a_terminal("runs")
    assert "\x1b[32m" in coloured
    assert "\x1b" not in at_a_terminal("runs", NO_COLOR="1")
    assert "\x1b" not in at_a_terminal("show", "-", NO_COLOR="1")
    assert re.search("\x1b\\[33m\x1b\\[1mtool7|tool7", at_a_terminal("search", "tool7"))
