"""The tools, made from the declarations of the commands: their names, arguments, types and help.

A call of a tool parses its arguments as the command line does, calls the command's function, and collects what that
prints. All filters of runs are one argument, `filter`, in the grammar of `diff --base`.
"""

import json
import logging
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import click
from click.core import ParameterSource

from agentspan.analysis.filter_words import ALL, FAILED, NAMES, words_of
from agentspan.analysis.filter_words import parse as parse_filter
from agentspan.answers import findings
from agentspan.cli.diff import diff_command
from agentspan.cli.finding import command_of
from agentspan.cli.output import Collected, collecting
from agentspan.cli.overview import overview_command
from agentspan.cli.runs import runs_command
from agentspan.cli.search import search_command, sql_command
from agentspan.cli.show import show_command
from agentspan.cli.versions import versions_command
from agentspan.cli.why import why_command
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.mcp.answers import CHARACTERS, DEFAULT_TOKENS, LEAST_TOKENS, MOST_TOKENS, answer, fenced

if TYPE_CHECKING:
    import os

    from agentspan.database import Database

log = logging.getLogger("agentspan")
COLUMNS = 160
"""The width of a line, in which commands cut texts: on a terminal of this width they show all of their columns."""
SQL_S, MOST_SQL_S = 5.0, 60.0
"""The seconds of a query when the call names none, and at most."""
SQL_ROWS = 1000
"""The number of rows that a query reads when the call names none: more than an answer has room for."""
FILTER, BUDGET, FROM = "filter", "budget_tokens", "from_line"
_FILTER = f"Which runs, such as 'agent=a {FAILED} since=7d'. Words: {' '.join(NAMES)}"


class Tool(NamedTuple):
    """The declaration of a tool that calls a command.

    Attributes:
        command: the name of the command.
        arguments: the tool's arguments, in order; they are parameters of the command, or FILTER.
        after: a sentence about the tool to call after an error.
        about: its description; the help of the command, when left out.
    """

    command: str
    arguments: Sequence[str]
    after: str
    about: str = ""


TOOLS = {
    "overview": Tool("overview", (FILTER, "outcome"), "runs() lists runs."),
    "runs": Tool("runs", (FILTER, "sort", "limit", "offset"), "overview() has what there is."),
    "show": Tool(
        "show",
        ("id", "full", "payloads", "slow", "failed"),
        "runs() lists the ids of runs.",
        "Show a run as a tree of numbered steps. ID: its id, the beginning of one, or - for the latest run.",
    ),
    "step": Tool(
        "show",
        ("id", "around", "context"),
        'show(id="-") lists the steps of the latest run.',
        "Show one step in full: payload, result, stack trace. ID: RUN#12, -#12 of the latest run, or a step's id.",
    ),
    "search": Tool(
        "search",
        ("words", "run", "by_run", FILTER, "limit", "offset"),
        'Try fewer words, or search(words="beginning*").',
    ),
    "why": Tool("why", ("run", FILTER, "outcome", "limit"), "runs() lists the ids of runs."),
    "diff": Tool(
        "diff",
        ("a", "b", "base", "head", "against", "outcome", "full", "cases", "context"),
        "runs() lists the ids of runs.",
        "Show where two runs A and B part, or whether two groups of runs differ by more than chance: BASE and HEAD are "
        "filters. With context, A and B are model calls.",
    ),
    "sql": Tool(
        "sql",
        ("query", "limit", "seconds"),
        'sql(query="select * from runs limit 1") shows the columns of the view runs; spans is the other view.',
        "Answer one SELECT over the tables and two views: runs(run, agent, version, status, started_at, duration_ms, "
        "spans, failed_spans, cost_usd, task, session, error …) and spans(span, run, parent, type, label, status, "
        "summary, error, payload, result_payload, started_at, duration_ms, input_tokens, output_tokens, cost_usd …).",
    ),
}
TOOLS |= {
    name: Tool(name, (FILTER, *(("by",) if each.kinds else ()), "limit"), each.tool)
    for name, each in findings.tools().items()
}
FINDINGS = ("why", "diff", "search", "versions", *findings.FINDINGS)
"""The commands that a server answers over HTTP."""
_COMMANDS: Mapping[str, click.Command] = {
    each.name or "": each
    for each in (
        *(overview_command, runs_command, show_command, search_command),
        *(why_command, diff_command, sql_command, versions_command),
    )
} | {name: command_of(name) for name in findings.FINDINGS}
_OWN = frozenset({"db", "as_json", "markdown"})
FIRST = "overview"
"""The tool whose definition describes the arguments that several tools share."""
_SHARED: dict[str, dict[str, Any]] = {BUDGET: {"type": "integer", "default": DEFAULT_TOKENS}, FROM: {"type": "integer"}}
_SHARED_HELP = {
    BUDGET: f"Most tokens of the answer; {CHARACTERS} characters count as one",
    FROM: "Go on at this line of a shortened answer",
}
_CALLED = {"of_context": "context"}
"""The names of arguments that differ from those of the command's parameters."""
_PLAIN = {"limit", "offset", "sort"}
"""Arguments that need no description: the name says enough."""
_PHRASE = re.compile(r'"([^"]+)"|(\S+)')


