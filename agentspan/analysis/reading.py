"""`agentspan.read`: runs, statistics, search, comparisons and data frames (pandas, polars) for Python."""

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from itertools import islice
from operator import attrgetter
from typing import Any, Literal, Self, Unpack, overload

from agentspan import clock
from agentspan.analysis import id_prefixes
from agentspan.analysis.agent_names import resolved
from agentspan.analysis.diff import RunDiff, diff
from agentspan.analysis.drift import Drift, drift, least_of
from agentspan.analysis.filter_words import (
    NAMES,
    RunKeywords,
    TimedRunKeywords,
    filter_of,
    parse,
)
from agentspan.analysis.outcomes import rule_of
from agentspan.analysis.runs import find_runs, ids_of
from agentspan.analysis.search import Hits, located, search
from agentspan.analysis.stats import StatsByVersion, stats, stats_by_version
from agentspan.analysis.why import RunWhy, Why, why, why_run
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.journal.opening import open_storage
from agentspan.model.columns import SHOWN_OF_SPANS, columns_of
from agentspan.model.scores import MARK, NOTE
from agentspan.storage.answers import Progress, RunList, RunSummary, Stat
from agentspan.storage.location import Location
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter, RunSort, SpansOf
from agentspan.storage.registry import chosen
from agentspan.storage.row_by_row import labels_of, summaries_of, totals_of

Engine = Literal["pandas", "polars"]
ENGINES: tuple[Engine, ...] = ("pandas", "polars")
BATCH = 1000
"""The number of runs whose scores and tags are read together."""
_COLUMNS = (*SHOWN_OF_SPANS, "payload", "result_payload")
SPANS = ("agent", "version", *(SHOWN_OF_SPANS.get(name, name) for name in _COLUMNS))
_KINDS = {column.name: column.holds or column.type for column in columns_of("agent_span")}
"""The kind of value in each column of spans. Columns of runs with the same name have the same kind."""
TIMES = tuple(name for name, kind in _KINDS.items() if kind == "time")
FLAGS = tuple(name for name, kind in _KINDS.items() if kind == "flag")
WHOLE = tuple(name for name, kind in _KINDS.items() if kind is int)
FRACTIONS = tuple(name for name, kind in _KINDS.items() if kind is float)
_of_span = attrgetter(*_COLUMNS)
RUNS = (
    "run",
    "agent",
    "version",
    "status",
    "started_at",
    "finished_at",
    "duration_ms",
    "spans",
    "failed_spans",
    "open_spans",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "metadata",
    "result",
    "error",
    "session",
    "user",
    "task",
    "tags",
    "mark",
    "note",
)


