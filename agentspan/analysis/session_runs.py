"""The runs of one session in the order in which they started, each with its first prompt.

A prompt is read from the first spans of a run only, so that a page costs as much for long runs as for short ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agentspan import jsontext
from agentspan.analysis.causes import Verdict, page_of
from agentspan.analysis.dataset import INPUT, as_text
from agentspan.analysis.messages import Message, sent, spoken
from agentspan.analysis.messages import first_prompt as prompt_in
from agentspan.analysis.outcomes import Judge, check_known, one
from agentspan.analysis.runs import find_runs
from agentspan.analysis.tree import in_time, session_title, title_of, trial_of
from agentspan.errors import NotFound
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.templates import inline
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Query, RunFilter
from agentspan.storage.row_by_row import tokens_of
from agentspan.storage.sums import RunSummary, RunTotals
from agentspan.text import amounts, dotted, noun, one_line, visible

PAGE = 100
FIRST_SPANS = 10
"""The number of spans at the beginning of a run in which its first prompt is looked for."""
MOST_BYTES = 200_000
"""The number of characters of these spans that are read."""
MAX_PROMPT = 500
FEW_SPANS, FEW_BYTES = 4, 20_000
"""The same for each run of a list."""
MAX_ABOUT = 200
"""The largest number of characters of the text that `about` returns."""


@dataclass(frozen=True, slots=True)
class SessionRun:
    """A run of a session.

    Attributes:
        run: the run with the sums over its spans.
        prompt: the first prompt, on one line of at most 500 characters; "" if unknown.
        verdict: the verdict on the run.
        cause: why it failed, in one line; None without a known cause.
    """

    run: RunSummary
    prompt: str
    verdict: Verdict
    cause: str | None


@dataclass(frozen=True, slots=True)
class SessionRuns:
    """A page of the runs of a session.

    Attributes:
        session: the session.
        title: the title of the session of a coding agent; None for other sessions.
        outcome: the rule that decides whether a run that completed passed; None if there is none.
        runs: the runs of the page, in the order in which they started.
        total: the number of all runs of the session that match the filter.
        totals: the sums over all these runs.
        users: the users for whom the runs of the page ran, in the order of their first runs.
        first_at, last_at: when the first and the last run of the page started, as stored text.
    """

    session: str
    title: str | None
    outcome: str | None
    runs: tuple[SessionRun, ...]
    total: int
    totals: RunTotals
    users: tuple[str, ...]
    first_at: str
    last_at: str


def session_runs(
    storage: Storage,
    session: str,
    filter: RunFilter | None = None,
    judge: Judge = None,
    *,
    offset: int = 0,
    limit: int = PAGE,
) -> SessionRuns:
    """Return a page of the runs of a session, the earliest first.

    Args:
        filter: further conditions of the runs.
        judge: decides whether a run that completed passed; when left out, as for causes.verdicts_on.
        offset: the number of runs to skip.
        limit: the largest number of runs.

    Raises:
        NotFound: no run has the session.
        InvalidValue: the rule is over a score that no run has.
    """
    check_known(storage, judge)
    wanted = (filter or RunFilter())._replace(session=session)
    every = find_runs(storage, wanted, limit=0)
    if not every.total and not any(scan(storage, AgentInstanceRow, {"session": session}, limit=1)):
        raise NotFound(f"no run has the session {one_line(session, 60)!r}")
    left = max(0, every.total - offset)
    number = min(limit, left)
    latest_first = find_runs(storage, wanted, limit=number, offset=left - number).runs if number else []
    found = latest_first[::-1]
    rows = [each.run for each in found]
    judged = page_of(storage, found, judge)
    runs = tuple(
        SessionRun(
            each,
            first_prompt(storage, each.run),
            judged.verdicts[each.run.id],
            cause.text if (cause := judged.causes.get(each.run.id)) else None,
        )
        for each in found
    )
    times = [row.started_at or row.inserted_at for row in rows]
    return SessionRuns(
        session,
        next((title for row in rows if (title := session_title(row)) is not None), None),
        one(judged.rule),
        runs,
        every.total,
        every.totals,
        tuple(dict.fromkeys(row.user for row in rows if row.user is not None)),
        min(times, default=""),
        max(times, default=""),
    )


def first_prompt(storage: Storage, run: AgentInstanceRow) -> str:
    """Return the first prompt of a run, on one line; "" if unknown.

    That is the input in its metadata, else the first message of a user, else the latest message of a user that its
    first call of a model was sent, else its task, else the title of its first step.
    """
    metadata = jsontext.value_of(run.metadata)
    own = next((metadata[name] for name in INPUT if metadata.get(name)), None) if type(metadata) is dict else None
    if own is not None:
        return one_line(as_text(own) or "", MAX_PROMPT)
    query = Query("agent_span", {"agent_instance_id": run.id}, limit=FIRST_SPANS, most_bytes=MOST_BYTES)
    spans = in_time(span for span in storage.ask(query).rows if isinstance(span, AgentSpanRow))
    text = _of_user(spans) or run.task or (title_of(spans[0], MAX_PROMPT) if spans else "")
    return one_line(text, MAX_PROMPT)


def prompt_of(storage: Storage, run: AgentInstanceRow) -> str:
    """Return the first prompt of a run in a list; "" if it has a title. Only its first steps are read."""
    if session_title(run) is not None:
        return ""
    where = {"agent_instance_id": run.id}
    rows = storage.ask(Query("agent_span", where, limit=FEW_SPANS, most_bytes=FEW_BYTES)).rows
    return prompt_in(row for row in rows if isinstance(row, AgentSpanRow)) or ""


def about(run: AgentInstanceRow, prompt: str) -> str:
    """Return the subject of a run, on one line of at most MAX_ABOUT characters.

    That is the title of its session; else its task and first prompt, of a trial with its number and its input; else its
    task, its name and metadata, without those that come from OpenTelemetry.
    """
    if (title := session_title(run)) is not None:
        return line_of(title)
    metadata = jsontext.value_of(run.metadata)
    members = metadata if isinstance(metadata, dict) else {}
    trial, task = trial_of(run), run.task
    if trial is not None:
        task, prompt = f"{run.task} · trial {trial}", prompt or as_text(members.get("input")) or ""
    if prompt or trial is not None:
        return line_of(": ".join(filter(None, (task, prompt))))
    parts = [
        f"{name}={inline(visible(value[:MAX_ABOUT]) if isinstance(value, str) else value, 60)}"
        for name, value in list(members.items())[:6]
        if value != run.task and name != "otel"  # the test of a run is its task, too
    ]
    name = run.external_identifier or ""
    return line_of(" ".join(filter(None, [run.task or "", "" if name.startswith("otel:") else name, *parts])))


def line_of(text: str) -> str:
    """Return a text on one line, truncated, with invisible characters made visible."""
    return one_line(visible(text[: 4 * MAX_ABOUT]), MAX_ABOUT)


def _of_user(spans: Sequence[AgentSpanRow]) -> str:
    """Return the text that a user said first in these spans; "" without one."""
    for span in spans:
        kind = built_in_part(span.schema_name)
        said: list[Message] = []
        if kind == "message":
            said = spoken(span)
        elif kind == "llm":
            # A model is sent the whole conversation: what this run was asked comes last.
            said = [message for message, _ in reversed(sent(jsontext.decoded(span.payload)))]
        text = next((each["text"] for each in said if each["role"] == "user" and each["text"].strip()), "")
        if text:
            return text
    return ""


def totals_text(first: str, totals: RunTotals, step: str = "step") -> str:
    """Return the sums over runs as text, after a first one such as their number.

    Args:
        step: what steps are called.
    """
    return dotted(
        first,
        noun(totals.spans, step),
        noun(totals.failed, "failed step") if totals.failed else "",
        f"{totals.open:,} open" if totals.open else "",
        *amounts(tokens_of(totals), totals.cost_usd, totals.duration_ms),
    )
