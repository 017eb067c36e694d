"""The function `snapshot`."""

from agentspan.testing.run import CapturedRun


def snapshot(run: CapturedRun, *, payloads: bool = False) -> str:
    """Return a run as text: a line for the run, and one for each span with status, type, summary and type of error.

        ✓ researcher 1.2
        ├─✓ tool · Tool search(query=flights) → ["a page about flights"]
        └─✗ llm · LLM gpt-4.1 → TimeoutError

    Two recordings of the same behaviour have the same text. Times, durations, error messages and stack traces are left
    out. Ids are replaced by `<run>`, `<span 2>` (the second span of the tree) and `<id 1>` (another resource of the
    storage), and addresses of objects by `at 0x…`. Spans are in the order in which they began, which can differ if
    threads race.

    Args:
        run: the run; in pytest `captured_runs.one()`.
        payloads: add payloads and results as JSON with sorted keys. They contain error messages.
    """
    return run.text(payloads=payloads)
