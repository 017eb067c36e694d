"""Sessions of coding agents, as people read them: their conversation, tree, dataset and transcript."""

import json
import os
from pathlib import Path

import pytest

import agentspan
from agentspan.analysis import dataset
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow
from agentspan.serve import create_app
from agentspan.viewer import conversation
from agentspan.viewer.data import columns
from tests.cli.calling import call, lines
from tests.serve.asgi import Client
from tests.sessions.claude_entries import answer, prompt, result, text, written
from tests.sessions.claude_entries import call as asks
from tests.sessions.codex_rollouts import event, header, item

LONG = "pytest " + "tests/shop/" * 30


@pytest.fixture(params=["claude", "codex"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with a session that runs a long command; the model's call in it lacks the command."""
    if request.param == "claude":
        written(tmp_path / "projects", [
            prompt(1, "run the tests"),
            answer(2, asks(2, description="Run tests", command=LONG)),
            result(3, 2, "2 passed"),
            answer(4, text("They pass.")),
        ])  # fmt: skip
        source = tmp_path / "projects"
    else:
        arguments = json.dumps({"cmd": LONG})
        source = tmp_path / "rollout-2026-01-02T03-00-00-01990000-0000-7000-8000-000000000001.jsonl"
        source.write_text("".join(f"{json.dumps(each)}\n" for each in [
            header(),
            event(1, "user_message", message="run the tests"),
            item(2, "function_call", name="exec_command", call_id="c1", arguments=arguments),
            item(3, "function_call_output", call_id="c1", output="2 passed"),
            event(4, "agent_message", message="They pass."),
        ]))  # fmt: skip
    file = tmp_path / "runs.db"
    assert call(file, "import", str(source)).exit_code == 0
    return file


def run_of(database: Database) -> AgentInstanceRow:
    (found,) = database.runs().runs
    return found.run


def test_a_call_of_a_session_is_the_call_of_its_step_and_has_all_arguments(session: Path) -> None:
    with agentspan.open(session) as database:
        turns = conversation.stored(database.storage, run_of(database)).turns
        (row,) = dataset.rows(database.storage, [run_of(database).id])
    tool = next(number for number, turn in enumerate(turns, 1) if turn["role"] == "tool")
    assert (turns[tool - 1]["text"], [turn["differs"] for turn in turns if turn["differs"]]) == ("2 passed", [])
    assert {call["same"] for turn in turns for call in turn["calls"]} <= {tool}
    ((asked,),) = [each["tool_calls"] for each in row["messages"] if each["tool_calls"]]
    assert LONG in asked["function"]["arguments"]


def test_the_command_stands_in_the_line_of_the_call_that_asked_for_it(session: Path) -> None:
    with agentspan.open(session) as database:
        summaries = columns(database.storage, run_of(database))["columns"]["summary"]
    model = next(each for each in summaries if "LLM" in each and " → " in each)
    assert "=pytest tests/shop/" in model
    shown = next(line for line in lines(session, "show", "-", columns=200) if "LLM" in line)
    assert "=pytest tests/shop/" in shown


def test_the_bar_leads_to_sessions_and_a_session_to_its_conversation(session: Path) -> None:
    with agentspan.open(session) as database:
        run = run_of(database).id
        client = Client(create_app(database.storage))
        first, listed = (client.get(path, headers={"accept": "text/html"}).text for path in ("/", "/sessions"))
        client.close()
    assert 'id="to-sessions" href="sessions"' in first
    assert f'href="runs/{run}#view=conversation"' in listed


@pytest.mark.skipif("AGENTSPAN_TEST_SESSIONS" not in os.environ, reason="needs AGENTSPAN_TEST_SESSIONS")
def test_no_call_of_a_real_session_differs_from_its_step(tmp_path: Path) -> None:
    call(tmp_path / "runs.db", "import", os.environ["AGENTSPAN_TEST_SESSIONS"], "--yes")
    calls = 0
    with agentspan.open(tmp_path / "runs.db") as database:
        for run in database.runs(limit=None).runs:
            turns = conversation.stored(database.storage, run.run).turns
            assert [turn["differs"] for turn in turns if turn["differs"]] == []
            calls += sum(turn["asked_by"] is not None for turn in turns)
    assert calls > 1000
