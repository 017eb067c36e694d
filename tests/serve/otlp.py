"""What tests of OTLP over HTTP share: the content types, and what a storage has."""

from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.protocol import Query, Storage

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}


def runs(storage: Storage) -> list[AgentInstanceRow]:
    return [row for row in storage.page(Query("agent_instance")).rows if isinstance(row, AgentInstanceRow)]


def spans(storage: Storage) -> list[AgentSpanRow]:
    return [row for run in runs(storage) for row in storage.iter_spans(run.id)]
