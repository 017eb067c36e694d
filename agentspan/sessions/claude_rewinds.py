"""Finds the branch of a conversation that a rewind left: two prompts with one parent in Claude Code's graph."""

from collections import OrderedDict

from agentspan.sessions.claude_facts import Recent
from agentspan.sessions.records import Step

_MOST_STEPS = 1000
_MOST_BYTES = 8 * 2**20
_MOST_PROMPTS = 5000


class Rewinds:
    """Keeps the latest steps of the main conversation, so that those of an abandoned branch can be marked.

    Bounded: of a branch with more than 1,000 steps or 8 MiB of lines, only the latest steps are marked.
    (Steps that are kept leave the CPU cache: with 5,000 of them, decoding took 8 % longer.)
    """

    def __init__(self) -> None:
        self._steps: OrderedDict[str, tuple[int, Step, int]] = OrderedDict()
        self._prompts: Recent[str, tuple[int, str]] = Recent(_MOST_PROMPTS)
        self._count = self._bytes = 0

    def keep(self, step: Step, size: int) -> None:
        """Keep a step.

        Args:
            size: about how many bytes it has.
        """
        kept = self._steps.get(step.key)
        if kept is not None:
            self._steps[step.key] = kept[0], step, kept[2]
            return
        self._count += 1
        self._bytes += size
        self._steps[step.key] = self._count, step, size
        while len(self._steps) > _MOST_STEPS or (self._bytes > _MOST_BYTES and len(self._steps) > 1):
            self._bytes -= self._steps.popitem(last=False)[1][2]

    def prompt(self, parent: str, uuid: str) -> list[Step]:
        """Note a prompt; return the steps of the branch that it replaces, marked as rewound.

        Args:
            parent: the uuid of the prompt's parent.
            uuid: the prompt's own.
        """
        before = self._prompts.get(parent)
        if before is not None and before[1] == uuid:
            return []
        self._prompts.put(parent, (self._count, uuid))
        if before is None:
            return []
        marked = []
        for key, (order, step, size) in self._steps.items():
            if order > before[0] and "rewound" not in step.payload:
                new = step._replace(payload={**step.payload, "rewound": True})
                self._steps[key] = order, new, size
                marked.append(new)
        return marked
