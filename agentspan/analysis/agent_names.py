"""Resolves `AGENT@VERSION` in filters, and checks agents and score rules against the storage."""

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from agentspan.analysis.outcomes import check_kind, parse
from agentspan.errors import NotFound
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentVersionRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import LatestScores, Query, RunFilter

AT = "@"
"""The separator between an agent and its version: `researcher@1.0`."""
MAX_NAMED = 5
"""The largest number of agents, versions or tools that an error names."""


def resolved(storage: Storage, filter: RunFilter) -> RunFilter:
    """Return a filter whose `AGENT@VERSION` is split into agent and version, after checking agent and score rules.

    An agent whose whole name is `AGENT@VERSION` wins: then the filter is returned unchanged.

    Raises:
        NotFound: no agent has the name; the message names some existing agents.
        InvalidValue: a rule compares a score that is a number with a label, or a score that is a label with a number.
    """
    for rule in map(parse, filter.scores):
        check_kind(rule, storage.ask(LatestScores(rule.name, rule.source)))
    if filter.agent is None or any(_agents(storage, filter.agent)):
        return filter
    name, at, version = filter.agent.rpartition(AT)
    if not (at and name and version):
        raise NotFound(_unknown(storage, filter.agent))
    if not any(_agents(storage, name)):
        raise NotFound(_unknown(storage, name))
    return filter._replace(agent=name, version=version)


def versions_of(storage: Storage, filter: RunFilter) -> str:
    """Return a suffix for the error that no run matches a filter: the known versions of the agent.

    It is "" if the filter names no agent or no version, or if the version exists.
    """
    if filter.agent is None or filter.version is None:
        return ""
    known = [
        row.external_identifier
        for agent in _agents(storage, filter.agent)
        for row in scan(storage, AgentVersionRow, {"agent_id": agent.id})
    ]
    return "" if filter.version in known else f"; {some('versions', [*dict.fromkeys(reversed(known))])}"


def names_of(storage: Storage, runs: Iterable[AgentInstanceRow]) -> list[str]:
    """Return the names of the agents of runs, sorted."""
    ids = {run.agent_id for run in runs}
    return sorted({row.name for row in scan(storage, AgentRow) if row.id in ids})


def latest_run(storage: Storage, what: str) -> AgentInstanceRow:
    """Return the latest run of `AGENT@VERSION`.

    Raises:
        NotFound: no such run exists; the message names existing agents or versions.
    """
    name, _, version = what.rpartition(AT)
    agents = list(_agents(storage, name))
    if not agents:
        raise NotFound(_unknown(storage, name))
    versions = [row for agent in agents for row in scan(storage, AgentVersionRow, {"agent_id": agent.id})]
    found: list[AgentInstanceRow] = []
    for row in versions:
        if row.external_identifier == version:
            query = Query("agent_instance", {"agent_version_id": row.id}, descending=True, limit=1)
            found += [run for run in storage.ask(query).rows if isinstance(run, AgentInstanceRow)]
    if not found:
        known = dict.fromkeys(row.external_identifier for row in reversed(versions))
        raise NotFound(f"no run of {name[:40]!r} has the version {version[:40]!r}; {some('versions', [*known])}")
    return max(found, key=lambda run: run.id)


def _agents(storage: Storage, name: str) -> Iterator[AgentRow]:
    """Yield the agents with this name, id or external_identifier."""
    if "\udc80" <= max(name, default="") <= "\udfff":
        return  # undecodable bytes from the shell: no storage holds such text
    for column in ("name", "id", "external_identifier"):
        yield from scan(storage, AgentRow, {column: name})


def _unknown(storage: Storage, name: str) -> str:
    """Return the error message for a name that no agent has, with similar names or some existing ones."""
    names = sorted({row.name for row in scan(storage, AgentRow)}, key=str.casefold)
    close = get_close_matches(name.casefold(), {each.casefold(): each for each in names}, MAX_NAMED)
    meant = [each for each in names if each.casefold() in close]
    if meant:
        return f"no agent is named {name[:40]!r}; is {' or '.join(repr(each[:40]) for each in meant)} meant?"
    return f"no agent is named {name[:40]!r}; {some('agents', names)}"


def some(noun: str, names: list[str]) -> str:
    """Return a list of names for an error, shortened: `agents: 'a', 'b' and 3 more`."""
    if not names:
        return f"there are no {noun} yet"
    shown = ", ".join(repr(each[:40]) for each in names[:MAX_NAMED])
    return f"{noun}: {shown}{f' and {len(names) - MAX_NAMED:,} more' if len(names) > MAX_NAMED else ''}"
