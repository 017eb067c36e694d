"""A run as text that is equal for each recording of the same behaviour, also with real ids and times.

The marks are not those of the command line: a stored text must stay valid if the command line's marks change.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from agentspan import jsontext
from agentspan.analysis.tree import build, walk
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow, AgentSpanRow
from agentspan.schemas.meaning import duration_text, error_text
from agentspan.schemas.span_types import Registry, from_schemas
from agentspan.schemas.templates import MAX_INLINE, inline
from agentspan.storage.protocol import Storage
from agentspan.text import one_line, printable

if TYPE_CHECKING:
    from agentspan.testing.run import CapturedRun

MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
MAX_NAME = 80

_ID_CHARACTER = "[0-9abcdefghjkmnpqrstvwxyz]"
_ID = re.compile(rf"(?<![0-9a-z])[0-7]{_ID_CHARACTER}{{31}}(?![0-9a-z])")
_CUT_ID = re.compile(rf"(?<![0-9a-z])([0-7]{_ID_CHARACTER}{{3,30}})…")  # shorter ones are the same for years
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]*…?")


def snapshot(run: "CapturedRun", *, payloads: bool = False) -> str:
    """Return a run as text: a line for the run, and one for each span with status, type, summary and type of error.

        ✓ researcher 1.2
        ├─✓ tool · Tool search(query=flights) → ["a page about flights"]
        └─✗ llm · LLM gpt-4.1 → TimeoutError

    Two recordings of the same behaviour have the same text. Times, durations, error messages and stack traces are left
    out. Ids are replaced by `<run>`, `<span 2>` (the second span of the tree) and `<id 1>` (another resource of the
    storage), and addresses of objects by `at 0x…`. Spans are in the order in which they began, which can differ if
    threads race.

    Args:
        run: the run; in pytest `captured_runs.one()`.
        payloads: add payloads and results as JSON with sorted keys. They contain error messages.
    """
    row, rows = run._rows()
    nodes = list(walk(build(rows)))
    registry = _registry(run._storage, row)
    lines = [f"{MARKS[row.status]} {_with_error(_run_title(run), run.error)}"]
    if payloads:
        members = {"metadata": run.metadata, "result": run.result, "error": _without_stacktrace(run.error)}
        lines += _json_lines("│ " if nodes else "  ", members)
    for node, lasts in nodes:
        above = "".join("  " if last else "│ " for last in lasts[:-1])
        branch = "└─" if lasts[-1] else "├─"
        lines.append(f"{above}{branch}{MARKS[node.span.status]} {_line(node.span, registry)}")
        if payloads:
            below = above + ("  " if lasts[-1] else "│ ") + ("│ " if node.children else "  ")
            lines += _json_lines(below, _payloads(node.span))
    text = printable("\n".join(lines), keep="\n")
    ids = {row.id: "<run>"} | {node.span.id: f"<span {number}>" for number, (node, _) in enumerate(nodes, 1)}
    return _ADDRESS.sub("at 0x…", _without_ids(text, ids, run._storage))


def _run_title(run: "CapturedRun") -> str:
    name = one_line(run.name, MAX_NAME)
    return name if run.version is None else f"{name} {one_line(run.version, MAX_NAME)}"


def _line(span: AgentSpanRow, registry: Registry) -> str:
    """Return `type · summary → error`; without a summary the span's name, if it has one."""
    result = None if span.result_payload is None else jsontext.decode(span.result_payload)
    shown = span.summary or ""
    if shown and span.duration_ms is not None and "_duration" in (registry.resolve(span.schema_name).template or ""):
        shown = shown.replace(duration_text(span.duration_ms), "<duration>")
    if not shown:
        name = span.label or jsontext.decode(span.payload).get("name")
        shown = one_line(name, MAX_NAME) if isinstance(name, str) and name != span.schema_name else ""
    text = f"{span.schema_name} · {shown}" if shown else span.schema_name
    return _with_error(text, None if result is None or span.status != "failed" else result.get("error"))


def _with_error(text: str, error: Any) -> str:
    """Append the type of an error to a line. It replaces the error message that a summary may end in."""
    if error is None:
        return text
    type_ = error.get("type") if isinstance(error, dict) else None
    arrow = f" → {type_.rpartition('.')[2] if isinstance(type_, str) else 'error'}"
    whole = f" → {inline(error_text({'error': error}) or '', MAX_INLINE)}"  # as the built-in types have it
    if text.endswith(whole):
        return text.removesuffix(whole) + arrow
    return (text.rpartition(arrow)[0] or text) + arrow


def _payloads(span: AgentSpanRow) -> dict[str, Any]:
    result = None if span.result_payload is None else jsontext.decode(span.result_payload)
    if result is not None and "error" in result:
        result = {**result, "error": _without_stacktrace(result["error"])}
    return {"payload": jsontext.decode(span.payload), "result": result}


def _without_stacktrace(error: Any) -> Any:
    return {k: v for k, v in error.items() if k != "stacktrace"} if isinstance(error, dict) else error


def _json_lines(margin: str, members: Mapping[str, Any]) -> Iterator[str]:
    for name, value in members.items():
        if value is not None:
            yield f"{margin}   {name} {json.dumps(value, sort_keys=True, ensure_ascii=False)}"


def _registry(storage: Storage, run: AgentInstanceRow) -> Registry:
    """Return the span types that a run was registered with."""
    version = storage.find(run.agent_schema_version_id).rows[run.agent_schema_version_id][1]
    return from_schemas(version.span_type_schemas if isinstance(version, AgentSchemaVersionRow) else "[]")


def _without_ids(text: str, ids: dict[str, str], storage: Storage) -> str:
    """Replace the ids of stored resources. Other text in the form of an id (half of all MD5 sums) stays."""
    names = dict(ids)
    found = dict.fromkeys(_ID.findall(text))  # each once, in the order of the text
    others = storage.find(*(id for id in found if id not in ids)).rows
    names |= {id: f"<id {number}>" for number, id in enumerate((id for id in found if id in others), 1)}
    text = _ID.sub(lambda match: names.get(match[0], match[0]), text)
    return _CUT_ID.sub(lambda cut: "<id…" if any(id.startswith(cut[1]) for id in names) else cut[0], text)
