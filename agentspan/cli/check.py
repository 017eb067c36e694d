"""`agentspan check`: checks runs in CI. Exit code 0 if they pass, 1 if they fail, 3 if there are too few to say."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click

from agentspan.analysis.agent_names import resolved
from agentspan.analysis.check import Check, check
from agentspan.analysis.check_config import load
from agentspan.analysis.diff_markdown import escaped
from agentspan.analysis.drift_metrics import Gathered, gather
from agentspan.analysis.filter_words import ALL, parse
from agentspan.analysis.outcomes import OutcomeRule, outcomes
from agentspan.analysis.outcomes import parse as parse_rule
from agentspan.analysis.runs import find_runs
from agentspan.cli.filter_options import filter_in
from agentspan.cli.local_time import zone
from agentspan.cli.output import Failed, document, echo_lines, status_style, width, wrap
from agentspan.database import Database, open
from agentspan.storage.protocol import Storage
from agentspan.storage.run_filter import RunFilter
from agentspan.text import printable

EXIT_CODES = {"pass": 0, "fail": 1, "inconclusive": 3}
PYPROJECT = "pyproject.toml"
_STATUS = {"pass": "complete", "fail": "failed", "inconclusive": "active"}
_MARKS = {"pass": "✓", "fail": "✗", "inconclusive": "?"}


def command(
    database: Database,
    text: str | None,
    *,
    config: str | None,
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
    wanted = load(Path(config or PYPROJECT))
    rule = None if wanted.outcome is None else parse_rule(wanted.outcome)
    runs = _gathered(storage, filter, rule)
    baseline = None
    if wanted.baseline is not None or wanted.baseline_file is not None:
        of_base = parse(wanted.baseline or ALL, "baseline", zone=zone())
        with ExitStack() as opened:
            source = storage
            if wanted.baseline_file is not None:
                file = Path(config or PYPROJECT).parent / wanted.baseline_file
                if not file.exists():
                    raise Failed(f"the baseline {file} does not exist")
                source = opened.enter_context(open(file, read_only=True)).storage
            without = {run.run_id for run in runs.runs}
            baseline = _gathered(source, resolved(source, of_base), rule, without=without)
    found = check(runs, wanted, baseline)
    if junit is not None:
        Path(junit).write_bytes(_junit(found))
    if as_json:
        document({**asdict(found), "findings": [finding._asdict() for finding in found.findings]})
    elif markdown:
        echo_lines(_markdown(found))
    else:
        echo_lines(_lines(found))
    raise SystemExit(EXIT_CODES[found.verdict])


def _gathered(
    storage: Storage, filter: RunFilter, rule: OutcomeRule | None, *, without: set[str] | None = None
) -> Gathered:
    rows = [run.run for run in find_runs(storage, filter, limit=None).runs if run.run.id not in (without or ())]
    return gather(storage, rows, outcomes(storage, rows, rule))


def _head(found: Check) -> str:
    return f"{found.verdict}: {found.runs:,} {'run' if found.runs == 1 else 'runs'}"


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
