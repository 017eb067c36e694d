"""Maps an OpenTelemetry span to its agentspan record: type, payload, result, status, and facts about its run.

To map a span costs too much in the thread that records it. That thread gets hints from the names of the attributes, by
the same tables.

The type of an open span without attributes is guessed from its instrumentor and its name. Many instrumentors set all
attributes at the end of a span (LangSmith, OpenInference's for LangChain and LiteLLM, Traceloop's for LangChain). The
end of the span corrects the guess. Names of spans are not API: the rules describe the instrumentors of 2026.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from agentspan import clock
from agentspan.otel.mapping import genai, judgements, messages, openinference, platforms, sdks, traceloop
from agentspan.otel.mapping.draft import Draft, Family, Shape, begin_span, literal, shape_of, text
from agentspan.otel.span import Event, Log, OtelSpan, Scope
from agentspan.schemas.span_types import BUILT_IN_TYPES, MAX_NAME, fallback
from agentspan.text import one_line

_FRAMEWORKS = (
    *("langchain", "langsmith", "llama", "dspy", "crewai"),
    *("smolagents", "agents", "haystack", "agno", "autogen"),
)
"""Parts of the names of frameworks' instrumentors. Most of their spans are chains."""
_CLIENTS = (
    *("openai", "anthropic", "litellm", "genai", "gen_ai", "bedrock"),
    *("mistral", "groq", "cohere", "vertex", "ollama"),
)
"""Parts of the names of instrumentors for clients of models. Most of their spans are calls of models."""
_STARTS = ("openinference.", "opentelemetry.instrumentation.", "opentelemetry.util.genai", "traceloop", "logfire.")
_NAMED_SCOPES = frozenset({"langsmith", "gen_ai", "litellm", "pydantic-ai", "langfuse-sdk", "langfuse"})
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
        (r"ChatCompletion$|Responses?$|response$|generation$|a?completion$|\w*Chat[A-Z]\w*(\.chat)?$|LM\.", "llm"),
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
    is_known = scope.startswith(_STARTS) or scope in _NAMED_SCOPES
    is_run = _RUNS.match(root.name) is not None and not _PARTS.match(root.name)
    return is_known and (is_run or any(name in scope for name in _ROOTS))


def is_root_call(span: OtelSpan, type_: str | None) -> bool:
    """Return whether a span is a root and a framework's chain, such as a graph or a crew that the program calls."""
    scope = span.scope.name
    return (
        type_ == "chain"
        and span.parent_span_id is None
        and (scope.startswith(_STARTS) or scope in _NAMED_SCOPES)
        and is_of_framework(scope)
        and not _PARTS.match(span.name)
    )


@lru_cache(1024)
def is_of_framework(scope: str) -> bool:
    """Return whether an instrumentor is one of a framework, by its name; one of a client of models is none."""
    return any(name in scope for name in _FRAMEWORKS)


def guess(span: OtelSpan) -> str | None:
    """Return the probable type of a span; None if its instrumentor is unknown or no rule matches."""
    scope = span.scope.name
    if not scope.startswith(_STARTS) and scope not in _NAMED_SCOPES:
        return None
    found = next((type_ for rule, type_ in _RULES if rule.match(span.name)), None)
    if found is not None:
        return found
    if is_of_framework(scope):
        return "chain"
    return "llm" if any(name in scope for name in _CLIENTS) else None


