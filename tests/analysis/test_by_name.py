"""What a person types finds a run or a span: `-`, an id, its unique beginning; else an error says what to do."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import agentspan
from agentspan import ids
from agentspan.analysis import by_name
from agentspan.database import Database
from agentspan.errors import InvalidValue, NotFound, UnexpectedRefType
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from tests.tiers import longer

FAR, NEAR, OTHER = (ids.encode(ms, 1, 7) for ms in (10**12, 10**12 + 1, 2 * 10**12))


def run_of(db: Database, id: str | None = None) -> str:
    """A new run, by a client's own id if need be."""
    return db.agent_instances.register(agent_id="finder", id=id).id


def span_of(db: Database, run: str, id: str | None = None) -> str:
    """A new span of a run."""
    return db.agent_spans.create(run, "tool", "active", {"name": "t"}, id=id).id


def unique_beginning(id: str, *others: str) -> str:
    """The shortest beginning of an id that no other id has."""
    return next(id[:n] for n in range(1, 33) if not any(other.startswith(id[:n]) for other in others))


def test_a_dash_is_the_latest_run(storage: Storage, db: Database) -> None:
    run_of(db)
    latest = run_of(db)
    assert by_name.find_run(storage, "-").id == latest


def test_the_latest_run_is_the_one_with_the_greatest_id(storage: Storage, db: Database) -> None:
    run_of(db, OTHER)
    run_of(db, FAR)
    assert by_name.find_run(storage, "-").id == OTHER


def test_a_full_id_finds_its_run_and_its_span(storage: Storage, db: Database) -> None:
    run = run_of(db)
    span = span_of(db, run)
    assert by_name.find_run(storage, run).id == run
    assert by_name.find_span(storage, span).id == span
    assert by_name.find_span(storage, span).agent_instance_id == run


def test_a_unique_beginning_finds_its_run(storage: Storage, db: Database) -> None:
    for id in (FAR, NEAR, OTHER):
        run_of(db, id)
    assert by_name.find_run(storage, unique_beginning(OTHER, FAR, NEAR)).id == OTHER
    assert by_name.find_run(storage, unique_beginning(NEAR, FAR, OTHER)).id == NEAR
    assert by_name.find_run(storage, FAR[:31]).id == FAR


def test_a_unique_beginning_finds_its_span(storage: Storage, db: Database) -> None:
    run = run_of(db)
    for id in (FAR, NEAR, OTHER):
        span_of(db, run, id)
    assert by_name.find_span(storage, unique_beginning(OTHER, FAR, NEAR)).id == OTHER


def test_beginnings_are_looked_for_within_the_type_only(storage: Storage, db: Database) -> None:
    run = run_of(db, FAR)
    span_of(db, run, NEAR)
    shared = FAR[: len(unique_beginning(FAR, NEAR)) - 1]
    assert by_name.find_run(storage, shared).id == FAR
    assert by_name.find_span(storage, shared).id == NEAR


def test_a_beginning_of_several_ids_asks_for_more_of_it(storage: Storage, db: Database) -> None:
    run = run_of(db, FAR)
    run_of(db, NEAR)
    span_of(db, run, ids.encode(10**12, 2, 1))
    span_of(db, run, ids.encode(10**12, 2, 2))
    with pytest.raises(InvalidValue, match=r"several ids begin with '0.*type more of it") as raised:
        by_name.find_run(storage, FAR[:5])
    assert raised.value.field == "run"
    with pytest.raises(InvalidValue, match="several ids") as raised:
        by_name.find_span(storage, FAR[:5])
    assert raised.value.field == "span"


@settings(max_examples=longer("AGENTSPAN_TEST_EXAMPLES", 25, 50, 500), deadline=None)
@given(
    st.lists(
        st.builds(
            ids.encode, st.sampled_from((10**12, 10**12 + 1)), st.just(1), st.sampled_from((0, 7, 1 << 20, 1 << 79))
        ),
        min_size=1,
        unique=True,
    ),
    st.data(),
)
def test_a_short_id_finds_its_run_whatever_else_is_recorded(recorded: list[str], data: st.DataObject) -> None:
    with agentspan.open(MemoryStorage()) as db:
        for id in recorded:
            run_of(db, id)
        shown = data.draw(st.lists(st.sampled_from(recorded), unique=True))
        short = by_name.short_ids(db.storage, shown)
        assert {id: by_name.find_run(db.storage, text).id for id, text in short.items()} == {id: id for id in shown}
        assert len({len(text) for text in short.values()}) <= 1


