"""Sums up the costs of runs: by model, day, agent, prompt, tool, version …; and the savings of caches.

Sums leave out aggregates, spans that repeat the tokens and costs of the spans in them. So the calls of a sub-agent are
counted once, for the run that called it. A call of a model without a known price has no cost: it
is counted apart, never as 0.

A cost belongs to the day on which its call began. A filter chooses whole runs, by the time at which they began.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

from agentspan import clock
from agentspan.analysis.by_name import AT
from agentspan.analysis.filter_words import in_zone
from agentspan.analysis.periods import plausible
from agentspan.analysis.runs import MODELS, TOOLS, find_runs, folder_of
from agentspan.analysis.tree import began, build, every, numbers
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.prices import cache_effect
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import CachedCalls, Outlines, RunFilter, RunSums, TimedSums
from agentspan.storage.sums import QUARTER, CachedCall, Progress, RunSum, RunSummary, TimedSum, plus

By = Literal["model", "day", "agent", "project", "tool", "prompt", "version", "session"]
BYS: tuple[By, ...] = get_args(By)
BY_STEPS = frozenset({"tool", "prompt"})
"""The kinds of rows for which the steps of each run are read. No use of a cache is known by them, so it is by model."""
OF_CALLS = frozenset({"model", "day", *BY_STEPS})
"""The kinds of rows that are about single calls. The others are about whole runs."""
Unit = Literal["day", "week", "month"]

MOST_PERIODS = 31
"""The largest number of periods: beyond it, days become weeks, and weeks become months."""
READ_SPANS = 200_000
"""The largest number of spans that are read for the tools or prompts of model calls: those of the latest runs."""
PROMPT = "user: "
"""The begin of the summary of a prompt: a message of the user. A command of a session is one, too: `/init`."""
NOTICES = frozenset({"event", "hook"})
"""The span types whose spans may come long after the work on a prompt."""
LEAST = 1e-9
"""The smallest cost in dollars that is no error of rounding."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over calls of models, and other spans with tokens or a cost.

    Attributes:
        runs: the number of runs.
        calls: the number of finished calls; by tool, the number of calls of the tool.
        input_tokens, output_tokens: None if no span has a value.
        cost_usd: the sum of the known costs in US dollars; None if none is known.
        unpriced_calls, unpriced_tokens: the calls of models whose tokens are known and whose costs are not, and all
            their tokens.
    """

    runs: int = 0
    calls: int = 0
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    unpriced_calls: int = 0
    unpriced_tokens: int = 0


class Period(NamedTuple):
    """A day, a week from Monday on, or a month: its name, and the filters that find the runs with a call in it.

    `since` is its start, or that of an earlier run with a call in it; `until` is its end (exclusive).
    """

    name: str
    since: str
    until: str


@dataclass(frozen=True, slots=True)
class CostRow:
    """The costs of one model, day, agent …

    Attributes:
        name: its name, of a prompt the begin of its text; None for the rest: spans that are no calls of a model, calls
            outside of all tools, steps before the first prompt, runs without a prompt, a folder or a session.
        filter: the names and values of the filter that finds its runs; None without a name, and of a prompt.
        spent: the sums.
        costs: the cost in each period of `Costs.periods`; None if none is known.
        run_id, span_id, step: of a prompt: its run, its step, and the number of the step as `agentspan show` prints it.
    """

    name: str | None
    filter: Mapping[str, str] | None
    spent: Spent
    costs: tuple[float | None, ...]
    run_id: str | None = None
    span_id: str | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True)
class Unpriced:
    """A model whose calls have tokens and no cost."""

    model: str
    calls: int
    tokens: int


@dataclass(frozen=True, slots=True)
class CacheRow:
    """The use of a provider's cache by one model, day, agent …

    Attributes:
        name: as in CostRow; by tool, the model.
        calls: the number of calls that used the cache.
        read, written, written_1h: the tokens that were read from the cache, and written to it; of these, for an hour.
        saved_usd: how much more the tokens that were read would have cost as plain input; None if no price is known.
        extra_usd: how much more the tokens that were written cost than plain input; None if no price is known.
        unpriced_calls: the number of calls whose prices are not known.
    """

    name: str | None
    calls: int
    read: int
    written: int
    written_1h: int
    saved_usd: float | None
    extra_usd: float | None
    unpriced_calls: int

    @property
    def net_usd(self) -> float | None:
        """The saving by the cache minus the cost of writing to it; None if no price is known."""
        return None if self.saved_usd is None else self.saved_usd - (self.extra_usd or 0.0)


@dataclass(frozen=True, slots=True)
class Costs:
    """The costs of runs, in rows and by period.

    Attributes:
        by: the kind of the rows, such as `model`.
        total: the sums over all runs.
        rows: the most expensive first; days, the latest first.
        unit: whether the periods are days, weeks or months.
        periods: all periods from the first run to the last one, at most 31, unless months are more.
        costs: the cost of all runs in each period.
        unpriced: the models without known prices, the most tokens first.
        read_runs: by tool or prompt: the number of runs whose spans were read, the latest ones; else all.
        cache: the use of providers' caches, the most saved first; the first row is the sum over all; empty if no call
            used one.
    """

    by: By
    total: Spent
    rows: tuple[CostRow, ...]
    unit: Unit
    periods: tuple[Period, ...]
    costs: tuple[float | None, ...]
    unpriced: tuple[Unpriced, ...]
    read_runs: int
    cache: tuple[CacheRow, ...] = ()


Used = tuple[int | None, int | None, float | None]
"""Input tokens, output tokens and cost."""
NOTHING: Used = (None, None, None)


@dataclass(slots=True)
class _Row:
    """The sums of a row while they are added up."""

    runs: set[str] = field(default_factory=set)
    calls: int = 0
    used: Used = NOTHING
    unpriced: tuple[int, int] = (0, 0)
    costs: dict[str, float] = field(default_factory=dict)

    def add(self, run: str, used: Used, calls: int = 0, unpriced: tuple[int, int] = (0, 0)) -> None:
        self.runs.add(run)
        self.calls += calls
        self.used = plus(self.used, used)
        self.unpriced = plus(self.unpriced, unpriced)

    def book(self, day: str, cost: float | None) -> None:
        if cost is not None:
            self.costs[day] = self.costs.get(day, 0.0) + cost

    def spent(self) -> Spent:
        return Spent(len(self.runs), self.calls, *self.used, *self.unpriced)


def costs(
    storage: Storage,
    filter: RunFilter | None = None,
    by: str = "model",
    *,
    zone: tzinfo | None = UTC,
    cache: bool = True,
    most_spans: int = READ_SPANS,
    progress: Progress | None = None,
) -> Costs:
    """Return the costs of runs.

    Args:
        filter: selects the runs; all runs when left out.
        by: the kind of the rows, one of BYS.
        zone: the zone of days; None for the machine's own zone.
        cache: also add up the savings of caches, which reads the results of all calls that used one.
        most_spans: by tool or prompt: the largest number of spans that are read, those of the latest runs.
        progress: called with (done, total) while an index is built.

    Raises:
        InvalidValue: `by` is none of BYS, or a condition of the filter is invalid.
    """
    by = checked(by)
    runs = find_runs(storage, filter, limit=None, progress=progress).runs
    ids, day_of = [run.run.id for run in runs], _day_in(zone)
    timed: dict[str, list[tuple[str, TimedSum]]] = {id: [] for id in ids}
    for part in storage.ask(TimedSums(ids, progress)):
        timed[part.run_id].append((day_of(part.quarter), part))
    first: dict[str, str] = {}  # the begin of the first run with a call on a day
    for run in runs:
        began = plausible(run.run.started_at or run.run.inserted_at)
        for day in {day for day, part in timed[run.run.id] if _counts(part)} or {_day(began, zone)}:
            first[day] = min(began, first.get(day, began))
    sums: dict[str, list[RunSum]] = {}
    for each in storage.ask(RunSums(ids, progress)):
        if not each.is_aggregate:
            sums.setdefault(each.run_id, []).append(each)
    total, rows, unpriced = _Row(), dict[str | None, _Row](), dict[str, tuple[int, int]]()
    filters: dict[str | None, Mapping[str, str]] = {}
    for run in runs:
        own = sums.get(run.run.id, [])
        calls = [each for each in own if is_model(each.schema_name)]
        without = [each for each in calls if is_unpriced(each)]
        for each in without:
            unpriced[each.label or ""] = plus(unpriced.get(each.label or "", (0, 0)), (each.spans, _tokens(each)))
        total.add(run.run.id, _used(run), _spans(calls), _unpriced(without))
        for day, part in timed[run.run.id]:
            total.book(day, part.cost_usd)
        if by == "model":
            _add_models(rows, run, calls)
            for day, part in timed[run.run.id]:
                if part.cost_usd is not None:
                    model = part.label if part.ran and is_model(part.schema_name) else None
                    rows.setdefault(model, _Row()).book(day, part.cost_usd)
        elif by == "day":
            _add_days(rows, run, timed[run.run.id], {(each.schema_name, each.label) for each in without}, zone)
        elif by not in BY_STEPS:
            name, filters[name] = _group(run, by)
            row = rows.setdefault(name, _Row())
            row.add(run.run.id, _used(run), _spans(calls), _unpriced(without))
            for day, part in timed[run.run.id]:
                row.book(day, part.cost_usd)
    read_runs, prompts = len(runs), dict[str | None, _Prompt]()
    if by in BY_STEPS:
        read_runs = _add_steps(storage, rows, runs, zone, sums, most_spans, prompts if by == "prompt" else None)
    if by in ("model", "tool"):
        filters = {name: {by: name} for name in rows if name is not None}
    unit, periods = _periods(first, zone)
    names = [period.name for period in periods]  # each sorts before its days
    place = {day: bisect_right(names, day) - 1 for day in first}
    if by == "day":
        filters = {day: _of_day(day, first[day], zone) for day in first}
    found = [
        CostRow(name, filters.get(name) if name is not None else None, row.spent(), _in_periods(row, place, periods))
        for name, row in rows.items()
    ]
    if by == "day":
        found.sort(key=lambda row: row.name or "", reverse=True)
    else:
        found.sort(key=_dearest)
    found = [replace(row, **prompts[row.name]._asdict()) if row.name in prompts else row for row in found]
    return Costs(
        by,
        total.spent(),
        tuple(found),
        unit,
        tuple(periods),
        _in_periods(total, place, periods),
        tuple(sorted((Unpriced(name, *numbers) for name, numbers in unpriced.items()), key=lambda each: -each.tokens)),
        read_runs,
        cache_use(storage, runs, by, zone=zone, is_all=filter in (None, RunFilter())) if cache else (),
    )


def checked(by: str) -> By:
    """Return `by` if it is one of BYS.

    Raises:
        InvalidValue: it is none.
    """
    for each in BYS:
        if each == by:
            return each
    raise InvalidValue("by", f"must be one of {', '.join(BYS)}")


def is_model(schema_name: str) -> bool:
    """Return whether spans of this type are calls of models."""
    return built_in_part(schema_name) in MODELS


def _dearest(row: CostRow) -> tuple[float, int, str]:
    spent = row.spent
    tokens = (spent.input_tokens or 0) + (spent.output_tokens or 0)
    return -(spent.cost_usd or 0.0), -tokens, row.name or ""


def _used(run: RunSummary | RunSum | TimedSum) -> Used:
    return run.input_tokens, run.output_tokens, run.cost_usd


def _counts(part: TimedSum) -> bool:
    """Return whether these spans are calls of a model, or have tokens or a cost."""
    return _used(part) != NOTHING or is_model(part.schema_name)


def _spans(calls: Iterable[RunSum]) -> int:
    return sum(each.spans for each in calls)


def _tokens(each: RunSum | TimedSum) -> int:
    return (each.input_tokens or 0) + (each.output_tokens or 0)


def is_unpriced(each: RunSum) -> bool:
    """Return whether these spans are calls of a model whose tokens are known, and whose cost is not."""
    return each.cost_usd is None and _tokens(each) > 0 and is_model(each.schema_name)


def unpriced_runs(sums: Iterable[RunSum]) -> set[str]:
    """Return the ids of the runs whose cost is not known as a whole: a model that they called has no known price."""
    return {each.run_id for each in sums if not each.is_aggregate and is_unpriced(each)}


def _unpriced(calls: Iterable[RunSum]) -> tuple[int, int]:
    return plus((0, 0), [sum(numbers) for numbers in zip((0, 0), *((c.spans, _tokens(c)) for c in calls), strict=True)])


def _add_models(rows: dict[str | None, _Row], run: RunSummary, calls: Sequence[RunSum]) -> None:
    """Add the calls of each model of a run. The rest of the run's use is added to the row without a name."""
    used: Used = NOTHING
    for each in calls:
        unpriced = (each.spans, _tokens(each)) if is_unpriced(each) else (0, 0)
        rows.setdefault(each.label, _Row()).add(run.run.id, _used(each), each.spans, unpriced)
        used = plus(used, _used(each))
    input_tokens = (run.input_tokens or 0) - (used[0] or 0)
    output_tokens = (run.output_tokens or 0) - (used[1] or 0)
    cost = (run.cost_usd or 0.0) - (used[2] or 0.0)
    rest = input_tokens or None, output_tokens or None, cost if abs(cost) > LEAST else None
    if rest != NOTHING:
        rows.setdefault(None, _Row()).add(run.run.id, rest)


