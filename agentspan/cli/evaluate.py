"""`agentspan evaluate`: runs cases through a program, and prints whether it got better or worse.

Exit codes as those of `check`: 0: no worse, or a rate without a base; 1: worse; 3: inconclusive; 2: nothing was
evaluated, because of an error.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import asdict
from os import getcwd
from typing import Any

import click

from agentspan.analysis.cases import Tally
from agentspan.analysis.diff_text import MAX_SENTENCE, escaped
from agentspan.analysis.drift import Drift, drift
from agentspan.analysis.drift_text import beside_verdict
from agentspan.analysis.outcomes import rule_of
from agentspan.analysis.why import why
from agentspan.answers import groups
from agentspan.cli import junit
from agentspan.cli.app import answering, command, location_in, options, read_or_not
from agentspan.cli.completion import AGENT
from agentspan.cli.diff import WHOLE
from agentspan.cli.filter_options import outcome_option
from agentspan.cli.output import Unanswered, bar, document, echo_lines, status_style, to_copy, width, wrap
from agentspan.cli.rendering import show
from agentspan.evaluation.answers import MARKS, Evaluation, changes, lines, sentence
from agentspan.evaluation.evaluating import SHOW, evaluate
from agentspan.evaluation.plan import Plan
from agentspan.evaluation.scorers import SHIPPED
from agentspan.recording.tracer import configure, forget
from agentspan.storage.questions import RunFilter
from agentspan.text import noun, p_text

EXIT_CODES = {"better": 0, "no difference": 0, "worse": 1, "inconclusive": 3}
_STATUS = {"better": "complete", "no difference": "complete", "worse": "failed", "inconclusive": "active"}
MOST_CAUSES = 3
"""The largest number of groups of failures that are printed."""


@command("evaluate")
@click.argument("program", metavar="MODULE:FUNCTION")
@click.option("--cases", required=True, metavar="FILE", help="One case a line: a dataset, or objects with an input.")
@click.option(
    "--score", "scores", multiple=True, metavar="NAME", help="exact, contains or MODULE:FUNCTION. Repeatable."
)
@click.option("--name", metavar="AGENT", type=AGENT, help="Name the agent; that of the function when left out.")
@click.option("--version", metavar="VERSION", help="Name its version. Trials of it that are there are not run again.")
@click.option("--trials", type=click.IntRange(1), default=1, show_default=True, help="Run each case so often.")
@click.option("--against", metavar="BASE", help="Compare with AGENT@VERSION, a VERSION, or a filter.")
@outcome_option
@click.option("--show", type=float, default=SHOW, show_default=True, help="Be able to show a drop so large.")
@click.option("--budget-usd", type=float, metavar="USD", help="Begin no trial once they have cost so much.")
@click.option("--trial-timeout-s", type=float, metavar="S", help="End a trial, as failed, after so many seconds.")
@click.option("--early", is_flag=True, help="Stop when the verdict is clear.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Run so many at a time.")
@click.option("--seed", type=int, default=0, show_default=True, help="Choose another order of the cases.")
@click.option("--full", is_flag=True, help="List all rows of the comparison of all metrics.")
@click.option(
    "--junit", "junit_file", metavar="FILE", help="Write JUnit XML, too: a test for each case, and one for the verdict."
)
@click.option("--markdown", is_flag=True, help="Write Markdown, for a pull request.")
@options
@answering()
@click.pass_context
def evaluate_command(
    ctx: click.Context,
    *,
    program: str,
    cases: str,
    scores: tuple[str, ...],
    name: str | None,
    version: str | None,
    trials: int,
    against: str | None,
    outcome: str | None,
    show: float,
    budget_usd: float | None,
    trial_timeout_s: float | None,
    early: bool,
    workers: int,
    seed: int,
    full: bool,
    junit_file: str | None,
    markdown: bool,
    db: str | None,
    as_json: bool,
) -> None:
    """Run cases through a function, score its runs, and compare them with another version's.

    MODULE:FUNCTION is called with the input of each case. The exit code is 0 if it is no worse, 1 if it is, 2 if
    nothing was evaluated, 3 if there is no verdict. The same command again runs the trials that are missing.
    """
    configure(location_in(ctx, db))
    try:
        with redirect_stdout(sys.stderr), bar("evaluating") as update:  # prints are no part of the answer
            task = _imported(program)
            judges = [SHIPPED[each] if each in SHIPPED else _imported(each) for each in scores]
            called = name or str(getattr(task, "__name__", program))
            found = evaluate(
                task, cases, judges, name=called, version=version, trials=trials,
                against=against, outcome=outcome, show=show, budget_usd=budget_usd, stop="early" if early else None,
                trial_timeout_s=trial_timeout_s, workers=workers, seed=seed, progress=update, on_plan=_show_plan,
            )  # fmt: skip
        with read_or_not():
            if as_json:
                document(plain(found))
            elif markdown:
                echo_lines(_markdown(found))
            else:
                _print(found, full=full)
        if junit_file is not None:
            junit.write(junit_file, "agentspan evaluate", _tests(found))
    finally:
        forget()
    is_rate = against is None and found.rate is not None and found.stopped != "interrupted"
    raise SystemExit(0 if is_rate else EXIT_CODES[found.verdict])


def _imported(text: str) -> Callable[..., Any]:
    """Return the object MODULE:NAME, of a module in the current folder or an installed one.

    Raises:
        Unanswered: there is no such module or name, or the module cannot be imported.
    """
    module, colon, name = text.partition(":")
    if not colon or not module or not name:
        names = f"; {', '.join(SHIPPED)} are known by name" if not colon else ""
        raise Unanswered(f"{text} is not MODULE:FUNCTION, such as app:agent{names}")
    if getcwd() not in sys.path:
        sys.path.insert(0, getcwd())
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise Unanswered(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise Unanswered(f"{module} has no {name}")
        found = getattr(found, part)
    if not callable(found):
        raise Unanswered(f"{text} cannot be called")
    return found  # type: ignore[no-any-return]


def _show_plan(plan: Plan) -> None:
    """Print the plan to stderr before money is spent, where a person looks on."""
    if sys.stderr.isatty():
        for line in wrap(str(plan), width(), 6):
            click.echo(line, err=True)


def _print(found: Evaluation, *, full: bool) -> None:
    first, *rest = lines(found)
    for line in wrap(f"{MARKS[found.verdict]} {first}", width(), 6):
        echo_lines([status_style(line, _STATUS[found.verdict])])
    for line in rest:
        echo_lines(f"  {part}" for part in wrap(line.strip(), width() - 2, 8))
    if found.comparison is None or not found.base_runs or not found.run_ids:
        return
    click.echo()
    filters = RunFilter(ids=frozenset(found.base_runs)), RunFilter(ids=frozenset(found.run_ids))
    compared = drift(found.storage, *filters, judge=rule_of(found.outcome), with_calls=False)
    names = found.against or "", found.version or found.name
    verdict = beside_verdict(compared, *names)
    blocks = groups.comparison(compared, *names, whole=full, verdict=verdict, about=[*_other_test(found, compared)])
    show([blocks], found.storage, whole=WHOLE)
    _print_causes(found)


def _other_test(found: Evaluation, compared: Drift) -> Iterator[str]:
    """Yield the reason why the q of `passed` disagrees with the verdict, if it does."""
    row, by = compared.outcome, found.comparison
    is_clear = found.verdict in ("better", "worse")
    if row is None or row.q is None or by is None or row.is_significant == is_clear:
        return
    if not is_clear:
        why = "it was interrupted" if found.stopped == "interrupted" else "the verdict counts"
    elif by.p is None:
        why = "q looks at all trials and in both directions, the verdict at pairs of trials until it was clear"
    else:
        why = f"q looks in both directions, the verdict in one (p {p_text(by.p)})"
    yield f"q of passed is {p_text(row.q)}, but the verdict is {found.verdict}: {why}"


def _print_causes(found: Evaluation) -> None:
    """Print the most frequent causes of trials that failed, and the command that lists all of them."""
    if not any(each.passed is False for each in found.trials):
        return
    asked = RunFilter(ids=frozenset(found.run_ids))
    causes = why(found.storage, asked, judge=rule_of(found.outcome)).groups[:MOST_CAUSES]
    click.echo()
    for each in causes:
        echo_lines(wrap(f"failed: {each.text} ({noun(each.runs, 'run')})", width(), 3))
    words = [found.name, *(["--version", found.version] if found.version else [])]
    click.echo("  " + to_copy("why", "--agent", *words, "--outcome", found.outcome))


def plain(found: Evaluation) -> dict[str, Any]:
    """Return an evaluation as plain data, for JSON."""
    interval = found.interval
    return {
        "verdict": found.verdict,
        "text": sentence(found),
        "name": found.name,
        "version": found.version,
        "against": found.against,
        "outcome": found.outcome,
        "stopped": found.stopped,
        "rate": found.rate,
        "difference": found.difference,
        "interval": None if interval is None else asdict(interval),
        "plan": asdict(found.plan) | {"text": str(found.plan)},
        "comparison": None if found.comparison is None else asdict(found.comparison),
        "planned": found.planned,
        "cost_usd": found.cost_usd,
        "not_scored": found.not_scored,
        "trials": [each._asdict() for each in found.trials],
        "changes": [
            {"case": each.case, **dict(zip(("base", "head"), map(_pair, each.tallies), strict=True))}
            for each in changes(found)
        ],
    }


def _pair(tally: Tally | None) -> list[int]:
    return [0, 0] if tally is None else [tally.passed, tally.known]


def _markdown(found: Evaluation) -> Iterator[str]:
    first, *rest = lines(found)
    yield f"**agentspan evaluate: {MARKS[found.verdict]} {escaped(first, MAX_SENTENCE)}**"
    yield ""
    yield from (f"- {escaped(line.strip(), MAX_SENTENCE)}" for line in rest)
    changed = changes(found)
    if changed:
        yield ""
        yield "| case | base | now |"
        yield "|---|---|---|"
        for each in changed:
            yield f"| {escaped(each.case)} | {each.tallies[0]} | {each.tallies[1]} |"


_RESULTS: dict[str, junit.Result] = {"worse": "fail", "inconclusive": "inconclusive"}


def _tests(found: Evaluation) -> list[junit.Test]:
    """Return the verdict, which alone can fail, and each case with its outcomes, as tests of a report."""
    tests = [junit.Test("verdict", _RESULTS.get(found.verdict, "pass"), sentence(found), "\n".join(lines(found)))]
    for id, own in found.outcomes.items():
        known = [each for each in own if each is not None]
        output = f"{sum(known)} of {noun(len(known), 'trial')} passed"
        tests.append(junit.Test(id, output=output, group="agentspan.cases"))
    return tests
