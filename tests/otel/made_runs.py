"""Runs to be forwarded: of each status, with steps of many types."""

from pathlib import Path

import agentspan


def record(path: Path, runs: int = 3, steps: int = 4) -> None:
    """Record runs of each status, with steps of many types."""
    tracer = agentspan.Tracer(path, raise_errors=True)
    for number in range(runs):
        try:
            with tracer.run(
                f"agent {number % 3}", version="1.2", metadata={"n": number}, session="s1", user="mia"
            ) as run:
                for step in range(steps):
                    with tracer.span("agent", {"name": "inner"}):
                        with tracer.span("llm", model="gpt-4.1", messages=[{"role": "user", "content": "hi ☃"}]) as llm:
                            llm.set_result(
                                {"text": "yes", "input_tokens": 9, "output_tokens": 2, "response_id": f"r{step}"}
                            )
                        with tracer.span("tool", {"name": "look", "arguments": {"at": step}}) as tool:
                            tool.set_result({"output": {"found": step}})
                    with tracer.span("my own type", {"any": [1, None, {"x": "y"}]}):
                        pass
                run.set_result({"answer": number})
                if number % 3 == 2:
                    raise ValueError("no luck")
        except ValueError:
            pass
    tracer.shutdown()
