"""`agentspan why`: prints failed runs in groups, and features associated with failure; or why one run failed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from math import comb, inf
from typing import Any

import click

from agentspan import jsontext
from agentspan.analysis import by_name, diff_text
from agentspan.analysis.associations import DECIDABLE, FDR, Finding
from agentspan.analysis.by_name import STEP
from agentspan.analysis.differences import FieldChange
from agentspan.analysis.failures import FailedStep
from agentspan.analysis.statistics import Q_MEANS
from agentspan.analysis.tree import run_name
from agentspan.analysis.why import Group, RunWhy, StillOpen, Why, why, why_run
from agentspan.cli.app import command, reads
from agentspan.cli.completion import RUN
from agentspan.cli.filter_options import (
    asked_for,
    filter_in,
    filter_options,
    limit_option,
    no_run,
    options_of,
    outcome_option,
    outcome_rule,
)
from agentspan.cli.output import (
    MARKS,
    columns_of,
    document,
    echo_lines,
    fit,
    hint,
    indexing,
    local,
    pad,
    page,
    style,
    to_copy,
    width,
    wrap,
    zone_name,
)
from agentspan.cli.runs import left_open
from agentspan.database import Database
from agentspan.storage.protocol import Storage
from agentspan.text import noun, share_text

SHORTEST_SIGNATURE = 4
MAX_POOLED = 3
"""The number of findings over all runs together that are shown if nothing was found within tasks."""
Q_EXPLAINED = f"{Q_MEANS}, adjusted for the things tested"
COUNTS = ("outcome", "runs", "failed", "unknown", "open", "silent", "with_step")
"""The first members of the document of `--json`: fields of Why that are copied unchanged."""
PAYLOAD_LINES = 5
MAX_COUNTED = 3
"""The largest number of versions, or agents, of a group that are shown."""
FIELDS = 2
"""The largest number of differing members that are shown of a divergence, or of a later call of the failed tool."""


@command("why")
@click.argument("run", required=False, type=RUN)
@outcome_option
@filter_options
@limit_option(10)
@reads
def why_command(
    database: Database,
    run: str | None,
    *,
    outcome: str | None,
    limit: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """Print why runs failed, or why one did."""
    storage = database.storage
    rule = outcome_rule(outcome)
    asked = asked_for(filters)
    if run is not None:
        if asked:
            raise click.UsageError(f"RUN and filters of runs exclude each other: {asked} does not select a run here")
        row = by_name.find_run(storage, run)
        with indexing() as progress:
            one = why_run(storage, row, rule, progress=progress)
        if as_json:
            own = {"signature": one.signature._asdict(), "missed": one.missed and one.missed.plain()}
            document(asdict(one) | own | {"abandoned": bool(left_open(storage, [row])) or row.closed_by == "abandoned"})
        else:
            echo_lines(_run_lines(storage, one, is_dead=bool(left_open(storage, [row]))))
        return
    options = options_of(filters)
    filter = filter_in(storage, filters)
    with indexing() as progress:
        found = why(storage, filter, rule, progress=progress)
    if as_json:
        document(plain(found))
    else:
        nothing = "" if found.runs or found.unknown else no_run(storage, filter, asked)
        page(_lines(storage, found, limit, nothing, options))


def plain(found: Why) -> dict[str, Any]:
    """Return the document of `--json` for many runs; infinite bounds are null."""
    findings = found.findings
    return {
        **{name: getattr(found, name) for name in COUNTS},
        "interval": None if found.interval is None else [found.interval.low, found.interval.high],
        "groups": [asdict(group) for group in found.groups],
        "findings": [_plain_finding(each) for each in findings.findings],
        "pooled_findings": [_plain_finding(each) for each in findings.pooled],
        "missed": found.missed and found.missed.plain(),
        "compared": {
            **{name: getattr(findings, name) for name in ("runs", "tasks", "tested", "tested_pooled", "stratified")},
            "drawn": found.compared,
            "read": found.read,
            "detectable": None if findings.detectable == inf else findings.detectable,
        },
    }


def _plain_finding(each: Finding) -> dict[str, Any]:
    effect, low, high = (None if value == inf else value for value in (each.odds_ratio, each.low, each.high))
    counts = ("q", "stratified", "failed_with", "failed", "passed_with", "passed", "tasks")
    named = {name: getattr(each, name) for name in counts}
    return {"feature": each.feature, "effect": effect, "interval": [low, high], **named}


def _lines(storage: Storage, found: Why, limit: int, nothing: str, options: Sequence[str]) -> Iterator[str]:
    columns = width()
    yield from wrap(nothing or _head(found), columns, 4)
    if found.missed is not None:
        rule = str(found.missed.rule)
        numbers = f"{found.missed.missed:,} of {found.missed.runs:,}"
        yield from hint(f"{numbers} missed {rule}", to_copy("why", *options, "--outcome", rule), columns)
    short = _short([group.signature for group in found.groups])
    failures = [group for group in found.groups if group.kind != "ending"]
    endings = [group for group in found.groups if group.kind == "ending"]
    shown = [*failures[:limit], *endings[:limit]]
    short |= by_name.short_ids(storage, [group.run_id for group in shown])
    of = "failed runs" if found.failed else "runs with a failed step"
    several = " (a run can be in several)" if _overlap(failures, found) else ""
    endings_of = "without a failed step, by how they ended"
    for title, groups in ((f"{of}, by what failed{several}", failures), (endings_of, endings)):
        if not groups:
            continue
        yield ""
        yield from (style(line, bold=True) for line in wrap(title, columns, 2))
        for group in groups[:limit]:
            yield from _group(group, short, found, columns)
        if len(groups) > limit:
            yield style(
                f"  {noun(len(groups) - limit, 'more group')}; --limit {len(groups)} lists all", fg="bright_black"
            )
    if found.failed and found.failed < found.runs:
        yield ""
        yield from _findings(found, columns)


def _overlap(groups: Sequence[Group], found: Why) -> bool:
    """Return whether some run is in several of the groups, so that their numbers add up to more than all runs."""
    endings = sum(group.runs for group in found.groups if group.kind == "ending")
    return sum(group.runs for group in groups) > (found.failed - endings if found.failed else _of(groups))


def _of(groups: Sequence[Group]) -> int:
    """Return the number of runs that the shares of the groups refer to; 0 without groups."""
    return round(groups[0].runs / groups[0].share) if groups else 0


def _head(found: Why) -> str:
    by = "" if found.outcome is None else f" {found.outcome}"
    unknown = _unknown(found)
    if not found.runs or found.interval is None:
        return f"no run has an outcome{by}{unknown}"
    if not found.failed:
        status = " by its status" if found.outcome is None else by
        steps = found.with_step[0]
        steps_text = f" · {steps:,} {_have(steps)} a failed step" if steps else ""
        means = "; --outcome NAME>=VALUE says what failed means" if any(found.with_step) and not found.missed else ""
        return f"none of {noun(found.runs, 'run')} failed{status}{steps_text}{means}{unknown}"
    bounds = f"{100 * found.interval.low:.0f}–{_percent(found.interval.high)}"
    share = f"{share_text(found.failed, found.runs)}, {bounds}"
    silent = f" · {found.silent:,} of them without a failed step" if found.silent else ""
    return f"{found.failed:,} of {noun(found.runs, 'run')} failed{by} ({share}){silent}{unknown}"


def _unknown(found: Why) -> str:
    """Return the number of runs without an outcome, in words; "" if all runs have one."""
    if not found.unknown:
        return ""
    more = " more" if found.runs else ""
    number = f"{found.unknown:,}{more}"
    steps = f", {found.with_step[1]:,} with a failed step" if found.with_step[1] else ""
    if found.open == found.unknown:
        return f" · {number} {'is' if found.unknown == 1 else 'are'} still open{steps}"
    return f" · {number} {_have(found.unknown)} no outcome{steps}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _group(group: Group, short: Mapping[str, str], found: Why, columns: int) -> Iterator[str]:
    signature = short[group.signature]
    indent = " " * (len(signature) + 2)
    title = wrap(group.text, columns - len(indent), 2)
    yield f"{style(signature, fg='yellow')}  {title[0]}"
    yield from (f"{indent}{line}" for line in title[1:])
    is_one = group.runs == 1
    times = f"{noun(group.spans, 'failed step')}{'' if is_one else ' in all'}" if group.spans else ""
    if found.failed:
        passed = (
            "" if group.passed is None else f", and in {group.passed:,} of {found.runs - found.failed:,} that passed"
        )
        text = f"in {group.runs:,} of {noun(found.failed, 'failed run')}{passed}"
    else:
        text = f"in {group.runs:,} of {noun(_of([group]), 'run')} with a failed step"
    if group.recovered:
        text += "; recovered in all of them" if group.runs > 1 else "; recovered"
    for line in wrap(text, columns - len(indent), 2):
        yield indent + line
    example = f"{'run' if is_one else 'latest run'} {short[group.run_id]}"
    facts = " · ".join(filter(None, (times, _agents(group), _versions(group), _seen(group.first_at, group.last_at))))
    room = columns - len(indent)
    fits = columns_of(facts) + 3 + columns_of(example) <= room
    for line in [f"{facts} · {example}"] if fits else [*wrap(facts, room, 2), example]:
        yield indent + style(line, fg="bright_black")


def _versions(group: Group) -> str:
    if set(group.versions) <= {"default"}:
        return ""
    return _counted("version", {"none" if name == "default" else name: n for name, n in group.versions.items()})


def _agents(group: Group) -> str:
    return _counted("agent", group.agents) if len(group.agents) > 1 else ""


def _counted(word: str, counts: Mapping[str, int]) -> str:
    """Return the runs per version or agent in words, the largest number first: `versions 2.0: 13, 1.0: 8, none: 7`."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(most) == 1:
        return f"{word} {most[0][0]}"
    shown = most[: MAX_COUNTED if len(most) <= MAX_COUNTED else MAX_COUNTED - 1]
    rest = most[len(shown) :]
    more = f" and {sum(number for _, number in rest):,} of {len(rest):,} others" if rest else ""
    return f"{word}s " + ", ".join(f"{name}: {number:,}" for name, number in shown) + more


