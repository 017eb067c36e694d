"""The segments of one process: whoever appends, drains, rotates and lets go meanwhile, each record comes out once."""

import gc
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentspan.journal import segments as segments_module
from agentspan.journal.log import Log
from agentspan.journal.records import END, HEADER, bodies
from agentspan.journal.segments import take_over
from agentspan.journal.spool import segments
from tests import waiting

pytestmark = pytest.mark.usefixtures("small_heap")

SIZE = 16 * 1024


@pytest.fixture(params=["mapped", "written"])
def log(tmp_path: Path, request: pytest.FixtureRequest) -> Log:
    """One that appends through a mapping, and one on a file system where that is not safe."""
    return Log(tmp_path / "runs.db.spool", lambda: "writer", SIZE, is_mapped=request.param == "mapped")


@pytest.fixture
def impatient() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def drained(log: Log, size: int = 4096) -> list[bytes]:
    """Take out what is there."""
    found: list[bytes] = []
    while (portion := log.take(size)) is not None:
        read = bodies(portion.data)
        found += read.bodies
        log.trim(portion.segment, portion.start + read.end)
        keep(log, read.last)
    keep(log, log.sequence)
    return found


def keep(log: Log, last: int) -> None:
    """Nothing that was taken is needed any more."""
    place = log.place(last)
    if place is not None:
        log.keep(place)


def test_a_place_in_a_segment_that_is_gone_lets_go_of_nothing(log: Log) -> None:
    """Another thread has let go of more meanwhile."""
    assert log.append(b"first")
    portion = log.take(SIZE)
    assert portion is not None
    log.trim(portion.segment, portion.start + len(portion.data))
    early, late = log.place(1), log.place(1)
    assert early is not None
    assert late is not None
    log.begin_anew()
    assert log.append(b"second")
    log.keep(late)
    log.keep(early)
    rest = log.take(SIZE)
    assert rest is not None
    assert b"second" in rest.data


def test_zeros_of_a_whole_header_end_what_was_appended(log: Log) -> None:
    """Also where other records were before: a header that is copied in part is known by them."""
    log.begin(0)
    segment = log._segment
    assert segment is not None
    for _ in range(3):
        for size in (1, 200, 30):
            assert log.append(b"\xff" * size)
            assert segment.read(segment.end, HEADER) == bytes(HEADER)
        drained(log)
        assert segment.read(segment.end, HEADER) == bytes(HEADER)
    assert log._segment is segment


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "meanwhile", [lambda log: None, Log.release, Log.prepare, Log.look_after_files], ids=lambda each: each.__name__
)
def test_each_record_comes_out_once_in_its_threads_order(log: Log, meanwhile: Callable[[Log], object]) -> None:
    number, threads = 1500, 3
    found: list[bytes] = []

    def append(name: int) -> None:
        for count in range(number):
            assert log.append(f"{name}:{count}:".encode() + b"x" * (count % 300))

    appending = [threading.Thread(target=append, args=(name,)) for name in range(threads)]
    for thread in appending:
        thread.start()
    while any(thread.is_alive() for thread in appending):
        found += drained(log)
        meanwhile(log)
    found += drained(log)
    assert log.sequence == len(found) == number * threads
    for name in range(threads):
        assert [int(body.split(b":")[1]) for body in found if body.startswith(b"%d:" % name)] == [*range(number)]
    log.release(for_good=True)
    assert segments(Path(log._folder)) == []


@pytest.mark.parametrize("threshold", range(1, 9))
def test_a_finalizer_that_garbage_collection_calls_may_append(log: Log, threshold: int) -> None:
    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            log.append(b"collected")

    kept: list[slice] = []
    before = gc.get_threshold()
    gc.set_threshold(threshold, 1, 1)
    try:
        for number in range(300):
            in_use = slice(number)  # the interpreter keeps one that is not, and makes no other one then
            Garbage()
            log.append(b"%d" % number)
            kept.append(in_use)
    finally:
        gc.set_threshold(*before)

    def all_came() -> bool:
        gc.collect()  # does nothing while another thread is in the middle of a collection, perhaps of the youngest only
        return log.sequence == 600

    waiting.until(all_came)
    found = drained(log)
    assert len(found) == log.sequence == 600
    assert [body for body in found if body != b"collected"] == [b"%d" % number for number in range(300)]
    log.release(for_good=True)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="needs Python 3.11, which collects garbage there")
