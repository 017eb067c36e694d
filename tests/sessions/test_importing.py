"""Session files are brought in once, however often and in whatever pieces they are read."""

import json
import os
from pathlib import Path

import pytest

import agentspan
from agentspan.sessions.formats import Source
from tests.sessions.stored_rows import rows_of
from tests.sessions.toy_files import LINES, OLD_NS, importer, write


def test_a_session_is_a_run_and_its_steps_are_spans(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        first = importer(database)
        assert first.import_source(write(tmp_path / "s.toy", LINES))
        ((run, spans),) = rows_of(database)
        assert (run["external_identifier"], run["status"]) == ("toy:s", "complete")
        statuses = sorted((span["status"], span["closed_by"], span["finished_at"][17:19]) for span in spans)
        assert statuses == [("cancelled", "abandoned", "05"), ("complete", None, "03"), ("complete", None, "04")]
        assert (len(first.arrived.runs), first.arrived.spans) == (1, 3)


@pytest.mark.parametrize("follows", [False, True])
def test_pieces_that_grow_give_the_rows_of_the_whole(tmp_path: Path, follows: bool) -> None:
    with agentspan.open(tmp_path / "whole.db") as database:
        importer(database).import_source(write(tmp_path / "s.toy", LINES))
        whole = rows_of(database)
    with agentspan.open(tmp_path / "pieces.db") as database:
        one = importer(database, follows=True)
        for count in range(1, len(LINES) + 1):
            source = write(tmp_path / "s.toy", LINES[:count])
            (one if follows else importer(database)).import_source(source)
        assert rows_of(database) == whole


def test_a_time_that_no_storage_can_have_is_the_last_one(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        importer(database).import_source(write(tmp_path / "s.toy", [LINES[0], {**LINES[2], "at": 1e15}]))
        ((run, (span,)),) = rows_of(database)
        assert run["finished_at"] == span["finished_at"] == "9999-12-31T23:59:59.999999Z"


def test_reading_again_adds_nothing(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        source = write(tmp_path / "s.toy", LINES)
        importer(database).import_source(source)
        stored = rows_of(database)
        again = importer(database)
        assert not again.import_source(source)
        forced = importer(database, again=True)
        assert forced.import_source(source)
        copied = write(tmp_path / "more" / "s.toy" if (tmp_path / "more").mkdir() is None else tmp_path, LINES)
        assert importer(database).import_source(copied)
        assert rows_of(database) == stored
        assert (forced.arrived.spans, forced.arrived.changed) == (0, 0)


def test_an_unfinished_line_is_waited_for(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        path = tmp_path / "s.toy"
        whole = "".join(f"{json.dumps(line)}\n" for line in LINES)
        path.write_text(whole[:-20])
        os.utime(path, ns=(OLD_NS, OLD_NS))
        first = importer(database)
        first.import_source(Source("toy", path))
        assert not first.arrived.unread
        path.write_text(whole)
        importer(database).import_source(Source("toy", path))
        assert len(rows_of(database)[0][1]) == 3
