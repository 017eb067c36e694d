"""The routes: each parses, calls one operation, and answers with its envelope."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Body, Response

from agentspan.errors import AgentspanError
from agentspan.model.agent_resources import Agent, AgentSchemaVersion, AgentVersion
from agentspan.model.resources import AgentInstance, AgentSpan
from agentspan.model.rows import AgentSpanRow
from agentspan.operations import agent_instances, bulk, envelopes, json_operations
from agentspan.operations.as_sent import as_sent
from agentspan.operations.context import Context
from agentspan.operations.envelopes import Envelope, InPieces
from agentspan.operations.json_operations import JsonOperation
from agentspan.serve import account_routes, bodies, published, quality_models, request_models, score_routes
from agentspan.serve.bulk_answers import BulkAnswers, response_of
from agentspan.serve.direct_route import DirectRoute, Id
from agentspan.serve.fields import fields_of
from agentspan.serve.large_bodies import LARGE, in_thread, is_large, parts_of
from agentspan.serve.query_strings import Page
from agentspan.serve.response_models import (
    AgentContext,
    BulkOutputs,
    Controlled,
    Error,
    Many,
    One,
    Pfids,
    Pong,
    Registered,
    Violation,
)
from agentspan.serve.responses import encoded, pieces_of, respond
from agentspan.serve.streaming import streamed
from agentspan.serve.write_queue import JsonWrite, Writes
from agentspan.tuning import STANDARD, Tuning

AT_ONCE = 100
"""Items of a bulk request that are run on the event loop (6 ms); more would hold up everybody else."""
READERS = 2
"""Threads for lists. Six took twice the time of processors for a list, most of it for the GIL."""
LARGE_S = 1.0
"""Seconds after a large span in which spans are read in threads: 50 of them, one after the other, took 0.6 s."""
READERS_THAT_WAIT = 8
"""Threads for all reads, where each waits for a server."""

_ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"description": description, "content": _ERROR}
    for status, description in {
        400: "The body is no JSON object, or a query parameter has not the right form",
        401: "No token, or a wrong one",
        403: "A server that only reads, or a foreign Host",
        404: "No such id",
        409: "The state machine forbids it, or the idempotency key was used before",
        413: "The body is too large",
        415: "The body is not application/json",
        422: "A value is missing or wrong",
        429: "Too many wrong tokens; try again later",
        500: "A fault of the server",
        503: "The database is busy, or cannot be used now; try again",
    }.items()
}
"""What the document says of errors. By the name of the schema: given the model, FastAPI made 470 fields of pydantic,
which took two thirds of the 0.27 s in which an application was made."""


def router(ctx: Context, write_queue: Writes, tuning: Tuning = STANDARD) -> APIRouter:
    """Return the API's routes over one storage."""
    api = APIRouter(prefix="/api/v1", route_class=DirectRoute, responses=REFUSALS)

    async def write(operation: JsonOperation, body: bodies.Body | None, **more: Any) -> Response:
        fields, details = fields_of(body, more)
        try:
            if is_large.get():  # not in the queue: only its last step needs the write lock, for a few ms
                return await in_thread(lambda: respond(operation(ctx, fields)))
            return respond(await write_queue.run(JsonWrite(operation, fields)))
        except AgentspanError as error:
            raise as_sent(error, details) from None

    waits = ctx.storage.capabilities().concurrency > 1
    readers = ThreadPoolExecutor(READERS_THAT_WAIT if waits else READERS, "agentspan-reader")

    large_until_s = 0.0

    async def read(operation: JsonOperation, **fields: Any) -> Response:
        """Run a short read: on the event loop, unless it waits for a server."""
        return await scan(operation, **fields) if waits else respond(operation(ctx, fields))

    async def scan(operation: JsonOperation, **fields: Any) -> Response:
        """Run a read that may take long, in a thread, so that it does not block the event loop."""

        def run() -> Response | InPieces:
            answer = operation(ctx, fields)
            return answer if isinstance(answer, InPieces) else respond(answer)

        made = await asyncio.get_running_loop().run_in_executor(readers, run)
        return await streamed(pieces_of(made), "application/json") if isinstance(made, InPieces) else made

    def run_part(context: Context, part: bulk.Plan, room: int = tuning.bulk_answer_bytes) -> BulkAnswers:
        answers = BulkAnswers(room)
        bulk.run_into(context, part, answers)
        return answers

    async def run_in_parts(plan: bulk.Plan) -> Response:
        """Run a large bulk request in several commits, so that other writes wait for a part of it only."""
        done: list[BulkAnswers] = []
        for part in await in_thread(lambda: list(parts_of(plan))):
            run = partial(run_part, part=part, room=tuning.bulk_answer_bytes - sum(each.size for each in done))
            if len(part.items) == 1:
                done.append(await in_thread(run, ctx))
            else:
                done.append(await write_queue.run(run, is_long=True))
            if done[-1].has_error:
                break
        return await response_of(done)

    # The spans first: routes are tried one after the other, and behind all the rest they took 90 of 380 µs.
    @api.post(
        "/agent_spans/{agent_span_id}/finish",
        response_model=Controlled[AgentSpan],
        summary="Finish a span",
        tags=["spans"],
    )
    async def finish_span(agent_span_id: Id, body: request_models.FinishSpan | None = None) -> Response:
        return await write(json_operations.finish_agent_span, body, agent_span_id=agent_span_id)

    @api.post("/agent_spans", response_model=Controlled[AgentSpan], summary="Create a span", tags=["spans"])
    async def create_span(body: request_models.CreateSpan) -> Response:
        return await write(json_operations.create_agent_span, body)

    @api.post(
        "/agent_spans/{agent_span_id}/start",
        response_model=Controlled[AgentSpan],
        summary="Start a span",
        tags=["spans"],
    )
    async def start_span(agent_span_id: Id, body: request_models.Start | None = None) -> Response:
        return await write(json_operations.start_agent_span, body, agent_span_id=agent_span_id)

    @api.get("/agent_spans/{agent_span_id}", response_model=One[AgentSpan], summary="Get a span", tags=["spans"])
    async def get_span(agent_span_id: Id) -> Response:
        nonlocal large_until_s
        now_s = asyncio.get_running_loop().time()
        if waits or now_s < large_until_s:
            return await streamed(_span(ctx, agent_span_id), "application/json")
        row = ctx.row(AgentSpanRow, agent_span_id)
        if len(row.payload) + len(row.result_payload or "") > LARGE:
            large_until_s = now_s + LARGE_S
            del row  # and read it again when it is sent: many may wait for that
            return await streamed(_span(ctx, agent_span_id), "application/json")
        return respond(envelopes.of_row(ctx, row))

    @api.get(
        "/agent_spans/{agent_span_id}/violations",
        response_model=Many[Violation],
        summary="List the places where a span's payloads do not match their schemas",
        tags=["spans"],
    )
    async def list_violations(agent_span_id: Id) -> Response:
        return await read(json_operations.list_violations, agent_span_id=agent_span_id)

    @api.get(
        "/agent_spans",
        response_model=Many[AgentSpan],
        summary="List the spans of an instance, or of an agent",
        tags=["spans"],
    )
    async def list_spans(
        page: Page,
        agent_instance_id: str | None = None,
        agent_id: str | None = None,
        start_time: str | None = None,
        end_time: str | None = None,
        status: str | None = None,
        schema_name: str | None = None,
        environment_id: str | None = None,
        include_summaries: bool = False,
        include_risk_level: bool = False,
    ) -> Response:
        fields = page.fields(
            agent_instance_id=agent_instance_id,
            agent_id=agent_id,
            start_time=start_time,
            end_time=end_time,
            status=status,
            schema_name=schema_name,
            environment_id=environment_id,
            include_summaries=include_summaries,
        )
        return await scan(json_operations.list_agent_spans, **fields)

    # The one route by which the document gets the schema of errors.
    fault: dict[int | str, dict[str, Any]] = {500: {**REFUSALS[500], "model": Error}}

    @api.get("/ping", response_model=One[Pong], summary="Check the token", tags=["service"], responses=fault)
    async def ping() -> Response:
        return respond({"status": "success", "details": {"account_id": ctx.account.id}})

    @api.post("/pfid/generate", response_model=One[Pfids], summary="Generate ids", tags=["service"])
    async def generate_pfids(body: request_models.GeneratePfids | None = None) -> Response:
        count = 1 if body is None else body.count
        return respond({"status": "success", "details": {"pfids": [ctx.ids.new() for _ in range(count)]}})

    @api.post("/bulk", response_model=BulkOutputs, summary="Run several operations", tags=["bulk"])
    async def run_bulk(body: Annotated[dict[str, Any], Body()]) -> Response:
        plan = bulk.plan(body.get("items"))
        if plan.writes and is_large.get():
            return await run_in_parts(plan)
        if plan.writes:
            run = partial(run_part, part=plan)
            return await response_of([await write_queue.run(run, is_long=len(plan.items) > AT_ONCE)])
        return await streamed(_bulk(bulk.answers(ctx, plan)), "application/json")

    @api.get("/agent", response_model=Many[Agent], summary="List agents", tags=["agents"])
    async def list_agents(page: Page, status: str | None = None, environment_id: str | None = None) -> Response:
        return await scan(json_operations.list_agents, **page.fields(status=status, environment_id=environment_id))

    @api.post("/agent", response_model=One[Agent], summary="Create an agent", tags=["agents"])
    async def create_agent(body: request_models.CreateAgent) -> Response:
        return await write(json_operations.create_agent, body)

    @api.get("/agent/show", response_model=One[Agent], summary="Show an agent by one of its names", tags=["agents"])
    async def show_agent(
        agent_id: str | None = None,
        external_identifier: str | None = None,
        environment_id: str | None = None,
        include_counts: bool = False,
        include_risk_rollup: bool = False,
    ) -> Response:
        ctx.check_environment(environment_id)
        return await read(json_operations.show_agent, agent_id=agent_id, external_identifier=external_identifier)

    @api.get("/agent/{agent_id}", response_model=One[Agent], summary="Get an agent", tags=["agents"])
    async def get_agent(agent_id: Id) -> Response:
        return await read(json_operations.show_agent, agent_id=agent_id)

    @api.put("/agent/{agent_id}", response_model=One[Agent], summary="Change an agent", tags=["agents"])
    async def update_agent(agent_id: Id, body: request_models.UpdateAgent) -> Response:
        return await write(json_operations.update_agent, body, agent_id=agent_id)

    @api.delete("/agent/{agent_id}", response_model=One[Agent], summary="Delete an agent", tags=["agents"])
    async def delete_agent(agent_id: Id) -> Response:
        return await write(json_operations.delete_agent, None, agent_id=agent_id)

    @api.post("/agent/{agent_id}/retire", response_model=One[Agent], summary="Retire an agent", tags=["agents"])
    async def retire_agent(agent_id: Id, body: request_models.Keyed | None = None) -> Response:
        return await write(json_operations.retire_agent, body, agent_id=agent_id)

    @api.post("/agent/{agent_id}/reinstate", response_model=One[Agent], summary="Reinstate an agent", tags=["agents"])
    async def reinstate_agent(agent_id: Id, body: request_models.Keyed | None = None) -> Response:
        return await write(json_operations.reinstate_agent, body, agent_id=agent_id)

    @api.get("/agent_version", response_model=Many[AgentVersion], summary="List agent versions", tags=["versions"])
    async def list_agent_versions(page: Page, agent_id: str | None = None) -> Response:
        return await scan(json_operations.list_agent_versions, **page.fields(agent_id=agent_id))

    @api.get(
        "/agent_version/{agent_version_id}",
        response_model=One[AgentVersion],
        summary="Get an agent version",
        tags=["versions"],
    )
    async def get_agent_version(agent_version_id: Id) -> Response:
        return await read(json_operations.show_agent_version, agent_version_id=agent_version_id)

    @api.get(
        "/agent_schema_version",
        response_model=Many[AgentSchemaVersion],
        summary="List schema versions",
        tags=["versions"],
    )
    async def list_schema_versions(page: Page, agent_id: str | None = None) -> Response:
        return await scan(json_operations.list_agent_schema_versions, **page.fields(agent_id=agent_id))

    @api.post(
        "/agent_schema_version",
        response_model=One[AgentSchemaVersion],
        summary="Create a schema version",
        tags=["versions"],
    )
    async def create_schema_version(body: request_models.CreateSchemaVersion) -> Response:
        return await write(json_operations.create_agent_schema_version, body)

    @api.get(
        "/agent_schema_version/{agent_schema_version_id}",
        response_model=One[AgentSchemaVersion],
        summary="Get a schema version",
        tags=["versions"],
    )
    async def get_schema_version(agent_schema_version_id: Id) -> Response:
        return await read(json_operations.show_agent_schema_version, agent_schema_version_id=agent_schema_version_id)

    account_routes.add_show_to(api, read)

    @api.get("/agent_instance", response_model=Many[AgentInstance], summary="List instances", tags=["instances"])
    async def list_instances(
        page: Page,
        agent_id: str | None = None,
        agent_version_id: str | None = None,
        status: str | None = None,
        purpose: str | None = None,
        environment_id: str | None = None,
        include_counts: bool = False,
        include_costs: bool = False,
        include_risk_score: bool = False,
    ) -> Response:
        fields = page.fields(
            agent_id=agent_id,
            agent_version_id=agent_version_id,
            status=status,
            purpose=purpose,
            environment_id=environment_id,
        )
        return await scan(json_operations.list_agent_instances, **fields)

    @api.post(
        "/agent_instance/register",
        response_model=Registered[AgentInstance],
        summary="Register an instance",
        tags=["instances"],
    )
    async def register_instance(body: request_models.RegisterInstance | None = None) -> Response:
        return await write(json_operations.register_agent_instance, body)

    @api.get(
        "/agent_instance/{agent_instance_id}",
        response_model=One[AgentInstance],
        summary="Get an instance",
        tags=["instances"],
    )
    async def get_instance(agent_instance_id: Id) -> Response:
        return await scan(json_operations.show_agent_instance, agent_instance_id=agent_instance_id)

    @api.put(
        "/agent_instance/{agent_instance_id}",
        response_model=One[AgentInstance],
        summary="Change an instance, or replace its evaluation",
        tags=["instances"],
    )
    async def update_instance(agent_instance_id: Id, body: quality_models.UpdateInstance) -> Response:
        return await write(json_operations.update_agent_instance, body, agent_instance_id=agent_instance_id)

    @api.get(
        "/agent_instance/{agent_instance_id}/agent_context",
        response_model=AgentContext,
        summary="Get an instance with everything that belongs to it",
        tags=["instances"],
    )
    async def get_agent_context(agent_instance_id: Id) -> Response:
        context, spans = await asyncio.to_thread(agent_instances.agent_context_parts, ctx, agent_instance_id)
        return await streamed(_agent_context(context, spans), "application/json")

    @api.post(
        "/agent_instance/{agent_instance_id}/start",
        response_model=One[AgentInstance],
        summary="Start an instance",
        tags=["instances"],
    )
    async def start_instance(agent_instance_id: Id, body: request_models.Start | None = None) -> Response:
        return await write(json_operations.start_agent_instance, body, agent_instance_id=agent_instance_id)

    @api.post(
        "/agent_instance/{agent_instance_id}/finish",
        response_model=Controlled[AgentInstance],
        summary="Finish an instance",
        tags=["instances"],
    )
    async def finish_instance(agent_instance_id: Id, body: request_models.FinishInstance | None = None) -> Response:
        return await write(json_operations.finish_agent_instance, body, agent_instance_id=agent_instance_id)

    @api.post(
        "/agent_instance/{agent_instance_id}/terminate",
        response_model=One[AgentInstance],
        summary="Terminate an instance",
        tags=["instances"],
    )
    async def terminate_instance(agent_instance_id: Id, body: request_models.Terminate) -> Response:
        return await write(json_operations.terminate_agent_instance, body, agent_instance_id=agent_instance_id)

    @api.post(
        "/agent_instance/{agent_instance_id}/record_quality",
        response_model=One[AgentInstance],
        summary="Record an evaluation of an instance",
        tags=["instances"],
    )
    async def record_quality(agent_instance_id: Id, body: quality_models.RecordQuality) -> Response:
        return await write(json_operations.record_quality, body, agent_instance_id=agent_instance_id)

    score_routes.add_to(api, write, scan)
    account_routes.add_to(api, ctx)
    api.routes += published.routes(api.prefix)
    return api


def _agent_context(context: dict[str, Any], spans: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the envelope of json_operations.agent_context in pieces."""
    yield b'{"status":"success","agent_context":{"body":' + encoded(context)[:-1] + b',"spans":'
    yield from pieces_of(spans)
    yield b"}}}"


def _bulk(answers: Iterator[tuple[str, Envelope]]) -> Iterator[bytes]:
    """Yield the envelope of a bulk request in pieces, each item's answer when it is made."""
    before = b'{"status":"success","outputs":{'
    for key, answer in answers:
        yield before + encoded(key) + b":"
        yield from pieces_of(answer)
        before = b","
    yield b"}}"


def _span(ctx: Context, id: str) -> Iterator[bytes]:
    """Yield the envelope of a span."""
    yield encoded(envelopes.of_row(ctx, ctx.row(AgentSpanRow, id)))
