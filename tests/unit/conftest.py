"""Hypothesis without deadlines, since a shared machine is slow when it likes; and, in CI, the same examples each time."""

import os

from hypothesis import settings

settings.register_profile("unit", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("unit")
