"""The newest GenAI conventions: each operation, skill and kind of token becomes a step that a person can read."""

from typing import Any

import pytest

from agentspan.schemas.span_types import REGISTRY, describe
from tests.otel.recorded import mapped

DOCUMENTS = [{"id": "d1", "score": 0.9}]


def summary(told: Any) -> str | None:
    """The line that `show` has of a step."""
    return describe(REGISTRY.resolve(told.schema_name), "", "complete", told.payload, told.result_payload, 1.0).summary


@pytest.mark.parametrize(
    ("operation", "attributes", "type_", "line"),
    [
        ("plan", {"gen_ai.agent.name": "guide"}, "chain", "plan guide"),
        ("invoke_workflow", {"gen_ai.agent.name": "trip"}, "chain", "trip"),
        ("create_memory_store", {"gen_ai.memory.store.id": "notes"}, "memory", "Memory create_store notes"),
        ("delete_memory_store", {"gen_ai.memory.store.id": "notes"}, "memory", "Memory delete_store notes"),
        ("create_memory", {"gen_ai.memory.record.count": 2}, "memory", "Memory create: 2"),
        ("update_memory", {"gen_ai.memory.record.id": "r1"}, "memory", "Memory update r1"),
        ("upsert_memory", {"gen_ai.memory.records": '[{"content": "tea"}]'}, "memory", "Memory upsert: 1"),
        ("delete_memory", {"gen_ai.memory.record.id": "r1"}, "memory", "Memory delete r1"),
        ("search_memory", {"gen_ai.memory.query.text": "tea?"}, "memory", 'Memory search "tea?"'),
        (
            "execute_tool",
            {"gen_ai.tool.name": "load_skill", "gen_ai.skill.name": "pdf"},
            "tool",
            "Tool load_skill pdf()",
        ),
        (
            "execute_tool",
            {
                "gen_ai.tool.name": "read_skill_resource",
                "gen_ai.skill.name": "pdf",
                "gen_ai.skill.resource.name": "a.md",
            },
            "tool",
            "Tool read_skill_resource pdf()",
        ),
    ],
)
def test_an_operation_is_a_step_of_a_type_with_a_line(
    operation: str, attributes: dict[str, Any], type_: str, line: str
) -> None:
    name = f"plan {attributes['gen_ai.agent.name']}" if operation == "plan" else operation
    told = mapped({"gen_ai.operation.name": operation, **attributes}, name)
    assert (told.type, summary(told)) == (type_, line)


def test_memories_that_were_found_are_its_result() -> None:
    told = mapped(
        {"gen_ai.operation.name": "search_memory", "gen_ai.memory.records": '[{"id": "r1", "content": "tea"}]'}
    )
    assert told.result_payload == {"items": [{"id": "r1", "content": "tea"}]}


def test_a_plan_belongs_to_its_agent() -> None:
    told = mapped({"gen_ai.operation.name": "plan", "gen_ai.agent.name": "guide"}, "plan guide")
    assert told.payload["name"] == "plan guide"
    assert told.run.agent == "guide"


@pytest.mark.parametrize("operation", ["generate_content", "text_completion"])
def test_an_operation_that_its_type_does_not_tell_is_kept(operation: str) -> None:
    told = mapped({"gen_ai.operation.name": operation, "gen_ai.request.model": "m"})
    assert told.type == "llm"
    assert told.payload["attributes"] == {"gen_ai.operation.name": operation}
    assert "attributes" not in mapped({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}).payload


def test_tokens_of_each_modality_are_counted_apart() -> None:
    names = ("text", "image", "audio")
    said = {f"gen_ai.usage.{name}.input_tokens": 10 + at for at, name in enumerate(names)}
    said |= {f"gen_ai.usage.{name}.output_tokens": 20 + at for at, name in enumerate(names)}
    said |= {f"gen_ai.usage.{name}.cache_read.input_tokens": at for at, name in enumerate(names)}
    told = mapped({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **said})
    assert told.result_payload == {
        **{f"input_{name}_tokens": 10 + at for at, name in enumerate(names)},
        **{f"output_{name}_tokens": 20 + at for at, name in enumerate(names)},
        **{f"cached_{name}_tokens": at for at, name in enumerate(names)},
    }
    assert "attributes" not in told.payload


@pytest.mark.parametrize("name", ["gen_ai.retrieval.top_k", "gen_ai.request.top_k"])
def test_both_names_of_the_number_of_documents_are_read(name: str) -> None:
    assert mapped({"gen_ai.operation.name": "retrieval", name: 4}).payload["top_k"] == 4


def test_arguments_of_a_prompt_of_mcp_are_its_arguments() -> None:
    told = mapped(
        {"mcp.method.name": "prompts/get", "gen_ai.prompt.name": "trip", "gen_ai.prompt.variable.city": "Oslo"}
    )
    assert (told.payload["target"], told.payload["arguments"]) == ("trip", {"city": "Oslo"})


def test_openinferences_tokens_of_audio_are_the_same_fields() -> None:
    said = {"llm.token_count.prompt_details.audio": 3, "llm.token_count.completion_details.audio": 4}
    told = mapped({"openinference.span.kind": "LLM", "llm.model_name": "m", **said})
    assert told.result_payload == {"response_model": "m", "input_audio_tokens": 3, "output_audio_tokens": 4}
