"""The official Python clients, unchanged, against a real server: every method, every error, and the queue's races."""

import asyncio
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("prefactor_core", reason="needs prefactor-core")
pytest.importorskip("prefactor_http", reason="needs prefactor-http")

from prefactor_core import PrefactorCoreClient, PrefactorCoreConfig, QueueConfig, SchemaRegistry, SpanContext
from prefactor_core.exceptions import PrefactorTelemetryFailureError
from prefactor_core.managers.agent_instance import AgentInstanceHandle
from prefactor_http.client import PrefactorHttpClient as Client
from prefactor_http.config import HttpClientConfig
from prefactor_http.exceptions import (
    PrefactorApiError,
    PrefactorAuthError,
    PrefactorNotFoundError,
    PrefactorRetryExhaustedError,
    PrefactorValidationError,
)
from prefactor_http.models import AgentForCreate, AgentForUpdate, BulkItem, BulkRequest

import agentspan
from agentspan import ids
from tests.serve.servers import Api, Server

VERSION = {"name": "Version 1", "external_identifier": "1.0", "description": "the first"}
SCHEMA = {
    "external_identifier": "schema-1",
    "span_type_schemas": [
        {
            "name": "agent:llm",
            "title": "LLM call",
            "params_schema": {"type": "object", "properties": {"model": {"type": "string"}}},
            "result_schema": {"type": "object"},
            "template": "{{model}} said {{text}}",
            "data_risk": {"action_profile": {}, "params_data_categories": {}, "result_data_categories": {}},
        }
    ],
    "quality_schemas": [
        {"name": "verdict", "schema": {"type": "object", "required": ["score"]}, "template": "score {{score}}"}
    ],
}


def talk(
    server: Server, scene: Callable[[Client], Coroutine[Any, Any, None]], token: str = "any", **config: Any
) -> None:
    """Let a scene talk to a server through the client."""

    async def main() -> None:
        async with Client(HttpClientConfig(server.url, token, **config)) as client:
            await scene(client)

    asyncio.run(main())


def key() -> str:
    return str(uuid.uuid4())


async def started(client: Client, agent: str) -> str:
    """A started instance's id."""
    instance = await client.agent_instances.register(VERSION, SCHEMA, agent_id=agent)
    await client.agent_instances.start(instance.id)
    return instance.id


def test_an_agent_lives_through_every_method_of_the_client(server: Server, agent: str) -> None:
    async def scene(client: Client) -> None:
        agents = client.agents
        made = await agents.create(
            AgentForCreate(name="Finder", description="finds", external_identifier=agent, team_id="ignored"), key()
        )
        assert (made.status, made.name, made.external_identifier) == ("pending", "Finder", agent)
        assert made.available_actions is not None
        assert made.available_actions.delete
        assert await agents.get(made.id) == made

        changed = await agents.update(made.id, AgentForUpdate(name="Seeker"), key())
        assert (changed.name, changed.description) == ("Seeker", "finds")
        assert (await agents.show(external_identifier=agent, include_counts=True)).id == made.id
        assert (await agents.show(agent_id=made.id)).instance_counts == made.instance_counts

        listed = await agents.list_agents(sorting="-inserted_at", offset=0, page_size=100)
        assert [item.name for item in listed if item.id == made.id] == ["Seeker"]

        retired = await agents.retire(made.id, key())
        assert retired.status == "retired"
        assert retired.available_actions is not None
        assert retired.available_actions.reinstate
        assert (await agents.reinstate(made.id, key())).status == "pending"
        assert (await agents.retire(made.id)).status == "retired"
        assert (await agents.reinstate(made.id)).status == "pending"
        assert (await agents.delete(made.id, key())).id == made.id
        with pytest.raises(PrefactorNotFoundError):
            await agents.get(made.id)

    talk(server, scene)


