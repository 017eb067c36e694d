"""The segments beside a file, and the bytes of one."""

from collections.abc import Sequence
from pathlib import Path

from agentspan.journal.records import END, header
from agentspan.journal.segments import SUFFIX


def written(all_bodies: Sequence[bytes], first: int = 1) -> bytes:
    """Bodies as the records of a segment, with its end."""
    return b"".join(header(body, number) + body for number, body in enumerate(all_bodies, first)) + END


def segments_of(db: Path) -> list[Path]:
    """The segments beside a file."""
    return sorted(db.with_name(db.name + ".spool").glob(f"*{SUFFIX}*"))
