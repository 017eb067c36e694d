"""The rule for texts that have a column of their own, such as names, ids, keys and reasons: they hold no NUL.

PostgreSQL cannot store U+0000 in a text. JSON escapes it, so payloads may hold it.
"""

from agentspan.errors import InvalidValue

NUL = "\x00"


def check_text(field: str, text: str) -> str:
    """Return a text that every backend can store.

    Raises:
        InvalidValue: it holds a NUL.
    """
    if NUL in text:
        raise InvalidValue(field, "has a NUL character (U+0000), which not every database can store; remove it")
    return text


def without_nul(text: str) -> str:
    """Return a text with U+FFFD in the place of each NUL. For recording, which refuses no text."""
    return text.replace(NUL, "\ufffd")
