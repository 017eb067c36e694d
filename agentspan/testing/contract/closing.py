"""Contract of a storage: after closing, no method of a capability does anything."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from agentspan.errors import StorageError
from agentspan.storage.analytics import RunFilter
from agentspan.storage.protocol import Storage
from agentspan.storage.transfer import KeyRow
from agentspan.testing.contract.base import Base

CALLS: Mapping[str, Mapping[str, Callable[[Any, str, Path], object]]] = {
    "groups": {"group": lambda groups, run, path: groups.group(lambda group: None, 1.0)},
    "removal": {
        "remove_runs": lambda removal, run, path: removal.remove_runs([run], 1.0),
        "remove_keys": lambda removal, run, path: removal.remove_keys("2", 1.0),
        "remove_keys, dry": lambda removal, run, path: removal.remove_keys("2", 1.0, dry_run=True),
    },
    "outlines": {"outlines": lambda outlines, run, path: outlines.outlines(run)},
    "scores": {
        "newest_scores": lambda scores, run, path: scores.newest_scores([run]),
        "latest_scores": lambda scores, run, path: scores.latest_scores("reward"),
        "tags": lambda scores, run, path: scores.tags([run]),
    },
    "sums": {"sums": lambda sums, run, path: sums.sums(run)},
    "analytics": {
        "find_runs": lambda analytics, run, path: analytics.find_runs(RunFilter(), limit=1, offset=0),
        "run_briefs": lambda analytics, run, path: analytics.run_briefs(RunFilter()),
        "span_stats": lambda analytics, run, path: analytics.span_stats(since=None, until=None),
        "failure_sums": lambda analytics, run, path: analytics.failure_sums(["a"]),
        "step_uses": lambda analytics, run, path: analytics.step_uses(["a"]),
        "run_sums": lambda analytics, run, path: analytics.run_sums([run]),
        "search_spans": lambda analytics, run, path: analytics.search_spans(["a"], limit=1, offset=0, progress=None),
    },
    "check": {"check": lambda check, run, path: check.check()},
    "waiting": {"wait_at_most": lambda waiting, run, path: waiting.wait_at_most(1.0)},
    "file": {
        "used_bytes": lambda file, run, path: file.used_bytes(),
        "file_bytes": lambda file, run, path: file.file_bytes(),
        "compact": lambda file, run, path: file.compact(1.0),
    },
    "transfer": {
        "span_marks": lambda transfer, run, path: transfer.span_marks([run]),
        "keys": lambda transfer, run, path: transfer.keys(),
        "put_keys": lambda transfer, run, path: transfer.put_keys([KeyRow("a", "b", "c", run, "2")], 1.0),
    },
    "changes": {"changed": lambda changes, run, path: changes.changed(run, "")},
    "notes": {
        "notes": lambda notes, run, path: notes.notes("a"),
        "note": lambda notes, run, path: notes.note("a", "b"),
        "count_notes": lambda notes, run, path: notes.count_notes("a"),
        "forget_notes": lambda notes, run, path: notes.forget_notes("a"),
    },
    "backup": {"backup": lambda backup, run, path: backup.backup(path)},
    "sql": {"select": lambda sql, run, path: sql.select("select 1")},
}
"""For each capability its methods, which are given what provides it, the id of a run, and a path without a file."""


class Closing(Base):
    """Contract: each capability, after closing."""

    def test_what_a_closed_storage_claims_says_that_it_is_closed(self, storage: Storage) -> None:
        """Every method raises StorageError, whose message says so, and a backup leaves no file."""
        can = storage.capabilities()
        claimed = {name: provider for name in CALLS if (provider := getattr(can, name)) is not None}
        if not claimed:
            pytest.skip(f"the storage {can.backend!r} claims no capability with methods")
        run = self.instance(storage)
        storage.close()
        with TemporaryDirectory() as folder:
            path = Path(folder) / "copy"
            said = {
                f"{name}: {method}": _said(lambda call=call, provider=provider: call(provider, run.id, path))  # type: ignore[misc]
                for name, provider in claimed.items()
                for method, call in CALLS[name].items()
            }
            assert {method: text for method, text in said.items() if "open it again" not in text} == {}
            assert not list(Path(folder).iterdir())


def _said(call: Callable[[], object]) -> str:
    """Return the message of the StorageError that a call raises; empty where it raises none."""
    try:
        call()
    except StorageError as error:
        return str(error)
    return ""
