"""Whatever is raised through a span fails it, is described within bounds, and goes on as if nobody had looked."""

import asyncio
import gc
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from agentspan.recording.capture import stacktraces
from agentspan.recording.capture.capture import MAX_FRAMES, MAX_MEMBERS, MAX_MESSAGE, MAX_STACKTRACE
from agentspan.recording.capture.redaction import Redaction
from agentspan.storage.questions import Select
from agentspan.testing import CapturedRuns
from tests.recording.stored import only_span

OURS = str(Path(agentspan.__file__).parent)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Mirror(Exception):
    """Its text is not a text."""

    def __str__(self) -> str:
        return 7  # type: ignore[return-value]


class Slotted(Exception):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


class Reduced(Exception):
    """Cannot be copied or pickled."""

    def __init__(self, one: str, *, two: str) -> None:
        super().__init__(f"{one} {two}")

    def __reduce__(self) -> Any:
        raise TypeError("never")

    __copy__ = __deepcopy__ = __reduce__


class Shy(Exception):
    """Tells nothing that is asked for by name, but for what Python itself asks for."""

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        raise LookupError(name)


def group() -> BaseException:
    return ExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two"), OSError("three")])])


def circle() -> BaseException:
    one, two = ValueError("one"), KeyError("two")
    one.__cause__, two.__cause__ = two, one
    return one


def noted() -> BaseException:
    error = ValueError("noted")
    error.add_note("a note")
    return error


def used() -> BaseException:
    """An exception that has been raised and caught before, with a history of its own."""
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise ValueError("second") from None
    except ValueError as error:
        return error


EXCEPTIONS: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "error": (lambda: ValueError("boom"), "ValueError", "boom"),
    "empty": (lambda: ValueError(), "ValueError", ""),
    "cancelled": (asyncio.CancelledError, "asyncio.exceptions.CancelledError", ""),
    "interrupt": (KeyboardInterrupt, "KeyboardInterrupt", ""),
    "exit": (lambda: SystemExit(3), "SystemExit", "3"),
    "closed": (GeneratorExit, "GeneratorExit", ""),
    "group": (group, "ExceptionGroup", "several (2 sub-exceptions)"),
    "base group": (lambda: BaseExceptionGroup("g", [SystemExit(1)]), "BaseExceptionGroup", "g (1 sub-exception)"),
    "circle": (circle, "ValueError", "one"),
    "noted": (noted, "ValueError", "noted"),
    "used": (used, "ValueError", "second"),
    "mute": (Mute, f"{__name__}.Mute", "(its message could not be read)"),
    "mirror": (Mirror, f"{__name__}.Mirror", "(its message could not be read)"),
    "slotted": (lambda: Slotted(7), f"{__name__}.Slotted", "code 7"),
    "reduced": (lambda: Reduced("a", two="b"), f"{__name__}.Reduced", "a b"),
    "shy": (lambda: Shy("x"), f"{__name__}.Shy", "x"),
}

State = list[tuple[Any, ...]]


def state_of(exception: BaseException) -> State:
    """An exception with those it came from: its class, where it has been (without our frames), and how they hang."""
    state: State = []
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [exception]
    while waiting:
        one = waiting.pop()
        if one is None or one in seen:
            state.append((None if one is None else seen.index(one),))
            continue
        seen.append(one)
        of = BaseException.__dict__
        places = traceback.extract_tb(of["__traceback__"].__get__(one))
        frames = [(place.name, place.lineno) for place in places if not place.filename.startswith(OURS)]
        state.append((type(one), frames, of["__suppress_context__"].__get__(one)))
        waiting += [of["__cause__"].__get__(one), of["__context__"].__get__(one)]
    return state


def raising(make: Callable[[], BaseException]) -> dict[str, Callable[..., None]]:
    """Functions of each kind that raise what `make` makes, by kind; a decorator can be given to each."""

    def function(decorate: Any = lambda fn: fn, block: Any = None) -> None:
        def leaf() -> None:
            raise made

        made = make()
        decorate(leaf)()

    def while_handling(decorate: Any = lambda fn: fn, block: Any = None) -> None:
        def leaf() -> None:
            raise made

        made = make()
        try:
            raise LookupError("handled")
        except LookupError:
            decorate(leaf)()

    def coroutine(decorate: Any = lambda fn: fn, block: Any = None) -> None:
        async def leaf() -> None:
            raise made

        made = make()
        try:
            decorate(leaf)().send(None)
        except StopIteration:
            raise AssertionError

    def generator(decorate: Any = lambda fn: fn, block: Any = None) -> None:
        def leaf() -> Iterator[int]:
            yield 1
            raise made

        made = make()
        for _ in decorate(leaf)():
            pass

    return {fn.__name__: fn for fn in (function, while_handling, coroutine, generator)}


