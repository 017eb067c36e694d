"""A file whose format has changed is named with what it lacks, and is read again later."""

import json
from pathlib import Path

import pytest

import agentspan
from agentspan.api.context import Context
from agentspan.sessions.formats import Source
from agentspan.sessions.importing import Importer
from agentspan.sessions.registry import formats
from tests.sessions.claude_files import CONVERSATION, SESSION

LACKING = {
    "sessionId": "no session was found in it: a record without a sessionId",
    "timestamp": "no session was found in it: a record without a timestamp",
    "message": "its calls of models have neither tokens nor text",
    "usage": "its calls of models have no tokens",
}


@pytest.mark.parametrize("name", LACKING)
def test_a_file_of_which_nothing_can_be_used_says_what_it_lacks_each_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / "notes.jsonl"
    text = "".join(f"{json.dumps({**record, 'sessionId': SESSION})}\n" for record in CONVERSATION)
    with agentspan.open(tmp_path / "a.db") as database:

        def problems() -> list[str]:
            importer = Importer(Context(database.storage), formats(), now=lambda: 2 * 10**18)
            assert importer.import_source(Source("claude", path))
            return importer.problems

        path.write_text(text.replace(f'"{name}":', f'"{name}Of":'))
        sentence = f"{path}: {LACKING[name]}; a later version of agentspan may read it"
        assert problems() == problems() == [sentence]
        path.write_text(text)
        assert problems() == []


def test_calls_without_tokens_and_without_text_are_counted(tmp_path: Path) -> None:
    path = tmp_path / f"{SESSION}.jsonl"
    records = json.loads(json.dumps(CONVERSATION))
    del records[-1]["message"]["usage"]
    records[-1]["message"]["content"] = []
    path.write_text("".join(f"{json.dumps({**record, 'sessionId': SESSION})}\n" for record in records))
    with agentspan.open(tmp_path / "a.db") as database:
        importer = Importer(Context(database.storage), formats(), now=lambda: 2 * 10**18)
        importer.import_source(Source("claude", path))
        assert (len(importer.arrived.no_tokens), len(importer.arrived.no_text), importer.problems) == (1, 1, [])
