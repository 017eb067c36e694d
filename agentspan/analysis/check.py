"""A check of runs for CI, and its configuration: budgets and calls of every run, and a baseline to compare with.

Budgets and calls are facts: a run that violates one fails the check. The share of passed runs is a sample: the check
fails if the share dropped by more than chance, and is inconclusive if there are too few runs to detect the drop that
the configuration names.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from statistics import mean
from typing import Any, Literal, NamedTuple

from agentspan.analysis import doubts
from agentspan.analysis.by_name import some
from agentspan.analysis.drift import (
    PASSED,
    group_sizes,
    outcome_cases,
    outcome_doubt,
    outcomes_of,
    task_pairs,
    task_values,
)
from agentspan.analysis.drift_metrics import TOOL_TYPES, Gathered, Measure, Metric, RunFacts
from agentspan.analysis.drift_text import found_drops
from agentspan.analysis.power import ALPHA, MOST_TIMES, GroupSizes
from agentspan.analysis.statistics import Interval, exact_interval, fisher_p, paired_tails
from agentspan.errors import InvalidValue
from agentspan.schemas.builtin import AGGREGATES, built_in_part
from agentspan.schemas.span_types import fallback
from agentspan.storage.sums import Stat
from agentspan.text import cost_text, duration_text, noun, p_text, share_text

BUDGETS: Mapping[str, Measure] = {
    "cost_usd": "cost_usd",
    "tokens": "tokens",
    "steps": "spans",
    "duration_s": "duration_ms",
    "error_rate": "failure_rate",
}
DROP = 0.25
PYPROJECT = "pyproject.toml"
SETTINGS = frozenset({"outcome", "check"})
"""The keys of [tool.agentspan]."""
KEYS: Mapping[str, frozenset[str] | None] = {
    "outcome": None,
    "budget": frozenset(BUDGETS),
    "calls": frozenset({"required", "forbidden"}),
    "baseline": frozenset({"filter", "file", "drop"}),
}


@dataclass(frozen=True, slots=True)
class Config:
    """The budgets, calls and baseline that runs are checked by.

    Attributes:
        budget: name → the most that each run may use.
        required, forbidden: labels (types, where spans have no label) that each run must call, or must not call.
        outcome: the rule that decides whether a run passed, or `status`; None for the rule of the project.
        baseline: the filter that selects the runs to compare with.
        baseline_file: the file that holds the runs to compare with; None for the file that is checked.
        drop: the drop of the share of passed runs, from 0 to 1, that the check must be able to detect.
    """

    budget: Mapping[str, float]
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    outcome: str | None = None
    baseline: str | None = None
    baseline_file: str | None = None
    drop: float = DROP


def load(path: Path) -> Config:
    """Read the configuration of a check from a TOML file.

    Raises:
        InvalidValue: the file does not exist, cannot be read, is not TOML, or configures nothing to check; or it has
            an unknown key, or a value of the wrong type.
    """
    document: Any
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidValue("config", f"{path} does not exist") from None
    except OSError as error:
        raise InvalidValue("config", f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue("config", f"{path} is not TOML: {error}") from None
    if path.name == PYPROJECT:
        for name in ("tool", "agentspan", "check"):
            document = document.get(name) if isinstance(document, dict) else None
            if name == "agentspan" and isinstance(document, dict):
                check_settings(document)
        if not isinstance(document, dict):
            raise InvalidValue("config", f"{path} has no [tool.agentspan.check]; --config names another file")
    elif "tool" in document:
        raise InvalidValue("config", f"in {path} write [budget]; [tool.agentspan.check.budget] is for {PYPROJECT}")
    config = config_of(document)
    if config == Config({}, outcome=config.outcome):
        raise InvalidValue("config", f"{path} has nothing to check: write [budget], [calls] or [baseline]")
    return config


def config_of(document: Mapping[str, Any]) -> Config:
    """Return the configuration that a decoded TOML document describes.

    Raises:
        InvalidValue: the document has an unknown key, or a value of the wrong type.
    """
    for key, value in document.items():
        _known(key, KEYS, "a key of the configuration")
        inner = KEYS[key]
        if inner is not None:
            if not isinstance(value, dict):
                raise InvalidValue("config", f"[{key}] must be a table")
            for name in value:
                _known(name, inner, f"a key of [{key}]")
    budget, calls, baseline = (document.get(name, {}) for name in ("budget", "calls", "baseline"))
    for name, limit in budget.items():
        if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not limit >= 0:
            raise InvalidValue("config", f"budget {name} must be a number from 0 on")
        if name in ("steps", "tokens") and limit % 1:
            raise InvalidValue("config", f"budget {name} must be a whole number")
        if name == "error_rate" and limit > 1:
            raise InvalidValue("config", "budget error_rate must be a share from 0 to 1")
    for name, labels in calls.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InvalidValue("config", f"calls {name} must be a list of names")
    drop = baseline.get("drop", DROP)
    if not isinstance(drop, (int, float)) or isinstance(drop, bool) or not 0 < drop <= 1:
        raise InvalidValue("config", "baseline drop must be a share above 0, at most 1")
    if "baseline" in document and not {"filter", "file"} & baseline.keys():
        raise InvalidValue("config", "[baseline] must name a filter or a file")
    texts = (document.get("outcome"), baseline.get("filter"), baseline.get("file"))
    if not all(text is None or isinstance(text, str) for text in texts):
        raise InvalidValue("config", "outcome, filter and file must be texts")
    return Config(budget, tuple(calls.get("required", ())), tuple(calls.get("forbidden", ())), *texts, float(drop))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse unknown keys of [tool.agentspan].

    Raises:
        InvalidValue: a key is unknown.
    """
    for name in settings:
        _known(name, SETTINGS, "a key of [tool.agentspan]")


