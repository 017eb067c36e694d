"""Errors that name their fields as the request names them, such as `details.payload.n`."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from agentspan.errors import AgentspanError, InvalidValue, RequiredValue, ValidationErrors


def as_sent(error: AgentspanError, details: Collection[str]) -> AgentspanError:
    """Return an error with `details.` before its fields that came in there.

    Args:
        details: the names of the fields in the `details` of the request.
    """
    if isinstance(error, ValidationErrors):
        names = [f"details.{name}" if _root(name) in details else name for name in error.fields]
        return ValidationErrors(str(error), error.problems, names)
    if isinstance(error, RequiredValue | InvalidValue) and _root(error.field) in details:
        return _inside("details", error)
    return error


@contextmanager
def inside(parent: str) -> Iterator[None]:
    """Name the fields of errors below a parent, such as `agent_version.name`."""
    try:
        yield
    except (RequiredValue, InvalidValue) as error:
        if _root(error.field) == parent:
            raise
        raise _inside(parent, error) from None


def _inside(parent: str, error: RequiredValue | InvalidValue) -> AgentspanError:
    return type(error)(f"{parent}.{error.field}", str(error).removeprefix(f"{error.field}: "))


def _root(field: str) -> str:
    return field.partition(".")[0].partition("[")[0]
