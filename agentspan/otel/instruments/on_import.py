"""Calls a function, or wraps functions of a framework, when a module has been imported.

So a program pays only for the frameworks that it uses. A wrapper adds to the spans of an instrumentor; it makes none.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, NamespaceLoader, PathFinder
from types import ModuleType
from typing import Any

from agentspan.interrupts import guard
from agentspan.recording import default

Then = Callable[[ModuleType], None]


class Waiting(MetaPathFinder):
    """Waits for modules. It finds none itself: it asks the finders behind it.

    Args:
        wanted: by the name of a module, what to call with it. Each is called once, at once if it is imported already.
    """

    def __init__(self, wanted: dict[str, Then]) -> None:
        self._wanted = wanted
        for name in [name for name in wanted if name in sys.modules]:
            wanted.pop(name)(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the spec that another finder has, with a loader that calls back; None for modules of no interest."""
        if name not in self._wanted:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            if (spec := finder.find_spec(name, path, target)) is not None:
                loader = spec.loader or NamespaceLoader(
                    name, spec.submodule_search_locations or [], PathFinder.find_spec
                )
                spec.loader = _Calling(loader, self._imported)
                return spec
        return None  # it may be there later

    def _imported(self, module: ModuleType) -> None:
        then = self._wanted.pop(module.__name__, None)  # not before: a program may only ask whether the module is there
        if then is not None:
            then(module)


class _Calling(Loader):
    """A loader that calls a function with each loaded module. In all else it is the loader that it stands for."""

    def __init__(self, loader: Any, then: Then) -> None:
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Load a module, with its own loader in its place, then call."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)


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
        """Replace a function by `new` of it."""
        before = getattr(owner, name)
        setattr(owner, name, new(before))
        self._replaced.append((owner, name, before))

    def _when_imported(self, wrap: Callable[[Any], None]) -> Callable[[ModuleType], None]:
        def imported(module: ModuleType) -> None:
            if self._is_on:
                with unharmed:
                    wrap(module)

        return imported


def _count(error: Exception) -> None:
    default.get_recorder().faults.add(error)


unharmed = guard(_count)
"""Lets the framework go on whatever happens in a block; a fault of it is counted as one of recording."""
