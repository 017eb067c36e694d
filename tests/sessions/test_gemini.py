"""The event logs and documents of Gemini CLI, and the files of Qwen Code."""

import json
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.database import Database
from agentspan.sessions import gemini, google
from agentspan.sessions.formats import Format, LineDecoder, Source
from agentspan.sessions.importing import Importer
from tests.sessions.gemini_logs import answered, asked, at, called, header
from tests.sessions.stored_rows import stored
from tests.tiers import examples

GEMINI, QWEN = gemini.FORMATS
FORMATS = {"gemini": GEMINI, "qwen": QWEN}
FILE = Path("chats", "session-2026-03-04T05-06-abcdef12.jsonl")
SUB = Path("chats", "abcdef12-main", "scout-1.jsonl")


def results(id: str, second: float, *calls: str) -> dict[str, Any]:
    parts = [{"functionResponse": {"id": call, "response": {"output": f"output of {call}"}}} for call in calls]
    return {"id": id, "timestamp": at(second), "type": "user", "content": parts}


CONTEXT = asked("ctx", 1, "<session_context>\n- **Workspace Directories:**\n  - /work/boat\n</session_context>")
THOUGHT = {"subject": "Seams", "description": "Which?"}
TURN = [
    header(),
    {"$set": {"messages": [CONTEXT], "lastUpdated": at(1)}},
    asked("u1", 2, "Caulk the hull of boat 12"),
    answered("g1", 4, "", thoughts=[THOUGHT]),
    answered("g1", 4, "", [called("c1", 5), called("c2", 6, status="error")], thoughts=[THOUGHT]),
    results("r1", 6, "c1", "c2"),
    {"$set": {"lastUpdated": at(6)}},
    answered("g2", 8, "The hull is tight."),
]


def lines_of(records: Iterable[Any]) -> list[bytes]:
    return [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]


def decoder_of(format: Format = GEMINI, path: Path = FILE) -> LineDecoder:
    assert format.lines is not None
    return format.lines(Source(format.name, path))


def decoded(records: Iterable[Any], format: Format = GEMINI, path: Path = FILE) -> list[Record]:
    decoder = decoder_of(format, path)
    found = [each for line in lines_of(records) for each in decoder.feed(path, line)]
    return [*found, *decoder.rest()]


def steps(records: Iterable[Record], id: str = "abcdef12-main") -> dict[str, Step]:
    return {each.key: each for each in records if isinstance(each, Step) and each.session == id}


def last_session(records: Iterable[Record], id: str = "abcdef12-main") -> Session:
    return [each for each in records if isinstance(each, Session) and each.id == id][-1]


def clocks(step: Step) -> tuple[float, float | None]:
    base = 1772600400_000_000_000
    end = None if step.end_ns is None else (step.end_ns - base) // 1_000_000 / 1000
    return (step.start_ns - base) // 1_000_000 / 1000, end


def test_an_answer_is_a_model_call_and_its_tools() -> None:
    found = decoded(TURN)
    of = steps(found)
    assert [(each.key, each.type, each.status, clocks(each)) for each in of.values()] == [
        ("user:ctx", "message", "complete", (1, 1)),
        ("user:u1", "message", "complete", (2, 2)),
        ("gemini:g1", "llm", "complete", (2, 4)),
        ("c1", "tool", "complete", (4, 5)),
        ("c2", "tool", "failed", (4, 6)),
        ("gemini:g2", "llm", "complete", (6, 8)),
    ]
    assert of["user:ctx"].payload["role"] == "system"
    assert of["gemini:g1"].result == {
        "text": "",
        "thinking": "**Seams** Which?",
        "tool_calls": [{"id": id, "name": "read_file", "arguments": {"path": "keel.txt"}} for id in ("c1", "c2")],
        "input_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 25,
        "reasoning_tokens": 5,
    }
    assert of["c1"].payload == {"name": "read_file", "arguments": {"path": "keel.txt"}, "call_id": "c1"}
    assert of["c2"].result == {"output": "output of c2", "is_error": True}
    about = last_session(found)
    assert (about.agent, about.outcome, about.output) == ("gemini-cli", "answered", "The hull is tight.")
    assert (about.task, about.metadata["cwd"]) == ("caulk the hull of boat #", "/work/boat")
    assert not [each for each in found if isinstance(each, Unread)]


