"""Python imports this when it starts, because `agentspan record` put its folder before the others in PYTHONPATH.

It instruments the program, and gives way to the `sitecustomize` that it hides. It must not break a program in which
agentspan is not installed.
"""

import os
import sys
from importlib import import_module


def _instrument() -> None:
    try:
        from agentspan.otel.instruments import program
    except ImportError as error:
        _note(f"without {sys.executable} cannot import agentspan: {error}")
        return
    try:
        program.start()
    except Exception as error:
        _note(f"without {sys.executable} cannot record: {type(error).__name__}: {error}")


def _note(line: str) -> None:
    """Note why nothing is recorded; `agentspan record` prints it at the end of the program."""
    if path := os.environ.get("AGENTSPAN_RECORD_NOTES"):
        try:
            with open(path, "a") as file:
                file.write(f"{line}\n")
        except OSError:
            pass


def _give_way() -> None:
    """Import the `sitecustomize` of the installation, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    path, mine = sys.path[:], sys.modules.pop("sitecustomize", None)
    sys.path[:] = [each for each in path if os.path.abspath(each or os.curdir) != here]
    try:
        import_module("sitecustomize")
    except ImportError:
        if mine is not None:
            sys.modules["sitecustomize"] = mine


_give_way()
_instrument()
