"""The failures of a run: the step that made it fail, whether it recovered, its own error, and how it ended.

A failure is recovered by a later success with the same arguments, or by a tool or model call around the failed step
that completed. A success with other arguments is reported beside the step, but is not a recovery: it may have done
something else.

A run's own error is one that no unrecovered step raised. To tell, the spans of runs are read, at most READ_SPANS of
them. A run beyond this limit is judged like the first run with the same error and the same failed steps; without such a
run, its error counts as raised by a step.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from agentspan import jsontext
from agentspan.analysis import messages
from agentspan.analysis.differences import MAX_FIELDS, FieldChange, field_changes
from agentspan.analysis.outcomes import Run
from agentspan.analysis.tree import began, build, every, in_time, span_error, title_of
from agentspan.blobs import described
from agentspan.errors import InvalidValue
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.signatures import Signature, ending_signature, error_parts, passes_on, run_signature, signature
from agentspan.storage.access import scan
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, SpansOf, StepUses
from agentspan.storage.row_by_row import has_failed, leaves
from agentspan.storage.sums import FailureSum, RunBrief, StepUse

TITLE = 200


@dataclass(frozen=True, slots=True)
class FailedStep:
    """The innermost failed step that explains the failure of a run: no step inside it failed with the same error.

    Attributes:
        span_id, number: the id of the step, and its place in the run's tree, from 1 on.
        title: the summary of the step.
        within: the titles of the steps around the step, the outermost first.
        error: the type and message of the error, as recorded.
        payload: the input of the step as JSON text; for a tool, its arguments.
        asked_by: the number of the model call that requested the step; None if unknown.
        model_text: the text of that model call; None if it had no text.
        failed_before: the number of earlier failed steps of the same type and label.
        same_before: the number of these earlier failed steps with the same payload.
        failed_after: the number of later failed steps of the same type and label.
        same_after: the number of these later failed steps with the same payload.
        passed_after: the number of later passed steps of the same type and label.
        recovered_by: the number of the step that recovered from the failure; None if it is unrecovered. If set, the run
            recovered from all its failures, and this is the last of them.
        passed_later: if unrecovered: the number of the next call of the same tool, in turn with the failed one, that
            passed with other arguments; None if no call did.
        changes: the differences of the arguments of `passed_later` from those of the failed step.
        user_text: the last text of a user before the step; None if there was none.
    """

    span_id: str
    number: int
    title: str
    within: tuple[str, ...]
    error: str
    payload: str
    asked_by: int | None
    model_text: str | None
    failed_before: int
    same_before: int
    failed_after: int
    same_after: int
    passed_after: int
    recovered_by: int | None
    passed_later: int | None
    changes: tuple[FieldChange, ...]
    user_text: str | None = None


class _Tree:
    """The steps of a run in the order of its tree.

    Attributes:
        spans: the spans, parents first.
        number: the number of each step, by id, from 1 on.
        parent: the parent of each step, by id; roots are missing.
        agent: the id of the nearest agent around each step, by id; None without an agent.
        way: a number for each step, by id; steps have the same number if the types and labels of the steps around them
            are equal, up to the same nearest agent.
        last: the number of the last step inside each step, by id; its own number without any.
    """

    def __init__(self, spans: Iterable[AgentSpanRow]) -> None:
        nodes = [*every(build(spans))]
        self.spans = [node.span for node in nodes]
        self.number = {span.id: number for number, span in enumerate(self.spans, start=1)}
        self.parent = {child.span.id: node.span for node in nodes for child in node.children}
        self.agent: dict[str, str | None] = {}
        self.way: dict[str, int] = {}
        ways: dict[tuple[object, ...], int] = {}
        for span in self.spans:
            parent = self.parent.get(span.id)
            way: tuple[object, ...]
            if parent is None:
                self.agent[span.id], way = None, ()
            elif _is(parent, "agent"):
                self.agent[span.id], way = parent.id, (parent.id,)
            else:
                self.agent[span.id] = self.agent[parent.id]
                way = self.way[parent.id], parent.schema_name, parent.label
            self.way[span.id] = ways.setdefault(way, len(ways))
        self.last: dict[str, int] = {}
        for node in reversed(nodes):
            below = node.children[-1:]
            self.last[node.span.id] = self.last[below[0].span.id] if below else self.number[node.span.id]

    def above(self, span: AgentSpanRow) -> list[AgentSpanRow]:
        """Return the steps around a step, the innermost first."""
        found = []
        while (parent := self.parent.get(span.id)) is not None:
            found.append(parent)
            span = parent
        return found


def failed_step(run: AgentInstanceRow, spans: Sequence[AgentSpanRow]) -> FailedStep | None:
    """Return the step that made a run fail; None if no step failed.

    Failures whose error the run passes on win over others. Of these it is the first unrecovered one; if the run
    recovered from all of them, the last one.
    """
    found = in_time(leaves(spans))
    if not found:
        return None
    error = error_parts(run.error)
    passed_on = [span for span in found if any(error) and passes_on(error, error_parts(span.result_payload))]
    tree = _Tree(spans)
    recovering = _Recovering(tree)
    recovery = None
    for failed in passed_on or found:
        recovery = recovering.step(failed)
        if recovery is None:
            return _described(failed, tree, None, recovering.next_success(failed))
    return _described((passed_on or found)[-1], tree, recovery, None)


def unrecovered(spans: Sequence[AgentSpanRow]) -> list[AgentSpanRow]:
    """Return the failed spans of a run that are innermost and unrecovered."""
    found = leaves(spans)
    recovering = _Recovering(_Tree(spans))
    return [span for span in found if recovering.step(span) is None]


def _described(
    failed: AgentSpanRow, tree: _Tree, recovery: AgentSpanRow | None, later: AgentSpanRow | None
) -> FailedStep:
    kind = failed.schema_name, failed.label
    same_kind = [span for span in tree.spans if (span.schema_name, span.label) == kind and span != failed]
    alike = [span for span in same_kind if has_failed(span)]
    before, after = (
        [span for span in alike if (began(span) < began(failed)) == is_before] for is_before in (True, False)
    )
    arguments = _input(failed)
    asking = _asking(failed, tree)
    return FailedStep(
        failed.id,
        tree.number[failed.id],
        title_of(failed, TITLE),
        tuple(title_of(span, TITLE) for span in reversed(tree.above(failed))),
        span_error(failed) or "no error was recorded",
        arguments,
        None if asking is None else tree.number[asking.id],
        None if asking is None else _words(asking),
        len(before),
        sum(_input(span) == arguments for span in before),
        len(after),
        sum(_input(span) == arguments for span in after),
        sum(_has_passed(span) and began(span) > began(failed) for span in same_kind),
        None if recovery is None else tree.number[recovery.id],
        None if later is None else tree.number[later.id],
        () if later is None else _changes(failed, later),
        _prompt(failed, asking, tree),
    )


class _Recovering:
    """Finds the steps of a run that recovered from failures."""

    def __init__(self, tree: _Tree) -> None:
        self._tree = tree
        self._passed: dict[tuple[int, str, str | None], list[AgentSpanRow]] = defaultdict(list)
        self._last: dict[tuple[int, str, str | None], dict[str, AgentSpanRow]] = {}
        for span in in_time(tree.spans):
            if _has_passed(span):
                self._passed[self._kind(span)].append(span)

    def step(self, failed: AgentSpanRow) -> AgentSpanRow | None:
        """Return the step that recovered from a failure; None if it is unrecovered.

        A later success of the same call with the same arguments wins (the last one); then, for a model, its next
        success; then the innermost tool or model call around the failure that completed.
        """
        kind = self._kind(failed)
        if kind not in self._last:
            self._last[kind] = {_input(span): span for span in self._passed.get(kind, [])}
        same = self._last[kind].get(_input(failed))
        if same is not None and began(same) > began(failed) and self._is_in_turn(same, failed):
            return same
        later = self.next_success(failed) if _is(failed, "llm") else None
        return later or next(self._completed_around(failed), None)

    def next_success(self, failed: AgentSpanRow) -> AgentSpanRow | None:
        """Return the next passed step of the same tool or model with any arguments; None if there is none.

        The step must have the same parent as the failure, or a parent that started after the failure.
        """
        passed = self._passed.get(self._kind(failed), [])
        place = bisect_right(passed, began(failed), key=began)
        return next((span for span in passed[place : place + 1] if self._is_in_turn(span, failed)), None)

    def _completed_around(self, failed: AgentSpanRow) -> Iterator[AgentSpanRow]:
        for span in self._tree.above(failed):
            if _is(span, "agent"):
                return
            if (_is(span, "tool") or _is(span, "llm")) and _has_passed(span):
                yield span

    def _kind(self, span: AgentSpanRow) -> tuple[int, str, str | None]:
        return self._tree.way[span.id], span.schema_name, span.label

    def _is_in_turn(self, span: AgentSpanRow, failed: AgentSpanRow) -> bool:
        parent = self._tree.parent.get(span.id)
        return parent == self._tree.parent.get(failed.id) or (parent is not None and began(parent) > began(failed))


def _has_passed(span: AgentSpanRow) -> bool:
    return span.status == "complete" and not has_failed(span)


def _changes(failed: AgentSpanRow, later: AgentSpanRow) -> tuple[FieldChange, ...]:
    one, other = (jsontext.decode(_input(span)) for span in (failed, later))
    changes = islice(field_changes("", one, other), MAX_FIELDS)
    return tuple(replace(each, path=each.path.removeprefix(".")) for each in changes)


def _input(span: AgentSpanRow) -> str:
    """Return the input of a step as JSON text: the arguments of a tool, else the payload."""
    text = described(span.payload)
    payload = jsontext.decode(text)
    if _is(span, "tool") and type(payload) is dict and "arguments" in payload:
        return jsontext.canonical(payload["arguments"])
    return text


def _asking(failed: AgentSpanRow, tree: _Tree) -> AgentSpanRow | None:
    """Return the model call that requested a step; None if unknown.

    A model call whose result has the step's call id wins; else the nearest earlier model call of the same agent, first
    in the innermost step around both.
    """
    agent = tree.agent[failed.id]
    earlier = in_time(span for span in tree.spans if _is(span, "llm") and began(span) < began(failed))
    call = _call_id(failed)
    if call is not None:
        asking = [span for span in earlier if call in (span.result_payload or "")]
        own = [span for span in asking if tree.agent[span.id] == agent]
        if own or len(asking) == 1:  # call ids such as call_1 may repeat in other agents
            return (own or asking)[-1]
    own = [
        span
        for span in reversed(earlier)
        if tree.agent[span.id] == agent and tree.last[span.id] < tree.number[failed.id]
    ]
    branch = failed
    for scope in (*tree.above(failed), None):
        first = 0 if scope is None else tree.number[scope.id]
        for span in own:
            if tree.number[span.id] > first and not _is_beside(span, branch, scope, tree):
                return span
        if scope is None or scope.id == agent:
            break
        branch = scope
    return None


def _is_beside(model: AgentSpanRow, branch: AgentSpanRow, scope: AgentSpanRow | None, tree: _Tree) -> bool:
    """Return whether a model call is in a branch of `scope` that was still running when `branch` started.

    Concurrent branches may be agents without a span of type agent; an agent does not request steps of another one.
    """
    other = model
    for parent in tree.above(model):
        if scope is not None and parent.id == scope.id:
            break
        other = parent
    return other is not model and (other.finished_at is None or other.finished_at > began(branch)[0])


def _words(model: AgentSpanRow) -> str | None:
    result = None if model.result_payload is None else jsontext.decode(described(model.result_payload))
    text = result.get("text") if type(result) is dict else None
    return text if type(text) is str and text.strip() else None


def _prompt(failed: AgentSpanRow, asking: AgentSpanRow | None, tree: _Tree) -> str | None:
    """Return the last text of a user before a step; None without one.

    The text comes from the messages that the requesting model call was sent, else from the nearest message span before
    the step.
    """
    if asking is not None:
        payload = jsontext.value_of(described(asking.payload))
        said = [message["text"] for message, _ in messages.sent(payload) if message["role"] == "user"]
        if any(said):
            return next(text for text in reversed(said) if text)
    earlier = in_time(span for span in tree.spans if _is(span, "message") and began(span) < began(failed))
    for span in reversed(earlier):
        said = [message["text"] for message in messages.spoken(span) if message["role"] == "user" and message["text"]]
        if said:
            return said[-1]
    return None


def _call_id(span: AgentSpanRow) -> str | None:
    """Return the call id of a tool span as JSON text; None for other spans, or without an id."""
    payload = jsontext.decode(described(span.payload)) if _is(span, "tool") else None
    call = payload.get("call_id") if type(payload) is dict else None
    return jsontext.canonical(call) if type(call) is str and call else None


def _is(span: AgentSpanRow, kind: str) -> bool:
    return built_in_part(span.schema_name) == kind


def ending_of(status: str, uses: Collection[StepUse]) -> Signature:
    """Return the signature of how a run ended.

    Args:
        status: the status of the run.
        uses: the steps that the run used.
    """
    in_time = sorted(uses, key=lambda use: (use.last_at, use.schema_name, use.label or ""), reverse=True)
    step = in_time[0] if in_time else None
    tool = next((use for use in in_time if use.label and built_in_part(use.schema_name) == "tool"), None)
    model = next((use for use in in_time if use.reason is not None), None)
    return ending_signature(
        status,
        None if tool is None else tool.label,
        None if step is None else step.schema_name,
        None if model is None else model.reason,
    )


def endings(storage: Storage, runs: Sequence[Run]) -> dict[str, Signature]:
    """Return the signature of how each run ended, by the run's id."""
    uses: dict[str, list[StepUse]] = defaultdict(list)
    for use in storage.ask(StepUses([run.id for run in runs])):
        uses[use.run_id].append(use)
    return {run.id: ending_of(run.status, uses[run.id]) for run in runs}


