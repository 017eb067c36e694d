"""Real rollouts give what was counted in them independently, whole, in pieces, twice, and in any order.

The folder is named by AGENTSPAN_TEST_SESSIONS; its manifest.json has the counts.
"""

import gzip
import json
import os
import random
import shutil
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.sessions.codex import FORMATS, id_of
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.reading import opened, plain_path
from agentspan.storage.access import scan
from agentspan.storage.questions import SpansOf
from tests.sessions.codex_rollouts import Decoded, decode, grown

_FOLDER = os.environ.get("AGENTSPAN_TEST_SESSIONS")
pytestmark = pytest.mark.skipif(_FOLDER is None, reason="needs AGENTSPAN_TEST_SESSIONS")
FOLDER = Path(_FOLDER or ".")
CODEX = FORMATS[0]
CALLS = ("function_call", "custom_tool_call", "local_shell_call", "web_search_call")
OUTPUTS = ("function_call_output", "custom_tool_call_output")
TOKENS = {
    "input_tokens": "input_tokens",
    "cached_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_input_tokens",
    "output_tokens": "output_tokens",
    "reasoning_tokens": "reasoning_output_tokens",
}
SMALL = 100
"""The records of a file that is small enough for a test that commits each line."""


def manifest() -> dict[str, Any]:
    """Return the manifest of the folder; an empty one without a folder."""
    if _FOLDER is None:
        return {"facts": {}, "independent": {}}
    found: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text())
    return found


FACTS = {name: facts for name, facts in manifest()["facts"].items() if "codex" in name}
WHOLE = {name: facts for name, facts in FACTS.items() if "growth" not in name}
RECORDS = {facts["thread"]: facts["records"] for facts in WHOLE.values()}
GROWTH = sorted(name for name in FACTS if "growth" in name and FACTS[name]["records"] < RECORDS[FACTS[name]["thread"]])
"""The states before the whole. One that is called an earlier state has a record more: the last turn's end."""
INDEPENDENT = {name: counted for name, counted in manifest()["independent"].items() if name in FACTS}


@cache
def lines_of(name: str) -> tuple[bytes, ...]:
    """Return the lines of a file of the folder."""
    with opened(FOLDER / name) as file:
        return tuple(line.rstrip(b"\r\n") for line in file)


@cache
def decoded_of(name: str) -> Decoded:
    """Return what a file of the folder decodes to."""
    return decode(lines_of(name), id_of(FOLDER / name))


def own_items(name: str, kinds: tuple[str, ...]) -> int:
    """Return the response items of some kinds after what a fork has copied."""
    copied = FACTS[name]["inherited_records"]
    own = lines_of(name)[copied + 1 if copied else 0 :]
    items = (
        found for line in own if (found := json.loads(line)).get("type") == "response_item" or "payload" not in found
    )
    return sum(found.get("payload", found).get("type") in kinds for found in items)


def tokens_of(decoded: Decoded) -> dict[str, Counter[str]]:
    """Return the tokens of a thread by model, under the source's names."""
    found: dict[str, Counter[str]] = {}
    for step in decoded.of("llm"):
        tokens = found.setdefault(step.payload["model"], Counter())
        tokens.update({theirs: (step.result or {}).get(ours, 0) for ours, theirs in TOKENS.items()})
    return found


@pytest.mark.parametrize("name", FACTS)
def test_prompts_calls_and_ends_are_those_that_were_counted(name: str) -> None:
    facts, decoded = FACTS[name], decoded_of(name)
    tools = decoded.of("tool", "mcp")
    # The counts leave out prompts of the first form: there are no events of prompts in it.
    prompts = len([step for step in decoded.of("message") if step.payload["role"] == "user"])
    flat = [json.loads(line) for line in lines_of(name) if facts["old_form"]]
    assert prompts == facts["prompts_own"] + len([each for each in flat if each.get("role") == "user"])
    assert len(tools) == own_items(name, CALLS)
    assert sum(not {"output", "result"}.isdisjoint(step.result or {}) for step in tools) == own_items(name, OUTPUTS)
    if facts["inherited_records"] == 0:
        assert (len(tools), own_items(name, OUTPUTS)) == (facts["tool_calls"], facts["tool_outputs"])
    ended = [(step.result or {}).get("structured", {}) for step in tools]
    assert sum("command" in each and each.get("status") == "failed" for each in ended) == facts["exec_failed"]
    assert sum("changes" in each and each.get("success") is False for each in ended) == facts["patches_failed"]
    assert len(decoded.of("compaction")) == facts["compactions"]
    assert json.dumps([step.payload for step in decoded.of("message")]).count('"type": "image"') == facts["images"]
    assert not decoded.unread


