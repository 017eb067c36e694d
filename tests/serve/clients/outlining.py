"""Writes the stored spans of a run as an outline: name, label, tokens, status, late end, error, violation of each."""

import sqlite3
from contextlib import closing
from pathlib import Path

QUERY = """
select v.*, s.ended_late from spans v join agent_spans s on s.id = v.span
where v.run = ? order by s.inserted_at, v.started_at
"""


def outline(db: Path, run: str) -> str:
    """Return the outline of a run's spans, in the order in which they arrived: parents come before their children."""
    with closing(sqlite3.connect(db)) as connection:
        connection.row_factory = sqlite3.Row
        spans = connection.execute(QUERY, (run,)).fetchall()
        found = connection.execute("select agent_span_id, path, keyword from schema_violations").fetchall()
    violations = {id: f", violates {keyword} of {path}" for id, path, keyword in found}
    depths: dict[str | None, int] = {None: 0}
    lines = []
    for span in spans:
        depths[span["span"]] = depths[span["parent"]] + 1
        lines.append("  " * depths[span["parent"]] + _line(span) + violations.get(span["span"], ""))
    return "\n".join(lines)


def _line(span: sqlite3.Row) -> str:
    label = f" {span['label']}" if span["label"] else ""
    tokens = "" if span["input_tokens"] is None else f" {span['input_tokens']}→{span['output_tokens']}"
    error = f": {span['error']}" if span["error"] else ""
    closed = f", {span['closed_by']}" if span["closed_by"] else ""
    late = ", ended late" if span["ended_late"] else ""
    return f"{span['type']}{label}{tokens}: {span['status']}{closed}{late}{error}"
