"""A decorated generator does for its consumer what it did before, whatever that does; its span tells how it ended."""

import gc
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from agentspan import Tracer
from agentspan.testing import CapturedRuns, CapturedSpan
from tests.recording.stored import only_span

pytestmark = pytest.mark.usefixtures("small_heap")

Stream = Generator[Any, Any, Any]
Journal = list[Any]


def plain() -> Stream:
    yield 1
    yield 2
    return "end"


def stubborn() -> Stream:
    """Takes what is thrown in for an answer."""
    received: Journal = []
    while len(received) < 4:
        try:
            received.append((yield len(received)))
        except KeyError as error:
            received.append(error.args)
    return received


def forgetful() -> Stream:
    """Raises something else after it has dealt with what was thrown in."""
    try:
        yield 1
    except KeyError:
        pass
    raise ValueError("later")


def chained() -> Stream:
    try:
        yield 1
    except KeyError as error:
        raise ValueError("because of that") from error


def last_word() -> Stream:
    try:
        yield 1
    except GeneratorExit:
        return "last word"


def deaf() -> Stream:
    try:
        yield 1
    except GeneratorExit:
        yield 2


def leaking() -> Stream:
    yield 1
    raise StopIteration("a mistake")


def send_all(stream: Stream) -> Iterator[Any]:
    yield next(stream)
    for word in ("a", "b", "c", "d"):
        yield stream.send(word)


def send_and_throw(stream: Stream) -> Iterator[Any]:
    yield next(stream)
    yield stream.send("a")
    yield stream.throw(KeyError("x"))
    yield stream.throw(KeyError("y"))
    yield stream.send(None)


def throw(stream: Stream) -> Iterator[Any]:
    yield next(stream)
    yield stream.throw(KeyError("k"))


def throw_first(stream: Stream) -> Iterator[Any]:
    yield stream.throw(KeyError("before it began"))


def throw_end(stream: Stream) -> Iterator[Any]:
    yield next(stream)
    yield stream.throw(StopIteration("end"))


def throw_exit(stream: Stream) -> Iterator[Any]:
    yield next(stream)
    yield stream.throw(GeneratorExit("enough"))


def close(stream: Stream) -> Iterator[Any]:
    yield next(stream)
    yield stream.close()
    yield stream.close()
    yield next(stream, "nothing more")


def send_too_early(stream: Stream) -> Iterator[Any]:
    yield stream.send("x")


def exhaust(stream: Stream) -> Iterator[Any]:
    yield from stream
    yield next(stream, "nothing more")


def told(consumer: Callable[[Stream], Iterator[Any]], stream: Stream) -> Journal:
    """What a consumer sees of a stream, and the chain of what it fails with in the end."""
    seen: Journal = []
    try:
        seen.extend(consumer(stream))
    except BaseException as exception:
        error: BaseException | None = exception
        while error is not None:
            # Python turns a StopIteration within the consumer's own frame into a RuntimeError caused by it.
            seen.append((type(error), str(error), error.__cause__ is not None, error.__suppress_context__))
            error = error.__context__
    return seen


CONSUMERS = [send_all, send_and_throw, throw, throw_first, throw_end, throw_exit, close, send_too_early, exhaust]


@pytest.mark.parametrize("consumer", CONSUMERS)
@pytest.mark.parametrize("make", [plain, stubborn, forgetful, chained, last_word, deaf, leaking])
def test_a_consumer_sees_no_difference(make: Callable[[], Stream], consumer: Any) -> None:
    tracer = Tracer(":memory:", raise_errors=True)
    expected = told(consumer, make())
    assert told(consumer, tracer.span("chain")(make)()) == expected
    gc.collect()
    assert tracer.current_run() is None
    spans = [span for run in CapturedRuns(tracer.storage) for span in run.spans]
    assert len(spans) == (0 if consumer in (throw_first, send_too_early) else 1)


def ended(make: Callable[[], Stream], consumer: Any) -> CapturedSpan:
    tracer = Tracer(":memory:", raise_errors=True)
    told(consumer, tracer.span("chain")(make)())
    return only_span(tracer)


@pytest.mark.parametrize(
    ("make", "consumer", "status", "result"),
    [
        (plain, exhaust, "complete", {"output": [1, 2], "returned": "end"}),
        (plain, close, "complete", {"output": [1], "stopped": "closed"}),
        (plain, throw_exit, "complete", {"output": [1], "stopped": "closed"}),
        (last_word, close, "complete", {"output": [1], "stopped": "closed", "returned": "last word"}),
        (stubborn, send_all, "complete", {"output": [0, 1, 2, 3], "returned": ["a", "b", "c", "d"]}),
        (plain, throw, "failed", {"output": [1]}),
        (forgetful, throw, "failed", {"output": [1]}),
        (leaking, exhaust, "failed", {"output": [1]}),
    ],
)
def test_a_span_ends_as_its_generator_did(make: Any, consumer: Any, status: str, result: Any) -> None:
    span = ended(make, consumer)
    assert span.status == status
    assert span.result is not None
    assert {name: value for name, value in span.result.items() if name != "error"} == result
    assert (span.error is not None) == (status == "failed")
