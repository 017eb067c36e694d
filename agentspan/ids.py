"""PFIDs: ids of 32 characters of Crockford base32 that sort by creation time.

An id is a 160-bit number: 48-bit milliseconds, 30-bit partition, 80 random bits. Its 32 characters divide into
10 of time, 6 of partition, 16 of randomness, so each part is encoded by itself and the first two are cached.
The `pfid` package is not used, because it takes 27 µs for an id.
"""

import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice
from typing import NamedTuple

from agentspan import host
from agentspan.host import Renewal, page
from agentspan.text import lazy_pattern

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
FORM = "[0-7][0-9abcdefghjkmnpqrstvwxyz]{31}"
"""The form of a PFID of any partition, as a pattern."""
_PFID = lazy_pattern(rf"{FORM}\Z")
_HALVES = struct.Struct(">BIBI").unpack_from
_DRAWN = 256
MAX_PARTITION = 2**30 - 1


def is_pfid(value: object) -> bool:
    """Return whether a value is a PFID of any partition, in lower case."""
    return isinstance(value, str) and _PFID.match(value) is not None


def encode(millis: int, partition: int, randomness: int) -> str:
    """Encode the three parts (48, 30 and 80 bits) as a PFID."""
    return _digits(millis, 10) + _digits(partition, 6) + encode_randomness(randomness.to_bytes(10))


def encode_randomness(data: bytes) -> str:
    """Encode the first 10 bytes as the last 16 characters of a PFID (0.6 µs: in halves, each a small number)."""
    first, a, second, b = _HALVES(data)
    pairs = _PAIRS
    return (
        f"{pairs[first << 2 | a >> 30]}{pairs[a >> 20 & 1023]}{pairs[a >> 10 & 1023]}{pairs[a & 1023]}"
        f"{pairs[second << 2 | b >> 30]}{pairs[b >> 20 & 1023]}{pairs[b >> 10 & 1023]}{pairs[b & 1023]}"
    )


def decode(pfid: str) -> tuple[int, int, int]:
    """Return the three parts of a valid PFID: milliseconds since the epoch, partition, randomness."""
    number = 0
    for character in pfid:
        number = number << 5 | _ALPHABET.index(character)
    return number >> 110, number >> 80 & MAX_PARTITION, number & (1 << 80) - 1


def random_partition() -> int:
    """Return a random partition for a new database."""
    return int.from_bytes(os.urandom(4)) & MAX_PARTITION


def _digits(number: int, length: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(5 * length - 10, -10, -10)])


class _Minting(NamedTuple):
    """A batch of up to 1,024 ids that share their first 30 characters. Used until it is empty or its millisecond ends.

    Attributes:
        head: the first 30 characters of the ids.
        pairs: yields the last two characters of each id, each pair once, also with many threads and signal handlers.
        until_ns: the end of the batch's millisecond, in nanoseconds since the epoch.
        prefix: the first 24 characters of the ids.
        number: the number that characters 25 to 30 encode.
    """

    head: str
    pairs: Iterator[str]
    until_ns: int
    prefix: str
    number: int


class IdSource:
    """Mints the ids of one partition, from any thread. Each id is greater than the one before.

    Within a millisecond the low 40 of the 80 random bits count up from a random start of 39 bits; the high 40
    stay. If the clock goes backwards, new ids keep the last millisecond. A forked child draws new random bits;
    otherwise it would mint its parent's next ids.
    """

    _minting: _Minting
    _bits: Iterator[bytes]

    def __init__(self, partition: int) -> None:
        self._partition = _digits(partition, 6)
        self._reseed(0)
        _sources.add(self)

    def new(self, at_ns: int | None = None) -> str:
        """Return a new id (0.15 µs).

        Args:
            at_ns: the wall clock's time in nanoseconds, if the caller has just read it.
        """
        if not page[0]:
            host.renew()
        head, pairs, until_ns, _, _ = self._minting
        if (time.time_ns() if at_ns is None else at_ns) < until_ns:
            for pair in pairs:
                return head + pair
        return self._renewed()

    def _renewed(self) -> str:
        with self._lock:
            while True:
                minting = self._minting
                millis = time.time_ns() // 1_000_000
                if millis * 1_000_000 < minting.until_ns:
                    for pair in minting.pairs:
                        return minting.head + pair
                    following = _counting(minting.prefix, minting.number + 1, minting.until_ns, 0)
                else:
                    following = self._drawn(millis)
                # A signal handler may replace `_minting` during a call. The next two lines contain no call.
                if self._minting is minting:
                    self._minting = following

    def _drawn(self, millis: int) -> _Minting:
        # Bits are drawn for many batches at once, because os.urandom releases the GIL. A thread that waits for the GIL
        # restarts its 5 ms each time another thread releases it; with one release a millisecond it would wait for ever.
        bits = next(self._bits, b"")
        while not bits:
            lock, drawn = self._lock, os.urandom(10 * _DRAWN)
            rest = iter([drawn[start : start + 10] for start in range(10, 10 * _DRAWN, 10)])
            if self._lock is lock:  # a new lock means that a signal handler forked: these are the parent's bits
                self._bits, bits = rest, drawn[:10]
        prefix = _digits(millis, 10) + self._partition + _digits(int.from_bytes(bits[:5]), 8)
        start = int.from_bytes(bits[5:]) >> 1
        return _counting(prefix, start >> 10, (millis + 1) * 1_000_000, start & 1023)

    def _reseed(self, millis: int) -> None:
        self._lock = threading.RLock()  # an RLock: a signal handler may mint while its thread holds the lock
        self._bits = iter(())
        self._minting = self._drawn(millis)


def _counting(prefix: str, number: int, until_ns: int, first: int) -> _Minting:
    return _Minting(prefix + _digits(number, 6), islice(_PAIRS, first, None), until_ns, prefix, number)


_sources: weakref.WeakSet[IdSource] = weakref.WeakSet()


if not getattr(sys, "_is_gil_enabled", lambda: True)():  # without the GIL an iterator is not thread-safe
    _new = IdSource.new

    def _new_alone(source: IdSource, at_ns: int | None = None) -> str:
        if not page[0]:
            host.renew()
        with source._lock:
            return _new(source, at_ns)

    IdSource.new = _new_alone  # type: ignore[assignment, method-assign]


host.renewal(
    Renewal.LOCKS, host.for_each(_sources, lambda source: source._reseed(source._minting.until_ns // 1_000_000 - 1))
)


@contextmanager
def counted(millis: int, partition: int) -> Iterator[None]:
    """Mint ids that count up from 1, with one time and one partition, within a with-block. For tests.

    Existing sources mint such ids, too. A nested block continues the count.
    """
    global random_partition
    before = IdSource.new, random_partition
    if before[0] is _real_new:
        numbers = count(1)
        IdSource.new = lambda source, at_ns=None: encode(millis, partition, next(numbers))  # type: ignore[method-assign, assignment]
        random_partition = lambda: partition  # noqa: E731
    try:
        yield
    finally:
        IdSource.new, random_partition = before  # type: ignore[method-assign]


_real_new = IdSource.new