FAMILIES: tuple[Family, ...] = (
    *(openinference.FAMILY, platforms.MLFLOW, platforms.LANGFUSE, platforms.LANGSMITH, sdks.VERCEL, sdks.LITELLM),
    *(sdks.LOGFIRE, traceloop.FAMILY, sdks.SDK),
)
"""The families that are tried before the GenAI conventions, in this order.

A span can belong to several families. Each field gets its value from the first family that has one.
"""
PLAIN = "custom"
ABOUT_SPAN = frozenset({"attributes", "events", "links", "dropped", "otel"})
"""The members of a payload that describe the OpenTelemetry span, such as its events, and not the recorded step."""
_READ_EVENTS = genai.READ_EVENTS | openinference.READ_EVENTS
_EMPTY_EVENTS = genai.EMPTY_EVENTS | traceloop.CHUNKS
_NAMED = frozenset({"agent", "chain", "tool", "guardrail", "evaluation"})
_PREFIXES = ("invoke_agent ", "invoke_workflow ", "execute_tool ", "execute_task ", "ai.toolCall ")
_SUFFIXES = (
    *(".run", ".__call__", "._execute_core", ".acall", ".call", ".workflow", ".agent", ".tool"),
    *(".kickoff", ".aforward", ".forward", ".aquery", ".query"),
)
_USAGE = ("input_tokens", "output_tokens", "cost_usd")
_ID = re.compile(
    r"(?<![0-9A-Za-z])([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-f]{16,}|\d{6,})(?![0-9A-Za-z])"
)
_UNIQUE = re.compile(r"_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""The unique end of the name that CrewAI gives an unnamed crew. It is cut off, else each run would have a new agent."""


class RunFacts(NamedTuple):
    """The facts about a run that one of its spans provides.

    Attributes:
        agent, version: the name and version of the agent. The run gets the name and version from its root span.
        session, user: the names of the session and the user.
        is_own: whether a trace with this span as its root is a run of its own: the span is an agent, a call of a
            framework, or a request to a server.
    """

    agent: str | None = None
    version: str | None = None
    session: str | None = None
    user: str | None = None
    is_own: bool = False


_NO_FACTS = RunFacts()


class Mapped(NamedTuple):
    """The agentspan record of a span.

    Attributes:
        schema_name: the built-in span type; of a `custom` span, its own name, unless that means a built-in type.
        type: the built-in span type.
        payload: plain JSON. Attributes, events and links that became no field are in `attributes`, `events`, `links`.
        result_payload: plain JSON; None without a result.
        status: the status of the finished span.
        run: the facts about the run.
        families: the names of the families of the span's attributes.
        is_step: False for a span that is no step, such as Logfire's spans for the begin of another span.
    """

    schema_name: str
    type: str
    payload: dict[str, Any]
    result_payload: dict[str, Any] | None
    status: Literal["complete", "failed"]
    run: RunFacts
    families: tuple[str, ...] = ()
    is_step: bool = True


def map_span(span: OtelSpan, logs: Sequence[Log] = (), *, families: tuple[Family, ...] = FAMILIES) -> Mapped:
    """Return the agentspan record of a span. Never raises because of a value in the span.

    Args:
        span: the span. The type of an open span is a guess, because attributes may come later: map it again at its end.
        logs: the log records that were emitted inside the span; older conventions use them for messages.
        families: the families that are tried before the GenAI conventions. Only tests change them.
    """
    if logs:
        joined = sorted((log.event for log in logs), key=lambda event: event.time_ns)
        span = replace(span, events=(*joined, *span.events))
    try:
        return _mapped(span, families)
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # A value that no reader expects must not lose the span: the span is kept unmapped.
        return _unmapped(span, error)


def _unmapped(span: OtelSpan, error: Exception) -> Mapped:
    draft = Draft(span, shape_of(span), PLAIN)
    draft.payload["unmapped"] = type(error).__name__
    failed = _failure(draft)
    _keep_the_rest(draft, is_plain=False, has_error=failed is not None)
    result = {"error": failed} if failed is not None else None
    status: Literal["complete", "failed"] = "complete" if failed is None else "failed"
    return Mapped(_schema_name(span, PLAIN), PLAIN, draft.payload, result, status, RunFacts())


def _mapped(span: OtelSpan, known: tuple[Family, ...] = FAMILIES) -> Mapped:
    begin_span()
    shape = shape_of(span) if known is FAMILIES else Shape(tuple(span.attributes))
    if shape.families is None:
        shape.families = _families(span, known)
        shape.family_names = tuple(family.name for family in shape.families)
    families: tuple[Family, ...] = shape.families
    type_ = None
    for family in families:
        type_ = family.kind(span)
        if type_ is not None:
            break
    if type_ is None and span.end_ns is None:
        type_ = guess(span)
    type_ = type_ or PLAIN
    draft = Draft(span, shape, type_)
    for family in families:
        draft.fill(family)
        if family.rest is not None:
            family.rest(draft)
    _finish_fields(draft)
    error = _failure(draft)
    _keep_the_rest(draft, is_plain=not families, has_error=error is not None)
    if error is not None:
        draft.result["error"] = error
    return Mapped(
        _schema_name(span, type_),
        type_,
        draft.payload,
        draft.result or None,
        "complete" if error is None else "failed",
        _run_facts(draft),
        shape.family_names,
        sdks.is_step(span.attributes),
    )


def _families(span: OtelSpan, known: tuple[Family, ...]) -> tuple[Family, ...]:
    version = genai.version_of(span)
    return (*(family for family in known if family.holds(span)), *(() if version is None else (version,)))


def with_logs(mapped: Mapped, logs: Iterable[Log]) -> Mapped:
    """Return the record of a call of a model, completed by messages in log records that came after its span.

    Args:
        mapped: the record without these messages. A record of another type is returned unchanged.
        logs: all log records of the span that have come, in any order. If they have fewer messages than the record,
            the record keeps its messages.
    """
    events = sorted((log.event for log in logs), key=lambda event: event.time_ns)
    if mapped.type != "llm" or not events:
        return mapped
    bare = OtelSpan("", "", None, "", 0, 1, attributes={genai.OPERATION: "chat"}, events=tuple(events))
    without_logs = _mapped(bare)
    before, result = mapped.payload, mapped.result_payload or {}
    payload = {
        field: without_logs.payload[field] for field in ("system", "messages", "tools") if field in without_logs.payload
    }
    if len(payload.get("messages", ())) < len(before.get("messages", ())):
        payload = {}
    answer = {field: value for field, value in (without_logs.result_payload or {}).items() if value}
    kept = {field: answer.pop(field) for field in ("finish_reason",) if field in answer}
    last = {field: value for field, value in before.items() if field in ABOUT_SPAN}
    first = {field: value for field, value in before.items() if field not in ABOUT_SPAN}
    return mapped._replace(payload=first | payload | last, result_payload={**kept, **result, **answer} or None)


def joins(event_name: str) -> bool:
    """Return whether log records with this name contain messages of a call of a model."""
    return event_name in genai.READ_EVENTS


@lru_cache(1024)
def plain_name(name: str) -> str:
    """Return the schema_name of a `custom` span: its own name, or `custom` if the name means a built-in type.

    An id in the name becomes `*`: else each run would have types of its own.
    """
    shown = one_line(_ID.sub("*", name), MAX_NAME)
    is_free = shown and fallback(shown) is BUILT_IN_TYPES[PLAIN] and shown.isprintable()
    return shown if is_free else PLAIN


def _schema_name(span: OtelSpan, type_: str) -> str:
    return plain_name(span.name) if type_ == PLAIN else type_


def _finish_fields(draft: Draft) -> None:
    """Set fields that no attribute has: a name from the span's name, a model, and the final text of an agent."""
    if draft.type in _NAMED and "name" not in draft.payload:
        draft.payload = {"name": _shortened(draft.span.name), **draft.payload}
    if draft.type == "llm" and draft.result.get("input_tokens") == 0 == draft.result.get("output_tokens"):
        for name in _USAGE:  # instrumentors write zeros where a stream reported no usage
            draft.result.pop(name, None)
    if draft.type == "llm" and "model" not in draft.payload and "response_model" in draft.result:
        draft.payload["model"] = draft.result["response_model"]
    if draft.type == "agent" and (state := messages.state(draft.result.get("output"))) is not None:
        draft.result["output"] = messages.final_text(state["messages"])
        draft.result["state"] = state


def _shortened(name: str) -> str:
    """Return the name of a tool or agent, cut from the name of its span: `get_weather` from `get_weather.__call__`."""
    for prefix in _PREFIXES:
        if name.startswith(prefix) and len(name) > len(prefix):
            name = name[len(prefix) :]
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and len(name) > len(suffix):
            return name[: -len(suffix)]
    return name


def _failure(draft: Draft) -> dict[str, str] | None:
    """Return the error of a failed span; None if the span did not fail."""
    span = draft.span
    if span.status != "ERROR" and not draft.is_failed:
        return None
    error, used = error_of(span)
    draft.use(*used)
    return error


def _keep_the_rest(draft: Draft, *, is_plain: bool, has_error: bool) -> None:
    """Put the attributes, events, links and other facts that became no field into the payload."""
    span, payload = draft.span, draft.payload
    if draft.left:
        payload["attributes"] = draft.left
    if span.events:
        last = span.exceptions[-1:] if has_error else []
        is_call = draft.type == "llm"
        kept = [_event(event) for event in span.events if not _is_read(event, is_call) and event not in last]
        if kept:
            payload["events"] = kept
    if span.links:
        payload["links"] = [
            {"trace_id": link.trace_id, "span_id": link.span_id, "attributes": dict(link.attributes)}
            | ({"trace_state": link.trace_state} if link.trace_state else {})
            for link in span.links
        ]
    if span.dropped:
        payload["dropped"] = dict(span.dropped)
    about = _about_span(span, is_plain=is_plain)
    if "system" in payload and genai.INPUT in span.attributes and genai.INSTRUCTIONS not in span.attributes:
        about["system"] = "message"
    if about:
        payload["otel"] = about


def _about_span(span: OtelSpan, *, is_plain: bool) -> dict[str, Any]:
    """Return a span's name and instrumentor, unless it is plain, and the facts that differ from their defaults."""
    found: dict[str, Any] = {}
    if not is_plain:
        scope = span.scope
        for key, value in (("name", span.name), ("scope", scope.name), ("version", scope.version)):
            if value:
                found[key] = value
    elif "*" in plain_name(span.name):
        found["name"] = span.name
    if span.kind != "INTERNAL":
        found["kind"] = span.kind
    if span.status == "OK":
        found["status"] = "OK"
    if span.scope.attributes:
        found["scope_attributes"] = dict(span.scope.attributes)
    if span.trace_state:
        members = [member.strip() for member in span.trace_state.split(",")]
        if others := [member for member in members if member and not member.startswith("agentspan=")]:
            found["trace_state"] = ",".join(others)
    return found


def _is_read(event: Event, is_call: bool) -> bool:
    """Return whether to drop an event: its messages became fields of a call of a model, or it has no content."""
    return (is_call and event.name in _READ_EVENTS) or event.name in _EMPTY_EVENTS or platforms.is_chunk(event.name)


def _event(event: Event) -> dict[str, Any]:
    about: dict[str, Any] = {"name": event.name}
    if event.time_ns:
        about["time"] = clock.to_text(event.time_ns)
    if event.attributes:
        about["attributes"] = dict(event.attributes)
    if event.body is not None:
        about["body"] = event.body
    return about


def _run_facts(draft: Draft) -> RunFacts:
    run, name = draft.run, draft.payload.get("name")
    is_agent = draft.type == "agent"
    if is_agent and draft.span.attributes.get(genai.OPERATION) == "create_agent":
        return _NO_FACTS  # a program makes its agents before they run
    if not run and draft.type not in ("agent", "chain") and draft.span.kind != "SERVER":  # most spans
        return _NO_FACTS
    agent = name if is_agent and type(name) is str else run.get("agent")
    if agent is None and is_root_call(draft.span, draft.type) and type(name) is str:
        agent = _UNIQUE.sub("", name)
    is_own = is_agent or draft.span.kind == "SERVER" or (agent is not None and draft.type != PLAIN)
    return RunFacts(agent, run.get("version"), run.get("session"), run.get("user"), is_own)


_ALL = (*FAMILIES, *genai.VERSIONS)
_FIELDS = {"run.session": "session", "run.user": "user"}
_CONVERSATION = tuple(
    (name, _FIELDS[row.place], row.read)
    for family in _ALL
    for row in family.rows.get("*", ())
    if row.place in _FIELDS
    for name in row.names
)
_CONVERSATION_NAMES = frozenset(name for name, _, _ in _CONVERSATION)
_MODEL_NAMES = frozenset(
    name
    for family in _ALL
    for row in family.rows.get("llm", ())
    if row.place in ("payload.model", "result.response_model")
    for name in row.names
) | {"llm.input_messages.0.message.role"}  # a failed call may name no model


def conversation_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Return the `session` and the `user` of a run that a span's attributes name."""
    found: dict[str, str] = {}
    for name, field, read in _CONVERSATION:
        if name in attributes and type(value := read(attributes[name])) is str:
            found.setdefault(field, value)
    return found


class Hints(NamedTuple):
    """Guesses about a span from the names of its attributes, without their values.

    Attributes:
        may_be_call: whether the span may be a call of a model. Every call that succeeds has an attribute for its model.
        may_be_judged: whether an attribute may have a score.
        names_conversation: whether `conversation_of` may find a session or a user.
    """

    may_be_call: bool
    may_be_judged: bool
    names_conversation: bool


NO_HINTS = Hints(may_be_call=False, may_be_judged=False, names_conversation=False)
LONGEST = 64
"""The most attributes of a span whose hints are cached. Most spans have fewer; long conversations all differ."""


def hints_of(attributes: Mapping[str, Any]) -> Hints:
    """Return the hints of a span, mostly from a cache (0.3 µs), because a program has few kinds of spans."""
    names = tuple(attributes)
    return _kept_hints(names) if len(names) <= LONGEST else _hints(names)


def _hints(names: tuple[str, ...]) -> Hints:
    return Hints(
        not _MODEL_NAMES.isdisjoint(names),
        not judgements.FIRST.isdisjoint(names),
        not _CONVERSATION_NAMES.isdisjoint(names),
    )


_kept_hints = lru_cache(256)(_hints)


@lru_cache(1024)
def begun_type(scope: str, name: str) -> str:
    """Return the probable schema_name of a span without attributes, from the names of its instrumentor and the span."""
    found = guess(OtelSpan("", "", None, name, 0, None, scope=Scope(scope)))
    return plain_name(name) if found in (None, "custom") else str(found)


_NAME, _VERSION, _INSTANCE = "service.name", "service.version", "service.instance.id"
_UNKNOWN = "unknown_service"
_LONGEST_KEY = 200
_PROCESS = ("host.name", "host.id", "container.id", "process.pid", "process.creation.time")


class Program(NamedTuple):
    """The program of a process that made spans.

    Attributes:
        name, version: the name and version of the program. The name `unknown_service:python` becomes `python`; without
            any name it is `opentelemetry`.
        resource: the attributes of the process.
    """

    name: str
    version: str | None
    resource: Mapping[str, Any]

    @property
    def is_named(self) -> bool:
        """False if the program has no name, or only the SDK's `unknown_service:python`."""
        return not (text(self.resource.get(_NAME)) or _UNKNOWN).startswith(_UNKNOWN)

    @property
    def key(self) -> str:
        """The identity of the process as a text that can be stored as a name.

        It is unique if the resource has an instance id, or facts such as host and process id.
        """
        resource = self.resource
        instance = text(resource.get(_INSTANCE))
        which = instance or "/".join(str(resource[each]) for each in _PROCESS if resource.get(each) is not None)
        named = f"{self.name}:{which}"
        if len(named) <= _LONGEST_KEY and named.isprintable():
            return named
        return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()


def program_of(resource: Mapping[str, Any]) -> Program:
    """Return the program that the attributes of a process describe."""
    service = text(resource.get(_NAME)) or _UNKNOWN
    name = service.removeprefix(_UNKNOWN).removeprefix(":") or "opentelemetry"
    return Program(name, text(resource.get(_VERSION)), resource)


_TYPE, _MESSAGE, _STACKTRACE = "exception.type", "exception.message", "exception.stacktrace"
_TYPED = re.compile(r"([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Warning|Timeout|Failure)): (.*)", re.DOTALL)
_REPR = re.compile(r"([A-Za-z_][\w.]*)\((['\"])(.*)\2\)\Z", re.DOTALL)
_TRACEBACK = "Traceback (most recent call last):"
_FAMILY_MESSAGES = ("error.message", "langfuse.observation.status_message", "error.msg")
_FAMILY_STACKTRACES = ("error.stack_trace", "error.stacktrace")
_VAGUE = frozenset({"_OTHER", "Exception", "Error"})


def error_of(span: OtelSpan) -> tuple[dict[str, str], list[str]]:
    """Return the error of a failed span, `{type, message, stacktrace}`, and the names of attributes it makes redundant.

    An exception event wins over the status, and the status over attributes.
    """
    last = span.exceptions[-1:]
    attributes_of_event = last[0].attributes if last else {}
    attributes = span.attributes
    type_ = text(attributes_of_event.get(_TYPE))
    message = text(attributes_of_event.get(_MESSAGE)) or text(span.status_message)
    message = message or _first(attributes, _FAMILY_MESSAGES)
    stacktrace = text(attributes_of_event.get(_STACKTRACE))
    stacktrace = stacktrace or _first(attributes, _FAMILY_STACKTRACES)
    message, stacktrace = _parted(message, stacktrace)
    type_, message = _typed(type_ if type_ not in _VAGUE else None, message, exact=type_)
    error_type = text(attributes.get("error.type")) or _agreed(attributes.get("error"))
    type_ = type_ or (error_type if error_type not in _VAGUE else None) or "Error"
    error = {"type": type_, "message": message, "stacktrace": stacktrace}
    texts = {*error.values(), type_.rpartition(".")[2]}
    repeating = ("error.type", *_FAMILY_MESSAGES, *_FAMILY_STACKTRACES)
    used = [name for name in repeating if type(attributes.get(name)) is str and attributes[name] in texts]
    return {key: value for key, value in error.items() if value}, used


def _first(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := text(attributes.get(name)))), None)


