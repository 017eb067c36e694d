"""Serves the operations by id over HTTP: `agentspan serve`, or `create_app` in your own application.

Needs the extra: `pip install "agentspan-sqlite[serve]"`. No rule of the state machine is in this package.
"""

from typing import Any

from agentspan.installing import needs_extra

__all__ = ["create_app"]


def __getattr__(name: str) -> Any:
    if name != "create_app":
        raise AttributeError(f"module 'agentspan.serve' has no attribute {name!r}")
    try:
        from agentspan.serve.app import create_app
    except ImportError as error:
        raise ImportError(needs_extra("serving", "serve")) from error
    globals()[name] = create_app
    return create_app
