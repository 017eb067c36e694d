"""Decodes the logs of Inspect: `.eval` archives, and the older `.json` documents. One run for each sample and epoch.

The task is the agent; its version is the task's version and the commit of its code. A log of an evaluation that goes
on, or was killed, has only a journal instead of a header. A log that holds no samples, but counts, becomes one run of
the whole evaluation; one with summaries of its samples a run for each. An archive is read member by member, a document
sample by sample.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.arriving import (
    Outcome,
    Record,
    Session,
    Step,
    Unread,
    list_in,
    ns_of,
    number_in,
    object_in,
    part_of,
    present,
    text_in,
    unicode_of,
)
from agentspan.sessions.archives import Archive, opened_archive
from agentspan.sessions.formats import Format, Source, head_of, walk
from agentspan.sessions.inspect_messages import Parts, Texts, content_of, texts_in
from agentspan.sessions.inspect_sample import SampleDecoder, error_of, usage_of, value_of

NAME = "inspect"
_HEADER, _START, _SUMMARIES = "header.json", "_journal/start.json", "summaries.json"
_JOURNAL = re.compile(r"_journal/summaries/\d+\.json\Z")
_MONOLITH = re.compile(r"samples/[^/]+\.json\Z")
_SHELL = re.compile(r"(samples/.+)/sample\.json\Z", re.DOTALL)
_DOCUMENT = re.compile(rb'\A\s*\{\s*"version"\s*:\s*\d+\s*,.{0,200}?"eval"\s*:\s*\{', re.DOTALL)
_DATED = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d.*_.*\.json\Z")
_COMMIT = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})\Z")
_MOST_METADATA = 2000
_MOST_NAME, _MOST_EXPLANATION = 200, 10_000
_OUTCOMES: dict[str, Outcome] = {"operator": "interrupted"}
_BROKEN = (ValueError, RecursionError)


class _Eval(NamedTuple):
    """The facts of an evaluation as a whole.

    Attributes:
        key: the id of the evaluation.
        start_ns: when it was created.
        base: the Session of a sample without its own facts.
        graded: the names of the scorers that are known to call a model.
    """

    key: str
    start_ns: int
    base: Session
    graded: frozenset[str]


def _eval_of(header: Mapping[str, Any]) -> _Eval:
    spec, plan = object_in(header.get("eval")), object_in(header.get("plan"))
    key = unicode_of(text_in(spec.get("eval_id")) or f"{spec.get('run_id')}/{spec.get('task_id')}")
    start_ns = ns_of(spec.get("created")) or 0
    revision = object_in(spec.get("revision"))
    commit = text_in(revision.get("commit"))
    names = ("run_id", "task_id", "model", "task_file", "solver", "task_args", "eval_set_id", "metadata", "created")
    dataset = object_in(spec.get("dataset"))
    metadata = {
        "eval_id": text_in(spec.get("eval_id")), **{name: spec.get(name) or None for name in names},
        "dataset": dataset.get("name") or dataset.get("location"), "status": header.get("status") or "started",
        "tags": list_in(header.get("tags")) or spec.get("tags"), "revision": revision or None,
        "log_version": header.get("version"),
    }  # fmt: skip
    version = str(spec.get("task_version") or 0)
    base = Session(
        key, text_in(spec.get("task")) or "inspect", start_ns,
        version if commit is None else f"{version}+{commit[:12]}{'-dirty' if revision.get('dirty') else ''}",
        fingerprint=_fingerprint(spec, plan), metadata=_small(metadata), is_over=True,
        git_commit=commit if commit is not None and _COMMIT.match(commit) else None,
    )  # fmt: skip
    return _Eval(key, start_ns, base, frozenset(_graders(spec)))


def _fingerprint(spec: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of which the evaluated agent is made."""
    steps = [
        present({name: object_in(step).get(name) for name in ("solver", "params")})
        for step in list_in(plan.get("steps"))
    ]
    hashed = {"solver": steps, "task_args": spec.get("task_args"), "config": spec.get("model_generate_config")}
    named = {"model": spec.get("model"), "cli_version": object_in(spec.get("packages")).get("inspect_ai")}
    parts = {name: value for name, value in named.items() if type(value) is str}
    return parts | {name: part_of(value) for name, value in hashed.items() if value}


