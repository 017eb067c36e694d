"""Duplicates: one call of a model that several instrumentors recorded."""

from typing import Any

import pytest

from agentspan.otel import traces as module
from agentspan.otel.span import Event
from agentspan.otel.traces import NEAREST, Call, call_of, duplicates, marked, merged
from tests.otel.recorded import mapped, span

A = Call("a", None, "openinference", frozenset({"m"}), None, 100, 200, 2000)


def _like(call: Call, **changed: Any) -> Call:
    return call._replace(**changed)


def test_the_answers_id_makes_them_the_same() -> None:
    one = _like(A, response="r1")
    two = _like(A, id="b", parent="elsewhere", scope="sdk", response="r1", weight=5, models=frozenset({"n"}))
    assert duplicates([one, two]) == {"b": "a"}
    assert duplicates([one, _like(two, response="r2", models=A.models, parent=None)]) == {}


def test_without_an_id_it_takes_model_place_and_time() -> None:
    inner = _like(A, id="b", parent="a", scope="sdk", start_ns=110, end_ns=190, weight=5)
    beside = _like(inner, parent=None)
    assert duplicates([A, inner]) == duplicates([A, beside]) == {"b": "a"}
    assert duplicates([A, _like(inner, models=frozenset({"n"}))]) == {}
    assert duplicates([A, _like(beside, start_ns=201, end_ns=300)]) == {}
    assert duplicates([A, _like(inner, parent="far")]) == {}
    assert duplicates([A, _like(beside, scope=A.scope)]) == {}, "no instrumentor records a call twice"


def test_an_instrumentor_may_wrap_a_call_of_its_own() -> None:
    inner = _like(A, id="b", parent="a", start_ns=110, end_ns=150, weight=5)
    second = _like(inner, id="c", start_ns=160, end_ns=190)
    assert duplicates([A, inner]) == {"b": "a"}
    assert duplicates([A, inner, second]) == {}, "two calls in one are no repetition of it"
    gone = _like(inner, models=frozenset({"gone"}), has_failed=True)
    for asked in (gone.models, frozenset()):
        assert duplicates([_like(A, models=asked), gone, second]) == {"a": "c"}, "as LiteLLM's fallback"


def test_a_call_that_failed_may_name_no_model() -> None:
    inner = _like(A, id="b", parent="a", scope="sdk", start_ns=110, end_ns=150, weight=3000)
    outer = _like(A, models=frozenset())
    assert duplicates([outer, inner]) == {"a": "b"}
    assert duplicates([outer, inner, _like(inner, id="c", start_ns=160)]) == {}, "it may be of several calls"
    assert duplicates([outer, _like(inner, parent=None)]) == {}, "side by side, a model is asked for"


def test_the_span_of_a_stream_may_end_before_it_is_read() -> None:
    """As LlamaIndex's, which is around another one of its own, and beside the client's."""
    said = {"openinference.span.kind": "LLM", "llm.model_name": "m"}
    late = Event("First Token Stream Event", 5_000_000_000)
    inner = call_of(span(said, events=(late,)), mapped(said, events=(late,)))
    assert inner is not None
    assert inner.end_ns == 5_000_000_000
    outer = _like(A, start_ns=1_000_000_000, end_ns=2_000_000_000)
    stream = _like(inner, id="b", parent="a", scope=A.scope)
    client = _like(A, id="c", scope="sdk", start_ns=4_000_000_000, end_ns=6_000_000_000, weight=9000)
    assert duplicates([outer, stream, client]) == {"a": "c", "b": "c"}


def test_llama_indexs_preparation_of_a_call_is_none() -> None:
    said = {"openinference.span.kind": "LLM", "llm.model_name": "m"}
    assert mapped(said, "OpenAI._prepare_chat_with_tools").type == "chain"


def test_a_model_may_have_its_provider_before_it() -> None:
    said = {"openinference.span.kind": "LLM", "llm.model_name": "anthropic/claude-haiku-4-5"}
    one = call_of(span(said, scope="litellm"), mapped(said))
    assert one is not None
    assert one.models == {"claude-haiku-4-5"}


def test_calls_at_the_same_time_are_paired_one_to_one() -> None:
    calls = [_like(A, id=f"a{n}", start_ns=100 + n, end_ns=200 + n) for n in range(3)]
    twins = [_like(A, id=f"b{n}", scope="sdk", start_ns=100 + n, end_ns=200 + n, weight=5) for n in range(3)]
    assert duplicates([*twins, *calls]) == {"b0": "a0", "b1": "a1", "b2": "a2"}


def test_three_instrumentors_make_one_call() -> None:
    others = [_like(A, id=id, parent="a", scope=id, response="r", weight=5) for id in ("b", "c")]
    assert duplicates([_like(A, response="r"), *others]) == {"b": "a", "c": "a"}


def test_the_richer_one_is_kept_and_gets_what_it_lacks() -> None:
    outer_said = {"openinference.span.kind": "LLM", "llm.model_name": "m", "llm.token_count.prompt": 10}
    outer_said["llm.input_messages.0.message.content"] = "hi"
    inner_said = {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "m",
        "gen_ai.response.id": "r1",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "http.route": "/v1/messages",
    }
    outer, inner = span(outer_said, scope="oi"), span(inner_said, "messages.create", scope="sdk", span_id="c" * 16)
    kept, other = mapped(outer_said), mapped(inner_said, "messages.create", scope="sdk")
    calls = [call for call in (call_of(outer, kept), call_of(inner, other)) if call is not None]
    assert duplicates(calls) == {"c" * 16: "b" * 16}
    whole = merged(kept, [other])
    assert whole.result_payload == {"response_model": "m", "input_tokens": 10, "response_id": "r1", "output_tokens": 3}
    assert whole.payload["messages"] == [{"role": "user", "content": "hi"}]
    twin = marked(other, whole, "the id")
    assert (twin.schema_name, twin.type, twin.result_payload) == ("messages.create", "custom", None)
    assert twin.payload["duplicate_of"] == "the id"
    assert twin.payload["attributes"] == {"http.route": "/v1/messages"}
    assert "differs" not in twin.payload


def test_what_a_duplicate_says_otherwise_is_kept_where_nothing_counts_it() -> None:
    one = mapped({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 10})
    other = mapped({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 9})
    assert marked(other, one, "id").payload["differs"] == {"input_tokens": 9}


@pytest.mark.full
def test_many_calls_at_the_same_time_are_not_all_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = module._rank
    monkeypatch.setattr(module, "_rank", lambda *pair: compared.append(pair) or real(*pair))
    calls = [_like(A, id=f"a{n}", start_ns=100 + n, end_ns=9000) for n in range(1000)]
    assert duplicates(calls) == {}
    assert compared == [], "they are all of one instrumentor"
    twins = [_like(call, id=call.id.replace("a", "b"), scope="sdk", weight=5) for call in calls]
    assert duplicates([*calls, *twins]) == {twin.id: call.id for call, twin in zip(calls, twins, strict=True)}
    assert len(compared) < 2000 * (NEAREST + 1)
