"""Programs of span operations, and what they leave in a file: the same, whichever way they are recorded."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from pydantic_core import to_json

import agentspan
from agentspan import Tracer, clock
from agentspan.journal.records import End
from agentspan.journal.segments import NEW, Segment
from agentspan.recording.sinks.journal import JournalSink
from agentspan.recording.sinks.journal_work import DrainThread
from agentspan.recording.span_and_run import state_of
from agentspan.recording.tracer import recorder_of
from agentspan.testing import deterministic
from agentspan.tuning import STANDARD, Tuning

TABLES = ("agents", "agent_versions", "agent_schema_versions", "agent_instances", "agent_spans")
TYPES = ("llm", "tool", "decision", "own", "acme:llm", "own:sub", "unknown type", "custom")

_values = st.one_of(st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.text(max_size=6), st.floats())
_payloads = st.dictionaries(
    st.sampled_from(["model", "name", "amount", "text", "input_tokens", "output", "é\x1f\u2028"]),
    st.one_of(_values, st.lists(_values, max_size=2), st.dictionaries(st.text(max_size=3), _values, max_size=2)),
    max_size=3,
)
_which = st.integers(0, 30)
_ops = st.one_of(
    st.tuples(st.just("run"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("create"), _which, st.sampled_from(TYPES), _payloads, st.booleans(), _which),
    st.tuples(st.just("create"), _which, st.sampled_from(TYPES), _payloads, st.booleans(), _which),
    st.tuples(st.just("start"), _which),
    st.tuples(st.just("update"), _which, _payloads),
    st.tuples(st.just("result"), _which, _payloads),
    st.tuples(st.just("error"), _which),
    st.tuples(st.just("finish"), _which, st.sampled_from([None, "complete", "failed", "cancelled"]), _payloads),
    st.tuples(st.just("cancel"), _which),
    st.tuples(st.just("learn"), _which, st.sampled_from(TYPES), _payloads, st.booleans()),
    st.tuples(st.just("rename"), _which, st.sampled_from(["a", "b", "c"])),
    st.tuples(st.just("nested"), _which, st.sampled_from(TYPES), _payloads, st.booleans()),
    st.tuples(st.just("end"), _which),
    st.tuples(st.just("flush")),
)
Program = list[tuple[Any, ...]]
programs: st.SearchStrategy[Program] = st.lists(_ops, min_size=3, max_size=25)


def register_own_type() -> None:
    """A type with a schema that most payloads break, and a template."""
    agentspan.span_type(
        "own",
        payload={"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]},
        result={"type": "object", "properties": {"output": {"type": "string"}}, "required": ["output"]},
        template="Own {{amount}} → {{output}}",
    )


def perform(tracer: agentspan.Tracer, program: Program, flush: Callable[[], object]) -> None:
    """Do what a program says; what names a span or run means one of those that there are."""
    runs: list[agentspan.Run] = [tracer.run("first").__enter__()]
    spans: list[agentspan.Span] = []
    for op, *args in program:
        if op == "run":
            runs.append(tracer.run(args[0]).__enter__())
        elif op == "create":
            run, name, payload, pending, parent = args
            of = runs[run % len(runs)]
            above = [span for span in spans if span.run is of]
            spans.append(
                of.create_span(
                    name,
                    payload,
                    status="pending" if pending else "active",
                    parent=above[parent % len(above)] if above and parent % 2 else None,
                )
            )
        elif op == "nested":
            run, name, payload, fails = args
            with runs[run % len(runs)].create_span(name, payload) as outer, tracer.span(name, payload) as inner:
                outer.set_result(payload)
                if fails:
                    inner.record_error(ValueError("inner"))
        elif op == "end":
            runs[args[0] % len(runs)].finish()
        elif op == "rename":
            state_of(runs[args[0] % len(runs)]).rename(args[1], "2")
        elif op == "flush":
            flush()
        elif spans:
            _change(spans[args[0] % len(spans)], op, args[1:])


def _change(span: agentspan.Span, op: str, args: list[Any]) -> None:
    if op == "start":
        span.start()
    elif op == "update":
        span.update_payload(args[0])
    elif op == "result":
        span.set_result(args[0])
    elif op == "error":
        span.record_error(ValueError("wrong"))
    elif op == "finish":
        span.finish(args[0], args[1])
    elif op == "learn":
        name, payload, fails = args
        if span.status == "active":
            text = to_json(payload, inf_nan_mode="strings").decode()
            end = End(name, "failed" if fails else "complete", text, text if payload else None)
            state_of(span).end_as(end, state_of(span).started_ns + 5_000_000)
    else:
        span.cancel()


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that a file holds of what was recorded, every column; the spans in the order in which they were stored."""
    order = {"agent_spans": "rowid"}
    with closing(sqlite3.connect(path)) as connection:
        found = {
            table: connection.execute(f"select * from {table} order by {order.get(table, 'id')}").fetchall()
            for table in TABLES
        }
        violations = connection.execute(
            "select agent_span_id, side, path, keyword, message from schema_violations order by agent_span_id, id"
        )
        return {**found, "schema_violations": violations.fetchall()}


