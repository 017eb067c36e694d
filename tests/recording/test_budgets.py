"""A run with a budget is stopped, warned about, or paused before the step that costs too much."""

import asyncio
import contextlib
import fcntl
import logging
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Budget, BudgetExceeded, InvalidValue, Run, Tracer
from agentspan.otel import extract, inject
from agentspan.recording import budgets
from agentspan.recording.budgets import PLACES, Kin
from agentspan.recording.tracer import recorder_of
from agentspan.tuning import STANDARD
from tests.recording.stored import runs_of, spans_of
from tests.waiting import until

CALL = {"input_tokens": 100, "output_tokens": 0, "cost_usd": 1.0}


def allow(tracer: Tracer, run: Run, amounts: str) -> None:
    """Allow more, as another process does."""
    path = getattr(tracer.storage, "path", None)
    db = agentspan.open(tracer.storage if path is None else path)
    db.scores.record(run.id, "budget", label="allowed", explanation=amounts, by="human", identifier="kim")


def use(tracer: Tracer, number: int = 1, **result: Any) -> None:
    """Record calls of a model that report a result."""
    for _ in range(number):
        with tracer.span("llm", {"model": "gpt-4.1"}) as span:
            span.set_result(result or CALL)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(steps=3), "steps: 3 of 3"),
        (Budget(usd=3), "usd: $3.00 of $3.00"),
        (Budget(usd=2.5), "usd: $3.00 of $2.50"),
        (Budget(tokens=300), "tokens: 300 of 300"),
        (Budget(repeats=3), "repeats: 3 llm calls with the same arguments"),
    ],
)
def test_a_spent_budget_raises_in_place_of_the_next_step(tracer: Tracer, budget: Budget, reason: str) -> None:
    with pytest.raises(BudgetExceeded) as raised, tracer.run("a", budget=budget) as run:
        use(tracer, 10)
    assert (raised.value.run_id, raised.value.reason) == (run.id, reason)
    (stored,) = runs_of(tracer)
    assert len(spans_of(tracer)) == 3
    assert stored.status == "failed"
    assert reason in stored.error["message"]


