"""The page that compares runs: two runs step by step, as `agentspan diff` prints it, or several side by side."""

from collections.abc import Iterable, Sequence
from typing import Any

from agentspan.analysis import diff_text
from agentspan.analysis.by_name import find_run
from agentspan.analysis.diff import DiffStep, Divergence, RunDiff, StepChange, diff
from agentspan.analysis.differences import FieldChange, Words, words
from agentspan.analysis.runs import find_runs
from agentspan.analysis.side_by_side import Side, sides, suggestion, with_divergences
from agentspan.analysis.tree import run_name, score_text, session_title
from agentspan.model.rows import ScoreRow
from agentspan.storage.protocol import Storage
from agentspan.text import cut, noun, visible
from agentspan.viewer.address import Address
from agentspan.viewer.page import Page, Part
from agentspan.viewer.texts import Linked, at_text, rule_in, tokens_text, took_text, usd_text

CHANGES = 200
"""The number of changes on a page."""
ALIKE = 0.5
"""The share of common characters from which two titles are shown as one, with the differing words marked."""
DEEPEST = 8
"""The most levels by which a step is indented."""
LONGEST = 2000
"""The number of characters of a differing value that are shown."""
_BAD = ("failed", "missed", "terminated")


def ids_in(storage: Storage, address: Address) -> list[str]:
    """Return the ids of the runs in the address: of `a` and `b`, or of `runs`, separated by commas.

    With `b` alone, a run that failed, the nearest run that passed is `a`.

    Raises:
        NotFound: a run does not exist.
        InvalidValue: several ids begin with a text.
    """
    names = [address.get("a"), address.get("b"), *address.get("runs").split(",")]
    ids = [find_run(storage, name.strip()).id for name in names if name.strip()]
    if len(ids) == 1 and address.get("b"):
        found = suggestion(storage, address.filter()._replace(ids=frozenset(ids)), rule_in(address))
        if found is not None and found.nearest is not None:
            return [found.nearest.run_id, *ids]
    return ids


