"""The type of a span that has begun and does not tell it yet: guessed by the instrumentor and the name.

Many instrumentors set all attributes at the end (LangSmith, OpenInference's for LangChain and LiteLLM, Traceloop's for
LangChain). A guess is corrected then. Names of spans are not API: a rule is a habit of the instrumentors of 2026.
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
"""In the names of instrumentors of frameworks, most of whose spans are chains."""
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
"""In those of instrumentors of clients of models, most of whose spans are calls."""
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
"""The names of chains that a program calls before or after a model; alone in a trace they are no run."""
_ROOTS = ("openai_agents", "openai-agents")
"""In the names of instrumentors whose roots are runs, whatever their name is."""


def begins_run(root: OtelSpan) -> bool:
    """Return whether the root of a trace, which has begun, will probably be that of an agent or of a workflow."""
    type_ = guess(root)
    if root.kind == "SERVER" or type_ == "agent" or is_root_call(root, type_):
        return True
    scope = root.scope.name
    is_known = scope.startswith(_STARTS) or scope in _NAMED
    is_run = _RUNS.match(root.name) is not None and not _PARTS.match(root.name)
    return is_known and (is_run or any(name in scope for name in _ROOTS))


def is_root_call(span: OtelSpan, type_: str | None) -> bool:
    """Return whether a span is a call of a framework, such as a graph or a crew, by the program itself."""
    scope = span.scope.name
    return (
        type_ == "chain"
        and span.parent_span_id is None
        and (scope.startswith(_STARTS) or scope in _NAMED)
        and any(name in scope for name in _FRAMEWORKS)
        and not _PARTS.match(span.name)
    )


def guess(span: OtelSpan) -> str | None:
    """Return the type that a span will probably have; None for one of no known instrumentor."""
    scope = span.scope.name
    if not scope.startswith(_STARTS) and scope not in _NAMED:
        return None
    found = next((type_ for rule, type_ in _RULES if rule.match(span.name)), None)
    if found is not None:
        return found
    if any(name in scope for name in _FRAMEWORKS):
        return "chain"
    return "llm" if any(name in scope for name in _CLIENTS) else None
