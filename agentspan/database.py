"""`agentspan.open` and the Database that it returns: one opened storage.

A Database has methods that read runs, the operations of the API by id, and `bulk`, `doctor` and `prune`.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack, overload

from agentspan import host
from agentspan.api.checks import MAX_PFIDS, timestamp
from agentspan.api.checks import count as count_of
from agentspan.errors import DatabaseUnusable, InvalidValue
from agentspan.journal.opening import is_missing, open_storage
from agentspan.storage.location import Location, file
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, RunSort
from agentspan.storage.registry import OpenedLater, chosen, location_of
from agentspan.tuning import STANDARD, Tuning

if TYPE_CHECKING:
    from agentspan.analysis.costs import By, Costs
    from agentspan.analysis.diff import RunDiff
    from agentspan.analysis.drift import Drift
    from agentspan.analysis.filter_words import RunKeywords, TimedRunKeywords
    from agentspan.analysis.overview import Overview
    from agentspan.analysis.runs import StatsByVersion
    from agentspan.analysis.search import Hits
    from agentspan.analysis.stored_run import StoredRun
    from agentspan.analysis.tables import Engine
    from agentspan.analysis.why import RunWhy, Why
    from agentspan.api.context import Context
    from agentspan.api.facade import (
        AgentInstances,
        Agents,
        AgentSchemaVersions,
        AgentSpans,
        AgentVersions,
        Scores,
    )
    from agentspan.maintenance.doctor import Report
    from agentspan.maintenance.prune import Only, Pruned
    from agentspan.storage.sums import Progress, RunList, Stat
    from agentspan.viewer.blocks import Found


class Database:
    """One opened storage: methods that read its runs, and its operations by id. As a context manager, it closes itself.

    Attributes:
        agents: create, get, show, update, retire, reinstate, delete, list.
        agent_versions: get, list.
        agent_instances: register, start, finish, terminate, record_quality, update, agent_context, get, list.
        agent_schema_versions: create, get, list.
        agent_spans: create, start, finish, get, list, violations.
        scores: record, list.
    """

    # A call imports the modules that it needs: the import of the analysis takes 60 ms, that of the resources, which are
    # pydantic models, a tenth of a second.

    def __init__(
        self,
        storage: Storage,
        *,
        strict_schemas: bool = False,
        sensitive: Literal["redact", "keep"] = "redact",
        read_only: bool = False,
        closes: bool = True,
        tuning: Tuning = STANDARD,
    ) -> None:
        if sensitive not in ("redact", "keep"):
            raise InvalidValue("sensitive", 'must be "redact" or "keep"')
        self._storage = storage
        self._rules: dict[str, Any] = {
            "strict_schemas": strict_schemas, "read_only": read_only, "keep_sensitive": sensitive == "keep",
        }  # fmt: skip
        self._closes = closes
        self._tuning = tuning
        if not isinstance(storage, OpenedLater):
            storage.ask(Account())  # raises now if the storage cannot be used

    @property
    def storage(self) -> Storage:
        """The storage of this database. A missing file is created by the first access."""
        return self._storage.direct if isinstance(self._storage, OpenedLater) else self._storage

    @property
    def _recorded(self) -> Storage:
        """The storage, for methods that only read. Unlike `storage`, it does not create a missing file.

        Raises:
            DatabaseUnusable: the file does not exist.
        """
        if isinstance(self._storage, OpenedLater) and is_missing(self._storage.location):
            raise DatabaseUnusable(self._storage.location.not_there)
        return self.storage

    @cached_property
    def _context(self) -> "Context":
        from agentspan.api.context import Context

        return Context(self.storage, **self._rules)

    # The operations are imported at their first use: their resources are pydantic models, which take a tenth of a
    # second to import, and most commands only read.

    @cached_property
    def agents(self) -> "Agents":
        """The operations on agents."""
        from agentspan.api.facade import Agents

        return Agents(self._context)

    @cached_property
    def agent_versions(self) -> "AgentVersions":
        """The operations on versions of agents."""
        from agentspan.api.facade import AgentVersions

        return AgentVersions(self._context)

    @cached_property
    def agent_instances(self) -> "AgentInstances":
        """The operations on runs."""
        from agentspan.api.facade import AgentInstances

        return AgentInstances(self._context)

    @cached_property
    def agent_schema_versions(self) -> "AgentSchemaVersions":
        """The operations on schemas of agents."""
        from agentspan.api.facade import AgentSchemaVersions

        return AgentSchemaVersions(self._context)

    @cached_property
    def agent_spans(self) -> "AgentSpans":
        """The operations on spans."""
        from agentspan.api.facade import AgentSpans

        return AgentSpans(self._context)

    @cached_property
    def scores(self) -> "Scores":
        """The operations on scores."""
        from agentspan.api.facade import Scores

        return Scores(self._context)

    def runs(
        self,
        *,
        sort: RunSort = "started",
        limit: int | None = 50,
        offset: int = 0,
        **filter: "Unpack[TimedRunKeywords]",
    ) -> "RunList":
        """Return a page of the runs that match, the number of all matching runs, and the sums over all of them.

        Args:
            sort: the order: `started` (the latest first), or `duration`, `cost`, `tokens`, `spans`, `failed` (the
                largest first).
            limit: the largest number of runs on the page; None for all.
            offset: the number of runs to skip.
            filter: the keywords below, which select the runs.
            agent: the name, id or external_identifier of the agent; or `AGENT@VERSION`.
            version: the version of the agent; `default` where none was given.
            session: the session of the run.
            task: the task of the run.
            purpose: the purpose of the run: `live`, `smoke_test` or `eval`, as trials of cases have it.
            status: the status of the run.
            tag: a tag, or several tags that the run must all have.
            score: a rule such as `reward>=1`, `reward@human<0.5` or `grade==good`, or several rules that the newest
                scores of the run must all fulfill.
            mark: the label of the newest mark of the run, or of a step; `*` for any mark.
            failed: only runs that failed, or that contain a failed span.
            error: a text in the error or termination reason of the run, or in the result of a failed span; case is
                ignored.
            signature: the signature of a failure, or of how the run ended, as `why` names it; or its first characters.
            meta: values that the run's metadata must have, by key; a dot in a key goes into an object.
            since: the earliest start of a run: an aware datetime, RFC 3339 text with an offset, or text such as `7d`
                (ago) or `yesterday` (in UTC).
            until: the latest start of a run, exclusive; in the same forms as `since`.
            grep: a text in the run's own id, agent, version, external_identifier, metadata, result, error or
                termination reason; case is ignored. Texts of steps do not count: `search` finds those.
            git_commit: the first characters of the git commit that the program ran from.
            touched: a file that a tool was called with: an argument such as `file_path` or `path`, or a header of a
                patch, is this path or ends with it, in whole parts (`src/a.py`). A relative path that the tool wrote is
                compared from its end, too. Commands of shells do not count.
            project: the folder, `cwd` in the metadata, in which the run worked, or one above it; `*` is any text. A
                text without `/` is the name of a folder above, `.` the current folder.
            tool: the name of a tool that was called, in a span of any status; `*` is any text: `mcp__github__*`.
            model: the name of a model that was called (types `llm` and `embedding`); `*` is any text.

        Raises:
            InvalidValue: `sort`, `limit`, `offset` or a keyword's value is invalid, such as a number for a text.
            NotFound: the agent does not exist.
        """
        with host.importing:
            from agentspan.analysis.runs import find_runs, selected
            from agentspan.viewer.notebook import shown

        storage = self._recorded
        return shown(find_runs(storage, selected(storage, filter), limit=limit, offset=offset, sort=sort))

    def run(self, run: str) -> "StoredRun":
        """Return one run: its facts, its steps, its tree as text, why it failed. A notebook shows it in the viewer.

        Args:
            run: an id, a unique prefix of an id, `-` for the latest run, or `AGENT@VERSION`.

        Raises:
            NotFound: no such run exists.
            InvalidValue: several ids begin with the prefix.
        """
        with host.importing:
            from agentspan.analysis.by_name import find_run
            from agentspan.viewer.notebook_run import ShownRun

        return ShownRun(self._recorded, find_run(self._recorded, run))

    def overview(self, *, outcome: str | None = None, **filter: "Unpack[TimedRunKeywords]") -> "Overview":
        """Return an overview of the latest day that has runs: its failures, missed goals, causes and sums.

        Args:
            outcome: the rule that decides whether a run that completed passed, such as `reward>=1`; when left out, a
                rule that runs missed, over a score with two values. `status` judges by the status alone.
            filter: keywords that select the runs (see `runs`); `since` replaces the last day.

        Raises:
            InvalidValue: `outcome` is not a rule, or a time is invalid.
            NotFound: the agent does not exist.
        """
        with host.importing:
            from agentspan.analysis.outcomes import rule_of
            from agentspan.analysis.overview import overview
            from agentspan.analysis.runs import selected
            from agentspan.viewer.notebook import shown

        storage = self._recorded
        return shown(overview(storage, selected(storage, filter), rule_of(outcome)))

    def stats(
        self,
        run: str | None = None,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        **filter: "Unpack[RunKeywords]",
    ) -> "list[Stat]":
        """Return statistics per span type, each followed by those of its labels. The longest total time comes first.

        Args:
            run: the only run whose spans count: an id, a unique prefix of an id, or `-` for the latest run.
            since, until: the time range in which spans must start (see `runs` for the forms); the end is exclusive.
            filter: keywords that select the runs (see `runs`).

        Raises:
            InvalidValue: a time is invalid, or both `run` and a filter are passed.
            NotFound: the run or the agent does not exist.
        """
        with host.importing:
            from agentspan.analysis.filter_words import filter_of
            from agentspan.analysis.runs import selected_ids, stats
            from agentspan.viewer.notebook import ShownStats

        ids = selected_ids(self._recorded, run, filter)
        times = filter_of({"since": since, "until": until})
        return ShownStats(stats(self._recorded, runs=ids, since=times.since, until=times.until))

    def stats_by_version(
        self,
        *,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        **filter: "Unpack[RunKeywords]",
    ) -> "StatsByVersion":
        """Return statistics per span type and label: of all versions of the agents together, and of each version.

        Args:
            since, until: the time range in which spans must start (see `runs` for the forms); the end is exclusive.
            filter: keywords that select the runs (see `runs`).

        Raises:
            InvalidValue: a time is invalid.
            NotFound: the agent does not exist.
        """
        with host.importing:
            from agentspan.analysis.filter_words import filter_of
            from agentspan.analysis.runs import selected, stats_by_version
            from agentspan.viewer.notebook import shown

        times = filter_of({"since": since, "until": until})
        asked = selected(self._recorded, filter)
        return shown(stats_by_version(self._recorded, asked, since=times.since, until=times.until))

    def costs(self, by: "By" = "model", **filter: "Unpack[TimedRunKeywords]") -> "Costs":
        """Return the costs of runs, and the savings by the caches of models' providers.

        Args:
            by: the kind of the rows: `model`, `day` (in UTC), `agent`, `project`, `tool`, `prompt`, `version`
                or `session`.
            filter: keywords that select the runs (see `runs`).

        Raises:
            InvalidValue: `by` is another text, or a keyword is invalid.
            NotFound: the agent does not exist.
        """
        with host.importing:
            from agentspan.analysis.costs import costs
            from agentspan.analysis.runs import selected
            from agentspan.viewer.notebook import shown

        return shown(costs(self._recorded, selected(self._recorded, filter), by))

    def finding(
        self, name: str, by: str = "", *, limit: int | None = None, **filter: "Unpack[TimedRunKeywords]"
    ) -> "Found":
        """Return what a command says about many runs, such as `cost`: a notebook shows it, `result` is the value.

        Days are those of UTC.

        Args:
            name: the name of the command, one of `agentspan.answers.findings.FINDINGS`.
            by: the kind of the rows, as of the command's option; the first one when left out.
            limit: the largest number of rows.
            filter: keywords that select the runs (see `runs`).

        Raises:
            InvalidValue: no finding has the name, or a keyword is invalid.
            NotFound: the agent does not exist.
        """
        with host.importing:
            from agentspan.analysis.runs import selected
            from agentspan.answers.findings import asked_in
            from agentspan.viewer.blocks import MOST_ROWS, Found

        finding, asked = asked_in(name, by, limit)
        found = finding.find(self._recorded, selected(self._recorded, filter), asked)
        return Found(found, finding.answer(found, limit or MOST_ROWS))

    def search(
        self,
        words: str | Sequence[str],
        *,
        run: str | None = None,
        limit: int = 50,
        offset: int = 0,
        progress: "Progress | None" = None,
        **filter: "Unpack[TimedRunKeywords]",
    ) -> "Hits":
        """Return the spans that contain all words, the latest first, with their runs, agents and step numbers.

        A text that several spans of a run repeat is a hit in the first of them only.

        Args:
            words: one text, in which double quotes mark a phrase, or several texts, each of which is a phrase. `*` at
                the end of a word matches any ending. There is no other syntax.
            run: the only run to search: an id, a unique prefix of an id, or `-` for the latest run.
            limit: the largest number of hits.
            offset: the number of hits to skip.
            progress: called with (done, total) while an index is built.
            filter: keywords that select the runs to search (see `runs`).
        """
        with host.importing:
            from agentspan.analysis.runs import selected_ids
            from agentspan.analysis.search import located, search
            from agentspan.viewer.notebook import shown

        storage = self._recorded
        ids = selected_ids(storage, run, filter)
        return shown(located(storage, search(storage, words, runs=ids, limit=limit, offset=offset, progress=progress)))

    def diff(self, a: str, b: str, *, against: str | None = None) -> "RunDiff":
        """Return where two runs part: their steps aligned, and the first one that differs.

        Args:
            a, b: the runs: an id, a unique prefix of an id, or `-` for the latest run.
            against: a filter of other runs, to count how they continue where the two part: `all`, or keywords of
                `runs` in one text, such as `agent=NAME failed since=7d`. Without an agent, the agent of A.

        Raises:
            NotFound: a run does not exist.
            InvalidValue: `against` is not a filter.
        """
        with host.importing:
            from agentspan.analysis.by_name import find_run
            from agentspan.analysis.diff import diff
            from agentspan.viewer.notebook import shown

        storage = self._recorded
        return shown(diff(storage, find_run(storage, a).id, find_run(storage, b).id, baseline=against))

    @overload
    def why(self, run: str, *, outcome: str | None = None) -> "RunWhy": ...
    @overload
    def why(self, run: None = None, *, outcome: str | None = None, **filter: "Unpack[TimedRunKeywords]") -> "Why": ...
    def why(
        self, run: str | None = None, *, outcome: str | None = None, **filter: "Unpack[TimedRunKeywords]"
    ) -> "Why | RunWhy":
        """Return the failed runs in groups, with features associated with failure; or why one run failed.

        Args:
            run: the one run to explain: an id, a unique prefix of an id, or `-` for the latest run. Other runs of its
                agent serve for comparison.
            outcome: the rule that decides whether a run passed, such as `reward>=1`, or `status`; when left out, a
                rule that runs missed, over a score with two values, if none of them failed by its status.
            filter: keywords that select the runs (see `runs`); ignored if `run` is passed.

        Raises:
            NotFound: the run or the agent does not exist.
            InvalidValue: `outcome` is not a rule, or a time is invalid.
        """
        with host.importing:
            from agentspan.analysis.by_name import find_run
            from agentspan.analysis.outcomes import rule_of
            from agentspan.analysis.runs import selected
            from agentspan.analysis.why import why, why_run
            from agentspan.viewer.notebook import shown

        storage, rule = self._recorded, rule_of(outcome)
        if run is not None:
            return shown(why_run(storage, find_run(storage, run), rule))
        return shown(why(storage, selected(storage, filter), rule))

    def drift(
        self, base: str, head: str, *, outcome: str | None = None, least: Mapping[str, float] | None = None
    ) -> "Drift":
        """Return whether two groups of runs, such as two versions of an agent, differ by more than chance.

        Args:
            base, head: the filters of the two groups: `AGENT@VERSION`, or keywords of `runs` in one text, such as
                `tag=nightly since=7d`.
            outcome: the rule that decides whether a run passed, as for `why`.
            least: the smallest differences that count, by measure, such as `{"duration_ms": 50}`: `passed` and
                `failure_rate` (shares from 0 to 1), `duration_ms` (10 when left out), `cost_usd` (0.0001), `tokens`,
                `spans`, `calls`.

        Raises:
            InvalidValue: a filter or the rule is invalid; a measure of `least` is unknown, or its difference negative.
            NotFound: an agent does not exist.
        """
        with host.importing:
            from agentspan.analysis.by_name import resolved
            from agentspan.analysis.drift import drift, least_of
            from agentspan.analysis.filter_words import parse
            from agentspan.analysis.outcomes import rule_of
            from agentspan.viewer.notebook import shown

        storage = self._recorded
        filters = (resolved(storage, parse(text, name)) for name, text in (("base", base), ("head", head)))
        return shown(drift(storage, *filters, judge=rule_of(outcome), least=least_of(least or {})))

    def dataframe(
        self, table: Literal["spans", "runs"] = "spans", *, run: str | None = None, engine: "Engine | None" = None
    ) -> Any:
        """Return a table of all spans, or of all runs, in order of creation, with times as UTC timestamps.

        Its columns are those of the views `spans` and `runs`. `spans` also has `version`, and no `error`. `runs` has no
        `closed_by` and `closed_at`, but `open_spans`, `tags` as a list, `mark` and `note` (the newest of each).

        Args:
            table: `spans`, one row a span, or `runs`, one row a run, with its tags, its newest mark and note, and a
                column for each name of its scores: `score_NAME` with the number, `label_NAME` with the label.
            run: the only run in the table: an id, a unique prefix of an id, or `-` for the latest run.
            engine: `pandas` or `polars`; the installed one when left out, pandas if both are.

        Raises:
            InvalidValue: the table or the engine is unknown.
            AgentspanError: the engine, or when left out any engine, is not installed.
        """
        with host.importing:
            from agentspan.analysis.tables import dataframe

        return dataframe(self._recorded, table, run, engine)

    def doctor(
        self, *, dry_run: bool = False, dead_hosts: Collection[str] = (), idle_since: datetime | str | None = None
    ) -> "Report":
        """Check the file, and close the runs and spans that dead programs left open.

        Active ones become failed with the error `Abandoned`, pending ones cancelled, with `closed_by` abandoned. A run
        and its spans are closed in one transaction; in a terminated run, all open spans are closed. The journal of a
        dead program is recovered before. If another process is recovering it, `doctor` waits for that. All this takes
        at most 6 s; then the rest stays as it is, and the report says how much waits for the next `doctor`.

        Args:
            dry_run: report the changes without making them; allowed with `read_only=True`.
            dead_hosts: hosts or containers whose programs are known to be dead. Without it, only programs of this host
                are judged.
            idle_since: also close runs that were made by id, with their spans, if they have not changed since this
                time: an aware datetime, or RFC 3339 text with an offset. The program of such a run is not known.

        Raises:
            InvalidValue: `idle_since` is no time.
            DatabaseBusy: others kept a lock.
        """
        with host.importing:
            from agentspan.maintenance.doctor import examine

        at = timestamp("idle_since", idle_since)
        return examine(self._context, dry_run=dry_run, dead_hosts=dead_hosts, idle_since=at, tuning=self._tuning)

    def prune(
        self,
        *,
        older_than: datetime | str | None = None,
        keep_failed: bool = False,
        max_bytes: int | None = None,
        dry_run: bool = False,
        only: "Only | None" = None,
        whole_partitions: bool = False,
    ) -> "Pruned":
        """Remove finished runs, the oldest first, and idempotency keys older than 7 days. Shrink the file.

        Violations, refused changes and tags go with their runs. A run stays while the run or one of its spans is open,
        or while it was closed for a program that may still be alive. With `older_than` alone, whole partitions that are
        old enough are removed first, and then other runs row by row. Without `older_than`, `max_bytes` and `only`, only
        keys are removed. Other processes may write meanwhile: each commit removes about 2,000 spans. A file that an
        agentspan without `prune` created is rewritten once, in one step.

        Args:
            older_than: remove runs that finished before this time, an aware datetime or RFC 3339 text with an offset.
            keep_failed: keep runs that failed or contain a failed span.
            max_bytes: remove runs until at most this many bytes of the file are in use.
            dry_run: report what would be removed, and remove nothing; with `max_bytes` an estimate.
            only: called with rows of runs; returns the ids of the runs that may be removed. Without `older_than` and
                `max_bytes`, every finished run that it returns is removed.
            whole_partitions: remove whole partitions only; requires `older_than`, and no other choice of runs.

        Raises:
            InvalidValue: `older_than` is no time; `max_bytes` is passed, and the storage has no file; or
                `whole_partitions` is passed, and the storage has no partitions or runs are also chosen otherwise.
            StorageError: the storage cannot remove runs.
        """
        with host.importing:
            from agentspan.maintenance.prune import prune

        at = timestamp("older_than", older_than)
        return prune(
            self._context,
            older_than=at,
            keep_failed=keep_failed,
            max_bytes=max_bytes,
            dry_run=dry_run,
            only=only,
            whole_partitions=whole_partitions,
        )

    def pfids(self, count: int = 1) -> list[str]:
        """Return up to 1,000 fresh ids, for resources that the caller creates with an id of its own.

        Raises:
            InvalidValue: the count is no whole number from 1 to 1,000.
        """
        return [self._context.ids.new() for _ in range(count_of("count", count, 1, MAX_PFIDS))]

    def bulk(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Run several operations in order, each completely or not at all. Stop after the first refused operation.

        Args:
            items: at least one mapping. Each has a `_type` (such as "agent_spans/create"), an `idempotency_key` of 8
                to 64 characters that is unique in this call, and the operation's fields, flat or in `details`. The
                types are `agents/list`, `show`, `create`, `update`; `agent_instances/register`, `start`, `finish`,
                `terminate`, `record_quality`, `score`; `agent_spans/create`, `start`, `finish`, `list`, `score`.

        Returns:
            The outputs by idempotency key, in the form of the HTTP API: `{"status": "success", "details": …}` or
            `{"status": "error", "code": …, "message": …}`, with `control` if the run of a span is terminated.
            Operations that did not run have none; those before a refused one are committed.

        Raises:
            InvalidValue, RequiredValue: an item has no usable type or key. No operation has run.
        """
        with host.importing:
            from agentspan.api.bulk import plan, run

        return run(self._context, plan(items))

    def close(self) -> None:
        """Close the storage. Later operations raise StorageError.

        A storage object of `agentspan.configure`, which `open` uses if `db` is left out, stays open for recording.
        """
        if self._closes:
            self._storage.close()

    def __repr__(self) -> str:
        where = self._where
        return f"<agentspan.Database {'in memory' if where is None else where}>"

    @property
    def _where(self) -> Location | None:
        if isinstance(self._storage, OpenedLater):
            return self._storage.location
        return self._storage.capabilities().location

    def _repr_html_(self) -> str:
        with host.importing:
            from agentspan.viewer.notebook import database_html

        where = self._where
        name = "in memory" if where is None else str(where) if where.path is None else where.path.name
        return database_html(self.storage if has_storage(self) else None, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> Literal[False]:
        self.close()
        return False


def open(
    db: "str | os.PathLike[str] | Location | Storage | None" = None,
    *,
    read_only: bool = False,
    strict_schemas: bool = False,
    sensitive: Literal["redact", "keep"] = "redact",
    tuning: Tuning = STANDARD,
) -> Database:
    """Open a database to read its runs, also while agents record into it, and for operations by id.

    A write waits up to 5 s for the write lock, then raises DatabaseBusy.

    Examples:
        import agentspan

        with agentspan.run("researcher"), agentspan.span("tool", name="search"):
            pass
        agentspan.flush()
        with agentspan.open() as db:
            latest = db.run("-")
            print(latest.head)
            print(latest.tree())

    Args:
        db: a file; `":memory:"`; `NAME://…` for another backend; or a Storage. When left out, the storage of
            `agentspan.configure`, also one in memory; else AGENTSPAN_DB, else ./agentspan.db. The first operation by
            id creates a missing file; until then, methods that read runs raise DatabaseUnusable.
        read_only: never write: the file must exist; operations that would write raise NotPermitted.
        strict_schemas: refuse payloads that do not match their schema.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        DatabaseUnusable: the file is no database or belongs to a newer version, its folder does not exist …
        DatabaseBusy: the file stays locked for 10 s.
    """
    db, closes = chosen(db)
    if db is None or isinstance(db, (str, os.PathLike, Location)):
        db = location_of(db)
    if isinstance(db, Location) and db.path is not None:
        db = file(db.path.absolute())  # the same file after a change of folder
    open_now = partial(open_storage, db, read_only=read_only, tuning=tuning)
    if isinstance(db, Location) and not read_only and is_missing(db):
        storage: Storage = OpenedLater(db, open_now, wait_s=10.0)
    else:
        storage = open_now()
    return Database(
        storage, strict_schemas=strict_schemas, sensitive=sensitive, read_only=read_only, closes=closes, tuning=tuning
    )


def has_storage(database: Database) -> bool:
    """Return whether the storage of a database exists. A missing file is created by the first operation by id."""
    storage = database._storage
    return not (isinstance(storage, OpenedLater) and is_missing(storage.location))
