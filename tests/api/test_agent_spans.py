"""The rules of a span's life by id, in both backends, each with the API's code."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time

import agentspan
from agentspan import AgentInstance, AgentSpan, Database, ids
from agentspan.model.rows import DERIVED
from agentspan.storage.questions import Select

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
NOTHINGS: list[Any] = [None, {}, [], 7, ""]


@pytest.fixture
def run(db: Database) -> AgentInstance:
    return db.agent_instances.register("an-agent")


def make(db: Database, run: AgentInstance, status: Any = "active", **values: Any) -> AgentSpan:
    return db.agent_spans.create(run.id, "tool", status, {"name": "x"}, **values)


def code_of(call: Any) -> str:
    with pytest.raises(agentspan.AgentspanError) as caught:
        call()
    return caught.value.code


@pytest.mark.parametrize(
    ("status", "started", "finished"),
    [
        ("pending", False, False),
        ("active", True, False),
        ("complete", True, True),
        ("failed", True, True),
        ("cancelled", True, True),
    ],
)
def test_a_span_can_be_created_in_any_status(
    db: Database, run: AgentInstance, status: str, started: bool, finished: bool
) -> None:
    span = make(db, run, status)
    assert span.status == status
    assert (span.started_at is not None, span.finished_at is not None) == (started, finished)
    assert (span.duration_ms is not None) == finished
    assert span == db.agent_spans.get(span.id)
    assert ids.is_pfid(span.id)


def test_the_fields_of_a_span_are_the_apis(db: Database, run: AgentInstance) -> None:
    with freeze_time(NOW):
        span = make(db, run)
    assert span.model_dump(mode="json") == {
        "type": "agent_span",
        "id": span.id,
        "account_id": run.account_id,
        "agent_id": run.agent_id,
        "agent_instance_id": run.id,
        "parent_span_id": None,
        "schema_name": "tool",
        "schema_title": "Tool",
        "status": "active",
        "payload": {"name": "x"},
        "result_payload": None,
        "started_at": "2026-01-01T12:00:00Z",
        "finished_at": None,
        "inserted_at": "2026-01-01T12:00:00Z",
        "updated_at": "2026-01-01T12:00:00Z",
        "duration_ms": None,
        "writer_id": None,
        "closed_by": None,
        "closed_at": None,
        "ended_late": False,
        "purpose": "live",
        "payload_byte_size_estimate": 12,
        "risk_level": None,
        "risk_score": None,
        "sensitive_encoding": False,
        **dict.fromkeys(DERIVED),
        "summary": "Tool x()",
        "label": "x",
        "is_aggregate": False,
    }


@pytest.mark.parametrize(
    ("before", "status", "allowed"),
    [
        ("pending", "complete", False),
        ("pending", "failed", False),
        ("pending", "cancelled", True),
        ("active", None, True),
        ("active", "complete", True),
        ("active", "failed", True),
        ("active", "cancelled", False),
        *[
            (before, status, False)
            for before in ("complete", "failed", "cancelled")
            for status in (None, "failed", "cancelled")
        ],
    ],
)
def test_finish_follows_the_transition_table(
    db: Database, run: AgentInstance, before: str, status: Any, allowed: bool
) -> None:
    span = make(db, run, before)
    if allowed:
        done = db.agent_spans.finish(span.id, status, {"output": 1})
        assert done.status == (status or "complete")
        assert done.result_payload == {"output": 1}
    else:
        assert code_of(lambda: db.agent_spans.finish(span.id, status, {"output": 1})) == "invalid_action"
        assert db.agent_spans.get(span.id) == span


@pytest.mark.parametrize("status", ["pending", "active", "terminated", "done", "", 1, ["complete"]])
def test_finish_takes_terminal_statuses_only(db: Database, run: AgentInstance, status: Any) -> None:
    span = make(db, run)
    assert code_of(lambda: db.agent_spans.finish(span.id, status)) == "invalid_value"
    assert db.agent_spans.get(span.id) == span


def test_a_refused_finish_says_which_status_it_needs(db: Database, run: AgentInstance) -> None:
    active, pending = make(db, run).id, make(db, run, "pending").id
    with pytest.raises(agentspan.InvalidAction, match=f"{active} is active: only a pending one can become cancelled"):
        db.agent_spans.finish(active, "cancelled")
    with pytest.raises(agentspan.InvalidAction, match=f"{pending} is pending: only an active one can become complete"):
        db.agent_spans.finish(pending, "complete")


@pytest.mark.parametrize("before", ["active", "complete", "failed", "cancelled"])
def test_only_a_pending_span_starts(db: Database, run: AgentInstance, before: str) -> None:
    span = make(db, run, before)
    assert code_of(lambda: db.agent_spans.start(span.id)) == "invalid_action"
    assert db.agent_spans.get(span.id) == span


def test_a_pending_span_starts_now_or_at_a_time(db: Database, run: AgentInstance) -> None:
    with freeze_time(NOW):
        first, second = make(db, run, "pending"), make(db, run, "pending")
        assert first.started_at is None
        assert db.agent_spans.start(first.id).started_at == NOW
        at = NOW - timedelta(hours=1)
        assert db.agent_spans.start(second.id, at).started_at == at


def test_cancelling_sets_both_timestamps(db: Database, run: AgentInstance) -> None:
    with freeze_time(NOW):
        first, second = make(db, run, "pending"), make(db, run, "pending")
        now = db.agent_spans.finish(first.id, "cancelled")
        then = db.agent_spans.finish(second.id, "cancelled", timestamp="2026-01-01T10:00:00Z")
    assert (now.started_at, now.finished_at) == (NOW, NOW)
    assert then.started_at == then.finished_at == NOW - timedelta(hours=2)
    assert then.duration_ms == 0


def test_a_finish_up_to_a_minute_before_the_start_counts_as_the_start(db: Database, run: AgentInstance) -> None:
    early, too_early = make(db, run, started_at=NOW), make(db, run, started_at=NOW)
    done = db.agent_spans.finish(early.id, timestamp=NOW - timedelta(seconds=60))
    assert (done.finished_at, done.duration_ms) == (NOW, 0)
    late = NOW - timedelta(seconds=60, microseconds=1)
    assert code_of(lambda: db.agent_spans.finish(too_early.id, timestamp=late)) == "invalid_value"
    assert db.agent_spans.get(too_early.id).status == "active"


def test_the_clock_going_back_does_not_end_a_span_before_it_began(db: Database, run: AgentInstance) -> None:
    with freeze_time(NOW):
        span = make(db, run)
    with freeze_time(NOW - timedelta(days=1)):
        done = db.agent_spans.finish(span.id)
    assert (done.finished_at, done.duration_ms) == (NOW, 0)


@pytest.mark.parametrize(
    "time",
    ["2026-01-01T12:00:00", "2026-01-01", "noon", "2026-13-01T00:00:00Z", 1767268800, datetime(2026, 1, 1), b"x", {}],
)
def test_a_time_without_an_offset_is_refused_everywhere(db: Database, run: AgentInstance, time: Any) -> None:
    active, pending = make(db, run), make(db, run, "pending")
    assert code_of(lambda: db.agent_spans.finish(active.id, timestamp=time)) == "invalid_value"
    assert code_of(lambda: db.agent_spans.start(pending.id, time)) == "invalid_value"
    assert code_of(lambda: make(db, run, started_at=time)) == "invalid_value"
    assert code_of(lambda: make(db, run, "complete", finished_at=time)) == "invalid_value"
    assert code_of(lambda: db.agent_spans.list(run.id, start_time=time)) == "invalid_value"


def test_offsets_are_converted(db: Database, run: AgentInstance) -> None:
    berlin = timezone(timedelta(hours=1))
    assert make(db, run, started_at=NOW.astimezone(berlin)).started_at == NOW
    assert make(db, run, started_at="2026-01-01T13:00:00.000000+01:00").started_at == NOW


def test_a_span_that_is_not_finished_has_no_finish_and_no_result(db: Database, run: AgentInstance) -> None:
    for status in ("pending", "active"):
        assert code_of(lambda s=status: make(db, run, s, finished_at=NOW)) == "invalid_value"
        assert code_of(lambda s=status: make(db, run, s, result_payload={})) == "invalid_value"
    assert make(db, run, "pending", started_at=NOW).started_at is None


def test_a_finished_span_is_created_with_its_times(db: Database, run: AgentInstance) -> None:
    span = make(
        db,
        run,
        "failed",
        result_payload={"error": {"type": "E"}},
        started_at=NOW,
        finished_at=NOW + timedelta(seconds=2),
    )
    assert (span.started_at, span.duration_ms) == (NOW, 2000)
    assert (
        code_of(lambda: make(db, run, "complete", started_at=NOW, finished_at=NOW - timedelta(hours=1)))
        == "invalid_value"
    )
    with freeze_time(NOW):
        only_finish = make(db, run, "complete", finished_at=NOW - timedelta(hours=1))
        cancelled = make(db, run, "cancelled", finished_at=NOW - timedelta(hours=1))
    assert only_finish.started_at == only_finish.finished_at == NOW - timedelta(hours=1)
    assert cancelled.started_at == cancelled.finished_at == NOW - timedelta(hours=1)


def test_ids_that_name_nothing_are_not_found(db: Database, run: AgentInstance) -> None:
    span, unknown = make(db, run), "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
    for id in (unknown, "", "x", unknown.upper()):
        assert code_of(lambda id=id: db.agent_spans.get(id)) == "not_found"
        assert code_of(lambda id=id: db.agent_spans.finish(id)) == "not_found"
        assert code_of(lambda id=id: db.agent_spans.start(id)) == "not_found"
        assert code_of(lambda id=id: db.agent_spans.list(id)) == "not_found"
        assert code_of(lambda id=id: db.agent_spans.create(id, "tool", "active")) == "not_found"
        assert code_of(lambda id=id: make(db, run, parent_span_id=id)) == "not_found"
    assert code_of(lambda: db.agent_spans.get(None)) == "not_found"  # type: ignore[arg-type]
    assert db.agent_spans.list(run.id).summaries == [span.model_copy(update={"summary": None})]


def test_ids_of_another_type_are_said_to_be(db: Database, run: AgentInstance) -> None:
    span = make(db, run)
    assert code_of(lambda: db.agent_spans.get(run.id)) == "unexpected_ref_type"
    assert code_of(lambda: db.agent_spans.finish(run.agent_id)) == "unexpected_ref_type"
    assert code_of(lambda: db.agent_spans.create(span.id, "tool", "active")) == "unexpected_ref_type"
    assert code_of(lambda: make(db, run, parent_span_id=run.id)) == "unexpected_ref_type"
    assert code_of(lambda: db.agent_spans.list(run.agent_schema_version_id)) == "unexpected_ref_type"
    with pytest.raises(LookupError, match="is the id of an agent instance, not of an agent span"):
        db.agent_spans.get(run.id)


def test_a_clients_own_id_is_a_pfid_of_any_partition_and_unused(db: Database, run: AgentInstance) -> None:
    own = "013xrzp12g3nqk8n4evtrcj59k8dhn3t"
    assert make(db, run, id=own).id == own
    for used in (own, run.id, run.agent_id):
        assert code_of(lambda used=used: make(db, run, id=used)) == "invalid_value"
    for bad in ("x", own.upper(), own + "0", "813xrzp12g3nqk8n4evtrcj59k8dhn3t", 1):
        assert code_of(lambda bad=bad: make(db, run, id=bad)) == "invalid_value"


def test_missing_values_are_required_values(db: Database, run: AgentInstance) -> None:
    none: Any = None
    assert code_of(lambda: db.agent_spans.create(none, "tool", "active")) == "required_value"
    assert code_of(lambda: db.agent_spans.create(run.id, none, "active")) == "required_value"
    assert code_of(lambda: db.agent_spans.create(run.id, "tool", none)) == "required_value"
    assert code_of(lambda: db.agent_spans.list(none)) == "required_value"


@pytest.mark.parametrize("payload", [[], "x", 1, {"a": float("nan")}, {"a": float("inf")}, {"a": object()}])
def test_a_payload_is_a_json_object(db: Database, run: AgentInstance, payload: Any) -> None:
    assert code_of(lambda: db.agent_spans.create(run.id, "tool", "active", payload)) == "invalid_value"


def test_no_error_has_a_payloads_value_in_it(db: Database, run: AgentInstance) -> None:
    secret = "hunter2-hunter2"
    for payload in ({"a": {secret, object()}}, {"a": [secret, float("nan")]}, secret):
        with pytest.raises(agentspan.InvalidValue) as caught:
            db.agent_spans.create(run.id, "tool", "active", payload)  # type: ignore[arg-type]
        assert secret not in str(caught.value)


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb", "a\x00", 1])
def test_a_schema_name_is_printable(db: Database, run: AgentInstance, name: Any) -> None:
    assert code_of(lambda: db.agent_spans.create(run.id, name, "active")) == "invalid_value"


def test_payloads_may_be_left_out(db: Database, run: AgentInstance) -> None:
    assert db.agent_spans.create(run.id, "whatever", "active").payload == {}


def test_json_of_every_kind_comes_back(db: Database, run: AgentInstance) -> None:
    payload = {
        "a": [1, 2.5, True, None, "é\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")],
        "": {},
        "big": 10**40,
    }
    payload["lone"] = "\ud800"
    assert db.agent_spans.create(run.id, "custom", "active", payload).payload == payload


def test_a_span_may_be_created_whatever_its_instance_is(db: Database, run: AgentInstance) -> None:
    make(db, run)
    db.agent_instances.start(run.id)
    db.agent_instances.finish(run.id)
    late = make(db, run)
    assert db.agent_spans.finish(late.id).status == "complete"
    assert [span.status for span in db.agent_spans.list(run.id)] == ["active", "complete"]


def test_a_mismatch_is_recorded_and_does_not_block(db: Database, run: AgentInstance) -> None:
    span = db.agent_spans.create(run.id, "llm", "active", {"model": 7, "messages": "hi"})
    db.agent_spans.finish(span.id, result_payload={"input_tokens": "many"})
    found = {(v.side, v.path, v.keyword) for v in db.agent_spans.violations(span.id)}
    assert found == {
        ("payload", "$.model", "type"),
        ("payload", "$.messages", "type"),
        ("result_payload", "$.input_tokens", "type"),
    }
    assert db.agent_spans.get(span.id).status == "complete"


def test_strict_schemas_refuse_a_mismatch(db: Database, run: AgentInstance) -> None:
    strict = agentspan.open(db.storage, strict_schemas=True)
    assert code_of(lambda: strict.agent_spans.create(run.id, "llm", "active", {})) == "validation_errors"
    span = strict.agent_spans.create(run.id, "llm", "active", {"model": "m"})
    with pytest.raises(agentspan.ValidationErrors) as caught:
        strict.agent_spans.finish(span.id, result_payload={"input_tokens": "hunter2"})
    assert caught.value.problems == ("$.input_tokens: is not of type integer",)
    assert "hunter2" not in str(caught.value)
    assert db.agent_spans.get(span.id).status == "active"
    assert db.agent_spans.violations(span.id) == []


def test_a_list_is_paged_with_the_apis_pagination(db: Database, run: AgentInstance) -> None:
    spans = [make(db, run) for _ in range(5)]
    page = db.agent_spans.list(run.id, offset=2, page_size=2, include_summaries=True)
    assert [span.id for span in page] == [span.id for span in spans[2:4]]
    assert page[0].summary == "Tool x()"
    assert page.pagination == type(page.pagination)(
        item_count=5,
        item_start=3,
        item_end=4,
        page_count=3,
        page_index=2,
        page_offset=2,
        page_size=2,
        next_page_offset=4,
        previous_page_offset=0,
    )
    assert db.agent_spans.list(run.id)[0].summary is None
    assert [s.id for s in db.agent_spans.list(run.id, sorting="-started_at", page_size=1)] == [spans[-1].id]


def test_a_list_is_cut_by_a_half_open_time_range(db: Database, run: AgentInstance) -> None:
    hours = [make(db, run, started_at=NOW + timedelta(hours=hour)) for hour in range(4)]
    found = db.agent_spans.list(run.id, NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    assert [span.id for span in found] == [span.id for span in hours[1:3]]


@pytest.mark.parametrize(
    "bad",
    [
        {"page_size": 0},
        {"page_size": 101},
        {"offset": -1},
        {"sorting": "payload"},
        {"sorting": "-"},
        {"page_size": "5"},
    ],
)
def test_a_page_that_makes_no_sense_is_refused(db: Database, run: AgentInstance, bad: Any) -> None:
    assert code_of(lambda: db.agent_spans.list(run.id, **bad)) == "invalid_value"


def test_nothing_is_cut_and_nothing_redacted(db: Database, run: AgentInstance) -> None:
    payload = {"text": "x" * 300_000, "list": list(range(11_000)), "password": "hunter2", "note": "sk-" + "a" * 40}
    span = db.agent_spans.create(run.id, "tool", "active", payload)
    assert db.agent_spans.finish(span.id, result_payload=payload).result_payload == payload
    assert db.agent_spans.get(span.id).payload == payload


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ({"error_type": "TimeoutError", "message": "read timed out"}, "TimeoutError: read timed out"),
        ({"type": "shop.KeyError", "message": "'a.b'"}, "KeyError: 'a.b'"),
        ({"type": "asyncio.exceptions.CancelledError", "message": ""}, "CancelledError"),
        ({"message": "read timed out"}, "read timed out"),
        ("read timed out", "read timed out"),
    ],
)
def test_the_error_in_the_payload_of_a_failed_span_without_a_result_is_its_error(
    db: Database, run: AgentInstance, error: Any, text: str
) -> None:
    payload = {"name": "fetch", "inputs": {}, "error": error}
    failed = db.agent_spans.create(run.id, "tool", "failed", payload)
    assert failed.payload == payload
    assert failed.result_payload == {"error": error}
    assert str(failed.summary).endswith(f"→ {text}")
    if Select in db.storage.capabilities().answers:
        assert db.storage.ask(Select("select error from spans")).rows == [(text,)]
    for status, own in (("complete", None), ("failed", {"output": 1})):
        other = db.agent_spans.create(run.id, "tool", status, payload, result_payload=own)  # type: ignore[arg-type]
        assert other.result_payload == own
    for nothing in NOTHINGS:
        empty = db.agent_spans.create(run.id, "tool", "failed", {"name": "x", "error": nothing})
        assert empty.result_payload is None
