"""Reads what a program says of a run. What cannot be read costs a fault, and not the run."""

from itertools import islice
from typing import Any, cast

from agentspan.errors import InvalidValue
from agentspan.model.registration import MAX_TAGS, check_purpose
from agentspan.model.status import Purpose
from agentspan.recording.recorder import Recorder
from agentspan.schemas.span_types import MAX_NAME
from agentspan.text import one_line


def text_of(recorder: Recorder, value: Any) -> str | None:
    """Return the text of a name or version, or None of an object that has none."""
    try:
        return None if value is None else one_line(recorder.capture.text(str(value)), MAX_NAME)
    except Exception as raised:
        recorder.faults.add(raised, reraise=False)
        return None


def tags_of(recorder: Recorder, tags: Any) -> tuple[str, ...]:
    """Return the texts of tags, each once; those that can be had, of an object that cannot be iterated."""
    if tags is None:
        return ()
    found: list[str | None] = []
    try:
        found += [text_of(recorder, tag) for tag in islice([tags] if type(tags) is str else tags, MAX_TAGS)]
    except Exception as raised:
        recorder.faults.add(raised, reraise=False)
    return tuple(dict.fromkeys(tag for tag in found if tag))


def purpose_of(recorder: Recorder, purpose: Any) -> Purpose:
    """Return the purpose; `live`, with a fault, where it is an unknown one."""
    if type(purpose) is not str:
        return "live"
    try:
        check_purpose(purpose)
    except InvalidValue as error:
        recorder.faults.add(error)
        return "live"
    return cast(Purpose, purpose)
