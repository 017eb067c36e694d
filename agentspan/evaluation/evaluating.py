"""`agentspan.evaluate`: calls a program with each case, scores its runs, and compares them with those of a base.

No table of its own: a case is the task of a run, a trial is a run of the purpose `eval`, a verdict is a comparison of
two groups of runs.
"""

import ast
import inspect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack, suppress
from copy import deepcopy
from functools import partial
from hashlib import sha256
from math import inf
from os import PathLike, getpid
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agentspan.evaluation.answers import Evaluation, Trial
from agentspan.evaluation.case_files import Case, cases
from agentspan.evaluation.first_run import FirstRun, Loop, take, time_limit
from agentspan.evaluation.plan import Plan, plan
from agentspan.evaluation.scorers import Scorer, judged, scorers_of
from agentspan.evaluation.verdicts import Course, Key, Stopped, compare, planned
from agentspan.ground import (
    DEFAULT,
    OPEN,
    AgentInstanceRow,
    Find,
    LatestScore,
    NewestScores,
    Outlines,
    Recorder,
    Run,
    RunFilter,
    RunSummary,
    Source,
    Storage,
    errors,
    get_recorder,
    jsontext,
    on_begin,
    text,
    text_of,
)
from agentspan.judging import (
    EVALUATION,
    Chosen,
    JudgedBy,
    OutcomeRule,
    StoredRun,
    check_known,
    chosen_by,
    find_runs,
    group_of,
    left_open,
    outcomes,
    rule_of,
    sums,
    trial_of,
)

SHOW = 0.10
"""The drop that an evaluation is to show, if nobody names one."""
FLUSH_S = 10.0
"""Seconds to wait until a finished trial is stored."""
NOT_SCORED = "not scored: "
"""The beginning of the explanation of a score whose scorer raised, or whose trial had no output."""
MOST_OTHERS = 2000
"""The number of latest runs of the base for other tasks that are looked at, to see how the cases were chosen."""
INTERRUPTIONS = frozenset({"KeyboardInterrupt", "CancelledError"})
"""The errors of runs that were interrupted, and are no trials."""

_SAME_NAME = "A trial and the base are judged by one score: write a function that has its name, and pass it as a scorer"

Progress = Callable[[int, int], None]


