"""Trace items of OpenAI's Agents SDK: a trace is a session, a span a step, an error counts once."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.openai_agents import FORMATS, ItemDecoder
from tests.sessions.stored import stored

(FORMAT,) = FORMATS
USAGE = {"input_tokens": 100, "output_tokens": 10, "input_tokens_details": {"cached_tokens": 60}}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
ASKED = {"role": "user", "content": [{"type": "input_text", "text": "How is Rome 5?"}, IMAGE]}
CALLED = {"type": "function_call", "call_id": "k1", "name": "look", "arguments": '{"at": "Rome"}'}
RETURNED = {"type": "function_call_output", "call_id": "k1", "output": "sunny"}
ANSWERED = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Sunny."}]}


def at(seconds: float) -> str:
    """Return a time."""
    return f"2026-01-02T03:04:{seconds:09.6f}+00:00"


def span(
    id: str, parent: str | None, start: float, end: float | None, data: dict[str, Any], error: Any = None
) -> dict[str, Any]:
    """Return the item of a span."""
    times = {"started_at": at(start), "ended_at": None if end is None else at(end)}
    of = {"object": "trace.span", "id": id, "trace_id": "trace_1", "parent_id": parent}
    return {**of, **times, "span_data": data, "error": error}


def custom(kind: str, **data: Any) -> dict[str, Any]:
    """Return the data of one of the SDK's own spans."""
    return {"type": "custom", "name": kind, "data": {"sdk_span_type": kind, **data}}


def generation(**members: Any) -> dict[str, Any]:
    """Return the data of a call of a model."""
    return {"type": "generation", "model": "gpt-4o-mini", "model_config": {"temperature": 0}, "usage": USAGE, **members}


TRACE = {"object": "trace", "id": "trace_1", "workflow_name": "Trip", "group_id": "g1", "metadata": {"user": "u"}}
SPANS = [
    span("llm1", "turn1", 1.3, 1.4, generation(input=[ASKED], output=[CALLED])),
    span("tool1", "turn1", 1.5, 1.6, {"type": "function", "name": "look", "input": '{"at": "Rome"}',
                                      "output": "sunny"}),
    span("mcp1", "turn1", 1.51, 1.6, {"type": "function", "name": "read", "input": "{}", "output": "x",
                                     "mcp_data": {"server": "files"}}),
    span("turn1", "agent1", 1.2, 1.7, custom("turn", turn=1, agent_name="Asker", usage=USAGE)),
    span("hand1", "agent1", 1.8, 1.81, {"type": "handoff", "from_agent": "Asker", "to_agent": "Teller"}),
    span("agent1", "task1", 1.1, 1.9, {"type": "agent", "name": "Asker", "handoffs": ["Teller"], "tools": ["look"]}),
    span("llm2", "agent2", 2.1, 2.2, generation(input=[ASKED, CALLED, RETURNED], output=[ANSWERED])),
    span("resp1", "agent2", 2.3, 2.4, {"type": "response", "response_id": "resp_1", "usage": USAGE}),
    span("guard1", "agent2", 2.5, 2.6, {"type": "guardrail", "name": "no_secret", "triggered": True}),
    span("list1", "agent2", 2.61, 2.62, {"type": "mcp_tools", "server": "files", "result": ["read"]}),
    span("say1", "agent2", 2.63, 2.64, {"type": "speech", "model": "tts", "input": "hi",
                                       "output": {"data": "AAAA", "format": "pcm"}}),
    span("hear1", "agent2", 2.65, 2.66, {"type": "transcription", "model": "stt", "output": "hi",
                                        "input": {"data": "AAAA", "format": "pcm"}}),
    span("own1", "agent2", 2.67, 2.68, {"type": "custom", "name": "prepare", "data": {"k": 1}}),
    span("agent2", "task1", 2.0, 2.7, {"type": "agent", "name": "Teller"}),
    span("task1", None, 1.0, 2.8, custom("task", name="Agent workflow")),
]  # fmt: skip
ITEMS = [TRACE, *SPANS]


def decoded(lines: Sequence[Any], *, each: bool = False) -> list[Record]:
    """Return what lines are decoded to; the rest after each line, if wanted."""
    decoder, path = ItemDecoder(Source("openai-agents", Path("x"))), Path("x")
    found: list[Record] = []
    for line in lines:
        found += decoder.feed(path, line if isinstance(line, bytes) else json.dumps(line).encode())
        found += decoder.rest() if each else ()
    return [*found, *decoder.rest()]


def steps_of(records: Sequence[Record]) -> dict[str, Step]:
    """Return the last state of each step."""
    return {record.key: record for record in records if type(record) is Step}


def session_of(records: Sequence[Record]) -> Session:
    """Return the last state of the session."""
    return [record for record in records if type(record) is Session][-1]


