"""The page that compares runs: two step by step, several side by side, and what to do without any."""

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import pytest

import agentspan
from agentspan.database import Database
from agentspan.serve import create_app
from tests.serve.asgi import Client


class Served:
    """A client, and the runs behind it."""

    def __init__(self, db: Database, client: Client) -> None:
        self.db = db
        self.client = client

    def run(self, *outputs: str, error: str = "") -> str:
        """Record a run with a step for each output, and return its id."""
        tracer = agentspan.Tracer(self.db.storage, raise_errors=True)
        try:
            with tracer.run("shop", version="1", task="t") as run:
                for number, output in enumerate(outputs):
                    with tracer.span("tool", {"name": "look", "arguments": {"n": number}}) as span:
                        span.set_result({"output": output})
                if error:
                    raise RuntimeError(error)
        except RuntimeError:
            pass
        assert tracer.flush()
        return run.id

    def html(self, query: str, status: int = 200) -> str:
        """Return the page with a query."""
        answer = self.client.get(f"/compare?{query}", headers={"Accept": "text/html"})
        assert answer.status_code == status
        return answer.text

    def text(self, query: str, status: int = 200) -> str:
        """Return the text of the page with a query."""
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", self.html(query, status))).split())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with agentspan.open(tmp_path / "a.db") as db, Client(create_app(db)) as client:
        yield Served(db, client)


SAME = ["one"] * 40


def test_two_runs_have_their_facts_the_first_divergence_and_their_steps(served: Served) -> None:
    a, b = served.run(*SAME, "the door is open", "end"), served.run(*SAME, "the door is shut", "end", error="no way")
    html, text = served.html(f"a={a}&b={b}"), served.text(f"a={a}&b={b}")
    assert "verdict ✓ passed ✗ failed" in text
    assert "40 same steps, then another result" in text
    assert "<dd>the door is <del>open</del><ins>shut</ins></dd>" in html
    assert "= 40 equal steps" in text
    assert text.index("another result") < text.index("The runs")
    assert html.index("<summary>Equal: ") < html.index('<td data-name="A">42</td>')  # the number of steps
    assert html.count("data-change") == 2  # the first divergence above, and in its place among the steps
    assert f'href="runs/{a}#span=' in html
    assert f'href="runs/{b}#span=' in html
    assert f"agentspan diff {a} {b}" in text
    assert f'href="compare?a={b}&amp;b={a}"' in html


def test_steps_that_only_one_run_has_and_payloads_are_text(served: Served) -> None:
    a, b = served.run("one"), served.run("one", "<script>alert(1)</script>")
    html = served.html(f"a={a}&b={b}")
    assert "only in B" in html
    assert "&lt;script&gt;alert(1)" in html
    assert "<script>alert" not in html
    assert 'bad"' not in html  # both passed: nothing is red


def test_equal_runs(served: Served) -> None:
    a, b = served.run("one", "two"), served.run("one", "two")
    assert "The steps are the same: 2." in served.text(f"a={a}&b={b}")
    assert "A run that is named twice is shown once." in served.text(f"a={a}&b={a}")
    assert "Another one is needed" in served.text(f"a={a}")


def test_many_differences_are_shown_page_by_page(served: Served) -> None:
    a, b = (served.run(*(f"{name} {number}" for number in range(250))) for name in "xy")
    first, second = served.html(f"a={a}&b={b}"), served.html(f"a={a}&b={b}&offset=200")
    assert (first.count('<li class="is-'), second.count('<li class="is-')) == (200, 50)
    assert f'href="compare?a={a}&amp;b={b}&amp;offset=200"' in first
    assert "201–250 of 250" in second
    assert "250 of 250" in served.text(f"a={a}&b={b}&offset=99999")


def test_several_runs_are_columns(served: Served) -> None:
    ids = [served.run("one", "two"), served.run("one", "two"), served.run("one", "other")]
    text = served.text(f"runs={','.join(ids)}")
    assert "steps 2 2 2" in text
    assert "the same steps" in text
    assert "after 1 same step: another result" in text
    assert f'href="compare?a={ids[0]}&amp;b={ids[2]}"' in served.html(f"runs={','.join(ids)}")


def test_without_runs_it_says_how_to_choose_and_offers_two(served: Served) -> None:
    near, failed = served.run("one", "two"), served.run("one", "other", error="no way")
    html = served.html("")
    assert "selects a run" in html
    assert f'href="compare?a={near}&amp;b={failed}"' in html
    assert "There is no passing run" not in html
    one = served.html(f"b={failed}")
    assert f'href="compare?a={failed}&amp;b={near}"' in one, "it is compared already, and can be swapped"
    assert "The newest failed run" not in one
    assert "Another one is needed" in served.text(f"a={near}")


def test_an_unknown_run_is_a_sentence(served: Served) -> None:
    served.run("one")
    assert "nothing" in served.text("a=-&b=nothing", 404)


def test_an_empty_file_offers_nothing(served: Served) -> None:
    text = served.text("")
    assert "selects a run" in text
    assert "newest failed" not in text
