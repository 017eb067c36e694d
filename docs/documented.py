"""Signatures, types and docstrings of functions, classes and their members, as griffe reads them in the source."""

import importlib
import logging
import re
from functools import cache
from pathlib import Path
from typing import Any

import griffe

from agentspan.tuning import STANDARD

ROOT = Path(__file__).resolve().parents[1]
WIDTH = 88
SECTION = re.compile(r"^(Args|Attributes|Examples|Raises|Returns|Yields):\n((?:(?: +.*)?\n?)*)", re.MULTILINE)
ITEM = re.compile(r"^ {4}(\S.*?): (.*(?:\n {5,}.*)*)", re.MULTILINE)
EXPANDED = {
    "Unpack[InstanceFields]": "agentspan.api.facade.InstanceFields",
}
"""Keywords that a signature lists one by one."""

GIVEN_ONCE = frozenset({"self", "id", "idempotency_key", "sorting", "offset", "page_size", "timestamp"})
"""Parameters that mean the same in all operations by id, which operations.md describes."""
HIDDEN = frozenset({"renew"})
"""Methods that only agentspan calls."""

LISTS = frozenset({"agentspan.arriving", "agentspan.ground", "agentspan.judging"})
"""Modules that pass on names of others."""

logging.getLogger("griffe").setLevel(logging.CRITICAL)


