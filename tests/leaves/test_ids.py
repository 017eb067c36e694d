"""PFIDs agree with the reference package, and a source's ids grow, whatever threads, clocks and forks do."""

import os
import signal
import string
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pfid
import pytest
from freezegun import freeze_time
from hypothesis import example, given
from hypothesis import strategies as st

from agentspan import ids
from tests.strategies import any_text, json_values

EXAMPLE = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
PARTITION = 123456789

millis = st.integers(0, 2**48 - 1)
partitions = st.integers(0, ids.MAX_PARTITION)
randomness = st.integers(0, 2**80 - 1)


def binary(ms: int, partition: int, random: int) -> bytes:
    """The 20 bytes that the reference package encodes."""
    return ms.to_bytes(6, "big") + partition.to_bytes(4, "big") + random.to_bytes(10, "big")


def grow(made: list[str]) -> bool:
    """Whether each id is greater than the one before it."""
    return all(earlier < later for earlier, later in pairwise(made))


def in_a_child(work: Callable[[], list[str]]) -> list[str]:
    """What `work` returns in a forked child, which an alarm ends when it hangs; empty when it failed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(10)
            os.close(reading)
            with os.fdopen(writing, "w") as pipe:
                pipe.write("\n".join(work()))
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    return text.split() if status == 0 else []


def test_the_documented_example_has_the_documented_parts() -> None:
    ms, partition, random = ids.decode(EXAMPLE)
    assert (ms, partition) == (1234567890000, PARTITION)
    assert ids.is_pfid(EXAMPLE)
    assert ids.encode(ms, partition, random) == EXAMPLE


@given(millis, partitions, randomness)
@example(0, 0, 0)
@example(2**48 - 1, 2**30 - 1, 2**80 - 1)
def test_encoding_agrees_with_the_reference(ms: int, partition: int, random: int) -> None:
    encoded = ids.encode(ms, partition, random)
    assert encoded == pfid.encode(binary(ms, partition, random))
    assert len(encoded) == 32


@given(millis, partitions, randomness)
def test_decoding_agrees_with_the_reference(ms: int, partition: int, random: int) -> None:
    reference = pfid.encode(binary(ms, partition, random))
    assert ids.decode(reference) == (ms, partition, random)
    assert pfid.decode(reference) == binary(*ids.decode(reference))


@given(
    st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=31, max_size=33)
    | st.text(string.ascii_letters + string.digits, min_size=32, max_size=32)
    | any_text
)
def test_validity_agrees_with_the_reference(text: str) -> None:
    assert ids.is_pfid(text) == pfid.is_pfid(text)


@given(st.integers(0, 31), st.sampled_from("ilouILOUAZ-_ \n٣é"))
def test_one_wrong_character_makes_an_id_invalid(position: int, wrong: str) -> None:
    assert not ids.is_pfid(EXAMPLE[:position] + wrong + EXAMPLE[position + 1 :])


@pytest.mark.parametrize(
    "text",
    [EXAMPLE.upper(), EXAMPLE[:-1], EXAMPLE + "0", EXAMPLE + "\n", " " + EXAMPLE, "8" + EXAMPLE[1:], ""],
)
def test_what_is_nearly_an_id_is_none(text: str) -> None:
    assert not ids.is_pfid(text)


@given(json_values | st.binary())
def test_what_is_no_text_is_no_id(value: object) -> None:
    assert ids.is_pfid(value) == (isinstance(value, str) and pfid.is_pfid(value))


@given(millis, millis, partitions, randomness, randomness)
def test_ids_of_one_partition_sort_as_their_times(a: int, b: int, partition: int, x: int, y: int) -> None:
    first, second = sorted([(a, x), (b, y)])
    assert (ids.encode(first[0], partition, first[1]) < ids.encode(second[0], partition, second[1])) == (first < second)


def test_all_ids_of_a_source_carry_its_partition_and_are_valid() -> None:
    source = ids.IdSource(PARTITION)
    made = [source.new() for _ in range(1000)]
    assert {ids.decode(id)[1] for id in made} == {PARTITION}
    assert {pfid.extract_partition(id) for id in made} == {PARTITION}
    assert all(map(pfid.is_pfid, made))


def test_an_id_carries_the_wall_clocks_milliseconds() -> None:
    with freeze_time("2009-02-13 23:31:30.000"):
        assert ids.decode(ids.IdSource(1).new())[0] == 1234567890000


def test_ids_grow_within_a_frozen_millisecond() -> None:
    with freeze_time("2026-11-24"):
        source = ids.IdSource(PARTITION)
        made = [source.new() for _ in range(5000)]
    assert grow(made)
    assert len({ids.decode(id)[0] for id in made}) == 1


def test_ids_grow_with_the_clock() -> None:
    source = ids.IdSource(PARTITION)
    made = []
    with freeze_time("2026-11-24 00:00:00.0005") as clock:  # freezegun's nanoseconds went through a float
        for _ in range(200):
            made += [source.new(), source.new()]
            clock.tick(timedelta(milliseconds=1))
    assert grow(made)
    assert len({ids.decode(id)[0] for id in made}) == 200


def test_ids_grow_when_the_clock_goes_back() -> None:
    source = ids.IdSource(PARTITION)
    with freeze_time("2026-11-24 12:00:00") as clock:
        made = [source.new()]
        clock.move_to("2026-11-24 11:00:00")
        made += [source.new() for _ in range(100)]
        clock.move_to("2026-11-24 12:00:01")
        made.append(source.new())
    assert grow(made)


def test_ids_grow_and_are_distinct_across_threads() -> None:
    source = ids.IdSource(PARTITION)
    start = threading.Barrier(8)
    made: list[list[str]] = [[] for _ in range(8)]

    def mint(own: list[str]) -> None:
        start.wait()
        own.extend(source.new() for _ in range(2000))

    threads = [threading.Thread(target=mint, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(own) == 2000 and grow(own) for own in made)
    assert len({id for own in made for id in own}) == 16_000
    assert source.new() > max(max(own) for own in made)


def test_two_sources_of_one_partition_do_not_meet() -> None:
    with freeze_time("2026-11-24"):
        one, other = ids.IdSource(PARTITION), ids.IdSource(PARTITION)
        made = [source.new() for _ in range(1000) for source in (one, other)]
    assert len(set(made)) == 2000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_mints_other_ids_than_its_parent() -> None:
    source = ids.IdSource(PARTITION)

    def mint() -> list[str]:
        return [source.new() for _ in range(1000)]

    with freeze_time("2026-11-24"):
        before = mint()
        childs = in_a_child(mint)
        parents = mint()
    assert len(childs) == 1000
    assert grow(childs)
    assert grow(before + parents)
    assert len({*before, *childs, *parents}) == 3000
    assert {ids.decode(id)[1] for id in childs} == {PARTITION}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_while_another_thread_mints_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ids.IdSource(PARTITION)
    inside, leave = threading.Event(), threading.Event()
    time_ns = time.time_ns

    def slow_time_ns() -> int:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            leave.wait(10)
        return time_ns()

    monkeypatch.setattr(time, "time_ns", slow_time_ns)
    thread = threading.Thread(target=source.new)
    thread.start()
    inside.wait(10)
    try:
        childs = in_a_child(lambda: [source.new()])
    finally:
        leave.set()
        thread.join()
    assert len(childs) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_signal_handler_may_mint_while_its_thread_is_minting() -> None:
    source = ids.IdSource(PARTITION)
    made: list[str] = []
    time_ns = time.time_ns

    def interrupted() -> int:
        time.time_ns = time_ns
        signal.raise_signal(signal.SIGUSR1)
        return time_ns()

    def mint() -> list[str]:
        signal.signal(signal.SIGUSR1, lambda *_: made.append(source.new()))
        time.time_ns = interrupted
        return [source.new(), *made]

    minted = in_a_child(mint)
    assert len(set(minted)) == 2


def test_random_partitions_have_thirty_bits_and_differ() -> None:
    made = {ids.random_partition() for _ in range(200)}
    assert all(0 <= partition <= ids.MAX_PARTITION for partition in made)
    assert len(made) > 190
