"""Runs as a dataset for evaluations: a JSON object a line, with what a run was given, had to return and did return."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from agentspan import jsontext
from agentspan.analysis.runs import Name, names_of
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.model.status import FINISH_STATUSES
from agentspan.storage.protocol import Storage
from agentspan.storage.scanning import scan
from agentspan.storage.scores import Said, said_of

BATCH = 100
"""Runs whose names, tags and scores are read together."""
EXPECTED = ("expected_output", "expected", "reference_output", "reference", "ground_truth")
"""Members of the metadata that say what a run had to return; the first that is there counts."""
ABOUT = frozenset({"task", "session", "user", "tags", *EXPECTED})
"""Members of the metadata that are no input: they have members of their own."""

_GONE = ("agent_instance", None)


def lines(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield a line for each of these runs, in ASCII, without line ends."""
    ids = iter(run_ids)
    while batch := list(islice(ids, BATCH)):
        found = storage.find(*batch).rows
        runs = [row for id in batch if isinstance(row := found.get(id, _GONE)[1], AgentInstanceRow)]
        names, said = names_of(storage, runs), said_of(storage, batch)
        for run in runs:
            yield json.dumps(_example(storage, run, names[run.id], said[run.id]))


def _example(storage: Storage, run: AgentInstanceRow, name: Name, said: Said) -> dict[str, Any]:
    metadata = {} if run.metadata is None else jsontext.decode(run.metadata)
    first, last = (None, None) if run.result is not None and metadata else _ends(storage, run.id)
    expected = next((metadata[member] for member in EXPECTED if member in metadata), None)
    return {
        "id": run.id,
        "external_identifier": run.external_identifier,
        "agent": name.agent,
        "version": name.version,
        "task": run.task,
        "session": run.session,
        "user": run.user,
        "tags": said.tags,
        "status": run.status,
        "started_at": run.started_at,
        "duration_ms": run.duration_ms,
        "git_commit": run.git_commit,
        "input": _input(metadata, first),
        "expected_output": expected,
        "output": _output(run, last),
        "error": None if run.error is None else jsontext.decode(run.error),
        "scores": {
            score.name: {
                "value": score.value,
                "label": score.label,
                "source": score.source,
                "identifier": score.identifier,
                "explanation": score.explanation,
            }
            for score in said.scores
        },
    }


def _ends(storage: Storage, run_id: str) -> tuple[AgentSpanRow | None, AgentSpanRow | None]:
    """Return the first span of a run that is in no other, and the last such that has finished."""
    top = {"agent_instance_id": run_id, "parent_span_id": None}
    first = next(scan(storage, AgentSpanRow, top, limit=1), None)
    ended = (span for span in scan(storage, AgentSpanRow, top, descending=True) if span.status in FINISH_STATUSES)
    return first, next(ended, None)


def _input(metadata: Mapping[str, Any], first: AgentSpanRow | None) -> Any:
    """Return the input: the metadata's member `input`, else what of it is no other member, else the first payload."""
    if "input" in metadata:
        return metadata["input"]
    given = {name: value for name, value in metadata.items() if name not in ABOUT}
    return given or (None if first is None else jsontext.decode(first.payload))


def _output(run: AgentInstanceRow, last: AgentSpanRow | None) -> Any:
    """Return the output: the run's result (its `output`, if it has no other member), else that of its last step."""
    text = run.result if run.result is not None else None if last is None else last.result_payload
    result = None if text is None else jsontext.decode(text)
    return result["output"] if isinstance(result, dict) and result.keys() == {"output"} else result
