"""The life of a run in the recorded program: registered, terminated from outside, finished.

An argument of a run that cannot be read causes a fault and does not stop the run. The module remembers the latest runs
of this process, so that a test tool can find the runs of one test. Remembering is always on, because a test may import
agentspan only while it runs, when it is too late for a tool to subscribe.
"""

import itertools
import os
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextvars import ContextVar
from itertools import islice
from typing import Any, Literal, NamedTuple, cast

from agentspan import clock, host
from agentspan.errors import BudgetExceeded, InvalidValue, StorageError
from agentspan.host import page
from agentspan.model import instances
from agentspan.model.changes import OPEN, FinishStatus, Purpose, Unit, unit_of
from agentspan.model.registration import DEFAULT, MAX_TAGS, Registration, VersionFields, check_purpose
from agentspan.model.rows import AgentInstanceRow, Value
from agentspan.model.spans import Times, check_finish, finish_times
from agentspan.recording.budgets import NAME, Budget, from_environment, is_in_front, plain_of, stored_in
from agentspan.recording.capture.repeats import Repeats
from agentspan.recording.destination import Registered, refer, register, stored_run
from agentspan.recording.git_commit import git_commit, git_dirty
from agentspan.recording.recorder import Recorder
from agentspan.recording.sinks.facts import RunFacts
from agentspan.recording.spending import Spending
from agentspan.schemas.span_types import MAX_NAME
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find
from agentspan.text import one_line

origin: ContextVar[Mapping[str, str] | None] = ContextVar("agentspan_origin", default=None)
"""The `origin` for the metadata of runs that begin in this context, or None."""


def with_origin(metadata: Mapping[str, Any] | None, found: Mapping[str, str] | None) -> Mapping[str, Any] | None:
    """Return the metadata of a run with `found` as its origin, unless the program has set an `origin` itself."""
    return metadata if found is None else {"origin": dict(found), **(metadata or {})}


TEST = "AGENTSPAN_TEST"
"""The variable with the node id of the running test, set by the pytest plugin; programs that it starts inherit it."""


def test_of(recorder: Recorder) -> str | None:
    """Return the node id of the running test; None outside of tests, and for runs in memory, which a test examines."""
    location = recorder.location
    return None if location is None or location.scheme == "memory" else os.environ.get(TEST)


MOST = 1000
"""The number of runs that are remembered: 150 bytes each."""


class Began(NamedTuple):
    """A run that began in this process.

    Attributes:
        number: counts the runs of this process, from 0.
        recorder: a weak reference to the recorder of the run.
        run_id: the agent instance's PFID.
    """

    number: int
    recorder: "weakref.ref[Recorder]"
    run_id: str


_latest: deque[Began] = deque(maxlen=MOST)
_numbers = itertools.count()


def note(recorder: Recorder, run_id: str) -> None:
    """Remember a run that has begun."""
    _latest.append(Began(next(_numbers), weakref.ref(recorder), run_id))


def last_number() -> int:
    """Return the number of the latest run of this process; -1 if no run began."""
    return _latest[-1].number if _latest else -1


def began_after(number: int) -> list[Began]:
    """Return the runs with a higher number than `number`, the earliest first; at most the latest 1,000."""
    return [each for each in list(_latest) if each.number > number]


on_begin: "list[Callable[[RunState], None]]" = []
"""Functions that receive each run before it is registered; for the pytest plugin (one test at a time) and evaluate."""


def text_of(recorder: Recorder, value: Any) -> str | None:
    """Return a name or version as one line of text; None for None, or for an object whose `str` raises."""
    if value is not None:
        with recorder.faults.adding(reraise=False):
            return one_line(recorder.capture.text(str(value)), MAX_NAME)
    return None


def tags_of(recorder: Recorder, tags: Any) -> tuple[str, ...]:
    """Return the texts of tags without duplicates. If the iteration fails, count a fault and return no tags."""
    if tags is None:
        return ()
    found: list[str | None] = []
    with recorder.faults.adding(reraise=False):
        found += [text_of(recorder, tag) for tag in islice([tags] if type(tags) is str else tags, MAX_TAGS)]
    return tuple(dict.fromkeys(tag for tag in found if tag))


def purpose_of(recorder: Recorder, purpose: Any) -> Purpose:
    """Return the purpose. For an unknown one, count a fault and return `live`."""
    if type(purpose) is not str:
        return "live"
    try:
        check_purpose(purpose)
    except InvalidValue as error:
        recorder.faults.add(error)
        return "live"
    return cast(Purpose, purpose)