READ_SPANS = 20_000
"""The largest number of spans that one OwnErrors reads."""

_ID = re.compile("[0-9a-f]{1,12}")


class OwnErrors:
    """Decides whether errors are a run's own, and whether a run recovered. Reads the spans of each run at most once.

    Args:
        sums: the failures of all runs that will be examined.
        most_spans: the largest number of spans that are read.
    """

    def __init__(self, storage: Storage, sums: Iterable[FailureSum], *, most_spans: int = READ_SPANS) -> None:
        self._storage = storage
        self._failures: dict[str, set[str]] = {}
        for each in sums:
            self._failures.setdefault(each.run_id, set()).add(each.signature.id)
        self._lasting: dict[str, tuple[bool, frozenset[str]]] = {}
        self._alike: dict[tuple[str, frozenset[str]], bool] = {}
        self._lasting_alike: dict[tuple[str | None, frozenset[str]], frozenset[str]] = {}
        self._room = most_spans

    def is_own(self, run: Run) -> bool:
        """Return whether a run has an error of its own, which no unrecovered step raised."""
        own = run_signature(run.error)
        if own is None:
            return False
        failures = frozenset(self._failures.get(run.id, ()))
        if not failures:
            return True
        read = self._read(run)
        if read is None:
            return self._alike.get((own.id, failures), False)
        self._alike.setdefault((own.id, failures), read[0])
        return read[0]

    def lasting(self, run: RunBrief) -> frozenset[str] | None:
        """Return the ids of the signatures of the failures from which a run did not recover; None over the limit.

        Over the limit, a run with the same error and the same failures as one that was read is judged like it.
        """
        own = run_signature(run.error)
        alike = None if own is None else own.id, frozenset(self._failures.get(run.id, ()))
        read = self._read(run) if run.id in self._lasting or run.spans <= self._room else None
        if read is None:
            return self._lasting_alike.get(alike)
        self._lasting_alike.setdefault(alike, read[1])
        return read[1]

    def recovered_in_all(self, signature_id: str, runs: Iterable[Run]) -> bool:
        """Return whether every run recovered from all failures with a signature; False if a run could not be read."""
        for run in runs:
            read = self._read(run)
            if read is None or signature_id in read[1]:
                return False
        return True

    def _read(self, run: Run) -> tuple[bool, frozenset[str]] | None:
        """Return whether a run's error is its own, and its unrecovered failures' signatures; None over the limit."""
        if run.id not in self._lasting:
            if self._room <= 0:
                return None
            spans = [*self._storage.ask(SpansOf(run.id))]
            self._room -= len(spans)
            lasting = unrecovered(spans)
            error = error_parts(run.error)
            raised = any(passes_on(error, error_parts(span.result_payload)) for span in lasting)
            self._lasting[run.id] = not raised, frozenset(signature(span).id for span in lasting)
        return self._lasting[run.id]


def with_signature(storage: Storage, beginning: str) -> frozenset[str]:
    """Return the ids of the runs with a signature: of a failed step, else of their own error or of how they ended.

    Args:
        beginning: the first characters of the signature's id.

    Raises:
        InvalidValue: `beginning` is not 1 to 12 hexadecimal digits.
    """
    beginning = beginning.lower()
    if _ID.fullmatch(beginning) is None:
        raise InvalidValue(
            "signature", "must be the beginning of a signature as `agentspan why` shows it, such as 302c"
        )
    runs = {run.id: run for run in scan(storage, AgentInstanceRow)}
    sums = storage.ask(FailureSums(runs.keys()))
    found = frozenset(each.run_id for each in sums if each.signature.id.startswith(beginning))
    if found:
        return found
    errors = OwnErrors(storage, sums)
    signed = [run for run in runs.values() if (each := run_signature(run.error)) and each.id.startswith(beginning)]
    own = frozenset(run.id for run in signed if errors.is_own(run))
    quiet = [runs[id] for id in runs.keys() - {each.run_id for each in sums} if run_signature(runs[id].error) is None]
    return own | {id for id, ending in endings(storage, quiet).items() if ending.id.startswith(beginning)}
