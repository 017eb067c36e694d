"""Reads features of runs: properties that some runs have and others lack, which may go with failure.

Features are, for example: a tool was used, was called often, with a certain value, a number above a limit, repeatedly,
in a certain order, slowly, with a certain or an empty result, or with a failing exit code; a model was sent a certain
sentence, or stopped for a certain reason; tests were run, or failed; the run has a certain member in its metadata, or
more steps or tokens than half of the runs. The tools that a run used come from the index. Payloads are read of some
runs only, so features that come from them are known only for these runs.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from statistics import median_low
from typing import Any, NamedTuple

from agentspan import jsontext
from agentspan.analysis import messages
from agentspan.analysis.tree import in_time
from agentspan.model.rows import AgentInstanceRow, AgentSpanRow
from agentspan.schemas.builtin import built_in_part
from agentspan.schemas.commands import exit_code_of, has_failed, runs_tests
from agentspan.schemas.signatures import Signature, type_title
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, Find, SpansOf, StepUses
from agentspan.storage.row_by_row import tokens_of
from agentspan.storage.sums import FailureSum, Progress, RunBrief, StepUse
from agentspan.text import count_text, duration_text, one_line

FEWEST = 3
"""The least number of runs with a feature, and of runs without it, for the feature to be tested."""


class Feature(NamedTuple):
    """A property that some runs have and others lack.

    Attributes:
        text: the name of the feature, such as `Tool book_reservation used`.
        runs: the ids of the runs that have the feature.
        known: the ids of the runs for which the feature is known; None for all runs.
        lacking: the name of the opposite, such as `Tool book_reservation not used`; "" for `no ` and the text.
    """

    text: str
    runs: frozenset[str]
    known: frozenset[str] | None = None
    lacking: str = ""

    @property
    def opposite(self) -> str:
        """The name of the opposite feature, which the other runs have."""
        return self.lacking or f"no {self.text}"


MAX_VALUES = 200
"""The number of values of arguments and metadata that are tested: the most frequent. More tests weaken all others."""
MAX_PAIRS = 20
"""The number of pairs of tools whose order is tested: those whose rarer order occurs in the most runs."""
MAX_VALUE = 40
"""The largest number of characters of a value that is a feature; longer texts are seldom equal in two runs."""
MAX_DEPTH = 6
"""The depth up to which values inside arguments and results are read."""
MAX_MEMBERS = 50
"""The largest number of members, or elements, of each level of a value that are read."""
MAX_PROMPT, MAX_FRAGMENT = 20_000, 80
"""The largest number of characters of a message, and of a sentence of it, that are read."""
MAX_PROMPTS = 60
"""The number of sentences and words of prompts that are tested: those in the most runs."""
LIMITS = (0.5, 0.8)
"""The shares of runs whose largest number is at most a limit that is tested."""
MANY_NUMBERS = 12
"""A number is compared with limits if it has more different values than this; with fewer, each is a value."""
_UNREAD = frozenset({"agent", "chain", "message", "evaluation"})
"""Span types whose payloads are not read: they repeat those of other steps, or judge the run."""
_OF_TRIALS = frozenset({"evaluation", "trial", "case"})
"""Members of the metadata of trials that count or name them."""
_PROMPTED = frozenset({*messages.SYSTEM, *messages.SENT, "model", "tools", "input_tokens", "output_tokens"})
_REASONS = ("finish_reason", "stop_reason", "finish_reasons", "status")
_WRITTEN = frozenset({"system", "developer", "user"})
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+")
_WORDS = re.compile(r"[^\W\d_][\w'-]{2,39}")
_EMPTY = frozenset({"", "[]", "{}", "null", "None"})


def span_features(storage: Storage, run_ids: Sequence[str]) -> Iterator[Feature]:
    """Yield the features that come from the spans and metadata of runs; they are known only for these runs."""
    reader = _Reader()
    for id in run_ids:
        reader.read(id, in_time(storage.ask(SpansOf(id))))
    for id, (_, row) in storage.ask(Find(*run_ids)).rows.items():
        if isinstance(row, AgentInstanceRow):
            reader.read_metadata(id, row.metadata)
    known = frozenset(run_ids)
    yield from reader.surprises(known)
    yield from reader.tests(known)
    yield from reader.values(known)
    yield from reader.numbers()
    yield from reader.prompts(known)
    yield from reader.orders()
    yield from reader.slow_steps()


class _Reader:
    def __init__(self) -> None:
        self._values: dict[str, set[str]] = defaultdict(set)
        self._repeats: dict[str, set[str]] = defaultdict(set)
        self._empty: dict[str, set[str]] = defaultdict(set)
        self._first: dict[str, dict[str, int]] = {}
        self._slowest: dict[str, dict[str, float]] = defaultdict(dict)
        self._exits: dict[str, set[str]] = defaultdict(set)
        self._tests: dict[str, list[bool]] = {}
        self._numbers: dict[str, dict[str, set[float]]] = defaultdict(dict)
        self._prompts: dict[str, set[str]] = defaultdict(set)
        self._messages: dict[tuple[str, str], Any] = {}
        self._returning: dict[str, set[str]] = defaultdict(set)
        self._sent: set[tuple[str, Any]] = set()

    def read(self, run: str, spans: Iterable[AgentSpanRow]) -> None:
        """Collect the features in the spans of a run, which must be in order of start."""
        calls: Counter[tuple[str, str]] = Counter()
        first: dict[str, int] = {}
        for place, span in enumerate(spans):
            kind = built_in_part(span.schema_name)
            if kind in _UNREAD:
                continue
            title = type_title(span.schema_name)
            step = " ".join(text for text in (title, span.label) if text)
            payload, result = jsontext.decoded(span.payload), jsontext.decoded(span.result_payload)
            self._read_values(run, f"{step} with", _parameters(payload, kind), span.label)
            if span.status == "complete":
                returning = f"{title if kind == 'llm' else step} returning"
                self._returning[returning].add(run)
                self._read_values(run, returning, _returned(result, kind))
            if kind == "llm":
                self._read_prompt(run, payload)
            elif span.status == "complete" and span.result_payload is not None and _is_empty(_output(result)):
                self._empty[step].add(run)
            if span.label is None:
                continue
            if span.duration_ms is not None:
                slowest = self._slowest[step]
                slowest[run] = max(slowest.get(run, 0.0), span.duration_ms)
            if kind == "tool":
                calls[step, _arguments_text(payload, span.payload)] += 1
                first.setdefault(step, place)
                self._read_command(run, step, span, payload, result)
        self._first[run] = first
        for (step, _), number in calls.items():
            if number > 1:
                self._repeats[step].add(run)

    def _read_values(self, run: str, what: str, members: Iterable[tuple[str, Any]], label: str | None = None) -> None:
        """Collect short values, and the largest number of each name."""
        for name, value in members:
            where = f"{what} {one_line(name, MAX_VALUE)}".rstrip()
            if type(value) in (int, float):
                self._numbers[where].setdefault(run, set()).add(value)
            elif len(text := value if type(value) is str else str(value).lower()) <= MAX_VALUE and text != label:
                self._values[f"{where}{'=' if name else ' '}{one_line(text, MAX_VALUE)}"].add(run)

    def _read_prompt(self, run: str, payload: Any) -> None:
        """Collect the sentences and words that a model was sent; each message of a run once."""
        for message, key in messages.sent(payload, self._messages):
            if message["role"] in _WRITTEN and (run, key) not in self._sent:
                self._sent.add((run, key))
                text = message["text"][:MAX_PROMPT]
                parts = {part.strip() for part in _SENTENCES.split(text)} | {*_WORDS.findall(text.lower())}
                for part in parts:
                    if 2 < len(part) <= MAX_FRAGMENT:
                        self._prompts[part].add(run)

    def prompts(self, known: frozenset[str]) -> Iterator[Feature]:
        """Yield a feature for each sentence or word that models were sent in some runs, and not in others."""
        for text, runs in _most(self._prompts, known, MAX_PROMPTS):
            yield Feature(f'prompt with "{one_line(text, MAX_FRAGMENT)}"', frozenset(runs), known)

    def numbers(self) -> Iterator[Feature]:
        """Yield features for each number: the largest one of a run is above a limit that few, or half, exceed."""
        for name, numbers in sorted(self._numbers.items()):
            largest = {run: max(values) for run, values in numbers.items()}
            ordered, known = sorted(largest.values()), frozenset(largest)
            for share in LIMITS if len(set().union(*numbers.values())) > MANY_NUMBERS else ():
                limit = ordered[int(share * len(ordered)) - 1]
                runs = frozenset(run for run, number in largest.items() if number > limit)
                yield Feature(f"{name} above {limit:.6g}", runs, known, f"{name} at most {limit:.6g}")

    def _read_command(self, run: str, step: str, span: AgentSpanRow, payload: Any, result: Any) -> None:
        if exit_code_of(result):
            self._exits[step].add(run)
        if span.status != "cancelled" and type(payload) is dict and runs_tests(payload.get("arguments")):
            self._tests.setdefault(run, []).append(has_failed(span.status, result))

    def tests(self, known: frozenset[str]) -> Iterator[Feature]:
        """Yield the features of exit codes and of runs of tests. Failures of tests are known where tests were run."""
        for step, runs in sorted(self._exits.items()):
            yield Feature(f"{step} with exit_code != 0", frozenset(runs), known, f"no {step} with exit_code != 0")
        tested = frozenset(self._tests)
        if tested:
            last = frozenset(run for run, failures in self._tests.items() if failures[-1])
            yield Feature("tests run", tested, known, "no tests run")
            yield Feature("the last tests failed", last, tested, "the last tests passed")
            yield Feature("tests failed", frozenset(run for run in tested if any(self._tests[run])), tested)

    def read_metadata(self, run: str, text: str | None) -> None:
        """Collect the short values in the metadata of a run."""
        metadata = jsontext.decoded(text)
        if type(metadata) is dict:
            self._read_values(run, "metadata", _leaves({k: v for k, v in metadata.items() if k not in _OF_TRIALS}))

    def values(self, known: frozenset[str]) -> Iterator[Feature]:
        """Yield a feature for each value of an argument or of metadata that some runs have and others lack."""
        for name, numbers in self._numbers.items():
            if len(set().union(*numbers.values())) <= MANY_NUMBERS:
                for run, values in numbers.items():
                    for value in values:
                        self._values[f"{name}={value}"].add(run)
        for text, runs in _most(self._values, known, MAX_VALUES):
            returning = text[: text.find(" returning ") + len(" returning")]
            yield Feature(text, frozenset(runs), frozenset(self._returning.get(returning, known)))

    def surprises(self, known: frozenset[str]) -> Iterator[Feature]:
        """Yield a feature for each tool that a run called again with the same arguments, or that returned nothing."""
        for what, found in (("repeated with the same arguments", self._repeats), ("with an empty result", self._empty)):
            for step, runs in sorted(found.items()):
                yield Feature(f"{step} {what}", frozenset(runs), known)

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


def _parameters(payload: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of arguments, of a tool or an MCP call, and of all other members of a payload."""
    if type(payload) is dict:
        left_out = _PROMPTED if kind == "llm" else frozenset({"arguments", "name", "method", "call_id"})
        yield from _leaves(payload.get("arguments") if kind in ("tool", "mcp") else None)
        yield from _leaves({name: value for name, value in payload.items() if name not in left_out})


