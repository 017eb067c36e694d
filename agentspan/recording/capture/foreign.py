"""Values of numpy and pandas as simpler ones, by what they can do: neither is imported."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentspan.recording.capture.limits import TRUNCATED


class Table(NamedTuple):
    """The first rows of a table, or the first values of a series."""

    columns: list[str]
    rows: list[Any]
    total: int
    about: dict[str, Any]
    flat: bool = False


def _numpy(value: Any, limit: int) -> Any:
    if not hasattr(value, "tolist") or not hasattr(value, "nbytes"):
        return None
    if value.ndim == 0:
        item = value.item()
        return item if type(item) is not type(value) else None  # a long double is its own
    if value.size <= limit:
        names = value.dtype.names if value.ndim == 1 else None
        return value.tolist() if names is None else [dict(zip(names, row, strict=True)) for row in value.tolist()]
    return {TRUNCATED: {"shape": list(value.shape), "dtype": str(value.dtype), "bytes": int(value.nbytes)}}


def _pandas(value: Any, limit: int) -> Any:
    if hasattr(value, "to_dict") and hasattr(value, "iloc"):
        flat = value.ndim == 1
        width = 1 if flat else min(value.shape[1], limit)
        head = value.iloc[: max(1, limit // max(1, width))]
        if flat:
            name = str(value.name)
            about: dict[str, Any] = {"name": name, "index": head.index.tolist()}
            return Table([name], [(cell,) for cell in head.tolist()], len(value), about, flat=True)
        columns = [str(column) for column in value.columns]
        about = {"columns": columns, "index": head.index.tolist()}
        rows = head.iloc[:, :width].to_numpy(dtype=object).tolist()
        return Table(columns[:width], rows, len(value), about)
    return value.isoformat() if hasattr(value, "isoformat") else None


FOREIGN: Mapping[str, Callable[[Any, int], Any]] = {"numpy": _numpy, "pandas": _pandas}
"""By package, so that none of them is imported: an object as simpler values, a table, or None."""
