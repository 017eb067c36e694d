"""Commands that install packages, for messages: each works as printed, also where no index has agentspan.

pip and uv take an extra of a distribution that is installed from its metadata: `agentspan-sqlite[serve]` needs no index
that knows agentspan, if agentspan was installed from a wheel or a checkout. Only an upgrade would need one, so messages
name no command for it.
"""

import os
import sys


def command(*packages: str) -> str:
    """Return the command that installs packages for this Python: `pip install NAME`.

    pip is named by its path if another one, or none, is called `pip` here: in an environment that is not active, say.
    """
    return " ".join([_installer(), *(f'"{each}"' if "[" in each else each for each in packages)])


def name_of(extra_name: str) -> str:
    """Return an extra of agentspan as the name of a package."""
    return f"agentspan-sqlite[{extra_name}]"


def extra(name: str) -> str:
    """Return the command that installs an extra of agentspan."""
    return command(name_of(name))


def needs_extra(doing: str, name: str) -> str:
    """Return the sentence that says how to install an extra: `serving needs more packages; run: pip install …`."""
    return f"{doing} needs more packages; run: {extra(name)}"


def _installer() -> str:
    import shutil  # 3 ms with its modules for archives, which a program that records does without
    from importlib.util import find_spec

    folder = os.path.dirname(sys.executable)
    own, found = os.path.join(folder, "pip"), shutil.which("pip")
    if found and os.path.dirname(os.path.abspath(found)) == os.path.abspath(folder):
        return "pip install"
    if os.path.exists(own):
        return f"{_short(own)} install"
    if find_spec("pip"):
        return f"{_short(sys.executable)} -m pip install"
    return f"uv pip install --python {_short(sys.executable)}"


def _short(path: str) -> str:
    """Return a path as an argument of a shell: relative, if it lies below the current folder."""
    from shlex import quote

    try:
        below = os.path.relpath(path)
    except (OSError, ValueError):  # no current folder, or another drive
        below = path
    return quote(path if below.startswith("..") else below)
