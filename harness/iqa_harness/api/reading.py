"""Stored runs read, aggregated and gathered for a report."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from iqa_harness.api.inputs import compute_as, entrants_of_run, images_of_run
from iqa_harness.errors import RunError
from iqa_harness.evidence.flags import FLAGS
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.places import require_folder
from iqa_harness.reporting.inputs import read_inputs
from iqa_harness.reporting.results import results_of
from iqa_harness.reporting.runs import CERTIFICATES
from iqa_harness.reporting.worst_images import check_count, worst_images
from iqa_harness.running.ledger import refreshed
from iqa_harness.tables.robustness import RobustnessTable, robustness_table, stored_tables
from iqa_reports import Inputs, StoredRun
from iqa_results import ResultStore, RunManifest, write_whole


def aggregated(store: ResultStore, run: str) -> tuple[RunManifest, RobustnessTable]:
    """Return a run's manifest as the store has it now, and its tables, which are kept in the store.

    Tables that are there and would be made again as they are, are read. Others are made anew from the rows;
    in a store that cannot be written to they stay in memory.
    """
    manifest = refreshed(store, store.read_manifest(run))
    tables = stored_tables(store, manifest)
    if tables is None:
        tables = robustness_table(store, manifest)
        try:
            require_folder(str(store.root), "--store")
        except RunError:
            return manifest, tables
        tables.write(store, run)
    return manifest, tables


@own_threads
def gather(
    store: ResultStore,
    runs: Sequence[StoredRun],
    inputs: Sequence[Path] = (),
    *,
    published: bool = False,
    images: int = 0,
    cache: Path | str | None = None,
    plugged: bool = False,
) -> Inputs:
    """Return everything a report shows: runs, other files, worst images; plugins were run before."""
    stored = list(runs)
    frames = read_inputs(inputs)
    if images:
        check_count(images, stored)
        for place, run in enumerate(stored):
            entrants = entrants_of_run(run.manifest, plugged=plugged)
            data = images_of_run(run.manifest, None, cache)
            compute_as(run.manifest)  # or another path's picture may stand beside the stored score
            worst = worst_images(store, run, entrants, data, images)
            stored[place] = dataclasses.replace(run, triptychs=worst)
    if inputs or len(stored) > 1:
        frames["results"] = results_of(stored, frames.get("results", ()), frames.get("costs", ()))
    return Inputs(stored, frames, published=published, explanations=explanations())


def explanations() -> dict[str, str]:
    """Return a paragraph on every flag."""
    return {name: kind.meaning for name, kind in FLAGS.items()}


def drawn_page(store: ResultStore, run: str, tables: RobustnessTable) -> Path | None:
    """Return the page in a run's own folder if it was drawn from just these tables, None if it was not."""
    page, note = report_folder(store, run) / "index.html", _note_of(store, run)
    if not (page.is_file() and note.is_file()):
        return None
    return page if note.read_bytes() == _made_from(store, run, tables) else None


def note_page(store: ResultStore, run: str, tables: RobustnessTable) -> None:
    """Write down, of the page just drawn in a run's own folder, which tables it was drawn from."""
    write_whole(_note_of(store, run), _made_from(store, run, tables))


def _made_from(store: ResultStore, run: str, tables: RobustnessTable) -> bytes:
    """Name what a page is drawn from: the tables, and certificates where there are any."""
    floors = store.read_rows(run, CERTIFICATES)
    added = f" {hashlib.sha256(repr(floors).encode()).hexdigest()}" if floors else ""
    return f"{tables.made_from}{added}".encode()


def _note_of(store: ResultStore, run: str) -> Path:
    return report_folder(store, run) / ".made-from"


def report_folder(store: ResultStore, run: str) -> Path:
    """Return where a run's report goes: in a local store beside its tables, else in the working folder."""
    root = store.root
    return root / "runs" / run / "report" if isinstance(root, Path) else Path("iqa-reports") / run


def teller(progress: bool) -> Callable[[str], None]:
    """Return what tells a person something on standard error, or nobody."""
    from iqa_harness.machine.terminal import say

    return (lambda text: say(text, err=True)) if progress else lambda text: None
