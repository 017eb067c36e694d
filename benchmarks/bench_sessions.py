"""Measures the import of session files beside `json.loads` of the same lines: decoding, storing, and a second import.

    python benchmarks/bench_sessions.py [FORMAT PATH] [--sessions N] [--rounds N] [--folder FOLDER]

Without PATH, sessions of Claude Code are invented: 2 kB and a step a record. Real files have half a step a record, so
their import takes half the time. Times are processor time. Rounds alternate, and the median of their ratios counts.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import agentspan
from agentspan.api.context import Context
from agentspan.recording.capture.plain import SentRedaction
from agentspan.sessions.formats import Format, Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.reading import Line, lines_of, opened
from agentspan.sessions.registry import formats

WORDS = (
    "water the beds",
    "def grow(plant):",
    "    return plant.height + 1",
    "error: no such file",
    "- [x] done",
    "“rain” …",
)
RECORDS = 400
"""Records of an invented session."""


def invented(folder: Path, sessions: int) -> None:
    """Write sessions of Claude Code: a prompt, then model calls that each call a tool."""
    for number in range(sessions):
        session = str(uuid.UUID(int=number + 1))
        lines, parent = [], None
        for at in range(RECORDS):
            id = str(uuid.UUID(int=(number + 1) * 10**6 + at))
            content = list(_content(at, number))
            message: dict[str, object] = {"role": "user", "content": content if at else "water the garden"}
            if at % 2:
                usage = {"input_tokens": 9, "output_tokens": 90, "cache_read_input_tokens": 40 * at}
                message = {"id": f"msg_{at}", "model": "claude-opus-4-5", "role": "assistant", "content": content}
                message |= {"stop_reason": "tool_use", "usage": usage}
            minute = f"{at // 60:02d}:{at % 60:02d}"
            lines.append(
                {
                    "parentUuid": parent, "isSidechain": False, "cwd": "/home/ada/garden", "sessionId": session,
                    "version": "2.1.0", "type": "assistant" if at % 2 else "user", "message": message,
                    "requestId": f"req_{at}", "uuid": id, "timestamp": f"2026-03-01T{minute}:00.000Z",
                }
            )  # fmt: skip
            parent = id
        path = folder / "-home-ada-garden" / f"{session}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def _content(at: int, session: int) -> Iterator[dict[str, object]]:
    text = "\n".join(WORDS[(at * 7 + line + session) % len(WORDS)] + str(line * at) for line in range(60))
    if at % 2:
        yield {"type": "text", "text": text[:500]}
        yield {"type": "tool_use", "id": f"toolu_{session}_{at}", "name": "Bash", "input": {"command": text[:200]}}
    elif at:
        yield {"type": "tool_result", "tool_use_id": f"toolu_{session}_{at - 1}", "content": text * 2}


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of processor time that a call takes."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def parse(lines: Sequence[bytes]) -> None:
    """Parse lines, as any reader must."""
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            pass


def decode(format: Format, sources: Sequence[Source]) -> None:
    """Decode sources, and drop what they say."""
    assert format.lines is not None
    for source in sources:
        decoder = format.lines(source)
        for file in source.files:
            with opened(file) as lines:
                for line in lines_of(lines):
                    for _ in decoder.feed(file, line.text):
                        pass
        for _ in decoder.rest():
            pass


def import_source(db: Path, sources: Sequence[Source]) -> Importer:
    """Import sources into a file."""
    with agentspan.open(db) as database:
        importer = Importer(Context(database.storage, redacts=SentRedaction()), formats())
        for source in sources:
            importer.import_source(source)
    return importer


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="FORMAT PATH")
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        name, path = (args.what[0], Path(args.what[1])) if args.what else ("claude", Path(folder, "projects"))
        if not args.what:
            invented(path, args.sessions)
        format = formats()[name]
        sources = list(format.sources(path))
        lines = [line.text for source in sources for file in source.files for line in _lines(file)]
        measured: dict[str, list[float]] = {"json.loads": [], "decode": [], "import": [], "second import": []}
        for number in range(args.rounds):
            db = Path(folder, f"{number}.db")
            measured["json.loads"].append(timed(lambda: parse(lines)))
            measured["decode"].append(timed(lambda: decode(format, sources)))
            measured["import"].append(timed(lambda db=db: import_source(db, sources)))  # type: ignore[misc]
            measured["second import"].append(timed(lambda db=db: import_source(db, sources)))  # type: ignore[misc]
        size = sum(map(len, lines))
        print(f"{len(sources):,} sessions, {len(lines):,} lines, {size / 1e6:.1f} MB\n")
        print(f"{'':16}  {'µs a line':>10}  {'/ json.loads':>12}")
        for row, times in measured.items():
            ratio = statistics.median(mine / base for mine, base in zip(times, measured["json.loads"], strict=True))
            print(f"{row:16}  {statistics.median(times) / len(lines) * 1e6:>7.2f} µs  {ratio:>10.2f} ×")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"\npeak memory {peak:.1f} MiB, of which {size / 2**20:.1f} MiB are the lines for json.loads")


def _lines(file: Path) -> Iterator[Line]:
    with opened(file) as opened_file:
        yield from lines_of(opened_file)


if __name__ == "__main__":
    main()
