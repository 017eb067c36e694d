"""The settings of a recorder: listed and described once, checked once.

A setting is a line of SettingsArguments, for type checkers, and a line of Settings, with its default and its
description. `configure` and `Tracer` have it from there: its keyword, its place in the signature, and in `help`.
"""

import os
from dataclasses import dataclass, fields
from inspect import Parameter, Signature, signature
from typing import Literal, TypedDict, TypeVar

from agentspan.errors import InvalidValue
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.limits import Limits
from agentspan.recording.capture.plain import SentRedaction
from agentspan.recording.capture.redaction import Redaction, Rule
from agentspan.tuning import STANDARD, Tuning

F = TypeVar("F")

Durability = Literal["journal", "commit"]
Sensitive = Literal["redact", "keep"]

_NO = frozenset({"", "0", "false", "no", "off"})
MAX_SYNC_S = 1e9
"""A thread cannot wait for ten times as long."""


class SettingsArguments(TypedDict, total=False):
    """The settings as keyword arguments, for type checkers; Settings describes them."""

    raise_errors: bool
    strict_schemas: bool
    redact: Rule | Literal["credentials"] | None
    limits: Limits | None
    durability: Durability
    sensitive: Sensitive
    enabled: bool | None
    sync_every_s: float | None
    tuning: Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one recorder.

    Attributes:
        raise_errors: raise agentspan's own faults instead of counting and logging them; for tests.
        strict_schemas: do not record a payload that does not match its schema; a result that does not makes its
            span fail.
        redact: what is kept out of the file. "credentials": passwords, API keys, tokens, private keys, by the name of
            a member and by their look. A function adds a rule of one's own: it takes the name of a member and its
            text, number, boolean or None, and returns what to record instead, or the same. None: nothing.
        limits: how much of a payload is kept; `Limits()` where None.
        durability: "journal": every transition is on disk before the call returns, in a journal beside the file (of a
            server: in this user's state), and in the file a moment later; "commit": it is in the file itself. A
            database in memory, or one that lies where no journal can be, has the latter.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        enabled: False: record nothing, make no file, and cost a decorated call 0.2 µs, until `configure` is called
            again. True: record, whatever the environment says. None: record, but where AGENTSPAN_DISABLED is set.
        sync_every_s: a power failure loses at most what was recorded in twice that time, in seconds: a thread has it on
            the disk so often. None: the operating system writes it when it likes, which may take half a minute.
        tuning: sizes and times, for tests; see agentspan/tuning.py.

    Raises:
        InvalidValue: a value is none of these.
    """

    raise_errors: bool = False
    strict_schemas: bool = False
    redact: Rule | Literal["credentials"] | None = "credentials"
    limits: Limits | None = None
    durability: Durability = "journal"
    sensitive: Sensitive = "redact"
    enabled: bool | None = None
    sync_every_s: float | None = STANDARD.sync_every_s
    tuning: Tuning = STANDARD

    def __post_init__(self) -> None:
        if self.durability not in ("journal", "commit"):
            raise InvalidValue("durability", 'must be "journal" or "commit"')
        if self.sensitive not in ("redact", "keep"):
            raise InvalidValue("sensitive", 'must be "redact" or "keep"')
        if self.redact is not None and self.redact != "credentials" and not callable(self.redact):
            raise InvalidValue("redact", 'must be "credentials", a function of a name and a value, or None')
        if self.sync_every_s != STANDARD.sync_every_s:
            is_time = isinstance(self.sync_every_s, int | float) and 0 < self.sync_every_s <= MAX_SYNC_S
            if self.sync_every_s is not None and not is_time:
                raise InvalidValue("sync_every_s", "must be a number of seconds above 0, at most 1e9, or None")
            object.__setattr__(self, "tuning", self.tuning._replace(sync_every_s=self.sync_every_s))

    @property
    def is_enabled(self) -> bool:
        """True if recording is wanted now: by these settings, or else by the environment."""
        return self.enabled if self.enabled is not None else not is_disabled_by_environment()

    def new_capture(self) -> Capture:
        """Return a Capture that redacts and limits as these settings say."""
        redact = self.redact
        redaction = None if redact is None else Redaction(redact if callable(redact) else None)
        keeps = self.sensitive == "keep"
        return Capture(self.limits or Limits(), redaction, keep_sensitive=keeps, tuning=self.tuning)

    def new_sent_redaction(self) -> SentRedaction | None:
        """Return what redacts JSON that clients send as these settings say; None for nothing."""
        redact = self.redact
        return None if redact is None else SentRedaction(redact if callable(redact) else None)


def settings_from(function: str, given: SettingsArguments) -> Settings:
    """Return the settings that a function was called with.

    Raises:
        TypeError: there is no setting of a name.
        InvalidValue: a value is not usable.
    """
    known = [each.name for each in fields(Settings)]
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() has no setting {name!r}; there are {', '.join(known)}")
    return Settings(**given)


def is_disabled_by_environment() -> bool:
    """Return whether AGENTSPAN_DISABLED says that nothing is to be recorded."""
    return os.environ.get("AGENTSPAN_DISABLED", "").strip().lower() not in _NO


def with_settings(function: F) -> F:
    """Show the settings one by one in the signature of a function that takes them as `**settings`, and in its help."""
    given = signature(function)  # type: ignore[arg-type]
    kept = [each for each in given.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    listed = [
        Parameter(each.name, Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type)
        for each in fields(Settings)
    ]
    function.__signature__ = Signature([*kept, *listed], return_annotation=given.return_annotation)  # type: ignore[attr-defined]
    described = (Settings.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    if function.__doc__ and described:
        function.__doc__ = function.__doc__.replace("        settings: see Settings.", described)
    return function
