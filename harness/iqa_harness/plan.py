"""What has to be computed: cells, each named by everything that decides its content."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from iqa_attacks import Attack
from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import RunError
from iqa_models import QualityModel, weights_sha256
from iqa_results import SCHEMA_VERSION
from iqa_suites import OwnAttackSettings, Suite


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
class Surrogate:
    """Where the examples of a transfer cell come from."""

    label: str
    """Name the run gives the surrogate."""
    cell: str
    """Key of the surrogate's own cell, whose attack finds them."""
    objective: str
    """Objective of that attack."""


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
    """Attack of the suite, 'clean' for scores without attack, 'NAME:SURROGATE' for a transfer."""
    attack: Attack | None
    """The attack at one radius, None for clean; of a transfer the one that runs on the surrogate."""
    split: str
    """Split the images are of."""
    first: int
    """Position of the first image within the evaluated images of the split."""
    count: int
    """Number of images."""
    seed: int = 0
    """Seed of the suite."""
    draws: int | None = None
    """Evaluations averaged into a stored score of a stochastic model, None for one."""
    surrogate: Surrogate | None = None
    """Whose examples are scored, None for an attack on the model itself."""
    gradient: bool = False
    """Whether a clean cell measures the input gradient too: on the evaluated split."""

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
        RunError: no model, two models of one name, a split without enough images, a transfer with one
            model, or a stochastic model in a suite without EOT.
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
    _require_possible(suite, entrants)
    cells: list[Cell] = []
    sha256 = {entrant.label: entrant.sha256 for entrant in entrants}
    for entrant in entrants:
        clean = _Row(suite, entrant, sha256[entrant.label], "clean", None)
        for split, part in (("val", validation), (suite.data.split, images)):
            cells += [clean.cell(part, split, first) for first in range(0, len(part), suite.cell_images)]
    for entrant in entrants:
        for settings in suite.own_attacks:
            cells += _attack_cells(suite, settings, entrant, entrants, sha256, images)
    return Work(suite, images, validation, tuple(cells))


def _attack_cells(
    suite: Suite,
    settings: OwnAttackSettings,
    entrant: Entrant,
    entrants: Sequence[Entrant],
    sha256: Mapping[str, str],
    images: ImageSet,
) -> list[Cell]:
    """List the cells of one attack on one model, each followed by those that try its examples on others."""
    cells = []
    split, draws = suite.data.split, _draws(suite, entrant)
    transfers = [t for t in suite.transfers if t.source[0] == settings.name]
    for epsilon in settings.epsilons:
        attack = settings.attack(epsilon, suite.seed, draws)
        own = _Row(suite, entrant, sha256[entrant.label], settings.name, attack)
        for first in range(0, len(images), suite.cell_images):
            cell = own.cell(images, split, first)
            cells.append(cell)
            # Right behind the cell that finds the examples, so that they are found once.
            for transfer in transfers:
                surrogate = Surrogate(entrant.label, cell.key, transfer.source[1])
                name = f"{transfer.name}:{entrant.label}"
                cells += [
                    _Row(suite, target, sha256[target.label], name, attack, surrogate).cell(
                        images, split, first
                    )
                    for target in entrants
                    if target is not entrant
                ]
    return cells


def _require_possible(suite: Suite, entrants: Sequence[Entrant]) -> None:
    if suite.transfers and len(entrants) < 2:
        raise RunError(
            f"suite {suite.name!r} tries the examples of every model on every other one "
            f"({suite.transfers[0].name!r}): name at least two models with --model"
        )
    for entrant in entrants:
        if entrant.model.is_stochastic and suite.eot_samples is None:
            raise RunError(
                f"model {entrant.label!r} is stochastic: an attack must average its draws (EOT), or it would "
                f"overstate robustness; set eot_samples in suite {suite.name!r}"
            )


def _draws(suite: Suite, entrant: Entrant) -> int | None:
    return suite.eot_samples if entrant.model.is_stochastic else None


@dataclass(frozen=True)
class _Row:
    """The cells of one model and attack, over all ranges of images."""

    suite: Suite
    entrant: Entrant
    sha256: str
    name: str
    attack: Attack | None
    surrogate: Surrogate | None = None

    def cell(self, images: ImageSet, split: str, first: int) -> Cell:
        """Return the cell of the images from `first` on, named by everything that decides its content."""
        suite, label, attack = self.suite, self.entrant.label, self.attack
        count = min(suite.cell_images, len(images) - first)
        draws = _draws(suite, self.entrant)
        gradient = attack is None and split == suite.data.split
        content = {
            "schema": SCHEMA_VERSION,
            "model": [label, self.sha256],
            "attack": [self.name, attack.kind, asdict(attack)] if attack else [self.name],
            "surrogate": asdict(self.surrogate) if self.surrogate else None,
            "seed": suite.seed,
            "draws": draws,
            "gradient": gradient,
            "data": [images.card.name, images.fingerprint, images.card.mos_range],
            "first": first,
            "images": [
                [r.image_id, r.sha256, r.mos, r.split, r.reference, r.distortion, r.level]
                for r in (images.records[i] for i in range(first, first + count))
            ],
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        key = hashlib.sha256(text.encode()).hexdigest()
        return Cell(
            key, label, self.sha256, self.name, attack, split, first, count, suite.seed, draws,
            self.surrogate, gradient,
        )  # fmt: skip