def _graders(spec: Mapping[str, Any]) -> Iterator[str]:
    for scorer in list_in(spec.get("scorers")):
        name = object_in(scorer).get("name")
        if type(name) is str and "model_graded" in name:
            yield name


def _small(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that are not None; of a large one, only that it is there."""
    found: dict[str, Any] = {}
    for name, value in present(values).items():
        is_large = type(value) in (dict, list) and len(json.dumps(value)) > _MOST_METADATA
        found[name] = f"{len(value)} members, left out" if is_large else value
    return found


# Samples


class _Sample(NamedTuple):
    """A sample in its parts.

    Attributes:
        facts: the sample without its long parts.
        events: all events, in lists.
        texts: the attachments.
        pool: the messages that model calls refer to.
        messages: returns the messages that the sample ended with.
    """

    facts: Mapping[str, Any]
    events: Iterator[Sequence[Any]]
    texts: Texts
    pool: Sequence[Any]
    messages: Callable[[], Any]


def _monolith(sample: Mapping[str, Any]) -> _Sample:
    attachments = sample.get("attachments")
    pools = object_in(sample.get("events_data"))
    pool = list_in(pools.get("messages")) or list_in(sample.get("message_pool"))
    events = iter([list_in(sample.get("events"))])
    return _Sample(sample, events, Texts(object_in(attachments)), pool, lambda: sample.get("messages"))


def _chunked(archive: Archive, prefix: str) -> _Sample:
    """Return a sample that lies in many members."""
    shell = object_in(_json(archive, f"{prefix}/sample.json"))
    events, messages, attachments = (
        _sequence(archive, f"{prefix}/{name}") for name in ("events", "messages", "attachments")
    )
    metadata = f"{prefix}/metadata.json"
    if metadata in archive.members:
        shell = {**shell, "metadata": _json(archive, metadata)}
    chunks = (list_in(_json(archive, f"{prefix}/events/{start}.json")) for start in events)
    pool = _parts(archive, f"{prefix}/messages", messages)
    texts = Texts(_parts(archive, f"{prefix}/attachments", attachments))
    return _Sample(
        shell, chunks, texts, pool, lambda: [pool[index] for index in _indices(shell.get("message_refs"), len(pool))]
    )


def _indices(refs: Any, length: int) -> Iterator[int]:
    for part in list_in(refs):
        start, end = part if type(part) is list and len(part) == 2 else (0, 0)
        if type(start) is int and type(end) is int:
            yield from range(max(0, start), min(end, length))


def _sequence(archive: Archive, prefix: str) -> list[int]:
    """Return the first indices of the members of a sequence."""
    names = (
        name.removeprefix(f"{prefix}/").removesuffix(".json")
        for name in archive.members
        if name.startswith(f"{prefix}/")
    )
    return sorted(int(name) for name in names if name.isdecimal())


def _parts(archive: Archive, prefix: str, starts: list[int]) -> Parts:
    return Parts(starts, lambda number: list_in(_json(archive, f"{prefix}/{starts[number]}.json")))


def _decoded(about: _Eval, sample: _Sample) -> Iterator[Record]:
    facts = sample.facts
    id = _id_of(about, facts)
    events = sample.events
    first = next(events, [])
    times = [at for at in (ns_of(facts.get("started_at")), _first_time(first)) if at is not None]
    started_ns = min(times, default=about.start_ns)
    session = _session(about, facts, id, started_ns, sample.texts)
    yield session
    decoder = SampleDecoder(id, started_ns, sample.texts, sample.pool)
    yield from _attempts(decoder, facts)
    number = 0
    for part in chain([first], events):
        yield from decoder.feed(part, number)
        number += len(part)
    if not number:  # an old log, or one whose events were not logged
        yield from decoder.messages(
            [{"role": "user", "content": facts.get("input")}] if type(facts.get("input")) is str else facts.get("input")
        )
    yield from decoder.messages(sample.messages())
    yield from decoder.rest()
    graded = about.graded | decoder.graded
    ended_ns = max(ns_of(facts.get("completed_at")) or 0, decoder.last_ns)
    scores = tuple(_scores(object_in(facts.get("scores")), graded))
    yield session._replace(ended_ns=ended_ns, scores=scores)


def _id_of(about: _Eval, facts: Mapping[str, Any]) -> str:
    return unicode_of(text_in(facts.get("uuid")) or f"{about.key}:{facts.get('id')}:{facts.get('epoch')}")


def _first_time(events: Sequence[Any]) -> int | None:
    return next((at for event in events if (at := ns_of(object_in(event).get("timestamp"))) is not None), None)


def _attempts(decoder: SampleDecoder, facts: Mapping[str, Any]) -> Iterator[Record]:
    """Decode the attempts of a sample that failed and were retried."""
    for number, retry in enumerate(list_in(facts.get("error_retries"))):
        events = list_in(object_in(retry).get("events"))
        at = _first_time(events) or decoder.last_ns
        error = error_of(retry)
        payload = {"name": f"attempt {number + 1}", "level": "error", "content": error["message"]}
        yield Step(decoder.session, f"attempt:{number}", None, "event", at, at, "failed", payload, {"error": error})
        yield from decoder.feed(events)
        yield from decoder.rest()


def _session(about: _Eval, facts: Mapping[str, Any], id: str, started_ns: int, texts: Texts) -> Session:
    output = object_in(facts.get("output"))
    choice = object_in((list_in(output.get("choices")) or [None])[0])
    answer = text_in(output.get("completion")) or texts_in(object_in(choice.get("message")).get("content"))
    error, limit = facts.get("error"), facts.get("limit")
    kind = str(object_in(limit).get("type") or limit)
    outcome: Outcome = "error" if error else _OUTCOMES.get(kind, "limit") if limit else "answered"
    names = (
        "epoch",
        "target",
        "choices",
        "metadata",
        "working_time",
        "total_time",
        "turn_count",
        "limit",
        "invalidation",
    )
    own = {"sample_id": facts.get("id"), **{_RENAMED.get(name, name): facts.get(name) or None for name in names}}
    return about.base._replace(
        id=id, started_ns=started_ns, outcome=outcome, output=texts.whole(answer) or None,
        error=_without_trace(error) if error else None, task=str(facts.get("id"))[:_MOST_NAME],
        metadata={**about.base.metadata, **_small(texts.whole(own))},
    )  # fmt: skip


_RENAMED = {"metadata": "sample"}


def _without_trace(error: Any) -> dict[str, Any]:
    found = error_of(error)
    return {"type": found["type"], "message": found["message"]}


def _scores(found: Mapping[str, Any], graded: frozenset[str]) -> Iterator[dict[str, Any]]:
    for name, score in found.items():
        value = object_in(score).get("value")
        parts = {f"{name}/{part}": each for part, each in value.items()} if type(value) is dict else {name: value}
        source = "model" if name in graded or name.partition("/")[0] in graded else "code"
        about = {"explanation": _explanation(object_in(score)), "source": source, **_edits(object_in(score))}
        for each, value in parts.items():
            number, label = value_of(value)
            if number is not None or label is not None or about["explanation"]:
                named = {"name": unicode_of(each[:_MOST_NAME]) or "score", "label": label and unicode_of(label)}
                yield {**named, "value": number, **about}


def _explanation(score: Mapping[str, Any]) -> str | None:
    text = text_in(score.get("explanation")) or text_in(score.get("answer"))
    return None if text is None else unicode_of(text[:_MOST_EXPLANATION])


def _edits(score: Mapping[str, Any]) -> dict[str, Any]:
    edits = [object_in(edit) for edit in list_in(score.get("history")) if object_in(edit).get("provenance")]
    if not edits:
        return {}
    at_ns = ns_of(object_in(edits[-1]["provenance"]).get("timestamp"))
    return {"edit": len(edits), **present({"at_ns": at_ns})}


# Logs without samples


def _of_summary(about: _Eval, summary: Mapping[str, Any]) -> Iterator[Record]:
    """Decode the summary of a sample that was not logged: its input, its tokens and its scores."""
    started_ns = ns_of(summary.get("started_at")) or about.start_ns
    session = _session(about, summary, _id_of(about, summary), started_ns, Texts({}))
    ended_ns = ns_of(summary.get("completed_at")) or started_ns
    scores = tuple(_scores(object_in(summary.get("scores")), about.graded))
    yield session._replace(ended_ns=ended_ns, scores=scores)
    payload = {"role": "user", "content": _input(summary.get("input"))}
    yield Step(session.id, "input", None, "message", started_ns, started_ns, "complete", payload)
    yield from _totals(session.id, summary.get("model_usage"), started_ns, ended_ns)


def _input(found: Any) -> Any:
    messages = list_in(found)
    return content_of(object_in(messages[-1]).get("content")) if messages else found


def _totals(session: str, usage: Any, start_ns: int, end_ns: int) -> Iterator[Step]:
    """Yield a step for each model with the sum of its tokens, where the calls were not logged."""
    for number, (name, found) in enumerate(object_in(usage).items(), 1):
        provider, slash, model = name.partition("/")
        payload = {"model": model, "provider": provider} if slash else {"model": provider}
        at = start_ns + number * 1000
        sums = {**payload, "is_sum": True}
        yield Step(session, f"usage:{name}", None, "llm", at, max(at, end_ns), "complete", sums, usage_of(found))


def _of_eval(about: _Eval, header: Mapping[str, Any]) -> Iterator[Record]:
    """Decode a log without samples as one run of the whole evaluation."""
    stats = object_in(header.get("stats"))
    started_ns = ns_of(stats.get("started_at")) or about.start_ns
    ended_ns = ns_of(stats.get("completed_at")) or started_ns
    status, error = header.get("status"), header.get("error")
    outcomes: dict[str, Outcome] = {"success": "answered", "error": "error", "cancelled": "interrupted"}
    metrics = tuple(
        {"name": unicode_of(f"{object_in(score).get('name')}/{name}"[:_MOST_NAME]), "value": value, "source": "code"}
        for score in list_in(object_in(header.get("results")).get("scores"))
        for name, metric in object_in(object_in(score).get("metrics")).items()
        if (value := number_in(object_in(metric).get("value"))) is not None
    )
    outcome = outcomes.get(str(status))
    yield about.base._replace(
        id=about.key, started_ns=started_ns, ended_ns=max(started_ns, ended_ns), scores=metrics, outcome=outcome,
        error=_without_trace(error) if error else None, is_over=outcome is not None,
    )  # fmt: skip
    yield from _totals(about.key, stats.get("model_usage"), started_ns, ended_ns)


# Archives


def _json(archive: Archive, name: str) -> Any:
    return json.loads(archive.read(name))


def _of_archive(path: Path, after: str | None) -> Iterator[Record]:
    with opened_archive(path) as archive:
        if not archive.is_whole:
            yield Unread(None, "an archive whose end is missing")
        header = _HEADER if _HEADER in archive.members else _START
        known: set[str] = set()
        if after is not None and (count := _known(archive, after)):
            known = {member.name for member in archive.all[:count]}
            if header == _HEADER and header not in known:
                known = set()  # the evaluation ended: all runs get its status
        about = object_in(_read(archive, header))
        evaluation = _eval_of(about)
        if not about:
            yield Unread(None, "an Inspect log without a header")
        found = False
        for name in archive.members:
            shell = _SHELL.match(name)
            if shell is None and _MONOLITH.match(name) is None:
                continue
            found = True
            if name not in known:
                yield from _member(archive, evaluation, name, None if shell is None else shell[1])
        if not found:
            yield from _without_samples(archive, evaluation, about)


def _known(archive: Archive, after: str) -> int:
    """Return how many members had been read; 0 if the archive has been rewritten since."""
    count = after.partition(":")[0]
    return int(count) if count.isdecimal() and archive.state(int(count)) == after else 0


def _read(archive: Archive, name: str) -> Any:
    """Return a member, decoded; None if it is missing or broken."""
    try:
        return _json(archive, name)
    except (KeyError, OSError, *_BROKEN):
        return None


def _member(archive: Archive, evaluation: _Eval, name: str, prefix: str | None) -> Iterator[Record]:
    try:
        if prefix is None:
            found = _json(archive, name)
            sample = _monolith(found) if type(found) is dict else None
        else:
            sample = _chunked(archive, prefix)
        if sample is None:
            yield Unread(None, "a sample that is no object")
        else:
            yield from _decoded(evaluation, sample)
    except _BROKEN:
        yield Unread(None, "a sample that is no JSON")
    except (OSError, KeyError):
        yield Unread(None, "a sample that cannot be decompressed")


def _without_samples(archive: Archive, evaluation: _Eval, header: Mapping[str, Any]) -> Iterator[Record]:
    names = [name for name in archive.members if _JOURNAL.match(name)]
    names = [_SUMMARIES] if _SUMMARIES in archive.members else names
    summaries = {}
    for name in names:
        for summary in list_in(_read(archive, name)):
            summaries[_id_of(evaluation, object_in(summary))] = object_in(summary)
    for summary in summaries.values():
        yield from _of_summary(evaluation, summary)
    if not summaries and _HEADER in archive.members and header:  # else samples may still come
        yield from _of_eval(evaluation, header)


# Documents


def _of_document(path: Path) -> Iterator[Record]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        yield from _of_members(_members_of(text))
    except _BROKEN:
        yield Unread(None, "an Inspect log that is no whole JSON")


def _of_members(members: Iterator[tuple[str, Any]]) -> Iterator[Record]:
    """Decode the members of a log. The one named `samples` is an iterator; the header's members stand before it."""
    header: dict[str, Any] = {}
    evaluation: _Eval | None = None
    for name, value in members:
        if name != "samples" or not isinstance(value, Iterator):
            header[name] = value
            continue
        evaluation = _eval_of(header)
        for sample in value:
            if type(sample) is dict:
                yield from _decoded(evaluation, _monolith(sample))
            else:
                yield Unread(None, "a sample that is no object")
            header["has_samples"] = True
    if not header.get("has_samples"):
        yield from _of_eval(evaluation or _eval_of(header), header)


_DECODE = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\r\n]*")


