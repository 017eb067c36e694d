"""The bytes of an image, of audio, or of others in a payload, as an answer that no browser takes for a page."""

from starlette.responses import Response

from agentspan.blobs import ANY_TYPE, AUDIO, IMAGES, ending_of
from agentspan.errors import NotFound
from agentspan.model.rows import AgentSpanRow
from agentspan.viewer.blobs import blobs_of

POLICY = "default-src 'none'; sandbox"
"""For bytes that somebody opens in a tab of their own."""


def blob_response(span: AgentSpanRow, sha256: str) -> Response:
    """Return the bytes of a span that have this hash. What is neither image nor audio, or is an SVG, is a download.

    Raises:
        NotFound: the span has no such bytes.
    """
    found = next((blob for hash, blob in blobs_of(span) if hash == sha256), None)
    if found is None:
        raise NotFound("this span has no such bytes")
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    if found.media_type in IMAGES | AUDIO:
        return Response(found.data, headers=headers, media_type=found.media_type)
    headers["Content-Disposition"] = f'attachment; filename="{sha256[:16]}.{ending_of(found.media_type)}"'
    return Response(found.data, headers=headers, media_type=ANY_TYPE)