class Reading:
    """Reads runs, statistics, search hits and data frames from a storage. A context manager that closes the storage.

    Attributes:
        storage: the storage that is read.
    """

    def __init__(self, storage: Storage, *, closes: bool = True) -> None:
        self.storage = storage
        self._closes = closes

    def runs(
        self, *, sort: RunSort = "started", limit: int | None = 50, offset: int = 0, **filter: Unpack[TimedRunKeywords]
    ) -> RunList:
        """Return a page of the runs that match, the number of all matching runs, and the sums over all of them.

        Args:
            sort: the order: `started` (the latest first), or `duration`, `cost`, `tokens`, `spans`, `failed` (the
                largest first).
            limit: the largest number of runs on the page; None for all.
            offset: the number of runs to skip.
            agent: the name, id or external_identifier of the agent; or `AGENT@VERSION`.
            version: the version of the agent.
            session, task, status: the session, task and status of the run.
            tag: a tag, or several tags that the run must all have.
            score: a rule such as `reward>=1`, or several rules that the newest scores of the run must all fulfill.
            mark: the label of the run's newest mark; `*` for any mark.
            failed: only runs that failed, or that contain a failed span.
            error: a text in the error of the run or of a failed span; case is ignored.
            signature: the signature of a failure, or of how the run ended, as `why` names it; or its first characters.
            meta: values that the run's metadata must have, by key.
            since: the earliest start of a run: an aware datetime, RFC 3339 text with an offset, or text such as `7d`
                (ago) or `yesterday` (in UTC).
            until: the latest start of a run, exclusive; in the same forms as `since`.
            grep: a text in the run's own names, metadata, result or error; case is ignored.
            git_commit: the first characters of the git commit that the program ran from.

        Raises:
            InvalidValue: a time, a rule, the signature or `status` is invalid.
            NotFound: the agent does not exist.
        """
        return find_runs(self.storage, self._filter(filter), limit=limit, offset=offset, sort=sort)

    def stats(
        self,
        run: str | None = None,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        **filter: Unpack[RunKeywords],
    ) -> list[Stat]:
        """Return statistics per span type, each followed by those of its labels. The longest total time comes first.

        Args:
            run: the only run whose spans count: an id, a unique prefix of an id, or `-` for the latest run.
            since, until: the time range in which spans must start (see `runs` for the forms); the end is exclusive.
            filter: keywords that select the runs (see `runs`).

        Raises:
            InvalidValue: a time is invalid, or both `run` and a filter are passed.
            NotFound: the run or the agent does not exist.
        """
        ids = self._ids(run, filter)
        times = filter_of({"since": since, "until": until})
        return stats(self.storage, runs=ids, since=times.since, until=times.until)

    def stats_by_version(
        self,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        **filter: Unpack[RunKeywords],
    ) -> StatsByVersion:
        """Return statistics per span type and label: of all versions of the agents together, and of each version.

        Args:
            since, until: the time range in which spans must start (see `runs` for the forms); the end is exclusive.
            filter: keywords that select the runs (see `runs`).

        Raises:
            InvalidValue: a time is invalid.
            NotFound: the agent does not exist.
        """
        times = filter_of({"since": since, "until": until})
        return stats_by_version(self.storage, self._filter(filter), since=times.since, until=times.until)

    def search(
        self,
        words: str | Sequence[str],
        *,
        run: str | None = None,
        limit: int = 50,
        offset: int = 0,
        progress: Progress | None = None,
        **filter: Unpack[TimedRunKeywords],
    ) -> Hits:
        """Return the spans that contain all words, the latest first, with their runs, agents and step numbers.

        Args:
            words: one text, in which double quotes mark a phrase, or several texts, each of which is a phrase. `*` at
                the end of a word matches any ending. There is no other syntax.
            run: the only run to search: an id, a unique prefix of an id, or `-` for the latest run.
            limit: the largest number of hits.
            offset: the number of hits to skip.
            progress: called with (done, total) while an index is built.
            filter: keywords that select the runs to search (see `runs`).
        """
        ids = self._ids(run, filter)
        return located(
            self.storage, search(self.storage, words, runs=ids, limit=limit, offset=offset, progress=progress)
        )

    def diff(self, a: str, b: str, *, against: str | None = None) -> RunDiff:
        """Return where two runs part: their steps aligned, and the first one that differs.

        Args:
            a, b: the runs: an id, a unique prefix of an id, or `-` for the latest run.
            against: a filter of other runs, to count how they continue where the two part: `all`, or keywords of
                `runs` in one text, such as `agent=NAME failed since=7d`. Without an agent, the agent of A.

        Raises:
            NotFound: a run does not exist.
            InvalidValue: `against` is not a filter.
        """
        ids = (id_prefixes.find_run(self.storage, run).id for run in (a, b))
        return diff(self.storage, *ids, baseline=against)

    @overload
    def why(self, run: str, *, outcome: str | None = None) -> RunWhy: ...
    @overload
    def why(self, run: None = None, *, outcome: str | None = None, **filter: Unpack[TimedRunKeywords]) -> Why: ...
    def why(
        self, run: str | None = None, *, outcome: str | None = None, **filter: Unpack[TimedRunKeywords]
    ) -> Why | RunWhy:
        """Return the failed runs in groups, with features associated with failure; or why one run failed.

        Args:
            run: the one run to explain: an id, a unique prefix of an id, or `-` for the latest run. Other runs of its
                agent serve for comparison.
            outcome: the rule that decides whether a run passed, such as `reward>=1`; the status decides when left out,
                or for `status`.
            filter: keywords that select the runs (see `runs`); ignored if `run` is passed.

        Raises:
            NotFound: the run or the agent does not exist.
            InvalidValue: `outcome` is not a rule, or a time is invalid.
        """
        rule = rule_of(outcome)
        if run is not None:
            return why_run(self.storage, id_prefixes.find_run(self.storage, run), rule)
        return why(self.storage, self._filter(filter), rule)

    def _filter(self, given: Mapping[str, object]) -> RunFilter:
        unknown = [name for name in given if name not in NAMES]
        if unknown:
            raise TypeError(f"runs are not selected by {unknown[0]!r}; there are {', '.join(NAMES)}")
        return resolved(self.storage, filter_of(given))

    def _ids(self, run: str | None, given: Mapping[str, object]) -> list[str] | None:
        """Return the id of one run in a list, or the ids of the runs that match a filter; None for all runs.

        Raises:
            InvalidValue: both a run and a filter are passed.
        """
        filter = self._filter(given)
        if run is None:
            return None if filter == RunFilter() else ids_of(self.storage, filter)
        if filter != RunFilter():
            raise InvalidValue("run", "and filters of runs exclude each other")
        return [id_prefixes.find_run(self.storage, run).id]

    def drift(
        self, base: str, head: str, *, outcome: str | None = None, least: Mapping[str, float] | None = None
    ) -> Drift:
        """Return whether two groups of runs, such as two versions of an agent, differ by more than chance.

        Args:
            base, head: the filters of the two groups: `AGENT@VERSION`, or keywords of `runs` in one text, such as
                `tag=nightly since=7d`.
            outcome: the rule that decides whether a run passed, such as `reward>=1`; the status decides when left out.
            least: the smallest differences that count, by measure, such as `{"duration_ms": 50}`; when left out 10 ms
                and 0.0001 dollars.

        Raises:
            InvalidValue: a filter or the rule is invalid; a measure of `least` is unknown, or its difference negative.
            NotFound: an agent does not exist.
        """
        filters = (resolved(self.storage, parse(text, name)) for name, text in (("base", base), ("head", head)))
        return drift(self.storage, *filters, rule=rule_of(outcome), least=least_of(least or {}))

    def dataframe(
        self, table: Literal["spans", "runs"] = "spans", *, run: str | None = None, engine: Engine | None = None
    ) -> Any:
        """Return a table of all spans, or of all runs, with times as UTC timestamps.

        Args:
            table: `spans`, one row a span, or `runs`, one row a run, with its tags, its newest mark and note, and a
                column for each name of its scores: `score_NAME` with the number, `label_NAME` with the label.
            run: the only run in the table: an id, a unique prefix of an id, or `-` for the latest run.
            engine: `pandas` or `polars`; the installed one when left out, pandas if both are.

        Raises:
            InvalidValue: the table or the engine is unknown.
            AgentspanError: the engine, or when left out any engine, is not installed.
        """
        if table not in ("spans", "runs"):
            raise InvalidValue("table", "must be spans or runs")
        module, name = _engine(engine)
        names = SPANS if table == "spans" else RUNS
        columns: dict[str, list[Any]] = {column: [] for column in names}
        if table == "spans":
            for row in self._spans(run):
                for values, value in zip(columns.values(), row, strict=True):
                    values.append(value)
        else:
            self._fill_runs(run, columns)
        for column in columns.keys() & {*TIMES, *FLAGS}:
            read = bool if column in FLAGS else _time
            columns[column] = [read(value) for value in columns[column]]
        return _polars(module, columns) if name == "polars" else _pandas(module, columns)

    def _spans(self, run: str | None) -> Iterator[tuple[Any, ...]]:
        for summary in self._summaries(run).runs:
            for span in self.storage.ask(SpansOf(summary.run.id)):
                yield (summary.agent, summary.version, *_of_span(span))

    def _fill_runs(self, run: str | None, columns: dict[str, list[Any]]) -> None:
        """Append the values of each run to the columns of RUNS; then add the columns of scores, by name."""
        summaries = iter(self._summaries(run).runs)
        scores: dict[str, dict[int, float | str]] = {}
        while batch := list(islice(summaries, BATCH)):
            said = labels_of(self.storage, [summary.run.id for summary in batch])
            for summary in batch:
                judged = {score.name: score for score in said[summary.run.id].scores}  # the newest score of a name wins
                mark, note = judged.pop(MARK, None), judged.pop(NOTE, None)
                for score in judged.values():
                    at = len(columns["run"])
                    if score.value is not None:
                        scores.setdefault(f"score_{score.name}", {})[at] = score.value
                    if score.label is not None:
                        scores.setdefault(f"label_{score.name}", {})[at] = score.label
                values = (*_of_run(summary), said[summary.run.id].tags, mark and mark.label, note and note.explanation)
                for name, value in zip(RUNS, values, strict=True):
                    columns[name].append(value)
        for name in sorted(scores):
            columns[name] = [*map(scores[name].get, range(len(columns["run"])))]

    def _summaries(self, run: str | None) -> RunList:
        """Return all runs, or the one that `run` names, in order of creation."""
        if run is None:
            found = find_runs(self.storage, limit=None)
        else:
            one = list(summaries_of(self.storage, [id_prefixes.find_run(self.storage, run)]))
            found = RunList(one, len(one), totals_of(one))
        return found._replace(runs=found.runs[::-1])

    def close(self) -> None:
        """Close the storage, unless this process records into it."""
        if self._closes:
            self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def read(db: "str | os.PathLike[str] | Location | Storage | None" = None) -> Reading:
    """Open a database for reading only, also while agents record into it.

    Args:
        db: a file, `NAME://…` for another backend, or a Storage. When left out, the database of `agentspan.configure`,
            which may be a storage in memory; else AGENTSPAN_DB, else ./agentspan.db.

    Raises:
        DatabaseUnusable: the file does not exist, is not a database …
    """
    db, closes = chosen(db)
    storage = open_storage(db, read_only=db is None or isinstance(db, (str, os.PathLike, Location)))
    return Reading(storage, closes=closes)


