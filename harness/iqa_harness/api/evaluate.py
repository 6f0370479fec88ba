"""Test models on data sets without attack: agreement with opinion, one row a model and set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from iqa_harness.api.inputs import Data, Model, entrants_of, set_up
from iqa_harness.data.catalogue import open_data
from iqa_harness.entrants.foreign import measure_cards
from iqa_harness.evaluation.evaluate import Scoring, add_to_store, count_images, name_sets
from iqa_harness.evaluation.evaluate import evaluate as run_evaluation
from iqa_harness.evaluation.store import EvaluationStore
from iqa_harness.evaluation.table import evaluation_view
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.places import require_folder
from iqa_harness.machine.terminal import progress_bar
from iqa_reports import TableView, html_table, table_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The table of a name: what this call found beside the rows of earlier ones."""

    rows: pa.Table
    """EVALUATION_SCHEMA: one row a model, set and split."""
    scores: pa.Table
    """SCORE_SCHEMA: one row a model and image."""
    errors: Mapping[tuple[str, str], str]
    """(model, set) to why there are no scores."""
    left_out: tuple[str, ...]
    """Former rows that could not stay, in words."""
    folder: Path
    """Of ``table.csv``, ``table.parquet``, ``scores.parquet`` and ``manifest.json``."""

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        frame: pd.DataFrame = self.rows.to_pandas()
        return frame

    @property
    def view(self) -> TableView:
        """The table as people see it, set by set, with what its numbers must not be taken for."""
        return evaluation_view(self.rows)

    def __repr__(self) -> str:
        return table_text(self.view)

    def _repr_html_(self) -> str:
        return html_table(self.view)


@own_threads
def evaluate(
    models: Model | Sequence[Model],
    data: Data | Sequence[Data],
    *,
    split: Literal["train", "val", "test", "all"] = "test",
    name: str = "evaluation",
    store: Path | str = "iqa-store",
    device: str = "cpu",
    threads: int | None = None,
    eot_samples: int | None = None,
    seed: int = 0,
    cache: Path | str | None = None,
    backbone_weights: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
) -> Evaluation:
    """Test models on data sets without attack: SROCC, PLCC after a logistic, KROCC, one row a model and set.

    Scores are kept in the store: an interrupted evaluation goes on, and one more model or set costs itself
    only. Rows of earlier calls with this name stay in the table. Every keyword is an option of
    `iqa-harness evaluate`, hence their number.

    Args:
        models: one or more models, by name, by folder, or as objects.
        data: one or more sets, by name or open.
        split: images the numbers are of: train, val, test or all.
        name: table in the store that the rows go to.
        store: folder of the table and of kept scores.
        device: torch device.
        threads: threads within one operation, by default torch's own.
        eot_samples: draws averaged for a stochastic model.
        seed: of the bootstrap intervals and of such draws.
        cache: root of the cache of data.
        backbone_weights: file of pretrained trunk weights, for models created by name.
        plugins: Python files of yours that register models; they are run.
        progress: report on stderr.

    Returns:
        The table; a model that could not score a set has an undefined row, and stands in `errors`.

    Raises:
        RunError: two models of one name, a set given twice or with too few images, a damaged table, a
            stochastic model without `eot_samples`, a folder or device that cannot be used.
        DataError: images that are not there or cannot be used.
        ModelError: a model that cannot be made.
    """
    require_folder(store, "--store")
    set_up(device, threads, plugins)
    evaluations = EvaluationStore(Path(store))
    former = evaluations.read(name)  # a bad name, or a damaged table, is refused before anything is computed
    entrants = entrants_of(models, store, backbone_weights=backbone_weights, plugins=plugins, tell=progress)
    taken = {card["name"]: card["sha256"] for card in former.manifest["data"]} if former else {}
    # A list of pairs (path, MOS) is one set.
    single = not isinstance(data, list | tuple) or any(isinstance(item, tuple) for item in data)
    places: list[Data] = [data] if single else list(data)  # type: ignore[arg-type, list-item]
    opened = [open_data(place, cache_dir=cache, progress=progress) for place in places]
    entrants = measure_cards(entrants, opened[0] if split == "all" else opened[0].split(split), device)
    named = [
        str(place) if isinstance(place, str | Path) else images.card.name
        for place, images in zip(places, opened, strict=True)
    ]
    sets = name_sets(list(zip(named, opened, strict=True)), split, taken)
    how = Scoring(device, eot_samples, seed)
    with progress_bar("Scoring", count_images(entrants, sets), show=progress) as advance:
        found = run_evaluation(entrants, sets, evaluations, how, on_image=advance)
    stored, left_out, folder = add_to_store(found, evaluations, name)
    return Evaluation(stored.rows, stored.scores, found.errors, left_out, folder)
