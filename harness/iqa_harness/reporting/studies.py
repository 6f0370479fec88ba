"""Results of other commands than `attack`: checkpoints that were judged after training, and evaluations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from iqa_harness.reporting.results import Identity, identify_card, shared
from iqa_harness.training.figures import FIGURES
from iqa_models import BadCheckpoint
from iqa_models.checkpoint import read_card
from iqa_reports.inputs.frames import Result

METRICS = ("srocc", "plcc", "krocc")
JUDGED = ("test", "val")
"""Splits a checkpoint's own figures are of; the first that is there is shown."""


class _Split(BaseModel):
    split: str
    images: int = 0
    srocc: float | None = None
    plcc: float | None = None
    krocc: float | None = None


class _Figures(BaseModel):
    """What of a training's figures is read."""

    weights_sha256: str | None = None
    data: str = ""
    splits: list[_Split] = []


def checkpoint_results(folder: Path) -> list[tuple[Identity, Result]]:
    """Return what a training folder says its checkpoint came to, without attack; nothing if it does not.

    The figures are those `iqa-harness train` and `study` leave beside the checkpoint, of these weights.
    """
    try:
        card = read_card(folder)
        figures = _Figures.model_validate_json((folder / FIGURES).read_bytes())
    except (BadCheckpoint, OSError, ValueError):
        return []
    found = next((part for name in JUDGED for part in figures.splits if part.split == name), None)
    if found is None or figures.weights_sha256 != card.weights_sha256:
        return []
    identity = identify_card(card.model.model_dump(mode="json"), card.training, card.weights_sha256)
    place = {"data": figures.data, "split": found.split, "images": found.images}
    values = {metric: getattr(found, metric) for metric in METRICS if metric in found.model_fields_set}
    return [
        (identity, _result(run_name(folder), identity, **place, metric=metric, value=value))
        for metric, value in values.items()
    ]


def run_name(folder: Path) -> str:
    """Return what a training folder's run is called: its name, and LABEL.seedN for ``LABEL/seed-N``.

    That is what a study's attacks call it; every row of a study has a seed-0.
    """
    seed = re.fullmatch(r"seed-(\d+)", folder.name)
    label = folder.resolve().parent.name
    return f"{label}.seed{seed[1]}" if seed and label else folder.name


def is_evaluation(table: pa.Table) -> bool:
    """Whether this is the table of `iqa-harness evaluate`: a row a model and set, metrics side by side."""
    return {"model", "data", "split", "images", "trained_on", *METRICS} <= set(table.column_names)


def evaluation_results(table: pa.Table) -> list[Result]:
    """Return the rows of an evaluation's table, one a metric.

    The table says of a set how it stands to the one a model was trained on; the set that is its own gives
    the name.
    """
    rows = table.to_pylist()
    own = {row["model"]: row["data"] for row in rows if str(row["trained_on"]).startswith("this set")}
    return [
        _result(
            row["model"],
            None,
            data=row["data"],
            split=row["split"],
            images=row["images"],
            metric=metric,
            value=row[metric],
            low=row.get(f"{metric}_low"),
            high=row.get(f"{metric}_high"),
            undefined=row.get("undefined"),
            trained_on=own.get(row["model"], row["trained_on"] or None),
        )
        for row in rows
        for metric in METRICS
    ]


def _result(model: str, identity: Identity | None, **fields: Any) -> Result:
    undefined = None if fields["value"] is not None else fields.get("undefined") or "not computed"
    place = {"suite": "", "row": "clean", "attack": "", "objective": "", "norm": "none", "epsilon": 0.0}
    return Result(**{"model": model, **shared(identity), **place, **fields, "undefined": undefined})
