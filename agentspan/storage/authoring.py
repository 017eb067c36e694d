"""Everything that the author of a storage backend needs, in one place; nothing is defined here.

    the contract     Storage, its Capabilities, PROTOCOL
    how it is opened Opener, Location, the group GROUP of entry points
    what is written  Unit: changes (Put, PutSpans, Move, Remove) and a Key; each is answered by an Outcome
    what is stored   the module `rows`: each type of rows, with ROWS, TYPE_OF, UNIQUE, REFERENCES
    what is asked    the module `questions`: each a Question; the module `answers`: what is returned to them;
                     the module `row_by_row`: answers for a storage that has none of its own
    their rules      pure functions: moved, unique_of, references_of, page_of …, for a backend that decides in Python;
                     MemoryStorage, the rows of a whole storage in dictionaries, with from_json and to_json
    what may fail    StorageError and its subclasses, InvalidValue, NotPermitted

`PROTOCOL` is the number of the contract's version. Until agentspan 1.0 the contract may change from one minor version
to the next, and then the number grows. A backend that was written for one number refuses another one when it is opened:

    if PROTOCOL != 1:
        raise DatabaseUnusable(f"this backend is for version 1 of agentspan's storage protocol, not {PROTOCOL}")

docs/backends.md shows a whole backend. `agentspan.testing.StorageContract` proves it.
"""

from agentspan.errors import (
    DatabaseBusy,
    DatabaseUnusable,
    InDoubt,
    InvalidValue,
    NotPermitted,
    NotStorable,
    StorageError,
)
from agentspan.model import rows
from agentspan.model.changes import (
    Applied,
    Key,
    KeyTaken,
    Move,
    Outcome,
    Put,
    PutSpans,
    Ref,
    Refused,
    Remove,
    Replayed,
    Unit,
    over_of,
)
from agentspan.model.rows import Violation
from agentspan.storage import answers, questions, row_by_row
from agentspan.storage.location import Location, new_account
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import PROTOCOL, Capabilities, Storage
from agentspan.storage.questions import Question
from agentspan.storage.registry import GROUP, Opener
from agentspan.storage.rules import moved, page_of, references_of, terminated, unique_of, violations_after

__all__ = [
    "GROUP",
    "PROTOCOL",
    "Applied",
    "Capabilities",
    "DatabaseBusy",
    "DatabaseUnusable",
    "InDoubt",
    "InvalidValue",
    "Key",
    "KeyTaken",
    "Location",
    "MemoryStorage",
    "Move",
    "NotPermitted",
    "NotStorable",
    "Opener",
    "Outcome",
    "Put",
    "PutSpans",
    "Question",
    "Ref",
    "Refused",
    "Remove",
    "Replayed",
    "Storage",
    "StorageError",
    "Unit",
    "Violation",
    "answers",
    "moved",
    "new_account",
    "over_of",
    "page_of",
    "questions",
    "references_of",
    "row_by_row",
    "rows",
    "terminated",
    "unique_of",
    "violations_after",
]
