"""Test models on data sets without attack: agreement with opinion, one row a model and set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pyarrow as pa

from iqa_harness.api.inputs import Data, Model, entrants_of, set_up
from iqa_harness.data.catalogue import open_data
from iqa_harness.evaluation.evaluate import Scoring, add_to_store, count_images, describe, name_sets
from iqa_harness.evaluation.evaluate import evaluate as run_evaluation
from iqa_harness.evaluation.store import EvaluationStore
from iqa_harness.machine.places import require_folder
from iqa_harness.machine.terminal import progress_bar

if TYPE_CHECKING:
    import pandas as pd

SHOWN = {"data": "data", "split": "split", "images": "n", "model": "model", "srocc": "SROCC", "95 %": "95 %",
         "plcc": "PLCC", "krocc": "KROCC"}  # fmt: skip
"""Columns for people, and their heads."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The table of a name: what this call found beside the rows of earlier ones."""

    rows: pa.Table
    """EVALUATION_SCHEMA: one row a model, set and split."""
    scores: pa.Table
    """SCORE_SCHEMA: one row a model and image."""
    errors: dict[tuple[str, str], str]
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

    def shown(self) -> tuple[list[tuple[str, ...]], list[str]]:
        """Return the table for people, set by set, as texts under `SHOWN`, and the notes it refers to."""
        met = self.rows.column("data").to_pylist()
        listed = sorted(self.rows.to_pylist(), key=lambda row: (met.index(row["data"]), row["split"]))
        marks: dict[str, str] = {}
        texts: list[tuple[str, ...]] = []
        former: tuple[str, ...] = ()
        for row in listed:
            # Calls with another --split put rows of other images of one set into one table.
            place = (row["data"], row["split"], f"{row['images']:,}")
            mark = "".join(marks.setdefault(note, f"({len(marks) + 1})") for note in _notes(row))
            low, high = row["srocc_low"], row["srocc_high"]
            texts.append(
                (
                    *(place if place != former else ("", "", "")),
                    f"{row['model']} {mark}".rstrip(),
                    _figure(row["srocc"]),
                    "" if low is None else f"{_figure(low)} .. {_figure(high)}",
                    _figure(row["plcc"]),
                    _figure(row["krocc"]),
                )
            )
            former = place
        return texts, [f"{mark} {note}" for note, mark in marks.items()]

    def __repr__(self) -> str:
        texts, notes = self.shown()
        widths = [max(map(len, column)) for column in zip(SHOWN.values(), *texts, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (tuple(SHOWN.values()), *texts)]
        return "\n".join([*lines, *notes])

    def _repr_html_(self) -> str:
        import html

        import pandas as pd

        texts, notes = self.shown()
        frame = pd.DataFrame(texts, columns=list(SHOWN.values()))
        return frame.to_html(index=False) + "".join(f"<p>{html.escape(note)}</p>" for note in notes)


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
    where = None if cache is None else Path(cache)
    opened = [open_data(place, cache_dir=where, progress=progress) for place in places]
    named = [
        str(place) if isinstance(place, str | Path) else images.card.name
        for place, images in zip(places, opened, strict=True)
    ]
    sets = name_sets(list(zip(named, opened, strict=True)), split, taken)
    how = Scoring(device, eot_samples, seed)
    with progress_bar("Scoring", count_images(entrants, sets), show=progress) as advance:
        found = run_evaluation(entrants, sets, evaluations, how, on_image=advance)
    joined, folder = add_to_store(found, describe(entrants, sets, how), evaluations, name)
    stored = joined.stored
    return Evaluation(stored.rows, stored.scores, found.errors, joined.left_out, folder)


def _notes(row: dict[str, object]) -> list[str]:
    """Return what must be said about a row."""
    notes = []
    if row["label"] == "pseudo-MOS":
        notes.append("labels are pseudo-MOS: for comparing models on equal terms, no human quality")
    if row["trained_on"] == "this set, divided otherwise":
        notes.append("trained on the same pictures divided otherwise: some of these may have been trained on")
    if row["trained_on"] == "this set" and row["split"] != "test":
        notes.append("images of this split were used in training")
    mapping = str(row["mapping"])
    if mapping.startswith("none"):
        notes.append("PLCC of raw scores: no logistic could be fitted")
    elif mapping != "logistic on val":
        notes.append("the logistic of PLCC was fitted on the evaluated images themselves")
    if row["undefined"]:
        notes.append(f"undefined: {row['undefined']}")
    return notes


def _figure(value: object) -> str:
    return "undefined" if value is None else f"{value:.4f}"
