"""Evaluations on disk, each file written whole or not at all.

Layout under the store's root::

    evaluations/scores/<first two digits of key>/<key>.parquet   scores of one model on one list of images
    evaluations/<name>/table.parquet, table.csv                   EVALUATION_SCHEMA
    evaluations/<name>/scores.parquet                             SCORE_SCHEMA
    evaluations/<name>/manifest.json                              models, data cards, versions
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from iqa_harness.errors import RunError
from iqa_harness.measures.correlation import Vector
from iqa_reports.formats.csv_table import write_csv
from iqa_results import ResultsError, TableSchema, read_parquet, write_parquet, write_whole
from iqa_results.manifest_file import load_json
from iqa_results.storage import is_name


class Evaluation(NamedTuple):
    """One model on one set."""

    model: Annotated[str, "name of the model"]
    data: Annotated[str, "name of the image set"]
    split: Annotated[str, "train, val, test or all"]
    images: Annotated[int, "number of images"]
    label: Annotated[str, "MOS or pseudo-MOS"]
    trained_on: Annotated[str, "how the set stands to what the checkpoint was trained on; '' if not known"]
    srocc: Annotated[float | None, "of raw scores; null if undefined"] = None
    srocc_low: Annotated[float | None, "lower end of its 95 % interval"] = None
    srocc_high: Annotated[float | None, "upper end of it"] = None
    plcc: Annotated[float | None, "after the logistic of `mapping`; null if undefined"] = None
    plcc_low: Annotated[float | None, "lower end of its 95 % interval"] = None
    plcc_high: Annotated[float | None, "upper end of it"] = None
    plcc_unmapped: Annotated[float | None, "of raw scores, as papers without a logistic report it"] = None
    krocc: Annotated[float | None, "of raw scores; null if undefined"] = None
    mapping: Annotated[str, "what the logistic was fitted on, or none and why"] = "none"
    interval: Annotated[str, "how intervals are made, and over what; '' without one"] = ""
    undefined: Annotated[str | None, "why a value is missing"] = None
    model_sha256: Annotated[str, "hash of card and weights"] = ""
    data_sha256: Annotated[str, "fingerprint of the image set"] = ""


class ImageScore(NamedTuple):
    """The score of one image by one model."""

    model: Annotated[str, "name of the model"]
    data: Annotated[str, "name of the image set"]
    split: Annotated[str, "split of the image"]
    image_id: Annotated[str, "id of the image in its set"]
    mos: Annotated[float, "label, higher is better"]
    raw_label: Annotated[float, "label as the set's own file has it"]
    score: Annotated[float, "score, higher is better"]


class _Kept(NamedTuple):
    image_id: Annotated[str, "id of the image in its set"]
    score: Annotated[float, "score, higher is better"]


EVALUATION: Final = TableSchema(Evaluation)
SCORE: Final = TableSchema(ImageScore)
EVALUATION_SCHEMA: Final = EVALUATION.arrow
SCORE_SCHEMA: Final = SCORE.arrow
_KEPT: Final = TableSchema(_Kept)


class _Model(BaseModel):
    name: str


class _Data(BaseModel):
    name: str
    split: str
    sha256: str


class _Call(BaseModel):
    rows: list[tuple[str, ...]]


class _Manifest(BaseModel):
    """What of a manifest is read again; the rest is kept as it is."""

    models: list[_Model]
    data: list[_Data]
    earlier: list[_Call] = []


class Evaluated(NamedTuple):
    """An evaluation: as it was found, and as files hold it."""

    rows: pa.Table
    """EVALUATION_SCHEMA."""
    scores: pa.Table
    """SCORE_SCHEMA."""
    manifest: dict[str, Any]
    """Models, sets and versions, as JSON values."""
    errors: Mapping[tuple[str, str], str] = {}
    """(model, set) to why there are no scores; in files the row says it."""


class EvaluationStore:
    """The evaluations of a store; creating the object creates nothing on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root / "evaluations"

    def read_scores(self, key: str) -> Vector | None:
        """Return kept scores (n,), None if there are none or the file is damaged: they are computed again."""
        try:
            table = read_parquet(self._scores(key), _KEPT.arrow)
        except (OSError, ResultsError):
            return None
        scores: Vector = table.column("score").to_numpy()
        return scores if np.isfinite(scores).all() else None

    def write_scores(self, key: str, image_ids: Sequence[str], scores: Vector) -> None:
        """Keep the scores (n,) of images."""
        rows = [_Kept(*row) for row in zip(image_ids, scores, strict=True)]
        write_parquet(self._scores(key), _KEPT.to_table(rows))

    def folder(self, name: str) -> Path:
        """Return the folder of an evaluation.

        Raises:
            RunError: the name could leave the store, or is taken by the store itself.
        """
        if not is_name(name) or name == "scores":
            raise RunError(
                "an evaluation's name is letters, digits, '.', '_' and '-' (at most 100), and not 'scores': "
                f"{name!r}"
            )
        return self.root / name

    def read(self, name: str) -> Evaluated | None:
        """Return the evaluation of a name, None if there is none.

        Raises:
            RunError: a bad name, or files that are damaged or of another version.
        """
        folder = self.folder(name)
        if not any((folder / file).exists() for file in ("manifest.json", "table.parquet", "scores.parquet")):
            return None
        try:
            rows = read_parquet(folder / "table.parquet", EVALUATION_SCHEMA)
            scores = read_parquet(folder / "scores.parquet", SCORE_SCHEMA)
            manifest = load_json((folder / "manifest.json").read_bytes(), str(folder / "manifest.json"))
            _Manifest.model_validate(manifest)
            return Evaluated(rows, scores, manifest)
        except (OSError, ResultsError, ValueError) as error:
            raise RunError(
                f"the former evaluation in {folder} cannot be read ({error}), and would be lost; choose "
                "another --name, or remove that folder: the scores behind it are kept elsewhere"
            ) from error

    def write(self, name: str, stored: Evaluated) -> Path:
        """Write an evaluation, replacing a former one of that name file by file; return its folder."""
        folder = self.folder(name)
        rows, scores, manifest, _ = stored
        text = io.StringIO()
        write_csv(text, [EVALUATION.names, *EVALUATION.rows(rows)])
        write_parquet(folder / "scores.parquet", scores)
        write_parquet(folder / "table.parquet", rows)
        write_whole(folder / "table.csv", text.getvalue().encode())
        content = json.dumps(manifest, indent=1, allow_nan=False)
        write_whole(folder / "manifest.json", f"{content}\n".encode())
        return folder

    def _scores(self, key: str) -> Path:
        return self.root / "scores" / key[:2] / f"{key}.parquet"
