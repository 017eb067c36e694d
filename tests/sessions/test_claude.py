"""Records of Claude Code become steps: each model call and tool call once, in the order of the file."""

import json
from pathlib import Path
from typing import Any

import pytest

from agentspan.arriving.records import task_of
from agentspan.sessions.claude_records import ClaudeDecoder
from agentspan.sessions.formats import Source
from tests.sessions.claude_files import (
    CONVERSATION,
    OTHER,
    SESSION,
    assistant,
    attachment,
    decoded,
    record,
    result,
    system,
    text,
    timed,
    tool,
    usage,
    user,
)  # fmt: skip


def test_a_conversation_is_a_prompt_model_calls_and_tool_calls() -> None:
    found = decoded(CONVERSATION)
    assert [step.type for step in found.of()] == ["message", "llm", "tool", "llm"]
    prompt, first, tool_step, second = found.of()
    assert prompt.payload == {"role": "user", "content": "Why does the build fail?"}
    assert first.result == {
        "thinking": "Look first.",
        "tool_calls": [{"id": "t1", "name": "Bash", "arguments": {"command": "make", "description": "Build"}}],
        "response_id": "msg_1", "request_id": "req_msg_1",
        "input_tokens": 160, "cached_tokens": 100, "cache_write_tokens": 50, "output_tokens": 5,
    }  # fmt: skip
    assert tool_step.payload["arguments"] == {"command": "make", "description": "Build"}
    assert tool_step.result == {"output": "Exit code 2\nno rule", "is_error": True, "exit_code": 2}
    assert (second.result or {})["finish_reason"] == "end_turn"
    assert not found.unread