def test_steps_of_one_millisecond_keep_their_order() -> None:
    of = steps(decoded([header(), asked("u1", 2, "One"), answered("g1", 2, "", [called("c1", 2), called("c2", 2)])]))
    starts = [each.start_ns for each in of.values()]
    assert starts == sorted(set(starts))
    assert starts[-1] - starts[0] == 3000


def test_a_resume_keeps_what_stood_there() -> None:
    bare = {"id": "g1", "timestamp": at(60), "type": "gemini", "content": [{"functionCall": {"id": "c1"}}]}
    history = [CONTEXT, asked("u1", 60, "Caulk"), bare, results("g1_response", 60, "c1", "c2")]
    more = [
        header(second=60),
        {"$set": {"messages": history}},
        asked("u2", 61, "And now?"),
        answered("g3", 62, "Sail."),
    ]
    found = decoded([*TURN, *more])
    assert list(steps(found)) == [*steps(decoded(TURN)), "user:u2", "gemini:g3"]
    assert sum((each.result or {}).get("input_tokens", 0) for each in steps(found).values()) == 300
    assert last_session(found).started_ns == last_session(decoded(TURN)).started_ns


def test_the_same_id_with_another_type_is_another_record() -> None:
    of = steps(decoded([header(), answered("x", 2, "One"), asked("x", 3, "Two")]))
    assert list(of) == ["gemini:x", "user:x"]


def test_a_compression_is_a_compaction() -> None:
    summary = asked("s", 20, "<state_snapshot>The hull is tight.</state_snapshot>")
    got_it = {"id": "ok", "timestamp": at(20), "type": "gemini", "content": [{"text": "Got it."}]}
    of = steps(decoded([*TURN, {"$set": {"messages": [CONTEXT, summary, got_it]}}]))
    assert (of["user:s"].type, of["user:s"].payload) == ("compaction", {"tokens_before": 125})
    assert (of["user:s"].result or {})["summary"].startswith("<state_snapshot>")
    assert (of["gemini:ok"].type, of["gemini:ok"].payload["role"]) == ("message", "assistant")


def test_a_rewound_branch_stays_and_is_marked() -> None:
    running = called("c9", 12, status="executing")
    rewound = [asked("u2", 10, "Paint it"), answered("g3", 12, "", [running]), {"$rewindTo": "u2"}]
    found = decoded([*TURN, *rewound, asked("u3", 20, "Launch it"), answered("g4", 21, "Done.")])
    of = steps(found)
    assert [key for key, step in of.items() if step.payload.get("rewound")] == ["user:u2", "gemini:g3", "c9"]
    assert of["c9"].status == "cancelled"
    assert of["rewind:1"].payload["content"] == {"to": "u2", "messages": 2}
    assert last_session(found).outcome == "answered"


def test_a_rewind_to_an_id_of_two_records_is_to_the_first(tmp_path: Path) -> None:
    of = steps(decoded([*TURN, asked("g2", 9, "And now?"), {"$rewindTo": "g2"}]))
    assert [key for key, step in of.items() if step.payload.get("rewound")] == ["gemini:g2", "user:g2"]


def test_a_rewind_to_an_unknown_message_marks_everything() -> None:
    of = steps(decoded([*TURN, {"$rewindTo": "nowhere"}]))
    assert all(step.payload.get("rewound") for step in of.values() if step.type != "event")


def test_a_rewind_marks_only_what_is_kept() -> None:
    large = asked("u3", 8, "x" * google.KEPT_BYTES)
    of = steps(decoded([*TURN, large, {"$rewindTo": "u1"}]))
    assert [key for key, step in of.items() if step.payload.get("rewound")] == ["user:u3"]
    assert of["rewind:1"].payload["content"]["messages"] == 5


