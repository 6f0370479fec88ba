"""What has to be computed: cells, each named by everything that decides its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from iqa_attacks import EVALUATED, Attack, Learner, MinimumNorm, unsaid
from iqa_harness.cells.possible import require_possible, require_sizes
from iqa_harness.cells.ranges import Ranges, canonical
from iqa_harness.cells.universal import TrainedAttacks, training_images
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.defended import bare_label
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_models.registry import did_you_mean
from iqa_results import SCHEMA_VERSION, Selection, selection_words
from iqa_suites import EnsembleSettings, OwnAttackSettings, Suite

EVERYTHING = Selection()


@dataclass(frozen=True)
class Surrogate:
    """Where the examples of a transfer cell come from."""

    label: str
    """Name the run gives the surrogate."""
    cell: str
    """Key of the surrogate's own cell, whose attack finds them."""
    objective: str | None
    """Objective of that attack, None for all of them and the ends of all scores."""


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
    """Attack of the suite, 'clean' for scores without attack, 'NAME:SURROGATE' for examples of another."""
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
    ensemble: tuple[tuple[str, str], ...] = ()
    """Names and hashes of the models on whose mean the attack runs, none for an attack on one model."""
    gradient: bool = False
    """Whether a clean cell measures the input gradient too: on the evaluated split."""
    jpeg_qualities: tuple[int, ...] = ()
    """JPEG qualities at which examples are scored once more."""
    trained: TrainedAttacks | None = field(default=None, compare=False, repr=False)
    """Trains the attack; None for one that needs no training."""

    @property
    def epsilon(self) -> float:
        """Radius on pixels in [0, 1], 0 for clean."""
        return self.attack.threat.epsilon if self.attack else 0.0

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the models that the attack runs on."""
        if self.ensemble:
            return tuple(label for label, _ in self.ensemble)
        return (self.surrogate.label if self.surrogate else self.label,)

    @property
    def objective(self) -> str | None:
        """The one objective whose examples of other models are tried, None for all of an attack."""
        if self.surrogate is not None:
            return self.surrogate.objective
        return self.attack.create_objectives()[0].name if self.attack and self.ensemble else None

    @property
    def transferred(self) -> bool:
        """Whether its examples were found on other models than the one that they are tried on."""
        return self.surrogate is not None or bool(self.ensemble)

    @property
    def family(self) -> str:
        """Name of the attack in the suite, without the surrogate of a transfer."""
        return self.attack_name.partition(":")[0]


def choose(images: ImageSet, selection: Selection) -> ImageSet:
    """Return the chosen images.

    Raises:
        RunError: an id that is not among them, or a limit below 1.
    """
    if selection.images:
        place = {record.image_id: i for i, record in enumerate(images.records)}
        for image_id in selection.images:
            if image_id not in place:
                near = did_you_mean(image_id, list(place))
                raise RunError(f"no image {image_id!r} among the {len(images)} of the suite{near}")
        images = images.subset(sorted({place[image_id] for image_id in selection.images}))
    if selection.limit is not None:
        if selection.limit < 1:
            raise RunError(f"a limit of images must be at least 1, not {selection.limit}")
        images = images.subset(range(min(selection.limit, len(images))))
    return images


@dataclass(frozen=True)
class Work:
    """A suite made concrete: its images and its cells in the order they are run."""

    suite: Suite
    images: ImageSet
    """The attacked images in evaluation order."""
    validation: ImageSet
    """The images the logistic of PLCC is fitted on; may be empty."""
    cells: tuple[Cell, ...]
    chosen: Selection | None = None
    """How they were chosen from the suite's images; None for all."""
    chosen_from: int | None = None
    """Number of the suite's images."""
    training: Mapping[str, ImageSet] = field(default_factory=dict)
    """By split, the images that attacks are trained on."""
    rivals: Sequence[Rival] = ()
    """The models as the cells' keys name them: from these another process lists the same cells."""

    @property
    def selection(self) -> str | None:
        """Which of the suite's images these are, in words; None for all."""
        chosen = self.chosen
        return selection_words(chosen, len(self.images), self.chosen_from) if chosen else None

    def images_of(self, split: str) -> ImageSet:
        """Return the images that cells of a split are of."""
        return self.images if split == self.suite.data.split else self.validation


