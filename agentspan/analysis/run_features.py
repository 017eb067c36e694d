"""Features of runs, each a yes or no: a tool used or not, called often, with a value, more steps or tokens than half.

They are what `findings` tests. What a run used comes from the index; values of arguments are read from the payloads of
some of the runs (see drawing). A feature is known only of the runs that were read for it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from statistics import median_low

from agentspan.analysis.feature import FEWEST, Feature
from agentspan.analysis.span_features import span_features
from agentspan.figures import count_text
from agentspan.schemas.signatures import Signature, type_title
from agentspan.storage.answers import FailureSum, Progress, RunBrief, StepUse
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import FailureSums, StepUses


def run_features(
    storage: Storage,
    runs: Sequence[RunBrief],
    tags: Mapping[str, Collection[str]] | None = None,
    failures: Iterable[FailureSum] | None = None,
    *,
    read: Sequence[RunBrief] | None = None,
    progress: Progress | None = None,
) -> list[Feature]:
    """Return the features that some of these runs have and others lack.

    Args:
        runs: the latest first.
        tags: those of each run, by its id.
        failures: of the runs, and maybe of others; read when left out.
        read: those of the runs whose payloads are read; all when left out.
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
    """Return the features without those that tell nothing new.

    Of several features that the same runs have, or all others, the first one stays: a tool that was used says more than
    its error, that more than that it failed, and that more than a number of steps. One that all others have names what
    lacks the first one: `currency=EUR` instead of no `currency=USD`. Only features that are known of the same runs are
    compared.

    Args:
        ids: of all runs.
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
