"""Each framework is recorded by one line, and by none with `agentspan record`: the same tree, and no token twice.

    AGENTSPAN_TEST_FRAMEWORKS=/tmp/frameworks python -m pytest tests/otel/frameworks

The folder gets an environment for each framework, with its newest version and its instrumentor. The programs of the
pages in `docs/frameworks` are run as the pages say; the others are of cases that a page has no room for.
"""

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import agentspan
from agentspan.model.rows import AgentSpanRow
from tests.otel.frameworks.environments import FOLDER, HAS_OTEL, PROGRAMS, python_of
from tests.otel.frameworks.model_server import TOKENS, serving
from tests.otel.frameworks.pages import Page, environment_of, lay, pages, run_in, steps_in
from tests.otel.replaying import runs_in, spans_in

ONE_LINE = "import runpy, sys, agentspan; agentspan.instrument(); runpy.run_path(sys.argv[1], run_name='__main__')"
_OI = "openinference-instrumentation-"
opt_in = pytest.mark.skipif(FOLDER is None, reason="opt-in: AGENTSPAN_TEST_FRAMEWORKS names a folder to install in")


class Case(NamedTuple):
    """A program, and what it must leave: types that must be there, answered calls, runs, and failed spans.

    Its packages are its own, or those of a page. One whose library sets the global provider is recorded by
    `agentspan record` only.
    """

    program: str
    packages: tuple[str, ...] | str
    types: frozenset[str]
    calls: int
    runs: int = 1
    failed: int = 0
    sets_provider: bool = False


_CALL = frozenset({"llm"})
CASES = (
    Case("openai_sync", "openai", _CALL, 3),
    Case("openai_async", "openai", _CALL, 4),
    Case("langgraph_graph", "langgraph", frozenset({"chain", "llm"}), 2, 3, 2),
    Case("smolagents_fails", "smolagents", frozenset({"agent", "llm", "tool"}), 2, 2, 3),
    Case("langfuse_calls", "langfuse", frozenset({"chain", "llm"}), 4, sets_provider=True),
    Case("litellm_callback", ("litellm", f"{_OI}litellm", f"{_OI}openai"), _CALL, 7, 2, sets_provider=True),
    Case(
        "llama_index_traceloop",
        ("llama-index-core", "llama-index-llms-openai-like", "opentelemetry-instrumentation-llamaindex"),
        frozenset({"agent", "llm", "tool", "retrieval", "embedding"}),
        8,
        8,
    ),
)


def _python_of(case: Case) -> Path:
    if isinstance(case.packages, str):
        return environment_of(next(page for page in pages() if page.name == case.packages))
    return python_of(case.program, [HAS_OTEL, "opentelemetry-instrumentation-threading", *case.packages])


def _recorded(command: list[str], path: Path, model: dict[str, str], runs: int) -> list[AgentSpanRow]:
    known = {**os.environ, **model, "AGENTSPAN_DB": str(path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
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


def _check_calls(spans: list[AgentSpanRow], answered: int) -> None:
    """Check that each answered call of the model is there once, and that no token counts twice."""
    calls = [span for span in spans if span.schema_name == "llm"]
    assert sum(call.status == "complete" for call in calls) == answered, "each call once"
    for call in calls:
        assert call.label or call.status == "failed"
        assert call.result_payload is not None
    counted = [span for span in spans if not span.is_aggregate]
    sums = [sum(getattr(span, f"{side}_tokens") or 0 for span in counted) for side in ("input", "output")]
    assert sums == [answered * each for each in TOKENS]


@opt_in
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.program)
def test_a_framework_is_recorded_by_one_line_and_by_none(case: Case, tmp_path: Path) -> None:
    python, program = str(_python_of(case)), str(PROGRAMS / f"{case.program}.py")
    with serving() as model:
        line = [python, "-c", ONE_LINE, program]
        one = None if case.sets_provider else _recorded(line, tmp_path / "one.db", model, case.runs)
        recording = [python, "-m", "agentspan", "record", "--", python, program]
        none = _recorded(recording, tmp_path / "none.db", model, case.runs)
    assert one is None or _tree(one) == _tree(none)
    for spans in (none, *([] if one is None else [one])):
        assert case.types <= {span.schema_name for span in spans}
        assert [span.status for span in spans if span.status != "complete"] == ["failed"] * case.failed
        assert all('"messages"' in span.payload for span in spans if span.schema_name == "llm")
        _check_calls(spans, case.calls)


ANSWERED = {"mcp": 0, "langgraph": 2, "litellm": 1, "langfuse": 1, "dspy": 4}
"""The number of answers of the model of a page, where it is not three."""


@opt_in
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_shows_the_steps_that_its_program_leaves(page: Page, tmp_path: Path) -> None:
    """Other versions may leave other steps: `python -m tests.otel.frameworks.pages NAME` writes the page anew."""
    python, trees = environment_of(page), []
    for way in ("as the page says", "without a line"):
        folder = tmp_path / way
        folder.mkdir()
        lay(page, folder)
        program = folder / "weather.py"
        if way == "without a line":
            text = program.read_text(encoding="utf-8").replace("agentspan.instrument()\n", "")
            program.write_text(text, encoding="utf-8")
        first = page.commands[0] if way == "as the page says" else "agentspan record -- python weather.py"
        run_in(folder, python, shlex.split(first))
        with agentspan.open(folder / "agentspan.db") as database:
            trees.append(_tree(spans := spans_in(database.storage)))
            if page.name != "claude-agent-sdk":  # its calls are made in another program
                _check_calls(spans, ANSWERED.get(page.name, 3))
    assert trees[0] == trees[1]
    shown = run_in(tmp_path / "as the page says", python, shlex.split("agentspan show -")).stdout
    assert steps_in(shown) == page.steps()[: len(steps_in(shown))]
