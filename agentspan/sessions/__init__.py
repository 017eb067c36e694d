"""Sessions of coding agents: their files are decoded, and stored as runs.

`ClaudeSessionStore` is the Claude Agent SDK's `SessionStore` over an agentspan file. It is imported at its first use.
"""

from typing import TYPE_CHECKING

from agentspan.ground import host

if TYPE_CHECKING:
    from agentspan.sessions.claude_store import ClaudeSessionStore
else:
    __getattr__ = host.lazily(__name__, {"agentspan.sessions.claude_store": "ClaudeSessionStore"})

__all__ = ["ClaudeSessionStore"]


def __dir__() -> list[str]:
    return __all__
