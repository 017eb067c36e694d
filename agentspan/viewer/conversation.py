"""The conversation of a run: the messages of its llm, tool and message spans, thread by thread, in order of time.

Every call sends the whole conversation to the model again. A message that equals a turn of the thread is not shown
again: the call only lists the numbers of such turns. A message that differs is shown and marked. Likewise the tool
calls of a model, and the answers sent to it, are compared with the steps of the tools.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TypedDict

from agentspan import clock, jsontext
from agentspan.analysis import messages, tree
from agentspan.analysis.calls import files_of, shown_call
from agentspan.analysis.costs import chapters_of
from agentspan.analysis.messages import Call, Message
from agentspan.blobs import Blob, pictures_in, replaced
from agentspan.model.changes import OPEN
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SpansOf, SpanSums
from agentspan.storage.row_by_row import has_failed
from agentspan.viewer import turns
from agentspan.viewer.turns import MAX_TEXT, Opening, Step, Thread, Threads, Turn, TurnCall, in_order, kind_of, start_of


def of_span(span: AgentSpanRow) -> list[dict[str, Any]]:
    """Return the messages of a span: of an llm span those sent and answered, of a message span its own; else none."""
    kind = kind_of(span.schema_name)
    if kind == "message":
        return [dict(message) for message in messages.spoken(span)]
    if kind != "llm":
        return []
    result = jsontext.value_of(span.result_payload)
    answered = messages.answered(result) if isinstance(result, dict) else []
    sent = [message for message, _ in messages.sent(jsontext.value_of(span.payload))]
    return [{**message, "side": "in"} for message in sent] + [{**message, "side": "out"} for message in answered]


def linked(span: AgentSpanRow) -> AgentSpanRow:
    """Return a span whose base64 data, small images included, is replaced by texts: `[image/png, 3.0 MB, SHA-256]`."""
    payload = _linked(span.payload)
    result = None if span.result_payload is None else _linked(span.result_payload)
    if payload is span.payload and result is span.result_payload:
        return span
    return span._replace(payload=payload, result_payload=result)


def blobs_of(span: AgentSpanRow) -> Iterator[tuple[str, Blob]]:
    """Yield the blobs and small images in a span's payload and result, with the hexadecimal SHA-256 of their bytes."""
    for text in (span.payload, span.result_payload or ""):
        for blob in pictures_in(text):
            yield sha256(blob.data).hexdigest(), blob


def _linked(text: str) -> str:
    return replaced(text, lambda blob: f"[{blob.description}, {sha256(blob.data).hexdigest()}]", found_in=pictures_in)


_KEPT = frozenset({"agent", "llm", "message", "tool"})
_SHOWN = frozenset({"llm", "message", "tool"})
_WORDS = frozenset({"thinking", "reasoning", "refusal", "finish_reason", "stop_reason"})


MOST_BYTES = 96 * 2**20
"""The number of characters of payloads after which no further span is read for a conversation."""
MOST_STEPS = 30_000
"""The number of llm, tool and message spans after which no further payload is read."""
MOST_TURNS = 30_000
"""The number of turns after which no further one is made. A turn takes 1 to 2 kB of memory."""


class Section(TypedDict):
    """An agent's part of a conversation, with those of the agents in it. Its turns follow each other.

    Attributes:
        id: the id of its thread (see Turn).
        parent: the id of the section in which this one stands; None for the outermost.
        name: the name of the agent; None outside any agent.
        first: the index of its first turn, or of that of a section in it.
        turns: the number of turns, with those of the sections in it. The other figures include these sections, too.
        tokens: the tokens of its spans, input and output; None if none is known.
        cost_usd: the cost of its spans in USD; None if none is known.
        duration_ms: the time from the begin of its first span to the end of the last one.
    """

    id: str
    parent: str | None
    name: str | None
    first: int
    turns: int
    tokens: int | None
    cost_usd: float | None
    duration_ms: float


