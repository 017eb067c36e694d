"""The commit of a run: that of the checkout in which its program runs, in whatever form git keeps it, else none."""

import os
import shutil
from pathlib import Path

import pytest

import agentspan
from agentspan.recording.git_commit import MAX_FOLDERS, MAX_PACKED, MAX_TEXT, checkout_around, commit_replaced
from agentspan.testing import CapturedRuns
from tests.recording.checkouts import checkout, git
from tests.recording.conftest import Program

COMMIT, OTHER = "ab" * 20, "cd" * 20
SCRIPT = """
import os, sys, agentspan
tracer = agentspan.Tracer(sys.argv[1], raise_errors=True)
with tracer.run("a"):
    pass
tracer.shutdown()
with agentspan.open(sys.argv[1], read_only=True) as db:
    print(*[run.git_commit for run in db.agent_instances.list()])
"""
needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def around(*folders: Path | str) -> str | None:
    found = checkout_around(map(str, folders))
    return None if found is None else found[1]


def test_every_storage_keeps_the_commit_with_which_a_run_begins(tracer: agentspan.Tracer) -> None:
    with commit_replaced(COMMIT), tracer.run("a") as run, tracer.span("tool", {"name": "x"}):
        pass
    with commit_replaced(None), tracer.run("b") as other:
        pass
    tracer.flush()
    db = agentspan.open(tracer.storage)
    assert db.agent_instances.get(run.id).git_commit == COMMIT
    assert db.agent_instances.get(other.id).git_commit is None
    assert len(CapturedRuns(tracer.storage)) == 2


def test_a_run_by_id_has_no_commit(db: agentspan.Database) -> None:
    with commit_replaced(COMMIT):
        assert db.agent_instances.register("a").git_commit is None


# Where a program runs


@pytest.mark.full
def test_the_folder_of_the_script_counts_before_the_working_directory(program: Program, tmp_path: Path) -> None:
    script = checkout(tmp_path / "code", main=COMMIT) / "below" / "agent.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    here = checkout(tmp_path / "here", main=OTHER)
    (tmp_path / "link.py").symlink_to(script)
    assert program(script, tmp_path / "1.db", cwd=here).strip() == COMMIT
    assert program(tmp_path / "link.py", tmp_path / "2.db", cwd=here).strip() == COMMIT
    shutil.copy(script, tmp_path / "moved.py")
    assert program(tmp_path / "moved.py", tmp_path / "3.db", cwd=here).strip() == OTHER
    assert program("-c", SCRIPT, tmp_path / "4.db", cwd=here).strip() == OTHER


@pytest.mark.full
def test_a_program_outside_any_checkout_records_no_commit(program: Program, tmp_path: Path) -> None:
    assert program("-c", SCRIPT, tmp_path / "runs.db", cwd=tmp_path).strip() == "None"


@pytest.mark.full
@pytest.mark.parametrize("script", ["lib/python3/site-packages/tool/__main__.py", "bin/tool"])
def test_a_script_of_an_environment_says_nothing_of_the_program(program: Program, tmp_path: Path, script: str) -> None:
    """As of `pytest`, whose environment is often in a checkout: of the program that pytest runs, or of another one."""
    environment = checkout(tmp_path / "code", main=COMMIT) / ".venv"
    path = environment / script
    path.parent.mkdir(parents=True)
    path.write_text(f"import sys; sys.executable = {str(environment / 'bin' / 'python')!r}\n{SCRIPT}")
    (tmp_path / "outside").mkdir()
    here = checkout(tmp_path / "here", main=OTHER)
    assert program(path, tmp_path / "1.db", cwd=tmp_path / "outside").strip() == "None"
    assert program(path, tmp_path / "2.db", cwd=here).strip() == OTHER


