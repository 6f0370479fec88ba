"""Numbers and durations in words."""

from __future__ import annotations


def in_words(seconds: float) -> str:
    """Return a time as a person would say it."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
