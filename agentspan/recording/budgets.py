"""Budgets: the most that a run may use, as programs, people and the metadata of a run write it.

The limits are in the metadata of the run (`budget`). Scores of the name `budget` record events of these limits:
`spent`, `allowed` (somebody allowed more), `paused` (minutes that do not count), `part` (a run inside of it). Any
process adds them, so that no process overwrites what another one has written. The module recording.spending counts.
"""

import mmap
import os
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from inspect import iscoroutinefunction
from math import inf, isfinite
from typing import Any, Literal, NamedTuple, Self

from agentspan.errors import BudgetExceeded, InvalidValue
from agentspan.host import guard, is_readable, log
from agentspan.journal.records import Parts
from agentspan.model.columns import read_payload
from agentspan.model.rows import AgentSpanRow
from agentspan.recording.capture.values import TRUNCATED
from agentspan.schemas import prices
from agentspan.schemas.aliases import cost, count
from agentspan.text import cost_text, cut

ENVIRONMENT = "AGENTSPAN_BUDGET"
"""The variable with the budget of a program whose `configure` sets none, such as `usd=5,steps=200`."""
NAME = "budget"
"""The member of a run's metadata with the limits, and the name of the scores that record their events."""
SPENT, ALLOWED, PAUSED, PART = "spent", "allowed", "paused", "part"
"""The labels of these scores. The explanation of `allowed` and `paused` has amounts: `usd +2, steps +50`."""

OnSpent = Literal["raise", "warn", "pause"] | Callable[[Any, BudgetExceeded], "Budget | None"]
LIMITS = ("usd", "steps", "minutes", "tokens", "repeats")
_WHOLE = frozenset({"steps", "tokens", "repeats"})
MOST = 1e15


class _Fields(NamedTuple):
    usd: float | None
    steps: int | None
    minutes: float | None
    tokens: int | None
    repeats: int | None
    on_spent: OnSpent


class Budget(_Fields):
    """The most that one run, with the runs inside of it, may use. A step that begins after that is stopped.

    Pass it as `budget` to `agentspan.run`, or to `agentspan.configure` for each run without one of its own.

    Args:
        usd: US dollars. The cost of a call without a price is estimated.
        steps: spans.
        minutes: minutes since the begin of the run. Pauses do not count.
        tokens: input and output tokens.
        repeats: calls of the same span type with the same payload.
        on_spent: "raise": raise BudgetExceeded in place of each further step. "warn": log a warning, once, and go on.
            "pause": wait until somebody allows more: in the terminal, by `agentspan run allow`, or in the viewer; a run
            of the purpose `eval` waits only where the program has a terminal, and raises elsewhere. A function: call it
            with the run and the BudgetExceeded, once for each limit; the step begins when it returns. A Budget that it
            returns is allowed in addition, else this limit ends. An exception of it is raised.

    Raises:
        InvalidValue: no limit, a limit that is not a positive number, or an unknown `on_spent`.
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        usd: float | None = None,
        steps: int | None = None,
        minutes: float | None = None,
        tokens: int | None = None,
        repeats: int | None = None,
        on_spent: OnSpent = "raise",
    ) -> Self:
        """Check the limits."""
        values = usd, steps, minutes, tokens, repeats
        if all(value is None for value in values):
            raise InvalidValue("budget", f"needs a limit: one of {', '.join(LIMITS)}")
        for name, value in zip(LIMITS, values, strict=True):
            if value is not None:
                check_amount(name, value)
        is_name = type(on_spent) is str and on_spent in ("raise", "warn", "pause")
        is_async = iscoroutinefunction(on_spent) or iscoroutinefunction(getattr(on_spent, "__call__", None))  # noqa: B004
        if not is_name and (not callable(on_spent) or is_async):
            raise InvalidValue(
                "on_spent", 'must be "raise", "warn", "pause", or a function of run and error, not async'
            )
        return super().__new__(cls, *values, on_spent)

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process, a function is replaced by "raise"."""
        return _budget, ({**self._asdict(), "on_spent": "raise" if callable(self.on_spent) else self.on_spent},)


def amounts_of(budget: Budget) -> dict[str, float]:
    """Return the limits that are set, by name."""
    values = budget.usd, budget.steps, budget.minutes, budget.tokens, budget.repeats
    return {name: value for name, value in zip(LIMITS, values, strict=True) if value is not None}


def plain_of(budget: Budget) -> dict[str, Any]:
    """Return a budget as the JSON object that a run's metadata has."""
    return {**amounts_of(budget), "on_spent": "function" if callable(budget.on_spent) else budget.on_spent}


def _budget(fields: dict[str, Any]) -> Budget:
    return Budget(**fields)


def check_amount(name: str, value: Any) -> None:
    """Check an amount of a limit.

    Raises:
        InvalidValue: it is not a finite number above 0, or has a fraction though the limit counts whole things.
    """
    is_number = type(value) is int or (type(value) is float and isfinite(value))
    if not is_number or not 0 < value <= MOST or (name in _WHOLE and value != int(value)):
        kind = "a whole number" if name in _WHOLE else "a number"
        raise InvalidValue(name, f"must be {kind} above 0")


def parse(text: str) -> Budget:
    """Parse a budget as a person writes it: `usd=5,steps=200,on_spent=pause`.

    Raises:
        InvalidValue: a limit is unknown, stands twice, or has no usable amount.
    """
    fields: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (each.strip() for each in part.partition("="))
        if not equals or name not in (*LIMITS, "on_spent"):
            known = ", ".join((*LIMITS, "on_spent"))
            raise InvalidValue("budget", f"has no limit {cut(name, 50)!r}; write NAME=AMOUNT, with a name of {known}")
        if name in fields:
            raise InvalidValue("budget", f"has {name} twice")
        fields[name] = value if name == "on_spent" else number_of(name, value)
    return Budget(**fields)


def parse_amounts(text: str) -> dict[str, float]:
    """Parse amounts that were allowed, such as `usd +2, steps +50`; ignore what cannot be read."""
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, amount = part.strip().partition(" ")
        with guard(InvalidValue):
            if name in LIMITS:
                found[name] = found.get(name, 0) + number_of(name, amount)
    return found


def more_of(metadata: str | None, amounts: Mapping[str, float]) -> str:
    """Return the explanation of a score that allows a run more.

    Args:
        metadata: the metadata of the run.
        amounts: the amounts, by limit; without any, as much again as each limit of the budget.

    Raises:
        InvalidValue: the run has no budget, or none with such a limit, or an amount is not usable.
    """
    stored = stored_in(metadata)
    if stored is not None and stored.of is not None:
        raise InvalidValue("run", f"the run counts in the budget of run {stored.of}: allow that one more")
    if stored is None or stored.budget is None:
        raise InvalidValue("run", "the run has no budget")
    limits = amounts_of(stored.budget)
    for name, amount in amounts.items():
        if name not in limits:
            raise InvalidValue(name, f"the budget has no such limit; it has {', '.join(limits)}")
        check_amount(name, amount)
    return amounts_text(amounts or limits)


def amounts_text(amounts: Mapping[str, float]) -> str:
    """Return amounts as `parse_amounts` reads them."""
    return ", ".join(f"{name} +{amount:.12g}" for name, amount in amounts.items())


def number_of(name: str, text: str) -> float:
    """Parse an amount of a limit, which may begin with `+`.

    Raises:
        InvalidValue: see check_amount.
    """
    try:
        number = float(text.strip().lstrip("+"))
    except ValueError:
        number = inf
    value: float = int(number) if isfinite(number) and name in _WHOLE and number == int(number) else number
    check_amount(name, value)
    return value


def from_environment() -> Budget | None:
    """Return the budget of AGENTSPAN_BUDGET; None without one. Log a warning about one that cannot be used."""
    text = os.environ.get(ENVIRONMENT, "")
    try:
        return parse(text) if text.strip() else None
    except InvalidValue as error:
        log.warning("%s is not used: %s", ENVIRONMENT, error)
        return None


class Stored(NamedTuple):
    """The budget in the metadata of a run.

    Attributes:
        budget: the limits; None in a run inside of a run with a budget.
        of: the id of the run that has the budget, in a run inside of it; else None.
        has_function: whether `on_spent` was a function, which other processes cannot call.
    """

    budget: Budget | None
    of: str | None = None
    has_function: bool = False


def stored_in(metadata: str | None) -> Stored | None:
    """Return the budget in the metadata of a run; None without one, or if it cannot be read."""
    if metadata is None or f'"{NAME}"' not in metadata:
        return None
    found = read_payload(metadata)[0]
    plain = found.get(NAME) if type(found) is dict else None
    if type(plain) is not dict:
        return None
    if type(plain.get("of")) is str:
        return Stored(None, plain["of"])
    on_spent = plain.get("on_spent")
    try:
        limits = {name: plain[name] for name in LIMITS if name in plain}
        budget = Budget(**limits, on_spent=on_spent if on_spent in ("warn", "pause") else "raise")
        return Stored(budget, has_function=on_spent == "function")
    except InvalidValue:
        return None


def amount_text(name: str, amount: float) -> str:
    """Return an amount of a limit for people, such as `$5.02` or `200`."""
    if name == "usd":
        return f"${amount:,.2f}" if amount >= 0.1 else cost_text(amount)
    return f"{amount:,.1f}" if name == "minutes" else f"{amount:,.0f}"


def has_usage(text: str | Parts | None) -> bool:
    """Return whether a captured payload may hold usage: each name of one has a part of these."""
    if type(text) is Parts:
        return any(b"oken" in each or b"cost_usd" in each for each in text.around)
    return text is not None and ("oken" in text or "cost_usd" in text)


def whole_size(text: str) -> int:
    """Return the characters of a captured payload, with those that its limits cut (see Limits)."""
    return _size(read_payload(text)[0]) if TRUNCATED in text else len(text)


def _size(value: Any) -> int:
    if type(value) is not dict and type(value) is not list:
        return len(str(value))
    members = [*value.values()] if type(value) is dict else value
    sizes = [_size(each) for each in members]
    last = value if type(value) is dict else members[-1] if members else None
    mark = last.get(TRUNCATED) if type(last) is dict else None
    if type(mark) is not dict:
        return sum(sizes)
    found = {name: count(mark.get(name)) or 0 for name in ("bytes", "characters", "items")}
    whole = sum(sizes) + (0 if type(value) is list else found["bytes"] + found["characters"])
    return whole + found["items"] * whole // len(sizes)  # members that were left out are as long as the others


class Used(NamedTuple):
    """The tokens and the cost of a span.

    Attributes:
        usd: US dollars.
        estimated: the part of `usd` that was estimated, because the call has no known price.
    """

    tokens: int = 0
    usd: float = 0.0
    estimated: float = 0.0


def used_of_row(row: AgentSpanRow) -> Used:
    """Return the usage of a stored span. If the span has tokens and no price, its cost is estimated."""
    if row.is_aggregate or (row.input_tokens is None and row.output_tokens is None and row.cost_usd is None):
        return Used()
    tokens_in, tokens_out = count(row.input_tokens) or 0, count(row.output_tokens) or 0  # a file may hold anything
    tokens, usd = tokens_in + tokens_out, cost(row.cost_usd)
    if usd is not None:
        return Used(tokens, usd)
    about = prices.estimate(tokens_in, tokens_out)
    return Used(tokens, about, about)


def user() -> str | None:
    """Return the name of the user of this process, who allows more; None if it has none."""
    import getpass  # for the one who allows more only

    with guard():
        return getpass.getuser()
    return None


