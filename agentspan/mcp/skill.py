"""`setup --print-skill`: prints a skill. The texts are files beside this module, which `setup` copies, too."""

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import click

from agentspan.cli.app import command

_MARK = "<!--agentspan:"


def _hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12]


def is_edited(text: str) -> bool:
    """Return whether a text differs from that of a skill of this version or another one. Line ends do not count."""
    text, _, mark = text.replace("\r\n", "\n").rpartition(_MARK)
    return mark != f"{_hash_of(text)}-->\n"


class Skill(NamedTuple):
    """A skill.

    Attributes:
        name: the name of its folder in a coding agent, as its text names it.
        file: the name of its text, below `skills`.
    """

    name: str
    file: str

    @property
    def text(self) -> str:
        """The text of its SKILL.md. The last line is a hash of the rest, by which `is_edited` knows it again."""
        text = (Path(__file__).parent / "skills" / f"{self.file}.md").read_text(encoding="utf-8")
        return f"{text}{_MARK}{_hash_of(text)}-->\n"


FIND = Skill("agentspan", "find")
INSTRUMENT = Skill("agentspan-instrument", "instrument")


@command("skill")
@click.argument("which", metavar="[NAME]", required=False, type=click.Choice([INSTRUMENT.file]))
def skill_command(which: str | None) -> None:
    """Print the skill that tells a coding agent how to find out what failed, and why.

    With `instrument` it tells how to record a program.
    """
    click.echo((FIND if which is None else INSTRUMENT).text, nl=False)
