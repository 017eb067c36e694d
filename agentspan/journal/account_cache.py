"""Keeps the account of a server beside its journals, so that a program knows it before the server answers.

The ids of spans from OpenTelemetry depend on its partition.
"""

import os
from pathlib import Path

from agentspan import files, jsontext
from agentspan.interrupts import let_through
from agentspan.journal.journal_folder import owners
from agentspan.model.rows import AccountRow

SUFFIX = ".account"


def read(folder: Path) -> AccountRow | None:
    """Return the account that was kept for a journal folder; None if there is none, or it may be another user's."""
    path = folder.with_name(folder.name + SUFFIX)
    try:
        files.check(path, owners(folder))
        return AccountRow(*jsontext.decode(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as raised:
        let_through(raised)
        return None


def write(folder: Path, account: AccountRow) -> None:
    """Keep an account. That it cannot be kept is no fault: it is read again."""
    path = folder.with_name(folder.name + SUFFIX)
    if read(folder) == account:
        return
    try:
        descriptor, made = files.aside(path)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(jsontext.encode(list(account))[0])
        os.replace(made, path)
    except OSError as raised:
        let_through(raised)
