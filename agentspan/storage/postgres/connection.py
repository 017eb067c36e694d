"""One connection to a server: what its session is set to, and how long it waits for an answer."""

import select
import time
from collections.abc import Generator
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.waiting import Ready, Wait

from agentspan.model.changes import Ref
from agentspan.storage import meanwhile, patience
from agentspan.tuning import STANDARD

RV = TypeVar("RV")

LOOK_S = 0.1
"""Seconds without an answer after which the clock is read: psycopg's own interval, in which it sees Ctrl-C."""


class Backend(NamedTuple):
    """The process of the server that works for a connection.

    Attributes:
        pid: its id; a later process may have the same.
        began: when it began, in seconds since the epoch, as text.
    """

    pid: int
    began: str


class Connection(psycopg.Connection[Any]):
    """A connection, with what its session is set to.

    Attributes:
        lock_ms: its lock_timeout; 0 before it is set.
        process: the process that opened it. Another one must not touch it.
        answer_s: how long each answer may take.
        kept: rows that the transaction under way has locked against removal.
        is_distributed: whether the finished spans are on several servers (see citus).
        backend: its process at the server.
        life: when the server started, and when it last recovered from a crash of a process of its own.
        raised: what a signal handler, or a step of this thread's work, raised in a wait, and its traceback.
    """

    lock_ms = 0
    process = 0
    is_distributed = False
    answer_s: float = STANDARD.postgres_statement_s + STANDARD.postgres_answer_s
    kept: frozenset[Ref] = frozenset()
    backend = Backend(0, "")
    life = ""
    raised: tuple[Exception, TracebackType | None] | None = None

    def wait(self, gen: Generator[Any, Any, RV], *args: Any, **how: Any) -> RV:
        """Wait for an answer, as psycopg does, but not for ever. Work of this thread is done meanwhile.

        Raises:
            OperationalError: none came in `answer_s`, or as soon as this thread needs it (see storage.patience). The
                connection is of no use then.
        """
        look_s, within_s = LOOK_S, min(self.answer_s, patience.most_s())
        if not patience.may_connect():  # a recording call looks at the clock more often: it waits little longer
            look_s = max(min(LOOK_S, within_s / 10), 0.001)
            args, how = (look_s,), {}
        try:
            return super().wait(_limited(gen, self.pgconn.socket, within_s, look_s), *args, **how)
        except psycopg.Error:
            raise
        except Exception as error:
            self.raised = error, error.__traceback__
            raise

    def __del__(self, *_: object) -> None:
        """Do nothing, where psycopg warns: libpq's part closes itself, and only in the process that opened it."""


def _limited(gen: Generator[Any, Any, RV], socket: int, within_s: float, look_s: float) -> Generator[Any, Any, RV]:
    """Pass on what a generator of psycopg waits for, until a time. It is resumed after `look_s` without an answer."""
    deadline = 0.0
    try:
        wanted = next(gen)
        while True:
            while meanwhile.has_work() and not _is_ready(socket, wanted):
                meanwhile.step()
            ready = yield wanted
            if ready == Ready.NONE:  # the clock is read only then
                now = time.monotonic()
                deadline = deadline or now + within_s - look_s
                if now >= deadline:
                    raise psycopg.OperationalError(f"no answer within {within_s:g} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        result: RV = done.value
        return result


def _is_ready(socket: int, wanted: int) -> bool:
    poll = select.poll()
    poll.register(socket, (select.POLLIN if wanted & Wait.R else 0) | (select.POLLOUT if wanted & Wait.W else 0))
    return bool(poll.poll(0))
