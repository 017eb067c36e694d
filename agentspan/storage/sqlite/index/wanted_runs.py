"""The runs that a query is restricted to, as a temporary table of the connection to the index."""

import sqlite3
from collections.abc import Collection

CREATE = "create temp table if not exists wanted (id text primary key) without rowid"
EMPTY = "delete from temp.wanted"
ADD = "insert or ignore into temp.wanted values (?)"
OF_SPAN = "s.agent_instance_id in (select id from temp.wanted)"
"""The condition for a recorded span, `s`, of one of them."""
OF_FACT = "run in (select n.run from temp.wanted w cross join main.runs n where n.id = w.id)"
"""The same for a row of `facts`."""


def restrict(connection: sqlite3.Connection, runs: Collection[str]) -> None:
    """Fill the table with these ids."""
    connection.execute(CREATE)
    connection.execute(EMPTY)
    connection.executemany(ADD, ((run,) for run in runs))
