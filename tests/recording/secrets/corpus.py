"""The corpus of secrets and of harmless look-alikes, whose author had not seen the rules; and what is stored of it."""

import codecs
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import agentspan
from agentspan import MemoryStorage, Tracer

FOLDER = Path(__file__).parent
HARMLESS = "harmless.jsonl"
SECRETS = "secrets.jsonl"


class Case(NamedTuple):
    """A line of the corpus.

    Attributes:
        kind: what it is an example of.
        payload: what a program records: JSON.
        secret: the text that must not be stored; "" where everything must be stored as it is.
        place: where the program records it: "payload", "url" (a member of a payload), "stacktrace" or "metadata".
    """

    kind: str
    payload: Any
    secret: str = ""
    place: str = "payload"


def cases(name: str, folder: Path = FOLDER) -> list[Case]:
    """Return the lines of a file of the corpus, which is in rot13: its secrets look real to what scans repositories."""
    lines = codecs.decode((folder / name).read_text(encoding="utf-8"), "rot13").split("\n")
    return [Case(**json.loads(line)) for line in lines if line.strip()]


def stored(found: Iterable[Case]) -> list[Any]:
    """Record each case in a run of its own; return what is stored of each where it was recorded."""
    tracer = Tracer(MemoryStorage(), raise_errors=True)
    ids = [_record(tracer, case) for case in found]
    tracer.flush()
    db = agentspan.open(tracer.storage)
    shown: list[Any] = []
    for case, id in zip(found, ids, strict=True):
        run, (span,) = db.agent_instances.get(id), db.agent_spans.list(id)
        whole = {"payload": span.payload, "stacktrace": span.result_payload, "metadata": run.metadata}
        whole["url"] = (span.payload or {}).get("url")
        shown.append(whole[case.place])
    tracer.shutdown()
    return shown


def is_kept_out(case: Case, shown: Any) -> bool:
    """Return whether the secret of a case is in nothing of what is stored."""
    return case.secret not in "\n".join(_texts(shown))


def _record(tracer: Tracer, case: Case) -> str:
    payload = (
        case.payload if isinstance(case.payload, dict) else {"url" if case.place == "url" else "input": case.payload}
    )
    text = case.payload if isinstance(case.payload, str) else json.dumps(case.payload, ensure_ascii=False)
    is_elsewhere = case.place in ("metadata", "stacktrace")
    metadata = payload if case.place == "metadata" else None
    with tracer.run("corpus", metadata=metadata) as run, tracer.span("custom", {} if is_elsewhere else payload) as span:
        if case.place == "stacktrace":
            span.record_error(ValueError(text))
    return run.id


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    else:
        yield str(value)
