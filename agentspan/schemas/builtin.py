"""The built-in span types, such as the one of `@agentspan.span("llm")`.

Their JSON Schemas have only plain typed properties (`*` marks a required one), so that the compiled pre-check decides
nearly every payload. Names follow the OpenTelemetry GenAI conventions, if these have a name.

An aggregate is a span that sums up others: it repeats the tokens and the cost of the spans in it, so sums leave it out.
If no model call is recorded inside an agent's span, its payload has `own_tokens`: then its tokens count. The rule is
evaluated once, when a span is derived or created, and the result is stored in the column `is_aggregate`. SQL, Python
and the viewer read that column, not the name. Operations by id never change the name of a stored span. `rederive`
evaluates the rule again all the same. So does an import, because it may change the name when it finishes an open span.
"""

from typing import Any, NamedTuple

from agentspan import jsontext

OWN_TOKENS = "own_tokens"
"""The member of an agent's payload that is true if no other span has the agent's tokens."""
AGGREGATES = frozenset({"agent"})
"""The built-in span types whose spans are aggregates."""


def built_in_part(schema_name: str) -> str:
    """Return the part of a name that may be a built-in span type: the second part of `prefix:type…`, else the name."""
    parts = schema_name.split(":", 2)
    return parts[1] if len(parts) > 1 else schema_name


def is_aggregate(schema_name: str) -> bool:
    """Return whether spans of this name are aggregates: `agent`, `langchain:agent`, `a:agent:b`; not `x:y:agent`."""
    return built_in_part(schema_name) in AGGREGATES


def has_own_tokens(payload: Any) -> bool:
    """Return whether a payload has `own_tokens` set: then its span is no aggregate, whatever its name."""
    return type(payload) is dict and payload.get(OWN_TOKENS) is True


def stored_aggregate(schema_name: str, payload: str) -> int:
    """Return `is_aggregate` for an old row that was written without it, from its schema_name and payload text."""
    return int(is_aggregate(schema_name) and not (OWN_TOKENS in payload and has_own_tokens(jsontext.decode(payload))))


_TYPES: dict[str, Any] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "num": {"type": "number"},
    "bool": {"type": "boolean"},
    "list": {"type": "array"},
    "dict": {"type": "object"},
    "any": {},
}


class BuiltIn(NamedTuple):
    """One built-in span type: its JSON Schemas, its template, and the payload field whose value is the label."""

    name: str
    title: str
    payload: dict[str, Any]
    result: dict[str, Any]
    template: str | None
    label: str | None


