"""The contract on a Citus cluster. AGENTSPAN_TEST_CITUS is the URL of its coordinator; benchmarks/citus.py starts one.

The finished spans are distributed; what has no place there is skipped: live changes have no cursor on several servers.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import agentspan
from agentspan import clock
from agentspan.model.changes import Applied, Put, Unit
from agentspan.model.rows import Row
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import DropPartitions, MakePartitions, Partitions, SpansOf
from agentspan.storage.registry import open_direct
from agentspan.testing import StorageContract
from agentspan.testing.contract.base import Rows
from tests.cli.calling import call
from tests.postgres import Emptied

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

URL = os.environ.get("AGENTSPAN_TEST_CITUS")
SCHEMA = "tests_citus"
pytestmark = pytest.mark.skipif(URL is None, reason="opt-in: AGENTSPAN_TEST_CITUS names a Citus cluster")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Emptied]:
    assert URL is not None
    schemas = Emptied(URL)
    connection = psycopg.connect(URL, autocommit=True)
    connection.execute(f"drop schema if exists {SCHEMA} cascade")
    url = f"{URL}?schema={SCHEMA}"
    done = call(Path("nowhere.db"), "init", url, "--citus", "--shards", "4", "--ahead", "1")
    assert (done.exit_code, "distributed in 4 shards" in done.stderr) == (0, True), done.output
    yield schemas
    connection.execute(f"drop schema {SCHEMA} cascade")
    connection.close()
    schemas.close()


@pytest.fixture
def storage(cluster: Emptied) -> Iterator[Storage]:
    made = open_direct(f"{URL}?schema={SCHEMA}")
    yield made
    made.close()
    cluster.empty(SCHEMA)


class TestCitus(StorageContract):
    """With finished spans on the workers."""

    def damage(self, storage: Storage) -> None:
        """See Keeping."""
        assert URL is not None
        with psycopg.connect(URL, options=f"-csearch_path={SCHEMA}") as connection:
            connection.execute("update open_spans set status = 'secret'")


def test_partitions_are_distributed_like_the_others(storage: Storage) -> None:
    assert URL is not None
    since = clock.parse(datetime.now(UTC) - timedelta(days=100))
    assert len(storage.ask(MakePartitions(since=since, width="month")).names) >= 3
    with psycopg.connect(URL, options=f"-csearch_path={SCHEMA}") as connection:
        shards = "select logicalrelid::text, count(*) from pg_dist_shard where logicalrelid::text like %s group by 1"
        found = dict(connection.execute(shards, ("finished_spans_2%",)).fetchall())
    assert len(found) == len(storage.ask(Partitions())) - 1
    assert set(found.values()) == {4}
    assert {each.rows for each in storage.ask(Partitions())} == {None, 0}
    storage.ask(DropPartitions(clock.now(), lambda writer: True, 10.0))


def test_init_distributes_once(cluster: Emptied) -> None:
    again = call(Path("nowhere.db"), "init", f"{URL}?schema={SCHEMA}", "--citus", "--ahead", "1")
    assert (again.exit_code, again.stderr) == (0, "")


def test_spans_that_are_there_are_distributed_with_their_runs(cluster: Emptied) -> None:
    url, rows = f"{URL}?schema={SCHEMA}_later", Rows()
    before = open_direct(url)
    version, schema, run = rows.family(agent := rows.agent())
    begin: list[Row] = [agent, version, schema, run]
    spans: list[Row] = [rows.span(run, status="complete") for _ in range(20)]
    assert before.apply([Unit((Put(row),)) for row in begin + spans]) == [Applied()] * 24
    before.close()
    assert call(Path("nowhere.db"), "init", url, "--citus", "--shards", "2").exit_code == 0
    with agentspan.open(url) as db:
        assert list(db.storage.ask(SpansOf(run.id))) == spans
        assert db.stats()[0].count == 20
    with psycopg.connect(cluster.url, autocommit=True) as connection:
        connection.execute(f"drop schema {SCHEMA}_later cascade")
