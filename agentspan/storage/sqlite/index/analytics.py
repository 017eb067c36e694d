"""SQLite's own answers about many runs (see Analytics), in its SQL, from the index beside the file."""

import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from agentspan.errors import StorageError
from agentspan.interrupts import let_through
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.analytics import (
    FailureSum,
    FoundSpan,
    Progress,
    RunFilter,
    RunList,
    RunSummary,
    RunTotals,
    Stat,
    StepUse,
)
from agentspan.storage.sqlite.connections import is_damage, storage_error
from agentspan.storage.sqlite.index import failures, full_text, index_file
from agentspan.storage.sqlite.index.full_text import FullText
from agentspan.storage.sqlite.index.span_sums import USED, SpanSums
from agentspan.storage.sqlite.index.statistics import statistics

T = TypeVar("T")

SPAN_SUMS, FULL_TEXT = SpanSums(), FullText()

# A general error, too: another program may have dropped a table of the index. After a rebuild it is agentspan's bug.
_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_ERROR})
_SURROUNDINGS = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
    }
)

OPEN_SUMS = f"""
select s.agent_instance_id as id, count(*) as spans, sum(input_tokens) filter (where {USED}) as input_tokens,
       sum(output_tokens) filter (where {USED}) as output_tokens, sum(cost_usd) filter (where {USED}) as cost
from main.open_spans o cross join recorded.agent_spans s where s.rowid = o.row group by 1
"""
RUNS = f"""
from recorded.agent_instances i
left join main.runs r on r.id = i.id
left join ({OPEN_SUMS}) o on o.id = i.id
left join recorded.agents a on a.id = i.agent_id
left join recorded.agent_versions v on v.id = i.agent_version_id
"""


def _both(column: str) -> str:
    """Return the SQL of the sum over finished and open spans; null if neither has a value."""
    return f"case when o.{column} is null then r.{column} else ifnull(r.{column}, 0) + o.{column} end"


SUMS = (
    "ifnull(r.spans, 0) + ifnull(o.spans, 0) as spans, ifnull(r.failed, 0) as failed, ifnull(o.spans, 0) as open, "
    f"{_both('input_tokens')} as input_tokens, {_both('output_tokens')} as output_tokens, {_both('cost')} as cost, "
    "i.duration_ms"
)
COLUMNS = ", ".join(f"i.{column}" for column in AgentInstanceRow._fields)
OWN_TEXTS = (
    "i.id, a.name, v.external_identifier, i.external_identifier, i.metadata, i.result, i.error, i.termination_reason"
)
NAMES = "ifnull(a.name, i.agent_id), ifnull(v.external_identifier, i.agent_version_id)"


class IndexAnalytics:
    """See Analytics.

    Args:
        path: the recorded file.
        no_fork: lets a fork wait while a connection is open that is closed soon. Raises StorageError where the
            storage is closed, and is called before anything is opened.
    """

    def __init__(self, path: Path, no_fork: Callable[[], AbstractContextManager[object]]) -> None:
        self._path = path
        self._no_fork = no_fork

    def find_runs(
        self, filter: RunFilter, *, limit: int | None, offset: int, progress: Progress | None = None
    ) -> RunList | None:
        """See Analytics."""
        where, values = _where(filter)
        page = f"select {COLUMNS}, {NAMES}, {SUMS} {RUNS}{where} order by i.id desc limit ? offset ?"
        totals = (
            "select count(*), ifnull(sum(spans), 0), ifnull(sum(failed), 0), ifnull(sum(open), 0), "
            f"sum(input_tokens), sum(output_tokens), sum(cost), sum(duration_ms) from (select {SUMS} {RUNS}{where})"
        )

        def answer(connection: sqlite3.Connection) -> RunList:
            needle = (filter.grep or "").lower()
            connection.create_function("is_said_in", -1, lambda *texts: any(needle in (t or "").lower() for t in texts))
            rows = connection.execute(page, (*values, -1 if limit is None else limit, offset)).fetchall()
            total, *sums = connection.execute(totals, values).fetchone()
            width = len(AgentInstanceRow._fields)
            runs = [RunSummary(AgentInstanceRow._make(row[:width]), *row[width:]) for row in rows]
            return RunList(runs, total, RunTotals(*sums))

        return self._asked(SPAN_SUMS, answer, progress, or_in_memory=True)

    def span_stats(
        self, *, since: str | None, until: str | None, progress: Progress | None = None
    ) -> list[Stat] | None:
        """See Analytics."""
        return self._asked(
            SPAN_SUMS, lambda connection: statistics(connection, since, until), progress, or_in_memory=True
        )

    def search_spans(
        self, words: Sequence[str], *, limit: int, offset: int, progress: Progress | None
    ) -> tuple[list[FoundSpan], int] | None:
        """See Analytics."""
        return self._asked(FULL_TEXT, lambda connection: full_text.search(connection, words, limit, offset), progress)

    def failure_sums(self, run_ids: Collection[str], *, progress: Progress | None = None) -> list[FailureSum] | None:
        """See Analytics."""
        return self._asked(
            SPAN_SUMS, lambda connection: failures.failure_sums(connection, run_ids), progress, or_in_memory=True
        )

    def step_uses(self, run_ids: Collection[str], *, progress: Progress | None = None) -> list[StepUse] | None:
        """See Analytics."""
        return self._asked(
            SPAN_SUMS, lambda connection: failures.step_uses(connection, run_ids), progress, or_in_memory=True
        )

    def _asked(
        self,
        part: index_file.Part,
        answer: Callable[[sqlite3.Connection], T],
        progress: Progress | None = None,
        *,
        or_in_memory: bool = False,
    ) -> T | None:
        """Answer from a part of the index. If it cannot be written, use one in memory, or return None."""
        for attempt, in_memory in enumerate((False, False, True) if or_in_memory else (False, False)):
            no_fork = self._no_fork()
            try:
                with (
                    no_fork,
                    index_file.opened(self._path, in_memory=in_memory) as connection,
                    index_file.current(connection, part, progress),
                ):
                    return answer(connection)
            except (OSError, StorageError) as raised:  # it cannot be written, or others kept it locked
                let_through(raised)
                continue
            except sqlite3.Error as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code in _DAMAGED and attempt == 0:
                    index_file.discard(self._path)
                    continue
                is_text = is_damage(error) and code == 0  # of the recorded file
                if is_text or (code not in _SURROUNDINGS and "no such module: fts5" not in str(error)):
                    raise storage_error(error, self._path) from error
        return None


def _where(filter: RunFilter) -> tuple[str, list[str]]:
    conditions: list[str] = []
    values: list[str] = []
    if filter.agent is not None:
        conditions.append("? in (a.name, a.id, a.external_identifier)")
        values.append(filter.agent)
    if filter.status is not None:
        conditions.append("i.status = ?")
        values.append(filter.status)
    if filter.since is not None:
        conditions.append("coalesce(i.started_at, i.inserted_at) >= ?")
        values.append(filter.since)
    if filter.failed:
        conditions.append("(i.status = 'failed' or r.failed > 0)")
    if filter.grep is not None:
        conditions.append(f"is_said_in({OWN_TEXTS})")
    if filter.git_commit is not None:
        conditions.append("instr(i.git_commit, ?) = 1")
        values.append(filter.git_commit.lower())
    values = [
        value.encode("utf-8", "replace").decode() for value in values
    ]  # a shell's odd bytes are no text for SQLite
    return (f" where {' and '.join(conditions)}" if conditions else ""), values
