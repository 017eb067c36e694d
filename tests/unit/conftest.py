"""Hypothesis without deadlines: a shared machine is slow when it likes, and no test here measures time."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "unit", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("unit")