@pytest.mark.parametrize(
    ("record", "outcome"),
    [
        ({"id": "n", "timestamp": at(9), "type": "error", "content": "quota"}, "error"),
        ({"id": "n", "timestamp": at(9), "type": "info", "content": "Request cancelled."}, "interrupted"),
        (answered("n", 9, "", [called("c", 9, status="cancelled")]), "interrupted"),
        (asked("n", 9, "more"), None),
    ],
)
def test_how_a_session_ended(record: dict[str, Any], outcome: str | None) -> None:
    found = decoded([*TURN, record])
    assert last_session(found).outcome == outcome
    if outcome == "error":
        assert last_session(found).error == {"type": "error", "message": "quota"}
        assert steps(found)["error:n"].payload["level"] == "error"


def test_images_mcp_tools_skills_and_exit_codes() -> None:
    image = {"inlineData": {"data": "QUJD", "mimeType": "image/png"}}
    prompt = {**asked("u1", 2, ""), "content": [{"text": "What?"}, image], "displayContent": [{"text": "What? @a.png"}]}
    output = {"functionResponse": {"id": "c3", "response": {"output": "Output: no\nExit Code: 2\n"}}}
    calls = [
        called("c1", 5, "ask", displayName="ask (harbour MCP Server)"),
        called("c2", 5, "activate_skill", args={"name": "caulking"}),
        called("c3", 5, "run_shell_command", result=[output], resultDisplay={"ansi": []}),
    ]
    of = steps(decoded([header(), prompt, answered("g1", 4, "", calls)]))
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}}
    assert of["user:u1"].payload["content"][1] == block
    assert of["user:u1"].payload["display"] == "What? @a.png"
    assert (of["c1"].type, of["c1"].payload["server"], of["c1"].payload["target"]) == ("mcp", "harbour", "ask")
    assert of["c1"].result == {"result": "output of c1"}
    assert of["c2"].payload["skill"] == "caulking"
    assert of["c3"].result == {
        "output": "Output: no\nExit Code: 2\n", "exit_code": 2, "structured": {"ansi": []},
    }  # fmt: skip


def test_what_is_unknown_is_kept_and_counted() -> None:
    strange = [
        b"no json", b"[1]", {"id": "d", "timestamp": at(3), "type": "dream"}, {"what": 1},
        {"$set": {"mood": 1, "messages": [7]}}, results("r9", 9, "nobody"),
    ]  # fmt: skip
    found = decoded([header(), *strange])
    assert [each.what for each in found if isinstance(each, Unread)] == [
        "a line that is no JSON", "a line that is no object", "record of type dream", "a record without an id",
        "a field mood of the session", "a message that is no object", "a tool result without a call",
    ]  # fmt: skip
    assert [each.payload["name"] for each in steps(found).values()] == ["dream", "record", "functionResponse"]


def write(path: Path, records: Iterable[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines_of(records)))
    return path


def test_sources_of_a_folder_are_sessions_with_all_their_files(tmp_path: Path) -> None:
    chats = tmp_path / "boat" / "chats"
    write(tmp_path / "boat" / ".project_root", [b"/work/boat"])
    first, second = (write(chats / f"session-2026-03-04T05-0{n}-abcdef12.jsonl", TURN) for n in (6, 9))
    inner = write(chats / "abcdef12-main" / "a.jsonl", [header("a", 20, kind="subagent")])
    outer = write(chats / "abcdef12-main" / "z.jsonl", [header("z", 10, kind="subagent")])
    document = write(chats / "session-2026-01-01T00-00-99999999.json", [{**header("99999999"), "messages": []}])
    write(chats / "other.jsonl", TURN)
    assert list(GEMINI.sources(tmp_path)) == [
        Source("gemini", document, (), "/work/boat"),
        Source("gemini", first, (second, outer, inner), "/work/boat"),
    ]
    assert list(GEMINI.sources(second)) == [Source("gemini", first, (second, outer, inner), "/work/boat")]
    assert [each.path for each in GEMINI.sources(inner)] == [inner]
    assert list(QWEN.sources(tmp_path)) == []
    assert not list(GEMINI.sources(write(tmp_path / "claude.jsonl", [{"sessionId": "a", "uuid": "b", "type": "user"}])))


