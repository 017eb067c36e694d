"""Why a verdict on outcomes is withheld: missing outcomes decide it, or its cases were chosen by their outcome.

One rule for `evaluate`, `diff`, `versions` and `check`. Nothing here reads a storage.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from agentspan.analysis.power import ALPHA
from agentspan.analysis.statistics import fisher_p
from agentspan.text import noun

Verdict = Literal["better", "worse", "no difference", "inconclusive"]
Chosen = Literal["failed", "passed"]
"""The outcome by which the cases were chosen: those that had failed in the base, or those that had passed there."""
_CHOSEN = (
    "Cases that were chosen by their outcome have another one the next time, by chance alone: evaluate the program of "
    "the base with them, as another version, and compare with that"
)


def chosen_by(asked: Sequence[Sequence[bool | None]], rest: Sequence[Sequence[bool | None]]) -> Chosen | None:
    """Return by which outcome in the base the cases were chosen; None if chance would choose them, too.

    Args:
        asked, rest: the outcomes of the base: of each case, and of each of its other tasks.
    """
    for is_failed in (True, False):
        chosen, left = (
            [(False in own) is is_failed for own in side if any(each is not None for each in own)]
            for side in (asked, rest)
        )
        is_clean = chosen and left and (all(chosen) or not any(left))
        if is_clean and fisher_p(sum(left), len(left), sum(chosen), len(chosen), one_sided=True) <= ALPHA:
            return "failed" if is_failed else "passed"
    return None


def doubt_of(
    verdict: Verdict,
    filled: Callable[[bool], Verdict],
    *,
    missing: int,
    could_fall: bool,
    chosen: Chosen | None,
    is_paired: bool = True,
    what: str = "trial",
) -> str | None:
    """Return why a verdict is withheld, as a sentence; None if it stands.

    Args:
        filled: returns the verdict with all missing outcomes of the head passed (True) or failed, and those of the
            base the other way.
        missing: the number of missing outcomes.
        could_fall: whether any outcome of the base passed.
        chosen: how the cases were chosen, if by their outcomes in the base.
        is_paired: whether each case is compared with itself. If not, chosen cases are compared with all of the base.
        what: the name of what has an outcome.
    """
    if missing and verdict != "inconclusive" and any(filled(each) != verdict for each in (False, True)):
        return f"{noun(missing, what)} without an outcome decide: if all had passed, or failed, it would be another"
    if not could_fall:
        return f"the base passed none of these cases, so that none could become worse. {_CHOSEN}"
    by_chance = {"failed": ("better", "no difference"), "passed": ("worse",), None: ()}[chosen]
    if verdict in by_chance or (chosen and not is_paired):
        return f"these cases were chosen because they {chosen} in the base. {_CHOSEN}"
    return None