@pytest.mark.parametrize("kind", ["function", "while_handling", "coroutine", "generator"])
@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_goes_on_as_the_same_object_with_its_history_untouched(name: str, kind: str) -> None:
    make = EXCEPTIONS[name][0]
    tracer = Tracer(":memory:", raise_errors=True)

    def caught(*decorated: Any) -> tuple[bool, State]:
        made: list[BaseException] = []

        def remembered() -> BaseException:
            made.append(make())
            return made[-1]

        try:
            raising(remembered)[kind](*decorated)
        except BaseException as exception:
            return exception is made[0], state_of(exception)
        raise AssertionError("nothing was raised")

    plain = caught()
    assert caught(tracer.span("chain")) == plain
    assert plain[0]
    if kind != "generator":
        assert caught(tracer.run("a")) == plain


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_a_block_lets_an_exception_through_as_it_is(tracer: Tracer, name: str) -> None:
    def through(outer: Any, inner: Any) -> State:
        made = EXCEPTIONS[name][0]()
        with pytest.raises(type(made)) as caught, outer, inner:
            raise made
        assert caught.value is made
        return state_of(made)

    plain = through(nullcontext(), nullcontext())
    assert through(tracer.run("a"), tracer.span("tool", {"name": "x"})) == plain
    assert tracer.current_run() is None


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_is_described_on_the_failed_span_and_its_run(tracer: Tracer, name: str) -> None:
    make, type_, message = EXCEPTIONS[name]

    @tracer.span
    def leaf() -> None:
        raise make()

    try:
        leaf()
    except BaseException:
        pass
    span = only_span(tracer)
    assert span.status == "failed"
    assert (span.error["type"], span.error["message"]) == (type_, message)
    assert set(span.error) >= {"type", "message", "stacktrace"}
    run = CapturedRuns(tracer.storage).one()
    assert run.status == "failed"
    assert run.error == span.error


def test_members_of_a_group_are_listed_with_theirs(tracer: Tracer) -> None:
    with pytest.raises(ExceptionGroup), tracer.span("tool", {"name": "x"}):
        raise group()
    error = only_span(tracer).error
    assert error["exceptions"] == [
        {"type": "ValueError", "message": "one"},
        {
            "type": "ExceptionGroup",
            "message": "more (2 sub-exceptions)",
            "exceptions": [{"type": "KeyError", "message": "'two'"}, {"type": "OSError", "message": "three"}],
        },
    ]


def test_a_task_groups_failures_are_members_of_what_fails_the_span(tracer: Tracer) -> None:
    @tracer.span
    async def fail(error: Exception) -> None:
        raise error

    @tracer.span("agent", {"name": "boss"})
    async def boss() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail(ValueError("one")))
            tasks.create_task(fail(KeyError("two")))

    with pytest.raises(ExceptionGroup):
        asyncio.run(boss())
    run = CapturedRuns(tracer.storage).one()
    run.assert_tree("""
        agent boss (failed)
          tool fail (failed)
          tool fail (failed)
    """)
    assert [member["type"] for member in run.roots[0].error["exceptions"]] == ["ValueError", "KeyError"]


def test_big_groups_are_bounded(tracer: Tracer) -> None:
    nested: Exception = ValueError("inmost")
    for _ in range(100):
        nested = ExceptionGroup("nested", [nested])
    with pytest.raises(ExceptionGroup), tracer.span("tool", {"name": "x"}):
        raise ExceptionGroup("big", [nested, *(ValueError(str(number)) for number in range(1000))])
    error = only_span(tracer).error
    assert len(error["exceptions"]) == MAX_MEMBERS
    assert error["more_exceptions"] == 1001 - MAX_MEMBERS
    depth, member = 0, error["exceptions"][0]
    while "exceptions" in member:
        depth, member = depth + 1, member["exceptions"][0]
    assert depth < 2 * MAX_MEMBERS


def test_a_stop_iteration_is_an_exception_like_any_other_in_a_function(tracer: Tracer) -> None:
    @tracer.span
    def leaf() -> None:
        next(iter(()))

    with pytest.raises(StopIteration):
        leaf()
    assert only_span(tracer).error["type"] == "StopIteration"


