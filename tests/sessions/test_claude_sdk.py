"""The store in the real Claude Agent SDK: its own checks, its helpers, and its client without Claude.

No test needs the network: the client starts a small program that writes what Claude Code writes.
"""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.database import Database
from agentspan.model.rows import AgentInstanceRow
from agentspan.sessions import ClaudeSessionStore
from agentspan.storage.access import scan
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from tests.sessions.claude_entries import KEY, META, SESSION, SUB_AGENT, WITH_AGENT, prompt, turn
from tests.sessions.stored_rows import rows_of, spans_of

try:
    import claude_agent_sdk as sdk
    from claude_agent_sdk.testing import run_session_store_conformance
except ImportError:
    pytest.skip("needs claude-agent-sdk", allow_module_level=True)


def run(coroutine: Any) -> Any:
    return asyncio.run(coroutine)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Claude Code, and a folder of a project to work in."""
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(tmp_path / "claude"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    (tmp_path / "work").mkdir()
    return tmp_path


def files_of_a_session(home: Path) -> None:
    """Write a session with a sub-agent where Claude Code writes it."""
    main = home / "claude" / "projects" / sdk.project_key_for_directory(str(home / "work")) / f"{SESSION}.jsonl"
    side = main.with_suffix("") / "subagents"
    side.mkdir(parents=True)
    main.write_text("".join(f"{json.dumps(each)}\n" for each in WITH_AGENT))
    (side / "agent-a1.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in SUB_AGENT))
    (side / "agent-a1.meta.json").write_text(json.dumps(META))


@pytest.mark.parametrize("record", [True, False])
def test_it_passes_the_checks_of_the_sdk(tmp_path: Path, record: bool) -> None:
    made: list[ClaudeSessionStore] = []

    def new() -> ClaudeSessionStore:
        made.append(ClaudeSessionStore(tmp_path / f"{len(made)}.db", record=record))
        return made[-1]

    run(run_session_store_conformance(new))
    for each in made:
        each.close()


def test_it_passes_the_checks_of_the_sdk_in_memory() -> None:
    run(run_session_store_conformance(lambda: ClaudeSessionStore(":memory:")))


def test_it_passes_the_checks_of_the_sdk_on_trio(tmp_path: Path) -> None:
    trio = pytest.importorskip("trio")
    files = iter(range(100))
    trio.run(run_session_store_conformance, lambda: ClaudeSessionStore(tmp_path / f"{next(files)}.db"))


class Apart:
    """A store whose projects no other has, so that the checks need one server, and not one for each of their stores."""

    def __init__(self, store: ClaudeSessionStore, prefix: str) -> None:
        self._store = store
        self._prefix = prefix

    def _key(self, key: Any) -> Any:
        return {**key, "project_key": self._prefix + key["project_key"]}

    async def append(self, key: Any, entries: Any) -> None:
        await self._store.append(self._key(key), entries)

    async def load(self, key: Any) -> Any:
        return await self._store.load(self._key(key))

    async def list_sessions(self, project_key: str) -> Any:
        return await self._store.list_sessions(self._prefix + project_key)

    async def list_session_summaries(self, project_key: str) -> Any:
        return await self._store.list_session_summaries(self._prefix + project_key)

    async def delete(self, key: Any) -> None:
        await self._store.delete(self._key(key))

    async def list_subkeys(self, key: Any) -> Any:
        return await self._store.list_subkeys(self._key(key))


@pytest.mark.full
def test_it_passes_the_checks_of_the_sdk_on_postgresql(postgres_location: Location) -> None:
    numbers = iter(range(100))
    with agentspan.open(postgres_location) as database, ClaudeSessionStore(database) as store:
        run(run_session_store_conformance(lambda: Apart(store, f"{next(numbers)}:")))


def test_a_session_on_disk_is_imported_and_read(home: Path) -> None:
    files_of_a_session(home)
    with agentspan.open(home / "a.db") as database, ClaudeSessionStore(database) as store:
        for _ in range(2):
            run(sdk.import_session_to_store(SESSION, store, directory=str(home / "work"), batch_size=2))
            assert store.flush()
            assert len(spans_of(database)) == 6
        work = str(home / "work")
        (listed,) = run(sdk.list_sessions_from_store(store, work))
        assert (listed.session_id, listed.first_prompt) == (SESSION, "how are the roses?")
        messages = run(sdk.get_session_messages_from_store(store, SESSION, work))
        assert [message.type for message in messages] == ["user", "assistant", "user", "assistant"]
        assert run(sdk.list_subagents_from_store(store, SESSION, work)) == ["a1"]
        run(sdk.rename_session_via_store(store, SESSION, "Roses", work))
        (listed,) = run(sdk.list_sessions_from_store(store, work))
        assert listed.custom_title == "Roses"
        forked = run(sdk.fork_session_via_store(store, SESSION, work))
        assert {each.session_id for each in run(sdk.list_sessions_from_store(store, work))} == {
            SESSION,
            forked.session_id,
        }
        run(sdk.delete_session_via_store(store, SESSION, work))
        assert [each.session_id for each in run(sdk.list_sessions_from_store(store, work))] == [forked.session_id]
        assert f"claude:{SESSION}" in {row.external_identifier for row in scan(database.storage, AgentInstanceRow)}


CLI = '''#!{python}
"""Writes to standard output what Claude Code writes: mirrored entries of a turn, and its result."""
import json, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tests.sessions.claude_entries import SESSION, turn
if "-v" in sys.argv or "--version" in sys.argv:
    print("2.1.0 (Claude Code)")
    sys.exit()
resumed = "--resume" in sys.argv or any(each.startswith("--resume=") for each in sys.argv)
file = Path(os.environ["CLAUDE_CONFIG_DIR"]) / "projects" / {project!r} / f"{{SESSION}}.jsonl"
known = file.read_text().splitlines() if resumed else []
def say(frame):
    print(json.dumps(frame), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["type"] == "control_request":
        reply = {{"subtype": "success", "request_id": asked["request_id"], "response": {{"commands": []}}}}
        say({{"type": "control_response", "response": reply}})
    elif asked["type"] == "user":
        entries = turn(len(known) + 1)
        for entry in entries:
            say({{"type": "transcript_mirror", "filePath": str(file), "entries": [entry]}})
        say({{"type": "result", "subtype": "success", "duration_ms": 1, "duration_api_ms": 1, "is_error": False,
             "num_turns": 1, "session_id": SESSION, "result": f"knew {{len(known)}}", "total_cost_usd": 0.0}})
'''


@pytest.fixture
def options(home: Path) -> Iterator[Any]:
    """Options that start the program in place of Claude Code; and the store is of `session_store`."""
    cli = home / "claude-cli"
    project = sdk.project_key_for_directory(str(home / "work"))
    cli.write_text(CLI.format(python=sys.executable, tests=os.getcwd(), project=project))
    cli.chmod(cli.stat().st_mode | stat.S_IXUSR)
    with agentspan.open(home / "a.db") as database:
        store = ClaudeSessionStore(database)
        env = {"CLAUDE_CONFIG_DIR": str(home / "claude")}
        yield sdk.ClaudeAgentOptions(session_store=store, cli_path=str(cli), cwd=str(home / "work"), env=env)
        store.close()


async def result_of(options: Any, **changed: Any) -> str:
    """Ask once, and return the result."""
    from dataclasses import replace

    found = ""
    async for message in sdk.query(prompt="water the bed", options=replace(options, **changed)):
        assert "mirror_error" not in str(message)
        found = getattr(message, "result", None) or found
    return found


@pytest.mark.parametrize("flush", ["batched", "eager"])
def test_the_client_mirrors_a_session_and_resumes_it_from_the_store(options: Any, home: Path, flush: Any) -> None:
    store = options.session_store
    assert run(result_of(options, session_store_flush=flush)) == "knew 0"
    key = {**KEY, "project_key": sdk.project_key_for_directory(str(home / "work"))}
    assert run(store.load(key)) == turn(1)
    assert run(result_of(options, resume=SESSION, session_store_flush=flush)) == "knew 4"
    assert run(result_of(options, continue_conversation=True, session_store_flush=flush)) == "knew 8"
    assert store.flush()
    assert run(store.load(key)) == turn(1) + turn(5) + turn(9)
    ((row, spans),) = rows_of(store._opened.database)
    assert (row["external_identifier"], len(spans)) == (f"claude:{SESSION}", 12)


def test_a_store_that_cannot_write_is_reported_by_the_sdk(home: Path, options: Any) -> None:
    from dataclasses import replace

    class Failing(MemoryStorage):
        def apply(self, *args: Any, **how: Any) -> Any:
            raise agentspan.StorageError("the disk is full")

    async def messages() -> list[Any]:
        broken = replace(options, session_store=ClaudeSessionStore(Database(Failing()), record=False))
        return [str(message) async for message in sdk.query(prompt="water the bed", options=broken)]

    said = run(messages())
    assert any("the disk is full" in message for message in said)
    assert any("knew 0" in message for message in said)  # the session itself goes on


def test_the_summary_is_the_sdks_own(tmp_path: Path) -> None:
    with ClaudeSessionStore(tmp_path / "a.db", record=False) as store:
        run(store.append(KEY, [prompt(1, "water bed 1")]))
        run(store.append(KEY, [{"type": "custom-title", "customTitle": "Beds", "sessionId": SESSION}]))
        (summary,) = run(store.list_session_summaries(KEY["project_key"]))
        assert summary["data"]["first_prompt"] == "water bed 1"
        assert summary["data"]["custom_title"] == "Beds"
        assert summary["mtime"] == run(store.list_sessions(KEY["project_key"]))[0]["mtime"]


def test_the_inherited_steps_of_a_fork_are_not_counted_again(home: Path) -> None:
    key = {**KEY, "project_key": sdk.project_key_for_directory(str(home / "work"))}
    with agentspan.open(home / "a.db") as database, ClaudeSessionStore(database) as store:
        run(store.append(key, turn(1)))
        assert store.flush()
        forked = run(sdk.fork_session_via_store(store, SESSION, str(home / "work"))).session_id
        run(store.append({**key, "session_id": forked}, [prompt(9, "and now?", sessionId=forked)]))
        assert store.flush()
        runs = {row["external_identifier"]: (row, spans) for row, spans in rows_of(database)}
        counts = {name: len(spans) for name, (_, spans) in runs.items()}
        assert counts == {f"claude:{SESSION}": 4, f"claude:{forked}": 1}
        assert runs[f"claude:{forked}"][0]["session"] == SESSION
