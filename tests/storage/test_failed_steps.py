"""The condition for a failed step in SQL is that of `schemas.failing`, and all lists and sums count the same steps."""

import random
from pathlib import Path

import pytest

import agentspan
from agentspan.analysis.runs import find_runs, stats
from agentspan.analysis.tree import sums
from agentspan.database import Database
from agentspan.model.changes import SPAN_STATUSES, Put, Unit
from agentspan.schemas.failing import failed
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Counts, Outlines, RunFilter, RunSums, Select, SpansOf
from agentspan.testing.contract.base import Rows
from agentspan.viewer.data import columns

NAMES = ('"is_error"', '"is\\u005ferror"', '"\\u0069s_err\\u006fr"', '"IS_ERROR"', '"is_error "', '"is_error\\u0000"')
VALUES = ("true", "false", "null", '"true"', "1", "[true]", '{"is_error":true}', "True", "tru", "")
OTHERS = (
    '"output":{"is_error":true}', '"output":"\\"is_error\\":true"',
    f'"n":{"9" * 40}', f'"n":-{"1" * 5000}', '"n":1e400',
    '"text":"\\u0000 \\ud800 \\ud83d\\ude00"', '"n":NaN', '"":{}',
    '"content":[{"is_error":true}]', '"a":"\\\\u005f"', "",
)  # fmt: skip


def results(seed: int, number: int) -> list[str]:
    """Texts of results: names, values, spaces, other members and their order are drawn. Some are no JSON."""
    chance = random.Random(seed)
    found = []
    for _ in range(number):
        members = chance.sample(OTHERS, chance.choice((0, 1, 1, 2)))
        for _ in range(chance.choice((0, 1, 1, 1, 2))):
            space = chance.choice(("", "", " ", "\n\t"))
            name = chance.choice((NAMES[0], NAMES[0], *NAMES))
            members.insert(chance.randint(0, len(members)), f"{name}{space}:{space}{chance.choice(VALUES)}")
            if chance.random() < 0.5:
                members[-1] = '"is_error":true'
        text = "{" + chance.choice((",", " , ")).join(filter(None, members)) + "}"
        found.append(chance.choice((text,) * 12 + (f" {text}\n", f"[{text}]", text[:-1], "null")))
    return found


def spans_with(storage: Storage, texts: list[str]) -> tuple[str, dict[str, bool]]:
    """Store a span of each text; return their run, and by id whether the function says that the span failed."""
    rows, chance = Rows(), random.Random(7)
    agent = rows.agent("a")
    version, schema, run = rows.family(agent)
    storage.apply([Unit((Put(row),)) for row in (agent, version, schema, run)])
    expected = {}
    for text in texts:
        status = chance.choice(("complete", "complete", "complete", *SPAN_STATUSES))
        span = rows.span(run)._replace(status=status, result_payload=text, summary="s")
        storage.apply([Unit((Put(span),))])
        expected[span.id] = failed(status, text)
    return run.id, expected


def test_sql_finds_the_steps_that_the_function_finds(storage: Storage) -> None:
    run, expected = spans_with(storage, results(1, 200))
    number = sum(expected.values())
    assert 40 < number < 160, "both answers are tried"
    assert {span.id for span in storage.ask(Outlines(run)) if span.result_payload is not None} >= {
        id for id, is_failed in expected.items() if is_failed
    }
    (listed,) = find_runs(storage).runs
    assert listed.failed == number
    assert find_runs(storage).totals.failed == number
    assert sum(each.failed for each in storage.ask(RunSums([run]))) == number
    assert sum(stat.failed for stat in stats(storage) if stat.label is None) == number
    if Select in storage.capabilities().answers:
        assert storage.ask(Select("select failed_spans from runs")).rows == [(number,)]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(2, 12))
def test_sql_finds_the_steps_that_the_function_finds_in_many_more(storage: Storage, seed: int) -> None:
    _, expected = spans_with(storage, results(seed, 200))
    (listed,) = find_runs(storage).runs
    assert listed.failed == sum(expected.values())


def recorded(db: Database) -> str:
    """A run that goes on after a tool's error: one step failed, and the run passed."""
    run = db.agent_instances.register("a")
    db.agent_instances.start(run.id)
    db.agent_spans.create(run.id, "tool", "complete", {"name": "book"}, {"output": "no seat " * 400, "is_error": True})
    db.agent_spans.create(run.id, "tool", "complete", {"name": "book"}, {"output": "booked"})
    db.agent_instances.finish(run.id)
    return run.id


def test_every_list_and_sum_counts_a_tool_that_returned_an_error(db: Database) -> None:
    run = recorded(db)
    (listed,) = db.runs(failed=True).runs
    assert (listed.run.id, listed.failed, listed.run.status) == (run, 1, "complete")
    assert find_runs(db.storage, RunFilter(error="no seat no seat")).total == 1
    assert sums(db.storage.ask(SpansOf(run))).failed == 1
    assert db.storage.ask(Counts([run]))[run].failed == 0, "span_counts of the API counts by status"
    page = columns(db.storage, listed.run)
    assert page["columns"]["failure"] == [0, None]
    assert page["errors"][0].startswith("no seat no seat")
    why = db.why(run)
    assert why.step is not None
    assert why.step.error.startswith("no seat no seat")
    assert why.failed == 1


def test_a_file_of_before_counts_the_same_steps(tmp_path: Path) -> None:
    import sqlite3

    from agentspan.storage.sqlite.migrations import CURRENT, MIGRATIONS, migrate

    path = tmp_path / "runs.db"
    with sqlite3.connect(path) as connection:
        migrate(connection, 0, MIGRATIONS[:-1], {"runs": "select 0 as failed_spans", "spans": "select 1 as one"})
    connection.close()
    with agentspan.open(path) as db:
        recorded(db)
        assert db.storage.ask(Select("select failed_spans from runs")).rows == [(1,)]
    connection = sqlite3.connect(path)
    assert connection.execute("pragma user_version").fetchone() == (CURRENT,)
    connection.close()