@pytest.mark.parametrize("name", FACTS)
def test_interruptions_and_spawns_are_those_that_were_counted(name: str) -> None:
    facts, decoded = FACTS[name], decoded_of(name)
    aborted = [step for step in decoded.steps.values() if step.key.startswith("turn_aborted:")]
    assert dict(Counter(step.payload["content"]["reason"] for step in aborted)) == facts["aborted"]
    spawned = [key for key in decoded.steps if key.startswith("spawn:")]
    assert len(spawned) == facts["subagents_spawned"]


@pytest.mark.parametrize("name", FACTS)
def test_tokens_by_model_are_those_that_were_counted(name: str) -> None:
    found, expected = tokens_of(decoded_of(name)), FACTS[name]["tokens_own"]
    for model, tokens in expected.items():
        assert {kind: count for kind, count in tokens.items() if kind != "total_tokens"} == {
            kind: found[model][kind] for kind in tokens if kind != "total_tokens"
        }
    assert {model for model, tokens in found.items() if tokens.total()} <= set(expected)


@pytest.mark.parametrize("name", INDEPENDENT)
def test_tokens_are_those_of_another_reader(name: str) -> None:
    counted = INDEPENDENT[name]
    found = sum(tokens_of(decoded_of(name)).values(), Counter[str]())
    assert found["input_tokens"] == counted["input_tokens_with_cached"]
    for kind in ("cached_input_tokens", "output_tokens", "reasoning_output_tokens"):
        assert found[kind] == counted[kind]


@pytest.mark.parametrize("name", FACTS)
def test_a_thread_says_what_it_is(name: str) -> None:
    facts, session = FACTS[name], decoded_of(name).session
    assert session is not None
    assert (session.id, session.version) == (facts["thread"], facts["version"])
    assert (session.parent or (None,))[0] == facts["parent"]
    assert facts["parent"] is not None or session.conversation == facts["forked_from"]
    assert session.metadata.get("entrypoint") == facts["originator"]


@pytest.mark.parametrize("name", FACTS)
def test_a_file_that_grows_by_lines_gives_the_steps_of_the_whole(name: str) -> None:
    assert grown(lines_of(name), id_of(FOLDER / name)) == decoded_of(name)


@pytest.mark.parametrize("name", [name for name, facts in WHOLE.items() if facts["records"] <= SMALL])
def test_a_file_that_is_followed_line_by_line_gives_the_rows_of_the_whole(name: str, tmp_path: Path) -> None:
    (path,), lines = copied_to(tmp_path, [name]), lines_of(name)
    with agentspan.open(tmp_path / "whole.db") as database:
        importer_of(database).import_source(Source("codex", path))
        whole = rows_of(database)
    path.write_bytes(b"")
    with agentspan.open(tmp_path / "lines.db") as database:
        importer = Importer(Context(database.storage), {"codex": CODEX}, follows=True, now=lambda: 2 * 10**18)
        for number, line in enumerate(lines):
            with path.open("ab") as file:
                file.write(line + b"\n")
            os.utime(path, ns=(10**18, 10**18 + number))
            importer.import_source(Source("codex", path))
        assert rows_of(database) == whole


