"""Trajectories of SWE-agent and mini-swe-agent become sessions."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrival
from agentspan.arriving.records import Session, Step, Unread
from agentspan.sessions.swe_agent import FORMATS, decode
from agentspan.storage.memory import MemoryStorage
from tests.strategies import json_values
from tests.tiers import examples

CALL = {"id": "c1", "type": "function", "function": {"name": "open", "arguments": '{"path": "a.py"}'}}
HISTORY = [
    {"role": "system", "content": "You mend.", "agent": "main", "message_type": "system_prompt"},
    {"role": "user", "content": "an example", "is_demo": True},
    {"role": "user", "content": "Mend issue 7", "agent": "main"},
    {"role": "assistant", "content": "I open it", "thought": "I open it", "action": "open a.py", "tool_calls": [CALL]},
    {"role": "tool", "content": "1: x", "tool_call_ids": ["c1"]},
    {"role": "assistant", "content": "I run it", "action": "python a.py"},
    {"role": "user", "content": [{"type": "text", "text": "fine"}], "message_type": "observation"},
]


def written(tmp_path: Path, document: Any, name: str = "fix-7.traj") -> Path:
    path = tmp_path / name
    path.write_text(json.dumps(document))
    return path


def read(path: Path) -> tuple[Session, list[Step]]:
    found = [*decode(path)]
    assert not [each for each in found if isinstance(each, Unread)]
    sessions = [each for each in found if isinstance(each, Session)]
    return sessions[-1], [each for each in found if isinstance(each, Step)]


def test_a_history_becomes_model_calls_and_tools(tmp_path: Path) -> None:
    info = {"exit_status": "submitted", "submission": "diff", "model_stats": {"instance_cost": 0.5}}
    trajectory = [{"execution_time": 2.0}, {"execution_time": 0.5}]
    config = json.dumps({"agent": {"model": {"name": "gpt-4o"}}})
    document = {"history": HISTORY, "trajectory": trajectory, "info": info, "replay_config": config}
    session, steps = read(written(tmp_path, document))
    assert [(step.type, step.payload) for step in steps[2:]] == [
        ("llm", {"model": "gpt-4o"}),
        ("tool", {"name": "open", "arguments": {"path": "a.py"}, "call_id": "c1"}),
        ("llm", {"model": "gpt-4o"}),
        ("tool", {"name": "bash", "arguments": {"command": "python a.py"}}),
    ]
    assert [step.result for step in steps if step.type == "tool"] == [
        {"output": "1: x"},
        {"output": [{"type": "text", "text": "fine"}]},
    ]
    assert [((step.end_ns or 0) - step.start_ns) // 10**6 for step in steps if step.type == "tool"] == [2000, 500]
    assert (session.agent, session.outcome, session.output, session.task) == (
        "swe-agent",
        "answered",
        "diff",
        "mend issue #",
    )
    assert session.metadata["model_stats"] == {"instance_cost": 0.5}
    assert session.metadata["demonstrations"] == 1


def test_mini_writes_commands_as_text_and_times_in_extra(tmp_path: Path) -> None:
    answer = {
        "role": "assistant",
        "content": "So:\n\n```mswea_bash_command\nls\n```",
        "extra": {"timestamp": 1_800_000_000.5, "cost": 0.25, "response": {"usage": {"prompt_tokens": 9}}},
    }
    output = {"role": "user", "content": "<returncode>1</returncode>\n<output>no</output>"}
    messages = [{"role": "user", "content": "List it"}, answer, output]
    info = {"exit_status": "LimitsExceeded", "mini_version": "2.1", "config": {"model": {"model_name": "gpt-4o"}}}
    session, steps = read(written(tmp_path, {"info": info, "messages": messages}, "a.traj.json"))
    assert [step.payload for step in steps[1:]] == [
        {"model": "gpt-4o"},
        {"name": "bash", "arguments": {"command": "ls"}},
    ]
    assert steps[1].result == {"text": answer["content"], "input_tokens": 9, "stated_cost_usd": 0.25}
    assert steps[2].result == {"output": output["content"], "exit_code": 1, "is_error": True}
    assert steps[0].start_ns == 1_800_000_000_500_000_000
    assert (session.agent, session.version, session.outcome) == ("mini-swe-agent", "2.1", "limit")
    (tmp_path / "other").mkdir()
    assert read(written(tmp_path / "other", messages, "b.traj.json"))[1][1].payload == {"model": "unknown"}


def test_a_trajectory_that_grows_stays_the_same_session(tmp_path: Path) -> None:
    found = [read(written(tmp_path, {"history": HISTORY[:count]})) for count in (4, 5, 6, 7)]
    assert len({session.id for session, _ in found}) == 1
    keys = [[step.key for step in steps] for _, steps in found]
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(keys))


def test_files_are_found_by_their_names(tmp_path: Path) -> None:
    (format,) = FORMATS
    for name in ("a.traj", "b.traj.json", "c.json"):
        written(tmp_path, {"history": HISTORY}, name)
    (tmp_path / "d.traj").write_text("1 2 3")
    assert [source.path.name for source in format.sources(tmp_path)] == ["a.traj", "b.traj.json"]
    assert [*format.sources(tmp_path / "c.json")] == []


MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"]) | json_values},
    optional={
        "content": json_values | st.just("```bash\nls\n```"),
        "tool_calls": st.just([CALL]) | json_values,
        "tool_call_ids": st.just(["c1"]) | json_values,
        "action": json_values,
        "thinking_blocks": json_values,
        "extra": st.fixed_dictionaries(
            {}, optional={"timestamp": json_values, "actions": json_values, "cost": json_values}
        ),
    },
)
DOCUMENTS = st.lists(MESSAGES | json_values) | st.fixed_dictionaries(
    {},
    optional={
        "history": st.lists(MESSAGES | json_values, max_size=5) | json_values,
        "messages": st.lists(MESSAGES, max_size=5),
        "trajectory": st.lists(st.fixed_dictionaries({"execution_time": json_values}), max_size=2) | json_values,
        "info": st.fixed_dictionaries({}, optional={"exit_status": json_values, "config": json_values}) | json_values,
        "replay_config": json_values | st.just({"agent": {"model": 5}}),
    },
)


@settings(max_examples=examples(100))
@given(DOCUMENTS)
def test_no_document_raises_and_each_can_be_stored(tmp_path_factory: Any, document: Any) -> None:
    path = written(tmp_path_factory.mktemp("swe"), document)
    arrival = Arrival(Context(MemoryStorage()))
    arrival.take("swe-agent", decode(path))
    arrival.finish(live=False)
