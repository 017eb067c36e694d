"""The runs that a query is restricted to, as temporary tables of the connection to the index: their ids, or numbers.

The ids come as one JSON text. A statement for each of 27,586 runs takes 350 ms, a text of them all 30.
"""

import json
import sqlite3
from collections.abc import Collection

CREATE = (
    "create temp table if not exists wanted (id text primary key) without rowid",
    "create temp table if not exists wanted_numbers (run integer primary key)",
)
EMPTY = "delete from temp.wanted"
ADD = "insert or ignore into temp.wanted select value from json_each(?)"
EMPTY_NUMBERS = "delete from temp.wanted_numbers"
ADD_NUMBERS = """
insert or ignore into temp.wanted_numbers
select r.run from json_each(?) j cross join main.runs r on r.id = j.value
"""
IDS = "select r.run, r.id from temp.wanted_numbers w cross join main.runs r where r.run = w.run"
OF_SPAN = "s.agent_instance_id in (select id from temp.wanted)"
"""The condition for a recorded span, `s`, of one of them."""
OF_FACT = "run in (select run from temp.wanted_numbers)"
"""The same for a row of the index that has the number of its run."""


def restrict(connection: sqlite3.Connection, runs: Collection[str]) -> None:
    """Fill the table of ids."""
    _fill(connection, EMPTY, ADD, runs)


def number(connection: sqlite3.Connection, runs: Collection[str]) -> None:
    """Fill the table of numbers. A run without finished spans has none."""
    _fill(connection, EMPTY_NUMBERS, ADD_NUMBERS, runs)


def numbered(connection: sqlite3.Connection, runs: Collection[str]) -> dict[int, str]:
    """Fill the table of numbers, and return the ids by number: a text for each row of an answer costs more."""
    number(connection, runs)
    return dict(connection.execute(IDS).fetchall())


def _fill(connection: sqlite3.Connection, empty: str, add: str, runs: Collection[str]) -> None:
    for statement in (*CREATE, empty):
        connection.execute(statement)
    connection.execute(add, (json.dumps(list(runs)),))
