"""Sub-agents of Claude Code are subtrees below the tool calls that started them, wherever their records stand."""

import json
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentspan.api.context import Context
from agentspan.model.rows import AgentInstanceRow
from agentspan.sessions.claude import FORMATS
from agentspan.sessions.claude_records import ClaudeDecoder
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.storage.access import scan
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import SpansOf
from tests.sessions.claude_files import (
    CONVERSATION,
    MAIN,
    SESSION,
    Decoded,
    assistant,
    decoded,
    result,
    system,
    text,
    tool,
    user,
)  # fmt: skip
from tests.sessions.claude_sub_agent import AGENT, END, FILE, META, SIDE, TASK, progress


def check(found: Any, *, name: str = "Explore", parent: str | None = "tool:t1") -> None:
    agent = found.one("agent")
    assert (agent.parent, agent.payload["name"], agent.payload["goal"]) == (parent, name, "Find it.")
    assert [step.key for step in found.of() if step.parent == agent.key] == [
        "llm:msg_s1:req_msg_s1", "tool:t2", "llm:msg_s2:req_msg_s2",
    ]  # fmt: skip
    assert (agent.result or {})["output"] == "It is here."
    assert not found.unread


@pytest.mark.parametrize("growing", [False, True])
def test_a_sub_agent_in_its_own_file_is_linked_by_the_result(growing: bool) -> None:
    found = decoded([*TASK, *END], {FILE: AGENT}, growing=growing)
    check(found)
    agent, call = found.one("agent"), found.steps["tool:t1"]
    assert (agent.status, (agent.result or {})["reported_tokens"]) == ("complete", 99)
    assert agent.start_ns > call.start_ns
    assert agent.end_ns == call.end_ns
    assert found.known.metadata["prompts"] == 1
    assert (call.result or {}) == {
        "output": "It is here.",
        "structured": {"agentId": "a7", "status": "completed", "totalTokens": 99},
    }


@pytest.mark.parametrize("growing", [False, True])
def test_a_sub_agent_is_linked_before_its_call_has_ended(growing: bool) -> None:
    check(decoded([*TASK, progress("a7", "t1")], {FILE: AGENT}, growing=growing))
    meta = [b"{", b'  "toolUseId": "t1",', b'  "name": "scout"', b"}"]
    beside: dict[str, list[Any]] = {FILE: AGENT, META: [b"".join(meta)] if growing else meta}
    check(decoded(TASK, beside, growing=growing), name="scout")
    check(decoded([*TASK, *END], {FILE: AGENT, META: meta[:-1]}), name="scout")


def test_a_document_that_is_no_json_is_counted_once() -> None:
    found = decoded(TASK, {FILE: AGENT, META: [b"{", b"broken"]}, growing=True)
    assert found.unread == ["a document that is no JSON"]


def test_a_sub_agent_without_a_link_is_at_the_top() -> None:
    check(decoded(CONVERSATION, {FILE: AGENT}), name="agent", parent=None)


@pytest.mark.parametrize("growing", [False, True])
def test_a_sub_agent_inside_the_main_file_is_linked_by_its_prompt(growing: bool) -> None:
    side = [{name: value for name, value in each.items() if name != "agentId"} for each in AGENT]
    ended = result("r1", "a1", 6, "t1", [text("It is here.")], {"totalTokens": 99})
    check(decoded([*TASK, *side, ended], growing=growing))


def test_sub_agents_nest() -> None:
    inner = {"isSidechain": True, "agentId": "a8"}
    outer = [
        AGENT[0],
        assistant("s2", "s1", 3, tool("t5", "Agent", subagent_type="Deep", prompt="Deeper."), id="msg_s1", **SIDE),
        result("s3", "s2", 6, "t5", "ok", {"agentId": "a8"}, **SIDE),
    ]
    deep = [user("d1", None, 4, "Deeper.", **inner), assistant("d2", "d1", 5, text("Deep."), id="msg_d", **inner)]
    found = decoded([*TASK, *END], {FILE: outer, f"{SESSION}/subagents/agent-a8.jsonl": deep})
    agents = {step.payload["name"]: step for step in found.of("agent")}
    assert (agents["Explore"].parent, agents["Deep"].parent) == ("tool:t1", "tool:t5")
    assert found.steps["llm:msg_d:req_msg_d"].parent == "agent:a8"


def test_an_agent_in_the_background_ends_with_its_notice() -> None:
    started = result(
        "r1", "a1", 2, "t1", "started", {"agentId": "a7", "isAsync": True, "resolvedModel": "claude-haiku-4-5"}
    )
    active = decoded([*TASK, started]).one("agent")
    assert (active.status, active.payload["model"]) == ("active", "claude-haiku-4-5")
    parts = "<task-id>a7</task-id>\n<status>completed</status>\n<result>Found.</result>"
    said = f"<task-notification>\n{parts}\n</task-notification>"
    found = decoded([*TASK, started, user("n1", "r1", 30, said)])
    agent = found.one("agent")
    assert (agent.status, agent.result) == ("complete", {"output": "Found."})
    assert found.known.metadata["prompts"] == 1


