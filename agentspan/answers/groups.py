"""The comparison of two groups of runs, such as two versions: the verdict, a table of the measures, the cases."""

from collections.abc import Iterator, Sequence

from agentspan.analysis import drift_text
from agentspan.analysis.by_name import AT
from agentspan.analysis.cases import CaseTable, Tally
from agentspan.analysis.drift import PASSED, Drift, DriftRow
from agentspan.answers.blocks import At, Block, Cell, Column, Command, Runs, Sentence, Table
from agentspan.schemas.builtin import built_in_part
from agentspan.storage.questions import RunFilter
from agentspan.text import cut

MAX_NAME = 16
"""The largest number of characters of a version above its column of cases, where there is little room."""
_SORTS = {"duration_ms": "duration", "cost_usd": "cost", "tokens": "tokens", "spans": "spans"}
_BY_LABEL = {"tool": "tool", "llm": "model", "embedding": "model"}


def comparison(
    found: Drift,
    base: str,
    head: str,
    filters: Sequence[RunFilter] = (RunFilter(), RunFilter()),
    *,
    whole: bool = False,
    verdict: str = "",
    about: Sequence[str] = (),
) -> Iterator[Block]:
    """Yield the verdict on two groups, and the table of its measures.

    Args:
        base, head: the names of the groups.
        filters: the filters of the groups; those of versions find the runs of a row.
        whole: list all rows.
        verdict: a sentence in place of the verdict, if another one has been said.
        about: sentences below the verdict, such as the rule that judged the runs.
    """
    yield Sentence(verdict or drift_text.sentence(found, base, head), "plain" if verdict else "verdict", found.verdict)
    rows = drift_text.shown_rows(found, whole=whole)
    if found.verdict == "not_compared":
        return
    yield from map(Sentence, (*drift_text.over_all(found), *about, drift_text.facts(found, base, head)))
    sides = (("base", base), ("head", head))
    values = (Column(side, name, is_name=True) for side, name in sides)
    spreads = (Column(f"{side} p50–p95", detail=1, is_hint=True) for side, _ in sides)
    columns = [Column("", "measure", is_number=False), *values, Column("change"), Column("q", is_name=True), *spreads]
    yield Table(columns, [_row(row, filters) for row in rows], len(found.rows))
    yield Sentence(drift_text.legend(found), "note")


def _row(row: DriftRow, filters: Sequence[RunFilter]) -> Sequence[Cell]:
    is_bad = row.is_significant and row.is_worse is True
    values = []
    for value, filter, is_head in zip((row.base, row.head), filters, (False, True), strict=True):
        interval = drift_text.interval_text(row, is_head=is_head)
        values.append(Cell(drift_text.value_text(row.metric, value), _runs(row, filter), interval, is_bad=is_bad))
    texts = (drift_text.change_text(row), drift_text.q_text(row), *_spreads(row))
    name = Cell(drift_text.row_name(row), mark=drift_text.mark(row), is_bad=is_bad)
    return [name, *values, *(Cell(text, is_bad=is_bad) for text in texts)]


def _spreads(row: DriftRow) -> Iterator[str]:
    of_runs = (row.base_p50, row.base_p95), (row.head_p50, row.head_p95)
    of_calls = (row.base_call_p50, row.base_call_p95), (row.head_call_p50, row.head_call_p95)
    are_calls = any(p50 is not None for p50, _ in of_calls)
    for is_head, (p50, p95) in enumerate(of_calls if are_calls else of_runs):
        if p50 is None or p95 is None:
            interval = drift_text.interval_text(row, is_head=bool(is_head))
            yield interval and f"95% interval {interval}"
        else:
            yield "–".join(drift_text.value_text(row.metric, value) for value in (p50, p95))


def _runs(row: DriftRow, filter: RunFilter) -> Runs | None:
    """Return the filter of the runs of a group, those that called the tool or model of a row; None for ids."""
    if filter.ids is not None or filter.version is None:
        return None
    found = {"agent": filter.agent or "", "version": filter.version}
    word = _BY_LABEL.get(built_in_part(row.metric.schema_name or ""))
    if word is not None and row.metric.label and "*" not in row.metric.label:
        return {**found, word: row.metric.label}
    return found if row.metric == PASSED else {**found, "sort": _SORTS.get(row.metric.measure, "")}


def cases(found: CaseTable, most: int, agent: str = "", *, whole: bool = False) -> Iterator[Block]:
    """Yield the cases that became worse or better.

    Args:
        most: the largest number of cases that are listed, of those that differ.
        agent: the agent whose versions are compared, so that a cell has its runs.
        whole: list all cases, also equal ones.
    """
    if not found.is_compared:
        yield Sentence("no case has an outcome on both sides; the task of a run is its case")
        return
    names = [version_text(each) for each in found.versions]
    yield Sentence(f"{names[-2]} → {names[-1]}: {found.counts()}")
    rows = found.cases if whole else found.cases[: min(found.worse + found.better, most)]
    versions = [Column(cut(name, MAX_NAME), name, is_name=True, detail=1) for name in names[:-2]]
    versions += [Column(cut(name, MAX_NAME), name, is_name=True) for name in names[-2:]]
    columns = [Column("case", is_number=False), *versions, Column("", "change", is_number=False)]
    cells = []
    for row in rows:
        tallies = (_tally(*each, agent, row.case) for each in zip(row.tallies, found.versions, strict=True))
        cells.append([Cell(row.case), *tallies, Cell(row.word, is_bad=row.word == "worse")])
    yield Table(columns, cells, len(found.cases), "case")
    text = "passed of the runs with an outcome. A single case may differ by chance: the verdict is over all of them"
    yield Sentence(text, "note")


def _tally(tally: Tally | None, version: str, agent: str, case: str) -> Cell:
    if tally is None or tally.run_id is not None:
        return Cell() if tally is None else Cell(str(tally), at=At(tally.run_id or ""))
    is_version = agent and "=" not in version and AT not in version
    return Cell(str(tally), {"agent": agent, "version": version, "task": case} if is_version else None)


def decided(rule: str) -> str:
    """Return the sentence about a rule that judges runs although nobody named it."""
    return f"no run failed by its status, so {rule} decides"


def judging(text: str, words: Sequence[str], page: str, outcome: str, **parameters: str) -> Command:
    """Return the command that judges the same runs by another rule, or by their status."""
    link = "judge by status" if outcome == "status" else "judge by that"
    return Command(text, (*words, "--outcome", outcome), page, {**parameters, "outcome": outcome}, link)


def version_text(version: str) -> str:
    """Return a version for people: `none` for runs without one."""
    return "none" if version == "default" else version
