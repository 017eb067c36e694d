"""A finding that is declared once is a command, a page, an answer in notebooks, and a tool over MCP."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import agentspan
from agentspan.answers.findings import FINDINGS, tools
from agentspan.cli.app import HELPS
from agentspan.cli.finding import command_of
from agentspan.errors import InvalidValue
from agentspan.serve.viewer_html import templates
from agentspan.viewer import page
from agentspan.viewer.address import address_of


@pytest.fixture(autouse=True)
def slowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FINDINGS, "slowest", "tests.cli.slowest")
    monkeypatch.setitem(HELPS, "slowest", "List the slowest runs.")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    tracer = agentspan.Tracer(path, raise_errors=True)
    with tracer.run("shop"), tracer.span("step", {}):
        pass
    assert tracer.flush()
    return path


def printed(path: Path, *words: str) -> str:
    parent = click.Context(click.Group(), obj=str(path))
    command = command_of("slowest")
    with parent, command.make_context("slowest", [*words], parent=parent) as context:
        runner = CliRunner()
        with runner.isolation() as (out, *_):
            command.invoke(context)
            return out.getvalue().decode()


def test_it_is_a_command_with_a_document(path: Path) -> None:
    with agentspan.open(path) as db:
        (run,) = [each.run.id for each in db.runs().runs]
    first, head, row = printed(path).splitlines()
    assert (first, head.split()) == ("the slowest of 1 run", ["agent", "run", "took"])
    assert row.startswith("shop")
    assert run.startswith(row.split()[1])
    assert json.loads(printed(path, "--json")) == {"runs": [run]}
    assert printed(path, "--agent", "shop", "--failed").startswith("no run matches agent=shop failed")


def test_its_help_says_how_many_rows_it_prints() -> None:
    command = command_of("slowest")
    assert "List N rows at most; 10 when left out." in command.get_help(click.Context(command))


def test_it_is_a_page_whose_cells_lead_to_runs(path: Path) -> None:
    own = page.of_finding("slowest")
    with agentspan.open(path) as db:
        values = own.parts[0].read(db.storage, address_of([]))
        html = (
            templates()
            .get_template("blocks.html")
            .render(page=own, address=address_of([]), up="", is_first=True, **values)
        )
        assert '<h1 class="unseen">Slowest</h1>' in html
        assert 'href="./?agent=shop&amp;sort=duration">' in html
        nothing = own.parts[0].read(db.storage, address_of([("agent", "shop"), ("status", "failed")]))
        assert nothing == {"blocks": []}


def test_a_notebook_shows_it(path: Path) -> None:
    with agentspan.open(path) as db:
        found = db.finding("slowest", agent="shop")
        assert len(found.result) == 1
        assert "the slowest of 1 run" in found._repr_html_()
        assert repr(found).splitlines()[0] == "the slowest of 1 run"
        assert repr(db.finding("cost")) == repr(db.costs())
        assert repr(db.finding("cost", "day")) == repr(db.costs("day"))
        with pytest.raises(InvalidValue, match="must be one of cost"):
            db.finding("nothing")


def test_it_is_a_tool_if_it_says_what_comes_after() -> None:
    assert [*tools()] == ["slowest"]
