"""Former names of commands: each goes on working, as the call that has taken its place."""

import shutil
from pathlib import Path

import pytest

import agentspan
from agentspan.cli.app import WAYS, called, meant
from agentspan.cli.group import with_command
from tests.cli.calling import NAMES, call, named

SAME = [
    ("overview --since 7d", "--since 7d"),
    ("overview --json --outcome x==1", "--outcome x==1 --json"),
    ("overview --foo", "--foo"),
    ("init --json", "doctor --init --json"),
    ("init new.db", "doctor --init new.db"),
    ("rederive - --prices", "doctor --rederive - --prices"),
    ("rederive --json", "doctor --json --rederive"),
    ("rederive no", "doctor --rederive=no"),
    ("completion zsh", "setup zsh"),
    ("completion bash --yes", "setup bash --yes"),
    ("skill", "setup --print-skill"),
    ("skill instrument", "setup --print-skill instrument"),
    ("skill no", "setup --print-skill=no"),
    ("session talk --outcome status", "show --session talk --outcome status"),
    ("session talk --json", "show --json --session=talk"),
    ("session talk --session talk", "show --session talk --session talk"),
    ("session", "show --session"),
    ("tail - --one --all", "show - --follow --one --all"),
    ("tail --one - --json", "show --follow=- --one --json"),
    ("tail no", "show --follow no"),
    ("allow - --steps +2", "run allow - --steps +2"),
    ("allow", "run allow"),
    ("terminate - --reason enough", "run terminate - --reason enough"),
    ("sessions claude --json", "import claude --list --json"),
    ("sessions --since 7d", "import --since 7d --list"),
    ("sessions nothing", "import --list nothing"),
    ("backup copy.db", "copy --backup copy.db"),
    ("backup copy.db --json", "copy --json --backup=copy.db"),
    ("backup", "copy --backup"),
]
"""Calls with a former name, and the calls that mean the same."""


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """A file with a run that has ended, in a session, and one that goes on."""
    (tmp_path / "old").mkdir()
    tracer = agentspan.Tracer(tmp_path / "old" / "runs.db", raise_errors=True)
    with tracer.run("a", session="talk"), tracer.span("tool", {"name": "t"}):
        pass
    tracer.shutdown()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    return tmp_path / "old" / "runs.db"


@pytest.mark.parametrize(("old", "new"), SAME, ids=[old for old, _ in SAME])
def test_a_former_name_is_the_call_that_took_its_place(
    db: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    monkeypatch.setenv("HOME", str(db.parent))
    told = []
    for folder, words in (("old", old), ("new", new)):
        monkeypatch.chdir(db.parents[1] / folder)
        done = call(Path(db.name), *words.split())
        told.append((done.exit_code, done.stdout, done.stderr))
    assert told[0] == told[1]
    assert meant(old.split())[0] == meant(with_command(new.split()))[0] == old.split()[0]


def test_each_former_name_is_in_this_list_and_in_no_help() -> None:
    assert {old.split()[0] for old, _ in SAME} == set(WAYS)
    assert not set(WAYS) & set(NAMES)
    for old in WAYS:
        assert named(old).name == old
        assert called(old).partition(" ")[0] in ("", *NAMES)


def test_at_most_25_commands_are_in_the_help() -> None:
    assert len(NAMES) <= 25


def test_the_completion_of_a_shell_takes_no_options_of_setup(db: Path) -> None:
    assert call(db, "setup", "--yes", "bash").exit_code == 2


def test_words_after_two_dashes_are_no_options_of_ways(db: Path) -> None:
    assert "has an id like '--follow'" in call(db, "show", "--", "--follow").output


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("show --follow - --session talk", "--follow and --session exclude each other: call show with one of them"),
        ("show --session=talk --follow", "--follow and --session exclude each other: call show with one of them"),
        ("doctor --init --rederive", "--init and --rederive exclude each other: call doctor with one of them"),
    ],
)
def test_a_call_of_two_ways_says_that_they_exclude_each_other(db: Path, words: str, error: str) -> None:
    done = call(db, *words.split())
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, f"Error: {error}")
