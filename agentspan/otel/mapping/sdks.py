"""Attributes of SDKs that trace themselves: Anthropic's, on top of the GenAI conventions, and MCP's."""

from agentspan.otel.mapping.draft import Draft, Family, Row, row
from agentspan.otel.mapping.values import parsed, text, whole
from agentspan.otel.span import OtelSpan

_METHOD = "mcp.method.name"
_ARGUMENTS, _RESULT = "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"
VARIABLE = "gen_ai.prompt.variable."
_ANTHROPIC, _MCP = "com.anthropic.sdk.", "mcp-python-sdk"
ROWS: dict[str, tuple[Row, ...]] = {
    "llm": (
        row("result.finish_reason", "anthropic.message.stop_reason", read=text),
        row("payload.thinking_tokens", "anthropic.thinking.budget_tokens", read=whole),
    ),
    "mcp": (
        row("payload.method", _METHOD, read=text),
        row("payload.target", "gen_ai.tool.name", "gen_ai.prompt.name", "mcp.resource.uri", read=text),
        row("payload.server", "mcp.server.name", read=text),
        row("payload.request_id", "jsonrpc.request.id", "mcp.request.id", read=text),
        row("payload.session_id", "mcp.session.id", read=text),
        row("payload.protocol_version", "mcp.protocol.version", read=text),
    ),
}


def _holds(span: OtelSpan) -> bool:
    return span.scope.name.startswith(_ANTHROPIC) or span.scope.name == _MCP or _METHOD in span.attributes


def _kind(span: OtelSpan) -> str | None:
    return "mcp" if _METHOD in span.attributes else None


def _rest(draft: Draft) -> None:
    if draft.type != "mcp":
        return
    method = draft.payload.get("method", "")
    named = draft.span.name.removeprefix("MCP send ").removeprefix(method).strip()
    draft.put("payload.target", named or None)
    if method == "tools/call":
        draft.use("gen_ai.operation.name")
    draft.put("payload.arguments", parsed(draft.get(_ARGUMENTS)), _ARGUMENTS)
    given = [name for name in draft.left if name.startswith(VARIABLE)]
    draft.put("payload.arguments", {name.removeprefix(VARIABLE): draft.left[name] for name in given} or None, *given)
    draft.put("result.result", parsed(draft.get(_RESULT)), _RESULT)
    code = draft.get("rpc.response.status_code") or draft.get("error.type")
    if code is not None or draft.span.status == "ERROR":
        draft.put("result.is_error", True)
        draft.put("result.error_code", code, "rpc.response.status_code")


FAMILY = Family("SDK", _holds, _kind, ROWS, _rest)
