"""Finds runs, spans and agents by what a person types, and shortens ids.

A run is named by its id, a unique prefix of it, `-` (the latest run), or `AGENT@VERSION` (the latest run of a version).
A span is named by its id, a unique prefix of it, or `RUN#12`: step 12 of a run, as `show` numbers its steps. `#12` is
a step of the latest run.
Filters are checked here against the agents and scores that the storage has.
"""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import TypeVar

from agentspan.analysis.outcomes import check_kind, parse
from agentspan.analysis.tree import build, every
from agentspan.errors import InvalidValue, NotFound, UnexpectedRefType
from agentspan.ids import is_pfid
from agentspan.model.rows import AgentInstanceRow, AgentRow, AgentSpanRow, AgentVersionRow, ResourceType, Row
from agentspan.model.scores import MARK, NOTE
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, Find, LatestScores, NewestScores, Outlines, Query, RunFilter, Tags

LATEST = "-"
STEP = "#"
"""The separator between a run and the number of one of its steps: `RUN#12`."""
MAX_DIGITS = 9
"""The largest number of digits of a step's number; `int` refuses texts of thousands of digits."""
BETWEEN = "…"
"""Replaces the middle of an id, as in `013xrzp12g…hn3t`."""
SHORTEST_ID = 10
"""The least number of characters of a short id: they encode the time; fewer are equal for all runs of a long period."""
LONGEST_ID = 15
"""The largest length of a prefix as a short id; ids with a longer common prefix are distinguished by their ends."""
MAX_CANDIDATES = 1000
NOTHING = "nothing has been recorded here yet; `agentspan demo` records a run to look at"
LEAST_SHARED = 5
"""The least number of characters that an unknown id shares with the ids which its error names as near; fewer are a
month's runs."""
NAMED = 3
"""The largest number of ids that an error names."""
R = TypeVar("R", bound=Row)


def find_run(storage: Storage, what: str) -> AgentInstanceRow:
    """Return the run that `what` names: by id, unique prefix, `-` for the latest run, or `AGENT@VERSION`.

    Raises:
        NotFound: no such run exists.
        InvalidValue: several ids begin with the prefix.
        UnexpectedRefType: `what` is the id of something else.
    """
    if _is_step(storage, what):
        raise UnexpectedRefType(
            f"{what[:40]!r} is a step, and here a run is needed: {what.rpartition(STEP)[0][:40] or LATEST}"
        )
    if what == LATEST:
        rows = storage.ask(Query("agent_instance", descending=True, limit=1)).rows
        if not rows:
            raise NotFound(NOTHING)
        return _as(AgentInstanceRow, rows[0], what)
    if AT in what:
        return latest_run(storage, what)
    return _as(AgentInstanceRow, _by_prefix(storage, "agent_instance", what), what)


def find_span(storage: Storage, what: str) -> AgentSpanRow:
    """Return the span that `what` names: by id, unique prefix, or as a step of a run: `RUN#12`.

    Raises:
        NotFound: no such span, run or step exists.
        InvalidValue: several ids begin with the prefix.
        UnexpectedRefType: `what` is the id of something else.
    """
    if _is_step(storage, what):
        return _step(storage, what)
    return _as(AgentSpanRow, _by_prefix(storage, "agent_span", what), what)


def find_run_or_span(storage: Storage, what: str) -> AgentInstanceRow | AgentSpanRow:
    """Return the run that `what` names, else the span; a run wins over a span.

    Raises:
        NotFound: no such run or span exists.
        InvalidValue: several ids begin with the prefix.
    """
    if _is_step(storage, what):
        return _step(storage, what)
    try:
        return find_run(storage, what)
    except UnexpectedRefType:
        return find_span(storage, what)
    except NotFound:
        if what == LATEST:
            raise
    try:
        return find_span(storage, what)
    except NotFound:
        near = _near(storage, what)
        raise NotFound(f"no run or span has an id like {what[:40]!r}{near}") from None


def _is_step(storage: Storage, what: str) -> bool:
    """Return whether a text names a step, as `RUN#12`. `AGENT@build#12` names a run if there is such a version."""
    _, mark, number = what.rpartition(STEP)
    if not (mark and number.isascii() and number.isdigit()):
        return False
    named = _split(storage, what)
    return named is None or named[1] not in _names(_versions(storage, _agents(storage, named[0])))


def _step(storage: Storage, what: str) -> AgentSpanRow:
    run, _, number = what.rpartition(STEP)
    id = find_run(storage, run or LATEST).id
    spans = storage.ask(Outlines(id))
    if not 1 <= len(number) <= MAX_DIGITS or not 1 <= int(number) <= len(spans):
        steps = f"its steps are {STEP}1 to {STEP}{len(spans)}" if spans else "it has no steps yet"
        raise NotFound(f"run {short_id(storage, id)} has no step {STEP}{number[:MAX_DIGITS]}; {steps}")
    node = next(islice(every(build(spans)), int(number) - 1, None))
    return _as(AgentSpanRow, _by_prefix(storage, "agent_span", node.span.id), what)


