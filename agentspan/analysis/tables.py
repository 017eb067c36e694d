"""Runs, spans and scores as tables: of pandas or polars, and three Parquet files (extra `parquet`)."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from importlib import import_module
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from agentspan import clock, files, installing
from agentspan.analysis.by_name import find_run
from agentspan.analysis.runs import find_runs
from agentspan.errors import AgentspanError, InvalidValue
from agentspan.model.columns import SHOWN_OF_SPANS, columns_of
from agentspan.model.rows import TYPE_OF, AgentInstanceRow, ResourceType, Row
from agentspan.model.scores import MARK, NOTE
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf, Tags
from agentspan.storage.row_by_row import Name, history, labels_of, names_of, summaries_of, totals_of
from agentspan.storage.sums import RunList, RunSummary

Engine = Literal["pandas", "polars"]
ENGINES: tuple[Engine, ...] = ("pandas", "polars")
_COLUMNS = (*SHOWN_OF_SPANS, "payload", "result_payload")
SPANS = ("agent", "version", *(SHOWN_OF_SPANS.get(name, name) for name in _COLUMNS))
_KINDS = {column.name: column.holds or column.type for column in columns_of("agent_span")}
"""The kind of value in each column of spans. A column of runs with the same name holds the same kind."""
TIMES = tuple(name for name, kind in _KINDS.items() if kind == "time")
FLAGS = tuple(name for name, kind in _KINDS.items() if kind == "flag")
WHOLE = tuple(name for name, kind in _KINDS.items() if kind is int)
FRACTIONS = tuple(name for name, kind in _KINDS.items() if kind is float)
_of_span = attrgetter(*_COLUMNS)
RUNS = (
    "run", "agent", "version", "status", "started_at", "finished_at", "duration_ms",
    "spans", "failed_spans", "open_spans", "input_tokens", "output_tokens", "cost_usd",
    "metadata", "result", "error", "session", "user", "task", "tags", "mark", "note",
)  # fmt: skip


def dataframe(storage: Storage, table: Literal["spans", "runs"], run: str | None, engine: Engine | None) -> Any:
    """Return a table (see Database.dataframe)."""
    if table not in ("spans", "runs"):
        raise InvalidValue("table", "must be spans or runs")
    module, name = _engine(engine)
    names = SPANS if table == "spans" else RUNS
    columns: dict[str, list[Any]] = {column: [] for column in names}
    if table == "spans":
        for row in _spans(storage, run):
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
    else:
        _fill_runs(storage, run, columns)
    for column in columns.keys() & {*TIMES, *FLAGS}:
        read = bool if column in FLAGS else _time
        columns[column] = [read(value) for value in columns[column]]
    return _polars(module, columns) if name == "polars" else _pandas(module, columns)


def _spans(storage: Storage, run: str | None) -> Iterator[tuple[Any, ...]]:
    for summary in _summaries(storage, run).runs:
        for span in storage.ask(SpansOf(summary.run.id)):
            yield (summary.agent, summary.version, *_of_span(span))


def _fill_runs(storage: Storage, run: str | None, columns: dict[str, list[Any]]) -> None:
    """Append the values of each run to the columns of RUNS, and add those of scores after them."""
    summaries = iter(_summaries(storage, run).runs)
    scores: dict[str, dict[int, float | str]] = {}
    while batch := list(islice(summaries, BATCH)):
        labels = labels_of(storage, [summary.run.id for summary in batch])
        for summary in batch:
            judged = {score.name: score for score in labels[summary.run.id].scores}  # of several judges the newest
            mark, note = judged.pop(MARK, None), judged.pop(NOTE, None)
            for score in judged.values():
                at = len(columns["run"])
                if score.value is not None:
                    scores.setdefault(f"score_{score.name}", {})[at] = score.value
                if score.label is not None:
                    scores.setdefault(f"label_{score.name}", {})[at] = score.label
            values = (*_of_run(summary), labels[summary.run.id].tags, mark and mark.label, note and note.explanation)
            for name, value in zip(RUNS, values, strict=True):
                columns[name].append(value)
    for name in sorted(scores):
        columns[name] = [*map(scores[name].get, range(len(columns["run"])))]


def _summaries(storage: Storage, run: str | None) -> RunList:
    """Return the runs in the order of their creation."""
    if run is None:
        found = find_runs(storage, limit=None)
    else:
        one = list(summaries_of(storage, [find_run(storage, run)]))
        found = RunList(one, len(one), totals_of(one))
    return found._replace(runs=found.runs[::-1])


def _of_run(summary: RunSummary) -> tuple[Any, ...]:
    row = summary.run
    return (row.id, summary.agent, summary.version, row.status, row.started_at, row.finished_at, row.duration_ms,
            summary.spans, summary.failed, summary.open, summary.input_tokens, summary.output_tokens, summary.cost_usd,
            row.metadata, row.result, row.error, row.session, row.user, row.task)  # fmt: skip


def _time(text: str | None) -> datetime | None:
    return None if text is None else clock.to_datetime(text)


def _engine(engine: Engine | None) -> tuple[Any, str]:
    if engine is not None and engine not in ENGINES:
        raise InvalidValue("engine", f"must be {' or '.join(ENGINES)}")
    for name in ENGINES if engine is None else (engine,):
        try:
            return import_module(name), name
        except ImportError:
            continue
    wanted = engine or "pandas"
    missing = f"{engine} is not" if engine else "neither pandas nor polars is"
    raise AgentspanError(f"{missing} installed; run: {installing.command(wanted)}")


def _pandas(pandas: Any, columns: dict[str, list[Any]]) -> Any:
    frame = pandas.DataFrame(columns)
    for name in columns:
        if name in TIMES:
            frame[name] = pandas.to_datetime(frame[name], utc=True)
        elif name in WHOLE:
            frame[name] = frame[name].astype("Int64")  # whole numbers, some of which are missing
        elif name in FRACTIONS or name.startswith("score_"):
            frame[name] = frame[name].astype("float64")
    return frame


def _polars(polars: Any, columns: dict[str, list[Any]]) -> Any:
    known = {
        **dict.fromkeys(TIMES, polars.Datetime("us", "UTC")),
        **dict.fromkeys((*WHOLE, "spans", "failed_spans", "open_spans"), polars.Int64),
        **dict.fromkeys(FRACTIONS, polars.Float64),
        **dict.fromkeys(FLAGS, polars.Boolean),
        "tags": polars.List(polars.String),
    }
    kinds = {name: known.get(name, polars.Float64 if name.startswith("score_") else polars.String) for name in columns}
    return polars.DataFrame(columns, schema=kinds)


BATCH = 1000
"""The number of rows in a row group, and of runs that are read together."""
Values = dict[str, Any]


def write(storage: Storage, run_ids: Sequence[str], folder: Path) -> dict[str, int]:
    """Write `runs.parquet`, `spans.parquet` and `scores.parquet` into a folder; return the number of rows of each.

    The folder is created if it is missing. Existing files are replaced atomically. Columns are those of the tables,
    with times in UTC and JSON as text; runs also have `agent`, `version` and `tags`. Scores include those that a newer
    score replaced.

    Raises:
        InvalidValue: pyarrow is not installed, or the files cannot be written.
    """
    arrow, parquet = modules()
    tables: tuple[tuple[str, ResourceType, Values, Iterable[Values]], ...] = (
        ("runs", "agent_instance", {**_TEXTS, "tags": arrow.list_(arrow.string())}, _runs(storage, run_ids)),
        ("spans", "agent_span", {}, map(_values, chain.from_iterable(storage.ask(SpansOf(id)) for id in run_ids))),
        ("scores", "score", {}, map(_values, chain.from_iterable(history(storage, id) for id in run_ids))),
    )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return {
            name: _write(arrow, parquet, folder / f"{name}.parquet", type_, more, rows)
            for name, type_, more, rows in tables
        }
    except OSError as error:
        raise InvalidValue("output", f"{folder} cannot be written: {error.strerror or error}") from error


def modules() -> tuple[Any, Any]:
    """Import pyarrow; return it and its module for Parquet.

    Raises:
        InvalidValue: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError:
        raise InvalidValue("format", f"parquet needs pyarrow; run: {installing.extra('parquet')}") from None
    return arrow, parquet


