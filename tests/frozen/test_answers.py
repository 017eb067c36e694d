"""What the findings say about one file of runs: in a terminal, on pages and in a notebook, each frozen in a file.

A change of a word is meant, or a mistake; numbers and addresses of pages do not change when another file prints them.
"""

import gzip
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

import agentspan
from agentspan.serve import create_app
from tests.cli.calling import call
from tests.frozen import frozen
from tests.frozen.answers_story import FILE
from tests.serve.asgi import Client

NOW = "2026-11-22 12:00:00"
NONE = ("--agent", "nobody")
COMMANDS: Mapping[str, Sequence[Sequence[str]]] = {
    "cost": [("cost",), *[("cost", "--by", by) for by in ("day", "agent", "project", "tool", "version", "session")]],
    "versions": [("versions",), ("versions", "shop"), ("versions", "shop", "--cases"), ("versions", "shop", "--full")],
    "why": [("why",), ("why", "--outcome", "reward>=1"), ("why", "--agent", "clerk"), ("why", "-"), ("why", "FAILED")],
    "diff": [("diff", "shop@1.0", "shop@1.1"), ("diff", "shop@1.0", "shop@1.1", "--markdown"), ("diff", "FAILED", "-")],
    "search": [("search", "parcel"), ("search", "parcel", "--by-run"), ("search", "nothing")],
    "session": [("session", "conversation-3"), ("session", "nobody")],
    "stats": [("stats",), ("stats", "--by", "version"), ("stats", "--agent", "clerk")],
    "check": [
        ("check", "agent=shop version=1.1", "--config", "CONFIG"),
        ("check", "agent=shop version=1.1", "--config", "CONFIG", "--markdown"),
    ],
    "context": [("show", "-#1", "--context"), ("diff", "PASSED#4", "--context")],
}
PAGES = [
    "failures",
    "failures?outcome=reward>=1",
    "versions?agent=shop",
    "versions?agent=clerk",
    "compare?base=shop@1.0&head=shop@1.1",
    "cost",
    "cost?by=day",
    "cost?by=session",
    "search?q=parcel",
    "sessions/conversation-3",
    "compare?a=FAILED&b=PASSED",
    "answer.json",
]
UTC = "--utc"
NAMES = re.compile("FAILED|PASSED|CONFIG")
"""What stands in calls and addresses for what only the file knows."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the story."""
    folder = tmp_path_factory.mktemp("answers")
    lines = folder / "story.jsonl"
    lines.write_bytes(gzip.decompress(FILE.read_bytes()))
    assert call(folder / "story.db", "import", str(lines)).exit_code == 0
    with agentspan.open(folder / "empty.db"):
        return folder / "story.db"


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Freeze the time of day, in a zone that is not UTC."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    with freeze_time(NOW, ignore=["asyncio"]):
        yield
    monkeypatch.undo()
    time.tzset()


def placeholders(story: Path) -> dict[str, str]:
    """Return what stands for the last runs of shop that failed and passed, and for the settings of `check`."""
    config = story.with_name("check.toml")
    config.write_text(
        '[budget]\ncost_usd = 1\nerror_rate = 0.1\n[calls]\nrequired = ["track"]\n'
        '[baseline]\nfilter = "agent=shop version=1.0"\n'
    )
    with agentspan.open(story) as db:
        failed, passed = (db.runs(agent="shop", status=status).runs[0].run.id for status in ("failed", "complete"))
    return {"FAILED": failed, "PASSED": passed, "CONFIG": str(config)}


def said(db: Path, args: Sequence[str], columns: int = 80, *, colors: bool = False) -> str:
    """Return what a command prints, with the call above it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentspan.cli.output.colored", lambda: colors)
        done = call(db, *args, columns=columns)
    name = f"$ {' '.join(args)} · {db.stem}, {columns} columns{', colours' * colors}, exit {done.exit_code}"
    return f"{name}\n{done.output}".replace(str(db.parent), "/runs").replace("\x1b", "␛")


@pytest.mark.full
@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_says(story: Path, name: str) -> None:
    known, told = placeholders(story), []
    calls = [[NAMES.sub(lambda found: known[found[0]], each) for each in args] for args in COMMANDS[name]]
    for args in calls:
        told += [said(story, args, columns) for columns in (60, 80, 120)]
    args = calls[0]
    told += [said(story, args, colors=True), said(story, [*args, UTC]), said(story, [*args, *NONE])]
    told.append(said(story.with_name("empty.db"), args))
    frozen.check(f"answers/{name}.txt", "\n".join(told))


class Words(HTMLParser):
    """The words of a page, one text a line, with the address of each link."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.address: str | None = None
        self.hidden = 0
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden += tag in ("script", "style", "template")
        if tag == "a":
            self.address = dict(attrs).get("href")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("script", "style", "template")
        if tag == "a":
            self.address = None

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        if text and not self.hidden:
            self.lines.append(text if self.address is None else f"{text} → {self.address}")


@pytest.mark.full
def test_what_pages_say(story: Path) -> None:
    known, told = placeholders(story), []
    with Client(create_app(str(story))) as client:
        for page in PAGES:
            answer = client.get("/" + NAMES.sub(lambda found: known[found[0]], page))
            told += [f"== {page}: {answer.status_code}", *Words(answer.text).lines]
    frozen.check("answers/pages.txt", re.sub(r"\?v=\w+", "", "\n".join(told)) + "\n")
