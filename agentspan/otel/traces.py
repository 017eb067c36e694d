"""The decisions about an arriving span, for spans of this process (`processor`) and of exporters (`receiving`). Pure.

The root span of a trace decides the name and the end of its run. The trace of an agent, of a call of a framework, or of
a server's request is a run of its own. All other traces of a process share one run.

Calls of models that several instrumentors recorded (of a framework, of a client, of the SDK itself) are deduplicated:
one of the spans stays an `llm` span and gets the fields that only its duplicates have. The duplicates stay at their
places in the tree and become `custom` spans with `duplicate_of`. Their tokens and cost are not counted.
"""

import hashlib
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from agentspan.otel.mapping.mapped import (
    ABOUT_SPAN,
    Mapped,
    Program,
    RunFacts,
    is_of_framework,
    plain_name,
    program_of,
)
from agentspan.otel.mapping.sdks import LITELLM_SCOPE
from agentspan.otel.span import OtelSpan
from agentspan.recording.capture.redaction import suspicious

ABANDONED = {"type": "Abandoned", "message": "its end was never sent"}
"""The error of a span or a run whose end was never recorded."""


class Step(NamedTuple):
    """An OpenTelemetry span, and the agentspan record that it was mapped to."""

    span: OtelSpan
    mapped: Mapped


UNKNOWN = "unknown"
"""The target of a handoff whose instrumentor does not name the target."""


def with_targets(trace: list[Step]) -> list[Step]:
    """Return the trace with a target for each handoff that has none: the next agent that began at or after its start.

    Changes the list in place.
    """
    agents = [step for step in trace if step.mapped.type == "agent"]
    for index, (span, mapped) in enumerate(trace):
        if mapped.type == "handoff" and mapped.payload.get("to_agent", UNKNOWN) == UNKNOWN:
            names = (agent.mapped.payload.get("name") for agent in agents if agent.span.start_ns >= span.start_ns)
            payload = {**mapped.payload, "to_agent": next(names, UNKNOWN)}
            trace[index] = Step(span, mapped._replace(payload=payload))
    return trace


def trace_key(trace_id: str) -> str:
    """Return the key of a run that is one trace."""
    return f"otel:trace:{trace_id}"


def process_key(program: Program) -> str:
    """Return the stored key of the run of a process. A key that may contain a credential is replaced by its hash."""
    key = program.key
    if suspicious()(key):
        key = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return f"otel:process:{key}"


def in_order(steps: Iterable[Step]) -> list[Step]:
    """Return steps sorted by their start times."""
    return sorted(steps, key=lambda step: order(step[0]))


def order(span: OtelSpan) -> tuple[int, int, str, str]:
    """Return the sort key of a span: its start time, then root spans before others, then its ids."""
    return span.start_ns, span.parent_span_id is not None, span.trace_id, span.span_id


def root_of(trace: Sequence[Step]) -> Step:
    """Return the root step of a trace, chosen by `root_span`."""
    root = root_span([step.span for step in trace])
    return next(step for step in trace if step.span is root)


def root_span(trace: Sequence[OtelSpan]) -> OtelSpan:
    """Return the root span of a trace; if the root is missing, the best of the spans whose parent is missing.

    A request to a server is better than another span, then an earlier span is better than a later one.
    """
    here = {span.span_id for span in trace}
    tops = [span for span in trace if span.parent_span_id not in here]
    return min(tops or trace, key=lambda span: (-rank_of(span), *order(span)))


def rank_of(span: OtelSpan) -> int:
    """Return how likely a span is the root of its trace: 2 without a parent, 1 for a server's request, else 0."""
    return 2 if span.parent_span_id is None else int(span.kind == "SERVER")


class RunName(NamedTuple):
    """The identity of a run: its key, and the name and version of its agent.

    Attributes:
        key: unique for each run: `otel:trace:…` or `otel:process:…`.
        agent, version: the name of the agent, and the agent's version if it is known.
    """

    key: str
    agent: str
    version: str | None


def name_of_trace(root: OtelSpan, facts: RunFacts, *, is_own: bool) -> RunName:
    """Return the key, agent and version of the run of a trace.

    The agent's name is that of `facts`, else with `is_own` the name of the root span, else the name of the program.

    Args:
        root: the root span of the trace, or the first known span.
        facts: the facts about the run that were mapped from the root span.
        is_own: whether the root span may name the run.
    """
    program = program_of(root.resource)
    agent = facts.agent or (root.name if is_own else program.name)
    return RunName(trace_key(root.trace_id), agent, facts.version or program.version)


def name_of_process(program: Program) -> RunName:
    """Return the key, agent and version of the run that holds the other traces of a process."""
    return RunName(process_key(program), program.name, program.version)


def run_metadata(
    resource: Mapping[str, Any], scopes: Iterable[str] | None = None, trace_id: str | None = None
) -> dict[str, Any]:
    """Return the metadata of a run that came from OpenTelemetry.

    Args:
        resource: the attributes of the process.
        scopes: the names of the instrumentors of the run; None if they are not known yet.
        trace_id: the id of the trace if the run is one trace; None for the run of a process.
    """
    about: dict[str, Any] = {"resource": dict(resource)}
    if scopes is not None:
        about["scopes"] = [*scopes]
    if trace_id is not None:
        about["trace_id"] = trace_id
    return {"otel": about}