def test_an_instance_lives_through_every_method_of_the_client(server: Server, agent: str) -> None:
    async def scene(client: Client) -> None:
        instances = client.agent_instances
        own, at = ids.IdSource(7).new(), datetime.now(UTC) - timedelta(seconds=5)
        made = await instances.register(
            VERSION, SCHEMA, agent_id=agent, environment_id="env", id=own, idempotency_key=key(),
            purpose="eval", external_identifier="run-1",
        )  # fmt: skip
        assert (made.id, made.status, made.purpose, made.external_identifier) == (own, "pending", "eval", "run-1")
        assert made.started_at is None
        begun = await instances.start(own, at, key())
        assert (begun.status, begun.started_at) == ("active", at)
        judged = await instances.record_quality(own, "verdict", {"score": 3}, key())
        assert (judged.quality_payloads, judged.quality_summaries) == (
            {"verdict": {"score": 3}},
            {"verdict": "score 3"},
        )
        assert (await instances.record_quality(own, "verdict")).quality_payloads == {}
        ended = await instances.finish(own, "failed", at + timedelta(seconds=2), key())
        assert (ended.status, ended.finished_at) == ("failed", at + timedelta(seconds=2))
        assert await instances.get(own) == ended

    talk(server, scene)


def test_an_instance_needs_no_more_than_the_client_must_say(server: Server, agent: str) -> None:
    async def scene(client: Client) -> None:
        instance = await client.agent_instances.register({}, {}, agent_id=agent)
        await client.agent_instances.start(instance.id)
        assert (await client.agent_instances.finish(instance.id)).status == "complete"

    talk(server, scene)


def test_spans_are_created_and_finished_with_all_that_the_client_can_say(server: Server, agent: str) -> None:
    async def scene(client: Client) -> None:
        run = await started(client, agent)
        spans, at = client.agent_spans, datetime.now(UTC) - timedelta(seconds=9)
        own = ids.IdSource(7).new()
        parent = await spans.create(
            run, "agent:llm", "active", {"model": "m"}, id=own, started_at=at, idempotency_key=key()
        )
        assert (parent.id, parent.started_at, parent.schema_title, parent.status) == (own, at, "LLM call", "active")
        child = await spans.create(run, "unknown:type", "pending", parent_span_id=own)
        assert (child.parent_span_id, child.payload, child.started_at) == (own, {}, None)
        assert (await spans.finish(child.id, "cancelled")).status == "cancelled"
        whole = await spans.create(
            run, "agent:llm", "failed", {"model": "m"}, {"text": "no"}, started_at=at, finished_at=at
        )
        assert (whole.status, whole.result_payload, whole.finished_at) == ("failed", {"text": "no"}, at)
        done = await spans.finish(own, None, {"text": "yes"}, at + timedelta(seconds=1), key())
        assert (done.status, done.summary) == ("complete", "m said yes")
        assert done.finished_at == at + timedelta(seconds=1)
        counts = (await client.agent_instances.get(run)).span_counts
        assert counts is not None
        assert (counts.total, counts.complete, counts.failed, counts.cancelled) == (3, 1, 1, 1)

    talk(server, scene)


def test_a_bulk_request_of_the_client_holds_every_type_of_action(server: Server, agent: str) -> None:
    run, span, made = (ids.IdSource(7).new() for _ in range(3))
    said: list[tuple[str, dict[str, Any]]] = [
        ("agents/create", {"details": {"name": "bulk", "id": made}}),
        ("agents/update", {"agent_id": made, "details": {"name": "changed"}}),
        ("agents/show", {"agent_id": made}),
        ("agents/list", {"pagination": {"offset": 0, "page_size": 1}, "sorting": "-id"}),
        (
            "agent_instances/register",
            {"agent_id": agent, "agent_version": VERSION, "agent_schema_version": SCHEMA, "id": run},
        ),
        ("agent_instances/start", {"agent_instance_id": run}),
        (
            "agent_spans/create",
            {"agent_instance_id": run, "schema_name": "agent:llm", "status": "active", "id": span},
        ),
        ("agent_spans/finish", {"agent_span_id": span, "result_payload": {"text": "t"}}),
        ("agent_spans/list", {"agent_instance_id": run, "include_summaries": True}),
        ("agent_instances/record_quality", {"agent_instance_id": run, "name": "verdict", "payload": {"score": 1}}),
        ("agent_instances/finish", {"agent_instance_id": run}),
    ]

    async def scene(client: Client) -> None:
        items = [BulkItem(_type=type_, idempotency_key=key(), **fields) for type_, fields in said]
        answer = await client.bulk.execute(BulkRequest(items=items))
        outputs = [answer.outputs[item.idempotency_key] for item in items]
        assert [output.status for output in outputs] == ["success"] * len(said), outputs
        assert outputs[2].model_extra is not None
        assert outputs[2].model_extra["details"]["name"] == "changed"
        assert (await client.agent_instances.get(run)).status == "complete"

        refused = [
            BulkItem(_type="agents/show", idempotency_key="a-label-1", agent_id=made),
            BulkItem(_type="agent_spans/finish", idempotency_key=key(), agent_span_id=span),
            BulkItem(_type="agents/list", idempotency_key="a-label-2"),
        ]
        stopped = await client.bulk.execute(BulkRequest(items=refused))
        assert [output.status for output in stopped.outputs.values()] == ["success", "error"]

    talk(server, scene)