def _add_days(
    rows: dict[str | None, _Row],
    run: RunSummary,
    timed: Sequence[tuple[str, TimedSum]],
    unpriced: Collection[tuple[str, str | None]],
    zone: tzinfo | None,
) -> None:
    """Add the use of a run to each day on which its calls began; without any use, to the day on which it began."""
    used = [(day, each) for day, each in timed if _counts(each)]
    for day, each in used:
        calls = each.spans if each.ran and is_model(each.schema_name) else 0
        without = (calls, _tokens(each)) if calls and (each.schema_name, each.label) in unpriced else (0, 0)
        row = rows.setdefault(day, _Row())
        row.add(run.run.id, _used(each), calls, without)
        row.book(day, each.cost_usd)
    if not used:
        rows.setdefault(_day(run.run.started_at or run.run.inserted_at, zone), _Row()).add(run.run.id, NOTHING)


class _Prompt(NamedTuple):
    """A prompt that has a row, with the values that its CostRow takes."""

    name: str
    run_id: str
    span_id: str
    step: int


def _add_steps(
    storage: Storage,
    rows: dict[str | None, _Row],
    runs: Sequence[RunSummary],
    zone: tzinfo | None,
    sums: Mapping[str, Sequence[RunSum]],
    room: int,
    prompts: dict[str | None, _Prompt] | None,
) -> int:
    """Add the use of each tool's calls, or of each prompt, with all steps inside; return the number of runs read.

    Args:
        prompts: gets the prompts that have rows, by the names of these rows. None for rows of tools.
    """
    for number, run in enumerate(runs):
        id, room = run.run.id, room - run.spans
        if room < 0:
            return number
        own = sums.get(id, ())
        for each in own if prompts is None else ():
            if each.label is not None and built_in_part(each.schema_name) in TOOLS:
                rows.setdefault(each.label, _Row()).add(id, NOTHING, each.spans)
        if _used(run) == NOTHING and not any(is_model(each.schema_name) for each in own):
            continue
        spans = storage.ask(Outlines(id, bare=True))
        around = _tools(spans) if prompts is None else _prompts(spans, prompts)
        _add_used(rows, spans, around, zone, is_by_tool=prompts is None)
    return len(runs)


