"""Turns the conditions of a filter that are about scores or failures into the ids of the runs that fulfil them."""

from collections.abc import Iterator
from dataclasses import replace

from agentspan.analysis.outcomes import parse
from agentspan.analysis.own_errors import with_signature
from agentspan.model.scores import MARK
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import LatestScores
from agentspan.storage.run_filter import RunFilter

ANY_MARK = "*"


def by_ids(storage: Storage, filter: RunFilter) -> RunFilter:
    """Return the same filter with `ids` in the place of `scores`, `mark` and `signature`.

    Raises:
        InvalidValue: a score is no rule; the signature is none.
    """
    ids = filter.ids
    for each in _sets(storage, filter):
        ids = each if ids is None else ids & each
    return replace(filter, ids=ids, scores=(), mark=None, signature=None)


def _sets(storage: Storage, filter: RunFilter) -> Iterator[frozenset[str]]:
    rules = [*filter.scores]
    if filter.mark is not None and filter.mark != ANY_MARK:
        rules.append(f"{MARK}=={filter.mark}")
    for rule in map(parse, rules):
        scores = storage.ask(LatestScores(rule.name, rule.source))
        yield frozenset(id for id, score in scores.items() if rule.holds(score))
    if filter.mark == ANY_MARK:
        yield frozenset(storage.ask(LatestScores(MARK)))
    if filter.signature is not None:
        yield with_signature(storage, filter.signature)
