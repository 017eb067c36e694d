"""Distributes the finished spans over the workers of a Citus cluster, by run; all else stays on the coordinator.

Finished spans are nearly all that is stored, and are only appended to. The other tables are small. The guards of a
change read several of them under locks, in one statement. Citus allows that only if all their rows are in one shard,
and a key, a name and a run are not. So the other tables stay ordinary tables. A run's spans lie on one worker; a commit
that stores finished spans is a two-phase commit.
"""

from agentspan.errors import DatabaseUnusable
from agentspan.storage.location import Location
from agentspan.storage.postgres.connection import Connection, rows_of
from agentspan.storage.postgres.connections import DRIVER_ERRORS, Connections, translated

LONGEST_S = 86_400
"""The most seconds that distributing already stored spans may take."""
_HAS_CITUS = "select exists (select 1 from pg_extension where extname = 'citus')"
_IS_DISTRIBUTED = "select exists (select 1 from pg_dist_partition where logicalrelid = to_regclass('finished_spans'))"
_DISTRIBUTE = "select create_distributed_table('finished_spans', 'agent_instance_id', shard_count => %s)"
_WORKERS = "select count(*) from pg_dist_node where noderole = 'primary' and shouldhaveshards and isactive"


def is_distributed(connections: Connections) -> bool:
    """Return whether the finished spans are on several servers."""
    with connections.reading() as connection:
        return _is_distributed(connection)


def distribute(location: Location, shards: int) -> bool:
    """Distribute the finished spans over the workers; return whether they were not distributed before.

    Already stored spans are moved. Citus blocks writers meanwhile.

    Raises:
        DatabaseUnusable: the database has no extension `citus`, or the cluster has no workers.
    """
    connections = Connections(location, read_only=False, wait_s=10.0)
    try:
        with connections.lent(10.0) as connection:
            if not rows_of(connection, _HAS_CITUS)[0][0]:
                raise DatabaseUnusable(f"{location} has no extension citus; install it, and create it in the database")
            if _is_distributed(connection):
                return False
            if not rows_of(connection, _WORKERS)[0][0]:
                raise DatabaseUnusable(f"{location} has no workers; add them by citus_add_node")
            connection.execute("set statement_timeout = 0")
            connection.answer_s = LONGEST_S
            connection.execute(_DISTRIBUTE, (shards,))
            return True
    except DRIVER_ERRORS as error:
        raise translated(error, location) from error
    finally:
        connections.close()


def _is_distributed(connection: Connection) -> bool:
    return bool(rows_of(connection, _HAS_CITUS)[0][0]) and bool(rows_of(connection, _IS_DISTRIBUTED)[0][0])
