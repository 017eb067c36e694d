"""The tables of PostgreSQL can be distributed by run: here as hash partitions, which refuse what Citus would refuse.

AGENTSPAN_TEST_POSTGRES_PARTITIONS=1 runs the whole contract on them.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from agentspan.storage.protocol import Storage
from agentspan.storage.registry import open_direct
from agentspan.testing import StorageContract
from agentspan.testing.contract.agreeing import Agreeing
from agentspan.testing.contract.keeping import Removing
from tests.postgres import Emptied

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

pytestmark = pytest.mark.full

IS_WHOLE = os.environ.get("AGENTSPAN_TEST_POSTGRES_PARTITIONS") == "1"
SCHEMA = "parted"
REFERENCES = {"accounts", "agents", "agent_versions", "agent_schema_versions", "storage_version", "index_groups"}
"""Small tables, which each node of a cluster has."""
APART = {"idempotency_keys": "key", "run_names": "agent_id", "otel_traces": "id", "otel_logs": "id"}
"""The columns by which others than the run's are distributed: what is looked up without knowing a run."""
LOCAL = {
    "writers", "refused_changes", "rewritten_runs", "index_state", "notes",
    "session_files", "session_entries", "session_summaries",
}  # fmt: skip
"""Tables of few rows, or that only the coordinator needs."""
COLUMNS = """
select c.relname, array_agg(a.attname::text) from pg_class c
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where c.relnamespace = %s::regnamespace and c.relkind in ('r', 'p') and not c.relispartition group by 1
"""
KEYS = """
select t.relname, array_agg(a.attname::text) from pg_index i
join pg_class t on t.oid = i.indrelid join pg_attribute a on a.attrelid = t.oid and a.attnum = any(i.indkey)
where i.indisunique and t.relnamespace = %s::regnamespace group by t.relname, i.indexrelid
"""


def distributed(connection: Any, schema: str) -> dict[str, str]:
    """Return the tables that are to be distributed, and by which column."""
    found = {}
    for table, columns in connection.execute(COLUMNS, (schema,)):
        if table in REFERENCES | LOCAL:
            continue
        of_run = "id" if table == "agent_instances" else "agent_instance_id"
        found[table] = APART.get(table, of_run)
        assert found[table] in columns, table
    return found


def test_each_unique_key_has_the_column_that_its_table_is_distributed_by(postgres_server: Emptied) -> None:
    location = postgres_server.new()
    open_direct(location).close()
    schema = location.text.partition("?schema=")[2]
    with psycopg.connect(postgres_server.url) as connection:
        by = distributed(connection, schema)
        assert {"finished_spans", "open_spans", "agent_instances", "scores", "index_facts"} <= set(by)
        for table, columns in connection.execute(KEYS, (schema,)):
            assert table not in by or by[table] in columns, (table, columns)
        foreign = "select 1 from pg_constraint where contype = 'f' and connamespace = %s::regnamespace"
        assert connection.execute(foreign, (schema,)).fetchone() is None


@pytest.fixture(scope="module")
def parted(postgres_server: Emptied) -> str:
    """A schema whose tables are hash partitions; its URL."""
    url = f"{postgres_server.url}?schema={SCHEMA}"
    open_direct(url).close()
    with psycopg.connect(postgres_server.url, options=f"-csearch_path={SCHEMA}", autocommit=True) as connection:
        if connection.info.server_version < 170000:
            pytest.skip("needs PostgreSQL 17 or newer")
        views = connection.execute("select viewname, definition from pg_views where schemaname = %s", (SCHEMA,))
        definitions = dict(views.fetchall())
        connection.execute("drop view runs, spans, agent_spans")
        for table, column in distributed(connection, SCHEMA).items():
            connection.execute(f"alter table {table} rename to {table}_whole")
            like = f"create table {table} (like {table}_whole including all)"  # of finished spans without their ranges
            connection.execute(f"{like} partition by hash ({column})")
            for number in range(3):
                part = f"create table {table}_{number} partition of {table}"
                connection.execute(f"{part} for values with (modulus 3, remainder {number})")
            connection.execute(f"drop table {table}_whole")
        for view in ("agent_spans", "runs", "spans"):
            connection.execute(f"create view {view} as {definitions[view]}")
    return url


class TestHashPartitions(*((StorageContract,) if IS_WHOLE else (Agreeing, Removing))):  # type: ignore[misc]
    """The tables of runs in three partitions each: these have no ranges of times."""

    test_partitions_are_made_ahead_once = None
    test_an_old_partition_is_removed_with_all_that_belongs_to_its_runs = None
    test_a_partition_with_a_run_that_may_stay_is_not_removed = None

    @pytest.fixture
    def storage(self, parted: str, postgres_server: Emptied) -> Iterator[Storage]:
        made = open_direct(parted)
        yield made
        made.close()
        postgres_server.empty(SCHEMA)

    def damage(self, storage: Storage) -> None:
        """See Keeping."""
        location = storage.capabilities().location
        assert location is not None
        with psycopg.connect(location.text.partition("?")[0], options=f"-csearch_path={SCHEMA}") as connection:
            connection.execute("update open_spans set status = 'secret'")
