"""The answer of `agentspan.evaluate`: its trials, its verdict, and the text that it prints."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from agentspan.evaluation.case_files import Case
from agentspan.evaluation.plan import Plan
from agentspan.evaluation.verdicts import Comparison, Outcomes, Stopped
from agentspan.ground import Storage, text
from agentspan.judging import CaseRow, Interval, Verdict, share_interval, table_of, variance_of

MARKS: dict[Verdict, str] = {"better": "✓", "no difference": "✓", "worse": "✗", "inconclusive": "?"}
SHOWN = 5
"""The largest number of cases that are named, in each direction."""


class Trial(NamedTuple):
    """One run of a case.

    Attributes:
        case: the id of the case.
        number: the number of the trial, from 1.
        run_id: the id of its run; "" if it could not be recorded.
        passed: None if unknown, because a scorer raised.
        is_failed: whether the evaluated function raised.
        cost_usd: the cost of the run and of its judges; None if unknown.
        was_there: whether an earlier call had run it.
        not_scored: the name of each scorer that raised, with the error.
        is_between: whether its score is above 0 and below 1, and it did not pass because no rule says what passes.
    """

    case: str
    number: int
    run_id: str
    passed: bool | None
    is_failed: bool = False
    cost_usd: float | None = None
    was_there: bool = False
    not_scored: Mapping[str, str] = {}
    is_between: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The answer of `evaluate`. Printed, it is the verdict and the reasons for it.

    Attributes:
        name, version: the evaluated agent and its version; None for no version.
        against: the base as it was named; None without one.
        outcome: the rule by which a trial passed; `status` if its status decides.
        cases: the cases.
        plan: the drop that the evaluation would show, and its cost, computed before its first run.
        planned: the number of all trials.
        trials: the trials that ran, in the planned order.
        stopped: why it ended before all trials: `early` (the verdict was clear), `budget`, `interrupted`, `plan` (the
            budget could not show the drop, so that nothing ran); None if all trials ran.
        comparison: the comparison with the base; None without one, or without outcomes.
        base: the outcomes of the base, by case.
        base_runs: the ids of the runs of the base for these cases.
        others_open: the number of trials that are open elsewhere: another process may run the same evaluation.
        storage: where the runs are.
    """

    name: str
    version: str | None
    against: str | None
    outcome: str
    cases: tuple[Case, ...]
    plan: Plan
    planned: int
    trials: tuple[Trial, ...]
    stopped: Stopped | None
    comparison: Comparison | None
    base: Outcomes
    base_runs: tuple[str, ...]
    others_open: int
    storage: Storage = field(repr=False)

    @property
    def verdict(self) -> Verdict:
        """`better`, `worse`, `no difference` or `inconclusive`, compared with the base.

        Without a base and after an interruption, the verdict is `inconclusive`.
        """
        if self.comparison is None or self.stopped in ("interrupted", "plan"):
            return "inconclusive"
        return self.comparison.verdict

    @property
    def difference(self) -> float | None:
        """The share of passed trials minus that of the base, from -1 to 1; None without a comparison."""
        return None if self.comparison is None else self.comparison.difference

    @property
    def interval(self) -> Interval | None:
        """The interval of the difference; without a base, that of the rate (95 %).

        None without outcomes, and after an early stop: the evidence then bounds `comparison.pairs.interval()`.
        """
        return self.rate_interval if self.comparison is None else self.comparison.interval

    @property
    def outcomes(self) -> dict[str, list[bool | None]]:
        """The outcomes of the trials, by case."""
        found: dict[str, list[bool | None]] = {}
        for each in self.trials:
            found.setdefault(each.case, []).append(each.passed)
        return found

    @property
    def rate(self) -> float | None:
        """The share of passed trials among those with an outcome; None without any."""
        known = [each.passed for each in self.trials if each.passed is not None]
        return sum(known) / len(known) if known else None

    @property
    def rate_interval(self) -> Interval | None:
        """The 95 % interval of the rate. Trials of a case depend on each other, so they count as fewer trials."""
        of_cases = [known for own in self.outcomes.values() if (known := [each for each in own if each is not None])]
        if not of_cases or self.rate is None:
            return None
        passed, number = [float(sum(own)) for own in of_cases], [float(len(own)) for own in of_cases]
        return share_interval(self.rate, variance_of(passed, number), least=len(number), most=sum(number))

    @property
    def cost_usd(self) -> float | None:
        """The cost of all trials, with that of their judges; None if none is known."""
        known = [each.cost_usd for each in self.trials if each.cost_usd is not None]
        return sum(known) if known else None

    @property
    def not_scored(self) -> Counter[str]:
        """The number of trials in which each scorer raised, by its name. Such a score is missing, and never 0."""
        return Counter(name for each in self.trials for name in each.not_scored)

    @property
    def run_ids(self) -> tuple[str, ...]:
        """The ids of the trials' runs."""
        return tuple(each.run_id for each in self.trials if each.run_id)

    def __str__(self) -> str:
        return "\n".join(lines(self))


def changes(found: Evaluation) -> list[CaseRow]:
    """Return the cases that differ from the base: those that became worse, the most first, then the better ones."""
    return [each for each in table_of(found.base, found.outcomes).cases if each.change]