def short_ids(storage: Storage, ids: Iterable[str], type_: ResourceType = "agent_instance") -> dict[str, str]:
    """Return short forms of ids, all of the same length, which `find_run` and `find_span` accept.

    A short form is a prefix, or `prefix…end` if other rows started in the same millisecond. It is unique in the whole
    storage, not only among `ids`.
    """
    same_time = {id: _same_time(storage, type_, id) for id in ids}
    for length in range(SHORTEST_ID, LONGEST_ID + 1):
        if all(not any(other.startswith(id[:length]) for other in others) for id, others in same_time.items()):
            return {id: id[:length] for id in same_time}
    for length in range(4, 32 - SHORTEST_ID):
        if all(
            len(others) < MAX_CANDIDATES - 1 and not any(other.endswith(id[-length:]) for other in others)
            for id, others in same_time.items()
        ):
            return {id: f"{id[:SHORTEST_ID]}{BETWEEN}{id[-length:]}" for id in same_time}
    return {id: id for id in same_time}


def short_id(storage: Storage, id: str) -> str:
    """Return the short form of a run's id, unique in the storage."""
    return short_ids(storage, [id])[id]


def _same_time(storage: Storage, type_: ResourceType, id: str) -> list[str]:
    rows = storage.ask(Query(type_, prefix=id[:SHORTEST_ID], limit=MAX_CANDIDATES)).rows
    return [row.id for row in rows if row.id != id]


def _by_prefix(storage: Storage, type_: ResourceType, what: str) -> Row:
    noun = "run" if type_ == "agent_instance" else "span"
    if is_pfid(what):
        found = storage.ask(Find(what)).rows
        if what not in found:
            near = _near(storage, what) if type_ == "agent_instance" else ""
            raise NotFound(f"no {noun} has the id {what}{near}")
        return found[what][1]
    head, between, tail = what.partition(BETWEEN)
    query = Query(type_, prefix=head, limit=MAX_CANDIDATES if between else NAMED + 1)
    rows = storage.ask(query).rows if head.isascii() else []  # undecodable bytes from the shell: no text for SQLite
    rows = [row for row in rows if row.id.endswith(tail)]
    if not rows:
        near = _near(storage, what) if type_ == "agent_instance" else ""
        raise NotFound(f"no {noun}'s id begins with {what[:40]!r}{near}")
    if len(rows) > 1:
        short = short_ids(storage, [row.id for row in rows[:NAMED]], type_).values()
        more = ", …" if len(rows) > NAMED else ""
        raise InvalidValue(noun, f"several ids begin with {what[:40]!r}: {', '.join(short)}{more}; type more of it")
    return rows[0]


def _near(storage: Storage, what: str) -> str:
    """Return a suffix for the error that no run has an id: the runs whose ids share its beginning, else the latest."""
    for length in range(min(len(what), LONGEST_ID), -1, -1):
        if length and (not what[:length].isascii() or length < LEAST_SHARED):
            continue
        rows = storage.ask(Query("agent_instance", prefix=what[:length], descending=True, limit=NAMED)).rows
        if rows:
            ids = ", ".join(short_ids(storage, [row.id for row in rows]).values())
            return f"; {'near it' if length else 'the latest'}: {ids}"
    return ""


def _as(row_type: type[R], row: Row, what: str) -> R:
    if not isinstance(row, row_type):
        raise UnexpectedRefType(f"{what[:40]} is the id of something else")
    return row


AT = "@"
"""The separator between an agent and its version: `researcher@1.0`."""
MOST_SPLIT = 9
"""The largest number of `@` in a name, from its end, at which it may be split: each is looked up."""
MAX_NAMED = 5
"""The largest number of agents, versions or tools that an error names."""
LATEST_RUNS = 1000
"""The number of runs in which an error looks for values that exist: it reads them in 30 ms."""
SHORT_SIGNATURE = 6
"""The number of characters of a signature in an error."""


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
    named = _split(storage, filter.agent)
    if named is None:
        name, _, version = filter.agent.rpartition(AT)
        raise NotFound(_unknown(storage, name if name and version else filter.agent))
    return filter._replace(agent=named[0], version=named[1])


def _split(storage: Storage, text: str) -> tuple[str, str] | None:
    """Split `AGENT@VERSION`; None if no agent has the name. Both may have an `@`: a version that exists wins."""
    parts = text.rsplit(AT, MOST_SPLIT)
    pairs = [(AT.join(parts[:at]), AT.join(parts[at:])) for at in range(len(parts) - 1, 0, -1)]
    known = {(name, version): [*_agents(storage, name)] for name, version in pairs if name and version}
    found = [pair for pair, agents in known.items() if agents]
    if len(found) > 1:
        found = [pair for pair in found if pair[1] in _names(_versions(storage, known[pair]))] or found
    return next(iter(found), None)


def unmatched(storage: Storage, filter: RunFilter) -> str:
    """Return a suffix for the error that no run matches a filter.

    If no run has a value of it, it names existing values.

    The suffix is "" if runs have each of the values. Only the LATEST_RUNS latest runs are examined.
    """
    for noun, wanted, known in _values(storage, filter):
        missing = [each for each in wanted if each not in known]
        if missing:
            close = get_close_matches(missing[0], known, MAX_NAMED)
            if close and noun not in ("tasks", "signatures"):  # their numbers are all alike
                return f"; {_meant(close)}"
            return f"; {some(noun, [*close, *(each for each in known if each not in close)])}"
    return ""


