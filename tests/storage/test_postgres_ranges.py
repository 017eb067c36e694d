"""Finished spans lie in partitions by the time that the ids of their runs carry, and nothing depends on which one."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

import agentspan
from agentspan import clock, ids
from agentspan.errors import DatabaseBusy, DatabaseUnusable, InvalidValue
from agentspan.model.changes import LEAVES, Applied, Move, Put, PutSpans, Unit
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.postgres.partitions import Range, bound_at, following, missing, time_of, width_of
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import (
    Counts,
    DropPartitions,
    Find,
    MakePartitions,
    MissingPartitions,
    Partitions,
    Query,
    SpansOf,
)
from agentspan.storage.registry import open_direct
from agentspan.testing.contract.base import Rows, finish
from tests.postgres import Emptied

psycopg = pytest.importorskip("psycopg", reason="needs psycopg")

from agentspan.storage.postgres.connection import Connection  # noqa: E402
from agentspan.storage.postgres.partitions import MANY  # noqa: E402
from agentspan.storage.postgres.statements import SPANS  # noqa: E402
from agentspan.storage.postgres.storage import PostgresStorage  # noqa: E402

pytestmark = pytest.mark.full

NOW = datetime.now(UTC)
Asked = Callable[..., list[Any]]


@pytest.fixture
def url(postgres_server: Emptied) -> str:
    return postgres_server.new().text


@pytest.fixture
def storage(url: str) -> Iterator[Storage]:
    made = open_direct(url)
    yield made
    made.close()


@pytest.fixture
def asked(url: str) -> Iterator[Asked]:
    """Executes SQL beside the storage."""
    before, _, schema = url.partition("?schema=")
    with psycopg.connect(before, autocommit=True, options=f"-csearch_path={schema}") as connection:
        yield lambda sql, *values: connection.execute(sql, values or None).fetchall()


def run_at(storage: Storage, at: datetime | str, rows: Rows) -> AgentInstanceRow:
    """Put a run whose id carries a time, or is a text."""
    agent = rows.agent()
    version, schema, run = rows.family(agent)
    millis = 0 if isinstance(at, str) else max(0, int(at.timestamp() * 1000))
    id = at if isinstance(at, str) else ids.encode(millis, 7, ids.decode(run.id)[2])
    run = run._replace(id=id, external_identifier=None)
    # By SQL: the tables may be those of an older version, whose agents have fewer columns.
    columns = "id, external_identifier, name, description, status, inserted_at, updated_at"
    insert = f"insert into agents ({columns}) values (%s, %s, %s, %s, %s, %s, %s)"
    assert isinstance(storage, PostgresStorage)
    with storage._connections.lent(5) as connection:
        connection.execute(insert.encode(), agent[:7])
    assert storage.apply([Unit((Put(row),)) for row in (version, schema, run)]) == [Applied()] * 3
    return run


def put(storage: Storage, run: AgentInstanceRow, rows: Rows, number: int = 1) -> list[AgentSpanRow]:
    spans = [rows.span(run, status="complete") for _ in range(number)]
    assert storage.apply([Unit((PutSpans(spans),))]) == [Applied()]
    return spans


def table_of(asked: Asked, span: AgentSpanRow) -> str:
    found = asked("select tableoid::regclass::text from finished_spans where id = %s", span.id)
    return str(found[0][0])


def test_a_new_schema_has_partitions_for_this_week_and_the_next_four(storage: Storage) -> None:
    *ranges, default = storage.ask(Partitions())
    assert default.is_default
    starts = [clock.to_datetime(each.start or "") for each in ranges]
    assert len(starts) == 5
    assert starts[0] <= datetime.now(UTC) < starts[1]
    assert all(later - earlier == timedelta(days=7) and earlier.weekday() == 0 for earlier, later in pairwise(starts))
    assert [each.end for each in ranges[:-1]] == [each.start for each in ranges[1:]]
    assert ranges[0].name == f"finished_spans_{starts[0]:%Y%m%d}_{starts[1]:%Y%m%d}"
    assert storage.ask(MissingPartitions()) == 0
    assert storage.ask(MissingPartitions(ahead=6)) == 2


def test_all_spans_of_a_run_lie_in_the_partition_of_its_id(storage: Storage, asked: Asked) -> None:
    rows = Rows()
    begin = datetime.now(UTC)  # NOW may be of the week before
    now, later = run_at(storage, begin, rows), run_at(storage, begin + timedelta(days=7), rows)
    first, second, *_ = storage.ask(Partitions())
    spans = put(storage, now, rows, 3)
    opened = rows.span(now)
    assert storage.apply([Unit((Put(opened),)), Unit((finish(opened.id),))]) == [Applied(), Applied()]
    assert {table_of(asked, span) for span in (*spans, opened)} == {first.name}
    assert table_of(asked, put(storage, later, rows)[0]) == second.name


@pytest.mark.parametrize(
    "at",
    [datetime(1970, 1, 1, tzinfo=UTC), NOW - timedelta(days=400), NOW + timedelta(days=400), "0", "a run", "zzz"],
    ids=["1970", "a year ago", "in a year", "0", "a run", "zzz"],
)
def test_a_run_for_which_there_is_no_partition_is_like_any_other(storage: Storage, asked: Asked, at: Any) -> None:
    """Ids of clocks that are wrong, of long ago, and those that are no PFIDs."""
    rows = Rows()
    run = run_at(storage, at, rows)
    spans = put(storage, run, rows, 3)
    opened = rows.span(run)
    assert storage.apply([Unit((Put(opened, minted=True),)), Unit((finish(opened.id),))]) == [Applied(), Applied()]
    assert table_of(asked, spans[0]) == table_of(asked, opened) == "finished_spans_default"
    assert [span.id for span in storage.ask(SpansOf(run.id))] == sorted(span.id for span in (*spans, opened))
    assert storage.ask(Find(spans[1].id)).rows[spans[1].id] == ("agent_span", spans[1])
    assert agentspan.open(storage).runs().runs[0].spans == 4
    storage.ask(MakePartitions())
    assert storage.ask(Counts([run.id]))[run.id].total == 4


def test_many_spans_of_a_time_move_to_a_partition_of_their_own(storage: Storage, asked: Asked) -> None:
    """Their transactions stay, so that the index has them no second time."""
    rows = Rows()
    old, older = run_at(storage, NOW - timedelta(days=100), rows), run_at(storage, NOW - timedelta(days=200), rows)
    spans = [*put(storage, old, rows, MANY), *put(storage, older, rows, MANY - 1)]
    reading = agentspan.open(storage)
    before = reading.stats(), reading.search("hello"), asked("select id, xid::text from finished_spans order by id")
    in_index = asked("select xmin::text, taken::text from index_state order by 1")
    made = storage.ask(MakePartitions())
    assert (len(made.names), made.moved) == (1, MANY)
    assert table_of(asked, spans[0]) == made.names[0]
    assert table_of(asked, spans[-1]) == "finished_spans_default"
    assert (reading.stats(), reading.search("hello")) == before[:2]
    assert asked("select id, xid::text from finished_spans order by id") == before[2]
    assert asked("select xmin::text, taken::text from index_state order by 1") == in_index
    assert storage.ask(MakePartitions()) == ([], 0)


def test_partitions_are_made_for_all_times_since_one(storage: Storage, asked: Asked) -> None:
    """As before a copy of old runs; with another width, which holds from then on."""
    rows = Rows()
    since = NOW - timedelta(days=70)
    made = storage.ask(MakePartitions(since=clock.parse(since), width="month"))
    assert 2 <= len(made.names) <= 4
    assert table_of(asked, put(storage, run_at(storage, since, rows), rows)[0]) == made.names[0]
    ranges = [each for each in storage.ask(Partitions()) if not each.is_default]
    assert [each.end for each in ranges[:-1]] == [each.start for each in ranges[1:]]
    more = storage.ask(MakePartitions(ahead=7, width="month")).names
    last = storage.ask(Partitions())[-2]
    assert last.name == more[-1]
    assert clock.to_datetime(last.start or "").day == 1
    assert storage.ask(MakePartitions(ahead=8)).names[0].endswith("01")


def test_programs_that_make_partitions_at_once_make_each_once(storage: Storage, url: str) -> None:
    rows = Rows()
    put(storage, run_at(storage, NOW - timedelta(days=60), rows), rows, MANY)
    made: list[Any] = []

    def make() -> None:
        other = open_direct(url)
        made.append(other.ask(MakePartitions(ahead=7)))
        other.close()

    threads = [threading.Thread(target=make) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(each.moved for each in made) == MANY
    names = [name for each in made for name in each.names]
    assert len(names) == len(set(names)) == 4


def test_no_span_is_refused_while_its_partition_is_made(storage: Storage, url: str, asked: Asked) -> None:
    """Not even one that was on its way to the default partition at that moment."""
    rows = Rows()
    runs = [run_at(storage, NOW - timedelta(days=days), rows) for days in range(70, 400, 30)]
    for run in runs:
        put(storage, run, rows, MANY)
    written: list[AgentSpanRow] = []
    done = threading.Event()

    def write(own: Storage) -> None:
        while not done.is_set():
            for run in runs:
                spans = [rows.span(run, status="complete") for _ in range(3)]
                outcomes = own.apply([Unit((PutSpans(spans[:2]),)), Unit((Put(spans[2]),))], wait_s=30)
                assert outcomes == [Applied(), Applied()]
                written.extend(spans)

    others = [open_direct(url) for _ in range(2)]
    threads = [threading.Thread(target=write, args=(each,)) for each in others]
    for thread in threads:
        thread.start()
    try:
        made = storage.ask(MakePartitions(wait_s=60))
    finally:
        done.set()
        for thread, other in zip(threads, others, strict=True):
            thread.join()
            other.close()
    assert len(made.names) == len(runs)
    assert asked("select count(distinct id), count(*) from finished_spans") == [
        (MANY * len(runs) + len(written),) * 2,
    ]
    storage.ask(MakePartitions())
    assert [each.rows for each in storage.ask(Partitions()) if each.is_default] == [0]


def test_a_reader_of_all_partitions_holds_up_making_one_but_nobody_else(
    storage: Storage, url: str, asked: Asked
) -> None:
    before, _, schema = url.partition("?schema=")
    rows = Rows()
    run = run_at(storage, NOW, rows)
    with psycopg.connect(before, options=f"-csearch_path={schema}") as reader:
        reader.execute("select count(*) from finished_spans")
        with pytest.raises(DatabaseBusy):
            storage.ask(MakePartitions(ahead=9, wait_s=0.1))
        put(storage, run, rows)
    assert len(storage.ask(MakePartitions(ahead=9)).names) == 5


def test_a_run_is_read_from_one_partition(storage: Storage, asked: Asked) -> None:
    run = run_at(storage, NOW, Rows())
    storage.ask(MakePartitions(ahead=20))
    plan = "\n".join(line for (line,) in asked(f"explain {SPANS}", run.id))
    assert plan.count(" on finished_spans_") == 1


def test_a_role_that_only_records_writes_on_without_making_partitions(storage: Storage, url: str, asked: Asked) -> None:
    before, _, schema = url.partition("?schema=")
    role = f"of_{schema}"
    with psycopg.connect(before, autocommit=True) as owner:
        owner.execute(f"create role {role} login; grant usage on schema {schema} to {role}")
        owner.execute(f"grant select, insert, update, delete on all tables in schema {schema} to {role}")
    recorder = open_direct(url.replace("agentspan:sesame", role))
    with pytest.raises(DatabaseUnusable, match="lacks a privilege"):
        recorder.ask(MakePartitions(ahead=20))
    rows = Rows()
    run = run_at(recorder, NOW + timedelta(days=100), rows)
    put(recorder, run, rows)
    assert recorder.ask(Counts([run.id]))[run.id].total == 1
    recorder.close()


def ended(storage: Storage, at: datetime, rows: Rows, number: int, spans: int) -> list[AgentInstanceRow]:
    """Put so many finished runs with so many finished spans each."""
    first = run_at(storage, at, rows)
    runs = [first]
    done: dict[str, Any] = {"status": "complete", "finished_at": clock.parse(at), "updated_at": clock.parse(at)}
    for more in range(1, number):
        runs.append(first._replace(id=ids.encode(int(at.timestamp() * 1000) + more, 7, more), **done))
    storage.apply([Unit((Put(run),)) for run in runs[1:]])
    storage.apply([Unit((Move("agent_instance", first.id, LEAVES["complete"], done),))])
    storage.apply([Unit((PutSpans([rows.span(run, status="complete") for run in runs for _ in range(spans)]),))])
    return runs


@pytest.mark.parametrize("number", [3, 300])
def test_prune_drops_a_partition_by_as_many_statements_as_few_runs_need(
    storage: Storage, asked: Asked, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    rows = Rows()
    storage.ask(MakePartitions(since=clock.parse(NOW - timedelta(days=60))))
    ended(storage, NOW - timedelta(days=50), rows, number, 4)
    stays = ended(storage, NOW, rows, 1, 4)[0]
    statements: list[str] = []
    execute: Any = Connection.execute

    def counted(self: Any, query: Any, *args: Any, **how: Any) -> Any:
        statements.append(query)
        return execute(self, query, *args, **how)

    before = len(storage.ask(Partitions()))
    with monkeypatch.context() as counting:
        counting.setattr(Connection, "execute", counted)
        done = agentspan.open(storage).prune(older_than=clock.parse(NOW - timedelta(days=30)))
    assert (done.runs, done.spans) == (number, 4 * number)
    assert done.partitions == before - len(storage.ask(Partitions())) >= 3
    assert [row.id for row in storage.ask(Query("agent_instance")).rows] == [stays.id]
    each = [sql for sql in statements if "delete from finished_spans" in sql]
    assert each == []
    assert len(statements) < 30 + 25 * done.partitions
    assert len([sql for sql in statements if sql.startswith("drop table")]) == done.partitions
    assert agentspan.open(storage).runs().total == 1
    assert agentspan.open(storage).stats()[0].count == 4


def test_a_user_who_may_not_drop_partitions_prunes_row_by_row(
    storage: Storage, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, _, schema = url.partition("?schema=")
    role = f"pruner_of_{schema}"
    with psycopg.connect(before, autocommit=True) as owner:
        owner.execute(f"create role {role} login; grant usage on schema {schema} to {role}")
        owner.execute(f"grant select, insert, update, delete on all tables in schema {schema} to {role}")
    storage.ask(MakePartitions(since=clock.parse(NOW - timedelta(days=60))))
    ended(storage, NOW - timedelta(days=50), Rows(), 3, 2)
    with agentspan.open(url.replace("agentspan:sesame", role)) as pruner:
        with pytest.raises(DatabaseUnusable, match="may not drop"):
            pruner.prune(older_than=NOW - timedelta(days=30), whole_partitions=True)
        done = pruner.prune(older_than=NOW - timedelta(days=30))
    assert (done.runs, done.spans, done.partitions) == (3, 6, None)
    assert "row by row" in caplog.text


def test_whole_partitions_alone_are_removed_if_that_is_wanted(storage: Storage) -> None:
    rows = Rows()
    storage.ask(MakePartitions(since=clock.parse(NOW - timedelta(days=60)), width="week"))
    bound = next(each for each in storage.ask(Partitions()) if each.end and each.end > _ago(31)).start or ""
    ended(storage, clock.to_datetime(bound) - timedelta(hours=1), rows, 2, 2)
    inside = ended(storage, clock.to_datetime(bound) + timedelta(hours=1), rows, 2, 2)
    db = agentspan.open(storage)
    before = clock.parse(clock.to_datetime(bound) + timedelta(hours=2))
    assert db.prune(older_than=before, whole_partitions=True).runs == 2
    assert [row.id for row in storage.ask(Query("agent_instance")).rows] == [run.id for run in inside]
    assert db.prune(older_than=before).runs == 2
    with pytest.raises(InvalidValue, match="whole_partitions: goes with `older_than` alone"):
        db.prune(older_than=before, keep_failed=True, whole_partitions=True)
    with pytest.raises(InvalidValue, match="no dry run"):
        db.prune(older_than=before, dry_run=True, whole_partitions=True)
    with pytest.raises(InvalidValue, match="whole_partitions: the storage 'memory' has no partitions"):
        agentspan.open(":memory:").prune(older_than=before, whole_partitions=True)


def test_a_partition_is_not_dropped_while_a_span_is_put_into_it(storage: Storage, url: str) -> None:
    """The writer's run is imported at that moment: it stays, with its span."""
    rows = Rows()
    storage.ask(MakePartitions(since=clock.parse(NOW - timedelta(days=60))))
    ended(storage, NOW - timedelta(days=50), rows, 2, 2)
    new = ids.encode(int((NOW - timedelta(days=50)).timestamp() * 1000) + 7, 7, 7)
    before, _, schema = url.partition("?schema=")
    with psycopg.connect(before, options=f"-csearch_path={schema}") as writer:
        columns = ", ".join(f'"{each}"' for each in AgentInstanceRow._fields)
        writer.execute(
            f"insert into agent_instances select * from (select {columns.replace(chr(34) + 'id' + chr(34), '%s')} "
            "from agent_instances limit 1) one",
            (new,),
        )
        writer.execute(
            "insert into finished_spans select (json_populate_record(s, json_build_object("
            "'id', s.id || 'x', 'agent_instance_id', %s::text))).* from finished_spans s limit 1",
            (new,),
        )
        with pytest.raises(DatabaseBusy):
            storage.ask(DropPartitions(clock.now(), lambda id: True, 0.2))
    dropped = storage.ask(DropPartitions(_ago(1), lambda id: True, 5.0))
    assert (dropped.runs, storage.ask(Counts([new]))[new].total) in ((3, 0), (0, 1))


