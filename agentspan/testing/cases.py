"""Tests of cases: each trial is a test, and one verdict over all trials decides whether the session fails.

The plugin registers this module as a plugin of its own when the first test has the marker. Trials travel as plain data
in the reports of tests, so that pytest-xdist sends them to the process that prints the summary. A process that has to
know when to stop finds the trials of the other ones in the file, by the name of their call (JudgedBy.call).
"""

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from copy import deepcopy
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentspan import clock
from agentspan.analysis.outcomes import JudgedBy, OutcomeRule, outcomes, parse, rule_of
from agentspan.analysis.runs import find_runs
from agentspan.analysis.tree import trial_of
from agentspan.cli.output import argument
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.evaluation.answers import MARKS, SHOWN, Evaluation, Trial, lines, sentence, stopped_text, warnings
from agentspan.evaluation.case_files import Case, cases
from agentspan.evaluation.evaluating import (
    FLUSH_S,
    NO_BASE,
    SHOW,
    Base,
    answer_of,
    base_of,
    check_arguments,
    cost_of,
)
from agentspan.evaluation.first_run import FirstRun, time_limit
from agentspan.evaluation.plan import Plan, plan
from agentspan.evaluation.scorers import judged
from agentspan.evaluation.verdicts import Course, Key, Stopped, planned
from agentspan.host import guard
from agentspan.journal.opening import open_storage
from agentspan.model.scores import Judgement
from agentspan.recording.blocks import outside
from agentspan.recording.run_state import RunState, on_begin
from agentspan.recording.span_and_run import Run
from agentspan.recording.tracer import get_recorder
from agentspan.storage.memory import MemoryStorage
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import RunFilter
from agentspan.testing.kept_runs import short
from agentspan.text import noun, one_line, share_text

MARKER = "pytest.mark.agentspan_cases"
SCORE = "passed"
"""The score of each trial's run: whether its test passed."""
OUTCOME = f"{SCORE}>=1"
LONGEST = timedelta(days=2)
"""The longest time before the begin of a process in which a trial of its session may have begun."""
NO_OUTCOME = (pytest.skip.Exception, pytest.exit.Exception, KeyboardInterrupt)
"""A test that ends by one of these is no trial."""


class Settings(NamedTuple):
    """The arguments of the marker that concern the verdict; they mean what they mean for agentspan.evaluate.

    Attributes:
        at_least: the smallest share of passed trials, from 0 to 1.
        outcome: the rule by which runs of the base passed.
    """

    trials: int = 1
    against: str | None = None
    at_least: float | None = None
    outcome: str = OUTCOME
    show: float = SHOW
    name: str | None = None
    version: str | None = None
    stop: str | None = None
    budget_usd: float | None = None
    seed: int = 0
    trial_timeout_s: float | None = None

    @property
    def decide(self) -> bool:
        """True if the verdict fails the session, and no single trial does."""
        return self.against is not None or self.at_least is not None

    @property
    def early(self) -> bool:
        """True if the trials end when the verdict is clear."""
        return self.stop == "early"

    def plan(self, base: Base, ids: Sequence[str]) -> Plan:
        """Return the plan of the trials of some cases."""
        return plan(
            None if self.against is None else base.outcomes, ids, self.trials, show=self.show, early=self.early,
            run_usd=base.run_usd, budget_usd=self.budget_usd,
        )  # fmt: skip

    def base(
        self, storage: Storage, name: str, version: str | None, asked: Mapping[str, str], without: frozenset[str]
    ) -> Base:
        """Read the runs to compare with (see base_of)."""
        if self.against is None:
            return NO_BASE
        judge = rule_of(self.outcome)
        rule = judge if isinstance(judge, OutcomeRule) else None
        return base_of(storage, name, version, self.against, asked, rule, without=without)


class Planned(NamedTuple):
    """The parameter of a test: a case, and the number of the trial from 1."""

    case: Case
    number: int
    settings: Settings


class CaseOfTest(Case):
    """The case of a test."""

    scores: list[tuple[str, Judgement]]

    def score(self, name: str, value: Any) -> None:
        """Record a further score of the trial's run.

        Args:
            value: True or False, a number, a label, or (value, label, explanation).

        Raises:
            InvalidValue: the value is none of these, or the name is that of the test's own score.
        """
        if name == SCORE:
            raise InvalidValue("name", f"{SCORE} is the score by which the test itself passes: take another name")
        self.scores.append((name, judged(name, value, "code")))


