"""Databases that older versions made, with their journals."""

import tarfile
from pathlib import Path

FILES = Path(__file__).parent / "files"
"""Archives of databases that older versions made."""
SECOND = "version-2.tar.gz"
"""Made by the code before there was a third version: runs in which a span repeats the tokens of the one in it, by four
names; the index of that code beside it, whose sums count two of these names twice; and the journal of a killed
program, with both spans of such a run."""
THIRD = "version-3.tar.gz"
"""Made by the code before there was a fourth version: four runs with spans, a key, an error; the index of that code
beside it; and the journal of a killed program, with a run in it that could not be registered while the file was
locked."""
FOURTH = "version-4.tar.gz"
"""Made by the code before there was a fifth version: the same, and a span with a value that is marked as sensitive,
which that code stored."""
FIFTH = "version-5.tar.gz"
"""Made by the code before there was a sixth version: a run of llm spans with growing histories, and members that look
like references to contents; the index of that code beside it; and the journal of a killed program with such a run."""
SIXTH = "version-6.tar.gz"
"""Made by the code before there was a seventh version: a run whose metadata has a session and a user, with an answer's
id and written cache tokens in an llm span; a failed one, one by id with a key; the index of that code beside it; and
the journal of a killed program, with a run in it that could not be registered while the file was locked."""
SEVENTH = "version-7.tar.gz"
"""Made by the code before there was an eighth version: a run whose metadata has a task and tags, a failed one, one by
id with two quality payloads; the index of that code beside it; and the journal of a killed program, with a run in it
that could not be registered while the file was locked."""
EIGHTH = "version-8.tar.gz"
"""Made by the code before there was a ninth version: a run of llm spans with one reference, several, several ranges, a
quoted reference in a deeper object, and a member that looks like one; the index of that code beside it; and the journal
of a killed program, with a run in it that could not be registered while the file was locked."""
NINTH = "version-9.tar.gz"
"""Made by the code before there was a tenth version: an agent and its run by id, a recorded run; the index of that code
beside it; and the journal of a killed program, with a run in it that could not be registered while the file was
locked."""
FIRST = "version-1.tar.gz"
"""Made by the code before there was a second version: four runs with spans, a violation, keys, a rewritten run; and the
journal of a killed program, with a run in it that could not be registered while the file was locked."""

SECOND_JOURNAL = "journal-2.tar.gz"
"""Made by the code before there was a third form of journals: the journal of a killed program, with two runs in it that
could not be registered while the file was locked. Another program has made the agent of one of them since."""


def unpacked(folder: Path, name: str = FIRST) -> Path:
    """Unpack one of these archives into a folder, and return the path of its database."""
    with tarfile.open(FILES / name) as tar:
        tar.extractall(folder, filter="data")
    return folder / "runs.db"