def _add_used(
    rows: dict[str | None, _Row],
    spans: Iterable[AgentSpanRow],
    around: Mapping[str, str | None],
    zone: tzinfo | None,
    *,
    is_by_tool: bool,
) -> None:
    """Add each call of a model, and each other step with tokens or a cost, to the row of its tool or prompt."""
    for span in spans:
        used = span.input_tokens, span.output_tokens, span.cost_usd
        is_call = is_model(span.schema_name) and span.status in ("complete", "failed")
        if span.is_aggregate or (used == NOTHING and not is_call):
            continue
        name, tokens = around[span.id], (used[0] or 0) + (used[1] or 0)
        is_priced = used[2] is not None or not is_call or not tokens
        row = rows.setdefault(name, _Row())
        calls = int(is_call and (name is None or not is_by_tool))
        row.add(span.agent_instance_id, used, calls, (0, 0) if is_priced else (1, tokens))
        row.book(_day(span.started_at or span.inserted_at, zone), used[2])


def _tools(spans: Iterable[AgentSpanRow]) -> dict[str, str | None]:
    """Return the outermost tool around each step, by the id of the step."""
    found: dict[str, str | None] = {}
    for node in every(build(spans)):
        is_tool = built_in_part(node.span.schema_name) in TOOLS
        own = found.setdefault(node.span.id, (node.span.label or None) if is_tool else None)
        if own is not None:
            found.update((child.span.id, own) for child in node.children)
    return found


