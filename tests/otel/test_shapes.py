"""Shapes of spans: values never change what they tell, and clients cannot fill the memory with them."""

from agentspan.otel.mapping import draft
from agentspan.otel.mapping.draft import Shapes
from tests.otel.recorded import mapped, span


def test_spans_of_one_shape_have_their_own_values() -> None:
    for kind, type_ in (("LLM", "llm"), ("TOOL", "tool"), ("AGENT", "agent"), ("nothing", "custom")):
        said = {"openinference.span.kind": kind, "llm.output_messages.0.message.content": f"said by {kind}"}
        found = mapped(said)
        assert found.type == type_
        assert f"said by {kind}" in str(found.payload) + str(found.result_payload)


def test_lists_that_names_spell_are_not_shared() -> None:
    names = ("role", "content")
    first, second = (
        mapped({"openinference.span.kind": "LLM"} | {f"llm.input_messages.0.message.{name}": value for name in names})
        for value in ("one", "two")
    )
    assert first.payload["messages"] == [{"role": "one", "content": "one"}]
    assert second.payload["messages"] == [{"role": "two", "content": "two"}]


def test_few_shapes_are_kept() -> None:
    kept = Shapes()
    for number in range(draft.MOST_SHAPES + 10):
        kept.of(span({f"name-{number}": 1}))
    assert len(kept) == 10
    kept.of(span({"n" * (draft.MOST_CHARACTERS + 1): 1}))
    kept.of(span({f"name-{number}": 1 for number in range(draft.LONGEST_SHAPE + 1)}))
    assert len(kept) == 10
