"""Facts about a run that clients send: session, user, task and tags, as fields of a request or members of metadata."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentspan.errors import InvalidValue
from agentspan.model.registration import MAX_TAGS
from agentspan.operations import request
from agentspan.operations.context import Context

TEXTS = ("session", "user", "task")
MAX_TAG = 200
"""Characters of one tag."""


class About(NamedTuple):
    """The fields of a request that describe a run, checked.

    Attributes:
        texts: those of TEXTS that it says.
        tags: all tags of the run, each once; None where the request says nothing of them.
    """

    texts: Mapping[str, str]
    tags: tuple[str, ...] | None

    @property
    def said(self) -> dict[str, Any]:
        """The values that an idempotency key guards."""
        return {**self.texts, **({} if self.tags is None else {"tags": [*self.tags]})}

    def admitted(self, ctx: Context) -> dict[str, Any]:
        """Return the same without credentials, as arguments of a Registration."""
        texts: dict[str, Any] = {name: ctx.admit_text(text) for name, text in self.texts.items()}
        return {**texts, "tags": tuple(dict.fromkeys(map(ctx.admit_text, self.tags or ())))}


def read(fields: Mapping[str, Any], tags: Any, metadata: Mapping[str, Any] | None) -> About:
    """Check what a request says about a run.

    Args:
        fields: TEXTS, None for what is left out.
        tags: a list of texts, or None.
        metadata: the run's. A member with the name of a field that is left out is that field, if it has its type.

    Raises:
        InvalidValue: a field is no text, or tags are not a list of up to MAX_TAGS texts of up to MAX_TAG characters.
    """
    texts = {name: request.text(name, fields.get(name)) or None for name in TEXTS}
    for name in TEXTS:
        if texts[name] is None:
            texts[name] = _text_in(metadata, name)
    checked = _tags(tags) if tags is not None else _tags_in(metadata)
    return About({name: text for name, text in texts.items() if text is not None}, checked)


def _tags(tags: Any) -> tuple[str, ...]:
    if not isinstance(tags, list | tuple) or len(tags) > MAX_TAGS:
        raise InvalidValue("tags", f"must be a list of at most {MAX_TAGS} texts")
    checked = [request.text("tags", tag) or "" for tag in tags]
    if any(not 0 < len(tag) <= MAX_TAG for tag in checked):
        raise InvalidValue("tags", f"must be texts of 1 to {MAX_TAG} characters")
    return tuple(dict.fromkeys(checked))


def _text_in(metadata: Mapping[str, Any] | None, name: str) -> str | None:
    said = None if metadata is None else metadata.get(name)
    try:
        return request.text(name, said) or None
    except InvalidValue:  # it means something else there
        return None


def _tags_in(metadata: Mapping[str, Any] | None) -> tuple[str, ...] | None:
    said = None if metadata is None else metadata.get("tags")
    try:
        return None if said is None else _tags(said)
    except InvalidValue:
        return None
