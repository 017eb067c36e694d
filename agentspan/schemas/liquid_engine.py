"""python-liquid, fenced in: no file, no attribute of an object, and bounded steps, loops, texts and output.

Importing this module imports python-liquid, an extra; only schemas.liquid does, when it compiles a template.
"""

from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from typing import Any, TextIO

from liquid import Environment, RenderContext
from liquid.builtin.content import Literal
from liquid.builtin.illegal import Illegal
from liquid.builtin.output import Output, OutputNode
from liquid.builtin.tags.assign_tag import AssignTag
from liquid.builtin.tags.capture_tag import CaptureTag
from liquid.builtin.tags.case_tag import CaseTag
from liquid.builtin.tags.comment_tag import CommentTag
from liquid.builtin.tags.decrement_tag import DecrementTag
from liquid.builtin.tags.echo_tag import EchoTag
from liquid.builtin.tags.for_tag import BreakTag, ContinueTag, ForTag
from liquid.builtin.tags.if_tag import IfTag
from liquid.builtin.tags.increment_tag import IncrementTag
from liquid.builtin.tags.inline_comment_tag import InlineCommentTag
from liquid.builtin.tags.unless_tag import UnlessTag
from liquid.exceptions import LiquidError

from agentspan.errors import TemplateError
from agentspan.interrupts import let_through
from agentspan.schemas.liquid_filters import FILTERS, MAX_TEXT, OutOfSteps, text_of, within
from agentspan.schemas.templates import MAX_SUMMARY
from agentspan.text import one_line

MAX_LIQUID_STEPS = 5000
"""Look-ups, filters and iterations of one rendering: 20 ms."""

_ENOUGH = 4 * MAX_SUMMARY  # characters; text behind them is always cut


class _Enough(Exception):
    """The output is longer than any summary."""


class _Written:
    """The output of a template: it stops the rendering when it has enough."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        self.text += text[: _ENOUGH + 1]
        if len(self.text) > _ENOUGH:
            raise _Enough
        return len(text)


class _Captured(StringIO):
    """The output of a `capture`, with a bound."""

    def write(self, text: str) -> int:
        if self.tell() + len(text) > MAX_TEXT:
            raise OutOfSteps
        return super().write(text)


class _Context(RenderContext):
    """The names of one rendering, and the steps that it may still take."""

    __slots__ = ("steps",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = MAX_LIQUID_STEPS

    def spend(self, steps: int) -> None:
        self.steps -= steps
        if self.steps < 0:
            raise OutOfSteps

    def get(self, path: Any, **kwargs: Any) -> object:
        found, steps = within(super().get(path, **kwargs))
        self.spend(steps)
        return found

    def assign(self, key: str, val: Any) -> None:
        self.spend(1)
        super().assign(key, val)

    def stopindex(self, key: str, index: int | None = None) -> int:
        if index is not None and index > MAX_TEXT:  # before python-liquid makes a list of a reversed range
            raise OutOfSteps
        return super().stopindex(key, index)

    def loop(self, namespace: Mapping[str, object], forloop: Any) -> Any:
        forloop.it = self._counted(forloop.it)
        return super().loop(namespace, forloop)

    def _counted(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.spend(1)
            yield item

    def get_buffer(self, buf: TextIO | None = None) -> StringIO:
        return _Captured()


class _OutputNode(OutputNode):
    """`{{ … }}` as our own renderer shows values: a bare object or array is empty."""

    def render_to_output(self, context: Any, buffer: TextIO) -> int:
        context.spend(1)
        return buffer.write(text_of(self.expression.evaluate(context)))


class _Output(Output):
    node_class = _OutputNode


class _Echo(EchoTag):
    node_class: Any = _OutputNode


_TAGS = (
    Literal, _Output, Illegal, IfTag, UnlessTag, CaseTag, ForTag, BreakTag, ContinueTag, AssignTag, CaptureTag,
    CommentTag, InlineCommentTag, IncrementTag, DecrementTag, _Echo,
)  # fmt: skip


class _Environment(Environment):
    block_nesting_limit = 10

    def setup_tags_and_filters(self, *, extra: bool = False) -> None:
        for tag in _TAGS:
            self.add_tag(tag)
        for name, function in FILTERS.items():
            self.add_filter(name, function)


_environment = _Environment()


def compiled(source: str) -> Callable[[Mapping[str, Any]], str | None]:
    """Return the function that renders a template. It returns None instead of raising.

    Raises:
        TemplateError: the template is not Liquid, or has a tag or a filter that is not allowed.
    """
    try:
        template = _environment.from_string(source)
        unknown = [name for name in template.analyze(include_partials=False).filters if name not in FILTERS]
    except (LiquidError, RecursionError) as error:
        problem = one_line(str(error), 100) if isinstance(error, LiquidError) else "nested too deep"
        raise TemplateError("template", f"is Liquid that cannot be rendered: {problem}") from None
    if unknown:
        raise TemplateError("template", f"has a filter that is not available: {one_line(unknown[0], 40)}")

    def render(names: Mapping[str, Any]) -> str | None:
        written = _Written()
        try:
            template.render_with_context(_Context(template, globals=names), written)  # type: ignore[arg-type]
        except _Enough:
            pass
        except (OutOfSteps, LiquidError, RecursionError):
            return None
        except Exception as error:  # of a filter on an odd value
            let_through(error)
            return None
        return written.text

    return render