def test_a_finalizer_may_append_where_a_segment_begins_anew(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[slice] = []
    marked = segments_module.marked

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            log.append(b"collected")

    def just_before(drained: int, sequence: int) -> bytes:
        mark = marked(drained, sequence)
        gc.set_threshold(0)
        Garbage()
        kept.extend(slice(number) for number in range(3))
        gc.set_threshold(1)
        return mark

    log.append(b"first")
    portion = log.take(4096)
    assert portion is not None
    log.trim(portion.segment, portion.segment.end)
    before = gc.get_threshold()
    monkeypatch.setattr(segments_module, "marked", just_before)
    try:
        keep(log, 1)
    finally:
        gc.set_threshold(*before)
        monkeypatch.undo()
        gc.collect()
    found = drained(log)
    assert set(found) == {b"collected"}  # and once more, where it is marked in the end
    assert found
    log.release(for_good=True)


def test_segments_behind_an_empty_one_are_released_too(log: Log) -> None:
    """They take no more than they need, and another process can read them."""
    while len(log._full) < 2:
        assert log.append(b"x" * 3000)
    assert log.append(b"last")
    first = log._full[0]
    assert log.take(SIZE) is not None
    log.trim(first, first.end)  # and it is in the storage; nobody has taken the next portion yet
    first.keep(first.end, 1)
    log.release(for_good=True)
    left = segments(log._folder)
    found = []
    for path in left:
        segment = take_over(path)
        assert segment is not None
        with segment:
            found += bodies(segment.data[segment.start :]).bodies
            assert segment.data.endswith(found[-1] + END)
    assert len(left) == 2
    assert found[-1] == b"last"
    assert len(found) < log.sequence


@pytest.mark.usefixtures("impatient")
def test_a_function_that_traces_lines_costs_no_record(tmp_path: Path) -> None:
    def trace(frame: Any, *_: object) -> Any:
        return trace if frame.f_code.co_filename.endswith("log.py") else None

    threading.settrace(trace)
    try:
        log = Log(tmp_path / "runs.db.spool", lambda: "writer", 2**20)
        threads = [threading.Thread(target=lambda: [log.append(b"x") for _ in range(500)]) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.settrace(None)
    assert len(drained(log)) == log.sequence == 1500
    log.release(for_good=True)


def test_a_signal_handler_may_begin_a_segment_while_its_thread_begins_one(tmp_path: Path) -> None:
    def writer_id() -> str:
        if not handled:
            handled.append(False)
            handled[0] = log.append(b"handler" * 20)
        return "writer"

    handled: list[bool] = []
    log = Log(tmp_path / "runs.db.spool", writer_id, SIZE)
    assert log.append(b"outer")
    assert handled == [True]
    kept = b"".join(path.read_bytes() for path in segments(log._folder))
    assert b"handler" in kept
    assert b"outer" in kept
    assert sorted(drained(log)) == [b"handler" * 20, b"outer"]
    log.release(for_good=True)
    assert not log._folder.exists()


@pytest.mark.parametrize("log", ["mapped"], indirect=True)
def test_what_is_dropped_while_a_segment_is_begun_is_freed_before_the_next_number(log: Log) -> None:
    class Watched(Log):
        def _next_segment(self, length: int) -> Any:
            made = super()._next_segment(length)
            dropped = self._full.popleft()  # another thread has drained it
            dropped.remove()
            freed.append(weakref.ref(dropped))
            return made

        def _has_room(self, length: int) -> bool:
            return False

    freed: list[Any] = []
    log.append(b"first")
    assert log._segment is not None
    log._segment.end = SIZE
    log.__class__ = Watched

    class Numbered(int):
        def __add__(self, other: int) -> int:  # the next number is worked out
            assert not freed or freed[0]() is None
            return int(self) + other

    log.sequence = Numbered(1)
    assert log.append(b"second")
    assert freed
    log.__class__ = Log
    log.release(for_good=True)


def test_a_segment_that_becomes_free_while_another_is_prepared_leaves_no_file_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "runs.db.spool", lambda: "writer", SIZE)
    if not log._maps:
        pytest.skip("needs a file system that shares no blocks")
    recycle = segments_module.Segment.recycle

    def meanwhile(segment: segments_module.Segment) -> None:
        recycle(segment)
        log.prepare()  # in the thread that drains, while a call that records drains a portion

    while len(log._full) < 6:  # the later ones are of the size that is used again
        assert log.append(b"x" * 500)
    log.append(b"x" * 3000)
    log._spare = None
    monkeypatch.setattr(segments_module.Segment, "recycle", meanwhile)
    drained(log)
    assert len([*log._folder.glob("*.new")]) == 1
    log.release(for_good=True)
