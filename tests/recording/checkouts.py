"""Git checkouts for tests: made of their files, or by git."""

import os
import subprocess
from pathlib import Path


def checkout(folder: Path, head: bytes | str = "ref: refs/heads/main\n", **refs: str) -> Path:
    """Make the files of a checkout: a HEAD, and branches."""
    (folder / ".git" / "refs" / "heads").mkdir(parents=True)
    (folder / ".git" / "HEAD").write_bytes(head if isinstance(head, bytes) else head.encode())
    for name, text in refs.items():
        (folder / ".git" / "refs" / "heads" / name).write_text(text)
    return folder


def git(folder: Path, *args: str) -> str:
    who = ("-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "protocol.file.allow=always")
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    env = {name: value for name, value in env.items() if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")}
    done = subprocess.run(["git", *who, *args], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()
