"""Runs are compared by a part of their fingerprint: its newest value with the one before. Unknown is no change."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import agentspan
from agentspan.analysis.fingerprints import PartChange, changed_part, id_of, sentences
from agentspan.database import Database
from agentspan.errors import InvalidValue
from tests.cli.calling import call
from tests.sessions.steps import START, Told, arrive, runs_of

DAY = 10**13


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with agentspan.open(tmp_path / "a.db") as opened:
        yield opened


def store(database: Database, *all_parts: dict[str, str], folder: str = "/work/shop", first: int = 0) -> None:
    """Store one run for each fingerprint, one day after the other."""
    for number, parts in enumerate(all_parts, start=first):
        told = Told(
            f"s{number}", started_ns=START + number * DAY, fingerprint=parts, metadata={"cwd": folder},
            outcome="answered",
        )  # fmt: skip
        told.ask("go")
        arrive(database, told)


def change(database: Database, part: str) -> PartChange:
    return changed_part(runs_of(database), part)


def test_the_newest_value_is_compared_with_the_one_before(database: Database) -> None:
    store(database, *({"model": model} for model in ("a", "b", "b", "c", "b", "c")))
    found = change(database, "model")
    assert (found.before, found.newest) == ("b", "c")
    assert (len(found.base), len(found.head), found.unknown) == (3, 2, 0)


def test_what_is_unknown_is_no_change(database: Database) -> None:
    store(database, {"instructions": "1"}, {"model": "m"}, {"instructions": "2"}, {"model": "m"})
    found = change(database, "instructions")
    assert (found.before, found.newest, found.unknown) == ("1", "2", 2)
    assert (len(found.base), len(found.head)) == (1, 1)


def test_a_missing_part_does_not_change_the_whole_fingerprint(database: Database) -> None:
    store(database, {"model": "m", "skills": "s"}, {"model": "m"}, {"model": "n"}, {"model": "n", "skills": "s"})
    found = change(database, "fingerprint")
    assert (len(found.base), len(found.head)) == (2, 2)
    assert found.newest == id_of({"model": "n", "skills": "s"})
    assert [each.part for each in found.others] == ["model"]


def test_the_whole_fingerprint_is_the_stored_id_where_all_parts_are_known(database: Database) -> None:
    store(database, {"model": "m"}, {"model": "n"})
    metadata = [run.metadata or "" for run in runs_of(database)]
    found = change(database, "fingerprint")
    assert f'"{found.before}"' in metadata[0]
    assert f'"{found.newest}"' in metadata[1]


def test_parts_that_changed_at_the_same_time_are_named(database: Database) -> None:
    store(database, {"model": "a", "skills": "1"}, {"model": "b", "skills": "2"})
    found = change(database, "skill")
    assert found.part == "skills"
    assert found.others == (("model", "a", "b"),)
    assert "model (a → b)" in sentences(found)[1]


def test_other_instructions_of_another_project_are_no_change(database: Database) -> None:
    store(database, {"instructions": "1"}, {"instructions": "2"}, folder="/work/shop")
    store(database, {"instructions": "7"}, folder="/work/blog", first=2)
    found = change(database, "instructions")
    assert (found.before, found.newest, found.folder) == ("1", "2", "/work/shop")
    store(database, {"model": "a"}, folder="/work/blog", first=3)
    store(database, {"model": "b"}, folder="/work/shop", first=4)
    assert change(database, "model").folder is None


def test_instructions_of_other_folders_did_not_change_with_the_model(database: Database) -> None:
    for number, (folder, model) in enumerate((("/a", "m"), ("/b", "n"), ("/b", "n"))):
        store(database, {"model": model, "instructions": folder}, folder=folder, first=number)
    assert change(database, "model").others == ()
    store(database, {"model": "n", "instructions": "new"}, folder="/a", first=3)
    assert [each.part for each in change(database, "model").others] == ["instructions"]


def test_without_a_change_there_is_nothing_to_compare(database: Database) -> None:
    store(database, {"model": "a"}, {"model": "a"})
    with pytest.raises(InvalidValue, match="model has not changed: it is a in 2 runs"):
        change(database, "model")
    with pytest.raises(InvalidValue, match="there are fingerprint, model"):
        change(database, "skills")


def test_diff_and_check_compare_by_a_part(tmp_path: Path) -> None:
    with agentspan.open(tmp_path / "a.db") as database:
        store(database, *({"model": "a"} for _ in range(5)), *({"model": "b", "skills": "1"} for _ in range(4)))
    printed = call(tmp_path / "a.db", "diff", "--by", "model")
    assert printed.exit_code == 0
    assert "model=b (4 runs since " in printed.output
    assert "no evidence of a difference" in printed.output
    checked = call(tmp_path / "a.db", "check", "--by", "model")
    assert checked.exit_code == 3
    assert "model=b (4 runs since" in " ".join(checked.output.split())