def test_sub_agents_hang_under_the_calls_that_started_them() -> None:
    decoder = decoder_of()
    main = [header(), asked("u1", 2, "Look"), answered("g1", 4, "", [called("c1", 9, agentId="scout-1")])]
    below = [header("scout-1", 5, kind="subagent"), asked("u1", 5, "Look around"), answered("g1", 6, "Nothing.")]
    found = [each for line in lines_of(main) for each in decoder.feed(FILE, line)]
    found += [each for line in lines_of(below) for each in decoder.feed(SUB, line)]
    found += decoder.rest()
    assert last_session(found, "scout-1").parent == ("abcdef12-main", "c1")
    assert (last_session(found, "scout-1").name, last_session(found, "scout-1").goal) == ("read_file", "Look around")
    assert list(steps(found, "scout-1")) == ["user:u1", "gemini:g1"]
    alone = decoded(below, path=SUB)
    assert last_session(alone, "scout-1").parent == ("abcdef12-main", None)


def import_source(database: Database, sources: Iterable[Source], **how: Any) -> Importer:
    one = Importer(Context(database.storage), FORMATS, now=lambda: 4 * 10**18, **how)
    for source in sources:
        one.import_source(source)
    return one


def everything(folder: Path) -> list[tuple[Path, list[bytes]]]:
    """Return the files of a session with a resume, a rewind and a sub-agent, and of one of Qwen's."""
    more = [
        asked("u2", 10, "Paint it"), answered("g3", 12, "", [called("c9", 12, agentId="scout-1")]),
        {"$rewindTo": "u2"}, header(second=60), {"$set": {"messages": [CONTEXT, asked("u1", 60, "Caulk")]}},
        answered("g4", 61, "Done."),
    ]  # fmt: skip
    below = [header("scout-1", 5, kind="subagent"), asked("u1", 5, "Look around"), answered("g1", 6, "Nothing.")]
    return [
        (folder / FILE, lines_of([*TURN, *more])),
        (folder / SUB, lines_of(below)),
        (folder / "chats" / "q-1.jsonl", lines_of(QWEN_TURN)),
        (folder / "subagents" / "q-1" / "agent-scout-c3.jsonl", lines_of(QWEN_AGENT)),
    ]


def sources_in(folder: Path) -> list[Source]:
    return [*GEMINI.sources(folder), *QWEN.sources(folder)]


@pytest.mark.parametrize("follows", [False, True])
def test_files_that_grow_give_the_rows_of_whole_ones(tmp_path: Path, follows: bool) -> None:
    with agentspan.open(tmp_path / "whole.db") as database:
        for path, lines in everything(tmp_path / "whole"):
            write(path, lines)
        import_source(database, sources_in(tmp_path / "whole"))
        whole = stored(database)
    with agentspan.open(tmp_path / "pieces.db") as database:
        one = Importer(Context(database.storage), FORMATS, follows=True, now=lambda: 4 * 10**18)
        for path, lines in everything(tmp_path / "pieces"):
            for count in range(1, len(lines) + 1):
                os.utime(write(path, lines[:count]), ns=(count, count + len(lines)))
                for source in sources_in(tmp_path / "pieces"):
                    (one if follows else import_source(database, [])).import_source(source)
        assert stored(database) == whole


def test_reading_again_and_in_any_order_gives_the_same_rows(tmp_path: Path) -> None:
    for path, lines in everything(tmp_path / "files"):
        write(path, lines)
    found = sources_in(tmp_path / "files")
    rows = []
    for seed in (1, 2):
        random.Random(seed).shuffle(found)
        with agentspan.open(tmp_path / f"{seed}.db") as database:
            import_source(database, found)
            rows.append(stored(database))
            again = import_source(database, found, again=True)
            assert (again.arrived.spans, again.arrived.changed) == (0, 0)
            assert stored(database) == rows[-1]
    assert sorted(map(str, rows[0])) == sorted(map(str, rows[1]))


