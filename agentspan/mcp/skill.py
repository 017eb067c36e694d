"""`agentspan skill`: prints a skill. The texts are files beside this module, which `setup` copies, too."""

from pathlib import Path
from typing import NamedTuple

import click

from agentspan.cli.app import command


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
        """The text of its SKILL.md."""
        return (Path(__file__).parent / "skills" / f"{self.file}.md").read_text(encoding="utf-8")


FIND = Skill("agentspan", "find")
INSTRUMENT = Skill("agentspan-instrument", "instrument")


@command("skill")
@click.argument("which", metavar="[NAME]", required=False, type=click.Choice([INSTRUMENT.file]))
def skill_command(which: str | None) -> None:
    """Print a skill."""
    click.echo((FIND if which is None else INSTRUMENT).text, nl=False)
