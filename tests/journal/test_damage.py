"""A dead segment with a flipped bit anywhere: the rest is brought in, and the damage told of."""

import itertools
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import agentspan
from agentspan import Tracer
from agentspan.cli import main
from agentspan.journal.journal_folder import folder_of
from agentspan.journal.records import HEADER, Gap, read
from agentspan.journal.segments import take_over
from tests.journal.recorded import die, sink_of, statuses
from tests.journal.segment_files import segments_of

SPANS = 3


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, and what a killed program left beside it."""
    folder = tmp_path_factory.mktemp("left")
    tracer = Tracer(folder / "runs.db")
    sink_of(tracer).work.thread.running = object()  # type: ignore[assignment]  # nothing is drained
    with tracer.run("a"):
        for number in range(SPANS):
            with tracer.span("tool", {"name": f"{number}", "arguments": {"text": "é" * number}}):
                pass
    die(tracer)
    (segment,) = segments_of(folder / "runs.db")
    data = segment.read_bytes().rstrip(b"\0")
    segment.write_bytes(data + bytes(64))
    return folder


def flip(left: Path, folder: Path, place: int, bit: int) -> Path:
    shutil.copytree(left, folder, dirs_exist_ok=True)
    (segment,) = segments_of(folder / "runs.db")
    data = bytearray(segment.read_bytes())
    data[place] ^= 1 << bit
    segment.write_bytes(data)
    return folder / "runs.db"


def size_of(left: Path) -> int:
    return segments_of(left / "runs.db")[0].stat().st_size


def check(path: Path) -> None:
    with agentspan.open(path) as db:
        report = db.doctor(dry_run=True)
        assert report.problems == []
        assert report.damage_total >= 1
        # What finishes a span whose start is damaged fits nothing, and is kept; so at most one span suffers.
        assert len(db.agent_spans.list(db.agent_instances.list()[0].id)) >= SPANS - 1
    assert segments_of(path) == []
    found = statuses(path)
    assert found.count("complete") >= SPANS - 1


@given(data=st.data())
def test_one_bit_costs_one_span_at_most_and_is_told_of(left: Path, data: st.DataObject) -> None:
    place, bit = data.draw(st.integers(0, size_of(left) - 64)), data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        check(flip(left, Path(folder), place, bit))


def test_a_damaged_registration_costs_the_name_of_the_run_and_a_damaged_writer_its_description(
    left: Path, tmp_path: Path
) -> None:
    (segment,) = segments_of(left / "runs.db")
    data = segment.read_bytes()
    for number, record in enumerate((b"R\x1f[", b"X\x1f[")):
        path = flip(left, tmp_path / str(number), data.index(record), 0)
        check(path)
        with agentspan.open(path) as db:
            (run,) = db.agent_instances.list()
            assert run.status == "complete"
            assert len(db.agents.list()) == 1
            assert [span.status for span in db.agent_spans.list(run.id)] == ["complete"] * SPANS
            assert db.doctor().refused_total == 0


@pytest.mark.full
def test_every_byte_may_be_damaged(left: Path, tmp_path: Path) -> None:
    (segment,) = segments_of(left / "runs.db")
    data, path = segment.read_bytes(), tmp_path / segment.name
    registration = data.index(b"R\x1f[")
    for place in range(len(data) - 64):
        if registration < place < data.index(b"C\x1f") - 100 and place % 50:
            continue  # 9 kB of one record
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        taken = take_over(path)
        assert taken is not None
        with taken:
            found = list(read(taken.data, taken.start, after=taken.after))
        gaps = [each for each in found if isinstance(each, Gap)]
        assert len(gaps) + (taken.damaged is not None) == 1
        assert len(found) - len(gaps) >= 2 * SPANS - 1


def test_each_bit_of_the_first_bytes_may_be_damaged_and_is_told_of(left: Path, tmp_path: Path) -> None:
    """Also one with which they are those of another version."""
    (segment,) = segments_of(left / "runs.db")
    data, path = segment.read_bytes(), tmp_path / segment.name
    for place, bit in itertools.product(range(32), range(8)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
        taken = take_over(path)
        assert taken is not None
        with taken:
            assert taken.damaged is not None


def test_the_doctor_says_what_could_not_be_read(left: Path, tmp_path: Path) -> None:
    (segment,) = segments_of(left / "runs.db")
    start = segment.read_bytes().index(b"C\x1f")
    path = flip(left, tmp_path, start, 0)
    result = CliRunner().invoke(main, ["--db", str(path), "doctor", "--dry-run"], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    assert "! 1 place in the journals of killed programs could not be read" in result.output
    assert max(map(len, result.output.splitlines())) <= 80
    answer = json.loads(CliRunner().invoke(main, ["--db", str(path), "doctor", "--dry-run", "--json"]).output)
    (damage,) = answer["damage"]
    assert damage["why"] == "damaged"
    assert f"1 record is missing at byte {start - HEADER}" in damage["wanted"]["said"]
    assert answer["total"] == len(answer["refused_changes"]) == 1  # the end of the span whose start it was


@pytest.mark.parametrize("size", [0, 4096, 2**20])
def test_a_segment_of_which_nothing_came_to_the_disk_is_no_damage(tmp_path: Path, size: int) -> None:
    """A power failure came right after it was made."""
    path = tmp_path / "runs.db"
    agentspan.SQLiteStorage(path).close()
    folder = folder_of(path)
    folder.mkdir(mode=0o700)
    blank = folder / f"{'0' * 32}-00000001.v3.segment"
    with os.fdopen(os.open(blank, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
        file.truncate(size)
    with agentspan.open(path) as db:
        assert db.doctor().refused == []
    assert not folder.exists()
