"""Runs the blocks of a page in one process, so that blocks can use what earlier ones made.

`python -m tests.page_blocks` reads the blocks as a JSON document from standard input. A block's line numbers are its
page's. Commands run in processes that are forked from one which has imported agentspan: starting Python anew for each
would take most of the time.
"""

import json
import multiprocessing
import os
import runpy
import shlex
import sqlite3
import sys
from typing import Any


def run_blocks(blocks: list[tuple[str, int, str, str]]) -> None:
    """Run blocks, each with its page, its line, its kind and its code; exit with a sentence at the first that fails."""
    commands = multiprocessing.get_context("forkserver")
    commands.set_forkserver_preload(["agentspan.cli", "agentspan.analysis", "agentspan.recording"])
    names: dict[str, Any] = {"__name__": "__main__"}
    for page, line, kind, code in blocks:
        where = f"{page}:{line}"
        sys.stderr.write(f"{where}\n")
        sys.stderr.flush()
        if kind == "python":
            exec(compile("\n" * line + code, page, "exec"), names)
        elif kind == "sql":
            _show(code, where)
        else:
            for command in code.splitlines():
                if command.startswith(("$ agentspan", "$ pytest")):
                    process = commands.Process(target=run_command, args=(command[2:], os.environ.copy(), os.getcwd()))
                    process.start()
                    process.join()
                    if process.exitcode:
                        sys.exit(f"{where}: {command} exits with {process.exitcode}")


def _show(code: str, where: str) -> None:
    if "agentspan" in sys.modules:  # a reader is another program, which comes a moment later
        sys.modules["agentspan"].flush()
    connection = sqlite3.connect(f"file:{os.environ['AGENTSPAN_DB']}?mode=ro", uri=True)
    for statement in filter(str.strip, code.split(";")):
        if not connection.execute(statement).fetchall():
            sys.exit(f"{where}: this query finds nothing, so it shows nothing")
    connection.close()


def run_command(command: str, environment: dict[str, str], folder: str) -> None:
    """Run a command of a page as `python -m` does."""
    program, *arguments = shlex.split(command, comments=True)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    if program == "pytest":  # without the entry point, which a checkout need not have
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        arguments = ["-p", "agentspan.testing.plugin", *arguments]
    sys.argv = [program, *arguments]
    runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    run_blocks(json.load(sys.stdin))
