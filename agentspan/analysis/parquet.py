"""Runs, spans and scores as three Parquet files, for DuckDB, pandas and polars. Needs pyarrow (extra `parquet`)."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from agentspan import clock, files
from agentspan.errors import InvalidValue
from agentspan.model.columns import columns_of
from agentspan.model.rows import TYPE_OF, AgentInstanceRow, ResourceType, Row
from agentspan.storage.protocol import Storage
from agentspan.storage.questions import Find, SpansOf, Tags
from agentspan.storage.row_by_row import history, names_of

BATCH = 1000
"""The number of rows in a row group, and of runs that are read together."""
EXTRA = "pip install 'agentspan-sqlite[parquet]'"
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
        raise InvalidValue("format", f"parquet needs pyarrow; run: {EXTRA}") from None
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


_GONE = ("agent_instance", None)
_TEXTS: Values = {"agent": None, "version": None}
"""Text columns of runs.parquet that are not columns of the runs' table."""


def _write(arrow: Any, parquet: Any, path: Path, type_: ResourceType, more: Values, rows: Iterable[Values]) -> int:
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    special = {"time": arrow.timestamp("us", tz="UTC"), "flag": arrow.bool_()}
    fields = [(column.name, special.get(column.holds or "", kinds[column.type])) for column in columns_of(type_)]
    schema = arrow.schema([*fields, *((name, kind or arrow.string()) for name, kind in more.items())])
    return write_file(arrow, parquet, path, schema, rows)


def _runs(storage: Storage, run_ids: Sequence[str]) -> Iterator[Values]:
    ids = iter(run_ids)
    while batch := list(islice(ids, BATCH)):
        found = storage.ask(Find(*batch)).rows
        runs = [row for id in batch if isinstance(row := found.get(id, _GONE)[1], AgentInstanceRow)]
        names, tags = names_of(storage, runs), storage.ask(Tags(batch))
        yield from ({**_values(run), **names[run.id]._asdict(), "tags": tags[run.id]} for run in runs)


def _values(row: Row) -> Values:
    """Return the values of a row by column, with times as datetimes and flags as booleans."""
    values = row._asdict()
    for column in columns_of(TYPE_OF[type(row)]):
        value = values[column.name]
        if value is not None and column.holds in ("time", "flag"):
            values[column.name] = clock.to_datetime(value) if column.holds == "time" else bool(value)
    return values
