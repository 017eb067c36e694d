"""The routes over scores of instances and spans."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Response

from agentspan.model.score_resources import Score
from agentspan.operations import json_scores
from agentspan.serve.direct_route import Id
from agentspan.serve.response_models import Many, One
from agentspan.serve.score_models import RecordScore

Answer = Callable[..., Awaitable[Response]]


def add_to(api: APIRouter, write: Answer, scan: Answer) -> None:
    """Add the routes to the API's.

    Args:
        write, scan: run an operation that writes, or one that reads, and answer with its envelope.
    """

    @api.post(
        "/agent_instance/{agent_instance_id}/scores",
        response_model=One[Score],
        summary="Judge an instance",
        tags=["scores"],
    )
    async def score_instance(agent_instance_id: Id, body: RecordScore) -> Response:
        return await write(json_scores.score_agent_instance, body, agent_instance_id=agent_instance_id)

    @api.get(
        "/agent_instance/{agent_instance_id}/scores",
        response_model=Many[Score],
        summary="List the scores of an instance",
        tags=["scores"],
    )
    async def list_instance_scores(agent_instance_id: Id, include_history: bool = False) -> Response:
        return await scan(
            json_scores.list_scores_of_instance, agent_instance_id=agent_instance_id, include_history=include_history
        )

    @api.post("/agent_spans/{agent_span_id}/scores", response_model=One[Score], summary="Judge a span", tags=["scores"])
    async def score_span(agent_span_id: Id, body: RecordScore) -> Response:
        return await write(json_scores.score_agent_span, body, agent_span_id=agent_span_id)

    @api.get(
        "/agent_spans/{agent_span_id}/scores",
        response_model=Many[Score],
        summary="List the scores of a span",
        tags=["scores"],
    )
    async def list_span_scores(agent_span_id: Id, include_history: bool = False) -> Response:
        return await scan(json_scores.list_scores_of_span, agent_span_id=agent_span_id, include_history=include_history)