def _known(name: str, names: Any, what: str) -> None:
    if name not in names:
        raise InvalidValue("config", f"{name!r} is not {what}; there are {', '.join(sorted(names))}")


Verdict = Literal["pass", "fail", "inconclusive"]
NO_CALLS = AGGREGATES | {"message"}
"""Built-in span types whose steps do not count as calls."""
MEASURED = {
    "cost_usd": "a cost",
    "tokens": "tokens",
    "steps": "steps",
    "duration_s": "a duration",
    "error_rate": "calls",
}
"""The name of the quantity that each budget limits."""
_VERDICTS: Mapping[doubts.Verdict, Verdict] = {"worse": "fail", "better": "pass", "no difference": "pass"}
UNITS = {"cost_usd": (1, "$", ""), "error_rate": (100, "", "%"), "duration_s": (1000, "", " ms")}
"""How to write the value of a budget: a factor, a prefix and a suffix."""


class Finding(NamedTuple):
    """The result of one budget, one call, or the comparison with the baseline.

    Attributes:
        name: `budget cost_usd`, `calls forbidden`, `baseline` …
        verdict: the verdict on this budget, call or comparison alone.
        text: the result as a sentence.
        runs: the ids of the runs that violate the budget or call, the worst first; empty for the baseline.
    """

    name: str
    verdict: Verdict
    text: str
    runs: tuple[str, ...] = ()

    @property
    def run_id(self) -> str | None:
        """The id of the run that violates the budget or call most; None if no run does."""
        return self.runs[0] if self.runs else None


@dataclass(frozen=True, slots=True)
class Check:
    """The result of a check.

    Attributes:
        verdict: `fail` if any finding failed; else `inconclusive` if any finding is; else `pass`.
        runs: the number of checked runs.
        findings: one for each budget and call, and one for the baseline.
        passed, baseline: the shares of passed runs, from 0 to 1; None if unknown, or if there is no baseline.
        interval: the exact 95 % interval of `passed`.
        detectable: the smallest drop that this number of runs can detect, from 0 to 1; None without a baseline.
        missing: the number of further runs to check that would detect the drop that the configuration names.
        tasks: the number of tasks that both sides share; 0 if runs are not paired by task. Where runs are paired,
            `by_task` decides, not `passed` and `baseline`.
        by_task: the mean shares over these tasks: of the checked runs, and of the baseline; None if not paired.
    """

    verdict: Verdict
    runs: int
    findings: tuple[Finding, ...]
    passed: float | None = None
    baseline: float | None = None
    interval: Interval | None = None
    detectable: float | None = None
    missing: int = 0
    tasks: int = 0
    by_task: tuple[float, float] | None = None


