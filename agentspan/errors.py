"""The one error tree of agentspan; each class carries the API's `code`. No error text ever holds a payload value.

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
        └── NotStorable                 a value or a statement that the backend never takes

What a storage raises is no OSError: a backend that handles files would catch it with its own `except OSError`.

Not among them, because `except Exception` must not swallow it:

    AgentTerminated (BaseException)     a terminated run is asked for another span, with on_terminate="raise"

Codes: the page "Finish an agent span" of the Prefactor API, and its error envelope.
"""

from collections.abc import Sequence
from typing import ClassVar


class AgentspanError(Exception):
    """Any error that agentspan raises on purpose.

    Attributes:
        code: the API's error code, a short lower-case word such as `invalid_action`.
    """

    code: ClassVar[str] = "unexpected"


class RequiredValue(AgentspanError, ValueError):
    """A value that the operation needs was not given.

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
    """A JSON Schema cannot be used: not valid, too large, or it points outside itself."""


class TemplateError(InvalidValue):
    """A summary template cannot be used: not Mustache, too large, or it asks for what templates may not do."""


class ValidationErrors(AgentspanError, ValueError):
    """A payload does not match its span type's schema, and `strict_schemas=True` asked to refuse it.

    Attributes:
        problems: one `PATH: what is wrong` a mismatch, without values.
    """

    code = "validation_errors"

    def __init__(self, message: str, problems: Sequence[str]) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class NotFound(AgentspanError, LookupError):
    """No resource has this id."""

    code = "not_found"


class UnexpectedRefType(AgentspanError, LookupError):
    """The id exists, but names another type of resource."""

    code = "unexpected_ref_type"


class InvalidAction(AgentspanError, RuntimeError):
    """The state machine forbids it; the stored resource is untouched.

    Attributes:
        terminated: why the run was terminated that the resource belongs to; None where it was not.
    """

    code = "invalid_action"
    terminated: str | None = None


class IdempotencyKeyAlreadyUsed(AgentspanError, RuntimeError):
    """The idempotency key was used for a different request of the same operation."""

    code = "idempotency_key_already_used"


class NotPermitted(AgentspanError):
    """The database was opened read-only."""

    code = "not_permitted"


class StorageError(AgentspanError):
    """The storage failed in a way that is not the caller's fault."""


class DatabaseBusy(StorageError):
    """Other writers kept the database locked for as long as this call may wait. Trying again is fine."""

    code = "unknown"


class DatabaseUnusable(StorageError):
    """The file cannot be used as it is; the message says why and what to do."""


class NotStorable(StorageError):
    """The backend never takes this value or statement: trying again fails again, and other changes are not affected."""


class AgentTerminated(BaseException):
    """The run was terminated by somebody, and asked with `on_terminate="raise"` to be told so at its next span.

    Like KeyboardInterrupt it is no Exception: an agent that tries again after every error must stop all the same.

    Attributes:
        run_id: the agent instance.
        reason: what whoever terminated it said.
    """

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(f"run {run_id} was terminated: {reason}")
        self.run_id = run_id
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.run_id, self.reason)
