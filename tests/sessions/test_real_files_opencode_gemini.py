"""Real sessions of OpenCode and Gemini CLI, in a folder that the tests do not have, against counts of another program.

The folder's `manifest.json` has the counts by file as `facts`. Three of them are met in another form:

- A file of OpenCode counts a fork's copies of messages, which the decoder leaves out: they are added here.
- The counts of Gemini's tool calls are of the last state of a log. A resume drops them there, and the decoder does not:
  they are counted in all states here, and must not be fewer than those of the manifest.
- Gemini's user records are prompts, contexts, and results of tools, which the decoder keeps with their calls.
"""

import json
import os
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.sessions import gemini, opencode
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from tests.sessions.stored_rows import stored

FOLDER = os.environ.get("AGENTSPAN_TEST_SESSIONS")
pytestmark = pytest.mark.skipif(FOLDER is None, reason="needs AGENTSPAN_TEST_SESSIONS")
ROOT = Path(FOLDER or ".")
FORMATS = {format.name: format for format in (*gemini.FORMATS, *opencode.FORMATS)}


def facts(*begins: str) -> dict[str, dict[str, Any]]:
    if FOLDER is None:
        return {}
    found = json.loads((ROOT / "manifest.json").read_text())["facts"]
    return {name: fact for name, fact in found.items() if fact is not None and name.startswith(begins)}


GEMINI = facts("gemini/", "generated/gemini/")
OPENCODE = facts("opencode/", "generated/opencode/")


def decoded(path: Path, name: str) -> list[Record]:
    format = FORMATS[name]
    (source,) = format.sources(path)
    if format.lines is None or path.suffix == ".json":
        assert format.decode is not None
        return list(format.decode(path, None))
    decoder = format.lines(source)
    found = [each for line in path.read_bytes().splitlines() for each in decoder.feed(path, line)]
    return [*found, *decoder.rest()]


def steps(records: Iterable[Record]) -> list[Step]:
    return [*{(each.session, each.key): each for each in records if isinstance(each, Step)}.values()]


def tokens(found: Iterable[Step]) -> dict[str, Counter[str]]:
    """Return the token fields of model calls by model."""
    sums: dict[str, Counter[str]] = defaultdict(Counter)
    for step in found:
        if step.type == "llm" and step.result and "input_tokens" in step.result:
            counts = {name: value for name, value in step.result.items() if name.endswith("_tokens")}
            sums[step.payload["model"]].update(counts)
    return sums


def gemini_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every message that ever stood in a file."""
    text = path.read_text()
    lines = [json.loads(text)] if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    for line in lines:
        yield from [line] if "id" in line else line.get("messages") or line.get("$set", {}).get("messages") or ()


def parts_of(record: dict[str, Any]) -> list[Any]:
    return record["content"] if isinstance(record.get("content"), list) else [{"text": record.get("content")}]


@pytest.mark.parametrize("name", GEMINI)
def test_gemini_counts(name: str) -> None:
    fact, path = GEMINI[name], ROOT / name
    found = decoded(path, "gemini")
    of = steps(found)
    assert not [each for each in found if isinstance(each, Unread)]
    assert {each.id for each in found if isinstance(each, Session)} == {fact["session"]}
    users = {each["id"]: parts_of(each) for each in gemini_records(path) if each["type"] == "user"}
    assert len(users) == fact["messages"]["user"]
    results = [parts for parts in users.values() if any("functionResponse" in part for part in parts)]
    contexts = [parts for parts in users.values() if str(parts[0].get("text")).startswith("<session_context>")]
    prompts = [each for each in of if each.type == "message" and each.payload["role"] == "user"]
    assert len(prompts) == fact["messages"]["user"] - len(results) - len(contexts)
    assert sum(each.type == "llm" for each in of) == fact["messages"]["gemini"]
    ever = {call["id"]: call for each in gemini_records(path) for call in each.get("toolCalls") or ()}
    tools = Counter(each.payload["name"] for each in of if each.type == "tool")
    assert tools == Counter(call["name"] for call in ever.values())
    assert len(ever) >= fact["tool_calls"]
    if not fact["headers"] > 1:
        assert tools == fact["tools"]
        assert sum(each.type == "tool" and each.status == "complete" for each in of) == fact["tool_status"].get(
            "success", 0
        )
    wanted = {
        model: {
            "input_tokens": each["input"] + each["tool"],
            "cached_tokens": each["cached"],
            "output_tokens": each["output"] + each["thoughts"],
            "reasoning_tokens": each["thoughts"],
        }
        for model, each in fact["tokens"].items()
    }
    assert {model: {**dict.fromkeys(wanted[model], 0), **each} for model, each in tokens(of).items()} == wanted
    assert all(sum((each["input_tokens"], each["output_tokens"])) for each in wanted.values())


def copies_in(path: Path) -> list[dict[str, Any]]:
    """Return the messages that forks copied, with the types of their parts."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        sql = (
            "SELECT m.id, m.data FROM message m JOIN session s ON s.id = m.session_id"
            " WHERE m.time_created < s.time_created AND s.parent_id IS NULL"
        )
        found = []
        for id, data in connection.execute(sql).fetchall():
            parts = connection.execute("SELECT data FROM part WHERE message_id = ?", (id,)).fetchall()
            found.append({**json.loads(data), "parts": [json.loads(part) for (part,) in parts]})
        return found


