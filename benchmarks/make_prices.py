"""Makes agentspan/schemas/prices.json from the package genai-prices: `pip install genai-prices`, then run this.

Only what a price of tokens needs is kept, as it is today: earlier prices, and those of certain hours, are left out.
"""

import dataclasses
import json
from datetime import date
from pathlib import Path
from typing import Any

import genai_prices  # type: ignore[import-not-found,unused-ignore]
from genai_prices import data

TARGET = Path(__file__).parent.parent / "agentspan" / "schemas" / "prices.json"
KEPT = {
    "input_mtok": "in",
    "output_mtok": "out",
    "cache_read_mtok": "read",
    "cache_write_mtok": "write",
    "input_audio_mtok": "audio_in",
    "output_audio_mtok": "audio_out",
    "output_reasoning_mtok": "reasoning",
    "requests_kcount": "request",
}


def clause(match: Any) -> Any:
    """Return a clause as JSON: `["equals", "gpt-4o"]`, `["or", …]`."""
    if match is None:
        return None
    ((name, value),) = ((f.name, getattr(match, f.name)) for f in dataclasses.fields(match))
    name = name.strip("_")
    return [name, *map(clause, value)] if name in ("or", "and") else [name, value if name == "regex" else value.lower()]


def price(value: Any) -> Any:
    """Return a price in dollars for a million tokens: a number, or the first and then the ones from so many tokens."""
    if hasattr(value, "tiers"):
        return [float(value.base), *([tier.start, float(tier.price)] for tier in value.tiers)]
    return float(value)


def prices(found: Any) -> dict[str, Any]:
    """Return the prices of a model as they are now."""
    if isinstance(found, list):
        today = [each for each in found if _holds_now(each.constraint)]
        found = (today or found)[-1].prices
    said = (
        vars(found)
        if hasattr(found, "__dict__")
        else {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    )
    return {short: price(said[name]) for name, short in KEPT.items() if said.get(name) is not None}


def _holds_now(constraint: Any) -> bool:
    start = getattr(constraint, "start_date", None)
    return constraint is None or (start is not None and start <= date.today())


def main() -> None:
    """Write the table, a model a line."""
    lines = []
    for provider in data.providers:
        models = [[clause(model.match), prices(model.prices)] for model in provider.models]
        about = [provider.id, clause(provider.provider_match), clause(provider.model_match)]
        rows = ",\n".join(json.dumps(each, separators=(",", ":")) for each in models)
        lines.append(f"{json.dumps(about, separators=(',', ':'))[:-1]},[\n{rows}]]")
    made = {"from": f"genai-prices {genai_prices.__version__}", "date": date.today().isoformat()}
    TARGET.write_text(f'{json.dumps(made)[:-1]},\n"providers":[\n' + ",\n".join(lines) + "]}\n")


if __name__ == "__main__":
    main()