def test_a_token_is_validated(server: Server, guarded: Server) -> None:
    async def right(client: Client) -> None:
        answer = await client.validate_token()
        assert answer["status"] == "success"

    async def wrong(client: Client) -> None:
        with pytest.raises(PrefactorAuthError) as caught:
            await client.validate_token()
        assert (caught.value.status_code, caught.value.code) == (401, "bad_authtoken")

    talk(guarded, right, "s3cret-token")
    talk(guarded, wrong, "another")
    talk(server, right, "whatever a client is configured with")


def test_refusals_arrive_as_the_clients_own_exceptions(server: Server, agent: str) -> None:
    async def scene(client: Client) -> None:
        run = await started(client, agent)
        span = await client.agent_spans.create(run, "agent:llm", "pending")
        nobody = ids.IdSource(7).new()

        with pytest.raises(PrefactorNotFoundError) as missing:
            await client.agent_spans.finish(nobody)
        assert (missing.value.status_code, missing.value.code) == (404, "not_found")

        with pytest.raises(PrefactorApiError) as forbidden:
            await client.agent_spans.finish(span.id, "complete")
        assert (forbidden.value.status_code, forbidden.value.code) == (409, "invalid_action")
        with pytest.raises(PrefactorApiError) as undeletable:
            await client.agents.delete((await client.agent_instances.get(run)).agent_id)
        assert undeletable.value.code == "invalid_action"

        with pytest.raises(PrefactorValidationError) as unparsed:
            await client.agent_spans.create(run, "agent:llm", "terminated")
        assert (unparsed.value.status_code, unparsed.value.code) == (422, "validation_errors")
        assert set(unparsed.value.errors) == {"details.status"}
        with pytest.raises(PrefactorValidationError) as mistaken:
            await client.agent_spans.finish(run)
        assert mistaken.value.code == "unexpected_ref_type"

        used = key()
        await client.agent_spans.create(run, "agent:llm", "active", {"n": 1}, idempotency_key=used)
        with pytest.raises(PrefactorApiError) as reused:
            await client.agent_spans.create(run, "agent:llm", "active", {"n": 2}, idempotency_key=used)
        assert (reused.value.status_code, reused.value.code) == (409, "idempotency_key_already_used")

    talk(server, scene)


def test_a_request_that_is_sent_again_with_its_key_changes_nothing(server: Server, agent: str) -> None:
    async def scene(client: Client) -> None:
        instances, spans, keys = client.agent_instances, client.agent_spans, [key() for _ in range(6)]
        at = datetime.now(UTC)

        async def play() -> list[Any]:
            run = await instances.register(VERSION, SCHEMA, agent_id=agent, idempotency_key=keys[0])
            begun = await instances.start(run.id, at, keys[1])
            span = await spans.create(run.id, "agent:llm", "active", {"n": 1}, idempotency_key=keys[2])
            done = await spans.finish(span.id, "complete", {"n": 2}, at + timedelta(seconds=9), keys[3])
            await instances.record_quality(run.id, "verdict", {"score": 1}, keys[4])
            await instances.finish(run.id, "complete", at + timedelta(seconds=10), keys[5])
            return [run.id, begun.id, span.id, done, await instances.get(run.id)]

        assert await play() == await play()

    talk(server, scene)


