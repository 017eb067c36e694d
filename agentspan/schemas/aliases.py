"""The one table of other names for the fields that fill columns, such as tokens and model. Each has its source.

The names of the built-in types take precedence: this table is read only for a payload without them. OpenTelemetry's
names are not in this table.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

MOST_USED = 10**10
"""The most tokens of a step that are counted. No session of a coding agent has so many."""
MOST_USD = 10**6
"""The highest cost of a step that is counted, in US dollars."""


class Alias(NamedTuple):
    """Another name of a field.

    Attributes:
        field: the field as the built-in types name it.
        path: the names of members that lead to the value, from the top of the payload merged with the result.
        source: the client, library or API that uses this name.
    """

    field: str
    path: tuple[str, ...]
    source: str


_CORE = "@prefactor/core 0.2.9, transport/http.ts; prefactor-langchain 0.3.0, spans.py"
_LANGCHAIN = "LangChain's UsageMetadata; @prefactor/langchain, metadata-extractor.ts"
_OPENAI = "OpenAI, chat completions: usage"
_ANTHROPIC = "Anthropic and OpenAI responses: usage"
_VERCEL = "Vercel AI SDK 5 and 6: usage; @prefactor/ai, middleware.ts"
_VERCEL_4 = "Vercel AI SDK 4: usage; @prefactor/ai, middleware.ts"
_GOOGLE = "Gemini API: usageMetadata"
_LIVEKIT_PY = "livekit-agents 1.8, LLMMetrics; prefactor-livekit 0.1.5, session.py"
_LIVEKIT_JS = "@livekit/agents, LLMMetrics; @prefactor/livekit, session.ts"

# Each row: the member that holds the usage, its names for input and output tokens, and the source. The member is looked
# up at the top, then in `outputs` and `response_metadata`, in which the official packages wrap a model's answer.
_USAGES: tuple[tuple[str, str, str, str], ...] = (
    ("token_usage", "prompt_tokens", "completion_tokens", _CORE),
    ("token_usage", "input_tokens", "output_tokens", _LANGCHAIN),
    ("token_usage", "promptTokens", "completionTokens", _CORE),
    ("tokenUsage", "promptTokens", "completionTokens", _CORE),
    ("usage", "prompt_tokens", "completion_tokens", _OPENAI),
    ("usage", "input_tokens", "output_tokens", _ANTHROPIC),
    ("usage", "inputTokens", "outputTokens", _VERCEL),
    ("usage", "promptTokens", "completionTokens", _VERCEL_4),
    ("usage_metadata", "input_tokens", "output_tokens", _LANGCHAIN),
    ("usage_metadata", "prompt_token_count", "candidates_token_count", _GOOGLE),
    ("usageMetadata", "promptTokenCount", "candidatesTokenCount", _GOOGLE),
    ("usageMetadata", "input_tokens", "output_tokens", _LANGCHAIN),
    ("usageMetadata", "inputTokens", "outputTokens", _LANGCHAIN),
    ("metrics", "prompt_tokens", "completion_tokens", _LIVEKIT_PY),
    ("metrics", "promptTokens", "completionTokens", _LIVEKIT_JS),
)
_WRAPPERS: tuple[tuple[str, ...], ...] = ((), ("outputs",), ("response_metadata",), ("outputs", "response_metadata"))


def _usages() -> Iterator[Alias]:
    for wrapper in _WRAPPERS:
        for holder, tokens_in, tokens_out, source in _USAGES:
            yield Alias("input_tokens", (*wrapper, holder, tokens_in), source)
            yield Alias("output_tokens", (*wrapper, holder, tokens_out), source)


ALIASES: tuple[Alias, ...] = (
    *_usages(),
    Alias("input_tokens", ("prompt_tokens",), _OPENAI),
    Alias("output_tokens", ("completion_tokens",), _OPENAI),
    Alias("input_tokens", ("inputTokens",), _VERCEL),
    Alias("output_tokens", ("outputTokens",), _VERCEL),
    Alias("input_tokens", ("promptTokens",), _VERCEL_4),
    Alias("output_tokens", ("completionTokens",), _VERCEL_4),
    Alias("cost_usd", ("total_cost_usd",), "@prefactor/claude, traced-query.ts"),
    Alias("model", ("model_name",), "prefactor-langchain 0.3.0, payloads.py; prefactor-livekit 0.1.5, session.py"),
    Alias("model", ("modelName",), "@prefactor/livekit, session.ts"),
    Alias("model", ("model_id",), "the service's guide to templates"),
    Alias("model", ("modelId",), "Vercel AI SDK: response.modelId"),
    Alias("model", ("inputs", "ai.model.id"), "@prefactor/ai, middleware.ts"),
    Alias("model", ("inputs", "ai", "model", "id"), "@prefactor/ai, its dotted names nested"),
    Alias("model", ("inputs", "langchain.model.name"), "@prefactor/langchain 0.2, middleware.ts"),
    Alias("model", ("inputs", "model"), "prefactor-langchain 0.3.0, callback_handler.py; @prefactor/claude"),
    Alias("model", ("inputs", "model_name"), "prefactor-langchain 0.3.0, middleware.py"),
    Alias("name", ("tool_name",), "prefactor-langchain 0.3.0, payloads.py; prefactor-livekit 0.1.5, schemas.py"),
    Alias("name", ("toolName",), "@prefactor/livekit, schema.ts; the OpenClaw plug-in"),
    Alias("name", ("inputs", "toolName"), "@prefactor/core, tool-span-contract.ts"),
    Alias("name", ("inputs", "langchain.tool.name"), "@prefactor/langchain 0.2, middleware.ts"),
    Alias("name", ("outputs", "output", "kwargs", "name"), "@prefactor/langchain 0.2, middleware.ts: its ToolMessage"),
    Alias("name", ("agent_name",), "prefactor-langchain 0.3.0, payloads.py"),
)

ERROR_TYPES = ("type", "error_type", "errorType")
"""Names of an error's type: the first is ours, the second that of @prefactor/core, prefactor-langchain and
prefactor-livekit, the third that of @prefactor/livekit. @prefactor/core sends the error as the result itself."""

_USED = ("input_tokens", "output_tokens", "cost_usd")
USAGE_MEMBERS = frozenset(alias.path[0] for alias in ALIASES if alias.field in _USED)
"""Top members of payloads that may hold tokens or a cost: without one of them, no alias is looked up (0.1 µs)."""

NAME_MEMBERS = frozenset(alias.path[0] for alias in ALIASES if alias.field == "name")
"""Top members of payloads that may hold the name of a tool or an agent."""

_PATHS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    field: tuple(alias.path for alias in ALIASES if alias.field == field)
    for field in dict.fromkeys(alias.field for alias in ALIASES)
}
_TOPS: Mapping[str, frozenset[str]] = {field: frozenset(path[0] for path in paths) for field, paths in _PATHS.items()}


def tokens_of(context: Mapping[str, Any], field: str) -> int | None:
    """Return `input_tokens` or `output_tokens` by the first alias that holds a count, or None."""
    for path in _paths(context, field):
        value = count(_at(context, path))
        if value is not None:
            return value
    return None


def cost_of(context: Mapping[str, Any]) -> Any:
    """Return the value of the first alias of `cost_usd` that the payload has, or None."""
    return next((value for path in _paths(context, "cost_usd") if (value := _at(context, path)) is not None), None)


def label_of(payload: Mapping[str, Any], field: str) -> str | None:
    """Return the text of the first alias of the field whose value is a label, or None."""
    return next((value for path in _paths(payload, field) if type(value := _at(payload, path)) is str and value), None)


def count(value: Any) -> int | None:
    """Return a number of tokens: an int, a whole float (`648.0`), or the `total` of an object of counts; else None.

    What others report is not trusted: a negative or absurd number is None, too.
    """
    if type(value) is int:
        return value if 0 <= value <= MOST_USED else None
    if type(value) is dict:  # Vercel AI SDK 6: {"total": 812, "noCache": 700, "cacheRead": 112}
        value = value.get("total")
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_USED else None


def cost(value: Any) -> float | None:
    """Return a cost in US dollars; None for what is no number, negative or absurd."""
    return float(value) if type(value) in (int, float) and 0 <= value <= MOST_USD else None


def refused(context: Mapping[str, Any], used: Sequence[float | None]) -> Iterator[str]:
    """Yield the JSON paths of usage that is not counted: negative, absurd or no finite number.

    Args:
        used: the tokens and the cost of the span. Only fields that are None there are looked for.
    """
    for field in (field for field, value in zip(_USED, used, strict=True) if value is None):
        usable = cost if field == "cost_usd" else count
        for path in ((field,), *_paths(context, field)):
            value = _at(context, path)
            if value is not None and type(value) is not dict and usable(value) is None:
                yield "$." + ".".join(path)


def _paths(context: Mapping[str, Any], field: str) -> Sequence[tuple[str, ...]]:
    """Return the aliases of a field whose first member is there, in their order. Most payloads have none of them."""
    return () if _TOPS[field].isdisjoint(context) else [path for path in _PATHS[field] if path[0] in context]


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if type(value) is not dict:
            return None
        value = value.get(name)
    return value