def test_minutes_are_counted_by_a_clock_that_does_not_jump(tracer: Tracer, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentspan import clock

    now = clock.monotonic_ns()
    monkeypatch.setattr(clock, "monotonic_ns", lambda: now)
    with tracer.run("a", budget=Budget(minutes=30)):
        monkeypatch.setattr(clock, "wall_ns", lambda: 10**18)  # in 2001
        use(tracer)
        now += 30 * 60 * 10**9
        with pytest.raises(BudgetExceeded, match=r"minutes: 30\.0 of 30\.0"):
            use(tracer)


def test_a_run_whose_program_swallows_the_exception_has_failed(tracer: Tracer) -> None:
    with tracer.run("a", budget=Budget(steps=1)):
        use(tracer)
        for _ in range(3):
            with pytest.raises(BudgetExceeded):
                use(tracer)
    assert [run.status for run in runs_of(tracer)] == ["failed"]
    assert not issubclass(BudgetExceeded, Exception)


def test_a_warning_is_logged_once(tracer: Tracer, caplog: pytest.LogCaptureFixture) -> None:
    with tracer.run("a", budget=Budget(steps=1, on_spent="warn")):
        use(tracer, 3)
    assert [run.status for run in runs_of(tracer)] == ["complete"]
    assert [record.getMessage().rpartition("budget: ")[2] for record in caplog.records] == ["steps: 1 of 1; it goes on"]


def test_each_limit_is_warned_of_where_repeats_are_limited_too(
    tracer: Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    with tracer.run("a", budget=Budget(usd=1, repeats=2, on_spent="warn")):
        for model in "abbb":
            with tracer.span("llm", {"model": model}) as span:
                span.set_result(CALL)
    assert [record.getMessage().rpartition("budget: ")[2].partition(":")[0] for record in caplog.records] == [
        "usd", "repeats",
    ]  # fmt: skip
    assert len(spans_of(tracer)) == 4


def test_a_function_may_allow_more_go_on_or_raise(tracer: Tracer) -> None:
    asked: list[tuple[str, str]] = []
    answers: Iterator[Any] = iter([Budget(steps=2), None])

    def decide(run: Run, spent: BudgetExceeded) -> Budget | None:
        asked.append((run.id, spent.reason))
        with tracer.span("tool", {"name": "ask a person"}):  # a step of its own is no step to decide about
            pass
        answer: Budget | None = next(answers)
        return answer

    with tracer.run("a", budget=Budget(steps=1, on_spent=decide)) as run:
        use(tracer, 9)
    assert asked == [(run.id, "steps: 1 of 1"), (run.id, "steps: 3 of 3")]

    def stop(run: Run, spent: BudgetExceeded) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), tracer.run("b", budget=Budget(steps=1, on_spent=stop)):
        use(tracer, 2)


def test_more_may_be_allowed_before_a_budget_is_spent(tracer: Tracer) -> None:
    with tracer.run("a", budget=Budget(steps=1, usd=100)) as run:
        allow(tracer, run, "steps +2, usd +1")
        use(tracer, 3)
        with pytest.raises(BudgetExceeded, match="steps: 3 of 3"):
            use(tracer)


def test_a_step_begins_if_the_thread_that_looks_has_read_first_that_more_is_allowed(
    tracer: Tracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tracer.run("a", budget=Budget(steps=1)) as run:
        use(tracer)
        spending = recorder_of(tracer).runs.get(run.id).spending  # type: ignore[union-attr]
        assert spending is not None
        monkeypatch.setattr(spending, "hear", lambda: spending.allow({"steps": 1}, source="human"))  # and finds no more
        use(tracer)
        monkeypatch.undo()
        with pytest.raises(BudgetExceeded, match="steps: 2 of 2"):
            use(tracer)


def test_a_pause_lasts_until_somebody_allows_more(tracer: Tracer) -> None:
    with tracer.run("a", budget=Budget(usd=1, on_spent="pause")) as run:
        use(tracer)
        other = threading.Thread(target=lambda: (until(lambda: is_paused(tracer, run)), allow(tracer, run, "usd +1")))
        other.start()
        use(tracer)
        other.join()
    assert [run.status for run in runs_of(tracer)] == ["complete"]


def test_the_time_of_a_pause_is_recorded_for_other_processes(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", tuning=STANDARD._replace(budget_look_s=0.001))
    with tracer.run("a", budget=Budget(usd=1, minutes=60, on_spent="pause")) as run:
        use(tracer)
        other = threading.Thread(target=lambda: (until(lambda: is_paused(tracer, run)), allow(tracer, run, "usd +1")))
        other.start()
        use(tracer)
        other.join()
    assert tracer.flush()
    notes = {score.label: score.explanation for score in agentspan.open(tmp_path / "runs.db").scores.list(run.id)}
    assert str(notes["paused"]).startswith("minutes ")


def is_paused(tracer: Tracer, run: Run) -> bool:
    """Return whether the run has recorded that its budget is spent."""
    path = getattr(tracer.storage, "path", None)
    db = agentspan.open(tracer.storage if path is None else path)
    return "spent" in [score.label for score in db.scores.list(run.id)]


def test_a_paused_run_that_is_terminated_stops(tracer: Tracer) -> None:
    def terminate() -> None:
        until(lambda: is_paused(tracer, run))
        path = getattr(tracer.storage, "path", None)
        agentspan.open(tracer.storage if path is None else path).agent_instances.terminate(run.id, "enough")

    for more, expected in (({}, BudgetExceeded), ({"on_terminate": "raise"}, agentspan.AgentTerminated)):
        with tracer.run("a", budget=Budget(steps=1, on_spent="pause"), **more) as run:  # type: ignore[arg-type]
            use(tracer)
            other = threading.Thread(target=terminate)
            other.start()
            with pytest.raises(expected, match="enough"):
                use(tracer)
            other.join()


def test_a_pause_does_not_block_the_event_loop(tracer: Tracer) -> None:
    @tracer.span
    async def step(number: int) -> int:
        return number

    @tracer.span
    async def stream() -> Any:
        yield 1

    async def agent() -> tuple[int, Run]:
        turns = 0

        async def go_round() -> None:
            nonlocal turns
            while turns < 10 or not is_paused(tracer, run):
                turns += 1
                await asyncio.sleep(0.001)
            allow(tracer, run, "steps +4")

        async with tracer.run("a", budget=Budget(steps=1, on_spent="pause")) as run:
            await step(0)
            other = asyncio.create_task(go_round())
            assert tuple(await asyncio.gather(step(1), step(2))) == (1, 2)
            async with tracer.span("chain", {"name": "block"}):
                pass
            assert [item async for item in stream()] == [1]
            await other
            cancelled = asyncio.create_task(step(3))
            await asyncio.sleep(0.02)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            with pytest.raises(BudgetExceeded, match="async with"), tracer.span("tool"):
                pass
        return turns, run

    turns, _ = asyncio.run(agent())
    assert turns >= 10
    assert len(spans_of(tracer)) == 5


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_threads_never_begin_more_steps_than_allowed(tmp_path: Path, durability: Any) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability=durability)  # does not raise where the file is busy for long
    stopped: list[int] = []

    def work() -> None:
        done = 0
        try:
            while True:
                use(tracer, cost_usd=1.0, input_tokens=1, output_tokens=1)
                done += 1
        except BudgetExceeded:
            stopped.append(done)

    for budget, most in ((Budget(steps=200), 200), (Budget(usd=200), 216), (Budget(tokens=400), 216)):
        stopped.clear()
        with tracer.run("a", budget=budget):
            threads = [threading.Thread(target=tracer.propagate(work)) for _ in range(16)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
        assert len(stopped) == 16
        assert 200 <= sum(stopped) <= most


def test_tasks_never_begin_more_steps_than_allowed(tracer: Tracer) -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        while True:
            async with tracer.span("llm", {"model": "gpt-4.1"}) as span:
                await asyncio.sleep(0)
                span.set_result(CALL)
            done.append(number)

    async def agent() -> None:
        with tracer.run("a", budget=Budget(usd=50)):
            await asyncio.gather(*map(work, range(16)))

    with pytest.raises(BudgetExceeded):
        asyncio.run(agent())
    assert 50 <= len(done) <= 66


def test_runs_inside_of_a_run_count_in_its_budget(tracer: Tracer) -> None:
    with tracer.run("outer", budget=Budget(steps=4)) as outer:
        use(tracer)
        with tracer.run("inner"):
            use(tracer)
        with tracer.run("limited", budget=Budget(steps=1)):
            use(tracer)
            with pytest.raises(BudgetExceeded, match="1 of 1"):
                use(tracer)
        use(tracer)
        with tracer.run("last"), pytest.raises(BudgetExceeded) as raised:
            use(tracer)
    assert raised.value.run_id == outer.id
    assert [run.status for run in runs_of(tracer)] == ["failed", "complete", "failed", "failed"]


def test_a_pending_span_counts_when_it_starts(tracer: Tracer) -> None:
    with tracer.run("a", budget=Budget(steps=1)) as run:
        first, second = run.create_span("tool"), run.create_span("tool")
        first.start()
        with pytest.raises(BudgetExceeded):
            second.start()
        second.cancel()
        first.finish()
    assert [span.status for span in spans_of(tracer)] == ["complete", "cancelled"]


def test_a_call_without_a_price_is_estimated_and_that_is_said(tracer: Tracer, caplog: pytest.LogCaptureFixture) -> None:
    with tracer.run("a", budget=Budget(usd=10)):
        with tracer.span("llm", {"model": "nobody/knows-it"}) as span:
            span.set_result({"input_tokens": 2_000_000, "output_tokens": 0})
        with pytest.raises(BudgetExceeded, match=r"usd: \$10\.00 of \$10\.00, \$10\.00 of it estimated"):
            use(tracer)
    assert "no known price" in caplog.text
    with tracer.run("b", budget=Budget(tokens=1000)) as run:
        with tracer.span("llm", {"prompt": "x" * 8000}) as span:
            span.set_result({"output": "y"})  # a stream that reports nothing
        with pytest.raises(BudgetExceeded):
            use(tracer)
    assert "reports no tokens" in caplog.text
    assert run.status == "failed"


def test_an_aggregate_counts_nothing(tracer: Tracer) -> None:
    with tracer.run("a", budget=Budget(usd=2)):
        with tracer.span("agent", {"name": "sub"}) as span:
            use(tracer)
            span.set_result(CALL)
        use(tracer)
        with pytest.raises(BudgetExceeded):
            use(tracer)


def test_steps_of_another_process_count(tmp_path: Path) -> None:
    tracer, other = Tracer(tmp_path / "runs.db"), Tracer(tmp_path / "runs.db")
    with tracer.run("a", budget=Budget(steps=6, usd=100)) as run:
        use(tracer)
        headers = inject({}, tracer=tracer)
        assert tracer.flush()
        with extract(headers, tracer=other):
            use(other, 2)
            with other.run("inner"):
                use(other, 2)
        assert other.flush()
        until(lambda: recorder_of(tracer).runs.get(run.id).spending.steps_left == 1)  # type: ignore[union-attr]
        use(tracer)
        with pytest.raises(BudgetExceeded, match="steps: 6 of 6"):
            use(tracer)
    assert len(spans_of(tracer)) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_run_that_goes_on_elsewhere_keeps_its_sums(tmp_path: Path) -> None:
    path, sent = tmp_path / "runs.db", tmp_path / "headers"
    pid = os.fork()
    if pid == 0:
        first = Tracer(path)
        first.run("a", budget=Budget(usd=3, repeats=5)).__enter__()
        use(first, 2)
        sent.write_bytes(pickle.dumps(inject({}, tracer=first)))
        os._exit(0)
    os.waitpid(pid, 0)
    tracer = Tracer(path)
    with extract(pickle.loads(sent.read_bytes()), tracer=tracer):
        use(tracer)
        with pytest.raises(BudgetExceeded, match=r"usd: \$3\.00 of \$3\.00"):
            use(tracer)
    assert len(spans_of(tracer)) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_with_the_sums_of_its_parent(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    with tracer.run("a", budget=Budget(steps=5)) as run:
        use(tracer, 2)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                use(tracer, 2)
                tracer.flush()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(pid, 0)[1] == 0
        spent = recorder_of(tracer).runs.get(run.id)
        assert spent is not None
        spent.spending.look()  # as the drain thread does, which a fork has ended until the next step
        use(tracer)
        with pytest.raises(BudgetExceeded):
            use(tracer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_looks_at_what_others_used_before_its_first_step(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    with tracer.run("a", budget=Budget(steps=3)):
        for _ in range(4):  # a fork ends the thread that looks
            pid = os.fork()
            if pid == 0:
                try:
                    use(tracer)
                    tracer.flush()
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)
        assert tracer.flush()
        assert len(spans_of(tracer)) == 3


def test_configure_and_the_environment_set_a_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = Tracer(tmp_path / "a.db", budget=Budget(steps=1))
    with pytest.raises(BudgetExceeded), tracer.run("a"):
        use(tracer, 2)
    monkeypatch.setenv("AGENTSPAN_BUDGET", "steps=2, on_spent=raise")
    tracer = Tracer(tmp_path / "b.db")
    with pytest.raises(BudgetExceeded), tracer.span("chain"):
        use(tracer, 2)
    assert [run.status for run in runs_of(tracer)] == ["failed"]
    monkeypatch.setenv("AGENTSPAN_BUDGET", "dollars=2")
    with tracer.run("a"):
        use(tracer, 3)


class _Async:
    """Would end the limit without being called: nobody awaits what it returns."""

    async def __call__(self, run: Run, spent: BudgetExceeded) -> None: ...

    later = __call__


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Budget(),
        lambda: Budget(usd=-1),
        lambda: Budget(usd=0),
        lambda: Budget(usd=float("nan")),
        lambda: Budget(usd=float("inf")),
        lambda: Budget(usd=True),
        lambda: Budget(steps=1.5),  # type: ignore[arg-type]
        lambda: Budget(steps="5"),  # type: ignore[arg-type]
        lambda: Budget(steps=1, on_spent="stop"),  # type: ignore[arg-type]
        lambda: Budget(steps=1, on_spent=_Async().later),  # type: ignore[arg-type]
        lambda: Budget(steps=1, on_spent=_Async()),  # type: ignore[arg-type]
        lambda: agentspan.run("a", budget=5),  # type: ignore[arg-type]
        lambda: agentspan.configure(":memory:", budget={"usd": 5}),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_budget_is_an_error_where_it_is_written(wrong: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue):
        wrong()


def test_a_budget_and_its_error_can_be_pickled() -> None:
    budget = Budget(usd=5, steps=3, on_spent="pause")
    assert pickle.loads(pickle.dumps(budget)) == budget
    assert pickle.loads(pickle.dumps(Budget(usd=5, on_spent=lambda run, spent: None))) == Budget(usd=5)
    error = pickle.loads(pickle.dumps(BudgetExceeded("r", "usd", "usd: 5 of 5")))
    assert (error.run_id, error.limit, error.reason) == ("r", "usd", "usd: 5 of 5")
    with pytest.raises(TypeError, match="dollars"):
        Budget(dollars=5)  # type: ignore[call-arg]


def test_metadata_of_the_program_that_is_no_budget_is_none(tracer: Tracer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with tracer.run("a", metadata={"budget": "large"}) as run:
        use(tracer, 2)
    assert run.status == "complete"
    assert not caplog.records


ASKED = """
import agentspan, sys

agentspan.configure(sys.argv[1])
try:
    with agentspan.run("a", budget=agentspan.Budget(steps=1, on_spent="pause")):
        for number in range(4):
            with agentspan.span("tool", {"number": number}):
                print("step", number, flush=True)
except BaseException as error:
    print(type(error).__name__, flush=True)
"""


@pytest.mark.full
@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([b"y\n", b"x\n", b"2\n"], "step 0 step 1 step 2 step 3"),
        ([b"n\n"], "step 0 BudgetExceeded"),
        ([b"\x03"], "step 0 KeyboardInterrupt"),
    ],
)
def test_a_person_is_asked_in_the_terminal(tmp_path: Path, answers: list[bytes], said: str) -> None:
    ours, terminal = os.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", ASKED, str(tmp_path / "runs.db")],
        stdin=terminal,
        stderr=terminal,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(terminal)
    for answer in answers:
        shown = b""
        while b"n: stop] " not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, answer)
    out, _ = program.communicate(timeout=60)
    os.close(ours)
    assert " ".join(out.split()) == said


def test_a_run_that_cannot_be_recorded_does_not_wait(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    tracer.shutdown()
    with tracer.run("a", budget=Budget(steps=1, on_spent="pause")):
        use(tracer)
        with pytest.raises(BudgetExceeded):
            use(tracer)


def _forked(tracer: Tracer, work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BudgetExceeded:
            pass
        finally:
            tracer.flush()
            os._exit(0)
    return pid


def _killed(tracer: Tracer) -> None:
    use(tracer, 2)
    tracer.span("llm", {"model": "gpt-4.1"}).__enter__()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("durability", ["journal", "commit"])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("children", [4, pytest.param(16, marks=pytest.mark.full)])
@pytest.mark.parametrize(("budget", "kind"), [(Budget(steps=30), "steps"), (Budget(usd=20), "usd")])
def test_forked_children_share_a_budget(
    tmp_path: Path, durability: Any, together: bool, children: int, budget: Budget, kind: str
) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability=durability)
    pids: list[int] = []
    with contextlib.suppress(BudgetExceeded), tracer.run("a", budget=budget):
        for number in range(children):
            killed = number % 2 == 0
            pids.append(_forked(tracer, lambda k=killed: _killed(tracer) if k else use(tracer, 100)))  # type: ignore[misc]
            if not together:
                os.waitpid(pids.pop(), 0)
        for pid in pids:
            os.waitpid(pid, 0)
        use(tracer, 100)
    assert tracer.flush()
    agentspan.open(tmp_path / "runs.db").runs()  # reads the journals of the dead
    spans = spans_of(tracer)
    paid = sum(span.cost_usd or 0 for span in spans)
    in_flight = children if together else 0
    if kind == "steps":
        assert 30 <= len(spans) <= 30 + in_flight
    else:
        assert 20 <= paid <= 20 + in_flight


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_that_take_one_place_in_the_same_moment_both_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, parent = Kin.place, os.getpid()
    seen, both = {parent}, multiprocessing.get_context("fork").Barrier(2)

    def place(kin: Kin) -> int | None:
        if os.getpid() in seen:
            return real(kin)
        seen.add(os.getpid())
        kin._sums[3] = os.getpid()  # each has seen that nobody has it
        return 3

    def child() -> None:
        both.wait(60)
        use(tracer, 100)

    monkeypatch.setattr(Kin, "place", place)
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    with contextlib.suppress(BudgetExceeded), tracer.run("a", budget=Budget(steps=30)):
        for pid in [_forked(tracer, child) for _ in range(2)]:
            os.waitpid(pid, 0)
        use(tracer, 100)
    assert 20 <= len(spans_of(tracer)) <= 32  # what one did before the other came may count twice


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_grandchild_and_a_nested_budget_count_in_the_budget_of_the_family(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")

    def child() -> None:
        with tracer.run("inner", budget=Budget(steps=4)):
            use(tracer, 2)
            os.waitpid(_forked(tracer, lambda: use(tracer, 9)), 0)
            use(tracer, 9)

    with contextlib.suppress(BudgetExceeded), tracer.run("a", budget=Budget(steps=6)):
        os.waitpid(_forked(tracer, child), 0)
        use(tracer, 9)
    assert tracer.flush()
    assert len(spans_of(tracer)) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_what_one_of_a_family_was_allowed_or_ended_leaves_the_sums(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db")
    with contextlib.suppress(BudgetExceeded), tracer.run("a", budget=Budget(steps=5)) as run:
        os.waitpid(_forked(tracer, lambda: use(tracer, 3)), 0)
        assert tracer.flush()
        allow(tracer, run, "steps +2")
        use(tracer, 9)
    assert tracer.flush()
    assert len(spans_of(tracer)) == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_children_share_all_budgets_around_them(tmp_path: Path) -> None:
    tracer, together = Tracer(tmp_path / "runs.db", durability="commit"), multiprocessing.get_context("fork").Barrier(3)

    def child() -> None:
        together.wait(60)
        use(tracer, 9)

    outer, inner = Budget(steps=6), Budget(steps=100)
    with contextlib.suppress(BudgetExceeded), tracer.run("outer", budget=outer), tracer.run("inner", budget=inner):
        for pid in [_forked(tracer, child) for _ in range(3)]:
            os.waitpid(pid, 0)
        use(tracer, 9)
    assert tracer.flush()
    assert 6 <= len(spans_of(tracer)) <= 9


def test_a_limit_that_is_spent_stops_although_more_of_another_one_is_allowed(tracer: Tracer) -> None:
    with tracer.run("a", budget=Budget(usd=2, tokens=1000)) as run:
        use(tracer, 2)
        allow(tracer, run, "tokens +1000")
        for _ in range(2):
            with pytest.raises(BudgetExceeded, match=r"usd: \$2\.00 of \$2\.00"):
                use(tracer)


def test_looks_at_other_processes_are_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracer, asked = Tracer(tmp_path / "runs.db", durability="commit"), list[object]()
    with tracer.run("a", budget=Budget(usd=100)):
        use(tracer)
        store = recorder_of(tracer).store
        ask = store.ask
        monkeypatch.setattr(store, "ask", lambda question: asked.append(question) or ask(question))
        (state,) = recorder_of(tracer).spendings()
        state._next_look_ns = 0
        state.look()
        number = len(asked)
        state.look()
        assert len(asked) == number > 0


def test_another_process_in_a_run_inside_of_one_with_a_budget_keeps_to_it(tmp_path: Path) -> None:
    tracer, other = (Tracer(tmp_path / "runs.db", durability="commit") for _ in range(2))
    with tracer.run("outer", budget=Budget(steps=4)), tracer.run("inner"):
        use(tracer, 2)
        with extract(inject({}, tracer=tracer), tracer=other):
            use(other, 2)
            with pytest.raises(BudgetExceeded, match="steps: 4 of 4"):
                use(other)


def test_steps_of_another_process_count_once_in_a_nested_budget(tmp_path: Path) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability="commit")
    with tracer.run("outer", budget=Budget(usd=3.5)), tracer.run("inner", budget=Budget(usd=100)):
        elsewhere = Tracer(tmp_path / "runs.db", durability="commit")
        with extract(inject({}, tracer=tracer), tracer=elsewhere):
            use(elsewhere, 1)
        for state in recorder_of(tracer).spendings():
            state._next_look_ns = 0
            state.look()
        use(tracer, 2)
        with pytest.raises(BudgetExceeded, match=r"usd: \$4\.00 of \$3\.50"):
            use(tracer, 5)


def test_places_of_dead_processes_are_taken_and_keep_their_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    kin = Kin()
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 7)  # above the largest pid: dead at once
    place = kin.place()
    assert place is not None
    kin.write(place, [1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 7 + PLACES)
    assert kin.place() == place
    assert kin.of(place) == kin.all() == [1.0, 2.0, 3.0, 4.0]
    monkeypatch.setattr(budgets, "_is_alive", lambda pid: True)
    for pid in range(1, PLACES):
        monkeypatch.setattr(os, "getpid", lambda pid=pid: pid)
        assert kin.place() is not None
    monkeypatch.setattr(os, "getpid", lambda: PLACES + 1)
    assert kin.place() is None


@pytest.mark.parametrize("cost", [-5, -0.01, float("nan"), float("-inf"), 1e300])
@pytest.mark.parametrize("tokens", [-(10**6), 10**15])
def test_usage_of_strangers_gives_no_room(tracer: Tracer, cost: float, tokens: int) -> None:
    with contextlib.suppress(BudgetExceeded), tracer.run("a", budget=Budget(usd=6, tokens=10_000)):
        for _ in range(50):
            with tracer.span("tool", {"name": "t"}) as span:
                span.set_result({"cost_usd": cost, "input_tokens": tokens})
            use(tracer)
    assert tracer.flush()
    spans = spans_of(tracer)
    assert len(spans) == 12
    assert {span.cost_usd for span in spans if span.schema_name == "tool"} == {None}


@pytest.mark.parametrize("schema", ["llm", "tool"])
@pytest.mark.parametrize("result", [None, {"text": "hi"}])
def test_usage_in_the_payload_counts(tracer: Tracer, schema: str, result: dict[str, Any] | None) -> None:
    with contextlib.suppress(BudgetExceeded), tracer.run("a", budget=Budget(usd=3)):
        for _ in range(9):
            with tracer.span(schema, {"name": "n", "cost_usd": 1.0}) as span:
                if result is not None:
                    span.set_result(result)
    assert tracer.flush()
    assert len(spans_of(tracer)) == 3


@pytest.mark.parametrize("side", ["payload", "result"])
def test_a_call_without_usage_is_estimated_by_its_whole_text(tmp_path: Path, side: str) -> None:
    tracer = Tracer(tmp_path / "runs.db", limits=agentspan.Limits(value=1000, items=10))
    for text in ("word " * 60_000, ["word " * 600] * 100, {str(number): "word " * 600 for number in range(100)}):
        with contextlib.suppress(BudgetExceeded), tracer.run("a", budget=Budget(tokens=70_000)) as run:
            for _ in range(5):
                with tracer.span("llm", {"model": "m", "messages": text if side == "payload" else ""}) as span:
                    span.set_result({"text": text if side == "result" else ""})
        assert tracer.flush()
        assert len([span for span in spans_of(tracer) if span.agent_instance_id == run.id]) == 1, type(text)


def test_steps_that_cannot_be_stopped_count_in_an_outer_budget_too(tracer: Tracer) -> None:
    with tracer.run("outer", budget=Budget(steps=3)), tracer.run("inner", budget=Budget(steps=100)):
        outer, inner = sorted(recorder_of(tracer).spendings(), key=lambda each: float(each.steps_left))
        for _ in range(2):
            inner.count()
        assert (outer.steps_left, inner.steps_left) == (1, 98)
        use(tracer)
        with pytest.raises(BudgetExceeded, match="steps: 3 of 3"):
            use(tracer)
