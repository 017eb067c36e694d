"""Parses the location of a storage: `db` on the command line, in AGENTSPAN_DB and in Python.

`NAME://…` and `NAME:…` name a backend, unless a slash stands before the colon: `./x:y` is a file. `:memory:` is the
memory backend. Anything else is the path of an SQLite file. The class Identities detects that a file was replaced.
"""

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from agentspan.errors import InvalidValue

MEMORY = ":memory:"
SQLITE = "sqlite"
ENVIRONMENT = "AGENTSPAN_DB"
DEFAULT = "agentspan.db"

# Patterns as text: only the display of a URL needs them, and compiling them would add 1 ms to the import.
_USER = r"(?<=//)[^/?#]*@"
_SECRET = r"(?i)(?<=[?&;])([^=&;#]*(?:pass|pwd|secret|token|key)[^=&;#]*)=[^&;#]*"
_IN_SCHEME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-.")


@dataclass(frozen=True, slots=True)
class Location:
    """The location of a storage.

    `str()` and `repr()` contain no password, and are safe in logs and errors.

    Attributes:
        scheme: the backend's name, such as `sqlite` or `memory`.
        text: the complete text that a backend needs to open the storage: a path, or a URL with its password.
    """

    scheme: str
    text: str = field(repr=False)

    @property
    def not_there(self) -> str:
        """The error for a file that is to be read and does not exist."""
        ways = "`agentspan demo` records an example, `agentspan import` reads sessions of coding agents"
        return f"{self} does not exist; nothing has been recorded there yet: {ways}"

    @property
    def path(self) -> Path | None:
        """The path of the SQLite file; None for other backends."""
        return Path(self.text) if self.scheme == SQLITE else None

    def __str__(self) -> str:
        if self.path is not None:
            return self.text
        return re.sub(_SECRET, r"\1=***", re.sub(_USER, _without_password, self.text))

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"

    @property
    def key(self) -> str:
        """The name of this storage in names of files on this host: a hash of the location without its passwords."""
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
    """Return the location that a text names. A path-like always names a file, except the path `:memory:`.

    Raises:
        InvalidValue: the text is empty.
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
    """Return the name of the backend before the first colon, in lower case; None if the text is a path."""
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
    """Return the location of a storage in this process's memory. Each opening creates a new storage."""
    return Location("memory", MEMORY)


def default() -> Location:
    """Return the default location: the value of AGENTSPAN_DB, else agentspan.db in the current folder."""
    return parse(os.environ.get(ENVIRONMENT) or DEFAULT)


def _without_password(user: re.Match[str]) -> str:
    name, colon, _ = user[0][:-1].partition(":")
    return f"{name}:***@" if colon else user[0]


def _decoded(text: str) -> str:
    """Decode the percent-encoding in a password: a driver's message may contain the decoded password."""
    return re.sub(
        "(?:%[0-9a-fA-F]{2})+", lambda m: bytes.fromhex(m[0].replace("%", "")).decode("utf-8", "replace"), text
    )