def write_file(arrow: Any, parquet: Any, path: Path, schema: Any, rows: Iterable[Values], *, batch: int = BATCH) -> int:
    """Write rows with a pyarrow schema to a Parquet file, replaced atomically; return the number of rows."""
    written = 0
    with files.replacing(path, "wb") as file, parquet.ParquetWriter(file, schema) as writer:
        source = iter(rows)
        while part := list(islice(source, batch)):
            writer.write_table(arrow.Table.from_pylist(part, schema=schema))
            written += len(part)
    return written


_TEXTS: Values = {"agent": None, "version": None}
"""Text columns of runs.parquet that are not columns of the runs' table."""


def _write(arrow: Any, parquet: Any, path: Path, type_: ResourceType, more: Values, rows: Iterable[Values]) -> int:
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    special = {"time": arrow.timestamp("us", tz="UTC"), "flag": arrow.bool_()}
    fields = [(column.name, special.get(column.holds or "", kinds[column.type])) for column in columns_of(type_)]
    schema = arrow.schema([*fields, *((name, kind or arrow.string()) for name, kind in more.items())])
    return write_file(arrow, parquet, path, schema, rows)


def runs_in_batches(
    storage: Storage, run_ids: Iterable[str], size: int
) -> Iterator[list[tuple[AgentInstanceRow, Name, Sequence[str]]]]:
    """Yield runs with the names of their agents and their tags, in batches that are read together."""
    ids = iter(run_ids)
    while batch := list(islice(ids, size)):
        rows = storage.ask(Find(*batch)).rows
        runs = [row for id in batch if id in rows and isinstance(row := rows[id][1], AgentInstanceRow)]
        names, tags = names_of(storage, runs), storage.ask(Tags(batch))
        yield [(run, names[run.id], tags[run.id]) for run in runs]


def _runs(storage: Storage, run_ids: Sequence[str]) -> Iterator[Values]:
    for batch in runs_in_batches(storage, run_ids, BATCH):
        yield from ({**_values(run), **name._asdict(), "tags": tags} for run, name, tags in batch)


def _values(row: Row) -> Values:
    """Return the values of a row by column, with times as datetimes and flags as booleans."""
    values = row._asdict()
    for column in columns_of(TYPE_OF[type(row)]):
        value = values[column.name]
        if value is not None and column.holds in ("time", "flag"):
            values[column.name] = clock.to_datetime(value) if column.holds == "time" else bool(value)
    return values
