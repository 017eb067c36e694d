"""The layers of the code: allowed imports, exported names, the cost of an import."""

import ast
import importlib
import re
import subprocess
import sys
from collections import namedtuple
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

import agentspan
from agentspan import disk
from tests.project.measures import taken_by

PACKAGE = Path(agentspan.__file__).parent

# A file imports from its own layer or from layers above it in this list.
LAYERS = [
    {
        "blobs",
        "errors",
        "ids",
        "clock",
        "deprecation",
        "disk",
        "files",
        "host",
        "installing",
        "text",
        "jsontext",
        "tuning",
    },
    {"model"},
    {"schemas"},
    {"storage"},
    {"journal"},
    {"api"},
    {"maintenance"},
    {"recording"},
    {"arriving"},
    {"otel"},
    {"analysis"},
    {"judging"},
    {"answers"},
    {"viewer"},
    {"database"},
    {"ground"},
    {"evaluation"},
    {"sessions"},
    {"serve"},
    {"cli"},
    {"mcp"},
    {"testing"},
]
ABOVE_ALL = {"__init__", "__main__"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    """Return the parsed source of a file; nobody changes it."""
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return all nodes of a file."""
    return list(ast.walk(tree_of(path)))


def is_name(node: ast.AST, name: str) -> bool:
    """Return whether an expression is this name."""
    return isinstance(node, ast.Name) and node.id == name


def layer_of(module: str) -> int:
    """Return the number of a module's layer, from the first part of its name below the package."""
    return next(number for number, names in enumerate(LAYERS) if module in names)


def imports_of(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, at its top or in a function, except for types only."""
    nodes = nodes_of(path)
    of_types = {
        id(inner)
        for node in nodes
        if isinstance(node, ast.If) and is_name(node.test, "TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found = set()
    for node in nodes:
        if id(node) in of_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.split(".")[0] == "agentspan":
            rest = node.module.split(".")[1:]
            found |= {rest[0]} if rest else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("agentspan.")}
    return found - {"__version__"}


def test_a_file_imports_only_from_layers_above_it() -> None:
    below = []
    for path in MODULES:
        place = path.relative_to(PACKAGE)
        first = place.parts[0].removesuffix(".py")
        if first not in ABOVE_ALL:
            own = layer_of(first)
            below += [f"{place} imports {name}" for name in imports_of(path) if layer_of(name) > own]
    assert below == []


def test_recording_uses_no_operation_by_id() -> None:
    users = [path.name for path in (PACKAGE / "recording").rglob("*.py") if "api" in imports_of(path)]
    assert users == [], "recording makes its units with the model"


def test_mappings_of_attributes_are_pure() -> None:
    """A mapping imports leaves, the model, schemas, and its neighbours."""
    allowed = set().union(*LAYERS[:3])
    for path in (PACKAGE / "otel" / "mapping").glob("*.py"):
        assert imports_of(path) - allowed <= {"otel"}, path
        inside = {name for name in modules_imported_by(module_of(path)) if name.startswith("agentspan.otel.")}
        assert {name for name in inside if not name.startswith("agentspan.otel.mapping")} <= {"agentspan.otel.span"}


ATTRIBUTE = re.compile(
    r"(gen_ai|openinference|traceloop|langsmith|langfuse|mlflow|logfire|pydantic_ai|llm|mcp|exception)\.[a-z_]+"
)


@pytest.mark.full
def test_names_of_attributes_stand_in_their_mapping_only() -> None:
    """`schemas/aliases.py` has names of other packages' payloads, none of OpenTelemetry's."""
    for path in MODULES:
        if path.parent == PACKAGE / "otel" / "mapping":
            continue
        texts = [node.value for node in nodes_of(path) if isinstance(node, ast.Constant)]
        assert [text for text in texts if isinstance(text, str) and ATTRIBUTE.fullmatch(text)] == [], path


def module_of(path: Path) -> str:
    """The dotted name of a file's module."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, list[ast.AST]]:
    """Return the nodes of all modules of the package, by the name of the module."""
    return {module_of(path): nodes_of(path) for path in MODULES}


def modules_named_by(module: str) -> set[str]:
    """The modules of the package that a module names in a text: in `import_module`, or in a table of what to import.

    Of a text with values in it, such as `f"agentspan.cli.{name}"`: all modules whose names begin like it. The name of a
    package, such as that of a group of entry points, imports nothing.
    """
    texts = [node.value for node in modules()[module] if isinstance(node, ast.Constant)]
    begun = [node.values[0] for node in modules()[module] if isinstance(node, ast.JoinedStr) and node.values]
    heads = [str(node.value) for node in begun if isinstance(node, ast.Constant)]
    whole = {module_of(path) for path in MODULES if path.name != "__init__.py"}
    below = {name for head in heads if head.count(".") > 1 for name in whole if name.startswith(head)}
    return (whole.intersection(text for text in texts if isinstance(text, str)) | below) - {module}


@cache
def modules_imported_by(module: str) -> set[str]:
    """The modules of the package that a module imports: at its top, inside functions, by name, and only for types."""
    found = modules_named_by(module)
    for node in modules()[module]:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in modules() else node.module for name in names}
    return (found & modules().keys()) - {module}


def circle_in(imports: Mapping[str, set[str]]) -> list[str]:
    """Return a circle of modules, each of which imports the next; none if there is no circle."""
    above = dict(imports)
    while free := {module for module, imported in above.items() if not imported & above.keys()}:
        above = {module: imported for module, imported in above.items() if module not in free}
    way = [min(above)] if above else []
    while way and way[-1] not in way[:-1]:
        way.append(min(above[way[-1]] & above.keys()))
    return way[way.index(way[-1]) :] if way else []


def test_a_circle_is_found_and_a_way_to_it_is_left_out() -> None:
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": {"b", "e"}, "e": set()}) == ["b", "c", "d", "b"]
    assert circle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.full
def test_no_modules_import_each_other_in_a_circle() -> None:
    found = circle_in({module: modules_imported_by(module) for module in modules() if module != "agentspan"})
    assert found == [], (
        f"{' imports '.join(found)}: pass what the lower module needs as an argument, or move what both need into a "
        "module of its own; an import in a function, or by name, leaves the circle"
    )


BY_NAME = {
    "journal": {"otel"},  # what reads the texts of its spans
    "otel": {"sessions"},  # the processor of the one SDK that is decoded there
    "serve": {"mcp"},
    "cli": {"mcp"},
}
"""The later layers of which a layer imports a module by its name."""


def test_a_module_of_a_later_layer_is_imported_by_name_in_four_places() -> None:
    found: dict[str, set[str]] = {}
    for module in modules():
        own, *_ = [*module.split(".")[1:], "__init__"]
        for name in modules_named_by(module):
            other = name.split(".")[1]
            if own not in ABOVE_ALL and layer_of(other) > layer_of(own):
                found.setdefault(own, set()).add(other)
    assert found == BY_NAME, "pass what is needed as an argument"


LISTS = {
    "sessions": {"agentspan.ground": 60, "agentspan.arriving": 60},
    "evaluation": {"agentspan.ground": 54, "agentspan.judging": 54},
}
"""The modules from which a wing takes the names of the rest of the package, and the most that it takes of each."""
LOOKED_UP = {"agentspan.otel.processor"}
"""Modules that a wing asks only if the program has imported them."""


def beside_lists(taken: Mapping[str, Mapping[str, str]], lists: Mapping[str, int]) -> list[str]:
    """Return a sentence for each name that is imported beside its lists, and for each list that it takes too much of.

    Args:
        taken: the names that the wing imports: by module, each with a file.
        lists: the modules that it may import, and the most names of each.
    """
    to_do = f"import it from {' or '.join(lists)}; add it there if it is missing, with a line that says what it is"
    beside = [
        f"{file} imports {name} from {module}: {to_do}"
        for module, names in taken.items()
        for name, file in names.items()
        if module not in lists
    ]
    most = [
        f"{len(taken[module])} names are taken of {module}, and {limit} may be: move what is used beside them to where "
        "it is shared"
        for module, limit in lists.items()
        if len(taken.get(module, ())) > limit
    ]
    return beside + most


def test_a_name_that_a_wing_imports_beside_its_lists_is_named_with_what_to_do() -> None:
    taken = {"agentspan.ground": {"Unit": "sessions/a.py"}, "agentspan.model.rows": {"AgentRow": "sessions/b.py"}}
    assert beside_lists(taken, {"agentspan.ground": 1}) == [
        "sessions/b.py imports AgentRow from agentspan.model.rows: import it from agentspan.ground; "
        "add it there if it is missing, with a line that says what it is"
    ]
    assert beside_lists({"agentspan.ground": {"Unit": "a.py", "Put": "a.py"}}, {"agentspan.ground": 1}) == [
        "2 names are taken of agentspan.ground, and 1 may be: move what is used beside them to where it is shared"
    ]


@pytest.mark.parametrize("wing", LISTS)
def test_a_wing_takes_names_of_its_lists_and_no_others(wing: str) -> None:
    assert beside_lists(taken_by(wing), LISTS[wing]) == []
    named = {name for path in (PACKAGE / wing).rglob("*.py") for name in modules_named_by(module_of(path))}
    assert {name for name in named if not name.startswith(f"agentspan.{wing}.")} <= LOOKED_UP


@pytest.mark.parametrize("name", sorted({name for lists in LISTS.values() for name in lists}))
def test_a_list_has_each_name_in_its_imports_with_what_it_is_and_in_its_table(name: str) -> None:
    """What it is stands behind the name in a comment. A wing takes the name, else it goes."""
    module = importlib.import_module(name)
    path = Path(str(module.__file__))
    lines = path.read_text().splitlines()
    imports = [each for each in nodes_of(path) if isinstance(each, ast.ImportFrom) and each.module != "typing"]
    listed = {(str(each.module), alias.name): alias for each in imports for alias in each.names if each.col_offset}
    assert [of for of, alias in listed.items() if " # " not in lines[alias.lineno - 1]] == []
    (table,) = [each for each in nodes_of(path) if isinstance(each, ast.Dict)]
    in_table = {(source, of) for source, names in ast.literal_eval(table).items() for of in names.split()}
    assert in_table == set(listed)
    for source, of in in_table:
        owner = importlib.import_module(source if source != "agentspan" else f"{source}.{of}")
        assert getattr(module, of) is (owner if source == "agentspan" else getattr(owner, of)), of
    used = {of for wing, lists in LISTS.items() if name in lists for of in taken_by(wing)[name]}
    assert {of for _, of in in_table} - used == set()


def private(name: str) -> bool:
    """Whether a name is private: it begins with one underscore, and is not a public method of named tuples."""
    return name.startswith("_") and not name.startswith("__") and not hasattr(namedtuple("_", ()), name)


def private_names_of(nodes: list[ast.AST]) -> set[str]:
    """The private names that a module defines: of functions, classes, variables, and attributes of its classes."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_name(node.value, "self"):
            found.add(node.attr)
    return {name for name in found if private(name)}


def foreign_names_in(module: str, names: dict[str, set[str]]) -> set[str]:
    """The private names of other modules that a module uses: by import, of a module, or of an object."""
    own = names[module]
    aliases = {name.rpartition(".")[2] for name in modules_imported_by(module)}
    found: set[str] = set()
    for node in modules()[module]:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentspan"):
            found |= {alias.name for alias in node.names if private(alias.name)}
        elif isinstance(node, ast.Attribute) and private(node.attr):
            is_of_a_module = isinstance(node.value, ast.Name) and node.value.id in aliases
            is_foreign = is_of_a_module or node.attr not in own
            if is_foreign and any(node.attr in names[other] for other in names if other != module):
                found.add(ast.unparse(node))
    return found


@pytest.mark.full
def test_no_module_uses_a_private_name_of_another_one() -> None:
    names = {module: private_names_of(nodes) for module, nodes in modules().items()}
    used = {module: foreign_names_in(module, names) for module in modules()}
    assert {module: sorted(found) for module, found in used.items() if found} == {}


def test_the_model_does_no_io_and_has_no_clock() -> None:
    allowed = {
        "collections",
        "dataclasses",
        "datetime",
        "functools",
        "hashlib",
        "json",
        "math",
        "typing",
        "agentspan",
        "pydantic",
    }
    for path in (PACKAGE / "model").glob("*.py"):
        nodes = nodes_of(path)
        imported = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        imported |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
        assert {module.split(".")[0] for module in imported} <= allowed, path
        called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        assert not {name for name in called if name.startswith(("clock.now", "clock.mono", "time.", "open"))}, path


def test_the_core_imports_no_network_module() -> None:
    for path in MODULES:
        if path.parent.name == "serve" or path.name == "forwarding.py":  # what `forward` sends with
            continue
        if path.name in ("claude_store.py", "first_run.py"):  # asyncio alone: it awaits what programs pass
            continue
        for node in nodes_of(path):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                if name == "urllib.parse":  # which only reads and writes addresses
                    continue
                assert name.split(".")[0] not in {"socket", "http", "urllib", "ssl", "asyncio", "requests", "httpx"}, (
                    path
                )


def test_all_imports_are_exported() -> None:
    assert sorted(agentspan.__all__) == sorted(set(agentspan.__all__))
    for name in agentspan.__all__:
        assert getattr(agentspan, name) is not None
    public = {name for name in vars(agentspan) if not name.startswith("_")}
    modules = {name for name in public if type(getattr(agentspan, name)).__name__ == "module"}
    typing = {"TYPE_CHECKING", "Any"}
    assert public - modules - typing == {name for name in agentspan.__all__ if not name.startswith("_")}
    assert dir(agentspan) == sorted(agentspan.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        agentspan.nonsense  # noqa: B018


def test_every_error_of_the_tree_is_exported_and_drawn() -> None:
    from agentspan import errors

    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert classes <= set(agentspan.__all__)
    assert errors.__doc__ is not None
    for name in classes:
        assert name in errors.__doc__, name
        assert getattr(getattr(errors, name), "code", "") in errors.__doc__


@pytest.mark.full
def test_every_public_name_is_documented() -> None:
    missing = []
    for path in MODULES:
        tree = tree_of(path)
        assert ast.get_docstring(tree), path
        for node in tree.body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                continue
            overloaded = any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
            if not node.name.startswith("_") and not ast.get_docstring(node) and not overloaded:
                missing.append(f"{path.name}:{node.name}")
    assert missing == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, agentspan\n"
        "heavy = ('asyncio', 'sqlite_utils', 'jsonschema', 'sqlite3', 'chevron', 'click', 'pydantic.main', 'psycopg')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import site; site.main()\n{code}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_package_is_typed_and_has_one_version() -> None:
    assert (PACKAGE / "py.typed").exists()
    changelog = (PACKAGE.parent / "CHANGELOG.md").read_text() if (PACKAGE.parent / "CHANGELOG.md").exists() else ""
    assert not changelog or f"[{agentspan.__version__}]" in changelog or "[Unreleased]" in changelog


@pytest.mark.full
def test_no_test_imports_from_another_test() -> None:
    of_a_test = re.compile(r"^ *from (?:[\w.]*\.)?test_\w+ import", re.MULTILINE)
    paths = (PACKAGE.parent / "tests").rglob("*.py")
    found = [f"{path.name}: {each[0]}" for path in paths for each in of_a_test.finditer(path.read_text("utf-8"))]
    assert found == [], "move what they share into a module of its own"


def test_no_test_patches_a_constant() -> None:
    """It would bind the test to a file: sizes and times are a value that is passed (agentspan/tuning.py)."""
    patched = re.compile(
        r"""setattr\(\s*([^,()"]+,\s*")?"?([\w.]+\.)?_?[A-Z][A-Z_0-9]+"|^\s*\w+\.[A-Z_0-9]{3,} = """, re.MULTILINE
    )
    found = [
        f"{path.name}: {match[0].strip()}"
        for path in (PACKAGE.parent / "tests").rglob("*.py")
        for match in patched.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []


BESIDE_THE_DOOR = {*disk.DOORS, "mmap", "remove", "sync", "truncate", "fchmod", "posix_fadvise", "perf_counter"}
OF_PATHS = {"is_dir", "is_file", "read_bytes", "read_text", "touch", "write_bytes", "write_text"}


def beside_the_door(tree: ast.Module) -> list[str]:
    """Return each name by which a source reaches a file or a clock without `agentspan.disk`."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(ast.Name("os" | "time" | "fcntl" | "mmap"), name) if name in BESIDE_THE_DOOR:
                found.append(name)
            case ast.Attribute(ast.Attribute(ast.Name("os"), "path"), name) if name in BESIDE_THE_DOOR:
                found.append(name)
            case ast.Call(ast.Name("open" as name)):
                found.append(name)
            case ast.Call(ast.Attribute(ast.Name(owner), name)) if owner != "disk" and name in {*OF_PATHS, "exists"}:
                found.append(name)
    return found


def test_the_journal_and_the_guards_of_a_file_reach_the_disk_by_its_door() -> None:
    rooms = (PACKAGE / "journal", PACKAGE / "storage" / "sqlite", PACKAGE / "recording" / "sinks")
    paths = [PACKAGE / "files.py", PACKAGE / "host.py", *(path for room in rooms for path in room.rglob("*.py"))]
    found = {path.name: names for path in paths if (names := beside_the_door(tree_of(path)))}
    assert found == {"host.py": ["mmap", "mmap"]}, "call it as disk.…"  # a page of memory, without a file
    of_one_page = "os.open(p); time.sleep(1); os.path.exists(p); open(p); p.read_text(); mmap.mmap(f, 1); disk.open(p)"
    assert beside_the_door(ast.parse(of_one_page)) == ["open", "read_text", "open", "sleep", "exists", "mmap"]


def test_the_door_is_the_functions_of_the_system() -> None:
    modules = {"_io", "fcntl", "genericpath", "io", "mmap", "os", "posix", "posixpath", "time"}
    assert {getattr(disk, name).__module__ for name in disk.DOORS if name != "sleep"} <= modules
