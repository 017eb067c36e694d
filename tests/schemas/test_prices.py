"""Prices: what a call cost by its tokens, cached and written ones apart; unknown models have no cost."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest

import agentspan
from agentspan.errors import InvalidValue
from agentspan.schemas import prices
from tests.cli.calling import call

OWN = {
    "mine": {"in": 2, "out": 10, "read": 0.5, "write": 3, "audio_in": 20, "reasoning": 40},
    "tiered": {"in": 1, "out": 5},
    "hourly": {"in": 2, "out": 10, "write": 3, "write_1h": 7},
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "prices.json"
    path.write_text(json.dumps(OWN))
    monkeypatch.setenv("AGENTSPAN_PRICES", str(path))
    prices.forget()
    yield path
    monkeypatch.delenv("AGENTSPAN_PRICES")
    prices.forget()


@pytest.mark.parametrize(
    ("said", "tokens", "cost"),
    [
        ({}, (1000, 100), 3000),
        ({"cached_tokens": 400}, (1000, 100), 600 * 2 + 400 * 0.5 + 1000),
        ({"cached_tokens": 400, "cache_write_tokens": 100}, (1000, 100), 500 * 2 + 400 * 0.5 + 100 * 3 + 1000),
        ({"reasoning_tokens": 60}, (0, 100), 60 * 40 + 40 * 10),
        ({"input_audio_tokens": 10}, (100, 0), 90 * 2 + 10 * 20),
        ({"cached_tokens": 4000}, (1000, 0), 1000 * 2 + 4000 * 0.5),  # numbers of a provider that leaves the cache out
        ({"cached_tokens": -5, "reasoning_tokens": 10**9}, (0, 10), 10 * 40),
        ({"cached_tokens": "x"}, (None, 10), 100),
    ],
)
def test_each_kind_of_token_has_its_price(said: dict[str, Any], tokens: Any, cost: float, own: Path) -> None:
    found = prices.cost_of({"model": "mine", **said}, *tokens)
    assert found == pytest.approx(cost / 1e6)


@pytest.mark.parametrize(
    ("model", "hours", "cost"),
    [
        ("mine", 100, 700 * 2 + 100 * 4 + 200 * 3),  # an hour costs twice the input
        ("mine", 900, 700 * 2 + 300 * 4),  # it is a part of what was written
        ("hourly", 100, 700 * 2 + 100 * 7 + 200 * 3),
        ("tiered", 100, 1000 * 1),  # writing has no price of its own
    ],
)
def test_tokens_written_for_an_hour_have_their_price(model: str, hours: int, cost: float, own: Path) -> None:
    fields = {"model": model, "cache_write_tokens": 300, "cache_write_1h_tokens": hours}
    assert prices.cost_of(fields, 1000, 0) == pytest.approx(cost / 1_000_000)


def test_the_answered_model_counts_first_and_names_are_found_with_their_provider(own: Path) -> None:
    assert prices.cost_of({"model": "nobody's", "response_model": "mine"}, 1, 0) == pytest.approx(2e-6)
    known = [{"model": "gpt-4o"}, {"model": "GPT-4o", "provider": "openai"}, {"model": "openai/gpt-4o"}]
    assert len({prices.cost_of(each, 1000, 10) for each in known}) == 1
    assert prices.cost_of(known[0], 1000, 10) == pytest.approx(0.0026)
    assert prices.cost_of({"model": "claude-sonnet-4-5", "cached_tokens": 500}, 1000, 0) == pytest.approx(0.00165)


@pytest.mark.parametrize("model", ["nobody's", "", 7, None, "tts-1", "a/b/c"])
def test_unknown_models_have_no_cost_rather_than_none_at_all(model: Any) -> None:
    assert prices.cost_of({"model": model}, 1000, 10) is None


def test_with_more_tokens_than_a_tiers_start_all_cost_the_tiers_price() -> None:
    tiered = prices.prices_of("gemini-2.5-pro", "google")
    assert tiered is not None
    assert type(tiered["in"]) is list
    (start, dearer) = tiered["in"][1]
    small, large = (prices.cost_of({"model": "gemini-2.5-pro"}, number, 0) for number in (start, start + 1))
    assert small == pytest.approx(start * tiered["in"][0] / 1e6)
    assert large == pytest.approx((start + 1) * dearer / 1e6)


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"m": 1}', '{"m": {"inn": 1}}', '{"m": {"in": -1}}', '{"m": {"in": "1"}}']
)
def test_a_file_of_prices_that_is_none(text: str, own: Path, caplog: pytest.LogCaptureFixture) -> None:
    own.write_text(text)
    prices.forget()
    with pytest.raises(InvalidValue, match="AGENTSPAN_PRICES"):
        prices.own_prices()
    assert prices.cost_of({"model": "m"}, 1, 1) is None
    assert "prices of your own are not used: AGENTSPAN_PRICES" in caplog.text


def test_rederive_sets_costs_that_nobody_gave(tmp_path: Path, own: Path) -> None:
    path = tmp_path / "runs.db"
    own.write_text("{}")
    prices.forget()
    with agentspan.open(path) as db:
        run = db.agent_instances.register("a")
        db.agent_instances.start(run.id)
        ids = [
            db.agent_spans.create(run.id, "llm", "complete", {"model": model}, result_payload=result).id
            for model, result in (
                ("mine", {"input_tokens": 1000, "output_tokens": 100}),
                ("mine", {"input_tokens": 1000, "output_tokens": 100, "cost_usd": 0.5}),
                ("nobody's", {"input_tokens": 1000, "output_tokens": 100}),
            )
        ]
    own.write_text(json.dumps(OWN))
    prices.forget()
    assert call(path, "rederive", "--prices").output == "costs of 1 of 3 spans changed\n"
    assert call(path, "rederive", "--prices").output == "costs of 0 of 3 spans changed\n"
    assert call(path, "rederive", "--summaries").output == "summaries of 0 of 3 spans changed\n"
    with agentspan.open(path) as db:
        assert [db.agent_spans.get(id).cost_usd for id in ids] == [0.003, 0.5, None]


@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_recorded_calls_have_costs(tmp_path: Path, own: Path, durability: Literal["journal", "commit"]) -> None:
    tracer = agentspan.Tracer(tmp_path / "runs.db", durability=durability, raise_errors=True)
    with tracer.run("a"), tracer.span("llm", {"model": "mine"}) as span:
        span.set_result({"input_tokens": 1000, "output_tokens": 100})
    tracer.shutdown()
    with agentspan.open(tmp_path / "runs.db") as db:
        assert db.agent_spans.get(span.id).cost_usd == 0.003
