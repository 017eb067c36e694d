"""Programs on other hosts, by their leases: which are dead, and what the doctor closes."""

from pathlib import Path

import pytest

import agentspan
from agentspan import DatabaseBusy, Tracer
from agentspan.journal import writers
from agentspan.journal.journal_folder import is_possible
from agentspan.journal.writers import Lives
from agentspan.model.rows import AgentInstanceRow
from agentspan.recording.tracer import recorder_of
from agentspan.storage.access import scan
from agentspan.storage.location import Location
from agentspan.storage.questions import ForgetNotes, Notes
from agentspan.storage.registry import open_direct

pytestmark = pytest.mark.skipif(not is_possible(), reason="needs a journal")


def left_open_elsewhere(location: Location, folder: Path, monkeypatch: pytest.MonkeyPatch, runs: int) -> list[str]:
    """Leave runs open, as the program of another host whose lease is over; return their ids."""
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "elsewhere")
        patch.setenv("XDG_STATE_HOME", str(folder))
        tracer = Tracer(location)
        begun = [tracer.run("far away").__enter__() for _ in range(runs)]
        assert tracer.flush(30)
        tracer.shutdown()
    storage = open_direct(location)
    writers.renew(storage, recorder_of(tracer).writer_id)
    storage.ask(ForgetNotes("lease/"))
    storage.close()
    return [run.id for run in begun]


def test_a_program_that_renewed_its_lease_meanwhile_counts_as_alive_again(
    postgres_location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_open_elsewhere(postgres_location, tmp_path, monkeypatch, 1)
    with agentspan.open(postgres_location) as db:
        storage = db.storage
        (run,) = scan(storage, AgentInstanceRow)
        writer_id = run.writer_id or ""
        lives = Lives(storage)
        assert lives.of(writer_id) == "dead"
        writers.renew(storage, writer_id)
        assert lives.of(writer_id) == "dead"  # each once: a page shows one state
        lives.look_again()
        assert lives.of(writer_id) == "unknown"
        assert db.doctor().runs[0].closed_run is False


def test_the_doctor_closes_what_no_other_program_has_locked(
    postgres_location: Location, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = left_open_elsewhere(postgres_location, tmp_path, monkeypatch, 2)
    url, _, schema = postgres_location.text.partition("?schema=")
    import psycopg

    with agentspan.open(postgres_location) as db:
        db._context.wait_s = 0.05
        with psycopg.connect(url, options=f"-c search_path={schema}") as locking:
            locking.execute("select 1 from agent_instances where id = %s for update", (first,))
            with pytest.raises(DatabaseBusy, match=first):
                db.doctor()
            statuses = {run.id: run.status for run in db.agent_instances.list()}
            assert statuses == {first: "active", second: "failed"}
        assert [(run.run.id, run.closed_run) for run in db.doctor().runs] == [(first, True)]


@pytest.mark.full
def test_a_program_that_records_by_commits_has_no_lease(
    postgres_location: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("platform.node", lambda: "elsewhere")
        tracer = Tracer(postgres_location, durability="commit")
        tracer.run("far away").__enter__()
    with agentspan.open(postgres_location) as db:
        assert db.storage.ask(Notes("lease/")) == {}
        assert [each.life for each in db.doctor(dead_hosts=["another"]).runs] == ["unknown"]
        assert [each.closed_run for each in db.doctor(dead_hosts=["elsewhere"]).runs] == [True]
    tracer.shutdown()
