"""What users of other tracing systems were hurt by, one test each. The details are tested where they belong."""

import asyncio
import base64
import gc
import hashlib
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.storage.questions import SpansOf
from agentspan.storage.sqlite import migrations
from tests.checkout import ROOT
from tests.recording.stored import spans_of


def program(path: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run a program that records into the file, in a process of its own."""
    head = f"import os, signal, sys, agentspan\nagentspan.configure({str(path)!r})\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", head + code], cwd=ROOT, capture_output=True, text=True, check=False
    )


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    agentspan.open(path).close()  # brings in what journals hold
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


@pytest.mark.full
def test_a_crash_loses_every_unfinished_span(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    program(
        path,
        """
with agentspan.run("a"), agentspan.span("llm", {"model": "m"}):
    with agentspan.span("tool", {"name": "x"}):
        os.kill(os.getpid(), signal.SIGKILL)
""",
    )
    assert rows(path, "select summary, status from spans order by started_at") == [
        ("LLM m", "active"),
        ("Tool x()", "active"),
    ]


def test_spans_are_dropped_at_exit_and_in_workers(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    program(
        path,
        """
for number in range(100):
    with agentspan.run("worker"), agentspan.span("tool", {"name": str(number)}):
        pass
os._exit(0)  # no atexit, no finalizer: as a worker or a function in a cloud ends
""",
    )
    assert rows(path, "select status, count(*) from spans group by 1") == [("complete", 100)]


@pytest.mark.full
def test_stuck_in_progress_for_ever_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    program(path, 'agentspan.run("a").__enter__(); agentspan.span("tool", {"name": "x"}).__enter__(); os._exit(0)')
    with agentspan.open(path) as db:
        db.doctor()
    assert rows(path, "select status, closed_by from agent_spans") == [("failed", "abandoned")]
    assert rows(path, "select status, closed_by from agent_instances") == [("failed", "abandoned")]


def test_generator_spans_have_the_wrong_parent_no_duration_or_never_end(tracer: Tracer) -> None:
    @tracer.span("chain")
    def stream() -> Iterator[int]:
        for number in range(2):
            with tracer.span("tool", {"name": "inside"}):
                yield number

    with tracer.run("a"):
        for _ in stream():
            with tracer.span("tool", {"name": "between"}):
                pass
    spans = spans_of(tracer)
    (chain,) = [span for span in spans if span.schema_name == "chain"]
    parents = [(span.payload["name"], span.parent_span_id) for span in spans if span is not chain]
    assert sorted(parents, key=str) == sorted([("inside", chain.id), ("between", None)] * 2, key=str)
    assert {span.status for span in spans} == {"complete"}


def test_an_exception_inside_the_block_is_recorded_as_complete(tracer: Tracer) -> None:
    error = ValueError("wrong")
    with pytest.raises(ValueError, match="wrong") as raised, tracer.run("a"), tracer.span("tool", {"name": "x"}):
        raise error
    assert raised.value is error
    (span,) = spans_of(tracer)
    assert (span.status, span.result_payload["error"]["type"]) == ("failed", "ValueError")


def test_the_parent_is_lost_in_threads_and_pools(tracer: Tracer) -> None:
    @tracer.span
    def fetch(url: str) -> str:
        return url

    async def main() -> None:
        await asyncio.gather(asyncio.to_thread(fetch, "c"), asyncio.to_thread(fetch, "d"))

    with tracer.run("a"), tracer.span("chain", {"name": "fan out"}) as span, ThreadPoolExecutor() as pool:
        list(pool.map(tracer.propagate(fetch), "ab"))
        asyncio.run(main())
    assert [child.parent_span_id for child in spans_of(tracer) if child.id != span.id] == [span.id] * 4


def test_the_event_loop_is_blocked(tmp_path: Path) -> None:
    """A span is two statements in its caller, each a transaction of its own; no fsync, no other thread."""
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True, durability="commit")
    statements: list[str] = []
    with tracer.run("a"):
        writer = tracer.storage.direct._connections.writer()  # type: ignore[attr-defined]
        writer.set_trace_callback(statements.append)
        before = threading.active_count()
        with tracer.span("llm", {"model": "m"}) as span:
            span.set_result({"text": "x"})
        assert threading.active_count() == before
    assert [statement.split()[0] for statement in statements] == ["insert", "update", "update"]  # the last is the run's
    assert writer.execute("pragma synchronous").fetchone() == (1,)  # NORMAL: a commit does not wait for the disk


def test_memory_grows_with_every_finished_span(tracer: Tracer) -> None:
    alive: weakref.WeakSet[agentspan.Span] = weakref.WeakSet()
    with tracer.run("a"):
        for number in range(1000):
            with tracer.span("tool", {"name": str(number), "arguments": {"text": "x" * 1000}}) as span:
                alive.add(span)
        del span
        gc.collect()
        assert len(alive) == 0


@pytest.mark.full
def test_fork_and_gunicorn_hang_or_lose_data(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    done = program(
        path,
        """
import threading
with agentspan.run("preloaded"):
    pass
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        def serve():
            for number in range(25):
                with agentspan.run("request"), agentspan.span("tool", {"name": str(number)}):
                    pass
        threads = [threading.Thread(target=serve) for _ in range(2)]
        [thread.start() for thread in threads]
        [thread.join(30) for thread in threads]
        os._exit(agentspan.health().failed)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] for child in children))
