"""The official packages, installed from PyPI and npm: what arrives beside what a program with each of them sent.

Skipped unless AGENTSPAN_TEST_CLIENTS names a folder. The packages are installed there once, which needs a network. Each
test writes a table of all fields into the folder, as PROGRAM.txt.
"""

import os
import re
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.serve.clients.comparing import rows, table
from tests.serve.clients.installing import node_command, python_command
from tests.serve.clients.outlining import outline
from tests.serve.clients.recording_proxy import Exchange, RecordingProxy, recording
from tests.serve.servers import Api, details, serving
from tests.waiting import until

FOLDER = os.environ.get("AGENTSPAN_TEST_CLIENTS")
pytestmark = pytest.mark.skipif(
    not FOLDER, reason="opt-in: AGENTSPAN_TEST_CLIENTS names a folder to install the clients in"
)
REASON = "too dear"
TIME_S = 120
TERMINATED = f"Agent instance terminated by p2: {REASON}"
LIVEKIT_ERROR = (
    "type='llm_error' timestamp=0 label='__main__.FakeLLM' error=TimeoutError('the model is overloaded') "
    "recoverable=False"
)


class Program(NamedTuple):
    """A program that uses one package, and what is to arrive of it.

    Attributes:
        file: its name.
        said: its lines, without those of the package itself.
        before: how many spans have begun and ended when it waits to be terminated; the others come later.
        spans: the outline of its spans.
    """

    file: str
    said: tuple[str, ...]
    before: tuple[int, int]
    spans: str


PROGRAMS = (
    Program(
        "http_client.py",
        (f"terminated: {REASON}, heard 3 times: {{'{REASON}'}}", "ended"),
        (4, 3),
        """
        forecaster:llm fake-large-1 21→8: complete, terminated, ended late
          forecaster:tool weather: complete
          forecaster:tool book: failed: no seats left
          forecaster:tool pay: cancelled
        forecaster:tool late: complete
        """,
    ),
    Program(
        "core_client.py",
        ("ended",),
        (4, 3),
        """
        agent:llm fake-large-1 21→8: complete, terminated, ended late
          agent:tool weather: complete
          agent:tool book: failed: no seats left
          agent:tool: cancelled
          agent:tool late: complete
        """,
    ),
    Program(
        "langchain_middleware.py",
        ("failed: no seats left", "failed: the model is overloaded", f"terminated: {REASON}", "ended"),
        (12, 10),
        f"""
        langchain:agent: complete
        langchain:llm fake-large-1 21→8: complete
        langchain:tool weather: complete
        langchain:llm fake-large-1 34→2: complete
        langchain:agent: complete
        langchain:llm fake-large-1 11→3: complete
        langchain:tool:book-seat book: failed: no seats left
        langchain:agent: complete
        langchain:llm fake-large-1: failed: the model is overloaded
        langchain:agent: failed, terminated: {REASON}
        langchain:llm fake-large-1 40→4: complete
        langchain:tool wait: complete, terminated, ended late
          travel:note: complete
        """,
    ),
    Program(
        "langchain_graph.py",
        ("failed: no seats left", f"terminated: {REASON}", "ended"),
        (6, 4),
        f"""
        langchain:agent LangGraph: failed, terminated, ended late: {TERMINATED}
          langchain:node: complete
            langchain:tool weather: complete
            langchain:llm fake-large-1 21→8: complete
          langchain:node: complete, terminated, ended late
            langchain:tool book: failed: no seats left
            langchain:tool weather: complete
        """,
    ),
    Program(
        "livekit_session.py",
        ("failed: the model is overloaded", "ended"),
        (13, 11),
        f"""
        livekit:session: complete, terminated, ended late
          livekit:assistant_turn: complete
            livekit:llm fake-large-1 21→8: complete
            livekit:tool weather: complete, violates type of $.group_id
            livekit:llm fake-large-1 34→2: complete
          livekit:assistant_turn: complete
            livekit:llm fake-large-1 40→4: complete
            livekit:tool:book-seat book: failed, violates type of $.group_id
            livekit:llm fake-large-1 50→3: complete
          livekit:assistant_turn: failed: {LIVEKIT_ERROR}
          livekit:error: failed: {LIVEKIT_ERROR}
          livekit:assistant_turn: complete, terminated, ended late
            livekit:llm fake-large-1 60→5: complete
            livekit:tool wait: complete, violates type of $.group_id
            livekit:llm fake-large-1 70→1: complete
        """,
    ),
    Program(
        "core.mjs",
        ("ended",),
        (5, 0),
        """
        agent plan: complete, terminated, ended late
          llm fake-large-1 21→8: complete
          chain look-up: complete
            tool weather: complete
          tool book: failed: no seats left
          llm fake-large-1 13→5: complete
          tool weather: complete
        """,
    ),
    Program(
        "langchain.mjs",
        ("failed: no seats left", "failed: the model is overloaded", "ended"),
        (7, 0),
        """
        langchain:llm fake-large-1 21→8: complete
        langchain:tool weather: complete
        langchain:llm fake-large-1 34→2: complete
        langchain:llm fake-large-1 11→3: complete
        langchain:tool langchain:tool-call: failed: no seats left
        langchain:llm fake-large-1: failed: the model is overloaded
        langchain:llm fake-large-1 40→4: complete
        langchain:tool wait: complete
        langchain:llm fake-large-1 50→1: complete
        """,
    ),
)


