"""Nothing that a line contains makes the decoder raise, or lose the rest of the session."""

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.json_values import json_of
from agentspan.sessions.claude import FORMATS
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from tests.sessions.claude_files import (
    CONVERSATION,
    SESSION,
    assistant,
    attachment,
    decoded,
    result,
    system,
    text,
    timed,
    tool,
    user,
)  # fmt: skip
from tests.sessions.claude_sub_agent import AGENT, DONE, END, FILE, META, TASK, progress
from tests.tiers import examples

RECORDS: list[Any] = [
    *TASK,
    progress("a7", "t1"),
    *END,
    *CONVERSATION,
    timed("queue-operation", 3, operation="enqueue", content="be quick"),
    timed("queue-operation", 4, operation="remove", content="be quick"),
    attachment("q1", "a2", 3, "queued_command", prompt="be quick", commandMode="prompt"),
    attachment(
        "h1", "a3", 6, "hook_success", hookName="Stop", hookEvent="Stop", toolUseID="t1", durationMs=3, exitCode=0
    ),
    attachment("h2", "a3", 6, "hook_blocking_error", blockingError={"blockingError": "no", "command": "x"}),
    attachment("d1", "a3", 9, "deferred_tools_delta", addedNames=["B", "A"]),
    system(
        "e1",
        "a3",
        9,
        "api_error",
        error={"connection": {"code": "X"}, "error": {"error": {"type": "t"}}},
        retryAttempt=1,
        maxRetries=1,
    ),
    system(
        "b1", None, 9, "compact_boundary", compactMetadata={"trigger": "auto", "preTokens": 9}, logicalParentUuid="a3"
    ),
    user("b2", "b1", 9, "short", isCompactSummary=True),
    system(
        "b3",
        "b2",
        9,
        "microcompact_boundary",
        microcompactMetadata={"trigger": "auto", "preTokens": 9, "tokensSaved": 3},
    ),
    system("b4", "b3", 9, "stop_hook_summary", hookInfos=[{"command": "bye"}], hookErrors=[]),
    system("b5", "b4", 9, "turn_duration", durationMs=9),
    assistant(
        "w1",
        "b5",
        10,
        tool("t7", "Workflow", script="x"),
        tool("t8", "mcp__a__b"),
        tool("t9", "Skill", skill="s"),
        id="msg_w",
    ),
    result("w2", "w1", 11, "t7", "ok", {"runId": "r", "workflowName": "n", "taskId": "k"}),
    result("w3", "w1", 11, "t8", [text("x"), {"type": "image"}], DONE),
    user("i1", "w2", 12, [text("[Request interrupted by user]")]),
    user("k1", "i1", 13, "<task-notification><task-id>a7</task-id><status>failed</status></task-notification>"),
    user("k2", "i1", 13, "other", forkedFrom={"sessionId": "x"}, permissionMode="plan"),
    assistant("x1", "k2", 14, text("limit reached"), model="<synthetic>", isApiErrorMessage=True, error="x"),
    timed("pr-link", 9, prUrl="https://example.org/1"),
    timed("ai-title", 9, aiTitle="x"),
    timed("worktree-state", 9, worktreeSession={"a": 1}),
    {"type": "started", "agentId": "a7", "key": "k"},
    {"type": "result", "agentId": "a7", "result": {"a": 1}},
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all members and elements of a JSON value."""
    found = []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        found += [(*at, name), *places(each, (*at, name))]
    return found


PLACES = [(number, place) for number, each in enumerate(RECORDS) for place in places(each)]


@st.composite
def changed(draw: st.DrawFn) -> list[Any]:
    """Return the records with some members deleted, or replaced by any JSON."""
    records = copy.deepcopy(RECORDS)
    for number, place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=5)):
        holder = records[number]
        try:
            for name in place[:-1]:
                holder = holder[name]
            if draw(st.booleans()):
                del holder[place[-1]]
            else:
                holder[place[-1]] = draw(JSON)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change has removed it
    return records


@given(changed())
@settings(max_examples=examples(300), deadline=None)
def test_any_change_of_a_member_is_survived(records: list[Any]) -> None:
    parts: dict[str, list[Any]] = {FILE: AGENT, META: [{"toolUseId": "t1", "name": "x"}]}
    decoded(records, parts)


NUMBERS = ["-0", "-0.0", "1E5", "1e400", "-1e400", "5e-324", "9223372036854775808", "1" * 400, "0.1" + "0" * 400, "1.5"]
TEXTS = [
    r'"\ud83d\ude00"',
    r'"\u0000"',
    '"\u00e9"',
    r'{"a": 1, "b": 2, "a": 3}',
    '{"": [], " ": {}}',
    "[[" * 60 + "]]" * 60,
]
REFUSED = [r'"\ud83d"', r'"\ude00x"', "NaN", "-Infinity", "[" * 300 + "]" * 300]
"""JSON that the fast parser refuses, so that the json module decodes the whole line."""


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("value", [*NUMBERS, *TEXTS])
def test_both_parsers_decode_a_line_to_the_same_record(value: str, refused: str) -> None:
    fast, slow = (kept(f'{{"type": "odd", "value": {value}, "more": {more}}}') for more in ("0", refused))
    assert slow.pop("more") != fast.pop("more")
    assert repr(fast) == repr(slow)


def kept(line: str) -> dict[str, Any]:
    """Return the record that the step of an unknown type keeps."""
    (step,) = (step for step in decoded([*CONVERSATION, line.encode()]).steps.values() if step.type == "unknown:event")
    content: dict[str, Any] = step.payload["content"]
    return content


@pytest.mark.parametrize("line", [b"\xef\xbb\xbf[1]", b'{"a": "\xff"}', b"[1", b"", b"1" * 5000, b'["\\ud83d"]'])
def test_json_of_is_json_loads(line: bytes) -> None:
    def found(decode: Callable[[bytes], Any]) -> str:
        try:
            return repr(decode(line))
        except ValueError:
            return "no JSON"

    assert found(json_of) == found(json.loads)


def test_what_is_no_number_is_read_as_a_text() -> None:
    assert json_of(b'[NaN, -Infinity, 1e999, "\\ud83d", 1.5]') == ["NaN", "-Infinity", "1e999", "\ud83d", 1.5]


@given(changed())
@settings(max_examples=examples(60), deadline=None)
def test_any_change_gives_the_same_steps_line_by_line(records: list[Any]) -> None:
    whole, grown = decoded(records), decoded(records, growing=True)
    assert grown.steps == whole.steps
    assert grown.session == whole.session


@given(st.lists(JSON | st.binary(max_size=30), max_size=8))
@settings(max_examples=examples(100), deadline=None)
def test_any_lines_are_survived(lines: list[Any]) -> None:
    found = decoded([*CONVERSATION, *lines])
    assert len(found.of("message", "llm", "tool")) >= 4


@pytest.mark.parametrize("member", list(dict.fromkeys(name for each in RECORDS for name in each)))
@pytest.mark.parametrize(
    "value", [None, 7, -1, 10**30, "", "x", [], {}, [[]], {"type": []}, True, "2026-13-45T99:99:99.999Z"]
)
def test_wrong_types_of_members_are_survived(member: str, value: Any) -> None:
    decoded([{**each, member: value} if member in each else each for each in RECORDS], {FILE: AGENT})


def store(records: list[Any], folder: Path) -> int:
    """Bring records into a database; return how many spans that gave."""
    path = folder / f"{SESSION}.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records))
    with agentspan.open(folder / "a.db") as database:
        importer = Importer(Context(database.storage), {"claude": FORMATS[0]}, now=lambda: 2 * 10**18)
        importer.import_source(Source("claude", path))
        assert not importer.problems
        return importer.arrived.spans


@given(changed())
@settings(max_examples=examples(25), deadline=None)
def test_any_change_can_be_stored(records: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store(records, Path(folder))


HALF = "\ud800x"
"""Half of a surrogate pair, which JSON can contain and UTF-8 cannot."""


@pytest.mark.parametrize(
    "records",
    [
        [*CONVERSATION, user(HALF, "a3", 20, HALF)],
        [{**each, "version": HALF, "cwd": HALF, "sessionId": HALF, "gitBranch": HALF} for each in CONVERSATION],
        [*CONVERSATION, assistant("x1", "a3", 20, tool(HALF, HALF), id=HALF), result("x2", "x1", 21, HALF, "a\0b")],
        [{**each, "timestamp": "9999-12-31T23:59:59.999Z"} for each in CONVERSATION],
        [{**each, "timestamp": "1970-01-01T00:00:00Z"} for each in CONVERSATION],
        [*CONVERSATION, system("e1", "a3", 20, "informational", content=10**400, more=float("inf"))],
    ],
)
def test_texts_and_times_at_the_edge_are_stored(records: list[Any], tmp_path: Path) -> None:
    assert store(records, tmp_path) >= len(CONVERSATION) - 1


def test_deep_and_long_lines_are_survived() -> None:
    deep = b'{"type": "user", "message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    long = user("u9", "a3", 20, "x" * 5_000_000)
    found = decoded([*CONVERSATION, deep, long, b'{"a": ' + b"9" * 5000 + b"}"])
    assert found.unread == ["a line that is no JSON", "a line that is no JSON"]
    assert len(found.steps["u9"].payload["content"]) == 5_000_000


def test_a_line_that_stands_twice_counts_once() -> None:
    once = decoded(RECORDS, {FILE: AGENT})
    for at in range(1, len(RECORDS) + 1):
        read = RECORDS[:at]
        twice = decoded([*read, *(each for each in read if "uuid" in each), *RECORDS[at:]], {FILE: AGENT})
        assert (twice.steps, twice.session) == (once.steps, once.session)


def test_a_second_call_or_result_of_a_tool_changes_nothing() -> None:
    again = [{**CONVERSATION[2], "uuid": "a9"}, {**CONVERSATION[3], "uuid": "r9"}]
    found = decoded([*CONVERSATION[:4], *again, CONVERSATION[4]])
    assert found.steps["tool:t1"] == decoded(CONVERSATION).steps["tool:t1"]


@pytest.mark.parametrize("id", [None, 7, "", []])
def test_a_file_with_any_name_may_name_its_session_late(id: Any, tmp_path: Path) -> None:
    path = tmp_path / "copy.jsonl"
    records = [*({**each, "sessionId": id, "version": None} for each in CONVERSATION[:3]), *CONVERSATION[3:]]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records))
    with agentspan.open(tmp_path / "a.db") as database:
        importer = Importer(Context(database.storage), {"claude": FORMATS[0]}, now=lambda: 2 * 10**18)
        importer.import_source(Source("claude", path))
        assert importer.arrived.spans == 4