def parametrize(metafunc: pytest.Metafunc, mark: pytest.Mark) -> None:
    """Make a test of each trial, all first ones first, in the order that evaluate has.

    Raises:
        pytest.Collector.CollectError: an argument is wrong, a file of cases cannot be read, or the test takes no case.
    """
    try:
        settings = settings_of(mark)
        if "case" not in metafunc.fixturenames:
            raise InvalidValue(MARKER, f"the test takes no case: def {metafunc.function.__name__}(case)")
        source = mark.args[0]
        if isinstance(source, str | os.PathLike):
            source = Path(metafunc.definition.path).parent / source
        by_id = {case.id: case for case in cases(source)}
        order = planned([*by_id], settings.trials, settings.seed)
        every = [Planned(by_id[id], 1 + number, settings) for id, number in order]
    except AgentspanError as error:
        raise pytest.Collector.CollectError(f"{metafunc.definition.nodeid}: {error}") from None
    metafunc.parametrize("case", every, indirect=True, ids=[f"{each.case.id}-{each.number}" for each in every])


def settings_of(mark: pytest.Mark) -> Settings:
    """Return the arguments of a marker.

    Raises:
        InvalidValue: one of them is unknown or wrong.
    """
    if len(mark.args) != 1:
        raise InvalidValue(MARKER, "takes one argument without a name: a file of cases, or a list of them")
    unknown = next((name for name in mark.kwargs if name not in Settings._fields), None)
    if unknown is not None:
        raise InvalidValue(MARKER, f"has no argument {unknown!r}; there are {', '.join(Settings._fields)}")
    settings = Settings(**mark.kwargs)
    check_arguments(
        trials=settings.trials, show=settings.show, stop=settings.stop, against=settings.against,
        budget_usd=settings.budget_usd, trial_timeout_s=settings.trial_timeout_s,
    )  # fmt: skip
    share = settings.at_least
    if share is not None and (not isinstance(share, int | float) or not 0 < share <= 1):
        raise InvalidValue("at_least", "must be a share above 0, at most 1")
    if settings.against is not None and settings.at_least is not None:
        raise InvalidValue("at_least", "is for tests without against: the comparison decides, or the share")
    rule_of(settings.outcome)
    return settings


