"""Tests of cases: each trial is a test, and one verdict over all trials decides whether the session fails.

The plugin registers this module as a plugin of its own when the first test has the marker. Trials travel as plain data
in the reports of tests, so that pytest-xdist sends them to the process that prints the summary.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from agentspan.analysis.outcomes import JudgedBy, OutcomeRule, rule_of
from agentspan.cli.output import argument
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.evaluation.answers import MARKS, SHOWN, Evaluation, Trial, lines, sentence
from agentspan.evaluation.case_files import Case, cases
from agentspan.evaluation.evaluating import SHOW, Base, base_of
from agentspan.evaluation.plan import plan
from agentspan.evaluation.scorers import judged
from agentspan.evaluation.verdicts import compare
from agentspan.journal.opening import open_storage
from agentspan.model.scores import Judgement
from agentspan.recording.blocks import outside
from agentspan.recording.recorder import Recorder
from agentspan.recording.run_state import RunState, on_begin
from agentspan.recording.span_and_run import Run
from agentspan.recording.tracer import get_recorder
from agentspan.storage.memory import MemoryStorage
from agentspan.testing.kept_runs import short
from agentspan.text import noun, one_line, share_text

MARKER = "pytest.mark.agentspan_cases"
SCORE = "passed"
"""The score of each trial's run: whether its test passed."""
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
    outcome: str = f"{SCORE}>=1"
    show: float = SHOW
    name: str | None = None
    version: str | None = None

    @property
    def decide(self) -> bool:
        """True if the verdict fails the session, and no single trial does."""
        return self.against is not None or self.at_least is not None


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
    """Make a test of each trial, all first ones first.

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
        every = [Planned(case, 1 + number, settings) for number in range(settings.trials) for case in cases(source)]
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
    if not isinstance(settings.trials, int) or isinstance(settings.trials, bool) or settings.trials < 1:
        raise InvalidValue("trials", "must be a whole number from 1 on")
    for name, share in (("at_least", settings.at_least), ("show", settings.show)):
        if share is not None and (not isinstance(share, int | float) or not 0 < share <= 1):
            raise InvalidValue(name, "must be a share above 0, at most 1")
    if settings.against is not None and settings.at_least is not None:
        raise InvalidValue("at_least", "is for tests without against: the comparison decides, or the share")
    rule_of(settings.outcome)
    return settings


class _AtWork:
    """The trial of a test while it runs. Its run is the first one that begins in the test."""

    def __init__(self, planned: Planned, case: CaseOfTest, group: str, name: str) -> None:
        self.planned, self.case, self.group, self._name = planned, case, group, name
        self.run: RunState | None = None
        self._own: RunState | None = None

    def take(self, run: RunState) -> None:
        """Make a run that begins the trial, if it is the first one."""
        if self.run is None:
            self.run = run
            case, settings = self.planned.case, self.planned.settings
            judged_by = JudgedBy(f"{SCORE}>=1", settings.against, settings.outcome)
            metadata = case.metadata(self.planned.number, judged_by.plain())
            run.become_trial(case.id, metadata, name=settings.name, version=settings.version)

    def begin(self, recorder: Recorder) -> RunState:
        """Return the run of steps that the test records outside any run."""
        if self._own is None:
            self._own = RunState(recorder, self._name, purpose="eval")
            self._own.begin()
        return self._own

    def end(self, error: BaseException | None) -> None:
        """Score the run. A test that recorded nothing gets one that is empty; a skipped one has no score."""
        has_outcome = not isinstance(error, NO_OUTCOME)
        if self.run is None and has_outcome:
            self.begin(get_recorder())
        if self._own is not None:
            if error is not None:
                self._own.keep_error(error)
            self._own.finish(None)
        if self.run is not None and has_outcome:
            face = Run(self.run)
            for name, score in self.case.scores:
                face.score(name, score.value, label=score.label, explanation=score.explanation)
            face.score(SCORE, error is None, explanation=None if error is None else type(error).__name__)

    def plain(self, nodeid: str, error: BaseException | None) -> dict[str, Any]:
        """Return the trial as plain data, for its report."""
        run, settings = self.run, self.planned.settings
        location = None if run is None else run.recorder.location
        return {
            "group": self.group,
            "test": nodeid,
            "case": self.planned.case.id,
            "number": self.planned.number,
            "passed": error is None,
            "error": "" if error is None else _reason(error),
            "run": "" if run is None else run.id,
            "name": settings.name or (self._name if run is None else run.name),
            "version": settings.version if run is None else run.version,
            "db": None if location is None or location.path is None else str(location.path),
            "settings": settings._asdict(),
        }


def _reason(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    return one_line(": ".join([type(error).__name__, *str(error).splitlines()[:1]]), 160)


_at_work = pytest.StashKey[_AtWork]()
_trials = pytest.StashKey[list[dict[str, Any]]]()
_summary = pytest.StashKey[list[str]]()


def begin(item: pytest.Function, planned: Planned) -> CaseOfTest:
    """Return the case of a test, and note its trial."""
    case = CaseOfTest(*planned.case)
    case.scores = []
    others = {name: value for name, value in item.callspec.params.items() if name != "case"}
    more = ", ".join(f"{name}={one_line(str(value), 40)}" for name, value in others.items())
    group = item.nodeid.partition("[")[0] + (f"[{more}]" if more else "")
    item.stash[_at_work] = _AtWork(planned, case, group, planned.settings.name or item.originalname)
    return case


def keep(config: pytest.Config, trial: dict[str, Any]) -> None:
    """Keep a trial for the summary."""
    config.stash.setdefault(_trials, []).append(trial)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, None]:
    """Record the trial while its test runs."""
    trial = item.stash.get(_at_work, None)
    if trial is None:
        yield
        return
    before = outside.get()
    outside.set(trial.begin)
    on_begin.append(trial.take)
    try:
        done = yield
        error = None if done.excinfo is None else done.excinfo[1]
        trial.end(error)
    finally:
        on_begin.remove(trial.take)
        outside.set(before)


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Add the trial to the report. A trial that did not pass is no failure if the verdict decides."""
    report = (yield).get_result()
    trial = item.stash.get(_at_work, None)
    error = None if call.excinfo is None else call.excinfo.value
    if trial is None or call.when != "call" or isinstance(error, NO_OUTCOME):
        return
    report.agentspan_trial = trial.plain(item.nodeid, error)
    if report.failed and trial.planned.settings.decide:
        report.outcome, report.wasxfail = "skipped", "the verdict over all trials decides"


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Name a trial that did not pass, and fails nothing."""
    if report.skipped and hasattr(report, "agentspan_trial"):
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
    if int(session.exitstatus) == 0 and any(is_failed for is_failed, _ in found):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the verdicts."""
    found = config.stash.get(_summary, [])
    if found:
        terminalreporter.section("agentspan cases")
        for each in found:
            terminalreporter.line(each)