def _seen(first_at: str, last_at: str) -> str:
    """Return a period of time to the minute, with its zone; a single time if both ends are equal."""
    first, last = (f"{local(text):%m-%d %H:%M}" for text in (first_at, last_at))
    zone = zone_name((first_at, last_at))
    return f"{last} {zone}" if first == last else f"{first} – {last} {zone}"


def _compared(answer: Why) -> str:
    """Return the sentence about the number of tested features, and whether runs were compared within tasks."""
    found = answer.findings
    if not found.tested:
        return f"what goes with failure: not tested; {_untested(answer)}"
    where = "over all runs, because too few have a task in common"
    if found.stratified:
        where = f"inside the {noun(found.tasks, 'task')} that both passed and failed"
    things = noun(found.tested, "tested thing")
    if not found.findings:
        return f"compared {where}: none of {things} goes with failure"
    return f"what goes with failure, compared {where}, of {things} (FDR {FDR:.0%})"


def _untested(answer: Why) -> str:
    """Return the reason why no feature could be tested."""
    found = answer.findings
    if found.stratified and not found.tasks:
        return "no task both passed and failed"
    if comb(answer.runs, answer.failed) * DECIDABLE < 1:
        return f"{noun(answer.runs, 'run')} are too few"
    return f"these {noun(found.runs, 'run')} are too few, or too much alike"