class _Group:
    """The trials of one test in this process: whether a further one may begin.

    The base is read after the first trial, which names the agent, its version and the file.

    Attributes:
        name: of the test, with its other parameters.
        call: the name of the call of the trials, which all processes of the session have.
        order: the trials in their planned order.
        asked: the content of each case, by its id.
    """

    def __init__(self, name: str, settings: Settings, session: str, *, is_one_of_many: bool) -> None:
        self.name, self._settings = name, settings
        self._asks_others = is_one_of_many and (settings.early or settings.budget_usd is not None)
        self.call = sha256(f"{session} {name}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
        self.order: list[Key] = []
        self.asked: dict[str, str] = {}
        self._since = clock.parse(clock.to_datetime(clock.now()) - LONGEST)
        self._course: Course | None = None
        self._storage: Storage | None = None
        self._left: str | None = None

    def why_left(self) -> tuple[Stopped | None, str] | None:
        """Return why a further trial does not begin, as a word and as a text; None if it may."""
        if self._left is not None or self._course is None:
            return None if self._left is None else (None, self._left)
        if self._asks_others and self._course.stopped is None:
            with guard(AgentspanError):  # the file is busy: the next trial looks again
                self._read_others()
        if self._course.may_begin() or self._course.stopped is None:
            return None
        return self._course.stopped, _REASONS[self._course.stopped]

    def add(self, key: Key, run: RunState | None, passed: bool | None) -> float | None:
        """Add the finished trial of a test, whose outcome is None if it was skipped. Return its cost, with a budget."""
        if self._settings.against is None and self._settings.budget_usd is None:
            return None
        if self._course is None and run is not None and run.recorder.enabled and run.recorder.is_usable:
            self._begin(run)
        if self._course is None or self._storage is None:
            return None
        cost = None
        if run is not None and (self._settings.budget_usd is not None or self._asks_others):
            run.recorder.flush(FLUSH_S)
            with guard(AgentspanError):
                cost = cost_of(self._storage, run.id)
        self._course.add(key, passed, cost)
        return cost

    def _begin(self, run: RunState) -> None:
        """Read the base, and plan. Without a base, or if the budget cannot show the drop, no further trial begins."""
        asked, settings = self.asked, self._settings
        run.recorder.flush(FLUSH_S)
        self._storage = run.recorder.destination.storage
        try:
            base = settings.base(self._storage, run.name, run.version, asked, frozenset(self._runs()) | {run.id})
        except AgentspanError as error:
            self._left = str(error)
            return
        self._course = Course(self.order, base.outcomes, early=settings.early, budget_usd=settings.budget_usd)
        if settings.plan(base, [*asked]).is_too_dear:
            self._course.stopped = "plan"

    def _runs(self) -> dict[str, tuple[Key, bool | None, float | None]]:
        """Return the trials of the call that are in the file, from all processes, by the id of their run."""
        assert self._storage is not None
        wanted = RunFilter(purpose="eval", since=self._since, meta=(("evaluation.call", self.call),))
        found = find_runs(self._storage, wanted, limit=None).runs
        passed = outcomes(self._storage, [each.run for each in found], parse(OUTCOME))
        return {
            each.run.id: ((each.run.task or "", number - 1), passed[each.run.id], each.cost_usd)
            for each in found
            if (number := trial_of(each.run)) is not None
        }

    def _read_others(self) -> None:
        assert self._course is not None
        for key, passed, cost in self._runs().values():
            if passed is not None:  # else it has not ended
                self._course.add(key, passed, cost)


_REASONS: dict[Stopped, str] = {
    "early": "the verdict is clear",
    "budget": "the budget is spent",
    "plan": "the budget cannot show the drop",
}


class _AtWork:
    """The trial of a test while it runs. Its run is the first one that begins in the test."""

    def __init__(self, planned: Planned, case: CaseOfTest, group: _Group, name: str) -> None:
        self.planned, self.case, self.group, self._name = planned, case, group, name
        self.key = case.id, planned.number - 1
        self.first: FirstRun
        self.cost_usd: float | None = None

    def begin(self) -> FirstRun:
        """Begin the trial. The fixtures of its test are made by now: their time is not the trial's."""
        settings = self.planned.settings
        judged_by = JudgedBy(OUTCOME, settings.against, settings.outcome, self.group.call)
        metadata = self.case.metadata(self.planned.number, judged_by.plain())
        self.first = FirstRun(self._name, metadata, task=self.case.id, name=settings.name, version=settings.version)
        return self.first

    def end(self, error: BaseException | None) -> None:
        """Score the run. A test that recorded nothing gets one that is empty; a skipped one has no score."""
        has_outcome = not isinstance(error, NO_OUTCOME)
        if self.first.run is None and has_outcome:
            self.first.begin(get_recorder())
        self.first.end(error)
        if self.first.run is not None and has_outcome:
            face = Run(self.first.run)
            for name, score in self.case.scores:
                face.score(name, score.value, label=score.label, explanation=score.explanation)
            face.score(SCORE, error is None, explanation=None if error is None else type(error).__name__)
        self.cost_usd = self.group.add(self.key, self.first.run, error is None if has_outcome else None)

    def plain(self, nodeid: str, error: BaseException | None) -> dict[str, Any]:
        """Return the trial as plain data, for its report."""
        run, settings = self.first.run, self.planned.settings
        location = None if run is None else run.recorder.location
        return {
            **_plain(self.group, self.planned),
            "test": nodeid,
            "passed": error is None,
            "error": "" if error is None else _reason(error),
            "run": "" if run is None else run.id,
            "cost_usd": self.cost_usd,
            "name": settings.name or (self._name if run is None else run.name),
            "version": settings.version if run is None else run.version,
            "db": None if location is None or location.path is None else str(location.path),
        }


def _plain(group: _Group, planned: Planned) -> dict[str, Any]:
    """Return a planned trial as plain data, for its report."""
    key = planned.case.id, planned.number - 1
    place = group.order.index(key) if key in group.order else 0
    return {
        "group": group.name, "place": place, "case": planned.case.id, "content": planned.case.content,
        "number": planned.number, "settings": planned.settings._asdict(),
    }  # fmt: skip


def _reason(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return one_line(": ".join([type(error).__name__, *str(error).splitlines()[:1]]), 160)


_at_work = pytest.StashKey[_AtWork]()
_groups = pytest.StashKey[dict[str, _Group]]()
_trials = pytest.StashKey[list[dict[str, Any]]]()
_left = pytest.StashKey[str]()
"""Why a trial was left out: see Stopped; "" for a base that cannot be read."""
_summary = pytest.StashKey[list[str]]()


def begin(item: pytest.Function, planned: Planned) -> CaseOfTest:
    """Return the case of a test, and note its trial."""
    case = CaseOfTest(*deepcopy(planned.case))
    case.scores = []
    item.stash[_at_work] = _AtWork(planned, case, _group_of(item, planned), planned.settings.name or item.originalname)
    return case


def _planned(item: pytest.Item) -> Planned | None:
    """Return the trial that a test is; None for another test."""
    found = (
        item.callspec.params.get("case") if isinstance(item, pytest.Function) and hasattr(item, "callspec") else None
    )
    return found if isinstance(found, Planned) else None


def _group_of(item: pytest.Item, planned: Planned) -> _Group:
    """Return the group of a test: all trials of its function with the same other parameters."""
    assert isinstance(item, pytest.Function)
    others = {name: value for name, value in item.callspec.params.items() if name != "case"}
    more = ", ".join(f"{name}={one_line(str(value), 40)}" for name, value in others.items())
    name = item.nodeid.partition("[")[0] + (f"[{more}]" if more else "")
    groups = item.config.stash.setdefault(_groups, {})
    if name not in groups:
        of_worker = getattr(item.config, "workerinput", None)  # in a worker of pytest-xdist
        session = f"{os.getpid()} {clock.now()}" if of_worker is None else str(of_worker["testrunuid"])
        groups[name] = _Group(name, planned.settings, session, is_one_of_many=of_worker is not None)
    return groups[name]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note the order of the trials of each test. With pytest-xdist, each worker collects all of them."""
    for item in session.items:
        if (planned := _planned(item)) is not None:
            group = _group_of(item, planned)
            group.order.append((planned.case.id, planned.number - 1))
            group.asked[planned.case.id] = planned.case.content


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a trial, before its fixtures are made, if its test has stopped."""
    planned = _planned(item)
    why = None if planned is None else _group_of(item, planned).why_left()
    if why is not None:
        item.stash[_left] = why[0] or ""
        raise pytest.skip.Exception(f"not run: {why[1]}", _use_item_location=True)


def keep(config: pytest.Config, trial: dict[str, Any]) -> None:
    """Keep a trial for the summary."""
    config.stash.setdefault(_trials, []).append(trial)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None]:
    """End a trial that takes longer than its marker allows: it did not pass, and the other ones go on."""
    planned = _planned(pyfuncitem)
    with time_limit(None if planned is None else planned.settings.trial_timeout_s):
        yield


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Record the trial while its test runs."""
    trial = item.stash.get(_at_work, None)
    if trial is None:
        yield
        return
    before, first = outside.get(), trial.begin()
    outside.set(first.begin)
    on_begin.append(first.take)
    try:
        done = yield
        error = None if done.excinfo is None else done.excinfo[1]
        trial.end(error)
    finally:
        on_begin.remove(first.take)
        outside.set(before)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Add the trial to the report. A trial that did not pass is no failure if the verdict decides."""
    report = (yield).get_result()
    trial = item.stash.get(_at_work, None)
    if call.when == "setup" and _left in item.stash and (planned := _planned(item)) is not None:
        report.agentspan_trial = {**_plain(_group_of(item, planned), planned), "left": item.stash[_left]}
        return
    error = None if call.excinfo is None else call.excinfo.value
    if trial is None or call.when != "call" or isinstance(error, NO_OUTCOME):
        return
    report.agentspan_trial = trial.plain(item.nodeid, error)
    if report.failed and trial.planned.settings.decide:
        report.outcome, report.wasxfail = "skipped", "the verdict over all trials decides"


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Name a trial that did not pass, and fails nothing."""
    if report.skipped and "left" not in getattr(report, "agentspan_trial", {"left": ""}):
        return "not passed", "n", "NOT PASSED"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Judge the trials of each test. Fail the session if one is worse, or passed too rarely."""
    config = session.config
    if hasattr(config, "workerinput"):  # a worker of pytest-xdist has some of the trials
        return
    groups: dict[str, list[dict[str, Any]]] = {}
    for each in config.stash.get(_trials, []):
        groups.setdefault(each["group"], []).append(each)
    is_interrupted = int(session.exitstatus) not in (0, 1)
    found = [_judged(group, own, is_interrupted=is_interrupted) for group, own in groups.items()]
    config.stash[_summary] = [line for _, own in found for line in own]
    for (is_failed, own), group in zip(found, groups, strict=True):
        if is_failed:  # as a test of its own, which is in JUnit XML and in each other report, too
            _report_failure(config, f"{group}::verdict", "\n".join(own))
    if int(session.exitstatus) == 0 and any(is_failed for is_failed, _ in found):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _report_failure(config: pytest.Config, nodeid: str, text: str) -> None:
    path = nodeid.partition("::")[0]
    for when, outcome, said in (("call", "failed", text), ("teardown", "passed", None)):
        report = pytest.TestReport(nodeid, (path, None, nodeid), {}, outcome, said, when)  # type: ignore[arg-type]
        config.hook.pytest_runtest_logreport(report=report)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the verdicts."""
    found = config.stash.get(_summary, [])
    if found:
        terminalreporter.section("agentspan cases")
        for each in found:
            terminalreporter.line(each)


def _judged(group: str, every: list[dict[str, Any]], *, is_interrupted: bool) -> tuple[bool, list[str]]:
    """Return whether the trials of a test fail the session, and the lines about them."""
    settings, own = Settings(**every[0]["settings"]), [each for each in every if "left" not in each]
    if not own:
        return False, [f"? {group}: no trial has an outcome"]
    try:
        found = _evaluation(settings, every, own, is_interrupted=is_interrupted)
    except AgentspanError as error:
        return True, [f"✗ {group}: not compared: {error}", *_not_passed(own)]
    if settings.against is None:
        least, rate = settings.at_least, found.rate or 0.0
        is_failed = least is not None and rate < least and not is_interrupted
        wanted = "" if least is None else f"; at least {share_text(round(1000 * least), 1000) or '0%'} wanted"
        mark = "·" if least is None else "?" if is_interrupted else "✗" if is_failed else "✓"
        said = f"{mark} {group}: {sentence(found)}{wanted}{stopped_text(found)}"
        weak = [f"  {line}" for line in warnings(found)]
        return is_failed, [said, *weak, *(_not_passed(own) if settings.decide else ())]
    first, *rest = lines(found)
    return found.verdict == "worse", [f"{MARKS[found.verdict]} {group}: {first}", *rest, *_not_passed(own)]


def _not_passed(own: list[dict[str, Any]]) -> Iterator[str]:
    some = [each for each in own if not each["passed"]]
    for each in some[:SHOWN]:
        run = f" · run {each['run']}" if each["run"] else ""
        yield f"  not passed: {each['test']}: {each['error']}{run}"
    if len(some) > SHOWN:
        yield f"  not passed: {noun(len(some) - SHOWN, 'more trial')}"
    shown = next((each for each in some if each["run"] and each["db"]), None)
    if shown is not None:
        yield f"  agentspan show {shown['run']} --db {argument(short(Path(shown['db'])))}"


def _evaluation(
    settings: Settings, every: list[dict[str, Any]], own: list[dict[str, Any]], *, is_interrupted: bool
) -> Evaluation:
    """Return the trials of a test as the answer of an evaluation.

    Args:
        every: all trials that were reported, also those that were left out.
        own: those that ran.

    Raises:
        AgentspanError: the base cannot be read, or has no runs of these cases.
    """
    name, version = own[0]["name"], own[0]["version"]
    asked = {each["case"]: each["content"] for each in every}
    done = [
        Trial(each["case"], each["number"], each["run"], each["passed"], cost_usd=each["cost_usd"])
        for each in sorted(own, key=lambda each: int(each["place"]))
    ]
    base = NO_BASE
    if settings.against is not None:
        storage = open_storage(next((each["db"] for each in own if each["db"]), None), read_only=True)
        try:
            base = settings.base(storage, name, version, asked, frozenset(each.run_id for each in done))
        finally:
            storage.close()
    stopped: Stopped | None = next((each["left"] for each in every if each.get("left")), None)
    return answer_of(
        [Case(id, None) for id in asked], settings.plan(base, [*asked]), done, base, name=name, version=version,
        against=settings.against, outcome=settings.outcome, stopped="interrupted" if is_interrupted else stopped,
        early=settings.early, storage=MemoryStorage(),
    )  # fmt: skip
