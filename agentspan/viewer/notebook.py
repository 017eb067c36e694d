"""Results and databases as a notebook shows them: a class for each result, which is the same value and shows itself.

The classes are here, because the modules of the analysis know nothing of HTML. notebook_run.py has that of a run.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain
from typing import Any, TypeVar, cast

from agentspan.analysis import diff_text
from agentspan.analysis.causes import page_of
from agentspan.analysis.costs import Costs
from agentspan.analysis.diff import DiffRun, DiffStep, RunDiff
from agentspan.analysis.differences import FieldChange
from agentspan.analysis.drift import Drift
from agentspan.analysis.overview import Overview, overview
from agentspan.analysis.runs import StatsByVersion, find_runs
from agentspan.analysis.search import Hits
from agentspan.analysis.stored_run import RunStep
from agentspan.analysis.tree import MARKS, run_error, run_name, session_title
from agentspan.analysis.why import RunWhy, Why
from agentspan.answers import cost, groups
from agentspan.answers import overview as answers
from agentspan.answers import stats as of_stats
from agentspan.answers import why as of_why
from agentspan.answers.blocks import Table
from agentspan.storage.protocol import Storage
from agentspan.storage.row_by_row import tokens_of
from agentspan.storage.sums import RunList, RunSummary, Stat
from agentspan.text import amounts, cost_text, count_text, dotted, duration_text, noun
from agentspan.viewer.blocks import MOST_ROWS, Shown, Shows, flat, html

T = TypeVar("T")

LATEST = 10
"""The number of runs that a notebook shows of a database."""
MOST_CAUSES = 10
"""The number of causes that an overview shows."""


class ShownRuns(Shown, RunList):
    """A page of runs that shows itself."""

    __slots__ = ()

    def blocks(self) -> Iterator[Shows]:
        """Yield the number of runs with their sums, and a table of the runs on the page."""
        totals = self.totals
        yield dotted(
            f"{len(self.runs):,} of {noun(self.total, 'run')}",
            noun(totals.spans, "step"),
            noun(totals.failed, "failed step") if totals.failed else "",
            f"{totals.open:,} open" if totals.open else "",
            *amounts(tokens_of(totals), totals.cost_usd, totals.duration_ms),
        )
        if self.runs:
            statuses = [f"{MARKS[run.run.status]} {run.run.status}" for run in self.runs]
            yield runs_table(self.runs, [run_error(run.run) for run in self.runs], statuses)


# Ids are last in each table: they are long, and a narrow notebook scrolls to them.
_RUN_COLUMNS = (
    "status", "started (UTC)", "took", "steps", "failed", "tokens", "cost", "agent", "about", "error", "run"
)  # fmt: skip


def runs_table(
    runs: Sequence[RunSummary], errors: Sequence[str | None], statuses: Sequence[str], *, total: int | None = None
) -> Table:
    """Return a table of runs.

    Args:
        errors: the error of each run; None for a run without one.
        statuses: the status of each run, or the verdict on it, with its mark.
        total: the number of runs that there are, if `runs` has only some of them.
    """
    rows = [_run_row(*each) for each in zip(runs, errors, statuses, strict=True)]
    return flat(_RUN_COLUMNS, rows, ("took", "steps", "failed", "tokens", "cost"), ("run",), total)


def _run_row(run: RunSummary, error: str | None, status: str) -> Sequence[str]:
    row, tokens = run.run, tokens_of(run)
    return (
        status,
        (row.started_at or row.inserted_at)[5:19].replace("T", " "),
        "" if row.duration_ms is None else duration_text(row.duration_ms),
        f"{run.spans:,}",
        f"{run.failed:,}" if run.failed else "",
        "" if tokens is None else count_text(tokens),
        "" if run.cost_usd is None else cost_text(run.cost_usd),
        run_name(run.agent, run.version),
        session_title(row) or (f"task {row.task}" if row.task else ""),
        row.termination_reason or error or "",
        row.id,
    )


class ShownStats(Shown, list[Stat]):
    """Statistics of spans that show themselves: a list."""

    __slots__ = ()

    def blocks(self) -> Iterable[Shows]:
        """Return a table of the types and labels, and the sums."""
        return of_stats.statistics(self)


class ShownStatsByVersion(Shown, StatsByVersion):
    """Statistics of spans by version that show themselves."""

    __slots__ = ()

    def blocks(self) -> Iterable[Shows]:
        """Return a table of the types and labels, each followed by its versions, and the sums."""
        return of_stats.statistics(self.stats, parted=self)


class ShownCosts(Shown, Costs):
    """The costs of runs, which show themselves."""

    __slots__ = ()

    def blocks(self) -> Iterable[Shows]:
        """Return the sums in sentences, and tables of the models, days, agents …, and of their use of caches."""
        return chain(*cost.answer(self, MOST_ROWS))


class ShownHits(Shown, Hits):
    """Hits of a search that show themselves."""

    __slots__ = ()

    def blocks(self) -> Iterator[Shows]:
        """Yield the number of hits, and a table of those on the page."""
        yield f"{len(self.hits):,} of {noun(self.total, 'step')} found"
        if self.hits:
            rows = [
                (
                    f"{MARKS[hit.status]} {hit.status}",
                    hit.schema_name,
                    hit.snippet,
                    f"{hit.repeats:,}" if hit.repeats else "",
                    run_name(hit.agent, hit.version) if hit.agent else "",
                    "" if hit.step is None else f"{hit.step:,}",
                    hit.run_id,
                    hit.span_id,
                )
                for hit in self.hits
            ]
            columns = ("status", "type", "text", "repeated", "agent", "step", "run", "span")
            yield flat(columns, rows, ("step", "repeated"), ("span", "run"))


class ShownOverview(Shown, Overview):
    """An overview of runs, which shows itself."""

    __slots__ = ()

    def blocks(self) -> Iterable[Shows]:
        """Return the overview's answer, the most frequent causes of failure, and the sums of its runs."""
        return answers.overview(self, MOST_CAUSES)