def test_a_document_of_an_older_version(tmp_path: Path) -> None:
    made = "read_file-1772600403000-a1b2c3d4e5f6"
    messages = [asked("u1", 2, "Caulk"), answered("g1", 6, "", [called(made, 5)]), answered("g2", 8, "Done."), 7]
    path = tmp_path / FILE.with_suffix(".json")
    write(path, [{**header(), "messages": messages}])
    assert GEMINI.decode is not None
    found = list(GEMINI.decode(path, None))
    of = steps(found)
    assert [(each.type, clocks(each)) for each in of.values()] == [
        ("message", (2, 2)), ("llm", (2, 3)), ("tool", (3, 5)), ("llm", (6, 8)),
    ]  # fmt: skip
    assert [each.what for each in found if isinstance(each, Unread)] == ["a message that is no object"]
    with agentspan.open(tmp_path / "a.db") as database:
        assert import_source(database, GEMINI.sources(path)).arrived.spans == 4
        # The program copies an older document into a log when it is resumed.
        log = write(tmp_path / FILE, [header(), *messages[:3]])
        assert import_source(database, GEMINI.sources(log)).arrived.spans == 0
    path.write_text("[]")
    assert list(GEMINI.decode(path, None)) == [Unread(None, "a document that is no JSON object")]


def record(type: str, second: float, uuid: str, parts: Any = None, **more: Any) -> dict[str, Any]:
    base = {"uuid": uuid, "parentUuid": None, "sessionId": "q-1", "timestamp": at(second), "type": type}
    role = "model" if type == "assistant" else "user"
    message = {} if parts is None else {"message": {"role": role, "parts": parts}}
    return {**base, "cwd": "/work/boat", "version": "0.15.0", "gitBranch": "main", **message, **more}


def telemetry(second: float, uuid: str, name: str, **event: Any) -> dict[str, Any]:
    payload = {"uiEvent": {"event.name": f"qwen-code.{name}", "model": "qwen3-coder", **event}}
    return record("system", second, uuid, subtype="ui_telemetry", systemPayload=payload)


def call(id: str, name: str, **arguments: Any) -> dict[str, Any]:
    return {"functionCall": {"id": id, "name": name, "args": arguments}}


def response(id: str, **answer: Any) -> list[dict[str, Any]]:
    return [{"functionResponse": {"id": id, "name": "x", "response": answer}}]


USAGE = {"promptTokenCount": 100, "candidatesTokenCount": 20, "totalTokenCount": 120, "thoughtsTokenCount": 5}
QWEN_TURN = [
    record("user", 1, "a", [{"text": "Caulk the hull"}]),
    telemetry(4, "b", "api_response", duration_ms=2000),
    record("assistant", 4, "c", [{"text": "Seams?", "thought": True}, {"text": "Look."}, call("c1", "read_file")],
           model="qwen3-coder", usageMetadata=USAGE, contextWindowSize=1000),
    telemetry(6, "n", "tool_call", duration_ms=500, function_name="read_file", function_args={}),
    record("tool_result", 6, "d", response("c1", output="tar"),
           toolCallResult={"callId": "c1", "status": "success", "resultDisplay": {"fileName": "keel"}}),
    record("assistant", 7, "e", [call("c2", "agent", subagent_type="scout", prompt="Look around"),
                                 call("c3", "agent", subagent_type="scout", run_in_background=True)],
           model="qwen3-coder", usageMetadata=USAGE),
    telemetry(9, "t", "tool_call", duration_ms=500, function_name="grep_search", function_args={"of": "tar"},
              prompt_id="q-1#scout-x1#0", status="error", error="none"),
    telemetry(9, "f", "api_response", duration_ms=1000, subagent_name="scout", input_token_count=7,
              output_token_count=3, total_token_count=10),
    record("tool_result", 10, "g", response("c2", output="Nothing"), toolCallResult={"callId": "c2"}),
    record("tool_result", 10, "h", response("c3", error="no"), toolCallResult={"callId": "c3", "status": "error"}),
    record("assistant", 12, "i", [{"text": "The hull is tight."}], model="qwen3-coder", usageMetadata=USAGE),
    record("system", 13, "j", subtype="custom_title", systemPayload={"customTitle": "Hull"}),
]  # fmt: skip
QWEN_AGENT = [
    {**record("user", 8, "s1", [{"text": "Look around"}]), "agentId": "scout-c3", "agentName": "scout",
     "isSidechain": True},
    record("assistant", 9, "s2", [call("t1", "grep_search")], agentId="scout-c3", isSidechain=True),
    record("tool_result", 9.5, "s3", response("t1", output="none"), toolCallResult={"callId": "t1", "durationMs": 5}),
    record("assistant", 10, "s4", [{"text": "Nothing."}], agentId="scout-c3", isSidechain=True),
]  # fmt: skip
QWEN_FILE = Path("chats", "q-1.jsonl")


