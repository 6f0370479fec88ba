"""What has to be computed: cells, each named by everything that decides its content."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from iqa_attacks import Attack
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_models import QualityModel, weights_sha256
from iqa_results import SCHEMA_VERSION
from iqa_suites import Suite


@dataclass(frozen=True)
class Entrant:
    """A model under test with the name a run gives it."""

    label: str
    model: QualityModel
    checkpoint: Path | None = None

    @property
    def sha256(self) -> str:
        """Hash of card and weights, and of the source of a model that is not one of ours."""
        card = json.dumps(self.model.spec.model_dump(mode="json"), sort_keys=True)
        text = f"{card}\n{weights_sha256(self.model)}\n{_foreign_source(self.model)}"
        return hashlib.sha256(text.encode()).hexdigest()


def _foreign_source(model: QualityModel) -> str:
    """Return the hashes of the files that define a user's own model class.

    Ours are versioned with the harness, which every row names; a user's file is edited between runs, and
    a cell of its former text must not pass for a cell of the new one.
    """
    hashes = []
    for cls in type(model).__mro__:
        if cls.__module__.partition(".")[0] in ("iqa_models", "torch", "abc", "builtins"):
            continue
        try:
            source = Path(inspect.getfile(cls)).read_bytes()
        except (OSError, TypeError):
            source = cls.__qualname__.encode()  # defined in no file, as in an interactive session
        hashes.append(hashlib.sha256(source).hexdigest())
    return " ".join(hashes)


@dataclass(frozen=True)
class Cell:
    """The unit of work: model x attack at one radius x range of images. Computed whole or not at all."""

    key: str
    """sha256 of model (card, weights, a user's source), images with labels, attack, seed and schema."""
    label: str
    """Name the run gives the model."""
    model_sha256: str
    """Hash of card and weights."""
    attack_name: str
    """Attack of the suite, 'clean' for scores without attack."""
    attack: Attack | None
    """The attack at one radius, None for clean."""
    split: str
    """Split the images are of."""
    first: int
    """Position of the first image within the evaluated images of the split."""
    count: int
    """Number of images."""

    @property
    def epsilon(self) -> float:
        """Radius on pixels in [0, 1], 0 for clean."""
        return self.attack.threat.epsilon if self.attack else 0.0


@dataclass(frozen=True)
class Work:
    """A suite made concrete: its images and its cells in the order they are run."""

    suite: Suite
    images: ImageSet
    """The attacked images in evaluation order."""
    validation: ImageSet
    """The images the logistic of PLCC is fitted on; may be empty."""
    cells: tuple[Cell, ...]


def plan(suite: Suite, entrants: Sequence[Entrant], data: ImageSet) -> Work:
    """List the cells of a suite for some models.

    Raises:
        RunError: no model, two models of one name, or a split without enough images.
    """
    if not entrants:
        raise RunError("no model to attack; name at least one with --model")
    labels = [entrant.label for entrant in entrants]
    for label in labels:
        if labels.count(label) > 1:
            raise RunError(f"two models are called {label!r}; give one another name with --model NAME=...")
    images = data.split(suite.data.split)
    if suite.data.images is not None:
        if len(images) < suite.data.images:
            raise RunError(
                f"suite {suite.name!r} wants {suite.data.images} images of split {suite.data.split!r}, "
                f"{data.card.name!r} has {len(images)}"
            )
        images = images.subset(range(suite.data.images))
    if len(images) < 3:
        raise RunError(
            f"{data.card.name!r} has {len(images)} images in split {suite.data.split!r}; "
            "a correlation needs at least 3"
        )
    validation = data.split("val") if suite.data.split != "val" else data.subset([])
    cells = []
    for entrant in entrants:
        sha256 = entrant.sha256
        for split, part in (("val", validation), (suite.data.split, images)):
            cells += _cells(suite, entrant.label, sha256, "clean", None, split, part)
        for settings in suite.attacks:
            for epsilon in settings.epsilons:
                attack = settings.attack(epsilon, suite.seed)
                cells += _cells(suite, entrant.label, sha256, settings.name, attack, suite.data.split, images)
    return Work(suite, images, validation, tuple(cells))


def _cells(
    suite: Suite, label: str, sha256: str, name: str, attack: Attack | None, split: str, images: ImageSet
) -> list[Cell]:
    cells = []
    for first in range(0, len(images), suite.cell_images):
        count = min(suite.cell_images, len(images) - first)
        content = {
            "schema": SCHEMA_VERSION,
            "model": [label, sha256],
            "attack": [name, attack.kind, asdict(attack)] if attack else [name],
            "seed": suite.seed,
            "data": [images.card.name, images.fingerprint, images.card.mos_range],
            "first": first,
            "images": [
                [r.image_id, r.sha256, r.mos, r.split, r.reference, r.distortion, r.level]
                for r in (images.records[i] for i in range(first, first + count))
            ],
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()
        cells.append(Cell(key, label, sha256, name, attack, split, first, count))
    return cells
