"""Decompresses bodies: gzip and deflate, never more than a limit of bytes."""

import re
import zlib

from agentspan.errors import InvalidValue
from agentspan.otel.otlp.decoded import BodyTooLarge

MAX_BODY = 20 * 2**20
"""Bytes of a body without its compression, unless the caller says otherwise."""
MAX_MEMBERS = 1000
"""Members of a gzip body: several files, one after the other. Each takes 40 kB and some microseconds to begin."""
_GZIP, _ZLIB, _RAW = 31, 15, -15
_ZEROS = re.compile(rb"\0*")
_CHUNK = 16 * 2**10
"""Bytes that are decompressed at once. zlib copies what follows the end of a member."""


def plain(body: bytes, encoding: str | None, limit: int = MAX_BODY) -> bytes:
    """Return a body without its compression.

    Args:
        body: as it was sent.
        encoding: its Content-Encoding: `gzip`, `deflate`, `identity` or None.
        limit: bytes of the result. No more than these are ever decompressed.

    Raises:
        BodyTooLarge: there are more.
        InvalidValue: it is not of this encoding, or cut off; or the encoding is another one.
    """
    encoding = (encoding or "identity").strip().lower()
    if encoding == "identity":
        found = body
        if len(found) > limit:
            raise _too_large(limit)
        return found
    if encoding == "gzip":
        return _inflated(body, _GZIP, limit)
    if encoding == "deflate":
        return _inflated(body, _ZLIB if _has_zlib_header(body) else _RAW, limit)
    raise InvalidValue("Content-Encoding", "must be gzip, deflate or identity")


def is_gzip(body: bytes) -> bool:
    """Return whether a body begins as gzip does."""
    return body[:2] == b"\x1f\x8b"


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 15 == 8 and int.from_bytes(body[:2]) % 31 == 0


def _inflated(body: bytes, bits: int, limit: int) -> bytes:
    parts: list[bytes] = []
    size = at = members = 0
    end = len(body)
    while at < end:  # gzip may have several members
        members += 1
        if members > MAX_MEMBERS:
            raise InvalidValue("body", f"has more than {MAX_MEMBERS:,} members of gzip")
        stream = zlib.decompressobj(bits)
        while not stream.eof:
            if at >= end:
                raise InvalidValue("body", "is cut off: its compression does not end")
            chunk = body[at : at + _CHUNK]
            try:
                part = stream.decompress(chunk, limit - size + 1)
            except zlib.error:
                raise InvalidValue("body", "is not compressed as its Content-Encoding says") from None
            parts.append(part)
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            at += len(chunk) - len(stream.unused_data)
        if bits != _GZIP:
            break
        at = _ZEROS.match(body, at).end()  # type: ignore[union-attr]
    return b"".join(parts)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge("body", f"has more than {limit:,} bytes without its compression")
