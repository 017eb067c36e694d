"""Real sessions of Claude Code, compared with facts that were counted without this program.

AGENTSPAN_TEST_SESSIONS names a folder with `claude-code`, `claude-code-growth` and `manifest.json`.
"""

import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.sessions.claude import FORMATS, sources
from agentspan.sessions.claude_records import ClaudeDecoder
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.reading import lines_of, opened
from agentspan.sessions.records import Session, Step, Unread
from tests.sessions.test_importing import rows_of

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
    session, found, unread = decoded(Source("claude", FOLDER / name))
    ours, facts = counts(found.values()), expected(name, FACTS[name])
    assert {each: ours.get(each, 0) for each in facts} == facts
    assert not unread, unread
