"""A run as text that is equal for each recording of the same behaviour, also with real ids and times.

The marks are not those of the command line: a stored text must stay valid if the command line's marks change.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from agentspan import jsontext
from agentspan.analysis.tree import build, walk
from agentspan.figures import duration_text
from agentspan.model.rows import AgentInstanceRow, AgentSchemaVersionRow, AgentSpanRow
from agentspan.schemas.meaning import error_of, error_text, error_type
from agentspan.schemas.span_types import Registry, from_schemas
from agentspan.schemas.templates import MAX_INLINE, inline
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf
from agentspan.text import one_line, printable

MARKS = {"pending": "◌", "active": "●", "complete": "✓", "failed": "✗", "cancelled": "○", "terminated": "■"}
MAX_NAME = 80

_ID_CHARACTER = "[0-9abcdefghjkmnpqrstvwxyz]"
_ID = re.compile(rf"(?<![0-9a-z])[0-7]{_ID_CHARACTER}{{31}}(?![0-9a-z])")
_CUT_ID = re.compile(rf"(?<![0-9a-z])([0-7]{_ID_CHARACTER}{{3,30}})…")  # shorter ones are the same for years
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]*…?")


def run_text(storage: Storage, row: AgentInstanceRow, title: str, *, payloads: bool) -> str:
    """Return a run as text; see agentspan.testing.snapshot.

    Args:
        title: the agent's name, and its version.
    """
    nodes = list(walk(build(storage.ask(SpansOf(row.id)))))
    registry = _registry(storage, row)
    metadata, result, error = (_decoded(text) for text in (row.metadata, row.result, row.error))
    lines = [f"{MARKS[row.status]} {_with_error(title, error)}"]
    if payloads:
        members = {"metadata": metadata, "result": result, "error": _without_stacktrace(error)}
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
    return _ADDRESS.sub("at 0x…", _without_ids(text, ids, storage))


def run_title(name: str, version: str | None) -> str:
    """Return the title of a run: the agent's name, and its version if it has one."""
    return " ".join(one_line(text, MAX_NAME) for text in (name, version) if text is not None)


def _decoded(text: str | None) -> Any:
    return None if text is None else jsontext.decode(text)


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
    return _with_error(text, None if result is None or span.status != "failed" else error_of(result))


def _with_error(text: str, error: Any) -> str:
    """Append the type of an error to a line. It replaces the error message that a summary may end in."""
    if error is None:
        return text
    arrow = f" → {error_type(error) or 'error'}"
    whole = f" → {inline(error_text({'error': error}) or '', MAX_INLINE)}"  # as the built-in types have it
    if text.endswith(whole):
        return text.removesuffix(whole) + arrow
    return (text.rpartition(arrow)[0] or text) + arrow


def _payloads(span: AgentSpanRow) -> dict[str, Any]:
    result = None if span.result_payload is None else jsontext.decode(span.result_payload)
    if isinstance(result, dict) and "error" in result:
        result = {**result, "error": _without_stacktrace(result["error"])}
    elif error_of(result) is not None:
        result = _without_stacktrace(result)
    return {"payload": jsontext.decode(span.payload), "result": result}


def _without_stacktrace(error: Any) -> Any:
    return {k: v for k, v in error.items() if k != "stacktrace"} if isinstance(error, dict) else error


def _json_lines(margin: str, members: Mapping[str, Any]) -> Iterator[str]:
    for name, value in members.items():
        if value is not None:
            yield f"{margin}   {name} {json.dumps(value, sort_keys=True, ensure_ascii=False)}"


def _registry(storage: Storage, run: AgentInstanceRow) -> Registry:
    """Return the span types that a run was registered with."""
    version = storage.ask(Find(run.agent_schema_version_id)).rows[run.agent_schema_version_id][1]
    return from_schemas(version.span_type_schemas if isinstance(version, AgentSchemaVersionRow) else "[]")


def _without_ids(text: str, ids: dict[str, str], storage: Storage) -> str:
    """Replace the ids of stored resources. Other text in the form of an id (half of all MD5 sums) stays."""
    names = dict(ids)
    found = dict.fromkeys(_ID.findall(text))  # each once, in the order of the text
    others = storage.ask(Find(*(id for id in found if id not in ids))).rows
    names |= {id: f"<id {number}>" for number, id in enumerate((id for id in found if id in others), 1)}
    text = _ID.sub(lambda match: names.get(match[0], match[0]), text)
    return _CUT_ID.sub(lambda cut: "<id…" if any(id.startswith(cut[1]) for id in names) else cut[0], text)
