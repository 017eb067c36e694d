"""Exports runs as lines of JSON, for another file or another program; `agentspan import` restores them unchanged.

The first line identifies the format. Each further line is one row: the columns of its table and its `type`. A row comes
after all rows that it refers to. JSON columns are JSON; the violations of a span are a further member. A run is
followed by its tags, all its scores, and its spans. In the compact form (see maintenance.compact_lines) payloads are
split into pieces, so that repeated text is written once per run.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from agentspan import jsontext
from agentspan.maintenance import compact_lines
from agentspan.model.columns import json_columns
from agentspan.model.rows import TYPE_OF, AgentInstanceRow, AgentSpanRow, ResourceType, Row, ScoreRow, TagRow
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf, Violations
from agentspan.storage.row_by_row import history

BATCH = 500
"""The number of spans in memory at a time, whose violations are read together."""
FIRST = {"type": "agentspan_export", "version": 1}


def lines(storage: Storage, run_ids: Sequence[str], *, compact: bool = False) -> Iterator[str]:
    """Yield the lines of an export of runs, in ASCII, without line ends.

    Args:
        compact: write repeated text of payloads once per run.
    """
    yield json.dumps({**FIRST, "version": compact_lines.VERSION} if compact else FIRST)
    written: set[str] = set()
    for run_id in run_ids:
        run = storage.ask(Find(run_id, instance_id=run_id)).rows[run_id][1]
        assert isinstance(run, AgentInstanceRow)
        needed = (run.agent_id, run.agent_version_id, run.agent_schema_version_id, run.writer_id)
        yield from _once(storage, written, *needed, run.id)
        kept: Iterable[TagRow | ScoreRow] = chain(
            scan(storage, TagRow, {"agent_instance_id": run.id}), history(storage, run.id)
        )
        for row in kept:
            yield _line(TYPE_OF[type(row)], row, {})
        spans = storage.ask(SpansOf(run.id))
        cutter = compact_lines.Cutter() if compact else None
        while batch := list(islice(spans, BATCH)):
            found = storage.ask(Violations([span.id for span in batch], instance_id=run.id))
            for span in batch:
                yield from _once(storage, written, span.writer_id)
                violations = [violation._asdict() for violation in found[span.id]]
                more: dict[str, Any] = {"violations": violations} if violations else {}
                if cutter is not None:
                    more.update(_pieces(cutter, span))
                    if (new := cutter.line()) is not None:
                        yield json.dumps(new)
                yield _line("agent_span", span, more)


def _pieces(cutter: compact_lines.Cutter, span: AgentSpanRow) -> dict[str, Any]:
    result = span.result_payload
    return {
        "payload": cutter.pieces(span.payload),
        "result_payload": None if result is None else cutter.pieces(result),
    }


def _once(storage: Storage, written: set[str], *ids: str | None) -> Iterator[str]:
    for id in ids:
        if id is not None and id not in written:
            written.add(id)
            located = storage.ask(Find(id)).rows.get(id)
            if located is not None:
                yield _line(*located, {})


def _line(type_: ResourceType, row: Row, more: dict[str, Any]) -> str:
    of_json = json_columns(type_)
    values = {
        name: jsontext.decode(value) if name in of_json and isinstance(value, str) else value
        for name, value in row._asdict().items()
        if name not in more
    }
    return json.dumps({"type": type_, **values, **more})
