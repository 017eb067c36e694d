"""The folder of the checkout: where programs that tests start can import `tests`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
