"""Each framework is recorded by one line, and by none with `agentspan record`: the same tree, and no token twice.

    AGENTSPAN_TEST_FRAMEWORKS=/tmp/frameworks python -m pytest tests/otel/frameworks

The folder gets an environment for each framework, with its newest version and its instrumentor.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import agentspan
from agentspan.model.rows import AgentSpanRow
from tests.otel.frameworks.model_server import serving
from tests.otel.replaying import runs_in, spans_in

FOLDER = os.environ.get("AGENTSPAN_TEST_FRAMEWORKS")
PROGRAMS = Path(__file__).parent / "programs"
CHECKOUT = Path(__file__).parents[3]
ONE_LINE = "import runpy, sys, agentspan; agentspan.instrument(); runpy.run_path(sys.argv[1], run_name='__main__')"
_OI = "openinference-instrumentation-"


class Case(NamedTuple):
    """A program, and what it must leave: types that must be there, the tokens of all calls, runs, and failed spans.

    One whose library sets the global provider is recorded by `agentspan record` only.
    """

    program: str
    packages: tuple[str, ...]
    types: frozenset[str]
    tokens: tuple[int, int]
    runs: int = 1
    failed: int = 0
    sets_provider: bool = False


_AGENT = frozenset({"agent", "llm", "tool"})
_CALL = frozenset({"llm"})
_CREW = frozenset({"chain", "agent", "llm"})
_LLAMA_INDEX = ("llama-index-core", "llama-index-llms-openai-like", f"{_OI}llama-index", f"{_OI}openai")
CASES = (
    Case("openai_sync", ("openai", f"{_OI}openai"), _CALL, (30, 12)),
    Case("openai_async", ("openai", f"{_OI}openai"), _CALL, (40, 16)),
    Case("anthropic_messages", ("anthropic", f"{_OI}anthropic"), _CALL, (10, 4)),
    Case("langgraph_agent", ("langgraph", "langchain-openai", f"{_OI}langchain"), _AGENT, (20, 8)),
    Case(
        "langgraph_graph",
        ("langgraph", "langchain-openai", f"{_OI}langchain"),
        frozenset({"chain", "llm"}),
        (20, 8),
        3,
        2,
    ),
    Case("openai_agents", ("openai-agents", f"{_OI}openai-agents"), _AGENT, (20, 8)),
    Case("pydantic_agent", ("pydantic-ai-slim[openai]",), _AGENT, (20, 8)),
    Case("litellm_calls", ("litellm", f"{_OI}litellm"), _CALL, (20, 8)),
    Case("mcp_client", ("mcp", f"{_OI}mcp"), frozenset({"mcp"}), (0, 0)),
    Case("llama_index_agent", _LLAMA_INDEX, frozenset({"chain", "llm", "tool"}), (40, 16), 2),
    Case("crewai_crew", ("crewai", f"{_OI}crewai", f"{_OI}openai"), _CREW, (20, 8), 2),
    Case("dspy_program", ("dspy", f"{_OI}dspy"), frozenset({"chain", "llm"}), (20, 8), 2),
    Case("claude_agent", ("claude-agent-sdk", f"{_OI}claude-agent-sdk"), frozenset({"agent", "tool"}), (3500, 90)),
    Case("smolagents_agent", ("smolagents[openai]", f"{_OI}smolagents"), _AGENT, (30, 12)),
    Case("smolagents_fails", ("smolagents[openai]", f"{_OI}smolagents"), _AGENT, (30, 12), 2, 3),
    Case("langfuse_calls", ("langfuse", "openai"), frozenset({"chain", "llm"}), (40, 16), sets_provider=True),
    Case("litellm_callback", ("litellm", f"{_OI}litellm", f"{_OI}openai"), _CALL, (70, 28), 2, sets_provider=True),
    Case(
        "llama_index_traceloop",
        (*_LLAMA_INDEX[:2], "opentelemetry-instrumentation-llamaindex"),
        frozenset({"agent", "llm", "tool", "retrieval", "embedding"}),
        (80, 32),
        8,
    ),
)


def _python_of(case: Case) -> str:
    """The Python of an environment with the packages of a case, which is made once."""
    assert FOLDER is not None
    environment = Path(FOLDER) / case.program
    python = environment / "bin" / "python"
    if not (environment / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        wanted = [f"{CHECKOUT}[otel]", "opentelemetry-instrumentation-threading", *case.packages]
        subprocess.run([str(python), "-m", "pip", "install", "-q", "-e", *wanted], check=True)
        (environment / "ready").touch()
    return str(python)


def _recorded(command: list[str], path: Path, model: str, runs: int) -> list[AgentSpanRow]:
    known = {**os.environ, "MODEL": model, "AGENTSPAN_DB": str(path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    done = subprocess.run(command, env=known, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    with agentspan.open(path) as database:
        assert len(runs_in(database.storage)) == runs, "one for each call by the program"
        return spans_in(database.storage)


def _tree(spans: list[AgentSpanRow]) -> list[tuple[Any, ...]]:
    by_id = {span.id: span for span in spans}

    def way(span: AgentSpanRow) -> tuple[Any, ...]:
        above = by_id.get(span.parent_span_id or "")
        return (*(() if above is None else way(above)), span.schema_name, span.label)

    return sorted((way(span) for span in spans), key=str)


@pytest.mark.skipif(FOLDER is None, reason="opt-in: AGENTSPAN_TEST_FRAMEWORKS names a folder to install frameworks in")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_a_framework_is_recorded_by_one_line_and_by_none(case: Case, tmp_path: Path) -> None:
    python, program = _python_of(case), str(PROGRAMS / f"{case.program}.py")
    with serving() as model:
        line = [python, "-c", ONE_LINE, program]
        one = None if case.sets_provider else _recorded(line, tmp_path / "one.db", model, case.runs)
        recording = [python, "-m", "agentspan", "record", "--", python, program]
        none = _recorded(recording, tmp_path / "none.db", model, case.runs)
    told = [span for span in none if '"kind":"SERVER"' not in span.payload]
    assert one is None or _tree(one) == _tree(told), "but for servers of MCP"
    for spans in (none, *([] if one is None else [one])):
        assert case.types <= {span.schema_name for span in spans}
        assert [span.status for span in spans if span.status != "complete"] == ["failed"] * case.failed
        calls = [span for span in spans if span.schema_name == "llm"]
        answered = [call for call in calls if call.status == "complete"]
        assert not calls or len(answered) == case.tokens[0] // 10, "each call once"
        for call in calls:
            assert call.label or call.status == "failed"
            assert '"messages"' in call.payload
            assert call.result_payload is not None
        counted = [span for span in spans if not span.is_aggregate]
        given, made = (sum(getattr(span, f"{side}_tokens") or 0 for span in counted) for side in ("input", "output"))
        assert (given, made) == case.tokens
