"""Exports runs as one self-contained HTML file, the viewer's page with embedded data; and the files of that page.

The script is bundled from JavaScript modules, which import each other by name. They are concatenated in order, without
import and export statements, and without comments, which are a third of them. So a page of a server needs one request,
and an exported file, which cannot load modules, can embed the script.
"""

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from agentspan.analysis import by_name
from agentspan.blobs import IMAGES, encoded
from agentspan.errors import InvalidValue
from agentspan.journal.writers import Lives
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.access import whole_spans_of
from agentspan.storage.protocol import Storage
from agentspan.text import visible
from agentspan.viewer import conversation, data
from agentspan.viewer.conversation import blobs_of

EXPLAINED = 20
"""The largest number of runs of a file that say why they failed; comparing one with passing runs takes up to 0.6 s."""


def html(storage: Storage, run_ids: Sequence[str]) -> str:
    """Return runs as one self-contained HTML document.

    Args:
        storage: the storage with the runs, such as `agentspan.open().storage`.
        run_ids: ids, unique prefixes of ids, or `-` for the latest run; at least one.

    Raises:
        NotFound: a run does not exist.
        InvalidValue: `run_ids` is empty, or a prefix is not unique.
    """
    return "".join(parts(storage, run_ids))


def parts(storage: Storage, run_ids: Sequence[str]) -> Iterator[str]:
    """Yield the self-contained HTML document of runs in pieces, so that it need not fit in memory."""
    if not run_ids:
        raise InvalidValue("run_ids", "must name at least one run")
    runs = [by_name.find_run(storage, run_id) for run_id in run_ids]
    facts = [data.run_facts(storage, run) for run in runs]
    name = f"{facts[0]['agent']} {facts[0]['version']}".strip() if len(runs) == 1 else f"{len(runs)} runs"
    yield _head(name)
    yield text("file.html") + shell()
    yield _block("data", facts)
    for number, run in enumerate(runs):
        yield from _run(storage, run)
        yield _block(f"why-{run.id}", data.why(storage, run) if number < EXPLAINED else {"why": None})
    yield f'<script type="module">{script()}</script>\n</body>\n</html>\n'


def _run(storage: Storage, run: AgentInstanceRow) -> Iterator[str]:
    yield _block(f"spans-{run.id}", data.columns(storage, run, limit=None))
    yield _block(f"conversation-{run.id}", conversation.stored(storage, run)._asdict())
    yield _block(f"stats-{run.id}", data.statistics(storage, run.id))
    yield _block(f"own-{run.id}", data.own_times(storage, run.id))
    yield f'<script id="details-{run.id}" type="application/json">['
    # Payloads are most of the document: read few at a time, without a read transaction that a slow client keeps open.
    comma, lives = "", Lives(storage)
    for spans in whole_spans_of(storage, run.id):
        for detail in data.details(storage, spans, lives):
            yield comma + embedded(detail)
            comma = ","
    yield "]</script>\n"
    yield from _images(storage, run.id)


def _images(storage: Storage, run_id: str) -> Iterator[str]:
    """Yield a script element with the images of a run as data URLs, each once, by the SHA-256 of its bytes."""
    yield f'<script id="blobs-{run_id}" type="application/json">{{'
    seen: set[str] = set()
    for spans in whole_spans_of(storage, run_id):
        for hash, blob in (found for span in spans for found in blobs_of(span)):
            if hash not in seen and blob.media_type in IMAGES:
                url = f"data:{blob.media_type};base64,{encoded(blob.data)}"
                yield f'{"," if seen else ""}"{hash}":{embedded(url)}'
                seen.add(hash)
    yield "}</script>\n"


def _head(name: str) -> str:
    # The policy lets the file load and send nothing; only the viewer's own script and style may run.
    policy = (
        f"default-src 'none'; script-src {source_hash(script())}; "
        f"style-src {source_hash(style())}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(visible(name))}</title>\n<style>{style()}</style>\n</head>\n"
        '<body data-page="file" data-view="tree" data-read-only="true">\n'
    )


def _block(id: str, value: object) -> str:
    return f'<script id="{id}" type="application/json">{embedded(value)}</script>\n'


_IMPORT = re.compile(r"^import (?:\* as (\w+)|\{[^}]*\}) from \"\./(\w+)\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function|const|class)", re.MULTILINE)
_NAMES = re.compile(r"^export (?:async )?(?:function|const|class) (\w+)", re.MULTILINE)
_COMMENT = re.compile(r"^[ \t]*(?:/\*\*(?:(?!\*/).)*\*/|//[^\n]*)\n", re.MULTILINE | re.DOTALL)
"""A comment on lines of its own. No text in the modules has such lines."""


@cache
def text(name: str) -> str:
    """Return the text of a static file of the viewer."""
    return (files("agentspan.viewer") / "static" / name).read_text(encoding="utf-8")


@cache
def modules() -> tuple[str, ...]:
    """Return the names of the JavaScript modules in dependency order: each comes after the modules that it imports."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for _, imported in _IMPORT.findall(text(f"{name}.js")):
            if imported not in found:
                add(imported)
        found[name] = None

    add("main")
    return tuple(found)


@cache
def script() -> str:
    """Return the bundled script of the pages."""
    return "".join(map(_joined, modules()))


def style() -> str:
    """Return the style sheet of the pages."""
    return text("viewer.css") + text("pages.css") + text("media.css")


def shell() -> str:
    """Return the markup of a run's page, the same for each run."""
    return text("run.html")


@cache
def version() -> str:
    """Return a version of script and style sheet for their URLs: it changes whenever one of them changes."""
    return hashlib.sha256((script() + style()).encode()).hexdigest()[:12]


@cache
def packed(content: str) -> bytes:
    """Return the script or the style sheet compressed by gzip: a quarter of it."""
    return gzip.compress(content.encode(), mtime=0)


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
    body = _COMMENT.sub("", _EXPORT.sub("", _IMPORT.sub("", source)))
    names = ", ".join(exported)
    head = f"const module_{name} = (() => {{\n" if exported else "{\n"
    tail = f"return {{ {names} }};\n}})();\nconst {{ {names} }} = module_{name};\n" if exported else "}\n"
    return f"// {name}.js\n{head}{''.join(wholes)}{body}{tail}"