""",
    )
    assert done.returncode == 0, done.stderr
    assert rows(path, "select status, count(*) from agent_spans group by 1") == [("complete", 200)]
    assert rows(path, "select count(distinct writer_id) from agent_spans") == [(4,)]


def test_huge_payloads_are_stored_inline(tracer: Tracer) -> None:
    image = os.urandom(9_000_000)  # more than the limit of an image
    text = base64.b64encode(image).decode()
    with tracer.run("a"), tracer.span("llm", {"model": "m", "image": text}) as span:
        span.set_result({"text": "a cat", "raw": image, "input_tokens": 5})
    (stored,) = spans_of(tracer)
    mark = stored.payload["image"]["$truncated"]
    assert (mark["bytes"], mark["sha256"]) == (len(text), hashlib.sha256(text.encode()).hexdigest())
    assert stored.result_payload["raw"]["$truncated"]["bytes"] == len(image)
    (row,) = tracer.storage.ask(SpansOf(stored.agent_instance_id))
    assert row.input_tokens == 5
    assert len(row.payload) + len(row.result_payload or "") < 2000


def test_the_serializer_raises_loops_or_corrupts(tracer: Tracer) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    circle: dict[str, Any] = {"name": "x"}
    circle["self"] = circle
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    values = [Broken(), circle, deep, float("nan"), b"\xff", "\ud800", {1: {2}}, 10**6000]
    with tracer.run("a"):
        for value in values:
            with tracer.span("tool", {"name": "x", "arguments": {"value": value}}):
                pass
    spans = [
        row
        for run in agentspan.open(tracer.storage).agent_instances.list()
        for row in tracer.storage.ask(SpansOf(run.id))
    ]
    assert len(spans) == len(values)
    assert all(isinstance(json.loads(row.payload), dict) for row in spans)


def test_masking_is_skipped_on_some_path(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = "sk-proj-abcdefghij0123456789"
    tracer = Tracer(tmp_path / "runs.db")

    @tracer.span
    def call(key: str) -> str:
        raise PermissionError(f"key {key} is not valid")

    caplog.set_level(logging.DEBUG)

    def agent() -> None:
        with tracer.run(f"agent {secret}", version=secret, metadata={"key": secret}) as run:
            run.set_result({"key": [secret]})
            with tracer.span("llm", {"model": "m", "headers": {"Authorization": f"Bearer {secret}"}}) as span:
                span.update_payload({"note": secret})
                span.set_result({secret: {"nested": (secret,)}})
            call(secret)

    with pytest.raises(PermissionError):
        agent()
    assert tracer.health().redacted > 5
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".segment" for file in files)
    for file in files:
        assert secret.encode() not in file.read_bytes(), file
    assert secret not in caplog.text


@pytest.mark.full
def test_the_database_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    code = """
with agentspan.run("a"):
    for number in range(200):
        with agentspan.span("tool", {"name": str(number)}):
            pass