class Known(NamedTuple):
    """The facts of a run that another tracing library began.

    Attributes:
        id: the agent instance's PFID, derived from `key`.
        key: the agent instance's external_identifier.
        started_ns: the time of the begin, in ns since the epoch.
    """

    id: str
    key: str
    started_ns: int


class RunState(RunFacts):
    """The state of one run, and its transitions. The program holds a `Run`, its face; the context holds the state.

    Args:
        on_terminate: "raise", or a function called when the run is terminated (see agentspan.run).
        budget: the most that the run may use (see agentspan.run).

    Attributes:
        outer: the span or run around this run in the context.
        face: the Run that the program holds, until its block is left.
        result_members, error_members: the members of the result, or of the error, that were set so far.
        on_terminate: as the argument of this name.
        is_taken_over: whether the run was stored already when it began in this process.
        in_evaluation: whether its purpose, or that of a run around it, is `eval`.
        spending: the sums of the run, or of the run around it, for a budget; None without one.
        repeats: the lists that were captured in the payloads of the run's spans.
    """

    def __init__(
        self,
        recorder: Recorder,
        name: str,
        *,
        version: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        purpose: Purpose = "live",
        session: str | None = None,
        user: str | None = None,
        task: str | None = None,
        tags: Collection[str] | None = None,
        on_terminate: Literal["raise"] | Callable[[Any], object] | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.recorder = recorder
        self.name = name
        self.termination_reason = None  # here, too: each call looks, and a default of the class takes longer to find
        self.spending: Spending | None = None
        self._budget = budget
        self.outer: Any = None
        self.face: Any = None
        self.on_terminate = on_terminate
        self._version = version
        self._metadata = metadata
        self._origin: Mapping[str, str] | None = None
        self._purpose: Purpose = purpose
        self._about = (session, user, task)
        self._tags = tags
        self._writer_id = ""
        self._has_notified = False
        self._key: str | None = None
        self._named: tuple[str, str] | None = None  # the registered names: agent, version
        self._is_renamed = False
        self.is_taken_over = self.in_evaluation = False
        self._is_left = False
        self.result_members: dict[str, Any] | None = None
        self.error_members: dict[str, Any] | None = None
        self._began_ns = 0
        self.repeats = Repeats(recorder.tuning.repeated_elements_bytes)

    def goes_on(self) -> bool:
        """Return whether a new span may begin in this run: it is open, or terminated and its block has not ended."""
        return self.status in OPEN or (self.status == "terminated" and not self._is_left)

    def begin(self, known: Known | None = None, *, since: tuple[str, int] | None = None) -> None:
        """Register the run as active. A run that another library began is taken over if it is stored already.

        Args:
            since: the time at which the run began, as stored text and as that of the monotonic clock; now if None.
        """
        if not page[0]:
            host.renew()
        recorder = self.recorder
        self._writer_id = recorder.writer_id
        self._origin = origin.get() if known is None else None
        self.status = "active"
        if not recorder.enabled:
            return
        with recorder.faults.losing():
            for each in on_begin:
                each(self)
            around = self._spending_around()
            self._begin(known, clock.now() if since is None else since[0])
            if self.spending is not None and self.is_taken_over:
                self.spending.take_over(self.id)
            elif around is not None:
                around.join(self.id)
            note(recorder, self.id)
            assert recorder.sink is not None
            recorder.sink.watch()
        self._began_ns = clock.monotonic_ns() if since is None else since[1]

    @property
    def version(self) -> str | None:
        """The version of the agent; None without one."""
        return self._version

    def become_trial(
        self, case: str | None, metadata: Mapping[str, Any], *, name: str | None = None, version: str | None = None
    ) -> None:
        """Make the run a trial, before it is registered: set its purpose, and add to its metadata.

        Args:
            case, name, version: the task, and the name and version of the agent, instead of the program's; None leaves
                those.
        """
        self.name, self._version = name or self.name, version or self._version
        self._purpose, self._about = "eval", (*self._about[:2], case or self._about[2])
        own = self._metadata if isinstance(self._metadata, Mapping) else {}
        self._metadata = {**own, **metadata}

    def _spending_around(self) -> Spending | None:
        """Begin the sums of the run, if it has a budget; return those of the run around it, if that has one."""
        recorder = self.recorder
        node = recorder.innermost()
        outer = None if node is None else getattr(node, "run", node)
        around: Spending | None = None if outer is None else outer.spending
        self.in_evaluation = self._purpose == "eval" or getattr(outer, "in_evaluation", False)
        budget = self._budget or (None if around is not None else recorder.settings.budget or from_environment())
        if budget is not None and budget.on_spent == "pause" and self.in_evaluation and not is_in_front():
            budget = budget._replace(on_spent="raise")  # nobody looks at a trial: it would wait for ever
        self.spending = around if budget is None else Spending(self, budget, around)
        return around

    def _begin(self, known: Known | None, started_at: str) -> None:
        recorder = self.recorder
        recorder.make_writer_known()
        self.stored_in = recorder.destination.identity()  # first: the file may be replaced before the run is stored
        if known is not None:
            self._begin_known(known, recorder.in_time())
        elif recorder.destination.is_journaled or recorder.is_waiting:
            self._append_registration(None, started_at)
        else:
            self._register_now(recorder.in_time(), started_at)

    def _register_now(self, storage: Storage, started_at: str) -> None:
        """Register the run in the storage; if the storage cannot be read, behind the units that wait in memory."""
        try:
            done = self._register(storage, None, started_at)
        except StorageError as error:
            return self._append_registration(None, started_at, error)
        self._registered(done)

    def _append_registration(self, id: str | None, started_at: str, error: StorageError | None = None) -> None:
        """Register the run by a journal record, or behind the units that wait in memory. The storage is not read.

        Args:
            error: the error of the storage in this call. A server without a journal is not tried again in the call.
        """
        recorder = self.recorder
        wanted = self._wanted(id, started_at)
        unit, row = recorder.unread.registration(wanted, recorder.ids.new)
        self._named = (wanted.agent, wanted.version.external_identifier)
        # Set before the record is appended, because the drain thread may register the run at once.
        self.registered_row, self.id = row, row.id
        recorder.runs.add(self)
        recorder.runs.unconfirmed[row.id] = unit
        if error is not None and recorder.destination.is_remote and not recorder.destination.is_journaled:
            recorder.put_aside(unit, error)
        else:
            recorder.out.register(unit)

    def _registered(self, done: Registered) -> None:
        self.registered_row, self.id = done.instance, done.instance.id
        self.recorder.runs.add(self)
        if done.is_stored and self.recorder.sink is not None:
            self.recorder.sink.count_recorded()
            self.recorder.follow_file()

    def _begin_known(self, known: Known, storage: Storage) -> None:
        """Register a run that another program may have stored already. If the storage cannot be read, append it."""
        recorder, started_at = self.recorder, clock.to_text(known.started_ns)
        destination = recorder.destination
        failed: StorageError | None = None
        try:
            if not (destination.is_remote and (destination.is_journaled or recorder.is_waiting)):
                stored = stored_run(storage, text_of(recorder, self.name) or DEFAULT, known.id, known.key)
                if stored is not None:
                    self.is_taken_over = True
                    return self._registered(Registered(stored, is_stored=False))
                self._key = known.key
                if not recorder.is_waiting:
                    return self._registered(self._register(storage, known.id, started_at))
        except StorageError as error:
            if not destination.is_journaled and not destination.is_remote:
                raise
            failed = error
        self._key = known.key
        self._append_registration(known.id, started_at, failed)

    def _register(self, storage: Storage, id: str | None, started_at: str) -> Registered:
        recorder = self.recorder
        wanted = self._wanted(id, started_at)
        wait_s = recorder.tuning.recording_wait_s
        return register(storage, wanted, recorder.ids.new, recorder.put_aside, wait_s=wait_s)

    def _wanted(self, id: str | None, started_at: str) -> Registration:
        recorder = self.recorder
        members = with_origin(self._metadata, self._origin)
        session, user, task = self._about
        if (test := test_of(recorder)) is not None:
            members, task = {"test": test, **(members or {})}, test if task is None else task
        members = self._with_budget(members)
        metadata = None if members is None else recorder.capture.object(members)
        version = None if self._version is None else text_of(recorder, self._version)
        session, user, task = (None if each is None else text_of(recorder, each) for each in (session, user, task))
        return Registration(
            id or recorder.ids.new(),
            text_of(recorder, self.name) or DEFAULT,
            VersionFields(version or DEFAULT),
            recorder.types.content(),
            purpose_of(recorder, self._purpose),
            metadata,
            started_at=started_at,
            writer_id=recorder.writer_id,
            minted=id is None,
            external_identifier=self._key,
            git_commit=git_commit() if self.registered_row is None else self.registered_row.git_commit,
            session=session,
            user=user,
            task=task,
            tags=tags_of(recorder, self._tags),
            git_dirty=git_dirty(),
        )

    def _with_budget(self, metadata: Any) -> Any:
        """Return metadata with the budget of the run, or the id of the run around it that has one."""
        spending = self.spending
        if spending is None:
            return metadata
        return {NAME: plain_of(spending.budget) if spending.is_of(self) else {"of": spending.id}, **(metadata or {})}

    def take_over(self, instance: AgentInstanceRow) -> None:
        """Represent a run that another process began and will finish, so that spans of this process belong to it."""
        self.registered_row = instance
        self.id, self.status = instance.id, "active"
        self.stored_in = self.recorder.destination.identity()
        stored = stored_in(instance.metadata)
        if stored is not None:
            self.spending = Spending(self, stored.budget)
            self.spending.take_over(stored.of or self.id)
        self.recorder.runs.add(self)

    def confirm(self, stored: AgentInstanceRow) -> None:
        """Set the row that the run is stored with; without agent_id if a renaming may not be stored yet."""
        self.registered_row = stored._replace(agent_id="") if self._is_renamed else stored

    def register_again(self, storage: Storage) -> None:
        """Register the run in the current storage, if the storage does not have it."""
        instance = self.registered_row
        if instance is not None and self.id not in storage.ask(Find(self.id, instance_id=self.id)).rows:
            place = self.recorder.destination.identity()
            done = self._register(storage, self.id, instance.started_at or clock.now())
            self.registered_row = done.instance
            self.stored_in = place if done.is_stored else None

    def rename(self, name: str, version: str | None) -> None:
        """Change the agent's name and the version of the run, which became known after its begin."""
        instance, recorder = self.registered_row, self.recorder
        self.name, self._version = name, version
        if instance is None:
            return
        with recorder.faults.adding():
            wanted = self._wanted(self.id, instance.started_at or clock.now())
            if recorder.destination.is_journaled or recorder.is_waiting:
                self._append_renaming(wanted)
                return
            wait_s = recorder.tuning.recording_wait_s
            agent, found, schema = refer(recorder.in_time(), wanted, recorder.ids.new, wait_s=wait_s)
            if (agent.id, found.id) != (instance.agent_id, instance.agent_version_id):
                recorder.out.write(unit_of(instances.renamed(self.id, agent.id, found.id, schema.id)))
                self.registered_row = instance._replace(
                    agent_id=agent.id, agent_version_id=found.id, agent_schema_version_id=schema.id
                )

    def _append_renaming(self, wanted: Registration) -> None:
        recorder, names = self.recorder, (wanted.agent, wanted.version.external_identifier)
        unit = recorder.unread.renaming(wanted, recorder.ids.new)
        if names != self._named and self.registered_row is not None:
            self._named, self._is_renamed = names, True
            self.registered_row = self.registered_row._replace(agent_id="")
            recorder.out.register(unit)

    def leave(self, exception: BaseException | None) -> None:
        """End the block of the run: make the outer node the active one, and finish the run if it is active."""
        if not page[0]:
            host.renew()
        self._is_left = True
        self.face = None
        self.recorder.leave(self)
        if self._writer_id != self.recorder.writer_id:
            return  # a forked child leaves a block of its parent, and the parent's run goes on
        if exception is not None:
            self.keep_error(exception)
        if self.status in ("active", "terminated"):
            self.store_end("complete" if self.error_members is None else "failed", reraise=exception is None)

    def leave_interrupted(self, error: BaseException) -> None:
        """Restore the context after an exception from a signal handler interrupted `leave`."""
        self.recorder.leave(self)

    def merge(self, result: Mapping[str, Any]) -> None:
        """Merge these members into the result of the run."""
        with self.recorder.faults.losing():
            self.result_members = {**(self.result_members or {}), **result}

    def keep_error(self, exception: BaseException) -> None:
        """Keep an exception; the run will finish as failed with it."""
        with self.recorder.faults.losing():
            self.error_members = self.recorder.capture.error(exception) if self.recorder.enabled else {}

    def finish(self, status: FinishStatus | None, result: Mapping[str, Any] | None = None) -> None:
        """Finish the run before its block ends. If `status` is None: failed if an error was kept, else complete."""
        if not page[0]:
            host.renew()
        if result is not None:
            self.merge(result)
        with self.recorder.faults.losing():
            wanted = status or ("failed" if self.error_members is not None else "complete")
            if self.termination_reason is None:
                check_finish("agent instance", self.id or "(not recorded)", self.status, wanted)
            self._store_end(wanted)

    def returned(self, value: Any) -> None:
        """Set the result of a decorated call that returned: a dict is the result, any other value its `output`."""
        if value is not None:
            self.merge(value if issubclass(type(value), dict) else {"output": value})

    def store_end_as(self, status: str, error: dict[str, Any] | None) -> None:
        """End the run of a single span with the status and the error of that span.

        Args:
            error: the members of the error, or None.
        """
        self.error_members = error
        self.store_end("failed" if status == "failed" else "complete")

    def store_end(self, status: FinishStatus, *, reraise: bool = True) -> None:
        """Record the end of the run.

        Args:
            reraise: whether a fault may be raised; False while an exception of the program is being raised.
        """
        with self.recorder.faults.losing(reraise=reraise):
            self._store_end(status)

    def _store_end(self, status: FinishStatus) -> None:
        ended_ns = clock.monotonic_ns()
        if self._stopped() is not None and status == "complete":
            status = "failed"
        if self.termination_reason is None:
            self.status = status
        recorder = self.recorder
        if self.registered_row is None:
            recorder.faults.count_lost()
            return
        now = clock.now()
        started_at = self.registered_row.started_at or now
        move = instances.finished(
            self.id,
            status=status,
            times=Times(started_at, max(started_at, now), (ended_ns - self._began_ns) / 1_000_000),
            now=now,
            result=None if self.result_members is None else recorder.capture.object(self.result_members),
            error=None if self.error_members is None else recorder.capture.object(self.error_members),
        )
        is_dirty = git_dirty() if self.registered_row.git_dirty is None else None
        if is_dirty is not None:  # git had not answered when the run began
            move = move._replace(set={**move.set, "git_dirty": int(is_dirty)})
        recorder.out.write(Unit((move,)))

    def _stopped(self) -> BudgetExceeded | None:
        """Return the error with which a step was stopped; None if no step was. A run without an error fails with it."""
        stopped = None if self.spending is None else self.spending.stopped
        if stopped is not None and self.error_members is None:
            self.keep_error(stopped)
        return stopped

    def end_as(
        self,
        status: FinishStatus,
        ended_ns: int,
        *,
        result: Any = None,
        error: Any = None,
        metadata: Any = None,
        session: str | None = None,
        user: str | None = None,
        task: str | None = None,
    ) -> None:
        """Record the end of a run that another tracing library reported.

        Args:
            ended_ns: the time of the end, in ns since the epoch.
            result, error, metadata: objects, or None. `metadata` replaces the metadata of the run.
            session, user, task: replace the session, the user and the task of the run; if None, they stay.
        """
        row, recorder = self.registered_row, self.recorder
        if self._stopped() is not None:
            status, error = "failed", self.error_members if error is None else error
        if metadata is not None and type(metadata) is dict:
            metadata = self._with_budget(metadata)
        self.status = status if self.termination_reason is None else self.status
        if row is None:
            recorder.faults.count_lost()
            return
        with recorder.faults.losing(reraise=False):
            at = clock.to_text(ended_ns)
            times = finish_times(row.started_at or at, status, max(at, row.started_at or at), at)
            values = [None if value is None else recorder.capture.object(value) for value in (result, error, metadata)]
            move = instances.finished(self.id, status=status, times=times, now=at, result=values[0], error=values[1])
            texts = {"session": session, "user": user, "task": task}
            about: dict[str, Value] = {"metadata": values[2]}
            about |= {name: text_of(recorder, text) or None for name, text in texts.items()}
            known = {name: value for name, value in about.items() if value is not None}
            recorder.out.write(unit_of(move._replace(set={**move.set, **known})))

    def tell(self) -> None:
        """Call the program's `on_terminate` function, once in a run."""
        on_terminate = self.on_terminate
        if callable(on_terminate) and not self._has_notified:  # no call up to the next line: threads
            self._has_notified = True
            with self.recorder.faults.adding():
                on_terminate(self)
