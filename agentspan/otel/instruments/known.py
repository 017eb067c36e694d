"""The known frameworks and clients of models, and a search for their installed instrumentors."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from agentspan import installing

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "opentelemetry_instrumentor"
SDK = "opentelemetry.sdk"
MARK = "AGENTSPAN_RECORD"
"""The environment variable of a recorded program with the folder that was put first in its PYTHONPATH."""
_PREFERRED = ("openinference-", "opentelemetry-instrumentation-genai-", "")
"""The starts of the names of instrumentor packages, those with the richest data first.

Only the first installed package records a framework; with two, each call would be recorded twice.
"""
NOTES = "AGENTSPAN_RECORD_NOTES"
"""The environment variable with the file to which programs append their imports of frameworks, for `agentspan record`.

Each line has a kind and a text. `site/sitecustomize.py` repeats this name, because its Python may lack agentspan.
"""


class Framework(NamedTuple):
    """A framework, or a client of models.

    Attributes:
        name: the name of the framework for `instrument`.
        module: a module that exists if the framework is installed.
        package: the instrumentor package to install; "" if every version of the framework traces itself.
        entries: the names of the entry points of its instrumentors.
        own: a file in the framework's package that exists in the versions that trace themselves; "" if none do.
        is_whole: whether the framework's own traces are used even if an instrumentor is installed.
    """

    name: str
    module: str
    package: str
    entries: frozenset[str]
    own: str = ""
    is_whole: bool = False


def _framework(name: str, module: str, package: str, *others: str, own: str = "", is_whole: bool = False) -> Framework:
    return Framework(name, module, package, frozenset({name, *others}), own, is_whole)


_OI = "openinference-instrumentation-"
FRAMEWORKS = (
    _framework("agno", "agno", f"{_OI}agno"),
    _framework("anthropic", "anthropic", f"{_OI}anthropic", own="_tracing.py"),
    _framework("autogen", "autogen_agentchat", f"{_OI}autogen-agentchat", "autogen-agentchat"),
    _framework("bedrock", "boto3", f"{_OI}bedrock"),
    _framework("claude-agent-sdk", "claude_agent_sdk", f"{_OI}claude-agent-sdk", "claude-agent"),
    _framework("cohere", "cohere", "opentelemetry-instrumentation-cohere"),
    _framework("crewai", "crewai", f"{_OI}crewai"),
    _framework("dspy", "dspy", f"{_OI}dspy"),
    _framework("google-adk", "google.adk", f"{_OI}google-adk", own="telemetry/tracing.py", is_whole=True),
    _framework("google-genai", "google.genai", f"{_OI}google-genai", "google-generativeai"),
    _framework("groq", "groq", f"{_OI}groq"),
    _framework("haystack", "haystack", f"{_OI}haystack"),
    _framework("langchain", "langchain_core", f"{_OI}langchain", "langgraph"),
    _framework("litellm", "litellm", f"{_OI}litellm"),
    _framework("llama-index", "llama_index.core", f"{_OI}llama-index", "llamaindex"),
    _framework("mcp", "mcp", f"{_OI}mcp", own="shared/_otel.py"),
    _framework("mistralai", "mistralai", f"{_OI}mistralai"),
    _framework("ollama", "ollama", "opentelemetry-instrumentation-ollama"),
    _framework("openai", "openai", f"{_OI}openai", "openai-v2"),
    _framework("openai-agents", "agents", f"{_OI}openai-agents", own="tracing/processor_interface.py", is_whole=True),
    _framework("pydantic-ai", "pydantic_ai", ""),
    _framework("semantic-kernel", "semantic_kernel", ""),
    _framework("smolagents", "smolagents", f"{_OI}smolagents"),
    _framework("strands-agents", "strands", ""),
    _framework("vertexai", "vertexai", f"{_OI}vertexai"),
)
LIMITS = {
    "autogen": "its agents and tools stand twice, one inside of the other: AutoGen traces them itself, too",
    "haystack": "the tools of an `Agent` have no step, nor has an `Agent` outside of a pipeline; the calls of its "
    "model have one with the instrumentor of the client",
    "semantic-kernel": "its calls of models have messages only with the instrumentor of the client",
}
"""The known limits of the frameworks that have no page with what is missing."""
WITHOUT_SDK = frozenset({"openai-agents"})
"""The frameworks that need neither OpenTelemetry nor an instrumentor: agentspan takes their own traces."""
_CLIENTS = frozenset(
    {"anthropic", "cohere", "google-genai", "groq", "litellm", "mistralai", "ollama", "openai", "vertexai"}
)
"""The clients of models. Frameworks import them, too."""
_WITHOUT_CALLS = frozenset({"crewai"})
"""The frameworks whose instrumentors record no calls of models: they need the client's instrumentor, too."""
_WITH_CALLS = re.compile(
    r"(agents|agno|autogen_\w+|claude_agent_sdk|google|dspy|haystack\w*|lang(chain|fuse|graph)\w*|litellm|llama_index"
    r"|pydantic_ai|semantic_kernel|smolagents|strands|openinference|opentelemetry|agentspan)\Z"
)
"""The packages whose imports of a client need no instrumentor: they record its calls themselves, or make none."""
_TOO_COMMON = frozenset({"bedrock"})
"""The frameworks that many programs import without calling models: `boto3`. No warning names their instrumentors."""
_NO_CLIENT = _TOO_COMMON | {"mcp"}
CARRIES_CONTEXT = "threading"
"""The entry point of the instrumentor that passes the current span to threads, such as a pool's. It makes no spans."""