class Reply(NamedTuple):
    """The answer to a call of a tool.

    Attributes:
        text: the text for the model.
        is_error: whether the call was refused.
    """

    text: str
    is_error: bool


class _Refused(Exception):
    """The arguments of a call are wrong. The message has nothing that was recorded."""


@cache
def definitions() -> list[dict[str, Any]]:
    """Return name, description and inputSchema of each tool, as `tools/list` has them."""
    return [
        {
            "name": name,
            "description": _about(name),
            "inputSchema": {"type": "object", **_schema(name)},
            "annotations": {"readOnlyHint": True},  # clients then need not ask a person before each call
        }
        for name in TOOLS
    ]


def call(name: str, arguments: Mapping[str, Any], db: "Database | str | os.PathLike[str] | None") -> Reply:
    """Call a tool. Never raises: the reply describes the error, and names the tool to call next.

    Args:
        db: the storage: an opened Database, which is not closed, or its location, which is opened for this call.
    """
    if name not in TOOLS:
        return Reply(f"There is no tool {name[:40]!r}. Tools: {', '.join(TOOLS)}.", True)
    after = f"Next: {TOOLS[name].after}"
    try:
        budget = _number(arguments, BUDGET, DEFAULT_TOKENS, LEAST_TOKENS, MOST_TOKENS)
        first = _number(arguments, FROM, 1, 1, 10**9)
        text = _printed(name, _words(name, arguments), db)
    except _Refused as error:
        return Reply(f"{error} {after}", True)
    except (click.ClickException, AgentspanError, OSError) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        return Reply(f"{fenced(_clean(said))}\n{after}", True)
    except Exception as error:
        log.exception("the tool %s failed", name)
        return Reply(f"An unexpected fault ({type(error).__name__}); the log of the server has more. {after}", True)
    kept = {key: value for key, value in arguments.items() if key not in (BUDGET, FROM)}
    return Reply(
        answer(
            _clean(text), budget_tokens=budget, from_line=first, go_on=lambda line: _call(name, {**kept, FROM: line})
        ),
        False,
    )


def finding(name: str, query: Iterable[tuple[str, str]], db: "Database | str | os.PathLike[str] | None") -> str:
    """Return the JSON that `agentspan NAME --json` prints.

    Args:
        name: one of FINDINGS.
        query: arguments and options of the command by their names, with their values; `true` for a flag.
        db: the storage, as of `call`.

    Raises:
        AgentspanError: a run does not exist, or an argument is unknown or wrong.
    """
    command = _command(name)
    known = {_CALLED.get(each.name or "", each.name or ""): each for each in command.params if each.name not in _OWN}
    options, positional = ["--json"], dict[str, list[str]]()
    for key, value in query:
        parameter = known.get(key)
        if parameter is None:
            shown = key if key.isprintable() and len(key) <= 40 else f"{key[:40]!r}"
            raise InvalidValue(shown, f"{name} has no such parameter; it has {', '.join(known)}")
        if not isinstance(parameter, click.Option):
            words = [phrase or word for phrase, word in _PHRASE.findall(value)]  # as a shell parts them
            positional.setdefault(key, []).extend(words if parameter.nargs == -1 else [value])
        elif not parameter.is_flag:
            options.append(f"{_long(parameter)}={value}")
        elif value == "true":
            options.append(parameter.opts[-1])
    try:
        ordered = [word for key in known for word in positional.get(key, ())]
        return _clean(_printed(name, [*options, "--", *ordered], db))
    except click.ClickException as error:
        raise InvalidValue(name, error.format_message()) from None


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _printed(name: str, words: list[str], db: "Database | str | os.PathLike[str] | None") -> str:
    """Return the output of a command, named as a tool or as itself."""
    command = _command(name)
    to = Collected(COLUMNS, call_of)
    parent = click.Context(click.Group(), info_name="agentspan", obj=db)
    with collecting(to), parent, command.make_context(command.name, words, parent=parent) as context:
        command.invoke(context)
    return to.text.getvalue()


def _command(name: str) -> click.Command:
    return _COMMANDS[TOOLS[name].command if name in TOOLS else name]


def _parameters(name: str) -> dict[str, click.Parameter]:
    """Return the parameters of a tool's command that are its arguments, by the names of the arguments."""
    all = {_CALLED.get(each.name or "", each.name or ""): each for each in _command(name).params}
    return {argument: all[argument] for argument in TOOLS[name].arguments if argument != FILTER}


def _about(name: str) -> str:
    return TOOLS[name].about or " ".join((_command(name).help or "").split())


def _schema(name: str) -> dict[str, Any]:
    parameters = _parameters(name)
    properties: dict[str, dict[str, Any]] = {}
    for argument in TOOLS[name].arguments:
        of_filter = {"type": "string", "description": _FILTER if name == FIRST else f"As of {FIRST}"}
        properties[argument] = of_filter if argument == FILTER else _property(parameters[argument])
    for argument, kind in _SHARED.items():
        properties[argument] = {**kind, **({"description": _SHARED_HELP[argument]} if name == FIRST else {})}
    required = [argument for argument, each in parameters.items() if each.required]
    return {"properties": properties, **({"required": required} if required else {})}