def _of_run(summary: RunSummary) -> tuple[Any, ...]:
    row = summary.run
    return (row.id, summary.agent, summary.version, row.status, row.started_at, row.finished_at, row.duration_ms,
            summary.spans, summary.failed, summary.open, summary.input_tokens, summary.output_tokens, summary.cost_usd,
            row.metadata, row.result, row.error, row.session, row.user, row.task)  # fmt: skip


def _time(text: str | None) -> datetime | None:
    return None if text is None else clock.to_datetime(text)


def _engine(engine: Engine | None) -> tuple[Any, str]:
    if engine is not None and engine not in ENGINES:
        raise InvalidValue("engine", f"must be {' or '.join(ENGINES)}")
    for name in ENGINES if engine is None else (engine,):
        try:
            return import_module(name), name
        except ImportError:
            continue
    wanted = engine or "pandas"
    missing = f"{engine} is not" if engine else "neither pandas nor polars is"
    raise AgentspanError(f"{missing} installed; run: pip install {wanted}")


def _pandas(pandas: Any, columns: dict[str, list[Any]]) -> Any:
    frame = pandas.DataFrame(columns)
    for name in columns:
        if name in TIMES:
            frame[name] = pandas.to_datetime(frame[name], utc=True)
        elif name in WHOLE:
            frame[name] = frame[name].astype("Int64")  # whole numbers, some of which are missing
        elif name in FRACTIONS or name.startswith("score_"):
            frame[name] = frame[name].astype("float64")
    return frame


def _polars(polars: Any, columns: dict[str, list[Any]]) -> Any:
    whole = {*WHOLE, "spans", "failed_spans", "open_spans"}
    kinds = {
        name: polars.Datetime("us", "UTC")
        if name in TIMES
        else polars.Int64
        if name in whole
        else polars.Float64
        if name in FRACTIONS or name.startswith("score_")
        else polars.List(polars.String)
        if name == "tags"
        else polars.Boolean
        if name in FLAGS
        else polars.String
        for name in columns
    }
    return polars.DataFrame(columns, schema=kinds)