class _Terminal:
    """The question in the terminal. One step asks at a time; the others wait for its answer."""

    def __init__(self) -> None:
        self._asked = ""
        self._is_over = False
        self._lock = threading.Lock()

    def answer(self, spent: BudgetExceeded) -> bool | float | None:
        """Ask once; return the answer as soon as it has come.

        Returns:
            None without an answer; False for no; True for as much again; else the amount.
        """
        if self._is_over or not is_in_front() or not self._lock.acquire(blocking=False):
            return None
        try:
            question = f"{spent.run_id} {spent.limit}"
            if self._asked != question:
                self._asked = question
                sys.stderr.write(f"agentspan: {spent}\nAllow more? [y: as much again, a number: so much, n: stop] ")
                sys.stderr.flush()
            if not is_readable(sys.stdin):
                return None
            line = sys.stdin.readline()
            self._asked = ""  # any other text is asked again
            text = line.strip().lower()
            self._is_over = not line  # the end of the input: `agentspan run allow` only
            if text in ("y", "yes"):
                return True
            if text in ("n", "no"):
                return False
            with guard(InvalidValue):
                return number_of(spent.limit, text) if text else None
            return None
        except (OSError, ValueError):  # stdin or stderr is closed
            self._is_over = True
            return None
        finally:
            self._lock.release()


terminal = _Terminal()


def is_in_front() -> bool:
    """Return whether a person sees stderr and types into stdin: the process is in the foreground of a terminal."""
    try:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False


PLACES = 128
"""The number of processes that may share at one time. Further ones are counted by the file."""
_WRITERS, _PROBES = 8192, 64
_COLUMN = struct.Struct(f"{PLACES}d")
FIELDS = 4
"""The number of sums of a place."""


class Kin:
    """The sums of a budget that a process shares with its forked children, in memory that they inherit.

    Each process writes to a place of its own, without a lock. A place that a killed process leaves keeps its sums.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * ((FIELDS + 1) * PLACES + _WRITERS))
        numbers = memoryview(self._memory)
        self._sums = numbers[: _COLUMN.size * (FIELDS + 1)].cast("d")  # each number is stored in one instruction
        self._writers = numbers[_COLUMN.size * (FIELDS + 1) :].cast("q")

    def place(self) -> int | None:
        """Return a place for this process: a new one, or that of a dead process; None if all are taken."""
        pid = os.getpid()
        for each in range(pid, pid + PLACES):  # two processes begin to look at different places
            place = each % PLACES
            owner = int(self._sums[place])
            if owner in (0, pid) or not _is_alive(owner):
                self._sums[place] = pid
                return place
        return None

    def has_place(self, place: int, pid: int) -> bool:
        """Return whether a place is that of a process."""
        return self._sums[place] == pid

    def of(self, place: int) -> list[float]:
        """Return the sums of a place."""
        return [self._sums[field * PLACES + place] for field in range(1, FIELDS + 1)]

    def write(self, place: int, sums: list[float]) -> None:
        """Write the sums of this process's place."""
        at = PLACES + place
        for each in sums:
            self._sums[at] = each
            at += PLACES

    def all(self) -> list[float]:
        """Return the sums of all places (3 µs)."""
        return [sum(_COLUMN.unpack_from(self._memory, field * _COLUMN.size)) for field in range(1, FIELDS + 1)]

    def has(self, writer_id: str) -> bool:
        """Return whether a writer is one of these processes."""
        return self._writers[self._entry(writer_id)] == hash(writer_id)

    def mark(self, writer_id: str) -> None:
        """Add a writer, whose steps are counted here and not by the file."""
        self._writers[self._entry(writer_id)] = hash(writer_id)

    def _entry(self, writer_id: str) -> int:
        """Return the entry of a writer, or a free one for it. All forked processes have the same `hash`."""
        mark = hash(writer_id)
        for entry in range(mark, mark + _PROBES):
            if self._writers[entry % _WRITERS] in (0, mark):
                break
        return entry % _WRITERS


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