def first(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the facts of the runs side by side; without runs, the page says how to choose some."""
    ids = ids_in(storage, address)
    found = sides(storage, ids, rule_in(address))
    names = "AB" if len(found) == 2 else ""
    return {
        "runs": [_head(side, names[place : place + 1]) for place, side in enumerate(found)],
        "rows": [*_rows(found)] if found else [],
        "is_twice": len(ids) > len(found),
        "a": address.get("a") or (ids[0] if len(ids) == 2 else ""),
        "b": address.get("b") or (ids[-1] if ids else ""),
        "swapped": address.link("compare", a=ids[1], b=ids[0], outcome=address.get("outcome")) if len(ids) == 2 else "",
    }


def _head(side: Side, name: str) -> dict[str, Any]:
    run = side.run.run
    title = session_title(run)
    return {
        "side": name,
        "name": run_name(side.run.agent, side.run.version),
        "id": run.id,
        "link": f"runs/{run.id}",
        "mark": side.verdict.status,
        "verdict": side.verdict.text,
        "title": visible(title) if title else "",
    }


def _rows(found: Sequence[Side]) -> Iterable[tuple[str, list[tuple[str, bool]]]]:
    """Yield the name of each fact, and its text for each run; True marks what failed."""

    def row(name: str, texts: Iterable[str], bad: Iterable[bool] = ()) -> tuple[str, list[tuple[str, bool]]]:
        marks = [*bad] or [False] * len(found)
        return name, [*zip(texts, marks, strict=True)]

    runs = [side.run for side in found]
    yield row("verdict", (str(side.verdict) for side in found), (side.verdict.kind in _BAD for side in found))
    if any(side.cause for side in found):
        yield row("why", (visible(side.cause.text) if side.cause else "" for side in found))
    yield row("began (UTC)", (at_text(run.run.started_at or run.run.inserted_at) for run in runs))
    yield row("took", (took_text(run.duration_ms) for run in runs))
    yield row("steps", (f"{run.spans:,}" for run in runs))
    yield row("failed steps", (f"{run.failed:,}" for run in runs), (bool(run.failed) for run in runs))
    for name, texts in (
        ("tokens", [tokens_text(side.tokens) for side in found]),
        ("cost", [usd_text(run.cost_usd) for run in runs]),
        ("task", [visible(run.run.task or "") for run in runs]),
    ):
        if any(texts):
            yield row(name, texts)
    for name in dict.fromkeys(score.name for side in found for score in side.scores):
        yield row(name, ("; ".join(visible(_score(s)) for s in side.scores if s.name == name) for side in found))


def _score(score: ScoreRow) -> str:
    return score_text(score).removeprefix(f"{score.name} ")


def steps(storage: Storage, address: Address) -> dict[str, Any]:
    """Return the difference of two runs, where each of several parts from the first, or two runs to compare."""
    ids, heads = [*dict.fromkeys(ids_in(storage, address))], first(storage, address)
    if len(ids) < 2:
        return {**heads, "kind": "one" if ids else "none", **_suggested(storage, address, ids)}
    if len(ids) > 2:
        found = with_divergences(storage, sides(storage, ids, rule_in(address)))
        return {**heads, "kind": "several", "partings": [_parting(found[0], side, address) for side in found[1:]]}
    return {**heads, "kind": "two", **_difference(diff(storage, *ids), address)}


def _suggested(storage: Storage, address: Address, ids: Sequence[str]) -> dict[str, Any]:
    filter = address.filter()._replace(ids=frozenset(ids)) if ids else address.filter()
    found = suggestion(storage, filter, rule_in(address))
    if found is None:
        return {"failed": None, "is_empty": not ids and not find_runs(storage, filter, limit=1).total}
    nearest = found.nearest
    failed = found.failed
    first = None if nearest is None else nearest.divergence
    return {
        "failed": Linked(run_name(failed.agent, failed.version), f"runs/{failed.run.id}"),
        "began": at_text(failed.run.started_at or failed.run.inserted_at),
        "nearest": "" if nearest is None else address.link("compare", a=nearest.run_id, b=failed.run.id),
        "after": "" if first is None else diff_text.after(first),
        "of": "" if nearest is None else ("the same task" if nearest.same_task else "the same agent"),
    }


def _parting(one: Side, other: Side, address: Address) -> dict[str, Any]:
    found = other.divergence
    link = address.link("compare", a=one.run.run.id, b=other.run.run.id, outcome=address.get("outcome"))
    name = run_name(other.run.agent, other.run.version)
    if found is None:
        return {"name": name, "id": other.run.run.id, "link": link, "text": "the same steps", "a": None, "b": None}
    text = f"{diff_text.after(found)}: {diff_text.parting(found, 'the first run', 'this run')}"
    places = (_step(found.a, one.run.run.id), _step(found.b, other.run.run.id))
    return {"name": name, "id": other.run.run.id, "link": link, "text": text, "a": places[0], "b": places[1]}


def _difference(found: RunDiff, address: Address) -> dict[str, Any]:
    first = found.first_divergence
    offset = min(address.offset, max(0, len(found.steps) - 1))
    shown = found.steps[offset : offset + CHANGES]
    after = offset + len(shown)
    place = None if first is None else first.place
    number = sum(change.kind != "same" for change in found.steps)
    return {
        "terminal": f"{found.a.run_id} {found.b.run_id}",
        "deltas": diff_text.deltas(found.a, found.b),
        "note": "" if found.is_shortest else diff_text.NOT_SHORTEST,
        "same": sum(step.count for step in found.steps) if first is None else 0,
        "divergence": None if first is None else _divergence(first, found),
        "fields_of_runs": [*map(_field, found.fields)],
        "number": noun(number, "difference"),
        "changes": [
            _change(change, found, is_first=offset + at == place) for at, change in enumerate(shown)
        ] if first is not None else [],
        "before": address.same("compare", offset=max(0, offset - CHANGES) or None) if offset else "",
        "after": address.same("compare", offset=after) if after < len(found.steps) else "",
        "place_of": f"{offset + 1:,}–{after:,} of {len(found.steps):,}" if len(found.steps) > len(shown) else "",
    }  # fmt: skip


def _divergence(first: Divergence, found: RunDiff) -> dict[str, Any]:
    return {
        "before": diff_text.before(first),
        "parting": diff_text.parting(first),
        "hint": diff_text.read_first(first) or "",
        "a": _step(first.a, found.a.run_id),
        "b": _step(first.b, found.b.run_id),
        "fields": [*map(_field, first.fields)],
    }


def _step(step: DiffStep | None, run_id: str) -> dict[str, Any] | None:
    if step is None:
        return None
    return {
        "number": f"{step.number:,}",
        "title": visible(step.title),
        "attempts": diff_text.attempts_text(step),
        "mark": step.status,
        "link": f"runs/{run_id}#span={step.span_id}",
    }


def _field(field: FieldChange) -> dict[str, Any]:
    parts = [*diff_text.shortened(field.words)]
    is_mixed = any(part.op == "same" and part.text.strip() for part in parts)
    return {
        "path": visible(field.path),
        "words": _shown(parts) if is_mixed else [],
        "a": None if field.a is None else visible(cut(field.a, LONGEST)),
        "b": None if field.b is None else visible(cut(field.b, LONGEST)),
    }


def _shown(parts: Iterable[Words]) -> list[tuple[str, str]]:
    """Return the parts of a text difference, with about as many characters as LONGEST."""
    found, room = [], LONGEST
    for part in parts:
        if room <= 0:
            found.append(("same", " …"))
            break
        text = visible(cut(part.text, room))
        room -= len(text)
        found.append((part.op, text))
    return found


def _change(change: StepChange, found: RunDiff, *, is_first: bool) -> dict[str, Any]:
    step = change.b or change.a
    return {
        "kind": change.kind,
        "mark": diff_text.MARKS.get(change.kind, diff_text.CHANGED),
        "text": noun(change.count, "equal step") if change.kind == "same" else diff_text.kind_text(change),
        "is_quiet": change.kind in diff_text.QUIET,
        "depth": min(change.depth, DEEPEST),
        "title": [] if step is None or change.kind == "same" else _titles(change, step),
        "inside": f"{noun(change.count - 1, 'step')} in it" if change.count > 1 and change.kind != "same" else "",
        "a": _step(change.a, found.a.run_id),
        "b": _step(change.b, found.b.run_id),
        "is_first": is_first,
    }


def _titles(change: StepChange, step: DiffStep) -> list[tuple[str, str]]:
    """Return the title of a step as parts of a text difference; two that have little in common as two lines."""
    if change.a is None or change.b is None or change.a.title == change.b.title:
        return [("same", visible(step.title))]
    one, other = visible(change.a.title), visible(change.b.title)
    parts: list[tuple[str, str]] = [(part.op, part.text) for part in words(one, other)]
    same = sum(len(text) for op, text in parts if op == "same")
    if same < ALIKE * min(len(one), len(other)):
        return [("removed", one), ("same", "\n"), ("added", other)]
    return parts


COMPARE = Page("compare", "Compare", (Part("compare.html", first), Part("compare_steps.html", steps)))
