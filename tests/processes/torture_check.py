"""Comparing what was acknowledged in a torture run with what is in the file."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agentspan.clock import to_text
from tests.processes.torture_workers import LINE

KINDS = {
    "r": "run begun",
    "e": "run complete",
    "x": "run failed",
    "t": "run terminated",
    "p": "span created pending",
    "a": "span created active",
    "s": "span started",
    "u": "payload updated",
    "c": "span complete",
    "f": "span failed",
    "k": "span cancelled",
}
ENDS = {"c": "complete", "f": "failed", "k": "cancelled", "e": "complete", "x": "failed"}
_SPANS = """select id, status, result_payload, payload ->> '$.arguments.update', finished_at, closed_by,
    agent_instance_id from agent_spans"""
_RUNS = """select id, status, coalesce(result, '') || coalesce(error, ''), null, finished_at, closed_by, id
    from agent_instances"""

_OF_UNKNOWN_PROGRAMS = """select count(*) from (
    select writer_id from agent_instances union all select writer_id from agent_spans
) where writer_id not in (select id from writers)"""


class Line(NamedTuple):
    """An acknowledgement, and when it was given."""

    kind: str
    id: str
    run_id: str
    token: int
    at_ns: int


class Row(NamedTuple):
    """A span, or a run, as far as it is compared."""

    id: str
    status: str
    result: str | None
    update: int | None
    finished_at: str | None
    closed_by: str | None
    run_id: str


def check(folder: Path) -> dict[str, Any]:
    """Return what was acknowledged, and what of it is wrong, in counts; and what else is to be known of the file."""
    connection = sqlite3.connect(folder / "runs.db")
    rows = {row[0]: Row(*row) for sql in (_SPANS, _RUNS) for row in connection.execute(sql)}
    helpers = _helpers(folder)
    pruned = helpers["pruned"]  # a program that goes on with its run registers it again
    refused = connection.execute("select subject, agent_instance_id, why, wanted from refused_changes").fetchall()
    run_of = {subject: run_id for subject, run_id, *_ in refused}
    acknowledged, wrong, closed, exempt = Counter[str](), Counter[str](), Counter[str](), 0
    examples: dict[str, Any] = {}
    known: set[str] = set()
    for line in _lines(folder, helpers["terminated"]):
        acknowledged[KINDS[line.kind]] += 1
        if line.id in run_of:
            run_of[line.id] = line.run_id
            known.add(line.id)
        if line.run_id in pruned:
            exempt += 1
            continue
        row = rows.get(line.id)
        fault = _fault(line, row, _is_terminated(line, row, helpers))
        if fault is not None:
            what = f"{KINDS[line.kind]}: {fault}"
            wrong[what] += 1
            examples.setdefault(what, [line, row])
        elif row is not None and row.closed_by is not None and row.status != "terminated" and line.kind in ENDS:
            closed[row.closed_by] += 1
    return {
        "transitions": acknowledged.total(),
        "acknowledged": dict(acknowledged),
        "wrong": dict(wrong),
        "examples": examples,
        "pruned runs": len(pruned),
        "pruned runs that came back": sum(id in rows for id in pruned),
        "of pruned runs, not compared": exempt,
        "closed first, and ended after all": dict(closed),
        **_refused([(why, run_of[subject] in pruned, subject in known) for subject, _, why, _ in refused]),
        "left open": sum(row.status in ("pending", "active") for row in rows.values()),
        "of unknown programs": connection.execute(_OF_UNKNOWN_PROGRAMS).fetchone()[0],
        "integrity": [row[0] for row in connection.execute("pragma integrity_check(5)")],
        "left over": sorted(path.name for path in folder.glob("runs.db.spool/*")),
        "helpers": helpers["turns"],
        "errors of helpers": helpers["errors"],
        "bugs": helpers["bugs"],
        "lost, by health": helpers["lost"],
    }


def _refused(refused: list[tuple[str, bool, bool]]) -> dict[str, dict[str, int]]:
    """Count refused changes by why: of runs that were pruned, and of what nobody acknowledged, because it waited in the
    memory of a program that was killed, or in that of its parent, they are to be expected."""
    return {
        "refused": dict(Counter(why for why, is_pruned, is_known in refused if is_known and not is_pruned)),
        "refused, never acknowledged": dict(Counter(why for why, is_pruned, is_known in refused if not is_known)),
        "refused of pruned runs": dict(Counter(why for why, is_pruned, is_known in refused if is_known and is_pruned)),
    }


def _is_terminated(line: Line, row: Row | None, helpers: dict[str, Any]) -> bool:
    """Tell whether a run is to be terminated: somebody did that, or began to, and was perhaps killed in between."""
    if line.id in helpers["terminated"]:
        return True
    return line.id in helpers["terminating"] and row is not None and row.status == "terminated"


def _fault(line: Line, row: Row | None, is_terminated: bool) -> str | None:
    """Return what is wrong with a row, of which this was acknowledged."""
    if row is None:
        return "is not there"
    if line.kind == "t" or (line.kind in "rex" and is_terminated):
        return None if row.status == "terminated" else f"is {row.status}, though it was terminated"
    if line.kind in ENDS:
        return _fault_of_end(line, row)
    if line.kind in "as" and row.status not in ("active", "complete", "failed"):
        return f"is {row.status}"
    if line.kind == "u" and (row.update is None or row.update < line.token):
        return "has not this payload" + _closed(row)
    return None


def _fault_of_end(line: Line, row: Row) -> str | None:
    if row.status != ENDS[line.kind]:
        return f"is {row.status}{_closed(row)}"
    if line.kind != "k" and str(line.token) not in (row.result or ""):
        return f"has another result{_closed(row)}"
    if not to_text(line.token) <= (row.finished_at or "") <= to_text(line.at_ns):
        return f"ended at another time{_closed(row)}"
    return None


def _closed(row: Row) -> str:
    return "" if row.closed_by is None else f", closed_by {row.closed_by}"


def _lines(folder: Path, terminated: set[str]) -> Iterator[Line]:
    for path in folder.glob("*.ack"):
        for line in path.read_text().splitlines():
            parts = line[-(LINE - 1) :].split()  # a kill may cut a line where a page ends; the next one follows it then
            if len(parts) == 5:
                kind, id, run_id, token, at_ns = parts
                yield Line(kind, id, run_id, int(token), int(at_ns))
    for id in terminated:
        yield Line("t", id, id, 0, 0)


def _helpers(folder: Path) -> dict[str, Any]:
    """Return what those wrote down who read, closed, terminated and removed."""
    turns, errors, bugs, lost = Counter[str](), Counter[str](), Counter[str](), 0
    ids: dict[str, set[str]] = {"pruned": set(), "terminating": set(), "terminated": set()}
    for line in (folder / "helpers.log").read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word in ids:
            ids[word].add(rest)
        elif word == "lost":
            lost += int(rest)
        else:
            {"turn": turns, "error": errors, "bug": bugs}[word][rest] += 1
    return {**ids, "turns": dict(turns), "errors": dict(errors), "bugs": dict(bugs), "lost": lost}


def table(figures: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"{'acknowledged':<44}{figures['transitions']:>10}"]
    lines += [f"  {kind:<42}{figures['acknowledged'].get(kind, 0):>10}" for kind in KINDS.values()]
    lines += [f"{'of these, wrong':<44}{sum(figures['wrong'].values()):>10}"]
    lines += [f"  {what:<60}{number:>10}" for what, number in sorted(figures["wrong"].items())]
    shown = ("transitions", "acknowledged", "wrong", "examples")
    lines += [f"{name}: {json.dumps(value)}" for name, value in figures.items() if name not in shown]
    lines += [f"example of {what}: {line} but {row}" for what, (line, row) in sorted(figures["examples"].items())]
    return "\n".join(lines)