def run(program: Program, proxy: RecordingProxy, api: Api, folder: Path) -> list[str]:
    """Run a program, terminate its run where it waits for that, and return its lines."""
    command = (node_command if program.file.endswith(".mjs") else python_command)(folder, program.file)
    env = {**os.environ, "PREFACTOR_API_URL": proxy.url, "PREFACTOR_API_TOKEN": "any"}
    with (folder / f"{program.file}.stderr").open("w") as stderr:
        process = subprocess.Popen(
            command, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            if line.strip() == "waiting":
                until(lambda: (len(creates(proxy)), len(finishes(proxy))) == program.before, TIME_S)
                assert not any(is_told(each) for each in proxy.exchanges)
                details(api.post(f"/agent_instance/{registered(proxy)}/terminate", {"reason": REASON}))
                process.stdin.write("\n")
                process.stdin.flush()
            elif not line.startswith("[prefactor:"):
                lines.append(line.strip())
        assert process.wait(TIME_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    return lines


def creates(proxy: RecordingProxy) -> list[Exchange]:
    """The creations of spans so far."""
    return proxy.to("POST", "/agent_spans")


def finishes(proxy: RecordingProxy) -> list[Exchange]:
    """The ends of spans so far."""
    return proxy.to("POST", "/agent_spans/*/finish")


def registered(proxy: RecordingProxy) -> str:
    """The id of the one instance that a program has registered."""
    (exchange,) = proxy.to("POST", "/agent_instance/register")
    id: str = exchange.answer["details"]["id"]
    return id


def is_told(exchange: Exchange) -> bool:
    """Whether a response tells the client that its run was terminated."""
    told: bool = (exchange.answer or {}).get("control") == {"terminate": True, "reason": REASON}
    return told


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.file)
def test_all_that_a_program_sends_arrives_and_it_ends_cleanly_when_it_is_terminated(
    program: Program, tmp_path: Path
) -> None:
    folder = Path(FOLDER or "")
    with serving(tmp_path / "runs.db") as server, recording(server.port) as proxy, server.client() as client:
        api = Api(client)
        said = run(program, proxy, api, folder)
        found = list(rows(proxy, api))
        (folder / f"{program.file}.txt").write_text(table(found))

        assert tuple(said) == program.said
        assert {exchange.status for exchange in proxy.exchanges} == {200}
        assert [row for row in found if row.is_lost] == []
        id = registered(proxy)
        assert re.sub(r"timestamp=[\d.]+", "timestamp=0", outline(server.db, id)) == dedent(program.spans).strip()

        instance = details(api.get(f"/agent_instance/{id}"))
        assert (instance["status"], instance["termination_reason"]) == ("terminated", REASON)
        assert instance["ended_late"]
        for exchanges, before in zip((creates(proxy), finishes(proxy)), program.before, strict=True):
            assert [is_told(each) for each in exchanges] == [number >= before for number in range(len(exchanges))]
        assert instance["span_counts"]["total"] == len(creates(proxy))

        for exchange in proxy.exchanges:  # a client that lost the response sends the request again
            if "idempotency_key" in ((exchange.sent or {}).get("details") or exchange.sent or {}):
                again = api.post(exchange.path.removeprefix("/api/v1"), exchange.sent)
                assert details(again)["id"] == exchange.answer["details"]["id"]
        assert details(api.get(f"/agent_instance/{id}")) == instance
        assert list(rows(proxy, api)) == found
