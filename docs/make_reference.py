"""Write the generated parts of `docs/reference`: names, commands, errors, span types and columns, as the code has them.

    python docs/make_reference.py           # write them
    python docs/make_reference.py --check   # only name the pages that would change

A page is written by hand but for what stands between `<!-- generated: KIND WORD … -->` and `<!-- end -->`:

    names       functions, classes with their methods, methods; `PATH()` also has the constructor, `PATH=TITLE` a title
    brief       classes without their methods
    command     a command of the command line
    filters     the options that select runs
    errors      all errors
    types       the built-in span types
    columns     the columns of a table
    indexes     the indexes of all tables
    limits      constants, with their docstrings
    index       the names and commands of all pages

Signatures, types and docstrings are read from the source, by griffe. A name is found where it is imported from.
"""

import importlib
import re
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from inspect import cleandoc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import click
import griffe
from documented import (
    arguments,
    at,
    canonical,
    constructor,
    described,
    docstring,
    is_property,
    items,
    members,
    methods,
    module,
    signature,
    type_of,
    unnamed,
)

from agentspan import errors
from agentspan.analysis.filter_words import NAMES
from agentspan.cli import main as agentspan_command
from agentspan.cli.app import HELPS, WAYS, called
from agentspan.cli.examples import EXAMPLES
from agentspan.model import rows
from agentspan.schemas.builtin import BUILT_IN
from agentspan.storage.sqlite import SQLiteStorage
from agentspan.storage.sqlite.migrations import table_of

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "reference"
PART = re.compile(r"(<!-- generated: (\w+)((?: [^\s>]+)*) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


class Word(NamedTuple):
    """A name in a marker: its path, the title of its heading, whether its constructor is shown."""

    path: str
    title: str
    is_made: bool

    @classmethod
    def of(cls, text: str) -> "Word":
        """Return the word of a text such as `agentspan.Tracer()`, or `agentspan.api.facade.Agents=Database.agents`."""
        path, _, title = text.partition("=")
        is_made, path = path.endswith("()"), path.removesuffix("()")
        found = at(path)
        own = path if isinstance(found, griffe.Function) else ".".join(path.split(".")[-1:])
        if isinstance(found, griffe.Function) and isinstance(found.parent, griffe.Class):
            own = ".".join(path.split(".")[-2:])
        return cls(path, title or own, is_made)


def code(text: str) -> str:
    """Return text as code in a cell of a table."""
    if "|" in text:
        text = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
        return f"<code>{text}</code>"
    return f"`{text}`"


class Reference:
    """All pages, and the names on them.

    Attributes:
        pages: the text of each page by its name.
        places: title of a heading → its address.
        classes: path of a class → the address of its heading.
    """

    def __init__(self) -> None:
        self.pages = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
        self.places = dict.fromkeys(module("agentspan.errors").classes, "errors.md")
        self.classes: dict[str, str] = {}
        self.listed: dict[str, list[tuple[str, str, str]]] = {}
        self.page = ""
        for page, text in self.pages.items():
            for part in PART.finditer(text):
                for word in part[3].split():
                    self._place(page, part[2], word)
        self.listed["errors.md"] = [
            (name, "errors.md", first_sentence(docstring(found)[0]))
            for name, found in module("agentspan.errors").classes.items()
        ]

    def _place(self, page: str, kind: str, word: str) -> None:
        listed = self.listed.setdefault(page, [])
        if kind == "command":
            title = call_of(word)
            listed.append((title, f"{page}#{anchor(title)}", HELPS[word]))
        if kind not in ("names", "brief"):
            return
        name = Word.of(word)
        address = f"{page}#{anchor(name.title)}"
        listed.append((name.title, address, first_sentence(docstring(at(name.path))[0])))
        self.places[name.title] = address
        if isinstance(at(name.path), griffe.Class):
            self.places.setdefault(at(name.path).name, address)
            self.classes[at(name.path).path] = address
            for method in methods(at(name.path)) if kind == "names" else ():
                title = f"{short(name.title)}.{method.name}"
                self.places[title] = f"{page}#{anchor(title)}"

    def written(self, page: str) -> str:
        """Return a page with its generated parts."""
        self.page = page

        def part(found: re.Match[str]) -> str:
            made = "\n".join(getattr(self, f"_{found[2]}")(*found[3].split()))
            return f"{found[1]}\n{made.strip()}\n\n{found[5]}"

        return PART.sub(part, self.pages[page])

    def link(self, text: str, of: str = "") -> str:
        """Return a text in which names of other headings are links.

        Args:
            of: the title of the class whose methods the text may name alone, after `see`.
        """
        parts = re.split(r"(\[?`[^`]+`(?:\]\([^)]*\))?)", text)
        for i, part in enumerate(parts):
            name = part.strip("`")
            if i % 2:
                after_see = parts[i - 1].endswith("see ") or parts[i - 1].endswith("(see ")
                place = self.places.get(name) or (self.places.get(f"{of}.{name}") if after_see else None)
                is_name = name[:1].isupper() or "." in name or after_see
                parts[i] = f"[`{name}`]({self._from_here(place)})" if place and is_name and part[0] == "`" else part
            else:
                parts[i] = re.sub(r"\bagentspan\.\w+(?:\.\w+)?\b(?![/])", self._bare, part)
        return "".join(parts)

    def _bare(self, found: re.Match[str]) -> str:
        place = self.places.get(found[0])
        return f"[`{found[0]}`]({self._from_here(place)})" if place else found[0]

    def undescribed(self) -> list[str]:
        """Return the parameters and members that no docstring names."""
        wanting = []
        for text in self.pages.values():
            for part in PART.finditer(text):
                for word in part[3].split() if part[2] in ("names", "brief") else ():
                    found = at(Word.of(word).path)
                    is_class = isinstance(found, griffe.Class)
                    functions = methods(found) if is_class and part[2] == "names" else [] if is_class else [found]
                    wanting += [f"{each.path}({name})" for each in functions for name in unnamed(each)]
                    rows = members(found) if is_class else []
                    if any(about for _, _, about in rows):  # else the text of the class says it
                        wanting += [f"{found.path}.{name}" for name, _, about in rows if not about]
        return wanting

    def _from_here(self, place: str) -> str:
        return place.removeprefix(self.page) if place.startswith(f"{self.page}#") else place

    def _type(self, annotation: Any, within: Any) -> str:
        """Return a type for a cell; the name of a documented class in it is a link."""
        if annotation is None:
            return ""
        for word in re.findall(r"\w+", str(annotation)):
            place = self.classes.get(canonical(word, within))
            if place:
                return f"[{code(type_of(annotation, within))}]({self._from_here(place)})"
        return code(type_of(annotation, within))

    def _types_of(self, annotations: list[Any], within: Any) -> str:
        return ", ".join(dict.fromkeys(filter(None, (self._type(each, within) for each in annotations))))

    def _prose(self, text: str, of: str) -> Iterator[str]:
        """Yield the paragraphs of a docstring; what is indented is an example."""
        for paragraph in re.split(r"\n\n+", text):
            if paragraph.startswith("    "):
                lines = [line.removeprefix("    ") for line in paragraph.splitlines()]
                yield from ("```py", *lines, "```", "")
            else:
                yield from (self.link(" ".join(paragraph.split()), of), "")

    def _sections(self, found: Any, of: str) -> Iterator[str]:
        """Yield the tables of arguments and errors, what is returned, and the examples of a docstring."""
        _, sections = docstring(found)
        yield from table(
            ("argument", ""), [(names(name), self.link(text, of)) for name, text in arguments(found).items()]
        )
        if given := sections.get("Returns") or sections.get("Yields"):
            yield from (
                f"{'Returns' if 'Returns' in sections else 'Gives'}: {self.link(' '.join(given.split()), of)}",
                "",
            )
        elif isinstance(found, griffe.Function) and "](" in (type_ := self._type(found.returns, found)):
            yield from (f"Returns {type_}.", "")
        raised = items(sections.get("Raises", ""))
        yield from table(
            ("raises", "when"), [(self.link(names(name)), self.link(text, of)) for name, text in raised.items()]
        )
        if "Examples" in sections:
            lines = [line.removeprefix("    ") for line in sections["Examples"].rstrip().splitlines()]
            yield from ("```python", *lines, "```", "")

    def _names(self, *words: str, level: int = 3, methods_too: bool = True) -> Iterator[str]:
        for word in map(Word.of, words):
            found = at(word.path)
            if isinstance(found, griffe.Class):
                yield from self._class(found, word, level, methods_too)
            else:
                yield from self._function(found, word.title, level)

    def _brief(self, *words: str) -> Iterator[str]:
        return self._names(*words, methods_too=False)

    def _function(self, found: griffe.Function, title: str, level: int) -> Iterator[str]:
        of = title.rpartition(".")[0]
        yield from (f"{'#' * level} `{title}`", "")
        if is_property(found):
            yield from self._prose(docstring(found)[0], of)
            return
        yield from ("```py", *signature(found, short(title)), "```", "")
        yield from self._prose(docstring(found)[0], of)
        yield from self._sections(found, of)

    def _class(self, found: griffe.Class, word: Word, level: int, methods_too: bool) -> Iterator[str]:
        of = short(word.title)
        yield from (f"{'#' * level} `{word.title}`", "")
        if word.is_made:
            yield from ("```py", *constructor(found, word.title), "```", "")
        yield from self._prose(docstring(found)[0], of)
        yield from self._sections(found, of)
        rows = [
            (names(name), self._types_of(types, found), self.link(text, of)) for name, types, text in members(found)
        ]
        yield from table(("member", "type", ""), rows)
        if methods_too:
            for method in methods(found):
                yield from self._function(method, f"{of}.{method.name}", level + 1)

    def _command(self, name: str) -> Iterator[str]:
        command = command_of(name)
        context = click.Context(command, info_name=call_of(name), **command.context_settings)
        yield from (
            f"### `{call_of(name)}`",
            "",
            "```sh",
            " ".join(("agentspan", *called(name).split(), *command.collect_usage_pieces(context))),
            "```",
            "",
        )
        yield from self._prose(plain(cleandoc(command.help or "")), "")
        listed, is_filtered = [], "git_commit" in [each.name for each in command.params]
        for option in command.params:
            if (
                not isinstance(option, click.Option)
                or option.hidden
                or option.name in ("help", "db", "as_json", "json")
            ):
                continue
            if option.name != "utc" and not (is_filtered and option.name in NAMES):
                listed.append((shown(option), plain(about(option))))
        ways = [
            f"`{each}`"
            for each in ("--utc", "--db PATH", "--json")
            if any(each.split()[0] in option.opts for option in command.params)
        ]
        if is_filtered:
            ways = ["the [filters](#filters-of-runs)", *(way for way in ways if way != "`--utc`")]
        yield from table(("option", ""), listed)
        if ways:
            yield from (f"{'Also' if listed else 'Options:'} {', '.join(ways)}.", "")
        if name in EXAMPLES:
            yield from ("```sh", *(f"agentspan {each}  # {what}" for what, each in EXAMPLES[name]), "```", "")

    def _filters(self) -> Iterator[str]:
        known = described(at("agentspan.Database.runs"), "Args")
        rows = []
        for option in command_of("runs").params:
            if (
                isinstance(option, click.Option)
                and option.name in known
                and option.name not in ("sort", "limit", "offset")
            ):
                rows.append((shown(option), f"`{option.name}`", self.link(known[option.name])))
        yield from table(("option", "name", ""), rows)

    def _errors(self) -> Iterator[str]:
        rows = []
        for name, found in module("agentspan.errors").classes.items():
            cls = getattr(errors, name)
            also = ",".join(base.__name__ for base in cls.__bases__ if base is not errors.AgentspanError)
            fields = [f" `{field}`: {text}" for field, text in described(found, "Attributes").items()]
            text = " ".join(docstring(found)[0].split())
            api_code = names(getattr(cls, "code", ""))
            rows.append((f"`{name}`", text + "".join(fields), api_code, names(also)))
        yield from table(("class", "", "code", "also a"), rows)

    def _types(self) -> Iterator[str]:
        def fields(schema: dict[str, Any]) -> str:
            needed = schema.get("required", ())
            each = [
                f"`{name}`{chr(92) + '*' if name in needed else ''} {field.get('type', '')}".strip()
                for name, field in schema.get("properties", {}).items()
            ]
            return ", ".join(each) or "any"

        rows = [
            (
                f"`{each.name}`",
                each.title,
                fields(each.payload),
                fields(each.result),
                f"`{each.label}`" if each.label else "–",
            )
            for each in BUILT_IN
        ]
        yield from table(("type", "title", "payload", "result payload", "label"), rows)

    def _columns(self, name: str) -> Iterator[str]:
        found = module("agentspan.model.rows").classes[ROWS[name].__name__]
        known = described(found, "Attributes")
        (columns,) = stored(f"""select name, type, "notnull" or pk from pragma_table_info('{name}')""")
        json = {name for name, each in found.members.items() if "Json" in str(getattr(each, "annotation", ""))}
        yield from self._prose(docstring(found)[0], "")
        rows = [
            (
                f"`{field}`",
                f"{'JSON' if field in json else type_}{'' if is_needed else ' ?'}",
                self.link(known.get(field) or COLUMNS[field]),
            )
            for field, type_, is_needed in columns
        ]
        yield from table(("column", "type", ""), rows)

    def _indexes(self) -> Iterator[str]:
        (found,) = stored(
            """select i.name, i."unique", group_concat(c.name) from sqlite_master t, pragma_index_list(t.name) i,
            pragma_index_info(i.name) c where t.type = 'table' and i.origin = 'c'
            group by i.name order by t.rowid, i.seq"""
        )
        rows = [(f"`{name}`{' (unique)' * unique}", names(columns)) for name, unique, columns in found]
        yield from table(("index", "columns"), rows)

    def _limits(self, *words: str) -> Iterator[str]:
        rows = []
        for word in words:
            name, _, constant = word.rpartition(".")
            found = module(name).members[constant]
            assert found.docstring, f"{word} has no docstring"
            value = getattr(importlib.import_module(name), constant)
            rows.append((f"{value:,}", " ".join(found.docstring.value.split())))
        yield from table(("limit", ""), rows)

    def _index(self) -> Iterator[str]:
        for page in dict.fromkeys(re.findall(r"^\| \[.*?\]\((\w.*?\.md)\)", self.pages["README.md"], re.MULTILINE)):
            names = self.listed.get(page, [])
            title = self.pages[page].partition("\n")[0].removeprefix("# ")
            rows = [(f"[`{name}`]({address})", self.link(text)) for name, address, text in names]
            if rows:
                yield from (f"### {title}", "")
                yield from table(("name", ""), rows)


COLUMNS = {"id": "primary key.", "inserted_at": "when the row was made.", "updated_at": "when it last changed."}
"""Columns that mean the same in all tables."""
ROWS = {table_of(type_): row for type_, row in rows.ROWS.items()}
"""The class of the rows of each table that has one."""


@cache
def stored(*queries: str) -> list[list[tuple[Any, ...]]]:
    """Return the rows that queries find in a new file."""
    with TemporaryDirectory() as folder:
        SQLiteStorage(Path(folder, "new.db")).close()
        connection = sqlite3.connect(Path(folder, "new.db"))
        rows = [connection.execute(query).fetchall() for query in queries]
        connection.close()
    return rows


def anchor(title: str) -> str:
    """Return the anchor of a heading, as GitHub and the site make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def short(title: str) -> str:
    """Return the last part of a title: `agent_spans` of `Database.agent_spans`, `run` of `agentspan.run`."""
    return title.rpartition(".")[2]


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring."""
    return re.split(r"(?<=\.) (?=[A-Z`@])", " ".join(text.partition("\n\n")[0].split()))[0]


def plain(text: str) -> str:
    """Return a help text in which options and what is typed are code."""
    parts = re.split(r"(`[^`]+`)", text)
    code = re.compile(r"(?<![\w`'])(--?[a-z#][\w#-]*|\w+\*|\*|\w+@\w[\w.]*|\w+(?:>=|==)\w+)")
    return "".join(part if i % 2 else code.sub(r"`\1`", part) for i, part in enumerate(parts))


def names(text: str) -> str:
    """Return names with commas between them as code."""
    return ", ".join(f"`{each.strip()}`" for each in text.split(",") if each)


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield a table; nothing without rows. A column without any text is left out."""
    kept = [i for i in range(len(head)) if any(row[i] for row in rows) or i == 0]
    if rows:
        yield f"| {' | '.join(head[i] for i in kept)} |"
        yield "|" + "---|" * len(kept)
        yield from (f"| {' | '.join(row[i] for i in kept)} |" for row in rows)
        yield ""


def command_of(name: str) -> click.Command:
    """Return a command of the command line."""
    found = agentspan_command.get_command(click.Context(agentspan_command), name)
    assert found is not None, name
    return found


def call_of(name: str) -> str:
    """Return the call of a command, without arguments, but with the shells of `setup`."""
    return " ".join(["agentspan", *WAYS.get(name, name).split(" ")[:2]]).strip()


def shown(option: click.Option) -> str:
    """Return the names of an option, and what follows it."""
    names = [f"`{each}`" for each in option.opts]
    if not option.is_flag:
        value = option.metavar or ("VALUE" if isinstance(option.type, click.Choice) else option.type.name.upper())
        names[-1] = f"`{option.opts[-1]} {value}`"
    return ", ".join(names)


def about(option: click.Option) -> str:
    """Return the help of an option, with its default, and whether it is required or may be repeated."""
    text = option.help or ""
    if isinstance(option.type, click.Choice) and not option.metavar:
        text += f" One of {', '.join(f'`{each}`' for each in option.type.choices)}."
    if option.show_default and not option.is_flag:
        text += f" Default: {option.default}."
    text += " Required." * option.required + " Repeatable." * (
        option.multiple and "several times" not in text and "epeatable" not in text
    )
    return text


def main(arguments: list[str]) -> int:
    """Write the pages; with `--check`, write nothing, and return 1 if one would change."""
    reference = Reference()
    changed = [page for page, text in reference.pages.items() if reference.written(page) != text]
    for page in [] if "--check" in arguments else changed:
        (FOLDER / page).write_text(reference.written(page), encoding="utf-8")
    for page in changed:
        sys.stdout.write(f"docs/reference/{page} {'is not up to date' if '--check' in arguments else 'is written'}\n")
    return 1 if changed and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
