"""`agentspan check`: checks runs in CI. Exit code 0: passed; 1: failed; 3: inconclusive, too few runs.

Exit code 2 means that nothing was checked, because the configuration is invalid or a file is missing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from agentspan.analysis.by_name import names_of, resolved, short_ids, unmatched
from agentspan.analysis.check import Check, Config, check, load
from agentspan.analysis.diff_text import MAX_SENTENCE, escaped
from agentspan.analysis.drift import missed_by_status
from agentspan.analysis.drift_metrics import gather
from agentspan.analysis.filter_words import ALL, NAMES, parse, words_of
from agentspan.analysis.fingerprints import changed_part, sentences
from agentspan.analysis.outcomes import OutcomeRule, check_known, outcomes, unmet
from agentspan.analysis.runs import find_runs, stats
from agentspan.cli import junit
from agentspan.cli.app import answering, command, read_or_not, reads
from agentspan.cli.filter_options import filter_in, filter_options, outcome_option, outcome_rule, pyproject
from agentspan.cli.output import Failed, document, echo_lines, minute, status_style, width, wrap, zone
from agentspan.database import Database, open
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.storage.sums import Stat
from agentspan.text import noun, one_line, printable

NAMED = 5
"""The largest number of runs that a finding names: those that violate the budget or call most."""
NAMED_AGENTS = 2
"""The largest number of agents of each side that a warning names."""
EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}
_STATUS = {"pass": "complete", "fail": "failed", "inconclusive": "active"}
_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


@command("check")
@click.argument("text", metavar="[FILTER]", required=False)
@click.option("--config", metavar="FILE", help="Read [budget], [calls], [baseline] from here, not pyproject.toml.")
@outcome_option
@click.option(
    "--by",
    metavar="PART",
    help="Check the runs with the newest value of a part of the fingerprint against those before.",
)
@click.option("--junit", "junit_file", metavar="FILE", help="Write JUnit XML, too.")
@click.option("--markdown", is_flag=True, help="Write Markdown, for a pull request.")
@filter_options
@answering()
@reads
def check_command(
    database: Database,
    *,
    text: str | None,
    config: str | None,
    outcome: str | None,
    by: str | None,
    markdown: bool,
    junit_file: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Check runs in CI: budgets, calls, a baseline.

    The exit code is 0 if they pass, 1 if not, 2 if they cannot be checked, 3 if they are too few to say.
    """
    storage = database.storage
    options = words_of(filters)
    if text is not None and options:
        names = " ".join(f"--{name.replace('_', '-')}" for name in NAMES if filters.get(name))
        raise click.UsageError(f"give either FILTER or {names}, not both")
    filter = filter_in(storage, filters) if text is None else resolved(storage, parse(text, "filter", zone=zone()))
    file = _configuration(config) if by is None else config and Path(config)
    wanted = load(file) if file else Config({})
    rows = _rows(storage, filter)
    if not rows:
        matching = text or options
        raise Failed(f"no run matches {matching}{unmatched(storage, filter)}" if matching else "there are no runs yet")
    if by is not None:
        found = _checked_by(storage, rows, by, wanted, outcome)
    else:
        assert file  # without --by, there is a configuration
        found = _checked(storage, rows, wanted, file, outcome)
    if junit_file is not None:
        junit.write(junit_file, "agentspan check", _tests(found))
    with read_or_not():
        if as_json:
            findings = [finding._asdict() | {"run_id": finding.run_id} for finding in found.findings]
            document({**asdict(found), "findings": findings})
        elif markdown:
            echo_lines(_markdown(storage, found))
        else:
            echo_lines(_lines(storage, found))
    raise SystemExit(EXIT_CODES[found.verdict])


def _checked(
    storage: Storage, rows: Sequence[AgentInstanceRow], wanted: Config, file: Path, outcome: str | None
) -> Check:
    """Check runs by the configuration in a file."""
    known = _known(storage, wanted)
    if wanted.baseline is None and wanted.baseline_file is None:
        if outcome is not None or wanted.outcome is not None:
            raise Failed(f"{'--outcome' if outcome is not None else f'outcome in {file}'} needs a [baseline]")
        return check(gather(storage, rows, outcomes(storage, rows)), wanted, known=known)
    rule = _rule(storage, wanted.outcome if outcome is None else outcome)
    return _compared(storage, rows, wanted, rule, file.parent, known)


def _checked_by(
    storage: Storage, rows: Sequence[AgentInstanceRow], part: str, wanted: Config, outcome: str | None
) -> Check:
    """Check the runs with the newest value of a part of the fingerprint; the baseline is the value before."""
    change = changed_part(rows, part)
    rule = _rule(storage, wanted.outcome if outcome is None else outcome)
    checked, before = ([row for row in rows if row.id in ids] for ids in (change.head, change.base))
    about = "; ".join(sentences(change, minute))
    return _against(storage, storage, checked, before, wanted, rule, _known(storage, wanted), about=about)


def _rule(storage: Storage, text: str | None) -> OutcomeRule | None:
    """Return the rule by which runs passed; None if the status decides, as it does when nobody names a rule.

    Other commands find a rule by themselves. A check does not: what it means must not change with the runs.
    """
    judge = outcome_rule(text)
    check_known(storage, judge)
    return judge if isinstance(judge, OutcomeRule) else None


def _known(storage: Storage, wanted: Config) -> list[Stat]:
    """Return the statistics of all runs, for the names of calls that the configuration may misspell."""
    return stats(storage) if wanted.required or wanted.forbidden else []


