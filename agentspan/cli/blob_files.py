"""Writes the images, audio and other bytes of runs into a folder: a file each, named by its hash.

Nothing in a file's path comes from a payload: the ending is one of a fixed list.
"""

import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from agentspan import files
from agentspan.blobs import blobs_in, ending_of
from agentspan.cli.output import Failed
from agentspan.model.rows import AgentInstanceRow
from agentspan.storage.lookup import expect
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf


def write(storage: Storage, runs: Iterable[str], folder: Path) -> int:
    """Write each blob of these runs to a file of mode 0600, if there is none of its name; return how many there are.

    Raises:
        Failed: the folder or a file cannot be written.
    """
    found: set[str] = set()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for text in _texts(storage, runs):
            for blob in blobs_in(text):
                hash = sha256(blob.data).hexdigest()
                if hash not in found:
                    found.add(hash)
                    _write(folder / f"{hash}.{ending_of(blob.media_type)}", blob.data)
    except OSError as error:
        raise Failed(f"{folder} cannot be written: {error.strerror}") from None
    return len(found)


def _texts(storage: Storage, runs: Iterable[str]) -> Iterator[str]:
    for id in runs:
        run = expect(storage.ask(Find(id, instance_id=id)), AgentInstanceRow, id)
        yield from (text for text in (run.metadata, run.result, run.error) if text is not None)
        for span in storage.ask(SpansOf(id)):
            yield from (text for text in (span.payload, span.result_payload) if text is not None)


def _write(target: Path, data: bytes) -> None:
    number, name = files.aside(target)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(data)
        os.link(name, target)  # unlike a rename it fails where there is a file
    except FileExistsError:
        pass
    finally:
        os.unlink(name)
