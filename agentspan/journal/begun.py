"""Records of which a batch is being made, perhaps in steps, while the storage takes those before."""

from collections.abc import Callable, Collection, Sequence

from agentspan.interrupts import let_through
from agentspan.journal.deriving import Batch
from agentspan.tuning import STANDARD


class Begun:
    """The bodies of records, in order, and the batch that is made of the first of them.

    Args:
        bodies: of which the elements are noted in this order, after those of all records before.
        new_batch: returns an empty batch.
        at_once: bodies of one step.

    Attributes:
        batch: has the bodies that had room in it, as soon as it is finished.
    """

    def __init__(
        self,
        bodies: Sequence[bytes],
        new_batch: Callable[[], Batch],
        at_once: int = STANDARD.derived_ahead_records,
    ) -> None:
        self.bodies = bodies
        self._at_once = at_once
        self._new_batch = new_batch
        self._begin()

    def _begin(self) -> None:
        self.batch = self._new_batch()
        self._added = 0
        self._is_full = self._is_broken = False

    def step(self) -> bool:
        """Add some bodies; return whether there are more to add.

        What fails here is done again by `finish`: with less of the stack in use, or after an interrupt.
        """
        try:
            is_left = self._go_on(self._at_once)
        except Exception as error:
            let_through(error)
            return False
        if self.batch.unreadable:  # perhaps only here
            self._is_broken = True
            return False
        return is_left

    def finish(self) -> None:
        """Add all bodies that have room in the batch.

        Raises:
            StorageError: a span type cannot be looked up now; begin again.
        """
        if self._is_broken:
            self._begin()
        while self._go_on(len(self.bodies)):
            pass

    def rest(self) -> "Begun":
        """Return the bodies that had no room in the finished batch."""
        return Begun(self.bodies[self._added :], self._new_batch, self._at_once)

    def without(self, numbers: Collection[int]) -> "Begun":
        """Return the bodies except those with these indexes."""
        left = [body for number, body in enumerate(self.bodies) if number not in numbers]
        return Begun(left, self._new_batch, self._at_once)

    def _go_on(self, most: int) -> bool:
        if self._is_full or self._is_broken:
            return False
        some = self.bodies[self._added : self._added + most]
        self._is_broken = True  # an exception may come at any line until this is taken back
        added = self.batch.add(some)
        self._added += added
        self._is_full = added < len(some)
        self._is_broken = False
        return not self._is_full and self._added < len(self.bodies)
