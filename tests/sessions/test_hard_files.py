"""Files that grow, vanish, lie or break: one line for each, bounded memory, and the rest is imported."""

import gzip
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.model.rows import AgentInstanceRow
from agentspan.sessions import reading
from agentspan.sessions.importing import Importer, import_all
from agentspan.sessions.machine import Choice, Place, chosen_at, in_order
from agentspan.storage.access import scan
from agentspan.storage.questions import SpansOf
from tests.sessions.installed import environment, text_of, toy_file, turns
from tests.sessions.toy import TOY
from tests.waiting import until

FORMATS = {"toy": TOY}
MB = 2**20


class Home:
    """A folder of sessions and a database, into which it is brought as `import` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.toys = folder / "toys"
        self.db = folder / "runs.db"
        self.toys.mkdir()

    def bring(self, **how: Any) -> Importer:
        with agentspan.open(self.db) as database:
            importer = Importer(Context(database.storage), FORMATS, **how)
            sources = chosen_at([Place(self.toys, "toy")], FORMATS, Choice())
            for _ in import_all(importer, in_order(sources, importer, FORMATS), FORMATS):
                pass
        return importer

    def answers(self) -> dict[str, list[str]]:
        """Return the answers of each session, in their order."""
        found = {}
        with agentspan.open(self.db, read_only=True) as database:
            for run in scan(database.storage, AgentInstanceRow):
                spans = sorted(database.storage.ask(SpansOf(run.id)), key=lambda span: span.started_at or "")
                results = [span.result_payload for span in spans if span.schema_name == "llm"]
                texts = [json.loads(result)["text"] for result in results if result is not None]
                found[(run.external_identifier or "").partition(":")[2]] = texts
        return found

    def command(self, *args: str, **how: Any) -> "subprocess.CompletedProcess[str]":
        words = [sys.executable, "-m", "agentspan", "--db", str(self.db), *args]
        return subprocess.run(words, env=environment(self.folder), capture_output=True, text=True, check=False, **how)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    found = Home(tmp_path)
    toy_file(found.toys, "good", turns(2), idle_s=3600)
    return found


GOOD = ["answer 0", "answer 1"]


def test_a_file_that_is_cut_and_written_anew_is_read_anew(home: Home) -> None:
    for follows in (False, True):
        home.bring(follows=follows)
        path = toy_file(home.toys, "s", turns(30))
        home.bring()
        path.write_text(text_of([*turns(20), *turns(20, 100)]))
        home.bring()
        assert len(home.answers()["s"]) == 50, "what the source no longer has stays"


def test_a_follower_notices_a_file_that_is_rewritten_in_place_and_longer(home: Home) -> None:
    path = toy_file(home.toys, "s", turns(100))
    with agentspan.open(home.db) as database:
        importer = Importer(Context(database.storage), FORMATS, follows=True)
        (source,) = TOY.sources(path)
        importer.import_source(source)
        number = path.stat().st_ino
        path.write_text(text_of([*turns(60), *turns(60, 200)]))
        assert path.stat().st_ino == number
        importer.import_source(source)
    assert len(home.answers()["s"]) == 160


def test_a_renamed_a_copied_and_a_compressed_file_add_nothing(home: Home) -> None:
    path = toy_file(home.toys, "s", turns(20))
    home.bring()
    before = home.answers()
    (home.toys / "sub").mkdir()
    moved = path.rename(home.toys / "sub/s.toy")
    assert home.bring().arrived.spans == 0
    shutil.copy(moved, path)
    assert home.bring().arrived.spans == 0
    for each in (moved, path):
        each.with_name("s.toy.gz").write_bytes(gzip.compress(each.read_bytes()))
        each.unlink()
    assert home.bring().arrived.spans == 0
    assert home.answers() == before


def test_a_folder_a_pipe_a_loop_of_links_and_a_missing_target_are_left_out(home: Home) -> None:
    (home.toys / "folder.toy").mkdir()
    os.mkfifo(home.toys / "pipe.toy")
    (home.toys / "loop.toy").symlink_to("loop.toy")
    (home.toys / "gone.toy").symlink_to("nowhere")
    (home.toys / "up").symlink_to(home.toys)
    importer = home.bring()
    assert (home.answers(), importer.problems) == ({"good": GOOD}, [])


def test_a_pipe_that_is_named_is_not_waited_for(home: Home) -> None:
    os.mkfifo(home.folder / "pipe.toy")
    with pytest.raises(OSError, match="no regular file"):
        reading.opened(home.folder / "pipe.toy")
    done = home.command("import", str(home.toys), timeout=30)
    assert done.returncode == 0


def test_a_file_that_cannot_be_read_is_one_line_and_the_rest_is_imported(home: Home) -> None:
    (home.toys / "bad.toy").symlink_to("/proc/self/mem")  # a regular file whose first bytes cannot be read
    done = home.command("import", "toy")
    assert done.returncode == 0
    assert [line for line in done.stderr.splitlines() if "not read" in line] == [
        f"not read: {home.toys}/bad.toy: Input/output error"
    ]
    assert home.answers() == {"good": GOOD}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_one_line(home: Home) -> None:
    toy_file(home.toys, "bad", turns(1)).chmod(0)
    (problem,) = home.bring().problems
    assert problem.endswith("bad.toy: Permission denied")


def test_a_cut_or_broken_gzip_file_is_one_line_and_what_it_has_is_stored(home: Home) -> None:
    packed = gzip.compress(text_of(turns(2000)).encode())
    (home.toys / "cut.toy.gz").write_bytes(packed[: len(packed) // 2])
    middle = len(packed) // 2
    (home.toys / "bad.toy.gz").write_bytes(packed[:middle] + bytes(100) + packed[middle + 100 :])
    assert sorted(problem.partition(": ")[0][-10:] for problem in home.bring().problems) == ["bad.toy.gz", "cut.toy.gz"]
    found = home.answers()
    assert found["good"] == GOOD
    assert 0 < len(found["cut"]) < 2000
    assert len(found["bad"]) > 0


def test_a_file_that_vanishes_while_it_is_read_stops_nothing(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    path = toy_file(home.toys, "s", turns(1))
    real = reading.opened

    def vanish(file: Path) -> Any:
        if file == path:
            path.unlink(missing_ok=True)
        return real(file)

    monkeypatch.setattr("agentspan.sessions.importing.opened", vanish)
    assert home.bring().problems == []
    assert home.answers() == {"good": GOOD}


def test_a_decoder_that_fails_is_one_line_and_the_rest_is_imported(home: Home) -> None:
    lines = [*turns(1), {"id": [], "ask": "what?", "at": 9}, {"id": [], "answer": "that", "at": 9}]
    toy_file(home.toys, "bad", lines, idle_s=60)
    imported = home.bring()
    (problem,) = imported.problems
    assert problem.endswith("its decoder failed (TypeError); what stands before that is stored")
    assert home.answers() == {"bad": ["answer 0"], "good": GOOD}


def test_bytes_that_are_no_text_are_counted_and_the_lines_around_them_are_read(home: Home) -> None:
    lines = [line.encode() for line in text_of(turns(3)).splitlines()]
    bad = [b"\x00" * 5000, b"\xff\xfe\xfa", b'{"id": "\xed\xa0\x80"}', b"[" * 100_000, b"null", b'"text"', b"{" * 10]
    mixed = [part for pair in zip(lines, [*bad[:6]], strict=True) for part in pair]
    (home.toys / "s.toy").write_bytes(b"\n".join([*mixed, bad[6], b""]))
    importer = home.bring()
    assert home.answers()["s"] == ["answer 0", "answer 1", "answer 2"]
    assert sum(importer.arrived.unread.values()) == len(bad)


def test_an_unfinished_last_line_is_waited_for_and_not_counted(home: Home) -> None:
    text = text_of(turns(2))
    path = home.toys / "s.toy"
    for size in range(1, len(text) + 1, 7):
        path.write_text(text[:size])
        assert not home.bring().arrived.unread
    path.write_text(text)
    home.bring()
    assert home.answers()["s"] == GOOD


LONG = 30 * MB


@pytest.mark.full
@pytest.mark.parametrize("last", ["", "\u201c", "\U0001f600"], ids=["ASCII", "a quotation mark", "an emoji"])
def test_a_line_of_30_mb_is_stored_in_bounded_memory(home: Home, last: str) -> None:
    path = toy_file(home.toys, "long", turns(1))
    answer = "abcd " * (LONG // 5) + last
    with path.open("a") as file:
        file.write(text_of([{"id": "9", "ask": "q", "at": 50}, {"id": "9", "answer": answer, "at": 60}]))
        file.write(text_of(turns(1, 20)))
    measured = most_memory(home, "import", "toy")
    assert measured <= 150 * MB + 5 * LONG, f"{measured / MB:.0f} MB"
    assert sorted(len(text) for text in home.answers()["long"]) == [8, 9, LONG + len(last)]


@pytest.mark.nightly
def test_a_file_of_500_mb_is_stored_in_bounded_memory(home: Home) -> None:
    path = home.toys / "large.toy"
    answer = "word " * 2000
    with path.open("w") as file:
        for number in range(50_000):
            file.write(f'{{"id": "{number}", "ask": "q", "at": {number + 1}}}\n')
            file.write(f'{{"id": "{number}", "answer": "{answer}", "at": {number + 1}}}\n')
    assert path.stat().st_size > 500 * 10**6
    measured = most_memory(home, "import", "toy")
    assert measured <= 150 * MB, f"{measured / MB:.0f} MB"
    with closing(sqlite3.connect(home.db)) as connection:
        assert connection.execute("select count(*) from agent_spans").fetchone() == (50_002,)


PROGRAM = """
import atexit, sys
from pathlib import Path
from agentspan.cli import main

