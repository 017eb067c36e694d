"""Reads session files: whole lines from a place on, of plain and of compressed files, without keeping the file.

A place in a compressed file is a place in what it holds, so a file that was compressed since is not new.
"""

import gzip
import io
from collections.abc import Callable, Iterator
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from agentspan import jsontext
from agentspan.errors import AgentspanError

PACKED = (".zst", ".gz")
"""The endings of compressed files."""
HEAD_BYTES = 4096
"""The first bytes of a file, by whose hash it is known again."""
MOST_LINE_BYTES = 256 * 2**20
"""The most bytes of a line; the rest of a longer one is skipped."""


class Unreadable(AgentspanError):
    """A session file cannot be read here."""


class Line(NamedTuple):
    """One line of a file: the place after it, and its bytes without the line end."""

    end: int
    text: bytes


def plain_path(path: Path) -> Path:
    """Return the path that a compressed file had before it was compressed; other paths unchanged."""
    return path.with_suffix("") if path.suffix in PACKED else path


def opened(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed.

    Raises:
        OSError: the file cannot be read.
        Unreadable: it is compressed by zstd, and no module for that is installed.
    """
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return _zstd(path)
    return open(path, "rb")


def _zstd(path: Path) -> IO[bytes]:
    try:
        from compression import zstd  # of Python 3.14

        return cast(IO[bytes], zstd.open(path, "rb"))
    except ImportError:
        pass
    try:
        import zstandard
    except ImportError:
        raise Unreadable(
            f"{path} is compressed by zstd; install the extra: pip install 'agentspan-sqlite[sessions]'"
        ) from None
    reader: Any = zstandard.open(path, "rb")
    return io.BufferedReader(reader) if not isinstance(reader, io.BufferedReader) else cast(IO[bytes], reader)


def head_hash(file: IO[bytes], size: int = HEAD_BYTES) -> str:
    """Return the hash of the first `size` bytes of an open file, and `size` if the file has fewer: `HASH:SIZE`."""
    file.seek(0)
    found = file.read(size)
    return f"{sha256(found).hexdigest()[:16]}:{len(found)}"


def is_same_file(file: IO[bytes], head: str) -> bool:
    """Return whether an open file begins with the bytes of which `head_hash` returned `head`."""
    _, _, size = head.partition(":")
    return size.isdigit() and head_hash(file, int(size)) == head


def lines_of(file: IO[bytes], start: int = 0) -> Iterator[Line]:
    """Yield the lines of an open file from a place on, but not the last one while it is not finished.

    A last line without a line end counts as finished if it is a JSON object.
    """
    file.seek(start)
    end = start
    while True:
        line = file.readline(MOST_LINE_BYTES)
        if not line:
            return
        end += len(line)
        if line.endswith(b"\n"):
            yield Line(end, line.rstrip(b"\r\n"))
        elif len(line) >= MOST_LINE_BYTES:
            end += _skipped(file)
            yield Line(end, b"")
        else:
            if _is_object(line):
                yield Line(end, line)
            return


def _skipped(file: IO[bytes]) -> int:
    size = 0
    while part := file.readline(2**20):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return size


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(jsontext.decode(line.decode()), dict)
    except (ValueError, RecursionError):
        return False


def zstd_decoder(path: Path) -> Callable[[bytes], bytes]:
    """Return a function that decompresses the parts of one zstd frame, one after the other.

    The function raises OSError for broken data.

    Args:
        path: the path for the message of the error.

    Raises:
        Unreadable: no module for zstd is installed.
    """
    module: Any
    try:
        module = import_module("compression.zstd")  # of Python 3.14
        decompress = module.ZstdDecompressor().decompress
    except ImportError:
        try:
            module = import_module("zstandard")
        except ImportError:
            raise Unreadable(
                f"{path} is compressed by zstd; install the extra: pip install 'agentspan-sqlite[sessions]'"
            ) from None
        decompress = module.ZstdDecompressor().decompressobj().decompress

    def decode(part: bytes) -> bytes:
        try:
            return cast(bytes, decompress(part))
        except (module.ZstdError, EOFError) as error:
            raise OSError(f"broken zstd data in {path}") from error

    return decode
