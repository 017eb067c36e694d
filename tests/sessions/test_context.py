"""What a model call read: of a session from the steps before it, of a recorded call from its payload."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.analysis.context import Context, by_source, contexts, largest_call, previous_call
from agentspan.analysis.context_diff import ContextDiff, changes_by_source, context_diff, since_previous
from agentspan.cli.output import columns_of
from agentspan.database import Database
from agentspan.errors import InvalidValue
from tests.cli.calling import call
from tests.sessions.steps import Told, arrive, spans_of


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "a.db") as opened:
        yield opened


def read_by_calls(database: Database, told: Told) -> list[Context]:
    (run,) = arrive(database, told)
    return contexts(database.storage, spans_of(database, run, "llm"))


def texts(context: Context) -> list[str]:
    return [each.excerpt for each in context.elements if each.source != "unrecorded"]


def a_session() -> Told:
    told = Told()
    told.ask("fix the bug")
    told.call("I read it", 1000, calls=[{"id": "c1", "name": "Read", "arguments": {"file_path": "/p/src/a.py"}}])
    told.tool("Read", {"file_path": "/p/src/a.py"}, "x = 1\n" * 100)
    told.call("I run it", 1200)
    told.tool("Bash", {"command": "pytest"}, "1 failed", also={"is_error": True, "exit_code": 1})
    told.call("done", 1210)
    return told


def test_a_call_of_a_session_reads_what_stands_before_it(database: Database) -> None:
    first, second, third = read_by_calls(database, a_session())
    assert texts(first) == ["fix the bug"]
    assert [(each.source, each.name) for each in third.elements] == [
        ("unrecorded", None), ("prompt", None), ("answer", None), ("file", "/p/src/a.py"), ("answer", None),
        ("tool", "Bash"),
    ]  # fmt: skip
    assert not third.is_recorded
    assert second.elements[3].characters == 600


def test_the_tokens_add_up_to_those_that_the_provider_counted(database: Database) -> None:
    for context in read_by_calls(database, a_session()):
        assert sum(each.tokens for each in context.elements) == context.input_tokens
    unrecorded = {context.elements[0].tokens for context in read_by_calls(database, Told("s2"))}
    assert not unrecorded


def test_what_the_first_call_has_beyond_its_elements_is_not_recorded(database: Database) -> None:
    found = read_by_calls(database, a_session())
    assert {context.elements[0].tokens for context in found} == {1000 - 3}


def test_after_a_compaction_the_summary_is_first(database: Database) -> None:
    told = a_session()
    told.compact("we fixed a.py")
    told.ask("go on")
    told.call("yes", 1100)
    *_, before, after = read_by_calls(database, told)
    assert texts(after) == ["we fixed a.py", "go on"]
    found = context_diff(before, after)
    assert len(found.compactions) == 1
    assert [each.source for _, each in found.left] == ["prompt", "answer", "file", "answer", "tool"]


def test_a_sub_agent_has_a_context_of_its_own(database: Database) -> None:
    told = Told()
    told.ask("look around")
    told.call("I delegate")
    told.tool("Task", {"prompt": "find it"}, "found it", key="task", took=10)
    told.step("agent", {"name": "scout", "goal": "find it"}, {"output": "found it"}, key="sub", parent="task", took=3)
    told.call("searching", key="inner", parent="sub")
    told.tool("Grep", {"pattern": "it"}, "here", parent="sub")
    told.call("found", parent="sub")
    told._at += 6_000_000_000
    told.call("thanks")
    _, inner, found, last = read_by_calls(database, told)
    assert texts(inner) == ["find it"]
    assert texts(found) == ["find it", "searching", "here"]
    assert texts(last) == ["look around", "I delegate", "found it"]


def test_a_tool_in_the_background_is_read_when_it_has_ended(database: Database) -> None:
    told = Told()
    told.ask("go")
    told.call("started")
    told.tool("Bash", {"command": "make"}, "built", took=3)
    told.call("meanwhile")
    told.call("x")
    told._at += 2_000_000_000
    told.call("then")
    contexts_of = read_by_calls(database, told)
    assert "built" not in texts(contexts_of[1])
    assert texts(contexts_of[3])[-1] in ("built", "x")
    assert "built" in texts(contexts_of[3])


def test_what_a_person_went_back_from_was_not_read(database: Database) -> None:
    told = Told()
    told.ask("first")
    told.call("one")
    told.ask("wrong way", status="cancelled")
    told.call("two", status="cancelled")
    told.ask("right way")
    told.call("three")
    assert texts(read_by_calls(database, told)[-1]) == ["first", "one", "right way"]


def test_steering_and_hooks_are_sources(database: Database) -> None:
    told = Told()
    told.ask("go")
    told.step("hook", {"name": "start", "event": "SessionStart"}, {"additional_context": "be kind"})
    told.ask("not so fast", also={"steering": True})
    told.call("ok")
    (found,) = read_by_calls(database, told)
    assert [each.source for each in found.elements] == ["unrecorded", "prompt", "hook", "steering"]


def recorded(database: Database, *payloads: dict[str, Any]) -> list[Context]:
    run = database.agent_instances.register("agent")
    database.agent_instances.start(run.id)
    for payload in payloads:
        span = database.agent_spans.create(run.id, "llm", "active", {"model": "m", **payload})
        database.agent_spans.finish(span.id, "complete", {"text": "ok", "input_tokens": 500, "output_tokens": 1})
    return contexts(database.storage, spans_of(database, run.id, "llm"))


SYSTEM = {"role": "system", "content": "You fix bugs."}
ASKED = {"role": "user", "content": "fix it"}
CALLS = {
    "role": "assistant", "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "read_file", "arguments": '{"path":"a.py"}'}}],
}  # fmt: skip
READ = {"role": "tool", "tool_call_id": "c1", "content": "x = 1\n" * 50}


def test_a_recorded_call_has_its_context_in_its_payload(database: Database) -> None:
    (found,) = recorded(database, {"messages": [SYSTEM, ASKED, CALLS, READ], "tools": [{"name": "read_file"}]})
    assert found.is_recorded
    assert [(each.source, each.name) for each in found.elements] == [
        ("tools", None), ("instructions", None), ("prompt", None), ("answer", None), ("file", "a.py"),
    ]  # fmt: skip
    assert sum(each.tokens for each in found.elements) == 500


def test_a_result_that_became_shorter_was_cut(database: Database) -> None:
    cut = {**READ, "content": "[removed]"}
    again = {"role": "user", "content": "and?"}
    a, b = recorded(database, {"messages": [SYSTEM, ASKED, CALLS, READ]}, {"messages": [SYSTEM, CALLS, cut, again]})
    found = context_diff(a, b)
    assert [(each.first, each.last) for each in found.kept] == [(1, 2)]
    assert [each.excerpt for _, each in found.came_in] == ["and?"]
    assert [each.excerpt for _, each in found.left] == ["fix it"]
    ((number, before, after),) = found.cut
    assert (number, before.characters, after.characters) == (3, 300, 9)
    change = next(each for each in changes_by_source(found) if each["source"] == "file")
    assert change["cut"] == before.tokens - after.tokens


def test_equal_elements_are_compared_one_by_one(database: Database) -> None:
    a, b = recorded(database, {"messages": [ASKED, ASKED]}, {"messages": [ASKED, ASKED, ASKED]})
    found = context_diff(a, b)
    assert [number for number, _ in found.came_in] == [3]


def test_only_a_model_call_has_a_context(database: Database) -> None:
    (run,) = arrive(database, a_session())
    with pytest.raises(InvalidValue, match="only a model call"):
        contexts(database.storage, spans_of(database, run, "tool"))


def test_the_call_before_and_the_largest_call_are_found(database: Database) -> None:
    (run,) = arrive(database, a_session())
    first, second, third = spans_of(database, run, "llm")
    assert previous_call(database.storage, third) == second
    assert previous_call(database.storage, first) is None
    assert largest_call(database.storage, run) == third


def test_a_source_names_its_largest(database: Database) -> None:
    *_, last = read_by_calls(database, a_session())
    share = next(share for share in by_source(last.elements) if share.source == "file")
    assert share.names == (("/p/src/a.py", share.tokens),)


def test_a_microcompaction_cuts_results(database: Database) -> None:
    told = Told()
    told.ask("go")
    told.call("reading", 1000)
    read = {"name": "Read", "arguments": {"file_path": "a.py"}, "call_id": "c1"}
    told.step("tool", read, {"output": "x = 1\n" * 100})
    told.call("more", 1200)
    told.step("compaction", {"trigger": "auto", "micro": True, "details": {"compactedToolIds": ["c1"]}})
    told.call("done", 1010)
    *_, before, after = read_by_calls(database, told)
    found = context_diff(before, after)
    assert [(each.before.characters, each.after.characters) for each in found.cut] == [(600, 26)]
    assert not found.left


def test_what_was_rewound_is_marked_in_its_payload(database: Database) -> None:
    told = Told()
    told.ask("first")
    told.call("one")
    told.step("tool", {"name": "Bash", "arguments": {}, "rewound": True}, {"output": "gone"})
    told.call("two")
    assert texts(read_by_calls(database, told)[-1]) == ["first", "one"]


def test_a_page_shows_what_changed_since_the_call_before(database: Database) -> None:
    told = a_session()
    told.ask("<system-reminder> PostToolUse hook said so", also={"role": "system"})
    told.call("ok")
    (run,) = arrive(database, told)
    first, second, *_, last = spans_of(database, run, "llm")
    found = since_previous(database.storage, second)
    assert (found["before"], found["elements"], found["tokens"], found["more"]) == (first.id, 4, 1200, 0)
    assert [(each["mark"], each["name"]) for each in found["changes"]] == [
        ("=", "1–2 kept"), ("+", "answer"), ("+", "file src/a.py"),
    ]  # fmt: skip
    assert found["changes"][2]["span"] == spans_of(database, run, "tool")[0].id
    begin = since_previous(database.storage, first)
    assert begin["before"] is None
    assert [each["mark"] for each in begin["changes"]] == ["+", "+"]
    assert [each["name"] for each in since_previous(database.storage, last)["changes"]][-1] == "hook"


def test_the_context_is_printed_in_the_width_of_the_terminal(tmp_path: Path) -> None:
    told = a_session()
    told.compact("we fixed a.py " * 30)
    told.ask("go on")
    told.call("yes", 1100)
    with agentspan.open(tmp_path / "a.db") as database:
        (run,) = arrive(database, told)
        calls = [span.id for span in spans_of(database, run, "llm")]
    for words in (("show", run, "--context"), ("diff", calls[-1], "--context"), ("diff", *calls[:2], "--context")):
        printed = call(tmp_path / "a.db", *words)
        assert printed.exit_code == 0, printed.output
        assert max(map(columns_of, printed.output.splitlines())) <= 80
        document = json.loads(call(tmp_path / "a.db", *words, "--json").output)
        assert document["by_source"]
    lost = call(tmp_path / "a.db", "diff", calls[-1], "--context").output
    assert "1 compaction in between: 5 elements lost" in lost
    assert "= 1 kept" in lost
    first = call(tmp_path / "a.db", "diff", calls[0], "--context")
    assert first.exit_code == 1
    assert "is the first model call of its agent; compare it with a call of another run: agentspan diff" in first.output


def test_the_difference_of_long_sessions_reads_the_run_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    told.ask("go")
    for number in range(500):
        told.call(f"step {number}", 100 + number)
        told.tool("Bash", {"command": f"echo {number}"}, f"{number}")
    (run,) = arrive(database, told)
    calls = spans_of(database, run, "llm")
    asked: list[str] = []
    ask = type(database.storage).ask

    def counted(storage: Any, question: Any) -> Any:
        asked.append(type(question).__name__)
        return ask(storage, question)

    monkeypatch.setattr(type(database.storage), "ask", counted)
    found: ContextDiff = context_diff(*contexts(database.storage, [calls[10], calls[-1]]))
    assert sorted(asked) == ["Outlines", "SpansOf"]
    assert [(each.first, each.last) for each in found.kept] == [(1, 22)]
