"""Bytes that wait for a client: few in memory, many in a file without a name."""

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

CHUNK = 256 * 2**10
"""Bytes that are read at once."""


class Spool:
    """Bytes that are written once, and read once.

    Args:
        in_memory: bytes that stay in memory; with one more, all of them are in a file.
    """

    def __init__(self, in_memory: int) -> None:
        self._file = SpooledTemporaryFile(max(in_memory, 1))  # noqa: SIM115 (with 0 it never uses a file)

    def __del__(self) -> None:
        """Close the file: a client may go before it has read everything."""
        self._file.close()

    def write(self, piece: bytes) -> int:
        """Add bytes, and return how many there are now."""
        self._file.write(piece)
        return self._file.tell()

    def cut(self, size: int) -> None:
        """Remove all bytes behind the first."""
        self._file.seek(size)
        self._file.truncate()

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes."""
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk
