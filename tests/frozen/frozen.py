"""Compares a text with what a file of this folder has."""

import difflib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentspan.api.resources import AgentSpan

FOLDER = Path(__file__).parent
WRITES = "AGENTSPAN_TEST_FREEZE"
MOST_LINES = 60
_NULLS = re.compile(r'(?:, ?"\w+": ?null)+(?=, ?"purpose": ?"\w+", ?"payload_byte_size_estimate")')


def check(name: str, text: str) -> None:
    """Fail where a text differs from a file, with the lines that do."""
    path = FOLDER / name
    if os.environ.get(WRITES):
        path.write_text(text)
    known = path.read_text() if path.exists() else ""
    if text != known:
        lines = list(difflib.unified_diff(known.splitlines(), text.splitlines(), "frozen", "now", "", "", 0, ""))
        shown = "\n".join(line[:400] for line in lines[:MOST_LINES])
        raise AssertionError(f"{len(lines)} lines differ from {name}; if that is meant, run with {WRITES}=1\n{shown}")


def body(text: str) -> str:
    """Return the body of an answer without the last columns of spans where they are null.

    So a new column that is null changes no file. That each span has every field is asserted here.
    """
    if '"agent_span"' in text:
        for span in _spans(json.loads(text)):
            assert span.keys() - {"control"} == AgentSpan.model_fields.keys()
    return _NULLS.sub("", text)


def _spans(value: Any) -> Iterator[dict[str, Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(value, dict) and value.get("type") == "agent_span":
        yield value
    for each in inner:
        yield from _spans(each)
