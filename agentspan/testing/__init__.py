"""Tools for tests: assertions on recorded runs, and the contract tests for storage backends.

    def test_it_searches_before_it_answers(captured_runs):  # pytest knows the fixture where agentspan is installed
        my_agent("When is it cheap to fly?")

        run = captured_runs.one()
        run.assert_order("search", "gpt-4.1")
        run.assert_called("search", times=1, query="cheap flights")
        run.assert_no_failures()

Importing this imports neither pytest nor a storage; the first use of a name imports its module.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentspan.testing.contract import StorageContract
    from agentspan.testing.determinism import capture, deterministic
    from agentspan.testing.run import CapturedRun, CapturedSpan
    from agentspan.testing.runs import CapturedRuns, load, snapshot

__all__ = [
    "CapturedRun",
    "CapturedRuns",
    "CapturedSpan",
    "StorageContract",
    "capture",
    "deterministic",
    "load",
    "snapshot",
]

# No module may have a name from this table: importing the module would replace the object of that name here.
_LAZY = {
    "CapturedRun": "agentspan.testing.run",
    "CapturedRuns": "agentspan.testing.runs",
    "CapturedSpan": "agentspan.testing.run",
    "StorageContract": "agentspan.testing.contract",
    "capture": "agentspan.testing.determinism",
    "deterministic": "agentspan.testing.determinism",
    "load": "agentspan.testing.runs",
    "snapshot": "agentspan.testing.runs",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'agentspan.testing' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
