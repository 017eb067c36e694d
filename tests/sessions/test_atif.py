"""ATIF documents of other programs become sessions with steps."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Session, Step, Unread
from agentspan.sessions.atif import FORMATS, decode, document_records
from agentspan.sessions.importing import Importer
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import SpansOf
from tests.sessions.trajectories import MEMBERS, arrived, document, read
from tests.strategies import any_text, json_objects, json_values
from tests.tiers import examples

TIME = "2026-03-01T10:00:00Z"
TIME_NS = 1_772_359_200 * 10**9


def call(id: str, name: str = "look", **arguments: Any) -> dict[str, Any]:
    return {"tool_call_id": id, "function_name": name, "arguments": arguments}


def steps_of(*steps: dict[str, Any], **members: Any) -> list[Step]:
    return read(document(*steps, **members))[1]


def test_messages_and_model_calls_become_steps() -> None:
    session, steps, unread = read(
        document(
            {"source": "system", "message": "You tinker.", "timestamp": TIME},
            {"source": "user", "message": "Mend it"},
            {
                "source": "agent",
                "message": "Done.",
                "reasoning_content": "easy",
                "model_name": "gpt-4o-mini",
                "reasoning_effort": "high",
                "metrics": {"prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 2, "cost_usd": 0.5},
            },
        )
    )
    assert unread == []
    assert [(step.key, step.type, step.start_ns - TIME_NS) for step in steps] == [
        ("1", "message", 0),
        ("2", "message", 1000),
        ("3", "llm", 2000),
    ]
    assert [step.payload for step in steps] == [
        {"role": "system", "content": "You tinker."},
        {"role": "user", "content": "Mend it"},
        {"model": "gpt-4o-mini", "effort": "high"},
    ]
    assert steps[2].result == {
        "text": "Done.",
        "thinking": "easy",
        "input_tokens": 10,
        "cached_tokens": 4,
        "output_tokens": 2,
        "stated_cost_usd": 0.5,
    }
    assert (session.agent, session.version, session.outcome, session.output) == ("tinker", "2.0", "answered", "Done.")
    assert session.task == "mend it"
    assert {*session.fingerprint} == {"model", "cli_version", "system_prompt"}
    assert (session.started_ns, session.ended_ns) == (TIME_NS, TIME_NS + 2000)


def test_a_document_without_times_begins_at_the_epoch_and_keeps_its_order() -> None:
    steps = steps_of({"source": "user", "message": "a"}, {"source": "agent", "message": "b"})
    assert [step.start_ns for step in steps] == [0, 1000]


def test_a_step_without_a_time_follows_the_one_before_and_the_first_has_the_first_time_of_all() -> None:
    steps = steps_of(
        {"source": "user", "message": "a"},
        {"source": "agent", "message": "b", "timestamp": TIME},
        {"source": "agent", "message": "c"},
        {"source": "agent", "message": "d", "timestamp": "2026-03-01T10:00:01"},
    )
    assert [step.start_ns - TIME_NS for step in steps] == [0, 1000, 2000, 10**9]


def test_tool_calls_have_the_results_with_their_ids() -> None:
    observation = {
        "results": [
            {"source_call_id": "c2", "content": "two"},
            {"source_call_id": "c1", "content": "one", "extra": {"seconds": 3}},
            {"content": "the weather changed"},
            {"source_call_id": "c9", "content": "lost"},
        ]
    }
    calls = [call("c1", q=1), call("c2", "mcp__files__list")]
    found = document({"source": "agent", "message": "", "tool_calls": calls, "observation": observation})
    _, steps, unread = read(found)
    assert [(step.type, step.payload, step.result) for step in steps[1:]] == [
        (
            "tool",
            {"name": "look", "arguments": {"q": 1}, "call_id": "c1"},
            {"output": "one", "extra": {"seconds": 3}},
        ),
        (
            "mcp",
            {"method": "tools/call", "server": "files", "target": "list", "arguments": {}, "call_id": "c2"},
            {"result": "two"},
        ),
        ("event", {"name": "observation", "content": "the weather changed"}, None),
        ("event", {"name": "observation", "content": "lost", "call_id": "c9"}, None),
    ]
    assert [each.what for each in unread] == ["an observation of an unknown tool call"]


def test_a_result_without_an_id_belongs_to_the_only_call() -> None:
    observation = {"results": [{"content": "one"}]}
    for calls in ([call("c1")], [{"function_name": "look", "arguments": {}}]):
        steps = steps_of({"source": "agent", "message": "", "tool_calls": calls, "observation": observation})
        assert [(step.type, step.result) for step in steps[1:]] == [("tool", {"output": "one"})]


def test_a_step_without_a_model_call_is_its_tools_and_its_text() -> None:
    steps = steps_of(
        {"source": "agent", "message": "", "llm_call_count": 0, "tool_calls": [call("c1")]},
        {"source": "agent", "message": "I only say this", "llm_call_count": 0},
    )
    assert [(step.type, step.payload.get("role")) for step in steps] == [("tool", None), ("message", "assistant")]


def test_copied_steps_are_left_out_and_counted() -> None:
    session, steps, _ = read(
        document(
            {"source": "user", "message": "again", "is_copied_context": True, "timestamp": "2020-01-01T00:00:00Z"},
            {"source": "user", "message": "new", "timestamp": TIME},
        )
    )
    assert [step.payload["content"] for step in steps] == ["new"]
    assert (session.metadata["copied_steps"], session.started_ns) == (1, TIME_NS)


def test_images_become_blocks_of_content() -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"media_type": "image/png", "path": "images/1.png"}},
        {"type": "image", "source": {"media_type": "image/png", "path": "https://example.com/1.png"}},
        {"type": "image", "source": {"media_type": "image/png", "path": "data:image/png;base64,AAAA"}},
        {"type": "audio", "source": {"media_type": "audio/wav", "path": "a.wav", "duration_sec": 2}},
    ]
    (step,) = steps_of({"source": "user", "message": parts})
    assert step.payload["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "file", "media_type": "image/png", "url": "images/1.png"}},
        {"type": "image", "source": {"type": "url", "media_type": "image/png", "url": "https://example.com/1.png"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "audio", "source": {"type": "file", "media_type": "audio/wav", "url": "a.wav", "duration_sec": 2}},
    ]


def sub_agent(id: str, *steps: dict[str, Any], **members: Any) -> dict[str, Any]:
    found = document(*steps, trajectory_id=id, agent={"name": f"helper {id}", "version": "1"}, **members)
    del found["session_id"]
    return found


def test_embedded_trajectories_are_agents_below_their_tool_calls() -> None:
    deep = sub_agent("deep", {"source": "agent", "message": "deepest", "metrics": {"prompt_tokens": 5}})
    refers = {"results": [{"source_call_id": "c1", "subagent_trajectory_ref": [{"trajectory_id": "deep"}]}]}
    middle = sub_agent(
        "middle",
        {"source": "user", "message": "help", "timestamp": TIME},
        {"source": "agent", "message": "", "tool_calls": [call("c1")], "observation": refers},
        subagent_trajectories=[deep],
    )
    lonely = sub_agent("lonely", {"source": "agent", "message": "nobody asked"})
    refers = {
        "results": [
            {
                "source_call_id": "c1",
                "content": "helped",
                "subagent_trajectory_ref": [{"trajectory_id": "middle"}, {"trajectory_path": "other.json"}],
            }
        ]
    }
    steps = steps_of(
        {"source": "agent", "message": "", "tool_calls": [call("c1")], "observation": refers, "timestamp": TIME},
        subagent_trajectories=[middle, lonely],
    )
    by_key = {step.key: step for step in steps}
    agents = {step.payload["name"]: step for step in steps if step.type == "agent"}
    assert {*agents} == {"helper middle", "helper deep", "helper lonely", "other.json"}
    assert agents["helper middle"].payload["goal"] == "help"
    assert by_key[agents["helper middle"].parent or ""].type == "tool"
    assert agents["helper lonely"].parent is None
    above = by_key[agents["helper deep"].parent or ""]
    assert (above.type, above.parent) == ("tool", agents["helper middle"].key)
    assert agents["helper deep"].result == {"output": "deepest"}
    storage = MemoryStorage()
    run = arrived(storage, document({"source": "user", "message": "x"}, subagent_trajectories=[middle]))
    assert {span.input_tokens for span in storage.ask(SpansOf(run)) if span.is_aggregate} == {5}


def test_trajectories_that_refer_to_each_other_end() -> None:
    refers = [{"results": [{"subagent_trajectory_ref": [{"trajectory_id": id}]}]} for id in "ab"]
    a = sub_agent("a", {"source": "agent", "message": "", "observation": refers[1]})
    b = sub_agent("b", {"source": "agent", "message": "", "observation": refers[0]})
    steps = steps_of({"source": "agent", "message": "", "observation": refers[0]}, subagent_trajectories=[a, b])
    assert sum(step.type == "agent" for step in steps) == 3


def test_facts_of_the_document_are_kept() -> None:
    session, _, unread = read(
        document(
            {"source": "user", "message": "x"},
            schema_version="ATIF-v3.0",
            trajectory_id="t-1",
            session_id="s-1-cont-2",
            notes="a note",
            final_metrics={"total_steps": 1},
            continued_trajectory_ref="next.json",
            extra={"a": 1},
            unheard_of=[2],
        )
    )
    assert (session.id, session.conversation) == ("t-1", "s-1")
    assert session.metadata == {
        "models": ["gpt-4o"],
        "schema_version": "ATIF-v3.0",
        "trajectory_id": "t-1",
        "notes": "a note",
        "final_metrics": {"total_steps": 1},
        "continued_trajectory_ref": "next.json",
        "unheard_of": [2],
        "extra": {"a": 1},
    }
    assert [each.what for each in unread] == ["a schema_version that is not one of ATIF 1.0 to 1.8"]


def test_unknown_members_of_steps_and_calls_are_kept() -> None:
    steps = steps_of(
        {"source": "user", "message": "x", "mood": "good", "extra": {"a": 1}}, {"source": "robot", "message": "y"}
    )
    assert steps[0].payload == {"role": "user", "content": "x", "extra": {"mood": "good", "a": 1}}
    assert steps[1].payload == {"role": "user", "content": "y"}


def test_values_of_a_wrong_type_are_kept() -> None:
    _, steps, unread = read(
        document(
            {"source": "user", "message": {"a": 1}, "timestamp": "today", "extra": 5},
            {"source": "agent", "message": ["b"], "metrics": [1], "tool_calls": call("c1", "x") | {"kind": "f"}},
            {"source": "agent", "message": "", "tool_calls": ["c"], "observation": "seen"},
            subagent_trajectories={"steps": "none"},
        )
    )
    assert [step.payload for step in steps] == [
        {"role": "user", "content": {"a": 1}, "extra": {"extra": 5}},
        {"model": "gpt-4o"},
        {"name": "x", "arguments": {}, "call_id": "c1", "extra": {"kind": "f"}},
        {"model": "gpt-4o"},
        {"name": "tool_call", "level": "unknown", "content": "c"},
        {"name": "observation", "content": "seen"},
        {"name": "agent"},
        {"name": "step", "level": "unknown", "content": "none"},
    ]
    requested = [{"id": "c1", "name": "x", "arguments": {}}]
    assert steps[1].result == {"content": ["b"], "tool_calls": requested, "metrics": [1]}
    assert sorted(each.what for each in unread) == [
        "a step that is no object",
        "a timestamp that is no time",
        "a tool call that is no object",
    ]


def test_a_small_document_cannot_become_a_large_payload() -> None:
    own = {"id": "x", "type": "llm", "status": "complete", "pooled": {"messages": [[0, 1]] * 200, "tools": [[0, 1]]}}
    pool = {"agentspan": {"pool": ["a" * 2**20]}}
    step = {"source": "agent", "message": "", "extra": {"agentspan": own}}
    _, steps, unread = read(document(step, extra=pool))
    assert [[*each.payload] for each in steps] == [["model", "tools"]]
    assert [each.what for each in unread] == ["a list that is too long"]


@pytest.mark.parametrize(("depth", "is_read"), [(150, True), (400, True), (600, False), (990, False), (50_000, False)])
def test_what_is_nested_too_deep_is_counted(tmp_path: Path, depth: int, is_read: bool) -> None:
    text = json.dumps(document({"source": "user", "message": "DEEP"})).replace('"DEEP"', "[" * depth + "]" * depth)
    (tmp_path / "a.json").write_text(text)
    kinds = [type(record) for record in decode(tmp_path / "a.json")]
    assert kinds == ([Session, Step, Session] if is_read else [Unread])


def test_files_are_found_by_their_content(tmp_path: Path) -> None:
    (format,) = FORMATS
    (tmp_path / "a.json").write_text(json.dumps(document({"source": "user", "message": "x"})))
    (tmp_path / "b.json").write_text(json.dumps({"schema_version": 7}))
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": json.dumps(document())}))
    (tmp_path / "d.txt").write_text(json.dumps(document()))
    assert [source.path.name for source in format.sources(tmp_path)] == ["a.json"]
    assert [source.path.name for source in format.sources(tmp_path / "d.txt")] == ["d.txt"]
    assert [*format.sources(tmp_path / "none.json")] == []
    assert format.roots({"HOME": "/"}) == ()


def test_a_file_of_lines_has_a_session_a_line(tmp_path: Path) -> None:
    documents = [document({"source": "user", "message": "x"}, session_id=id) for id in "ab"]
    path = tmp_path / "runs.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in documents) + "{broken\n")
    found = [*decode(path)]
    assert {each.id for each in found if isinstance(each, Session)} == {"a", "b"}
    assert [each for each in found if isinstance(each, Unread)] == [Unread(None, "a line that is no JSON")]
    path.write_text("{broken\n" + "".join(f"{json.dumps(each)}\n" for each in documents))
    assert {each.id for each in decode(path) if isinstance(each, Session)} == {"a", "b"}
    path.write_text(json.dumps(documents[0], indent=1))
    assert {each.id for each in decode(path) if isinstance(each, Session)} == {"a"}
    path.write_text("[]")
    assert [*decode(path)] == [Unread(None, "a file that is no JSON object")]


def test_a_compressed_file_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    (format,) = FORMATS
    path = tmp_path / "a.json.gz"
    packed = gzip.compress(json.dumps(document({"source": "user", "message": "x" * 9999})).encode())
    path.write_bytes(packed)
    assert [source.path for source in format.sources(tmp_path)] == [path]
    assert [type(record) for record in decode(path)] == [Session, Step, Session]
    path.write_bytes(packed[:-20])
    assert [*decode(path)] == [Unread(None, "a compressed file that is not whole")]
    assert [*format.sources(tmp_path)] == []


def test_an_import_is_a_run_and_a_second_one_adds_nothing(tmp_path: Path) -> None:
    (format,) = FORMATS
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document({"source": "user", "message": "x", "timestamp": TIME})))
    with agentspan.open(tmp_path / "runs.db") as database:
        for spans in (1, 0):
            importer = Importer(Context(database.storage), {"atif": format}, again=True, now=lambda: 4 * 10**18)
            for source in format.sources(path):
                assert importer.import_source(source)
            assert (importer.arrived.spans, importer.arrived.changed, importer.problems) == (spans, 0, [])


OWN = st.fixed_dictionaries(
    {},
    optional={
        "id": st.sampled_from(["a", "b", "c"]) | any_text,
        "parent": st.sampled_from(["a", "b", "c"]) | json_values,
        "type": st.sampled_from(["llm", "tool", "agent", "message", "x:agent"]) | json_values,
        "status": st.sampled_from(["active", "complete", "failed", "cancelled"]) | json_values,
        "started_at": st.just(TIME) | json_values,
        "payload": json_values,
        "payload_whole": st.booleans(),
        "payload_without": json_values,
        "result": json_values,
        "result_whole": st.booleans(),
        "pooled": st.dictionaries(st.sampled_from(["messages"]), json_values | st.just([[0, 2], [9, 1]])),
        "pool": st.lists(json_values, max_size=3),
        "run": json_objects
        | st.fixed_dictionaries({"status": json_values, "scores": st.lists(json_objects, max_size=2)}),
        "span": json_objects,
        "plain": st.booleans(),
        "context": st.booleans(),
        "carrier": st.booleans(),
    },
)


def objects(kind: str, **inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects with members of the format whose values are of any kind, but often right."""
    extra = st.fixed_dictionaries({"agentspan": OWN}) | json_values
    members = {name: inner.get(name, json_values) for name in MEMBERS[kind]} | {"extra": extra}
    return st.fixed_dictionaries({}, optional=members) | json_values