def _schema(fields: str) -> dict[str, Any]:
    """Return the JSON Schema of fields such as `name*:str goal:any`."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for field in fields.split():
        name, _, kind = field.partition(":")
        if name.endswith("*"):
            name = name[:-1]
            required.append(name)
        properties[name] = dict(_TYPES[kind])
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": True}
    if required:
        schema["required"] = required
    return schema


def _built_in(
    name: str, title: str, payload: str, result: str, template: str | None, label: str | None = None
) -> BuiltIn:
    return BuiltIn(name, title, _schema(payload), _schema(result), template, label)


# The outcome of a failed span is its error, whatever the type.
_FAILED = "{{#_error._inline}} → {{.}}{{/_error._inline}}"
_OUTPUT = "{{#output._inline}} → {{.}}{{/output._inline}}" + _FAILED

BUILT_IN: tuple[BuiltIn, ...] = (
    _built_in(
        "agent",
        "Agent",
        "name*:str version:str goal:any input:any conversation_id:str",
        "output:any steps:int input_tokens:int output_tokens:int cost_usd:num stop_reason:str",
        "Agent {{name}}{{#goal._inline}}: {{.}}{{/goal._inline}}"
        "{{#steps}} → done in {{steps}} steps{{/steps}}"
        "{{^steps}}{{#output._inline}} → {{.}}{{/output._inline}}{{/steps}}" + _FAILED,
        "name",
    ),
    _built_in(
        "llm",
        "LLM",
        "model*:str provider:str messages:list system:any tools:list temperature:num max_tokens:int stream:bool",
        "text:str output_messages:list tool_calls:list response_model:str finish_reason:str input_tokens:int "
        "output_tokens:int cached_tokens:int reasoning_tokens:int cost_usd:num time_to_first_token_ms:num "
        "cache_write_tokens:int response_id:str",
        "LLM {{model}}{{#output_tokens}}: {{input_tokens}}→{{output_tokens}} tok{{/output_tokens}}"
        '{{#text}} "{{text._inline}}"{{/text}}'
        "{{^text}}{{#tool_calls}} → {{name}}{{function.name}}({{arguments._args}}{{function.arguments._args}})"
        "{{/tool_calls}}{{/text}}" + _FAILED,
        "model",
    ),
    _built_in(
        "tool",
        "Tool",
        "name*:str arguments:any call_id:str skill:str",
        "output:any is_error:bool exit_code:int",
        "Tool {{name}}{{#skill}} {{skill}}{{/skill}}({{arguments._args}}){{#is_error}} → error{{/is_error}}" + _OUTPUT,
        "name",
    ),
    _built_in(
        "chain",
        "Chain",
        "name*:str input:any",
        "output:any",
        "{{name}}{{#output._count}} → {{output._count}} parts{{/output._count}}"
        "{{^output._count}}{{#output._inline}} → {{.}}{{/output._inline}}{{/output._count}}" + _FAILED,
        "name",
    ),
    _built_in(
        "retrieval",
        "Retrieval",
        "query*:str source:str top_k:int filters:any",
        "documents:list count:int",
        'Search{{#source}} {{source}}{{/source}} "{{query._inline}}"'
        "{{#count}} → {{count}} docs{{/count}}"
        "{{^count}}{{#documents._count}} → {{documents._count}} docs{{/documents._count}}{{/count}}" + _FAILED,
    ),
    _built_in(
        "embedding",
        "Embedding",
        "model*:str input_count:int",
        "dimensions:int input_tokens:int",
        "Embed{{#input_count}} {{input_count}} texts{{/input_count}} with {{model}}"
        "{{#dimensions}} ({{dimensions}}d){{/dimensions}}" + _FAILED,
        "model",
    ),
    _built_in(
        "rerank",
        "Rerank",
        "query*:str model:str input_count:int",
        "documents:list count:int",
        'Rerank{{#input_count}} {{input_count}}{{/input_count}}{{^input_count}} "{{query._inline}}"{{/input_count}}'
        "{{#count}} → {{count}}{{/count}}"
        "{{^count}}{{#documents._count}} → {{documents._count}}{{/documents._count}}{{/count}}" + _FAILED,
    ),
    _built_in(
        "guardrail",
        "Guardrail",
        "name*:str stage:str subject:any",
        "passed*:bool action:str reason:str score:num",
        "Guard {{name}}{{#stage}} on {{stage}}{{/stage}}{{#action}}: {{action}}{{/action}}"
        "{{^action}}{{#passed._inline}}: passed={{passed}}{{/passed._inline}}{{/action}}"
        "{{#reason}} ({{reason._inline}}){{/reason}}" + _FAILED,
        "name",
    ),
    _built_in(
        "evaluation",
        "Evaluation",
        "name*:str target_span_id:str",
        "score:num label:str explanation:str",
        "Eval {{name}}{{#label}}: {{label}}{{/label}}{{^label}}{{#score}}:{{/score}}{{/label}}"
        "{{#score}} {{score}}{{/score}}" + _FAILED,
        "name",
    ),
    _built_in(
        "human",
        "Human",
        "prompt*:str kind:str assignee:str",
        "decision:any response:any",
        "Ask{{#assignee}} {{assignee}}{{/assignee}}: {{prompt._inline}}"
        "{{#decision._inline}} → {{.}}{{/decision._inline}}"
        "{{^decision._inline}}{{#response._inline}} → {{.}}{{/response._inline}}{{/decision._inline}}" + _FAILED,
    ),
    _built_in(
        "mcp",
        "MCP",
        "method*:str server:str target:str arguments:any",
        "result:any is_error:bool error_code:any",
        "MCP{{#server}} {{server}}{{/server}} {{method}}{{#target}} {{target}}{{/target}}"
        "{{#is_error}} → error{{#error_code}} {{error_code}}{{/error_code}}{{/is_error}}" + _FAILED,
        "method",
    ),
    _built_in(
        "memory",
        "Memory",
        "operation*:str store:str query:any key:str",
        "count:int items:list",
        "Memory {{operation}}{{#store}} {{store}}{{/store}}"
        '{{#query._inline}} "{{.}}"{{/query._inline}}{{^query._inline}}{{#key}} {{key}}{{/key}}{{/query._inline}}'
        "{{#count}}: {{count}}{{/count}}"
        "{{^count}}{{#items._count}}: {{items._count}}{{/items._count}}{{/count}}" + _FAILED,
    ),
    _built_in(
        "handoff",
        "Handoff",
        "from_agent*:str to_agent*:str reason:str",
        "accepted:bool",
        "Handoff {{from_agent}} → {{to_agent}}{{#reason}}: {{reason._inline}}{{/reason}}" + _FAILED,
    ),
    _built_in("message", "Message", "role*:str content*:any", "", "{{role}}: {{content._inline}}" + _FAILED),
    _built_in(
        "compaction",
        "Compaction",
        "trigger:str tokens_before:int",
        "tokens_after:int summary:any",
        "Compaction{{#trigger}} ({{trigger}}){{/trigger}}{{#tokens_before}}: {{tokens_before}}"
        "{{#tokens_after}}→{{tokens_after}}{{/tokens_after}} tok{{/tokens_before}}" + _FAILED,
    ),
    _built_in(
        "hook",
        "Hook",
        "name:str event:str command:any call_id:str",
        "output:any exit_code:int",
        "Hook {{name}}{{#command._inline}}: {{.}}{{/command._inline}}" + _OUTPUT,
        "name",
    ),
    _built_in(
        "event",
        "Event",
        "name:str level:str content:any",
        "output:any",
        "{{name}}{{#content._inline}}: {{.}}{{/content._inline}}" + _OUTPUT,
        "name",
    ),
    BuiltIn("custom", "Custom", {"type": "object"}, {"type": "object"}, None, None),
)