def test_an_error_names_a_few_of_several_ids(storage: Storage, db: Database) -> None:
    same_time = [ids.encode(10**12, 1, random) for random in range(5)]
    for id in same_time:
        run_of(db, id)
    with pytest.raises(InvalidValue) as raised:
        by_name.find_run(storage, FAR[:12])
    named = [*by_name.short_ids(storage, same_time[:3]).values()]
    assert f"several ids begin with {FAR[:12]!r}: {', '.join(named)}, …; type more of it" in str(raised.value)


def test_an_id_with_its_middle_left_out_finds_its_run(storage: Storage, db: Database) -> None:
    ids_of_a_millisecond = [ids.encode(10**12, 1, random) for random in range(4)]
    for id in ids_of_a_millisecond:
        run_of(db, id)
    for id in ids_of_a_millisecond:
        assert by_name.find_run(storage, f"{id[:10]}…{id[-4:]}").id == id
    with pytest.raises(InvalidValue, match="several ids"):
        by_name.find_run(storage, f"{FAR[:10]}…")
    with pytest.raises(NotFound):
        by_name.find_run(storage, f"{FAR[:10]}…zzzz")


def test_where_nothing_is_recorded_the_demo_is_offered(storage: Storage) -> None:
    with pytest.raises(NotFound, match="nothing has been recorded here yet; `agentspan demo`"):
        by_name.find_run(storage, "-")


@pytest.mark.parametrize(
    "what",
    ["zzz", FAR[:12], "0%", "0_", "0*", "0?", "[0]", "' or 1=1 --", FAR[:5].upper() + "Z", "é", "\x00", "\udcff", "-"],
)
def test_a_beginning_that_no_id_has_is_not_found(storage: Storage, db: Database, what: str) -> None:
    run = run_of(db, OTHER)
    with pytest.raises(NotFound, match="no span's id begins with"):
        by_name.find_span(storage, what)
    span_of(db, run)
    if what != "-":
        with pytest.raises(NotFound, match="no run's id begins with"):
            by_name.find_run(storage, what)


def test_an_id_that_nothing_has_is_not_found(storage: Storage, db: Database) -> None:
    run_of(db)
    with pytest.raises(NotFound, match=f"no run has the id {FAR}"):
        by_name.find_run(storage, FAR)
    with pytest.raises(NotFound, match=f"no span has the id {FAR}"):
        by_name.find_span(storage, FAR)


def test_an_id_of_another_type_is_told_from_one_that_is_missing(storage: Storage, db: Database) -> None:
    run = run_of(db)
    span = span_of(db, run)
    agent = db.agent_instances.get(run).agent_id
    find_run, find_span = by_name.find_run, by_name.find_span
    for what, look_up in ((span, find_run), (agent, find_run), (run, find_span), (agent, find_span)):
        with pytest.raises(UnexpectedRefType, match=f"{what} is the id of something else"):
            look_up(storage, what)


def test_the_beginning_of_a_spans_id_is_no_runs(storage: Storage, db: Database) -> None:
    span_of(db, run_of(db, OTHER), FAR)
    with pytest.raises(NotFound, match="no run's id begins with"):
        by_name.find_run(storage, FAR[:20])


def test_an_error_shows_at_most_the_beginning_of_what_was_typed(storage: Storage, db: Database) -> None:
    run_of(db)
    with pytest.raises(NotFound) as raised:
        by_name.find_run(storage, "x" * 10_000)
    assert len(str(raised.value)) < 100


def test_the_run_that_is_found_is_the_row_as_it_is_now(storage: Storage) -> None:
    db = agentspan.open(storage)
    run = run_of(db)
    assert by_name.find_run(storage, run).status == "pending"
    db.agent_instances.start(run)
    assert by_name.find_run(storage, "-").status == "active"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a@1", ("a", "1")),
        ("a@v@2", ("a", "v@2")),
        ("a@b@1", ("a@b", "1")),
        ("a@b@v@2", ("a@b", "v@2")),
        ("a@b", ("a@b", None)),
        ("a@v@2#1", ("a", "v@2#1")),
        ("a@b@new", ("a@b", "new")),
    ],
)
def test_an_agent_and_its_version_may_have_the_sign_between_them(
    storage: Storage, db: Database, text: str, named: tuple[str, str | None]
) -> None:
    runs = {}
    for agent, version in (("a", "1"), ("a@b", "1"), ("a", "v@2"), ("a@b", "v@2"), ("a", "v@2#1")):
        of_version = {"external_identifier": version}
        runs[agent, version] = db.agent_instances.register(agent, agent_version=of_version).id
    found = by_name.resolved(storage, RunFilter(agent=text))
    assert (found.agent, found.version) == named
    if named in runs:
        assert by_name.find_run_or_span(storage, text).id == runs[named[0], str(named[1])]
