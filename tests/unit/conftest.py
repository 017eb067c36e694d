"""Hypothesis without deadlines: a shared machine is slow when it likes, and no test here measures time."""

from hypothesis import settings

settings.register_profile("unit", deadline=None)
settings.load_profile("unit")