agentspan.flush()
print(*agentspan.health())
"""
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: program(path, code), range(4)))
    assert [one.stdout.split()[:3] for one in done] == [["402", "0", "0"]] * 4
    assert [one.stderr for one in done if "Traceback" in one.stderr] == []


def test_a_failed_migration_leaves_a_dirty_database(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"

    def fail(db: Any) -> None:
        migrations.MIGRATIONS[0](db)
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        agentspan.SQLiteStorage(path, migrations=(fail,))
    assert sqlite3.connect(path).execute("select count(*) from sqlite_master").fetchall() == [(0,)]
    with agentspan.open(path) as db:
        assert len(db.agents.list()) == 0


def test_a_page_of_a_thousand_spans_looks_like_lost_data(tracer: Tracer) -> None:
    with tracer.run("a") as run:
        for number in range(1200):
            with tracer.span("tool", {"name": str(number)}):
                pass
    page = agentspan.open(tracer.storage).agent_spans.list(run.id, page_size=100)
    assert (len(page), page.pagination.item_count, page.pagination.page_count) == (100, 1200, 12)
    assert len(list(tracer.storage.ask(SpansOf(run.id)))) == 1200


@pytest.mark.full
def test_the_library_takes_over_global_state(tmp_path: Path) -> None:
    code = """
import asyncio, logging, threading, warnings
before = %s
with agentspan.run("a"), agentspan.span("tool", {"name": "x"}):
    pass
try:
    with agentspan.run("b"):
        raise ValueError
except ValueError:
    pass
agentspan.shutdown()
assert before == %s
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""
    state = """(sys.excepthook, threading.excepthook, sys.unraisablehook, sys.gettrace(), sys.getprofile(),
    [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)],
    logging.getLogger().handlers, logging.getLogger().level, logging.getLogger("agentspan").handlers,
    list(warnings.filters), asyncio.get_event_loop_policy.__module__, os.environ.copy(), sys.getrecursionlimit(),
    sys.getswitchinterval(), threading.active_count())"""
    done = program(tmp_path / "runs.db", code % (state, state))
    assert (done.returncode, done.stderr) == (0, "")


def test_running_a_notebook_cell_again_breaks_the_setup(tmp_path: Path) -> None:
    cell = """
agentspan.configure(path)
agentspan.span_type("visit", payload={"type": "object", "required": ["url"]}, template="Visit {{url}}")

@agentspan.span("visit")
def visit(url):
    return url

with agentspan.run("notebook"):
    visit("example.org")
"""
    notebook: dict[str, Any] = {"agentspan": agentspan, "path": tmp_path / "runs.db"}
    tracers = []
    try:
        for _ in range(3):
            exec(cell, notebook)
            tracers.append(agentspan.get_tracer())
        assert len(set(map(id, tracers))) == 1
        found = rows(tmp_path / "runs.db", "select summary, status from spans")
        assert found == [("Visit example.org", "complete")] * 3
        assert rows(tmp_path / "runs.db", "select count(*) from agent_schema_versions") == [(1,)]
    finally:
        agentspan.shutdown()


@pytest.mark.full
def test_every_run_makes_a_new_version_of_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    for _ in range(2):
        program(path, 'agentspan.span_type("visit", template="{{url}}")\nwith agentspan.run("a"): pass')
    assert rows(path, "select count(*), count(distinct external_identifier) from agent_schema_versions") == [(1, 0)]
    assert rows(path, "select count(*) from agent_instances") == [(2,)]
