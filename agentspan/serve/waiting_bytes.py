"""Bytes that wait for a client: few in memory, many in a file without a name."""

from collections.abc import Iterator
from tempfile import SpooledTemporaryFile

CHUNK = 256 * 2**10
"""Bytes that are read at once."""


class WaitingBytes:
    """Bytes that are written once, and read once.

    Args:
        in_memory: bytes that stay in memory, at least 1; with one more, all of them are in a file.

    Attributes:
        size: how many bytes there are.
    """

    def __init__(self, in_memory: int) -> None:
        self._file = SpooledTemporaryFile(in_memory)  # noqa: SIM115
        self.size = 0

    def __del__(self) -> None:
        """Close the file: a client may go before it has read everything."""
        self._file.close()

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        self._file.write(piece)
        self.size += len(piece)

    def cut(self, size: int) -> None:
        """Remove all bytes behind the first."""
        self._file.seek(size)
        self._file.truncate()
        self.size = size

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes."""
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk
