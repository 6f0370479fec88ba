"""Suites: what can be run, and one built from a stored run. Listing them loads no torch."""

from __future__ import annotations

import importlib.util
import math
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from iqa_harness.cells.built_suite import BuiltSuite
    from iqa_results import ResultStore
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


def build_suite(
    run: str,
    *,
    name: str,
    budget: float = math.inf,
    min_gain: float = 0.01,
    store: str | Path | ResultStore = "iqa-store",
    out: str | Path | None = None,
) -> BuiltSuite:
    """Build a suite of the attacks of a run that lowered suite_min most for the gradients they cost.

    The more attacks, objectives and `report_steps` the run has, the more there is to choose from. What is
    reached of the run's fall is measured on models that the choice was not made on, one left out in turn.

    Args:
        run: its name in the store.
        name: of the new suite.
        budget: gradients an image it may cost; a score without its gradient is a third of one.
        min_gain: smallest fall of the models' mean suite_min SROCC that a further member must bring.
        store: folder or URL of results.
        out: file to write the suite to; nothing is written without.

    Raises:
        RunError: no attack of the run qualifies, a budget or gain out of range, or `out` is there already.
        SuiteError: the run's suite is none of this version, or `name` is no name of a suite.
        ResultsError: no such run, or a damaged file.
    """
    from iqa_harness.api.opening import opened
    from iqa_harness.api.reading import aggregated
    from iqa_harness.cells.built_suite import build_from
    from iqa_harness.errors import RunError
    from iqa_results import TABLE, write_whole

    if not budget > 0 or not min_gain >= 0:
        raise RunError(f"--budget is above 0 and --min-gain at least 0, not {budget:g} and {min_gain:g}")
    if out is not None and Path(out).exists():
        raise RunError(f"--out {out}: there is something already; choose another name")
    manifest, tables = aggregated(opened(store), run)
    built = build_from(manifest, TABLE.rows(tables.table), name=name, budget=budget, min_gain=min_gain)
    if out is not None:
        write_whole(Path(out), built.suite.text.encode())
    return built