def _prompts(spans: Iterable[AgentSpanRow], known: dict[str | None, _Prompt]) -> dict[str, str | None]:
    """Return the id of the prompt that each step belongs to, by the id of the step; add the prompts to `known`.

    Prompts are those of the outermost level that has one, because a sub-agent's are written by an agent. A step belongs
    to the latest prompt before it, and a step inside another one to the prompt of that one.
    """
    level = roots = build(spans)
    above: list[AgentSpanRow] = []
    while level and not any(_is_prompt(node.span) for node in level):
        above += [node.span for node in level]
        level = [child for node in level for child in node.children]
    prompts = sorted((node.span for node in level if _is_prompt(node.span)), key=began)
    place = numbers(roots) if prompts else {}
    for span in prompts:
        text = (span.summary or "").partition(": ")[2]
        known[span.id] = _Prompt(text, span.agent_instance_id, span.id, place[span.id])
    begins = [began(span) for span in prompts]

    def latest(span: AgentSpanRow) -> str | None:
        before = bisect_right(begins, began(span))
        return prompts[before - 1].id if before else None

    found = {span.id: latest(span) for span in above}
    for node in level:
        found.update(dict.fromkeys((each.span.id for each in every([node])), latest(node.span)))
    return found


def _is_prompt(span: AgentSpanRow) -> bool:
    kind, summary = built_in_part(span.schema_name), span.summary or ""
    return (kind == "message" and summary.startswith(PROMPT)) or (kind == "event" and span.label == "command")


