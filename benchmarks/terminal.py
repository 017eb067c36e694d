"""Make docs/images/terminal.svg, a moving picture: commands and what they print, of a real file.

    pip install rich
    python benchmarks/terminal.py runs.db agentspan "agentspan why" "agentspan diff A B"

Each scene is a command, which runs here with colours; its output is drawn with rich, and CSS shows one scene after
the other. A reader who wants no motion sees the last scene.
"""

import argparse
import io
import os
import pty
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

COLUMNS, LINES = 92, 25
SCENE_S = 5
"""The seconds for which each scene is seen."""
TARGET = Path(__file__).parents[1] / "docs" / "images" / "terminal.svg"
FORMAT = """<svg x="0" y="0" width="{terminal_width}" height="{terminal_height}"
viewBox="0 0 {terminal_width} {terminal_height}">
<style>.{unique_id}-matrix {{ font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }} {styles}</style>
<defs>{lines}</defs>{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></svg>"""
"""The form that rich fills: lines of text without the frame of a window, and without a font of another host."""


def output_of(command: str, db: Path) -> str:
    """Return what a command of agentspan prints on a terminal with colours."""
    env = {**os.environ, "AGENTSPAN_DB": str(db), "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "PAGER": "cat"}
    words = shlex.split(command)
    assert words[0] == "agentspan"
    reading, terminal = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", *words], env={**env, "TZ": "UTC"}, stdout=terminal):
        os.close(terminal)
        printed = b""
        with suppress(OSError):  # Linux has an error where others have an end
            while part := os.read(reading, 65536):
                printed += part
    os.close(reading)
    return printed.decode().replace("\r\n", "\n").replace(f"{sys.executable} -m agentspan", "agentspan")


def drawn(number: int, command: str, printed: str) -> str:
    """Return a scene as an SVG element: the prompt, and as many lines as fit."""
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    lines = printed.rstrip("\n").split("\n")
    shown = lines if len(lines) < LINES else [*lines[: LINES - 2], "\x1b[2m…\x1b[0m"]
    console = Console(record=True, width=COLUMNS, height=LINES, file=io.StringIO(), force_terminal=True)
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    for line in [*shown, *[""] * (LINES - 1 - len(shown))]:
        console.print(Text.from_ansi(line), no_wrap=True, overflow="crop")
    return console.export_svg(theme=MONOKAI, code_format=FORMAT, unique_id=f"scene{number}")


def main() -> None:
    """Run the commands, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("db", type=Path)
    parser.add_argument("commands", nargs="*")
    asked = parser.parse_args()
    scenes = []
    for number, command in enumerate(asked.commands):
        scenes.append(drawn(number, command, output_of(command, asked.db.resolve())))
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', scenes[0])
    assert size, "rich has filled FORMAT"
    width, height = map(float, size.groups())
    share = 100 / len(scenes)
    total = SCENE_S * len(scenes)
    shows = "".join(f".s{n}{{animation-delay:{n * SCENE_S - total if n else -total}s}}" for n in range(len(scenes)))
    parts = "".join(f'<g class="scene s{n}">{scene}</g>' for n, scene in enumerate(scenes))
    said = "; then ".join(asked.commands)
    TARGET.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-16 -16 {width + 32:.0f} {height + 32:.0f}" role="img" '
        f'aria-label="A terminal: {said}"><title>A terminal: {said}</title><style>'
        f"@keyframes show{{0%,{share - 0.01:.2f}%{{visibility:visible}}{share:.2f}%,100%{{visibility:hidden}}}}"
        f".scene{{visibility:hidden;animation:show {total}s step-end infinite}}{shows}"
        f"@media (prefers-reduced-motion){{.scene{{animation:none}}.s{len(scenes) - 1}{{visibility:visible}}}}"
        f'</style><rect x="-16" y="-16" width="100%" height="100%" rx="8" fill="#0c0c0c"/>{parts}</svg>\n',
        encoding="utf-8",
    )
    print(f"{TARGET}: {TARGET.stat().st_size:,} bytes, {total} s")


if __name__ == "__main__":
    main()