class Available(NamedTuple):
    """A framework, and its installed instrumentor, if there is one.

    Attributes:
        is_installed: whether the framework is installed.
        entry: the entry point of the best installed instrumentor; None without one.
        package, version: the package and version of the instrumentor; "" without one.
        has_own: whether the installed framework traces itself.
    """

    framework: Framework
    is_installed: bool
    entry: "EntryPoint | None" = None
    package: str = ""
    version: str = ""
    has_own: bool = False

    @property
    def needs_sdk(self) -> bool:
        """True if OpenTelemetry's SDK is needed to record the framework."""
        return self.entry is not None or self.framework.name not in WITHOUT_SDK

    @property
    def can_record(self) -> bool:
        """True if the framework is installed and can be recorded, by an instrumentor or by itself."""
        return self.is_installed and (self.entry is not None or self.has_own)


def available() -> list[Available]:
    """Return all known frameworks, each with its installed instrumentor."""
    found = _instrumentors()
    return [_available(framework, found) for framework in FRAMEWORKS]


def named(name: str) -> Available | None:
    """Return a known framework by name, or another installed instrumentor by entry point; None if neither exists."""
    wanted, found = _normal(name), _instrumentors()
    for framework in FRAMEWORKS:
        if wanted in framework.entries:
            return _available(framework, found)
    entries = found.get(wanted, ())
    return _available(Framework(wanted, "", wanted, frozenset({wanted})), found) if entries else None


def _available(framework: Framework, found: "dict[str, list[EntryPoint]]") -> Available:
    is_installed = not framework.module or is_importable(framework.module)
    has_own = is_installed and _has_own(framework)
    entries = [entry for name in framework.entries for entry in found.get(name, ())]
    if not entries or (has_own and (framework.is_whole or not framework.package)):
        return Available(framework, is_installed, has_own=has_own)
    entry = min(entries, key=lambda each: (_rank(each), each.value))
    package, version = _distribution(entry)
    return Available(framework, is_installed, entry, package, version, has_own)


def is_importable(module: str) -> bool:
    """Return whether a module can be imported. Imports only the packages around it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _instrumentors() -> "dict[str, list[EntryPoint]]":
    from importlib.metadata import entry_points  # imported late: `agentspan record` only needs constants of this module

    found: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        found.setdefault(_normal(entry.name), []).append(entry)
    return found


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _distribution(entry: "EntryPoint") -> tuple[str, str]:
    return ("", "") if entry.dist is None else (entry.dist.name, entry.dist.version)


def _rank(entry: "EntryPoint") -> int:
    package = _normal(_distribution(entry)[0])
    return next(number for number, start in enumerate(_PREFERRED) if package.startswith(start))


def missing(found: Iterable[Available]) -> list[Available]:
    """Return the installed frameworks that no instrumentor records.

    Clients of models are left out if the instrumentor of an installed framework records their calls: with both, each
    call would be in two runs. MCP's SDK is left out if another framework is recorded, which may have installed it and
    records its calls of tools itself.
    """
    known = [*found]
    others = {each.framework.name for each in known if each.is_installed} - _CLIENTS - _WITHOUT_CALLS - _NO_CLIENT
    recorded = {each.framework.name for each in known if each.can_record} - _CLIENTS - {"mcp"}
    covered = (_CLIENTS if others else frozenset()) | ({"mcp"} if recorded else frozenset())
    return [each for each in known if is_missing(each) and each.framework.name not in covered]


def is_missing(each: Available) -> bool:
    """Return whether a framework is installed, cannot be recorded, and is worth a warning."""
    framework = each.framework
    return each.is_installed and not each.can_record and framework.name not in _TOO_COMMON


def needs_its_own(framework: Framework, importer: str) -> bool:
    """Return whether a framework needs an instrumentor of its own, by the package that imported it.

    Args:
        importer: the package that imported the framework first. It may record the calls of its clients itself.
    """
    if _normal(importer).startswith(tuple(framework.entries)):
        return True  # another package of it: langchain and langgraph import langchain_core
    if importer in _WITHOUT_CALLS:
        return framework.name in _CLIENTS
    return _WITH_CALLS.match(importer) is None


def _has_own(framework: Framework) -> bool:
    if not framework.package:
        return True
    spec = find_spec(framework.module) if framework.own else None
    return spec is not None and any((Path(at) / framework.own).exists() for at in spec.submodule_search_locations or ())


def advice(found: Available) -> str:
    """Return the command that installs the framework's instrumentor, or the framework if it is not installed."""
    return installing.command(found.framework.package if found.is_installed else found.framework.name)
