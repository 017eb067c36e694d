"""Stack traces in the format of `traceback`, with a cache: the text of each line of code is formatted once.

An exception that passes n recorded calls has n stack traces, each with all frames of the earlier ones. Formatting one
frame takes 20 to 200 µs, mostly for the carets under its line. The cache key is the code object and the position in it,
never the frame or the exception, which would keep values of the program alive.
"""

import traceback
from collections import deque
from collections.abc import Iterator
from types import CodeType, TracebackType
from typing import Any, NamedTuple

MAX_KEPT = 1024
"""The number of texts in the cache, each with its code object; one more empties the cache."""
_CUTOFF = 3  # of traceback: more repetitions of a line are counted
_HEAD = ("Traceback (most recent call last):\n",)
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


class FrameText(str):
    """The text of one frame among the lines of a stack trace."""


class _Frame(NamedTuple):
    """The text of a frame, and its file, line and function, by which repetitions are found."""

    same: tuple[str, int | None, str]
    text: FrameText | None


class _Lines(traceback.StackSummary):
    """A stack of texts that are formatted already."""

    def format(self, **_: Any) -> list[str]:
        return [*map(str, self)]  # texts, not frames


_kept: dict[tuple[int, int, int], tuple[CodeType, _Frame]] = {}


def of_exception(exception: BaseException, frames: int) -> list[str]:
    """Return the lines of `traceback.format_exception`; the lines of frames are FrameText, except for a group.

    Args:
        frames: the number of frames of each stack, counted from its end.
    """
    trace = exception.__traceback__
    written = traceback.TracebackException(type(exception), exception, trace, limit=0, compact=True)
    lines: list[list[str]] = []
    one: traceback.TracebackException | None = written
    its: BaseException | None = exception
    while one is not None and its is not None:
        if one.exceptions is not None:
            return _of_group(written, exception, frames)
        stack = of_frames(its.__traceback__, frames)
        lines.append([*(_HEAD if stack else ()), *stack, *one.format_exception_only()])
        if one.__cause__ is not None:
            lines[-1].insert(0, _CAUSE)
            one, its = one.__cause__, its.__cause__
        elif one.__context__ is not None and not one.__suppress_context__:
            lines[-1].insert(0, _CONTEXT)
            one, its = one.__context__, its.__context__
        else:
            break
    return [line for each in reversed(lines) for line in each]


def _of_group(written: traceback.TracebackException, exception: BaseException, frames: int) -> list[str]:
    waiting: list[tuple[traceback.TracebackException, BaseException]] = [(written, exception)]
    while waiting:
        one, its = waiting.pop()
        one.stack = _Lines(of_frames(its.__traceback__, frames))  # type: ignore[arg-type]
        for other, cause in ((one.__cause__, its.__cause__), (one.__context__, its.__context__)):
            if other is not None and cause is not None:
                waiting.append((other, cause))
        if one.exceptions is not None and isinstance(its, BaseExceptionGroup):
            waiting += zip(one.exceptions, its.exceptions, strict=False)  # its class may say anything
    return [*written.format()]


def of_frames(trace: TracebackType | None, frames: int) -> list[str]:
    """Return the lines of `traceback.format_tb` for the last frames of a traceback.

    Args:
        frames: the number of frames.
    """
    lines: list[str] = []
    last: object = None
    count = 0
    for frame in (*(_frame(each) for each in deque(_chain(trace), frames)), _Frame(("", None, ""), None)):
        if frame.same != last:
            if count > _CUTOFF:
                more = count - _CUTOFF
                lines.append(f"  [Previous line repeated {more} more time{'s' if more > 1 else ''}]\n")
            last, count = frame.same, 0
        if frame.text is not None:
            count += 1
            if count <= _CUTOFF:
                lines.append(frame.text)
    return lines


def _chain(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _frame(trace: TracebackType) -> _Frame:
    code = trace.tb_frame.f_code
    key = id(code), trace.tb_lasti, trace.tb_lineno
    known = _kept.get(key)
    if known is not None:
        return known[1]
    summary = traceback.extract_tb(trace, limit=1)
    same = (summary[0].filename, summary[0].lineno, summary[0].name) if summary else ("", None, "")
    text = "".join(summary.format())
    made = _Frame(same, FrameText(text) if text else None)
    if len(_kept) >= MAX_KEPT:
        _kept.clear()
    _kept[key] = code, made  # holds the code object, so that its id is not reused
    return made