def check(
    runs: Gathered,
    config: Config,
    baseline: Gathered | None = None,
    *,
    shared: int = 0,
    known: Sequence[Stat] = (),
    unmet: str = "passed",
    agents: str = "",
    note: str = "",
) -> Check:
    """Return the verdict on runs.

    Args:
        baseline: the runs to compare with; None if the configuration names no baseline.
        shared: the number of runs that match the baseline too, but are left out of it because they are checked.
        known: the statistics of all runs of the file: the names of known calls.
        unmet: the rest of the sentence `no run of the baseline …`, used if no run passed.
        agents: the names of the agents of the baseline, for the text.
        note: a text to append to the finding of the baseline.
    """
    findings = [*_budgets(runs.runs, config.budget), *_calls(runs.runs, config, known)]
    if runs.open:
        text = f"{runs.open:,} of {noun(len(runs.runs) + runs.open, 'run')} did not end, and cannot be checked"
        findings.append(Finding("runs", "inconclusive", f"{text}; agentspan doctor closes those of dead programs"))
    elif not runs.runs:
        findings.append(Finding("runs", "inconclusive", "no run was found"))
    outcomes = outcomes_of(runs.runs)
    share = sum(outcomes) / len(outcomes) if outcomes else None
    interval = exact_interval(round(sum(outcomes)), len(outcomes)) if outcomes else None
    if baseline is None or not runs.runs:
        return Check(_worst(findings), len(runs.runs), tuple(findings), share, interval=interval)
    finding, detectable, missing = _compared(
        runs, baseline, config.drop, shared=shared, unmet=unmet, agents=agents, note=note
    )
    before = outcomes_of(baseline.runs)
    shares = _by_task(runs, baseline)
    return Check(
        _worst([*findings, finding]),
        len(runs.runs),
        (*findings, finding),
        share,
        sum(before) / len(before) if before else None,
        interval,
        detectable,
        missing,
        0 if shares is None else shares.tasks,
        None if shares is None else (shares.after, shares.before),
    )


class _Shares(NamedTuple):
    """The mean shares of passed runs over the tasks that both sides share; each task has the same weight."""

    tasks: int
    after: float
    before: float


def _by_task(runs: Gathered, baseline: Gathered) -> _Shares | None:
    values = task_values(PASSED, task_pairs(baseline.runs, runs.runs))
    if not values:
        return None
    before, after = map(mean, zip(*values, strict=True))
    return _Shares(len(values), after, before)


def _worst(findings: Iterable[Finding]) -> Verdict:
    verdicts = {finding.verdict for finding in findings}
    return "fail" if "fail" in verdicts else "inconclusive" if "inconclusive" in verdicts else "pass"


def _budgets(runs: Sequence[RunFacts], budget: Mapping[str, float]) -> Iterator[Finding]:
    all_runs = noun(len(runs), "run")
    for name, limit in budget.items() if runs else ():
        used = [(value, run) for run in runs if (value := _used(run, name)) is not None]
        if not used:
            text = f"none of {all_runs} recorded {MEASURED[name]}; not checked"
            yield Finding(f"budget {name}", "inconclusive", text)
            continue
        used.sort(key=lambda each: -each[0])
        over = tuple(run.run_id for value, run in used if value > limit)
        most, at_most = _amounts(name, used[0][0], limit)
        if name == "error_rate":
            most += " of calls failed ({:,.0f} of {:,.0f})".format(*_failed_calls(used[0][1]))
        text = f"most {most}, limit {at_most}" if len(runs) > 1 else f"{most}, limit {at_most}"
        if over and len(runs) > 1:
            text = f"over {at_most} in {len(over):,} of {all_runs}, most {most}"
        lacking = f"; {len(runs) - len(used):,} of {all_runs} recorded none" if len(used) < len(runs) else ""
        yield Finding(f"budget {name}", "fail" if over else "pass", text + lacking, over)


def _used(run: RunFacts, name: str) -> float | None:
    """Return the value of a run that a budget limits, such as its cost; None if the run recorded no such value."""
    if name == "error_rate":
        failed, calls = _failed_calls(run)
        return failed / calls if calls else None
    metric = Metric(BUDGETS[name])
    if metric not in run.values:
        return 0.0 if name == "steps" else None
    value = run.values[metric][0]
    return value / 1000 if name == "duration_s" else value