def _ago(days: int) -> str:
    return clock.parse(NOW - timedelta(days=days))


def test_ranges_cover_each_time_once_also_after_the_width_changed() -> None:
    now = datetime(2026, 11, 26, 12, tzinfo=UTC)
    ranges: list[Range] = []
    for width, since, ahead in (("week", now, 3), ("month", now - timedelta(days=90), 4), ("day", now, 5)):
        ranges += missing(ranges, width, since=since, now=now, ahead=ahead)  # type: ignore[arg-type]
        ranges.sort()
    assert all(earlier.end == later.start for earlier, later in pairwise(ranges))
    assert sum(1 for each in ranges if (each.start or "") > bound_at(now)) >= 5
    assert [*missing(ranges, "day", since=now, now=now, ahead=5)] == []
    assert [*missing([Range(None, None)], "day", since=now, now=now, ahead=5)] == []
    assert width_of(ranges[:2]) == "month"


@pytest.mark.parametrize("at", [datetime(1970, 1, 1, tzinfo=UTC), NOW, datetime(2106, 2, 7, 6, 28, 16, tzinfo=UTC)])
def test_a_bound_divides_the_ids_of_its_time_from_those_before(at: datetime) -> None:
    millis = int(at.timestamp() * 1000)
    assert bound_at(at) < ids.encode(millis, 0, 0)
    assert millis == 0 or ids.encode(millis - 1, 2**30 - 1, 2**80 - 1) < bound_at(at)
    found = time_of(bound_at(at))
    assert found is not None
    assert abs(found - at) < timedelta(milliseconds=1)
    assert time_of(ids.encode(millis, 5, 9)) == found
    assert time_of("a run") is None


def test_months_follow_each_other() -> None:
    at = datetime(2024, 1, 31, 23, 59, tzinfo=UTC)
    months = []
    for _ in range(14):
        at = following(at, "month")
        months.append((at.year, at.month, at.day))
    assert months == [(2024 + number // 12, number % 12 + 1, 1) for number in range(1, 15)]
