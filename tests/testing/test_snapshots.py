"""A run as text: the same for the same behaviour, whenever and wherever it was recorded."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.testing import CapturedRuns, deterministic, load, snapshot

WITH_PAYLOADS = """\
✗ support 2 → RuntimeError
│    metadata {"a": 1, "b": 2}
│    result {"done": false}
│    error {"message": "no", "type": "RuntimeError"}
├─✓ tool · Tool look_up(ref=<span 1>, seen=<run>) → <object object at 0x…>
│ │    payload {"arguments": {"ref": "<span 1>", "seen": "<run>"}, "name": "look_up"}
│ │    result {"output": "<object object at 0x…>"}
│ └─✗ wait · waited <duration> for <id 1> → TimeoutError
│        payload {"for": "<id 1>"}
│        result {"error": {"message": "at last", "type": "TimeoutError"}, "note": "é"}
├─✗ step · own name
│      payload {"name": "own name"}
└─● step
       payload {}"""


def record(tracer: Tracer) -> None:
    """Records what differs each time: ids of three kinds, an object's address, a duration in a summary."""
    with tracer.run("earlier") as earlier:
        pass
    try:
        with tracer.run("support", version="2", metadata={"b": 2, "a": 1}) as run:
            run.set_result({"done": False})
            with tracer.span("tool", {"name": "look_up"}) as span:
                span.update_payload({"arguments": {"ref": span.id, "seen": run.id}})
                wait = run.create_span("wait", {"for": earlier.id}, status="active")
                wait.record_error(TimeoutError("at last"))
                wait.finish(result_payload={"note": "é"})
                span.set_result({"output": object()})
            run.create_span("step", {"name": "own name"}, status="active").finish("failed")
            run.create_span("step", status="active")
            raise RuntimeError("no")
    except RuntimeError:
        pass


@pytest.fixture(autouse=True)
def _own_type() -> None:
    agentspan.span_type("wait", template="waited {{_duration}} for {{for}}{{#_error}} → {{_error}}{{/_error}}")


@pytest.mark.parametrize(
    "world",
    [
        nullcontext,
        deterministic,
        lambda: deterministic(start="2031-07-01T00:00:00+02:00", step_ms=777),
        lambda: deterministic(step_ms=0),
        lambda: deterministic(step_ms=0.0007),
    ],
    ids=["real", "default", "slow", "no time", "fast"],
)
@pytest.mark.parametrize("where", ["memory", "file"])
def test_the_same_behaviour_gives_the_same_text(
    tmp_path: Path, world: Callable[[], AbstractContextManager[None]], where: str
) -> None:
    with world():
        tracer = Tracer(":memory:" if where == "memory" else tmp_path / "runs.db", raise_errors=True)
        record(tracer)
    runs = CapturedRuns(tracer.storage)
    assert runs.last.text(payloads=True) == WITH_PAYLOADS
    assert snapshot(runs.last, payloads=True) == WITH_PAYLOADS
    if where == "file":
        with load(tmp_path / "runs.db") as loaded:
            assert loaded.last.text(payloads=True) == WITH_PAYLOADS
    tracer.shutdown()


def test_without_payloads_there_is_a_line_for_each_span() -> None:
    tracer = Tracer(":memory:", raise_errors=True)
    record(tracer)
    kept = [line for line in WITH_PAYLOADS.splitlines() if not any(f"   {word} " in line for word in WORDS)]
    assert snapshot(CapturedRuns(tracer.storage).last) == "\n".join(kept)


WORDS = ("payload", "result", "metadata", "error")


@pytest.mark.parametrize("length", [50, 60, 75])
def test_an_id_that_a_summary_cuts_off_is_left_out(length: int) -> None:
    tracer = Tracer(":memory:", raise_errors=True)
    with tracer.run("a") as run, tracer.span("retrieval", {"query": "x"}) as span:
        span.update_payload({"query": f"{'y' * (length - 1)} {run.id}"})
    assert CapturedRuns(tracer.storage).one().text().endswith('y <id…"')
    assert run.id[:4] not in CapturedRuns(tracer.storage).one().text()


def test_what_only_looks_like_an_id_stays() -> None:
    digest = next(d for d in (md5(bytes([n])).hexdigest() for n in range(99)) if d[0] < "8")
    tracer = Tracer(":memory:", raise_errors=True)
    with tracer.run("a"), tracer.span("tool", {"name": "f", "arguments": {"md5": digest, "cut": "0123…"}}):
        pass
    assert f"f(md5={digest}, cut=0123…)" in CapturedRuns(tracer.storage).one().text()


def test_the_ids_of_the_same_thing_are_the_same() -> None:
    tracer = Tracer(":memory:", raise_errors=True)
    with tracer.run("first") as one, tracer.run("second") as two:
        pass
    with tracer.run("a") as run:
        run.create_span("step", {"ids": [two.id, one.id, two.id, run.id]}).cancel()
    assert '{"ids": ["<id 1>", "<id 2>", "<id 1>", "<run>"]}' in CapturedRuns(tracer.storage).last.text(payloads=True)


def test_every_status_has_its_mark(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a") as run:
        run.create_span("pending")
        run.create_span("active", status="active")
        run.create_span("complete", status="active").finish()
        run.create_span("failed", status="active").finish("failed")
        run.create_span("cancelled").cancel()
        assert captured_runs.one().text() == "● a\n├─◌ pending\n├─● active\n├─✓ complete\n├─✗ failed\n└─○ cancelled"
        agentspan.open(captured_runs.storage).agent_instances.terminate(run.id, "enough")
    assert captured_runs.one().text() == (
        "■ a\n├─✗ active → Terminated\n├─✓ complete\n├─✗ failed\n├─○ cancelled\n└─○ pending"
    )


def test_text_of_any_kind_stays_on_its_line(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a\nb"), agentspan.span("odd", {"name": "x\n\x1b[2J\u202e", "text": "\ud800\x07\u2028"}):
        pass
    text = captured_runs.one().text(payloads=True)
    assert text.encode()
    assert len(text.splitlines()) <= 4
    assert not {"\x1b", "\u202e", "\x07", "\ud800"} & set(text)


def test_a_type_of_error_that_the_summary_names_is_not_repeated(captured_runs: CapturedRuns) -> None:
    class Odd(Exception):
        pass

    @agentspan.span("tool")
    def fail(error: Any) -> None:
        raise error

    agentspan.span_type("own", template="tried{{#_error}} → {{_error}} (and gave up){{/_error}}")
    with agentspan.run("a") as run:
        for error in (Odd("a → Odd: b"), Odd(), ExceptionGroup("g", [ValueError("x")])):
            with pytest.raises(type(error)):
                fail(error)
        own = run.create_span("own", status="active")
        own.record_error(Odd("b"))
        own.finish()
    lines = captured_runs.one().text().splitlines()[1:]
    assert [line.rpartition(") → ")[2] for line in lines[:3]] == ["Odd", "Odd", "ExceptionGroup"]
    assert lines[3] == "└─✗ own · tried → Odd"


def test_a_span_without_a_summary_has_its_name_if_that_is_another_one(captured_runs: CapturedRuns) -> None:
    with agentspan.run("a") as run:
        for payload in ({"name": "step"}, {"name": "one"}, {"name": 2}, {}):
            run.create_span("step", payload, status="active").finish()
    assert captured_runs.one().text() == "✓ a\n├─✓ step\n├─✓ step · one\n├─✓ step\n└─✓ step"
