"""Everything that the author of a storage backend needs, in one place; nothing is defined here.

    contract   Storage, its Capabilities, PROTOCOL; for a storage on a server, Patience and Unconnected
    opening    Opener, Location, GROUP (the group of entry points)
    writes     Unit: changes (Put, PutSpans, Move, Remove) and a Key; `apply` returns an Outcome for each unit
    rows       the module `rows`: the types of rows, with ROWS, TYPE_OF, UNIQUE, REFERENCES
    reads      the module `questions`: the types of Question; the module `answers`: the types of their answers;
               the module `row_by_row`: answers for a storage that lacks its own
    rules      pure functions: moved, unique_of, references_of, page_of …, for a backend that decides in Python;
               MemoryStorage: the rows of a whole storage in dictionaries, with from_json and to_json
    errors     StorageError and its subclasses, InvalidValue, NotPermitted

`PROTOCOL` is the number of the contract's version. Until agentspan 1.0 the contract may change from one minor version
to the next, and then the number grows. A backend checks the number when it is opened, and refuses any other number:

    if PROTOCOL != 1:
        raise DatabaseUnusable(f"this backend is for version 1 of agentspan's storage protocol, not {PROTOCOL}")

docs/backends.md shows a whole backend. `agentspan.testing.StorageContract` tests a backend.
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
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.patience import Patience, Unconnected
from agentspan.storage.protocol import (
    PROTOCOL,
    Capabilities,
    Storage,
    moved,
    new_account,
    page_of,
    references_of,
    terminated,
    unique_of,
    violations_after,
)
from agentspan.storage.questions import Question
from agentspan.storage.registry import GROUP, Opener

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
    "Patience",
    "Put",
    "PutSpans",
    "Question",
    "Ref",
    "Refused",
    "Remove",
    "Replayed",
    "Storage",
    "StorageError",
    "Unconnected",
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