def test_a_model_call_lasts_from_what_it_answers_to_its_last_record() -> None:
    _, first, tool_step, second = decoded(CONVERSATION).of()
    seconds = [(step.start_ns // 10**9 % 60, (step.end_ns or 0) // 10**9 % 60) for step in (first, tool_step, second)]
    assert seconds == [(0, 3), (3, 5), (5, 8)]


def test_the_session_has_its_facts() -> None:
    session = decoded(CONVERSATION).known
    assert (session.id, session.agent, session.version) == (SESSION, "claude-code", "2.1.100")
    assert (session.outcome, session.output, session.first) == ("answered", "A rule is missing.", "u1")
    assert session.task == "why does the build fail?"
    assert session.fingerprint == {"model": "claude-sonnet-4-5", "cli_version": "2.1.100"}
    assert session.metadata == {
        "cwd": "/src/shop", "git_branch": "main", "models": ["claude-sonnet-4-5"], "prompts": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "task"),
    [
        ("Review PR  #36", "review pr #"),
        ("Fix /src/a/b.py and c/d.ts, see https://x.y/z?1", "fix # and # see #"),
        ("Undo 3f2a9bc and 550e8400-e29b-41d4-a716-446655440000", "undo # and #"),
        ("/review and/or deploy", "/review and/or deploy"),
        ("long " * 100, "long " * 15 + "long"),
        ("", ""),
    ],
)
def test_a_task_is_the_normal_form_of_a_prompt(prompt: str, task: str) -> None:
    assert task_of(prompt) == task[:80].rstrip()


def test_line_by_line_gives_the_whole() -> None:
    whole, grown = decoded(CONVERSATION), decoded(CONVERSATION, growing=True)
    assert (grown.steps, grown.session) == (whole.steps, whole.session)


def test_the_last_usage_of_a_message_counts_and_hours_of_cache_are_named() -> None:
    hours = {"cache_creation": {"ephemeral_1h_input_tokens": 40, "ephemeral_5m_input_tokens": 10}}
    found = decoded(
        [
            user("u1", None, 0, "go"),
            assistant("a1", "u1", 1, text("One."), usage=usage(1)),
            assistant("a2", "a1", 2, text("Two."), usage=usage(70, **hours)),
        ]
    )
    step = found.one("llm")
    assert step.result is not None
    assert step.result["text"] == "One.\n\nTwo."
    assert (step.result["output_tokens"], step.result["cache_write_1h_tokens"]) == (70, 40)


def test_the_same_message_of_two_requests_is_two_calls() -> None:
    found = decoded(
        [user("u1", None, 0, "go"), *(assistant(f"a{n}", "u1", n, text("x"), request=f"r{n}") for n in (1, 2))]
    )
    assert len(found.of("llm")) == 2


def test_records_of_one_millisecond_keep_their_order_and_never_start_before_their_parent() -> None:
    found = decoded(
        [
            user("u1", None, 5, "go"),
            attachment("h1", "u1", 5, "task_reminder", content=[]),
            system("s1", "h1", 3, "informational", content="later in the graph"),
            assistant("a1", "s1", 5, text("x")),
        ]
    )
    assert [step.key for step in found.of()] == ["u1", "h1", "s1", "llm:msg_1:req_msg_1"]
    starts = [step.start_ns for step in found.of()]
    assert [start - starts[0] for start in starts] == [0, 1000, 2000, 3000]


def test_tools_of_servers_and_skills_are_named() -> None:
    calls = assistant("a1", "u1", 1, tool("t1", "mcp__docs__find", q="x"), tool("t2", "Skill", skill="review"))
    found = decoded([user("u1", None, 0, "go"), calls, result("r1", "a1", 2, "t1", [text("found")])])
    mcp, skill = found.one("mcp"), found.one("tool")
    assert mcp.payload == {
        "method": "tools/call", "server": "docs", "target": "find", "arguments": {"q": "x"}, "call_id": "t1",
    }  # fmt: skip
    assert mcp.result == {"result": "found"}
    assert (skill.payload["skill"], skill.status, skill.end_ns) == ("review", "active", None)


@pytest.mark.parametrize(
    ("name", "arguments", "output", "structured", "kept"),
    [
        ("Bash", {"command": "ls"}, "a", {"stdout": "a\n", "stderr": "", "interrupted": False},
         {"exit_code": 0, "structured": {"stderr": "", "interrupted": False}}),
        ("Bash", {"command": "x"}, "a", {"stdout": "a", "backgroundTaskId": "b1"},
         {"structured": {"backgroundTaskId": "b1"}}),
        ("Bash", {"command": "x"}, "", {"stdout": "", "returnCodeInterpretation": "No matches found"},
         {"structured": {"returnCodeInterpretation": "No matches found"}}),
        ("Read", {"file_path": "/a"}, " 1→x", {"type": "text", "file": {"filePath": "/a", "content": "x"}},
         {"structured": {"type": "text", "file": {"filePath": "/a"}}}),
        ("Write", {"file_path": "/a", "content": "long"}, "ok", {"type": "create", "filePath": "/a", "content": "long"},
         {"structured": {"type": "create"}}),
        ("Edit", {}, "ok", "ok", {}),
        ("Edit", {}, "ok", ["other"], {"structured": ["other"]}),
    ],
)  # fmt: skip
def test_a_structured_result_does_not_repeat_the_output(
    name: str, arguments: Any, output: str, structured: Any, kept: dict[str, Any]
) -> None:
    call = assistant("a1", "u1", 1, {**tool("t1", name), "input": arguments})
    found = decoded([user("u1", None, 0, "go"), call, result("r1", "a1", 2, "t1", output, structured)])
    assert found.one("tool").result == {"output": output, **kept}


def test_an_interruption_cancels_open_tool_calls() -> None:
    calls = assistant("a1", "u1", 1, tool("t1"), tool("t2"))
    rejected = result("r1", "a1", 2, "t1", "The user doesn't want to proceed with this tool use.", is_error=True)
    stopped = user("u2", "r1", 3, [text("[Request interrupted by user for tool use]")])
    found = decoded([user("u1", None, 0, "go"), calls, rejected, stopped])
    assert [step.status for step in found.of("tool")] == ["cancelled", "cancelled"]
    assert found.known.outcome == "interrupted"
    assert found.one("event").payload["name"] == "interrupted"
    assert found.known.metadata["prompts"] == 1


def test_a_result_that_stands_before_its_call_or_after_an_interruption_completes_it() -> None:
    early = [user("u1", None, 0, "go"), result("r1", "a1", 2, "t1", "out"), assistant("a1", "u1", 1, tool("t1"))]
    late = [user("u1", None, 0, "go"), assistant("a1", "u1", 1, tool("t1")), user("u2", "a1", 2, "wait"),
            result("r1", "a1", 3, "t1", "out")]  # fmt: skip
    for records in (early, late):
        for growing in (False, True):
            step = decoded(records, growing=growing).one("tool")
            assert (step.payload["name"], step.status, step.result) == (
                "Bash",
                "complete",
                {"output": "out", "exit_code": 0} if False else {"output": "out"},
            )


def test_a_result_without_a_call_is_kept() -> None:
    found = decoded([user("u1", None, 0, "go"), result("r1", "u1", 2, "t9", "out")])
    assert found.one("tool").payload == {"name": "unknown", "arguments": None, "call_id": "t9"}
    many = [result(f"r{n}", "u1", n, f"t{n}", "out") for n in range(20)]
    found = decoded([user("u1", None, 0, "go"), *many])
    assert len(found.of("tool")) == 20
    assert set(found.unread) == {"a tool result without its call"}


def test_a_rewind_marks_the_branch_it_leaves() -> None:
    records = [
        user("u1", None, 0, "first"),
        assistant("a1", "u1", 1, text("one"), stop_reason="end_turn"),
        user("u2", "a1", 2, "wrong way"),
        assistant("a2", "u2", 3, tool("t1"), id="msg_2"),
        user("u3", "a1", 4, "other way"),
        assistant("a3", "u3", 5, text("two"), id="msg_3", stop_reason="end_turn"),
    ]
    for growing in (False, True):
        found = decoded(records, growing=growing)
        marked = [step.key for step in found.of() if step.payload.get("rewound")]
        assert marked == ["u2", "llm:msg_2:req_msg_2", "tool:t1"]
        assert found.steps["tool:t1"].status == "cancelled"


def turn(number: int, parent: str | None) -> list[Any]:
    """Return a prompt and its answer."""
    answer = assistant(f"a{number}", f"u{number}", number, text("x"), id=f"m{number}", stop_reason="end_turn")
    return [user(f"u{number}", parent, number, "go"), answer]


def test_each_rewind_marks_its_own_branch() -> None:
    records = [*turn(1, None), *turn(2, "a1"), *turn(3, "a2"), *turn(4, "a1"), *turn(5, "a1")]
    steps = decoded(records).of()
    assert [step.key for step in steps if not step.payload.get("rewound")] == [
        "u1",
        "llm:m1:req_m1",
        "u5",
        "llm:m5:req_m5",
    ]
    back = [*turn(1, None), *turn(2, "a1"), *turn(3, "a2"), *turn(4, "a2")]
    assert [step.key for step in decoded(back).of() if step.payload.get("rewound")] == ["u3", "llm:m3:req_m3"]


@pytest.mark.parametrize("turns", [1, 40])
def test_of_a_long_branch_only_the_latest_steps_are_marked(turns: int) -> None:
    records = [*turn(1, None), user("u2", "a1", 2, "go")]
    for number in range(800):
        records.append(attachment(f"h{number}", "u2", 3, "task_reminder", content=[]))
        if turns > 1 and number % 20 == 0:
            records.append(user(f"p{number}", f"h{number}", 3, "go on"))
    found = decoded([*records, user("u9", "a1", 4, "other")])
    marked = {step.key for step in found.of() if step.payload.get("rewound")}
    assert 250 <= len(marked) <= 600
    assert "h799" in marked
    assert not {"u1", "u9"} & marked


def test_parallel_tool_calls_are_no_rewind() -> None:
    records = [
        user("u1", None, 0, "go"),
        assistant("a1", "u1", 1, tool("t1")),
        assistant("a2", "a1", 2, tool("t2")),
        result("r1", "a1", 3, "t1", "x"),
        result("r2", "a2", 3, "t2", "y"),
    ]
    assert not [step for step in decoded(records).of() if step.payload.get("rewound")]


def test_a_compaction_has_tokens_and_its_summary() -> None:
    facts = {"trigger": "manual", "preTokens": 900, "postTokens": 90, "durationMs": 4000}
    records = [
        *CONVERSATION,
        system("c1", None, 20, "compact_boundary", compactMetadata=facts, logicalParentUuid="a3"),
        user("c2", "c1", 20, "In short: a rule is missing.", isCompactSummary=True),
    ]
    found = decoded(records)
    step = found.one("compaction")
    assert step.payload == {"trigger": "manual", "tokens_before": 900, "details": {"durationMs": 4000}}
    assert step.result == {"tokens_after": 90, "summary": "In short: a rule is missing."}
    assert (step.end_ns or 0) - step.start_ns == 4 * 10**9
    assert found.known.metadata["prompts"] == 1


def test_a_microcompaction_says_what_it_saved() -> None:
    facts = {"trigger": "auto", "preTokens": 900, "tokensSaved": 300, "compactedToolIds": ["t1"]}
    found = decoded([*CONVERSATION, system("c1", "a3", 9, "microcompact_boundary", microcompactMetadata=facts)])
    step = found.one("compaction")
    assert step.payload["details"] == {"tokensSaved": 300, "compactedToolIds": ["t1"]} or step.payload["micro"] is True
    assert step.result == {"tokens_after": 600}


def test_api_errors_are_failed_attempts() -> None:
    error = {
        "message": "Connection error.",
        "formatted": "Unable to connect (ECONNRESET)",
        "connection": {"code": "ECONNRESET"},
    }
    failed = system("e1", "u1", 3, "api_error", error=error, retryAttempt=1, maxRetries=10, retryInMs=600.5)
    found = decoded([user("u1", None, 0, "go"), failed, assistant("a1", "e1", 6, text("x"), stop_reason="end_turn")])
    first, second = found.of("llm")
    assert (first.status, second.status) == ("failed", "complete")
    assert first.payload == {"model": "unknown", "attempt": 1, "max_retries": 10, "retry_in_ms": 600.5}
    assert first.result == {"error": {"type": "ECONNRESET", "message": "Unable to connect (ECONNRESET)"}}
    assert found.known.outcome == "answered"


@pytest.mark.parametrize(
    ("said", "kind", "outcome"),
    [
        ("Claude usage limit reached.", None, "limit"),
        ("Login expired · Please run /login", "authentication_failed", "error"),
        ("Too many requests", "rate_limit", "limit"),
    ],
)
def test_messages_of_the_program_are_no_model_calls(said: str, kind: str | None, outcome: str) -> None:
    more = {} if kind is None else {"error": kind}
    message = assistant("a1", "u1", 1, text(said), model="<synthetic>", isApiErrorMessage=True, **more)
    found = decoded([user("u1", None, 0, "go"), message])
    assert not found.of("llm")
    assert found.one("event").payload["name"] == "api_error"
    assert (found.known.outcome, (found.known.error or {})["message"]) == (outcome, said)
    nothing = assistant("a1", "u1", 1, text("No response requested."), model="<synthetic>")
    assert decoded([user("u1", None, 0, "go"), nothing]).one("event").payload["name"] == "synthetic"


def test_an_answer_that_was_cut_is_a_limit() -> None:
    found = decoded([user("u1", None, 0, "go"), assistant("a1", "u1", 1, text("x"), stop_reason="max_tokens")])
    assert found.known.outcome == "limit"


def test_old_versions_have_no_stop_reason() -> None:
    asked = [user("u1", None, 0, "go"), assistant("a1", "u1", 1, text("x"))]
    assert decoded(asked).known.outcome == "answered"
    assert decoded([*asked, assistant("a2", "a1", 2, tool("t1"))]).known.outcome is None


def test_hooks_are_steps_below_their_tool() -> None:
    hook = {"hookName": "PostToolUse:Bash", "hookEvent": "PostToolUse", "toolUseID": "t1", "command": "lint"}
    records = [
        *CONVERSATION[:4],
        attachment(
            "h1", "r1", 6, "hook_success", content="", stdout="fine", stderr="", exitCode=0, durationMs=500, **hook
        ),
        attachment("h2", "r1", 6, "hook_blocking_error", blockingError={"blockingError": "no", "command": "x"}, **hook),
        system("h3", "h2", 7, "stop_hook_summary", hookInfos=[{"command": "bye"}], hookErrors=["bad"]),
    ]
    first, second, third = decoded(records).of("hook")
    assert (first.parent, first.result) == ("tool:t1", {"output": "fine", "exit_code": 0})
    assert (second.status, (second.result or {})["error"]["message"]) == ("failed", "no")
    assert (third.parent, third.payload["command"], third.status) == (None, "bye", "failed")


@pytest.mark.parametrize("attached", [False, True])
def test_text_typed_while_the_agent_works_is_steering_once(attached: bool) -> None:
    queued = [
        timed("queue-operation", 3, operation="enqueue", content="be quick"),
        timed("queue-operation", 4, operation="remove"),
    ]
    records = [*CONVERSATION[:3], *queued]
    if attached:
        records.append(attachment("q1", "a2", 3, "queued_command", prompt="be quick", commandMode="prompt"))
    steering = [step for step in decoded(records).of("message") if step.payload.get("steering")]
    assert [step.payload["content"] for step in steering] == ["be quick"]
    assert decoded(records).known.metadata["prompts"] == 1


def test_commands_notices_and_bodies_of_skills_are_no_prompts() -> None:
    command = (
        "<command-message>x</command-message>\n<command-name>/review</command-name><command-args>12</command-args>"
    )
    records = [
        user("u0", None, 0, "<command-name>/model</command-name>"),
        user("u1", None, 0, command),
        user("u2", "u1", 1, [text("Review like this …")], isMeta=True, sourceToolUseID="t7"),
        user("u3", "u2", 2, "<local-command-stdout>ok</local-command-stdout>"),
        system("s1", "u3", 3, "local_command", content="<command-name>/cost</command-name>"),
    ]
    found = decoded(records)
    assert [(step.payload["role"], step.payload["call_id"]) for step in found.of("message")] == [("system", "t7")]
    names = ["command", "command", "local-command-stdout", "local_command"]
    assert [step.payload["name"] for step in found.of("event")] == names
    assert found.known.task == "/review #"


def test_images_stay_in_the_prompt() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    found = decoded([user("u1", None, 0, [image, text("What is this?")])])
    assert found.one("message").payload["content"] == [image, text("What is this?")]


def test_metadata_records_are_facts_of_the_run() -> None:
    records = [
        {"type": "permission-mode", "permissionMode": "plan", "sessionId": SESSION},
        {"type": "mode", "mode": "normal", "sessionId": SESSION},
        {"type": "worktree-state", "worktreeSession": {"originalHeadCommit": "ab" * 20}, "sessionId": SESSION},
        {"type": "summary", "summary": "of another session", "leafUuid": "zz"},
        *CONVERSATION,
        {"type": "ai-title", "aiTitle": "Broken build", "sessionId": SESSION},
        timed("pr-link", 9, prUrl="https://example.org/1"),
        attachment("d1", "a3", 9, "deferred_tools_delta", addedNames=["B", "A"]),
        attachment("d2", "d1", 9, "skill_listing", content="- review: …"),
    ]
    session = decoded(records).known
    assert (session.metadata["title"], session.metadata["mode"]) == ("Broken build", "normal")
    assert session.metadata["pull_requests"] == ["https://example.org/1"]
    assert session.fingerprint["permission_mode"] == "plan"
    assert session.git_commit == "ab" * 20
    assert {"tools", "skills"} <= session.fingerprint.keys()


def test_what_is_not_known_is_kept_and_counted() -> None:
    records = [
        *CONVERSATION,
        record("brand-new", "n1", "a3", 9, payload=[1]),
        system("n2", "n1", 9, "brand_new", content="x"),
        attachment("n3", "n2", 9, "brand_new", content="y"),
        b"{broken",
        b"[1, 2]",
    ]
    found = decoded(records)
    assert [found.steps[key].payload["name"] for key in ("n1", "n2", "n3")] == [
        "brand-new",
        "system:brand_new",
        "brand_new",
    ]
    assert found.steps["n1"].payload["content"]["payload"] == [1]
    assert sorted(found.unread) == sorted(
        ["record of type brand-new", "record of type system:brand_new", "attachment of type brand_new",
         "a line that is no JSON", "a line that is no JSON"]
    )  # fmt: skip


def test_different_records_with_one_uuid_are_both_kept() -> None:
    same = [user("u1", None, 0, "go"), system("u1", None, 1, "informational", content="x"), user("u1", None, 2, "stop")]
    assert len(decoded([*same, *same]).of()) == 3


@pytest.mark.parametrize("growing", [False, True])
def test_records_before_the_first_time_are_kept(growing: bool) -> None:
    found = decoded([{"type": "brand-new", "a": 1}, *CONVERSATION], growing=growing)
    kept = found.of("unknown:event")
    assert [step.payload["content"] for step in kept] == [{"type": "brand-new", "a": 1}]
    assert kept[0].start_ns // 10**6 == found.known.started_ns // 10**6


def test_a_session_without_versions_is_read_all_the_same() -> None:
    found = decoded([{name: value for name, value in each.items() if name != "version"} for each in CONVERSATION])
    assert (len(found.of()), found.known.version) == (4, None)


def test_members_of_events_may_have_any_name() -> None:
    more = {"name": 1, "record": 2, "millis": 3, "self": 4, "durationMs": 5}
    step = decoded([user("u1", None, 0, "go"), system("s1", "u1", 1, "informational", content="x", **more)]).one(
        "event"
    )
    assert step.payload == {**more, "name": "informational", "level": "info", "content": "x"}


def test_two_records_on_one_line_are_both_read() -> None:
    line = "".join(json.dumps(each) for each in CONVERSATION[:2]).encode()
    found = decoded([line, *CONVERSATION[2:]])
    assert (found.steps, found.unread) == (decoded(CONVERSATION).steps, [])


def test_a_resumed_copy_has_the_keys_of_the_original() -> None:
    copied = [{**each, "sessionId": OTHER} for each in CONVERSATION]
    found, copy = decoded(CONVERSATION), decoded([*copied, user("u9", "a3", 30, "go on")])
    assert found.steps.keys() == copy.steps.keys() - {"u9"}
    assert copy.known.first == found.known.first
    assert copy.known.conversation == OTHER
    forked = [{**each, "forkedFrom": {"sessionId": OTHER, "messageUuid": each["uuid"]}} for each in CONVERSATION]
    assert decoded(forked).known.conversation == OTHER


def test_nothing_is_yielded_before_the_version_is_known() -> None:
    decoder = ClaudeDecoder(Source("claude", Path("a.jsonl")))
    line = json.dumps(timed("queue-operation", 0, operation="dequeue")).encode()
    assert [*decoder.feed(Path("a.jsonl"), line), *decoder.rest()] == []


def shape(second: float, *tools: str, system: str = "Be good.", file: str = "s1") -> dict[str, Any]:
    content = {"system": [{"type": "text", "text": system}], "tools": [{"name": name} for name in tools]}
    return timed("api-request-shape", second, shapeHash=file, shape=content)


def request(second: float, **params: Any) -> dict[str, Any]:
    return timed("api-request", second, id=f"q{second}", params={"model": "claude-sonnet-4-5", **params})


def test_requests_give_their_settings_to_the_model_call_and_their_prompt_and_tools_are_kept_once() -> None:
    snapshot = {"systemPrompt": ["Be good.", "Notes are in /home/a/notes."], "tools": [{"name": "Bash"}]}
    found = decoded(
        [
            user("u1", None, 0, "go"),
            attachment("s1", "u1", 0, "prompt_snapshot", systemPrompt=snapshot["systemPrompt"]),
            shape(0.1, "Bash", "Read"),
            timed("api-request-blob", 0.1, hash="h", message={"role": "user", "content": "go"}),
            request(0.1, max_tokens=32000, thinking={"type": "enabled", "budget_tokens": 10}, betas=["b"]),
            timed("tools-used", 0.2, tools=["Bash"]),
            assistant("a1", "s1", 1, text("x")),
            attachment("s2", "a1", 1, "prompt_snapshot", **snapshot),
            attachment("s3", "s2", 1, "prompt_snapshot", **snapshot),
            shape(2, "Bash", "Read", file="s2"),
            timed("cost-state", 2, totalCostUSD=0.25),
        ],
        {f"{SESSION}/subagents/agent-x.jsonl": [shape(3, "Bash", "Read"), shape(3, "Bash", "Read")]},
    )
    call = found.one("llm")
    settings = {"max_tokens": 32000, "thinking": {"type": "enabled", "budget_tokens": 10}}
    assert {name: call.payload.get(name) for name in settings} == settings
    assert "betas" not in call.payload
    names = [step.payload["name"] for step in found.of("event")]
    assert names == ["prompt_snapshot", "api-request-shape", "prompt_snapshot", "api-request-shape"]
    assert found.known.metadata["stated_cost_usd"] == 0.25
    assert not found.unread


def test_a_system_prompt_and_instructions_are_parts_of_the_fingerprint() -> None:
    def parts(folder: str, rules: str) -> dict[str, str]:
        files = [{"path": f"{folder}/CLAUDE.md", "type": "Project", "content": rules}]
        return dict(
            decoded(
                [
                    user("u1", None, 0, "go"),
                    attachment("i1", "u1", 0, "instructions", files=files),
                    attachment("s1", "i1", 0, "prompt_snapshot", systemPrompt=[f"Notes are in `{folder}/notes`."]),
                    shape(1, "Bash"),
                ]
            ).known.fingerprint
        )

    first, moved, changed = parts("/a", "Be brief."), parts("/b", "Be brief."), parts("/a", "Be long.")
    assert first == moved
    assert {name for name in first if first[name] != changed[name]} == {"sent_instructions"}
    assert {"system_prompt", "tools"} <= first.keys()


def test_what_a_sub_agent_is_sent_is_no_part_of_the_fingerprint() -> None:
    main = [user("u1", None, 0, "go"), attachment("d1", "u1", 0, "deferred_tools_delta", addedNames=["WebSearch"])]
    side = [
        record("user", "v1", None, 1, message={"role": "user", "content": "look"}, agentId="x"),
        attachment("d2", "v1", 1, "deferred_tools_delta", addedNames=["NotebookEdit"]),
    ]
    alone = decoded(main).known.fingerprint
    assert decoded(main, {f"{SESSION}/subagents/agent-x.jsonl": side}).known.fingerprint == alone


def test_a_hook_at_the_end_with_a_record_of_its_own_is_one_step() -> None:
    hook = {"hookEvent": "Stop", "hookName": "Stop", "toolUseID": "h", "command": "lint"}
    summary = {"hookInfos": [{"command": "lint"}], "toolUseID": "h", "hookErrors": []}
    found = decoded(
        [
            *CONVERSATION,
            attachment("h1", "a3", 9, "hook_success", **hook),
            system("h2", "h1", 9, "stop_hook_summary", **summary),
        ]
    )
    assert [step.key for step in found.of("hook")] == ["h1"]
    prevented = {**summary, "preventedContinuation": True}
    found = decoded(
        [
            *CONVERSATION,
            attachment("h1", "a3", 9, "hook_success", **hook),
            system("h2", "h1", 9, "stop_hook_summary", **prevented),
        ]
    )
    assert [step.key for step in found.of("hook")] == ["h1", "h2"]


def test_messages_that_a_compaction_kept_are_no_model_calls_again() -> None:
    answer = assistant("a9", "u0", 1, text("Kept."), id="msg_9", usage=usage(7))
    empty = {"input_tokens": 0, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 0}
    boundary = system(
        "c1", None, 5, "compact_boundary",
        compactMetadata={"trigger": "manual", "preservedMessages": {"allUuids": ["a9"]}},
    )  # fmt: skip
    copies = [
        user("c2", "c1", 5, "We spoke.", isCompactSummary=True),
        assistant("a9", "c2", 1, text("Kept."), id="msg_9", usage=empty),
        user("u5", "a9", 6, "and now?"),
    ]
    fork = decoded([boundary, *copies])
    assert not fork.of("llm")
    assert [step.payload["role"] for step in fork.of("message")] == ["assistant", "user"]
    same = decoded([user("u0", None, 0, "go"), answer, boundary, *copies])
    assert (same.one("llm").result or {})["output_tokens"] == 7
    assert [step.payload["role"] for step in same.of("message")] == ["user", "user"]
