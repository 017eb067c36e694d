"""`agentspan watch` stores each step within two seconds, once, whatever happens to the files and to the writers."""

import gzip
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.sessions.importing import Importer
from agentspan.sessions.inotify import Changes, Inotify
from agentspan.sessions.machine import Choice, Place, sources_at
from agentspan.sessions.watching import Event, Watcher
from tests.checkout import ROOT
from tests.cli.calling import call
from tests.open_files import many_open
from tests.sessions.installed import environment, text_of, toy_file, turns
from tests.sessions.toy import TOY
from tests.tiers import longer
from tests.waiting import until

STEPS = longer("AGENTSPAN_TEST_LIVE_STEPS", 300, 1_000, 10_000)
SEEN_S = 2.0
"""The most seconds from the append of a step until a reader sees it."""


@contextmanager
def watch(home: Path, *args: str, **how: Any) -> Iterator["subprocess.Popen[str]"]:
    """Run `agentspan watch` until the block ends; it must end by SIGTERM, without an error."""
    command = [sys.executable, "-m", "agentspan", "--db", str(home / "runs.db"), "watch", *(args or ("toy",))]
    started = subprocess.Popen(
        command, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how
    )
    try:
        yield started
        if started.poll() is None:
            started.terminate()
        started.output, started.errors = started.communicate(timeout=30)  # type: ignore[attr-defined]
        assert started.returncode in (0, -signal.SIGKILL, -signal.SIGTERM), started.errors  # type: ignore[attr-defined]
    finally:
        if started.poll() is None:
            started.kill()
            started.communicate()


def counts(db: Path) -> dict[str, int]:
    """Return the steps that a reader sees, by session."""
    if not db.exists():
        return {}
    with closing(sqlite3.connect(f"file:{db}?mode=ro", uri=True)) as connection:
        try:
            rows = connection.execute(
                "select runs.external_identifier, count(*) from agent_spans spans join agent_instances runs"
                " on runs.id = spans.agent_instance_id group by 1"
            )
            return {name.partition(":")[2]: count for name, count in rows}
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            return {}


class Seen(threading.Thread):
    """Notes when a reader sees each step of each session. Steps of a session are stored in their order."""

    def __init__(self, db: Path) -> None:
        super().__init__(daemon=True)
        self._db = db
        self._ending = threading.Event()
        self.times: dict[tuple[str, int], float] = {}

    def run(self) -> None:
        known: dict[str, int] = {}
        while not self._ending.wait(0.03):
            for session, count in counts(self._db).items():
                for step in range(known.get(session, 0), count):
                    self.times[session, step] = time.time()
                known[session] = count

    def stop(self) -> None:
        self._ending.set()
        self.join()


def written_steps(folder: Path) -> dict[str, int]:
    """Return how many whole steps the files have, by session."""
    found: dict[str, int] = {}
    for path in folder.rglob("*.toy*"):
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        found[path.name.partition(".")[0]] = text.count(b'"ask"')
    return found


