"""Decoded sessions become runs and spans, on each backend, in whatever order and however often they arrive."""

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from agentspan import clock
from agentspan.analysis.tree import session_title
from agentspan.api.context import Context
from agentspan.arriving.arrival import TOGETHER, Arrival
from agentspan.arriving.records import Record, Step, Unread, unknown
from agentspan.model.changes import Put, Unit
from agentspan.model.rows import AgentInstanceRow, SessionFileRow
from agentspan.recording.capture.plain import SentRedaction
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from tests.sessions.arrivals import SECOND, T0, arrive, llm, run_of, session, spans_of, tool


def test_a_run_has_the_facts_of_its_session(storage: Storage) -> None:
    facts: dict[str, Any] = {"fingerprint": {"model": "gpt-4o"}, "metadata": {"cwd": "/p"}, "output": "done"}
    arrive(storage, session(task="mend", **facts), llm("a", 1))
    run = run_of(storage)
    metadata = json.loads(run.metadata or "")
    assert (run.status, run.session, run.task, run.result) == ("complete", "s", "mend", '{"output":"done"}')
    assert run.duration_ms == 60_000
    assert metadata["fingerprint"]["parts"] == {"model": "gpt-4o"}
    assert (metadata["cwd"], metadata["session_id"], metadata["outcome"]) == ("/p", "s", "answered")


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        ("answered", "complete"),
        ("interrupted", "cancelled"),
        ("error", "failed"),
        ("limit", "failed"),
        (None, "complete"),
    ],
)
def test_the_outcome_gives_the_status(storage: Storage, outcome: Any, status: str) -> None:
    arrive(storage, session(outcome=outcome, error={"type": "E", "message": "m"} if outcome == "error" else None))
    assert run_of(storage).status == status


def test_a_session_that_goes_on_is_active_until_it_ends(storage: Storage) -> None:
    arrive(storage, session(outcome=None), tool("t", 1), live=True)
    (span,) = spans_of(storage).values()
    assert (run_of(storage).status, span.status, span.finished_at) == ("active", "active", None)
    done = arrive(storage, session(), tool("t", 1, output="made"))
    (span,) = spans_of(storage).values()
    assert (run_of(storage).status, span.status, done.spans, done.changed) == ("complete", "complete", 0, 1)
    assert span.summary == "Tool Bash(command=make) → made"


SECRET = "S3cretVal9xQ"


@pytest.mark.parametrize("length", [0, 2000, 200_000])
def test_each_of_many_steps_is_redacted_also_in_its_summary(storage: Storage, length: int) -> None:
    plain = [tool(f"t{at}", at, output=f"made {at}" + "x" * length) for at in range(150 if length < 10_000 else 5)]
    told: list[Step] = []
    for at, step in enumerate(plain):
        if at % 40 == 0:
            told.append(step._replace(payload={"name": "Bash", "arguments": {"command": f"DB_PASSWORD={SECRET} make"}}))
        elif at % 40 == 1:
            told.append(step._replace(result={"output": "made", "env": {"password": SECRET}, "text": "x" * length}))
        else:
            told.append(step)
    arrival = Arrival(Context(storage, redacts=SentRedaction()))
    arrival.take("toy", [session(), *told, told[0], told[1]])
    arrival.finish(live=False)
    found = [*storage.ask(SpansOf(run_of(storage).id))]
    assert len(found) == len(plain)
    for span in found:
        assert SECRET not in repr(span)
        assert ("[redacted]" in repr(span)) == (span.started_at in {_at(at) for at in range(150) if at % 40 < 2})
    first = next(span for span in found if span.started_at == _at(0))
    assert (first.summary or "").startswith("Tool Bash(command=DB_PASSWORD=[redacted] make) → made 0")


def test_many_small_steps_are_searched_for_credentials_together(storage: Storage) -> None:
    redaction, sizes = SentRedaction(), list[int]()
    among = redaction.suspicious_among

    def counted(texts: Sequence[str]) -> list[int]:
        sizes.append(len(texts))
        return among(texts)

    redaction.suspicious_among = counted
    arrival = Arrival(Context(storage, redacts=redaction))
    arrival.take("toy", [session(), *(tool(f"t{at}", at, output="made") for at in range(2 * TOGETHER + 1))])
    arrival.finish(live=False)
    assert sizes == [2 * TOGETHER, 2 * TOGETHER, 2]


def _at(second: int) -> str:
    return clock.to_text(T0 + second * SECOND)