def _values(storage: Storage, filter: RunFilter) -> Iterator[tuple[str, Sequence[str], list[str]]]:
    """Yield for each condition of a filter: a noun for its values, the wanted values, and the existing values."""
    if filter.agent is not None and filter.version is not None:
        versions = reversed(_versions(storage, _agents(storage, filter.agent)))
        yield "versions", [filter.version], _names(versions)
    if not (filter.task or filter.session or filter.tags or filter.scores or filter.mark or filter.signature):
        return
    runs = [*scan(storage, AgentInstanceRow, descending=True, limit=LATEST_RUNS)]
    ids = [run.id for run in runs]
    if filter.task is not None:
        yield "tasks", [filter.task], _distinct(run.task for run in runs)
    if filter.session is not None:
        yield "sessions", [filter.session], _distinct(run.session for run in runs)
    if filter.tags:
        yield "tags", filter.tags, _distinct(tag for tags in storage.ask(Tags(ids)).values() for tag in tags)
    if filter.scores or filter.mark is not None:
        scores = [row for row in storage.ask(NewestScores(ids)) if row.target_type == "agent_instance"]
        wanted = [name for name in (parse(rule).name for rule in filter.scores) if name not in (MARK, NOTE)]
        yield "scores", wanted, _distinct(row.name for row in scores if row.name not in (MARK, NOTE))
        marks = [filter.mark] if filter.mark not in (None, "*") else []
        yield "marks", [each for each in marks if each], _distinct(row.label for row in scores if row.name == MARK)
    if filter.signature is not None:
        known = _distinct(each.signature.id for each in storage.ask(FailureSums(ids)))
        begins = any(each.startswith(filter.signature.lower()) for each in known)
        yield "signatures", [] if begins else [filter.signature], [each[:SHORT_SIGNATURE] for each in known]


def _distinct(texts: Iterable[str | None]) -> list[str]:
    return [*dict.fromkeys(text for text in texts if text is not None)]


def names_of(storage: Storage, runs: Iterable[AgentInstanceRow]) -> list[str]:
    """Return the names of the agents of runs, sorted."""
    ids = {run.agent_id for run in runs}
    return sorted({row.name for row in scan(storage, AgentRow) if row.id in ids})


def latest_run(storage: Storage, what: str) -> AgentInstanceRow:
    """Return the latest run of `AGENT@VERSION`.

    Raises:
        NotFound: no such run exists; the message names existing agents or versions.
    """
    named = _split(storage, what)
    if named is None:
        raise NotFound(_unknown(storage, what.rpartition(AT)[0]))
    name, version = named
    versions = _versions(storage, _agents(storage, name))
    found: list[AgentInstanceRow] = []
    for row in versions:
        if row.external_identifier == version:
            found += scan(storage, AgentInstanceRow, {"agent_version_id": row.id}, descending=True, limit=1)
    if not found:
        known = some("versions", _names(reversed(versions)))
        raise NotFound(f"no run of {name[:40]!r} has the version {version[:40]!r}; {known}")
    return max(found, key=lambda run: run.id)


def _versions(storage: Storage, agents: Iterable[AgentRow]) -> list[AgentVersionRow]:
    return [row for agent in agents for row in scan(storage, AgentVersionRow, {"agent_id": agent.id})]


def _names(versions: Iterable[AgentVersionRow]) -> list[str]:
    return [*dict.fromkeys(row.external_identifier for row in versions)]


def _agents(storage: Storage, name: str) -> Iterator[AgentRow]:
    """Yield the agents with this name, id or external_identifier."""
    if "\udc80" <= max(name, default="") <= "\udfff":
        return  # undecodable bytes from the shell: no storage holds such text
    for column in ("name", "id", "external_identifier"):
        yield from scan(storage, AgentRow, {column: name})


def _unknown(storage: Storage, name: str) -> str:
    """Return the error message for a name that no agent has, with similar names or some existing ones."""
    names = sorted({row.name for row in scan(storage, AgentRow, limit=MAX_CANDIDATES)}, key=str.casefold)
    close = get_close_matches(name.casefold(), {each.casefold(): each for each in names}, MAX_NAMED)
    meant = [each for each in names if each.casefold() in close]
    if meant:
        return f"no agent is named {name[:40]!r}; {_meant(meant)}"
    return f"no agent is named {name[:40]!r}; {some('agents', names)}"


def _meant(names: Sequence[str]) -> str:
    return f"is {' or '.join(repr(each[:40]) for each in names)} meant?"


def some(noun: str, names: list[str]) -> str:
    """Return a list of names for an error, shortened: `agents: 'a', 'b' and 3 more`."""
    if not names:
        return f"there are no {noun} yet"
    shown = ", ".join(repr(each[:40]) for each in names[:MAX_NAMED])
    return f"{noun}: {shown}{f' and {len(names) - MAX_NAMED:,} more' if len(names) > MAX_NAMED else ''}"
