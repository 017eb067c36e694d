"""Installs a storage backend, as far as Python notices: a folder on the path with a distribution's entry points."""

from pathlib import Path

import pytest


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str, target: str) -> None:
    """Register `target`, a `module:function`, as the backend `name`, for this test; also in processes that it starts.

    Args:
        folder: an empty one.
    """
    info = folder / f"agentspan_{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: agentspan-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[agentspan.storages]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(folder))
