"""`agentspan compact`: makes a file smaller, whose payloads an older version stored whole."""

import click

from agentspan.cli.output import Failed, document, noun
from agentspan.cli.progress_bar import bar
from agentspan.database import Database
from agentspan.figures import size_text


def command(database: Database, *, as_json: bool) -> None:
    """Compact the file, with a progress bar on a terminal, and print its size before and after."""
    try:
        with bar("compact") as progress:
            done = database.compact(progress)
    except KeyboardInterrupt:
        raise Failed("interrupted; what was done stays, and the same command goes on with the rest") from None
    if as_json:
        document(done._asdict())
        return
    click.echo(f"{noun(done.spans, 'span')} rewritten")
    click.echo(f"{size_text(done.bytes_before)} -> {size_text(done.bytes_after)}")
