"""Searches of rare, common and scattered words in PostgreSQL's index: found in other ways, with the same hits."""

from collections.abc import Iterator
from typing import Any

import pytest

from agentspan.analysis.search import search
from agentspan.model.changes import Put, PutSpans, Unit
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Select
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import Rows
from agentspan.tuning import STANDARD, Tuning
from tests.storage.plain import Plain
from tests.tuned import tuned

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

from agentspan.storage.postgres.connection import Connection  # noqa: E402  # needs psycopg

pytestmark = pytest.mark.full

SPANS = 120


@pytest.fixture
def storage(postgres_location: Location, tuning: Tuning) -> Iterator[Storage]:
    """Spans of two runs, all in the index: `old` in the first 20, `seldom` in one, the others in one of a few."""
    tuning = tuning._replace(postgres_words_late_spans=0)
    made, rows = open_direct(postgres_location, tuning=tuning), Rows()
    version, schema, run = rows.family(agent := rows.agent())
    other = run._replace(id=rows.ids.new())
    made.apply([Unit((Put(row),)) for row in (agent, version, schema, run, other)])
    spans = []
    for number in range(SPANS):
        words = ["common", "old" if number < 20 else "new", "two" if number % 2 else "three", "words", f"n{number}"]
        words += ["seldom"] * (number == 7)
        spans.append(
            rows.span((run, other)[number % 3 == 0], status="complete", payload=f'{{"a":"{" ".join(words)}"}}')
        )
    made.apply([Unit((PutSpans(spans),))])
    assert search(made, "common").total == SPANS
    yield made
    made.close()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    statements: list[str] = []
    execute: Any = Connection.execute

    def noted(self: Any, query: Any, *args: Any, **how: Any) -> Any:
        statements.append(str(query))
        return execute(self, query, *args, **how)

    monkeypatch.setattr(Connection, "execute", noted)
    return statements


@pytest.mark.parametrize(
    "tuning",
    [
        STANDARD._replace(postgres_rare_word_spans=few, postgres_sorted_ids=ids)
        for few, ids in [(1000, 0), (0, 1000), (0, 0)]
    ],
    ids=["few", "scattered", "many"],
)
def test_hits_are_those_of_reading_row_by_row(storage: Storage) -> None:
    plain: Any = Plain(storage)
    run = search(storage, "seldom").hits[0].run_id
    for words in ("common", "old", "seldom", '"two words"', '"new two words"', "ol*", "common old", "none", "n11*"):
        for limit, offset in ((5, 0), (5, 118), (200, 0), (0, 0)):
            asked: dict[str, Any] = {"limit": limit, "offset": offset}
            assert search(storage, words, **asked) == search(plain, words, **asked), (words, asked)
        assert search(storage, words, runs=[run]) == search(plain, words, runs=[run])


@tuned(postgres_rare_word_spans=0)
def test_the_latest_of_a_common_word_are_not_looked_for_among_all(storage: Storage, read: list[str]) -> None:
    assert search(storage, "common", limit=5).total == SPANS
    found = [sql for sql in read if "@@" in sql and not sql.startswith("explain") and "depth > 0" not in sql]
    assert len(found) == 2
    assert "limit %s) s" in found[0]
    assert found[1].startswith("select count(*)")


def test_a_rare_word_is_looked_for_once(storage: Storage, read: list[str]) -> None:
    assert search(storage, "seldom").total == 1
    assert len([sql for sql in read if "@@" in sql and not sql.startswith("explain") and "depth > 0" not in sql]) == 1


@tuned(postgres_rare_word_spans=0)
def test_a_search_leaves_no_setting_behind(storage: Storage) -> None:
    search(storage, "common")
    assert storage.ask(Select("select current_setting('enable_bitmapscan')")).rows == [("on",)]
