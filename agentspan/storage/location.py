"""Parses the location of a storage: `db` on the command line, in AGENTSPAN_DB and in Python; tells files apart.

`NAME://…` and `NAME:…` name a backend, unless a slash stands before the colon: `./x:y` is a file. `:memory:` is the
memory backend, anything else the path of an SQLite file.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from agentspan import clock, ids
from agentspan.errors import InvalidValue
from agentspan.model.rows import AccountRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account

MEMORY = ":memory:"
SQLITE = "sqlite"
ENVIRONMENT = "AGENTSPAN_DB"
DEFAULT = "agentspan.db"

# Texts, not compiled ones: only a URL that is shown needs them, and compiling takes 1 ms of the import.
_USER = r"(?<=//)[^/?#]*@"
_SECRET = r"(?i)(?<=[?&;])([^=&;#]*(?:pass|pwd|secret|token|key)[^=&;#]*)=[^&;#]*"
_IN_SCHEME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-.")


@dataclass(frozen=True, slots=True)
class Location:
    """The location of a storage.

    `str()` and `repr()` are for people, logs and errors: they contain no password.

    Attributes:
        scheme: the backend's name: `sqlite`, `memory`, or another one's.
        text: the whole text that a backend needs to open it: a path, or the URL with its password.
    """

    scheme: str
    text: str = field(repr=False)

    @property
    def path(self) -> Path | None:
        """The file, where the storage is an SQLite file."""
        return Path(self.text) if self.scheme == SQLITE else None

    def __str__(self) -> str:
        if self.path is not None:
            return self.text
        return re.sub(_SECRET, r"\1=***", re.sub(_USER, _without_password, self.text))

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"

    @property
    def key(self) -> str:
        """A name of this storage on this host, for files about it: a hash of the location without its passwords."""
        text = str(self.absolute()).replace("postgres://", "postgresql://", 1)
        return hashlib.sha256(text.replace(":***@", "@").encode()).hexdigest()[:32]

    def absolute(self) -> "Location":
        """Return a location that stays valid when the current folder changes."""
        return self if self.path is None else Location(self.scheme, str(self.path.absolute()))

    def hidden_in(self, text: str) -> str:
        """Return a text, such as a driver's error, with the password of this location replaced."""
        if self.path is not None:
            return text
        secrets = [user[0][:-1].partition(":")[2] for user in re.finditer(_USER, self.text)]
        secrets += [match[0].partition("=")[2] for match in re.finditer(_SECRET, self.text)]
        text = text.replace(self.text, str(self))
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "***").replace(_decoded(secret), "***")
        return text


def parse(text: "str | os.PathLike[str]") -> Location:
    """Return the location that a text names; a path-like is always a file.

    Raises:
        InvalidValue: it is empty.
    """
    if not isinstance(text, str):
        name = os.fspath(text)
        return memory() if name == MEMORY else file(name)
    if not text:
        raise InvalidValue("db", "is empty; name a file, or leave it out")
    if text == MEMORY:
        return memory()
    scheme = scheme_of(text)
    if scheme is None:
        return file(text)
    if scheme == SQLITE:
        return file(text[len("sqlite:") :].removeprefix("//"))
    return Location(scheme, text)


def scheme_of(text: str) -> str | None:
    """Return the name before the first colon, in lower case; None for a path."""
    name, colon, rest = text.partition(":")
    name = name.lower()
    if not colon or not name or not name[0].isascii() or not name[0].isalpha() or not _IN_SCHEME.issuperset(name):
        return None
    is_drive = len(name) == 1 and rest[:1] in ("/", "\\")
    return None if is_drive else name


def file(path: "str | os.PathLike[str]") -> Location:
    """Return the location of an SQLite file."""
    return Location(SQLITE, str(Path(path)))


def memory() -> Location:
    """Return the location that means a new storage in this process's memory."""
    return Location("memory", MEMORY)


def default() -> Location:
    """Return the default location: AGENTSPAN_DB, else agentspan.db in the current folder."""
    return parse(os.environ.get(ENVIRONMENT) or DEFAULT)


def _without_password(user: re.Match[str]) -> str:
    name, colon, _ = user[0][:-1].partition(":")
    return f"{name}:***@" if colon else user[0]


def _decoded(text: str) -> str:
    """Return a part of a URL as a driver may show it: without percent signs."""
    return re.sub(
        "(?:%[0-9a-fA-F]{2})+", lambda m: bytes.fromhex(m[0].replace("%", "")).decode("utf-8", "replace"), text
    )


Identity = tuple[int, str]
"""Of a file, how many files this process has seen at its path, and ""; of another storage, 0 and its account's id."""


class Identities:
    """Returns the identity of the storage at one place.

    Args:
        storage: it is not used before it is needed, because it may be a server that does not answer.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._account = ""

    def known(self) -> Identity:
        """Return the identity. A server is asked once: later calls return the same.

        Raises:
            StorageError: the storage cannot be read.
        """
        journals = self._storage.capabilities().journals
        if journals is not None:
            return journals.files, ""
        self._account = self._account or self._storage.ask(Account()).id
        return 0, self._account

    def now(self) -> Identity:
        """Return the identity as it is now. A server is asked each time.

        Raises:
            StorageError: the storage cannot be read.
        """
        journals = self._storage.capabilities().journals
        return (0, self._storage.ask(Account()).id) if journals is None else (journals.files, "")


def new_account() -> AccountRow:
    """Return a new account row: a random partition, and ids in it."""
    partition = ids.random_partition()
    source = ids.IdSource(partition)
    return AccountRow(source.new(), source.new(), source.new(), partition, clock.now())
