"""The sums of a run with a budget, and the look before each of its steps.

One Spending belongs to the run and to all runs inside of it. `SpanState` asks it before a step begins, and adds the
usage of a step as it ends.

The threads of a process share the sums without a lock: CPython switches threads only at calls and at jumps back, and
between a look and its subtraction there is neither.
"""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from math import inf
from typing import Any

from agentspan import clock
from agentspan.errors import BudgetExceeded
from agentspan.host import guard, log
from agentspan.journal.records import Parts
from agentspan.model.changes import Put, unit_of
from agentspan.model.columns import read_payload
from agentspan.model.rows import AgentInstanceRow, ScoreRow
from agentspan.model.scores import Source, judgement, score_row
from agentspan.recording.budgets import (
    ALLOWED,
    FIELDS,
    LIMITS,
    MOST,
    NAME,
    PART,
    PAUSED,
    SPENT,
    Budget,
    Kin,
    OnSpent,
    Used,
    amount_text,
    amounts_of,
    amounts_text,
    has_usage,
    parse_amounts,
    stored_in,
    terminal,
    used_of_row,
    user,
    whole_size,
)
from agentspan.schemas import prices
from agentspan.schemas.span_types import usage_of
from agentspan.storage.access import outlines_of
from agentspan.storage.questions import Find, Query

OVERLAP_S = 60.0
"""Seconds by which a look at steps of other processes goes back: their journals are drained later than their clocks."""
RETRY_NS = 1_000_000_000
"""The time after which the sums of another process's run are read again, if that failed, in ns."""
LOOK_SHARE = 0.01
"""The largest share of a process's time for looks at steps of other processes."""
MOST_CALLS = 10_000
"""The number of different calls whose repetitions are counted: the latest ones."""
CHARACTERS = 4
"""The characters of a token, for a call of a model that reports no tokens."""


class _Call:
    """The number of calls with the same arguments."""

    __slots__ = ("made",)

    def __init__(self) -> None:
        self.made = 0


class Paused(BudgetExceeded):
    """A step has to wait, in an event loop. A block or function that can await does; in others it is a BudgetExceeded.

    Args:
        spending: the sums of the run.
    """

    def __init__(self, spending: "Spending", spent: BudgetExceeded) -> None:
        reason = f"{spent.reason} (a step that is not async cannot pause in an event loop: use `async with`)"
        super().__init__(spent.run_id, spent.limit, reason)
        self._spending, self._spent = spending, spent
        self._raises = spending.raises

    async def wait(self) -> None:
        """Wait, without blocking the event loop, until somebody allows more.

        Raises:
            BudgetExceeded: a person answered no, or the run was terminated.
        """
        asyncio, spending = sys.modules["asyncio"], self._spending
        spending.stopped = None
        with spending.waiting():
            while spending.raises == self._raises:
                spending.ask(self._spent)
                if spending.raises == self._raises and not await asyncio.to_thread(spending.hear):
                    await asyncio.sleep(spending.pause_s)


Paused.__name__ = Paused.__qualname__ = BudgetExceeded.__name__  # in the error of a run, where nothing awaited it
Paused.__module__ = BudgetExceeded.__module__


class Spending:
    """The sums of a run with a budget, and of the runs inside of it.

    Args:
        run: the run: its recorder, id and row. It is a run inside of the one with the budget if another process began
            that one.
        budget: the limits; None if they have to be read (see `take_over`).
        above: the sums of a run around this one that has a budget, too.

    Attributes:
        counts_usage: whether tokens or cost are limited, so that the usage of each span is needed as it ends.
        compares: whether repetitions are limited, so that the payload of each span is needed before it begins.
        stopped: an exception like the one that was raised, until somebody allows more. The run fails with it.
        raises: how often a limit was raised.
        is_open: whether a step needs no more than a look at `ends_ns` and `steps_left`.
        ends_ns: the monotonic time from which on the minutes are spent, in ns; None without that limit.
        steps_left: how many steps may begin.
        plain: names of span types that are no calls of models.
        pause_s: the seconds between two looks of a step that waits.
    """

    def __init__(self, run: Any, budget: Budget | None, above: "Spending | None" = None) -> None:
        self.above = above
        self.run_id = ""
        self.stopped: BudgetExceeded | None = None
        self.usd = self.estimated = 0.0
        self.tokens = self.raises = 0
        self._run = run
        self._recorder = run.recorder
        self.pause_s = run.recorder.tuning.budget_pause_s
        self._look_ns = int(run.recorder.tuning.budget_look_s * 1e9)
        self._is_unread = False
        self.plain: set[str] = set()
        self._warned: set[str] = set()
        self._heard: set[str] = set()
        self._noted: set[str] = set()
        self._others: dict[str, bool] = {}
        self._counted: dict[str, str] = {}
        self._parts: set[str] = set()
        self._since = ""
        self._next_hear_ns = self._next_look_ns = 0
        self._waiting = 0
        self._waits_since_ns = 0
        self._reacts_in: int | None = None
        self._lock = threading.RLock()
        self._calls: dict[int, _Call] = {}
        self._looks_here = not self._has_looker
        self._kin: Kin | None = None
        self._pid = self._place = 0
        self._marked = ""
        self._sync = threading.RLock()
        # Of the sums here, what others used; of that, what kin wrote; and what the place of this process had before.
        self._foreign, self._seen, self._kept = [0.0] * FIELDS, [0.0] * FIELDS, [0.0] * FIELDS
        self._begin(budget or _NO_LIMIT, 0)

    @property
    def _has_looker(self) -> bool:
        """True if a drain thread looks at what other processes use, so that steps need not."""
        return bool(self._recorder.is_open and self._recorder.destination.is_journaled)

    def _begin(self, budget: Budget, elapsed_ns: int) -> None:
        """Set the limits of a run that began `elapsed_ns` ago."""
        self.budget = budget
        self.most: dict[str, float] = dict.fromkeys(LIMITS, inf) | {"steps": MOST} | amounts_of(budget)
        self.steps_left = self.most["steps"]
        self.counts_usage = budget.usd is not None or budget.tokens is not None
        self.compares = budget.repeats is not None
        self.ends_ns: int | None = None
        if budget.minutes is not None:
            self.ends_ns = clock.monotonic_ns() + int(budget.minutes * 60e9) - elapsed_ns
        self._settle()

    def _settle(self) -> None:
        """Decide whether a step needs no more than a look at the steps that are left."""
        has_room = self.usd < self.most["usd"] and self.tokens < self.most["tokens"]
        is_alone = self.above is None and not self._is_unread and not self._looks_here and self._kin is None
        self._has_room = has_room and is_alone
        self.is_open = self._has_room and not self.compares

    def take_over(self, run_id: str) -> None:
        """Read the limits and the sums before the next step: the run began in another process."""
        self.run_id = run_id
        self._is_unread = True
        self._settle()

    def share(self) -> None:
        """Before a fork: share the sums with the children."""
        if self._kin is None and not self._is_unread:
            kin = Kin()
            self._place, self._pid, self._kin = kin.place() or 0, os.getpid(), kin
            self._settle()
        if self._kin is not None:
            self._publish()
        if self.above is not None:
            self.above.share()

    def forked(self, writer_id: str, last_id: str) -> None:
        """In a forked child: take a place beside the parent, whose sums so far are in those of the child.

        Without one, the first step looks into the file: a short-lived child ends before its drain thread looks.

        Args:
            writer_id: the id of the parent.
            last_id: an id that is greater than those of the parent's spans.
        """
        self._counted[writer_id] = last_id
        self._lock, self._sync = threading.RLock(), threading.RLock()
        self._waiting = self._next_look_ns = 0
        if self._kin is not None and self._pid != os.getpid():
            place = self._kin.place()
            if place is None:
                self._kin = None
            else:
                used = self._sums()
                seen = [now - theirs + read for now, theirs, read in zip(used, self._foreign, self._seen, strict=True)]
                kept = self._kin.of(place)
                self._foreign, self._seen, self._kept, self._place, self._pid = used, seen, kept, place, os.getpid()
        if (
            self._kin is None and not self._recorder.destination.is_remote
        ):  # behind a spool no call waits for the server
            self._looks_here = True
        self._settle()
        if self.above is not None:
            self.above.forked(writer_id, last_id)

    def _sums(self) -> list[float]:
        return [self.most["steps"] - self.steps_left, self.usd, self.tokens, self.estimated]

    def _publish(self) -> list[float]:
        """Write what this process used to its place, and return it."""
        own = [used - theirs for used, theirs in zip(self._sums(), self._foreign, strict=True)]
        assert self._kin is not None
        if self._marked != self._recorder.writer_id:
            self._marked = self._recorder.writer_id
            self._kin.mark(self._marked)
        if not self._kin.has_place(self._place, self._pid) and (place := self._kin.place()) is not None:
            self._place, self._kept = place, self._kin.of(place)  # a sibling took the same one in the same moment
        self._kin.write(self._place, [each + kept for each, kept in zip(own, self._kept, strict=True)])
        return own

    def _share(self) -> None:
        """Publish what this process used, and count what its kin have used since the last look."""
        kin = self._kin
        if kin is None:
            return
        with self._sync:
            own = self._publish()
            now = [all_ - mine for all_, mine in zip(kin.all(), own, strict=True)]
            more = [all_ - read for all_, read in zip(now, self._seen, strict=True)]
            self._seen = now
            self._take_foreign(*more)

    def _take_foreign(self, steps: float, usd: float, tokens: float, estimated: float) -> None:
        """Count what another process used."""
        foreign = self._foreign
        self._foreign = [foreign[0] + steps, foreign[1] + usd, foreign[2] + tokens, foreign[3] + estimated]
        self.steps_left -= steps
        self._plus(Used(int(tokens), usd, estimated))

    def is_of(self, run: Any) -> bool:
        """Return whether a run has this budget itself, and is not inside of the run that has it."""
        return run is self._run and self.run_id in ("", run.id)

    def join(self, run_id: str) -> None:
        """Add a run that begins inside of the run, so that other processes and readers count its steps, too."""
        self._parts.add(run_id)
        self._note(PART, "a run inside of it", identifier=run_id)

    def admit(self, schema_name: str, captured: str | Parts) -> None:
        """Count a step that is about to begin, if the budget has room for it.

        Args:
            captured: its captured payload.

        Raises:
            BudgetExceeded: the budget is spent, and `on_spent` says to raise. Paused in an event loop.
        """
        call = self._call(schema_name, captured) if self.compares else None
        if self.ends_ns is None or clock.monotonic_ns() < self.ends_ns:
            left = self.steps_left  # no call from here on
            if left > 0 and self._has_room:
                if call is None:
                    self.steps_left = left - 1
                    return
                if call.made < self.most["repeats"]:
                    call.made += 1
                    self.steps_left = left - 1
                    return
        self._admit(schema_name, captured, call)

    def count(self) -> None:
        """Count a step that cannot be stopped any more."""
        self.steps_left -= 1
        self._share()
        if self.above is not None:
            self.above.count()

    def _call(self, schema_name: str, captured: str | Parts) -> _Call | None:
        """Return the count of calls like this one; None for a step without a payload, which repeats no other step."""
        if captured == "{}":
            return None
        if type(captured) is Parts:
            captured = captured.text()
        key = hash((schema_name, captured))
        calls = self._calls
        call = calls.get(key)
        if call is None:
            call = calls.setdefault(key, _Call())
            if len(calls) > MOST_CALLS:
                with guard(RuntimeError, StopIteration, KeyError):  # another thread removes the same one
                    del calls[next(iter(calls))]
        return call

    def _admit(self, schema_name: str, captured: str | Parts, call: _Call | None) -> None:
        if self._reacts_in == threading.get_ident():  # a step that the function `on_spent` records
            self.steps_left -= 1
            return
        if self._is_unread:
            self._read()
        if self._looks_here:
            self.look()
        raises = self.raises
        if (spent := self._take(call)) is not None:
            waits = self.budget.on_spent == "pause"
            with self.waiting() if waits else nullcontext():
                while spent is not None:
                    if not self.hear() and raises == self.raises:  # the thread that looks may have read it first
                        self._react(spent, schema_name, call)
                    raises = self.raises
                    spent = self._take(call)
        if self.above is not None:
            try:
                self.above.admit(schema_name, captured)
            except BaseException:
                self.steps_left += 1
                if call is not None:
                    call.made -= 1
                raise

    def _take(self, call: _Call | None) -> str | None:
        """Count a step, and return None; or return the name of the limit that has no room for it."""
        self._share()
        for limit in ("minutes", "usd", "tokens"):
            if not self.has_room(limit):
                return limit
        most = self.most["repeats"]
        if call is not None and call.made >= most:
            return "repeats"
        left = self.steps_left
        if left <= 0:
            return "steps"
        self.steps_left = left - 1
        if call is not None:
            call.made += 1
        self._share()
        return None

    def has_room(self, limit: str) -> bool:
        """Return whether a limit has room for another step; for `repeats`, which depends on the step, False."""
        if limit == "minutes":
            now_ns = self._waits_since_ns or clock.monotonic_ns()
            return self.ends_ns is None or now_ns < self.ends_ns
        if limit == "steps":
            return self.steps_left > 0
        return limit != "repeats" and (self.usd if limit == "usd" else self.tokens) < self.most[limit]

    def _error(self, limit: str, schema_name: str) -> BudgetExceeded:
        most = amount_text(limit, self.most[limit])
        if limit == "repeats":
            reason = f"repeats: {most} {schema_name} calls with the same arguments"
        elif limit == "minutes":
            reason = f"minutes: {most} of {most}"
        elif limit == "steps":
            reason = f"steps: {most} of {most}"
        else:
            about = (
                f", {amount_text(limit, self.estimated)} of it estimated" if limit == "usd" and self.estimated else ""
            )
            reason = f"{limit}: {amount_text(limit, self.usd if limit == 'usd' else self.tokens)} of {most}{about}"
        return BudgetExceeded(self.id, limit, reason)

    @property
    def id(self) -> str:
        """The id of the run that has the budget."""
        return self.run_id or str(self._run.id)

    def _react(self, limit: str, schema_name: str, call: _Call | None) -> None:
        """Do what `on_spent` says about a limit without room. Return if the step may look again."""
        on_spent = self.budget.on_spent
        error = self._error(limit, schema_name)
        if on_spent == "pause" and self._run.registered_row is not None:
            self._say(error)
            if _is_in_loop():
                self.stopped = self._error(limit, schema_name)
                raise Paused(self, error)
            self.ask(error)
            time.sleep(self.pause_s)
        elif on_spent in ("raise", "pause"):  # nobody could allow more to a run that is not recorded
            self._say(error)
            self.stopped = self._error(limit, schema_name)  # the raised one has a traceback, and so the frames
            raise error
        else:
            with self._lock:
                if not self.has_room(limit) and (call is None or limit != "repeats" or call.made >= self.most[limit]):
                    self._say(error)
                    self._decide(on_spent, error)

    def _decide(self, on_spent: OnSpent, error: BudgetExceeded) -> None:
        more = None
        if callable(on_spent):
            self._reacts_in = threading.get_ident()
            try:
                more = on_spent(self._recorder.run_face(self._run), error)
            finally:
                self._reacts_in = None
        if type(more) is Budget and error.limit in amounts_of(more):
            self.allow(amounts_of(more), source="code")
        else:
            self._raise({error.limit: MOST})

    def _say(self, error: BudgetExceeded) -> None:
        """Record, and log, that a limit is spent: once until somebody allows more."""
        if error.limit in self._noted:
            return
        self._noted.add(error.limit)
        self._note(SPENT, error.reason)
        if self.budget.on_spent == "pause":
            log.warning("%s; it is paused: `agentspan run allow %s` lets it go on", error, error.run_id)
        elif self.budget.on_spent == "warn":
            log.warning("%s; it goes on", error)

    def _note(self, label: str, text: str, *, source: Source = "code", identifier: str | None = None) -> None:
        """Record a score of the run that has the budget."""
        recorder = self._recorder
        with recorder.faults.adding(reraise=False):
            if self.id and recorder.enabled and self._run.registered_row is not None:
                judged = judgement(NAME, label=label, explanation=text, source=source, identifier=identifier)
                row = score_row(recorder.ids.new(), self.id, "agent_instance", self.id, judged, clock.now())
                self._heard.add(row.id)
                recorder.out.write(unit_of(Put(row, minted=True)))

    def allow(self, amounts: Mapping[str, float], *, source: Source, by: str | None = None) -> None:
        """Allow more, and record who did."""
        self._note(ALLOWED, amounts_text(amounts), source=source, identifier=by)
        self._raise(amounts)

    def _raise(self, amounts: Mapping[str, float]) -> None:
        """Raise limits by these amounts."""
        with self._lock:
            for name, amount in amounts.items():
                self.most[name] += amount
                self._noted.discard(name)
                if name == "steps":
                    self.steps_left += amount
                elif name == "minutes" and self.ends_ns is not None:
                    self.ends_ns += int(amount * 60e9)
            self.raises += 1
            self.stopped = None
            self._settle()

    def hear(self) -> bool:
        """Read what other processes allowed, and whether the run was terminated; at most ten times a second.

        Returns:
            whether something was allowed.

        Raises:
            BudgetExceeded: the run was terminated while it waits.
        """
        now_ns = clock.monotonic_ns()
        if now_ns < self._next_hear_ns or self._run.registered_row is None:
            return False
        recorder, found = self._recorder, False
        with recorder.faults.adding(reraise=False):
            storage = recorder.in_time()
            rows = self._events(storage)
            if self._waiting:
                self._learn(storage.ask(Find(self._run.id, instance_id=self._run.id)).terminated)
            found = self._take_in(rows)
        self._next_hear_ns = clock.monotonic_ns() + self._look_ns
        reason = self._run.termination_reason
        if self._waiting and reason is not None and self._run.on_terminate != "raise":
            self._run.tell()
            raise BudgetExceeded(self.id, "terminated", f"it was terminated while it was paused: {reason}")
        return found or reason is not None

    def _learn(self, terminations: Mapping[str, str]) -> None:
        if self._run.id in terminations:
            self._run.learn(terminations[self._run.id])
            self._raise(dict.fromkeys(LIMITS, MOST))  # the step begins, and raises AgentTerminated

    def _events(self, storage: Any) -> list[ScoreRow]:
        return list(storage.ask(Query("score", {"agent_instance_id": self.id, "name": NAME})).rows)

    def _take_in(self, rows: Iterable[ScoreRow]) -> bool:
        amounts: dict[str, float] = {}
        with self._lock:
            for row in rows:
                if row.id not in self._heard:
                    self._heard.add(row.id)
                    if row.label == PART and row.identifier:
                        self._parts.add(row.identifier)
                    elif row.label in (ALLOWED, PAUSED):
                        for name, amount in parse_amounts(row.explanation or "").items():
                            amounts[name] = amounts.get(name, 0) + amount
            if amounts:
                self._raise(amounts)
        return bool(amounts)

    def ask(self, spent: BudgetExceeded) -> None:
        """Ask in the terminal whether the run may go on, or read an answer that has come.

        Raises:
            BudgetExceeded: the answer is no.
        """
        answer = terminal.answer(spent)
        if answer is None:
            return
        if not answer:
            stopped = spent.run_id, spent.limit, f"{spent.reason} (a person stopped it)"
            self.stopped = BudgetExceeded(*stopped)
            raise BudgetExceeded(*stopped)
        name = spent.limit
        more = amounts_of(self.budget).get(name, 1) if answer is True else answer
        self.allow({name: more}, source="human", by=user())

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Mark that a step waits, so that the minutes of the run do not go on."""
        with self._lock:
            self._waiting += 1
            if self._waiting == 1:
                self._waits_since_ns = clock.monotonic_ns()
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                if not self._waiting:
                    waited_ns, self._waits_since_ns = clock.monotonic_ns() - self._waits_since_ns, 0
                    if self.ends_ns is not None and waited_ns > 0:
                        self.ends_ns += waited_ns
                        self.most["minutes"] += waited_ns / 60e9
                        if waited_ns > self._look_ns:
                            self._note(PAUSED, amounts_text({"minutes": waited_ns / 60e9}))

    def spend(self, span: Any, result: str | None) -> None:
        """Add the usage of a span that ends. Never raises.

        Args:
            span: the span, with its status and its captured payload.
            result: its captured result, as JSON text.
        """
        name = span.schema_name
        is_model = name not in self.plain and span.span_type.label_field == "model"
        if not is_model:
            self.plain.add(name)
        if is_model or has_usage(result) or has_usage(span.payload):
            with self._recorder.faults.adding(reraise=False):
                self._add(self._used(span, result, is_model=is_model))

    def _used(self, span: Any, result: str | None, *, is_model: bool) -> Used:
        sent = span.payload
        # Without the elements of its lists, which hold no usage.
        text = b"[]".join(sent.around).decode() if type(sent) is Parts else sent
        answer = None if result is None else read_payload(result)[0]
        tokens_in, tokens_out, usd = usage_of(span.span_type, read_payload(text)[0], answer)
        if tokens_in is None and tokens_out is None and usd is None:
            if not is_model or span.status != "complete":
                return Used()
            text = sent.text() if type(sent) is Parts else sent
            tokens_in, tokens_out = whole_size(text) // CHARACTERS, whole_size(result or "") // CHARACTERS
            self._warn(span.schema_name, "reports no tokens; they are estimated by its texts")
        tokens = (tokens_in or 0) + (tokens_out or 0)
        if usd is not None:
            return Used(tokens, usd)
        if self.budget.usd is not None and is_model:
            dearest = f"${prices.ESTIMATED_IN:g} in and ${prices.ESTIMATED_OUT:g} out"
            self._warn(span.schema_name, f"has no known price; {dearest} are assumed for a million tokens")
        about = prices.estimate(tokens_in, tokens_out)
        return Used(tokens, about, about)

    def _warn(self, schema_name: str, what: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            log.warning("budget of run %s: a call of type %s %s", self.id, schema_name, what)

    def _add(self, used: Used) -> None:
        self._plus(used)
        self._share()
        if self.above is not None:
            self.above._add(used)

    def _plus(self, used: Used) -> None:
        self.tokens += used.tokens
        self.usd += used.usd
        self.estimated += used.estimated
        if self.usd >= self.most["usd"] or self.tokens >= self.most["tokens"]:
            self._has_room = self.is_open = False

    def _read(self) -> None:
        """Read the limits and the sums of a run that began in another process. It may have died with its journal."""
        if clock.monotonic_ns() < self._next_look_ns:  # the storage failed a moment ago
            return
        self._next_look_ns = clock.monotonic_ns() + RETRY_NS
        recorder = self._recorder
        with recorder.faults.adding(reraise=False), self._lock:
            storage = recorder.destination.storage  # reads journals, also those of dead programs
            row = storage.ask(Find(self.id, instance_id=self.id)).rows.get(self.id, (None, None))[1]
            if not self._is_unread:
                return
            if isinstance(row, AgentInstanceRow):
                stored = stored_in(row.metadata)
                budget = self.budget if stored is None else stored.budget or _NO_LIMIT
                started_at = row.started_at or row.inserted_at
                self._begin(budget, max(0, int(clock.millis_between(started_at, clock.now()) * 1e6)))
                self._take_in(self._events(storage))
                self._count_others(storage)
            self._is_unread = False
            self._settle()

    def look(self) -> None:
        """Count the steps of other processes that have come into the storage, if it is time."""
        began_ns = clock.monotonic_ns()
        if began_ns < self._next_look_ns or self._is_unread or self._run.registered_row is None:
            return
        self._next_look_ns = began_ns + self._look_ns
        if not self._lock.acquire(blocking=False):
            return
        try:
            with guard():  # the storage is busy: the next look finds it
                self._take_in(self._events(self._recorder.store))
                self._count_others(self._recorder.store)
            if self._looks_here and self._has_looker:
                self._looks_here = False
                self._settle()
        finally:
            self._lock.release()
        took_ns = clock.monotonic_ns() - began_ns
        self._next_look_ns = began_ns + max(self._look_ns, int(took_ns / LOOK_SHARE))

    def _count_others(self, storage: Any) -> None:
        now_ns = clock.wall_ns()
        mine, others, counted = self._recorder.writer_id, self._others, self._counted
        for run_id in (self.id, *self._parts):
            for row in outlines_of(storage, run_id, since=self._since or None, bare=True):
                writer = row.writer_id
                if writer == mine or (writer in counted and row.id <= counted[writer]) or row.status == "pending":
                    continue
                if self._kin is not None and writer is not None and self._kin.has(writer):
                    continue
                if row.id not in others:
                    others[row.id] = False
                    if row.status != "cancelled":
                        self._take_foreign(1, 0, 0, 0)
                if not others[row.id] and row.status != "active":
                    others[row.id] = True
                    used = used_of_row(row)  # a run around this one reads it itself: this one is a part of it
                    self._take_foreign(0, used.usd, used.tokens, used.estimated)
        self._since = clock.to_text(now_ns - int(OVERLAP_S * 1e9))


_NO_LIMIT = Budget(steps=int(MOST), on_spent="warn")


def _is_in_loop() -> bool:
    """Return whether this thread runs an event loop of asyncio, which must not be blocked."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except (AttributeError, RuntimeError):  # another thread imports it just now, so no loop runs in this one
        return False
    return True
