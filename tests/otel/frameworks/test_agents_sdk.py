"""The real Agents SDK without its instrumentor: alone, and with the one of its client. No token counts twice.

    AGENTSPAN_TEST_FRAMEWORKS=/tmp/frameworks python -m pytest tests/otel/frameworks

The folder gets an environment for each case, with the newest versions.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import agentspan
from agentspan.model.rows import AgentSpanRow
from tests.otel.frameworks.model_server import serving
from tests.otel.replaying import runs_in, spans_in

FOLDER = os.environ.get("AGENTSPAN_TEST_FRAMEWORKS")
CHECKOUT = Path(__file__).parents[3]
PROGRAM = str(Path(__file__).parent / "programs" / "openai_agents.py")
ONE_LINE = "import runpy, sys, agentspan; agentspan.instrument(); runpy.run_path(sys.argv[1], run_name='__main__')"
CASES = {
    "agents_alone": (str(CHECKOUT), "openai-agents"),
    "agents_and_client": (f"{CHECKOUT}[otel]", "openai-agents", "openinference-instrumentation-openai"),
}
pytestmark = pytest.mark.skipif(FOLDER is None, reason="opt-in: AGENTSPAN_TEST_FRAMEWORKS names a folder to install in")


def _python_of(case: str) -> str:
    """Return the Python of an environment with the packages of a case, which is made once."""
    environment = Path(FOLDER or "") / case
    python = environment / "bin" / "python"
    if not (environment / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-e", *CASES[case]], check=True)
        (environment / "ready").touch()
    return str(python)


def _recorded(command: list[str], path: Path, model: str) -> list[AgentSpanRow]:
    known = {**os.environ, "MODEL": model, "AGENTSPAN_DB": str(path)}
    done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with agentspan.open(path) as database:
        (run,) = runs_in(database.storage)
        assert (run.status, run.task) == ("complete", "rome?")
        return spans_in(database.storage)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("way", ["one line", "record"])
def test_the_sdk_is_recorded_without_its_instrumentor(case: str, way: str, tmp_path: Path) -> None:
    python = _python_of(case)
    start = ["-c", ONE_LINE, PROGRAM] if way == "one line" else ["-m", "agentspan", "record", "--", python, PROGRAM]
    with serving() as model:
        spans = _recorded([python, *start], tmp_path / "a.db", model)
    assert {"agent", "llm", "tool", "message"} <= {span.schema_name for span in spans}
    assert {span.status for span in spans} == {"complete"}
    assert sum(span.schema_name == "llm" for span in spans) == 2
    counted = [span for span in spans if not span.is_aggregate]
    sums = (sum(span.input_tokens or 0 for span in counted), sum(span.output_tokens or 0 for span in counted))
    assert sums == (20, 8)
