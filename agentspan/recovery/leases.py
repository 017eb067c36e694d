"""Leases of programs that record into a server: whether one on another host still lives, by the server's clock.

A program renews its lease while it has runs. On this host its pid and its journal's lock say more, and are asked first.
"""

from agentspan.errors import AgentspanError
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Notes, PutNote
from agentspan.tuning import STANDARD

RENEWALS = 3
"""How often a program renews its lease in the time for which one lasts."""
KEPT_S = 90 * 24 * 3600.0
"""Seconds for which the server knows that a program had a lease. Older versions have none, and are never judged."""
_LEASE, _LEASED = "lease/", "leased/"


def renew(storage: Storage, writer_id: str, lasts_s: float = STANDARD.lease_s) -> None:
    """Renew the lease of a program.

    Raises:
        StorageError: the storage cannot take it now.
    """
    storage.ask(PutNote(_LEASED + writer_id, "", lasts_s=KEPT_S))
    storage.ask(PutNote(_LEASE + writer_id, "", lasts_s=lasts_s))


def is_over(storage: Storage, writer_id: str) -> bool:
    """Return whether a program had a lease that is over; False where that cannot be known."""
    try:
        found = storage.ask(Notes(_LEASED + writer_id, _LEASE + writer_id))
    except AgentspanError:  # a role that may not read notes
        return False
    return _LEASED + writer_id in found and _LEASE + writer_id not in found
