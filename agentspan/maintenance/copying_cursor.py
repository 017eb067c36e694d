"""Notes how far a copy has come: in the target if it keeps notes, else in a file beside it.

It only saves time. Without it, a copy that goes on compares the runs from the beginning.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple, Protocol

from agentspan import files
from agentspan.interrupts import let_through
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Account, ForgetNotes, Notes, PutNote

_SUFFIX = "-copies"


class Place(NamedTuple):
    """The place that a copy has come to.

    Attributes:
        began: when it began, as stored text.
        after: the id of the last run that was sent.
    """

    began: str
    after: str


class Cursor(Protocol):
    """The place of one copy."""

    def read(self) -> Place | None:
        """Return the place; None if no copy was broken off."""
        ...

    def write(self, place: Place | None) -> None:
        """Note a place; None when the copy is done."""
        ...


def cursor_of(source: Storage, target: Storage, since: str | None) -> Cursor:
    """Return the cursor of the copy of a source to a target, of the runs since a time."""
    name = f"copy/{source.ask(Account()).id}/{target.ask(Account()).id}/{since or ''}"
    can = target.capabilities()
    if Notes in can.answers:
        return _Noted(target, name)
    return _InFile(None if can.journals is None else can.journals.path, name)


class _Noted:
    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name

    def read(self) -> Place | None:
        return _place(self._storage.ask(Notes(self._name)).get(self._name))

    def write(self, place: Place | None) -> None:
        if place is None:
            self._storage.ask(ForgetNotes(self._name))
        else:
            self._storage.ask(PutNote(self._name, json.dumps(place)))


class _InFile:
    """A JSON file `NAME-copies` beside the target's file, replaced whole; nothing where the target has no file."""

    def __init__(self, beside: Path | None, name: str) -> None:
        self._path = None if beside is None else beside.with_name(beside.name + _SUFFIX)
        self._name = name

    def read(self) -> Place | None:
        return None if self._path is None else _place(self._all(self._path).get(self._name))

    def write(self, place: Place | None) -> None:
        if self._path is None:
            return
        said = {name: text for name, text in self._all(self._path).items() if name != self._name}
        if place is not None:
            said[self._name] = json.dumps(place)
        try:
            if not said:
                self._path.unlink(missing_ok=True)
                return
            made, temporary = files.aside(self._path)
            with os.fdopen(made, "w", encoding="utf-8") as file:
                json.dump(said, file)
            os.replace(temporary, self._path)
        except OSError as error:
            let_through(error)  # the rows are there; only the next copy takes longer

    def _all(self, path: Path) -> dict[str, str]:
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            let_through(error)
            return {}
        return {n: t for n, t in said.items() if isinstance(t, str)} if isinstance(said, dict) else {}


def _place(text: str | None) -> Place | None:
    try:
        began, after = json.loads(text or "null")
    except (TypeError, ValueError):
        return None
    return Place(began, after) if isinstance(began, str) and isinstance(after, str) else None
