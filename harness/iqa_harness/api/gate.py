"""Baselines, and whether a run got worse than one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.run import Run
from iqa_harness.errors import RunError
from iqa_harness.gating.baselines import Standpoint, standpoint
from iqa_harness.gating.comparable import require_whole
from iqa_harness.gating.outcome import Outcome
from iqa_harness.gating.regressions import TOLERANCE, find_regressions, noise_floors, undefined_values
from iqa_harness.machine.places import require_folder
from iqa_harness.measures.correlation import METRICS, Metric
from iqa_harness.running.ledger import refreshed
from iqa_harness.tables.robustness import robustness_table, stored_tables
from iqa_results import Baseline, ResultStore, load_baseline
from iqa_results import save_baseline as write_baseline
from iqa_results.storage import require_name

FOLDER = Path("results/baselines")
"""Where baselines are kept if nothing is said."""


def gate(
    baseline: str | Path,
    run: str | Run,
    *,
    store: str | Path | ResultStore = STORE,
    tolerance: float = TOLERANCE,
    must_detect: float | None = None,
    metrics: Iterable[str] = ("srocc",),
    every_attack: bool = False,
) -> Outcome:
    """Compare a run with a baseline, image by image.

    Args:
        baseline: its folder.
        run: its name in the store, or the run itself.
        store: folder or URL of results.
        tolerance: fall of a correlation that is let pass.
        must_detect: fall that must not be missed, of a model with the baseline's hash also rise; a value
            where only a larger one would be called so is undecided, and the gate is not passed. .1, or the
            tolerance where that is more, if left out.
        metrics: srocc, plcc.
        every_attack: gate every attack by itself, not the worst cases alone.

    Raises:
        NotComparable: other suites, data, images or models.
        RunError: a run that is not complete, an unknown metric.
    """
    before, after = side_of_folder(baseline), side_of_run(store, run)
    found = find_regressions(
        before, after, tolerance=tolerance, must_detect=must_detect, metrics=metrics_of(metrics),
        every_attack=every_attack,
    )  # fmt: skip
    if before.record.scores_sha256 is None:
        found.notes.append("the baseline is of the first edition, nothing ties its two files: save it again")
    return found


def calibrate(
    baseline: str | Path, runs: Sequence[str | Run], *, store: str | Path | ResultStore = STORE
) -> Baseline:
    """Measure the noise floor from runs that should be equal, and store it in the baseline.

    Of models trained again with other seeds; or of the same models attacked again by other means (threads,
    tuning, another machine), in stores of their own, since runs of one store share their cells: give such
    runs as `Run`, from `load_run`.

    Raises:
        NotComparable: fewer than two runs, runs that cannot be compared, or whose scores are all equal.
    """
    before = side_of_folder(baseline)
    sides = [side_of_run(store, run) for run in runs]
    floors = noise_floors(sides)
    find_regressions(before, sides[0], metrics=(), resamples=1)  # comparable, or an error
    record = before.record.model_copy(update={"noise": tuple(floors)})
    write_baseline(Path(baseline), record, None)
    return record


def save_baseline(
    name: str,
    run: str | Run,
    *,
    store: str | Path | ResultStore = STORE,
    folder: str | Path = FOLDER,
    force: bool = False,
) -> tuple[Path, Baseline]:
    """Save a complete run as a baseline; return its folder and record.

    Args:
        name: of the baseline, its folder's name.
        run: its name in the store, or the run itself.
        store: folder or URL of results.
        folder: where baselines are kept.
        force: replace a baseline of that name.

    Raises:
        RunError: a baseline of that name is there, the run is not complete, or a gated value is undefined.
        ResultsError: a name that is no plain file name.
    """
    folder = Path(folder)
    where = folder / require_name(name, "a baseline")
    # An empty folder is what a save leaves that had no room.
    if not force and (where.is_file() or (where.is_dir() and any(where.iterdir()))):
        raise RunError(f"{where} exists; --force replaces it")
    require_folder(folder, "--folder")
    side = side_of_run(store, run, name)
    require_whole(side, [m.name for m in side.record.models])
    lost = undefined_values(side, ("srocc",))
    if lost:
        raise RunError(f"run {side.record.run!r} has no value of {lost[0]}: nothing could be worse than that")
    rows = [{str(k): v for k, v in row.items()} for row in side.scores.to_dict("records")]
    write_baseline(where, side.record, rows)
    return where, side.record


def show_baseline(baseline: str | Path) -> Outcome:
    """Return a baseline compared with itself: its record and its values."""
    side = side_of_folder(baseline)
    return find_regressions(side, side, metrics=METRICS, resamples=1, undefined_ok=True)


def diff_baselines(before: str | Path, after: str | Path) -> Outcome:
    """Compare two baselines.

    Raises:
        NotComparable: other suites, data, images or models.
    """
    old, new = side_of_folder(before), side_of_folder(after)
    return find_regressions(old, new, metrics=METRICS, undefined_ok=True)


def side_of_run(store: str | Path | ResultStore, run: str | Run, name: str | None = None) -> Standpoint:
    """Return a stored run as one side of a comparison, called by its own name if none is given."""
    if isinstance(run, Run):
        store, run = run.store, run.name
    results = opened(store)
    manifest = refreshed(results, results.read_manifest(run))
    # Values and verdicts are computed from the rows; the intervals of single runs are not needed.
    tables = stored_tables(results, manifest) or robustness_table(results, manifest, resamples=1)
    return standpoint(results, manifest, tables, name or run)


def side_of_folder(folder: str | Path) -> Standpoint:
    """Return a baseline as one side of a comparison."""
    record, scores = load_baseline(Path(folder))
    return Standpoint(record, scores.to_pandas())


def metrics_of(names: Iterable[str]) -> list[Metric]:
    """Return the metrics a user named, in our order.

    Raises:
        RunError: an unknown one.
    """
    names = list(names)
    unknown = [n for n in names if n not in METRICS]
    if unknown:
        raise RunError(f"no metric {unknown[0]!r}; there are {', '.join(METRICS)}")
    return [m for m in METRICS if m in names]
