"""Writes small ZIP archives for tests, also with members that zstd compressed, which `zipfile` cannot write."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from struct import pack
from typing import Any

DEFLATED, ZSTD = 8, 93


def write_archive(path: Path, members: Mapping[str, Any], *, method: int = DEFLATED) -> Path:
    """Write an archive whose members are values as JSON, or bytes as they are."""
    body, directory = bytearray(), bytearray()
    for name, value in members.items():
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        packed = _packed(data, method)
        about = pack("<HHHHHIIIHH", 20, 0, method, 0, 33, zlib.crc32(data), len(packed), len(data), len(name), 0)
        directory += b"PK\x01\x02" + pack("<H", 20) + about + pack("<HHHII", 0, 0, 0, 0, len(body)) + name.encode()
        body += b"PK\x03\x04" + about + name.encode() + packed
    end = pack("<HHHHIIH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    path.write_bytes(bytes(body + directory) + b"PK\x05\x06" + end)
    return path


def _packed(data: bytes, method: int) -> bytes:
    if method == ZSTD:
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    press = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return press.compress(data) + press.flush()
