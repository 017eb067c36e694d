"""Bytes that wait for a client: few in memory, many in a file without a name."""

from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO

CHUNK = 256 * 2**10
"""Bytes that are read at once."""


class Spool:
    """Bytes that are written once, and read once.

    Args:
        in_memory: bytes that stay in memory; with one more, all of them are in a file.

    Attributes:
        size: how many bytes there are.
    """

    def __init__(self, in_memory: int) -> None:
        self._in_memory = in_memory
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.size = 0

    def __del__(self) -> None:
        """Close the file: a client may go before it has read everything."""
        if self._file is not None:
            self._file.close()

    def write(self, piece: bytes) -> None:
        """Add bytes."""
        self.size += len(piece)
        if self._file is not None:
            self._file.write(piece)
            return
        self._pieces.append(piece)
        if self.size > self._in_memory:
            self._file = TemporaryFile()  # noqa: SIM115
            self._file.writelines(self._pieces)
            self._pieces.clear()

    def cut(self, size: int) -> None:
        """Remove all bytes behind the first."""
        self.size = size
        if self._file is None:
            self._pieces = [b"".join(self._pieces)[:size]]
        else:
            self._file.seek(size)
            self._file.truncate()

    def chunks(self) -> Iterator[bytes]:
        """Yield all bytes."""
        if self._file is None:
            yield b"".join(self._pieces)
            return
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk
