"""The nodes of a context: the nested active spans and runs of each thread and task."""

from contextvars import ContextVar
from typing import Any, TypeVar, cast

N = TypeVar("N")


def enter(current: ContextVar[Any], node: Any) -> None:
    """Make a node the active one, inside the node that was active before."""
    node.outer = node.recorder.innermost()
    try:
        current.set(node)
    except BaseException:  # from a signal handler, after the call
        leave(current, node)
        raise


def leave(current: ContextVar[Any], node: Any) -> None:
    """Make the nearest outer node that is still open the active one: blocks may end in another order than they began.

    Not by ContextVar.reset, which raises if a block contains a `yield` and ends in another context.
    """
    if current.get() is node:
        outer = node.outer
        while outer is not None and not outer.goes_on():
            outer = outer.outer
        current.set(outer)
        node.outer = None  # a span that the program keeps must not keep its outer nodes alive


def last_entered(entered: list[N]) -> N:
    """Remove and return the node to leave, of the nodes that several tasks or threads entered with one block."""
    if len(entered) > 1:
        for current in {cast(Any, each).recorder.current for each in entered}:
            node: Any = current.get()
            while node is not None:
                if node in entered:
                    entered.remove(node)
                    return node  # type: ignore[no-any-return]
                node = node.outer
    return entered.pop()
