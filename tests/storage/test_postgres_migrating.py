"""Migrations of a schema: one program at a time; what an interrupted one has left is done, or done again."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from agentspan.errors import AgentspanError, DatabaseBusy
from agentspan.storage.location import Location
from agentspan.tuning import STANDARD
from tests.postgres import Emptied
from tests.waiting import until

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

from agentspan.storage.postgres.migrations import (  # noqa: E402
    BEFORE,
    MIGRATIONS,
    Migration,
    built,  # needs psycopg
)
from agentspan.storage.postgres.storage import PostgresStorage  # noqa: E402

pytestmark = pytest.mark.full

INDEX, ON = "run_names_external_identifier", "on run_names (external_identifier)"
MORE = (*MIGRATIONS, Migration((f"create index if not exists {INDEX} {ON}",), (built(INDEX, ON),)))
"""Those of a later version, which adds an index."""
OLDER, NEWER = BEFORE + len(MIGRATIONS), BEFORE + len(MORE)
IS_VALID = f"select indisvalid from pg_index where indexrelid = to_regclass('{INDEX}')"
VERSION = "select version from storage_version"
BUILDER = "select pid from pg_stat_activity where query like %s and pid <> pg_backend_pid()"
Asked = Callable[..., list[Any]]


@pytest.fixture
def url(postgres_server: Emptied) -> str:
    """The URL of a schema of the version before its last index."""
    location = postgres_server.new()
    PostgresStorage(location).close()
    return location.text


def open_newer(url: str, **how: Any) -> PostgresStorage:
    """Open it by the code of a later version."""
    return PostgresStorage(Location("postgresql", url), migrations=MORE, **how)


@contextmanager
def beside(url: str, *, autocommit: bool = True) -> Iterator[Asked]:
    before, _, schema = url.partition("?schema=")
    with psycopg.connect(before, autocommit=autocommit, options=f"-csearch_path={schema}") as connection:

        def ask(sql: str, *values: object) -> list[Any]:
            cursor = connection.execute(sql, values or None)
            return list(cursor.fetchall()) if cursor.description is not None else []

        yield ask


@contextmanager
def opening(url: str) -> Iterator[list[object]]:
    """Open it in a thread; the list has the error then, or None."""
    done: list[object] = []

    def open_it() -> None:
        try:
            open_newer(url).close()
            done.append(None)
        except AgentspanError as error:
            done.append(error)

    thread = threading.Thread(target=open_it)
    thread.start()
    yield done
    thread.join(30)
    assert done != []


def test_an_index_that_a_killed_build_has_left_is_built_again(url: str) -> None:
    with beside(url) as asked, beside(url, autocommit=False) as writing:
        writing("insert into run_names values ('a', 'b', 'c')")  # the build waits for this transaction
        with opening(url) as done:
            until(lambda: asked(BUILDER, f"create index concurrently {INDEX}%") != [])
            until(lambda: asked(IS_VALID) == [(False,)])
            ((pid,),) = asked(BUILDER, f"create index concurrently {INDEX}%")
            asked("select pg_terminate_backend(%s)", pid)
        assert isinstance(done[0], AgentspanError)
        assert (asked(IS_VALID), asked(VERSION)) == ([(False,)], [(OLDER,)])
    with beside(url) as asked:
        open_newer(url).close()
        assert (asked(IS_VALID), asked(VERSION)) == ([(True,)], [(NEWER,)])


def test_programs_write_while_an_index_is_built(url: str) -> None:
    with beside(url) as asked, beside(url, autocommit=False) as writing:
        writing("insert into run_names values ('a', 'b', 'c')")
        with opening(url) as done:
            until(lambda: asked(IS_VALID) == [(False,)])
            asked("insert into run_names values ('d', 'e', 'f')")
            writing("commit")
        assert done == [None]
        assert asked("select count(*) from run_names") == [(2,)]
        assert asked(IS_VALID) == [(True,)]


def test_a_second_program_does_not_migrate_at_the_same_time(url: str) -> None:
    with beside(url) as asked, beside(url, autocommit=False) as writing:
        writing("insert into run_names values ('a', 'b', 'c')")
        with opening(url) as done:
            until(lambda: asked(IS_VALID) == [(False,)])
            with pytest.raises(DatabaseBusy, match="another program migrates"):
                open_newer(url, wait_s=0.1, tuning=STANDARD._replace(postgres_migration_wait_s=0.1))
            writing("commit")
        assert done == [None]
        assert len(asked(f"select 1 from pg_class where relname like '{INDEX}%' and relkind = 'i'")) >= 1
