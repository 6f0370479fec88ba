"""Is everything in a store whole, and what does no run need?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from iqa_harness.machine.scratch import abandoned
from iqa_results import (
    BadPart,
    CellRecord,
    OtherVersion,
    ResultStore,
    RunManifest,
    leftovers,
)


class Problem(NamedTuple):
    """Something wrong with a store."""

    run: str
    key: str
    kind: str
    """`missing`, `damaged`, `foreign` (whole, but not what the manifest says) or `version` (whole, but
    written by another version of the schema)."""
    detail: str
    examples: bool = False
    """Whether it is the cell's kept images that are wrong; its rows otherwise."""


def check_runs(store: ResultStore, runs: Sequence[str]) -> Iterator[Problem]:
    """Read every part and every kept image of some runs and yield what is wrong.

    A part must be there, pass its checksums, hold rows of its own key, and be of the model, images and
    attack that the manifest says; a cell that the manifest calls failed or missing is no problem.

    Raises:
        UnknownRun, BadManifest: a run that is not there, or whose manifest is damaged.
    """
    examples = store.example_sizes()
    for run in runs:
        manifest = store.read_manifest(run)
        hashes = {model.name: model.sha256 for model in manifest.models}
        for cell in manifest.cells:
            if cell.status == "done":
                problem = _check_cell(store, manifest, cell, hashes)
                if problem is not None:
                    yield Problem(run, cell.key, *problem)
            if cell.key in examples:
                try:
                    store.read_examples(cell.key)
                except BadPart as error:
                    yield Problem(run, cell.key, _kind(error), str(error), examples=True)


def discard(store: ResultStore, problem: Problem) -> bool:
    """Delete what a problem makes useless, so that it is computed again; return whether there was any.

    Rows and kept images go each for a problem of their own: whole images of a cell whose rows are damaged
    stay, they name their own cell. What another version wrote is whole too, and stays: that version can
    still read it.
    """
    if problem.kind in ("missing", "version"):
        return False
    path = store.examples_path(problem.key) if problem.examples else store.cell_path(problem.key)
    path.unlink(missing_ok=True)
    return True


def _check_cell(
    store: ResultStore, manifest: RunManifest, cell: CellRecord, hashes: dict[str, str]
) -> tuple[str, str] | None:
    if not store.has_cell(cell.key):
        return "missing", f"{store.cell_path(cell.key)}: no such file"
    try:
        part = store.read_cell(cell.key)
    except BadPart as error:
        return _kind(error), str(error)
    expected = {
        "model": cell.model,
        "model_sha256": hashes[cell.model],
        "data_sha256": manifest.data.sha256,
        "attack": cell.attack,
        "split": cell.split,
    }
    for column, value in expected.items():
        found = part.column(column).unique().to_pylist()
        if found != [value]:
            return "foreign", f"{column} is {', '.join(map(str, found))}, the manifest says {value}"
    places = part.column("position").unique().to_pylist()
    if sorted(places) != list(range(cell.first, cell.first + cell.count)):
        return "foreign", f"{len(places)} images, the manifest says {cell.count} from {cell.first}"
    return None


def _kind(error: BadPart) -> str:
    """Return the kind of a file that could not be read: `version` if every page of it is whole."""
    return "version" if isinstance(error, OtherVersion) else "damaged"


class Waste(NamedTuple):
    """What no run of a store needs."""

    cells: dict[str, int]
    """Bytes of parts and examples by key."""
    fragments: list[Path]
    """What killed processes left: files, and folders of temporary things."""
    bytes: int
    """Of all of it."""


def find_waste(store: ResultStore) -> Waste:
    """Return the cells that no manifest names, and what killed writers left more than a day ago.

    Raises:
        BadManifest: a manifest cannot be read, so nobody knows what its run needs.
    """
    sizes: dict[str, int] = {}
    for found in (store.cell_sizes(), store.example_sizes()):
        for key, size in found.items():
            sizes[key] = sizes.get(key, 0) + size
    # Manifests are read last: a run that starts meanwhile writes its own before any cell.
    needed = {cell.key for run in store.list_runs() for cell in store.read_manifest(run).cells}
    cells = {key: size for key, size in sizes.items() if key not in needed}
    fragments = [*leftovers(store.root), *(abandoned(store.root) if isinstance(store.root, Path) else ())]
    files = [file for path in fragments for file in (path, *path.rglob("*")) if file.is_file()]
    return Waste(cells, fragments, sum(cells.values()) + sum(file.stat().st_size for file in files))


def collect(store: ResultStore, waste: Waste) -> None:
    """Delete what no run needs."""
    for key in waste.cells:
        store.delete_cell(key)
    for path in waste.fragments:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
