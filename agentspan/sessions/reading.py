"""Reads session files: whole lines from a place on, of plain and of compressed files, without keeping the file.

A place in a compressed file is counted in its decompressed bytes, so a file that was compressed since is not new.
"""

import gzip
import io
import re
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from pydantic_core import from_json

from agentspan.arriving import parsed
from agentspan.ground import errors, installing, jsontext
from agentspan.sessions.formats import head_of, open_regular

PACKED = (".zst", ".gz")
"""The endings of compressed files."""
HEAD_BYTES = 4096
"""The first bytes of a file, by whose hash it is known again."""
MOST_LINE_BYTES = 256 * 2**20
"""The most bytes of a line; the rest of a longer one is skipped."""

_CWD = re.compile(rb'"cwd"\s*:\s*("(?:[^"\\]|\\.)*")')
_BLOCK_BYTES = 2**18
"""How many bytes are read at once, and then cut into lines. To read line by line took twice as long. Smaller blocks of
a line of 30 MB would lie between other objects, so that their memory would not be returned."""


class Unreadable(errors.AgentspanError):
    """A session file cannot be read here."""


class Line(NamedTuple):
    """One line of a file: the place after it, and its bytes without the line end."""

    end: int
    text: bytes


_line = partial(tuple.__new__, Line)
"""Makes a Line of a tuple, in half the time of the constructor, which is a Python function."""


def plain_path(path: Path) -> Path:
    """Return the path that a compressed file had before it was compressed; other paths unchanged."""
    return path.with_suffix("") if path.suffix in PACKED else path


def opened(path: Path) -> IO[bytes]:
    """Open a file for reading, decompressed.

    Raises:
        OSError: the file cannot be read, or is no regular file.
        Unreadable: it is compressed by zstd, and no module for that is installed.
    """
    file = open_regular(path)
    if path.suffix not in PACKED:
        return file
    file.close()
    return cast(IO[bytes], gzip.open(path, "rb")) if path.suffix == ".gz" else _zstd(path)


def first_bytes(path: Path, size: int = 65_536) -> bytes | None:
    """Return the first bytes of what a file holds, decompressed; none if it cannot be read.

    None stands for a file that is compressed by zstd, if no module for that is installed.
    """
    if path.suffix not in PACKED:
        return head_of(path, size)
    try:
        with opened(path) as file:
            return file.read(size)
    except Unreadable:
        return None
    except (OSError, EOFError, zlib.error):
        return b""


def _zstd(path: Path) -> IO[bytes]:
    module = _zstd_module(path)
    begin = module.ZstdFile if module.__name__ == _OWN_ZSTD else partial(_across_frames, module)
    return cast(IO[bytes], io.BufferedReader(_Unpacked(open(path, "rb"), begin, module.ZstdError), 2**17))


_OWN_ZSTD = "compression.zstd"
"""The module for zstd that Python has from 3.14 on."""


def _zstd_module(path: Path) -> Any:
    """Return a module for zstd.

    Raises:
        Unreadable: none is installed. The message names the path.
    """
    for name in (_OWN_ZSTD, "zstandard"):
        try:
            return import_module(name)
        except ImportError:
            continue
    raise Unreadable(f"{path} is compressed by zstd, which needs more packages; run: {installing.extra('sessions')}")


def _across_frames(module: Any, file: IO[bytes]) -> Any:
    return module.ZstdDecompressor().stream_reader(file, read_across_frames=True, closefd=False)


class _Unpacked(io.RawIOBase):
    """A file of zstd, decompressed. It is decompressed again from its start to seek back, which zstandard cannot.

    Broken data is an OSError, as for other files.
    """

    def __init__(self, file: IO[bytes], begin: Callable[[IO[bytes]], Any], broken: type[Exception]) -> None:
        self._file, self._begin, self._broken = file, begin, broken
        self._reader = begin(file)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            found = self._reader.read(len(buffer))
        except (self._broken, EOFError) as error:
            raise OSError("broken zstd data") from error
        buffer[: len(found)] = found
        self._at += len(found)
        return len(found)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._at
        elif whence != io.SEEK_SET:
            raise io.UnsupportedOperation("the size of what a compressed file holds is not known")
        if offset < self._at:
            self._file.seek(0)
            self._reader, self._at = self._begin(self._file), 0
        part = bytearray(2**17)
        while self._at < offset and self.readinto(memoryview(part)[: offset - self._at]):
            pass
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


