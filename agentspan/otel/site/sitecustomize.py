"""Startup code of a program under `agentspan record`, which puts the folder of this file first in PYTHONPATH.

It imports the `sitecustomize` that it hides, and instruments the program when the program imports a framework. Until
then it imports no module of agentspan, because this takes 15 times as long as to start Python. It must not break a
program whose Python has no agentspan.
"""

import os
import sys
from importlib import import_module

WANTED = frozenset(
    {
        *("agents", "agno", "anthropic", "autogen_agentchat", "boto3", "claude_agent_sdk", "cohere", "crewai", "dspy"),
        *("google.adk", "google.genai", "groq", "haystack", "langchain_core", "litellm", "llama_index.core", "mcp"),
        *("mistralai", "ollama", "openai", "opentelemetry.trace", "pydantic_ai", "semantic_kernel", "smolagents"),
        *("strands", "vertexai"),
    }
)
"""The modules of all known frameworks, and `opentelemetry.trace`, with which a program sets its own provider."""


class _Waiting:
    """An import finder that starts `instrument` at the first import of a framework.

    The finder that `instrument` installs then handles this import and all later ones. This finder finds no module
    itself. It stays in `sys.meta_path`, because another thread may be iterating over the list.
    """

    has_begun = False

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]  # without `typing`
        if name not in WANTED or self.has_begun:
            return None
        self.has_begun = True
        waiting = _start()  # type: ignore[no-untyped-call]
        return None if waiting is None else waiting.find_spec(name, path, target)


def _start():  # type: ignore[no-untyped-def]
    try:
        from agentspan.otel.instruments import instrument
    except ImportError as error:
        _note(f"without {sys.executable} cannot import agentspan: {error}")
        return None
    try:
        return instrument.start()
    except Exception as error:
        _note(f"without {sys.executable} cannot record: {type(error).__name__}: {error}")
        return None


def _note(line: str) -> None:
    """Append a line to the file of notes, from which `agentspan record` prints why a program was not recorded."""
    if path := os.environ.get("AGENTSPAN_RECORD_NOTES"):
        try:
            # `record` has deleted the file if this process outlives it: it is not made again.
            with open(os.open(path, os.O_WRONLY | os.O_APPEND), "a") as file:
                file.write(f"{line}\n")
        except (OSError, ValueError):
            pass


def _give_way() -> None:
    """Import the `sitecustomize` of the installation that this file hides, if there is one."""
    here = os.path.dirname(os.path.abspath(__file__))
    path, mine = sys.path[:], sys.modules.pop("sitecustomize", None)
    sys.path[:] = [each for each in path if os.path.abspath(each or os.curdir) != here]
    try:
        import_module("sitecustomize")
    except ImportError:
        if mine is not None:
            sys.modules["sitecustomize"] = mine


_give_way()
_note(f"python {sys.executable}")
sys.meta_path.insert(0, _Waiting())
