"""The migration of `finished_spans` to partitions (see partitions). The table that is there becomes the first one.

No row of it is copied: it needs a constraint that no id is beyond its range, which is checked while others write, and
is attached then in an instant. Its range ends after the next two weeks or so, so that whatever is written meanwhile
lies in it. A few ids that are beyond, of clocks that are wrong, are moved; then the check is made under a lock.
"""

from datetime import UTC, datetime

from agentspan.storage.postgres.connection import Connection
from agentspan.storage.postgres.lending import rows_of
from agentspan.storage.postgres.partition_ranges import DEFAULT_WIDTH, Range, bound_at, following, name_of
from agentspan.storage.postgres.partitions import DEFAULT, TABLE, make_ahead

CONSTRAINT = f"{TABLE}_end"
_IS_PLAIN = f"select relkind = 'r' from pg_class where oid = to_regclass('{TABLE}')"
_NOW = "select extract(epoch from now())::float8"
_CHECK = f"""
select convalidated, substring(pg_get_constraintdef(oid) from '''([0-9a-z]+)''') from pg_constraint
where conrelid = '{TABLE}'::regclass and conname = '{CONSTRAINT}'
"""
_BEYOND = f"select 1 from {TABLE} where agent_instance_id >= %s limit 1"
_INDEXES = f"""
select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = '{TABLE}'::regclass
"""
_ORIGIN = """(
    select attrelid::oid || ':' || xmin from pg_attribute where attrelid = '{}'::regclass and attnum = 1
)"""


def constrain(connection: Connection) -> None:
    """Check that no span is beyond the first range, while others write. Interrupted, it goes on where it ended."""
    found = rows_of(connection, _IS_PLAIN)
    if not found or not found[0][0]:
        return
    constraint = rows_of(connection, _CHECK)
    if not constraint:
        end = _end(connection)
        if rows_of(connection, _BEYOND, (end,)):
            return
        # Ids of the time beyond its end are refused while this is under way, and tried again (23514).
        check = f"check (agent_instance_id < '{end}') not valid"
        connection.execute(f"alter table {TABLE} add constraint {CONSTRAINT} {check}")
    if not constraint or not constraint[0][0]:
        connection.execute(f"alter table {TABLE} validate constraint {CONSTRAINT}")


def partition(connection: Connection) -> None:
    """Replace the table by one that has it as its first partition, in the transaction that is under way."""
    connection.execute(f"lock table {TABLE} in access exclusive mode")
    constraint = rows_of(connection, _CHECK)
    end = constraint[0][1] if constraint else _end(connection)
    is_empty = not rows_of(connection, f"select 1 from {TABLE} limit 1")
    name = name_of(TABLE, Range(None, end))
    for (index,) in rows_of(connection, _INDEXES):
        connection.execute(f"alter index {index} rename to {index.replace(TABLE, name, 1)}")
    connection.execute(f"alter table {TABLE} rename to {name}")
    like = f"(like {name} including all excluding constraints)"
    connection.execute(f"create table {TABLE} {like} partition by range (agent_instance_id)")
    # The same spans, in a table with another number: what the index has of them stays.
    connection.execute(f"update index_state set origin = {_ORIGIN.format(TABLE)} where origin = {_ORIGIN.format(name)}")
    connection.execute(f"create table {DEFAULT} partition of {TABLE} default")
    if is_empty:
        connection.execute(f"drop table {name}")
    else:
        connection.execute(
            f"with gone as (delete from {name} where agent_instance_id >= '{end}' returning *) "
            f"insert into {DEFAULT} select * from gone"
        )
        connection.execute(f"alter table {TABLE} attach partition {name} for values from (minvalue) to ('{end}')")
        connection.execute(f"alter table {name} drop constraint if exists {CONSTRAINT}")
    make_ahead(connection)


def _end(connection: Connection) -> str:
    now = datetime.fromtimestamp(rows_of(connection, _NOW)[0][0], UTC)
    return bound_at(following(following(now, DEFAULT_WIDTH), DEFAULT_WIDTH))
