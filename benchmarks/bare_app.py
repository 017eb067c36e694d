"""The bare FastAPI application that bench_serve.py compares with, on a file that agentspan made.

python benchmarks/bare_app.py FILE
"""

import json
import signal
import sqlite3
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from agentspan import clock, ids, jsontext
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.sqlite.statements import INSERT

API = "/api/v1"
PAGE = 50
COLUMNS = ("status", "result_payload", "summary", "finished_at", "duration_ms", "updated_at")
UPDATE = f"update agent_spans set {', '.join(f'{name} = ?' for name in COLUMNS)} where id = ?"
SELECT = f"select {', '.join(AgentSpanRow._fields)} from agent_spans"
BY_ID = f"{SELECT} where id = ?"
OF_INSTANCE = f"{SELECT} where agent_instance_id = ? order by id limit ?"
NUMBER_OF = "select count(*) from agent_spans where agent_instance_id = ?"


class Details(BaseModel):
    agent_instance_id: str
    schema_name: str
    status: str
    payload: dict[str, Any]
    idempotency_key: str | None = None


class Create(BaseModel):
    details: Details


class Finish(BaseModel):
    result_payload: dict[str, Any]
    idempotency_key: str | None = None


class Bulk(BaseModel):
    items: list[Details]


connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma synchronous = normal")
agent = connection.execute("select id from agents").fetchone()[0]
source = ids.IdSource(1)
no_values: dict[str, Any] = {**dict.fromkeys(AgentSpanRow._fields), "is_aggregate": 0, "sensitive_encoding": 0}
none = AgentSpanRow(**no_values)


def row_of(details: Details) -> AgentSpanRow:
    now = clock.now()
    return none._replace(
        id=source.new(),
        agent_id=agent,
        agent_instance_id=details.agent_instance_id,
        schema_name=details.schema_name,
        schema_title=details.schema_name,
        status=details.status,
        payload=json.dumps(details.payload),
        summary="Tool search(query=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…)",
        label="search",
        started_at=now,
        inserted_at=now,
        updated_at=now,
    )


def told(row: Sequence[Any]) -> dict[str, Any]:
    span = dict(zip(AgentSpanRow._fields, row, strict=True))
    span["payload"] = jsontext.decode(span["payload"])
    span["result_payload"] = span["result_payload"] and jsontext.decode(span["result_payload"])
    return {"type": "agent_span", **span}


app = FastAPI()


@app.post(f"{API}/agent_spans")
async def create(body: Create) -> dict[str, Any]:
    row = row_of(body.details)
    connection.execute("begin immediate")
    connection.execute(INSERT[AgentSpanRow], row)
    connection.execute("commit")
    return {"status": "success", "details": told(row)}


@app.post(f"{API}/agent_spans/{{id}}/finish")
async def finish(id: str, body: Finish) -> dict[str, Any]:
    now, result = clock.now(), json.dumps(body.result_payload)
    connection.execute("begin immediate")
    connection.execute(UPDATE, ("complete", result, "Tool search → " + "y" * 40, now, 1.5, now, id))
    row = connection.execute(BY_ID, (id,)).fetchone()
    connection.execute("commit")
    return {"status": "success", "details": told(row)}


@app.get(f"{API}/agent_spans")
async def page(agent_instance_id: str) -> dict[str, Any]:
    rows = connection.execute(OF_INSTANCE, (agent_instance_id, PAGE)).fetchall()
    total = connection.execute(NUMBER_OF, (agent_instance_id,)).fetchone()[0]
    return {"status": "success", "summaries": [told(row) for row in rows], "pagination": {"item_count": total}}


@app.post(f"{API}/bulk")
async def bulk(body: Bulk) -> dict[str, Any]:
    rows = [row_of(details) for details in body.items]
    connection.execute("begin immediate")
    connection.executemany(INSERT[AgentSpanRow], rows)
    connection.execute("commit")
    return {"status": "success", "outputs": [told(row) for row in rows]}


config = uvicorn.Config(app, port=0, log_level="warning", access_log=False, server_header=False)
socket = config.bind_socket()
socket.listen(config.backlog)
print(f"http://127.0.0.1:{socket.getsockname()[1]} ", flush=True)
signal.signal(signal.SIGTERM, lambda *_: None)
uvicorn.Server(config).run(sockets=[socket])