notes = sys.argv.pop(1)
atexit.register(lambda: Path(notes).write_text(Path("/proc/self/status").read_text()))
main()
"""


def most_memory(home: Home, *args: str) -> int:
    """Run a command; return the most bytes of memory that it had.

    The program notes it itself: what the system reports of a child includes the memory of the tests, before it began.
    """
    notes = home.folder / "status"
    words = [sys.executable, "-c", PROGRAM, str(notes), "--db", str(home.db), *args]
    subprocess.run(words, env=environment(home.folder), capture_output=True, check=True)
    (line,) = (line for line in notes.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


@pytest.mark.full
def test_a_full_disk_is_one_line_and_the_next_import_goes_on(home: Home) -> None:
    for number in range(10):
        toy_file(home.toys, f"s{number}", turns(200, pad="x" * 500))
    home.bring()
    size = home.db.stat().st_size
    home.db.unlink()

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = home.command("import", "toy", preexec_fn=fill)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert home.command("import", "toy").returncode == 0
    assert sorted(map(len, home.answers().values())) == [2, *[200] * 10]


@pytest.mark.full
def test_another_writer_is_waited_for(home: Home) -> None:
    with agentspan.open(home.db) as database:
        Context(database.storage)
    with closing(sqlite3.connect(home.db, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("begin immediate")
        threading.Timer(3, connection.execute, ["rollback"]).start()
        began = time.monotonic()
        assert home.command("import", "toy").returncode == 0
        assert time.monotonic() - began > 2.5
    assert home.answers() == {"good": GOOD}


def test_an_import_that_is_killed_or_interrupted_is_gone_on_with(home: Home) -> None:
    for number in range(40):
        toy_file(home.toys, f"s{number}", turns(400))
    words = [sys.executable, "-m", "agentspan", "--db", str(home.db), "import", "toy"]
    for number in (signal.SIGKILL, signal.SIGINT):
        before = _runs(home.db)
        with subprocess.Popen(words, env=environment(home.folder), stderr=subprocess.PIPE, text=True) as started:
            until(lambda least=before + 1: _runs(home.db) >= least)  # type: ignore[misc]
            started.send_signal(number)
            said = started.stderr.read()  # type: ignore[union-attr]
        assert started.returncode in ((-9,) if number == signal.SIGKILL else (130, -2)), said
        assert number == signal.SIGKILL or "the same command goes on" in said
    assert home.command("import", "toy").returncode == 0
    assert {name: len(texts) for name, texts in home.answers().items()} == {
        "good": 2, **{f"s{number}": 400 for number in range(40)},
    }  # fmt: skip


def _runs(db: Path) -> int:
    if not db.exists():
        return 0
    try:
        with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
            return int(connection.execute("select count(*) from agent_instances").fetchone()[0])
    except sqlite3.OperationalError:  # there are no tables yet
        return 0


def test_a_sub_agent_is_stored_below_its_session_in_whatever_order_files_change(home: Home) -> None:
    toy_file(home.toys, "child", turns(1, parent="good"), idle_s=1)
    toy_file(home.toys, "grandchild", turns(1, parent="child"))
    home.bring()
    assert [*home.answers()] == ["good"]


def test_a_sub_agent_without_its_session_is_a_run(home: Home) -> None:
    toy_file(home.toys, "child", turns(1, parent="nobody"))
    toy_file(home.toys, "grandchild", turns(1, parent="child"))
    home.bring()
    assert set(home.answers()) == {"good", "child"}


def test_a_time_far_in_the_future_keeps_no_session_active(home: Home) -> None:
    toy_file(home.toys, "late", turns(1, at=8_000_000_000))
    changed_late = toy_file(home.toys, "changed_late", turns(1), idle_s=-1_000_000)
    home.bring()
    with agentspan.open(home.db, read_only=True) as database:
        assert {run.status for run in scan(database.storage, AgentInstanceRow)} == {"complete"}
    assert changed_late.exists()