def _agreed(error: Any) -> str | None:
    return text(error.get("type")) if type(error) is dict else None


def _parted(message: str | None, stacktrace: str | None) -> tuple[str | None, str | None]:
    """Split message and traceback: LangChain's tracers write both into the message."""
    if message is None or _TRACEBACK not in message:
        return message, stacktrace
    head, _, tail = message.partition(_TRACEBACK)
    return head.strip() or tail.strip().rpartition("\n")[2], stacktrace or f"{_TRACEBACK}{tail}"


def _typed(type_: str | None, message: str | None, *, exact: str | None) -> tuple[str | None, str | None]:
    """Return the type and the message of an error.

    Args:
        type_: the type, or None if it is missing or as vague as `Exception`.
        message: a text, or a text with the type in it: `ValueError: no`, `ValueError('no')`, or a dict.
        exact: the type, also if it is vague.
    """
    if message is None:
        return type_ or exact, None
    message = _agents_message(message)
    if type_ is None and (match := _REPR.match(message)) is not None:
        return match[1], match[3]
    match = _TYPED.match(message)
    if match is not None and (type_ is None or type_.rpartition(".")[2] == match[1].rpartition(".")[2]):
        return type_ or match[1], match[2]
    return type_ or (exact if exact not in _VAGUE else None), message


def _agents_message(message: str) -> str:
    """Return `Error in agent run: no` from `{'message': 'Error in agent run', 'data': {'error': 'no'}}`.

    Another message is returned unchanged.
    """
    whole = literal(message)
    if type(whole) is dict and type(whole.get("message")) is str:
        data = whole.get("data")
        inner = data.get("error") if type(data) is dict else None
        return f"{whole['message']}: {inner}" if type(inner) is str else whole["message"]
    head, _, tail = message.partition(": {")
    data = literal("{" + tail) if tail.endswith("}") else None
    if type(data) is dict and type(data.get("error")) is str:
        return f"{head}: {data['error']}"
    return message