def told(records: Sequence[Record]) -> list[str]:
    """Return what was not understood."""
    return [record.what for record in records if type(record) is Unread]


def test_a_trace_is_a_session_and_its_spans_are_steps() -> None:
    records = decoded(ITEMS)
    steps = steps_of(records)
    assert {key: step.type for key, step in steps.items() if not key.startswith("message")} == {
        "llm1": "llm", "tool1": "tool", "mcp1": "mcp", "turn1": "chain", "hand1": "handoff", "agent1": "agent",
        "llm2": "llm", "resp1": "llm", "guard1": "guardrail", "list1": "mcp", "say1": "llm", "hear1": "llm",
        "own1": "chain", "agent2": "agent", "task1": "chain",
    }  # fmt: skip
    session = session_of(records)
    assert (session.agent, session.conversation, session.outcome) == ("Trip", "g1", "answered")
    assert (session.output, session.task) == ("Sunny.", "how is rome #?")
    assert session.is_over
    assert not told(records)


def test_a_call_has_tokens_and_no_messages_and_a_message_is_one_step() -> None:
    steps = steps_of(decoded(ITEMS))
    first = steps["llm1"]
    assert first.payload == {"temperature": 0, "model": "gpt-4o-mini"}
    assert first.result == {
        "text": "", "tool_calls": [{"id": "k1", "name": "look", "arguments": {"at": "Rome"}}],
        "input_tokens": 100, "output_tokens": 10, "cached_tokens": 60,
    }  # fmt: skip
    (message,) = (step for step in steps.values() if step.type == "message")
    assert message.payload["content"][1]["source"] == {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    assert message.start_ns < first.start_ns
    assert "usage" not in steps["turn1"].payload, "it would count tokens twice"


def test_tools_have_the_id_of_their_call() -> None:
    steps = steps_of(decoded(ITEMS))
    assert steps["tool1"].payload == {"name": "look", "arguments": {"at": "Rome"}, "call_id": "k1"}
    assert steps["mcp1"].payload == {"method": "tools/call", "server": "files", "target": "read", "arguments": {}}
    assert steps["guard1"].result == {"passed": False}


def test_an_error_counts_once() -> None:
    cause = {"message": "Error running tool", "data": {"error": "no"}}
    again = {"message": "Error in agent run", "data": {"error": "Error running tool look: no"}}
    look = {"type": "function", "name": "look", "input": "{}", "output": None}
    spans = [
        span("tool1", "turn1", 1.2, 1.3, look, cause),
        span("turn1", "agent1", 1.1, 1.4, custom("turn", turn=1)),
        span("agent1", "task1", 1.05, 1.5, {"type": "agent", "name": "A"}, again),
        span("task1", None, 1.0, 1.6, custom("task")),
    ]
    records = decoded([TRACE, *spans])
    steps = steps_of(records)
    assert [(step.status, (step.result or {}).get("error")) for step in steps.values()] == [
        ("failed", {"type": "Error running tool", "message": "no", "data": {"error": "no"}}),
        ("complete", None), ("failed", None), ("complete", None),
    ]  # fmt: skip
    assert steps["agent1"].result == {"failed_in": "tool1"}
    session = session_of(records)
    assert (session.outcome, session.error) == ("error", {"type": "Error running tool", "message": "no"})
    handled = session_of(decoded([TRACE, *spans[:2], {**spans[2], "error": None}, spans[3]]))
    assert handled.outcome == "answered", "the agent went on after its tool failed"


def test_a_turn_that_a_guardrail_ends_fails_its_agent_and_the_run() -> None:
    tripped = {"message": "Guardrail tripwire triggered", "data": {"guardrail": "no_secret"}}
    other = [
        span("turn9", "agent9", 1.0, 1.2, custom("turn")),
        span("agent9", None, 0.9, 1.6, {"type": "agent", "name": "B"}),
    ]
    spans = [
        span("guard1", "turn1", 1.1, 1.2, {"type": "guardrail", "name": "no_secret", "triggered": True}),
        span("turn1", "agent1", 1.0, 1.3, custom("turn"), tripped),
        *other,
        span("agent1", None, 0.9, 1.7, {"type": "agent", "name": "A"}),
    ]
    records = decoded([TRACE, *spans])
    assert session_of(records).outcome == "error"
    assert {key: step.status for key, step in steps_of(records).items()} == {
        "guard1": "complete", "turn1": "failed", "turn9": "complete", "agent9": "complete", "agent1": "failed",
    }  # fmt: skip
    again = [spans[1], span("turn2", "agent1", 1.4, 1.5, custom("turn")), spans[-1]]
    assert session_of(decoded([TRACE, *again])).outcome == "answered", "a later turn went well"


def test_a_streamed_answer_has_its_text_and_zeros_are_no_usage() -> None:
    whole = {"object": "response", "id": "__fake_id__", "output": [ANSWERED, CALLED]}
    none = {"input_tokens": 0, "output_tokens": 0, "input_tokens_details": {"cached_tokens": 0}}
    result = steps_of(decoded([TRACE, span("llm1", None, 1, 2, generation(output=[whole], usage=none))]))["llm1"].result
    assert result == {
        "text": "Sunny.", "tool_calls": [{"id": "k1", "name": "look", "arguments": {"at": "Rome"}}],
    }  # fmt: skip


def test_lines_that_grow_give_the_steps_of_the_whole() -> None:
    assert steps_of(decoded(ITEMS, each=True)) == steps_of(decoded(ITEMS))
    assert session_of(decoded(ITEMS, each=True)) == session_of(decoded(ITEMS))


@pytest.mark.parametrize(
    "lines",
    [
        [{"data": ITEMS}],
        [{"data": ITEMS[:5]}, {"data": ITEMS[5:]}],
        [ITEMS],
        json.dumps({"data": ITEMS}, indent=2).encode().split(b"\n"),
    ],
    ids=["bodies", "two bodies", "list", "document"],
)
def test_bodies_and_documents_give_the_same(lines: list[Any]) -> None:
    assert steps_of(decoded(lines)) == steps_of(decoded(ITEMS))


def test_a_file_that_grows_gives_the_rows_of_the_whole(tmp_path: Path) -> None:
    found = []
    for pieces in ([len(ITEMS)], [1, 3, 8, 8, len(ITEMS)]):
        with agentspan.open(tmp_path / f"{len(pieces)}.db") as database:
            for count in pieces:
                path = tmp_path / "traces.jsonl"
                path.write_text("".join(f"{json.dumps(item)}\n" for item in ITEMS[:count]))
                os.utime(path, ns=(1, 10**18 + count))
                one = Importer(Context(database.storage), {"openai-agents": FORMAT}, now=lambda: 2 * 10**18)
                one.import_source(Source("openai-agents", path))
            found.append(stored(database))
    assert found[0] == found[1]
    ((run, spans),) = found[0]
    assert run["status"] == "complete"
    assert sum(span["input_tokens"] or 0 for span in spans if not span["is_aggregate"]) == 300


def test_what_is_not_known_is_kept_and_counted() -> None:
    strange = span("s1", None, 1.0, 1.1, {"type": "dream", "colour": "red"})
    records = decoded([TRACE, strange, b"{", {"object": "other"}, 5, {}])
    assert steps_of(records)["s1"].type == "unknown:event"
    assert told(records) == [
        "span of type dream", "a line that is no JSON", "item of type other",
        "a line that is no item", "a line that is no item",
    ]  # fmt: skip
    assert told(decoded([b"{", b"no document", b"}"])) == ["a line that is no JSON"]


def test_ids_that_no_file_can_hold_are_stored(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    bad = json.dumps(ITEMS).replace("trace_1", "a\\ud800b").replace("llm1", "l\\ud800")
    path.write_text("".join(f"{json.dumps(item)}\n" for item in json.loads(bad)))
    with agentspan.open(tmp_path / "a.db") as database:
        one = Importer(Context(database.storage), {"openai-agents": FORMAT}, now=lambda: 2 * 10**18)
        one.import_source(Source("openai-agents", path))
        ((run, _),) = stored(database)
        assert (run["external_identifier"], one.problems) == ("openai-agents:a?b", [])


def test_files_are_found_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "my_traces.jsonl"
    path.write_text(json.dumps(TRACE))
    (tmp_path / "traces.json").write_text("{}")
    assert [source.path for source in FORMAT.sources(tmp_path)] == [path]
    assert [*FORMAT.sources(tmp_path / "traces.json")] == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def hostile_items(draw: st.DrawFn) -> list[Any]:
    """Return items of which some members, or members of their data, were replaced by any JSON."""
    found: list[Any] = []
    for each in draw(st.lists(st.sampled_from(ITEMS), max_size=8)):
        names = draw(st.sets(st.sampled_from([*each]), max_size=2)) - {"object"}
        item: dict[str, Any] = {**each, **{name: draw(JSON) for name in names}}
        data = item.get("span_data")
        if isinstance(data, dict) and data.get("type"):
            changed = draw(st.sets(st.sampled_from([*data]), max_size=2)) - {"type"}
            item["span_data"] = {**data, **{name: draw(JSON) for name in changed}}
        found.append(item)
    return [*found, draw(JSON)]


@given(items=hostile_items(), line=st.binary(max_size=20))
def test_items_of_any_content_never_raise(items: list[Any], line: bytes) -> None:
    for record in decoded([*items, line]):
        assert isinstance(record, Session | Step | Unread)
