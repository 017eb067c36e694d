"""Sessions of coding agents: their files are decoded, and stored as runs.

`ClaudeSessionStore` is the Claude Agent SDK's `SessionStore` over an agentspan file. It is imported at its first use.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agentspan.sessions.claude_store import ClaudeSessionStore

__all__ = ["ClaudeSessionStore"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'agentspan.sessions' has no attribute {name!r}")
    from agentspan import host

    with host.importing:
        from agentspan.sessions.claude_store import ClaudeSessionStore

    globals()[name] = ClaudeSessionStore
    return ClaudeSessionStore


def __dir__() -> list[str]:
    return sorted(__all__)
