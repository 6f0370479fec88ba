"""A baseline: what a run's models scored, image by image, small enough to be kept beside the code.

A folder with two files, each written whole or not at all, the record with a hash of the scores::

    baseline.json     Baseline: suite, data, models, noise floors
    scores.parquet    BASELINE_SCHEMA: one row a (model, row, attack, objective, image)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from iqa_results.errors import BadManifest, BadPart
from iqa_results.manifest import Provenance, Record
from iqa_results.manifest_file import load_json, validated
from iqa_results.parquet import read_parquet, write_parquet
from iqa_results.schema import BASELINE, BASELINE_SCHEMA
from iqa_results.storage import write_whole

BASELINE_FORMAT: Literal[1] = 1

SCORES = "scores.parquet"


class BaselineModel(Record):
    """One model of a baseline."""

    name: str
    """Name the run gave it; a run is compared by these names."""
    sha256: str
    """Hash of card and weights."""
    verdict: str
    """sound, suspect, incomplete or invalid."""
    flags: tuple[str, ...]
    """Raised flags."""
    gradients: str | None = None
    """How its gradients were computed, in words; None in a baseline that does not say."""


class NoiseFloor(Record):
    """How far repeated runs of the same thing lie apart in one value."""

    model: str
    row: str
    attack: str
    objective: str
    metric: str
    floor: float
    """Largest absolute difference between any two of the runs."""
    runs: int
    """Number of runs it was measured from."""


class Baseline(Record):
    """What a run is compared with."""

    format: Literal[1] = BASELINE_FORMAT
    name: str
    """Name of the baseline."""
    run: str
    """Run it was saved from."""
    suite: str
    """Name of the suite."""
    suite_sha256: str
    """Its hash: equal hashes are comparable runs."""
    data: str
    """Name of the image set."""
    data_sha256: str
    """Its fingerprint."""
    split: str
    """Evaluated split."""
    images: int
    """Number of images."""
    label: str
    """MOS or pseudo-MOS."""
    main_epsilon: float
    """Radius of the attacks kept."""
    suite_min: tuple[str, ...]
    """Members of the minimum, as attack/objective."""
    seed: int = Field(ge=0)
    """Seed of the suite, and of the bootstrap."""
    models: tuple[BaselineModel, ...]
    """The models, by name."""
    noise: tuple[NoiseFloor, ...] = ()
    """Measured noise floors; empty until calibrated."""
    provenance: Provenance
    """Where and with what the run was made."""
    scores_sha256: str | None = None
    """Hash of scores.parquet; None in a baseline of the first edition, whose two files nothing ties."""


def save_baseline(folder: Path, baseline: Baseline, rows: Iterable[Any] | None) -> None:
    """Write a baseline; without rows only its record (after a calibration).

    Raises:
        BadPart: the rows do not fit BASELINE_SCHEMA.
    """
    if rows is not None:
        table = BASELINE.to_table(rows, f"baseline {baseline.name}")
        scores = write_parquet(folder / SCORES, table)
        baseline = baseline.model_copy(update={"scores_sha256": _hash(scores)})
    text = json.dumps(baseline.model_dump(mode="json"), indent=1, allow_nan=False) + "\n"
    write_whole(folder / "baseline.json", text.encode())


def load_baseline(folder: Path) -> tuple[Baseline, pa.Table]:
    """Read a baseline: its record and its scores.

    Raises:
        BadManifest: no baseline there, or its record is damaged or of another format.
        BadPart: its scores are damaged, or are not those the record was saved with.
    """
    path = folder / "baseline.json"
    if not path.is_file():
        raise BadManifest(f"{path}: no such baseline; `iqa-harness baseline save` makes one")
    baseline = validated(Baseline, load_json(path.read_bytes(), str(path)), str(path))
    scores = read_parquet(folder / SCORES, BASELINE_SCHEMA)
    if baseline.scores_sha256 not in (None, _hash(folder / SCORES)):
        raise BadPart(
            f"{folder / SCORES}: not the scores that {path} was saved with; save the baseline again"
        )
    return baseline, scores


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