class Conversation(NamedTuple):
    """The conversation of a run.

    Attributes:
        turns: the turns in order.
        sections: the sections that they are in, by the id of the section.
        chapters: the prompts of the session of a coding agent (see costs.Chapter), each with `turn`, the index of its
            first turn.
        files: the files that it edited (see calls.File).
    """

    turns: list[Turn]
    sections: dict[str, Section]
    chapters: Sequence[dict[str, Any]] = ()
    files: Sequence[dict[str, Any]] = ()

    def place_of(self, span: AgentSpanRow) -> int | None:
        """Return the index of the turn that shows a span, else of the first turn that began later; None without turns.

        The turn of an llm span is its answer, else the first step that it asked for.
        """
        own = [at for at, turn in enumerate(self.turns) if turn["span"] == span.id]
        if own:
            return next((at for at in own if self.turns[at]["side"] == "out"), own[-1])
        asked = (at for at, turn in enumerate(self.turns) if turn["asked_by"] == span.id)
        later = (at for at, turn in enumerate(self.turns) if turn["at"] >= start_of(span))
        return next(asked, next(later, len(self.turns) - 1 if self.turns else None))


def stored(storage: Storage, run: AgentInstanceRow) -> Conversation:
    """Return the conversation of a stored run. The spans beyond the limits are counted, not read."""

    def count() -> int:
        return sum(each.spans for each in storage.ask(SpanSums(run.id)) if kind_of(each.schema_name) in _KEPT)

    return of_run(storage.ask(SpansOf(run.id)), count, is_session=tree.is_session(run))


def of_run(
    spans: Iterable[AgentSpanRow],
    count: Callable[[], int] | None = None,
    *,
    most_bytes: int = MOST_BYTES,
    most_steps: int = MOST_STEPS,
    most_turns: int = MOST_TURNS,
    is_session: bool = False,
) -> Conversation:
    """Return the conversation of a run. Payloads of span types without turns are not kept in memory.

    If a run exceeds the limits, only its first spans are read, and the last turn contains the number of the others.

    Args:
        count: returns the number of agent, llm, message and tool spans of the run, in place of reading them all.
        is_session: whether the run is the session of a coding agent (see messages.with_arguments).
    """
    kept: list[AgentSpanRow] = []
    missing = read = 0
    for span in spans:
        kind = kind_of(span.schema_name)
        if kind not in _KEPT:
            kept.append(span._replace(payload="{}"))
        elif most_bytes < 0 or most_steps <= 0:
            if count is not None:
                missing = max(0, count() - read)
                break
            missing += 1
        else:
            kept.append(linked(span))
            most_bytes -= len(kept[-1].payload) + len(kept[-1].result_payload or "")
            most_steps -= kind in _SHOWN
            read += 1
        del span
    reader = _Reader(sorted(kept, key=lambda span: (start_of(span), span.id)), most_turns, is_session)
    found = reader.ordered()
    missing += reader.missing
    sections, own, chapters = reader.sections(), dict[str, int](), list[dict[str, Any]]()
    for number, turn in enumerate(found):
        own.setdefault(turn["span"], number)
        around: str | None = turn["thread"]
        while around is not None and sections[around]["first"] < 0:
            sections[around]["first"] = number
            around = sections[around]["parent"]
    for each in chapters_of(kept) if found and is_session else ():
        later = (number for number, turn in enumerate(found) if turn["at"] >= each.at)
        at = own[each.span_id] if each.span_id in own else next(later, len(found) - 1)
        chapters.append({**each._asdict(), "turn": at})
    files = [each._asdict() for each in (files_of(kept) if is_session else ())]
    return Conversation([*found, _end(found[-1], missing)] if missing and found else found, sections, chapters, files)


def _end(last: Turn, missing: int) -> Turn:
    """Return the last turn of a truncated conversation, with the number of steps that are not shown."""
    noun = "step is" if missing == 1 else "steps are"
    text = f"The conversation is too large to be shown whole: {missing:,} more {noun} in the tree."
    return {**last, **_blank(), "side": "", "role": "agentspan", "text": text, "length": len(text), "name": None}