@pytest.mark.parametrize("step", ["create", "finish"])
def test_the_next_span_request_tells_a_client_that_its_run_was_terminated(
    server: Server, api: Api, agent: str, step: str
) -> None:
    async def scene(client: Client) -> None:
        heard: list[str | None] = []
        run = await started(client, agent)
        span = await client.agent_spans.create(run, "agent:llm", "active", control_signal_callback=heard.append)
        other = await client.agent_spans.create(run, "agent:llm", "pending", control_signal_callback=heard.append)
        assert heard == []
        assert api.post(f"/agent_instance/{run}/terminate", {"reason": "too dear"}).status_code == 200
        if step == "create":
            late = await client.agent_spans.create(run, "agent:llm", "active", control_signal_callback=heard.append)
            assert heard == ["too dear"]
            assert (await client.agent_spans.finish(late.id, control_signal_callback=heard.append)).status == "complete"
            assert heard == ["too dear"] * 2
        before = len(heard)
        for id, status in ((span.id, "complete"), (other.id, "cancelled")):  # terminating has closed them
            assert (await client.agent_spans.finish(id, status, control_signal_callback=heard.append)).status == status
            with pytest.raises(PrefactorApiError) as again:
                await client.agent_spans.finish(id, status, control_signal_callback=heard.append)
            assert again.value.code == "invalid_action"
        assert heard[before:] == ["too dear"] * 2
        instance = await client.agent_instances.finish(run)
        assert (instance.status, instance.termination_reason) == ("terminated", "too dear")

    talk(server, scene)


def test_a_busy_database_makes_the_client_try_again_and_loses_nothing(server: Server, agent: str) -> None:
    async def scene(client: Client) -> None:
        run = await started(client, agent)
        other = sqlite3.connect(server.db, isolation_level=None)
        other.execute("begin immediate")
        try:
            waiting = asyncio.create_task(client.agent_spans.create(run, "agent:llm", "active", idempotency_key=key()))
            hurried = Client(HttpClientConfig(server.url, "t", max_retries=1, initial_retry_delay=0.01))
            async with hurried:
                with pytest.raises(PrefactorRetryExhaustedError) as gave_up:
                    await hurried.agent_spans.create(run, "agent:llm", "active")
            assert isinstance(gave_up.value.last_error, PrefactorApiError)
            assert (gave_up.value.last_error.status_code, gave_up.value.last_error.code) == (503, "unknown")
        finally:
            other.execute("rollback")
            other.close()
        assert (await waiting).status == "active"
        counts = (await client.agent_instances.get(run)).span_counts
        assert counts is not None
        assert counts.total == 1

    talk(server, scene, initial_retry_delay=0.2)


def play(server: Server, scene: Callable[[PrefactorCoreClient], Coroutine[Any, Any, None]], **config: Any) -> None:
    """Let a scene talk to a server through prefactor-core."""
    made = PrefactorCoreConfig(http_config=HttpClientConfig(server.url, "any"), **config)

    async def main() -> None:
        async with PrefactorCoreClient(made) as client:
            await scene(client)

    asyncio.run(main())


async def status_of(client: PrefactorCoreClient, instance: AgentInstanceHandle, *wanted: str) -> str:
    """Wait until the queue has brought an instance into one of some states."""
    assert client._http is not None
    async with asyncio.timeout(30):
        while (found := (await client._http.agent_instances.get(instance.id)).status) not in wanted:
            await asyncio.sleep(0.01)
    return found