def _findings(answer: Why, columns: int) -> Iterator[str]:
    found = answer.findings
    for line in wrap(_compared(answer), columns, 3):
        yield style(line, bold=True)
    parts = [("", answer.compared), ("arguments of ", answer.read)]
    partly = [f"{what}{number:,} of {answer.runs:,} runs" for what, number in parts if number < answer.runs]
    if partly:
        yield fit(f"looked at: {', '.join(partly)}", columns)
    if found.detectable is not None:
        yield from wrap(_missable(found.detectable), columns, 3)
    pooled = found.findings if not found.stratified else () if found.findings else found.pooled[:MAX_POOLED]
    if pooled:
        tested = f" ({found.tested_pooled:,} things tested)" if found.stratified else ""
        yield from wrap(f"pooled only, so that it may be the tasks{tested}:", columns, 2)
    for each in pooled or found.findings:
        yield from _finding(each, columns)
    if pooled or found.findings:
        yield from wrap(Q_EXPLAINED, columns, 2)


def _missable(detectable: float) -> str:
    """Return the sentence about causes that may exist although nothing was found."""
    if detectable == inf:
        return "these runs are too few: nothing would have been found"
    return (
        f"a cause of less than ×{_ratio(detectable)} would be missed more than once in five times; "
        "most of these things would need a stronger one"
    )


