"""Wraps functions of frameworks, to add to the spans of their instrumentors what those leave out. Makes no span."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from agentspan.interrupts import let_through
from agentspan.otel.instruments.on_import import Waiting
from agentspan.recording import default


class Wrapping:
    """Functions of a framework that are replaced when their modules have been imported.

    Args:
        modules: by the name of a module, what replaces functions in it. An AttributeError that it raises is of another
            version of the framework: its spans have nothing added.
    """

    def __init__(self, modules: Mapping[str, Callable[[Any], None]]) -> None:
        self._modules = modules
        self._replaced: list[tuple[Any, str, Any]] = []
        self._is_on = False

    def turn_on(self) -> None:
        """Replace functions, now or when their modules have been imported."""
        self._is_on = True
        Waiting({name: self._when_imported(wrap) for name, wrap in self._modules.items()})

    def turn_off(self) -> None:
        """Undo `turn_on`."""
        self._is_on = False
        while self._replaced:
            setattr(*self._replaced.pop())

    def replace(self, owner: Any, name: str, new: Callable[[Any], Any]) -> None:
        """Replace a function by what `new` makes of it."""
        before = getattr(owner, name)
        setattr(owner, name, new(before))
        self._replaced.append((owner, name, before))

    def _when_imported(self, wrap: Callable[[Any], None]) -> Callable[[ModuleType], None]:
        def imported(module: ModuleType) -> None:
            if self._is_on:
                with unharmed():
                    wrap(module)

        return imported


@contextmanager
def unharmed() -> Iterator[None]:
    """Let the framework go on whatever happens in the block; it is counted as a fault of recording."""
    try:
        yield
    except Exception as error:
        let_through(error)
        default.get_recorder().faults.add(error)
