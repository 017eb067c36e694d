"""Images, audio and other bytes in payloads, for pages: a page has their type, size and hash, and asks for the bytes.

A payload may say the same as what stands for a blob. Then the page asks for bytes that the span does not have.
"""

from collections.abc import Iterator
from hashlib import sha256

from agentspan.blobs import Blob, blobs_in, replaced
from agentspan.model.rows import AgentSpanRow


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
