"""Calls functions when modules have been imported, and wraps functions in these modules."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, NamespaceLoader, PathFinder
from types import ModuleType
from typing import Any

from agentspan.host import guard
from agentspan.recording.tracer import get_recorder

Then = Callable[[ModuleType], None]


class Waiting(MetaPathFinder):
    """An import finder that calls a function when a module has been imported. It delegates to the finders behind it.

    An exception of a function is counted as a fault of recording; the import goes on.

    Args:
        wanted: the functions to call with the module, by its name. Each is called once; immediately if the module is
            already imported.
    """

    def __init__(self, wanted: dict[str, Then]) -> None:
        self._wanted = wanted
        for name in [name for name in wanted if name in sys.modules]:
            self._imported(sys.modules[name])
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return another finder's spec of a wanted module, with a loader that calls its function; else None."""
        if name not in self._wanted:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            if (spec := finder.find_spec(name, path, target)) is not None:
                loader = spec.loader or NamespaceLoader(
                    name, spec.submodule_search_locations or [], PathFinder.find_spec
                )
                spec.loader = _Calling(loader, self._imported)
                return spec
        return None  # the module stays wanted: a later import may find it

    def _imported(self, module: ModuleType) -> None:
        then = self._wanted.pop(module.__name__, None)  # not in `find_spec`: a program may only check for the module
        if then is not None:
            with unharmed:
                then(module)


class _Calling(Loader):
    """A loader that wraps another loader and calls a function with each loaded module."""

    def __init__(self, loader: Any, then: Then) -> None:
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Create the module with the wrapped loader."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Load a module with the wrapped loader, which the module gets as its own, then call the function."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module)


class Wrapping:
    """Wrappers around functions of a framework, installed when the modules of the functions have been imported.

    Args:
        modules: the function that wraps functions in a module, by the name of the module. If it raises an
            AttributeError, the framework has another version, and its spans get no additions.
    """

    def __init__(self, modules: Mapping[str, Callable[[Any], None]]) -> None:
        self._modules = modules
        self._replaced: list[tuple[Any, str, Any]] = []
        self._is_on = False

    def turn_on(self) -> None:
        """Install the wrappers, now or when their modules have been imported."""
        self._is_on = True
        Waiting({name: self._when_imported(wrap) for name, wrap in self._modules.items()})

    def turn_off(self) -> None:
        """Restore the wrapped functions, and install no more wrappers."""
        self._is_on = False
        while self._replaced:
            setattr(*self._replaced.pop())

    def replace(self, owner: Any, name: str, new: Callable[[Any], Any]) -> None:
        """Replace the function `name` of an object or module by `new(function)`, so that `turn_off` can restore it."""
        before = getattr(owner, name)
        setattr(owner, name, new(before))
        self._replaced.append((owner, name, before))

    def before(self, owner: Any, name: str, note: Callable[..., object]) -> None:
        """Let each call of the function `name` first call `note` with its arguments, whose faults harm no call."""

        def wrap(function: Any) -> Any:
            def noted(*args: Any, **kwargs: Any) -> Any:
                with unharmed:
                    note(*args, **kwargs)
                return function(*args, **kwargs)

            return noted

        self.replace(owner, name, wrap)

    def _when_imported(self, wrap: Callable[[Any], None]) -> Callable[[ModuleType], None]:
        def imported(module: ModuleType) -> None:
            if self._is_on:
                wrap(module)

        return imported


def _count(error: Exception) -> None:
    get_recorder().faults.add(error)


unharmed = guard(report=_count)
"""Lets the framework go on whatever happens in a block; a fault of it is counted as one of recording."""
