"""Histories in a journal: a record holds what is new, and refers to the records before it in its segment."""

import base64
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan import Tracer
from agentspan.journal.records import LOST, SEPARATOR, Elements, Parts, Record, encode, read
from agentspan.journal.segments import START
from agentspan.model.changes import PutSpans
from agentspan.recording.capture.repeats import Repeats
from agentspan.recording.run_state import RunState
from agentspan.recording.settings import Settings
from agentspan.recording.span_and_run import Run, state_of
from agentspan.recording.tracer import recorder_of
from agentspan.storage.questions import SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.tuning import STANDARD, Tuning
from tests.journal.recorded import die, sink_of
from tests.journal.segment_files import segments_of
from tests.tiers import examples

HEAD = "H\x1fspan\x1frun\x1fagent\x1f\x1fllm\x1factive\x1f1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def message(number: int, size: int = 600) -> dict[str, Any]:
    return {"role": "user", "content": f"{number} " + "x" * size}


@contextmanager
def dying(path: Path, tuning: Tuning = STANDARD) -> Iterator[Tracer]:
    """A tracer whose journal is drained only when that is asked for, and whose process is killed at the end."""
    tracer = Tracer(path, raise_errors=True, tuning=tuning)
    sink_of(tracer).work.thread.running = object()  # type: ignore[assignment]  # there is one already
    yield tracer
    sink_of(tracer).work.thread.running = None
    die(tracer)


def call(tracer: Tracer, messages: list[Any], **members: Any) -> None:
    with tracer.span("llm", {"model": "m", "messages": messages, **members}) as span:
        span.set_result({"text": "yes"})


def payloads(path: Path) -> list[Any]:
    """The payloads of a file after its journals were adopted, in order."""
    with agentspan.open(path) as db:
        assert db.doctor(dry_run=True).problems == []
        (run,) = db.agent_instances.list()
        return [json.loads(span.payload) for span in db.storage.ask(SpansOf(run.id))]


def bodies(path: Path) -> list[bytes]:
    """The bodies of the records in the only segment."""
    (segment,) = segments_of(path)
    return [each.body for each in read(segment.read_bytes(), START) if isinstance(each, Record)]


ELEMENTS = st.sampled_from(
    [*map(message, range(8)), {"content": "é\x1f\u2028\x00" * 200}, {"n": 1e400}, {"$sensitive": 1}]
)


@settings(max_examples=examples(80), deadline=None)
@given(
    st.lists(st.tuples(st.lists(ELEMENTS, max_size=8), st.lists(ELEMENTS, max_size=8), st.integers(1, 3)), max_size=8),
    st.booleans(),
)
def test_what_is_read_is_what_was_captured(calls: list[tuple[list[Any], list[Any], int]], in_parts: bool) -> None:
    capture, repeats = Settings().new_capture(), Repeats()
    of: dict[int, Elements] = {}
    history = [message(number) for number in range(10, 20)]
    for messages, tools, epoch in calls:
        value = {"a": 1, "messages": history + messages, "b": [1.0], "tools": tools, "n": None}
        captured = capture.object(value, repeats)
        if not isinstance(captured, Parts):
            continue
        encoded = encode(HEAD, captured, epoch)
        encoded.note()
        elements = of.setdefault(epoch, Elements(in_parts=in_parts))
        payload = elements.payload(encoded.body.decode().split(SEPARATOR))
        assert payload.text == captured.text() == capture.object(value)
        assert payload.value == json.loads(payload.text)


def test_a_call_adds_what_is_new(path: Path) -> None:
    with dying(path) as tracer:
        sizes = []
        with tracer.run("a"):
            messages = [message(number) for number in range(100)]
            for number in range(100, 120):
                messages = [*messages, message(number)]
                call(tracer, messages)
                sizes.append(tracer.health().spooled_bytes)
    added = [after - before for before, after in pairwise(sizes)]
    assert max(added) < 1500
    assert [len(each["messages"]) for each in payloads(path)] == [*range(101, 121)]


def test_what_is_in_the_storage_is_referred_to_by_what_is_not(path: Path) -> None:
    messages = [message(number) for number in range(20)]
    with dying(path) as tracer, tracer.run("a"):
        tracer.flush()
        for number in range(20, 26):
            if number in (22, 24):
                tracer.flush()
            messages.append(message(number))
            call(tracer, messages, tools=[message(1), message(number)])
    assert bodies(path)[0][:1] == b"H"
    (segment,) = segments_of(path)
    last = len(segment.read_bytes().rstrip(b"\0"))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from agent_spans").fetchone() == (4,)
    found = payloads(path)
    assert [each["messages"] for each in found] == [messages[:length] for length in range(21, 27)]
    assert [each["tools"] for each in found] == [[message(1), message(number)] for number in range(20, 26)]
    assert last < 40_000  # a flush in between does not store the history again


