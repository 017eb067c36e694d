"""Stores decoded sessions as runs and spans. A session may arrive any number of times, grown or not.

The id of a run is derived from the session's id in the source, and the id of a span from its run, its session and its
key. So a step that is stored already adds nothing, and a step that has gone on since is updated. A stored step is never
replaced by an earlier state of it: another program may have read more of the file.

A session that another one started as a sub-agent is stored in the run of that session, below a span of the type
`agent`. The tokens and costs of what is below an agent are summed up on it when its session has been read.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple, cast

from agentspan import clock, jsontext
from agentspan.api.context import ATTEMPTS, Context
from agentspan.arriving.identity import hashed_id, span_id
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.arriving.session_rows import (
    ANY,
    STATUS,
    TOTALS,
    ended_run,
    fingerprint_of,
    in_time,
    left_open,
    metadata_of,
    prompt_line,
    redacted,
    row_of,
    score_of,
    state_of,
    sums_of_agents,
    update_of,
    with_facts,
)
from agentspan.arriving.stored import BATCH, Registrar, about_of, name_of, object_of, put_rows, puts_of, refused_puts
from agentspan.errors import AgentspanError, DatabaseBusy
from agentspan.model import registration
from agentspan.model.changes import Applied, Move, Put, Refused, Unit
from agentspan.model.registration import Registration, VersionFields
from agentspan.model.rows import (
    AgentInstanceRow,
    AgentRow,
    AgentSpanRow,
    SessionFileRow,
    Value,
)
from agentspan.storage.access import unique
from agentspan.storage.questions import Find, Outlines, Query

MANY = 20
"""The fewest spans of a commit that are looked for before they are put."""
BATCH_BYTES = 8 * 2**20
"""The characters of payloads after which waiting spans are committed."""
TOGETHER, TOGETHER_BYTES = 64, 2**17
"""The most spans, and characters of their payloads, that are searched for credentials at once; also the most records,
and bytes of their lines, that are decoded before they are stored. More would not fit into the processor's cache."""
Surroundings = Callable[[str, Session], tuple[dict[str, str], str | None]]
"""Returns the parts of the fingerprint that a session's file lacks, and the commit, from a format and a session."""
_TOO_DEEP = "a step that is nested too deep"
_UNPLACED = "a step of a session that was not decoded before it"
_run_of = attrgetter("agent_instance_id")
_SAID = ("text", "tool_calls", "thinking", "blocks", "output", "messages", "error")
"""The members of the result of a model call that say what the model answered."""
_MESSAGES = 20
"""Among how many first messages the first prompt is looked for: instructions may stand before it."""
_MOST_PROMPTED = 256
"""The most sessions whose first messages are kept: more than those that are followed."""


@dataclass(slots=True)
class Arrived:
    """Counts of what an Arrival has stored.

    Attributes:
        runs: the ids of runs that are new.
        changed_runs: the ids of stored runs that got new or changed spans.
        spans, changed, inherited: how many spans are new, were updated, and were left out because the session that this
            one forks has them.
        cost_usd: the cost of the new spans.
        unread: how often each thing was not understood.
        no_price: calls of models without a price, by model.
        no_tokens, no_text: the spans of calls of models that have no tokens, and those that have no text and no tools.
        stated: the sums of the stated and of our own cost, by model, of calls that have both.
    """

    runs: dict[str, None] = field(default_factory=dict)
    changed_runs: dict[str, None] = field(default_factory=dict)
    spans: int = 0
    changed: int = 0
    inherited: int = 0
    cost_usd: float = 0.0
    unread: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    no_price: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    no_tokens: set[str] = field(default_factory=set)
    no_text: set[str] = field(default_factory=set)
    stated: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))


