"""Distinguishes a run's own errors from errors of its steps, and lasting failures from recovered ones.

It reads the spans of runs, at most READ_SPANS of them. A run beyond this limit is judged like the first run with the
same error and the same failed steps; without such a run, its error counts as raised by a step.

Also computes the signature of how a run ended, from the steps that the run used.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from agentspan.analysis.failed_step import unrecovered
from agentspan.analysis.outcomes import Run
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow
from agentspan.schemas.aggregates import built_in_part
from agentspan.schemas.signatures import Signature, ending_signature, error_parts, passes_on, run_signature, signature
from agentspan.storage.access import scan
from agentspan.storage.answers import FailureSum, StepUse
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, SpansOf, StepUses


def ending_of(status: str, uses: Collection[StepUse]) -> Signature:
    """Return the signature of how a run ended.

    Args:
        status: the status of the run.
        uses: the steps that the run used.
    """
    in_time = sorted(uses, key=lambda use: (use.last_at, use.schema_name, use.label or ""), reverse=True)
    step = in_time[0] if in_time else None
    tool = next((use for use in in_time if use.label and built_in_part(use.schema_name) == "tool"), None)
    model = next((use for use in in_time if use.reason is not None), None)
    return ending_signature(
        status,
        None if tool is None else tool.label,
        None if step is None else step.schema_name,
        None if model is None else model.reason,
    )


READ_SPANS = 20_000
"""The largest number of spans that one OwnErrors reads."""

_ID = re.compile("[0-9a-f]{1,12}")


class OwnErrors:
    """Decides whether errors are a run's own, and whether a run recovered. Reads the spans of each run at most once.

    Args:
        sums: the failures of all runs that will be examined.
    """

    def __init__(self, storage: Storage, sums: Iterable[FailureSum]) -> None:
        self._storage = storage
        self._failures: dict[str, set[str]] = {}
        for each in sums:
            self._failures.setdefault(each.run_id, set()).add(each.signature.id)
        self._lasting: dict[str, tuple[bool, frozenset[str]]] = {}
        self._alike: dict[tuple[str, frozenset[str]], bool] = {}
        self._room = READ_SPANS

    def is_own(self, run: Run) -> bool:
        """Return whether a run has an error of its own, which no unrecovered step raised."""
        own = run_signature(run.error)
        if own is None:
            return False
        failures = frozenset(self._failures.get(run.id, ()))
        if not failures:
            return True
        read = self._read(run)
        if read is None:
            return self._alike.get((own.id, failures), False)
        self._alike.setdefault((own.id, failures), read[0])
        return read[0]

    def recovered_in_all(self, signature_id: str, runs: Iterable[Run]) -> bool:
        """Return whether every run recovered from all failures with a signature; False if a run could not be read."""
        for run in runs:
            read = self._read(run)
            if read is None or signature_id in read[1]:
                return False
        return True

    def _read(self, run: Run) -> tuple[bool, frozenset[str]] | None:
        """Return whether a run's error is its own, and its unrecovered failures' signatures; None over the limit."""
        if run.id not in self._lasting:
            if self._room <= 0:
                return None
            spans = [*self._storage.ask(SpansOf(run.id))]
            self._room -= len(spans)
            lasting = unrecovered(spans)
            error = error_parts(run.error)
            raised = any(passes_on(error, error_parts(span.result_payload)) for span in lasting)
            self._lasting[run.id] = not raised, frozenset(signature(span).id for span in lasting)
        return self._lasting[run.id]


def with_signature(storage: Storage, beginning: str) -> frozenset[str]:
    """Return the ids of the runs with a signature: of a failed step, else of their own error or of how they ended.

    Args:
        beginning: the first characters of the signature's id.

    Raises:
        InvalidValue: `beginning` is not 1 to 12 hexadecimal digits.
    """
    beginning = beginning.lower()
    if _ID.fullmatch(beginning) is None:
        raise InvalidValue(
            "signature", "must be the beginning of a signature as `agentspan why` shows it, such as 302c"
        )
    runs = {run.id: run for run in scan(storage, AgentInstanceRow)}
    sums = storage.ask(FailureSums(runs.keys()))
    found = frozenset(each.run_id for each in sums if each.signature.id.startswith(beginning))
    if found:
        return found
    own = _with_own_error(runs, OwnErrors(storage, sums), beginning)
    quiet = [id for id in runs.keys() - {each.run_id for each in sums} if run_signature(runs[id].error) is None]
    uses: dict[str, list[StepUse]] = {id: [] for id in quiet}
    for use in storage.ask(StepUses(quiet)):
        uses[use.run_id].append(use)
    return own | {id for id in quiet if ending_of(runs[id].status, uses[id]).id.startswith(beginning)}


def _with_own_error(runs: Mapping[str, AgentInstanceRow], errors: OwnErrors, beginning: str) -> frozenset[str]:
    named: Collection[AgentInstanceRow] = [
        run for run in runs.values() if (own := run_signature(run.error)) is not None and own.id.startswith(beginning)
    ]
    return frozenset(run.id for run in named if errors.is_own(run))
