"""Guesses the type of an open span that has no attributes yet, from its instrumentor and its name.

Many instrumentors set all attributes at the end of a span (LangSmith, OpenInference's for LangChain and LiteLLM,
Traceloop's for LangChain). The end of the span corrects the guess. Names of spans are not API: the rules describe the
habits of the instrumentors of 2026.
"""

import re

from agentspan.otel.span import OtelSpan

_FRAMEWORKS = (
    "langchain",
    "langsmith",
    "llama",
    "dspy",
    "crewai",
    "smolagents",
    "agents",
    "haystack",
    "agno",
    "autogen",
)
"""Parts of the names of frameworks' instrumentors. Most of their spans are chains."""
_CLIENTS = (
    "openai",
    "anthropic",
    "litellm",
    "genai",
    "gen_ai",
    "bedrock",
    "mistral",
    "groq",
    "cohere",
    "vertex",
    "ollama",
)
"""Parts of the names of instrumentors for clients of models. Most of their spans are calls of models."""
_STARTS = ("openinference.", "opentelemetry.instrumentation.", "opentelemetry.util.genai", "traceloop", "logfire.")
_NAMED = frozenset({"langsmith", "gen_ai", "litellm", "pydantic-ai", "langfuse-sdk", "langfuse"})
_RULES = tuple(
    (re.compile(pattern), type_)
    for pattern, type_ in (
        (r"create_agent ", "custom"),
        (r"ChatPromptTemplate$|ChatAdapter\b|.*\.workflow$|execute_task |invoke_workflow |plan |.*[Pp]arser$", "chain"),
        (r"(search|create|update|upsert|delete)_memory(_store)?\b", "memory"),
        (r".*\._prepare_chat_with_tools$", "chain"),
        (r"invoke_agent |.*\.agent$|.*[Aa]gent\.run$|.*_execute_core$", "agent"),
        (r"handoff\b|.*\.handoff$", "handoff"),
        (r"execute_tool |.*\.tool$|\w*Tool(\.a?call|\.run|\.forward)?$|.*\.toolCall\b", "tool"),
        (r"vector_db_retrieve |\w*Retriever\._?a?retrieve$|retrieval\b", "retrieval"),
        (r".*[Ee]mbed(ding)?s?\b|\w*Embedding\.", "embedding"),
        (r".*[Rr]erank", "rerank"),
        (r"chat |text_completion |generate_content |openai\.|anthropic\.|messages\.(create|stream)", "llm"),
        (r"ChatCompletion$|Responses?$|response$|generation$|a?completion$|Chat[A-Z]\w*(\.chat)?$|LM\.", "llm"),
        (r"\w+\.(a?(stream_)?(chat|complete)|predict|stream|generate(_stream)?)$", "llm"),
        (r".*_agent$|[Aa]gent\b.*|.* agent$", "agent"),
    )
)


_RUNS = re.compile(r"invoke_workflow |.*\.workflow$")
_PARTS = re.compile(r"\w*(Prompt(Template)?|Parser|Adapter|Splitter|Embedding|Retriever)\b")
"""The names of chains that a program calls before or after a model. Such a chain at the root of a trace is no run."""
_ROOTS = ("openai_agents", "openai-agents")
"""Parts of the names of instrumentors whose root spans are runs with any name."""


def begins_run(root: OtelSpan) -> bool:
    """Return whether a root span that has just started probably begins a run, such as an agent or a workflow."""
    type_ = guess(root)
    if root.kind == "SERVER" or type_ == "agent" or is_root_call(root, type_):
        return True
    scope = root.scope.name
    is_known = scope.startswith(_STARTS) or scope in _NAMED
    is_run = _RUNS.match(root.name) is not None and not _PARTS.match(root.name)
    return is_known and (is_run or any(name in scope for name in _ROOTS))


def is_root_call(span: OtelSpan, type_: str | None) -> bool:
    """Return whether a span is a root and a framework's chain, such as a graph or a crew that the program calls."""
    scope = span.scope.name
    return (
        type_ == "chain"
        and span.parent_span_id is None
        and (scope.startswith(_STARTS) or scope in _NAMED)
        and any(name in scope for name in _FRAMEWORKS)
        and not _PARTS.match(span.name)
    )


def guess(span: OtelSpan) -> str | None:
    """Return the probable type of a span; None if its instrumentor is unknown or no rule matches."""
    scope = span.scope.name
    if not scope.startswith(_STARTS) and scope not in _NAMED:
        return None
    found = next((type_ for rule, type_ in _RULES if rule.match(span.name)), None)
    if found is not None:
        return found
    if any(name in scope for name in _FRAMEWORKS):
        return "chain"
    return "llm" if any(name in scope for name in _CLIENTS) else None
