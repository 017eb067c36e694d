"""The style sheet and the script of the viewer's pages. The script is bundled from JavaScript modules.

The modules import each other by name. They are concatenated in order, without import and export statements. So a page
of a server needs one request, and an exported file, which cannot load modules, can embed the script.
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
"""The JavaScript modules in dependency order: each module comes after the modules that it imports."""

_IMPORT = re.compile(r"^import (?:\* as (\w+)|\{[^}]*\}) from \"\./(\w+)\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|class)", re.MULTILINE)
_NAMES = re.compile(r"^export (?:async )?(?:function|const|class) (\w+)", re.MULTILINE)


@cache
def text(name: str) -> str:
    """Return the text of a static file of the viewer."""
    return (files("agentspan.viewer") / "static" / name).read_text(encoding="utf-8")


@cache
def script() -> str:
    """Return the bundled script of the pages."""
    return "".join(_joined(name) for name in MODULES)


def style() -> str:
    """Return the style sheet of the pages."""
    return text("viewer.css") + text("media.css")


def shell() -> str:
    """Return the markup of a run's page, the same for each run."""
    return text("run.html")


@cache
def version() -> str:
    """Return a version of script and style sheet for their URLs: it changes whenever one of them changes."""
    return hashlib.sha256((script() + style()).encode()).hexdigest()[:12]


def source_hash(content: str) -> str:
    """Return the hash by which a Content-Security-Policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def embedded(value: Any) -> str:
    """Return a value as JSON text for a script element, escaped so that it cannot end the element or become markup."""
    dumped = json.dumps(value, separators=(",", ":"))  # ASCII: lone surrogates and line separators are escaped
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _joined(name: str) -> str:
    """Return a module wrapped in a function, so that other modules can only access the names that it exports."""
    source = text(f"{name}.js")
    exported = _NAMES.findall(source)
    wholes = [f"const {alias} = module_{of};\n" for alias, of in _IMPORT.findall(source) if alias]
    body = _EXPORT.sub("", _IMPORT.sub("", source))
    names = ", ".join(exported)
    head = f"const module_{name} = (() => {{\n" if exported else "{\n"
    tail = f"return {{ {names} }};\n}})();\nconst {{ {names} }} = module_{name};\n" if exported else "}\n"
    return f"// {name}.js\n{head}{''.join(wholes)}{body}{tail}"


def linked(span: AgentSpanRow) -> AgentSpanRow:
    """Return a span whose base64 data is replaced by texts such as `[image/png, 3.0 MB, SHA-256]`."""
    payload = _linked(span.payload)
    result = None if span.result_payload is None else _linked(span.result_payload)
    if payload is span.payload and result is span.result_payload:
        return span
    return span._replace(payload=payload, result_payload=result)


def blobs_of(span: AgentSpanRow) -> Iterator[tuple[str, Blob]]:
    """Yield the blobs in a span's payload and result, each with the hexadecimal SHA-256 of its bytes."""
    for text in (span.payload, span.result_payload or ""):
        for blob in blobs_in(text):
            yield sha256(blob.data).hexdigest(), blob


def _linked(text: str) -> str:
    return replaced(text, lambda blob: f"[{blob.description}, {sha256(blob.data).hexdigest()}]")
