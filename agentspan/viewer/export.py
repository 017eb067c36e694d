"""Exports runs as one self-contained HTML file: the viewer's page with embedded data, for a mail or an archive."""

from collections.abc import Iterator, Sequence
from html import escape

from agentspan.analysis import id_prefixes
from agentspan.blobs import IMAGES, encoded
from agentspan.errors import InvalidValue
from agentspan.journal.writers import Lives
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.access import whole_spans_of
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf
from agentspan.text import visible
from agentspan.viewer import assets, conversation, data
from agentspan.viewer.assets import blobs_of


def html(storage: Storage, run_ids: Sequence[str]) -> str:
    """Return runs as one self-contained HTML document.

    Args:
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
    runs = [id_prefixes.find_run(storage, run_id) for run_id in run_ids]
    facts = [data.run_facts(storage, run) for run in runs]
    name = f"{facts[0]['agent']} {facts[0]['version']}".strip() if len(runs) == 1 else f"{len(runs)} runs"
    yield _head(name)
    yield assets.shell()
    yield _block("data", facts)
    for run in runs:
        yield from _run(storage, run)
    yield f'<script type="module">{assets.script()}</script>\n</body>\n</html>\n'


def _run(storage: Storage, run: AgentInstanceRow) -> Iterator[str]:
    yield _block(f"spans-{run.id}", data.columns(storage, run, limit=None))
    yield _block(f"conversation-{run.id}", conversation.of_run(storage.ask(SpansOf(run.id))))
    yield _block(f"stats-{run.id}", data.statistics(storage, run.id))
    yield f'<script id="details-{run.id}" type="application/json">['
    # Payloads are most of the document: read few at a time, without a read transaction that a slow client keeps open.
    comma, lives = "", Lives(storage)
    for spans in whole_spans_of(storage, run.id):
        for detail in data.details(storage, spans, lives):
            yield comma + assets.embedded(detail)
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
                yield f'{"," if seen else ""}"{hash}":{assets.embedded(url)}'
                seen.add(hash)
    yield "}</script>\n"


def _head(name: str) -> str:
    # The policy lets the file load and send nothing; only the viewer's own script and style may run.
    policy = (
        f"default-src 'none'; script-src {assets.source_hash(assets.script())}; "
        f"style-src {assets.source_hash(assets.style())}; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{escape(visible(name))}</title>\n<style>{assets.style()}</style>\n</head>\n"
        '<body data-page="file" data-view="tree" data-read-only="true">\n'
    )


def _block(id: str, value: object) -> str:
    return f'<script id="{id}" type="application/json">{assets.embedded(value)}</script>\n'
