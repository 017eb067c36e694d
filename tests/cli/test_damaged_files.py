"""Every command on a file that is damaged: an answer, or one sentence that says so and what to do; no traceback."""

import random
import sys
from pathlib import Path
from types import FrameType

import pytest

import agentspan
from agentspan.storage.questions import Damage, Query, SpansOf
from agentspan.storage.sqlite import SQLiteStorage
from tests.cli.calling import call
from tests.tiers import longer

FILES = longer("AGENTSPAN_TEST_DAMAGED_FILES", 2, 4, 200)
"""How many damaged files there are; hundreds take minutes."""
PAGE = 4096
SECRET = "long"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "runs.db"
    tracer = agentspan.Tracer(path)
    for number in range(4):
        with tracer.run(f"agent {number % 2}", metadata={"number": number}):
            for step in range(20):
                with tracer.span(
                    "llm", {"model": "m", "messages": [{"role": "user", "content": "é word " * 30}]}
                ) as span:
                    span.set_result({"content": f"{SECRET} " * (2000 if step % 10 == 0 else 1)})
                    with tracer.span("tool", {"name": "x"}):
                        pass
    tracer.shutdown()
    return path


def damage(data: bytes, chance: random.Random) -> bytes:
    """Damage a few pages: zeros, noise, single bits, the end cut off."""
    damaged = bytearray(data)
    kind = chance.choice(["zeros", "noise", "bits", "texts", "cut"])
    for _ in range(chance.choice([1, 1, 2, 5])):
        start = chance.randrange(1, len(damaged) // PAGE) * PAGE
        if kind == "zeros":
            damaged[start : start + PAGE] = bytes(PAGE)
        elif kind == "noise":
            damaged[start : start + PAGE] = chance.randbytes(PAGE)
        elif kind == "cut":
            return bytes(damaged[: start + chance.randrange(PAGE)])
        else:
            first = 0 if kind == "bits" else 300
            for _ in range(20):
                damaged[start + chance.randrange(first, PAGE)] ^= 1 << chance.randrange(8)
    return bytes(damaged)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(FILES))
def test_a_damaged_file_is_answered_from_or_named(recorded: Path, tmp_path: Path, seed: int) -> None:
    storage = SQLiteStorage(recorded, read_only=True)
    run = storage.ask(Query("agent_instance")).rows[0].id
    span = next(storage.ask(SpansOf(run))).id
    storage.close()
    data = damage(recorded.read_bytes(), random.Random(seed))
    commands = [
        *("runs", "runs --grep number", "runs --json", "show -", f"show {run} --payloads", "show - --json"),
        *(f"show {span}", f"show {span} --around", "stats", f"stats {run}", "search word", "doctor --schemas"),
        *(f"tail {run} --one", "export all", "doctor --tables"),
        *("export all --format markdown", "backup OUT", "doctor --dry-run", "doctor", "rederive"),
        *("prune --older-than 1s --dry-run", "prune --older-than 1s"),
    ]
    for number, command in enumerate([*commands, ["sql", "select * from runs"], ["sql", "select * from spans"]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "runs.db"
        path.write_bytes(data)
        words = command.split() if isinstance(command, str) else command
        done = call(path, *(str(folder / "out") if word == "OUT" else word for word in words))
        assert done.exit_code in (0, 1), command
        if done.exit_code == 1:
            assert "is damaged" in done.output, command
            said = done.output.splitlines()[-1] if "doctor" not in command else ""
            assert SECRET not in said, command


def test_a_text_that_is_none_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        span = db.agent_spans.create(run.id, "tool", "active", {"name": "my secret name"})
        db.agent_spans.finish(span.id, "complete")
        db.agent_instances.start(run.id)
        db.agent_instances.finish(run.id, "complete")  # else the doctor reads its spans
    data = path.read_bytes()
    assert data.count(b"my secret name") == 3  # the payload, the summary, the label
    path.write_bytes(data.replace(b"my secret name", b"my secret \xff\xffme"))
    done = call(path, "show", "-")
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        f"Error: {path} is damaged (a text in it is not UTF-8); `sqlite3 {path} .recover` can save its rows"
    ]
    done = call(path, "doctor")
    assert "1 row of agent_spans cannot be read" in done.output
    assert done.exit_code == 1


def test_a_backup_of_a_damaged_file_is_made_and_fails(recorded: Path, tmp_path: Path) -> None:
    data, path = recorded.read_bytes(), tmp_path / "runs.db"
    path.write_bytes(data.replace(SECRET.encode(), b"lo\xffg"))
    for name, options in (("copy.db", ()), ("other.db", ("--json",))):
        done = call(path, "backup", str(tmp_path / name), *options)
        assert done.exit_code == 1
        assert "cannot be read" in done.output
        assert (tmp_path / name).stat().st_size == len(data)
    assert call(recorded, "backup", str(tmp_path / "sound.db")).exit_code == 0


class Alarm(Exception):
    """What a signal's handler raises."""


def test_a_check_that_is_interrupted_does_not_call_a_sound_file_damaged(recorded: Path) -> None:
    """The exception comes at the beginning of a function of Python, as those of handlers do."""

    def ring(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == "_is_text":
            raise Alarm

    storage = SQLiteStorage(recorded, read_only=True)
    before = sys.getprofile()
    sys.setprofile(ring)
    try:
        with pytest.raises(Alarm):
            storage.ask(Damage())
    finally:
        sys.setprofile(before)
        storage.close()


def test_a_mistake_of_ours_is_not_called_damage(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **how: object) -> None:
        raise KeyError("ours")

    monkeypatch.setattr("agentspan.cli.runs.find_runs", fail)
    with pytest.raises(KeyError, match="ours"):
        call(recorded, "runs")