def plan(
    suite: Suite, entrants: Sequence[Entrant], data: ImageSet, selection: Selection = EVERYTHING
) -> Work:
    """List the cells of a suite for some models.

    Raises:
        RunError: no model, two models of one name, a split without enough images, a transfer with one
            model, a stochastic model in a suite without EOT, a selection of images that are not there, or an
            image of a size that a model cannot take.
    """
    if not entrants:
        raise RunError("no model to attack; name at least one with --model")
    labels = [entrant.label for entrant in entrants]
    for label in labels:
        if labels.count(label) > 1:
            raise RunError(f"two models are called {label!r}; give one another name with --model NAME=...")
    require_possible(suite, entrants)
    rivals = [
        Rival(
            e.label,
            e.sha256,
            draws_of(suite, e.model.is_stochastic),
            bare_label(e, entrants),
            e.model.spec.has_gradient,
        )
        for e in entrants
    ]
    work = plan_rivals(suite, rivals, data, selection)
    require_sizes(entrants, work.images)
    return work


def plan_rivals(
    suite: Suite, rivals: Sequence[Rival], data: ImageSet, selection: Selection = EVERYTHING
) -> Work:
    """List the cells of a suite for models that need not be at hand, as their records name them.

    Raises:
        RunError: a split without enough images, or a selection of images that are not there.
    """
    images = data.split(suite.data.split)
    if suite.data.images is not None:
        if len(images) < suite.data.images:
            raise RunError(
                f"suite {suite.name!r} wants {suite.data.images} images of split {suite.data.split!r}, "
                f"{data.card.name!r} has {len(images)}"
            )
        images = images.subset(range(suite.data.images))
    total, images = len(images), choose(images, selection)
    if len(images) < 3:
        raise RunError(
            f"{data.card.name!r} has {len(images)} images in split {suite.data.split!r}; "
            "a correlation needs at least 3"
        )
    validation = data.split("val") if suite.data.split != "val" else data.subset([])
    training = training_images(suite, data, images)
    cells = list_cells(suite, rivals, images, validation, TrainedAttacks(training))
    chosen = None if len(images) == total else selection
    return Work(suite, images, validation, tuple(cells), chosen, total, training, tuple(rivals))


def list_cells(
    suite: Suite,
    rivals: Sequence[Rival],
    images: ImageSet,
    validation: ImageSet,
    trained: TrainedAttacks | None = None,
) -> list[Cell]:
    """List the cells of a suite in the order they are run.

    Args:
        suite: what is run.
        rivals: the models.
        images: the attacked images.
        validation: those the logistic is fitted on.
        trained: trains attacks that need it; without it such a cell cannot be computed.
    """
    ranges = {s: Ranges(suite, i, s) for s, i in (("val", validation), (suite.data.split, images))}
    cells: list[Cell] = []
    for rival in rivals:
        clean = _Row(suite, rival, "clean", None)
        cells += [clean.cell(part, split, first) for split, part in ranges.items() for first in part.firsts]
    for rival in rivals:
        # On a black box those that need no gradient.
        for settings in suite.own_attacks:
            if rival.has_gradient or not settings.attack_class.needs_gradient:
                cells += _attack_cells(suite, settings, rival, rivals, ranges[suite.data.split], trained)
    for rival in rivals:
        cells += _ensemble_cells(suite, rival, rivals, ranges[suite.data.split])
    return cells


def draws_of(suite: Suite, is_stochastic: bool) -> int | None:
    """Return how many evaluations make a score of a model, None for one."""
    return suite.eot_samples if is_stochastic else None


class CellRef(NamedTuple):
    """What a task says of a cell: another process has it in its own plan."""

    key: str
    label: str
    attack_name: str
    first: int

    @classmethod
    def of(cls, cell: Cell) -> CellRef:
        """Name a cell."""
        return cls(cell.key, cell.label, cell.attack_name, cell.first)


class Rival(NamedTuple):
    """What of a model is in its cells' keys."""

    label: str
    sha256: str
    draws: int | None
    """`draws_of` it."""
    bare: str | None = None
    """Name of the model of the run that it is with defences before it; None for no such model."""
    has_gradient: bool = True
    """Whether attacks that need its gradient are run."""