def _finding(each: Finding, columns: int) -> Iterator[str]:
    q = "<0.001" if each.q < 0.001 else f"{each.q:.2g}"
    effect = f"×{_ratio(each.odds_ratio)} ({_ratio(each.low)}–{_ratio(each.high)}), q {q}"
    counts = f"in {each.failed_with:,} of {each.failed:,} failed, in {each.passed_with:,} of {each.passed:,} passed"
    facts = [f"{counts} · odds {effect}"]
    if each.stratified:
        turned = ", though all together point the other way" if each.is_turned else ""
        facts = [f"{counts}, of {noun(each.tasks, 'task')}", f"odds within a task {effect}{turned}"]
    room = columns - columns_of(facts[0]) - 4
    if len(facts) == 1 and columns_of(each.feature) <= room:
        yield f"  {pad(each.feature, room)}  {facts[0]}"
    else:
        yield f"  {fit(each.feature, columns - 2)}"
        for part in facts:
            yield from (f"    {line}" for line in wrap(part, columns - 4, 2))


def _ratio(value: float) -> str:
    return "∞" if value == inf else f"{value:.2g}" if value < 10 else f"{value:,.0f}"


def _short(ids: list[str]) -> dict[str, str]:
    """Return the shortest prefixes of ids, all of the same length, that are all different; by id."""
    for length in range(SHORTEST_SIGNATURE, 12):
        if len({id[:length] for id in ids}) == len(set(ids)):
            return {id: id[:length] for id in ids}
    return {id: id for id in ids}


def _run_lines(storage: Storage, found: RunWhy, *, is_dead: bool) -> Iterator[str]:
    columns = width()
    yield style(fit(f"run {found.run_id} {run_name(found.agent, found.version)}", columns), bold=True)
    verdict = {True: "passed", False: "failed", None: "has no outcome"}[found.passed]
    by = "" if found.outcome is None else f" {found.outcome}"
    judged = f" · {verdict}{by}" if by or found.passed is None else ""  # without a rule, the status shows the outcome
    task = "" if found.task is None else f" · task {found.task}"
    steps = f"{noun(found.spans, 'step')}, {found.failed:,} failed"
    yield fit(f"{MARKS[found.status]} {found.status}{'?' if is_dead else ''}{judged}{task} · {steps}", columns)
    if is_dead:
        yield from hint("? its program died; this closes what it left open", to_copy("doctor"), columns)
    if found.missed is not None:
        rule = str(found.missed.rule)
        again = to_copy("why", by_name.short_id(storage, found.run_id), "--outcome", rule)
        yield from hint(f"it missed {rule}", again, columns)
    yield ""
    if found.error is not None:
        yield from _labelled("error", found.error, columns, 3)
    if found.still_open is not None:
        yield from _labelled("left open" if is_dead else "still open", _place(found.still_open), columns, 2)
    if found.step is None and found.still_open is not None:
        yield _next_step("read it", "show", by_name.short_id(storage, found.run_id))
    elif found.step is None:
        yield from _labelled("no step failed; it ended", found.signature.text, columns, 2)
        yield _next_step("read it", "show", by_name.short_id(storage, found.run_id))
        yield _next_step("the same ending", "runs", "--signature", found.signature.id[:SHORTEST_SIGNATURE])
    else:
        if found.passed and found.missed is None:
            yield "this run passed all the same"
        yield from _step(storage, found, columns)
    if not found.passed:
        yield ""
        yield from _nearest(storage, found, columns)


def _place(still_open: StillOpen) -> str:
    if still_open.title is not None:
        return f"in step {still_open.step:,}, {still_open.title}"
    return f"after step {still_open.step:,}" if still_open.step else "before its first step"


def _next_step(label: str, *words: str) -> str:
    return f"  {style(label, bold=True)}: {to_copy(*words)}"


def _step(storage: Storage, found: RunWhy, columns: int) -> Iterator[str]:
    step = found.step
    assert step is not None
    yield style(fit(f"✗ step {STEP}{step.number}: {step.title.partition(' → ')[0]}", columns), fg="red")
    yield from _labelled("error", step.error, columns, 3)
    yield from _labelled("given", _spaced(step.payload), columns, PAYLOAD_LINES)
    if step.within:
        yield from _labelled("in", " › ".join(step.within), columns, 1)
    if step.model_text is not None:
        yield from _labelled("the model had said", step.model_text, columns, 2)
    elif step.asked_by is not None:
        yield from _labelled("asked for by", f"step {step.asked_by:,}, a model call without words", columns, 1)
    before = _attempts(step.failed_before, step.same_before)
    if before:
        yield from _labelled("before it", before, columns, 1)
    after = _attempts(step.failed_after, step.same_after)
    if after:
        yield from _labelled("after it", after + ("" if step.passed_after else ", and none that passed"), columns, 2)
    if step.passed_later is not None:
        yield from _labelled("later call", _passed_later(step), columns, 3)
    if step.recovered_by is not None:
        yield from _labelled("recovered", _recovery(step, found.failed), columns, 2)
    other = found.elsewhere
    if other is not None and other.runs:
        text = f"{other.spans:,}× in {noun(other.runs, 'other run')}, {_seen(other.first_at, other.last_at)}"
    else:
        text = "in no other run of this agent"
    yield from _labelled(f"{found.signature.id[:SHORTEST_SIGNATURE]} elsewhere", text, columns, 1)
    yield _next_step("read it", "show", f"{by_name.short_id(storage, found.run_id)}{STEP}{step.number}", "--around")


