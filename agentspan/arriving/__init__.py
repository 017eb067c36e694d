"""Steps that arrive from elsewhere: what a source says of them, their ids and rows, and how they are stored.

A name is imported at its first use. A decoder that needs another one adds it here, to the imports and to the table,
with a line that says what it is.
"""

from typing import TYPE_CHECKING

from agentspan import host

if TYPE_CHECKING:
    """Records that decoders yield."""
    from agentspan.arriving.records import (
        Outcome,  # how a session ended
        Record,  # a value that a decoder yields
        Session,  # a conversation of a person with an agent
        Status,  # how a step stands
        Step,  # one step of a session
        Unread,  # what was not understood
        as_asked,  # the arguments of a call, as the model's answer repeats them
        task_of,  # the name of a task, from a prompt
        unknown,  # the step that keeps a record of an unknown kind
    )

    """Values of foreign JSON: one of another type is as if it were missing."""
    from agentspan.arriving.json_values import (
        commit_in,  # the hash of a commit of git, or None
        count_in,  # an integer from 0 on, or None
        decoded,  # the value of a JSON text
        id_in,  # a text that can be stored, or None
        json_of,  # decodes JSON, and refuses what is too deep
        list_in,  # a list, or an empty one
        ns_of,  # a time in nanoseconds, or None
        number_in,  # a finite number, or None
        object_in,  # an object, or an empty one
        parsed,  # decoded JSON, or None
        part_of,  # a part of a fingerprint: a hash
        present,  # the members that are not None
        text_in,  # a text that is not empty, or None
        tokens_in,  # a count of tokens, or 0
        unicode_of,  # a text without halves of surrogate pairs
    )

    """Objects of ATIF as payloads and results."""
    from agentspan.arriving.atif_objects import (
        RESULT,  # the members of a result of an observation
        agent_of,  # the payload and the result of an agent
        content_of,  # the content of a message
        first_prompt,  # the text of the first prompt
        foreign_extra,  # the members that the format does not have
        last_answer,  # the text of the last answer
        message_of,  # the payload of a message
        model_call_of,  # the payload and the result of a model call
        own_of,  # what our export added to an object
        patched,  # a payload as it was before the export
        several,  # a value as a list
        text_of,  # the texts of a content
        text_or_none,  # a text that strict readers take, or None
        time_of,  # a time in nanoseconds, cut to the years that can be stored
        tool_call_of,  # the type, the payload and the result of a tool call
    )

    """Ids and rows, and how they are stored."""
    from agentspan.arriving.arrival import (
        TOGETHER,  # the most records that are decoded before they are stored
        TOGETHER_BYTES,  # the most bytes of their lines
        Arrival,  # stores sessions in one storage
        Arrived,  # counts what it has stored
        ParentMissing,  # the session that started a sub-agent has not arrived
    )
    from agentspan.arriving.identity import (
        hashed_id,  # an id from a time and a content
        span_id,  # the id of a step
    )
    from agentspan.arriving.session_rows import (
        STATUS,  # the status of a run, by the outcome of its session
        metadata_of,  # the metadata of a session's run
        state_of,  # what the note of a file holds without a column
    )
    from agentspan.arriving.stored import (
        about_of,  # the name of a session or user, as it is stored
    )
else:
    __getattr__ = host.lazily(
        __name__,
        {
            "agentspan.arriving.records": "Outcome Record Session Status Step Unread as_asked task_of unknown",
            "agentspan.arriving.json_values": "commit_in count_in decoded id_in json_of list_in ns_of number_in "
            "object_in parsed part_of present text_in tokens_in unicode_of",
            "agentspan.arriving.atif_objects": "RESULT agent_of content_of first_prompt foreign_extra last_answer "
            "message_of model_call_of own_of patched several text_of text_or_none time_of tool_call_of",
            "agentspan.arriving.arrival": "TOGETHER TOGETHER_BYTES Arrival Arrived ParentMissing",
            "agentspan.arriving.identity": "hashed_id span_id",
            "agentspan.arriving.session_rows": "STATUS metadata_of state_of",
            "agentspan.arriving.stored": "about_of",
        },
    )