def refused(path: Path) -> list[tuple[Any, ...]]:
    """The refused changes of a file, oldest first."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(
            "select subject, why, stored_status, wanted from refused_changes order by id"
        ).fetchall()


@contextmanager
def counted_here() -> Iterator[None]:
    """A clock whose readings are counted in this thread only: what another test has left running reads it, too."""
    here = threading.get_ident()

    def of(counted: Callable[[], int], real: Callable[[], int]) -> Callable[[], int]:
        return lambda: counted() if threading.get_ident() == here else real()

    with (
        deterministic(),
        clock.replaced(of(clock.wall_ns, time.time_ns), of(clock.monotonic_ns, time.perf_counter_ns)),
    ):
        yield


def by_commits(template: Path, path: Path, program: Program) -> dict[str, list[tuple[Any, ...]]]:
    """What a program leaves that commits each change."""
    shutil.copy(template, path)
    with counted_here():
        tracer = agentspan.Tracer(path, durability="commit")
        perform(tracer, program, tracer.flush)  # which reads the clock, here as there
        tracer.shutdown()
    return rows(path)


@contextmanager
def journaled(template: Path, path: Path, tuning: Tuning = STANDARD) -> Iterator[agentspan.Tracer]:
    """A tracer with a journal that is drained only when that is asked for; it dies without a word at the end."""
    shutil.copy(template, path)
    with counted_here():
        tracer = agentspan.Tracer(path, tuning=tuning)
        sink = sink_of(tracer)
        sink.work.thread.running = object()  # type: ignore[assignment]  # there is one already, as far as it knows
        yield tracer
        sink.work.thread.running = None
        die(tracer)


def sink_of(tracer: agentspan.Tracer) -> JournalSink:
    """The journal of a tracer."""
    sink = recorder_of(tracer).sink
    assert isinstance(sink, JournalSink)
    return sink


def append_by_calls(tracer: agentspan.Tracer) -> None:
    """Have a tracer that has recorded nothing yet append by calls of the system, as where files share blocks."""
    log = sink_of(tracer).log
    assert log.begun == 0
    log._maps = False
    log._guard()


def die(tracer: agentspan.Tracer) -> None:
    """Let go of everything as a SIGKILL does."""
    sink_of(tracer).leave()
    recorder_of(tracer).is_closed = True
    tracer.storage.close()


def leave(path: Path, spans: int, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Leave a file and a journal as a program does that is killed after so many spans."""
    with monkeypatch.context() as patch:
        patch.setattr(DrainThread, "start", lambda thread: None)
        tracer = Tracer(path, tuning=STANDARD._replace(journal_segment_bytes=size, journal_segment_growth=1))
        with tracer.run("a"):
            for number in range(spans):
                with tracer.span("tool", {"name": str(number), "arguments": {"text": "x" * 500}}):
                    pass
        die(tracer)


def statuses(path: Path) -> list[str]:
    """The status of each span in a file, in order of their ids."""
    with closing(sqlite3.connect(path)) as connection:
        return [status for (status,) in connection.execute("select status from agent_spans order by id")]


class Untrimmed:
    """What is drained is not marked as such: its process is killed between the commit and the mark, each time."""

    def __init__(self) -> None:
        self._keep, self._reset = Segment.keep, Segment.reset

    def __enter__(self) -> None:
        real = self._keep

        def keep(segment: Segment, kept: int, sequence: int) -> None:
            if segment.path.endswith(NEW):
                real(segment, kept, sequence)
            else:
                segment.kept = kept

        Segment.keep = keep  # type: ignore[method-assign,assignment]
        Segment.reset = lambda segment, sequence: None  # type: ignore[method-assign,assignment]

    def __exit__(self, *exc_info: object) -> None:
        Segment.keep, Segment.reset = self._keep, self._reset  # type: ignore[method-assign]
