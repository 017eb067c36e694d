"""The style sheet and the script of the pages. The script is joined from modules.

The modules import each other by name. Joined in order, with the import and export words left out, they are one module:
a single request for a server's page, and all that an exported file can hold, which cannot load modules.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from agentspan.blobs import Blob, blobs_in, replaced
from agentspan.model.rows import AgentSpanRow

MODULES = (
    "visible",
    "dom",
    "format",
    "theme",
    "source",
    "lost",
    "longtext",
    "jsontext",
    "json",
    "blobs",
    "messages",
    "failures",
    "spans",
    "axis",
    "tree",
    "cache",
    "parts",
    "detail",
    "conversation",
    "stats",
    "search",
    "keys",
    "print",
    "run",
    "found",
    "runs",
    "main",
)
"""In an order in which each comes after those that it imports."""

_IMPORT = re.compile(r"^import (?:\* as (\w+)|\{[^}]*\}) from \"\./(\w+)\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|class)", re.MULTILINE)
_NAMES = re.compile(r"^export (?:async )?(?:function|const|class) (\w+)", re.MULTILINE)


@cache
def text(name: str) -> str:
    """Return a file of the page."""
    return (files("agentspan.viewer") / "static" / name).read_text(encoding="utf-8")


@cache
def script() -> str:
    """Return the whole script."""
    return "".join(_joined(name) for name in MODULES)


def style() -> str:
    """Return the whole style sheet."""
    return text("viewer.css") + text("media.css")


def shell() -> str:
    """Return the markup of a run's page, the same for each run."""
    return text("run.html")


@cache
def version() -> str:
    """Return a text that changes with the files, for their addresses."""
    return hashlib.sha256((script() + style()).encode()).hexdigest()[:12]


def source_hash(content: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def embedded(value: Any) -> str:
    """Return JSON for a script element: nothing in it can end the element, or be taken for markup."""
    dumped = json.dumps(value, separators=(",", ":"))  # ASCII: lone surrogates and line separators are escaped
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _joined(name: str) -> str:
    """Return a module as a block of its own, so that only what it exports is seen by the others."""
    source = text(f"{name}.js")
    exported = _NAMES.findall(source)
    wholes = [f"const {alias} = module_{of};\n" for alias, of in _IMPORT.findall(source) if alias]
    body = _EXPORT.sub("", _IMPORT.sub("", source))
    names = ", ".join(exported)
    head = f"const module_{name} = (() => {{\n" if exported else "{\n"
    tail = f"return {{ {names} }};\n}})();\nconst {{ {names} }} = module_{name};\n" if exported else "}\n"
    return f"// {name}.js\n{head}{''.join(wholes)}{body}{tail}"


def linked(span: AgentSpanRow) -> AgentSpanRow:
    """Return a span with `[image/png, 3.0 MB, SHA-256]` in the place of the base64 in its payloads."""
    payload = _linked(span.payload)
    result = None if span.result_payload is None else _linked(span.result_payload)
    if payload is span.payload and result is span.result_payload:
        return span
    return span._replace(payload=payload, result_payload=result)


def blobs_of(span: AgentSpanRow) -> Iterator[tuple[str, Blob]]:
    """Yield the blobs of a span, each with the SHA-256 of its bytes in hexadecimal digits."""
    for text in (span.payload, span.result_payload or ""):
        for blob in blobs_in(text):
            yield sha256(blob.data).hexdigest(), blob


def _linked(text: str) -> str:
    return replaced(text, lambda blob: f"[{blob.description}, {sha256(blob.data).hexdigest()}]")