def _configuration(config: str | None) -> Path:
    """Return the path of the configuration: that of `--config`, else the project's pyproject.toml."""
    found = pyproject() if config is None else Path(config)
    if found is None:
        raise Failed(
            "there is no pyproject.toml in this folder or above it: write [tool.agentspan.check] in one, "
            "or name a TOML file with --config"
        )
    return found


def _rows(storage: Storage, filter: RunFilter) -> list[AgentInstanceRow]:
    return [run.run for run in find_runs(storage, filter, limit=None).runs]


def _compared(
    storage: Storage,
    rows: Sequence[AgentInstanceRow],
    wanted: Config,
    rule: OutcomeRule | None,
    folder: Path,
    known: Sequence[Stat],
) -> Check:
    """Check runs, and compare them with the baseline of the configuration.

    Args:
        folder: the folder that the path of the baseline's file is relative to.
    """
    text = ALL if wanted.baseline is None else wanted.baseline
    with ExitStack() as opened:
        source, where = storage, "the file"
        if wanted.baseline_file is not None:
            file = folder / wanted.baseline_file
            if not file.exists():
                raise Failed(f"the baseline {file} does not exist")
            source, where = opened.enter_context(open(file, read_only=True)).storage, str(file)
            check_known(source, rule, of=f"the baseline {file}")
        matched = _rows(source, resolved(source, parse(text, "baseline", zone=zone())))
        if not matched:
            total = find_runs(source, limit=0).total
            raise Failed(f"the baseline {text} matches none of the {noun(total, 'run')} of {where}")
        checked = {row.id for row in rows}
        others = [row for row in matched if row.id not in checked]
        return _against(storage, source, rows, others, wanted, rule, known, shared=len(matched) - len(others))


def _against(
    storage: Storage,
    source: Storage,
    rows: Sequence[AgentInstanceRow],
    others: Sequence[AgentInstanceRow],
    wanted: Config,
    rule: OutcomeRule | None,
    known: Sequence[Stat],
    *,
    shared: int = 0,
    about: str = "",
) -> Check:
    """Check runs, and compare them with other runs.

    Args:
        source: the storage of the other runs.
        shared: the number of runs that would be in both, but are only checked.
        about: a text about the two groups, for the finding.
    """
    passed = [outcomes(storage, rows, rule), outcomes(source, others, rule)]
    agents = names_of(storage, rows), names_of(source, others)
    missed = missed_by_status(storage, rows, passed) if rule is None else None
    return check(
        gather(storage, rows, passed[0]),
        wanted,
        gather(source, others, passed[1]),
        shared=shared,
        known=known,
        unmet=unmet(source, rule, others),
        agents=_some(agents[1]),
        note="; ".join(part for part in (_differ(*agents), "" if missed is None else str(missed), about) if part),
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_AGENTS} more" if len(names) > NAMED_AGENTS else ""
    return ", ".join(printable(one_line(name, 40)) for name in names[:NAMED_AGENTS]) + more


def _differ(checked: Sequence[str], baseline: Sequence[str]) -> str:
    """Return a warning if checked runs and baseline are of different agents; "" if not, or if the baseline is empty."""
    if not baseline or checked == baseline:
        return ""
    return f"these are different agents: {_some(checked)} was checked against {_some(baseline)}"


def _head(found: Check) -> str:
    return f"{found.verdict}: {noun(found.runs, 'run')}"


def _named(storage: Storage, found: Check) -> Mapping[str, str]:
    """Return the short ids of the runs that the findings name, by id."""
    return short_ids(storage, [id for finding in found.findings for id in finding.runs[:NAMED]])


def _lines(storage: Storage, found: Check) -> Iterator[str]:
    short = _named(storage, found)
    yield status_style(f"{_MARKS[found.verdict]} {_head(found)}", _STATUS[found.verdict])
    for finding in found.findings:
        ids = ", ".join(short[id] for id in finding.runs[:NAMED])
        more = ", …" if len(finding.runs) > NAMED else ""
        runs = f" · run{'s' if len(finding.runs) > 1 else ''} {ids}{more}" if ids else ""
        first, *rest = wrap(f"{finding.name}: {finding.text}{runs}", width() - 4, 8)
        yield "  " + status_style(_MARKS[finding.verdict], _STATUS[finding.verdict]) + f" {first}"
        yield from (f"    {line}" for line in rest)


def _markdown(storage: Storage, found: Check) -> Iterator[str]:
    short = _named(storage, found)
    yield f"**agentspan check: {_head(found)}**"
    yield ""
    yield "| | checked | found | runs |"
    yield "|---|---|---|---|"
    for finding in found.findings:
        runs = ", ".join(f"`{short[id]}`" for id in finding.runs[:NAMED]) + (", …" if len(finding.runs) > NAMED else "")
        text = escaped(finding.text, MAX_SENTENCE)
        yield f"| {_MARKS[finding.verdict]} | {escaped(finding.name)} | {text} | {runs} |"


def _tests(found: Check) -> list[junit.Test]:
    """Return the findings as tests of a report."""
    tests = []
    for finding in found.findings:
        called = finding.text.partition(" is ")[0] if finding.name.startswith("calls ") else ""
        name = f"{finding.name} {called}".rstrip()
        tests.append(junit.Test(name, finding.verdict, finding.text, "\n".join(finding.runs)))
    return tests
