"""Real sessions of Claude Code, compared with facts that were counted without this program.

AGENTSPAN_TEST_SESSIONS names a folder with `claude-code`, `claude-code-growth` and `manifest.json`.
"""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.arriving.records import Session, Step, Unread
from agentspan.sessions.claude import FORMATS, sources
from agentspan.sessions.claude_records import ClaudeDecoder
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.reading import lines_of, opened
from tests.sessions.stored_rows import rows_of as rows_with_parents

FOLDER = Path(os.environ.get("AGENTSPAN_TEST_SESSIONS", "."))
pytestmark = pytest.mark.skipif("AGENTSPAN_TEST_SESSIONS" not in os.environ, reason="needs AGENTSPAN_TEST_SESSIONS")


def manifest() -> dict[str, Any]:
    path = FOLDER / "manifest.json"
    return json.loads(path.read_text()) if path.is_file() else {"facts": {}, "independent": {}}


FACTS: dict[str, dict[str, Any]] = {
    name: facts for name, facts in manifest()["facts"].items() if name.startswith("claude-code")
}
PRICED = {name: facts for name, facts in manifest()["independent"].items() if name.startswith("claude-code/")}
REDUCED = "reduced/"
"""Fixtures in which nearly every text was replaced by one, so that different records have one id."""


def lines(file: Path) -> list[bytes]:
    with opened(file) as found:
        return [line.text for line in lines_of(found)]


def decoded(source: Source, *, growing: bool = False) -> tuple[Session, dict[str, Step], Counter[str]]:
    """Return the last session, the steps by key, and what was not understood."""
    decoder, session, found, unread = ClaudeDecoder(source), None, dict[str, Step](), Counter[str]()
    for record in _records(decoder, source, growing):
        if isinstance(record, Session):
            session = record
        elif isinstance(record, Step):
            found[record.key] = record
        else:
            assert isinstance(record, Unread)
            unread[record.what] += record.times
    assert session is not None
    return session, found, unread


def _records(decoder: ClaudeDecoder, source: Source, growing: bool) -> Iterable[Any]:
    for file in source.files:
        for line in lines(file):
            yield from decoder.feed(file, line)
            if growing:
                yield from decoder.rest()
    yield from decoder.rest()


def counts(steps: Iterable[Step]) -> dict[str, Any]:
    """Return the counts that the manifest has, of steps."""
    found: dict[str, Any] = Counter()
    tokens: dict[str, Counter[str]] = defaultdict(Counter)
    for step in steps:
        result = step.result or {}
        if step.type == "message" and step.payload["role"] == "user" and "steering" not in step.payload:
            found["prompts"] += 1
        elif step.type == "llm" and step.status != "failed":
            found["calls"] += 1
            read, written = result.get("cached_tokens", 0), result.get("cache_write_tokens", 0)
            tokens[step.payload["model"]].update(
                input_tokens=result.get("input_tokens", 0) - read - written,
                cache_creation_input_tokens=written,
                cache_read_input_tokens=read,
                output_tokens=result.get("output_tokens", 0),
            )
        elif step.type == "llm":
            found["api_errors"] += 1
        elif step.type in ("tool", "mcp"):
            found["tool_calls"] += 1
            found["tool_errors"] += result.get("is_error") is True
            found["tool_calls_without_result"] += step.result is None
        elif step.type == "compaction":
            found["microcompactions" if "micro" in step.payload else "compactions"] += 1
        elif step.type == "event" and step.payload["name"] == "api_error":
            found["api_error_messages"] += 1
        elif step.type == "event" and step.payload["name"] == "synthetic":
            found["synthetic"] += 1
        elif step.type == "event" and step.payload["name"] == "interrupted":
            found["interruptions"] += 1
    return {**found, "tokens": {model: dict(each) for model, each in tokens.items()}}


def synthetic(file: Path) -> int:
    """Return how many messages Claude Code wrote itself."""
    return len(
        {
            record["message"].get("id")
            for line in lines(file)
            if b"<synthetic>" in line and (record := json.loads(line)).get("type") == "assistant"
            if record["message"].get("model") == "<synthetic>"
        }
    )


