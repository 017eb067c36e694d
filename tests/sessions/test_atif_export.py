"""An export as ATIF is strict, and its import gives the same tree."""

import json
import os
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan import clock, jsontext
from agentspan.analysis import atif
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow, Row
from agentspan.schemas.span_types import REGISTRY, describe
from agentspan.storage.access import scan
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from agentspan.testing.contract.base import Rows
from tests.cli.calling import call
from tests.sessions.trajectories import arrived, check, tree_of
from tests.strategies import any_text, json_objects, json_values
from tests.tiers import examples

HARBOR = os.environ.get("AGENTSPAN_TEST_HARBOR")
"""A Python 3.12 or later that has the package `harbor`, the format's own validator, and pydantic."""
VALIDATE = """
import json, sys
from harbor.utils.trajectory_validator import TrajectoryValidator
for line in sys.stdin:
    validator = TrajectoryValidator()
    validator.validate(json.loads(line))
    print(json.dumps(validator.errors))
"""
SYSTEM = {"role": "system", "content": "You tinker."}
ASKED = {"role": "user", "content": "How warm is it in Seoul and in Bonn?"}
WANTED = [
    {"id": f"call_{n}", "type": "function", "function": {"name": "warmth", "arguments": json.dumps({"city": city})}}
    for n, city in enumerate(["Seoul", "Bonn", "Rome"])
]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Return a file with a live run of an agent, whose model calls send the whole conversation, and a plain run."""
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("weather", version="3", task="warm", metadata={"n": 1}, session="talk", tags=["a"]) as run:
        history: list[Any] = [SYSTEM, ASKED]
        with tracer.span("llm", {"model": "gpt-4o", "messages": history, "tools": [{"name": "warmth"}]}) as span:
            span.set_result({"tool_calls": WANTED, "input_tokens": 100, "cached_tokens": 40, "output_tokens": 10})
        with tracer.span("tool", {"name": "warmth", "arguments": {"city": "Seoul"}, "call_id": "call_0"}) as span:
            span.set_result({"output": "20", "unit": "C"})
        with pytest.raises(ValueError), tracer.span("tool", {"name": "warmth", "arguments": {"city": "Bonn"}}):  # noqa: PT011
            raise ValueError("no such city")
        answers = [{"role": "tool", "tool_call_id": f"call_{n}", "content": str(n)} for n in range(3)]
        history = [*history, {"role": "assistant", "content": None, "tool_calls": WANTED}, *answers]
        with tracer.span("llm", {"model": "gpt-4o", "messages": history}) as span:
            span.set_result({"text": "20 degrees", "thinking": "easy", "input_tokens": 150, "output_tokens": 5})
        with tracer.span("guardrail", {"name": "polite"}) as span:
            span.set_result({"passed": True})
        with (
            tracer.span("tool", {"name": "delegate", "arguments": {"to": "helper"}}) as tool,
            tracer.span("agent", {"name": "helper", "goal": "help"}) as agent,
        ):
            with tracer.span(
                "llm", {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "help"}]}
            ) as span:
                span.set_result({"text": "helped", "input_tokens": 7, "output_tokens": 2})
            agent.set_result({"output": "helped"})
            tool.set_result({"output": "helped"})
        run.score("reward", 0.5)
    with pytest.raises(KeyError), tracer.run("empty"):
        raise KeyError("x")
    tracer.shutdown()
    return path


def exported(path: Path, *args: str) -> list[dict[str, Any]]:
    """Return the documents of an export to stdout, and check each."""
    documents = [json.loads(line) for line in call(path, "export", *args, "--format", "atif").output.splitlines()]
    for document in documents:
        check(document)
    return documents


def test_a_conversation_is_written_once_with_its_tool_calls(runs: Path) -> None:
    document = exported(runs, "all")[0]
    steps = document["steps"]
    assert [(step["source"], step["message"], step.get("llm_call_count")) for step in steps] == [
        ("system", SYSTEM["content"], None),
        ("user", ASKED["content"], None),
        ("agent", "", 1),
        ("agent", "20 degrees", 1),
        ("agent", "Guard polite: passed=true", 0),
        ("agent", "", 0),
    ]
    assert [call["arguments"] for call in steps[2]["tool_calls"]] == [
        {"city": each} for each in ("Seoul", "Bonn", "Rome")
    ]
    results = steps[2]["observation"]["results"]
    assert [(each["source_call_id"], each["content"]) for each in results] == [
        ("call_0", "20"),
        ("call_1", "ValueError: no such city"),
        ("call_2", "2"),
    ]
    assert steps[2]["metrics"] == {
        "prompt_tokens": 100,
        "cached_tokens": 40,
        "completion_tokens": 10,
        "cost_usd": 0.0003,
    }
    assert steps[3]["reasoning_content"] == "easy"
    assert document["agent"] == {
        "name": "weather", "version": "3", "model_name": "gpt-4o", "tool_definitions": [{"name": "warmth"}],
    }  # fmt: skip
    assert document["session_id"] == "talk"
    totals = document["final_metrics"]
    assert (totals["total_prompt_tokens"], totals["total_cached_tokens"], totals["total_steps"]) == (250, 40, 6)


def test_an_agent_is_an_embedded_trajectory_at_its_tool_call(runs: Path) -> None:
    document = exported(runs, "all")[0]
    (helper,) = document["subagent_trajectories"]
    (result,) = document["steps"][-1]["observation"]["results"]
    assert result["subagent_trajectory_ref"] == [{"trajectory_id": helper["trajectory_id"]}]
    assert helper["agent"] == {"name": "helper", "version": "unknown", "model_name": "gpt-4o-mini"}
    assert [step["message"] for step in helper["steps"]] == ["help", "helped"]


def test_the_import_of_an_export_gives_equal_runs(runs: Path) -> None:
    storage = MemoryStorage()
    with agentspan.open(runs) as database:
        for run in scan(database.storage, AgentInstanceRow):
            (document,) = atif.documents(database.storage, [run.id])
            id = arrived(storage, document)
            assert tree_of(storage, id) == tree_of(database.storage, run.id)
            (copy,) = (row for row in scan(storage, AgentInstanceRow) if row.id == id)
            for name in ("status", "started_at", "finished_at", "task", "git_commit", "error"):
                assert getattr(copy, name) == getattr(run, name), name
        imported = [row.session for row in scan(storage, AgentInstanceRow)]
        assert imported == [run.session or run.id for run in scan(database.storage, AgentInstanceRow)]


def test_several_runs_are_files_in_a_folder(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = call(runs, "export", "all", "--format", "atif", "-o", str(out)).output
    files = sorted(out.iterdir())
    assert said.startswith(f"2 runs written to {out}: ")
    assert [file.name.partition(".")[2] for file in files] == ["trajectory.json"] * 2
    assert [json.loads(file.read_text()) for file in files] == exported(runs, "all")
    told = json.loads(call(runs, "export", "all", "--format", "atif", "-o", str(out), "--json").output)
    assert (told["folder"], told["format"], told["total"]) == (str(out), "atif", 2)
    one = tmp_path / "one.json"
    id = files[0].name.partition(".")[0]
    call(runs, "export", id, "--format", "atif", "-o", str(one))
    assert json.loads(one.read_text())["trajectory_id"] == id


@pytest.mark.skipif(not HARBOR, reason="needs harbor: AGENTSPAN_TEST_HARBOR names a Python with it")
def test_the_validator_of_the_format_accepts_an_export(runs: Path) -> None:
    text = "".join(f"{json.dumps(document)}\n" for document in exported(runs, "all"))
    assert HARBOR is not None
    done = subprocess.run([HARBOR, "-c", VALIDATE], input=text, text=True, capture_output=True, check=True)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[], []]


def test_images_are_named_and_kept() -> None:
    image = {
        "type": "image",
        "source": {
            "type": "base64",
            "media_type": "image/png",
            "data": b64encode(b"\x89PNG\r\n\x1a\n" + bytes(1500)).decode(),
        },
    }
    linked = {"type": "image", "source": {"type": "url", "media_type": "image/png", "url": "https://example.com/a.png"}}
    storage = MemoryStorage()
    id = stored(storage, [("message", 0, {"role": "user", "content": [image, linked]}, None, "complete", 1)])
    (document,) = atif.documents(storage, [id])
    check(document)
    shown, native = document["steps"][0]["message"]
    assert "image/png, 1.5 kB" in shown["text"]
    assert native == {"type": "image", "source": {"media_type": "image/png", "path": "https://example.com/a.png"}}
    again = MemoryStorage()
    assert tree_of(again, arrived(again, document)) == tree_of(storage, id)


def test_images_are_files_beside_the_document(tmp_path: Path) -> None:
    data = b"\x89PNG\r\n\x1a\n" + bytes(1500)
    source = {"type": "base64", "media_type": "image/png", "data": b64encode(data).decode()}
    path = tmp_path / "runs.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("painter"), tracer.span("tool", {"name": "shoot", "arguments": {}}) as span:
        span.set_result({"output": [{"type": "image", "source": source}]})
    tracer.shutdown()
    out, images = tmp_path / "out" / "a.json", tmp_path / "images"
    out.parent.mkdir()
    call(path, "export", "all", "--format", "atif", "-o", str(out), "--blobs", str(images))
    document = json.loads(out.read_text())
    check(document)
    (part,) = document["steps"][0]["observation"]["results"][0]["content"]
    assert (out.parent / part["source"]["path"]).read_bytes() == data
    with agentspan.open(path) as database:
        storage = MemoryStorage()
        run = next(scan(database.storage, AgentInstanceRow)).id
        assert tree_of(storage, arrived(storage, document)) == tree_of(database.storage, run)


def test_agents_in_each_other_deeper_than_parsers_go_are_steps() -> None:
    storage = MemoryStorage()
    depth = 300
    id = stored(storage, [("agent", n, {"name": f"a{n}"}, None, "complete", 1) for n in range(depth)])
    (document,) = atif.documents(storage, [id])
    check(document)
    again = MemoryStorage()
    assert tree_of(again, arrived(again, document)) == tree_of(storage, id)


Made = tuple[str, int, Any, Any, str, int]
"""A span to store: type, the number of the span above (0 for none), payload, result, status, and milliseconds."""


def stored(storage: Storage, spans: list[Made]) -> str:
    """Store a run with such spans; return its id."""
    rows = Rows()
    agent = rows.agent("generated")
    version, schema, run = rows.family(agent)
    run = run._replace(status="complete", finished_at=run.started_at)
    made: list[AgentSpanRow] = []
    for kind, above, payload, result, status, millis in spans:
        started = clock.to_text(clock_ns(len(made)))
        ended = None if status == "active" else clock.to_text(clock_ns(len(made)) + millis * 1_000_000)
        meaning = describe(REGISTRY.resolve(kind), kind, status, payload, result, None)
        row = rows.span(
            run,
            schema_name=kind,
            parent_span_id=made[above - 1].id if 0 < above <= len(made) else None,
            status=status,
            payload=jsontext.encode(payload)[0],
            result_payload=None if result is None else jsontext.encode(result)[0],
            started_at=started,
            finished_at=ended,
            **meaning.by_column(),
        )
        made.append(row)
    all_rows: tuple[Row, ...] = (agent, version, schema, run, *made)
    for each in all_rows:
        storage.apply([Unit((Put(each),))])
    return run.id


def clock_ns(number: int) -> int:
    return 1_780_000_000 * 10**9 + number * 1000


CALLS = st.sampled_from([{"id": f"c{n}", "name": name, "arguments": {"n": n}} for n in range(2) for name in ("f", "g")])
MESSAGES = st.sampled_from(
    [
        SYSTEM,
        ASKED,
        {"role": "assistant", "content": "text"},
        {"role": "assistant", "content": None, "tool_calls": WANTED[:1]},
        {"role": "tool", "tool_call_id": "c0", "content": "output"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "part"}, {"type": "image_url", "image_url": {"url": "x"}}],
        },
    ]
)
PAYLOADS: dict[str, st.SearchStrategy[Any]] = {
    "llm": st.fixed_dictionaries(
        {"model": st.sampled_from(["gpt-4o", "", 5])},
        optional={
            "messages": st.lists(MESSAGES | json_values, max_size=5),
            "input": st.lists(MESSAGES, max_size=2) | any_text,
            "system": st.just("s" * 300) | any_text,
            "tools": st.lists(json_objects, max_size=2),
            "effort": any_text,
        },
    ),
    "tool": st.fixed_dictionaries(
        {
            "name": st.sampled_from(["f", "g", "mcp__a__b"]) | json_values,
            "arguments": st.sampled_from([{"n": 0}]) | json_values,
        },
        optional={"call_id": st.sampled_from(["c0", "c1"]) | json_values},
    ),
    "mcp": st.fixed_dictionaries(
        {"method": any_text, "server": any_text, "target": any_text, "arguments": json_values}
    ),
    "message": st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "assistant", "tool"]) | any_text, "content": json_values}
    ),
    "agent": st.fixed_dictionaries({"name": any_text}, optional={"goal": json_values, "version": any_text}),
}
RESULTS: dict[str, st.SearchStrategy[Any]] = {
    "llm": st.fixed_dictionaries(
        {},
        optional={
            "text": st.just("text") | any_text,
            "thinking": any_text,
            "tool_calls": st.lists(CALLS, max_size=3) | json_values,
            "input_tokens": st.integers(0, 99),
            "output_tokens": st.integers(0, 99),
            "cached_tokens": st.integers(0, 9) | st.floats(0, 9),
            "stated_cost_usd": st.floats(0, 9),
            "error": json_objects,
        },
    ),
    "tool": st.fixed_dictionaries({}, optional={"output": st.just("output") | json_values, "error": json_objects}),
}
KINDS = ("llm", "tool", "mcp", "message", "agent", "chain", "event", "langchain:llm", "x:tool", "x:agent", "own type")


def made_spans(kind: str) -> st.SearchStrategy[Made]:
    built_in = kind.rpartition(":")[2]
    return st.tuples(
        st.just(kind),
        st.integers(0, 8),
        PAYLOADS.get(built_in, json_objects) | json_objects,
        st.none() | RESULTS.get(built_in, json_objects) | json_objects,
        st.sampled_from(["complete", "failed", "cancelled"]),  # what is active is closed by an import
        st.integers(0, 5),
    )


@pytest.mark.full
@settings(max_examples=examples(200))
@given(st.lists(st.sampled_from(KINDS).flatmap(made_spans), max_size=9))
def test_any_tree_is_exported_strictly_and_imported_equal(spans: list[Made]) -> None:
    storage, again = MemoryStorage(), MemoryStorage()
    id = stored(storage, spans)
    (line,) = atif.lines(storage, [id])
    document = json.loads(line)
    check(document)
    run = arrived(again, document)
    assert len([*again.ask(SpansOf(run))]) == len(spans)
    assert tree_of(again, run) == tree_of(storage, id)
