"""A storage in memory as JSON: backends that keep their rows in memory and write them whole are made of it."""

import json

import pytest

import agentspan
from agentspan.model.rows import AgentSpanRow
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.questions import SpansOf


def test_everything_comes_back() -> None:
    storage = MemoryStorage()
    tracer = agentspan.Tracer(storage, raise_errors=True)
    with tracer.run("traveller") as run, tracer.span("tool", {"name": "search"}):
        pass
    tracer.flush()
    again = MemoryStorage.from_json(storage.to_json())
    assert again.to_json() == storage.to_json()
    assert [*again.ask(SpansOf(run.id))] == [*storage.ask(SpansOf(run.id))]
    assert all(type(span) is AgentSpanRow for span in again.ask(SpansOf(run.id)))


@pytest.mark.parametrize("text", ["", "[]", "{}", "[[], [], {}]", json.dumps([[["account", [1]]], [], {}])])
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rows of a MemoryStorage|Expecting value|to unpack"):
        MemoryStorage.from_json(text)
