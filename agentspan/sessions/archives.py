"""Reads the members of ZIP archives, also of members that zstd compressed, and of archives that end too early.

`zipfile` reads the directory. It does not decompress zstd (method 93) before Python 3.14, and it raises an error for an
archive without a directory. So members are decompressed here. Of an archive without a directory, the whole members are
found by their own headers.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from struct import error as StructError
from struct import unpack_from
from typing import IO, NamedTuple
from zipfile import ZIP64_LIMIT, BadZipFile, ZipFile

from agentspan.sessions.reading import zstd_decoder

STORED, DEFLATED, ZSTD = 0, 8, 93
MOST_BYTES = 2**30
"""The most bytes of a member, decompressed."""
_HEAD = b"PK\x03\x04"
_HEAD_BYTES = 30
_PART = 2**14  # zstd makes up to 30,000 bytes of one
_HAS_SIZES_BEHIND = 8
"""The bit of a header's flags for sizes that stand behind the data."""


class Member(NamedTuple):
    """A member of an archive.

    Attributes:
        name: its name.
        offset: the place of its header.
        method: its compression.
        packed, size, check: its compressed and decompressed size in bytes, and its CRC-32.
    """

    name: str
    offset: int
    method: int
    packed: int
    size: int
    check: int


class Archive:
    """An open ZIP archive.

    Args:
        path: the file.

    Attributes:
        members: the members by name, in the order of the file. Of two with the same name, the later one counts.
        all: all members, in the order of the directory.
        is_whole: False if the archive has no directory, because its end is missing.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = open(path, "rb")  # noqa: SIM115  # `close` closes it
        self.is_whole = True
        try:
            self.all = [*_of_directory(self._file)]
        except (BadZipFile, ValueError, NotImplementedError, EOFError, StructError, IndexError, OverflowError):
            self.is_whole = False
            self.all = [*_of_headers(self._file)]
        self.members = {member.name: member for member in self.all}

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def state(self, count: int) -> str:
        """Return a text that stays the same while the first `count` members stay the same."""
        found = repr([tuple(member) for member in self.all[:count]])
        return f"{count}:{sha256(found.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}"

    def read(self, name: str) -> bytes:
        """Return a member, decompressed.

        Raises:
            KeyError: there is no such member.
            OSError: the member is broken, too large, or compressed in another way.
            Unreadable: the member is compressed by zstd, and no module for that is installed.
        """
        member = self.members[name]
        if member.size > MOST_BYTES:
            raise OSError(f"a member of more than {MOST_BYTES} bytes")
        decode = _decoder(member.method, self._path)
        found = bytearray()
        for part in _parts(self._file, member):
            found += decode(part)
            if len(found) > MOST_BYTES:
                raise OSError(f"a member of more than {MOST_BYTES} bytes")
        if len(found) != member.size or zlib.crc32(found) != member.check:
            raise OSError("a broken member")
        return bytes(found)


def opened_archive(path: Path) -> closing[Archive]:
    """Open an archive for the length of a with-block.

    Raises:
        OSError: the file cannot be read.
    """
    return closing(Archive(path))


def _of_directory(file: IO[bytes]) -> Iterator[Member]:
    for info in ZipFile(file).infolist():
        yield Member(
            info.filename, info.header_offset, info.compress_type, info.compress_size, info.file_size, info.CRC
        )


def _of_headers(file: IO[bytes]) -> Iterator[Member]:
    """Yield the members of an archive without a directory that are whole."""
    end, at = os.fstat(file.fileno()).st_size, 0
    while at + _HEAD_BYTES <= end:
        file.seek(at)
        head = file.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or not head.startswith(_HEAD):
            return
        flags, method = unpack_from("<HH", head, 6)
        check, packed, size = unpack_from("<III", head, 14)
        name_bytes, extra_bytes = unpack_from("<HH", head, 26)
        name = file.read(name_bytes).decode("utf-8", "replace")
        if packed >= ZIP64_LIMIT or flags & _HAS_SIZES_BEHIND:
            return  # the sizes stand elsewhere
        data = at + _HEAD_BYTES + name_bytes + extra_bytes
        if data + packed > end:
            return
        yield Member(name, at, method, packed, size, check)
        at = data + packed


def _parts(file: IO[bytes], member: Member) -> Iterator[bytes]:
    """Yield the compressed bytes of a member."""
    file.seek(member.offset)
    head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(_HEAD):
        raise OSError("a broken member")
    file.seek(sum(unpack_from("<HH", head, 26)), os.SEEK_CUR)
    left = member.packed
    while left:
        part = file.read(min(_PART, left))
        if not part:
            raise OSError("a broken member")
        left -= len(part)
        yield part


def _decoder(method: int, path: Path) -> Callable[[bytes], bytes]:
    if method == STORED:
        return bytes
    if method == ZSTD:
        return zstd_decoder(path)
    if method != DEFLATED:
        raise OSError(f"a member compressed by method {method}")
    inflate = zlib.decompressobj(-zlib.MAX_WBITS).decompress

    def decode(part: bytes) -> bytes:
        try:
            return inflate(part)
        except zlib.error as error:
            raise OSError("a broken member") from error

    return decode