def expected(name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the manifest's counts, without those of messages that no model wrote."""
    tokens = {model: dict(each) for model, each in facts["tokens"].items() if model != "<synthetic>"}
    names = ("prompts", "tool_calls", "tool_errors", "compactions", "microcompactions", "api_errors", "interruptions",
             "tool_calls_without_result")  # fmt: skip
    found = {each: facts[each] for each in names}
    return {**found, "calls": facts["assistant_messages"] - synthetic(FOLDER / name), "tokens": tokens}


@pytest.mark.parametrize("name", [name for name in FACTS if REDUCED not in name])
def test_counts_equal_the_facts(name: str) -> None:
    _, found, unread = decoded(Source("claude", FOLDER / name))
    ours, facts = counts(found.values()), expected(name, FACTS[name])
    assert {each: ours.get(each, 0) for each in facts} == facts
    assert not unread, unread


def whole_sources() -> list[Source]:
    return list(sources(FOLDER / "claude-code" / "projects"))


def test_every_file_belongs_to_one_session() -> None:
    files = [file for source in whole_sources() for file in source.files]
    assert len(files) == len(set(files))
    assert set(files) == {path for path in (FOLDER / "claude-code" / "projects").rglob("*") if path.is_file()}


@pytest.mark.parametrize("source", whole_sources(), ids=lambda source: source.path.name[:13])
def test_line_by_line_gives_the_whole(source: Source) -> None:
    whole, grown = decoded(source), decoded(source, growing=True)
    assert grown[0] == whole[0]
    assert {key: step for key, step in grown[1].items() if step != whole[1].get(key)} == {}
    assert grown[1].keys() == whole[1].keys()
    assert grown[2] == whole[2]


@pytest.mark.parametrize("source", whole_sources(), ids=lambda source: source.path.name[:13])
def test_a_session_has_the_steps_of_all_its_files(source: Source) -> None:
    ours = counts(decoded(source)[1].values())
    total: Counter[str] = Counter()
    for file in source.files:
        facts = expected(str(file.relative_to(FOLDER)), FACTS[str(file.relative_to(FOLDER))])
        total.update({name: facts[name] for name in ("prompts", "calls", "tool_calls", "tool_errors", "compactions")})
    assert {name: ours.get(name, 0) for name in total} == total


def rows_of(database: Any) -> list[Any]:
    """Return what is stored. Ids of parents begin with the run's random part, which is left out."""
    found = rows_with_parents(database)
    for _, spans in found:
        for span in spans:
            span["parent_span_id"] = (span["parent_span_id"] or "")[16:]
    return found


def importer(database: Any, **how: Any) -> Importer:
    return Importer(Context(database.storage), {"claude": FORMATS[0]}, now=lambda: 2 * 10**18, **how)


def test_twice_adds_nothing_and_costs_are_those_of_another_reader(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        first = importer(database)
        for source in whole_sources():
            first.import_source(source)
        assert not first.problems
        stored = rows_of(database)
        again = importer(database, again=True)
        for source in reversed(whole_sources()):
            again.import_source(source)
        assert (again.arrived.spans, again.arrived.changed) == (0, 0)
        assert rows_of(database) == stored
    costs = {
        run["session"]: sum(span["cost_usd"] or 0 for span in spans if not span["is_aggregate"])
        for run, spans in stored
    }
    for id, cost in costs.items():
        assert cost == pytest.approx(independent_cost(id), rel=0.005), id


def independent_cost(id: str) -> float:
    """Return what the other reader says that a session and the old files of its sub-agents cost."""
    source = next(each for each in whole_sources() if id.startswith(each.path.name.partition(".")[0]))
    names = [str(file.relative_to(FOLDER)).partition(".jsonl")[0] for file in source.files]
    return sum(float(PRICED[name]["cost_usd"]) for name in names if name in PRICED)


@pytest.mark.parametrize("id", sorted({name.split("/")[1] for name in FACTS if "-growth/" in name}))
@pytest.mark.parametrize("follows", [False, True])
def test_earlier_states_then_the_whole_give_the_whole(id: str, follows: bool, tmp_path: Path) -> None:
    states = sorted((FOLDER / "claude-code-growth" / id).iterdir())
    states += [source.path for source in whole_sources() if source.path.name.startswith(id)]
    texts = [lines(state) for state in states]
    if any(later[: len(earlier)] != earlier for earlier, later in pairwise(texts)):
        pytest.skip("the states are different cuts of the session: none is the begin of the next")
    path = tmp_path / f"{id}.jsonl"
    with agentspan.open(tmp_path / "pieces.db") as database:
        one = importer(database, follows=follows)
        for number, each in enumerate(texts):
            write(path, each, number)
            (one if follows else importer(database)).import_source(Source("claude", path))
        grown = rows_of(database)
    with agentspan.open(tmp_path / "whole.db") as database:
        importer(database).import_source(Source("claude", path))
        assert rows_of(database) == grown


def write(path: Path, texts: list[bytes], number: int) -> None:
    path.write_bytes(b"".join(text + b"\n" for text in texts))
    os.utime(path, ns=(10**18 + number, 10**18 + number))


def test_a_session_that_grows_by_a_line_is_stored_as_the_whole(tmp_path: Path) -> None:
    source = min((each for each in whole_sources() if len(each.files) > 1), key=lambda each: len(lines(each.path)))
    copies = [tmp_path / "grown" / file.relative_to(source.path.parent) for file in source.files]
    parts = Source("claude", copies[0], tuple(copies[1:]))
    with agentspan.open(tmp_path / "grown.db") as database:
        one = importer(database, follows=True)
        number = 0
        for at in range(1, max(len(lines(file)) for file in source.files) + 1):
            for file, copy in zip(source.files, copies, strict=True):
                copy.parent.mkdir(parents=True, exist_ok=True)
                number += 1
                write(copy, lines(file)[:at], number)
            one.import_source(parts)
        grown = rows_of(database)
    with agentspan.open(tmp_path / "whole.db") as database:
        importer(database).import_source(parts)
        assert rows_of(database) == grown


def test_nothing_of_the_reduced_fixtures_is_lost() -> None:
    for path in (FOLDER / "claude-code" / "reduced").iterdir():
        _, found, _ = decoded(Source("claude", path))
        assert found
