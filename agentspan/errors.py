"""The errors of agentspan. Each class has the API's `code`. An error's text never contains a value of a payload.

    AgentspanError
    ├── RequiredValue               required_value                 (ValueError)
    ├── InvalidValue                invalid_value                  (ValueError)
    │   ├── SchemaError                 a JSON Schema that cannot be used
    │   └── TemplateError               a summary template that cannot be used
    ├── ValidationErrors            validation_errors              (ValueError)   only with strict_schemas=True
    ├── NotFound                    not_found                      (LookupError)
    ├── UnexpectedRefType           unexpected_ref_type            (LookupError)
    ├── InvalidAction               invalid_action                 (RuntimeError)
    ├── IdempotencyKeyAlreadyUsed   idempotency_key_already_used   (RuntimeError)
    ├── NotPermitted                not_permitted
    └── StorageError                unexpected
        ├── DatabaseBusy            unknown                        worth trying again
        ├── DatabaseUnusable            the file cannot be used as it is; the message says what to do
        ├── InDoubt                     the connection broke while changes were committed
        └── NotStorable                 a value or a statement that the backend never accepts

A StorageError is no OSError: a backend that handles files would catch it with its own `except OSError`.

Outside the tree, so that no handler of Exception catches it:

    AgentTerminated (BaseException)     a span begins in a terminated run with on_terminate="raise"
    BudgetExceeded (BaseException)      a span would begin in a run that has spent its budget

Source of the codes: the page "Finish an agent span" of the Prefactor API, and its error envelope.
"""

from collections.abc import Sequence
from typing import ClassVar


class AgentspanError(Exception):
    """The base class of all errors that agentspan raises on purpose.

    Attributes:
        code: the API's error code, such as `invalid_action`.
    """

    code: ClassVar[str] = "unexpected"


class RequiredValue(AgentspanError, ValueError):
    """A required value is missing.

    Attributes:
        field: the parameter's name.
    """

    code = "required_value"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class InvalidValue(AgentspanError, ValueError):
    """A value has the wrong type, form or range.

    Attributes:
        field: the parameter's name.
    """

    code = "invalid_value"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field


class SchemaError(InvalidValue):
    """A JSON Schema cannot be used: it is not valid, too large, or refers to another document."""


class TemplateError(InvalidValue):
    """A summary template cannot be used: it is not Mustache, too large, or uses a feature that is not allowed."""


class ValidationErrors(AgentspanError, ValueError):
    """A payload does not match its span type's schema. Raised only with `strict_schemas=True`.

    Attributes:
        problems: one text for each mismatch, `PATH: MESSAGE`, without values of the payload.
        fields: the field of each problem, such as `payload.messages[0].role`.
    """

    code = "validation_errors"

    def __init__(self, message: str, problems: Sequence[str], fields: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)
        self.fields = tuple(fields)


class NotFound(AgentspanError, LookupError):
    """No resource has this id. Check the id, and which database is open."""

    code = "not_found"


class UnexpectedRefType(AgentspanError, LookupError):
    """The id exists, but names another type of resource."""

    code = "unexpected_ref_type"


class InvalidAction(AgentspanError, RuntimeError):
    """The status of the resource does not allow the operation. The stored resource is unchanged.

    Often another process was first: read the resource.

    Attributes:
        terminated: the reason for which the resource's run was terminated; None if it was not terminated.
    """

    code = "invalid_action"
    terminated: str | None = None


class IdempotencyKeyAlreadyUsed(AgentspanError, RuntimeError):
    """The idempotency key was used for another request of the same operation. Use a new key for a new request."""

    code = "idempotency_key_already_used"


class NotPermitted(AgentspanError):
    """The database was opened with `read_only=True`, and the operation writes."""

    code = "not_permitted"


class StorageError(AgentspanError):
    """The storage failed (the disk is full, for example), or is closed; the message says what to do."""


class DatabaseBusy(StorageError):
    """Other connections held the write lock longer than the call may wait. The caller may retry."""

    code = "unknown"


class DatabaseUnusable(StorageError):
    """The file cannot be used as it is; the message says why and what to do.

    It is no database, is damaged, belongs to another program or a newer version; its folder does not exist, permission
    is missing, or SQLite is too old.
    """


class InDoubt(StorageError):
    """The connection broke during a commit, so it is not known whether the changes are stored.

    A retry with the same idempotency key has no second effect. Recorders retry by themselves.
    """


class NotStorable(StorageError):
    """The backend never accepts this value or statement: a bug, please report it. Other changes are not affected."""


NOT_NOW = (StorageError, MemoryError, OSError)
"""Exceptions that are not the fault of the data to be stored, so storing is retried. An import raises OSError if too
many files are open."""


class AgentTerminated(BaseException):
    """The run was terminated. Raised by each later span of a run with `on_terminate="raise"`.

    Like KeyboardInterrupt, it is not an Exception, so that an agent that retries after every error stops, too.

    Attributes:
        run_id: the id of the agent instance.
        reason: the reason that was passed to `terminate`.
    """

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id} was terminated: {reason}")
        self.run_id = run_id
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.run_id, self.reason)


class BudgetExceeded(BaseException):
    """A run has spent its budget. Raised by each step that would begin then, if the budget has `on_spent="raise"`.

    Like AgentTerminated, it is not an Exception, so that an agent that retries after every error stops, too.

    Attributes:
        run_id: the id of the agent instance that has the budget.
        limit: the spent limit: `usd`, `steps`, `minutes`, `tokens` or `repeats`.
        reason: how much was spent, such as `usd: $5.02 of $5.00`.
    """

    def __init__(self, run_id: str, limit: str, reason: str) -> None:
        super().__init__(f"run {run_id} has spent its budget: {reason}")
        self.run_id = run_id
        self.limit = limit
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return BudgetExceeded, (self.run_id, self.limit, self.reason)
