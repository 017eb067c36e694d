"""The archives of files and schemas that older code made (see make_archive)."""

import gzip
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

FILES = Path(__file__).parent / "files"
VERSIONS = sorted(FILES.glob("version-*.tar.gz"))
SCHEMAS = sorted(FILES.glob("schema-*.json.gz"))


class ArchivedSchema(NamedTuple):
    """A schema `archived` as statements of SQL, and its runs as the code that made it exported them."""

    sql: str
    runs: str


def unpacked(folder: Path, archive: Path = FILES / "version-10.tar.gz") -> Path:
    """Unpack the archive of a file into a folder, and return the path of the database."""
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "runs.db"


def archived_schema(archive: Path) -> ArchivedSchema:
    """Return what the archive of a schema has."""
    return ArchivedSchema(**json.loads(gzip.decompress(archive.read_bytes())))