class RunEnd(NamedTuple):
    """The status, result and error that a run takes from its root span. `result` and `error` are None if missing."""

    status: Literal["complete", "failed"]
    result: dict[str, Any] | None
    error: dict[str, Any] | None


def end_of_run(root: Mapped) -> RunEnd:
    """Return the end of a run: the status, output and error of its root span."""
    returned = root.result_payload or {}
    output = returned.get("output")
    error = returned.get("error", {}) if root.status == "failed" else None
    return RunEnd(root.status, None if output is None else {"output": output}, error)


def conversation(steps: Iterable[Step]) -> tuple[str | None, str | None]:
    """Return the first session and the first user that the steps of a run name; None for each that no step names."""
    facts = dict.fromkeys(step.mapped.run for step in steps)  # most spans share theirs
    session = next((found for each in facts if (found := each.session)), None)
    return session, next((found for each in facts if (found := each.user)), None)


T = TypeVar("T")
NEAREST = 64
"""The most earlier calls that a call is compared with: those that began last before it."""
_CONTENT = ("text", "tool_calls", "output_messages")


class Call(NamedTuple):
    """One recorded call of a model.

    Attributes:
        id, parent: the id of the span, and the id of its parent span.
        scope: the name of the instrumentor.
        models: the names of the requested and the answering model, without a provider before a slash.
        response: the id of the provider's answer, or None.
        end_ns: the end of the span, or the time of the first token if it is later: the span of a stream may end
            before the stream is read.
        weight: how much content the span has. Of several duplicates, the one with the largest weight is kept.
        beside: the parent span. If the parent is a call of the same instrumentor with no other call inside,
            the `beside` of the parent.
        has_failed: whether the call failed. Failed calls inside of another one are its retries.
        tokens: the tokens in and out; None for each that is unknown.
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
    has_failed: bool = False
    tokens: tuple[Any, Any] = (None, None)


def call_of(span: OtelSpan, mapped: Mapped) -> Call | None:
    """Return the call that an llm span records; None for a span of another type."""
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
    failed, tokens = mapped.status == "failed", (result.get("input_tokens"), result.get("output_tokens"))
    return Call(*ids, scope, models, response, span.start_ns, end_ns, weight, has_failed=failed, tokens=tokens)


def duplicates(calls: Iterable[Call]) -> dict[str, str]:
    """Return the duplicates among the calls of one trace: the id of each duplicate, with the id of the kept call.

    Two spans record the same call if their answers have the same id. If not both have such an id, the spans must be of
    different instrumentors and the same model, be nested or siblings, and overlap in time; or one is a framework's and
    lasts while the other does, with the same tokens: LangChain's instrumentor makes no span current, so the client's
    span stands elsewhere in the trace. Calls that run at the same time are paired one to one, the nearest first: an
    instrumentor records a call once, unless one of its spans is the only call in the other, or the only one there that
    did not fail: the others are retries, or models that it replaces.
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
    """Return the calls with `beside` set. In `ordered`, an outer call must come before the calls inside it."""
    found: dict[str, Call] = {}
    only = _only(ordered)
    answered = {call.parent: call for call in ordered if call.id in only and not call.has_failed}
    failed = {call.parent for call in ordered if call.has_failed}
    for call in ordered:
        outer, inner = found.get(call.parent or ""), answered.get(call.id)
        is_only = outer is not None and outer.scope == call.scope and call.id in only
        if inner is not None and inner.scope == call.scope and call.id in failed:  # asked for a model that failed
            call = call._replace(models=call.models | inner.models, weight=0)
        found[call.id] = call._replace(beside=outer.beside if outer is not None and is_only else call.parent)
    return [*found.values()]


def _only(calls: Sequence[Call]) -> set[str]:
    """Return the ids of the calls that have no other call beside them, or none that did not fail."""
    inside = Counter(call.parent for call in calls)
    working = Counter(call.parent for call in calls if not call.has_failed)
    return {call.id for call in calls if 1 in (inside[call.parent], not call.has_failed and working[call.parent])}


def _pairs(ordered: Sequence[Call]) -> Iterator[tuple[int, int, Call, Call]]:
    """Yield pairs of spans that may record the same call, each as (rank, distance in ns, call, call); less is better.

    Only calls with the same answer id, nested calls, and others with the same model are compared, siblings apart: an
    agent may have thousands of calls at the same time.
    """
    by_id, only = {call.id: call for call in ordered}, _only(ordered)
    answers: dict[str, list[Call]] = defaultdict(list)
    beside: dict[tuple[str | None, str], list[Call]] = defaultdict(list)
    apart: dict[str, list[Call]] = defaultdict(list)
    for call in ordered:
        if call.response is not None:
            answers[call.response].append(call)
        for model in call.models:
            beside[call.beside, model].append(call)
        outer = by_id.get(call.parent or "")
        if outer is None:
            for model in call.models:
                apart[model].append(call)
        elif call.id in only or (outer.scope != call.scope and outer.models):
            yield from _ranked(outer, call)
    others = (group for group in apart.values() if len({call.beside for call in group}) > 1)
    for group in (*answers.values(), *beside.values(), *others):
        if len({call.scope for call in group}) > 1:
            yield from _near(group)


