"""The real Agents SDK without its instrumentor: alone, and with the one of its client. No token counts twice.

    AGENTSPAN_TEST_FRAMEWORKS=/tmp/frameworks python -m pytest tests/otel/frameworks

The folder gets an environment for each case, with the newest versions.
"""

import os
import subprocess
from pathlib import Path

import pytest

import agentspan
from agentspan.model.rows import AgentSpanRow
from tests.checkout import ROOT
from tests.otel.frameworks.environments import FOLDER, HAS_OTEL, PROGRAMS, python_of
from tests.otel.frameworks.model_server import TOKENS, serving
from tests.otel.replaying import runs_in, spans_in

PROGRAM = str(PROGRAMS / "openai_agents_weather.py")
CASES = {
    "agents_alone": (str(ROOT), "openai-agents"),
    "agents_and_client": (HAS_OTEL, "openai-agents", "openinference-instrumentation-openai"),
}
pytestmark = pytest.mark.skipif(FOLDER is None, reason="opt-in: AGENTSPAN_TEST_FRAMEWORKS names a folder to install in")


def _recorded(command: list[str], path: Path, model: dict[str, str]) -> list[AgentSpanRow]:
    known = {**os.environ, **model, "AGENTSPAN_DB": str(path)}
    done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with agentspan.open(path) as database:
        (run,) = runs_in(database.storage)
        assert (run.status, run.task) == ("complete", "is it dry in rome and in oslo?")
        return spans_in(database.storage)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["one line", "record"])
def test_the_sdk_is_recorded_without_its_instrumentor(case: str, way: str, tmp_path: Path) -> None:
    python = str(python_of(case, CASES[case]))
    start = [PROGRAM] if way == "one line" else ["-m", "agentspan", "record", "--", python, PROGRAM]
    with serving() as model:
        spans = _recorded([python, *start], tmp_path / "a.db", model)
    assert {"agent", "llm", "tool", "message"} <= {span.schema_name for span in spans}
    assert [span.schema_name for span in spans if span.status != "complete"] == ["tool"]
    assert sum(span.schema_name == "llm" for span in spans) == 3
    counted = [span for span in spans if not span.is_aggregate]
    sums = (sum(span.input_tokens or 0 for span in counted), sum(span.output_tokens or 0 for span in counted))
    assert sums == (3 * TOKENS[0], 3 * TOKENS[1])
