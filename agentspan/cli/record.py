"""`agentspan record` runs a program, and records it; `agentspan demo` records a small agent of its own.

`record` is transparent: the program has its stdin, terminal and signals, and `record` exits with the program's code.
"""

import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from agentspan import clock, installing, jsontext
from agentspan.cli.app import command, location_in, options
from agentspan.cli.output import (
    Failed,
    argument,
    columns_of,
    document,
    echo_lines,
    hint,
    safe,
    table,
    to_copy,
    width,
    wrap,
)
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.model.rows import AgentInstanceRow, AgentRow
from agentspan.otel.instruments import known
from agentspan.otel.instruments.known import MARK, NOTES
from agentspan.recording.budgets import ENVIRONMENT as BUDGET
from agentspan.recording.budgets import parse as parse_budget
from agentspan.recording.settings import is_disabled_by_environment
from agentspan.storage.location import DEFAULT, ENVIRONMENT, Location, parse
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, Query, SpanSums
from agentspan.text import noun

if TYPE_CHECKING:
    from agentspan.recording.tracer import Tracer

SITE = Path(__file__).parent.parent / "otel" / "site"
_PASSED_ON = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGQUIT")
"""Signals that are forwarded to the program. So is SIGINT, unless a terminal sends it to both processes."""
LOOK_S = 1.0
"""The seconds between two checks whether the program has ended, because the parent process may have blocked SIGCHLD."""
MOST = 200
_PYTHON = re.compile(r"python(3(\.\d+)?)?\Z")


class Noted(NamedTuple):
    """The notes that recorded Python processes left in a file.

    Attributes:
        pythons: the number of Python processes that loaded agentspan.
        without: the reasons why other processes cannot record, each once.
        recorded: the frameworks that were imported and instrumented.
        missing: the frameworks that were imported but not instrumented, with the package to install; "" for none.
        importers: the package that imported each missing framework first.
        refused: the frameworks whose instrumentors could not be turned on, with the reason.
    """

    pythons: int
    without: tuple[str, ...]
    recorded: tuple[str, ...]
    missing: dict[str, str]
    importers: dict[str, str]
    refused: dict[str, str]

    @classmethod
    def of(cls, notes: Iterable[str]) -> "Noted":
        """Parse the lines of a file of notes."""
        found: dict[str, list[str]] = {}
        for line in notes:
            kind, _, text = line.rstrip("\n").partition(" ")
            found.setdefault(kind, []).append(text)
        missing = [text.split(" ") for text in found.get("missing", ()) if text.count(" ") == 2]
        refused = dict(text.split(" ", 1) for text in found.get("refused", ()) if " " in text)
        once = [tuple(dict.fromkeys(found.get(kind, ()))) for kind in ("without", "recorded")]
        packages, importers = ({each[0]: each[at] for each in missing} for at in (1, 2))
        return cls(len(found.get("python", ())), once[0], once[1], packages, importers, refused)

    def after(self, scopes: Iterable[str]) -> "Noted":
        """Return these notes without the frameworks that were recorded after all, by themselves or by their importers.

        Args:
            scopes: the names of the instrumentors of the runs that have calls of models.
        """
        arrived = {part for scope in scopes for part in scope.replace("-", "_").split(".")}
        recorded = [name for name in self.missing if {name.replace("-", "_"), self.importers[name]} & arrived]
        return self._replace(missing={name: self.missing[name] for name in self.missing if name not in recorded})

    def advice(self) -> str:
        """Return one line with the frameworks that were not recorded, and the packages to install; "" without any."""
        return "; ".join(filter(None, [self._missing(), *self._refused()]))

    def _refused(self) -> Iterator[str]:
        yield from (f"{name} was imported and not recorded: {why}" for name, why in sorted(self.refused.items()))

    def _missing(self) -> str:
        if not self.missing:
            return ""
        names, packages = sorted(self.missing), sorted({package for package in self.missing.values() if package})
        sentence = f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} imported and not recorded"
        reasons = [*self.without, *([installing.command(*packages)] if packages else [])]
        return f"{sentence}; {'; '.join(reasons)}"

    def why_nothing(self) -> str:
        """Return the reason why a program left no run."""
        if is_disabled_by_environment():
            return "AGENTSPAN_DISABLED is set in the environment"
        if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return "OTEL_SDK_DISABLED is set in the environment"
        if self.missing or self.refused:
            return self.advice()
        if self.without:
            return "; ".join(self.without)
        if not self.pythons:
            return "no Python was started that reads PYTHONPATH (-I and -E ignore it)"
        if self.recorded:
            limits = [f"; {name}: {known.LIMITS[name]}" for name in self.recorded if name in known.LIMITS]
            return f"{', '.join(self.recorded)} can be recorded here, and made no step{''.join(limits)}"
        return "no known framework was imported; `agentspan record --list` shows what can be recorded"