class ShownWhy(Shown, Why):
    """Groups of failed runs that show themselves."""

    __slots__ = ()

    def blocks(self) -> Iterable[Shows]:
        """Return the number of failed runs, the groups, and the findings: features that are associated with failure."""
        return chain(*of_why.why(self, MOST_ROWS, shortest=of_why.LONGEST))


class ShownRunWhy(Shown, RunWhy):
    """The reason for which a run failed, which shows itself."""

    __slots__ = ()

    def blocks(self) -> Iterator[Shows]:
        """Yield the verdict, the failed step, and where the nearest passing run parts."""
        yield f"run {self.run_id} {run_name(self.agent, self.version)}"
        yield dotted(self.verdict, *self.head)
        rows = [(name, value) for name, value in self._facts() if value]
        if rows:
            yield flat(("", "why"), rows)

    def _facts(self) -> Iterator[tuple[str, str]]:
        yield "error of the run", self.error or ""
        if self.missed is not None:
            yield "missed", str(self.missed.rule)
        if self.still_open is not None:
            yield "still open", f"step {self.still_open.step:,} {self.still_open.title or ''}"
        step = self.step
        if step is not None:
            yield "failed step", f"{step.number:,} {step.title}"
            yield "its error", step.error
            yield "given", step.payload
            yield "the model had said", step.model_text or ""
            yield "in", " › ".join(step.within)
            yield "failed before", f"{step.failed_before:,}, {step.same_before:,} with the same arguments"
            yield "passed later", f"step {step.passed_later:,}" if step.passed_later else ""
            yield "recovered by", f"step {step.recovered_by:,}" if step.recovered_by else ""
        else:
            yield "it ended", self.signature.text
        other = self.elsewhere
        if other is not None:
            yield (
                "elsewhere",
                f"{other.spans:,} × in {noun(other.runs, 'other run')}" if other.runs else "in no other run",
            )
        if self.nearest is not None:
            yield "nearest passing run", self.nearest.run_id
            first = self.nearest.divergence
            if first is not None:
                yield "where they part", f"{diff_text.after(first)}: {diff_text.parting(first, 'it', 'this one')}"
                yield "the passing one", _step_text(first.a)
                yield "this one", _step_text(first.b)


def _step_text(step: DiffStep | None) -> str:
    return "no more steps" if step is None else f"{step.number:,} {MARKS[step.status]} {step.title}"