def test_prefactor_core_records_a_whole_run_with_nested_spans_and_quality(server: Server, agent: str) -> None:
    registry = SchemaRegistry()
    registry.register_type(
        name="agent:step", params_schema={"type": "object"}, title="Step", template="step {{n}} → {{out}}"
    )
    registry.register_quality_schema(name="verdict", schema={"type": "object"})
    runs: list[str] = []

    async def scene(client: PrefactorCoreClient) -> None:
        run = await client.create_agent_instance(VERSION, agent_id=agent, purpose="smoke_test")
        runs.append(run.id)
        await run.start()
        await status_of(client, run, "active")
        async with run.span("agent:step") as outer:
            await outer.start({"n": 1})
            async with run.span("agent:step") as inner:
                await inner.start({"n": 2})
                async with run.span("agent:step", payload={"n": 3}) as automatic:
                    automatic.set_result({"out": "c"})
                await inner.fail({"out": "b"})
            async with run.span("agent:step") as unwanted:
                await unwanted.cancel()
            await outer.complete({"out": "a"})
        left_open = await run.create_span("agent:step", payload={"n": 5})
        await run.finish_span(left_open, {"out": "e"})
        await run.record_quality("verdict", {"score": 1})
        await run.finish()

    play(server, scene, schema_registry=registry)
    with agentspan.open(server.db) as db:
        instance = db.agent_instances.get(runs[0])
        assert (instance.status, instance.purpose) == ("complete", "smoke_test")
        assert instance.quality_payloads == {"verdict": {"score": 1}}
        spans = db.agent_spans.list(runs[0], include_summaries=True, page_size=100).summaries
        by_id = {span.id: span for span in spans}
        assert [(span.summary, span.status) for span in spans] == [
            ("step 1 → a", "complete"),
            ("step 2 → b", "failed"),
            ("step 3 → c", "complete"),
            ("step →", "cancelled"),
            ("step 5 → e", "complete"),
        ]
        parents = [by_id[span.parent_span_id].payload["n"] if span.parent_span_id else None for span in spans]
        assert parents == [None, 1, 2, 1, None]


def test_prefactor_core_hears_of_a_termination_at_its_next_span(server: Server, api: Api, agent: str) -> None:
    async def scene(client: PrefactorCoreClient) -> None:
        heard = asyncio.Event()
        monitor = client._termination_monitor
        assert monitor is not None
        monitor.subscribe(heard.set)
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        await run.start()
        await status_of(client, run, "active")
        await asyncio.to_thread(api.post, f"/agent_instance/{run.id}/terminate", {"reason": "enough"})
        async with run.span("agent:llm", payload={"model": "m"}):
            pass
        await asyncio.wait_for(heard.wait(), 5)
        assert monitor.termination_reason == "enough"

    play(server, scene)


def test_prefactor_core_hears_of_a_termination_while_it_only_waits(server: Server, api: Api, agent: str) -> None:
    async def scene(client: PrefactorCoreClient) -> None:
        monitor = client._termination_monitor
        assert monitor is not None
        monitor._poll_interval = 0.05
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        await run.start()
        await status_of(client, run, "active")
        await asyncio.to_thread(api.post, f"/agent_instance/{run.id}/terminate", {"reason": "enough"})
        monitor.sync(run.id)  # what its loop does once a second
        await asyncio.wait_for(monitor.get_termination_event().wait(), 5)
        assert monitor.termination_reason == "enough"

    play(server, scene)


@pytest.mark.parametrize("polls", [False, True])
def test_prefactor_core_ends_cleanly_when_its_run_is_terminated_under_it(
    server: Server, api: Api, agent: str, polls: bool
) -> None:
    """Leaving the client raises if any of its requests was refused for good."""
    runs: list[str] = []

    async def scene(client: PrefactorCoreClient) -> None:
        monitor = client._termination_monitor
        assert monitor is not None
        if polls:
            monitor._poll_interval = 0.01
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        runs.append(run.id)
        await run.start()
        await status_of(client, run, "active")
        async with run.span("agent:llm") as outer:
            await outer.start({"n": 1})
            async with run.span("agent:llm") as inner, run.span("agent:llm") as planned:
                await inner.start({"n": 2})
                await spans_of(client, run, 2)
                await asyncio.to_thread(api.post, f"/agent_instance/{run.id}/terminate", {"reason": "enough"})
                await planned.start({"n": 3})
                await planned.complete({"text": "c"})
                await inner.fail({"text": "b"})
            await outer.complete({"text": "a"})
        await run.finish()

    play(server, scene)
    with agentspan.open(server.db) as db:
        run = db.agent_instances.get(runs[0])
        assert (run.status, run.ended_late, run.termination_reason) == ("terminated", True, "enough")
        ends = {span.payload["n"]: span for span in db.agent_spans.list(runs[0])}
        assert {n: (span.status, span.result_payload, span.ended_late) for n, span in ends.items()} == {
            1: ("complete", {"text": "a"}, True),
            2: ("failed", {"text": "b"}, True),
            3: ("complete", {"text": "c"}, False),
        }


