"""Computes the features of runs that `findings` tests: each is true or false for a run.

Features are, for example: a tool was used, was called often, with a certain value, repeatedly, in a certain order,
slowly, or with an empty result; the run has a certain member in its metadata, or more steps or tokens than half of the
runs. The tools that a run used come from the index. Values of arguments are read from the payloads of some runs only
(see findings), so such a feature is known only for these runs.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from statistics import median_low
from typing import Any

from agentspan import jsontext
from agentspan.analysis.findings import FEWEST, Feature
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.signatures import Signature, type_title
from agentspan.storage.answers import FailureSum, Progress, RunBrief, StepUse
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, Find, SpansOf, StepUses
from agentspan.text import count_text, duration_text, one_line

MAX_VALUES = 200
"""The number of values of arguments and metadata that are tested: the most frequent. More tests weaken all others."""
MAX_PAIRS = 20
"""The number of pairs of tools whose order is tested: those whose rarer order occurs in the most runs."""
MAX_VALUE = 40
"""The largest number of characters of a value that is a feature; longer texts are seldom equal in two runs."""
_EMPTY = frozenset({"", "[]", "{}", "null", "None"})


def span_features(storage: Storage, run_ids: Sequence[str]) -> Iterator[Feature]:
    """Yield the features that come from the spans and metadata of runs; they are known only for these runs."""
    reader = _Reader()
    for id in run_ids:
        reader.read(
            id, sorted(storage.ask(SpansOf(id)), key=lambda span: (span.started_at or span.inserted_at, span.id))
        )
    for id, (_, row) in storage.ask(Find(*run_ids)).rows.items():
        if isinstance(row, AgentInstanceRow):
            reader.read_metadata(id, row.metadata)
    known = frozenset(run_ids)
    yield from reader.repeats(known)
    yield from reader.empty_results(known)
    yield from reader.values(known)
    yield from reader.orders()
    yield from reader.slow_steps()


class _Reader:
    def __init__(self) -> None:
        self._values: dict[str, set[str]] = defaultdict(set)
        self._repeats: dict[str, set[str]] = defaultdict(set)
        self._empty: dict[str, set[str]] = defaultdict(set)
        self._first: dict[str, dict[str, int]] = {}
        self._slowest: dict[str, dict[str, float]] = defaultdict(dict)

    def read(self, run: str, spans: Iterable[AgentSpanRow]) -> None:
        """Collect the features in the spans of a run, which must be in order of start."""
        calls: Counter[tuple[str, str]] = Counter()
        first: dict[str, int] = {}
        for place, span in enumerate(spans):
            kind = built_in_part(span.schema_name)
            if span.label is None or kind not in ("tool", "llm"):
                continue
            step = f"{type_title(span.schema_name)} {span.label}"
            payload = _decoded(span.payload)
            for name, value in _parameters(span.label, payload, kind):
                self._values[f"{step} with {name}={value}"].add(run)
            if span.duration_ms is not None:
                slowest = self._slowest[step]
                slowest[run] = max(slowest.get(run, 0.0), span.duration_ms)
            if kind == "tool":
                calls[step, _arguments_text(payload, span.payload)] += 1
                first.setdefault(step, place)
                if span.status == "complete" and _is_empty(_output(span.result_payload)):
                    self._empty[step].add(run)
        self._first[run] = first
        for (step, _), number in calls.items():
            if number > 1:
                self._repeats[step].add(run)

    def read_metadata(self, run: str, text: str | None) -> None:
        """Collect the short values in the metadata of a run."""
        metadata = None if text is None else _decoded(text)
        for name, value in _short(metadata) if type(metadata) is dict else ():
            self._values[f"metadata {name}={value}"].add(run)

    def values(self, known: frozenset[str]) -> Iterator[Feature]:
        """Yield a feature for each value of an argument or of metadata that some runs have and others lack."""
        most = sorted(self._values.items(), key=lambda item: (-len(item[1]), item[0]))
        fitting = [(text, runs) for text, runs in most if FEWEST <= len(runs) <= len(known) - FEWEST]
        for text, runs in fitting[:MAX_VALUES]:
            yield Feature(text, frozenset(runs), known)

    def repeats(self, known: frozenset[str]) -> Iterator[Feature]:
        """Yield a feature for each tool that a run called again with the same arguments."""
        for step, runs in sorted(self._repeats.items()):
            yield Feature(f"{step} repeated with the same arguments", frozenset(runs), known)

    def empty_results(self, known: frozenset[str]) -> Iterator[Feature]:
        """Yield a feature for each tool that returned an empty result."""
        for step, runs in sorted(self._empty.items()):
            yield Feature(f"{step} with an empty result", frozenset(runs), known)

    def orders(self) -> Iterator[Feature]:
        """Yield a feature for each pair of tools: which was called first, in runs that called both."""
        before: dict[tuple[str, str], set[str]] = defaultdict(set)
        for run, first in self._first.items():
            for one, other in combinations(first, 2):  # the keys of `first` are in the order of the first calls
                before[one, other].add(run)
        pairs = [pair for pair in before if pair[0] < pair[1] and pair[::-1] in before]
        rarer = {pair: min(len(before[pair]), len(before[pair[::-1]])) for pair in pairs}
        for one, other in sorted(pairs, key=lambda pair: (-rarer[pair], pair))[:MAX_PAIRS]:
            runs = frozenset(before[one, other])
            known = runs | before[other, one]
            yield Feature(f"{one} before {other}", runs, known, f"{other} before {one}")

    def slow_steps(self) -> Iterator[Feature]:
        """Yield a feature for each tool or model: the run's slowest call is in the slowest quarter of all runs."""
        for step, slowest in sorted(self._slowest.items()):
            ordered = sorted(slowest.values())
            limit = ordered[3 * len(ordered) // 4 - 1] if len(ordered) > FEWEST else 0.0
            runs = frozenset(run for run, took in slowest.items() if took > limit)
            text = f"{step} longer than {duration_text(limit)}"
            yield Feature(text, runs, frozenset(slowest), f"{step} within {duration_text(limit)}")


def _parameters(label: str, payload: Any, kind: str) -> Iterator[tuple[str, str]]:
    """Yield the names and short values of a tool's arguments or a model's settings."""
    parameters = payload.get("arguments") if type(payload) is dict and kind == "tool" else payload
    for name, value in _short(parameters) if type(parameters) is dict else ():
        if value != label:
            yield name, value


def _short(members: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in members.items():
        text = value if type(value) is str else str(value).lower() if type(value) in (bool, int, float) else None
        if text is not None and len(text) <= MAX_VALUE:
            yield one_line(name, MAX_VALUE), one_line(text, MAX_VALUE)


def _arguments_text(payload: Any, text: str) -> str:
    """Return the arguments of a call as one canonical text, without the call id."""
    return jsontext.canonical(payload.get("arguments", payload)) if type(payload) is dict else text


def _output(result: str | None) -> Any:
    decoded = None if result is None else _decoded(result)
    return decoded.get("output", decoded) if type(decoded) is dict else decoded


def _is_empty(output: Any) -> bool:
    """Return whether the output of a tool is empty: no text, no elements, or only empty members and counts of 0."""
    if type(output) is str:
        return output.strip() in _EMPTY
    if type(output) is dict:
        some = [value for value in output.values() if type(value) not in (int, float) or value]
        return (bool(some) or not output) and all(map(_is_empty, some))
    return output is None or output == []


def _decoded(text: str) -> Any:
    try:
        return jsontext.decode(text)
    except (ValueError, RecursionError):
        return None


def run_features(
    storage: Storage,
    runs: Sequence[RunBrief],
    tags: Mapping[str, Collection[str]] | None = None,
    failures: Iterable[FailureSum] | None = None,
    *,
    read: Sequence[RunBrief] | None = None,
    progress: Progress | None = None,
) -> list[Feature]:
    """Return the features that some runs have and others lack.

    Args:
        runs: the runs, the latest first.
        tags: the tags of each run, by run id.
        failures: the failures of at least these runs; read from the storage when left out.
        read: the runs whose payloads are read; all when left out.
        progress: called with (done, total) while an index is built.
    """
    ids = frozenset(run.id for run in runs)
    uses = storage.ask(StepUses(ids, progress=progress))
    steps = _by_step(uses)
    if failures is None:
        failures = storage.ask(FailureSums(ids, progress=progress))
    found = [
        *_told(runs, tags or {}),
        *_used(steps),
        *_errors(failures, ids),
        *span_features(storage, [run.id for run in (runs if read is None else read)]),
        *_sizes(runs),
        *_how_used(steps),
    ]
    return distinct(found, ids)


def distinct(features: Iterable[Feature], ids: frozenset[str]) -> list[Feature]:
    """Return features without redundant ones: features of exactly the same runs, or of exactly all other runs.

    The first of redundant features stays, so the order of `features` matters: the use of a tool tells more than its
    error, its error more than its failure, and a failure more than a number of steps. A feature of exactly all other
    runs names the opposite of the first one: `currency=EUR` instead of `no currency=USD`. Only features that are known
    for the same runs are compared.

    Args:
        ids: the ids of all runs.
    """
    telling: dict[tuple[frozenset[str], frozenset[str]], Feature] = {}
    for feature in features:
        known = ids if feature.known is None else feature.known
        lacking = known - feature.runs
        if min(len(feature.runs), len(lacking)) < FEWEST or (known, feature.runs) in telling:
            continue
        first = telling.get((known, lacking))
        if first is None:
            telling[known, feature.runs] = feature
        elif not first.lacking:
            telling[known, lacking] = first._replace(lacking=feature.text)
    return [*telling.values()]


def _told(runs: Sequence[RunBrief], tags: Mapping[str, Collection[str]]) -> Iterator[Feature]:
    versions: dict[tuple[str, str], set[str]] = defaultdict(set)
    tagged: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        versions[run.agent, run.version].add(run.id)
        for tag in tags.get(run.id, ()):
            tagged[tag].add(run.id)
    agents = {agent for agent, _ in versions}
    for (agent, version), ids in sorted(versions.items()):
        text = f"version {version}" if len(agents) == 1 else f"{agent} {version}"
        yield Feature(text, frozenset(ids))
    for tag, ids in sorted(tagged.items()):
        yield Feature(f"tag {tag}", frozenset(ids))


def _sizes(runs: Sequence[RunBrief]) -> Iterator[Feature]:
    yield from _more(runs, lambda run: run.spans, lambda number: "1 step" if number == 1 else f"{number:,} steps")
    yield from _more(runs, _tokens, lambda number: f"{count_text(number)} tokens")


def _tokens(run: RunBrief) -> int | None:
    if run.input_tokens is None and run.output_tokens is None:
        return None
    return (run.input_tokens or 0) + (run.output_tokens or 0)


def _more(
    runs: Sequence[RunBrief], number_of: Callable[[RunBrief], int | None], text: Callable[[int], str]
) -> Iterator[Feature]:
    numbers = {run.id: number for run in runs if (number := number_of(run)) is not None}
    if numbers:
        middle = median_low(numbers.values())
        more = frozenset(id for id, number in numbers.items() if number > middle)
        yield Feature(f"more than {text(middle)}", more, frozenset(numbers), f"at most {text(middle)}")


def _by_step(uses: Iterable[StepUse]) -> list[tuple[str, list[StepUse]]]:
    groups: dict[str, list[StepUse]] = defaultdict(list)
    for use in uses:
        groups[" ".join(text for text in (type_title(use.schema_name), use.label) if text)].append(use)
    return sorted(groups.items())


def _errors(failures: Iterable[FailureSum], ids: Collection[str]) -> Iterator[Feature]:
    having: dict[Signature, set[str]] = defaultdict(set)
    for each in failures:
        if each.run_id in ids:
            having[each.signature].add(each.run_id)
    texts = Counter(signature.text for signature in having)
    for signature, runs in sorted(having.items(), key=lambda item: (-len(item[1]), item[0])):
        name = signature.text if texts[signature.text] == 1 else f"{signature.id[:4]} {signature.text}"
        yield Feature(f"error {name}", frozenset(runs))


def _used(steps: Iterable[tuple[str, list[StepUse]]]) -> Iterator[Feature]:
    for step, own in steps:
        yield Feature(f"{step} used", frozenset(use.run_id for use in own), None, f"{step} not used")


def _how_used(steps: Sequence[tuple[str, list[StepUse]]]) -> Iterator[Feature]:
    for step, own in steps:
        yield Feature(
            f"{step} failed", frozenset(use.run_id for use in own if use.failed), None, f"{step} without a failure"
        )
    for step, own in steps:
        numbers = [use.spans for use in own]
        usual = min(median_low(numbers), max(numbers) - 1) or 1
        times = "once" if usual == 1 else f"{usual} times"
        often = frozenset(use.run_id for use in own if use.spans > usual)
        yield Feature(f"{step} used more than {times}", often, None, f"{step} used at most {times}")
