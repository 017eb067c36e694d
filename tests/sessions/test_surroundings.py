"""What a session's file lacks comes from its folder: as it stands, else from git at that time."""

import json
import os
import subprocess
from pathlib import Path

import pytest

import agentspan
from agentspan import jsontext
from agentspan.api.context import Context
from agentspan.arriving.arrival import Arrival
from agentspan.sessions.importing import Importer
from agentspan.sessions.registry import formats
from agentspan.sessions.surroundings import NONE, Surroundings, surroundings
from tests.sessions.steps import Told, runs_of

SECOND = 10**9
BEGIN = 1_700_000_000
NOW = (BEGIN + 10**6) * SECOND


class Checkout:
    """A git repository in which each commit has a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, at: int = BEGIN) -> str:
        times = {"GIT_AUTHOR_DATE": f"{at} +0000", "GIT_COMMITTER_DATE": f"{at} +0000"}
        names = {f"GIT_{who}_{what}": "x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, **names, **times}
        done = subprocess.run(
            ["git", "-C", str(self.folder), *words], env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, at: int, **files: str) -> str:
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_md", ".md").replace("_claude", ".claude")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "x", at=at)
        return self.git("rev-parse", "HEAD")

    def at(self, seconds: int, **how: object) -> tuple[dict[str, str], str | None]:
        home = {"HOME": str(self.folder.parent / "home")}
        now_ns = how.pop("now_ns", NOW)
        assert isinstance(now_ns, int)
        return surroundings(str(self.folder), seconds * SECOND, now_ns=now_ns, environment=home, **how)  # type: ignore[arg-type]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "shop")


def test_an_older_session_has_what_git_had_at_its_start(checkout: Checkout) -> None:
    first = checkout.commit(BEGIN, CLAUDE_md="be brief")
    second = checkout.commit(BEGIN + 1000, CLAUDE_md="be kind")
    before, of_before = checkout.at(BEGIN + 10)
    after, of_after = checkout.at(BEGIN + 1010)
    assert (of_before, of_after) == (first, second)
    assert before["instructions"] != after["instructions"]
    assert before["project_skills"] == NONE
    assert checkout.at(BEGIN - 10) == ({}, None)


def test_a_session_that_starts_now_has_what_stands_there(checkout: Checkout) -> None:
    commit = checkout.commit(BEGIN, CLAUDE_md="be brief", _claude__skills__a__SKILL_md="a")
    older, _ = checkout.at(BEGIN + 10)
    parts, found = checkout.at(BEGIN + 100, now_ns=(BEGIN + 110) * SECOND)
    assert found == commit
    assert {name: parts[name] for name in older} == older
    assert NONE not in (parts["instructions"], parts["project_skills"])
    assert (parts["user_instructions"], parts["local_instructions"]) == (NONE, NONE)
    (checkout.folder / "CLAUDE.md").write_text("be kind")
    changed, _ = checkout.at(BEGIN + 100, now_ns=(BEGIN + 110) * SECOND)
    assert changed["instructions"] != parts["instructions"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_a_pipe_or_a_device_in_the_folder_is_not_read(checkout: Checkout) -> None:
    checkout.commit(BEGIN, CLAUDE_md="be brief", _claude__skills__a__SKILL_md="a", _claude__rules__a_md="a")
    os.mkfifo(checkout.folder / ".claude/skills/pipe")
    (checkout.folder / ".claude/rules/zeros").symlink_to("/dev/zero")
    found, _ = checkout.at(BEGIN, now_ns=(BEGIN + 1) * SECOND)
    assert not {"instructions", "project_skills"} & found.keys()
    assert found["settings"] == NONE


def test_the_users_own_files_are_parts_of_their_own(checkout: Checkout) -> None:
    checkout.commit(BEGIN, CLAUDE_md="be brief")
    own = checkout.folder.parent / "home" / ".claude"
    own.mkdir(parents=True)
    now_ns = (BEGIN + 110) * SECOND
    before, _ = checkout.at(BEGIN + 100, now_ns=now_ns)
    (own / "CLAUDE.md").write_text("always test")
    after, _ = checkout.at(BEGIN + 100, now_ns=now_ns)
    assert {name for name in after if before[name] != after[name]} == {"user_instructions"}


def test_a_file_that_git_never_had_is_unknown(checkout: Checkout) -> None:
    checkout.commit(BEGIN, README_md="x")
    (checkout.folder / "CLAUDE.md").write_text("mine")
    parts, commit = checkout.at(BEGIN + 10)
    assert "instructions" not in parts
    assert commit is not None


def test_the_branch_of_the_session_counts(checkout: Checkout) -> None:
    checkout.commit(BEGIN, CLAUDE_md="be brief")
    checkout.git("checkout", "-q", "-b", "other")
    other = checkout.commit(BEGIN + 10, CLAUDE_md="be kind")
    checkout.git("checkout", "-q", "main")
    assert checkout.at(BEGIN + 20, branch="other")[1] == other
    assert checkout.at(BEGIN + 20, branch="gone") == ({}, None)
    assert checkout.at(BEGIN + 20)[1] != other


def test_a_folder_that_is_gone_or_no_checkout_is_unknown(tmp_path: Path) -> None:
    assert surroundings(str(tmp_path / "gone"), BEGIN * SECOND, now_ns=NOW) == ({}, None)
    assert surroundings("relative", BEGIN * SECOND, now_ns=NOW) == ({}, None)
    (tmp_path / "CLAUDE.md").write_text("x")
    assert surroundings(str(tmp_path), BEGIN * SECOND, now_ns=NOW) == ({}, None)


def test_nothing_of_the_repository_is_executed(checkout: Checkout) -> None:
    checkout.commit(BEGIN, CLAUDE_md="be brief")
    mark = checkout.folder.parent / "executed"
    program = checkout.folder / "program.sh"
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    for name in ("core.fsmonitor", "core.pager", "core.sshCommand", "gpg.program", "diff.external"):
        checkout.git("config", name, str(program))
    checkout.git("config", "log.showSignature", "true")
    parts, commit = checkout.at(BEGIN + 10)
    assert commit is not None
    assert "instructions" in parts
    checkout.at(BEGIN + 100, now_ns=(BEGIN + 110) * SECOND)
    assert not mark.exists()


def told_in(checkout: Checkout, **facts: object) -> Told:
    metadata = {"cwd": str(checkout.folder)}
    told = Told("s1", started_ns=(BEGIN + 10) * SECOND, metadata=metadata, outcome="answered", **facts)
    told.ask("go")
    return told


def test_a_run_keeps_what_was_found_when_it_was_stored(checkout: Checkout, tmp_path: Path) -> None:
    checkout.commit(BEGIN, CLAUDE_md="be brief")
    told = told_in(checkout, fingerprint={"model": "m"})
    with agentspan.open(tmp_path / "a.db") as database:

        def stored(arrival: Arrival) -> dict[str, str]:
            arrival.take("claude", told.records())
            arrival.finish(live=False)
            metadata = jsontext.decode(runs_of(database)[0].metadata or "{}")
            parts: dict[str, str] = metadata["fingerprint"]["parts"]
            return parts

        ctx = Context(database.storage)
        first = stored(Arrival(ctx, surroundings=Surroundings(lambda: NOW).of))
        assert first.keys() == {"model", "instructions", "project_skills", "settings"}
        assert runs_of(database)[0].git_commit == checkout.git("rev-parse", "HEAD")
        checkout.git("checkout", "-q", "--orphan", "fresh")
        checkout.commit(BEGIN, CLAUDE_md="rewritten")
        assert stored(Arrival(ctx, surroundings=Surroundings(lambda: NOW).of)) == first
        assert stored(Arrival(ctx)) == first


def test_formats_that_have_their_instructions_are_left_alone(checkout: Checkout) -> None:
    checkout.commit(BEGIN, CLAUDE_md="be brief")
    find = Surroundings(lambda: NOW)
    assert find.of("codex", told_in(checkout).session) == ({}, None)
    assert find.of("claude", told_in(checkout, fingerprint={"instructions": "1"}).session) == ({}, None)
    assert find.of("claude", told_in(checkout).session)[0]


def test_an_imported_session_of_claude_code_has_them(checkout: Checkout, tmp_path: Path) -> None:
    commit = checkout.commit(BEGIN, CLAUDE_md="be brief")
    id = "11111111-2222-4333-8444-555555555555"
    facts = {
        "sessionId": id, "cwd": str(checkout.folder), "gitBranch": "main", "version": "2.1.0", "uuid": "u1",
        "parentUuid": None, "isSidechain": False, "timestamp": "2023-11-14T22:15:00.000Z",
    }  # fmt: skip
    file = tmp_path / "projects" / "shop" / f"{id}.jsonl"
    file.parent.mkdir(parents=True)
    record = {"type": "user", "message": {"role": "user", "content": "go"}, **facts}
    file.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    with agentspan.open(tmp_path / "a.db") as database:
        format = formats()["claude"]
        importer = Importer(Context(database.storage), {"claude": format}, now=lambda: NOW)
        for source in format.sources(tmp_path / "projects"):
            importer.import_source(source)
        (run,) = runs_of(database)
    assert run.git_commit == commit
    assert "instructions" in jsontext.decode(run.metadata or "{}")["fingerprint"]["parts"]