def _blank() -> Any:
    """Return the members of a turn that only some turns have."""
    several: dict[str, Any] = {name: [] for name in ("calls", "others", "again", "differs")}
    return several | dict.fromkeys(("arguments", "asked_by", "error", "shown"))


@dataclass(slots=True)
class _ThreadState:
    """The turns of a thread so far, with indexes to find repeated messages.

    Attributes:
        turns: the turns of the thread.
        shown: the turns that show a message, by the key of the message.
        system: the turns that show the system prompt of the latest call, by message key.
        settings: the latest settings of models, such as tools, by name.
        spoken: the turns of message spans, by message key.
    """

    turns: list[Turn] = field(default_factory=list)
    shown: dict[tuple[str, ...], list[Turn]] = field(default_factory=lambda: defaultdict(list))
    system: dict[tuple[str, ...], Turn] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    spoken: dict[tuple[str, ...], Turn] = field(default_factory=dict)


class _Call(NamedTuple):
    """A tool call in a turn, the turn of the tool step that executed it, and whether both are equal."""

    shown: TurnCall
    turn: Turn | None
    is_equal: bool | None


class _Reader:
    """Converts spans, which must be read in order, to turns.

    Attributes:
        missing: the number of spans that were not read, or only in part, because there were too many turns.
    """

    def __init__(self, spans: list[AgentSpanRow], most_turns: int, is_session: bool) -> None:
        self.missing = 0
        self._is_session = is_session
        self._most = most_turns
        self._spans = spans
        self._threads = Threads(spans, _opening)
        self._threads_so_far: dict[Thread, _ThreadState] = defaultdict(_ThreadState)
        self._number = 0
        self._tools: dict[str, tuple[Step, Turn]] = {}
        self._of_call: dict[str, list[AgentSpanRow]] = defaultdict(list)
        self._steps_in: dict[tuple[str, Thread], list[Step]] = {}
        self._by_answer: dict[tuple[str, Thread, str], Step] = {}
        self._claimed: set[str] = set()
        self._known: messages.Known = {}
        self._names: dict[tuple[Thread, str], str] = {}
        # References between turns: turns get their numbers only at the end.
        self._again: list[tuple[Turn, list[Turn]]] = []
        self._differing: list[tuple[Turn, Turn]] = []
        self._done_by: list[tuple[TurnCall, Literal["same", "differs"], Turn]] = []
        for span in spans:
            call_id = turns.call_id_of(span) if kind_of(span.schema_name) == "tool" else None
            if call_id is not None:
                self._of_call[call_id].append(span)
        self._used = messages.arguments_by_call(one for spans_of in self._of_call.values() for one in spans_of)
        for span in spans:
            kind = kind_of(span.schema_name)
            if kind in _SHOWN and self._number >= most_turns:
                self.missing += 1
                continue
            match kind:
                case "message":
                    self._read_message(span)
                case "llm":
                    self._read_llm(span)
                case "tool":
                    self._add(self._tool(span)[1], self._threads.of(span))

    def ordered(self) -> list[Turn]:
        """Return all turns in order, with references to other turns replaced by their numbers."""
        items: dict[Thread, list[tuple[str, int]]] = {}
        for thread, so_far in self._threads_so_far.items():
            if so_far.turns:
                items[thread] = [(turn["at"], number) for number, turn in enumerate(so_far.turns)]
        ordered = [self._threads_so_far[thread].turns[number] for thread, number in in_order(items)]
        numbers = {id(turn): number for number, turn in enumerate(ordered, 1)}
        # The turn of a tool has none if the conversation was truncated before it.
        for turn, again in self._again:
            turn["again"] = _ranges({numbers[id(one)] for one in again if id(one) in numbers})
        for turn, other in self._differing:
            if id(other) in numbers:
                turn["differs"] = sorted({*turn["differs"], numbers[id(other)]})
        for call, how, turn in self._done_by:
            call[how] = numbers.get(id(turn))
        return ordered

    def sections(self) -> dict[str, Section]:
        """Return the sections that have turns, and those around them, by id."""
        found: dict[str, Section] = {}
        times: dict[str, tuple[str, str]] = {}
        for thread, so_far in self._threads_so_far.items():
            for each in _and_around(thread) if so_far.turns else ():
                section = found.setdefault(each.id, _section(each))
                section["turns"] += len(so_far.turns)
        for span in self._spans:
            if kind_of(span.schema_name) == "agent":
                continue  # repeats the figures of the spans in it
            start, end = start_of(span), span.finished_at or span.updated_at
            tokens = [each for each in (span.input_tokens, span.output_tokens) if each is not None]
            for section in (found[each.id] for each in _and_around(self._threads.of(span)) if each.id in found):
                first, last = times.get(section["id"], (start, end))
                times[section["id"]] = min(first, start), max(last, end)
                if tokens and not span.is_aggregate:
                    section["tokens"] = (section["tokens"] or 0) + sum(tokens)
                if span.cost_usd is not None and not span.is_aggregate:
                    section["cost_usd"] = (section["cost_usd"] or 0.0) + span.cost_usd
        for id, (first, last) in times.items():
            found[id]["duration_ms"] = clock.millis_between(first, last)
        return found

    def _tool(self, span: AgentSpanRow) -> tuple[Step, Turn]:
        """Return a decoded tool span and its turn, which calls and answers that were read before are compared with."""
        if (known := self._tools.get(span.id)) is not None:
            return known
        step = turns.step_of(span)
        turn = self._turn(span, "tool", step.text, start_of(span), name=step.name, error=step.error)
        if has_failed(span):
            turn["status"] = "failed"
        turn["arguments"] = None if step.arguments is None else turns.arguments_of(step.arguments)
        turn["others"] = step.others
        if self._is_session:
            turn["shown"] = (shown := shown_call(step.name, step.arguments))._asdict()
            turn["arguments"] = None if shown.lines else turn["arguments"]
        self._tools[span.id] = step, turn
        return step, turn

    def _read_message(self, span: AgentSpanRow) -> None:
        so_far = self._threads_so_far[self._threads.of(span)]
        result = jsontext.value_of(span.result_payload)
        for message in messages.spoken(span):
            turn = self._say(span, message, start_of(span), "")
            if isinstance(result, dict):
                turn["others"] = turn["others"] + messages.rest(result, {"error"})
            turn["error"], more = turns.error_parts(result, span.status)
            turn["others"] = turn["others"] + more
            so_far.spoken[messages.key_of(message)] = turn

    def _read_llm(self, span: AgentSpanRow) -> None:
        thread = self._threads.of(span)
        so_far = self._threads_so_far[thread]
        payload, result = jsontext.value_of(span.payload), jsontext.value_of(span.result_payload)
        again = list(self._read_sent(span, messages.sent(payload, self._known), thread, so_far))
        ended = span.finished_at or span.updated_at
        answers: list[Turn] = []
        quiet: list[_Call] = []
        whole = messages.with_arguments(result, self._used, is_session=self._is_session)
        for message in messages.answered(whole):
            calls = [self._done(call, span, thread) for call in message["calls"]]
            if calls and all(call.is_equal for call in calls) and not (message["text"] or message["others"]):
                quiet += calls  # each call has a turn of its tool's step
                so_far.shown[messages.key_of(message)] += [call.turn for call in calls[:1] if call.turn is not None]
            else:
                answers.append(self._say(span, message, ended, "out", calls))
        settings = [part for part in turns.settings(payload) if so_far.settings.get(part["name"]) != part["text"]]
        so_far.settings.update({part["name"]: part["text"] for part in settings})
        error, more = turns.error_parts(result, span.status)
        others = settings + turns.outcome(result) + more
        is_closed = span.status not in OPEN
        # The ids and settings of a call of a session are no words of it: they are in the details of its step.
        is_said = any(part["name"] in _WORDS for part in others) if self._is_session and quiet else others
        if not answers and (error is not None or is_said or (again and is_closed and not quiet)):
            turn = self._turn(span, "assistant", "", ended, side="out", name=span.label)
            turn["calls"] = [call.shown for call in quiet]
            answers.append(self._add(turn, thread))
        if answers:
            answers[0]["others"] = answers[0]["others"] + others
            answers[-1]["error"] = error
        anchor = next(iter(answers), quiet[0].turn if quiet else None)
        if again and anchor is not None:
            self._again.append((anchor, again))

    def _read_sent(
        self, span: AgentSpanRow, sent: list[messages.Keyed], thread: Thread, so_far: _ThreadState
    ) -> Iterator[Turn]:
        """Add turns for the sent messages that no turn shows yet; yield the existing turns of all other messages."""
        seen: Counter[tuple[str, ...]] = Counter()
        left = Counter(message["call_id"] for message, _ in sent)  # call id → number of its answers still to come
        system: dict[tuple[str, ...], Turn] = {}
        for place, (message, key) in enumerate(sent):
            if self._number > self._most:
                self.missing += 1
                return
            step = None
            if message["call_id"] is not None:
                step = self._answered_by(message, left[message["call_id"]], start_of(span), thread)
                left[message["call_id"]] -= 1
                if step is not None and turns.is_answer(message, step):
                    yield self._tool(step.span)[1]
                    continue
            if step is not None:
                key = (*key, step.span.id)
            seen[key] += 1
            shown = self._shown(message, key, seen[key], so_far, thread, is_last=place == len(sent) - 1)
            if shown is None:
                calls = [self._done(call, span, thread, is_sent=True) for call in message["calls"]]
                shown = self._say(span, message, start_of(span), "in", calls, key)
                if step is not None:
                    tool = self._tool(step.span)[1]
                    shown["name"] = step.name
                    self._differing += [(shown, tool), (tool, shown)]
            else:
                yield shown
            if message["role"] == "system":
                system[key] = shown
        so_far.system = system or so_far.system

    def _shown(
        self, message: Message, key: tuple[str, ...], seen: int, so_far: _ThreadState, thread: Thread, *, is_last: bool
    ) -> Turn | None:
        """Return the existing turn that shows a message sent to a model; None if the message needs a new turn."""
        if message["role"] == "system":
            return so_far.system.get(key)
        if seen > len(so_far.shown[key]):
            outer = thread.parent
            while outer is not None:
                if (found := self._threads_so_far[outer].spoken.get(key)) is not None:
                    so_far.shown[key].append(found)
                    return found
                outer = outer.parent
            return None
        # A program that sends only the latest messages may repeat a text such as "yes": that is a new turn.
        last = so_far.turns[-1] if so_far.turns else None
        is_new = last is not None and last["role"] == "assistant" and last["error"] is None and not last["calls"]
        return None if is_last and message["role"] == "user" and is_new else so_far.shown[key][seen - 1]

    def _steps_of(self, call_id: str, thread: Thread) -> list[Step]:
        """Return the tool steps with a call id: those in the thread, else those in enclosing or nested threads."""
        known = self._steps_in.get((call_id, thread))
        if known is None:
            found = [(span, self._threads.of(span)) for span in self._of_call.get(call_id, ())]
            own = [span for span, of in found if of is thread]
            near = own or [span for span, of in found if _is_related(of, thread)]
            known = self._steps_in[call_id, thread] = [self._tool(span)[0] for span in near]
            self._by_answer.update({(call_id, thread, step.text): step for step in reversed(known)})
        return known

    def _answered_by(self, message: Message, left: int, until: str, thread: Thread) -> Step | None:
        """Return the tool step whose answer a tool message is; None if unknown.

        Some models restart their call ids, so several steps can have the same id. Then the steps are counted back from
        the latest one.

        Args:
            message: the tool message.
            left: the number of messages with this call id from this message on, in the messages sent to the model.
            until: the time of the model call, as stored text.
        """
        call_id = message["call_id"] or ""
        steps = self._steps_of(call_id, thread)
        count = bisect_right(steps, until, key=lambda step: start_of(step.span))
        if not count:
            return None
        step = steps[max(0, count - left)]
        return step if turns.is_answer(message, step) else self._by_answer.get((call_id, thread, message["text"]), step)

    def _done(self, asked: Call, span: AgentSpanRow, thread: Thread, *, is_sent: bool = False) -> "_Call":
        """Return a tool call with the turn of the step that executed it.

        Args:
            asked: the call in a message of the model.
            span: the llm span of the message.
            is_sent: whether the message was sent to the model, as history, instead of answered by it.
        """
        arguments = turns.arguments_of(asked["arguments"])
        call = _Call({**asked, "arguments": arguments, "same": None, "differs": None}, None, None)
        if asked["id"] is None:
            return call
        self._names[thread, asked["id"]] = asked["name"]
        steps = self._steps_of(asked["id"], thread)
        if not is_sent:
            steps = [
                step for step in steps if step.span.id not in self._claimed and start_of(step.span) >= start_of(span)
            ]
        if not steps:
            return call
        first = turns.is_call(asked, steps[0])
        step = steps[0] if first else next((each for each in steps[1:] if turns.is_call(asked, each)), steps[0])
        turn = self._tool(step.span)[1]
        if not is_sent:
            self._claimed.add(step.span.id)
            turn["asked_by"] = span.id
        is_equal = first if step is steps[0] else True
        if is_equal is not None:
            self._done_by.append((call.shown, "same" if is_equal else "differs", turn))
        return call._replace(turn=turn, is_equal=is_equal)

    def _say(
        self,
        span: AgentSpanRow,
        message: Message,
        at: str,
        side: str,
        calls: Sequence["_Call"] = (),
        key: tuple[str, ...] = (),
    ) -> Turn:
        thread = self._threads.of(span)
        name = message["name"]
        if message["role"] == "tool" and name is None:
            name = self._names.get((thread, message["call_id"] or ""), "tool")
        elif side == "out":
            name = span.label
        turn = self._turn(span, message["role"], message["text"], at, side=side, name=name)
        turn["calls"], turn["others"] = [call.shown for call in calls], message["others"]
        self._differing += [(call.turn, turn) for call in calls if call.turn is not None and call.is_equal is False]
        if side == "out" and message["name"] is not None:
            turn["others"] = [*turn["others"], messages.part("name", message["name"])]
        self._threads_so_far[thread].shown[key or messages.key_of(message)].append(turn)
        return self._add(turn, thread)

    def _add(self, turn: Turn, thread: Thread) -> Turn:
        self._threads_so_far[thread].turns.append(turn)
        self._number += 1
        return turn

    def _turn(
        self,
        span: AgentSpanRow,
        role: str,
        text: str,
        at: str,
        *,
        side: str = "",
        name: str | None = None,
        error: str | None = None,
    ) -> Turn:
        thread, found = self._threads.of(span), _blank()
        found |= {"span": span.id, "thread": thread.id, "agent": thread.name, "side": side, "role": role, "name": name}
        found |= {"text": text[:MAX_TEXT], "length": len(text), "error": error, "at": at, "status": span.status}
        turn: Turn = found
        return turn


def _opening(span: AgentSpanRow) -> Opening | None:
    """Return how the conversation of an llm span begins, to find its thread; None without a message."""
    sent = messages.sent(jsontext.value_of(span.payload))
    system = tuple(key for message, key in sent if message["role"] == "system")
    rest = [key for message, key in sent if message["role"] != "system"]
    return (system, rest[0], len(rest)) if rest else None


def _and_around(thread: Thread) -> Iterator[Thread]:
    """Yield a thread and those around it, the innermost first."""
    at: Thread | None = thread
    while at is not None:
        yield at
        at = at.parent


def _section(thread: Thread) -> Section:
    parent = None if thread.parent is None else thread.parent.id
    return Section(
        id=thread.id, parent=parent, name=thread.name, first=-1, turns=0, tokens=None, cost_usd=None, duration_ms=0.0
    )


def _is_related(one: Thread, other: Thread) -> bool:
    """Return whether two threads are the same, or one is nested in the other."""
    return one in _and_around(other) or other in _and_around(one)


def _ranges(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return numbers as ranges of first and last number: 1, 2, 3, 7 as (1, 3) and (7, 7)."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
