"""Everything that the author of a storage backend needs, in one place; nothing is defined here.

    the contract     Storage, its Capabilities, PROTOCOL
    how it is opened Opener, Location, the group GROUP of entry points
    what is written  Unit: changes (Put, PutSpans, Move, Remove) and a Key; each is answered by an Outcome
    what is stored   the rows, by type: ROWS, TYPE_OF, UNIQUE, REFERENCES
    what is read     Query → Rows, Found, SpanCounts, Violation
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
    AgentspanError,
    DatabaseBusy,
    DatabaseUnusable,
    InDoubt,
    InvalidValue,
    NotPermitted,
    NotStorable,
    StorageError,
)
from agentspan.model.changes import (
    Applied,
    Change,
    Key,
    KeyTaken,
    Move,
    Outcome,
    Over,
    Put,
    PutSpans,
    Ref,
    Refused,
    Remove,
    Replayed,
    Unit,
    Violation,
    over_of,
    overs,
)
from agentspan.model.rows import (
    REFERENCES,
    ROWS,
    TYPE_OF,
    UNIQUE,
    AccountRow,
    AgentInstanceRow,
    AgentRow,
    AgentSchemaVersionRow,
    AgentSpanRow,
    AgentVersionRow,
    RefusedChangeRow,
    ResourceType,
    Row,
    ScoreRow,
    TagRow,
    Value,
    WriterRow,
    instance_of,
)
from agentspan.model.scores import counting
from agentspan.model.status import CLOSERS, OPEN
from agentspan.storage.analytics import (
    Analytics,
    FailureSum,
    FoundSpan,
    LatestScore,
    Progress,
    RunBrief,
    RunFilter,
    RunList,
    RunSummary,
    RunTotals,
    Scores,
    Stat,
    StepUse,
)
from agentspan.storage.file_capabilities import Backup, StorageFile
from agentspan.storage.location import Location
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.new_account import new_account
from agentspan.storage.partitions import Made, Partition, Partitions, Width
from agentspan.storage.protocol import (
    PROTOCOL,
    Answer,
    BesideJournals,
    Capabilities,
    Check,
    Found,
    Groups,
    Outlines,
    Query,
    Removal,
    Rows,
    SpanCounts,
    SpanSum,
    Sql,
    Storage,
    StoredKey,
    Sums,
    Waiting,
    span_counts,
)
from agentspan.storage.registry import GROUP, Opener
from agentspan.storage.rules import (
    Moved,
    moved,
    page_of,
    puts_of,
    references_of,
    terminated,
    unique_of,
    violations_after,
)
from agentspan.storage.shared import Changed, Changes, Notes
from agentspan.storage.sums import added_up
from agentspan.storage.transfer import KeyRow, SpanMark, Transfer

__all__ = [
    "CLOSERS",
    "GROUP",
    "OPEN",
    "PROTOCOL",
    "REFERENCES",
    "ROWS",
    "TYPE_OF",
    "UNIQUE",
    "AccountRow",
    "AgentInstanceRow",
    "AgentRow",
    "AgentSchemaVersionRow",
    "AgentSpanRow",
    "AgentVersionRow",
    "AgentspanError",
    "Analytics",
    "Answer",
    "Applied",
    "Backup",
    "BesideJournals",
    "Capabilities",
    "Change",
    "Changed",
    "Changes",
    "Check",
    "DatabaseBusy",
    "DatabaseUnusable",
    "FailureSum",
    "Found",
    "FoundSpan",
    "Groups",
    "InDoubt",
    "InvalidValue",
    "Key",
    "KeyRow",
    "KeyTaken",
    "LatestScore",
    "Location",
    "Made",
    "MemoryStorage",
    "Move",
    "Moved",
    "NotPermitted",
    "NotStorable",
    "Notes",
    "Opener",
    "Outcome",
    "Outlines",
    "Over",
    "Partition",
    "Partitions",
    "Progress",
    "Put",
    "PutSpans",
    "Query",
    "Ref",
    "Refused",
    "RefusedChangeRow",
    "Removal",
    "Remove",
    "Replayed",
    "ResourceType",
    "Row",
    "Rows",
    "RunBrief",
    "RunFilter",
    "RunList",
    "RunSummary",
    "RunTotals",
    "ScoreRow",
    "Scores",
    "SpanCounts",
    "SpanMark",
    "SpanSum",
    "Sql",
    "Stat",
    "StepUse",
    "Storage",
    "StorageError",
    "StorageFile",
    "StoredKey",
    "Sums",
    "TagRow",
    "Transfer",
    "Unit",
    "Value",
    "Violation",
    "Waiting",
    "Width",
    "WriterRow",
    "added_up",
    "counting",
    "instance_of",
    "moved",
    "new_account",
    "over_of",
    "overs",
    "page_of",
    "puts_of",
    "references_of",
    "span_counts",
    "terminated",
    "unique_of",
    "violations_after",
]
