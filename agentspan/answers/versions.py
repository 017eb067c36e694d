"""The versions of an agent side by side, and the agents that have several."""

from collections.abc import Callable, Iterator, Sequence

from agentspan.analysis.causes import opposite
from agentspan.analysis.outcomes import OutcomeRule, parse
from agentspan.analysis.statistics import interval_text
from agentspan.analysis.versions import AgentVersions, Version, Versions
from agentspan.answers.blocks import FREE, Block, Cell, Column, Command, Sentence, Table
from agentspan.answers.groups import decided, judging, version_text
from agentspan.text import cost_text, count_text, duration_text, noun, share_text

At = Callable[[str], str]
"""Returns a stored time as text, in the zone of the surface."""


def several(agents: Sequence[AgentVersions], at: At, outcome: str = "") -> Iterator[Block]:
    """Yield the agents that have several versions; each leads to its versions."""
    found = [each for each in agents if each.versions > 1]
    if agents and not found:
        text = f"{noun(len(agents), 'agent')}, none with several versions"
        yield Sentence(f"{text}; agentspan.run(…, version='2') names one", "answer")
    if found:
        agent, newest = (Column(name, is_number=False) for name in ("agent", "newest"))
        latest = Column("latest run", "latest run (UTC)", is_number=False, detail=FREE)
        columns = [agent, Column("versions"), newest, Column("runs"), latest]
        yield Sentence(f"{noun(len(found), 'agent')} with several versions", "answer")
        yield Table(columns, [_agent(each, at, outcome) for each in found])


def _agent(each: AgentVersions, at: At, outcome: str) -> Sequence[Cell]:
    to = Command("", ("versions", each.agent), "versions", {"agent": each.agent, "outcome": outcome})
    texts = f"{each.versions:,}", version_text(each.newest), f"{each.runs:,}", at(each.last_at)
    return [Cell(each.agent, way=to), *map(Cell, texts)]


def versions(found: Versions, words: Sequence[str] = (), rule: str = "") -> Iterator[Block]:
    """Yield the versions of an agent.

    Args:
        words: the options of the filter, for commands.
        rule: the rule that judges the runs, if nobody named it.
    """
    by = "" if found.outcome is None else f", judged by {found.outcome}"
    number = len(found.versions) + found.left_out
    left = f"; the newest {len(found.versions):,} are listed" if found.left_out else ""
    yield Sentence(f"{found.agent} has {noun(number, 'version')}{by}{left}", "answer", starts_with_name=True)
    of = ("versions", found.agent, *words)
    if rule:
        yield judging(decided(rule), of, "versions", "status", agent=found.agent)
    if found.missed is not None:
        text = f"judged by status; some runs missed {found.missed}"
        yield judging(text, of, "versions", found.missed, agent=found.agent)


def table(found: Versions, at: At) -> Table:
    """Return the versions side by side."""
    rule = None if found.outcome is None else parse(found.outcome)
    columns = [
        Column("version", is_number=False), *map(Column, ("runs", "failed", "95%")), Column("passed", detail=FREE),
        Column("open", detail=FREE), Column("took", "took, median"), Column("tok", "tokens a run", detail=1),
        Column("cost", "cost a run"), Column("total", "cost", detail=FREE),
        Column("first run", "first run (UTC)", is_number=False, detail=1),
    ]  # fmt: skip
    rows = [_version(each, found.agent, rule, at) for each in found.versions]
    kept = [n for n in range(len(columns)) if columns[n].name != "open" or any(each.open for each in found.versions)]
    return Table([columns[n] for n in kept], [[row[n] for n in kept] for row in rows])


def _version(each: Version, agent: str, rule: OutcomeRule | None, at: At) -> Sequence[Cell]:
    runs = {"agent": agent, "version": each.version}
    failed = {"status": "failed"} if rule is None else {"score": opposite(rule)}
    return (
        Cell(version_text(each.version), runs),
        Cell(f"{each.runs:,}", runs),
        Cell((share_text(each.failed, each.known) or "0%") if each.known else "", {**runs, **failed}),
        Cell("" if each.interval is None else interval_text(each.interval)),
        Cell(f"{each.known - each.failed:,} of {each.known:,}" if each.known else ""),
        Cell(f"{each.open:,}" if each.open else "", {**runs, "status": "active"}),
        Cell("" if each.duration_ms is None else duration_text(each.duration_ms), {**runs, "sort": "duration"}),
        Cell("" if each.tokens is None else count_text(round(each.tokens)), {**runs, "sort": "tokens"}),
        Cell("" if each.cost_usd is None else cost_text(each.cost_usd), {**runs, "sort": "cost"}),
        Cell("" if each.total_usd is None else cost_text(each.total_usd), {**runs, "sort": "cost"}),
        Cell(at(each.first_at)),
    )