OWN = {"isSidechain": True, "agentId": "acompact-1"}
COMPACTED = [
    *CONVERSATION,
    system("b1", None, 13, "compact_boundary", compactMetadata={"trigger": "auto"}, logicalParentUuid="a3"),
]
COMPACTING = {
    f"{SESSION}/subagents/agent-acompact-1.jsonl": [
        user("c1", "a3", 9, "Summarize.", **OWN),
        assistant("c2", "c1", 12, text("Short."), id="msg_c", **OWN),
    ]
}


@pytest.mark.parametrize("growing", [False, True])
def test_the_model_call_of_a_compaction_is_below_it(growing: bool) -> None:
    found = decoded(COMPACTED, COMPACTING, growing=growing)
    call = found.steps["llm:msg_c:req_msg_c"]
    assert (call.parent, call.payload["purpose"]) == ("b1", "compaction")
    assert not found.of("agent")
    assert found.steps["b1"].start_ns <= call.start_ns


FLOW = f"{SESSION}/subagents/workflows/wf1"
FLOW_MAIN = [
    TASK[0],
    assistant("a1", "u1", 1, tool("t1", "Workflow", script="x")),
    result("r1", "a1", 2, "t1", "started", {"runId": "wf1", "workflowName": "audit", "taskId": "w9"}),
]
FLOW_PARTS: dict[str, list[Any]] = {
    f"{FLOW}/agent-a7.jsonl": AGENT,
    f"{FLOW}/journal.jsonl": [
        {"type": "started", "key": "k1", "agentId": "a7"},
        {"type": "started", "key": "k2", "agentId": "a9"},
        {"type": "result", "key": "k1", "agentId": "a7", "result": {"found": 3}},
    ],
    f"{SESSION}/workflows/wf1.json": [{"runId": "wf1", "status": "completed", "result": "all checked"}],
}


@pytest.mark.parametrize("growing", [False, True])
def test_a_workflow_has_its_agents_below_it(growing: bool) -> None:
    found = decoded(FLOW_MAIN, FLOW_PARTS, growing=growing)
    agents = {step.key: step for step in found.of("agent")}
    top, first, second = (
        agents["workflow:wf1"],
        agents["agent:a7"],
        agents["agent:a9"],
    )
    assert (top.parent, top.payload["name"], top.status, (top.result or {})["output"]) == (
        "tool:t1", "audit", "complete", "all checked",
    )  # fmt: skip
    assert (first.parent, first.status, (first.result or {})["output"]) == ("workflow:wf1", "complete", {"found": 3})
    assert (second.parent, second.status) == ("workflow:wf1", "active")
    assert top.start_ns == first.start_ns
    assert top.end_ns == first.end_ns


@pytest.mark.parametrize(
    ("main", "parts"),
    [
        (FLOW_MAIN, FLOW_PARTS),
        ([*TASK, progress("a7", "t1"), *END], {FILE: AGENT, META: [{"toolUseId": "t1", "name": "scout"}]}),
        (COMPACTED, COMPACTING),
    ],
)
def test_files_that_grow_in_any_order_give_the_whole(main: list[Any], parts: dict[str, list[Any]]) -> None:
    files = {MAIN: main, **{MAIN.parent / name: records for name, records in parts.items()}}
    whole = decoded(main, parts)
    for seed in range(60):
        order = [path for path, records in files.items() for _ in records]
        order.remove(MAIN)
        random.Random(seed).shuffle(order)
        waiting = {path: iter(records) for path, records in files.items()}
        decoder, records = ClaudeDecoder(Source("claude", MAIN)), list[Any]()
        for path in [MAIN, *order]:  # a session's main file is there first
            records += decoder.feed(path, json.dumps(next(waiting[path])).encode())
            records += decoder.rest()
        grown = Decoded(records)
        assert grown.steps == whole.steps
        assert grown.session == whole.session


def test_a_sub_agent_that_goes_on_ends_with_the_session_that_is_followed(tmp_path: Path) -> None:
    main, side = tmp_path / f"{SESSION}.jsonl", tmp_path / FILE
    side.parent.mkdir(parents=True)
    now = int(datetime(2026, 3, 1, 10, 0, 9, tzinfo=UTC).timestamp()) * 10**9
    for path, records in ((main, TASK), (side, AGENT[:2])):
        path.write_text("".join(f"{json.dumps(each)}\n" for each in records))
        os.utime(path, ns=(now, now))
    storage = MemoryStorage()
    importer = Importer(Context(storage), {"claude": FORMATS[0]}, follows=True, now=lambda: now)
    for status in ("active", "cancelled"):
        importer.import_source(Source("claude", main, (side,)))
        (run,) = scan(storage, AgentInstanceRow)
        assert {span.status for span in storage.ask(SpansOf(run.id)) if span.schema_name in ("agent", "tool")} == {
            status
        }
        now += 10**12