def _failed_calls(run: RunFacts) -> tuple[float, float]:
    """Return the number of failed calls and of all calls of a run.

    Messages are not calls. Aggregates do not count either: they repeat the failures of the spans inside them.
    """
    calls = [
        value
        for metric, value in run.values.items()
        if metric.measure == "failure_rate" and built_in_part(metric.schema_name or "") not in NO_CALLS
    ]
    return sum(failed for failed, _ in calls), sum(ran for _, ran in calls)


def _amounts(name: str, value: float, limit: float) -> tuple[str, str]:
    """Return the texts of a used amount and of its limit, with enough digits to differ if the numbers differ."""
    texts = _amount(name, value), _amount(name, limit)
    if texts[0] != texts[1] or value == limit:
        return texts
    scale, before, after = UNITS.get(name, (1, "", ""))
    for digits in range(3, 17):
        texts = f"{before}{scale * value:.{digits}g}{after}", f"{before}{scale * limit:.{digits}g}{after}"
        if texts[0] != texts[1]:
            break
    return texts


def _amount(name: str, value: float) -> str:
    if name == "cost_usd":
        return cost_text(value)
    if name == "duration_s":
        return duration_text(1000 * value)
    return share_text(value, 1) or "0%" if name == "error_rate" else f"{value:,.0f}"


def _calls(runs: Sequence[RunFacts], config: Config, known: Sequence[Stat]) -> Iterator[Finding]:
    called = {run.run_id: {metric.label or metric.schema_name for metric in run.values} for run in runs}
    for kind, names, is_wanted in (("required", config.required, True), ("forbidden", config.forbidden, False)):
        for name in names if runs else ():
            wrong = tuple(run.run_id for run in runs if (name in called[run.run_id]) is not is_wanted)
            is_called = "is called" if bool(wrong) is not is_wanted else "is not called"
            where = f" in {len(wrong):,} of {noun(len(runs), 'run')}" if wrong else " in each run" if is_wanted else ""
            text = f"{name} {is_called}{where if len(runs) > 1 else ''}{_unknown(name, known)}"
            yield Finding(f"calls {kind}", "fail" if wrong else "pass", text, wrong)


def _unknown(name: str, known: Sequence[Stat]) -> str:
    """Return a list of known tools if no run of the file calls a name, because it may be misspelt; else ""."""
    if not known or any(name == (stat.label or stat.schema_name) for stat in known):
        return ""
    tools = [stat.label for stat in known if stat.label and fallback(stat.schema_name).name in TOOL_TYPES]
    close = get_close_matches(name, tools, n=5)
    return f"; no run of this file calls it; {some('tools', [*dict.fromkeys(close + tools)])}"


def _compared(
    runs: Gathered, baseline: Gathered, drop: float, *, shared: int, unmet: str, agents: str, note: str
) -> tuple[Finding, float | None, int]:
    """Return the finding about the baseline, the smallest detectable drop, and the number of missing runs."""
    after, before = outcomes_of(runs.runs), outcomes_of(baseline.runs)
    if not after or not before or not any(after + before):
        return Finding("baseline", "inconclusive", _not_compared(runs, baseline, shared, unmet)), None, 0
    sizes = group_sizes(baseline.runs, runs.runs)
    assert sizes is not None  # both sides have outcomes
    detectable = sizes.drop(one_sided=True)
    p = drop_p(runs.runs, baseline.runs)

    def judged(of_base: Sequence[RunFacts], of_head: Sequence[RunFacts]) -> doubts.Verdict:
        if drop_p(of_head, of_base) <= ALPHA:
            return "worse"
        if drop_p(of_base, of_head) <= ALPHA:
            return "better"
        found = group_sizes(of_base, of_head)
        return "inconclusive" if found is None or found.drop(one_sided=True) > drop else "no difference"

    found = judged(baseline.runs, runs.runs)
    verdict: Verdict = _VERDICTS.get(found, "inconclusive")
    doubt = outcome_doubt(baseline.runs, runs.runs, found, judged)
    chance = f"{'' if p <= ALPHA else 'no '}more than chance, one-sided p {p_text(p).replace('<', '< ')}"
    of = noun(len(before), "run") + (f" of {agents}" if agents else "")
    overall = _Shares(0, *(sum(each) / len(each) for each in (after, before)))
    shares = _by_task(runs, baseline) or overall
    checked = f" of {noun(len(after), 'run')}" if runs.unknown else ""
    whole = (
        f"{_percent(overall.after)}{checked} passed{_lacking(runs)}, "
        f"baseline {_percent(overall.before)} of {of}{_lacking(baseline)}"
    )
    is_drop = p <= ALPHA or shares.after < shares.before
    parts = _sentences(shares, overall, whole, chance if is_drop else "no drop")
    missing = 0
    if doubt is not None:
        verdict, parts = "inconclusive", [*parts, doubt]
    elif verdict == "inconclusive":
        blind = "with this few runs no drop would show"
        missed = found_drops(detectable)
        missing, more = _missing(sizes, drop)
        parts += [blind if detectable >= 1 else missed, more]
    both = f"{shared:,} in both count as checked" if shared else ""
    text = "; ".join(part for part in (*parts, both, note) if part)
    return Finding("baseline", verdict, text), detectable, missing