class ShownDiff(Shown, RunDiff):
    """The difference of two runs that shows itself."""

    __slots__ = ()

    def blocks(self) -> Iterator[Shows]:
        """Yield both runs, where they part, and the changes after that."""
        yield flat(("", "agent", "facts", "run"), [_diff_row("A", self.a), _diff_row("B", self.b)], codes=("run",))
        yield f"B − A: {diff_text.deltas(self.a, self.b)}"
        if not self.is_shortest:
            yield diff_text.NOT_SHORTEST
        yield from _fields(self.fields)
        first = self.first_divergence
        if first is None:
            yield "The steps are the same."
            return
        yield f"{diff_text.before(first)}, then: {diff_text.parting(first)}"
        if (hint := diff_text.read_first(first)) is not None:
            yield hint
        yield flat(("", "step"), [("A", _step_text(first.a)), ("B", _step_text(first.b))])
        if self.against is not None:
            yield diff_text.against(self.against, first.same)
        yield from _fields(first.fields)
        changes = [change for change in diff_text.rest(self) if change.kind not in diff_text.QUIET]
        if any(change.kind != "same" for change in changes):
            marks = [diff_text.MARKS.get(change.kind, diff_text.CHANGED) for change in changes]
            rows = [(mark, diff_text.change_text(each)) for mark, each in zip(marks, changes, strict=True)]
            yield flat(("", "after that"), rows)


def _diff_row(side: str, run: DiffRun) -> Sequence[str]:
    return side, run_name(run.agent, run.version), diff_text.facts(run), run.run_id


def _fields(changed: Sequence[FieldChange]) -> Iterator[Table]:
    if changed:
        yield flat(
            ("member", "A", "B"), [(each.path, each.a or "", each.b or "") for each in changed], codes=("member",)
        )


class ShownDrift(Shown, Drift):
    """The comparison of two groups of runs that shows itself."""

    __slots__ = ()

    def blocks(self) -> Iterator[Shows]:
        """Return the verdict, the facts of the comparison, and a table of the measures."""
        return groups.comparison(self, "base", "head")


class ShownSteps(Shown, list[RunStep]):
    """The steps of a run that show themselves: a list."""

    __slots__ = ()

    def blocks(self) -> Iterator[Shows]:
        """Yield a table of the steps."""
        rows = [
            (
                f"{step.number:,}",
                f"{'· ' * min(step.depth, 10)}{MARKS[step.status]} {step.title}",
                "" if step.duration_ms is None else duration_text(step.duration_ms),
                step.error or "",
                step.span_id,
            )
            for step in self[:MOST_ROWS]
        ]
        yield noun(len(self), "step")
        if rows:
            yield flat(("#", "step", "took", "error", "span"), rows, ("#", "took"), ("span",), len(self))


_SHOWN: Mapping[type, type] = {
    Overview: ShownOverview, RunList: ShownRuns, StatsByVersion: ShownStatsByVersion, Hits: ShownHits, Why: ShownWhy,
    RunWhy: ShownRunWhy, RunDiff: ShownDiff, Drift: ShownDrift, Costs: ShownCosts,
}  # fmt: skip


def shown(found: T) -> T:
    """Return a result as the same value that also shows itself in a notebook.

    It has the same fields and is of a subclass, because the modules of the analysis know nothing of HTML.
    """
    kind = _SHOWN[type(found)]
    values = (getattr(found, field.name) for field in fields(found)) if is_dataclass(found) else cast(Any, found)
    return cast(T, kind(*values))


def database_html(storage: Storage | None, where: str) -> str:
    """Return a database as a notebook shows it: how many runs failed, the most frequent causes, and the latest runs.

    Args:
        storage: the storage; None if nothing has been recorded yet.
        where: its location, or the name of its file: a notebook that is handed on need not say in which folder it is.
    """
    return html(
        [f"agentspan: {where}", *(["nothing has been recorded here yet"] if storage is None else _latest(storage))]
    )


def _latest(storage: Storage) -> Iterator[Shows]:
    found = find_runs(storage, limit=LATEST)
    if not found.runs:
        yield "nothing has been recorded here yet"
        return
    yield from shown(overview(storage)).blocks()  # type: ignore[attr-defined]
    judged = page_of(storage, found.runs)
    causes = [judged.causes[id].text if id in judged.causes else None for id in (run.run.id for run in found.runs)]
    verdicts = [str(judged.verdicts[run.run.id]) for run in found.runs]
    yield "the latest runs:"
    yield runs_table(found.runs, causes, verdicts, total=found.total)