def test_another_segment_holds_the_history_again(path: Path) -> None:
    messages = [message(number) for number in range(30)]
    tuning = STANDARD._replace(journal_segment_bytes=40 * 1024, journal_segment_growth=1)
    with dying(path, tuning) as tracer, tracer.run("a"):
        for number in range(30, 90):
            messages.append(message(number))
            call(tracer, messages)
    assert len(segments_of(path)) > 2
    assert [each["messages"] for each in payloads(path)] == [messages[:length] for length in range(31, 91)]


def test_the_space_of_drained_records_is_used_again(path: Path) -> None:
    messages = [message(number) for number in range(30)]
    with dying(path, STANDARD._replace(journal_segment_bytes=256 * 1024)) as tracer:
        log = sink_of(tracer).log
        with tracer.run("a"):
            call(tracer, messages)
            epochs = [log.epoch]
            for number in range(30, 230):
                messages.append(message(number))
                call(tracer, messages)
                tracer.flush()
                epochs.append(log.epoch)
            assert 1 < len(set(epochs)) < 8
            assert log.begun == 1
            with tracer.span("tool", {"name": "f"}):
                pass
            tracer.flush()
    assert [each["messages"] for each in payloads(path)[:-1]] == [messages[:length] for length in range(30, 231)]


def test_records_without_references_leave_no_room_taken(path: Path) -> None:
    with dying(path) as tracer, tracer.run("a"):
        for _ in range(3):
            with tracer.span("tool", {"name": "f"}):
                pass
            tracer.flush()
        assert sink_of(tracer).log._segment.end == START  # type: ignore[union-attr]


def test_two_objects_of_one_run_do_not_confuse_their_elements(path: Path) -> None:
    first, second = ([message(100 * side + number) for number in range(20)] for side in (1, 2))
    with dying(path) as tracer, tracer.run("a") as run:
        call(tracer, first)
        row = state_of(run).registered_row
        assert row is not None
        other = RunState(recorder_of(tracer), "a")  # as where a function arrives that was made for another process
        other.take_over(row)
        Run(other).create_span("llm", {"model": "m", "messages": second}, status="active").finish()
        call(tracer, [*first, message(9)])
    assert [each["messages"] for each in payloads(path)] == [first, second, [*first, message(9)]]


def test_a_damaged_record_takes_its_own_elements_only(path: Path) -> None:
    messages = [message(number) for number in range(20)]
    with dying(path) as tracer, tracer.run("a"):
        for number in range(20, 24):
            messages.append(message(number))
            call(tracer, messages)
    (segment,) = segments_of(path)
    data = bytearray(segment.read_bytes())
    data[data.index(b'"21 xxx') + 3] ^= 1
    segment.write_bytes(data)
    found = payloads(path)
    lost = [*messages[:21], json.loads(LOST), *messages[22:]]
    assert [each["messages"] for each in found] == [messages[:21], lost[:23], lost[:24]]
    with agentspan.open(path) as db:
        assert db.doctor(dry_run=True).damage_total >= 1


def test_a_batch_is_full_when_its_histories_are_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest: list[int] = []
    real = SQLiteStorage.apply

    def apply(storage: SQLiteStorage, units: Any, **options: Any) -> Any:
        puts = [change for unit in units for change in unit.changes if isinstance(change, PutSpans)]
        longest.append(sum(len(row.payload) for put in puts for row in put.rows))
        return real(storage, units, **options)

    monkeypatch.setattr(SQLiteStorage, "apply", apply)
    messages = [message(number) for number in range(30)]
    with dying(path, STANDARD._replace(batch_histories_characters=100_000)) as tracer, tracer.run("a"):
        for number in range(30, 90):
            messages.append(message(number))
            call(tracer, messages)
        tracer.flush()
    assert 100_000 < max(longest) < 200_000
    assert [each["messages"] for each in payloads(path)] == [messages[:length] for length in range(31, 91)]


def test_an_image_in_a_history_is_recorded_once(path: Path) -> None:
    image = base64.b64encode(bytes(range(256)) * 8000).decode()
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}"}}]}
    ]
    sizes = []
    with dying(path) as tracer, tracer.run("a"):
        for number in range(10):
            messages = [*messages, message(number)]
            call(tracer, messages)
            sizes.append(tracer.health().spooled_bytes)
            if number == 5:
                tracer.flush()
    assert sizes[0] > len(image)
    assert max(after - before for before, after in pairwise(sizes)) < 1500
    assert [each["messages"] for each in payloads(path)] == [messages[:length] for length in range(2, 12)]


def test_a_history_that_is_too_new_is_cut_each_time(path: Path) -> None:
    tracer = Tracer(path, limits=agentspan.Limits(payload=10_000))
    messages = [message(number) for number in range(40)]
    with tracer.run("a"):
        for _ in range(3):
            call(tracer, messages)
    tracer.shutdown()
    assert all(len(json.dumps(each)) < 11_000 for each in payloads(path))