def _percent(share: float) -> str:
    return share_text(share, 1) or "0%"


def _lacking(runs: Gathered) -> str:
    return f" ({runs.unknown:,} more {'has' if runs.unknown == 1 else 'have'} no outcome)" if runs.unknown else ""


def _sentences(shares: _Shares, overall: _Shares, whole: str, result: str) -> list[str]:
    """Return sentences about the compared shares; about the shares of all runs too, if these differ.

    Args:
        whole: the sentence about the shares of all runs.
        result: the result of the comparison, in words.
    """
    if not shares.tasks:
        return [f"{whole}: {result}"]
    texts = _percent(shares.after), _percent(shares.before)
    if texts == (_percent(overall.after), _percent(overall.before)):
        return [f"{whole}, task by task ({noun(shares.tasks, 'task')}): {result}"]
    is_turned = (shares.after - shares.before) * (overall.after - overall.before) < 0
    return [
        f"task by task {texts[0]} passed, baseline {texts[1]} ({noun(shares.tasks, 'task')}): {result}",
        f"over all runs{' the opposite:' if is_turned else ''} {whole}",
    ]


def _missing(sizes: GroupSizes, drop: float) -> tuple[int, str]:
    """Return the number of further checked runs that would detect a drop, and a sentence about them."""
    wanted = f"a drop of {100 * drop:.3g} points"
    if drop > sizes.share:
        return 0, f"{wanted} is impossible where {share_text(sizes.share, 1)} pass: name a smaller one in [baseline]"
    more = sizes.more_for(drop)
    if more is None:
        return 0, f"not even {MOST_TIMES:,} times the runs would show {wanted}"
    head = more.head if more.base else max(1, more.head)
    sides = f"{head:,} more {'run' if head == 1 else 'runs'}" if head else "", f"{more.base:,} more of the baseline"
    which = f", of {noun(more.pairs, 'more task')}," if more.pairs else " (about the fewest in all)"
    return head, f"{' and '.join(filter(None, sides if more.base else sides[:1]))}{which} would show {wanted}"


def _not_compared(runs: Gathered, baseline: Gathered, shared: int, unmet: str) -> str:
    if shared and not baseline.runs:
        return f"all {shared:,} runs of the baseline are checked ones: nothing is left to compare with"
    if not baseline.runs:
        return "no run of the baseline has ended"
    known = outcomes_of(runs.runs), outcomes_of(baseline.runs)
    if not all(known):
        return f"no {'run of the baseline' if known[0] else 'checked run'} has a known outcome"
    return f"no run of the baseline {unmet}; is the rule right?"


def drop_p(runs: Sequence[RunFacts], baseline: Sequence[RunFacts]) -> float:
    """Return the probability that the share of passed runs is as low as this by chance (one-sided p).

    Runs are paired by task if both sides share tasks.
    """
    cases = outcome_cases(task_pairs(baseline, runs))
    if cases:
        return paired_tails(cases)[0]
    after, before = outcomes_of(runs), outcomes_of(baseline)
    return fisher_p(round(sum(after)), len(after), round(sum(before)), len(before), one_sided=True)
