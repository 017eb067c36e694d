"""Tests one run against a filter, for every storage that does not filter by itself."""

from collections.abc import Iterator

from agentspan.model.rows import AgentInstanceRow, AgentRow
from agentspan.storage.analytics import RunSummary
from agentspan.storage.protocol import Storage
from agentspan.storage.run_filter import RunFilter, has_meta, is_said_in
from agentspan.storage.scores import tags_of


def matches(storage: Storage, run: RunSummary, filter: RunFilter) -> bool:
    """Return whether a run matches. Its spans are read only where all else matches and the filter is about them."""
    return (
        _matches_itself(run.run, filter)
        and not (filter.failed and run.run.status != "failed" and not run.failed)
        and filter.version in (None, run.version)
        and (filter.agent is None or _is_agent(storage, run, filter.agent))
        and (filter.grep is None or is_said_in(filter.grep, *_own_texts(run)))
        and (not filter.tags or {*filter.tags} <= {*tags_of(storage, [run.run.id])[run.run.id]})
        and (filter.error is None or _failed_of(storage, run, filter.error))
    )


def _matches_itself(row: AgentInstanceRow, filter: RunFilter) -> bool:
    """Return whether the row of a run matches, as far as nothing else has to be read."""
    began = row.started_at or row.inserted_at
    commit = filter.git_commit
    return (
        filter.status in (None, row.status)
        and filter.session in (None, row.session)
        and filter.task in (None, row.task)
        and (filter.ids is None or row.id in filter.ids)
        and (filter.since is None or began >= filter.since)
        and (filter.until is None or began < filter.until)
        and (commit is None or (row.git_commit is not None and row.git_commit.startswith(commit.lower())))
        and (not filter.meta or has_meta(row.metadata, filter.meta))
    )


def _is_agent(storage: Storage, run: RunSummary, name: str) -> bool:
    if name in (run.agent, run.run.agent_id):
        return True
    agent = storage.find(run.run.agent_id).rows.get(run.run.agent_id)
    return agent is not None and isinstance(agent[1], AgentRow) and agent[1].external_identifier == name


def _failed_of(storage: Storage, run: RunSummary, text: str) -> bool:
    """Return whether the run or one of its spans failed of an error with this text."""
    if is_said_in(text, run.run.error, run.run.termination_reason):
        return True
    return bool(run.failed) and any(
        span.status == "failed" and is_said_in(text, span.result_payload) for span in storage.iter_spans(run.run.id)
    )


def _own_texts(run: RunSummary) -> Iterator[str | None]:
    row = run.run
    yield from (row.id, run.agent, run.version, row.external_identifier, row.metadata, row.result, row.error)
    yield row.termination_reason
