"""A file, its log or its index that something else changes while a program records: what comes after is not lost."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer, disk, files
from agentspan.errors import InvalidValue
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.storage.sqlite.file_guard import DOUBT_S
from agentspan.storage.sqlite.file_watch import Watch
from agentspan.tuning import STANDARD
from tests.journal.recorded import sink_of
from tests.recording import changing
from tests.recording.changing import (
    back_up,
    beside,
    copied_over,
    flushed_within,
    names,
    recorder,
    renamed_over,
    spans,
    stored,
)
from tests.tiers import longer

BOTH = pytest.mark.parametrize("durability", ["journal", "commit"])
LOOKS_ALWAYS = STANDARD._replace(file_look_s=-1.0)


@pytest.fixture
def attributes(tmp_path: Path) -> None:
    """Files have extended attributes, which tell whose log a log is."""
    try:
        os.setxattr(tmp_path, "user.agentspan.test", b"x")
    except (OSError, AttributeError):
        pytest.skip("needs a file system with extended attributes")


@pytest.mark.usefixtures("attributes")
@BOTH
def test_the_log_of_a_file_is_set_aside_when_a_backup_is_renamed_over_it(tmp_path: Path, durability: Any) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine"):
        stored(tracer, 20, "before")
        back_up(path, backup)
        stored(tracer, 300, "between")
        renamed_over(path, backup)
        stored(tracer, 50, "after")
    assert names(path) == {"before": 20, "after": 50}
    (log,) = tmp_path.glob("runs.db-wal.old-*")
    assert log.stat().st_size
    tracer.shutdown()
    assert names(path) == {"before": 20, "after": 50}


def by_show(path: Path) -> None:
    subprocess.run([sys.executable, "-m", "agentspan", "runs", "--db", str(path)], check=True, capture_output=True)


def by_open(path: Path) -> None:
    with agentspan.open(path) as db:
        assert db.agent_instances.list()


def by_reader(path: Path) -> None:
    with agentspan.open(path, read_only=True) as db:
        assert db.agent_instances.list()


def by_recorder(path: Path) -> None:
    tracer = Tracer(path)
    with tracer.run("later"):
        pass
    assert tracer.flush()
    tracer.shutdown()


@pytest.mark.usefixtures("attributes")
@pytest.mark.parametrize("opens", [by_open, by_reader, by_recorder, pytest.param(by_show, marks=pytest.mark.full)])
@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "alive"])
@BOTH
def test_whoever_opens_the_backup_first_does_not_read_the_log_of_before(
    tmp_path: Path, durability: str, is_killed: bool, opens: Callable[[Path], None]
) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    with agentspan.open(path) as db:
        db.agent_instances.register("an agent")
    back_up(path, backup)
    with recorder(path, durability) as process:
        if is_killed:
            process.send_signal(signal.SIGKILL)
            process.wait()
        renamed_over(path, backup)
        opens(path)
        assert set(names(path)) <= {"before"}  # what the journal has kept, but nothing of the log
        assert list(tmp_path.glob("runs.db-wal.old-*"))
    assert set(names(path)) <= {"before"}


@pytest.mark.usefixtures("attributes")
def test_of_several_processes_one_sets_the_log_aside(tmp_path: Path) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    with agentspan.open(path) as db:
        db.agent_instances.register("an agent")
    back_up(path, backup)
    with recorder(path, "commit"):
        renamed_over(path, backup)
        program = f"import agentspan; agentspan.open({str(path)!r}).agent_instances.register('b')"
        several = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
        assert [each.wait() for each in several] == [0] * 4
        assert len(list(tmp_path.glob("runs.db-wal.old-*"))) == 1
    with agentspan.open(path) as db:
        assert len(db.agent_instances.list()) == 5


@BOTH
def test_a_log_that_belongs_to_its_file_stays_wherever_both_are_moved(tmp_path: Path, durability: str) -> None:
    for moves in (shutil.copytree, os.rename):
        folder, elsewhere = tmp_path / "a", tmp_path / f"{durability}-{moves.__name__}"
        folder.mkdir()
        with recorder(folder / "runs.db", durability):
            pass
        assert beside(folder / "runs.db", "-wal").stat().st_size
        moves(folder, elsewhere)
        with agentspan.open(elsewhere / "runs.db"):
            pass
        assert names(elsewhere / "runs.db") == {"before": 50}
        assert not list(elsewhere.glob("*.old-*"))
        shutil.rmtree(folder, ignore_errors=True)


@BOTH
def test_a_run_goes_on_in_a_backup_of_its_file_from_before_it_began(tmp_path: Path, durability: Any) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("earlier"):
        stored(tracer, 1, "before")
    back_up(path, backup)
    with tracer.run("mine", session="s") as run:
        stored(tracer, 1, "between")
        changing.restored(path, backup)
        stored(tracer, 50, "after")
    assert names(path) == {"before": 1, "after": 50}
    with agentspan.open(path) as db:
        found = db.agent_instances.get(run.id)
        assert (found.status, found.session) == ("complete", "s")
        assert db.doctor().refused == []
    assert tracer.health()[:3] == (108, 0, 0)
    tracer.shutdown()


def test_a_run_that_somebody_removed_from_a_restored_file_stays_removed(tmp_path: Path) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    tracer = Tracer(path)
    with tracer.run("mine"):
        assert tracer.flush()
        back_up(path, backup)
        changing.restored(path, backup)
        stored(tracer, 1, "after")
        with contextlib.closing(sqlite3.connect(path)) as other, other:
            for table in ("agent_spans", "agent_instances"):
                other.execute(f"delete from {table}")
        spans(tracer, 1, "removed")
    tracer.flush()
    assert names(path) == {}
    tracer.shutdown()


@pytest.mark.parametrize("change", changing.CHANGES, ids=lambda change: change.__name__)
@BOTH
def test_what_is_recorded_after_a_change_is_in_a_sound_file_in_the_end(
    tmp_path: Path, durability: Any, change: Callable[[Path, Path], None]
) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine"):
        stored(tracer, 20, "before")
        back_up(path, backup)
        stored(tracer, 200, "between")
        change(path, backup)
        spans(tracer, 50, "after")
        assert flushed_within(tracer, 20)
        stored(tracer, 50, "later")
    found = names(path)
    assert found["later"] == 50
    assert found["after"] >= (50 if durability == "journal" else 49)  # without one, what came before a look may be lost
    assert tracer.health().failed == tracer.health().waiting == 0
    tracer.shutdown()
    assert names(path) == found


@BOTH
def test_a_copy_over_a_file_whose_log_a_killed_program_has_left_is_noticed(tmp_path: Path, durability: Any) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    with agentspan.open(path) as db:
        db.agent_instances.register("an agent")
    back_up(path, backup)
    earlier = Tracer(path, durability=durability)
    with earlier.run("earlier"):
        spans(earlier, 400, "earlier")
    earlier.shutdown()
    with recorder(path, durability, 100):
        pass
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine"):
        stored(tracer, 20, "between")
        shutil.copyfile(backup, path)
        spans(tracer, 20, "after")
        assert not tracer.flush()
        assert flushed_within(tracer, 20)
        stored(tracer, 20, "later")
    found = names(path)
    assert found["later"] == 20
    assert found["after"] >= (20 if durability == "journal" else 19)
    tracer.shutdown()


@pytest.mark.parametrize("comes_first", [True, False])
def test_a_checkpoint_in_the_middle_of_a_look_is_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_first: bool
) -> None:
    path = tmp_path / "runs.db"
    look, stat = Watch(path), os.stat

    def slow(name: Any, **options: Any) -> os.stat_result:
        found = stat(name, **options)
        if str(name) != str(path):
            return found
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("pragma wal_checkpoint").fetchall()
        return stat(name, **options) if comes_first else found

    with agentspan.open(path) as db:
        db.agent_instances.register("an agent")
        inode = (stat(path).st_dev, stat(path).st_ino)
        look.begin(inode)
        for looks in (look.changed, partial(look.begin, inode)):
            db.agent_instances.register("another")
            with monkeypatch.context() as patch:
                patch.setattr(files, "stat_of", slow)
                assert looks() is None
            assert look.changed() is None
            assert look.changed() is None


@pytest.mark.parametrize("begins_anew", [True, False])
def test_a_copy_right_after_a_checkpoint_is_noticed_though_it_has_the_size_of_the_file(
    tmp_path: Path, begins_anew: bool
) -> None:
    """With the log that the checkpoint has copied, or with one that SQLite has begun anew since."""
    path, backup, look = tmp_path / "runs.db", tmp_path / "backup.db", Watch(tmp_path / "runs.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.executescript("pragma journal_mode = wal; create table counted (number); insert into counted values (0)")
        look.begin((path.stat().st_dev, path.stat().st_ino))
        for is_copied in (False, True):
            for _ in range(5):
                writer.execute("update counted set number = number + 1")
            shutil.copyfile(path, backup)
            changing.checkpoint(path)
            for _ in range(begins_anew * 2):
                writer.execute("update counted set number = number + 1")
            assert backup.stat().st_size <= path.stat().st_size
            if is_copied:
                shutil.copyfile(backup, path)
            assert [look.changed(), look.changed()] == ["content" if is_copied else None] * 2


@pytest.mark.parametrize("is_copied", [False, True])
def test_a_checkpoint_beside_a_reader_of_an_earlier_state_is_no_change(tmp_path: Path, is_copied: bool) -> None:
    """It does not copy the pages that were written again since, also not as the reader sees them."""
    path, backup, look = tmp_path / "runs.db", tmp_path / "backup.db", Watch(tmp_path / "runs.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.executescript("pragma journal_mode = wal; create table counted (number); create table other (number)")
        writer.executescript("insert into counted values (0); insert into other values (0)")
        changing.checkpoint(path)
        shutil.copyfile(path, backup)
        look.begin((path.stat().st_dev, path.stat().st_ino))
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
            writer.executescript("update counted set number = 1; update other set number = 1")
            reader.execute("begin")
            assert reader.execute("select * from other").fetchone() == (1,)
            writer.execute("update other set number = 2")
            changing.checkpoint(path)
            if is_copied:
                shutil.copyfile(backup, path)
            assert [look.changed(), look.changed()] == ["content" if is_copied else None] * 2


def test_a_log_that_was_begun_anew_twice_between_two_looks_is_no_change(tmp_path: Path) -> None:
    path, look = tmp_path / "runs.db", Watch(tmp_path / "runs.db")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.executescript("pragma journal_mode = wal; create table counted (number); insert into counted values (0)")
        for _ in range(20):
            writer.execute("update counted set number = number + 1")
        look.begin((path.stat().st_dev, path.stat().st_ino))
        for _ in range(3):
            changing.checkpoint(path)
            writer.execute("update counted set number = number + 1")
        assert [look.changed(), look.changed()] == [None] * 2


@BOTH
def test_a_copy_over_the_file_is_a_fault_until_a_sound_file_is_there(tmp_path: Path, durability: Any) -> None:
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine"):
        stored(tracer, 20, "before")
        back_up(path, backup)
        stored(tracer, 300, "between")
        changing.checkpoint(path)
        stored(tracer, 1, "between")  # so that the log begins anew: else it would have all that the file had
        with path.open("r+b") as file:  # never empty: what this program still sees would be put in its place
            file.write(b"no database" * 1000)
            file.truncate()
        spans(tracer, 50, "after")
        assert not flushed_within(tracer, 1.5)
        health = tracer.health()
        assert health.failed == 0
        assert "rename" in (health.last_error or "") or "not an SQLite database" in (health.last_error or "")
        assert health.spooled_bytes if durability == "journal" else health.waiting
        renamed_over(path, backup)
        assert flushed_within(tracer, 20)
    assert tracer.flush()
    found = names(path)
    assert (found["before"], found["after"]) == (20, 50)
    assert tracer.health()[1:3] == (0, 0)
    tracer.shutdown()


@BOTH
@pytest.mark.parametrize("change", [renamed_over, changing.restored, copied_over])
def test_spans_follow_the_agent_that_another_program_puts_into_a_backup(
    tmp_path: Path, durability: Any, change: Callable[[Path, Path], Any]
) -> None:
    """Both programs believe that the agent has the id that it had in the file of before."""
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    with agentspan.open(path) as db:
        db.agent_instances.register("another")
    back_up(path, backup)
    first, second = (Tracer(path, durability=durability, tuning=LOOKS_ALWAYS) for _ in range(2))
    with first.run("shared"), second.run("shared"):
        stored(first, 1, "before")
        stored(second, 1, "before")
        change(path, backup)
        for tracer in (second, first):
            assert flushed_within(tracer, 20)
            spans(tracer, 5, "after")
            assert flushed_within(tracer, 20)
    for tracer in (first, second):
        tracer.shutdown()
    assert names(path)["after"] == 10
    with contextlib.closing(sqlite3.connect(path)) as connection:
        shown = "select count(*) from spans where agent = 'shared' and payload ->> '$.name' = 'after'"
        assert connection.execute(shown).fetchall() == [(10,)]


@BOTH
def test_a_change_is_noticed_by_a_flush_though_nothing_is_recorded(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, tuning=STANDARD._replace(drain_tick_s=500.0))  # no thread looks first
    with tracer.run("mine"):
        stored(tracer, 5, "before")
        beside(path, "-wal").unlink()
        assert not tracer.flush()
        assert "left without its log" in (tracer.health().last_error or "")
        assert flushed_within(tracer, 20)
    assert tracer.flush()
    assert names(path) == {"before": 5}
    tracer.shutdown()


@BOTH
def test_what_does_not_change_the_content_is_no_fault(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine"):
        for _ in range(3):
            stored(tracer, 5, "x")
            os.utime(path)
            path.chmod(0o640)
            changing.checkpoint(path)
            back_up(path, tmp_path / "backup.db")
            (tmp_path / "backup.db").unlink()
    assert tracer.flush()
    assert names(path) == {"x": 15}
    assert tracer.health().last_error is None
    assert not list(tmp_path.glob("*.old-*"))
    tracer.shutdown()


@BOTH
def test_flush_waits_until_a_file_that_was_overwritten_with_the_same_is_trusted(
    tmp_path: Path, durability: Any
) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, tuning=LOOKS_ALWAYS)
    with tracer.run("mine"):
        stored(tracer, 5, "x")
        time.sleep(0.05)
        with path.open("r+b") as file:
            data = file.read()
            file.seek(0)
            file.write(data)
        assert tracer.flush()
        assert tracer.health().last_error is None
    tracer.shutdown()
    assert names(path) == {"x": 5}


@BOTH
def test_what_only_a_program_sees_is_kept_when_it_ends(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability)
    with tracer.run("mine"):
        stored(tracer, 50, "before")
    beside(path, "-wal").unlink()
    tracer.shutdown()
    assert names(path) == {"before": 50}


@BOTH
def test_what_only_a_program_sees_is_kept_when_it_forks(tmp_path: Path, durability: Any) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability)
    with tracer.run("mine"):
        stored(tracer, 50, "before")
        beside(path, "-wal").unlink()
        child = os.fork()
        if not child:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        spans(tracer, 50, "after")
    assert flushed_within(tracer, 20)
    assert names(path) == {"before": 50, "after": 50}
    tracer.shutdown()


@pytest.mark.usefixtures("attributes")
@BOTH
def test_the_log_of_a_file_that_is_deleted_is_renamed(tmp_path: Path, durability: str) -> None:
    path = tmp_path / "runs.db"
    with recorder(path, durability) as process:
        process.kill()
        process.wait()
        path.unlink()
        with agentspan.open(path) as db:
            db.agent_instances.list()
        (log,) = tmp_path.glob("runs.db-wal.old-*")
        assert log.stat().st_size


def test_a_flush_succeeds_again_after_the_folder_of_the_journal_was_deleted(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    tracer = Tracer(path)
    with tracer.run("mine"):
        spans(tracer, 5, "before")
        shutil.rmtree(beside(path, ".spool"))
        assert flushed_within(tracer, 5)
        assert tracer.health().last_error is None
        spans(tracer, 5, "after")
    assert flushed_within(tracer, 5)
    assert names(path) == {"before": 5, "after": 5}
    tracer.shutdown()


def test_a_log_that_the_index_does_not_tell_of_is_noticed(tmp_path: Path) -> None:
    """It was deleted between the moment that a connection opened it and the first look; another process made a new one.

    Nobody but that connection can read the file then.
    """
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        db.agent_instances.register("an agent")
        beside(path, "-wal").unlink()
        for is_made in (False, True):
            if is_made:
                beside(path, "-wal").touch(0o600)
            watch = Watch(path)
            watch.begin((path.stat().st_dev, path.stat().st_ino))
            assert watch.changed() == "log"


def test_a_mended_file_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    path, link = tmp_path / "runs.db", tmp_path / "link.db"
    link.symlink_to(path)
    tracer = Tracer(link)
    with tracer.run("mine"):
        stored(tracer, 5, "before")
        path.chmod(0o640)
        beside(path, "-wal").unlink()
        assert flushed_within(tracer, 20)
    assert tracer.flush()
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(link) == {"before": 5}
    tracer.shutdown()


def test_records_stay_where_a_look_at_the_file_finds_another_one(tmp_path: Path) -> None:
    """Also right after it was overwritten with what is sound: then the journal knows of no row that must be there."""
    path, backup = tmp_path / "runs.db", tmp_path / "backup.db"
    with agentspan.open(path) as db:
        db.agent_instances.register("an agent")
    back_up(path, backup)
    tracer = Tracer(path, tuning=STANDARD._replace(drain_tick_s=500.0))
    with tracer.run("mine"):
        spans(tracer, 5, "x")
    drain = sink_of(tracer).work.drain
    assert drain.run(5)
    shutil.copyfile(path, tmp_path / "same.db")
    shutil.copyfile(tmp_path / "same.db", path)
    assert not drain.settle(5, keeps_latest=True)  # it is sound, but looked through again before anything leaves
    assert drain.run(5)
    assert not drain.settle(5, keeps_latest=True)
    time.sleep(DOUBT_S)
    changing.restored(path, backup)
    assert not drain.settle(5)
    assert flushed_within(tracer, 20)
    tracer.shutdown()
    assert names(path) == {"x": 5}


ROUNDS = longer("AGENTSPAN_TEST_CHANGES", 2, 4, 100)
FLOOD = """
import sys, time, agentspan
tracer = agentspan.configure(sys.argv[1], durability=sys.argv[2])
until = time.monotonic() + float(sys.argv[3])
while time.monotonic() < until:
    with agentspan.run("flood"):
        for _ in range(20):
            with agentspan.span("tool", {"name": "x"}) as span:
                pass
            print(span.id, time.time(), flush=True)
            time.sleep(0.002)
