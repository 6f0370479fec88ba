"""A store of results, whatever it was named by."""

from __future__ import annotations

from pathlib import Path

from iqa_results import ResultStore

STORE = "iqa-store"
"""Where results go if nothing is said."""


def opened(store: str | Path | ResultStore) -> ResultStore:
    """Return a store, whatever it was given as."""
    return store if isinstance(store, ResultStore) else ResultStore(store)
