"""The settings of a recorder: listed and described once, checked once.

A setting is one line of SettingsArguments, for type checkers, and one line of Settings, with its default and its
description. `configure` and `Tracer` get their keywords, their signatures and their `help` texts from Settings.
"""

import os
import re
from inspect import Parameter, Signature, signature
from typing import Literal, NamedTuple, TypedDict, TypeVar

from agentspan.errors import InvalidValue
from agentspan.recording.budgets import Budget
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.plain import SentRedaction
from agentspan.recording.capture.redaction import Redaction, Rule
from agentspan.recording.capture.values import Limits
from agentspan.tuning import STANDARD, Tuning

F = TypeVar("F")

Durability = Literal["journal", "commit"]
Sensitive = Literal["redact", "keep"]

_NO = frozenset({"", "0", "false", "no", "off"})
MAX_SYNC_S = 1e9
"""The longest `sync_every_s`, in seconds. A thread cannot wait ten times as long."""


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
    budget: Budget | None
    tuning: Tuning


class Settings(NamedTuple):
    """The settings of one recorder. `settings_from` checks them.

    Attributes:
        raise_errors: raise agentspan's own faults instead of counting and logging them; for tests.
        strict_schemas: do not record a payload that does not match its schema, and set a span to failed if its result
            does not match.
        redact: the secrets to keep out of the file. "credentials": passwords, API keys, tokens, private keys, found by
            the name of a member and by their form. A function: "credentials" and a rule of your own. It receives the
            name of a member and its text, number, boolean or None, and returns the value to record. None: no redaction.
        limits: how much of a payload is kept; `Limits()` if None.
        durability: "journal": each transition is on disk before the call returns, in a journal beside the file (of a
            server: in this user's state folder), and in the file a moment later. "commit": each transition is in the
            file before the call returns; used also for a database in memory, or where no journal can be.
        sensitive: whether to "redact" or "keep" values that are marked as `{"$sensitive": …, "value": …}`.
        enabled: False: record nothing, make no file, and cost a decorated call 0.2 µs, until `configure` is called
            again. True: record, even if AGENTSPAN_DISABLED is set. None: record unless AGENTSPAN_DISABLED is set.
        sync_every_s: how often a thread flushes recorded data to the disk, in seconds. A power failure loses at most
            the data of twice this time before it; soon after a kill, before the kill. None: the operating system
            decides when to write, which may take half a minute.
        budget: the budget of each run without a budget of its own, if no run around it has one. None: the one of
            AGENTSPAN_BUDGET, else none.
        tuning: sizes and times, for tests; see agentspan/tuning.py.
    """

    raise_errors: bool = False
    strict_schemas: bool = False
    redact: Rule | Literal["credentials"] | None = "credentials"
    limits: Limits | None = None
    durability: Durability = "journal"
    sensitive: Sensitive = "redact"
    enabled: bool | None = None
    sync_every_s: float | None = STANDARD.sync_every_s
    budget: Budget | None = None
    tuning: Tuning = STANDARD

    @property
    def is_enabled(self) -> bool:
        """True if recording is enabled: by the setting `enabled`, or by the environment now if the setting is None."""
        return self.enabled if self.enabled is not None else not is_disabled_by_environment()

    def new_capture(self) -> Capture:
        """Return a Capture with the redaction and the limits of these settings."""
        redact = self.redact
        redaction = None if redact is None else Redaction(redact if callable(redact) else None)
        keeps = self.sensitive == "keep"
        return Capture(self.limits or Limits(), redaction, keep_sensitive=keeps, tuning=self.tuning)

    def new_sent_redaction(self) -> SentRedaction | None:
        """Return the redaction of these settings for JSON sent by clients; None if nothing is redacted."""
        redact = self.redact
        return None if redact is None else SentRedaction(redact if callable(redact) else None)


def settings_from(function: str, arguments: SettingsArguments) -> Settings:
    """Return the Settings of the keyword arguments that `function` was called with.

    Args:
        function: the name of the function, for messages.

    Raises:
        TypeError: a keyword is not the name of a setting.
        InvalidValue: a value is not usable.
    """
    for name in arguments:
        if name not in Settings._fields:
            raise TypeError(f"{function}() has no setting {name!r}; there are {', '.join(Settings._fields)}")
    settings = Settings(**arguments)
    redact, sync_every_s = settings.redact, settings.sync_every_s
    if settings.durability not in ("journal", "commit"):
        raise InvalidValue("durability", 'must be "journal" or "commit"')
    if settings.sensitive not in ("redact", "keep"):
        raise InvalidValue("sensitive", 'must be "redact" or "keep"')
    if redact is not None and redact != "credentials" and not callable(redact):
        raise InvalidValue("redact", 'must be "credentials", a function of a name and a value, or None')
    if settings.budget is not None and not isinstance(settings.budget, Budget):
        raise InvalidValue("budget", "must be an agentspan.Budget, or None")
    if sync_every_s == STANDARD.sync_every_s:
        return settings
    is_time = isinstance(sync_every_s, int | float) and 0 < sync_every_s <= MAX_SYNC_S
    if sync_every_s is not None and not is_time:
        raise InvalidValue("sync_every_s", "must be a number of seconds above 0, at most 1e9, or None")
    return settings._replace(tuning=settings.tuning._replace(sync_every_s=sync_every_s))


def is_disabled_by_environment() -> bool:
    """Return whether the environment variable AGENTSPAN_DISABLED disables recording."""
    return os.environ.get("AGENTSPAN_DISABLED", "").strip().lower() not in _NO


def with_settings(function: F) -> F:
    """Decorate a function that takes `**settings`: list each setting in its signature and its help text."""
    shown = signature(function)  # type: ignore[arg-type]
    kept = [each for each in shown.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    listed = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=Settings.__annotations__[name])
        for name, default in Settings._field_defaults.items()
    ]
    function.__signature__ = Signature([*kept, *listed], return_annotation=shown.return_annotation)  # type: ignore[attr-defined]
    described = (Settings.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    if function.__doc__ and described:
        # From Python 3.13 on, the lines of a docstring have no common indentation.
        function.__doc__ = re.sub(
            r"^ +settings: see Settings\.", lambda _: described, function.__doc__, flags=re.MULTILINE
        )
    return function