def _attack_cells(
    suite: Suite,
    settings: OwnAttackSettings,
    rival: Rival,
    rivals: Sequence[Rival],
    images: Ranges,
    trained: TrainedAttacks | None,
) -> list[Cell]:
    """List the cells of one attack on one model, each followed by those that try its examples on others.

    These are the models that defend this one, who made them knowing of no defence, and those of a transfer.
    """
    cells = []
    split, images = suite.data.split, images.of(settings)
    transfers = [
        t for t in suite.transfers if t.source[0] == settings.name and not isinstance(t, EnsembleSettings)
    ]
    for epsilon in settings.epsilons:
        attack = settings.attack(epsilon, suite.seed, rival.draws)
        own = _Row(suite, rival, settings.name, attack, trained=trained)
        for first in images.firsts:
            cell = own.cell(images, split, first)
            cells.append(cell)
            # Right behind the cell that finds the examples, so that they are found once.
            # What a model is moved by least, or just so far, says nothing of another.
            if settings.kind not in ("noise", MinimumNorm.kind):
                unaware, name = Surrogate(rival.label, cell.key, None), f"{settings.name}:{rival.label}"
                cells += [
                    _Row(suite, target, name, attack, unaware, trained).cell(images, split, first)
                    for target in rivals
                    if target.bare == rival.label
                ]
            for transfer in transfers:
                surrogate = Surrogate(rival.label, cell.key, transfer.source[1])
                name = f"{transfer.name}:{rival.label}"
                cells += [
                    _Row(suite, target, name, attack, surrogate, trained).cell(images, split, first)
                    for target in rivals
                    if target is not rival
                ]
    return cells


def _ensemble_cells(suite: Suite, rival: Rival, rivals: Sequence[Rival], images: Ranges) -> list[Cell]:
    """List the cells that try on a model what was found on the mean of those that are nothing of it."""
    own = rival.bare or rival.label
    others = [r for r in rivals if r.has_gradient and (r.bare or r.label) != own]
    if len(others) < 2:
        return []
    drawn = max(r.draws or 0 for r in others) or None
    members = tuple((r.label, r.sha256) for r in others)
    cells = []
    for settings in (t for t in suite.transfers if isinstance(t, EnsembleSettings)):
        name, objective = settings.source
        source = next(o for o in suite.own_attacks if o.name == name)
        mine = images.of(source)
        for epsilon in source.epsilons:
            attack = replace(source.attack(epsilon, suite.seed, drawn), objectives=(objective,))
            row = _Row(suite, rival, settings.name, attack, ensemble=members)
            cells += [row.cell(mine, suite.data.split, first) for first in mine.firsts]
    return cells


class _Row:
    """The cells of one model and attack, over all ranges of images."""

    def __init__(
        self,
        suite: Suite,
        rival: Rival,
        name: str,
        attack: Attack | None,
        surrogate: Surrogate | None = None,
        trained: TrainedAttacks | None = None,
        ensemble: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.suite, self.rival, self.name, self.attack, self.surrogate = suite, rival, name, attack, surrogate
        self.ensemble = ensemble
        self.trained = trained if isinstance(attack, Learner) else None
        # What all cells of a row have in common is written once: a plan may hold a hundred thousand.
        self._common = {
            "attack": canonical([name, attack.kind, _settings(attack)] if attack else [name]),
            "draws": canonical(rival.draws),
            "jpeg": canonical(suite.jpeg_qualities),
            "model": canonical([rival.label, rival.sha256]),
            "schema": canonical(SCHEMA_VERSION),
            "seed": canonical(suite.seed),
            "surrogate": canonical(asdict(surrogate) if surrogate else None),
        }
        if ensemble:
            self._common["ensemble"] = canonical(ensemble)

    def cell(self, ranges: Ranges, split: str, first: int) -> Cell:
        """Return the cell of the images from `first` on, named by everything that decides its content."""
        suite, rival = self.suite, self.rival
        gradient = self.attack is None and split == suite.data.split
        content = {
            **self._common,
            "data": ranges.data,
            "first": canonical(first),
            "gradient": canonical(gradient),
            "images": ranges.text(first),
        }
        if isinstance(self.attack, Learner) and self.attack.lesson.split == EVALUATED:
            content["evaluated"] = canonical(ranges.every)
        text = "{" + ",".join(f'"{name}":{part}' for name, part in sorted(content.items())) + "}"
        return Cell(
            hashlib.sha256(text.encode()).hexdigest(),
            rival.label,
            rival.sha256,
            self.name,
            self.attack,
            split,
            first,
            ranges.count(first),
            suite.seed,
            rival.draws,
            self.surrogate,
            self.ensemble,
            gradient,
            suite.jpeg_qualities,
            self.trained,
        )


def _settings(attack: Attack) -> dict[str, object]:
    settings = asdict(attack)
    return {name: settings[name] for name in settings.keys() - unsaid(type(attack), settings)}
