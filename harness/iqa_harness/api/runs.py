"""What a store holds, whether it is whole, and other machines' results."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from iqa_harness.api.opening import STORE, opened
from iqa_harness.errors import RunError
from iqa_harness.machine.places import require_file, require_folder
from iqa_harness.running.ledger import refreshed
from iqa_harness.stores.health import Problem, Waste, check_runs, collect, discard, find_waste
from iqa_results import BadManifest, ResultStore, RunManifest

EXPORTS = ("croissant", "hf-eval")
"""What a folder of an export may hold."""


class Listing(NamedTuple):
    """The runs of a store."""

    runs: list[RunManifest]
    """Their manifests, with the state of their cells as it is now."""
    damaged: list[str]
    """What is wrong with each manifest that cannot be read."""


def list_runs(store: str | Path | ResultStore = STORE) -> Listing:
    """Return the manifests of a store's runs; what cannot be read is named and left out.

    Args:
        store: folder or URL of results.
    """
    results = opened(store)
    listing = Listing([], [])
    for run in results.list_runs():
        try:
            listing.runs.append(refreshed(results, results.read_manifest(run)))
        except BadManifest as error:
            listing.damaged.append(str(error))
    return listing


def show_run(run: str, store: str | Path | ResultStore = STORE) -> RunManifest:
    """Return the manifest of a run, with the state of its cells as it is now."""
    results = opened(store)
    return refreshed(results, results.read_manifest(run))


def check_store(
    store: str | Path | ResultStore = STORE, runs: Sequence[str] = (), *, delete: bool = False
) -> tuple[list[str], list[Problem]]:
    """Read every part of some runs, or of all, against manifest and checksums.

    Returns:
        The names of the runs, and what is wrong with them.

    Args:
        store: folder or URL of results.
        runs: names; all if empty.
        delete: delete damaged and foreign files, which `attack` computes again. A part that another version
            wrote is reported and kept.

    Raises:
        RunError: a store without runs.
        ResultsError: a run that is not there, or whose manifest is damaged.
    """
    results = opened(store)
    names = list(runs) or results.list_runs()
    if not names:
        raise RunError(f"no runs in {results.root}: nothing to check")
    problems = list(check_runs(results, names))
    if delete:
        for problem in problems:
            discard(results, problem)
    return names, problems


def export_run(
    run: str,
    out: str | Path,
    store: str | Path | ResultStore = STORE,
    *,
    format: str | None = None,  # noqa: A002 - the option of the command
    benchmark: str | None = None,
) -> int:
    """Write all rows of a run as one file, or what catalogues read of it; return how many rows or models.

    Args:
        run: its name in the store.
        out: FILE.parquet or FILE.csv for all rows, FILE.zip for a store of this run alone; with `format` a
            folder.
        store: folder or URL of results.
        format: ``croissant``: all rows as `rows.parquet`, described by `croissant.json`; ``hf-eval``: a YAML
            file a model, its clean values and worst cases as `model-index` of a page on Hugging Face.
        benchmark: of ``hf-eval``: ORG/NAME of a benchmark data set of the hub; the files are then for the
            folder `.eval_results/` of the models.

    Raises:
        RunError: no such format, nothing stored, or a place that cannot be written to.
    """
    out, results = Path(out), opened(store)
    if format not in (None, *EXPORTS):
        raise RunError(f"--format {format}: no such format; there are {', '.join(EXPORTS)}")
    if benchmark is not None and format != "hf-eval":
        raise RunError("--benchmark goes with --format hf-eval")
    if benchmark is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+", benchmark):
        raise RunError(f"--benchmark {benchmark}: a data set of the hub is ORG/NAME")
    if format == "hf-eval":
        from iqa_harness.api.reading import aggregated
        from iqa_harness.reporting.evaluation_results import write_evaluations

        require_folder(out, "export to")
        manifest, tables = aggregated(results, run)
        return write_evaluations(manifest, tables.table, out, benchmark)
    if format == "croissant":
        from iqa_harness.stores.croissant import export_croissant

        require_folder(out, "export to")
        return export_croissant(results, run, out)
    from iqa_harness.stores.transfer import export_run as write_rows

    require_file(out, "export to")
    return write_rows(results, run, out)


def merge_runs(
    source: str, store: str | Path | ResultStore = STORE, runs: Sequence[str] = ()
) -> list[tuple[RunManifest, int]]:
    """Take runs of another machine's store into this one; a run that is in both becomes one.

    Args:
        source: another store: folder, URL, or a .zip of `export_run`.
        store: folder or URL of results.
        runs: names; all if empty.

    Returns:
        The manifest of every run, and how many of its cells are new here.
    """
    from iqa_harness.stores.transfer import merge_run, open_source

    results = opened(store)
    require_folder(str(results.root), "--store")
    with open_source(source, results) as other:
        return [merge_run(results, other, name) for name in list(runs) or other.list_runs()]


def collect_garbage(store: str | Path | ResultStore = STORE, *, delete: bool = False) -> Waste:
    """Return the cells that no run names and what killed writers left; with `delete` remove them."""
    results = opened(store)
    waste = find_waste(results)
    if delete:
        collect(results, waste)
    return waste