def _near(group: Sequence[Call]) -> Iterator[tuple[int, int, Call, Call]]:
    """Yield the ranked pairs of calls in a group that overlap in time. The group must be sorted by start time."""
    active: deque[Call] = deque(maxlen=NEAREST)
    for call in group:
        for other in active:
            yield from _ranked(other, call)
        active.append(call)


def _ranked(one: Call, other: Call) -> Iterator[tuple[int, int, Call, Call]]:
    overlap = one.start_ns <= other.end_ns and other.start_ns <= one.end_ns
    rank = _rank(one, other) if overlap else None
    if rank is not None:  # of calls in a loop of asyncio, all frameworks' may begin before the first client's
        after = 0 if rank == _AROUND else abs(other.start_ns - one.start_ns)
        yield rank, after + abs(other.end_ns - one.end_ns), one, other


_AROUND = 3
"""The rank of a framework's call and a client's that stands elsewhere."""


def _rank(one: Call, other: Call) -> int | None:
    nested = one.id == other.parent or other.id == one.parent
    if one.response is not None and other.response is not None:
        same = one.response == other.response and (nested or one.scope != other.scope)
        return 0 if same else None
    is_same = one.models & other.models
    if nested:
        return 1 if is_same or not (one.models and other.models) else None  # a failed call may name no model
    if not is_same or one.scope == other.scope:
        return None
    return 2 if one.beside == other.beside else _AROUND if _is_around(one, other) or _is_around(other, one) else None


def _is_around(framework: Call, client: Call) -> bool:
    agree = all(None in pair or pair[0] == pair[1] for pair in zip(framework.tokens, client.tokens, strict=True))
    is_inside = framework.start_ns <= client.start_ns and client.end_ns <= framework.end_ns
    return agree and is_inside and is_of_framework(framework.scope) and not is_of_framework(client.scope)


def distance(call: Call, other: Call) -> tuple[int, int] | None:
    """Return the rank and distance of two spans that may record the same call, in any two traces; None if they cannot.

    Calls of the same instrumentor are never the same call.
    """
    if call.scope == other.scope:
        return None
    found = next(_ranked(call, other), None)
    return None if found is None else found[:2]


def nearest(call: Call, others: Iterable[tuple[Call, T]]) -> T | None:
    """Return the value paired with the nearest of `others` that may be the same call; None if no call may be.

    Args:
        call: the call to find.
        others: calls, each paired with a value of any type.
    """
    found = [(near, with_it) for other, with_it in others if (near := distance(call, other)) is not None]
    return min(found, key=lambda each: each[0])[1] if found else None


def _is_nested(call: Call, others: Sequence[Call]) -> bool:
    return any(call.id == other.parent or call.parent == other.id for other in others)


def _kept(group: Sequence[Call]) -> Call:
    return max(group, key=lambda call: (call.weight, -call.start_ns, call.id))


def merged(kept: Mapped, others: Iterable[Mapped]) -> Mapped:
    """Return the kept span, completed by the fields that only its duplicates have."""
    payload, result = dict(kept.payload), dict(kept.result_payload or {})
    for other in others:
        for mine, theirs in ((payload, other.payload), (result, other.result_payload or {})):
            for field, value in theirs.items():
                if field not in ABOUT_SPAN and field != "error":
                    mine.setdefault(field, value)
    return kept._replace(payload=payload, result_payload=result or None)


def marked(duplicate: Mapped, kept: Mapped, kept_id: str) -> Mapped:
    """Return a duplicate as a `custom` span that names the kept span.

    Args:
        kept: the kept span after `merged`. The fields that it has with equal values are left out of the duplicate.
        kept_id: the id of the kept span in agentspan.
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
    """Return the records of the wanted spans: a kept span is merged with its duplicates, a duplicate is marked.

    Args:
        mapped: the wanted spans, and the kept spans and duplicates of their calls, by their ids in agentspan.
        kept_of: the id of the kept span, by the id of each duplicate.
        wanted: the ids of the spans to return.
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
    """Return the ids of the duplicates of each kept span, from the id of the kept span of each duplicate."""
    found: dict[str, list[str]] = {}
    for twin, kept in kept_of.items():
        found.setdefault(kept, []).append(twin)
    return found


def only_repeats(scope: str, kind: Any) -> bool:
    """Return whether a span of LiteLLM's callback may record a call again that another trace recorded.

    The callback may record a call in a trace of its own.

    Args:
        scope: the name of the span's instrumentor.
        kind: the kind of the span, as a name or as the SDK's enum. A request to LiteLLM's server is no repetition.
    """
    return scope == LITELLM_SCOPE and getattr(kind, "name", kind) != "SERVER"
