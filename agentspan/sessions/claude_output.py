"""Collects the steps of one decoder of Claude Code's files, and what they have in common.

It also finds the branch of a conversation that a rewind left: two prompts with one parent in Claude Code's graph.
"""

from collections.abc import Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any

from agentspan.arriving import Record, Step, Unread, unicode_of, unknown
from agentspan.sessions import claude_steps as steps
from agentspan.sessions.claude_facts import MILLI, Clock, Facts, Recent, Thread

_MOST_LATE = 16
_MOST_MESSAGES = 100
_MOST_KEYS = 20_000
_MOST_STEPS = 600
_MOST_BYTES = 8 * 2**20
_MOST_PROMPTS = 5000


class Rewinds:
    """Keeps the latest steps of the main conversation, by prompt, so that those of an abandoned branch can be marked.

    Bounded: of a long branch, only the latest 300 to 600 steps are marked, or those of the last 4 to 8 MiB of lines. A
    step of a longer line is not marked. (Kept steps leave the CPU cache: with 5,000 of them, decoding took
    15 % longer.)
    """

    def __init__(self) -> None:
        self._turns: list[tuple[int, dict[str, Step]]] = []
        self._turn: dict[str, Step] = {}
        self._number = 0
        self._prompts: Recent[str, tuple[int, str]] = Recent(_MOST_PROMPTS)
        self._count = self._bytes = 0

    def keep(self, step: Step, size: int) -> None:
        """Keep a step.

        Args:
            size: about how many bytes it has.
        """
        if size > _MOST_BYTES:
            self._turn.pop(step.key, None)
            return
        self._turn[step.key] = step
        self._count += 1
        self._bytes += size
        if self._count > _MOST_STEPS or self._bytes > _MOST_BYTES:
            self._drop()

    def _drop(self) -> None:
        """Drop the older half of the steps."""
        self._count //= 2
        self._bytes //= 2
        kept = self._count - len(self._turn)
        if kept <= 0:
            self._turns = []
            self._turn = dict(islice(self._turn.items(), max(0, len(self._turn) - self._count), None))
            return
        turns = []
        for number, turn in reversed(self._turns):
            if kept <= 0:
                break
            turns.append((number, turn))
            kept -= len(turn)
        self._turns = turns[::-1]

    def prompt(self, parent: str, uuid: str) -> list[Step]:
        """Note a prompt; return the steps of the branch that it replaces, marked as rewound.

        Args:
            parent: the uuid of the prompt's parent.
            uuid: the prompt's own.
        """
        before = self._prompts[parent]
        if before is not None and before[1] == uuid:
            return []
        self._turns.append((self._number, self._turn))
        marked: list[Step] = []
        if before is not None:
            for number, turn in self._turns:
                if number >= before[0]:
                    marked += self._marked(turn)
        self._number += 1
        self._turn = {}
        self._prompts.put(parent, (self._number, uuid))
        return marked

    def _marked(self, turn: dict[str, Step]) -> list[Step]:
        """Mark the steps of a turn that are not marked yet, and return these."""
        new = [
            step._replace(payload={**step.payload, "rewound": True})
            for step in turn.values()
            if "rewound" not in step.payload
        ]
        turn |= {step.key: step for step in new}
        return new


class Output:
    """Collects the steps of the records that are decoded.

    Attributes:
        facts: what is known of the session.
        main: the main conversation.
        rewinds: the latest steps of the main conversation.
        records: what was emitted since it was emptied.
        copied: the uuids of the messages that the last compaction has kept, and whether each was read before it.
        thread, clock, size: the conversation and the clock of the current record, and the bytes of its line.
    """

    def __init__(self, facts: Facts, name: str) -> None:
        self.facts = facts
        self.main = self.thread = Thread(None)
        self.rewinds = Rewinds()
        self.records: list[Record] = []
        self.copied: dict[str, bool] = {}
        self.clock = Clock()
        self.size = 0
        self._name = name
        self._keys: Recent[str, str] = Recent(_MOST_KEYS)

    @property
    def session(self) -> str:
        """The id of the session; the name of the file before a record has named it."""
        return self.facts.id or self._name

    def unread(self, what: str) -> None:
        """Count something that was not understood."""
        self.records.append(Unread(self.facts.id, what))

    def emit(self, step: Step) -> None:
        """Emit a step of the current conversation."""
        self.records.append(step)
        if self.thread is self.main:
            self.rewinds.keep(step, self.size)

    def flush(self, thread: Thread) -> None:
        """Emit the model calls of a conversation that have changed."""
        for call in thread.calls.values():
            if call.changed:
                call.changed = False
                step = call.step(self.session, thread.top)
                self.records.append(step)
                if thread is self.main:
                    self.rewinds.keep(step, self.size)

    def key(self, record: Mapping[str, Any], millis: int) -> str:
        """Return the key of a record that is one step: its uuid, or its time and kind.

        Two different records with one uuid have different keys; a record that stands twice in the file has one.
        """
        uuid = steps.uuid_of(record)
        if type(uuid) is str and uuid:
            uuid = unicode_of(uuid)
            about = unicode_of(f"{record.get('type')}:{record.get('subtype')}:{millis}")
            known = self._keys[uuid]
            if known is None:
                self._keys.put(uuid, about)
                return uuid
            return uuid if known == about else f"{uuid}:{about}"
        return unicode_of(f"{record.get('type')}:{millis}:{self.clock.count(millis)}")

    def message(self, record: Mapping[str, Any], payload: dict[str, Any], millis: int) -> None:
        """Emit the step of a message that is one record."""
        at, thread = self.clock.start(millis), self.thread
        step = Step(self.session, self.key(record, millis), thread.top, "message", at, at, "complete", payload)
        if thread.is_compaction and len(thread.messages) < _MOST_MESSAGES:
            thread.messages.append(step)
        self.emit(step)

    def event(
        self,
        record: Mapping[str, Any],
        millis: int,
        name: str,
        content: Any,
        level: str = "info",
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Emit the step of an event that is one record.

        Args:
            more: further members of its payload.
        """
        at = self.clock.start(millis)
        payload = {**more, "name": name, "level": level, "content": content}
        self.emit(Step(self.session, self.key(record, millis), self.thread.top, "event", at, at, "complete", payload))

    def unknown(self, record: Mapping[str, Any], kind: str, millis: int) -> None:
        """Emit the step of a record of an unknown type."""
        kind = kind[:60]
        self.unread(f"record of type {kind}")
        at = self.clock.start(millis)
        self.emit(unknown(self.session, self.key(record, millis), self.thread.top, kind, at, dict(record)))

    def cancel_open(self, thread: Thread, millis: int) -> None:
        """Cancel the open tool calls of a conversation. A result that comes all the same completes its call."""
        for key, step in thread.open.items():
            self.cancel(step, millis)
            thread.late[key] = step
            if len(thread.late) > _MOST_LATE:
                del thread.late[next(iter(thread.late))]
        thread.open.clear()

    def cancel(self, step: Step, millis: int) -> None:
        """Emit a step as cancelled."""
        self.emit(step._replace(end_ns=max(step.start_ns, millis * MILLI), status="cancelled"))