@pytest.mark.full
def test_endless_recursion_ends_as_it_does_without_us_and_its_description_is_bounded(tracer: Tracer) -> None:
    @contextmanager
    def limit() -> Iterator[None]:
        before = sys.getrecursionlimit()
        sys.setrecursionlimit(400)  # a failure costs some milliseconds, and each of the levels fails
        try:
            yield
        finally:
            sys.setrecursionlimit(before)

    @tracer.span("chain")
    def deeper(level: int) -> int:
        return deeper(level + 1) + 1

    with tracer.run("a"):
        with pytest.raises(RecursionError), limit():
            deeper(0)
        assert tracer.current_span() is None
        with tracer.span("tool", {"name": "after"}):
            pass
    spans = CapturedRuns(tracer.storage).one().spans
    failed = [span for span in spans if span.status == "failed"]
    assert len(failed) > 50
    assert spans[0] in failed
    assert spans[-1].status == "complete"
    for span in failed:
        assert span.error["type"] == "RecursionError"
        assert len(span.error["stacktrace"]) <= MAX_STACKTRACE


def test_a_deep_traceback_keeps_its_end_and_a_long_message_its_start(tracer: Tracer) -> None:
    def deeper(level: int) -> None:
        if level == 0:
            raise ValueError("x" * 100_000)
        deeper(level - 1)

    with pytest.raises(ValueError, match="xxx"), tracer.span("tool", {"name": "x"}):
        deeper(300)
    error = only_span(tracer).error
    assert error["message"] == "x" * MAX_MESSAGE + "…"
    assert len(error["stacktrace"]) <= MAX_STACKTRACE
    assert error["stacktrace"].count(", in deeper") <= MAX_FRAMES


