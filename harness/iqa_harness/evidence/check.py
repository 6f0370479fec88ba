"""One thing that was measured of a model, and the bound it is held against."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Check(NamedTuple):
    """One thing measured, with the bound it is held against."""

    value: float | None
    """What was measured, None if it could not be."""
    threshold: float
    """The bound."""
    passed: bool
    """Whether the value is on the right side of it."""
    detail: str
    """What the value is, in words."""


def as_checks(checks: Mapping[str, Any]) -> dict[str, Check]:
    """Return checks as values, also those of a manifest, which holds each as an object of its fields."""
    return {
        name: check if isinstance(check, Check) else Check(*(check[field] for field in Check._fields))
        for name, check in checks.items()
    }


def worse(check: Check, other: Check | None) -> Check:
    """Return the worse of two measurements of one thing: one that did not pass, or the larger value."""
    if other is None:
        return check
    return max(check, other, key=lambda c: (not c.passed, -1.0 if c.value is None else c.value))
