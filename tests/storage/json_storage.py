"""A storage backend that keeps everything in one JSON file, called `jsonfile://PATH`."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from agentspan.storage import authoring as spi
from agentspan.storage.authoring import Location, MemoryStorage

T = TypeVar("T")


def open_json(location: Location, *, read_only: bool, wait_s: float) -> spi.Storage:
    """Open the file of a location; the entry point names this function."""
    if spi.PROTOCOL != 1:
        raise spi.DatabaseUnusable(f"jsonfile is for version 1 of the storage protocol, not {spi.PROTOCOL}")
    path = Path(location.text.removeprefix("jsonfile://")).absolute()
    if not path.parent.is_dir() or (read_only and not path.exists()):
        raise spi.DatabaseUnusable(f"there is no {path if path.parent.is_dir() else path.parent}; create it")
    return JsonStorage(path, read_only, wait_s)


class JsonStorage:
    """One JSON file, which each read reads whole and each write replaces whole."""

    def __init__(self, path: Path, read_only: bool, wait_s: float) -> None:
        self.path, self.read_only, self.closed = path, read_only, False
        if not path.exists():
            with self.locked(wait_s):
                if not path.exists():
                    self.write(MemoryStorage())

    def capabilities(self) -> spi.Capabilities:
        return spi.Capabilities("jsonfile", location=Location("jsonfile", f"jsonfile://{self.path}"))

    def ask(self, question: spi.Question[T]) -> T:
        return self.read().ask(question)

    def apply(
        self, units: Sequence[spi.Unit], *, stop_at_refusal: bool = False, wait_s: float = 5.0
    ) -> list[spi.Outcome]:
        if self.read_only:
            raise spi.NotPermitted(f"{self.path} was opened to be read only")
        with self.locked(wait_s):
            stored = self.read()
            outcomes = stored.apply(units, stop_at_refusal=stop_at_refusal)
            if any(isinstance(outcome, spi.Applied) for outcome in outcomes):
                self.write(stored)
        return outcomes

    def group(self, work: Callable[[spi.Storage], T], wait_s: float) -> T:
        if self.read_only:
            raise spi.NotPermitted(f"{self.path} was opened to be read only")
        with self.locked(wait_s):
            stored = self.read()
            done = stored.group(work, wait_s)
            self.write(stored)
        return done

    def close(self) -> None:
        self.closed = True

    def read(self) -> MemoryStorage:
        """Read the file. That needs no lock, because the file is replaced in one step."""
        if self.closed:
            raise spi.StorageError("the storage is closed; open it again")
        try:
            return MemoryStorage.from_json(self.path.read_bytes())
        except (OSError, ValueError) as error:
            raise spi.DatabaseUnusable(f"{self.path} cannot be read: {type(error).__name__}") from error

    def write(self, stored: MemoryStorage) -> None:
        """Replace the file; it is on disk when this returns."""
        try:
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                file.write(stored.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, self.path)
        except OSError as error:
            raise spi.StorageError(f"{self.path} cannot be written: {error.strerror}") from error

    @contextmanager
    def locked(self, wait_s: float) -> Iterator[None]:
        """Keep other threads and processes out."""
        until = time.monotonic() + wait_s
        with open(f"{self.path}-lock", "w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > until:
                        raise spi.DatabaseBusy(f"{self.path} is being written; try again") from None
                    time.sleep(0.002)
            try:
                yield
            finally:  # closing is not enough: a child that is forked meanwhile has a copy of the open file
                fcntl.flock(lock, fcntl.LOCK_UN)