@dataclass(slots=True)
class _Placed:
    """A session and its place in the storage.

    Attributes:
        session: the latest Session.
        run: the stored row of the run.
        top: the id of the agent span that has the session's steps, if it is a sub-agent; else None.
        above: the id of the span above that agent span; None for the run itself.
        kin: the runs of sessions that begin with the same step, with these sessions' ids.
        prompts: the start and the text of the session's first messages, by the keys of their steps.
    """

    session: Session
    run: AgentInstanceRow
    top: str | None
    above: str | None = None
    kin: tuple[tuple[str, str], ...] = ()
    prompts: dict[str, tuple[int, str | None]] = field(default_factory=dict)


class _Stated(NamedTuple):
    """The model and the cost that the source states for a model call, or None. They are compared with ours."""

    model: Any
    cost_usd: Any

    @classmethod
    def of(cls, step: Step) -> "_Stated":
        """Return those of a step."""
        result = step.result or {}
        return cls(result.get("response_model"), result.get("stated_cost_usd"))


class ParentMissing(AgentspanError):
    """The session that started a sub-agent has not arrived yet."""


class Place(NamedTuple):
    """The place of a session's steps: the id of their run, and the id of the agent span above them, or None."""

    run: str
    top: str | None


class Arrival:
    """Stores sessions in one storage. For one thread.

    Args:
        ctx: the context of the storage.
        surroundings: finds parts of the fingerprint that a session's file lacks; None to find none.
        again: all sources are read again: of several copies of a session, only the first one replaces what is stored.

    Attributes:
        waits_for_parents: raise ParentMissing for a sub-agent whose session has not arrived, instead of storing it as a
            run of its own.
        replaces_ends: replace what is stored of the ends of sessions even if it is of a later time: it was read from a
            part of the session.
        replaces: replace what is stored of steps even if it ended later: nobody has read more of their source.
        steps: how many steps were decoded.
        calls, uncounted, empty: how many calls of models the source has, how many of them have no tokens, and how many
            neither tokens nor text.
    """

    def __init__(self, ctx: Context, *, surroundings: Surroundings | None = None, again: bool = False) -> None:
        self._ctx, self._again = ctx, again
        self._surroundings = surroundings
        self._registrar = Registrar()
        self._placed: dict[tuple[str, str], _Placed] = {}
        self._prompts: dict[tuple[str, str], dict[str, tuple[int, str | None]]] = {}
        self._waiting: dict[str, AgentSpanRow] = {}
        self._bytes = 0
        self._unredacted: dict[str, _Stated | None] = {}
        self._unredacted_bytes = 0
        self._is_due = False
        self._open: dict[tuple[str, str, str], Step] = {}
        self._has_agents: dict[str, bool] = {}  # a run that another program began may have some
        self._unsummed: set[str] = set()
        self._now = clock.now()
        self.waits_for_parents = False
        self.replaces_ends = self.replaces = False
        self._replaced: set[tuple[str, str]] = set()
        self.steps = self.calls = self.uncounted = self.empty = 0
        self.arrived = Arrived()

    def take(self, format: str, records: Iterable[Record], *, known: bool = False) -> None:
        """Store what a decoder yields. The spans may wait for the next `finish`.

        Args:
            format: the name of the format.
            known: True if the steps are stored already: they were decoded again for the sake of later ones.
        """
        for record in records:
            if self._is_due:
                self.settle()
            if type(record) is Step:
                self._step(format, record, known=known)
            elif type(record) is Session:
                self._session(format, record)
            else:
                assert isinstance(record, Unread)
                self.arrived.unread[name_of(self._ctx, record.what)] += record.times

    def place(self, format: str, session: str) -> Place | None:
        """Return where the steps of a session are stored; None for a session that has not arrived here."""
        placed = self._placed.get((format, session))
        return None if placed is None else Place(placed.run.id, placed.top)

    def sessions(self, format: str) -> list[Session]:
        """Return the sessions of a format that have arrived since the last `forget`."""
        return [placed.session for (of, _), placed in self._placed.items() if of == format]

    def forget(self) -> None:
        """Forget the sessions that have arrived, and steps that are not committed because their source failed."""
        if self._again:
            self._replaced |= self._placed.keys()
        self._placed.clear()
        self._open.clear()
        self._waiting, self._bytes = {}, 0
        self._unredacted, self._unredacted_bytes, self._is_due = {}, 0, False
        self.replaces_ends = self.replaces = False
        self.calls = self.uncounted = self.empty = 0

    def finish(self, *, live: bool, quiet_ns: int = 0) -> None:
        """Commit all steps, and the ends of the sessions that have arrived.

        Args:
            live: True if the sessions may go on: their runs stay active, except those of sessions that are over.
            quiet_ns: sessions that ended before this time are closed, although others in the same file may go on.
        """
        going = {
            key: live and not placed.session.is_over and (placed.session.ended_ns or quiet_ns) >= quiet_ns
            for key, placed in self._placed.items()
        }
        for (format, session, _), step in self._open.items():
            placed = self._placed[format, session]
            self.settle()
            if going[format, session]:
                self._add(placed, step)
            else:
                self._add(placed, left_open(step), closed_by="abandoned")
        self._open.clear()
        self.commit()
        for key, placed in self._placed.items():
            self._end(key[0], placed, live=going[key])
        for run in self._unsummed:
            if self._has_agents.get(run, True):
                self._sum_up(run)
        self._unsummed.clear()

    def settle(self) -> None:
        """Redact the waiting spans, and commit them, if they are many or long: once nobody has their steps any more."""
        if self._is_due:
            self._redact()
            if len(self._waiting) >= BATCH or self._bytes >= BATCH_BYTES:
                self.commit()

    def commit(self) -> None:
        """Commit the waiting spans."""
        self._redact()
        rows, self._waiting, self._bytes = [*self._waiting.values()], {}, 0
        if not rows:
            return
        ctx = self._ctx
        known = self._stored(rows)
        new = [row for row in rows if row.id not in known] if known else rows
        ended = [row for row in new if row.status != "active"]
        waiting = puts_of(ended) + [Unit((Put(row, minted=True),)) for row in new if row.status == "active"]
        lost = 0
        for row, stored in refused_puts(ctx, waiting):
            if isinstance(stored, AgentSpanRow):
                known[row.id] = stored
            else:
                lost += 1  # its run was removed meanwhile
        again = [row for row in rows if row.id in known] if known else []
        moves = [move for row in again if (move := update_of(row, known[row.id], replaces=self._replaces)) is not None]
        outcomes = ctx.storage.apply([Unit((move,)) for move in moves], wait_s=ctx.wait_s) if moves else []
        self.arrived.changed += sum(isinstance(outcome, Applied) for outcome in outcomes)
        self.arrived.spans += len(rows) - len(known) - lost
        self._count([row for row in rows if row.id not in known] if known else rows)
        self._unsummed |= {move.instance_id for move in moves if move.instance_id is not None}

    @property
    def _replaces(self) -> bool:
        """Whether the source replaces what is stored."""
        return self.replaces and self._replaced.isdisjoint(self._placed)

    def _stored(self, rows: Sequence[AgentSpanRow]) -> dict[str, AgentSpanRow]:
        """Return those of many spans that are stored already, in runs that are not new. Few spans are not looked up.

        Most of few spans are new. Of many, each stored one that is inserted again would be refused by itself, which
        takes four times as long as looking it up.
        """
        found: dict[str, AgentSpanRow] = {}
        for run in set(map(_run_of, rows)) - self.arrived.runs.keys() if len(rows) >= MANY else ():
            ids = [row.id for row in rows if row.agent_instance_id == run]
            located = self._ctx.storage.ask(Find(*ids, instance_id=run)).rows
            found.update((id, row) for id, (_, row) in located.items() if isinstance(row, AgentSpanRow))
        return found

    def _count(self, rows: Sequence[AgentSpanRow]) -> None:
        """Count new rows."""
        runs = dict.fromkeys(map(_run_of, rows))
        self._unsummed |= runs.keys()
        self.arrived.changed_runs |= {run: None for run in runs if run not in self.arrived.runs}
        for row in rows:
            if row.cost_usd is not None and not row.is_aggregate:
                self.arrived.cost_usd += row.cost_usd

    def _session(self, format: str, session: Session) -> None:
        key = format, session.id
        ended_ns = None if session.ended_ns is None else in_time(session.ended_ns)
        session = session._replace(started_ns=in_time(session.started_ns), ended_ns=ended_ns)
        placed = self._placed.get(key)
        if placed is not None:
            if placed.session.agent == session.agent:
                placed.session = session
                return
            self.finish(live=False)  # two agents have one session id
            del self._placed[key]
        self._now = clock.now()
        if session.parent is not None and (above := self._parent(format, session, session.parent[0])) is not None:
            run, top = above
            if session.parent[1] is not None:
                top = span_id(run.id, session.parent[0], session.parent[1])
            own = span_id(run.id, session.id, "")
            self._placed[key] = _Placed(session, run, own, top, prompts=self._prompts_of(key))
            self._has_agents[run.id] = True
            return
        if session.parent is not None and self.waits_for_parents and self._own_run(format, session, session.id) is None:
            raise ParentMissing(f"the session {session.parent[0]} has not arrived")
        run, is_new = self._registered(format, session)
        kin = () if session.first is None else self._kin(format, session)
        self._placed[key] = _Placed(session, run, None, None, kin, self._prompts_of(key))
        if is_new:
            self.arrived.runs[run.id] = None
            self._has_agents[run.id] = False

    def _prompts_of(self, key: tuple[str, str]) -> dict[str, tuple[int, str | None]]:
        """Return the first messages of a session that was placed not long ago, or a place for those of a new one."""
        prompts = self._prompts[key] = self._prompts.pop(key, {})
        if len(self._prompts) > _MOST_PROMPTED:
            del self._prompts[next(iter(self._prompts))]
        return prompts

    def _parent(self, format: str, session: Session, id: str) -> tuple[AgentInstanceRow, str | None] | None:
        """Return the run of a session that started another one; None if it has not arrived yet."""
        placed = self._placed.get((format, id))
        if placed is not None:
            return placed.run, placed.top
        if self._own_run(format, session, session.id) is not None:
            return None  # it was read before its parent: its run goes on
        own = self._own_run(format, session, id)
        if own is not None:
            return own, None
        storage = self._ctx.storage
        noted = {"format": format, "session": about_of(self._ctx, id)}
        found = storage.ask(Query("session_file", noted, limit=1)).rows
        if found and isinstance(found[0], SessionFileRow) and found[0].agent_instance_id is not None:
            run = unique(storage, AgentInstanceRow, id=found[0].agent_instance_id)
            return None if run is None else (run, span_id(run.id, id, ""))
        return None

    def _own_run(self, format: str, session: Session, id: str) -> AgentInstanceRow | None:
        """Return the run that a session of the same agent has for itself; None if it has none."""
        storage = self._ctx.storage
        agent = unique(storage, AgentRow, external_identifier=name_of(self._ctx, session.agent))
        if agent is None:
            return None
        return unique(
            storage, AgentInstanceRow, agent_id=agent.id, external_identifier=about_of(self._ctx, f"{format}:{id}")
        )

    def _kin(self, format: str, session: Session) -> tuple[tuple[str, str], ...]:
        own, first = about_of(self._ctx, session.id), about_of(self._ctx, session.first)
        rows = self._ctx.storage.ask(Query("session_file", {"format": format, "first": first})).rows
        return tuple(
            (row.agent_instance_id, row.session)
            for row in rows
            if isinstance(row, SessionFileRow)
            and row.session not in (None, own)
            and row.agent_instance_id is not None
            and state_of(row).get("awaits") != own  # it is a fork of this one, which gets the steps
        )

    def _registered(self, format: str, session: Session) -> tuple[AgentInstanceRow, bool]:
        """Register the run of a session, and return its row, and whether it is new."""
        ctx = self._ctx
        key = f"{format}:{session.id}"
        wanted = Registration(
            hashed_id(key, session.started_ns, ctx.account.partition),
            name_of(ctx, session.agent),
            VersionFields(name_of(ctx, session.version or registration.DEFAULT)),
            self._registrar.schema,
            "live",
            object_of(ctx, metadata_of(session)),
            about_of(ctx, key),
            clock.to_text(session.started_ns),
            git_commit=session.git_commit,
            session=about_of(ctx, session.conversation or session.id),
            task=about_of(ctx, session.task),
        )
        for attempt in range(ATTEMPTS):
            known = self._registrar.known(ctx, wanted)
            if known.agent is not None:
                of_session = {"agent_id": known.agent.id, "external_identifier": wanted.external_identifier}
                stored = unique(ctx.storage, AgentInstanceRow, **of_session)
                if stored is not None:
                    return stored, False
            row, outcome = self._registrar.register(ctx, wanted)
            if isinstance(outcome, Applied):
                return row, True
            if isinstance(outcome, Refused) and isinstance(other := outcome.stored, AgentInstanceRow):
                agent = unique(ctx.storage, AgentRow, external_identifier=wanted.agent)
                if agent is not None and agent.id == other.agent_id:
                    return other, False  # another program has registered it
                # Another agent has a session of this id and time. Ids of spans begin with the time in their run's.
                later_ns = session.started_ns + 1_000_000 * (attempt + 1)
                wanted = wanted._replace(id=hashed_id(key, later_ns, ctx.account.partition))
        raise DatabaseBusy(f"other writers changed the same rows {ATTEMPTS} times in between; try again")

    def _step(self, format: str, step: Step, *, known: bool) -> None:
        self.steps += 1
        placed = self._placed.get((format, step.session))
        if placed is None:
            self.arrived.unread[_UNPLACED] += 1
            return
        if step.type == "message" or step.key in placed.prompts:
            _note_prompt(placed.prompts, step)
        if known:
            return
        if step.status == "active":
            self._open[format, step.session, step.key] = step  # whether it goes on is known at the end of the file
            return
        if self._open:
            self._open.pop((format, step.session, step.key), None)
        self._add(placed, step)

    def _add(self, placed: _Placed, step: Step, closed_by: str | None = None) -> None:
        """Make the row of a step; it waits for the next commit.

        Args:
            closed_by: `abandoned` if the step's own end did not come; None if it did, or may still come.
        """
        run = placed.run
        id = span_id(run.id, step.session, step.key)
        if placed.kin and self._is_inherited(placed, step):
            self.arrived.inherited += 1
            return
        parent = placed.top if step.parent is None else span_id(run.id, step.session, step.parent)
        if step.type == "tool" and step.status != "active":
            step = with_facts(step)
        try:
            row = row_of(run, (id, parent), step, self._now)
        except ValueError:  # JSON that is nested a thousand levels deep cannot be encoded
            self.arrived.unread[_TOO_DEEP] += 1
            return
        if closed_by is not None:
            row = row._replace(closed_by=closed_by, closed_at=row.finished_at)
        if row.is_aggregate:
            self._has_agents[run.id] = True
        if step.type == "llm" and step.status == "complete":
            self._count_call(row, step.result or {})
        self._wait(row, step)

    def _count_call(self, row: AgentSpanRow, result: Mapping[str, Any]) -> None:
        """Count a call of a model, and what it lacks. A later state of it may have it."""
        has_tokens = row.input_tokens is not None or row.output_tokens is not None
        has_text = any(map(result.get, _SAID))
        self.calls, self.uncounted = self.calls + 1, self.uncounted + (not has_tokens)
        self.empty += not has_tokens and not has_text
        for lacking, has in ((self.arrived.no_tokens, has_tokens), (self.arrived.no_text, has_text)):
            lacking.discard(row.id) if has else lacking.add(row.id)

    def _wait(self, row: AgentSpanRow, step: Step) -> None:
        """Let a row wait for the next commit. It is redacted before, together with others."""
        id, size = row.id, _size(row)
        if id in self._unredacted:
            self._redact()
        if id in self._waiting:
            self._bytes -= _size(self._waiting[id])
        self._waiting[id] = row
        self._unredacted[id] = _Stated.of(step) if step.type == "llm" else None
        self._bytes += size
        self._unredacted_bytes += size
        if (
            self._unredacted_bytes >= TOGETHER_BYTES
            or len(self._unredacted) >= TOGETHER
            or len(self._waiting) >= BATCH
            or self._bytes >= BATCH_BYTES
        ):
            self._is_due = True

    def _redact(self) -> None:
        """Remove credentials from the waiting rows that still may have some."""
        unredacted = self._unredacted
        if not unredacted:
            return
        texts: list[str] = []
        columns: list[tuple[str, str]] = []
        for id in unredacted:
            row = self._waiting[id]
            texts.append(row.payload)
            columns.append((id, "payload"))
            if row.result_payload is not None:
                texts.append(row.result_payload)
                columns.append((id, "result_payload"))
        doubtful: dict[str, list[str]] = defaultdict(list)
        for place in self._ctx.doubtful(texts):
            doubtful[columns[place][0]].append(columns[place][1])
        for id, of_row in doubtful.items():
            try:
                self._waiting[id] = redacted(self._ctx, self._waiting[id], of_row)
            except (ValueError, RecursionError):
                self._bytes -= _size(self._waiting.pop(id))
                self.arrived.unread[_TOO_DEEP] += 1
        for id, stated in unredacted.items():
            if stated is not None and id in self._waiting:
                self._compare_costs(self._waiting[id], stated)
        self._unredacted, self._unredacted_bytes, self._is_due = {}, 0, False

    def _is_inherited(self, placed: _Placed, step: Step) -> bool:
        return any(
            id in self._ctx.storage.ask(Find(id, instance_id=run)).rows
            for run, session in placed.kin
            if (id := span_id(run, session, step.key))
        )

    def _compare_costs(self, row: AgentSpanRow, stated: _Stated) -> None:
        model = stated.model or row.label or "?"
        if row.cost_usd is None and (row.input_tokens or row.output_tokens):
            self.arrived.no_price[model] += 1
        if type(stated.cost_usd) in (int, float) and row.cost_usd is not None:
            sums = self.arrived.stated[model]
            sums[0] += stated.cost_usd
            sums[1] += row.cost_usd

    def _end(self, format: str, placed: _Placed, *, live: bool) -> None:
        """Store the end of a session, as far as it is known: in its run, or in the agent span of a sub-agent."""
        run, ctx = placed.run, self._ctx
        if placed.top is not None:
            self._end_sub_agent(placed, live=live)
            return
        stored = ctx.storage.ask(Find(run.id, instance_id=run.id)).rows.get(run.id)
        if stored is None or not isinstance(stored[1], AgentInstanceRow):
            return
        before = stored[1]
        session = self._titled(placed, self._surrounded(format, placed.session, before), before)
        values = ended_run(ctx, session, live=live)
        is_earlier = (before.finished_at or "") > str(values["finished_at"] or "") and not (
            self.replaces_ends or self._replaces
        )
        if is_earlier and not live:
            values = {"started_at": values["started_at"]}
        if (before.started_at or "") < str(values["started_at"]) and not self.replaces_ends:
            del values["started_at"]  # its file began earlier
        values = {name: value for name, value in values.items() if getattr(before, name) != value}
        if values:
            values["updated_at"] = clock.now()
            move = Move("agent_instance", run.id, ANY, values, unchanged={"updated_at": before.updated_at})
            ctx.storage.apply([Unit((move,))], wait_s=ctx.wait_s)
            placed.run = before._replace(**cast(Any, values))
        put_rows(ctx, [score_of(ctx, run.id, session, each) for each in session.scores])

    def _titled(self, placed: _Placed, session: Session, before: AgentInstanceRow) -> Session:
        """Return a session with a title: its own, else its first prompt."""
        if session.metadata.get("title"):
            return session
        title = min((each for each in placed.prompts.values() if each[1]), default=None)
        stored = jsontext.value_of(before.metadata).get("title")
        text = stored if title is None else title[1]
        return session if text is None else session._replace(metadata={**session.metadata, "title": text})

    def _surrounded(self, format: str, session: Session, before: AgentInstanceRow) -> Session:
        """Return a session with the parts of its fingerprint that its file lacks: the stored ones, else found now."""
        stored = fingerprint_of(before.metadata)
        known = session._replace(fingerprint={**stored, **session.fingerprint})
        found, commit = ({}, None) if self._surroundings is None else self._surroundings(format, known)
        return session._replace(
            fingerprint={**found, **known.fingerprint}, git_commit=session.git_commit or before.git_commit or commit
        )

    def _end_sub_agent(self, placed: _Placed, *, live: bool) -> None:
        """Store the agent span of a session that is a sub-agent."""
        session = placed.session
        status: Any = "active" if live and session.outcome is None else STATUS[session.outcome]
        payload = {"name": session.name or session.agent, **({} if session.goal is None else {"goal": session.goal})}
        result = {name: value for name in ("output", "error") if (value := getattr(session, name)) is not None}
        step = Step(
            session.id, "", None, "agent", session.started_ns, None if status == "active" else session.ended_ns, status,
            {**payload, "session": session.id, "metadata": dict(session.metadata)}, result or None,
        )  # fmt: skip
        self._wait(row_of(placed.run, (placed.top or "", placed.above), step, clock.now()), step)
        self.commit()

    def _sum_up(self, run_id: str) -> None:
        """Sum up tokens and costs of the spans below each agent of a run, and store the sums that differ."""
        ctx = self._ctx
        found = sums_of_agents(ctx.storage.ask(Outlines(run_id, bare=True)))
        self._has_agents[run_id] = bool(found)
        for id, sums in found.items():
            located = ctx.storage.ask(Find(id, instance_id=run_id)).rows.get(id)
            if located is None or not isinstance(located[1], AgentSpanRow):
                continue
            row = located[1]
            result = {} if row.result_payload is None else jsontext.decode(row.result_payload)
            result |= {name: value for name, value in zip(TOTALS, sums, strict=True) if value is not None}
            values: dict[str, Value] = {"result_payload": jsontext.text_of(result), "updated_at": clock.now()}
            values |= dict(zip(TOTALS, sums, strict=True))
            if all(getattr(row, name) == values[name] for name in TOTALS):
                continue
            move = Move("agent_span", id, ANY, values, unchanged={"updated_at": row.updated_at}, instance_id=run_id)
            ctx.storage.apply([Unit((move,))], wait_s=ctx.wait_s)


def _note_prompt(prompts: dict[str, tuple[int, str | None]], step: Step) -> None:
    """Note what a person may have said first. Instructions before it can turn out later not to be a prompt."""
    if step.key in prompts or len(prompts) < _MESSAGES:
        is_prompt = (step.type, step.parent, step.payload.get("role")) == ("message", None, "user")
        prompts[step.key] = step.start_ns, prompt_line(step.payload.get("content")) if is_prompt else None


def _size(row: AgentSpanRow) -> int:
    return len(row.payload) + len(row.result_payload or "")
