"""Objects that raise from whatever is asked of them, as every argument: the program never notices."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import agentspan
from agentspan import Tracer
from tests.tiers import every

FAILING = ("__class__", "__eq__", "__ne__", "__hash__", "__str__", "__repr__", "__len__", "__bool__", "__iter__")
MORE = ("__format__", "__getattribute__", "__getitem__", "__contains__", "__index__", "__fspath__", "keys", "items")


class Hostile(Exception):
    pass


def fails(self: Any, *args: Any, **kwargs: Any) -> Any:
    raise Hostile("hostile")


class Meta(type):
    """A class that says nothing of itself."""

    def __getattribute__(cls, name: str) -> Any:
        if name in ("__module__", "__name__", "__qualname__", "__mro__", "__dict__"):
            raise Hostile(name)
        return super().__getattribute__(name)

    def __instancecheck__(cls, instance: Any) -> bool:
        raise Hostile("instance")

    def __subclasscheck__(cls, subclass: Any) -> bool:
        raise Hostile("subclass")


def made(base: type, *names: str, meta: type = type) -> Any:
    body = {name: property(fails) if name == "__class__" else fails for name in names}
    kind = meta("Odd", (base,), body)
    return type.__call__(kind)


OBJECTS: dict[str, Callable[[], Any]] = {
    **{f"object {name}": lambda name=name: made(object, name) for name in (*FAILING, *MORE)},  # type: ignore[misc]
    "object all": lambda: made(object, *FAILING, *MORE),
    "object metaclass": lambda: made(object, "__class__", "__str__", meta=Meta),
    "str all": lambda: made(str, *FAILING, *MORE, "strip", "isprintable", "encode", "isascii"),
    "str some": lambda: made(str, "__getitem__", "strip", "isprintable", "encode", "isascii"),
    "dict all": lambda: made(dict, *FAILING, *MORE),
    "list all": lambda: made(list, *FAILING, *MORE),
    "exception all": lambda: made(ValueError, *FAILING, *MORE),
    "group class": lambda: made(ValueError, "__class__", "__str__", meta=Meta),
}


@pytest.fixture(params=["journal", "commit"])
def recording(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tracer]:
    tracer = Tracer(tmp_path / "runs.db", durability=request.param)
    yield tracer
    tracer.shutdown()


@pytest.mark.parametrize("name", every(2, OBJECTS))
def test_no_argument_makes_recording_raise(recording: Tracer, name: str) -> None:
    odd, tracer = OBJECTS[name](), recording
    with tracer.run(odd, version=odd, metadata=odd, purpose=odd):
        pass
    with tracer.run("a", version=odd, metadata={"x": odd}) as run:
        with tracer.span(odd, odd) as span:
            span.set_result(odd)
        with tracer.span("tool", {"name": odd, "arguments": odd}) as span:
            span.update_payload(odd)
            span.update_payload({"x": odd})
            span.set_result({"output": odd})
            span.record_error(odd)
        created = run.create_span(odd, odd, status=odd, parent=odd)
        created.start()
        created.finish(odd, odd)
        created.finish()
        made_by_hand = run.create_span("tool", {"name": "x"}, status="active")
        made_by_hand.finish(odd)
        made_by_hand.finish("complete", {"output": odd})
        run.set_result(odd)
        run.set_result({"x": odd})
        run.record_error(odd)
        run.finish(odd, odd)

    @tracer.span("tool", odd)
    def through(value: Any, *, more: Any) -> Any:
        return value

    assert through(odd, more=odd) is odd
    assert tracer.flush()
    with agentspan.open(tracer.storage.path) as db:  # type: ignore[attr-defined]
        runs = [*db.agent_instances.list()]
        spans = [span for found in runs for span in db.agent_spans.list(found.id)]
    assert len(spans) == 5
    assert {span.status for span in spans} <= {"complete", "failed"}


@pytest.mark.parametrize("name", ["object __class__", "object __eq__", "object __getattribute__", "object all"])
def test_a_hostile_callable_is_decorated_and_called(recording: Tracer, name: str) -> None:
    names = (*FAILING, *MORE) if name == "object all" else (name.split()[1],)
    kind = type("Odd", (), {each: property(fails) if each == "__class__" else fails for each in names})
    type.__setattr__(kind, "__call__", lambda self, value: value)
    assert recording.span(type.__call__(kind))(3) == 3
    assert recording.span("tool")(type.__call__(kind))(4) == 4
