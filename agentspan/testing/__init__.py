"""Tools for tests: assertions on recorded runs, and the contract tests for storage backends.

    def test_it_searches_before_it_answers(captured_runs):  # pytest knows the fixture where agentspan is installed
        my_agent("When is it cheap to fly?")

        run = captured_runs.one()
        run.assert_order("search", "gpt-4.1")
        run.assert_called("search", times=1, query="cheap flights")
        run.assert_no_failures()

Importing this imports neither pytest nor a storage; the first use of a name imports its module.
"""

from typing import TYPE_CHECKING

from agentspan import host

if TYPE_CHECKING:
    from agentspan.testing.contract import StorageContract
    from agentspan.testing.determinism import capture, deterministic
    from agentspan.testing.run import CapturedRun, CapturedSpan
    from agentspan.testing.runs import CapturedRuns, load, snapshot
else:
    # No module may have one of these names: importing the module would replace the object of that name here.
    __getattr__ = host.lazily(
        __name__,
        {
            "agentspan.testing.contract": "StorageContract",
            "agentspan.testing.determinism": "capture deterministic",
            "agentspan.testing.run": "CapturedRun CapturedSpan",
            "agentspan.testing.runs": "CapturedRuns load snapshot",
        },
    )

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


def __dir__() -> list[str]:
    return sorted(__all__)