class Chapter(NamedTuple):
    """A prompt of a run, with all steps until the next one, as `prompts_of` sums them up.

    Attributes:
        span_id, name, step: the step of the prompt: its id, the begin of its text, and its number in the run.
        at: when it began, as stored text.
        duration_ms: the time from there to the end of its last step that is no notice, such as a hook.
        tokens: input and output; None if none is known.
        cost_usd: None if none is known.
    """

    span_id: str
    name: str
    step: int
    at: str
    duration_ms: float
    tokens: int | None
    cost_usd: float | None


def chapters_of(spans: Iterable[AgentSpanRow]) -> list[Chapter]:
    """Return the prompts of a run in their order, with what each used and how long it took."""
    spans, rows, prompts = list(spans), dict[str | None, _Row](), dict[str | None, _Prompt]()
    around = _prompts(spans, prompts)
    _add_used(rows, spans, around, UTC, is_by_tool=False)
    begins = {span.id: began(span)[0] for span in spans}
    ends = dict(begins)
    for span in spans:
        if (id := around[span.id]) is not None and built_in_part(span.schema_name) not in NOTICES:
            ends[id] = max(ends[id], span.finished_at or begins[span.id])
    found = []
    for prompt in prompts.values():
        id = prompt.span_id
        spent = rows[id].spent() if id in rows else Spent()
        used = [each for each in (spent.input_tokens, spent.output_tokens) if each is not None]
        took, tokens = clock.millis_between(begins[id], ends[id]), sum(used) if used else None
        found.append(Chapter(id, prompt.name, prompt.step, begins[id], took, tokens, spent.cost_usd))
    return found


def prompts_of(storage: Storage, run_id: str) -> Iterator[CostRow]:
    """Yield what each prompt of a run cost, in their order; first the steps before all prompts. Nothing without one."""
    rows, prompts = dict[str | None, _Row](), dict[str | None, _Prompt]()
    spans = storage.ask(Outlines(run_id, bare=True))
    _add_used(rows, spans, _prompts(spans, prompts), UTC, is_by_tool=False)
    for name in (None, *prompts) if prompts else ():
        if (row := rows.get(name)) is not None:
            own = prompts[name]._asdict() if name in prompts else {"name": None}
            yield CostRow(filter=None, spent=row.spent(), costs=(), **own)


def _of_day(day: str, first: str, zone: tzinfo | None) -> Mapping[str, str]:
    """Return the filter of the runs that began from the first one with a call on the day to the end of the day."""
    start = date.fromisoformat(day)
    return {"since": min(first, _start(start, zone)), "until": _start(start + timedelta(days=1), zone)}


def _group(run: RunSummary, by: By) -> tuple[str | None, Mapping[str, str]]:
    """Return the name of a run's row, and the filter that finds the runs of the row."""
    if by == "agent":
        return run.agent, {"agent": run.agent}
    if by == "version":
        return f"{run.agent}{AT}{run.version}", {"agent": run.agent, "version": run.version}
    if by == "session":
        return run.run.session, {"session": run.run.session or ""}
    folder = folder_of(run.run.metadata)
    return folder, {"project": folder or ""}


def _day_in(zone: tzinfo | None) -> Callable[[int], str]:
    """Return the function that returns the day of a quarter of an hour (see TimedSum)."""
    return cache(lambda quarter: _day(clock.to_text(quarter * QUARTER * 1000), zone))


def _day(text: str, zone: tzinfo | None) -> str:
    """Return the day of a stored time, as `2026-11-24`."""
    text = plausible(text)
    return text[:10] if zone is UTC else clock.to_datetime(text).astimezone(zone).date().isoformat()


