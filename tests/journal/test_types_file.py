"""The file of span types beside a journal: it has the newest ones, whichever thread writes it last."""

from pathlib import Path

from agentspan.journal.spool import types_of
from agentspan.recording.sinks.journal_work import TypesFile

WRITER = "0" * 26


def test_a_thread_that_was_overtaken_does_not_leave_older_types(tmp_path: Path) -> None:
    known = ['[{"name":"older"}]']

    def late_types() -> str:
        found = known[0]
        if len(known) == 1:  # another thread registers a type, and writes the file, before this one does
            known.insert(0, '[{"name":"newer"}]')
            files.write()
        return found

    files = TypesFile(tmp_path, lambda: WRITER, late_types)
    files.write()
    assert types_of(tmp_path, WRITER) == '[{"name":"newer"}]'
