"""The changes that people make on the viewer's pages: marks, scores, terminations, and more of a budget.

Only the server's own pages may do it, and not where the server only reads.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agentspan.api.runs import TerminateInstance
from agentspan.api.spans import ScoreInstance, ScoreTarget
from agentspan.errors import InvalidAction, InvalidValue
from agentspan.model.changes import OPEN
from agentspan.model.scores import MARK, NOTE, typed
from agentspan.recording.budgets import ALLOWED, NAME, more_of, number_of
from agentspan.serve.logins import is_own_page
from agentspan.serve.responses import refuse, respond
from agentspan.serve.viewer_run import Handler, run_of, span_of
from agentspan.serve.viewer_runs import MOST_SELECTED
from agentspan.serve.writes import WriteQueue
from agentspan.storage.protocol import Storage
from agentspan.viewer import data

LONGEST_FORM = 64 * 2**10
"""The most bytes that a page sends: a token, the reason of a termination, or a note."""

IN_VIEWER = "viewer"
"""The name of each person who allows more in the viewer, which knows no names."""


class Changes:
    """The handlers of forms."""

    def __init__(self, storage: Storage, write_queue: WriteQueue, *, read_only: bool) -> None:
        self._storage = storage
        self._write_queue = write_queue
        self._read_only = read_only

    def of_own_page(self, change: Callable[[Request, dict[str, Any]], Awaitable[Response]]) -> Handler:
        """Return a handler that calls a change with the form that a page of this server sent."""

        async def handler(request: Request) -> Response:
            if self._read_only:
                return refuse("not_permitted", "this server only reads")
            if not is_own_page(request):
                return refuse("not_permitted", "only this server's own pages may do that; programs use /api")
            return await change(request, await form_of(request))

        return handler

    async def terminate(self, request: Request, form: dict[str, Any]) -> Response:
        """Terminate a run."""
        fields = {"agent_instance_id": request.path_params["run_id"], "reason": form.get("reason")}
        await self._write_queue.run(TerminateInstance(fields))
        run = await run_of(self._storage, request)
        return respond({"run": await asyncio.to_thread(data.run_facts, self._storage, run)})

    async def allow(self, request: Request, form: dict[str, Any]) -> Response:
        """Allow a run more than its budget."""
        run = await run_of(self._storage, request)
        if run.status not in OPEN:
            raise InvalidAction(f"run {run.id} is {run.status}: it takes no further step")
        limit = str(form.get("limit"))
        more = more_of(run.metadata, {limit: number_of(limit, str(form.get("amount")))})
        about = {"name": NAME, "label": ALLOWED, "explanation": more, "source": "human", "identifier": IN_VIEWER}
        await self._write_queue.run(ScoreInstance({"agent_instance_id": run.id, **about}))
        return respond({"run": await asyncio.to_thread(data.run_facts, self._storage, run)})

    async def mark(self, _: Request, form: dict[str, Any]) -> Response:
        """Mark runs with a label, and perhaps a note; without a label, withdraw their marks."""
        ids, label = form.get("runs"), form.get("label") or None
        if not isinstance(ids, list) or not 0 < len(ids) <= MOST_SELECTED:
            raise InvalidValue("runs", f"must be a list of 1 to {MOST_SELECTED} ids")
        judged = {"label": label, "explanation": form.get("note") or None} if label else {"withdraw": True}
        for id in ids:
            fields = {"agent_instance_id": id, "name": MARK, "source": "human", **judged}
            await self._write_queue.run(ScoreInstance(fields))
        return respond({"marked": len(ids)})

    async def score(self, request: Request, form: dict[str, Any]) -> Response:
        """Add or remove a score, a mark or a note of the run or of one of its spans, as `agentspan score` does."""
        run = await run_of(self._storage, request)
        span_id = form.get("span_id")
        if span_id is not None:
            await asyncio.to_thread(span_of, self._storage, run.id, str(span_id))
        await self._write_queue.run(ScoreTarget(_judged(form) | {"target_id": span_id or run.id}))
        return respond({"run": await asyncio.to_thread(data.run_facts, self._storage, run)})


async def form_of(request: Request) -> dict[str, Any]:
    """Return the JSON object that a page sent.

    Raises:
        InvalidValue: it sent something else, or more than LONGEST_FORM bytes.
    """
    try:
        body = await request.body()
        form = json.loads(body) if len(body) <= LONGEST_FORM else None
    except (ValueError, RecursionError):
        form = None
    if not isinstance(form, dict):
        raise InvalidValue("body", "must be a JSON object")
    return form


def _judged(form: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a score from a form: `name` and `value`, or `mark`, or only a `note`; or `remove`.

    Raises:
        InvalidValue: the form has a name and a mark, or a value that is no text.
    """
    name, value, mark, note = (form.get(key) or None for key in ("name", "value", "mark", "note"))
    who = {"identifier": form.get("identifier") or None, "source": "human"}
    if form.get("remove"):
        return {"name": name, "withdraw": True, **who}
    if name and mark:
        raise InvalidValue("mark", "has no name: it is a score of the name `mark`")
    if value is not None and not isinstance(value, str):
        raise InvalidValue("value", "must be text, as a person types it")
    judgement = mark if value is None else typed(value)
    number, label = (None, judgement) if isinstance(judgement, str) else (judgement, None)
    return {"name": name or (MARK if mark else NOTE), "value": number, "label": label, "explanation": note, **who}