def _members_of(text: str) -> Iterator[tuple[str, Any]]:
    """Yield the members of a JSON object one by one, and a list named `samples` as an iterator.

    Raises:
        ValueError: it is no JSON object.
    """
    at = _token(text, 0, "{")
    while not text.startswith("}", at):
        name, at = _DECODE(text, at)
        at = _token(text, _after(text, at), ":")
        if name == "samples" and text.startswith("[", at):
            places = [at]
            yield name, _items_of(text, places)
            at = places[0]
        else:
            value, at = _DECODE(text, at)
            yield str(name), value
        at = _after(text, at)
        at = at if text.startswith("}", at) else _token(text, at, ",")


def _items_of(text: str, places: list[int]) -> Iterator[Any]:
    """Yield the items of a list; `places[0]` is where it begins, and afterwards where it ends."""
    at = _token(text, places[0], "[")
    while not text.startswith("]", at):
        item, at = _DECODE(text, at)
        at = _after(text, at)
        at = at if text.startswith("]", at) else _token(text, at, ",")
        yield item
    places[0] = at + 1


def _after(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


def _token(text: str, at: int, token: str) -> int:
    at = _after(text, at)
    if not text.startswith(token, at):
        raise ValueError("no JSON object")
    return _after(text, at + 1)


# The format


def decode(path: Path, after: str | None) -> Iterator[Record]:
    """Decode a log. Samples that were there when `position` returned `after` are left out.

    Raises:
        OSError: the file cannot be read.
        Unreadable: its members are compressed by zstd, and no module for that is installed.
    """
    try:
        yield from _of_archive(path, after) if head_of(path, 4) == b"PK\x03\x04" else _of_document(path)
    except RecursionError:
        yield Unread(None, "an Inspect log that is nested too deep")


def position(path: Path) -> str:
    """Return a text that says which members an archive has; an empty one for a document."""
    if head_of(path, 4) != b"PK\x03\x04":
        return ""
    with opened_archive(path) as archive:
        return archive.state(len(archive.all)) if archive.is_whole else ""


def _roots(environment: Mapping[str, str]) -> list[Path]:
    folder = environment.get("INSPECT_LOG_DIR")
    return [Path(folder)] if folder and "://" not in folder else []


def _sources(path: Path) -> Iterator[Source]:
    if path.is_dir():
        for file in walk(path, ".eval", ".json"):
            if file.suffix == ".eval" or _DATED.match(file.name):
                yield Source(NAME, file)
    elif _is_log(path):
        yield Source(NAME, path)


def _is_log(path: Path) -> bool:
    head = head_of(path)
    if not head.startswith(b"PK\x03\x04"):
        return _DOCUMENT.match(head) is not None
    return path.suffix == ".eval" or b"_journal/start.json" in head


FORMATS: list[Format] = [Format(NAME, "Inspect", _roots, _sources, decode=decode, position=position)]
