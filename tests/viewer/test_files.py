"""The page's own files, and a run exported as one of them."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import agentspan
from agentspan.database import Database
from agentspan.errors import InvalidValue, NotFound
from agentspan.storage.protocol import Storage
from agentspan.viewer import export

STATIC = Path(agentspan.__file__).parent / "viewer" / "static"
MAX_BYTES = 100_000
"""Of what a browser loads first, compressed as it is sent: script, style sheet and markup."""
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!--<script>",
    '"><img src=x onerror=alert(1)>',
    "\u2028\u2029 \ud800 \u202e",
    "]]>&lt;&amp;",
]


class Reader(HTMLParser):
    """Reads a page as a browser does: where its script elements begin and end."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.tags: list[str] = []
        self._open: dict[str, str | None] | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)


def test_what_a_browser_loads_first_is_small() -> None:
    assert sum(len(export.packed(text)) for text in (export.script(), export.style(), export.shell())) < MAX_BYTES


def test_the_script_has_no_comments_of_the_modules() -> None:
    assert not re.search(r"^\s*(?:/\*\*(?!.*\*/ *\S)|\*)", export.script(), re.MULTILINE)
    assert len(export.script()) < 0.8 * sum(len(export.text(f"{name}.js")) for name in export.modules())


def test_every_module_is_part_of_the_script() -> None:
    assert {path.stem for path in STATIC.glob("*.js")} == set(export.modules())


def test_modules_import_what_the_others_export_and_come_after_them() -> None:
    exported: dict[str, set[str]] = {}
    for name in export.modules():
        source = export.text(f"{name}.js")
        for names, module in re.findall(r"^import \{ ([^}]*) \} from \"\./(\w+)\.js\";$", source, re.MULTILINE):
            assert set(names.split(", ")) <= exported[module], name
        for module in re.findall(r"^import \* as \w+ from \"\./(\w+)\.js\";$", source, re.MULTILINE):
            assert module in exported
        exported[name] = set(re.findall(r"^export (?:async )?(?:function|const|class) (\w+)", source, re.MULTILINE))
    names = [name for found in exported.values() for name in found]
    assert len(names) == len(set(names))


def test_the_script_has_neither_imports_nor_exports_left() -> None:
    assert not re.search(r"^\s*(import|export)\b", export.script(), re.MULTILINE)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
def test_the_script_parses(tmp_path: Path) -> None:
    (tmp_path / "all.mjs").write_text(export.script(), encoding="utf-8")
    subprocess.run(["node", "--check", str(tmp_path / "all.mjs")], check=True, capture_output=True)


def test_the_script_makes_no_markup_of_text() -> None:
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser", "srcdoc"):
        assert forbidden not in export.script()


def test_the_script_can_stand_in_a_page() -> None:
    assert "</script" not in export.script().lower()
    assert "<!--" not in export.script()
    assert "</style" not in export.style().lower()


def test_nothing_is_loaded_from_elsewhere() -> None:
    for text in (export.script(), export.style(), export.shell()):
        addresses = set(re.findall(r"https?://[^\s'\")]+", text))
        assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_data_in_a_page_stays_data(text: str) -> None:
    embedded = export.embedded({"a": text, text: [text]})
    assert json.loads(embedded) == {"a": text, text: [text]}
    assert embedded.isascii()
    assert not set("<>&") & set(embedded)


def recorded(db: Database, text: str) -> str:
    run = db.agent_instances.register("a", agent_version={}, agent_schema_version={}, metadata={"a": text}).id
    db.agent_instances.start(run)
    span = db.agent_spans.create(run, "llm", "active", {"model": "m", "messages": [{"role": "user", "content": text}]})
    db.agent_spans.finish(span.id, "failed", {"error": {"type": "E", "message": text, "stacktrace": text}})
    return run


def test_an_export_is_one_page_with_the_runs_in_it(db: Database) -> None:
    first, second = recorded(db, "Hello there"), recorded(db, "Once more")
    page = Reader(export.html(db.storage, [first, second]))
    assert "link" not in page.tags
    blocks = {attributes["id"]: json.loads(text) for attributes, text in page.scripts if "id" in attributes}
    assert [run["id"] for run in blocks["data"]] == [first, second]
    for run in (first, second):
        assert set(blocks) >= {f"{name}-{run}" for name in ("spans", "details", "conversation", "stats")}
        assert len(blocks[f"spans-{run}"]["columns"]["id"]) == len(blocks[f"details-{run}"]) == 1
    assert sum(attributes.get("type") == "module" for attributes, _ in page.scripts) == 1


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_an_export_of_hostile_text_has_the_same_elements_as_any(db: Database, text: str) -> None:
    calm, hostile = (Reader(export.html(db.storage, [recorded(db, said)])) for said in ("calm", text))
    assert hostile.tags == calm.tags
    details = next(body for attributes, body in hostile.scripts if (attributes.get("id") or "").startswith("details-"))
    assert text in json.loads(json.loads(details)[0]["payload"])["messages"][0]["content"]


def test_an_export_allows_its_own_script_and_style_and_nothing_else(db: Database) -> None:
    page = export.html(db.storage, [recorded(db, "a")])
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert "default-src &#x27;none&#x27;" in policy[1]
    assert "unsafe" not in policy[1]
    script = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert script
    assert style
    for content in (script[1], style[1]):
        assert export.source_hash(content).strip("'") in policy[1]


def test_an_export_takes_what_a_person_types(db: Database) -> None:
    run = recorded(db, "a")
    assert export.html(db.storage, ["-"]) == export.html(db.storage, [run]) == export.html(db.storage, [run[:12]])


@pytest.mark.full
def test_an_export_needs_nothing_of_the_extra() -> None:
    code = (
        "import sys\nfor name in ('fastapi', 'starlette', 'jinja2', 'markupsafe'): sys.modules[name] = None\n"
        "import agentspan\nfrom agentspan.viewer import export, listing\n"
        "with agentspan.open(':memory:') as db:\n"
        "    run = db.agent_instances.register('a', agent_version={}, agent_schema_version={})\n"
        "    print(len(export.html(db.storage, [run.id])))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50_000


def test_an_export_of_nothing_is_refused(storage: Storage) -> None:
    with pytest.raises(InvalidValue):
        export.html(storage, [])
    with pytest.raises(NotFound):
        export.html(storage, ["-"])
