"""Tells errors that a run raised itself from those of its steps, and failures that stayed from recovered ones.

For that, spans of runs are read, of at most READ_SPANS. A run beyond that counts like the first one that has the same
error and the same failed steps, or as if its steps had raised its error.

How a run ended comes from the steps that it used.
"""

import re
from collections.abc import Collection, Iterable, Mapping

from agentspan.analysis.failed_step import unrecovered
from agentspan.analysis.outcomes import Run
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow
from agentspan.schemas.aggregates import built_in_part
from agentspan.schemas.signatures import Signature, ending_signature, error_parts, passes_on, run_signature, signature
from agentspan.storage.answers import FailureSum, StepUse
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, SpansOf, StepUses
from agentspan.storage.scanning import scan


def ending_of(status: str, uses: Collection[StepUse]) -> Signature:
    """Return the signature of how a run ended.

    Args:
        status: the run's.
        uses: the steps that it used.
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
"""Spans that are read for one answer, at most."""

_ID = re.compile("[0-9a-f]{1,12}")


class OwnErrors:
    """Reads the spans of runs with failed steps, those of each run once.

    Args:
        sums: the failures of all runs that are asked for.
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
        """Return whether a run has an error that none of its steps raised, or only steps that it recovered from."""
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
        """Return whether each of these runs recovered from a failure; False where one of them is not read."""
        for run in runs:
            read = self._read(run)
            if read is None or signature_id in read[1]:
                return False
        return True

    def _read(self, run: Run) -> tuple[bool, frozenset[str]] | None:
        """Return whether a run's error is its own, and the signatures of the failures that it did not recover from."""
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
    """Return the ids of the runs with this failure; if no step failed like that, of those that ended like that.

    Args:
        beginning: of the signature's id.

    Raises:
        InvalidValue: it is no beginning of one.
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
