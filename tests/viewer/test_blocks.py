"""Each surface renders the same blocks: it escapes, cuts, and chooses columns by their roles."""

import click
import pytest

from agentspan.answers.blocks import FREE, At, Block, Cell, Column, Command, Heading, Sentence, Table
from agentspan.answers.markdown import markdown
from agentspan.cli.rendering import show
from agentspan.serve.viewer_html import templates
from agentspan.storage.memory import MemoryStorage
from agentspan.viewer import blocks
from agentspan.viewer.address import address_of
from agentspan.viewer.pages import PAGES

COLUMNS = (
    Column("", "name", is_number=False),
    Column("n", "number"),
    Column("spread", detail=1, is_hint=True),
    Column("more", detail=FREE),
)
BLOCKS: list[Block] = [
    Sentence("*it* <b>failed</b>", "verdict", "worse"),
    Table(COLUMNS, [[Cell("a|b\x1b", mark="!"), Cell("7", {"agent": "<a>"}, "2–9"), Cell("2–9"), Cell("x")]], 3),
    Command("why", ("why", "--agent", "<a>"), "failures", {"agent": "<a>"}),
]


def printed(shown: list[Block], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: int) -> str:
    monkeypatch.setenv("COLUMNS", str(at))
    show([shown], MemoryStorage(), whole="-n {} lists all")
    return capsys.readouterr().out


def page(shown: list[Block], query: list[tuple[str, str]] | None = None) -> str:
    return (
        templates()
        .get_template("blocks.html")
        .render(blocks=shown, page=PAGES[0], address=address_of(query or []), up="", is_first=False)
    )


def test_a_terminal_prints_blocks_without_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, head, row, more, command = printed(BLOCKS, monkeypatch, capsys, 60).splitlines()
    assert first == "*it* <b>failed</b>"
    assert head.split() == ["n", "spread"]
    assert row.split() == ["!", "a|b\ufffd", "7", "2–9"]
    assert more == "2 more rows; -n 3 lists all"
    assert command == "why: agentspan why --agent '<a>'"


def test_a_detail_is_left_out_where_the_table_has_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[Cell("a" * 30), Cell("1"), Cell("2" * 8), Cell()]]
    shown: list[Block] = [Table(COLUMNS, rows)]
    assert "22222222" in printed(shown, monkeypatch, capsys, 60)
    assert "22222222" not in printed(shown, monkeypatch, capsys, 42)


@pytest.mark.parametrize(("columns", "kept"), [(80, "abc"), (60, "ac"), (40, "c")])
def test_details_are_left_out_those_with_the_highest_number_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, kept: str
) -> None:
    heads = [Column("name", is_number=False), Column("aaa", detail=2), Column("bbb", detail=3), Column("ccc", detail=1)]
    shown = printed([Table(heads, [[Cell("n"), *[Cell("1" * 20)] * 3]])], monkeypatch, capsys, columns)
    assert shown.splitlines()[0].split() == ["name", *(3 * each for each in kept)]


def test_a_part_of_a_row_stands_below_it_and_what_is_left_out_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[Cell("tool"), Cell("4")], [Cell("look", depth=1), Cell("3")], [Cell("… and 9 more", is_rest=True), Cell()]]
    shown: list[Block] = [Table(COLUMNS[:2], rows)]
    show([shown], MemoryStorage(), whole="--all shows each")
    assert capsys.readouterr().out.splitlines()[2:] == ["  look  3", "… and 9 more; --all shows each"]
    assert blocks.text(shown).splitlines()[2:] == ["· look             3", "… and 9 more"]
    assert ">· look</th>" in page(shown)


def test_a_page_escapes_and_makes_links_of_runs() -> None:
    html = page(BLOCKS)
    assert "*it* &lt;b&gt;failed&lt;/b&gt;." in html
    assert "<b>failed" not in html
    assert '<a class="opens" href="./?agent=%3Ca%3E">7</a> <span class="hint">2–9</span>' in html
    assert 'data-name="more">x' in html
    assert 'data-name="spread"' not in html
    assert '<a href="failures?agent=%3Ca%3E">why</a>' in html
    assert "2 more rows" in html


def test_a_name_keeps_its_letter_and_a_heading_can_be_linked_to() -> None:
    html = page([Heading("What now"), Sentence("shop has one", starts_with_name=True), Sentence("so it is")])
    assert '<h2 id="what-now">' in html
    assert "shop has one." in html
    assert "So it is." in html


