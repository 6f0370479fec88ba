"""Suites: what can be run. Listing them loads no torch."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from iqa_suites import LoadedSuite


class SuiteInfo(NamedTuple):
    """A suite that was checked."""

    name: str
    attacks: tuple[str, ...]
    """Names, in order."""
    norm: str
    """inf or 2."""
    epsilons: tuple[float, ...]
    """Radii, ascending, on pixels in [0, 1]."""
    sha256: str
    """Of all that decides a run's numbers."""


def list_suites() -> dict[str, str]:
    """Return the suites that ship: name to what it is."""
    # Not by importing the package, which checks suites by making their attacks, and so loads torch.
    (place,) = importlib.util.find_spec("iqa_suites").submodule_search_locations  # type: ignore[union-attr, misc]
    files = sorted((Path(place) / "definitions").glob("*.toml"), key=lambda file: file.stem)
    return {file.stem: tomllib.loads(file.read_text(encoding="utf-8"))["summary"] for file in files}


def show_suite(suite: str | Path) -> LoadedSuite:
    """Return a suite by name or path, checked, with the TOML text it was read from.

    Raises:
        SuiteError: no such suite, or one with mistakes, all of them at once.
    """
    from iqa_suites import load_suite

    return load_suite(str(suite))


def validate_suite(suite: str | Path) -> SuiteInfo:
    """Check a suite and return what it holds.

    Raises:
        SuiteError: no such suite, or one with mistakes, all of them at once.
    """
    found = show_suite(suite).suite
    radii = sorted({epsilon for attack in found.own_attacks for epsilon in attack.epsilons})
    names = tuple(attack.name for attack in found.attacks)
    return SuiteInfo(found.name, names, str(found.norm), tuple(radii), found.sha256)
