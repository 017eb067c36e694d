"""The answer above the list of runs as texts: the verdicts on the latest runs, their causes, and a histogram."""

from typing import Any

from agentspan.analysis.causes import MARKS, opposite
from agentspan.analysis.outcomes import parse
from agentspan.analysis.overview import Bucket, Overview, overview
from agentspan.storage.protocol import Storage
from agentspan.text import noun, visible
from agentspan.viewer.address import Address, Pair

MOST_CAUSES = 8
HEIGHT = 44
"""The height of the histogram, in units of its drawing."""
_STATUS = {
    "failed": "failed",
    "terminated": "terminated",
    "cancelled": "cancelled",
    "running": "active",
    "pending": "pending",
}


def answer(storage: Storage, address: Address, *, with_causes: bool) -> dict[str, Any]:
    """Return the answer about the runs that match an address, as JSON values.

    Returns:
        `runs`, their number; `head`, the beginning of the sentence; `parts`, the kinds of verdicts on the runs, each
            with its `text` and `mark`, and the address of the list of these runs (`href`, "" without one); `sums`;
            `causes`, each with `runs`, `text`, `only` and `href`, None if they are not computed; `rest`, a sentence
            about further causes; `bars`, one a range of times; `since`, `most` and `until`, the labels of the
            histogram.
    """
    found = overview(storage, address.filter(), with_causes=with_causes)
    within = {"since": found.since, "until": None if found.lately else found.until}
    missed = [] if found.rule is None else [("score", opposite(parse(found.rule))), ("status", "complete")]
    bad = [("status", "failed")] if not found.missed else missed if not found.failed else []  # no filter finds both
    causes = (
        None
        if found.causes is None
        else [
            {
                "runs": f"{each.runs:,}",
                "text": visible(each.text),
                "only": "" if each.only_in is None else f"only in {each.only_in}",
                "href": address.narrowed(("signature", each.signature), *bad).link("", **within),
            }
            for each in found.causes[:MOST_CAUSES]
        ]
    )
    buckets = found.buckets
    return {
        "runs": found.runs,
        "head": found.head,
        "parts": _parts(found, address, missed, within),
        "sums": found.sums if found.runs else "",
        "causes": causes,
        "rest": _rest(found),
        "bars": _bars(buckets, address),
        "since": _minute(buckets[0].since) if buckets else "",
        "most": f"at most {noun(max(map(_runs, buckets)), 'run')} a bar" if buckets else "",
        "until": _minute(buckets[-1].until) if buckets else "",
    }


def _parts(
    found: Overview, address: Address, missed: list[Pair], within: dict[str, str | None]
) -> list[dict[str, str]]:
    if not found.runs:
        return []
    if not found.parts:
        return [{"mark": MARKS["passed"], "text": found.counts, "href": ""}]
    hrefs = {kind: address.link("", status=status, **within) for kind, status in _STATUS.items()}
    if found.rule is not None:
        hrefs["missed"] = address.narrowed(*missed).link("", **within)
    return [{"mark": MARKS[kind], "text": text, "href": hrefs.get(kind, "")} for kind, text in found.parts]  # type: ignore[index]


def _rest(found: Overview) -> str:
    more = max(0, len(found.causes or ()) - MOST_CAUSES)
    texts = [
        noun(more, "more cause") if more else "",
        f"{noun(found.silent, 'run')} without a failed step" if found.silent else "",
    ]
    return " · ".join(filter(None, texts))


def _bars(buckets: tuple[Bucket, ...], address: Address) -> list[dict[str, Any]]:
    """Return the bars of the histogram: failed runs at the bottom, then others, then passed ones.

    Each has `label`, `href` (the list of these runs, with `since` and `until`), and `failed`, `other` and `passed`: the
    top and the height of each part.
    """
    most = max(map(_runs, buckets), default=0)
    bars = []
    for bucket in buckets:
        base, parts = float(HEIGHT), {}
        for name in ("failed", "other", "passed"):
            number = getattr(bucket, name)
            high = 0.0 if not number else max(1.0, round(number / most * HEIGHT, 2))
            base = max(0.0, base - high)
            parts[name] = [round(base, 2), high]
        counts = ", ".join(f"{getattr(bucket, name):,} {name}" for name in parts if getattr(bucket, name)) or "no run"
        label = f"{_minute(bucket.since)} to {_minute(bucket.until)}: {counts}"
        href = address.link("", since=bucket.since, until=bucket.until)
        bars.append({"label": label, "href": href, **parts})
    return bars


def _runs(bucket: Bucket) -> int:
    return bucket.passed + bucket.failed + bucket.other


def _minute(text: str) -> str:
    shown = text[:19].replace("T", " ")
    return shown.removesuffix(":00")
