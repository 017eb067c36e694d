"""The options of commands about many runs: filters, pages, and the rule that decides whether a run passed.

The names of filters are those of analysis.filter_words. Without `--outcome`, the rule is that of the project: `outcome`
below `[tool.agentspan]` in its pyproject.toml.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from agentspan.analysis.by_name import NOTHING, resolved, unmatched
from agentspan.analysis.filter_words import NAMES, filter_of
from agentspan.analysis.outcomes import Judge, rule_of
from agentspan.cli.completion import AGENT
from agentspan.cli.output import Failed, safe, to_call, utc_option, zone
from agentspan.errors import InvalidValue
from agentspan.model.changes import INSTANCE_STATUSES, PURPOSES
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import SORTS, RunFilter

F = TypeVar("F", bound=Callable[..., Any])


_AGENT = {"metavar": "NAME", "type": AGENT}
_STATUS = {"metavar": "STATUS", "type": click.Choice(INSTANCE_STATUSES)}  # a metavar is wrapped nowhere
_OPTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    (
        "agent",
        "Only of this agent: its name, id or external_identifier; NAME@VERSION.",
        {"metavar": "NAME", "type": AGENT},
    ),
    ("version", "Only of this version of the agent.", {"metavar": "VERSION"}),
    ("session", "Only of this session.", {"metavar": "ID"}),
    ("task", "Only of this task.", {"metavar": "TASK"}),
    (
        "purpose",
        f"Only of this purpose: {', '.join(PURPOSES)}, as trials have.",
        {"metavar": "PURPOSE", "type": click.Choice(PURPOSES)},
    ),
    ("tag", "Only with this tag; several times: with all of them.", {"metavar": "TAG", "multiple": True}),
    ("status", f"Only with this status: {', '.join(INSTANCE_STATUSES)}.", _STATUS),
    ("failed", "Only runs that failed, or in which a span did.", {"is_flag": True}),
    ("score", "Only with such a newest score: reward>=1, label==good.", {"metavar": "RULE", "multiple": True}),
    ("mark", "Only with this mark; * is any.", {"metavar": "LABEL"}),
    ("error", "Only with this text in the error of the run, or of a failed span.", {"metavar": "TEXT"}),
    ("signature", "Only with this failure, or this ending, as why names it.", {"metavar": "ID"}),
    ("meta", "Only with this value in the run's metadata.", {"metavar": "KEY=VALUE", "multiple": True}),
    ("since", "Only from then on: 90s, 15m, 2h, 7d ago; 02:00, yesterday, 2026-11-24 …", {"metavar": "TIME"}),
    ("until", "Only before then.", {"metavar": "TIME"}),
    (
        "grep",
        "Only with this text in the run's own names, metadata, result or error, not in steps.",
        {"metavar": "TEXT"},
    ),
    ("git_commit", "Only of this git commit: its hash, or the beginning of it.", {"metavar": "PREFIX"}),
    ("touched", "Only in which a tool was called with this file: its path, or the end of it.", {"metavar": "PATH"}),
    ("project", "Only in this folder, or below it; * is any text; a name: any folder of it.", {"metavar": "FOLDER"}),
    ("tool", "Only in which this tool was called: its name; * is any text.", {"metavar": "NAME"}),
    ("model", "Only in which this model was called: its name; * is any text.", {"metavar": "NAME"}),
)


def filter_options(command: F) -> F:
    """Add the options that select runs, and `--utc`, to a command. Its function must pass them to `filter_in`."""
    command = utc_option(command)
    for name, help, how in reversed(_OPTIONS):
        command = click.option(f"--{name.replace('_', '-')}", name, help=help, **how)(command)
    return command


def limit_option(limit: int) -> Callable[[F], F]:
    """Return the option `-n` of a command that lists, with its default."""
    of: dict[str, Any] = {"metavar": "N", "default": limit, "show_default": True, "type": _NUMBER}
    return click.option("-n", "--limit", help="List N at most.", **of)


_NUMBER = click.IntRange(0, 10**9)


def page_options(limit: int, *, sort: bool = False) -> Callable[[F], F]:
    """Return the options `-n`, with its default, and `--offset` of a command that lists; with `sort`, also `--sort`."""
    offset = click.option("--offset", metavar="N", default=0, type=_NUMBER, help="Leave out the first N.")
    order = click.option(
        "--sort", default=SORTS[0], type=click.Choice(SORTS), help="List the latest, the longest … first."
    )

    def add(command: F) -> F:
        command = limit_option(limit)(offset(command))
        return order(command) if sort else command

    return add


outcome_option = click.option("--outcome", metavar="RULE", help="Say what passed means: 'reward>=1', or status.")


def _texts(filters: Mapping[str, Any]) -> Iterator[tuple[str, str | None]]:
    """Yield the filter options of a command that were passed, as name and text; None for the text of a flag."""
    for name in NAMES:
        value = filters.get(name)
        if value is True:
            yield name.replace("_", "-"), None
        for text in [value] if isinstance(value, str) else value if isinstance(value, tuple | list) else ():
            yield name.replace("_", "-"), text


def asked_for(filters: Mapping[str, Any]) -> str:
    """Return the filter options of a command as text for a message, such as `task=15 failed`; "" without any."""
    return " ".join(name if text is None else f"{name}={text}" for name, text in _texts(filters))


def options_of(filters: Mapping[str, Any]) -> list[str]:
    """Return the filter options of a command as command-line words, such as `--task 15 --failed`, to copy."""
    return [word for name, text in _texts(filters) for word in (f"--{name}", text) if word is not None]


def no_run(storage: Storage, filter: RunFilter, asked: str) -> str:
    """Return the message that no run matches a filter, with the nearest existing values.

    If `asked` is "", it is the message for a file without runs.
    """
    return f"no run matches {asked}{unmatched(storage, filter)}" if asked else to_call(NOTHING)


def filter_in(storage: Storage, filters: dict[str, Any]) -> RunFilter:
    """Convert the filter options of a command to a filter.

    Args:
        filters: the parameters of the command by name; the filter options are removed from it.

    Raises:
        InvalidValue: a time, a rule, or a KEY=VALUE pair is invalid, or a part of a text is empty.
        NotFound: the agent does not exist.
    """
    names = [name for name in NAMES if name in filters]
    for name in ("error", "git_commit", "grep"):
        if filters.get(name) == "":  # such as an unset variable of a script: `prune` would remove every run
            raise InvalidValue(name, "is empty; without the option, every run matches")
    try:
        return resolved(storage, filter_of({name: filters.pop(name) for name in names}, zone=zone()))
    except InvalidValue as error:
        if error.field != "score":
            raise
        raise Failed(safe(f"--{error}{unmatched(storage, RunFilter(scores=('?>0',)))}")) from None


def outcome_rule(text: str | None) -> Judge:
    """Return the rule that decides whether a run passed: `text`, else the project's rule; None without one.

    Raises:
        InvalidValue: `text` is not a rule.
        Failed: the project's rule is invalid, or its file cannot be read.
    """
    if text is not None:
        return rule_of(text)
    file = pyproject()
    if file is None:
        return None
    import tomllib

    from agentspan.analysis.check import check_settings

    try:
        with file.open("rb") as read:
            settings = tomllib.load(read).get("tool", {}).get("agentspan", {})
        check_settings(settings)
        rule = settings.get("outcome")
        if rule is not None and not isinstance(rule, str):
            raise InvalidValue("outcome", "must be a text, such as 'reward>=1'")
        return rule_of(rule)
    except (OSError, ValueError, AttributeError) as error:
        raise Failed(f"cannot use [tool.agentspan] of {file}: {error}") from None


def pyproject() -> Path | None:
    """Return the path of the pyproject.toml in the working folder, else in the nearest parent; None without one."""
    folder = Path.cwd()
    files = (each / "pyproject.toml" for each in (folder, *folder.parents))
    return next((file for file in files if file.is_file()), None)