def test_what_arrives_again_adds_nothing(storage: Storage) -> None:
    records: list[Record] = [session(), *(llm(f"l{at}", at) for at in range(700)), tool("t", 701, output="x")]
    assert arrive(storage, *records).spans == 701
    before = [*spans_of(storage).values()]
    again = arrive(storage, *records)
    assert (again.spans, again.changed, len(again.runs)) == (0, 0, 0)
    assert [*spans_of(storage).values()] == before


def test_an_earlier_state_replaces_no_later_one(storage: Storage) -> None:
    early, late = llm("a", 1), llm("a", 1, tokens=300)._replace(end_ns=T0 + 9 * SECOND)
    arrive(storage, session(ended_ns=T0 + 80 * SECOND, output="late"), late, tool("t", 2, output="made"))
    arrive(storage, session(output="early"), early, tool("t", 2))
    spans = spans_of(storage)
    assert run_of(storage).result == '{"output":"late"}'
    assert {span.status for span in spans.values()} == {"complete"}
    assert sorted(span.input_tokens or 0 for span in spans.values()) == [0, 300]


def test_agents_have_the_sums_of_what_is_below_them(storage: Storage) -> None:
    def agent(key: str, parent: str) -> Step:
        start = T0 + 3 * SECOND
        return Step("s", key, parent, "agent", start, start + SECOND, "complete", {"name": key}, {"output": "ok"})

    steps = [
        llm("own", 1),
        tool("task", 2, output="ok"),
        agent("outer", "task"),
        llm("a", 3, parent="outer"),
        tool("deeper", 4, parent="outer", output="ok"),
        agent("inner", "deeper"),
        llm("b", 5, parent="inner", tokens=50),
    ]
    for order in (steps, steps[::-1], steps):
        arrive(storage, session(), *order)
        named = {span.label: span for span in spans_of(storage).values() if span.schema_name == "agent"}
        assert [(named[name].input_tokens, named[name].output_tokens) for name in ("outer", "inner")] == [
            (150, 20),
            (50, 10),
        ]
        outer, inner = named["outer"].cost_usd, named["inner"].cost_usd
        assert outer is not None
        assert inner is not None
        assert outer > inner > 0
        assert json.loads(named["outer"].result_payload or "")["output"] == "ok"


def test_a_session_of_a_sub_agent_is_in_the_run_of_the_one_that_started_it(storage: Storage) -> None:
    child = session("c", parent=("s", "task"), name="helper", goal="look")
    deeper = session("d", parent=("c", None), name="deeper")
    arrive(storage, session(), tool("task", 2, output="ok"), child, llm("l", 3, session="c"))
    note(storage, "c", run_of(storage).id)
    arrive(storage, deeper, llm("m", 4, session="d", tokens=7))
    assert len([*scan(storage, AgentInstanceRow)]) == 1
    spans = {span.label or span.schema_name: span for span in spans_of(storage).values()}
    by_id = {span.id: span for span in spans_of(storage).values()}
    helper, inner = spans["helper"], spans["deeper"]
    assert by_id[helper.parent_span_id or ""].schema_name == "tool"
    assert inner.parent_span_id == helper.id
    assert (helper.input_tokens, inner.input_tokens) == (107, 7)


def note(storage: Storage, session: str, run: str) -> None:
    """Note a file of a session, as an importer does."""
    ctx = Context(storage)
    now = "2026-01-01T00:00:00.000000Z"
    row = SessionFileRow(ctx.ids.new(), "toy", f"/{session}", session, "k0", run, 1, 1, 1, "", "{}", now, now)
    storage.apply([Unit((Put(row),))])


def test_a_fork_has_only_what_its_origin_has_not(storage: Storage) -> None:
    shared = [llm("k0", 1), llm("k1", 2)]
    arrive(storage, session(first="k0"), *shared)
    note(storage, "s", run_of(storage).id)
    copied = [each._replace(session="f") for each in shared]
    done = arrive(storage, session("f", first="k0", conversation="s"), *copied, llm("k2", 3, session="f"))
    assert (done.inherited, done.spans) == (2, 1)
    assert (len(spans_of(storage, "toy:f")), run_of(storage, "toy:f").session) == (1, "s")


def test_unknown_records_are_kept_and_counted(storage: Storage) -> None:
    record = {"type": "new-thing", "x": [1, 2]}
    done = arrive(
        storage, session(), unknown("s", "u", None, "new-thing", T0, record), Unread("s", "record of type new-thing")
    )
    (span,) = spans_of(storage).values()
    assert json.loads(span.payload) == {"name": "new-thing", "level": "unknown", "content": record}
    assert span.schema_name == "unknown:event"
    assert dict(done.unread) == {"record of type new-thing": 1}