def head_hash(file: IO[bytes], size: int = HEAD_BYTES) -> str:
    """Return the hash of the first `size` bytes of an open file, and `size` if the file has fewer: `HASH:SIZE`."""
    file.seek(0)
    found = file.read(size)
    return f"{sha256(found).hexdigest()[:16]}:{len(found)}"


def is_same_file(file: IO[bytes], head: str) -> bool:
    """Return whether an open file begins with the bytes of which `head_hash` returned `head`."""
    _, _, size = head.partition(":")
    return size.isdigit() and head_hash(file, int(size)) == head


def tail_hash(file: IO[bytes], end: int) -> str:
    """Return the hash of the last bytes before a place in an open file, by which a file that was rewritten is known."""
    file.seek(max(0, end - HEAD_BYTES))
    return sha256(file.read(min(end, HEAD_BYTES))).hexdigest()[:16]


def lines_of(file: IO[bytes], start: int = 0) -> Iterator[Line]:
    """Yield the lines of an open file from a place on, but not the last one while it is not finished.

    A last line without a line end counts as finished if it is a JSON object. A line is yielded without a reference to
    it here: it may be long, and storing it needs memory, too.
    """
    file.seek(start)
    end, size = start, 0
    begun = io.BytesIO()  # the line that goes on in the next block; getvalue() makes no copy
    # read1, because read would lose what stands before damage in a compressed file.
    while block := cast(io.BufferedIOBase, file).read1(_BLOCK_BYTES):
        at = block.find(b"\n") + 1  # split() looks at each byte by itself: 1 µs for a line of 4 kB
        size += begun.write(block[: at - 1] if at else block)
        if at:
            end += size + 1
            yield _line((end, _taken(begun, size).rstrip(b"\r")))
            while stop := block.find(b"\n", at) + 1:
                end += stop - at
                yield _line((end, block[at : stop - 1].rstrip(b"\r")))
                at = stop
            size = begun.write(block[at:])
        elif size >= MOST_LINE_BYTES:
            _taken(begun, size)
    if size >= MOST_LINE_BYTES or _is_object(begun.getvalue()):
        yield _line((end + size, _taken(begun, size)))


def _taken(begun: io.BytesIO, size: int) -> bytes:
    """Return the bytes of a line that was read in blocks, and empty its buffer; nothing of a line that is too long."""
    line = begun.getvalue() if size < MOST_LINE_BYTES else b""
    begun.seek(0)
    begun.truncate()
    return line


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        pass  # lone surrogates and depth over 200 are JSON, too
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
    module = _zstd_module(path)
    decompressor = module.ZstdDecompressor()
    decompress = decompressor.decompress if module.__name__ == _OWN_ZSTD else decompressor.decompressobj().decompress

    def decode(part: bytes) -> bytes:
        try:
            return cast(bytes, decompress(part))
        except (module.ZstdError, EOFError) as error:
            raise OSError(f"broken zstd data in {path}") from error

    return decode


def database(path: Path, wait_s: float = 5.0) -> sqlite3.Connection:
    """Open a database of SQLite for reading only, so that no file is made beside it.

    While a program uses it, it has a write-ahead log, which is read with it. Without a log it is opened as immutable:
    otherwise SQLite would make the files of a log. A log without its index (`-shm`), as of a copied or crashed
    database, gets one by SQLite, which reads no log without.

    Args:
        wait_s: seconds to wait for a file that another program has locked.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """
    has_log = Path(f"{path}-wal").exists()
    is_logged = head_of(path, 20)[18:20] == b"\2\2"
    how = "mode=ro" if has_log or not is_logged else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{how}", timeout=wait_s, uri=True)


def folder_in(head: bytes) -> str | None:
    """Return the folder that the first bytes of a file name as `cwd`; None without one."""
    found = _CWD.search(head)
    return None if found is None else parsed(found[1])