def append(home: Path, name: str, steps: int, pause_s: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.sessions.appending", str(home / "toys"), name, str(steps), str(pause_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(home), cwd=ROOT)


def test_each_step_is_seen_within_two_seconds_none_is_lost_and_none_is_twice(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    (tmp_path / "toys").mkdir()
    seen = Seen(db)
    said: list[str] = []
    with watch(tmp_path) as watcher:
        until(db.exists)
        seen.start()
        third = STEPS * 2 // 5 + 1  # of one of three writers, half
        for turn in range(3):
            with append(tmp_path, f"w{turn}", third, 0.002) as writer:
                assert writer.stdout is not None
                for number, line in enumerate(writer.stdout):
                    said.append(line)
                    if turn == 1 and number == third // 2:
                        writer.kill()
        written = written_steps(tmp_path / "toys")
        until(lambda: counts(db) == written)
        time.sleep(0.2)
        seen.stop()
        assert watcher.poll() is None
    assert counts(db) == written
    late = [seen.times[session, int(step)] - float(at) for session, step, at in map(str.split, said)]
    sys.stderr.write(f"{len(late)} steps, the slowest seen after {max(late):.2f} s\n")
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1)  # for a processor, of those that could run
    assert max(late) < SEEN_S * max(1, waiting)


@pytest.mark.full
def test_a_watcher_that_is_killed_is_followed_by_one_that_goes_on(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    writer = append(tmp_path, "w", 240, 0.005)
    for _ in range(3):
        with watch(tmp_path) as watcher:
            time.sleep(0.9)
            watcher.kill()
    writer.communicate()
    with watch(tmp_path):
        until(lambda: counts(db) == written_steps(tmp_path / "toys"))


def test_two_watchers_at_once_add_nothing_twice(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    with watch(tmp_path, "toy") as one, watch(tmp_path, "toy", "-q") as other:
        append(tmp_path, "w", 200, 0.003).communicate()
        written = written_steps(tmp_path / "toys")
        until(lambda: counts(db) == written)
        time.sleep(1)
        assert counts(db) == written
        assert [each.poll() and each.communicate()[1] for each in (one, other)] == [None, None]


def test_a_line_is_printed_for_each_session_that_begins_and_grows(tmp_path: Path) -> None:
    path = toy_file(tmp_path / "toys/p", "s", turns(1))
    with watch(tmp_path) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "following 1 place; Ctrl-C ends it\n"
        assert re.fullmatch(r"\d\d:\d\d:\d\d began toy: s · 1 step · \w{32}\n", watcher.stdout.readline())
        toy_file(tmp_path / "toys/p", "t", turns(2))
        assert " began toy: t · 2 steps · " in watcher.stdout.readline()
        (tmp_path / "toys/p/u.toy").symlink_to("/proc/self/mem")
        until(lambda: counts(tmp_path / "runs.db") == {"s": 1, "t": 2})
        with path.open("a") as file:
            file.write(text_of(turns(2, 1)))
        until(lambda: counts(tmp_path / "runs.db") == {"s": 3, "t": 2})
    assert watcher.errors.count("not read: ") <= 1  # type: ignore[attr-defined]


@pytest.mark.full
def test_a_writer_that_holds_the_database_delays_steps_and_loses_none(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    toy_file(tmp_path / "toys/p", "s", turns(1))
    with watch(tmp_path):
        until(lambda: counts(db) == {"s": 1})
        with closing(sqlite3.connect(db, isolation_level=None)) as connection:
            connection.execute("begin immediate")
            with (tmp_path / "toys/p/s.toy").open("a") as file:
                file.write(text_of(turns(3, 1)))
            time.sleep(3)
            assert counts(db) == {"s": 1}
            connection.execute("rollback")
        until(lambda: counts(db) == {"s": 4}, 5)


def test_a_running_server_shows_a_session_as_it_grows(tmp_path: Path) -> None:
    pytest.importorskip("uvicorn", reason="needs uvicorn")
    db = tmp_path / "runs.db"
    toy_file(tmp_path / "toys/p", "s", turns(1))
    command = [sys.executable, "-m", "agentspan", "--db", str(db), "serve", "--port", "0", "--watch", "toy"]
    started = subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        assert "agentspan serves" in started.stdout.readline()
        until(lambda: counts(db) == {"s": 1})
        with (tmp_path / "toys/p/s.toy").open("a") as file:
            file.write(text_of(turns(2, 1)))
        until(lambda: counts(db) == {"s": 3}, SEEN_S)
        started.terminate()
        assert started.wait(5) == 0
    finally:
        if started.poll() is None:
            started.kill()
        started.communicate()


class Following:
    """A Watcher in this process, turned by hand, with a clock that the test sets."""

    def __init__(self, folder: Path, db: Path, **how: Any) -> None:
        self.database = agentspan.open(db)
        self.offset_ns = 0
        self.events: list[Event] = []
        self.faults: list[str] = []
        importer = Importer(Context(self.database.storage), {"toy": TOY}, follows=True, now=self.now)
        self.importer = importer
        self.watcher = Watcher(
            importer,
            {"toy": TOY},
            [Place(folder, "toy")],
            how.pop("choice", Choice()),
            report=self.events.append,
            complain=self.faults.append,
            stop=self.stop,
            now=self.now,
            **how,
        )
        self._ending = threading.Event()
        self.thread = threading.Thread(target=self.watcher.run)

    def now(self) -> int:
        return time.time_ns() + self.offset_ns

    def stop(self) -> bool:
        return self._ending.is_set()

    def __enter__(self) -> "Following":
        self.thread.start()
        until(lambda: self.watcher.is_following)
        return self

    def __exit__(self, *error: object) -> None:
        self._ending.set()
        self.thread.join()
        self.database.storage.close()

    def kinds(self) -> list[tuple[str, str, int]]:
        return [(event.kind, event.source.path.name.partition(".")[0], event.steps) for event in self.events]


BY = pytest.mark.parametrize("inotify", [True, pytest.param(False, marks=pytest.mark.full)], ids=["inotify", "polling"])


@BY
def test_a_session_begins_grows_and_ends(tmp_path: Path, inotify: bool) -> None:
    folder = tmp_path / "toys"
    with Following(folder, tmp_path / "a.db", inotify=inotify) as following:
        at = int(time.time())
        path = toy_file(folder / "p", "s", turns(1, at=at))
        until(lambda: following.kinds() == [("began", "s", 1)])
        with path.open("a") as file:
            file.write(text_of(turns(2, 1, at=at)))
        until(lambda: following.kinds()[1:] == [("grew", "s", 2)])
        following.offset_ns = 301 * 10**9
        until(lambda: following.kinds()[2:] == [("ended", "s", 0)])
        assert following.faults == []
    assert json.loads(call(tmp_path / "a.db", "runs", "--json").output)["runs"][0]["status"] == "complete"


def test_a_folder_is_watched_by_a_program_with_many_open_files(tmp_path: Path) -> None:
    with many_open():
        watched = Inotify()
        assert watched.watch(tmp_path)
        (tmp_path / "s.toy").touch()
        assert watched.wait(30).files == {tmp_path / "s.toy"}
        watched.close()


@BY
def test_a_new_folder_below_a_new_folder_is_followed(tmp_path: Path, inotify: bool) -> None:
    folder = tmp_path / "toys"
    folder.mkdir()
    with Following(folder, tmp_path / "a.db", inotify=inotify) as following:
        toy_file(folder / "x/y/z", "s", turns(1))
        until(lambda: following.kinds() == [("began", "s", 1)])
        toy_file(folder / "x/y/z", "t", turns(2))
        until(lambda: following.kinds()[1:] == [("began", "t", 2)])


@BY
def test_a_missing_place_is_followed_when_it_is_made(tmp_path: Path, inotify: bool) -> None:
    with Following(tmp_path / "toys", tmp_path / "a.db", inotify=inotify) as following:
        toy_file(tmp_path / "toys", "s", turns(1))
        until(lambda: following.kinds() == [("began", "s", 1)])


@BY
@pytest.mark.parametrize("moved", ["toys", "toys/p"])
def test_a_folder_that_was_moved_away_and_made_anew_is_followed(tmp_path: Path, inotify: bool, moved: str) -> None:
    folder = tmp_path / "toys"
    toy_file(folder / "p/q", "s", turns(1))
    with Following(folder, tmp_path / "a.db", inotify=inotify) as following:
        (tmp_path / moved).rename(tmp_path / "away")
        toy_file(folder / "p/q", "t", turns(1))
        until(lambda: following.kinds()[1:] == [("began", "t", 1)])
        toy_file(folder / "p/q", "t", turns(2))
        until(lambda: following.kinds()[2:] == [("grew", "t", 1)])


def test_a_file_that_comes_at_the_very_time_of_the_look_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "toys"

    def look_early(*args: Any) -> list[Any]:
        found, before = [*sources_at(*args)], folder.stat()
        if not (folder / "s.toy").exists():
            toy_file(folder, "s", turns(1))
            os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))  # as within one tick of the system's clock
        return found

    folder.mkdir()
    monkeypatch.setattr("agentspan.sessions.watching.sources_at", look_early)
    with Following(folder, tmp_path / "a.db", inotify=False) as following:
        until(lambda: following.kinds() == [("began", "s", 1)])


def test_a_folder_that_comes_while_folders_are_listed_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, watch = tmp_path / "toys", Inotify.watch
    toy_file(folder / "p", "s", turns(1))

    def watch_late(self: Inotify, path: Path) -> bool:
        (folder / "p/q").mkdir(exist_ok=True)
        return watch(self, path)

    monkeypatch.setattr(Inotify, "watch", watch_late)
    with Following(folder, tmp_path / "a.db", inotify=True) as following:
        toy_file(folder / "p/q", "t", turns(1))
        until(lambda: following.kinds()[1:] == [("began", "t", 1)])


@BY
def test_a_file_that_becomes_a_folder_and_a_file_again_stops_nothing(tmp_path: Path, inotify: bool) -> None:
    folder = tmp_path / "toys"
    with Following(folder, tmp_path / "a.db", inotify=inotify) as following:
        path = toy_file(folder, "s", turns(1))
        until(lambda: following.kinds() == [("began", "s", 1)])
        path.unlink()
        path.mkdir()
        toy_file(folder, "t", turns(1))
        until(lambda: following.kinds()[1:] == [("began", "t", 1)])
        path.rmdir()
        toy_file(folder, "s", turns(3))
        until(lambda: following.kinds()[2:] == [("grew", "s", 2)])
        assert following.faults == []


def test_lost_events_are_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "toys"
    folder.mkdir()
    with Following(folder, tmp_path / "a.db") as following:
        inotify = following.watcher._inotify
        if inotify is None:
            pytest.skip("the system has no inotify")
        real: Callable[..., Any] = inotify.wait
        monkeypatch.setattr(inotify, "wait", lambda seconds: Changes(frozenset(), real(seconds) != ()))
        toy_file(folder, "s", turns(1))
        until(lambda: following.kinds() == [("began", "s", 1)])


def test_a_file_that_was_elsewhere_when_all_were_looked_at_is_followed_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "toys"
    (folder / "moved").mkdir(parents=True)
    with Following(folder, tmp_path / "a.db") as following:
        inotify = following.watcher._inotify
        if inotify is None:
            pytest.skip("the system has no inotify")
        reported: list[Path] = []

        def wait(seconds: float) -> Changes:
            time.sleep(min(seconds, 0.05))
            return Changes(frozenset(reported.pop() for _ in range(len(reported))), False)

        monkeypatch.setattr(inotify, "wait", wait)
        path = toy_file(folder / "back", "s", turns(1))
        reported.append(folder / "moved" / "s.toy")  # where it was a moment ago
        until(lambda: following.kinds() == [("began", "s", 1)])
        path = path.rename(folder / "moved" / "s.toy")
        path.write_text(text_of(turns(2)))
        reported.append(path)
        until(lambda: following.kinds() == [("began", "s", 1), ("grew", "s", 1)], 10)


def test_an_excluded_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "toys"
    folder.mkdir()
    with Following(folder, tmp_path / "a.db", choice=Choice(excluded=("secret",))) as following:
        toy_file(folder, "s", turns(1, cwd="/work/secret"))
        toy_file(folder, "t", turns(1, cwd="/work/shop"))
        until(lambda: following.kinds() == [("began", "t", 1)])
        time.sleep(0.8)
        assert following.kinds() == [("began", "t", 1)]


def test_a_session_whose_folder_is_not_known_yet_is_followed_when_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "toys"
    folder.mkdir()
    with Following(folder, tmp_path / "a.db", choice=Choice(excluded=("secret",))) as following:
        path = toy_file(folder, "s", turns(1))
        time.sleep(0.8)
        assert following.kinds() == []
        for line in turns(1, 1, cwd="/work/shop"):
            with path.open("a") as file:
                file.write(text_of([line]))
        until(lambda: following.kinds() == [("began", "s", 2)])


def test_a_sub_agent_that_comes_before_its_session_waits_for_it(tmp_path: Path) -> None:
    folder = tmp_path / "toys"
    folder.mkdir()
    with Following(folder, tmp_path / "a.db") as following:
        toy_file(folder, "child", turns(1, parent="s"))
        time.sleep(0.8)
        assert following.kinds() == []
        toy_file(folder, "s", turns(1))
        until(lambda: len(following.events) == 2)
    assert counts(tmp_path / "a.db") == {"s": 3}  # two steps, and the sub-agent's own


@pytest.mark.full
def test_the_limit_of_watches_is_made_up_for_by_polling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentspan.sessions.inotify.Inotify.watch", lambda self, folder: False)
    folder = tmp_path / "toys"
    folder.mkdir()
    with Following(folder, tmp_path / "a.db") as following:
        toy_file(folder, "s", turns(1))
        until(lambda: following.kinds() == [("began", "s", 1)], 5)


def test_the_environment_of_watchers_is_their_own(tmp_path: Path) -> None:
    assert environment(tmp_path)["HOME"] == str(tmp_path)
    assert os.environ["HOME"] != str(tmp_path)
