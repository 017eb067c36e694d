"""`RunFilter`: which runs a query is about, and in which order; and the conditions that each storage tests alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from agentspan import jsontext

RunSort = Literal["started", "duration", "cost", "tokens", "spans", "failed"]
"""The orders of a list of runs: the latest, longest, most expensive … first; runs without a value come last."""
SORTS: tuple[RunSort, ...] = get_args(RunSort)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """A filter for runs. Fields left at None match everything.

    Attributes:
        agent: the agent's name, id or external_identifier.
        status: the run's.
        since: the earliest started_at (else inserted_at) that counts, as stored text (see clock).
        failed: only runs that failed, or in which a span did.
        grep: text, in any case, in the run's id, agent, version, external_identifier, metadata, result, error or
            termination reason. To find text in its spans, use `search`.
        git_commit: the beginning of the run's commit, in upper or lower case.
        version: the external_identifier of the agent's version; `default` where none was given.
        session: the run's session.
        until: the first started_at (else inserted_at) that no longer counts, as stored text.
        error: text, in any case, in the run's error or termination reason, or in the result of a failed span.
        meta: pairs of a key of the run's metadata and its value as text; all must match. A dot in a key goes into an
            object.
        task: the run's task.
        tags: all of which the run has.
        scores: rules such as `reward>=1` (see analysis.outcomes), which the newest scores of the run fulfil.
        mark: the label of the run's newest mark; `*` for any.
        signature: the id of a failure, or of how a run ended, or the beginning of it (see schemas.signatures).
        ids: the only runs that count. `analysis.runs` turns scores, mark and signature into it, so that a
            storage that filters by itself finds them at None.
    """

    agent: str | None = None
    status: str | None = None
    since: str | None = None
    failed: bool = False
    grep: str | None = None
    git_commit: str | None = None
    version: str | None = None
    session: str | None = None
    until: str | None = None
    error: str | None = None
    meta: tuple[tuple[str, str], ...] = ()
    task: str | None = None
    tags: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    mark: str | None = None
    ids: frozenset[str] | None = None
    signature: str | None = None


def is_said_in(needle: str, *texts: str | None) -> bool:
    """Return whether one of these texts has the needle, in any case."""
    needle = needle.lower()
    return any(text is not None and needle in text.lower() for text in texts)


def has_meta(metadata: str | None, meta: Sequence[tuple[str, str]]) -> bool:
    """Return whether a run's metadata, a JSON text, has all of these values.

    Args:
        meta: pairs of a key and a value as text: a JSON string without its quotes, or any other JSON value.
    """
    found = None if metadata is None else jsontext.decode(metadata)
    return all(_as_text(found, key) == value for key, value in meta)


def _as_text(value: object, key: str) -> str | None:
    """Return a member as text; None if there is none. A key with dots is a member with that name first, then a path."""
    if not isinstance(value, dict):
        return None
    if key in value:
        member = value[key]
        return member if isinstance(member, str) else jsontext.encode(member)[0]
    head, dot, rest = key.partition(".")
    return _as_text(value.get(head), rest) if dot else None