def sentence(found: Evaluation) -> str:
    """Return the verdict as one sentence."""
    name = found.name if found.version is None else f"{found.name} {found.version}"
    if found.stopped == "plan":
        budget = text.cost_text(found.plan.budget_usd or 0)
        return f"{name}: not evaluated: {budget} cannot show a drop of {_points(found.plan.show)}"
    if found.comparison is None:
        return f"{name}: {_rate(found)}"
    compared, against = found.comparison, found.against or ""
    what = {
        "worse": f"worse than {against}",
        "better": f"better than {against}",
        "no difference": f"no drop of {_points(found.plan.show)} or more against {against}",
        "inconclusive": f"inconclusive against {against}",
    }[found.verdict]
    so_far = " so far" if found.stopped == "interrupted" else ""
    if compared.interval is None:
        pairs = compared.pairs
        bounds, way = pairs.interval(), "worse" if pairs.worse > pairs.better else "better"
        sure = f"of the pairs that differ, {_percent(bounds.low)[:-1]}–{_percent(bounds.high)} are {way}, at 95 %"
    else:
        interval = f"{_signed(compared.interval.low)} … {_signed(compared.interval.high)}"
        sure = f"{100 * compared.confidence:.0f} % interval {interval}"
    if compared.p is not None and found.verdict in ("worse", "better"):
        sure += f", one-sided p {text.p_text(compared.p)}"
    shares = f"{_percent(compared.base)} → {_percent(compared.head)} passed in {text.noun(compared.tasks, 'task')}"
    change = _signed(compared.difference, digits=int(0 < abs(compared.difference) < 0.0995))
    return f"{name}: {what}{so_far}: {change} points ({sure}); {shares}"


def _rate(found: Evaluation) -> str:
    rate, interval = found.rate, found.rate_interval
    if rate is None or interval is None:
        return "no trial has an outcome"
    sure = f"95 % interval {_percent(interval.low)} … {_percent(interval.high)}"
    base = "no base to compare with" if found.against is None else f"nothing of {found.against} to compare with"
    known = sum(each.passed is not None for each in found.trials)
    return f"{_percent(rate)} of {text.noun(known, 'trial')} passed ({sure}); {base}"


def lines(found: Evaluation) -> Iterator[str]:
    """Yield the verdict, and the facts behind it."""
    yield sentence(found)
    yield f"  plan: {found.plan}"
    earlier = sum(each.was_there for each in found.trials)
    there = f" ({earlier:,} of them from before)" if earlier else ""
    cost = "" if found.cost_usd is None else f", {text.cost_text(found.cost_usd)}"
    number = f"{len(found.trials):,} of {text.noun(found.planned, 'trial')}"
    yield f"  {number}{there}{cost}; passed by {found.outcome}{stopped_text(found)}"
    yield from (f"  {line}" for line in warnings(found))
    if found.comparison is not None:
        changed = changes(found)
        for word in ("worse", "better"):
            if some := [each for each in changed if each.word == word]:
                more = ", …" if len(some) > SHOWN else ""
                yield f"  {word} in {text.noun(len(some), 'case')}: {', '.join(map(str, some[:SHOWN]))}{more}"


def stopped_text(found: Evaluation) -> str:
    """Return why the evaluation ended before all trials, as the end of a sentence; "" if all ran."""
    if found.stopped == "early" and found.comparison is not None:
        pairs = found.comparison.pairs
        first = f"the first that differs of a case: {pairs.better} better, {pairs.worse} worse"
        return f"; stopped early: of {text.noun(pairs.pairs, 'pair')} of trials, {first}"
    if found.stopped == "budget":
        return f"; the budget of {text.cost_text(found.plan.budget_usd or 0)} is spent"
    if found.stopped == "interrupted":
        return "; interrupted" + (": the same call again runs the missing trials" if found.version else "")
    return ""


def warnings(found: Evaluation) -> Iterator[str]:
    """Yield a sentence for each fact that makes the answer weaker than it looks."""
    compared = found.comparison
    if compared is not None and compared.doubt is not None:
        yield compared.doubt
    if found.trials and all(each.was_there for each in found.trials):
        yield "nothing ran: all trials were there from before. A changed agent needs a new version"
    failed = sum(each.is_failed for each in found.trials)
    unknown = sum(each.passed is None for each in found.trials)
    if failed:
        yield f"{text.noun(failed, 'trial')} failed with an exception, and did not pass"
    for name, number in found.not_scored.items():
        error = next(each.not_scored[name] for each in found.trials if name in each.not_scored)
        yield f"{name} raised in {text.noun(number, 'trial')}, which have no such score: {error}"
    if unknown:
        yield f"{text.noun(unknown, 'trial')} without an outcome: left out of the shares"
    if between := sum(each.is_between for each in found.trials):
        score = found.outcome.partition(">=")[0]
        scored = text.noun(between, "trial") + " scored between 0 and 1 and did not pass"
        yield f"{scored}: only 1 passes without a rule such as"
        yield f"the outcome {score}>=0.5"
    free = sum(each.cost_usd is None for each in found.trials)
    if found.plan.budget_usd is not None and free:
        yield f"{text.noun(free, 'trial')} without a known cost, for the budget $0: record models and usage in the run"
    if found.others_open:
        still = f"{text.noun(found.others_open, 'trial')} of this evaluation still open"
        yield f"{still}: another process may run it, too; then each runs, and pays for, the same trials"
    if found.comparison is not None and found.plan.tasks < len(found.cases):
        yield f"{text.noun(len(found.cases) - found.plan.tasks, 'case')} without an outcome in the base: not compared"


def _percent(share: float) -> str:
    return text.share_text(round(1000 * share), 1000) or "0%"


def _signed(difference: float, digits: int = 0) -> str:
    return f"{round(100 * difference, 6):+.{digits}f}".replace("-", "−")  # −87.4999… and −87.5 alike


def _points(share: float) -> str:
    return f"{100 * share:.3g} points"
