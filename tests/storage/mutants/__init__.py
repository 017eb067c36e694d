"""Storages with one fault each, which the contract must find. Each is named by what is wrong with it."""

from tests.storage.mutants import claiming, parting, reading, scoring, subtle, transferring, writing
from tests.storage.mutants.noting import MUTANTS

__all__ = ["MUTANTS", "claiming", "parting", "reading", "scoring", "subtle", "transferring", "writing"]