def test_models_without_a_price_are_named_and_stated_costs_compared(storage: Storage) -> None:
    own = llm("a", 1)._replace(payload={"model": "nobody-9"})
    stated = llm("b", 2)
    stated = stated._replace(result={**(stated.result or {}), "stated_cost_usd": 0.5})
    done = arrive(storage, session(), own, stated)
    assert dict(done.no_price) == {"nobody-9": 1}
    assert done.stated["gpt-4o"][0] == 0.5
    assert done.cost_usd == done.stated["gpt-4o"][1] > 0
    assert [span.cost_usd for span in spans_of(storage).values() if span.label == "nobody-9"] == [None]


@pytest.mark.parametrize("order", [*itertools.permutations(range(3))])
def test_the_order_of_steps_does_not_matter(storage: Storage, order: Iterable[int]) -> None:
    steps = [llm("a", 1), tool("t", 1, parent="a", output="x"), tool("u", 2, parent="t", output="y")]
    arrive(storage, session(), *(steps[at] for at in order))
    by_id = {span.id: span for span in spans_of(storage).values()}
    above = [by_id[span.parent_span_id].label if span.parent_span_id else None for span in by_id.values()]
    assert sorted(map(str, above)) == ["Bash", "None", "gpt-4o"]


def test_a_session_that_is_over_ends_its_run_even_while_its_file_is_written(storage: Storage) -> None:
    arrive(storage, session(is_over=True), llm("a", 1), live=True)
    assert run_of(storage).status == "complete"
    arrive(storage, session("t"), llm("b", 1, session="t"), live=True)
    assert run_of(storage, "toy:t").status == "active"


def prompt(key: str, at: int, content: object) -> Step:
    """Return a prompt of a person."""
    start = T0 + at * SECOND
    return Step("s", key, None, "message", start, start, "complete", {"role": "user", "content": content})


@pytest.mark.parametrize("times", [1, 2])
def test_steps_without_an_end_are_cancelled_when_their_session_has_ended(storage: Storage, times: int) -> None:
    """A tool that was running when its program was killed does not run for ever."""
    arrive(storage, session(), tool("t", 1), live=True)
    assert [span.status for span in spans_of(storage).values()] == ["active"]
    for ended in range(times):
        arrive(storage, session(ended_ns=T0 + (60 + ended) * SECOND), tool("t", 1))
    (span,) = spans_of(storage).values()
    assert (span.status, span.finished_at) == ("cancelled", span.started_at)
    arrive(storage, session(ended_ns=T0 + 90 * SECOND), tool("t", 1, output="made"))
    assert [span.status for span in spans_of(storage).values()] == ["complete"]


def test_a_session_without_a_title_has_the_one_of_its_first_prompt(storage: Storage) -> None:
    blocks = [{"type": "image", "source": {}}, {"type": "text", "text": "fix\n the   cart"}]
    prompts = prompt("p1", 1, blocks), prompt("p2", 2, "thanks")
    arrive(storage, session(metadata={"cwd": "/work/shop"}), *prompts)
    assert session_title(run_of(storage)) == "shop: fix the cart"
    arrive(storage, session(metadata={"cwd": "/work/shop"}))
    assert session_title(run_of(storage)) == "shop: fix the cart"
    arrive(storage, session(metadata={"cwd": "C:\\work\\shop\\", "title": "Cart"}))
    assert session_title(run_of(storage)) == "shop: Cart"


def test_what_turns_out_to_be_no_prompt_is_no_title(storage: Storage) -> None:
    about = prompt("p0", 1, "<environment>")
    arrival = Arrival(Context(storage))
    arrival.take("toy", [session(), about])
    arrival.finish(live=True)
    arrival.forget()
    arrival.take("toy", [session(), about._replace(payload={"role": "system", "content": "<environment>"})])
    arrival.take("toy", [prompt("p1", 2, "fix the cart")])
    arrival.finish(live=True)
    assert session_title(run_of(storage)) == "fix the cart"


def test_runs_of_programs_have_no_title_of_a_session(storage: Storage) -> None:
    arrive(storage, session(), prompt("p1", 1, "hello"))
    assert session_title(run_of(storage)._replace(external_identifier="mine")) is None