def _returned(result: Any, kind: str) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of a result; of a model's, only its reasons and such, no text and no usage."""
    members = result if type(result) is dict else {}
    output = {name: members[name] for name in _REASONS if name in members} if kind == "llm" else _output(result)
    yield from _leaves(output)


def _leaves(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the texts, numbers and truths in a value, each with its path: `filter.region`, `tags[]`."""
    if type(value) is dict and depth < MAX_DEPTH:
        for key, item in islice(value.items(), MAX_MEMBERS):
            yield from _leaves(item, f"{name}.{key}" if name else key, depth + 1)
    elif type(value) is list and depth < MAX_DEPTH:
        for item in value[:MAX_MEMBERS]:
            yield from _leaves(item, f"{name}[]", depth + 1)
    elif type(value) in (str, bool, int, float):
        yield name, value


def _most(found: Mapping[str, set[str]], known: frozenset[str], most: int) -> list[tuple[str, set[str]]]:
    """Return what some runs have and others lack, by the number of its runs, the largest first."""
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(text, runs) for text, runs in ordered if FEWEST <= len(runs) <= len(known) - FEWEST][:most]


def _arguments_text(payload: Any, text: str) -> str:
    """Return the arguments of a call as one canonical text, without the call id."""
    return jsontext.canonical(payload.get("arguments", payload)) if type(payload) is dict else text


def _output(result: Any) -> Any:
    return result.get("output", result.get("result", result)) if type(result) is dict else result


def _is_empty(output: Any) -> bool:
    """Return whether the output of a tool is empty: no text, no elements, or only empty members and counts of 0."""
    if type(output) is str:
        return output.strip() in _EMPTY
    if type(output) is dict:
        some = [value for value in output.values() if type(value) not in (int, float) or value]
        return (bool(some) or not output) and all(map(_is_empty, some))
    return output is None or output == []


def run_features(
    storage: Storage,
    runs: Sequence[RunBrief],
    tags: Mapping[str, Collection[str]] | None = None,
    failures: Iterable[FailureSum] | None = None,
    *,
    read: Sequence[RunBrief] | None = None,
    without: Collection[str] = (),
    progress: Progress | None = None,
) -> list[Feature]:
    """Return the features that some runs have and others lack.

    Args:
        runs: the runs, the latest first.
        tags: the tags of each run, by run id.
        failures: the failures of at least these runs; read from the storage when left out.
        read: the runs whose payloads are read; all when left out.
        without: the names of features that are left out.
        progress: called with (done, total) while an index is built.
    """
    ids = frozenset(run.id for run in runs)
    uses = storage.ask(StepUses(ids, progress=progress))
    steps = _by_step(uses)
    if failures is None:
        failures = storage.ask(FailureSums(ids, progress=progress))
    found = [
        *_versions_and_tags(runs, tags or {}),
        *_used(steps),
        *_errors(failures, ids),
        *span_features(storage, [run.id for run in (runs if read is None else read)]),
        *_sizes(runs),
        *_how_used(steps),
    ]
    return distinct([each for each in found if each.text not in without] if without else found, ids)


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


def _versions_and_tags(runs: Sequence[RunBrief], tags: Mapping[str, Collection[str]]) -> Iterator[Feature]:
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
    yield from _more(runs, tokens_of, lambda number: f"{count_text(number)} tokens")


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