def test_qwens_records() -> None:
    found = decoded(QWEN_TURN, QWEN, QWEN_FILE)
    of = steps(found, "q-1")
    assert [(each.key, each.type, each.status, clocks(each)) for each in of.values()] == [
        ("a", "message", "complete", (1, 1)),
        ("c", "llm", "complete", (2, 4)),
        ("c1", "tool", "complete", (5.5, 6)),
        ("e", "llm", "complete", (6, 7)),
        ("c2", "tool", "complete", (7, 10)),
        ("c3", "tool", "failed", (7, 10)),
        ("c2:agent", "agent", "complete", (8.5, 10)),
        ("t", "tool", "failed", (8.5, 9)),
        ("f", "llm", "complete", (8, 9)),
        ("i", "llm", "complete", (10, 12)),
    ]
    assert [of[key].parent for key in ("f", "t", "c2:agent")] == ["c2:agent", "c2:agent", "c2"]
    assert of["c2:agent"].payload == {"name": "scout", "goal": "Look around"}
    assert of["c"].result == {
        "text": "Look.",
        "thinking": "Seams?",
        "tool_calls": [{"id": "c1", "name": "read_file", "arguments": {}}],
        "input_tokens": 100,
        "cached_tokens": 0,
        "output_tokens": 20,
        "reasoning_tokens": 5,
    }
    assert of["c1"].result == {"output": "tar", "structured": {"fileName": "keel"}}
    about = last_session(found, "q-1")
    assert (about.agent, about.version, about.outcome, about.first) == ("qwen-code", "0.15.0", "answered", "a")
    assert about.metadata == {"cwd": "/work/boat", "git_branch": "main", "title": "Hull", "models": ["qwen3-coder"]}
    assert not [each for each in found if isinstance(each, Unread)]


def test_qwens_sub_agents_in_the_background_have_files_of_their_own(tmp_path: Path) -> None:
    files = [write(path, lines) for path, lines in everything(tmp_path)][2:]
    assert list(QWEN.sources(tmp_path)) == [Source("qwen", files[0], (files[1],), "/work/boat")]
    decoder = decoder_of(QWEN, files[0])
    found = [each for file in files for line in file.read_bytes().splitlines() for each in decoder.feed(file, line)]
    found += decoder.rest()
    about = last_session(found, "scout-c3")
    assert (about.parent, about.name, about.goal) == (("q-1", "c3"), "scout", "Look around")
    assert [each.type for each in steps(found, "scout-c3").values()] == ["message", "tool", "message"]


