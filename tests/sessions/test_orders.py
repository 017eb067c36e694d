"""Files that come in an unlucky order end as the same runs as files that come in order.

A sub-agent's file before its session, a fork before its original, a sidecar before its main file.
"""

import itertools
from pathlib import Path
from typing import Any

import pytest

from agentspan.api.context import Context
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow
from agentspan.model.scores import Judgement, score_row
from agentspan.sessions.importing import Importer, import_all
from agentspan.sessions.machine import Choice, Place, chosen_at, in_order
from agentspan.storage.access import scan
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from tests.sessions import codex_rollouts as rollouts
from tests.sessions.arrivals import run_of
from tests.sessions.claude_files import CONVERSATION, OTHER, SESSION, assistant, text, user
from tests.sessions.stored_rows import by_session
from tests.sessions.threads import FORMATS, put, thread

SPAWN = {"subagent": {"thread_spawn": {"parent_thread_id": rollouts.THREAD, "depth": 1, "agent_path": "/root/x"}}}
DEEPER = {"subagent": {"thread_spawn": {"parent_thread_id": rollouts.CHILD, "depth": 2, "agent_path": "/root/x/y"}}}


THREADS = {
    f"rollout-2026-01-02T03-00-00-{rollouts.THREAD}.jsonl": thread(rollouts.THREAD, 0),
    f"rollout-2026-01-02T03-00-10-{rollouts.CHILD}.jsonl": thread(rollouts.CHILD, 10, source=SPAWN),
    f"rollout-2026-01-02T03-00-20-{rollouts.GRANDCHILD}.jsonl": thread(rollouts.GRANDCHILD, 20, source=DEEPER),
}
COPIED = [{**each, "sessionId": OTHER, "forkedFrom": {"sessionId": SESSION}} for each in CONVERSATION]
FORK = {
    f"{SESSION}.jsonl": [*CONVERSATION, user("u8", "a3", 50, "And before?")],
    f"{OTHER}.jsonl": [*COPIED, {**user("u9", "a3", 60, "And now?"), "sessionId": OTHER}],
}
SIDE: dict[str, Any] = {"isSidechain": True, "agentId": "a1"}
SIDECAR = {
    f"{SESSION}.jsonl": CONVERSATION,
    f"{SESSION}/subagents/agent-a1.jsonl": [
        user("s1", None, 9, "Look for the rule.", **SIDE),
        assistant("s2", "s1", 90, text("There is none."), id="msg_9", **SIDE),
    ],
}


def bring(storage: Storage, folder: Path) -> Importer:
    """Bring in a folder, as a program does that has just started."""
    importer = Importer(Context(storage), FORMATS, now=lambda: 2 * 10**18)
    sources = chosen_at([Place(folder, None)], FORMATS, Choice())
    for _ in import_all(importer, in_order(sources, importer, FORMATS), FORMATS):
        pass
    return importer


@pytest.mark.parametrize("files", [THREADS, FORK, SIDECAR], ids=["sub-agents", "fork", "sidecar"])
def test_files_that_come_one_by_one_in_any_order_end_as_the_same_runs(tmp_path: Path, files: dict[str, Any]) -> None:
    whole = MemoryStorage()
    for name, lines in files.items():
        put(tmp_path / "whole", name, lines)
    bring(whole, tmp_path / "whole")
    assert by_session(whole)
    for number, order in enumerate(itertools.permutations(files)):
        storage, folder = MemoryStorage(), tmp_path / f"{number}"
        for name in order:
            put(folder, name, files[name])
            bring(storage, folder)
        assert by_session(storage) == by_session(whole), order
        assert bring(storage, folder).read == 0


def test_a_main_file_that_begins_without_a_step_replaces_what_its_sidecar_said(tmp_path: Path) -> None:
    main, side = SIDECAR
    begin = [{"type": "file-history-snapshot", "messageId": "m", "snapshot": {}, "isSnapshotUpdate": False}]
    whole, storage = MemoryStorage(), MemoryStorage()
    put(tmp_path / "whole", side, SIDECAR[side])
    put(tmp_path / "whole", main, [*begin, *SIDECAR[main]])
    bring(whole, tmp_path / "whole")
    put(tmp_path / "grown", side, SIDECAR[side])
    bring(storage, tmp_path / "grown")
    for lines in (begin, [*begin, *SIDECAR[main]]):
        put(tmp_path / "grown", main, lines)
        bring(storage, tmp_path / "grown")
    assert by_session(storage) == by_session(whole)


def test_a_sub_agent_that_came_first_is_moved_on_each_backend(storage: Storage, tmp_path: Path) -> None:
    for name in reversed(THREADS):
        put(tmp_path, name, THREADS[name])
        bring(storage, tmp_path)
    (run,) = scan(storage, AgentInstanceRow)
    assert [span.schema_name for span in storage.ask(SpansOf(run.id))].count("agent") == 2


def test_a_run_that_came_too_early_stays_if_it_has_a_score_or_its_file_is_gone(tmp_path: Path) -> None:
    parent, child, _ = THREADS
    for number in range(2):
        storage, folder = MemoryStorage(), tmp_path / f"{number}"
        put(folder, child, THREADS[child])
        bring(storage, folder)
        run = run_of(storage, f"codex:{rollouts.CHILD}")
        if number == 0:
            score(storage, run)
        else:
            (folder / child).unlink()
        put(folder, parent, THREADS[parent])
        bring(storage, folder)
        assert len([*scan(storage, AgentInstanceRow)]) == 2


def score(storage: Storage, run: AgentInstanceRow) -> None:
    judgement = Judgement("good", 1.0, None, None, "code", None)
    row = score_row("z" * 32, run.id, "agent_instance", run.id, judgement, run.inserted_at)
    storage.apply([Unit((Put(row),))])
