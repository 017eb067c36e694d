"""Computes the cost of a model call from its tokens, for calls whose client sends no cost.

The table `prices.json` is made from the data of genai-prices (MIT licence: prices.LICENSE) by
benchmarks/make_prices.py. The user's own prices, from the file that AGENTSPAN_PRICES names, take precedence. The table
is vendored (32 kB in the wheel): importing genai-prices takes 0.5 s, brings an HTTP client, and a call takes 185 µs.
"""

import json
import os
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.errors import InvalidValue
from agentspan.host import log
from agentspan.schemas.aliases import count

OWN = "AGENTSPAN_PRICES"
_MILLION = 1_000_000
_NAMES = frozenset({"in", "out", "read", "write", "write_1h", "audio_in", "audio_out", "reasoning", "request"})
_new = tuple.__new__  # see model.spans
_NO_DETAILS = (0, 0, 0, 0, 0, 0)
_HOUR = 2
"""The price of writing to a cache for an hour, as a multiple of the input price, for models without a price for that.

https://platform.claude.com/docs/en/build-with-claude/prompt-caching#pricing
"""
Prices = Mapping[str, Any]


class Tokens(NamedTuple):
    """The tokens of a call.

    `input` includes tokens read from and written to a cache, `output` those of reasoning, and `write` those that were
    written for an hour (`write_1h`).
    """

    input: int = 0
    output: int = 0
    read: int = 0
    write: int = 0
    audio_in: int = 0
    audio_out: int = 0
    reasoning: int = 0
    write_1h: int = 0


_DETAILS = (
    "cached_tokens", "cache_write_tokens", "input_audio_tokens", "output_audio_tokens", "reasoning_tokens",
    "cache_write_1h_tokens",
)  # fmt: skip
"""Fields that count a part of the input or output tokens, in the order of Tokens. Each may have a price of its own."""
_no_details = frozenset(_DETAILS).isdisjoint


def cost_of(fields: Mapping[str, Any], input_tokens: int | None, output_tokens: int | None) -> float | None:
    """Return the cost of a call in US dollars; None for a model without known prices, or without tokens.

    Args:
        fields: the members of the call's payload and result.
    """
    if input_tokens is None and output_tokens is None:
        return None
    asked, answered = fields.get("model"), fields.get("response_model")
    provider = fields.get("provider")
    provider = provider if type(provider) is str else None
    for model in (answered, asked):
        prices = prices_of(model, provider) if type(model) is str and model else None
        if prices is not None:
            return _cost(prices, _tokens(fields, input_tokens, output_tokens))
    return None


ESTIMATED_IN, ESTIMATED_OUT = 5.0, 25.0
"""The estimated prices of a call without a known price, in US dollars for a million tokens: those of a large model."""


def estimate(input_tokens: int | None, output_tokens: int | None) -> float:
    """Return the estimated cost, in US dollars, of a call without a known price."""
    return ((input_tokens or 0) * ESTIMATED_IN + (output_tokens or 0) * ESTIMATED_OUT) / _MILLION


class CacheEffect(NamedTuple):
    """The effect of a provider's cache on the price of a call, in US dollars.

    Attributes:
        saved: how much more the tokens that were read would have cost as plain input.
        extra: how much more the tokens that were written cost than plain input.
    """

    saved: float
    extra: float


def cache_effect(
    models: Sequence[str | None], provider: str | None, input_tokens: int, read: int, written: int, written_1h: int
) -> CacheEffect | None:
    """Return the effect of a cache on the price of a call; None for a model without known prices.

    Args:
        models: the names of the model, of which the first with known prices counts: the one that answered, and the one
            that was asked.
        input_tokens: with or without those of the cache.
        read, written, written_1h: tokens that were read from the cache, and written to it; of these, for an hour.
    """
    prices = next((found for model in models if model and (found := prices_of(model, provider)) is not None), None)
    if prices is None or "in" not in prices:
        return None
    whole = _with_cache(input_tokens, read, written)
    plain = _at(prices["in"], whole)
    at_write = _at(prices.get("write", plain), whole)
    for_an_hour = _at(prices.get("write_1h", _HOUR * plain if "write" in prices else plain), whole)
    saved = read * (plain - _at(prices.get("read", plain), whole))
    extra = (written - written_1h) * (at_write - plain) + written_1h * (for_an_hour - plain)
    return CacheEffect(saved / _MILLION, extra / _MILLION)


def _with_cache(sent: int, read: int, write: int) -> int:
    """Return all input tokens of a call.

    Anthropic's input tokens exclude those of the cache; OpenTelemetry's conventions include them.
    """
    return sent if read + write <= sent else sent + read + write


def _tokens(fields: Mapping[str, Any], input_tokens: int | None, output_tokens: int | None) -> Tokens:
    sent = input_tokens if input_tokens is not None and input_tokens > 0 else 0
    made = output_tokens if output_tokens is not None and output_tokens > 0 else 0
    if _no_details(fields):  # most calls
        return _new(Tokens, (sent, made, *_NO_DETAILS))
    read, write, audio_in, audio_out, reasoning, hours = map(_number, map(fields.get, _DETAILS))
    whole = _with_cache(sent, read, write)
    return Tokens(whole, made, read, write, audio_in, audio_out, reasoning, min(write, hours))


