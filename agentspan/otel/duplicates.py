"""Recognises one call of a model that several instrumentors recorded: a framework's, a client's, the SDK's own.

One of the spans stays an `llm` span, with the richer data of all. The others stay where they are in the tree, so that
the tree is the recorded one, and become `custom` spans with `duplicate_of`. Their tokens and cost are not counted.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from agentspan.otel.mapping.mapped import ABOUT_SPAN, Mapped, plain_name
from agentspan.otel.mapping.sdks import LITELLM_SCOPE
from agentspan.otel.span import OtelSpan

T = TypeVar("T")
NEAREST = 64
"""Calls that began before one and are compared with it, at most."""
_CONTENT = ("text", "tool_calls", "output_messages")


class Call(NamedTuple):
    """One recorded call of a model.

    Attributes:
        id, parent: of the span, in its trace.
        scope: the instrumentor.
        models: the names of the model that it gives, without a provider before a slash.
        response: the id of the provider's answer, or None.
        end_ns: its end, or its first token, if that came later: the span of a stream may end before it is read.
        weight: how much it has of what was said; the largest is kept.
        beside: the span around it and around calls of the same instrumentor whose only call it is.
    """

    id: str
    parent: str | None
    scope: str
    models: frozenset[str]
    response: str | None
    start_ns: int
    end_ns: int
    weight: int
    beside: str | None = None


def call_of(span: OtelSpan, mapped: Mapped) -> Call | None:
    """Return the call of an llm span; None of another type."""
    if mapped.type != "llm":
        return None
    result = mapped.result_payload or {}
    names = (mapped.payload.get("model"), result.get("response_model"))
    models = frozenset(name.rpartition("/")[2] for name in names if type(name) is str)
    weight = 1000 * ("messages" in mapped.payload) + 1000 * any(each in result for each in _CONTENT)
    weight += len(mapped.payload) + len(result)
    end_ns = span.start_ns if span.end_ns is None else span.end_ns
    first_ms = result.get("time_to_first_token_ms")
    if type(first_ms) is float:
        end_ns = max(end_ns, span.start_ns + int(first_ms * 1_000_000))
    response = result.get("response_id")
    ids, scope = (span.span_id, span.parent_span_id), span.scope.name
    return Call(*ids, scope, models, response, span.start_ns, end_ns, weight)


def duplicates(calls: Iterable[Call]) -> dict[str, str]:
    """Return which calls of one trace are duplicates, by the id of the call that is kept.

    Two are the same call if their answers have the same id. Where not both have one: if they are of different
    instrumentors and the same model, one in the other or side by side, and overlap in time. Calls that run at the same
    time are paired one to one, the nearest first: no instrumentor records a call twice, unless one span is the only
    call in the other.
    """
    ordered = _placed(sorted(calls, key=lambda call: (call.start_ns, call.id)))
    group: dict[str, list[Call]] = {call.id: [call] for call in ordered}
    for _, _, first, second in sorted(_pairs(ordered), key=lambda pair: (*pair[:2], pair[2].id, pair[3].id)):
        one, other = group[first.id], group[second.id]
        scopes = {call.scope for call in one}
        if one is other or any(call.scope in scopes and not _is_nested(call, one) for call in other):
            continue
        one += other
        for call in other:
            group[call.id] = one
    return {call.id: kept.id for call in ordered if (kept := _kept(group[call.id])).id != call.id}


def _placed(ordered: Sequence[Call]) -> list[Call]:
    """Return calls with `beside` set. A call that is around another one comes before it."""
    found: dict[str, Call] = {}
    inside = Counter(call.parent for call in ordered)
    for call in ordered:
        outer = found.get(call.parent or "")
        is_only = outer is not None and outer.scope == call.scope and inside[outer.id] == 1
        found[call.id] = call._replace(beside=outer.beside if outer is not None and is_only else call.parent)
    return [*found.values()]


def _pairs(ordered: Sequence[Call]) -> Iterator[tuple[int, int, Call, Call]]:
    """Yield the calls that may be the same, with how sure and how near that is; less is better.

    Only calls of one answer, one in the other, or side by side with one model are compared: an agent may have thousands
    of calls at the same time.
    """
    by_id, inside = {call.id: call for call in ordered}, Counter(call.parent for call in ordered)
    answers: dict[str, list[Call]] = defaultdict(list)
    beside: dict[tuple[str | None, str], list[Call]] = defaultdict(list)
    for call in ordered:
        if call.response is not None:
            answers[call.response].append(call)
        for model in call.models:
            beside[call.beside, model].append(call)
        outer = by_id.get(call.parent or "")
        is_only = outer is not None and inside[outer.id] == 1
        if outer is not None and (is_only or (outer.scope != call.scope and outer.models)):
            yield from _ranked(outer, call)
    for group in (*answers.values(), *beside.values()):
        if len({call.scope for call in group}) > 1:
            yield from _near(group)


def _near(group: Sequence[Call]) -> Iterator[tuple[int, int, Call, Call]]:
    """Yield the pairs in a group of calls, in the order of their starts, that overlap in time."""
    active: deque[Call] = deque(maxlen=NEAREST)
    for call in group:
        for other in active:
            yield from _ranked(other, call)
        active.append(call)


def _ranked(one: Call, other: Call) -> Iterator[tuple[int, int, Call, Call]]:
    overlap = one.start_ns <= other.end_ns and other.start_ns <= one.end_ns
    rank = _rank(one, other) if overlap else None
    if rank is not None:
        yield rank, abs(other.start_ns - one.start_ns) + abs(other.end_ns - one.end_ns), one, other


def _rank(one: Call, other: Call) -> int | None:
    nested = one.id == other.parent or other.id == one.parent
    if one.response is not None and other.response is not None:
        same = one.response == other.response and (nested or one.scope != other.scope)
        return 0 if same else None
    is_same = one.models & other.models
    if nested:
        return 1 if is_same or not (one.models and other.models) else None  # one that failed may name no model
    return 2 if is_same and one.scope != other.scope and one.beside == other.beside else None


def distance(call: Call, other: Call) -> tuple[int, int] | None:
    """Return how far two calls of different instrumentors are apart, wherever they are; None of different calls."""
    if call.scope == other.scope:
        return None
    found = next(_ranked(call._replace(beside=None), other._replace(beside=None)), None)
    return None if found is None else found[:2]


def nearest(call: Call, others: Iterable[tuple[Call, T]]) -> T | None:
    """Return the companion of the call that is nearest to a call of another instrumentor; None if none is the same."""
    found = [(near, with_it) for other, with_it in others if (near := distance(call, other)) is not None]
    return min(found, key=lambda each: each[0])[1] if found else None


def _is_nested(call: Call, others: Sequence[Call]) -> bool:
    return any(call.id == other.parent or call.parent == other.id for other in others)


def _kept(group: Sequence[Call]) -> Call:
    return max(group, key=lambda call: (call.weight, -call.start_ns, call.id))


def merged(kept: Mapped, others: Iterable[Mapped]) -> Mapped:
    """Return the kept span with the fields that only its duplicates have."""
    payload, result = dict(kept.payload), dict(kept.result_payload or {})
    for other in others:
        for mine, theirs in ((payload, other.payload), (result, other.result_payload or {})):
            for field, value in theirs.items():
                if field not in ABOUT_SPAN and field != "error":
                    mine.setdefault(field, value)
    return kept._replace(payload=payload, result_payload=result or None)


def marked(duplicate: Mapped, kept: Mapped, kept_id: str) -> Mapped:
    """Return a duplicate as a `custom` span that names the span it repeats.

    Args:
        kept: the span that is kept, merged: what it has, too, is left out here.
        kept_id: its id in agentspan.
    """
    mine = {**duplicate.payload, **(duplicate.result_payload or {})}
    theirs = {**kept.payload, **(kept.result_payload or {})}
    differs = {
        field: value
        for field, value in mine.items()
        if field not in ABOUT_SPAN and field != "error" and theirs.get(field) != value
    }
    payload: dict[str, Any] = {"duplicate_of": kept_id}
    if differs:
        payload["differs"] = differs
    payload |= {field: value for field, value in duplicate.payload.items() if field in ABOUT_SPAN}
    error = (duplicate.result_payload or {}).get("error")
    named = duplicate.payload.get("otel", {}).get("name", "")
    return duplicate._replace(
        schema_name=plain_name(named),
        type="custom",
        payload=payload,
        result_payload={"error": error} if error is not None else None,
    )


def as_recorded(mapped: Mapping[str, Mapped], kept_of: Mapping[str, str], wanted: Iterable[str]) -> dict[str, Mapped]:
    """Return the records of some spans: of a kept one with the fields of its duplicates, of a duplicate marked as one.

    Args:
        mapped: spans by their ids in agentspan: the wanted ones, what they repeat, and what repeats them.
        kept_of: the kept span of each duplicate.
        wanted: ids.
    """
    twins, whole, found = twins_of(kept_of), dict[str, Mapped](), dict[str, Mapped]()
    for id in wanted:
        kept = kept_of.get(id, id)
        if kept not in whole:
            others = [mapped[twin] for twin in twins.get(kept, ())]
            whole[kept] = merged(mapped[kept], others) if others else mapped[kept]
        found[id] = whole[kept] if kept == id else marked(mapped[id], whole[kept], kept)
    return found


def twins_of(kept_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the duplicates of each kept span."""
    found: dict[str, list[str]] = {}
    for twin, kept in kept_of.items():
        found.setdefault(kept, []).append(twin)
    return found


def only_repeats(scope: str, kind: Any) -> bool:
    """Return whether a trace of such spans may only repeat a call of another one: LiteLLM's callback makes such traces.

    Args:
        scope: the instrumentor.
        kind: of the span, by its name or as the SDK has it; a request to LiteLLM's server is no repetition.
    """
    return scope == LITELLM_SCOPE and getattr(kind, "name", kind) != "SERVER"
