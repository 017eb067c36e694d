"""All that wings take from the ground floor, which records, keeps and reads: a list of names, nothing is defined here.

A name is imported at its first use. A wing that needs another one adds it here, to the imports and to the table, with a
line that says what it is.
"""

from typing import TYPE_CHECKING

from agentspan import host

if TYPE_CHECKING:
    """Leaves, each a module."""
    from agentspan import (
        blobs,  # base64 in texts
        clock,  # the only reader of the clock
        errors,  # all errors, with the codes of the API
        ids,  # makes ids, and reads the time in one
        installing,  # commands that install packages, for messages
        jsontext,  # JSON as it is stored
        text,  # text and numbers for people
    )
    from agentspan.host import (
        is_readable,  # waits until a file can be read, whatever its number
    )

    """Changes: a `Unit` of them is applied whole, or not at all."""
    from agentspan.model.changes import (
        NUL,  # the character that no storage can hold
        OPEN,  # the statuses of what is not finished
        Applied,  # the outcome of a unit that is committed
        Change,  # a row that is put, moved or removed, with its guard
        Move,  # sets columns of a row
        Put,  # inserts a row
        Remove,  # deletes a row
        Unit,  # one operation: its changes
    )

    """Rows of the tables, and what they say."""
    from agentspan.model.registration import (
        DEFAULT,  # the name of an agent or a version without one
    )
    from agentspan.model.rows import (
        AgentInstanceRow,  # a run
        SessionEntryRow,  # an entry of a session, verbatim
        SessionFileRow,  # how far a session file was read
        SessionSummaryRow,  # the state of the entries of a session
        Value,  # what a column holds
    )
    from agentspan.model.scores import (
        Judgement,  # the content of a score
        Source,  # who judges
        judgement,  # makes a Judgement of a score's fields
    )

    """Names of span types."""
    from agentspan.schemas.builtin import (
        built_in_part,  # the part of a name that may be a built-in type
    )
    from agentspan.schemas.span_types import (
        MAX_NAME,  # the most characters of a name
    )

    """A storage, and what it can be asked."""
    from agentspan.storage.access import (
        Wrapper,  # a storage that passes each call on to another one
        scan,  # yields all rows of a type
        unique,  # the row with these unique columns
    )
    from agentspan.storage.answers import (
        LatestScore,  # the value and label of a run's newest score
    )
    from agentspan.storage.location import (
        Location,  # where a storage is
    )
    from agentspan.storage.protocol import (
        Storage,  # applies units, and answers questions
    )
    from agentspan.storage.questions import (
        Account,  # asks for the account, which identifies a storage
        Find,  # asks for rows by their ids
        NewestScores,  # asks for the newest score of each run
        Outlines,  # asks for the spans of a run, as lists show them
        Query,  # asks for a page of rows
        RemoveRuns,  # removes runs with all their rows
        RunFilter,  # which runs are meant
    )
    from agentspan.storage.sums import (
        RunSummary,  # a run, and the sums over its spans
    )

    """A database: a storage with its operations by id."""
    from agentspan.api.context import (
        Context,  # a storage, with what operations need
    )
    from agentspan.database import (
        Database,  # what `agentspan.open` returns
        has_storage,  # whether its storage exists
        open,  # `agentspan.open`
    )

    """Recording, from inside: for what has runs and spans of its own."""
    from agentspan.journal.records import (
        Begin,  # how a span begins
        End,  # how a span ends
        whole,  # a captured payload as JSON text
    )
    from agentspan.recording.blocks import (
        outside,  # returns the run of spans that begin outside of one, in this context
    )
    from agentspan.recording.capture.plain import (
        SentRedaction,  # redacts JSON that others wrote
    )
    from agentspan.recording.recorder import (
        Recorder,  # records into one storage
    )
    from agentspan.recording.run_state import (
        Known,  # the facts of a run that another tracer began
        RunState,  # one run, and its transitions
        on_begin,  # the functions that receive each run that begins
        text_of,  # a name or a version as it is recorded
    )
    from agentspan.recording.span_and_run import (
        Run,  # a run, as programs hold it
    )
    from agentspan.recording.span_state import (
        SpanState,  # one span, and its transitions
        going_on,  # the innermost open span, from one outward
        inner_of,  # the inner one of two spans
    )
    from agentspan.recording.tracer import (
        Tracer,  # the public facade of recording
        get_recorder,  # the recorder of this process
        recorder_of,  # the recorder of a tracer
    )
else:
    __getattr__ = host.lazily(
        __name__,
        {
            "agentspan": "blobs clock errors ids installing jsontext text",
            "agentspan.host": "is_readable",
            "agentspan.model.changes": "Applied Change Move NUL OPEN Put Remove Unit",
            "agentspan.model.registration": "DEFAULT",
            "agentspan.model.rows": "AgentInstanceRow SessionEntryRow SessionFileRow SessionSummaryRow Value",
            "agentspan.model.scores": "Judgement Source judgement",
            "agentspan.schemas.builtin": "built_in_part",
            "agentspan.schemas.span_types": "MAX_NAME",
            "agentspan.storage.access": "Wrapper scan unique",
            "agentspan.storage.answers": "LatestScore",
            "agentspan.storage.location": "Location",
            "agentspan.storage.protocol": "Storage",
            "agentspan.storage.questions": "Account Find NewestScores Outlines Query RemoveRuns RunFilter",
            "agentspan.storage.sums": "RunSummary",
            "agentspan.api.context": "Context",
            "agentspan.database": "Database has_storage open",
            "agentspan.journal.records": "Begin End whole",
            "agentspan.recording.blocks": "outside",
            "agentspan.recording.capture.plain": "SentRedaction",
            "agentspan.recording.recorder": "Recorder",
            "agentspan.recording.run_state": "Known RunState on_begin text_of",
            "agentspan.recording.span_and_run": "Run",
            "agentspan.recording.span_state": "SpanState going_on inner_of",
            "agentspan.recording.tracer": "Tracer get_recorder recorder_of",
        },
    )
