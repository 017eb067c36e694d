"""Sessions of coding agents, as people read them: their conversation, tree, dataset and transcript."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis import dataset, report
from agentspan.analysis.messages import with_arguments
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow
from agentspan.serve import create_app
from agentspan.storage.memory import MemoryStorage
from agentspan.viewer import conversation
from agentspan.viewer.conversation import Conversation
from agentspan.viewer.data import columns
from agentspan.viewer.pages.sessions import LOOKED_AT
from tests.cli.calling import call, lines
from tests.serve.asgi import Client
from tests.sessions.claude_entries import answer, prompt, result, text, written
from tests.sessions.claude_entries import call as asks
from tests.sessions.codex_rollouts import event, header, item
from tests.viewer.recorded import Recorded

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


def talk(*entries: Any, folder: Path) -> Conversation:
    """Return the conversation of a session of Claude Code with these entries."""
    written(folder / "projects", [*entries])
    assert call(folder / "runs.db", "import", str(folder / "projects")).exit_code == 0
    with agentspan.open(folder / "runs.db") as database:
        return conversation.stored(database.storage, run_of(database))


def test_prompts_are_chapters_and_calls_are_lines(tmp_path: Path) -> None:
    edit = {"file_path": "/home/ada/garden/main.go", "old_string": "a", "new_string": "a\nb"}
    found = talk(
        prompt(1, "look"),
        answer(2, text("I look."), asks(2, command="git diff --stat")),
        result(3, 2, "one\ntwo"),
        answer(4, asks(4, "Edit", **edit)),
        result(5, 4, "The file was updated"),
        answer(6, {"type": "thinking", "thinking": "hm", "signature": "s"}, asks(6, "TodoWrite", todos=[
            {"content": "plant", "status": "completed", "activeForm": "planting"}])),
        result(7, 6, "Todos were modified"),
        prompt(8, "and now?"),
        answer(9, text("Done.")),
        folder=tmp_path,
    )  # fmt: skip
    words = [(turn["role"], turn["text"] or (turn["shown"] or {}).get("line")) for turn in found.turns]
    assert [role for role, _ in words] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "user",
        "assistant",
    ]
    lines = [turn["shown"]["line"] for turn in found.turns if turn["shown"]]
    assert lines == ["Bash git diff --stat", "Edit main.go +1", "TodoWrite 1 of 1 done"]
    edited = found.turns[3]
    assert (edited["arguments"], edited["shown"] and edited["shown"]["lines"][1:]) == (None, [(" ", "a"), ("+", "b")])
    chapters = [(each["name"], each["turn"], each["tokens"], each["duration_ms"]) for each in found.chapters]
    assert chapters == [("look", 0, 66, 6000.0), ("and now?", 6, 22, 1000.0)]
    assert [(each["path"], each["added"], each["edits"]) for each in found.files] == [
        ("/home/ada/garden/main.go", 1, 1)
    ]
    assert found.sections[""]["first"] == 0


def test_a_command_is_a_chapter_that_begins_at_the_turn_after_it(tmp_path: Path) -> None:
    command = (
        "<command-name>/init</command-name>\n<command-message>init</command-message>\n<command-args></command-args>"
    )
    found = talk(
        prompt(1, command), answer(2, text("Begun.")), prompt(3, "go on"), answer(4, text("Yes.")), folder=tmp_path
    )
    assert [(each["name"], found.turns[each["turn"]]["text"]) for each in found.chapters] == [
        ("/init", "Begun."), ("go on", "go on"),
    ]  # fmt: skip


def test_the_same_conversation_is_printed_as_text(tmp_path: Path) -> None:
    edit = {"file_path": "/home/ada/garden/main.go", "old_string": "a", "new_string": "a\n" + "b\n" * 20}
    thought = {"type": "thinking", "thinking": "hm\nso", "signature": "s"}
    found = talk(
        prompt(1, "look\nhere"),
        answer(2, thought, text("I **look**."), asks(2, command="git diff --stat")),
        result(3, 2, "one\ntwo"),
        answer(4, asks(4, "Edit", **edit)),
        result(5, 4, "The file was updated"),
        prompt(6, "and now?"),
        answer(7, text("Done.")),
        folder=tmp_path,
    )  # fmt: skip
    shown = lines(tmp_path / "runs.db", "show", "-", "--conversation", "--utc", columns=100)
    at = next(number for number, line in enumerate(shown) if line.startswith("── 1 · 2026-03-01 10:00 UTC · "))
    assert [line for line in shown[at + 1 :] if line] == [
        "> look", "> here", "(thinking)", "I **look**.",
        "✓ Bash git diff --stat → 2 lines  #3", "✓ Edit main.go +20  #5", "    @ /home/ada/garden/main.go", "      a",
        *["    + b"] * 14, "    … 6 more lines",
        *(line for line in shown if line.startswith("── 2 · ")), "> and now?", "Done.",
    ]  # fmt: skip
    refused = call(tmp_path / "runs.db", "show", "-", "--conversation", "--failed")
    assert refused.exit_code == 2
    assert "no other choice of steps goes with it" in refused.stderr
    document = json.loads(call(tmp_path / "runs.db", "show", "-", "--conversation", "--json").stdout)
    assert [turn["text"] for turn in document["turns"]] == [turn["text"] for turn in found.turns]


def test_a_sub_agent_and_a_program_are_printed_too(db: Database) -> None:
    recorded = Recorded(db)
    asked = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]}
    recorded.add("llm", asked, {"text": "Hello."}, seconds=0)
    agent = recorded.add("agent", {"name": "inner"}, {}, seconds=2, lasts=9)
    recorded.add("tool", {"name": "dig", "arguments": {"depth": 2}}, {"error": "rock"}, status="failed", parent=agent)
    recorded.add("llm", {"model": "m", "messages": []}, {"tool_calls": [{"name": "stop", "arguments": {}}]}, seconds=20)
    turns, sections, chapters, _ = recorded.conversation()
    shown = [line for line in report.talk(turns, sections, chapters, {}, 80) if line]
    assert shown == [
        "(system: Be brief.)", "> hi", "Hello.", "◆ inner", "  ✗ dig depth=2  #?", "      rock", "→ stop"
    ]  # fmt: skip


def test_a_program_has_no_chapters_and_whole_calls(db: Database) -> None:
    recorded = Recorded(db)
    recorded.add("message", {"role": "user", "content": "hi"})
    recorded.add("tool", {"name": "Bash", "arguments": {"command": "ls"}}, {"output": "a"})
    found = recorded.conversation()
    assert (found.chapters, found.files, [turn["shown"] for turn in found.turns]) == ([], [], [None, None])


def test_a_long_argument_of_which_the_model_call_has_the_begin_is_the_same(tmp_path: Path) -> None:
    asked = asks(2, command=LONG, description="Run tests")
    found = talk(prompt(1, "test"), answer(2, text("I test."), asked), result(3, 2, "ok"), folder=tmp_path)
    (made,) = [each for turn in found.turns for each in turn["calls"]]
    assert (made["same"], made["differs"]) == (3, None)
    begin: dict[str, Any] = {"command": f"{LONG[:50]}…", "n": 1}
    for own_arguments, whole, is_same in (
        (begin, {"command": LONG, "n": 1}, True),
        (begin, {"command": f"x{LONG}", "n": 1}, False),
        (begin, {"n": 1}, False),
        (f"{LONG[:50]}…", LONG, True),
        (f"{LONG[:50]}…", f"x{LONG}", False),
        (begin, LONG, False),
    ):
        own = {"tool_calls": [{"id": "c", "arguments": own_arguments}]}
        (used,) = with_arguments(own, {"c": whole}, is_session=True)["tool_calls"]
        assert (used["arguments"] == whole) is is_same


def test_the_bar_leads_to_sessions_and_a_session_to_its_conversation(session: Path) -> None:
    with agentspan.open(session) as database:
        run = run_of(database).id
        client = Client(create_app(database.storage))
        first, listed = (client.get(path, headers={"accept": "text/html"}).text for path in ("/", "/sessions"))
        client.close()
    assert 'id="to-sessions" href="sessions"' in first
    assert all(f'href="runs/{run}#view=conversation"' in page for page in (first, listed))


def test_a_session_with_runs_before_the_latest_ones_leads_to_all_of_them() -> None:
    with Database(MemoryStorage()) as database:
        for _ in range(LOOKED_AT):
            database.agent_instances.register("support", session="chat")
        for number in ("1,000", "1,000 or more"):
            client = Client(create_app(database.storage))  # another one, as an answer is kept for a moment
            listed = client.get("/sessions", headers={"accept": "text/html"}).text
            client.close()
            assert f'<a href="sessions?session=chat">{number}</a>' in listed
            database.agent_instances.register("support", session="chat")


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