@cache
def module(name: str) -> griffe.Module:
    """Return a module as its source has it."""
    path = ROOT / Path(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return griffe.visit(name, path, path.read_text(encoding="utf-8"))


@cache
def at(path: str) -> Any:
    """Return the function or class that a name leads to, such as `agentspan.Database.runs`."""
    words = path.split(".")
    for end in range(len(words) - 1, 0, -1):
        try:
            value: Any = importlib.import_module(".".join(words[:end]))
        except ModuleNotFoundError:
            continue
        first = getattr(value, words[end])
        found: Any = module(getattr(first, "__module__", ".".join(words[:end])))
        for word in [getattr(first, "__name__", words[end]), *words[end + 1 :]]:
            found = next(each.members[word] for each in lineage(found) if word in each.members)
        return found
    raise LookupError(path)


def lineage(found: Any) -> list[Any]:
    """Return an object; of a class also its base classes within agentspan."""
    if not isinstance(found, griffe.Class):
        return [found]
    own = module(found.module.path) if found.module.path != found.path else found.module
    bases = [str(base).partition("[")[0] for base in found.bases]
    above = [
        own.members[base] if base in own.members and base not in own.imports else at(own.imports[base])
        for base in bases
        if base in own.members and (base not in own.imports or own.imports[base].startswith("agentspan."))
    ]
    return [found, *(each for base in above for each in lineage(base))]


def canonical(name: str, within: Any) -> str:
    """Return the whole path of a name in the module of an object, also of one that a list of names has passed on."""
    own = within if isinstance(within, griffe.Module) else within.module
    path = own.imports.get(name, f"{own.path}.{name}")
    source, _, last = path.rpartition(".")
    return module(source).imports.get(last, path) if source in LISTS else path


def docstring(found: Any) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring, and its sections by name."""
    text = found.docstring.value + "\n" if found.docstring else ""
    sections = {each[1]: each[2] for each in SECTION.finditer(text)}
    return SECTION.sub("", text).strip(), sections


def items(section: str) -> dict[str, str]:
    """Return the items of a section such as Args: name → text. `a, b: text` is one item."""
    return {each[1]: " ".join(each[2].split()) for each in ITEM.finditer(section + "\n")}


def described(found: Any, *sections: str) -> dict[str, str]:
    """Return the names that sections of a docstring describe, each alone."""
    _, there = docstring(found)
    pairs = [pair for section in sections for pair in items(there.get(section, "")).items()]
    return {name.strip(): text for names, text in pairs for name in names.split(",")}


def arguments(found: Any) -> dict[str, str]:
    """Return the arguments that a docstring describes."""
    return items(docstring(found)[1].get("Args", ""))


def unnamed(found: griffe.Function) -> list[str]:
    """Return the parameters of a function that its docstring does not name."""
    text = found.docstring.value if found.docstring else ""
    names = [each.name for each in found.parameters if each.name not in GIVEN_ONCE and not each.name.endswith("_id")]
    return [name for name in names if not re.search(rf"\b{name}\b", text) and "(see agentspan." not in text]


def type_of(annotation: Any, within: Any) -> str:
    """Return a type without the quotes that make it a text, and with the values of aliases."""
    text = str(annotation)
    is_quoted = text[:1] in "\"'" and text.count(text[0]) == 2
    return value_of(text[1:-1] if is_quoted else text, within)


def value_of(text: Any, within: Any) -> str:
    """Return a default or a type with the values of aliases and constants in it."""

    def value(found: re.Match[str]) -> str:
        path = canonical(found[0], within)
        name, _, last = path.rpartition(".")
        member = module(name).members.get(last) if name.startswith("agentspan") and "." in name else None
        if not isinstance(member, griffe.Attribute) or member.value is None or "(" in str(member.value):
            return found[0]
        return value_of(member.value, member)

    text = re.sub(r"STANDARD\.(\w+)", lambda found: repr(getattr(STANDARD, found[1])), str(text))
    text = re.sub(r"(?<![\w.'\"])[A-Z]\w+(?![\w.'\"=])", value, text)
    return re.sub(r"'([^'\"]*)'", r'"\1"', text.replace("builtins.", ""))


def signature(found: griffe.Function, name: str) -> list[str]:
    """Return the lines of a function's signatures; those of its overloads, if it has some."""
    within: Any = found.parent
    ways = found.overloads or (within.overloads.get(found.name) if within else None) or [found]
    return [line for way in ways for line in one_signature(way, name)]


def one_signature(found: griffe.Function, name: str) -> list[str]:
    """Return the lines of a signature; a long one has a line for each parameter."""
    parts = parameters(found)
    returns = f" -> {type_of(found.returns, found)}" if found.returns is not None and found.name != "__init__" else ""
    head = ("async def " if "async" in found.labels else "") + name
    line = f"{head}({', '.join(parts)}){returns}"
    if len(line) <= WIDTH:
        return [line]
    return [f"{head}(", *(f"    {part}," for part in parts), f"){returns}"]


def parameters(found: griffe.Function) -> list[str]:
    """Return the parameters of a function, with types and defaults, without `self`."""
    kinds = griffe.ParameterKind
    parts, is_keyword = [], False
    listed = [each for each in found.parameters if each.name not in ("self", "cls")]
    for number, each in enumerate(listed):
        if str(each.annotation) in EXPANDED and found.name != "__init__":
            parts += ["*"] * (not is_keyword) + keywords(EXPANDED[str(each.annotation)])
            continue
        if each.kind is kinds.keyword_only and not is_keyword:
            parts.append("*")
        is_keyword = is_keyword or each.kind in (kinds.keyword_only, kinds.var_positional)
        stars = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(each.kind, "")
        annotation = None if stars == "**" and "Unpack" in str(each.annotation) else each.annotation
        parts.append(field(stars + each.name, annotation, None if stars else each.default, found))
        after = listed[number + 1].kind if number + 1 < len(listed) else None
        if each.kind is kinds.positional_only and after is not kinds.positional_only:
            parts.append("/")
    return parts


def field(name: str, annotation: Any, default: Any, within: Any) -> str:
    """Return a parameter as a signature has it."""
    text = name if annotation is None else f"{name}: {type_of(annotation, within)}"
    return text if default is None else f"{text} = {value_of(default, within)}"


def keywords(path: str) -> list[str]:
    """Return the parameters that the fields of a class are."""
    found = at(path)
    fields = {
        name: each
        for name, each in found.members.items()
        if isinstance(each, griffe.Attribute) and not each.labels & {"property"}
    }
    return [field(name, each.annotation, each.value, each) for name, each in fields.items()]


def constructor(found: griffe.Class, name: str) -> list[str]:
    """Return the lines of the signature that makes an object of a class."""
    made = next((each.members["__init__"] for each in lineage(found) if "__init__" in each.members), None)
    if made is not None:
        return one_signature(made, name)
    parts = keywords(found.path)
    line = f"{name}({', '.join(parts)})"
    return [line] if len(line) <= WIDTH else [f"{name}(", *(f"    {part}," for part in parts), ")"]


def methods(found: griffe.Class) -> list[griffe.Function]:
    """Return the public methods of a class that have a docstring, the class's own first."""
    made: dict[str, griffe.Function] = {}
    for each in lineage(found):
        for name, member in each.members.items():
            if (
                isinstance(member, griffe.Function)
                and not name.startswith("_")
                and not is_property(member)
                and member.docstring
                and name not in HIDDEN
            ):
                made.setdefault(name, member)
    return list(made.values())


def members(found: griffe.Class) -> list[tuple[str, list[Any], str]]:
    """Return names, types and text of the values of a class: fields, properties, and what only its docstring names.

    Names that the docstring describes together are one item.
    """
    about, groups = {}, {}
    for each in reversed(lineage(found)):
        for key, text in items(docstring(each)[1].get("Attributes", "")).items():
            for name in key.split(","):
                about[name.strip()], groups[name.strip()] = text, key
    values: dict[str, tuple[Any, str]] = {}
    for each in reversed(lineage(found)):
        for name, member in each.members.items():
            if name.startswith("_") or name in ("model_config", "code") or member.is_alias or not is_value(member):
                continue
            own = " ".join(docstring(member)[0].split())
            annotation = getattr(member, "annotation", None) or getattr(member, "returns", None)
            if name in about or own or has_fields(each):
                values[name] = annotation, about.get(name) or own
    values |= {name: (None, text) for name, text in about.items() if name not in values}
    made: dict[str, tuple[str, list[Any], str]] = {}
    for name, (annotation, text) in values.items():
        key = groups.get(name, name)
        before = made.get(key)
        made[key] = (
            (name, [annotation], text) if before is None else (f"{before[0]}, {name}", [*before[1], annotation], text)
        )
    return list(made.values())


def is_value(member: Any) -> bool:
    """Return whether a member of a class is a value: an attribute or a property."""
    return isinstance(member, griffe.Attribute) or (isinstance(member, griffe.Function) and is_property(member))


def is_property(found: Any) -> bool:
    """Return whether a member is read like a value."""
    return isinstance(found, griffe.Attribute) or bool({"property", "cached"} & found.labels)


def has_fields(found: griffe.Class) -> bool:
    """Return whether the attributes of a class are its values: of a named tuple, a data class or a pydantic model."""
    bases = [str(base) for each in lineage(found) for base in each.bases]
    return any("dataclass" in each.labels or "dataclass" in str(each.decorators) for each in lineage(found)) or bool(
        {"NamedTuple", "BaseModel", "TypedDict"} & {base.partition("[")[0] for base in bases}
    )
