"""`agentspan demo`: a small real agent that looks around in the current folder. No model, no network; real steps."""

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import click

from agentspan.cli import show
from agentspan.cli.output import argument, document, safe, to_copy
from agentspan.database import open as open_database
from agentspan.recording.tracer import Tracer
from agentspan.storage.location import DEFAULT, Location, parse

MAX_FILES = 2000
MAX_BYTES = 200_000
SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "site-packages", "dist", "build"})
TEXT = frozenset({".md", ".py", ".txt", ".rst", ".toml", ".cfg", ".ini", ".js", ".ts", ".go", ".rs", ".c", ".h", ".sh"})
PATTERNS = ("TODO", "FIXME")
USUAL_FILES = ("CONTRIBUTING.md", "TODO.md", "NOTES.md", "docs/architecture.md", "a-file-that-nobody-has.md")
WORD = re.compile(r"[A-Za-z]{4,}")


class FolderAgent:
    """Finds out what a folder is about: plans, lists, greps, reads, and answers."""

    def __init__(self, tracer: Tracer, folder: Path) -> None:
        self.folder = folder
        self.tracer = tracer
        self.plan = tracer.span("chain")(self.plan)  # type: ignore[method-assign]
        self.list_files = tracer.span("tool")(self.list_files)  # type: ignore[method-assign]
        self.read_file = tracer.span("tool")(self.read_file)  # type: ignore[method-assign]

    def plan(self, goal: str) -> list[str]:
        """Decide on the steps."""
        return ["list the files", f"grep for {', '.join(PATTERNS)}", "read what explains the folder", "answer"]

    def list_files(self, limit: int) -> list[str]:
        """Return the text files of the folder, hidden ones and generated folders left out."""
        found: list[str] = []
        for root, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
            names = sorted(name for name in files if Path(name).suffix in TEXT and not name.startswith("."))
            found.extend(os.path.relpath(os.path.join(root, name), self.folder) for name in names)
            if len(found) >= limit:
                break
        return found[:limit]

    def read_file(self, path: str) -> str:
        """Return the beginning of a file."""
        with open(self.folder / path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_BYTES)

    def grep(self, word: str, files: list[str]) -> list[dict[str, Any]]:
        """Find the lines with a word."""
        payload = {"query": word, "source": f"{len(files)} files"}
        with self.tracer.span("retrieval", payload) as span:
            hits = []
            for path in files:
                try:
                    text = (self.folder / path).read_text(encoding="utf-8", errors="replace")[:MAX_BYTES]
                except OSError:
                    continue
                lines = enumerate(text.splitlines(), start=1)
                hits += [
                    {"path": path, "line": number, "text": line.strip()[:120]} for number, line in lines if word in line
                ]
            span.set_result({"documents": hits[:20], "count": len(hits)})
        return hits

    def run(self) -> str:
        """Do all of it, as one recorded run; return the answer."""
        goal = f"say what the folder {self.folder.name or self.folder} is about"
        with self.tracer.run("folder-agent", version="1.0", metadata={"folder": self.folder.name}) as run:
            with self.tracer.span("agent", {"name": "folder-agent", "goal": goal}) as span:
                steps = self.plan(goal)
                ranking = run.create_span("rerank", {"query": goal, "model": "by number of hits"})
                files = self.list_files(MAX_FILES)
                hits = [hit for word in PATTERNS for hit in self.grep(word, files)]
                if len(hits) < 1000:
                    ranking.cancel()  # few enough to look at all of them
                else:
                    ranking.start()
                    ranking.finish(result_payload={"count": 10})
                answer = self.answer(files, len(hits))
                span.set_result({"output": answer, "steps": len(steps)})
            run.set_result({"output": answer})
        return answer

    def answer(self, files: list[str], hits: int) -> str:
        """Read a few files, one of which is not there, and put what they say in a sentence."""
        guess = next(name for name in USUAL_FILES if not (self.folder / name).exists())
        try:
            self.read_file(guess)  # agents guess; this one is wrong
        except OSError:
            pass
        words: Counter[str] = Counter()
        for path in sorted(files, key=_explains)[:3]:
            try:
                words.update(word.lower() for word in WORD.findall(self.read_file(path)))
            except OSError:
                continue
        common = ", ".join(word for word, _ in words.most_common(3)) or "nothing that is written down"
        text = f"{len(files)} text files about {common}; {hits} notes to self in them"
        with self.tracer.span("message", {"role": "assistant", "content": text}):
            return text


def _explains(path: str) -> tuple[bool, int, str]:
    return (not path.lower().startswith("readme"), path.count(os.sep), path)


def command(db: Location, *, as_json: bool) -> None:
    """Record the agent in `db`, show the run, and say what to try next."""
    tracer = Tracer(db, raise_errors=True, enabled=True)
    try:
        FolderAgent(tracer, Path.cwd()).run()
    finally:
        tracer.shutdown()
    with open_database(db, read_only=True) as database:
        if as_json:
            run = database.agent_instances.list(sorting="-id", page_size=1)[0]
            document({"db": str(db), "run": run.model_dump(mode="json")})
            return
        show.command(database, "-", as_json=False)
    named = None if db == parse(DEFAULT) else db
    click.echo(f"\nRecorded in {safe(str(db))}. Try next:")
    hints = {
        to_copy("runs", db=named): "the runs of the file",
        to_copy("show", "-", db=named): "this tree again; - is the latest run",
        to_copy("show", "-", "--json", db=named): "everything about it",
    }
    for hint, meaning in hints.items():
        click.echo(f"  {hint:<{max(map(len, hints))}}  {meaning}")
    if db.path is not None:
        click.echo(f'  sqlite3 {argument(db)} "select status, summary, duration_ms from spans"')
