"""Finds the branch of a conversation that a rewind left: two prompts with one parent in Claude Code's graph."""

from itertools import islice

from agentspan.arriving import Step
from agentspan.sessions.claude_facts import Recent

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
