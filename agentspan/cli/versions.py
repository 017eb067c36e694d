"""`agentspan versions`: prints the versions of an agent side by side, and whether the newest one differs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import click

from agentspan.analysis import drift_text
from agentspan.analysis.cases import case_table
from agentspan.analysis.failure_text import interval_text
from agentspan.analysis.fingerprints import plain_change, sentences
from agentspan.analysis.outcomes import STATUS, parse
from agentspan.analysis.versions import AgentVersions, Comparison, Version, Versions, agents, comparison, versions
from agentspan.cli.app import command, reads
from agentspan.cli.completion import AGENT
from agentspan.cli.diff import plain_groups, print_cases, print_groups
from agentspan.cli.filter_options import (
    asked_for,
    filter_in,
    filter_options,
    how_chosen,
    no_run,
    options_of,
    outcome_option,
    outcome_rule,
)
from agentspan.cli.output import (
    document,
    echo_lines,
    hint,
    indexing,
    local,
    table,
    to_copy,
    width,
    wrap,
)
from agentspan.database import Database
from agentspan.text import cost_text, count_text, dotted, duration_text, noun, share_text

HEADER = ("version", "runs", "failed", "95%", "took", "tok", "cost", "first run")
FEW_COLUMNS = (0, 1, 2, 3, 4, 6)
"""The columns of the table on a narrow terminal."""
WIDE = 76


@command("versions")
@click.argument("name", metavar="[AGENT]", required=False, type=AGENT)
@click.option("--base", metavar="VERSION", help="Compare with this version, or these runs: 'tag=nightly until=7d'.")
@click.option("--head", metavar="VERSION", help="Judge this version, or these runs; the newest when left out.")
@click.option(
    "--by", metavar="PART", help="Compare by a part of the fingerprint: its newest value, and the one before."
)
@click.option("--cases", is_flag=True, help="List the cases that became worse or better: how often each passed.")
@click.option("--full", is_flag=True, help="List all rows of the comparison, or all cases.")
@outcome_option
@filter_options
@reads
def versions_command(
    database: Database,
    name: str | None,
    *,
    base: str | None,
    head: str | None,
    by: str | None,
    cases: bool,
    full: bool,
    outcome: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """List the agents with several versions, or the versions of one agent with a verdict on the newest."""
    if cases and by is not None:
        raise click.UsageError("--cases is about versions: --by does not go with it")
    storage = database.storage
    judge = outcome_rule(outcome)
    name = name or filters["agent"]
    filters["agent"] = None
    asked, words = asked_for(filters), options_of(filters)
    filter = filter_in(storage, filters)
    with indexing() as progress:
        if name is None:
            every = agents(storage, filter, progress=progress)
            several = [each for each in every if each.versions > 1]
            if len(several) != 1 or as_json:
                _list(every, several, "" if every else no_run(storage, filter, asked), as_json=as_json)
                return
            name = several[0].agent
        found = versions(storage, name, filter, judge, progress=progress)
        rule = STATUS if found.outcome is None else parse(found.outcome)
        by_case = case_table(storage, name, filter, rule, base=base, head=head) if cases else None
        if by_case is not None and by_case.is_compared:
            base, head = by_case.versions[-2], by_case.versions[-1]
        compared = None
        if by is not None or base is not None or head is not None or len(found.versions) > 1:
            compared = comparison(storage, name, filter, rule, base=base, head=head, by=by, progress=progress)
    if as_json:
        more = {} if by_case is None else {"cases": asdict(by_case)}
        document(asdict(found) | {"comparison": compared and _plain(compared)} | more)
        return
    if not found.versions:
        echo_lines(wrap(no_run(storage, filter, asked or f"agent={name}"), width(), 4))
        return
    echo_lines(_lines(found, words, how_chosen(judge, found.outcome)))
    if by_case is not None:
        verdict = None if compared is None else drift_text.sentence(compared.drift, compared.base, compared.head)
        print_cases(by_case, verdict, full=full)
        return
    _print_table(found)
    if compared is not None:
        click.echo()
        if compared.change is not None:
            for line in sentences(compared.change, lambda text: f"{local(text):%Y-%m-%d %H:%M}"):
                echo_lines(wrap(line, width(), 4))
        print_groups(compared.drift, compared.base, compared.head, full=full)


def _list(every: list[AgentVersions], several: list[AgentVersions], nothing: str, *, as_json: bool) -> None:
    if as_json:
        document({"agents": [each._asdict() for each in every]})
    elif not every:
        echo_lines(wrap(nothing, width(), 4))
    elif not several:
        click.echo(f"{noun(len(every), 'agent')}, none with several versions; agentspan.run(…, version='2') names one")
    else:
        rows = [[each.agent, f"{each.versions:,}", _name(each.newest), f"{each.runs:,}"] for each in several]
        table(["agent", "versions", "newest", "runs"], rows, right=[1, 3])
        echo_lines(hint("compare its versions", to_copy("versions", several[0].agent), width()))


def _lines(found: Versions, words: list[str], chosen: str) -> Iterator[str]:
    by = "" if found.outcome is None else f", judged by {found.outcome}"
    number = len(found.versions) + found.left_out
    left = f"; the newest {len(found.versions):,} are listed" if found.left_out else ""
    yield from wrap(dotted(f"{found.agent} has {noun(number, 'version')}{by}{left}", chosen), width(), 3)
    if found.missed is not None:
        again = to_copy("versions", found.agent, *words, "--outcome", found.missed)
        yield from hint(f"judged by status; some runs missed {found.missed}", again, width())


def _print_table(found: Versions) -> None:
    columns = range(len(HEADER)) if width() >= WIDE else FEW_COLUMNS
    rows = [_row(each) for each in found.versions]
    right = [place for place, column in enumerate(columns) if column not in (0, 7)]
    table([HEADER[n] for n in columns], [[row[n] for n in columns] for row in rows], right=right)


def _row(each: Version) -> list[str]:
    return [
        _name(each.version),
        f"{each.runs:,}",
        (share_text(each.failed, each.known) or "0%") if each.known else "",
        "" if each.interval is None else interval_text(each.interval),
        "" if each.duration_ms is None else duration_text(each.duration_ms),
        "" if each.tokens is None else count_text(round(each.tokens)),
        "" if each.cost_usd is None else cost_text(each.cost_usd),
        f"{local(each.first_at):%Y-%m-%d %H:%M}",
    ]


def _name(version: str) -> str:
    return "none" if version == "default" else version


def _plain(found: Comparison) -> dict[str, Any]:
    plain = plain_groups(found.drift, found.base, found.head)
    return plain if found.change is None else plain | {"change": plain_change(found.change)}
