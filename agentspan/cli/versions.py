"""`agentspan versions`: prints the versions of an agent side by side, and whether the newest one differs."""

from dataclasses import asdict
from typing import Any

import click

from agentspan.analysis import drift_text
from agentspan.analysis.cases import case_table
from agentspan.analysis.fingerprints import plain_change, sentences
from agentspan.analysis.outcomes import STATUS, parse
from agentspan.analysis.versions import AgentVersions, Comparison, agents, comparison, versions
from agentspan.answers import groups
from agentspan.answers import versions as answers
from agentspan.answers.blocks import Command, Part, Sentence
from agentspan.cli.app import command, reads
from agentspan.cli.completion import AGENT
from agentspan.cli.diff import MOST_CASES, WHOLE, plain_groups
from agentspan.cli.filter_options import (
    asked_for,
    filter_in,
    filter_options,
    no_run,
    options_of,
    outcome_option,
    outcome_rule,
)
from agentspan.cli.output import document, echo_lines, indexing, minute, width, wrap
from agentspan.cli.rendering import show
from agentspan.database import Database
from agentspan.storage.protocol import Storage


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
    """Show the versions of AGENT side by side, and whether the newest is worse than the one before.

    It may differ only by chance. Without AGENT, list the agents with several versions.
    """
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
                _list(storage, every, "" if every else no_run(storage, filter, asked), as_json=as_json)
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
    first = [*answers.versions(found, words, (judge is None and found.outcome) or "")]
    if by_case is not None:
        verdict = (
            [] if compared is None else [Sentence(drift_text.sentence(compared.drift, compared.base, compared.head))]
        )
        show([[*verdict, *first, *groups.cases(by_case, MOST_CASES, whole=full)]], storage, whole=WHOLE)
        return
    parts: list[Part] = [[*first, answers.table(found, minute)]]
    if compared is not None:
        change = [] if compared.change is None else sentences(compared.change, minute)
        about = change if compared.drift.missed is None else [str(compared.drift.missed), *change]
        parts.insert(0, [*groups.comparison(compared.drift, compared.base, compared.head, whole=full, about=about)])
    show(parts, storage, whole=WHOLE)


def _list(storage: Storage, every: list[AgentVersions], nothing: str, *, as_json: bool) -> None:
    if as_json:
        document({"agents": [each._asdict() for each in every]})
    elif not every:
        echo_lines(wrap(nothing, width(), 4))
    else:
        found = next((each.agent for each in every if each.versions > 1), None)
        next_ = [] if found is None else [Command("compare its versions", ("versions", found))]
        show([[*answers.several(every, minute), *next_]], storage)


def _plain(found: Comparison) -> dict[str, Any]:
    plain = plain_groups(found.drift, found.base, found.head)
    return plain if found.change is None else plain | {"change": plain_change(found.change)}