@pytest.mark.parametrize("name", FACTS)
def test_steps_are_ordered_and_have_an_end(name: str) -> None:
    steps = list(decoded_of(name).steps.values())
    assert all(step.end_ns is None or step.end_ns >= step.start_ns > 0 for step in steps)
    prompts_and_calls = [step.start_ns // 1000 for step in steps if step.type in ("message", "llm", "tool", "mcp")]
    assert len(set(prompts_and_calls)) == len(prompts_and_calls)


def copied_to(folder: Path, names: list[str]) -> list[Path]:
    """Copy files of the folder below another one, unpacked, in the folders of Codex."""
    found = []
    for name in names:
        plain = plain_path(Path(name)).name
        path = folder / "sessions" / (plain if plain.startswith("rollout-") else f"rollout-{plain}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(line + b"\n" for line in lines_of(name)))
        os.utime(path, ns=(10**18, 10**18))
        found.append(path)
    return found


def importer_of(database: Database) -> Importer:
    """Return an importer for which all files are old."""
    return Importer(Context(database.storage), {"codex": CODEX}, now=lambda: 2 * 10**18)


def rows_of(database: Database) -> list[Any]:
    """Return what is stored of runs and spans, in order, without the times of storing."""
    runs = sorted(scan(database.storage, AgentInstanceRow), key=lambda run: run.id[16:])
    return [(_timeless(run), [_timeless(span) for span in database.storage.ask(SpansOf(run.id))]) for run in runs]


def _timeless(row: AgentInstanceRow | AgentSpanRow) -> Any:
    values = row._asdict()
    for name in ("inserted_at", "updated_at", "agent_id", "agent_version_id", "agent_schema_version_id", "partition"):
        values.pop(name, None)
    ids = {name: (values[name] or "")[16:] for name in ("id", "agent_instance_id", "parent_span_id") if name in values}
    return {**values, **ids}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The rows of all whole files, brought in once, in the order that `sources` gives."""
    folder = tmp_path_factory.mktemp("whole")
    copied_to(folder, list(WHOLE))
    with agentspan.open(folder / "a.db") as database:
        importer = importer_of(database)
        for source in CODEX.sources(folder):
            importer.import_source(source)
        assert not importer.problems
        again = importer_of(database)
        assert not any(again.import_source(source) for source in CODEX.sources(folder))
        forced = Importer(Context(database.storage), {"codex": CODEX}, again=True, now=lambda: 2 * 10**18)
        for source in CODEX.sources(folder):
            forced.import_source(source)
        assert (forced.arrived.spans, forced.arrived.changed) == (0, 0)
        return rows_of(database)


def test_sub_agents_are_in_the_runs_of_their_parents(stored: list[Any]) -> None:
    children = sum(facts["parent"] in {each["thread"] for each in WHOLE.values()} for facts in WHOLE.values())
    assert len(stored) == len({facts["thread"] for facts in WHOLE.values()}) - children
    assert children
    spans = {span["id"]: span for _, each in stored for span in each}
    agents = [span for span in spans.values() if span["schema_name"] == "agent"]
    assert [spans[span["parent_span_id"]]["label"] for span in agents] == ["spawn_agent"] * children
    assert all(span["input_tokens"] for span in agents)


def test_the_stored_tokens_are_those_that_were_counted(stored: list[Any]) -> None:
    expected = Counter[str]()
    for facts in WHOLE.values():
        for tokens in facts["tokens_own"].values():
            expected.update({kind: tokens.get(kind, 0) for kind in ("input_tokens", "output_tokens")})
    spans = [span for _, each in stored for span in each if not span["is_aggregate"]]
    assert sum(span["input_tokens"] or 0 for span in spans) == expected["input_tokens"]
    assert sum(span["output_tokens"] or 0 for span in spans) == expected["output_tokens"]


def test_earlier_states_first_and_a_random_order_of_runs_give_the_same_rows(tmp_path: Path, stored: list[Any]) -> None:
    whole = {facts["thread"]: name for name, facts in WHOLE.items()}
    with agentspan.open(tmp_path / "a.db") as database:
        for step, name in enumerate(GROWTH):
            grown_to = copied_to(tmp_path / "growing", [whole[FACTS[name]["thread"]]])[0]
            grown_to.write_bytes(b"".join(line + b"\n" for line in lines_of(name)))
            os.utime(grown_to, ns=(10**18, 10**18 + step))
            importer_of(database).import_source(Source("codex", grown_to))
        paths = copied_to(tmp_path / "growing", list(WHOLE))
        parents = {facts["parent"] for facts in WHOLE.values()}
        random.Random(7).shuffle(paths)
        paths.sort(key=lambda path: id_of(path) not in parents)  # a parent goes before its children
        for path in paths:
            importer_of(database).import_source(Source("codex", path))
        assert rows_of(database) == stored


@pytest.mark.parametrize("ending", [".zst", ".gz"])
def test_compressed_and_archived_files_give_the_same_rows(tmp_path: Path, ending: str, stored: list[Any]) -> None:
    zstandard = pytest.importorskip("zstandard", reason="needs zstandard")
    archived = tmp_path / "archived_sessions"
    archived.mkdir()
    for path in copied_to(tmp_path, list(WHOLE)):
        data = path.read_bytes()
        packed = archived / f"{path.name}{ending}"
        packed.write_bytes(zstandard.compress(data) if ending == ".zst" else gzip.compress(data, 1))
        os.utime(packed, ns=(10**18, 10**18))
    with agentspan.open(tmp_path / "a.db") as database:
        importer = importer_of(database)
        sources = list(CODEX.sources(tmp_path))  # the plain files, of those that are there twice
        assert all(source.path.suffix == ".jsonl" for source in sources)
        shutil.rmtree(tmp_path / "sessions")
        for source in CODEX.sources(tmp_path):
            importer.import_source(source)
        assert not importer.problems
        assert importer.read == len(WHOLE)
        assert rows_of(database) == stored
