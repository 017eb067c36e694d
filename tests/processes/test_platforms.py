"""Systems without what only Linux has: programs record by commits, without a journal. The system only looks so."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import json, os, platform, sys, sysconfig, urllib.request
sysconfig.get_config_vars()  # of the real system
sys.platform = "darwin"
for name in ("posix_fallocate", "memfd_create", "setxattr", "getxattr", "listxattr", "removexattr"):
    vars(os).pop(name, None)
for name in sys.argv[1:]:
    sys.modules[name] = None
import agentspan

@agentspan.span
def search(query):
    return [query]

with agentspan.run("elsewhere"):
    search("x")
forks = hasattr(os, "fork") and not sys.argv[1:]
if forks:
    child = os.fork()
    if not child:
        with agentspan.run("child"):
            search("y")
        agentspan.flush()
        os._exit(0)
    os.waitpid(child, 0)
from agentspan.cli import main
main(["doctor"], standalone_mode=False)
with agentspan.open(read_only=True) as db:
    runs = [(run.status, run.span_counts.complete) for run in db.agent_instances.list()]
print(json.dumps([agentspan.health().failed, runs, sorted(os.listdir())]))
"""


@pytest.mark.parametrize("hidden", [[], ["fcntl"]], ids=["macOS", "no fcntl"])
def test_where_no_journal_is_possible_programs_record_by_commits(hidden: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-W", "ignore:unclosed database", "-c", PROGRAM, *hidden]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    failed, runs, files = json.loads(done.stdout.splitlines()[-1])
    assert (failed, runs) == (0, [["complete", 1]] * (1 if hidden else 2))
    assert [name for name in files if not name.startswith("agentspan.db")] == []
    assert not any("journal" in name for name in files)
    assert done.stderr == ""
