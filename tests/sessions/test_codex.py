"""A rollout of Codex is decoded into the steps of its thread, in every form that the product has written."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan.arriving.records import task_of
from tests.sessions.codex_rollouts import (
    CHILD,
    GRANDCHILD,
    THREAD,
    Json,
    call,
    context,
    decode,
    done,
    event,
    grown,
    header,
    item,
    message,
    output,
    prompt,
    record,
    said,
    tokens,
    turn,
    usage,
)
from tests.tiers import examples

CHILD_TURN = "01990000-1001-7000-8000-00000000000b"
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def exec_end(seconds: float, id: str, code: int = 0, text: str = "a.txt\n", **more: Any) -> Json:
    """Return the end event of a command, with its output three times."""
    outputs = {"stdout": text, "aggregated_output": text, "formatted_output": text, "stderr": ""}
    about = {"command": ["bash", "-lc", "ls"], "status": "failed" if code else "completed"}
    duration = {"secs": 1, "nanos": 500_000_000}
    return event(seconds, "exec_command_end", call_id=id, exit_code=code, duration=duration, **outputs, **about, **more)


def completed(seconds: float, type: str, **more: Any) -> Json:
    """Return a completed item, as newer versions write it."""
    return event(seconds, "item_completed", thread_id=THREAD, item={"type": type, **more})


def spawned(seconds: float, id: str, thread: str | None) -> Json:
    """Return the end event of a spawn."""
    return event(seconds, "collab_agent_spawn_end", call_id=id, new_thread_id=thread, new_agent_nickname="Ada")


def sub_agent(id: str, parent: str, **more: Any) -> Json:
    """Return the header of a thread that another one spawned."""
    spawn = {"parent_thread_id": parent, "depth": 1, "agent_nickname": "Ada", "agent_role": "explorer"}
    return header(id, 20, source={"subagent": {"thread_spawn": spawn}}, **more)


WHOLE: list[Any] = [
    header(base_instructions={"text": "You are Codex."}, dynamic_tools=[{"name": "clock"}]),
    turn(1),
    message(1, "developer", "<permissions instructions>Ask first."),
    message(1, "user", "<environment_context><cwd>/home/ann/shop</cwd></environment_context>"),
    message(1, "user", "# AGENTS.md instructions for /home/ann/shop\nUse tabs."),
    context(1),
    *prompt(2, "Fix /home/ann/shop/cart.py, issue 17"),
    event(2.1, "token_count", info=None, rate_limits={"plan_type": "team"}),
    item(3, "reasoning", summary=[{"type": "summary_text", "text": "Look first"}], encrypted_content="gAAAA"),
    event(3, "agent_reasoning", text="Look first"),
    *said(4, "I list the files."),
    call(4, "c1", cmd="ls"),
    call(4, "c2", cmd="false"),
    tokens(4, usage(1000, 50, 800, 20)),
    exec_end(6, "c1"),
    output(6, "c1", "Chunk ID: 1\nProcess exited with code 0\nOutput:\na.txt\n"),
    exec_end(6.5, "c2", 1, ""),
    output(7, "c2", "Process exited with code 1\nOutput:\n"),
    tokens(7, usage(1000, 50, 800, 20)),
    item(8, "custom_tool_call", name="apply_patch", input="*** Begin Patch", call_id="c3"),
    tokens(8, usage(1200, 30, 1000), usage(2200, 80, 1800, 20)),
    event(9, "patch_apply_end", call_id="c3", success=False, stdout="", stderr="no match", changes={"cart.py": {}}),
    item(9, "custom_tool_call_output", call_id="c3", output='{"output":"no match","metadata":{"exit_code":1}}'),
    *said(10, "It does not apply."),
    tokens(10, usage(1300, 10, 1200), usage(3500, 90, 3000, 20)),
    done(11, "It does not apply."),
]


def test_the_session_says_what_the_thread_was() -> None:
    session = decode(WHOLE).session
    assert session is not None
    assert (session.id, session.agent, session.version, session.outcome) == (THREAD, "codex", "0.120.0", "answered")
    assert (session.output, session.task) == ("It does not apply.", "fix # issue #")
    assert session.git_commit == "a" * 40
    assert (session.parent, session.conversation, session.error) == (None, None, None)
    assert set(session.fingerprint) == {
        "model", "system_prompt", "instructions", "tools", "permission_mode", "effort", "cli_version",
    }  # fmt: skip
    assert session.fingerprint["permission_mode"] == "on-request, workspace-write"
    expected = {"cwd": "/home/ann/shop", "git_branch": "main", "entrypoint": "codex-tui", "models": ["gpt-5.4"]}
    assert expected.items() <= session.metadata.items()


def test_the_steps_of_a_turn() -> None:
    decoded = decode(WHOLE)
    kinds = [(step.type, step.status) for step in decoded.of("message", "llm", "tool")]
    assert kinds == [(kind, "complete") for kind in ("message", "llm", "tool", "tool", "llm", "tool", "llm")]
    assert not decoded.unread


def test_a_prompt_is_no_instruction_and_stands_once() -> None:
    decoded = decode(WHOLE)
    assert [step.payload for step in decoded.of("message")] == [
        {"role": "user", "content": "Fix /home/ann/shop/cart.py, issue 17"}
    ]
    expected = ["base_instructions", "dynamic_tools", "developer", "environment_context", "AGENTS.md"]
    assert decoded.names() == expected


def test_instructions_that_are_written_again_stand_once() -> None:
    again = [*WHOLE, message(20, "developer", "<permissions instructions>Ask first.")]
    assert decode(again).steps.keys() == decode(WHOLE).steps.keys()


def test_instructions_are_a_part_of_the_fingerprint() -> None:
    other = json.loads(json.dumps(WHOLE).replace("Use tabs", "Use spaces"))
    one, two = decode(WHOLE).session, decode(other).session
    assert one is not None
    assert two is not None
    assert {name for name in one.fingerprint if one.fingerprint[name] != two.fingerprint[name]} == {"instructions"}


def test_skills_are_a_part_of_the_fingerprint() -> None:
    listed = message(1, "developer", "<skills_instructions>\n## Skills\n- review")
    session = decode([header(), listed]).session
    assert session is not None
    assert set(session.fingerprint) == {"skills", "cli_version"}


def test_an_answer_has_its_text_once_and_its_tokens() -> None:
    first, second, third = decode(WHOLE).of("llm")
    assert first.payload == {
        "model": "gpt-5.4", "effort": "high", "permission_mode": "on-request, workspace-write",
    }  # fmt: skip
    assert first.result == {
        "text": "I list the files.",
        "thinking": "Look first",
        "tool_calls": [
            {"id": "c1", "name": "exec_command", "arguments": {"cmd": "ls"}},
            {"id": "c2", "name": "exec_command", "arguments": {"cmd": "false"}},
        ],
        "input_tokens": 1000,
        "cached_tokens": 800,
        "output_tokens": 50,
        "reasoning_tokens": 20,
    }
    assert second.result is not None
    assert second.result["input_tokens"] == 1200
    assert third.result is not None
    assert (third.result["text"], third.result["output_tokens"]) == ("It does not apply.", 10)


def test_a_total_that_starts_again_counts() -> None:
    records = [header(), turn(1), *said(2, "a"), tokens(2, usage(10, 1), usage(500, 9)), *said(3, "b"),
               tokens(3, usage(20, 2), usage(20, 2))]  # fmt: skip
    assert [(step.result or {})["input_tokens"] for step in decode(records).of("llm")] == [10, 20]


def test_tokens_without_an_answer_are_a_call_all_the_same() -> None:
    (step,) = decode([header(), turn(1), tokens(2, usage(10, 1))]).of("llm")
    assert step.result is not None
    assert step.result["output_tokens"] == 1


def test_a_text_that_only_an_event_has_is_kept() -> None:
    records = [header(), turn(1), event(2, "agent_message", message="only here"), tokens(2, usage(10, 1))]
    (step,) = decode(records).of("llm")
    assert (step.result or {})["text"] == "only here"


def test_records_of_one_millisecond_keep_their_order() -> None:
    records = [header(), turn(0), *prompt(0, "hi"), call(0, "c1"), output(0, "c1", "x"), *said(0, "ho"), done(0)]
    starts = [step.start_ns // 1000 for step in decode(records).of("message", "llm", "tool")]
    kinds = [step.type for step in decode(records).of("message", "llm", "tool")]
    assert (kinds, len(set(starts))) == (["message", "llm", "tool", "llm"], 4)


def test_a_command_has_its_output_once_and_its_exit_code() -> None:
    one, two = decode(WHOLE).of("tool")[:2]
    assert one.payload == {"name": "exec_command", "arguments": {"cmd": "ls"}, "call_id": "c1"}
    assert one.result is not None
    assert json.dumps(one.result).count("a.txt") == 1
    assert one.result["exit_code"] == 0
    assert one.result["structured"]["duration_ms"] == 1500
    assert "is_error" not in one.result
    assert two.result is not None
    assert (two.result["exit_code"], two.result["is_error"]) == (1, True)


def test_output_that_the_model_did_not_read_is_kept() -> None:
    records = [header(), call(1, "c1"), exec_end(2, "c1", text="long " * 9), output(2, "c1", "long …8 tokens cut…")]
    (step,) = decode(records).of("tool")
    assert step.result is not None
    assert step.result["output"] == "long …8 tokens cut…"
    assert step.result["structured"]["full_output"] == "long " * 9


def test_a_command_that_goes_on_gets_its_exit_code_later() -> None:
    running = output(2, "c1", "Process running with session ID 7\nOutput:\n")
    stdin = call(3, "c2", "write_stdin", session_id=7)
    records = [header(), call(1, "c1"), running, stdin, output(4, "c2", "done"), exec_end(9, "c1", 3)]
    first, second = decode(records).of("tool")
    assert first.result is not None
    assert (first.result["exit_code"], first.result["structured"]["status"]) == (3, "failed")
    assert (first.end_ns or 0) < second.start_ns
    assert second.payload["name"] == "write_stdin"


def test_a_patch_that_fails_is_an_error() -> None:
    step = decode(WHOLE).steps["c3"]
    assert step.result is not None
    assert step.result["is_error"] is True
    assert step.result["output"] == "no match"
    assert step.result["structured"] == {"success": False, "changes": {"cart.py": {}}}


@pytest.mark.parametrize("text", ["exec_command failed for `x`: Rejected", "apply_patch verification failed: no file"])
def test_a_call_that_could_not_be_run_is_an_error(text: str) -> None:
    step = decode([header(), call(1, "c1"), output(2, "c1", text)]).steps["c1"]
    assert step.result == {"output": text, "is_error": True}


def test_settings_that_are_written_a_second_time_change_no_permission() -> None:
    applied = {"model": "gpt-5.4", "approval_policy": "never", "permission_profile": {"type": "managed"}}
    first = decode([header(), event(1, "thread_settings_applied", thread_settings=applied)]).session
    both = decode([header(), context(1), event(1, "thread_settings_applied", thread_settings=applied)]).session
    assert first is not None
    assert both is not None
    assert first.fingerprint["permission_mode"] == "never, managed"
    assert both.fingerprint["permission_mode"] == "on-request, workspace-write"


def test_a_command_of_the_person_is_a_step() -> None:
    (step,) = decode([header(), exec_end(5, "u1", source="user_shell")]).of("tool")
    assert (step.payload["name"], step.payload["arguments"]) == ("shell", ["bash", "-lc", "ls"])
    assert step.result is not None
    assert step.result["output"] == "a.txt\n"
    assert step.end_ns is not None
    assert step.end_ns - step.start_ns == 1_500_000_000


@pytest.mark.parametrize("named", [True, False])
def test_an_mcp_call_names_its_server(named: bool) -> None:
    name = "mcp__weather__now" if named else "now"
    ok = {"Ok": {"content": [{"type": "text", "text": "rain"}], "isError": False}}
    invocation = {"server": "weather", "tool": "now", "arguments": {"city": "Rome"}}
    end = event(
        3, "mcp_tool_call_end", call_id="c1", invocation=invocation, result=ok, duration={"secs": 1, "nanos": 0}
    )
    (step,) = decode([header(), call(1, "c1", name, city="Rome"), end, output(3, "c1", "rain")]).of("mcp")
    assert step.payload == {
        "method": "tools/call", "server": "weather", "target": "now", "arguments": {"city": "Rome"}, "call_id": "c1",
    }  # fmt: skip
    assert step.result is not None
    assert step.result["result"] == ok["Ok"]
    assert step.result["structured"] == {"duration_ms": 1000}


def test_an_mcp_call_may_fail() -> None:
    item = {"id": "c1", "server": "weather", "tool": "now", "status": "failed", "result": {"Err": "down"}}
    (step,) = decode([header(), call(1, "c1", "now"), completed(2, "McpToolCall", **item), output(2, "c1", "down")]).of(
        "mcp"
    )
    assert step.result is not None
    assert (step.result["result"], step.result["is_error"]) == ("down", True)


@pytest.mark.parametrize("is_event_first", [True, False])
def test_a_web_search_is_one_step(is_event_first: bool) -> None:
    both = [
        event(2, "web_search_end", call_id="ws_1", query="tabs", action={"type": "search"}),
        item(2, "web_search_call", status="completed", action={"type": "search", "query": "tabs"}),
    ]
    (step,) = decode([header(), *(both if is_event_first else reversed(both))]).of("tool")
    assert step.payload["name"] == "web_search"


def test_a_call_of_the_host_program_is_joined_with_its_events() -> None:
    request = event(2, "dynamic_tool_call_request", callId="d1", turnId=TURN_ID, tool="clock", arguments={})
    content = [{"type": "inputText", "text": "noon"}]
    response = event(3, "dynamic_tool_call_response", call_id="d1", tool="clock", success=True, content_items=content)
    (alone,) = decode([header(), request, response]).of("tool")
    assert alone.payload == {"name": "clock", "arguments": {}, "call_id": "d1"}
    assert alone.result is not None
    assert alone.result["output"] == content
    (joined,) = decode([header(), call(1, "d1", "clock"), request, response, output(3, "d1", "noon")]).of("tool")
    assert joined.result is not None
    assert joined.result["output"] == "noon"


TURN_ID = "01990000-0001-7000-8000-00000000000a"


def test_a_spawn_has_the_key_that_the_child_names() -> None:
    spawn = [call(1, "s1", "spawn_agent", message="look"), spawned(2, "s1", CHILD)]
    parent = decode([header(), *spawn, output(2, "s1", json.dumps({"agent_id": CHILD}))])
    child = decode([sub_agent(CHILD, THREAD), *prompt(21, "look")]).session
    assert child is not None
    assert child.parent == (THREAD, f"spawn:{CHILD}")
    assert (child.name, child.goal) == ("Ada", "look")
    assert parent.steps[f"spawn:{CHILD}"].payload["name"] == "spawn_agent"
    grandchild = decode([sub_agent(GRANDCHILD, CHILD)]).session
    assert grandchild is not None
    assert grandchild.parent == (CHILD, f"spawn:{GRANDCHILD}")


def test_a_spawn_is_known_by_its_output_or_by_the_activity_of_the_thread() -> None:
    begun = [header(), call(1, "s1", "spawn_agent", message="look")]
    by_output = decode([*begun, output(2, "s1", json.dumps({"agent_id": CHILD}))])
    started = event(2, "sub_agent_activity", agent_thread_id=CHILD, agent_path="/root/ada", kind="started")
    by_activity = decode([*begun, started, output(2, "s1", "started")])
    assert by_output.steps.keys() == by_activity.steps.keys() == {"llm:2", f"spawn:{CHILD}"}


def test_an_item_binds_a_thread_to_the_call_that_spawned_it() -> None:
    activity = {"agent_thread_id": CHILD, "agent_path": "/root/ada", "model": None}
    decoded = decode(
        [
            header(),
            call(1, "s1", "spawn_agent", message="look"),
            call(1, "s2", "spawn_agent", message="no"),
            completed(2, "SubAgentActivity", id="s1", kind="started", **activity),
            output(2, "s1", "started"),
            completed(3, "SubAgentActivity", id="end", kind="completed", **activity),
        ]
    )
    assert decoded.steps[f"spawn:{CHILD}"].payload["arguments"] == {"message": "look"}
    (ended,) = decoded.of("event")
    assert (ended.payload["name"], ended.payload["content"]["kind"]) == ("SubAgentActivity", "completed")
    assert not decoded.unread


def test_a_spawn_that_failed_is_an_error() -> None:
    records = [header(), call(1, "s1", "spawn_agent"), spawned(2, "s1", None), output(2, "s1", "no such agent")]
    assert decode(records).steps["s1"].result is not None


def test_a_review_is_a_run_of_its_own_unless_it_names_its_parent() -> None:
    alone = decode([header(source={"subagent": "review"})]).session
    below = decode([header(CHILD, source={"subagent": "review"}, parent_thread_id=THREAD)]).session
    assert alone is not None
    assert below is not None
    assert (alone.parent, below.parent, below.name) == (None, (THREAD, None), "review")


def test_an_interrupted_turn_cancels_what_is_open() -> None:
    records = [header(), turn(1), *prompt(1, "go"), *said(2, "I run it."), call(2, "c1"),
               event(5, "turn_aborted", turn_id=TURN_ID, reason="interrupted")]  # fmt: skip
    decoded = decode(records)
    assert decoded.session is not None
    assert decoded.session.outcome == "interrupted"
    assert [step.status for step in decoded.of("llm", "tool")] == ["cancelled", "cancelled"]
    assert decoded.names() == ["turn_aborted"]


@pytest.mark.parametrize("text", ["aborted by user after 1.0s", "Wall time: 3.5 seconds\naborted by user"])
def test_an_output_may_say_that_a_person_stopped_the_call(text: str) -> None:
    records = [header(), call(1, "c1"), output(2, "c1", text)]
    assert decode(records).steps["c1"].status == "cancelled"


def test_a_call_of_a_tool_that_does_not_exist_is_an_error() -> None:
    records = [header(), call(1, "c1"), output(2, "c1", "unsupported call: dance")]
    assert decode(records).steps["c1"].result == {"output": "unsupported call: dance", "is_error": True}


def test_a_call_without_output_is_active_until_its_turn_ends() -> None:
    records = [header(), turn(1), call(1, "c1")]
    assert decode(records).steps["c1"].status == "active"
    assert decode([*records, done(2)]).steps["c1"].status == "cancelled"


@pytest.mark.parametrize(
    ("info", "outcome"),
    [
        ("usage_limit_exceeded", "limit"),
        ({"response_too_many_failed_attempts": {"http_status_code": 429}}, "limit"),
        ({"response_stream_disconnected": {"http_status_code": 500}}, "error"),
        ("other", "error"),
        (None, "error"),
    ],
)
@pytest.mark.parametrize("is_event", [True, False])
def test_a_failed_turn_is_a_failed_call(info: Any, outcome: str, is_event: bool) -> None:
    error = {"message": "it failed", "codex_error_info": info}
    end = [event(3, "error", **error), done(3, None)] if is_event else [event(3, "task_complete", error=error)]
    decoded = decode([header(), turn(1), *prompt(2, "go"), *end])
    (step,) = decoded.of("llm")
    assert decoded.session is not None
    assert (decoded.session.outcome, step.status) == (outcome, "failed")
    assert decoded.session.error is not None
    assert decoded.session.error["message"] == (step.result or {})["error"]["message"] == "it failed"


def test_an_attempt_that_was_tried_again_is_a_failed_call_of_a_turn_that_goes_on() -> None:
    lost = event(2, "stream_error", message="Reconnecting... 1/5", additional_details="closed")
    decoded = decode([header(), turn(1), lost, *said(3, "Here."), tokens(3, usage(1, 1)), done(3)])
    assert [step.status for step in decoded.of("llm")] == ["failed", "complete"]
    assert decoded.of("llm")[0].payload["retry"]["message"] == "Reconnecting... 1/5"
    assert decoded.session is not None
    assert decoded.session.outcome == "answered"


@pytest.mark.parametrize("text", ["The cart is fixed.", ""])
def test_a_compaction_has_its_summary_and_its_sizes(text: str) -> None:
    kept = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]}]
    records = [
        header(), turn(1), *prompt(1, "go"), *said(2, "a"), tokens(2, usage(900, 10)),
        record("compacted", {"message": text, "replacement_history": kept}, 3),
        tokens(3, {**usage(0, 0), "total_tokens": 120}, usage(900, 10)),
        event(3, "context_compacted"),
    ]  # fmt: skip
    (step,) = decode(records).of("compaction")
    assert step.payload == {"trigger": "auto", "tokens_before": 910}
    summary = text or [{"role": "user", "content": "go"}]
    assert step.result == {"summary": summary, "messages_kept": 1, "tokens_after": 120}


def test_the_call_that_wrote_a_summary_stands_before_the_compaction() -> None:
    records = [
        header(), turn(1), *prompt(1, "go"),
        call(2, "c1"), record("token_usage_record", {"usage": usage(900, 10)}, 2), output(3, "c1", "x"),
        message(4, "assistant", "Summary"), record("token_usage_record", {"usage": usage(50, 5)}, 4),
        record("compacted", {"message": "Summary"}, 4),
    ]  # fmt: skip
    decoded = decode(records)
    (step,) = decoded.of("compaction")
    assert step.payload["tokens_before"] == 910
    assert [each.type for each in decoded.of("llm", "compaction")] == ["llm", "llm", "compaction"]
    assert decoded.of("llm")[1].start_ns < step.start_ns


def test_a_compaction_of_which_only_an_event_tells_is_kept() -> None:
    assert len(decode([header(), turn(1), event(3, "context_compacted")]).of("compaction")) == 1


def copied() -> list[Any]:
    """Return the records of a thread with the time of its fork."""
    return [{**each, "timestamp": at_fork} for each in WHOLE]


at_fork = "2026-01-02T03:00:20.000Z"


def test_a_fork_leaves_out_what_it_copied() -> None:
    repeated = tokens(21, usage(1300, 10), usage(3500, 90, 3000, 20))
    answer = [*said(22, "Now."), tokens(22, usage(1400, 7), usage(4900, 97, 3000, 20)), done(22, "Now.")]
    own = [turn(20, CHILD_TURN), context(20), *prompt(21, "and now?"), repeated, *answer]
    decoded = decode([header(CHILD, 20, forked_from_id=THREAD), *copied(), *own])
    assert decoded.session is not None
    assert (decoded.session.id, decoded.session.conversation) == (CHILD, THREAD)
    assert [step.payload["content"] for step in decoded.of("message")] == ["and now?"]
    (step,) = decoded.of("llm")
    assert (step.result or {})["output_tokens"] == 7
    assert "instructions" in decoded.session.fingerprint


def test_a_fork_of_a_fork_belongs_to_the_first_conversation() -> None:
    chain = [header(GRANDCHILD, 20, forked_from_id=CHILD), header(CHILD, 20, forked_from_id=THREAD), *copied()]
    decoded = decode(chain)
    assert decoded.session is not None
    assert decoded.session.conversation == THREAD
    assert not decoded.steps


def test_a_fork_of_a_version_without_timed_turns_is_cut_at_the_pause() -> None:
    old = [each for each in copied() if each["payload"].get("type") != "task_started"]
    decoded = decode([header(CHILD, 20, forked_from_id=THREAD), *old, *prompt(25, "and now?")])
    assert [step.payload["content"] for step in decoded.of("message")] == ["and now?"]


def test_a_fork_that_copies_nothing_counts_only_its_own_tokens() -> None:
    base = {"thread_id": THREAD, "end_ordinal_exclusive": 27}
    total = usage(3500, 90)
    records = [
        header(CHILD, 20, forked_from_id=THREAD, history_base=base, history_mode="paginated"),
        turn(20, CHILD_TURN), tokens(20, usage(1300, 10), total),
        completed(21, "UserMessage", content=[{"type": "text", "text": "and now?"}]),
        completed(22, "AgentMessage", content=[{"type": "Text", "text": "Now."}]), message(22, "assistant", "Now."),
        record("token_usage_record", {"response_id": "r1", "usage": usage(1400, 7)}, 22),
        tokens(22, usage(1400, 7), usage(4900, 97)),
    ]  # fmt: skip
    decoded = decode(records)
    (step,) = decoded.of("llm")
    assert step.result == {
        "text": "Now.", "input_tokens": 1400, "cached_tokens": 0, "output_tokens": 7, "reasoning_tokens": 0,
        "response_id": "r1",
    }  # fmt: skip
    assert decoded.session is not None
    assert decoded.session.conversation == THREAD


def test_completed_items_are_joined_with_their_response_items() -> None:
    text = {"content": [{"type": "text", "text": "go"}]}
    command = {"id": "c1", "command": ["ls"], "status": "failed", "exit_code": 2, "aggregated_output": "a.txt"}
    records = [
        header(history_mode="paginated"), turn(1), message(1, "user", "go"), completed(1, "UserMessage", **text),
        completed(2, "Reasoning", id="r1", summary_text=["Look"], raw_content=[]),
        item(2, "reasoning", id="r1", summary=[{"type": "summary_text", "text": "Look"}]), call(2, "c1", cmd="ls"),
        record("token_usage_record", {"usage": usage(9, 1)}, 2), completed(3, "CommandExecution", **command),
        output(3, "c1", "a.txt"), completed(4, "ContextCompaction", id="x"), done(5),
    ]  # fmt: skip
    decoded = decode(records)
    assert [step.type for step in decoded.of("message", "llm", "tool", "compaction")] == [
        "message", "llm", "tool", "compaction",
    ]  # fmt: skip
    assert (decoded.steps["c1"].result or {})["exit_code"] == 2
    assert (decoded.of("llm")[0].result or {})["thinking"] == "Look"
    assert not decoded.unread


FLAT: list[Any] = [
    {"id": "3f6c0000-0000-4000-8000-000000000000", "timestamp": "2025-01-02T03:04:05.000Z", "instructions": "Tabs."},
    {"record_type": "state"},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment_context>x"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "go"}]},
    {"type": "reasoning", "summary": []},
    {"type": "function_call", "name": "shell", "arguments": '{"command":["ls"]}', "call_id": "c1"},
    {"type": "function_call_output", "call_id": "c1",
     "output": '{"output":"a.txt","metadata":{"exit_code":0,"duration_seconds":0.5}}'},
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Done."}]},
]  # fmt: skip


def test_the_first_form_has_no_times_and_no_envelopes() -> None:
    decoded = decode(FLAT)
    assert decoded.session is not None
    assert (decoded.session.outcome, decoded.session.output) == ("answered", "Done.")
    kinds = [step.type for step in decoded.of("message", "llm", "tool")]
    assert kinds == ["message", "llm", "tool", "llm"]
    assert decoded.names() == ["instructions", "environment_context"]
    assert decoded.steps["c1"].result == {"output": "a.txt", "exit_code": 0, "structured": {"duration_ms": 500.0}}
    assert "instructions" in decoded.session.fingerprint


def test_a_version_without_turns_ends_with_its_answers() -> None:
    records = [header(), context(1), *prompt(1, "go"), *said(2, "Gone."), tokens(2, usage(1, 1)), *prompt(3, "back")]
    decoded = decode(records)
    assert [step.payload.get("steering") for step in decoded.of("message")] == [None, None]
    sessions = [decode(records[:end]).session for end in (4, 5, 6, 7, 9)]
    assert [session and session.outcome for session in sessions] == [None, None, "answered", "answered", None]


def test_images_are_blocks() -> None:
    content = [{"type": "input_image", "image_url": PIXEL}, {"type": "input_text", "text": "what is this?"}]
    shown = item(1, "message", role="user", content=content)
    decoded = decode([header(), shown, event(1, "user_message", message="what is this?", images=[PIXEL])])
    (step,) = decoded.of("message")
    assert step.payload["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
        {"type": "text", "text": "what is this?"},
    ]


def test_a_prompt_of_which_only_the_event_is_there_has_its_images() -> None:
    (step,) = decode([header(), event(1, "user_message", message="see", images=[PIXEL])]).of("message")
    assert [block["type"] for block in step.payload["content"]] == ["text", "image"]


def test_text_that_is_typed_while_the_agent_works_steers() -> None:
    records = [header(), turn(1), *prompt(1, "go"), *said(2, "I go."), *prompt(3, "not there")]
    assert [step.payload.get("steering") for step in decode(records).of("message")] == [None, True]


def test_a_name_a_review_a_hook_and_a_warning() -> None:
    hook = {"id": "h1", "event_name": "stop", "status": "completed", "entries": [{"kind": "stop", "text": "ok"}]}
    records = [
        header(), event(1, "thread_name_updated", thread_name="The cart"), event(2, "entered_review_mode", target="x"),
        event(3, "hook_completed", run=hook), event(4, "warning", message="slow"),
    ]  # fmt: skip
    decoded = decode(records)
    assert decoded.session is not None
    assert decoded.session.metadata["title"] == "The cart"
    assert decoded.names() == ["entered_review_mode", "warning"]
    assert (decoded.names("hook"), decoded.of("hook")[0].payload["event"]) == (["h1"], "stop")


def test_messages_between_agents_are_no_prompts() -> None:
    between = item(
        1, "agent_message", author="/root", recipient="/root/ada", content=[{"type": "input_text", "text": "go"}]
    )
    (step,) = decode([header(), between]).of("message")
    assert step.payload == {"role": "agent", "content": "go", "author": "/root", "recipient": "/root/ada"}


def test_what_is_unknown_is_kept_and_counted() -> None:
    records = [header(), b"{", b"[]", record("news", {"a": 1}, 1), event(1, "newer"), item(1, "newest"),
               completed(1, "Newest"), output(1, "nobody", "x")]  # fmt: skip
    decoded = decode(records)
    assert decoded.unread == {
        "a line that is no JSON": 1,
        "a record that is no object": 1,
        "record of type news": 1,
        "record of type event_msg:newer": 1,
        "record of type response_item:newest": 1,
        "record of type item_completed:Newest": 1,
        "record of type output without its call": 1,
    }
    kept = decoded.of("unknown:event")
    assert len(kept) == 5
    assert kept[0].payload["content"] == records[3]


def test_numbers_and_depths_that_no_storage_takes_are_no_error() -> None:
    odd = b'{"timestamp": "", "type": "news", "payload": {"a": "\\ud800", "b": [NaN, -Infinity, 1e999, 1.5]}}'
    deep = b'{"type": "news", "payload": {"a": ' + b"[" * 550 + b"]" * 550 + b"}}"
    decoded = decode([header(), odd, deep])
    (step,) = decoded.of("unknown:event")
    assert step.payload["content"]["payload"] == {"a": "\ud800", "b": ["NaN", "-Infinity", "1e999", 1.5]}
    assert decoded.unread == {"record of type news": 1, "a line that is no JSON": 1}


@pytest.mark.parametrize("records", [WHOLE, FLAT, [*WHOLE, *WHOLE], [*WHOLE[1:], WHOLE[0]]])
def test_a_rollout_that_grows_gives_the_steps_of_the_whole(records: list[Any]) -> None:
    assert grown(records) == decode(records)


def test_the_task_is_the_normal_form_of_the_prompt() -> None:
    text = "Fix  src/cart.py, see https://example.org/7 since 3f2a9c1d\n in 3.5 days"
    session = decode([header(), *prompt(2, text)]).session
    assert session is not None
    assert session.task == task_of(text) == "fix # see # since # in #.# days"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
EVERYTHING = [
    *WHOLE, *FLAT, sub_agent(CHILD, THREAD), spawned(1, "s", CHILD), exec_end(1, "x"),
    event(1, "error", message="x", codex_error_info={"a": {"http_status_code": 1}}),
    event(1, "mcp_tool_call_end", call_id="c1", invocation={"server": "a", "tool": "b"}, result={"Ok": {}}),
    record("compacted", {"message": "", "replacement_history": [{"role": "user", "content": []}]}),
    completed(1, "WebSearch", id="w"), event(1, "hook_completed", run={"id": "h"}),
    event(1, "sub_agent_activity", agent_thread_id=CHILD, kind="started"),
    completed(1, "SubAgentActivity", agent_thread_id=CHILD, kind="started", id="x"),
    event(1, "dynamic_tool_call_request", callId="d", tool="t"),
    event(1, "dynamic_tool_call_response", call_id="d", content_items=[]),
    record("token_usage_record", {"usage": usage(1, 1)}), event(1, "stream_error", message="x"),
    event(1, "thread_settings_applied", thread_settings={"model": "m"}), event(1, "turn_aborted", reason="x"),
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all members of a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, each in inner for place in places(each, (*path, name)))]


PLACES = [(at, path) for at, each in enumerate(EVERYTHING) for path in places(each) if path]


def changed(records: list[Any], place: tuple[int, tuple[Any, ...]], value: Any) -> None:
    """Replace a member; remove it if the value is `...`."""
    at, path = place
    inner = records[at]
    for name in path[:-1]:
        if not isinstance(inner, dict | list) or (isinstance(inner, dict) and name not in inner):
            return
        if isinstance(inner, list) and (not isinstance(name, int) or name >= len(inner)):
            return
        inner = inner[name]
    if value is ... and isinstance(inner, dict):
        inner.pop(path[-1], None)
    elif isinstance(inner, dict):
        inner[path[-1]] = None if value is ... else value


@pytest.mark.parametrize("value", [..., None, 1, "\ud800", [], {"type": {}}], ids=lambda value: type(value).__name__)
def test_any_member_may_be_anything(value: Any) -> None:
    for start in range(29):  # a few members of different records at once
        records = json.loads(json.dumps(EVERYTHING))
        for place in reversed(PLACES[start::29]):
            changed(records, place, value)
        decode(records)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.tuples(st.sampled_from(PLACES), st.just(...) | ANY_JSON), min_size=1, max_size=6))
def test_no_record_is_an_error(changes: list[tuple[tuple[int, tuple[Any, ...]], Any]]) -> None:
    records = json.loads(json.dumps(EVERYTHING))
    for place, value in changes:
        changed(records, place, value)
    assert grown(records).steps == decode(records).steps