def test_qwens_rewinds_compressions_and_failures() -> None:
    more = [
        record("user", 20, "k", [{"text": "Paint"}]),
        telemetry(22, "l", "api_error", duration_ms=1000, error_type="Full", error_message="busy", status_code=529),
        record("system", 23, "m", subtype="rewind", parentUuid="j", systemPayload={"truncatedCount": 2}),
        record("system", 24, "n", subtype="chat_compression", systemPayload={
            "info": {"originalTokenCount": 900, "newTokenCount": 90},
            "compressedHistory": [{"role": "user", "parts": [{"text": "What was done"}]}]}),
        record("system", 25, "o", subtype="slash_command", systemPayload={"rawCommand": "/about"}),
        record("user", 26, "p", [{"text": "done"}], subtype="notification"),
        record("system", 27, "q", subtype="mood"),
        record("dream", 28, "r"),
        record("tool_result", 29, "s", response("nobody", output=1)),
    ]  # fmt: skip
    found = decoded([*QWEN_TURN, *more], QWEN, QWEN_FILE)
    of = steps(found, "q-1")
    assert [key for key, step in of.items() if step.payload.get("rewound")] == ["k", "l"]
    assert (of["l"].status, of["l"].result) == ("failed", {"error": {"type": "Full", "message": "busy"}})
    assert (of["n"].payload, of["n"].result) == (
        {"tokens_before": 900}, {"tokens_after": 90, "summary": "What was done"},
    )  # fmt: skip
    assert (of["p"].payload["role"], of["o"].payload["name"]) == ("system", "slash_command")
    assert [each.what for each in found if isinstance(each, Unread)] == [
        "record of type system:mood", "record of type dream", "a tool result without a call",
    ]  # fmt: skip


def test_a_fork_of_qwens_adds_only_what_is_its_own(tmp_path: Path) -> None:
    original = write(tmp_path / "chats" / "q-1.jsonl", QWEN_TURN)
    copies = [{**each, "sessionId": "q-2", "forkedFrom": {"sessionId": "q-1"}} for each in QWEN_TURN]
    fork = write(tmp_path / "chats" / "q-2.jsonl", [*copies, record("user", 90, "z", [{"text": "Go on"}])])
    with agentspan.open(tmp_path / "a.db") as database:
        import_source(database, QWEN.sources(original))
        added = import_source(database, QWEN.sources(fork))
        assert (len(added.arrived.runs), added.arrived.spans, added.arrived.inherited) == (1, 1, 10)


def test_qwens_older_files_are_those_of_gemini(tmp_path: Path) -> None:
    path = write(tmp_path / ".qwen" / "tmp" / "boat" / FILE, TURN)
    assert [each.path for each in QWEN.sources(tmp_path)] == [path]
    assert list(GEMINI.sources(tmp_path)) == list(GEMINI.sources(path)) == []
    found = decoded(TURN, QWEN, FILE)
    assert last_session(found).agent == "qwen-code"
    assert "provider" not in steps(found)["gemini:g1"].payload


@pytest.mark.parametrize(
    ("kept", "days"),
    [(None, 30), ({"enabled": False}, None), ({"maxAge": "2w"}, 14), ({"maxAge": "36h"}, 2), ({"maxAge": "long"}, 30)],
)
def test_gemini_deletes_sessions_after_the_days_of_its_settings(tmp_path: Path, kept: Any, days: int | None) -> None:
    if kept is not None:
        write(tmp_path / ".gemini" / "settings.json", [{"general": {"sessionRetention": kept}}])
    assert GEMINI.keeps_days is not None
    assert GEMINI.keeps_days({"HOME": str(tmp_path)}) == days


def test_roots_follow_the_environment() -> None:
    assert GEMINI.roots({"HOME": "/h"}) == [Path("/h/.gemini/tmp")]
    assert GEMINI.roots({"GEMINI_CLI_HOME": "/g"}) == [Path("/g/.gemini/tmp")]
    assert QWEN.roots({"HOME": "/h"}) == [Path("/h/.qwen/projects"), Path("/h/.qwen/tmp")]
    assert QWEN.roots({"QWEN_HOME": "/q"}) == [Path("/q/projects"), Path("/q/tmp")]


