"""A power failure: the bytes of a disk as they are at a moment, without what the system has not written to it."""

import filecmp
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan.storage.questions import Damage
from tests.tiers import longer
from tests.waiting import until

PROGRAM = """
import sys, time, agentspan
agentspan.configure(sys.argv[1], durability=sys.argv[2], sync_every_s=0.2)
while True:
    with agentspan.run("r"):
        for _ in range(50):
            with agentspan.span("tool", {"name": "x", "text": "y" * 300}) as span:
                pass
            print(span.id, time.time(), flush=True)
            time.sleep(0.005)
"""
SECONDS = [3.0, 0.3, 1.0, 6.0][: longer("AGENTSPAN_TEST_POWER", 1, 2, 4)]


class Disk:
    """A file system in a file, mounted in a folder."""

    def __init__(self, image: Path, folder: Path) -> None:
        self.image, self.folder = image, folder
        folder.mkdir()

    def mount(self) -> None:
        done = subprocess.run(["mount", "-o", "loop", self.image, self.folder], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("needs a user who may mount file systems")

    def unmount(self) -> None:
        subprocess.run(["umount", self.folder], check=False, capture_output=True)

    def copied_to(self, image: Path) -> bool:
        """Whether the copy has the bytes of one moment: read once more after the copying, the disk is the same.

        A copy with blocks of two moments shows what no power failure leaves: a file of before a checkpoint, say, with
        the log of after it.
        """
        shutil.copyfile(self.image, image)
        return filecmp.cmp(self.image, image, shallow=False)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[tuple[Disk, Disk]]:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(60 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    both = Disk(image, tmp_path / "before"), Disk(tmp_path / "copy", tmp_path / "after")
    yield both
    for disk in both:
        disk.unmount()


@pytest.mark.full
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("durability", ["journal", "commit"])
def test_what_was_recorded_a_while_before_a_power_failure_is_there(
    disks: tuple[Disk, Disk], durability: Any, seconds: float
) -> None:
    """Synced each 0.2 s: of what is two seconds old, nothing is missing. The file is sound, and nothing is damaged."""
    before, after = disks
    before.mount()
    arguments = [sys.executable, "-c", PROGRAM, str(before.folder / "runs.db"), durability]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline()]
        end = time.time() + seconds
        while time.time() < end:
            said.append(process.stdout.readline())
        failed_at = time.time()
        process.send_signal(signal.SIGSTOP)
        try:
            until(lambda: before.copied_to(after.image))
        finally:
            process.kill()
    after.mount()
    path = after.folder / "runs.db"
    with agentspan.open(path) as db:
        report = db.doctor()
        found = {span.id for run in db.agent_instances.list() for span in db.agent_spans.list(run.id)}
        assert db.storage.ask(Damage()) == []
    old = {id for id, at in map(str.split, said) if float(at) < failed_at - 2.0}
    assert old - found == set()
    assert bool(old) == (seconds > 2)
    assert [row.why for row in report.refused if row.why == "damaged"] == []