while not agentspan.flush():
    time.sleep(0.1)
print("done", flush=True)
"""


def test_nothing_is_lost_between_a_change_and_its_notice_while_the_journal_is_there(tmp_path: Path) -> None:
    """Of what was acknowledged after the change, or in the second before it, all is there."""
    for number in range(ROUNDS):
        path, backup = tmp_path / f"{number}.db", tmp_path / f"{number}.backup"
        with agentspan.open(path) as db:
            db.agent_instances.register("an agent")
        back_up(path, backup)
        arguments = [sys.executable, "-c", FLOOD, str(path), "journal", "2"]
        change = [changing.restored, renamed_over, copied_over, changing.deleted][number % 4]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(30 + 7 * number)]
            until = time.monotonic() + 1.2 * (number % 8) / 8
            while time.monotonic() < until:
                lines.append(process.stdout.readline())
            begun = time.time() - 0.9
            change(path, backup)
            lines += process.stdout.read().splitlines()
        assert process.returncode == 0
        said = [line.split() for line in lines if " " in line]
        kept = {id for id, at in said if float(at) > begun}
        with agentspan.open(path) as db:
            found = {span.id for run in db.agent_instances.list() for span in db.agent_spans.list(run.id)}
        assert kept - found == set(), number
        assert len(kept) > 50


@BOTH
def test_what_is_recorded_is_on_the_disk_about_once_a_second(
    tmp_path: Path, durability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log and, with a journal, its segments and the folder. The calls that record wait for none of it."""
    synced: list[str] = []
    threads: set[str] = set()

    def watched(sync: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            import threading

            synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
            threads.add(threading.current_thread().name)
            sync(descriptor)

        return call

    monkeypatch.setattr(disk, "fsync", watched(os.fsync))
    monkeypatch.setattr(disk, "fdatasync", watched(os.fdatasync))
    path = tmp_path / "runs.db"
    tracer = Tracer(path, durability=durability, sync_every_s=0.05)
    until = time.monotonic() + 20
    with tracer.run("mine"):
        while time.monotonic() < until and synced.count(f"{path}-wal") < 3:
            spans(tracer, 1, "x")
            time.sleep(0.01)
    assert synced.count(f"{path}-wal") >= 3
    assert str(tmp_path) in synced
    assert any(".segment" in each for each in synced) == (durability == "journal")
    assert threads == {"agentspan-journal" if durability == "journal" else "agentspan-checkpoint"}
    tracer.shutdown()


@BOTH
def test_nothing_is_synced_where_that_is_not_wanted(
    tmp_path: Path, durability: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "fsync", None)
    monkeypatch.setattr(disk, "fdatasync", None)
    tracer = Tracer(tmp_path / "runs.db", durability=durability, sync_every_s=None)
    with tracer.run("mine"):
        stored(tracer, 5, "x")
    assert tracer.flush()
    assert tracer.health().last_error is None
    tracer.shutdown()
    assert names(tmp_path / "runs.db") == {"x": 5}


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), 1e12, "1"])
def test_no_thread_is_to_sync_after_a_time_that_it_cannot_wait_for(tmp_path: Path, seconds: Any) -> None:
    with pytest.raises(InvalidValue, match="sync_every_s"):
        Tracer(tmp_path / "runs.db", sync_every_s=seconds)


def test_a_disk_that_takes_nothing_keeps_the_records_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(storage: SQLiteStorage) -> None:
        raise OSError(5, "Input/output error")

    tracer = Tracer(tmp_path / "runs.db")
    with tracer.run("mine"):
        with monkeypatch.context() as patch:
            patch.setattr(SQLiteStorage, "sync", fails)
            spans(tracer, 5, "x")
            assert not tracer.flush()
            assert "Input/output error" in (tracer.health().last_error or "")
            (segment,) = (tmp_path / "runs.db.spool").glob("*.segment")
            assert b"tool" in segment.read_bytes()
        assert tracer.flush()
    tracer.shutdown()
    assert names(tmp_path / "runs.db") == {"x": 5}
