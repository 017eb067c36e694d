"""The settings of a recorder, and what is refused. `agentspan.configure` describes them."""

import os
from typing import Literal, NamedTuple, Self

from agentspan.errors import InvalidValue
from agentspan.recording.budgets import Budget
from agentspan.recording.capture.capture import Capture
from agentspan.recording.capture.plain import SentRedaction
from agentspan.recording.capture.redaction import Redaction, Rule
from agentspan.recording.capture.values import Limits
from agentspan.tuning import STANDARD, Tuning

Durability = Literal["journal", "commit"]
Sensitive = Literal["redact", "keep"]

_NO = frozenset({"", "0", "false", "no", "off"})
MAX_SYNC_S = 1e9
"""The longest `sync_every_s`, in seconds. A thread cannot wait ten times as long."""


class Settings(NamedTuple):
    """The settings of one recorder. `checked` checks them."""

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

    def checked(self) -> Self:
        """Return these settings, with `sync_every_s` in the tuning.

        Raises:
            InvalidValue: a value is not usable.
        """
        redact, sync_every_s = self.redact, self.sync_every_s
        if self.durability not in ("journal", "commit"):
            raise InvalidValue("durability", 'must be "journal" or "commit"')
        if self.sensitive not in ("redact", "keep"):
            raise InvalidValue("sensitive", 'must be "redact" or "keep"')
        if redact is not None and redact != "credentials" and not callable(redact):
            raise InvalidValue("redact", 'must be "credentials", a function of a name and a value, or None')
        if self.budget is not None and not isinstance(self.budget, Budget):
            raise InvalidValue("budget", "must be an agentspan.Budget, or None")
        if sync_every_s == STANDARD.sync_every_s:
            return self
        is_time = isinstance(sync_every_s, int | float) and 0 < sync_every_s <= MAX_SYNC_S
        if sync_every_s is not None and not is_time:
            raise InvalidValue("sync_every_s", "must be a number of seconds above 0, at most 1e9, or None")
        return self._replace(tuning=self.tuning._replace(sync_every_s=sync_every_s))

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


def is_disabled_by_environment() -> bool:
    """Return whether the environment variable AGENTSPAN_DISABLED disables recording."""
    return os.environ.get("AGENTSPAN_DISABLED", "").strip().lower() not in _NO
