"""The README as PyPI shows it: its links and pictures, which are relative here, lead to the tag of the version."""

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

REPOSITORY = "agentspan-sqlite/agentspan"
_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Sets `readme` when the wheel or the source distribution is built."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Replace relative links; the version is that of `agentspan/__init__.py`."""
        root = Path(self.root)
        version = re.search(r'^__version__ = "(.*)"$', (root / "agentspan" / "__init__.py").read_text("utf-8"), re.M)
        tag = f"v{version[1]}" if version else "main"

        def absolute(found: re.Match[str]) -> str:
            place = "https://raw.githubusercontent.com" if found[1] else "https://github.com"
            way = tag if found[1] else f"blob/{tag}"
            return f"{found[1]}{found[2]}({place}/{REPOSITORY}/{way}/{found[3]})"

        text = _LINK.sub(absolute, (root / "README.md").read_text("utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