def _attempts(failed: int, same: int) -> str:
    if not failed:
        return ""
    attempts = noun(failed, "failed attempt")
    if failed == same:
        return f"{attempts} with the same arguments"
    return f"{attempts}, {same:,} of them with the same arguments" if same else f"{attempts} with other arguments"


def _passed_later(step: FailedStep) -> str:
    changed = ", ".join(_change(each) for each in step.changes[:FIELDS]) + ", …" * (len(step.changes) > FIELDS)
    return f"step {step.passed_later:,} passed with other arguments: {changed}"


def _change(change: FieldChange) -> str:
    return f"{change.path} {_side(change.a)} → {_side(change.b)}".lstrip()


def _recovery(step: FailedStep, failed: int) -> str:
    assert step.recovered_by is not None
    how = ", which contains it, completed" if step.recovered_by < step.number else " passed: the same call"
    return f"step {step.recovered_by:,}{how}" + (
        ", and the run recovered from each other failure" if failed > 1 else ""
    )


def _spaced(text: str) -> str:
    """Return JSON text with blanks after commas and colons, so that lines can break at them."""
    try:
        return json.dumps(jsontext.decode(text), ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _labelled(label: str, text: str, columns: int, lines: int) -> Iterator[str]:
    room = columns - 2 - len(label) - 2
    shown = wrap(text, room, lines)
    yield f"  {style(label, bold=True)}: {shown[0]}"
    yield from (" " * (len(label) + 4) + line for line in shown[1:])


def _nearest(storage: Storage, found: RunWhy, columns: int) -> Iterator[str]:
    nearest = found.nearest
    of = "this agent" if found.task is None else f"task {found.task}"
    if nearest is None:
        yield fit(f"no passing run of {of} to compare with", columns)
        return
    if not nearest.same_task and found.task is not None:
        of = f"this agent, since none of task {found.task} passed"
    several = "the passing run" if nearest.passing == 1 else f"nearest of {noun(nearest.passing, 'passing run')}"
    if nearest.compared < nearest.passing:
        latest = "the latest" if nearest.compared == 1 else f"nearest of the latest {nearest.compared:,}"
        several = f"{latest} of {nearest.passing:,} passing runs"
    yield from wrap(f"{several} of {of}: {nearest.run_id}", columns, 2)
    first = nearest.divergence
    if first is None:
        yield "  it has the same steps"
        return
    yield style(fit(f"≠ {diff_text.after(first)}: {diff_text.parting(first, 'it', 'this one')}", columns), bold=True)
    if (read_first := diff_text.read_first(first)) is not None:
        yield f"  {read_first}"
    for who, step in (("passing", first.a), ("this one", first.b)):
        text = "no more steps" if step is None else f"{step.number:,} {MARKS[step.status]} {step.title}"
        yield f"  {pad(who, 8)}  {fit(text, columns - 12)}"
    if first.fields:
        yield "  what differs: passing → this one"
    shown = sorted(first.fields, key=_is_no_name)[:FIELDS]
    for field in shown:
        yield "    " + fit(f"{field.path}: {_side(field.a)} → {_side(field.b)}", columns - 4)
    if len(shown) < len(first.fields):
        yield style(f"    {len(first.fields) - len(shown):,} more: --json", fg="bright_black")
    a, b = by_name.short_ids(storage, [nearest.run_id, found.run_id]).values()
    yield style(f"  {to_copy('diff', a, b)}", fg="bright_black")


def _is_no_name(field: FieldChange) -> bool:
    """Return whether a member is not the name of a tool; as a sort key it puts the names of tools first."""
    return field.path.rpartition(".")[2] != "name"


def _side(text: str | None) -> str:
    return "nothing" if text is None else fit(text, 40)