def test_a_step_is_named_as_each_surface_names_steps() -> None:
    table = Table([Column("", is_number=False), Column("step")], [[Cell("a"), Cell(at=At("run1", "span1", 4))]])
    assert '<a class="opens" href="runs/run1#span=span1">#4</a>' in page([table])
    assert "run1#4" in blocks.text([table])


def test_the_first_link_of_a_row_is_the_one_that_keys_open() -> None:
    row = [Cell("a"), Cell("b", {"agent": "b"}), Cell("c", {"agent": "c"})]
    html = page([Table([Column(each, is_number=False) for each in "abc"], [row, row])])
    assert html.count('<a class="opens" href="./?agent=b">') == html.count('<a href="./?agent=c">') == 2


def test_a_terminal_cuts_the_widest_text_and_neither_a_number_nor_an_id(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = [Column("took"), Column("step", is_number=False), Column("where", is_number=False, is_code=True)]
    shown: list[Block] = [Table(heads, [[Cell("1.0 s"), Cell("look " * 20), Cell("i" * 20)]])]
    row = printed(shown, monkeypatch, capsys, 60).splitlines()[1]
    assert row.startswith("1.0 s  look look")
    assert row.endswith(f"…  {'i' * 20}")


def test_markdown_escapes_and_marks_what_is_clear() -> None:
    assert [*markdown(BLOCKS)] == [
        r"**\*it\* \<b\>failed\</b\>**",
        "",
        "| | n |",
        "|---|---|",
        "| **a\\|b\ufffd** | 7 (2–9) |",
    ]


def test_a_notebook_shows_all_but_hints_as_columns_and_escapes() -> None:
    html = blocks.html(BLOCKS)
    assert "&lt;b&gt;failed" in html
    assert "7 (2–9)" in html
    assert "spread" not in html
    assert click.unstyle(blocks.text(BLOCKS)).splitlines()[-1] == "why: agentspan why --agent '<a>'"


VERSIONS = [Cell("1.0: 2", {"version": "1.0"}), Cell("2.0: 3", {"version": "2.0"})]
WAY = Command("more", ("why",), "failures", {"q": "1a2b"})
ENTRIES = Table(
    [
        Column("what failed", is_number=False),
        Column("latest", is_hint=True, phrase="latest: {}"),
        Column("failed", phrase="in {} failed"),
        Column("passed"),
        Column("versions", is_number=False, detail=1, phrase="by version {}"),
        Column("runs per hour", series=[("1:00", "1"), ("2:00", "2")]),
        Column("signature", is_number=False, is_code=True),
    ],
    [
        [
            Cell("<b>", {"signature": "1a2b"}, "latest: no 7", way=WAY),
            Cell("no 7"),
            Cell("1 of 2"),
            Cell(),
            Cell("1.0: 2, 2.0: 3", parts=VERSIONS),
            Cell(series=[(1, "1"), (None, "0")]),
            Cell("1a2b"),
        ]
    ],
    4,
    "group",
    has_entries=True,
)


def test_a_row_with_many_facts_is_an_entry_of_some_lines_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert printed([Heading("Groups"), ENTRIES], monkeypatch, capsys, 60).splitlines() == [
        "Groups",
        "1a2b  <b>",
        "      in 1 of 2 failed",
        "      by version 1.0: 2, 2.0: 3",
        "      latest: no 7",
        "      runs per hour ▕█ ▏",
        "3 more groups; -n 4 lists all",
    ]


def test_an_entry_is_a_row_of_a_page_with_each_of_its_links() -> None:
    html = page([ENTRIES])
    assert '<a class="opens" href="./?signature=1a2b">&lt;b&gt;</a> <span class="hint">latest: no 7</span>' in html
    assert '<a href="failures?q=1a2b">more</a>' in html
    assert '<a href="./?version=1.0">1.0: 2</a> <a href="./?version=2.0">2.0: 3</a>' in html
    assert html.count("no 7") == 1
    assert "3 more groups: " in html
    assert "3 more groups.<" in page([ENTRIES], [("all", "1")])


def test_a_table_can_leave_out_its_empty_columns() -> None:
    names = [column.name for column in ENTRIES.filled().columns]
    assert names == ["what failed", "latest", "failed", "versions", "runs per hour", "signature"]
    assert "1.0: 2, 2.0: 3" in blocks.text([ENTRIES])