def _start(day: date, zone: tzinfo | None) -> str:
    """Return the start of a day as a filter of runs: its name in UTC, else an exact time."""
    if zone is UTC:
        return day.isoformat()
    return f"{in_zone(zone, datetime.combine(day, time())).astimezone(UTC).isoformat()[:19]}Z"


def _periods(days: Mapping[str, str], zone: tzinfo | None) -> tuple[Unit, list[Period]]:
    """Return the periods from the first to the last day: days, else weeks, else months.

    Args:
        days: the begin of the first run with a call on each day.
    """
    if not days:
        return "day", []
    first, last = date.fromisoformat(min(days)), date.fromisoformat(max(days))
    weeks = (last - first + timedelta(first.weekday())).days // 7
    unit: Unit = "day" if (last - first).days < MOST_PERIODS else "week" if weeks < MOST_PERIODS else "month"
    starts = _starts(first, last, unit)
    ends = [*starts[1:], _next(starts[-1], unit)]
    found = []
    for each, end in zip(starts, ends, strict=True):
        began = (at for day, at in days.items() if each.isoformat() <= day < end.isoformat())
        since = min([_start(each, zone), *began])
        found.append(Period(each.isoformat()[: 7 if unit == "month" else 10], since, _start(end, zone)))
    return unit, found


def _starts(first: date, last: date, unit: Unit) -> list[date]:
    at = first if unit == "day" else first.replace(day=1) if unit == "month" else first - timedelta(first.weekday())
    found = [at]
    while (at := _next(at, unit)) <= last:
        found.append(at)
    return found


def _next(start: date, unit: Unit) -> date:
    if unit == "month":
        return (start.replace(day=1) + timedelta(days=32)).replace(day=1)
    return start + timedelta(days=7 if unit == "week" else 1)


def _in_periods(row: _Row, place: Mapping[str, int], periods: Sequence[Period]) -> tuple[float | None, ...]:
    found: list[float | None] = [None] * len(periods)
    for day, cost in row.costs.items():
        found[place[day]] = (found[place[day]] or 0.0) + cost
    return tuple(found)


def cache_use(
    storage: Storage, runs: Sequence[RunSummary], by: By, *, zone: tzinfo | None = UTC, is_all: bool = False
) -> tuple[CacheRow, ...]:
    """Return the use of the providers' caches; the first row is the sum over all. Empty if no call used a cache.

    Args:
        runs: the runs whose calls count.
        is_all: whether these are all runs of the storage.
    """
    names = {} if by in OF_CALLS else {run.run.id: _group(run, by)[0] for run in runs}
    groups: dict[str | None, list[CachedCall]] = {}
    day_of = _day_in(zone)
    for call in storage.ask(CachedCalls(None if is_all else [run.run.id for run in runs])):
        own = day_of(call.quarter) if by == "day" else call.label if by in OF_CALLS else names.get(call.run_id)
        groups.setdefault(own, []).append(call)
    rows = sorted((_cache_row(name, own) for name, own in groups.items()), key=lambda row: -(row.net_usd or 0.0))
    return (_sum(rows), *rows) if rows else ()


def _cache_row(name: str | None, calls: Iterable[CachedCall]) -> CacheRow:
    sums: tuple[Any, ...] = (0, 0, 0, 0, None, None, 0)
    for call in calls:
        names = call.model, call.label
        found = cache_effect(names, call.provider, call.input_tokens, call.read, call.written, call.written_1h)
        effect = (None, None, 1) if found is None else (*found, 0)
        sums = plus(sums, (1, call.read, call.written, call.written_1h, *effect))
    return CacheRow(name, *sums)


def _sum(rows: Sequence[CacheRow]) -> CacheRow:
    sums: tuple[Any, ...] = (0, 0, 0, 0, None, None, 0)
    for row in rows:
        used = row.calls, row.read, row.written, row.written_1h, row.saved_usd, row.extra_usd, row.unpriced_calls
        sums = plus(sums, used)
    return CacheRow(None, *sums)


def cache_of(storage: Storage, filter: RunFilter | None = None, by: str = "model") -> tuple[CacheRow, ...]:
    """Return the use of the providers' caches by the runs that match a filter (see cache_use)."""
    runs = find_runs(storage, filter, limit=None).runs
    return cache_use(storage, runs, checked(by), is_all=filter in (None, RunFilter()))
