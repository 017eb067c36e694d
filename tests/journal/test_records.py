"""Records in a segment: what was appended is read back, also past damage, and what is missing is counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentspan.journal.records import END, HEADER, MAGIC, PAGE, Gap, Record, bodies, header, read
from tests.journal.segment_files import written


def test_what_was_written_is_read_in_order() -> None:
    data = written([b"one", b"", b"three" * 100])
    assert [(each.sequence, each.body) for each in read(data, 0) if isinstance(each, Record)] == [
        (1, b"one"),
        (2, b""),
        (3, b"three" * 100),
    ]


@pytest.mark.parametrize("data", [b"", END, bytes(4096), written([])])
def test_nothing_is_nothing(data: bytes) -> None:
    assert list(read(data, 0)) == []
    assert bodies(data).bodies == []


def test_a_record_that_was_not_finished_is_not_there() -> None:
    data = bytearray(written([b"one", b"two"]))
    start = HEADER + 3
    data[start : start + HEADER] = bytes(HEADER)  # killed before the header was copied
    assert [each.body for each in read(bytes(data[: start + HEADER + 3]) + bytes(64), 0)] == [b"one"]  # type: ignore[union-attr]


def test_a_header_that_was_copied_in_part_is_no_damage() -> None:
    """Its checksum is copied last; the program was killed before that."""
    data = bytearray(written([b"one", b"two"]))
    start = HEADER + 3
    data[start + 16 : start + HEADER] = bytes(4)
    assert list(read(bytes(data) + bytes(64), 0)) == [Record(1, b"one", start)]
    data[start + 16] = 1
    assert list(read(bytes(data) + bytes(64), 0)) == [Record(1, b"one", start), Gap(start, len(data) + 64, None)]


@pytest.mark.parametrize("pages", [1, 2, 5])
def test_pages_that_were_never_written_end_what_was_appended(pages: int) -> None:
    """A power failure came before the system had written them: no record was damaged."""
    data = written([b"one", b"two" * 5000])
    cut = data[: pages * PAGE - (pages == 5) * 100].ljust(pages * PAGE, b"\0")
    whole = [Record(1, b"one", HEADER + 3)]
    assert list(read(cut.ljust(8 * PAGE, b"\0"), 0)) == (whole if pages < 4 else [*read(data, 0)])
    damaged = bytearray(data.ljust(8 * PAGE, b"\0"))
    damaged[2 * PAGE + 5] ^= 1
    assert list(read(bytes(damaged), 0)) == [*whole, Gap(HEADER + 3, 8 * PAGE, None)]


def test_old_records_behind_the_end_are_not_read_again() -> None:
    old = written([b"old" * 10] * 20)
    new = written([b"new"], first=21)
    assert [each.body for each in read(new + old[len(new) :], 0, after=20)] == [b"new"]  # type: ignore[union-attr]


def test_old_records_behind_damage_are_not_taken_for_new_ones() -> None:
    old = written([b"old" * 10] * 20)
    new = bytearray(written([b"new"], first=21))
    new[HEADER] ^= 1
    assert list(read(bytes(new) + old[len(new) :], 0, after=20)) == [Gap(0, len(old), None)]


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=8), st.data())
def test_one_flipped_bit_costs_one_record_at_most_and_is_told_of(all_bodies: list[bytes], draw: st.DataObject) -> None:
    data = bytearray(written(all_bodies))
    place = draw.draw(st.integers(0, len(data) - len(END) + len(MAGIC) - 1))
    data[place] ^= 1 << draw.draw(st.integers(0, 7))
    found = list(read(bytes(data) + bytes(200), 0, after=0))
    records = [(each.sequence, each.body) for each in found if isinstance(each, Record)]
    gaps = [each for each in found if isinstance(each, Gap)]
    whole = list(enumerate(all_bodies, start=1))
    assert set(records) <= set(whole)
    assert records == sorted(records)
    assert len(records) >= len(whole) - 1
    assert len(gaps) == 1
    assert gaps[0].missing in (1, None) or len(records) == len(whole)


@given(st.lists(st.binary(max_size=60), max_size=8), st.binary(max_size=300))
def test_any_bytes_are_read_without_a_fault(all_bodies: list[bytes], rest: bytes) -> None:
    data = written(all_bodies)[: -len(END)] + rest
    found = [each.body for each in read(data, 0, after=0) if isinstance(each, Record)]
    assert found[: len(all_bodies)] == all_bodies


@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(0, 700))
def test_a_part_of_a_segment_gives_its_whole_records(all_bodies: list[bytes], size: int) -> None:
    data = written(all_bodies)[: -len(END)]
    part = bodies(data[:size])
    assert part.bodies == all_bodies[: len(part.bodies)]
    assert part.last == len(part.bodies)
    assert part.bodies == all_bodies or part.end <= size
    assert bodies(data[part.end :]).bodies == all_bodies[len(part.bodies) :]


def test_a_hole_is_passed_over() -> None:
    data = bytearray(written([b"one", b"two", b"three"]))
    start = HEADER + 3
    data[start : start + HEADER + 3] = bytes(HEADER + 3)
    assert bodies(bytes(data)).bodies == [b"one", b"three"]
    assert [each.body for each in read(bytes(data), 0) if isinstance(each, Record)] == [b"one", b"three"]


def test_a_record_that_is_cut_off_behind_a_hole_is_read_with_the_next_part() -> None:
    data = bytearray(written([b"one", b"two", b"three"])[: -len(END)])
    start = HEADER + 3
    data[start : start + HEADER + 3] = bytes(HEADER + 3)
    for size in range(start + HEADER, len(data)):  # each ends in the hole, or in the record behind it
        part = bodies(bytes(data[:size]))
        assert part.bodies == [b"one"]
        assert part.end <= size
        assert bodies(bytes(data[part.end :])).bodies == [b"three"], size


def test_a_body_that_looks_like_a_record_is_a_body() -> None:
    inner = header(b"x", 7) + b"x"
    assert [each.body for each in read(written([inner, b"two"]), 0)] == [inner, b"two"]  # type: ignore[union-attr]
    assert MAGIC in inner