@pytest.mark.parametrize("depth", [12, 48])
def test_a_frame_is_formatted_once_however_many_recorded_calls_an_exception_passes(
    tracer: Tracer, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    formatted: list[Any] = []
    summarized = traceback.StackSummary.format_frame_summary
    extracted = traceback.FrameSummary.__init__

    def formatting(*args: Any, **how: Any) -> Any:
        formatted.append(args)
        return summarized(*args, **how)

    def extracting(*args: Any, **how: Any) -> Any:
        formatted.append(args)
        return extracted(*args, **how)

    monkeypatch.setattr(traceback.StackSummary, "format_frame_summary", formatting)
    monkeypatch.setattr(traceback.FrameSummary, "__init__", extracting)
    steps: dict[int, Callable[[], None]] = {}
    for level in range(depth):  # each with code of its own
        names: dict[str, Any] = {"inner": steps.get(level - 1)}
        exec(f"def step_{level}():\n    {'inner()' if level else 'missing'}", names)
        steps[level] = tracer.span(names[f"step_{level}"])
    with tracer.run("a") as run, suppress(NameError):
        steps[depth - 1]()
    assert len(formatted) <= 2 * (depth + 10)  # our own frames are one or two places in our code
    spans = agentspan.open(tracer.storage).agent_spans.list(run.id)
    for level, span in zip(reversed(range(depth)), spans, strict=True):
        assert span.result_payload is not None
        lines = span.result_payload["error"]["stacktrace"].splitlines()
        found = [line.rpartition(" in ")[2] for line in lines if ", in step_" in line]
        assert found == [f"step_{each}" for each in reversed(range(level + 1))][-len(found) :]
        assert len(found) >= min(level + 1, MAX_FRAMES // 2)
        assert lines[-1] == "NameError: name 'missing' is not defined"


def test_a_credential_in_an_exception_is_cut_out_once_however_many_recorded_calls_it_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracer = Tracer(tmp_path / "runs.db", raise_errors=True)
    searched: list[int] = []
    cut_out = Redaction.text

    def counting(redaction: Redaction, text: str) -> str:
        searched.append(len(text))
        return cut_out(redaction, text)

    @tracer.span
    def step(level: int) -> None:
        if not level:
            key = "hunter2hunter2"
            raise ConnectionError(f"cannot log in with password={key}")
        step(level - 1)

    monkeypatch.setattr(Redaction, "text", counting)
    with tracer.run("a") as run, suppress(ConnectionError):
        step(39)
    assert sum(searched) < 40 * 100  # 40 stack traces have 300,000 characters together
    spans = agentspan.open(tracer.storage).agent_spans.list(run.id)
    tracer.shutdown()
    assert len(spans) == 40
    for span in spans:
        error = (span.result_payload or {})["error"]
        assert error["message"] == "cannot log in with password=[redacted]"
        assert error["stacktrace"].endswith("ConnectionError: cannot log in with password=[redacted]\n")
        assert "hunter2" not in str(error)
    assert tracer.health().redacted >= 40


def _recursive(level: int) -> None:
    if level:
        _recursive(level - 1)
    raise ValueError("at the end")


def _chained() -> None:
    try:
        _recursive(6)
    except ValueError as error:
        try:
            raise KeyError("second") from error
        except KeyError:
            raise OSError("third")


def _grouped() -> None:
    members: list[Exception] = []
    for fails in (_chained, lambda: _recursive(2), lambda: 1 / 0):
        try:
            fails()
        except Exception as error:
            members.append(error)
    raise ExceptionGroup("several", [*members, ExceptionGroup("more", members[:1])]) from members[0]


def _noted() -> None:
    error = ValueError("noted\nlines")
    error.add_note("a note")
    raise error from None


@pytest.mark.parametrize(
    "fails",
    [
        *(partial(_recursive, level) for level in (2, 3, 100)),
        *(_chained, _grouped, _noted),
        *(partial(compile, "a b", "<x>", "exec"), partial(getattr, gc, "collec")),
    ],
)
def test_a_stack_trace_is_what_traceback_writes_also_after_more_frames_and_notes(fails: Callable[[], Any]) -> None:
    def outer() -> None:
        try:
            fails()
        except Exception as error:
            _same(error)
            error.add_note("on its way")
            raise

    for _ in range(2):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            outer()
        _same(caught.value)
        with pytest.raises(Exception) as again:  # noqa: PT011
            raise caught.value.with_traceback(None)
        _same(again.value)


def _same(error: BaseException) -> None:
    expected = traceback.format_exception(type(error), error, error.__traceback__, limit=-MAX_FRAMES)
    assert "".join(stacktraces.of_exception(error, MAX_FRAMES)) == "".join(expected)
    assert stacktraces.of_frames(error.__traceback__, 4) == traceback.format_tb(error.__traceback__, limit=-4)


def test_a_long_chain_of_causes_is_bounded(tracer: Tracer) -> None:
    error: Exception = ValueError("first")
    for number in range(20_000):
        following = KeyError(number)
        following.__cause__ = error
        error = following
    with pytest.raises(KeyError) as caught, tracer.span("tool", {"name": "x"}):
        raise error
    assert caught.value is error
    recorded = only_span(tracer).error
    assert (recorded["type"], recorded["message"]) == ("KeyError", "19999")
    assert len(recorded["stacktrace"]) <= MAX_STACKTRACE
    while error.__cause__ is not None:  # from the outside in, or freeing it would need as much stack as it is long
        error = error.__cause__  # type: ignore[assignment]


def test_what_an_exception_holds_is_not_kept(tracer: Tracer) -> None:
    class Held:
        pass

    class Loaded(Exception):
        pass

    @tracer.span
    def leaf() -> "weakref.ref[Held]":
        held = Held()
        error = Loaded()
        error.held = held  # type: ignore[attr-defined]
        kept.append(weakref.ref(held))
        raise error

    kept: list[weakref.ref[Held]] = []
    with pytest.raises(Loaded):
        leaf()
    gc.collect()
    assert kept[0]() is None


def test_nobody_is_handling_an_exception_after_a_failed_call(tracer: Tracer) -> None:
    @tracer.span
    def leaf() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        leaf()
    assert sys.exc_info() == (None, None, None)


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_the_error_in_the_views_says_its_type(tmp_path: Path, durability: Any) -> None:
    tracer = Tracer(tmp_path / "runs.db", durability=durability, raise_errors=True)

    async def slow() -> None:
        await asyncio.sleep(60)

    def raises() -> Iterator[int]:
        yield 1
        raise KeyError("nope")

    async def cancelled(reason: str) -> None:
        task = asyncio.create_task(tracer.span(slow)())
        await asyncio.sleep(0)
        task.cancel(*[reason][: len(reason)])
        with suppress(asyncio.CancelledError):
            await task

    with suppress(KeyError), tracer.run("a"):
        with suppress(KeyError):
            list(tracer.span(raises)())
        asyncio.run(cancelled(""))
        asyncio.run(cancelled("closed"))
        with tracer.span("tool", {"name": "t"}):
            raise KeyError("nope")
    assert tracer.flush()
    with agentspan.open(tmp_path / "runs.db") as db:
        spans = db.storage.ask(Select("select error from spans order by span")).rows
        runs = db.storage.ask(Select("select error from runs")).rows
    expected = ["KeyError: 'nope'", "CancelledError", "CancelledError: closed", "KeyError: 'nope'"]
    assert (spans, runs) == ([(text,) for text in expected], [("KeyError: 'nope'",)])
    tracer.shutdown()
