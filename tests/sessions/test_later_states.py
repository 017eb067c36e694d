"""What a source says now is stored, also if it ended earlier before; what it implies is a fact of the step."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.runs import folder_of, in_project
from agentspan.analysis.tree import active_ms
from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.machine import Choice, Place, sources_at
from agentspan.sessions.registry import formats
from agentspan.storage.protocol import Storage
from agentspan.text import repository_of
from tests.sessions import codex_rollouts
from tests.sessions.arrivals import SECOND, T0, arrive, llm, run_of, session, spans_of, tool
from tests.sessions.claude_files import CONVERSATION, assistant, attachment, decoded, result, system, user
from tests.sessions.claude_files import tool as asks
from tests.sessions.gemini_logs import answered, asked, called, header
from tests.sessions.stored_rows import rows_of
from tests.sessions.toy_files import LINES, importer, write
from tests.sessions.trajectories import document

FORMATS = formats()


def imported(database: Database, format: str, path: Path, **how: Any) -> Importer:
    """Import a file that is old."""
    importer = Importer(Context(database.storage), FORMATS, **how)
    importer.import_source(Source(format, path))
    return importer


def test_again_replaces_a_step_that_the_source_ends_earlier_now(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        importer(database).import_source(write(tmp_path / "s.toy", [LINES[0], {**LINES[2], "at": 9}]))
        source = write(tmp_path / "s.toy", LINES[::2][:2])
        importer(database, again=True).import_source(source)
        ((run, (span,)),) = rows_of(database)
        assert (span["finished_at"][17:19], run["finished_at"][17:19]) == ("03", "03")


def test_again_keeps_the_longer_of_two_copies_of_a_session(tmp_path: Path) -> None:
    whole, begin = tmp_path / "s.toy", tmp_path / "copy" / "s.toy"
    begin.parent.mkdir()
    with agentspan.open(tmp_path / "a.db") as database:
        for lines, path in ((LINES, whole), (LINES[:3], begin)):
            write(path, lines)
        one = importer(database, again=True)
        for path in (whole, begin):
            one.import_source(Source("toy", path))
        ((_, spans),) = rows_of(database)
        assert sorted(span["status"] for span in spans) == ["cancelled", "complete", "complete"]


@pytest.mark.parametrize("follows", [False, True])
def test_a_growing_document_gets_the_tools_of_a_call_that_then_ended_earlier(tmp_path: Path, follows: bool) -> None:
    path = tmp_path / "session-2026-03-04T05-06-abcdef12.json"
    made = f"read_file-{1_772_600_763_000}-abcdef"  # 05:06:03, before the record's own time
    messages: list[Any] = [asked("u1", 2, "Caulk it")]
    with agentspan.open(tmp_path / "a.db") as database:
        one = Importer(Context(database.storage), FORMATS, follows=True)
        for id, calls in (("g1", []), ("g1", [called(made, 5)]), ("g2", []), ("g2", [called(f"{made}0", 5)])):
            messages = [each for each in messages if each["id"] != id] + [answered(id, 4, "I look.", calls)]
            path.write_text(json.dumps({**header(), "messages": messages}))
            importer = one if follows else Importer(Context(database.storage), FORMATS)
            importer.import_source(Source("gemini", path))
        ((_, spans),) = rows_of(database)
    results = [json.loads(span["result_payload"]) for span in spans if span["schema_name"] == "llm"]
    assert sorted(each["id"] for result in results for each in result["tool_calls"]) == [made, f"{made}0"]


def test_the_models_call_has_its_arguments_and_the_begin_of_long_ones() -> None:
    command, text = "make " + "x" * 900, "y" * 5000
    (llm,) = decoded([*CONVERSATION[:1], assistant("a1", "u1", 2, asks("t1", command=command, text=text))]).of("llm")
    assert (llm.result or {})["tool_calls"][0]["arguments"] == {"command": command, "text": "y" * 200 + "…"}
    (llm,) = codex_rollouts.decode([codex_rollouts.header(), codex_rollouts.call(1, "c1", cmd="ls")]).of("llm")
    assert (llm.result or {})["tool_calls"][0]["arguments"] == {"cmd": "ls"}


def test_a_hook_lasts_as_long_as_its_source_says() -> None:
    hook = {"hookName": "PreToolUse:Bash", "hookEvent": "PreToolUse", "toolUseID": "t1", "command": "lint"}
    infos = [{"command": "bye", "durationMs": 7000}, {"command": "ciao", "durationMs": 3000}]
    records = [
        *CONVERSATION[:3],
        attachment("h1", "a2", 4, "hook_success", durationMs=2500, **hook),
        system("h2", "h1", 9, "stop_hook_summary", hookInfos=infos, hookErrors=[]),
    ]
    took = {step.key: ((step.end_ns or 0) - step.start_ns) / SECOND for step in decoded(records).of("hook")}
    assert took == {"h1": 2.5, "h2": 7}


def test_the_wait_for_a_person_is_no_time_of_the_tool(storage: Storage) -> None:
    arrive(storage, session(), tool("t", 1, output="blue", name="AskUserQuestion"))
    (span,) = spans_of(storage).values()
    assert (span.duration_ms, json.loads(span.result_payload or "")["waited_ms"] > 0) == (0, True)
    assert str(span.started_at) < str(span.finished_at)


def test_the_wait_for_a_permission_is_what_a_result_does_not_state_as_the_time_of_the_tool() -> None:
    refused = "The user doesn't want to proceed with this tool use."
    for content, structured, waited in (
        ("page", {"durationMs": 500}, 599_500),
        ("page", {"code": 200}, None),
        (refused, "User rejected tool use", 600_000),
    ):
        is_error = {"is_error": True} if content == refused else {}
        records = [*CONVERSATION[:3], result("r1", "a2", 603, "t1", content, structured, **is_error)]
        assert (decoded(records).one("tool").result or {}).get("waited_ms") == waited


def test_a_session_that_begins_with_a_slash_command_has_it_as_its_title() -> None:
    command = "<command-name>/review</command-name>\n<command-args>12</command-args>"
    said = assistant("a1", "u1", 2, {"type": "text", "text": "Fine."})
    assert decoded([user("u1", None, 0, command), said]).known.metadata["title"] == "/review 12"
    assert "title" not in decoded([user("u1", None, 0, command.replace("review", "clear")), said]).known.metadata


def test_a_step_that_made_a_commit_has_its_hash(storage: Storage) -> None:
    printed = "[main (root-commit) abc1234] Water the beds\n 1 file changed"
    steps = [
        tool("a", 1, output=printed, arguments={"command": "git add . && git commit -m 'Water the beds'"}),
        tool("b", 3, output=printed, arguments={"command": "cat log"}),
    ]
    arrive(storage, session(), *steps)
    found = [json.loads(span.result_payload or "").get("git_commit") for span in spans_of(storage).values()]
    assert sorted(found, key=str) == [None, "abc1234"]


def test_sessions_of_two_agents_with_one_id_are_two_runs(tmp_path: Path) -> None:
    step = {"source": "user", "message": "Mend it", "timestamp": "2026-03-01T10:00:00Z"}
    documents = [document(step, agent={"name": name, "version": "1"}) for name in ("tinker", "tailor", "soldier")]
    together = tmp_path / "both.jsonl"
    together.write_text("".join(f"{json.dumps(each)}\n" for each in documents))
    apart = [tmp_path / f"{name}.json" for name in range(3)]
    for path, each in zip(apart, documents, strict=True):
        path.write_text(json.dumps(each))
    for files in ([together], apart, [together, *apart]):
        for path in files:
            os.utime(path, ns=(T0, T0))
        with agentspan.open(tmp_path / f"{len(files)}.db") as database:
            for path in files:
                imported(database, "atif", path)
            assert [len(spans) for _, spans in rows_of(database)] == [1, 1, 1]


def test_a_line_that_stands_twice_in_a_rollout_counts_once() -> None:
    lines = [
        codex_rollouts.header(),
        *codex_rollouts.prompt(1, "Mend it"),
        codex_rollouts.call(2, "c1", cmd="ls"),
        codex_rollouts.output(3, "c1", "a.py"),
        *codex_rollouts.said(4, "Done."),
    ]
    once, twice = codex_rollouts.decode(lines), codex_rollouts.decode([*lines, *lines])
    assert [step.type for step in twice.of()] == [step.type for step in once.of()]


def test_a_result_that_a_person_rejected_is_cancelled_without_its_call_too() -> None:
    refused = "The user doesn't want to proceed with this tool use."
    found = decoded([*CONVERSATION[:1], result("r1", "u1", 3, "t9", refused, "User rejected tool use", is_error=True)])
    assert found.one("tool").status == "cancelled"


def test_a_folder_is_searched_by_content_where_its_names_say_nothing(tmp_path: Path) -> None:
    lines = [codex_rollouts.header(), *codex_rollouts.prompt(1, "Mend it")]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    for name in ("full.jsonl", "rollout-2026-03-01T10-00-00.jsonl", "notes.jsonl"):
        (tmp_path / name).write_text("{}\n" if name.startswith("notes") else text)
    found = sources_at(Place(tmp_path, None), FORMATS)
    assert sorted(source.path.name for source in found) == ["full.jsonl", "rollout-2026-03-01T10-00-00.jsonl"]


def test_worktrees_are_of_their_repository() -> None:
    for folder in ("/src/shop/.worktrees/1", "/src/shop/.claude/worktrees/a/lib", "/src/shop-worktrees/b", "/src/shop"):
        assert repository_of(folder) == "/src/shop"
        assert Choice(projects=("shop",)).takes_project(folder)
    assert repository_of("/src/worktrees/1") == "/src/worktrees/1"
    assert Choice(projects=("*/.worktrees/1",)).takes_project("/src/shop/.worktrees/1")


def test_runs_of_worktrees_are_found_by_their_repository(storage: Storage) -> None:
    arrive(storage, session("a", metadata={"cwd": "/src/shop-worktrees/1"}))
    arrive(storage, session("b", metadata={"cwd": "/src/blog"}))
    assert in_project(storage, "/src/shop") == {run_of(storage, "toy:a").id}
    assert folder_of(run_of(storage, "toy:a").metadata) == "/src/shop"


def test_the_active_time_is_that_in_which_a_step_went_on(storage: Storage) -> None:
    day = 86_400
    arrive(
        storage,
        session(ended_ns=T0 + day * SECOND),
        llm("a", 0),
        llm("b", 0),
        tool("t", 3600, output="x"),
        llm("c", day),
    )
    assert active_ms(spans_of(storage).values()) == 3000
