"""The list of frameworks: which are installed, what records them, and what to install where nothing does."""

from agentspan.cli.output import document, table
from agentspan.otel.instruments import known


def command(*, as_json: bool) -> None:
    """List what `agentspan.instrument()` would turn on here."""
    found = known.available()
    if as_json:
        document(
            {
                "frameworks": [
                    {
                        "name": each.framework.name,
                        "installed": each.is_installed,
                        "records": each.can_record,
                        "package": each.package or None,
                        "version": each.version or None,
                        "to_install": _to_install(each) or None,
                    }
                    for each in found
                ]
            }
        )
        return
    rows = []
    for each in sorted(found, key=lambda each: (not each.can_record, not each.is_installed, each.framework.name)):
        if each.can_record:
            state = f"recorded by {each.package or 'itself'} {each.version}".rstrip()
        else:
            state = f"not recorded; pip install {_to_install(each)}" if each.is_installed else "not installed"
        rows.append([each.framework.name, state])
    table(("framework", "here"), rows, shrink=1)


def _to_install(each: known.Available) -> str:
    return each.framework.package if each.is_installed and not each.can_record else ""