@command("record", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--list", "is_list", is_flag=True, help="List the frameworks that can be recorded here; run nothing.")
@click.option("--budget", "budgets", metavar="LIMITS", multiple=True, help="Limit each run, such as usd=5,steps=200.")
@click.argument("program", metavar="PROGRAM [ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
@options
@click.pass_context
def record_command(
    ctx: click.Context,
    /,
    program: tuple[str, ...],
    budgets: tuple[str, ...],
    db: str | None,
    *,
    is_list: bool,
    as_json: bool,
) -> None:
    """Run a Python program, and record what its AI frameworks do.

    The program needs no change. With `-m MODULE` as PROGRAM, a module runs, as `python -m` does: the options after it
    are the module's.
    """
    if is_list and not program:
        _frameworks(as_json=as_json)
        return
    if is_list or as_json:
        raise click.UsageError("--list runs no program, and --json is for --list")
    if not program:
        raise click.UsageError("a program to run is missing: agentspan record -- python agent.py")
    budget = ",".join(budgets)
    try:
        if budgets:
            parse_budget(budget)
    except InvalidValue as error:
        raise click.UsageError(f"--budget: {error}") from None
    _record(location_in(ctx, db), program, budget)


def _record(location: Location, arguments: Sequence[str], budget: str) -> None:
    """Run a program and record it; exit with its exit code, or with the signal that killed it."""
    began = clock.now()
    with tempfile.NamedTemporaryFile("r", errors="replace", prefix="agentspan-record-") as notes:
        code = _run(command_line(arguments), _environment(location, notes.name, budget))
        noted = Noted.of(notes)
    try:
        for line in _report(location, began, noted):
            click.echo(f"agentspan: {line}", err=True)
    except OSError:  # stderr is closed or full: the exit code of the program matters more
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # else Python flushes stderr at exit, and exits with 120
    if code < 0:  # a shell expects the same signal that killed the program
        with suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code)


def command_line(arguments: Sequence[str]) -> list[str]:
    """Return the command line of a program: a script runs with this Python, `python` is the one beside `agentspan`."""
    if _PYTHON.match(arguments[0]):
        return [_python(arguments[0]), *arguments[1:]]
    if arguments[0] == "-m" or (arguments[0].endswith(".py") and not os.access(arguments[0], os.X_OK)):
        return [sys.executable, *arguments]
    return [*arguments]


def _python(name: str) -> str:
    """Return the Python of the environment in which `agentspan` is installed; else the name, to be found in PATH."""
    command = Path(sys.argv[0])
    beside = (command if command.stem == "agentspan" else Path(sys.executable)).parent / name
    return str(beside) if os.access(beside, os.X_OK) else name


def _environment(location: Location, notes: str, budget: str) -> dict[str, str]:
    site, before = str(SITE), os.environ.get("PYTHONPATH")
    path = site if not before else f"{site}{os.pathsep}{before}"
    limits = {BUDGET: budget} if budget else {}
    recording = {"PYTHONPATH": path, ENVIRONMENT: str(location.absolute()), MARK: site, NOTES: notes}
    return {**os.environ, **recording, **limits}


def _run(command_line: Sequence[str], environment: dict[str, str]) -> int:
    process: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        elif process.poll() is None:
            process.send_signal(number)

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {
        signal.Signals[name]: pass_on for name in _PASSED_ON if hasattr(signal, name)
    }
    handlers[signal.SIGINT] = _do_nothing if _is_in_front() else pass_on
    # Ignored signals stay ignored, also in the program: `nohup` and shells rely on it.
    ours = [number for number in handlers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handlers[number]) for number in ours}
    try:
        with _signals() as signals:
            process = subprocess.Popen(command_line, env=environment)
            for number in early:
                process.send_signal(number)
            while signals is not None and process.poll() is None:
                if select.select([signals], [], [], LOOK_S)[0]:
                    os.read(signals, 4096)
            return process.wait()
    except OSError as error:
        raise Failed(f"cannot run {argument(command_line[0])}: {error.strerror}") from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _signals() -> Iterator[int | None]:
    """Yield the reading end of a pipe that gets a byte for each signal, SIGCHLD included; None on Windows.

    A signal just before a system call does not interrupt the call, so Python would run the handler only after the
    program has ended. A byte in a pipe cannot be missed.
    """
    if not hasattr(signal, "SIGCHLD"):
        yield None
        return
    signals, sends = os.pipe()
    os.set_blocking(sends, False)
    before = signal.signal(signal.SIGCHLD, _do_nothing)
    sends_before = signal.set_wakeup_fd(sends, warn_on_full_buffer=False)
    try:
        yield signals
    finally:
        signal.set_wakeup_fd(sends_before)
        signal.signal(signal.SIGCHLD, before)
        os.close(sends)
        os.close(signals)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _is_in_front() -> bool:
    """Return whether this process is in the terminal's foreground, which then sends signals to the program, too."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _report(location: Location, began: str, noted: Noted) -> list[str]:
    """Return the lines to print after a program: missing packages, new runs since `began`, and a command to try."""
    if location.path is not None and not location.path.exists():  # fast exit, before the database module is imported
        folder = location.path.absolute().parent
        why = noted.why_nothing() if folder.exists() else f"the folder {folder} does not exist"
        return [f"nothing was recorded: {safe(why)}"]
    from agentspan.database import open

    try:
        with open(location, read_only=True) as database:
            rows = database.storage.ask(Query("agent_instance", order="id", descending=True, limit=MOST)).rows
            new = [row for row in rows if isinstance(row, AgentInstanceRow) and row.inserted_at >= began]
            agents = database.storage.ask(Find(*{row.agent_id for row in new})).rows
            scopes = {scope for row in new for scope in _scopes(row, database.storage)} if noted.missing else ()
    except AgentspanError as error:
        return [f"nothing was recorded: {error}"]
    if not new:
        return [f"nothing was recorded: {safe(noted.why_nothing())}"]
    last = new[0]
    agent = agents[last.agent_id][1]
    name = f" ({safe(agent.name)})" if isinstance(agent, AgentRow) else ""
    others = "" if len(new) == 1 else f"; {noun(len(new), 'run')} in all"
    look = f"look at it: {to_copy('show', last.id, db=location)}"
    return [
        *filter(None, [safe(noted.after(scopes).advice())]),
        f"run {last.id}{name} is in {location}{others}; {look}",
    ]


def _scopes(row: AgentInstanceRow, storage: Storage) -> list[str]:
    """Return the names of the instrumentors of a run of OpenTelemetry; none without a call of a model."""
    about = jsontext.decode(row.metadata or "{}").get("otel")
    found = about.get("scopes", ()) if isinstance(about, dict) else ()
    return [*map(str, found)] if any(each.schema_name == "llm" for each in storage.ask(SpanSums(row.id))) else []


def _frameworks(*, as_json: bool) -> None:
    """List the frameworks that `record` and `agentspan.instrument()` record here, and what to install for others."""
    found = known.available()
    if as_json:
        document(
            {
                "frameworks": [
                    {
                        "name": each.framework.name,
                        "installed": each.is_installed,
                        "records": each.can_record,
                        "package": each.package or None,
                        "version": each.version or None,
                        "to_install": _to_install(each) or None,
                        "limit": known.LIMITS.get(each.framework.name),
                    }
                    for each in found
                ]
            }
        )
        return
    rows = []
    missing = known.missing(found)
    for each in sorted(found, key=lambda each: (not each.can_record, not each.is_installed, each.framework.name)):
        if each.can_record:
            state = f"recorded by {each.package or 'itself'} {each.version}".rstrip()
        elif each.is_installed:
            by_framework = known.is_missing(each) and each not in missing
            state = "only where a framework calls it" if by_framework else f"not recorded; needs {_to_install(each)}"
        else:
            state = "not installed"
        rows.append([each.framework.name, state])
    table(("framework", "here"), rows, shrink=1)
    for name in [each.framework.name for each in found if each.can_record and each.framework.name in known.LIMITS]:
        echo_lines(wrap(f"{name}: {known.LIMITS[name]}", width(), 4))
    wanted = sorted(_to_install(each) for each in missing)
    if not known.is_importable(known.SDK) and any(each.is_installed and each.needs_sdk for each in found):
        wanted.insert(0, installing.name_of("otel"))
    if wanted:
        echo_lines(hint("to record what is not", installing.command(*wanted), width()))
    elif lacking := {each.framework.name: each.framework for each in found if not each.is_installed}:
        other = lacking.get("langchain") or next(iter(lacking.values()))
        command = installing.command(installing.name_of("otel"), *filter(None, (other.name, other.package)))
        echo_lines(hint(f"what is installed lacks nothing; for {other.name}", command, width()))


def _to_install(each: known.Available) -> str:
    return each.framework.package if each.is_installed and not each.can_record else ""


MAX_FILES = 2000
MAX_BYTES = 200_000
SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "site-packages", "dist", "build"})
TEXT = frozenset({".md", ".py", ".txt", ".rst", ".toml", ".cfg", ".ini", ".js", ".ts", ".go", ".rs", ".c", ".h", ".sh"})
PATTERNS = ("TODO", "FIXME")
USUAL_FILES = ("CONTRIBUTING.md", "TODO.md", "NOTES.md", "docs/architecture.md", "a-file-that-nobody-has.md")
WORD = re.compile(r"[A-Za-z]{4,}")


class FolderAgent:
    """The agent of `demo`, which summarizes a folder: its steps are real, but use neither a model nor a network."""

    def __init__(self, tracer: "Tracer", folder: Path) -> None:
        self.folder = folder
        self.tracer = tracer
        self.plan = tracer.span("chain")(self.plan)  # type: ignore[method-assign]
        self.list_files = tracer.span("tool")(self.list_files)  # type: ignore[method-assign]
        self.read_file = tracer.span("tool")(self.read_file)  # type: ignore[method-assign]

    def plan(self, goal: str) -> list[str]:
        """Decide on the steps."""
        return ["list the files", f"grep for {', '.join(PATTERNS)}", "read what explains the folder", "answer"]

    def list_files(self, limit: int) -> list[str]:
        """Return the paths of up to `limit` text files in the folder, without hidden files and generated folders."""
        found: list[str] = []
        for root, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in SKIPPED)
            names = sorted(name for name in files if Path(name).suffix in TEXT and not name.startswith("."))
            found.extend(os.path.relpath(os.path.join(root, name), self.folder) for name in names)
            if len(found) >= limit:
                break
        return found[:limit]

    def read_file(self, path: str) -> str:
        """Return the beginning of a file."""
        with open(self.folder / path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_BYTES)

    def grep(self, word: str, files: list[str]) -> list[dict[str, Any]]:
        """Find the lines with a word."""
        payload = {"query": word, "source": f"{len(files)} files"}
        with self.tracer.span("retrieval", payload) as span:
            hits = []
            for path in files:
                try:
                    text = (self.folder / path).read_text(encoding="utf-8", errors="replace")[:MAX_BYTES]
                except OSError:
                    continue
                lines = enumerate(text.splitlines(), start=1)
                hits += [
                    {"path": path, "line": number, "text": line.strip()[:120]} for number, line in lines if word in line
                ]
            span.set_result({"documents": hits[:20], "count": len(hits)})
        return hits

    def run(self) -> str:
        """Run all steps of the agent as one recorded run; return the answer."""
        goal = f"say what the folder {self.folder.name or self.folder} is about"
        with self.tracer.run("folder-agent", version="1.0", metadata={"folder": self.folder.name}) as run:
            with self.tracer.span("agent", {"name": "folder-agent", "goal": goal}) as span:
                steps = self.plan(goal)
                ranking = run.create_span("rerank", {"query": goal, "model": "by number of hits"})
                files = self.list_files(MAX_FILES)
                hits = [hit for word in PATTERNS for hit in self.grep(word, files)]
                if len(hits) < 1000:
                    ranking.cancel()  # few enough to look at all of them
                else:
                    ranking.start()
                    ranking.finish(result_payload={"count": 10})
                answer = self.answer(files, len(hits))
                span.set_result({"output": answer, "steps": len(steps)})
            run.set_result({"output": answer})
        return answer

    def answer(self, files: list[str], hits: int) -> str:
        """Read a few files, one of which does not exist, and summarize them in a sentence."""
        guess = next(name for name in USUAL_FILES if not (self.folder / name).exists())
        try:
            self.read_file(guess)  # agents guess; this one is wrong
        except OSError:
            pass
        words: Counter[str] = Counter()
        for path in sorted(files, key=_explains)[:3]:
            try:
                words.update(word.lower() for word in WORD.findall(self.read_file(path)))
            except OSError:
                continue
        common = ", ".join(word for word, _ in words.most_common(3)) or "nothing that is written down"
        text = f"{len(files)} text files about {common}; {hits} notes to self in them"
        with self.tracer.span("message", {"role": "assistant", "content": text}):
            return text


def _explains(path: str) -> tuple[bool, int, str]:
    return (not path.lower().startswith("readme"), path.count(os.sep), path)


@command("demo")
@options
@click.pass_context
def demo_command(ctx: click.Context, /, db: str | None, *, as_json: bool) -> None:
    """Record a small agent at work on the current folder, and show its run."""
    from agentspan.cli.show import show_command
    from agentspan.database import open
    from agentspan.recording.tracer import Tracer

    location = location_in(ctx, db)
    tracer = Tracer(location, raise_errors=True, enabled=True)
    try:
        FolderAgent(tracer, Path.cwd()).run()
    finally:
        tracer.shutdown()
    if as_json:
        with open(location, read_only=True) as database:
            run = database.agent_instances.list(sorting="-id", page_size=1)[0]
            document({"db": str(location), "run": run.model_dump(mode="json")})
        return
    ctx.invoke(show_command, id="-", db=db)
    named = None if location == parse(DEFAULT) else location
    click.echo(f"\nRecorded in {safe(str(location))}. Try next:")
    hints = {
        to_copy("runs", db=named): "the runs of the file",
        to_copy("show", "-", db=named): "this tree again; - is the latest run",
        to_copy("show", "-#2", db=named): "its step 2, in full",
        to_copy("why", "-", db=named): "what failed in it, and whether it recovered",
        to_copy("open", db=named): "all runs, in a browser",
    }
    rows = [f"  {command:<{max(map(len, hints))}}  {meaning}" for command, meaning in hints.items()]
    if max(map(columns_of, rows)) > width():  # the name of the program, or of the file, is long
        rows = [line for command, meaning in hints.items() for line in (f"  {meaning}:", f"    {command}")]
    echo_lines(rows)
    if location.path is not None:
        click.echo(f'  sqlite3 {argument(location)} "select status, summary, duration_ms from spans"')