def evaluate(
    task: Callable[[Any], Any],
    cases: "str | PathLike[str] | Iterable[Case | Mapping[str, Any]]",
    scores: Sequence[Callable[..., Any]] = (),
    *,
    name: str,
    version: str | None = None,
    trials: int = 1,
    against: str | None = None,
    outcome: str | None = None,
    show: float = SHOW,
    budget_usd: float | None = None,
    trial_timeout_s: float | None = None,
    stop: Literal["early"] | None = None,
    workers: int = 1,
    seed: int = 0,
    on_plan: Callable[[Plan], None] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run cases through a program, judge its runs, and compare them with those of a base.

    Each call of `task` is a trial: a run of the purpose `eval`, whose task is the case. It is the first run that the
    program begins, if it begins one. An exception is a failed run. The same call again, with the same name and version,
    runs only the trials that are missing.

    Args:
        task: called with the input of a case. A function or a coroutine function; all coroutines run in one event loop.
        cases: as for agentspan.evaluation.cases.
        scores: functions that judge a trial. Their arguments go by name: `input`, `output`, `expected`, and `run`, a
            StoredRun. They return a bool, a number, a label, or (value, label, explanation).
        name: the name of the agent.
        version: the version of the agent. Without one, all trials run each time.
        trials: the number of trials of each case.
        against: the base: `AGENT@VERSION`, a version of the same agent, or a filter such as `tag=nightly`.
        outcome: the rule by which a trial passed, such as `exact>=1`, or `status`. When left out: the first score is
            at least 1; without scores, the status.
        show: the drop of the share of passed trials that is to be shown, from 0 to 1.
        budget_usd: the most that all trials, with those of earlier calls, may cost. When it is spent, no further trial
            begins. If it cannot show the drop, none begins at all.
        trial_timeout_s: the most seconds of a trial, and of each scorer. A trial that takes longer is a failed run. A
            coroutine is stopped where it awaits, a function in the caller's thread also where it waits, one in other
            threads (`workers`) only where it runs Python code: give its clients time limits of their own.
        stop: `early`: stop when the verdict is clear.
        workers: the number of trials that run at the same time, in threads. One runs in the caller's thread.
        seed: the seed of the order of the cases.
        on_plan: called with the plan, before the first trial.
        progress: called with (done, planned) after each trial.

    Raises:
        InvalidValue: an argument is none of these, a case file cannot be read, or the base has no run to compare with.
        NotFound: the agent of the base does not exist.
    """
    asked = _asked(cases)
    judges = scorers_of(scores)
    is_by_default = outcome is None and bool(judges)
    if is_by_default:
        outcome = f"{judges[0].name}>=1"
    judge = rule_of(outcome or "status")
    rule = judge if isinstance(judge, OutcomeRule) else None
    check_arguments(
        trials=trials, show=show, stop=stop, against=against, budget_usd=budget_usd, trial_timeout_s=trial_timeout_s
    )
    check_number("workers", workers)
    recorder = get_recorder()
    if not recorder.enabled or not recorder.is_usable:
        raise errors.InvalidValue("recording", "is off: an evaluation is made of recorded runs")
    name, version = text_of(recorder, name) or DEFAULT, text_of(recorder, version)  # as runs record them
    recorder.flush(FLUSH_S)
    storage = recorder.destination.storage
    base = NO_BASE if against is None else base_of(
        storage, name, version, against, {case.id: case.content for case in asked}, rule
    )  # fmt: skip
    wanted = plan(
        None if against is None else base.outcomes,
        [case.id for case in asked],
        trials,
        show=show,
        early=stop == "early",
        run_usd=base.run_usd,
        budget_usd=budget_usd,
    )
    if on_plan is not None:
        on_plan(wanted)
    order = planned([case.id for case in asked], trials, seed)
    at_work = _AtWork(
        recorder, task, {case.id: case for case in asked}, judges, name=name, version=version, rule=rule,
        against=against, order=order, reads=budget_usd is not None, progress=progress,
        trial_timeout_s=trial_timeout_s, is_by_default=is_by_default, code=_code_of(task),
        course=Course(order, base.outcomes, early=stop == "early", budget_usd=budget_usd),
    )  # fmt: skip
    others_open = at_work.find_earlier(storage) if version is not None else 0
    given = [each.name for each in judges]
    if rule is not None and rule.name not in given and len(at_work.done) < len(at_work.order):
        there = f"the scorers are: {', '.join(given)}" if given else "there are no scorers"
        raise errors.InvalidValue("outcome", f"{rule} is over a score that no scorer gives; {there}. {_SAME_NAME}")
    stopped: Stopped | None = "plan"
    if not wanted.is_too_dear:
        at_work.work(workers)
        stopped = at_work.course.stopped
    recorder.flush(FLUSH_S)
    at_work.read_costs(storage)
    outcome = "status" if rule is None else str(rule)
    return answer_of(
        asked, wanted, at_work.in_order, base, name=name, version=version, against=against, outcome=outcome,
        stopped=stopped, early=stop == "early", others_open=others_open, storage=storage,
    )  # fmt: skip


_asked = cases  # `cases` is an argument of `evaluate`, too


class Base(NamedTuple):
    """The runs to compare with: their outcomes by case, their ids, the mean cost of one, and how cases were chosen."""

    outcomes: dict[str, list[bool | None]]
    run_ids: tuple[str, ...]
    run_usd: float | None
    chosen: Chosen | None = None


NO_BASE = Base({}, (), None)


def check_arguments(
    *,
    trials: int,
    show: float,
    stop: str | None,
    against: str | None,
    budget_usd: float | None,
    trial_timeout_s: float | None,
) -> None:
    """Check the arguments that evaluate and tests of cases have in common.

    Raises:
        InvalidValue: one of them is wrong.
    """
    check_number("trials", trials)
    if not isinstance(show, int | float) or not 0 < show <= 1:
        raise errors.InvalidValue("show", "must be a share above 0, at most 1")
    if stop not in (None, "early"):
        raise errors.InvalidValue("stop", 'must be "early" or None')
    if stop == "early" and against is None:
        raise errors.InvalidValue("stop", "early needs a base to compare with: name one with against")
    if against is not None and not isinstance(against, str):
        raise errors.InvalidValue("against", 'must be text, such as "1.0"')
    for name, most in (("budget_usd", budget_usd), ("trial_timeout_s", trial_timeout_s)):
        if most is not None and (not isinstance(most, int | float) or not 0 < most < inf):
            raise errors.InvalidValue(name, "must be a number above 0")


def check_number(field: str, number: int) -> None:
    """Check that an argument is a whole number from 1 on.

    Raises:
        InvalidValue: it is not.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise errors.InvalidValue(field, "must be a whole number from 1 on")


def answer_of(
    asked: Sequence[Case],
    wanted: Plan,
    done: Sequence[Trial],
    base: Base,
    *,
    name: str,
    version: str | None,
    against: str | None,
    outcome: str,
    stopped: Stopped | None,
    early: bool,
    storage: Storage,
    others_open: int = 0,
) -> Evaluation:
    """Return the answer about finished trials, which are in their planned order.

    Args:
        early: whether the evaluation could stop early.
    """
    heads: dict[str, list[bool | None]] = {case.id: [None] * wanted.trials for case in asked}
    for each in done:
        heads[each.case][each.number - 1] = each.passed
    order = [(each.case, each.number - 1) for each in done]
    how: dict[str, Any] = {"show": wanted.show, "early": early, "chosen": base.chosen}
    compared = compare(base.outcomes, heads, order, **how) if against and done else None
    return Evaluation(
        name, version, against, outcome, tuple(asked), wanted, len(asked) * wanted.trials, tuple(done), stopped,
        compared, base.outcomes, base.run_ids, others_open, storage,
    )  # fmt: skip


def base_of(
    storage: Storage,
    name: str,
    version: str | None,
    against: str,
    asked: Mapping[str, str],
    rule: OutcomeRule | None,
    *,
    without: Set[str] = frozenset(),
) -> Base:
    """Read the runs of the base for these cases. A run without a task counts for the case that has the run's id.

    Runs of the evaluated version do not count, nor do trials of a case with other contents.

    Args:
        asked: the content of each case, by its id.
        without: the ids of runs that do not count: the trials themselves, where the base is a filter.

    Raises:
        InvalidValue: there are none, or they are those of the evaluated version itself.
    """
    filter = group_of(storage, RunFilter(agent=name), against)
    found = find_runs(storage, filter, limit=None).runs
    others = [each for each in found if (each.agent, each.version) != (name, version or DEFAULT)]
    if found and not others:
        raise errors.InvalidValue(
            "against", f"{against} is the evaluated version itself: name another one with version"
        )
    own = [
        each
        for each in reversed(others)
        if (content := asked.get(each.run.task or each.run.id)) is not None
        and each.run.status not in OPEN
        and each.run.id not in without
        and (trial_of(each.run) is None or _metadata(each.run).get("case") == content)
    ]
    if not own:
        raise errors.InvalidValue(
            "against", f"{against} has {'no run' if not found else 'no finished run of these cases'}: "
            "evaluate it with the same cases first"
        )  # fmt: skip
    try:
        check_known(storage, rule)
    except errors.InvalidValue as error:
        raise errors.InvalidValue("outcome", f"{str(error).removeprefix('outcome: ')}. {_SAME_NAME}") from None
    passed = _passed(storage, [each.run for each in own], rule)
    known: dict[str, list[bool | None]] = {}
    for each in own:
        outcomes_of_case = known.setdefault(each.run.task or each.run.id, [])
        if passed[each.run.id] is not None or trial_of(each.run) is not None:  # who records need not judge each run
            outcomes_of_case.append(passed[each.run.id])
    rows = [each.run for each in others if each.run.status not in OPEN and each.run.id not in without]
    rows = [row for row in rows if (row.task or row.id) not in known][:MOST_OTHERS]
    rest: dict[str, list[bool | None]] = {}
    for row, outcome in zip(rows, _passed(storage, rows, rule).values(), strict=True):
        rest.setdefault(row.task or row.id, []).append(outcome)
    costs = [each.cost_usd for each in own if each.cost_usd is not None]
    run_usd = sum(costs) / len(costs) if costs else None
    return Base(known, tuple(each.run.id for each in own), run_usd, chosen_by([*known.values()], [*rest.values()]))


def _passed(storage: Storage, rows: Sequence[AgentInstanceRow], rule: OutcomeRule | None) -> dict[str, bool | None]:
    """Return the outcome of each run. A run that failed without the score of the rule did not pass."""
    found = outcomes(storage, rows, rule)
    failed = {row.id for row in rows if row.status == "failed"}
    return {id: False if each is None and id in failed else each for id, each in found.items()}


class _AtWork:
    """The trials of one evaluation while they run. Threads take trials from it, and give back their outcomes.

    Attributes:
        order: all trials in their planned order.
        done: the finished ones.
        course: their outcomes, and why no further trial begins.
    """

    def __init__(
        self,
        recorder: Recorder,
        task: Callable[[Any], Any],
        asked: Mapping[str, Case],
        judges: Sequence[Scorer],
        *,
        name: str,
        version: str | None,
        rule: OutcomeRule | None,
        against: str | None,
        order: Sequence[Key],
        course: Course,
        reads: bool,
        progress: Progress | None,
        trial_timeout_s: float | None,
        is_by_default: bool,
        code: str | None,
    ) -> None:
        self._recorder, self._task, self._asked, self._code = recorder, task, asked, code
        # The score of the rule comes last: a trial that has it has all of them.
        self._judges = sorted(judges, key=lambda each: rule is not None and each.name == rule.name)
        self._name, self._version, self._rule = name, version, rule
        self._judged_by = JudgedBy("status" if rule is None else str(rule), against).plain()
        self._judged_by |= {} if code is None else {"code": code}
        self.order, self.course, self._progress = order, course, progress
        self.done: dict[Key, Trial] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._fault: BaseException | None = None
        self._interruptions, self._pid = 0, getpid()
        self._timeout_s, self._is_by_default = trial_timeout_s, is_by_default
        self._loop = Loop()
        # Else costs are read at the end: a flush for each trial takes longer than the trial of a scripted model.
        self._gives_runs = any("run" in each.takes for each in judges)
        self._reads = reads or self._gives_runs

    @property
    def in_order(self) -> list[Trial]:
        """The finished trials, in the planned order."""
        return [self.done[key] for key in self.order if key in self.done]

    def find_earlier(self, storage: Storage) -> int:
        """Take over the trials that an earlier call of this evaluation ran. Return the number of those still open.

        Raises:
            InvalidValue: they are trials of other code.
        """
        wanted = RunFilter(agent=self._name, version=self._version or DEFAULT)
        found = find_runs(storage, wanted, limit=None).runs
        rows = [each.run for each in found]
        scores = storage.ask(NewestScores([row.id for row in rows]))
        # A trial that was killed before its scores has none of them. The one of the rule comes last.
        names = {each.name for each in self._judges} if self._rule is None else {self._rule.name}
        scored = {each.agent_instance_id: each.value for each in scores if each.name in names}
        costs = _costs(storage, found, {_judging_name(self._name, each.name) for each in scores})
        passed, keys = _passed(storage, rows, self._rule), set(self.order)
        is_open, dead = 0, left_open(storage, rows)
        for row in reversed(rows):
            facts = _metadata(row)
            number, case = facts.get("trial"), self._asked.get(row.task or "")
            if case is None or facts.get("case") != case.content or (case.id, _number(number)) not in keys:
                continue
            is_open += row.status in OPEN and row.id not in dead
            is_ended = row.status in ("complete", "failed") and not _is_interrupted(row)
            key = case.id, _number(number)
            has_score = row.id in scored if names else row.closed_by is None  # else `doctor` has ended it
            if is_ended and has_score:
                judged_by = facts.get(EVALUATION)
                code = judged_by.get("code") if isinstance(judged_by, dict) else None
                if None not in (code, self._code) and code != self._code:
                    raise errors.InvalidValue(
                        "version", f"{self._version} has trials of other code: the file of the function has changed "
                        "since. A changed agent needs a new version"
                    )  # fmt: skip
            if is_ended and has_score and key not in self.done:
                self.done[key] = trial = Trial(
                    case.id, key[1] + 1, row.id, passed[row.id], row.status == "failed", costs[row.id], was_there=True,
                    is_between=self._is_between(scored.get(row.id)),
                )  # fmt: skip
                self.course.add(key, trial.passed, trial.cost_usd)
            else:  # it was killed, interrupted or run twice: it is no trial, and was paid for
                self.course.spent_usd += costs[row.id] or 0.0
        return is_open

    def _is_between(self, value: float | None) -> bool:
        return self._is_by_default and value is not None and 0 < value < 1

    def read_costs(self, storage: Storage) -> None:
        """Fill in the costs of trials that ended without their run being read."""
        if self._reads:
            return
        own = {key: each for key, each in self.done.items() if each.run_id and not each.was_there}
        wanted = RunFilter(ids=frozenset(each.run_id for each in own.values()))
        judging = {_judging_name(self._name, each.name) for each in self._judges}
        costs = _costs(storage, find_runs(storage, wanted, limit=None).runs, judging) if own else {}
        for key, each in own.items():
            self.done[key] = each._replace(cost_usd=costs.get(each.run_id))

    def _stored(self, recorded: Run) -> AgentInstanceRow | None:
        """Return the row of a run that has ended; None if it could not be recorded."""
        self._recorder.flush(FLUSH_S)
        rows = self._recorder.destination.storage.ask(Find(recorded.id)).rows if recorded.id else {}
        row = rows[recorded.id][1] if recorded.id in rows else None
        return row if isinstance(row, AgentInstanceRow) else None

    def work(self, workers: int) -> None:
        """Run the trials that are missing, until all are done or a reason to stop comes up."""
        with ExitStack() as stack:
            stack.callback(self._loop.close)
            on_begin.append(take)
            stack.callback(on_begin.remove, take)
            if workers == 1:
                self._interruptible(self._some)
            else:
                threads = [
                    threading.Thread(target=self._in_thread, name=f"evaluate-{place}", daemon=True)
                    for place in range(workers)
                ]
                for each in threads:
                    each.start()
                while any(each.is_alive() for each in threads) and self._interruptions < 2:
                    self._interruptible(lambda: _join(threads))
        if self._fault is not None:
            raise self._fault

    def _interruptible(self, wait: Callable[[], object]) -> None:
        """Wait until Ctrl-C. After the first one, trials of other threads end; after the second one, they are left."""
        try:
            wait()
        except KeyboardInterrupt:
            self.course.stopped = "interrupted"
            self._interruptions += 1

    def _in_thread(self) -> None:
        try:
            self._interruptible(self._some)
        except BaseException as error:
            self._fault, self.course.stopped = error, "interrupted"

    def _some(self) -> None:
        while (key := self._take()) is not None:
            trial = self._trial(*key)
            with self._lock:
                self.done[key] = trial
                self.course.add(key, trial.passed, trial.cost_usd)
                if self._progress is not None:
                    self._progress(len(self.done), len(self.order))

    def _take(self) -> Key | None:
        with self._lock:
            while self.course.stopped is None and self._next < len(self.order):
                key = self.order[self._next]
                self._next += 1
                if key not in self.done:
                    return key if self.course.may_begin() else None
            return None

    def _trial(self, id: str, number: int) -> Trial:
        """Run one trial: the call of the task is a run, judged after its end."""
        case, output, failure = self._asked[id], None, None
        metadata = case.metadata(number + 1, self._judged_by)
        trial = FirstRun(self._name, metadata, task=id, name=self._name, version=self._version)
        try:
            output = self._called(trial, lambda: self._task(deepcopy(case.input)), is_trial=True)
        except BaseException as error:  # such as SystemExit, BudgetExceeded: the other cases go on
            if isinstance(error, KeyboardInterrupt) or getpid() != self._pid:  # a forked child ends
                raise
            failure = error
        assert trial.run is not None
        recorded = Run(trial.run)
        row = self._stored(recorded) if self._reads else None
        if not recorded.id or (self._reads and row is None):
            return Trial(id, number + 1, "", False if failure else None, failure is not None)
        storage = self._recorder.destination.storage
        cost = None if row is None else cost_of(storage, recorded.id)
        if failure is not None:
            self._score_failure(recorded, failure)
            return Trial(id, number + 1, recorded.id, passed=False, is_failed=True, cost_usd=cost)
        is_between = False
        passed: bool | None = trial.run.status == "complete" if self._rule is None else None
        not_scored: dict[str, str] = {}
        given = {"input": case.input, "output": output, "expected": case.expected}
        if row is not None and self._gives_runs:  # its verdict reads the scores of all runs
            given["run"] = StoredRun(storage, row)
        for each in self._judges:
            name = _judging_name(self._name, each.name)
            judge = FirstRun(name, {"judged": recorded.id}, name=name)
            try:
                value = self._called(judge, partial(each.function, **{taken: given[taken] for taken in each.takes}))
                source: Source = "code" if judge.run is None else "model"
                found = judged(each.name, value, source)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                message = text.one_line(self._recorder.capture.error(error)["message"], 200)
                not_scored[each.name] = f"{type(error).__name__}: {message}"
                recorded.score(each.name, explanation=f"{NOT_SCORED}{each.name} raised {not_scored[each.name]}")
            else:
                label, why = found.label, found.explanation
                recorded.score(each.name, found.value, label=label, explanation=why, by=source)
                if self._rule is not None and each.name == self._rule.name:
                    passed = self._rule.holds(LatestScore(found.value, found.label))
                    is_between = self._is_between(found.value)
            if judge.run is not None and self._reads:
                self._recorder.flush(FLUSH_S)
                cost = _added(cost, cost_of(storage, judge.run.id))
        return Trial(
            id, number + 1, recorded.id, passed, cost_usd=cost, not_scored=not_scored, is_between=is_between
        )  # fmt: skip

    def _called(self, first: FirstRun, work: Callable[[], Any], *, is_trial: bool = False) -> Any:
        """Call a function, or await a coroutine function, outside any run. A trial has a run in any case."""
        value = failure = None
        try:
            value = first.call(self._recorder, partial(self._result, work))
            return value
        except BaseException as error:
            failure = error
            raise
        finally:
            if getpid() == self._pid:  # else it is a forked child, and the run goes on in its parent
                if is_trial and first.run is None:
                    first.begin(self._recorder)
                first.end(failure, {"output": value} if is_trial and value is not None else None)

    def _result(self, work: Callable[[], Any]) -> Any:
        with time_limit(self._timeout_s):
            value = work()
        return self._loop.result(value, self._timeout_s)

    def _score_failure(self, recorded: Run, failure: BaseException) -> None:
        """Score a failed run so that it misses the rule, in other commands, too.

        The other scores get only an explanation.
        """
        rule, why = self._rule, f"{NOT_SCORED}the task raised {type(failure).__name__}"
        for each in self._judges:
            value = label = None
            if rule is not None and each.name == rule.name:
                if rule.holds(LatestScore(0.0, None)) is False:
                    value = 0.0
                elif isinstance(rule.wanted, str) and rule.holds(LatestScore(None, "failed")) is False:
                    label = "failed"
            recorded.score(each.name, value, label=label, explanation=why)


def _join(threads: Sequence[threading.Thread]) -> None:
    for each in threads:
        each.join()


def _code_of(task: Callable[..., Any]) -> str | None:
    """Return a hash of the code in the file of a function, without comments; None if there is no such file."""
    while isinstance(task, partial):
        task = task.func
    with suppress(TypeError, OSError, SyntaxError, ValueError):
        task = inspect.unwrap(task)
        file = inspect.getsourcefile(task if inspect.isroutine(task) else type(task))
        if file is not None:
            return sha256(ast.dump(ast.parse(Path(file).read_bytes())).encode()).hexdigest()[:12]
    return None


def _number(number: object) -> int:
    """Return the number of a trial from 0; -1 for a value that is no number."""
    return number - 1 if isinstance(number, int) and not isinstance(number, bool) else -1


def _judging_name(agent: str, scorer: str) -> str:
    """Return the name of the runs in which a scorer records its steps."""
    return f"{agent} {scorer}"


def _metadata(row: AgentInstanceRow) -> dict[str, Any]:
    return {} if row.metadata is None else jsontext.decode(row.metadata)


def _is_interrupted(row: AgentInstanceRow) -> bool:
    error = jsontext.value_of(row.error)
    return isinstance(error, dict) and error.get("type") in INTERRUPTIONS


def cost_of(storage: Storage, run_id: str) -> float | None:
    """Return the cost of a run in US dollars; None if unknown."""
    return sums(storage.ask(Outlines(run_id, bare=True))).cost_usd


def _costs(storage: Storage, trials: Iterable[RunSummary], judging: Set[str]) -> dict[str, float | None]:
    """Return the cost of each trial, with that of its scorers, whose runs have the names `judging`."""
    costs = {each.run.id: each.cost_usd for each in trials}
    for name in judging:
        for each in find_runs(storage, RunFilter(agent=name, purpose="eval"), limit=None).runs:
            if (trial := str(_metadata(each.run).get("judged"))) in costs:
                costs[trial] = _added(costs[trial], each.cost_usd)
    return costs


def _added(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else one + other