IDS = st.sampled_from(["c1", "c2", "t1", "t2"]) | json_values
TIMES = st.sampled_from([TIME, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]) | json_values
REFERENCES = st.lists(objects("reference", trajectory_id=IDS, session_id=IDS), max_size=2) | json_values
RESULTS = objects("result", source_call_id=IDS, subagent_trajectory_ref=REFERENCES)
OBSERVATIONS = st.fixed_dictionaries({"results": st.lists(RESULTS, max_size=3) | json_values}) | json_values
STEPS = objects(
    "step",
    source=st.sampled_from(["agent", "user", "system"]) | json_values,
    timestamp=TIMES,
    observation=OBSERVATIONS,
    tool_calls=st.lists(objects("call", tool_call_id=IDS), max_size=3) | json_values,
    llm_call_count=st.sampled_from([0, 1, 2]) | json_values,
    metrics=objects("metrics"),
    is_copied_context=st.booleans() | json_values,
)
DOCUMENTS: st.SearchStrategy[list[Any]] = st.recursive(
    st.just([]),
    lambda inner: st.lists(
        st.fixed_dictionaries(
            {"steps": st.lists(STEPS, max_size=4) | json_values},
            optional={
                "trajectory_id": IDS,
                "session_id": IDS,
                "agent": objects("agent"),
                "extra": st.fixed_dictionaries({"agentspan": OWN}) | json_values,
                "subagent_trajectories": inner | json_values,
            },
        ),
        max_size=2,
    ),
    max_leaves=3,
)


@settings(max_examples=examples(100))
@given(DOCUMENTS)
def test_no_document_raises_and_each_can_be_stored(found: list[Any]) -> None:
    storage = MemoryStorage()
    for each in found:
        assert {type(record) for record in document_records(each, "digest")} <= {Session, Step, Unread}
        arrived(storage, each)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xfe", b"[" * 100_000, b'{"schema_version": "ATIF-v1.7"', b"1e999", b"null"]
)
def test_no_file_raises(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.json").write_bytes(data)
    assert all(isinstance(record, Unread) for record in decode(tmp_path / "a.json"))
