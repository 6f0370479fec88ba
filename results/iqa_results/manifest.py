"""The record of a run: everything needed to understand its rows a year later."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

MANIFEST_FORMAT: Literal[1] = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelRecord(_Record):
    """One model under test, as the run saw it."""

    name: str
    """Name the run and its tables use."""
    sha256: str
    """Hash of card and weights."""
    card: dict[str, JsonValue]
    """The model's card (`ModelSpec`) in full."""
    checkpoint: str | None
    """Where the weights were read from, as the user gave it; None for a model created by name."""
    checks: dict[str, JsonValue]
    """What `check_model` measured before any attack."""


class DataRecord(_Record):
    """The images and labels, as the run saw them."""

    name: str
    """Name that tables show."""
    sha256: str
    """Fingerprint of the whole image set."""
    split: str
    """Split that was attacked."""
    images: int
    """Number of attacked images."""
    label: Literal["MOS", "pseudo-MOS"]
    """Human opinion, or a computed stand-in."""
    card: dict[str, JsonValue]
    """The data set's card in full."""


class CellRecord(_Record):
    """One cell of the plan and what became of it."""

    key: str
    """Hash of everything that decides the content; name of the Parquet part."""
    model: str
    """Name the run gave the model."""
    attack: str
    """Attack of the suite, 'clean' for scores without attack."""
    epsilon: float
    """Radius on pixels in [0, 1], 0 for clean."""
    split: str
    """Split the images are of."""
    first: int
    """Position of the first image, from 0."""
    count: int
    """Number of images."""
    status: Literal["done", "failed", "missing"]
    """Whether the part is in the store."""
    error: str | None = None
    """Why the cell failed, None otherwise."""


class Provenance(_Record):
    """Where and with what the run was made."""

    packages: dict[str, str]
    """Version of every package that can change a number."""
    python: str
    """Python version."""
    platform: str
    """Operating system and architecture."""
    device: str
    """Device the models ran on."""
    threads: int
    """Threads torch used within one operation."""
    commit: str | None
    """Commit of the harness's own checkout, None for an installed package."""
    dirty: bool | None
    """Whether that checkout had uncommitted changes."""


class RunManifest(_Record):
    """A run as a typed record, written whole at the start, at the end and at an interrupt."""

    format: Literal[1] = MANIFEST_FORMAT
    """Format of this file."""
    run: str
    """Name of the run, its folder in the store."""
    suite: str
    """Name of the suite."""
    suite_sha256: str
    """Hash of the validated suite: equal hashes are comparable runs."""
    suite_text: str
    """The suite as TOML, whole."""
    main_epsilon: float
    """Radius the leaderboard is ranked at."""
    suite_min: tuple[str, ...]
    """Members of the suite's minimum, as attack/objective."""
    step_sweep: str | None
    """Attack whose prefixes are the step sweep, None if the suite has none."""
    seed: int
    """Seed of the suite."""
    models: tuple[ModelRecord, ...]
    """Models under test."""
    data: DataRecord
    """Images and labels."""
    cells: tuple[CellRecord, ...]
    """The plan, cell by cell."""
    status: Literal["running", "interrupted", "partial", "complete"]
    """`complete` only if every cell is done."""
    started: str
    """UTC time of the first start, ISO 8601."""
    ended: str | None
    """UTC time of the last stop, None while running."""
    forwards: int
    """Model evaluations (images) of all done cells."""
    backwards: int
    """Of them with a gradient."""
    seconds: float
    """Wall time spent in the cells' attacks, all starts together."""
    provenance: Provenance
    """Where and with what the run was made."""
    notes: tuple[str, ...] = Field(default=())
    """What a reader must know (pseudo-MOS, missing transfer, ...)."""