def _property(parameter: click.Parameter) -> dict[str, Any]:
    """Return the JSON Schema of an argument."""
    type_ = parameter.type
    if isinstance(parameter, click.Option) and parameter.is_flag:
        found: dict[str, Any] = {"type": "boolean"}
    elif isinstance(type_, click.Choice):
        found = {"type": "string", "enum": [*type_.choices]}
    else:
        kinds = {"integer": click.types.IntParamType, "number": click.types.FloatParamType}
        found = {"type": next((kind for kind, of in kinds.items() if isinstance(type_, of)), "string")}
    help = getattr(parameter, "help", None)
    return found if help is None or parameter.name in _PLAIN else {**found, "description": help.removesuffix(".")}


def _words(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the words of the command line for the arguments of a call."""
    if name == "sql":
        limit = SQL_ROWS if arguments.get("limit") in (None, "") else arguments["limit"]
        arguments = {**arguments, "limit": limit, "seconds": _seconds(arguments.get("seconds"))}
    parameters = _parameters(name)
    known = [*TOOLS[name].arguments, BUDGET, FROM]
    unknown = [key for key in arguments if key not in known]
    if unknown:
        raise _Refused(f"{name} has no argument {unknown[0][:40]!r}; it has {', '.join(known)}.")
    options: list[str] = []
    positional: list[str] = []
    for argument in TOOLS[name].arguments:
        value = arguments.get(argument)
        if value is None or value is False or value == "":
            continue
        if argument == FILTER:
            options += _filter_options(_text(argument, value))
            continue
        parameter = parameters[argument]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            if value is not True:
                raise _Refused(f"{argument} must be true or false.")
            options.append(parameter.opts[-1])
        elif isinstance(parameter, click.Option):
            options.append(f"{_long(parameter)}={_text(argument, value)}")
        else:
            text = _text(argument, value)
            words = [phrase or word for phrase, word in _PHRASE.findall(text)]  # as a shell parts them
            positional += words if parameter.nargs == -1 else [text]
    return [*options, "--", *positional]


def _seconds(value: object) -> object:
    """Return the time limit of a query. A value that is no number is returned unchanged: the command refuses it."""
    with suppress(TypeError, ValueError, OverflowError):
        return SQL_S if value in (None, "") else min(MOST_SQL_S, float(value))  # type: ignore[arg-type]
    return value


def _long(option: click.Option) -> str:
    return next(each for each in option.opts if each.startswith("--"))


def _text(argument: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _Refused(f"{argument} must be a text or a number.")
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def _filter_options(text: str) -> Iterator[str]:
    """Yield a filter in one text as options of a command."""
    parse_filter(text)  # raises an error that lists the words
    for word in shlex.split(text):
        key, is_given, value = word.partition("=")
        key = key.removeprefix("--").replace("_", "-")
        if key == FAILED and not is_given:
            yield f"--{FAILED}"
        elif is_given and key.replace("-", "_") in NAMES:
            yield f"--{key}={value}"
        elif word != ALL:
            yield f"--agent={text.strip() if '=' not in text else word}"
            if "=" not in text:  # the name of an agent, or its version, has blanks
                return


def _number(arguments: Mapping[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = arguments.get(name)
    if value is None:
        return default
    try:
        return min(max(int(value), least), most)
    except (TypeError, ValueError, OverflowError):
        raise _Refused(f"{name} must be a number.") from None


def _call(name: str, arguments: Mapping[str, Any]) -> str:
    shown = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({shown})"


def call_of(words: Sequence[str]) -> str:
    """Return the words of a command, such as `["show", "-#12", "--around"]`, as a call of a tool.

    A command that is no tool, such as `doctor`, stays a command for a shell.
    """
    of = {tool.command: name for name, tool in reversed(TOOLS.items())}  # `show`, not `step`
    name = of.get(words[0])
    try:
        if name is None:
            raise InvalidValue("command", "is no tool")
        context = _command(name).make_context(words[0], list(words[1:]), parent=click.Context(click.Group()))
    except (click.ClickException, InvalidValue):
        return shlex.join(["agentspan", *words])
    given = {
        _CALLED.get(key, key): value
        for key, value in context.params.items()
        if value not in (None, False, (), "") and context.get_parameter_source(key) is not ParameterSource.DEFAULT
    }
    filters = {key: given.pop(key) for key in NAMES if key in given and not (key == FAILED and name == "show")}
    if name == "show" and ("#" in str(given.get("id")) or not given.keys().isdisjoint(("around", "context"))):
        name = "step"
    if filters:
        given[FILTER] = words_of(filters)
    values = {key: _joined(value) if isinstance(value, tuple) else value for key, value in given.items()}
    return _call(name, {key: values[key] for key in (*TOOLS[name].arguments, *values) if key in values})


def _joined(words: Sequence[str]) -> str:
    return " ".join(f'"{word}"' if " " in word else word for word in words)
