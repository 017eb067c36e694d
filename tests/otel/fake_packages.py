"""Packages that stand for a framework and its instrumentor, in a folder for PYTHONPATH, or for this process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

CLIENT = """
def ask(question):
    return question.upper()
"""
INSTRUMENTOR = '''
class Instrumentor:
    """Wraps `openai.ask`, as instrumentors do."""
    real = None

    def instrument(self, tracer_provider=None, **kwargs):
        import openai
        tracer = tracer_provider.get_tracer("openinference.instrumentation.openai", "1.0")
        Instrumentor.real = real = openai.ask

        def ask(question):
            with tracer.start_as_current_span("ChatCompletion") as span:
                span.set_attribute("openinference.span.kind", "LLM")
                span.set_attribute("llm.model_name", "m")
                span.set_attribute("llm.token_count.prompt", 5)
                answer = real(question)
                span.set_attribute("output.value", answer)
                return answer
        openai.ask = ask

    def uninstrument(self, **kwargs):
        import openai
        openai.ask = Instrumentor.real
'''
BROKEN = """
class Instrumentor:
    def instrument(self, **kwargs):
        raise RuntimeError("does not fit")

    def uninstrument(self, **kwargs):
        pass
"""
ENTRIES = """
[opentelemetry_instrumentor]
openai = fake_openai_instrumentor:Instrumentor
crewai = fake_broken_instrumentor:Instrumentor
"""


def packages_in(folder: Path) -> Path:
    """Write `openai` with an instrumentor, `crewai` with a broken one, and `dspy` without any."""
    folder.mkdir(exist_ok=True)
    for name, text in (
        ("openai", CLIENT),
        ("crewai", ""),
        ("dspy", ""),
        ("fake_openai_instrumentor", INSTRUMENTOR),
        ("fake_broken_instrumentor", BROKEN),
    ):
        (folder / f"{name}.py").write_text(text)
    about = folder / "openinference_instrumentation_openai-9.9.dist-info"
    about.mkdir(exist_ok=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: openinference-instrumentation-openai\nVersion: 9.9\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    return folder


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Hide what this process has imported of packages until the block ends; forget then what the block imported."""

    def taken() -> dict[str, ModuleType]:
        names = [name for name in sys.modules if name.partition(".")[0] in packages]
        return {name: sys.modules.pop(name) for name in names}

    real = taken()
    try:
        yield
    finally:
        taken()
        sys.modules.update(real)


@contextmanager
def importable(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> Iterator[None]:
    """Let this process import a module of a package by its full name, until the end of the block."""
    package, *parts = name.split(".")
    for number in range(len(parts)):
        inner = folder.joinpath(package, *parts[:number])
        inner.mkdir(parents=True, exist_ok=True)
        (inner / "__init__.py").touch()
    folder.joinpath(package, *parts).with_suffix(".py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    with without(package):
        yield