def _judged(group: str, own: list[dict[str, Any]], *, is_interrupted: bool) -> tuple[bool, list[str]]:
    """Return whether the trials of a test fail the session, and the lines about them."""
    settings = Settings(**own[0]["settings"])
    try:
        found = _evaluation(settings, own, is_interrupted=is_interrupted)
    except AgentspanError as error:
        return True, [f"✗ {group}: not compared: {error}", *_not_passed(own)]
    if settings.against is None:
        least, rate = settings.at_least, found.rate or 0.0
        is_failed = least is not None and rate < least and not is_interrupted
        wanted = "" if least is None else f"; at least {share_text(round(1000 * least), 1000) or '0%'} wanted"
        mark = "·" if least is None else "?" if is_interrupted else "✗" if is_failed else "✓"
        return is_failed, [f"{mark} {group}: {sentence(found)}{wanted}", *(_not_passed(own) if settings.decide else ())]
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


def _evaluation(settings: Settings, own: list[dict[str, Any]], *, is_interrupted: bool) -> Evaluation:
    """Return the trials of a test as the answer of an evaluation.

    Raises:
        AgentspanError: the base cannot be read, or has no runs of these cases.
    """
    judge = rule_of(settings.outcome)
    rule = judge if isinstance(judge, OutcomeRule) else None
    name, version, against = own[0]["name"], own[0]["version"], settings.against
    ids = list(dict.fromkeys(each["case"] for each in own))
    ran = sorted(own, key=lambda each: (each["number"], ids.index(each["case"])))
    trials = tuple(Trial(each["case"], each["number"], each["run"], each["passed"]) for each in ran)
    heads: dict[str, list[bool | None]] = {id: [None] * settings.trials for id in ids}
    for each in trials:
        heads[each.case][each.number - 1] = each.passed
    base = Base({}, (), None)
    if against is not None:
        storage = open_storage(next((each["db"] for each in own if each["db"]), None), read_only=True)
        try:
            runs = frozenset(each.run_id for each in trials)
            base = base_of(storage, name, version, against, set(ids), rule, without=runs)
        finally:
            storage.close()
    order = [(each.case, each.number - 1) for each in trials]
    return Evaluation(
        name, version, against, settings.outcome, tuple(Case(id, None) for id in ids),
        plan(base.outcomes if against else None, ids, settings.trials, show=settings.show, early=False,
             run_usd=base.run_usd),
        len(ids) * settings.trials, trials, "interrupted" if is_interrupted else None,
        compare(base.outcomes, heads, order, show=settings.show, early=False) if against else None,
        base.outcomes, base.run_ids, 0, MemoryStorage(),
    )  # fmt: skip
