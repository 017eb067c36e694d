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
        sys.stderr.write(f"agentspan record: nothing is recorded by {sys.executable}: {error}\n")
        return
    try:
        program.start()
    except Exception as error:
        sys.stderr.write(f"agentspan record: nothing is recorded: {type(error).__name__}: {error}\n")


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
