"""Whatever happens while files are read, the rows in the end are those of one reading of the whole files.

Files grow in pieces, programs read at the same time, a program dies between two commits, a file is copied or replaced.
"""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentspan.api.context import Context
from agentspan.model.changes import Outcome, Unit
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.storage.memory import MemoryStorage
from tests.sessions.stored_rows import by_session
from tests.sessions.toy import TOY
from tests.tiers import examples

OLD_NS = 10**18


class Killed(Exception):
    """Stands for the death of a program."""


class Mortal(MemoryStorage):
    """A storage whose program dies at the n-th commit from now: before it, so that nothing of it is stored."""

    left: int | None = None

    def apply(self, units: Sequence[Unit], **how: Any) -> list[Outcome]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed
        return super().apply(units, **how)


def line(number: int, kind: str) -> bytes:
    """Return a line of the toy format: a question, an answer, or nonsense."""
    if kind == "broken":
        return b'{"id": \xff\n'
    member = {"ask": f"question {number}"} if kind == "ask" else {"answer": f"answer {number}"}
    return json.dumps({"id": str(number % 2), "at": number + 1, **member}).encode() + b"\n"


LINES = st.lists(st.sampled_from(["ask", "ask", "answer", "answer", "broken"]), min_size=1, max_size=12)
ACTS = st.lists(
    st.tuples(
        st.sampled_from(["grow", "read", "follow", "other", "die", "copy", "old copy", "touch"]),
        st.integers(0, 9),
        st.integers(0, 2),
    ),
    max_size=14,
)


@settings(deadline=None, max_examples=examples(60))
@given(kinds=st.lists(LINES, min_size=1, max_size=3), acts=ACTS)
def test_all_ways_of_reading_end_with_the_same_rows(kinds: list[list[str]], acts: list[tuple[str, int, int]]) -> None:
    texts = [b"".join(line(number, kind) for number, kind in enumerate(each)) for each in kinds]
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        storage = Mortal()
        followers = [_importer(storage, follows=True) for _ in range(2)]
        written = [0] * len(texts)
        for act, amount, who in acts:
            which = who % len(texts)
            path = at / f"s{which}.toy"
            if act == "grow":
                written[which] = min(len(texts[which]), written[which] + 20 * amount)
                _write(path, texts[which][: written[which]])
            elif act in ("copy", "old copy"):
                (at / f"c{amount}").mkdir(exist_ok=True)
                size = written[which] if act == "copy" else written[which] // 2
                _write(at / f"c{amount}" / path.name, texts[which][:size])
                _importer(storage).import_source(Source("toy", at / f"c{amount}" / path.name))
            elif act == "touch" and path.exists():
                os.utime(path, ns=(OLD_NS, OLD_NS + amount))
            elif act == "die":
                storage.left = amount % 4
                try:
                    _importer(storage).import_source(Source("toy", path))
                except Killed:
                    pass
                storage.left = None
            else:
                reader = followers[who % 2] if act == "follow" else _importer(storage)
                reader.import_source(Source("toy", path))
        for which, text in enumerate(texts):
            _write(at / f"s{which}.toy", text)
        order = sorted(range(len(texts)), reverse=bool(acts) and acts[0][1] % 2 == 1)
        for which in order:
            _importer(storage).import_source(Source("toy", at / f"s{which}.toy"))
        whole = MemoryStorage()
        for which in range(len(texts)):
            _importer(whole).import_source(Source("toy", at / f"s{which}.toy"))
        assert by_session(storage) == by_session(whole)
        spans = [len(each) for _, each in by_session(whole).values()]
        assert sum(spans) == sum(
            len({number % 2 for number, kind in enumerate(each) if kind == "ask"}) for each in kinds
        )


def _importer(storage: MemoryStorage, *, follows: bool = False) -> Importer:
    return Importer(Context(storage), {"toy": TOY}, follows=follows, now=lambda: 2 * OLD_NS)


def _write(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    os.utime(path, ns=(OLD_NS, OLD_NS + len(text)))
