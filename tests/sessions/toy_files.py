"""Files of the toy format, and an importer for which all of them are old."""

import json
import os
from pathlib import Path
from typing import Any

from agentspan.api.context import Context
from agentspan.database import Database
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from tests.sessions.toy import TOY

OLD_NS = 10**18
LINES = [
    {"id": "1", "ask": "one", "at": 1},
    {"id": "2", "ask": "two", "at": 2},
    {"id": "1", "answer": "eins", "at": 3},
    {"id": "2", "answer": "zwei", "at": 4},
    {"id": "3", "ask": "three", "at": 5},
]


def importer(database: Database, **how: Any) -> Importer:
    """Return an importer for which all files are old."""
    return Importer(Context(database.storage), {"toy": TOY}, now=lambda: 2 * 10**18, **how)


def write(path: Path, lines: list[Any], end: str = "\n") -> Source:
    """Write lines of JSON to a file whose time of change is given by its size, and return its source."""
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    path.write_text(text[: len(text) - 1] + end if text else "")
    os.utime(path, ns=(OLD_NS, OLD_NS + path.stat().st_size))
    return Source("toy", path)