@pytest.mark.parametrize("name", OPENCODE)
def test_opencode_counts(name: str) -> None:
    fact, path = OPENCODE[name], ROOT / name
    found = decoded(path, "opencode")
    of, copies = steps(found), copies_in(path)
    assert not [each for each in found if isinstance(each, Unread)]
    sessions = {each.id: each for each in found if isinstance(each, Session)}
    assert len(sessions) == fact["sessions"]
    assert sum(each.parent is not None for each in sessions.values()) == fact["child_sessions"]
    assert {each.version for each in sessions.values()} == set(fact["versions"])
    roles = Counter(each["role"] for each in copies)
    prompts = sum(each.type == "message" for each in of)
    assert prompts + roles["user"] == fact["messages"]["user"]
    answers = sum(each.type == "llm" for each in of)
    assert answers + roles["assistant"] == fact["messages"]["assistant"]
    kinds = Counter(part["type"] for each in copies for part in each["parts"])
    finished = sum(each.type == "llm" and each.status == "complete" for each in of)
    assert finished + kinds["step-finish"] == fact["parts"]["step-finish"]
    tools = Counter(each.payload["name"] for each in of if each.type == "tool")
    tools += Counter(part["tool"] for each in copies for part in each["parts"] if part["type"] == "tool")
    assert tools == fact["tools"]
    failed = [each for each in of if each.type == "llm" and each.status == "failed"]
    assert Counter((each.result or {})["error"]["type"] for each in failed) == fact["errors"]
    assert sum(each.status == "active" for each in of) == fact["not_completed"]
    own = tokens(of)
    for full, wanted in fact["tokens"].items():
        provider, _, model = full.partition("/")
        copied = [each for each in copies if each.get("providerID") == provider and each.get("modelID") == model]
        counted = own[model]
        read, write = wanted["cache_read"], wanted["cache_write"]
        sums = {name: sum(each["tokens"][name] for each in copied) for name in ("input", "output", "reasoning")}
        cached = {name: sum(each["tokens"]["cache"][name] for each in copied) for name in ("read", "write")}
        assert counted["input_tokens"] + sums["input"] + sum(cached.values()) == wanted["input"] + read + write
        assert counted["cached_tokens"] + cached["read"] == read
        assert counted["cache_write_tokens"] + cached["write"] == write
        assert counted["output_tokens"] + sums["output"] + sums["reasoning"] == wanted["output"] + wanted["reasoning"]
        assert counted["reasoning_tokens"] + sums["reasoning"] == wanted["reasoning"]
        stated = sum((each.result or {}).get("stated_cost_usd", 0) for each in of if each.type == "llm")
        assert stated + sum(each["cost"] for each in copied) == pytest.approx(fact["cost"][full])


def all_sources() -> list[Source]:
    folders = ("gemini", "opencode", "generated/gemini", "generated/opencode")
    return [each for folder in folders for format in FORMATS.values() for each in format.sources(ROOT / folder)]


def test_all_files_twice_and_backwards_are_the_same_rows(tmp_path: Path) -> None:
    rows = []
    for name, sources in (("a", all_sources()), ("b", all_sources()[::-1])):
        with agentspan.open(tmp_path / f"{name}.db") as database:
            one = Importer(Context(database.storage), FORMATS, now=lambda: 4 * 10**18)
            for source in sources:
                one.import_source(source)
            rows.append(stored(database))
            assert not one.problems
            again = Importer(Context(database.storage), FORMATS, again=True, now=lambda: 4 * 10**18)
            for source in sources:
                again.import_source(source)
            assert (again.arrived.spans, again.arrived.changed) == (0, 0)
            assert stored(database) == rows[-1]
    assert sorted(map(str, rows[0])) == sorted(map(str, rows[1]))


@pytest.mark.parametrize("name", [name for name in GEMINI if name.endswith(".jsonl")])
def test_a_log_that_grows_is_the_whole_one(name: str) -> None:
    path = ROOT / name
    (source,) = FORMATS["gemini"].sources(path)
    assert FORMATS["gemini"].lines is not None
    decoder = FORMATS["gemini"].lines(source)
    pieces: list[Record] = []
    for line in path.read_bytes().splitlines():
        pieces += [*decoder.feed(path, line), *decoder.rest()]
    assert steps(pieces) == steps(decoded(path, "gemini"))
