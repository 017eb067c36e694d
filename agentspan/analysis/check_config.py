"""The configuration of `agentspan check`: a TOML file, or `[tool.agentspan.check]` in pyproject.toml.

outcome = "reward>=1"          # or "status"; the project's when left out
[budget]                       # of each run
cost_usd = 0.05
steps = 40
[calls]
required = ["lookup_price"]
forbidden = ["delete_order"]
[baseline]
filter = "tag=main since=7d"   # or file = "baseline.db", with a filter or without
drop = 0.25                    # the drop of the share of passed runs that must show
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentspan.analysis.drift_metrics import Measure
from agentspan.errors import InvalidValue

BUDGETS: Mapping[str, Measure] = {
    "cost_usd": "cost_usd",
    "tokens": "tokens",
    "steps": "spans",
    "duration_s": "duration_ms",
    "error_rate": "failure_rate",
}
DROP = 0.25
PYPROJECT = "pyproject.toml"
SETTINGS = frozenset({"outcome", "check"})
"""The keys of [tool.agentspan]."""
KEYS: Mapping[str, frozenset[str] | None] = {
    "outcome": None,
    "budget": frozenset(BUDGETS),
    "calls": frozenset({"required", "forbidden"}),
    "baseline": frozenset({"filter", "file", "drop"}),
}


@dataclass(frozen=True, slots=True)
class Config:
    """The budgets, calls and baseline that runs are checked by.

    Attributes:
        budget: name → the most that each run may use.
        required, forbidden: labels (else types) that each run must call, or must not.
        outcome: a rule by which a run passed, or `status`; None for the project's.
        baseline, baseline_file: the runs to compare with: a filter, in this file; in the checked one when None.
        drop: the drop of the share of passed runs, from 0 to 1, that the check must be able to show.
    """

    budget: Mapping[str, float]
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    outcome: str | None = None
    baseline: str | None = None
    baseline_file: str | None = None
    drop: float = DROP


def load(path: Path) -> Config:
    """Read the configuration of a file.

    Raises:
        InvalidValue: it does not exist, cannot be read, is not TOML, or has nothing to check; or has a key that is
            unknown, or a value of the wrong type.
    """
    document: Any
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidValue("config", f"{path} does not exist") from None
    except OSError as error:
        raise InvalidValue("config", f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue("config", f"{path} is not TOML: {error}") from None
    if path.name == PYPROJECT:
        for name in ("tool", "agentspan", "check"):
            document = document.get(name) if isinstance(document, dict) else None
            if name == "agentspan" and isinstance(document, dict):
                check_settings(document)
        if not isinstance(document, dict):
            raise InvalidValue("config", f"{path} has no [tool.agentspan.check]; --config names another file")
    elif "tool" in document:
        raise InvalidValue("config", f"in {path} write [budget]; [tool.agentspan.check.budget] is for {PYPROJECT}")
    config = config_of(document)
    if config == Config({}, outcome=config.outcome):
        raise InvalidValue("config", f"{path} has nothing to check: write [budget], [calls] or [baseline]")
    return config


def config_of(document: Mapping[str, Any]) -> Config:
    """Return the configuration that a TOML document describes.

    Raises:
        InvalidValue: see load.
    """
    for key, value in document.items():
        _known(key, KEYS, "a key of the configuration")
        inner = KEYS[key]
        if inner is not None:
            if not isinstance(value, dict):
                raise InvalidValue("config", f"[{key}] must be a table")
            for name in value:
                _known(name, inner, f"a key of [{key}]")
    budget, calls, baseline = (document.get(name, {}) for name in ("budget", "calls", "baseline"))
    for name, limit in budget.items():
        if not isinstance(limit, (int, float)) or isinstance(limit, bool) or not limit >= 0:
            raise InvalidValue("config", f"budget {name} must be a number from 0 on")
        if name in ("steps", "tokens") and limit % 1:
            raise InvalidValue("config", f"budget {name} must be a whole number")
        if name == "error_rate" and limit > 1:
            raise InvalidValue("config", "budget error_rate must be a share from 0 to 1")
    for name, labels in calls.items():
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise InvalidValue("config", f"calls {name} must be a list of names")
    drop = baseline.get("drop", DROP)
    if not isinstance(drop, (int, float)) or isinstance(drop, bool) or not 0 < drop <= 1:
        raise InvalidValue("config", "baseline drop must be a share above 0, at most 1")
    if "baseline" in document and not {"filter", "file"} & baseline.keys():
        raise InvalidValue("config", "[baseline] must name a filter or a file")
    texts = (document.get("outcome"), baseline.get("filter"), baseline.get("file"))
    if not all(text is None or isinstance(text, str) for text in texts):
        raise InvalidValue("config", "outcome, filter and file must be texts")
    return Config(budget, tuple(calls.get("required", ())), tuple(calls.get("forbidden", ())), *texts, float(drop))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse keys of [tool.agentspan] that are unknown.

    Raises:
        InvalidValue: there is one.
    """
    for name in settings:
        _known(name, SETTINGS, "a key of [tool.agentspan]")


def _known(name: str, names: Any, what: str) -> None:
    if name not in names:
        raise InvalidValue("config", f"{name!r} is not {what}; there are {', '.join(sorted(names))}")
