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
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from iqa_harness.errors import RunError
from iqa_harness.measures.correlation import Vector
from iqa_results.storage import is_name, write_whole

_TEXT, _NUMBER = pa.string(), pa.float64()

EVALUATION_SCHEMA: Final = pa.schema(
    [
        pa.field("model", _TEXT, nullable=False),
        pa.field("data", _TEXT, nullable=False),
        pa.field("split", _TEXT, nullable=False),  # train, val, test or all
        pa.field("images", pa.int64(), nullable=False),
        pa.field("label", _TEXT, nullable=False),  # MOS or pseudo-MOS
        pa.field("trained_on", _TEXT, nullable=False),  # see `evaluation.trained_on`
        pa.field("srocc", _NUMBER),
        pa.field("srocc_low", _NUMBER),  # ends of the 95 % interval of `interval`
        pa.field("srocc_high", _NUMBER),
        pa.field("plcc", _NUMBER),  # after the logistic of `mapping`
        pa.field("plcc_low", _NUMBER),
        pa.field("plcc_high", _NUMBER),
        pa.field("plcc_unmapped", _NUMBER),  # of raw scores, as papers without a logistic report it
        pa.field("krocc", _NUMBER),
        pa.field("mapping", _TEXT, nullable=False),  # what the logistic was fitted on, or none and why
        pa.field("interval", _TEXT, nullable=False),  # how intervals are made, and over what
        pa.field("undefined", _TEXT),  # why a value is missing
        pa.field("model_sha256", _TEXT, nullable=False),
        pa.field("data_sha256", _TEXT, nullable=False),
    ]
)
SCORE_SCHEMA: Final = pa.schema(
    [
        pa.field("model", _TEXT, nullable=False),
        pa.field("data", _TEXT, nullable=False),
        pa.field("split", _TEXT, nullable=False),
        pa.field("image_id", _TEXT, nullable=False),
        pa.field("mos", _NUMBER, nullable=False),  # higher is better
        pa.field("raw_label", _NUMBER, nullable=False),  # as the set's own file has it
        pa.field("score", _NUMBER, nullable=False),
    ]
)
_KEPT: Final = pa.schema(
    [pa.field("image_id", _TEXT, nullable=False), pa.field("score", _NUMBER, nullable=False)]
)


class Stored(NamedTuple):
    """An evaluation as files hold it."""

    rows: pa.Table
    """EVALUATION_SCHEMA."""
    scores: pa.Table
    """SCORE_SCHEMA."""
    manifest: dict[str, Any]
    """Models, sets and versions, as JSON values."""


class EvaluationStore:
    """The evaluations of a store; creating the object creates nothing on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root / "evaluations"

    def read_scores(self, key: str) -> Vector | None:
        """Return kept scores (n,), None if there are none or the file is damaged: they are computed again."""
        try:
            table = pq.read_table(self._scores(key), page_checksum_verification=True)
        except (OSError, pa.ArrowException):
            return None
        if not table.schema.equals(_KEPT):
            return None
        scores: Vector = table.column("score").to_numpy()
        return scores if np.isfinite(scores).all() else None

    def write_scores(self, key: str, image_ids: Sequence[str], scores: Vector) -> None:
        """Keep the scores (n,) of images."""
        table = pa.Table.from_pydict({"image_id": list(image_ids), "score": scores}, schema=_KEPT)
        self._write(self._scores(key), _parquet(table))

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

    def read(self, name: str) -> Stored | None:
        """Return the evaluation of a name, None if there is none.

        Raises:
            RunError: a bad name, or files that are damaged or of another version.
        """
        folder = self.folder(name)
        if not any((folder / file).exists() for file in ("manifest.json", "table.parquet", "scores.parquet")):
            return None
        try:
            rows, scores = (
                pq.read_table(folder / file, page_checksum_verification=True)
                for file in ("table.parquet", "scores.parquet")
            )
            manifest = json.loads((folder / "manifest.json").read_bytes())
            if not (rows.schema.equals(EVALUATION_SCHEMA) and scores.schema.equals(SCORE_SCHEMA)):
                raise ValueError("the columns are another version's")
            return Stored(rows, scores, {**manifest, "models": manifest["models"], "data": manifest["data"]})
        except (OSError, pa.ArrowException, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"the former evaluation in {folder} cannot be read ({error}), and would be lost; choose "
                "another --name, or remove that folder: the scores behind it are kept elsewhere"
            ) from error

    def write(self, name: str, stored: Stored) -> Path:
        """Write an evaluation, replacing a former one of that name file by file; return its folder."""
        folder = self.folder(name)
        rows, scores, manifest = stored
        text = io.BytesIO()
        pacsv.write_csv(rows, text)
        self._write(folder / "scores.parquet", _parquet(scores))
        self._write(folder / "table.parquet", _parquet(rows))
        self._write(folder / "table.csv", text.getvalue())
        content = json.dumps(manifest, indent=1, allow_nan=False)
        self._write(folder / "manifest.json", f"{content}\n".encode())
        return folder

    def _scores(self, key: str) -> Path:
        return self.root / "scores" / key[:2] / f"{key}.parquet"

    def _write(self, path: Path, content: bytes) -> None:
        write_whole(path, content)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, write_page_checksum=True)
    return buffer.getvalue()
