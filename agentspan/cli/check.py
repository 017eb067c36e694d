"""`agentspan check`: checks runs in CI. Exit code 0 if they pass, 1 if they fail, 3 if there are too few to say.

Whatever cannot be checked, a configuration that is wrong or a file that is missing, has the exit code 2.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from agentspan.analysis.agent_names import resolved
from agentspan.analysis.check import Check, check
from agentspan.analysis.check_config import Config, load
from agentspan.analysis.diff_markdown import escaped
from agentspan.analysis.drift_metrics import Gathered, gather
from agentspan.analysis.filter_words import ALL, parse
from agentspan.analysis.outcomes import OutcomeRule, check_known, outcomes
from agentspan.analysis.runs import find_runs
from agentspan.cli.filter_options import filter_in
from agentspan.cli.local_time import zone
from agentspan.cli.output import Failed, document, echo_lines, noun, status_style, width, wrap
from agentspan.cli.project_settings import outcome_rule, pyproject
from agentspan.database import Database, open
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.protocol import Storage
from agentspan.storage.run_filter import RunFilter
from agentspan.text import printable

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}
_STATUS = {"pass": "complete", "fail": "failed", "inconclusive": "active"}
_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def command(
    database: Database,
    text: str | None,
    *,
    config: str | None,
    outcome: str | None,
    markdown: bool,
    junit: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Check the runs that match, print what was found, and exit with the code of the verdict."""
    storage = database.storage
    filter = filter_in(storage, given)
    if text is not None:
        if filter != RunFilter():
            raise click.UsageError("FILTER and options of filters exclude each other")
        filter = resolved(storage, parse(text, "filter", zone=zone()))
    file = _configuration(config)
    wanted = load(file)
    rows = _rows(storage, filter)
    if wanted.baseline is None and wanted.baseline_file is None:
        if outcome is not None or wanted.outcome is not None:
            raise Failed("outcome is for [baseline], and there is none: no run is checked by it")
        found = check(_gathered(storage, rows, None), wanted)
    else:
        rule = outcome_rule(wanted.outcome if outcome is None else outcome)
        check_known(storage, rule)
        found = _compared(storage, rows, wanted, rule, file.parent)
    if junit is not None:
        try:
            Path(junit).write_bytes(_junit(found))
        except OSError as error:
            raise Failed(f"cannot write {junit}: {error.strerror}") from None
    if as_json:
        document({**asdict(found), "findings": [finding._asdict() for finding in found.findings]})
    elif markdown:
        echo_lines(_markdown(found))
    else:
        echo_lines(_lines(found))
    raise SystemExit(EXIT_CODES[found.verdict])


def _configuration(given: str | None) -> Path:
    """Return the file of the configuration: the given one, else the project's pyproject.toml."""
    found = pyproject() if given is None else Path(given)
    if found is None:
        raise Failed(
            "there is no pyproject.toml in this folder or above it: write [tool.agentspan.check] in one, "
            "or name a TOML file with --config"
        )
    return found


def _rows(storage: Storage, filter: RunFilter) -> list[AgentInstanceRow]:
    return [run.run for run in find_runs(storage, filter, limit=None).runs]


def _gathered(storage: Storage, rows: Sequence[AgentInstanceRow], rule: OutcomeRule | None) -> Gathered:
    return gather(storage, rows, outcomes(storage, rows, rule))


def _compared(
    storage: Storage, rows: Sequence[AgentInstanceRow], wanted: Config, rule: OutcomeRule | None, folder: Path
) -> Check:
    """Return the verdict on runs that are compared with a baseline.

    Args:
        folder: the one in which the baseline's file lies, if it has one.
    """
    text = wanted.baseline or ALL
    with ExitStack() as opened:
        source, where = storage, "the file"
        if wanted.baseline_file is not None:
            file = folder / wanted.baseline_file
            if not file.exists():
                raise Failed(f"the baseline {file} does not exist")
            source, where = opened.enter_context(open(file, read_only=True)).storage, str(file)
            check_known(source, rule)
        matched = _rows(source, resolved(source, parse(text, "baseline", zone=zone())))
        if not matched:
            total = find_runs(source, limit=0).total
            raise Failed(f"the baseline {text} matches none of the {noun(total, 'run')} of {where}")
        checked = {row.id for row in rows}
        others = [row for row in matched if row.id not in checked]
        base = _gathered(source, others, rule)
    return check(_gathered(storage, rows, rule), wanted, base, shared=len(matched) - len(others))


def _head(found: Check) -> str:
    return f"{found.verdict}: {noun(found.runs, 'run')}"


def _lines(found: Check) -> Iterator[str]:
    yield status_style(f"{_MARKS[found.verdict]} {_head(found)}", _STATUS[found.verdict])
    for finding in found.findings:
        run = "" if finding.run_id is None else f" · run {finding.run_id}"
        first, *rest = wrap(f"{finding.name}: {finding.text}{run}", width() - 4, 4)
        yield "  " + status_style(_MARKS[finding.verdict], _STATUS[finding.verdict]) + f" {first}"
        yield from (f"    {line}" for line in rest)


def _markdown(found: Check) -> Iterator[str]:
    yield f"**agentspan check: {_head(found)}**"
    yield ""
    yield "| | checked | found | run |"
    yield "|---|---|---|---|"
    for finding in found.findings:
        run = "" if finding.run_id is None else f"`{finding.run_id}`"
        yield f"| {_MARKS[finding.verdict]} | {escaped(finding.name)} | {escaped(finding.text)} | {run} |"


def _junit(found: Check) -> bytes:
    """Return the findings as JUnit XML: one test case each; what is inconclusive is skipped."""
    failures = sum(finding.verdict == "fail" for finding in found.findings)
    skipped = sum(finding.verdict == "inconclusive" for finding in found.findings)
    counts = {"tests": str(len(found.findings)), "failures": str(failures), "skipped": str(skipped)}
    suite = ElementTree.Element("testsuite", {"name": "agentspan check", **counts})
    for finding in found.findings:
        name = finding.name if finding.run_id is None else f"{finding.name} {finding.run_id}"
        case = ElementTree.SubElement(suite, "testcase", {"classname": "agentspan", "name": printable(name)})
        if finding.verdict != "pass":
            tag = "failure" if finding.verdict == "fail" else "skipped"
            ElementTree.SubElement(case, tag, {"message": printable(finding.text)})
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text
