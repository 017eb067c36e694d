"""A small format of session files, with which tests try what is common to all formats."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agentspan.arriving.json_values import json_of
from agentspan.arriving.records import Record, Session, Step, Unread
from agentspan.sessions.formats import Format, LineDecoder, Source, walk

SECOND = 1_000_000_000


class ToyDecoder(LineDecoder):
    """Decodes lines such as `{"id": "1", "ask": "what?", "at": 1}` and `{"id": "1", "answer": "that", "at": 2}`."""

    def __init__(self, source: Source) -> None:
        self._session = source.path.name.partition(".")[0]
        self._open: dict[str, Step] = {}
        self._state: Session | None = None

    def feed(self, file: Path, line: bytes) -> Iterator[Record]:
        try:
            found = json_of(line)
            at = int(found["at"] * SECOND)
        except (ValueError, KeyError, TypeError, RecursionError):
            yield Unread(self._session, "a line that is no JSON")
            return
        del line  # it may be long, and storing what is yielded needs memory, too
        if self._state is None:
            metadata = {"cwd": found["cwd"]} if "cwd" in found else {}
            parent = (found["parent"], None) if "parent" in found else None
            self._state = Session(self._session, "toy", at, "1.0", metadata=metadata, parent=parent)
            yield self._state
        self._state = self._state._replace(ended_ns=at, outcome="answered" if "answer" in found else None)
        id = found["id"]
        if "ask" in found:
            payload = {"model": "gpt-4o", "messages": [{"role": "user", "content": found["ask"]}]}
            self._open[id] = Step(self._session, id, None, "llm", at, None, "active", payload)
        elif (step := self._open.pop(id, None)) is not None:
            result = {"text": found["answer"], "input_tokens": 10, "output_tokens": 5}
            yield step._replace(end_ns=at, status="complete", result=result)

    def rest(self) -> Iterable[Record]:
        if self._state is not None:
            yield self._state
            yield from self._open.values()


def _sources(path: Path) -> Iterable[Source]:
    if path.is_dir():
        return [Source("toy", file) for file in walk(path, ".toy", ".toy.gz")]
    return [Source("toy", path)] if path.name.endswith((".toy", ".toy.gz")) else []


def _roots(environment: Mapping[str, str]) -> list[Path]:
    return [Path(environment["HOME"], "toys")]


TOY = Format(
    "toy",
    "Toy",
    _roots,
    _sources,
    lines=ToyDecoder,
    keeps_days=lambda environment: 30,
    resume=lambda session: f"toy --continue {session}",
)
