"""Segments: who owns one, how it is taken over, and what is left of one that was killed while it was made."""

import fcntl
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentspan import disk
from agentspan.journal.records import END, HEADER, Record, header, read
from agentspan.journal.segments import NEW, START, SUFFIX, Segment, room_for, take_over
from agentspan.journal.spool import create, segments, tidy
from tests.journal.segment_files import written

SIZE = 16 * 1024


def made(folder: Path, *bodies: bytes, number: int = 1, first: int = 1, size: int = SIZE) -> Segment:
    """A segment of this process with some records in it."""
    segment = create(folder, "writer", number, first, 0, size)
    data = written(bodies, first)
    segment.map[START : START + len(data)] = data
    segment.end = START + len(data) - len(END)
    return segment


def contents(path: Path) -> list[bytes]:
    """What somebody finds in a segment who takes it over."""
    left = take_over(path)
    assert left is not None
    with left:
        return [each.body for each in read(left.data, left.start, after=left.after) if isinstance(each, Record)]


def open_files() -> list[str]:
    """What this process has open."""
    folder = Path("/proc/self/fd")
    return [os.readlink(each) for each in folder.iterdir() if each.is_symlink()]


def test_only_the_owner_may_look_into_a_segment_or_its_folder(tmp_path: Path) -> None:
    segment = made(tmp_path / "runs.db.spool")
    assert stat.S_IMODE(Path(segment.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(segment.path).parent.stat().st_mode) == 0o700
    segment.remove()


def test_the_room_of_a_segment_is_there_before_it_is_written_to(tmp_path: Path) -> None:
    segment = made(tmp_path)
    assert Path(segment.path).stat().st_blocks * 512 >= SIZE
    segment.remove()


def test_a_living_segment_is_never_taken(tmp_path: Path) -> None:
    segment = made(tmp_path, b"one")
    assert take_over(Path(segment.path)) is None
    segment.unmap()
    assert take_over(Path(segment.path)) is None
    segment.leave()
    assert contents(Path(segment.path)) == [b"one"]


def test_of_two_that_want_a_dead_segment_one_gets_it(tmp_path: Path) -> None:
    segment = made(tmp_path, b"one")
    segment.leave()
    first = take_over(Path(segment.path))
    assert first is not None
    assert take_over(Path(segment.path)) is None
    with first:
        first.remove()
    assert take_over(Path(segment.path)) is None


def test_who_opened_a_segment_that_is_gone_now_does_not_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = made(tmp_path, b"one")
    segment.leave()
    flock = fcntl.flock

    def late(file: int, how: int) -> None:
        Path(segment.path).unlink(missing_ok=True)  # by somebody who has just drained it
        flock(file, how)

    monkeypatch.setattr(disk, "flock", late)
    assert take_over(Path(segment.path)) is None


def test_a_segment_that_is_dropped_can_be_taken_over(tmp_path: Path) -> None:
    segment = made(tmp_path, b"one")
    path = Path(segment.path)
    del segment
    assert contents(path) == [b"one"]


def test_a_forked_child_lets_go_and_does_not_unlock(tmp_path: Path) -> None:
    segment = made(tmp_path, b"one")
    other = made(tmp_path, b"other", number=2)
    other.leave()
    reading = take_over(Path(other.path))
    assert reading is not None
    child = os.fork()
    if child == 0:
        os._exit(sum(SUFFIX in link for link in open_files()))
    assert os.waitpid(child, 0)[1] == 0
    assert take_over(Path(segment.path)) is None
    assert take_over(Path(other.path)) is None
    reading.leave()
    segment.remove()


def test_the_lock_ends_with_the_owner_although_its_child_lives(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        segment = made(tmp_path, b"one")
        if os.fork() == 0:
            os.close(writer)  # else it would wait for itself where the test fails
            os.read(reader, 1)  # lives until the test is over
            os._exit(0)
        os._exit(0 if segment.is_mine else 1)
    assert os.waitpid(parent, 0)[1] == 0
    (path,) = segments(tmp_path)
    left = take_over(path)
    while left is None:  # the child has not got as far as letting go yet
        left = take_over(path)
    left.leave()
    assert contents(path) == [b"one"]
    os.write(writer, b"x")
    os.close(reader)
    os.close(writer)


def test_what_is_drained_is_not_read_again(tmp_path: Path) -> None:
    segment = made(tmp_path, b"one", b"two", b"three")
    segment.keep(START + HEADER + 3, 2)
    segment.leave()
    assert contents(Path(segment.path)) == [b"two", b"three"]
    left = take_over(Path(segment.path))
    assert left is not None
    with left:
        left.trim(START + 2 * (HEADER + 3), 3)
    assert contents(Path(segment.path)) == [b"three"]


def test_a_segment_begins_anew_and_its_old_records_are_not_read(tmp_path: Path) -> None:
    segment = made(tmp_path, b"one", b"two", b"three")
    segment.keep(segment.end, 4)
    segment.reset(4)
    assert (segment.drained, segment.end) == (START, START)
    segment.leave()
    assert contents(Path(segment.path)) == []


def test_after_a_new_beginning_only_what_is_new_is_read_wherever_it_ends(tmp_path: Path) -> None:
    for size in range(12):
        segment = made(tmp_path, *[b"old"] * 5, number=size)
        segment.keep(segment.end, 6)
        segment.reset(6)
        data = header(b"n" * size, 6) + b"n" * size + END
        segment.map[START : START + len(data)] = data
        segment.leave()
        assert contents(Path(segment.path)) == [b"n" * size]
        Path(segment.path).unlink()


def test_a_segment_with_something_to_drain_does_not_begin_anew(tmp_path: Path) -> None:
    segment = made(tmp_path, b"one", b"two")
    segment.reset(3)
    segment.leave()
    assert contents(Path(segment.path)) == [b"one", b"two"]


@pytest.mark.parametrize("place", [*range(32), *range(32, START)])
def test_damage_to_its_start_is_told_of_and_costs_no_record(tmp_path: Path, place: int) -> None:
    segment = made(tmp_path, b"one", b"two")
    segment.keep(START + HEADER + 3, 2)
    segment.map[place] ^= 4
    segment.leave()
    left = take_over(Path(segment.path))
    assert left is not None
    with left:
        assert left.damaged is not None
        found = [each.body for each in read(left.data, left.start, after=left.after) if isinstance(each, Record)]
    assert found == ([b"two"] if place < 32 else [b"one", b"two"])


@pytest.mark.parametrize("size", [0, 1, 20, START - 1, START, START + 3])
def test_a_segment_that_was_cut_off_does_no_harm(tmp_path: Path, size: int) -> None:
    segment = made(tmp_path, b"one")
    segment.leave()
    os.truncate(segment.path, size)
    assert contents(Path(segment.path)) == []


def test_a_record_that_is_larger_than_segments_are_gets_one_of_its_own(tmp_path: Path) -> None:
    segment = create(tmp_path, "writer", 1, 1, 10 * SIZE, SIZE)
    assert segment.size == room_for(10 * SIZE) == Path(segment.path).stat().st_size
    segment.remove()


def test_what_was_killed_while_it_was_made_is_tidied_up(tmp_path: Path) -> None:
    folder = tmp_path / "runs.db.spool"
    folder.mkdir()
    (folder / f"writer-1{SUFFIX}{NEW}").write_bytes(b"half")
    assert segments(folder) == []
    tidy(folder)
    assert not folder.exists()


def test_what_is_being_made_is_not_tidied_up(tmp_path: Path) -> None:
    new = tmp_path / f"writer-1{SUFFIX}{NEW}"
    new.touch()
    file = os.open(new, os.O_RDWR)
    fcntl.flock(file, fcntl.LOCK_EX)
    tidy(tmp_path)
    assert new.exists()
    os.close(file)


@pytest.mark.parametrize("name", ["writer-1.v2.segment", "writer-1.v4.segment", "writer-1.v4.segment.new", "notes.txt"])
def test_other_forms_and_what_is_not_ours_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whatever")
    assert segments(tmp_path) == []
    tidy(tmp_path)
    assert (tmp_path / name).read_bytes() == b"whatever"


def test_segments_are_read_in_the_order_in_which_their_writer_made_them(tmp_path: Path) -> None:
    numbers = (2, 10, 1, 100_000, 9)
    for number in numbers:
        create(tmp_path, "writer", number, 1, 0, SIZE)
    assert [int(path.name.split("-")[1].split(".")[0]) for path in segments(tmp_path)] == sorted(numbers)


def test_folders_come_and_go_while_segments_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "runs.db.spool"
    stop = threading.Event()

    def keep_tidying() -> None:
        while not stop.wait(0.0002):
            tidy(folder)

    thread = threading.Thread(target=keep_tidying)
    thread.start()
    try:
        for number in range(200):
            create(folder, "writer", number, 1, 0, SIZE).remove()
    finally:
        stop.set()
        thread.join()


def test_a_folder_that_was_deleted_with_all_around_it_does_not_come_back(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        create(tmp_path / "gone" / "runs.db.spool", "writer", 1, 1, 0, SIZE)
    assert not (tmp_path / "gone").exists()


def test_no_room_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk, "posix_fallocate", full)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No space"):
        create(tmp_path, "writer", 1, 1, 0, SIZE)
    assert list(tmp_path.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_fork_waits_for_a_thread_that_closes_a_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = made(tmp_path)
    closed, close = threading.Event(), os.close

    def slow(file: int) -> None:
        close(file)
        if threading.current_thread() is not threading.main_thread():
            closed.set()
            time.sleep(0.1)

    monkeypatch.setattr(disk, "close", slow)
    thread = threading.Thread(target=segment.leave)
    thread.start()
    closed.wait()
    other = os.open(tmp_path, os.O_RDONLY)  # it has the segment's number now
    assert in_child(lambda: os.path.samestat(os.fstat(other), os.stat(tmp_path)))
    thread.join()
    close(other)


@pytest.mark.parametrize("what", ["makes", "takes over"])
def test_a_child_does_not_keep_what_a_thread_opens_during_the_fork(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    if what == "takes over":
        made(tmp_path, b"one").leave()
    opened, open_ = threading.Event(), os.open

    def slow(*args: Any) -> int:
        file = open_(*args)
        opened.set()
        time.sleep(0.1)
        return file

    def change() -> None:
        kept.append(made(tmp_path, b"one") if what == "makes" else take_over(segments(tmp_path)[0]))

    kept: list[Any] = []
    monkeypatch.setattr(disk, "open", slow)
    thread = threading.Thread(target=change)
    thread.start()
    opened.wait()
    assert in_child(lambda: not any(SUFFIX in path for path in open_files()))
    thread.join()
    kept[0].leave()


def in_child(ask: Callable[[], bool]) -> bool:
    """What a child that is forked now answers."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if ask() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0
