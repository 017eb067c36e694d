"""Records of which a batch is being made in steps, while the storage takes those before."""

from collections.abc import Callable, Sequence

from agentspan.interrupts import let_through
from agentspan.journal.deriving import AT_ONCE, Batch

BODIES = 2 * AT_ONCE
"""Bodies of one step: about as many spans as are derived at once, which takes a millisecond."""


class Begun:
    """The bodies of records, in order, and the batch that is made of the first of them.

    Args:
        bodies: of which the elements are noted in this order, after those of all records before.
        new_batch: returns an empty batch.

    Attributes:
        batch: contains the first `added` bodies.
    """

    def __init__(self, bodies: Sequence[bytes], new_batch: Callable[[], Batch]) -> None:
        self._bodies = bodies
        self._new_batch = new_batch
        self._is_full = False
        self.batch = new_batch()
        self.added = 0

    def finish(self) -> None:
        """Add all bodies that have room in the batch.

        Raises:
            StorageError: a span type cannot be looked up now; begin again.
        """
        while self._go_on(len(self._bodies)):
            pass

    def step(self) -> bool:
        """Add some bodies; return whether there are more to add. After an error, `finish` begins again."""
        try:
            return self._go_on(BODIES)
        except Exception as error:
            let_through(error)
            self.batch, self.added = self._new_batch(), 0
            return False

    def _go_on(self, most: int) -> bool:
        if self._is_full:
            return False
        some = self._bodies[self.added : self.added + most]
        added = self.batch.add(some)
        self.added += added
        self._is_full = added < len(some)
        return not self._is_full and self.added < len(self._bodies)