def _number(value: Any) -> int:
    return 0 if value is None else max(0, count(value) or 0)


def _cost(prices: Prices, tokens: Tokens) -> float | None:
    if tokens[2:] == _NO_DETAILS and "in" in prices and "out" in prices:  # most calls
        sent, made = tokens[:2]
        plain: float = 1000.0 * prices.get("request", 0) + sent * _at(prices["in"], sent)
        return (plain + made * _at(prices["out"], sent)) / _MILLION
    if not prices:  # not priced by tokens
        return None
    whole_in, whole_out, read, write, audio_in, audio_out, reasoning, hours = tokens
    if hours and "write" in prices and "write_1h" not in prices and "in" in prices:
        prices = {**prices, "write_1h": _HOUR * _at(prices["in"], whole_in)}
    hours = hours if "write_1h" in prices else 0
    audio_in = min(audio_in, whole_in)
    parts_in = ("read", read), ("write_1h", hours), ("write", write - hours), ("audio_in", audio_in)
    parts_out = ("audio_out", audio_out), ("reasoning", reasoning)
    total: float = 1000.0 * prices.get("request", 0)
    for rest, main, parts in ((whole_in, "in", parts_in), (whole_out, "out", parts_out)):
        for name, number in parts:
            if number and (price := prices.get(name)) is not None:
                number = min(number, rest)
                rest -= number
                total += number * _at(price, whole_in)
        if rest:
            price = prices.get(main, 0 if main == "out" else None)  # an embedding has no output to pay for
            if price is None:
                return None
            total += rest * _at(price, whole_in)
    return total / _MILLION


def _at(price: Any, input_tokens: int) -> float:
    """Return the price at a number of input tokens. Above the start of a tier, all tokens cost the tier's price."""
    if type(price) is not list:
        return float(price)
    found = price[0]
    for start, dearer in price[1:]:
        if input_tokens > start:
            found = dearer
    return float(found)


@lru_cache(maxsize=1024)
def prices_of(model: str, provider: str | None) -> Prices | None:
    """Return the prices of a model, by name: dollars for a million tokens; None if it is not known."""
    name = model.lower()
    own = _own().get(model)
    if own is not None:
        return own
    prefix, slash, rest = name.partition("/")
    for asked, who in ((name, provider and provider.lower()), (rest, prefix) if slash else (name, None), (name, None)):
        for provider_models in _providers(asked, who):
            for match, prices in provider_models:
                if _matches(match, asked):
                    found: Prices = prices
                    return found
    return None


def _providers(model: str, provider: str | None) -> list[Sequence[Any]]:
    """Return the models of the providers that match the provider's name or, without one, the model's name."""
    known = _table()
    if provider:
        exact = [models for id, _, _, models in known if id == provider]
        return exact or [models for _, match, _, models in known if match is not None and _matches(match, provider)]
    return [models for _, _, match, models in known if match is not None and _matches(match, model)]


def _matches(clause: Sequence[Any], text: str) -> bool:
    kind, first = clause[0], clause[1]
    if kind == "equals":
        return bool(text == first)
    if kind == "or":
        return any(_matches(each, text) for each in clause[1:])
    if kind == "and":
        return all(_matches(each, text) for each in clause[1:])
    if kind == "starts_with":
        return text.startswith(first)
    if kind == "ends_with":
        return text.endswith(first)
    if kind == "contains":
        return first in text
    import re

    return kind == "regex" and re.search(first, text) is not None


@cache
def _table() -> list[Any]:
    found: list[Any] = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))["providers"]
    return found


@cache
def _own() -> Mapping[str, Prices]:
    """Return the user's own prices. If they cannot be read, log a warning and return none: spans are stored anyway."""
    try:
        return own_prices()
    except InvalidValue as error:
        log.warning("prices of your own are not used: %s", error)
        return {}


def own_prices() -> Mapping[str, Prices]:
    """Return the prices of the file that AGENTSPAN_PRICES names.

    Raises:
        InvalidValue: the file cannot be read, or is no JSON object of models with prices.
    """
    path = os.environ.get(OWN)
    if not path:
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            sent = json.load(file)
    except (OSError, ValueError) as error:
        raise InvalidValue(OWN, f"{path} cannot be read: {type(error).__name__}") from None
    own: dict[str, Prices] = sent
    for prices in sent.values() if isinstance(sent, dict) else (None,):
        if not isinstance(prices, dict) or not prices.keys() <= _NAMES or not all(map(_is_price, prices.values())):
            raise InvalidValue(
                OWN, f"{path} must be an object of models, each with prices of {', '.join(sorted(_NAMES))}"
            )
    return own


def _is_price(value: object) -> bool:
    return type(value) in (int, float) and value >= 0  # type: ignore[operator]


def forget() -> None:
    """Drop the cached prices, so that the next call reads the user's file again; for tests."""
    _own.cache_clear()
    prices_of.cache_clear()