async def spans_of(client: PrefactorCoreClient, instance: AgentInstanceHandle, number: int) -> None:
    """Wait until the queue has sent the spans of an instance."""
    assert client._http is not None
    async with asyncio.timeout(30):
        while True:
            counts = (await client._http.agent_instances.get(instance.id)).span_counts
            if counts is not None and counts.total >= number:
                return
            await asyncio.sleep(0.01)


@pytest.mark.full
def test_the_workers_of_prefactor_core_race_and_nothing_is_lost(server: Server, agent: str) -> None:
    spans, at_once = 600, 30
    runs: list[str] = []

    async def scene(client: PrefactorCoreClient) -> None:
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        runs.append(run.id)
        await run.start()  # queued, while the first spans are on their way
        turns = asyncio.Semaphore(at_once)

        async def step(number: int) -> None:
            async with turns, run.span("agent:llm") as span:
                if number % 10 == 0:
                    await span.cancel()
                    return
                await span.start({"model": "m", "n": number})
                if number % 10 == 1:
                    await span.fail({"text": "no", "n": number})
                else:
                    await span.complete({"text": "yes", "n": number})

        await asyncio.gather(*(asyncio.create_task(step(number)) for number in range(spans)))
        await run.finish()

    play(server, scene)  # raises when anything was refused for good
    connection = sqlite3.connect(server.db)
    rows = connection.execute(
        "select status, json_extract(payload, '$.n'), json_extract(result_payload, '$.n'), summary"
        " from agent_spans where agent_instance_id = ?",
        runs,
    ).fetchall()
    status = connection.execute("select status from agent_instances where id = ?", runs).fetchone()
    connection.close()
    assert Counter(row[0] for row in rows) == {
        "complete": spans * 8 // 10,
        "failed": spans // 10,
        "cancelled": spans // 10,
    }
    assert all(row[1] == row[2] for row in rows)
    assert sorted(row[1] for row in rows if row[1] is not None) == [n for n in range(spans) if n % 10]
    assert status == ("complete",)


def test_an_instance_whose_finish_overtakes_its_start_stays_active(server: Server, agent: str) -> None:
    """Two workers may send both at once. Finishing what is pending is refused, and the client swallows that 409."""
    handles: list[AgentInstanceHandle] = []

    async def overtaken(client: PrefactorCoreClient) -> None:
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        handles.append(run)
        await run.finish()
        await run.start()

    async def in_order(client: PrefactorCoreClient) -> None:
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        handles.append(run)
        await run.start()
        await run.finish()

    for scene in (overtaken, in_order):
        play(server, scene, queue_config=QueueConfig(num_workers=1))
    with agentspan.open(server.db) as db:
        assert [db.agent_instances.get(run.id).status for run in handles] == ["active", "complete"]


def test_cancelling_a_span_that_runs_is_refused_and_stops_prefactor_core(server: Server, agent: str) -> None:
    """The API cancels pending spans only; the client takes a 409 on a span's finish for a permanent failure."""

    async def scene(client: PrefactorCoreClient) -> None:
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        await run.start()
        await status_of(client, run, "active")
        async with run.span("agent:llm") as span:
            await span.start()
            await span.cancel()

    with pytest.raises(PrefactorTelemetryFailureError) as caught:
        play(server, scene)
    assert isinstance(caught.value.cause, PrefactorApiError)
    assert caught.value.cause.code == "invalid_action"


def test_a_span_that_ends_before_its_parent_was_sent_is_refused(server: Server, agent: str) -> None:
    """prefactor-core then sends its own temporary id, a UUID, as the parent's."""
    inner: list[SpanContext] = []

    async def scene(client: PrefactorCoreClient) -> None:
        run = await client.create_agent_instance(VERSION, SCHEMA, agent_id=agent)
        async with run.span("agent:llm") as outer:
            with pytest.raises(PrefactorNotFoundError):
                async with run.span("agent:llm") as span:
                    inner.append(span)
            await outer.start()

    play(server, scene)
    assert len(inner) == 1
