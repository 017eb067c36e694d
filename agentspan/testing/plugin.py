"""The pytest plugin: keeps the runs of tests, names their tests, shows those of a failed test, checks budgets.

Tests of cases have their hooks in agentspan.testing.cases, which this registers for the first one.

If agentspan is installed, every run of pytest loads this as `_agentspan_pytest`, a copy outside the package, because
importing the package takes 0.1 s. So the plugin imports agentspan only if a test records, has a marker, or uses the
fixture.
"""

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from agentspan.analysis.check import Config
    from agentspan.testing.cases import CaseOfTest
    from agentspan.testing.runs import CapturedRuns

DEFAULT = ".agentspan/tests.db"
OFF = frozenset({"", "0", "false", "no", "off"})
ENVIRONMENT = "AGENTSPAN_DB"
"""The variable by which a process that names no file finds one; processes that a test starts inherit it."""
TEST = "AGENTSPAN_TEST"
"""The variable with the node id of the running test, which its runs carry (see recording.run_state)."""
MAX_BYTES = 50_000_000

_file = pytest.StashKey[Path]()
_before = pytest.StashKey[int]()
_is_shown = pytest.StashKey[bool]()
_config: "pytest.StashKey[Config]" = pytest.StashKey()
_broken = pytest.StashKey[str]()
"""The run that broke the budget of its test."""
_session: list[pytest.Config] = []
"""The configuration, which the hook for reports does not get."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the settings `agentspan_db` and `agentspan_db_max_bytes`."""
    parser.addini(
        "agentspan_db",
        f"file for the runs of tests that name none, below the rootdir; off: as without pytest. Default: {DEFAULT}",
        default=DEFAULT,
    )
    parser.addini(
        "agentspan_db_max_bytes",
        f"size of that file from which on its oldest runs are removed, down to half of it. Default: {MAX_BYTES}",
        default=str(MAX_BYTES),
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Name the file for the runs of tests, unless AGENTSPAN_DB names one. Nothing is created before a test records.

    This hook runs before any conftest.py, which may record already.
    """
    setting = str(early_config.getini("agentspan_db")).strip()
    if setting.lower() in OFF or os.environ.get(ENVIRONMENT):  # in a worker of pytest-xdist its parent has set it
        return
    is_url = "://" in setting
    path = setting if is_url else str(early_config.rootpath / setting)
    os.environ[ENVIRONMENT] = path
    early_config.add_cleanup(lambda: _forget(path))
    if not is_url:
        early_config.stash[_file] = Path(path)


def _forget(path: str) -> None:
    if os.environ.get(ENVIRONMENT) == path:
        del os.environ[ENVIRONMENT]


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker. Refuse a size of the file that is no number."""
    _session[:] = [config]
    config.add_cleanup(_session.clear)
    if not str(config.getini("agentspan_db_max_bytes")).strip().isdecimal():
        raise pytest.UsageError("agentspan_db_max_bytes is no whole number of bytes, such as 50000000")
    config.addinivalue_line(
        "markers",
        "agentspan(*, cost_usd, tokens, steps, duration_s, error_rate, required, forbidden): fail if a run of the test "
        "uses more, does not call what is required, or calls what is forbidden.",
    )
    config.addinivalue_line(
        "markers",
        "agentspan_cases(cases, *, trials, against, at_least, outcome, show, name, version, stop, budget_usd, seed, "
        "trial_timeout_s): "
        "call the test with each case as `case`, and judge all trials together.",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of each trial of each case."""
    mark = metafunc.definition.get_closest_marker("agentspan_cases")
    if mark is not None:
        _with_cases(metafunc.config)
        from agentspan.testing.cases import parametrize

        parametrize(metafunc, mark)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep a trial. With pytest-xdist it comes from a worker, and this process has collected no test."""
    trial = getattr(report, "agentspan_trial", None)
    if trial is not None and _session:
        _with_cases(_session[0])
        from agentspan.testing.cases import keep

        keep(_session[0], trial)


def _with_cases(config: pytest.Config) -> None:
    from agentspan.testing import cases

    if not config.pluginmanager.is_registered(cases):
        config.pluginmanager.register(cases, "agentspan_cases")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Remove the oldest runs if the file has grown too large."""
    path = session.config.stash.get(_file, None)
    if path is None:
        return
    with suppress(Exception):  # of the file, not of a test: the next run of pytest tries again
        if _recorded() >= 0:
            sys.modules["agentspan"].flush()
        most = int(session.config.getini("agentspan_db_max_bytes"))
        if _size(path) > most:
            from agentspan.testing.kept_runs import rotate

            rotate(path, most // 2)


def _size(path: Path) -> int:
    """Return the bytes of the file and its log, which may have most of them; 0 if it does not exist."""
    return sum(each.stat().st_size for each in (path, Path(f"{path}-wal")) if each.is_file())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None]:
    """Name the test for the runs that it records, also from its fixtures and from processes that it starts."""
    before = os.environ.get(TEST)
    os.environ[TEST] = item.nodeid.replace("\0", "(null)")
    yield
    if before is None:
        os.environ.pop(TEST, None)
    else:
        os.environ[TEST] = before


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Note which runs began before the test. Fail if its marker has an argument that is unknown, or of a wrong type."""
    item.stash[_before] = _recorded()
    item.stash[_is_shown] = False
    wanted = _marked(item)
    if wanted is not None:
        from agentspan.testing.budgets import config_of_marker

        try:
            item.stash[_config] = config_of_marker(*wanted)
        except ValueError as error:
            pytest.fail(str(error), pytrace=False)


@pytest.hookimpl(trylast=True)  # after the test itself; not called if the test failed
def pytest_runtest_call(item: pytest.Item) -> None:
    """Fail a marked test whose runs break its budget."""
    config = item.stash.get(_config, None)
    if config is not None:
        from agentspan.testing.budgets import broken

        found = broken(item.stash[_before], config)
        if found is not None:
            if found.run_id is not None:
                item.stash[_broken] = found.run_id
            pytest.fail(found.reason, pytrace=False)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Add a section with the runs of a failed test to its report."""
    report = (yield).get_result()
    if not report.failed or item.stash.get(_is_shown, True) or _recorded() == item.stash[_before]:
        return
    from agentspan.testing.kept_runs import section

    lines = section(item.stash[_before], item.stash.get(_broken, None))
    if lines:
        item.stash[_is_shown] = True
        report.sections.append(("agentspan", "\n".join(lines)))


def _recorded() -> int:
    """Return the number of the latest run that this process began; -1 if none, also where agentspan is not imported."""
    latest = sys.modules.get("agentspan.recording.run_state")
    return -1 if latest is None else int(latest.last_number())


def _marked(item: pytest.Item) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments of a test's markers, of which the closest marker wins; None without a marker."""
    marks = [*item.iter_markers("agentspan")]
    if not marks:
        return None
    named: dict[str, Any] = {}
    for mark in reversed(marks):
        named |= mark.kwargs
    return tuple(value for mark in marks for value in mark.args), named


@pytest.fixture
def captured_runs() -> "Iterator[CapturedRuns]":
    """The runs that the test records through agentspan's functions: in memory, with counted ids and a counted clock.

    See agentspan.testing.capture.
    """
    from agentspan.testing.determinism import capture

    with capture() as runs:
        yield runs


@pytest.fixture
def case(request: pytest.FixtureRequest) -> "CaseOfTest":
    """The case of a test marked agentspan_cases: `case.id`, `case.input`, `case.expected`, `case.score`."""
    if not hasattr(request, "param"):
        pytest.fail('`case` needs a marker such as @pytest.mark.agentspan_cases("cases.jsonl")', pytrace=False)
    from agentspan.testing.cases import begin

    return begin(request.node, request.param)
