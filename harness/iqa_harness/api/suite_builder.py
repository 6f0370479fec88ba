"""A suite built from a stored run."""

from __future__ import annotations

import math
from pathlib import Path

from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.reading import aggregated
from iqa_harness.cells.built_suite import BuiltSuite, build_from
from iqa_harness.errors import RunError
from iqa_results import TABLE, ResultStore, write_whole


def build_suite(
    run: str,
    *,
    name: str,
    budget: float = math.inf,
    min_gain: float = 0.01,
    store: str | Path | ResultStore = STORE,
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
    if not budget > 0 or not min_gain >= 0:
        raise RunError(f"--budget is above 0 and --min-gain at least 0, not {budget:g} and {min_gain:g}")
    if out is not None and Path(out).exists():
        raise RunError(f"--out {out}: there is something already; choose another name")
    manifest, tables = aggregated(opened(store), run)
    built = build_from(manifest, TABLE.rows(tables.table), name=name, budget=budget, min_gain=min_gain)
    if out is not None:
        write_whole(Path(out), built.suite.text.encode())
    return built