@pytest.mark.full
def test_a_program_whose_working_directory_was_removed_records(program: Program, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os, agentspan; os.rmdir({str(gone)!r})\n{SCRIPT}"
    assert program("-c", code, tmp_path / "runs.db", cwd=gone).strip() == "None"


@pytest.mark.full
def test_the_commit_is_looked_for_once_in_a_process_and_its_children_and_threads(
    program: Program, tmp_path: Path
) -> None:
    checkout(tmp_path, main=COMMIT)
    code = f"""
import os, sys, threading, agentspan
tracer = agentspan.Tracer(sys.argv[1], raise_errors=True)
def one(name):
    with tracer.run(name):
        pass
threads = [threading.Thread(target=one, args=(str(number),)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
open(".git/refs/heads/main", "w").write("{OTHER}")
os.chdir("/")
one("later")
child = os.fork()
if not child:
    one("child")
    tracer.shutdown()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
tracer.shutdown()
with agentspan.open(sys.argv[1], read_only=True) as db:
    runs = db.agent_instances.list()
    print(len(runs), *{{run.git_commit for run in runs}})
"""
    assert program("-W", "ignore", "-c", code, tmp_path / "runs.db", cwd=tmp_path).strip() == f"10 {COMMIT}"


# How git keeps it


@needs_git
def test_it_is_what_git_says_in_each_form_of_a_checkout(tmp_path: Path) -> None:
    main = tmp_path / "main"
    main.mkdir()
    git(main, "init", "-q")
    git(main, "symbolic-ref", "HEAD", "refs/heads/feature/a")
    assert around(main) is None  # before the first commit
    git(main, "commit", "-q", "--allow-empty", "-m", "one")
    first = git(main, "rev-parse", "HEAD")
    assert around(main) == first
    git(main, "worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    git(tmp_path / "tree", "commit", "-q", "--allow-empty", "-m", "two")
    (tmp_path / "tree" / "below").mkdir()
    second = git(tmp_path / "tree", "rev-parse", "HEAD")
    assert (around(tmp_path / "tree" / "below"), around(main)) == (second, first)
    git(main, "tag", "-a", "-m", "peeled", "v1")
    git(main, "pack-refs", "--all")
    assert not (main / ".git" / "refs" / "heads" / "other").exists()
    assert (around(tmp_path / "tree"), around(main)) == (second, first)
    git(main, "checkout", "-q", "--detach", second)
    assert around(main) == second
    git(main, "symbolic-ref", "refs/heads/alias", "refs/heads/other")
    git(main, "symbolic-ref", "HEAD", "refs/heads/alias")
    assert around(main) == second
    git(main, "submodule", "add", "-q", str(tmp_path / "tree"), "part")
    assert around(main / "part") == git(main / "part", "rev-parse", "HEAD")


def test_a_commit_of_sha_256_is_one(tmp_path: Path) -> None:
    assert around(checkout(tmp_path, head="ef" * 32)) == "ef" * 32


def test_a_branch_is_found_among_many_packed_ones(tmp_path: Path) -> None:
    checkout(tmp_path)
    many = "".join(f"{OTHER} refs/heads/main{number}\n^{OTHER}\n" for number in range(10_000))
    packed = tmp_path / ".git" / "packed-refs"
    packed.write_text(f"# pack-refs with: peeled fully-peeled sorted \n{many}{COMMIT} refs/heads/main\n")
    assert around(tmp_path) == COMMIT
    with packed.open("r+b") as file:
        file.write(b"#" * MAX_PACKED)
        file.write(f"\n{COMMIT} refs/heads/main\n".encode())
    assert around(tmp_path) is None


# Files that are not git's

ODD_HEADS: dict[str, bytes] = {
    "empty": b"",
    "binary": bytes(range(256)),
    "short": b"abcdef\n",
    "not hexadecimal": b"g" * 40,
    "two commits": f"{COMMIT}\n{COMMIT}\n".encode(),
    "long": COMMIT.encode() + b" " * MAX_TEXT,
    "a ref above": b"ref: refs/../../../secret\n",
    "a ref outside": b"ref: /etc/passwd\n",
    "a ref with a zero byte": b"ref: refs/heads/\0main\n",
    "a ref with a line break": b"ref: refs/heads/a\nb\n",
    "no ref": b"ref:",
    "a missing ref": b"ref: refs/heads/missing\n",
    "a ref that is a folder": b"ref: refs/heads\n",
    "a ref to itself": b"ref: refs/heads/loop\n",
    "a long ref": b"ref: refs/heads/" + b"x" * 1000 + b"\n",
}


@pytest.mark.parametrize("head", ODD_HEADS.values(), ids=ODD_HEADS)
def test_an_odd_head_is_no_commit(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "secret").write_text(COMMIT)
    assert around(checkout(tmp_path, head=head, loop="ref: refs/heads/loop\n")) is None


@pytest.mark.parametrize(
    "said", [b"", b"gitdir:", b"gitdir: nowhere\n", b"gitdir: a\0b\n", b"\xff" * 99, b"gitdir: " + b"x" * MAX_TEXT]
)
def test_an_odd_file_in_place_of_the_git_folder_is_no_commit_nor_that_of_a_checkout_above(
    tmp_path: Path, said: bytes
) -> None:
    below = checkout(tmp_path, main=COMMIT) / "below"
    below.mkdir()
    (below / ".git").write_bytes(said)
    assert (around(below), around(tmp_path)) == (None, COMMIT)


def test_a_folder_called_git_without_a_head_is_passed_over(tmp_path: Path) -> None:
    below = checkout(tmp_path, main=COMMIT) / "below"
    (below / ".git" / "HEAD").mkdir(parents=True)
    assert around(below) == COMMIT


def test_the_search_ends_after_so_many_folders(tmp_path: Path) -> None:
    deep = checkout(tmp_path, main=COMMIT).joinpath(*"a" * (MAX_FOLDERS - 1))
    (deep / "b").mkdir(parents=True)
    assert (around(deep), around(deep / "b")) == (COMMIT, None)


@pytest.mark.full
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
@pytest.mark.parametrize("name", [".git", ".git/HEAD", ".git/commondir", ".git/refs/heads/main", ".git/packed-refs"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(program: Program, tmp_path: Path, name: str) -> None:
    here = checkout(tmp_path / "here", main=COMMIT)
    if name == ".git":
        shutil.rmtree(here / name)
    (here / name).unlink(missing_ok=True)
    os.mkfifo(here / name)
    found = program("-c", SCRIPT, tmp_path / "runs.db", cwd=here).strip()
    assert found == (COMMIT if name in (".git/commondir", ".git/packed-refs") else "None")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user who is not root")
def test_files_that_may_not_be_read_are_no_commit(tmp_path: Path) -> None:
    checkout(tmp_path, main=COMMIT)
    (tmp_path / ".git" / "HEAD").chmod(0)
    assert around(tmp_path) is None


def test_folders_are_tried_in_their_order(tmp_path: Path) -> None:
    first, second = checkout(tmp_path / "1", main=COMMIT), checkout(tmp_path / "2", main=OTHER)
    broken = checkout(tmp_path / "3", head="")
    assert around(tmp_path, second, first) == OTHER
    assert around(broken, first) is None
    assert around(tmp_path / "missing", "a\0b", first) is None
    assert around() is None