def test_ids_that_are_no_unicode_are_stored(tmp_path: Path) -> None:
    odd = "\ud800x"
    log = [header(odd), asked(odd, 2, odd), answered(odd, 3, odd, [called(odd, 4, odd)], model=odd), {"$rewindTo": odd}]
    log.append({"id": odd, "timestamp": at(5), "type": odd})
    log.append({"$set": {"summary": odd, odd: odd}})
    turn = [{**each, "uuid": odd, "sessionId": odd, "version": odd, "gitBranch": odd} for each in QWEN_TURN]
    turn.append(record(odd, 60, odd))
    sources = [
        *GEMINI.sources(write(tmp_path / FILE, log)),
        *QWEN.sources(write(tmp_path / "chats" / "q.jsonl", turn)),
    ]
    with agentspan.open(tmp_path / "a.db") as database:
        assert import_source(database, sources).arrived.spans > 5
        assert len(stored(database)) == 2


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.just(at(3)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
PART = st.dictionaries(
    st.sampled_from(["text", "thought", "functionCall", "functionResponse", "inlineData"]),
    JUNK | st.fixed_dictionaries({}, optional={"id": JUNK, "name": JUNK, "response": JUNK, "data": JUNK}),
)
PARTS = JUNK | st.lists(PART | JUNK, max_size=3)
CALLS = JUNK | st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(["id", "name", "args", "result", "status", "timestamp"], JUNK)),
    max_size=2,
)  # fmt: skip
NAMES = ("model", "tokens", "thoughts", "displayContent", "sessionId", "kind", "timestamp")
MESSAGE = st.fixed_dictionaries(
    {"id": st.sampled_from("ab") | JUNK, "type": st.sampled_from(["user", "gemini", "info"]) | JUNK, "content": PARTS},
    optional={**dict.fromkeys(NAMES, JUNK), "toolCalls": CALLS},
)
SET = st.fixed_dictionaries({"$set": JUNK | st.fixed_dictionaries({"messages": JUNK | st.lists(MESSAGE | JUNK)})})
REWIND = st.fixed_dictionaries({"$rewindTo": st.sampled_from("ab") | JUNK})
QWEN_NAMES = (
    "uuid",
    "parentUuid",
    "sessionId",
    "timestamp",
    "model",
    "usageMetadata",
    "toolCallResult",
    "agentId",
    "cwd",
)
QWEN_RECORD = st.fixed_dictionaries(
    {"type": st.sampled_from(["user", "assistant", "tool_result", "system"]) | JUNK},
    optional={
        **dict.fromkeys(QWEN_NAMES, JUNK),
        "message": JUNK | st.fixed_dictionaries({"parts": PARTS}),
        "subtype": st.sampled_from(["ui_telemetry", "rewind", "chat_compression", "custom_title", "at_command"]) | JUNK,
        "systemPayload": JUNK | st.fixed_dictionaries({"uiEvent": st.dictionaries(st.sampled_from(
            ["event.name", "subagent_name", "duration_ms", "model", "error_type"]), JUNK | st.just("x.api_error"))}),
    },
)  # fmt: skip


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(MESSAGE | SET | REWIND | QWEN_RECORD | JUNK, max_size=8), st.booleans(), st.booleans())
def test_hostile_lines_never_raise_and_pieces_are_the_whole(records: list[Any], is_qwen: bool, is_log: bool) -> None:
    format = QWEN if is_qwen else GEMINI
    path = FILE if is_log else QWEN_FILE
    lines = [json.dumps(each).encode() for each in records]
    whole = decoded(lines, format, path)
    decoder = decoder_of(format, path)
    pieces: list[Record] = []
    for line in lines:
        pieces += [*decoder.feed(path, line), *decoder.rest()]
    last = {each.id: each for each in pieces if isinstance(each, Session)}
    assert last == {each.id: each for each in whole if isinstance(each, Session)}
    by_key = {(each.session, each.key): each for each in pieces if isinstance(each, Step)}
    of_whole = {(each.session, each.key): each for each in whole if isinstance(each, Step)}
    assert sorted(map(str, by_key.items())) == sorted(map(str, of_whole.items()))
