"""Clean agreement of models with opinion on several data sets: train on one, test on the others.

Scores are those a run stores as clean scores, see `iqa_harness.cells.scoring`. They are kept in the store, so
that an interrupted evaluation goes on and a further model or set costs itself only.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqa_attacks import AttackError
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.scoring import scored_together, stored_scores
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evaluation.store import EVALUATION, SCORE, Evaluated, Evaluation, EvaluationStore, ImageScore
from iqa_harness.evaluation.table import join
from iqa_harness.evidence.stored_scores import difference, some
from iqa_harness.machine.devices import out_of_memory
from iqa_harness.machine.provenance import collect_provenance
from iqa_harness.measures.bootstrap import Bootstrap
from iqa_harness.measures.correlation import MIN_FIT, Fit, Vector, fit_logistic, krocc, plcc, srocc
from iqa_harness.training.checkpoints import has_seen
from iqa_models import ModelError, QualityModel
from iqa_models.checkpoint import read_card

PROTOCOL: Final = 1
"""Raise it with every change that can change a stored score."""
KEPT_TOGETHER: Final = 256
"""Images whose scores are kept in one file: what an interrupt can cost at the most."""
_DRAWN: Final = 4_000_000
"""Numbers a bootstrap draws at the most, so that its memory does not grow with the set."""


class DataUnderTest(NamedTuple):
    """One column of the cross-data-set table."""

    name: str
    """Name tables show, unlike that of any other set of the evaluation."""
    images: ImageSet
    """The whole set; the logistic is fitted on its validation split if it has one."""
    split: str
    """train, val, test, or all."""

    @property
    def evaluated(self) -> ImageSet:
        """The images the numbers are of."""
        return self.images if self.split == "all" else self.images.split(self.split)

    @property
    def validation(self) -> ImageSet | None:
        """The images the logistic is fitted on; None if they are too few or are evaluated themselves."""
        if self.split in ("val", "all"):
            return None
        val = self.images.split("val")
        return val if len(val) >= MIN_FIT else None


def name_sets(
    opened: Sequence[tuple[str, ImageSet]], split: str, taken: Mapping[str, str] | None = None
) -> list[DataUnderTest]:
    """Give every set a name of its own and see that there is something to evaluate.

    Args:
        opened: what the user wrote, and the set it opened as.
        split: train, val, test, or all.
        taken: names that sets of earlier evaluations have, with their fingerprints.

    Raises:
        RunError: a set given twice, or one with fewer than three images in the split.
    """
    named: list[DataUnderTest] = []
    taken = taken or {}
    for text, images in opened:
        name = images.card.name
        if any(other.images.fingerprint == images.fingerprint for other in named):
            raise RunError(f"--data {text}: this set is given twice")
        former = taken.get(name, images.fingerprint)
        if former != images.fingerprint or any(other.name == name for other in named):
            name = f"{name}@{images.fingerprint[:8]}"
        under = DataUnderTest(name, images, split)
        if len(under.evaluated) < 3:
            raise RunError(
                f"--data {text}: {len(under.evaluated)} images in split {split!r}, at least 3 are needed; "
                "choose another --split, or write ?split=all behind a public set"
            )
        named.append(under)
    return named


@dataclass(frozen=True)
class Scoring:
    """How a model is evaluated."""

    device: str = "cpu"
    """Torch device."""
    draws: int | None = None
    """Evaluations averaged into a score of a stochastic model."""
    seed: int = 0
    """Of those draws, and of the bootstrap."""


class NoScore(RunError):
    """A model gave no score that can be used: which image, and why."""


def evaluate(
    entrants: Sequence[Entrant],
    sets: Sequence[DataUnderTest],
    store: EvaluationStore,
    how: Scoring | None = None,
    *,
    on_image: Callable[[], None] = lambda: None,
) -> Evaluated:
    """Score every set with every model and compute the table.

    A model that cannot score a set (its images are too small or too large for the memory, its code raises,
    equal images get unequal scores, kept scores are no longer its own) gets a row that is undefined with the
    reason; the others go on.

    Args:
        entrants: the models, with names of their own.
        sets: from `name_sets`.
        store: where scores are kept.
        how: device, draws and seed.
        on_image: told after every image, stored ones included.

    Raises:
        RunError: two models of one name, or a stochastic model without draws.
        DataError: an image cannot be read.
    """
    how = how or Scoring()
    refuse_unusable(entrants, how.draws)
    rows: list[Evaluation] = []
    scores: list[ImageScore] = []
    errors: dict[tuple[str, str], str] = {}
    for entrant in entrants:
        scorer = _Scorer(entrant.model, entrant.sha256, how, store, on_image)
        for data in sets:
            row = _row(entrant, scorer.sha256, data)
            try:
                with in_use(entrant.model, how.device):
                    values = scorer.scores(data.evaluated)
                    validation = data.validation
                    on_val = (scorer.scores(validation), validation.labels) if validation else None
            except NoScore as error:
                errors[entrant.label, data.name] = str(error)
                rows.append(row._replace(undefined=str(error)))
                continue
            rows.append(row._replace(**_agreement(values, data.evaluated, on_val, how.seed)))
            scores += _scores(entrant.label, data, values)
    made = describe(entrants, sets, how)
    return Evaluated(EVALUATION.to_table(rows), SCORE.to_table(scores), made, errors)


@contextmanager
def in_use(model: QualityModel, device: str) -> Iterator[None]:
    """Keep a model on a device and in eval mode; behind the block it is where and as it was.

    So the next model finds the device's memory free, and a caller's own model stays as it is.

    Raises:
        NoScore: the model does not fit there.
    """
    former, training = next(model.buffers()).device, model.training  # the card's mean is a buffer
    try:
        model.to(device).eval()
    except RuntimeError as error:
        model.to(former).train(training)
        raise NoScore(f"{device} cannot hold the model: {_reason(error)}") from error
    try:
        yield
    finally:
        model.to(former).train(training)


Pixels = NDArray[np.uint8] | Tensor
"""One image: uint8 RGB (H, W, 3), or floats (3, H, W) in [0, 1]."""


def score_images(
    model: QualityModel, images: Sequence[Pixels], ids: Sequence[str], how: Scoring
) -> list[float]:
    """Return a model's scores of some images, each as a run stores it.

    Args:
        model: in eval mode on the device.
        images: the images.
        ids: names the images; a stochastic model's draws come from them.
        how: draws and seed.

    Raises:
        NoScore: whatever went wrong in the model with the first image that has no score, its name before it.
    """
    draws = how.draws if model.is_stochastic else None
    try:
        tensors = [x.to(how.device) if isinstance(x, Tensor) else to_tensor(x, how.device) for x in images]
        return stored_scores(model, tensors, ids, seed=how.seed, draws=draws)
    except Exception as error:  # a user's own model may raise anything
        if len(images) == 1:
            ran_out = f"memory of {how.device} ran out ({_reason(error)})"
            raise NoScore(f"{ids[0]}: {ran_out if out_of_memory(error) else _reason(error)}") from error
    return [score_images(model, [x], [name], how)[0] for x, name in zip(images, ids, strict=True)]


def refuse_random(model: QualityModel, pixels: Pixels, image_id: str, how: Scoring, former: float) -> None:
    """Score an image again, as the check `repeatable` of a run does.

    Raises:
        NoScore: the score is not the former one: the model draws at random, and no card or seed knows.
    """
    (again,) = score_images(model, [pixels], [image_id], how)
    if again != former:
        low, high = model.spec.score_range
        raise NoScore(
            f"{image_id}: two evaluations differ by {abs(again - former) / (high - low):.2g} of the score "
            "range: the model draws at random; draw from torch's global generators and say is_stochastic on "
            "its card"
        )


def _reason(error: Exception) -> str:
    """Return the first line of an error, with its type where the harness did not raise it."""
    first = (str(error) or "no message").split("\n", 1)[0]
    return first if isinstance(error, ModelError | AttackError) else f"{type(error).__name__}: {first}"


class _Scorer(NamedTuple):
    """A model with what decides its scores and where they are kept."""

    model: QualityModel
    sha256: str
    how: Scoring
    store: EvaluationStore
    on_image: Callable[[], None]

    def scores(self, images: ImageSet) -> Vector:
        """Return the scores (n,) of a set's images, computing those that are not kept yet."""
        again = set(some(range(len(images))))
        parts = []
        for start in range(0, len(images), KEPT_TOGETHER):
            places = range(start, min(start + KEPT_TOGETHER, len(images)))
            parts.append(self._part(images.subset(places), [i - start for i in places if i in again]))
        return np.concatenate(parts) if parts else np.empty(0)

    def _part(self, images: ImageSet, again: Sequence[int]) -> Vector:
        """Return the scores of images whose scores are kept together.

        Raises:
            NoScore: no score of one, or kept ones are not the model's at the places to be scored `again`.
        """
        key = self._key(images)
        kept = self.store.read_scores(key)
        if kept is not None:
            for place in again:
                image_id = images.records[place].image_id
                (now,) = score_images(self.model, [images.read(place)], [image_id], self.how)
                words = difference(self.model.spec, image_id, now, kept[place], self.store.root)
                if words is not None:
                    raise NoScore(f"the model {words}")
            for _ in images.records:
                self.on_image()
            return kept
        values = np.empty(len(images))
        ids = [record.image_id for record in images.records]
        together = scored_together(self.how.device)
        for first in range(0, len(images), together):
            some_ids = ids[first : first + together]
            pixels = [images.read(first + i) for i in range(len(some_ids))]
            values[first : first + together] = score_images(self.model, pixels, some_ids, self.how)
            if first == 0:
                refuse_random(self.model, pixels[0], ids[0], self.how, values[0])
            for _ in pixels:
                self.on_image()
        self.store.write_scores(key, ids, values)
        return values

    def _key(self, images: ImageSet) -> str:
        """Return the name of the scores of some images: a hash of all that decides them, labels left out."""
        pixels = [[record.image_id, record.sha256] for record in images.records]
        draws = self.how.draws if self.model.is_stochastic else None
        seed = None if draws is None else self.how.seed
        content = [PROTOCOL, self.sha256, images.transform, pixels, draws, seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def count_images(entrants: Sequence[Entrant], sets: Sequence[DataUnderTest]) -> int:
    """Return how often `evaluate` calls `on_image` if nothing fails."""
    each = sum(len(data.evaluated) + len(data.validation or ()) for data in sets)
    return len(entrants) * each


def refuse_unusable(entrants: Sequence[Entrant], draws: int | None) -> None:
    """Refuse what no evaluation can be made of.

    Raises:
        RunError: two models of one name, or a stochastic model without draws.
    """
    labels = [entrant.label for entrant in entrants]
    for entrant in entrants:
        if labels.count(entrant.label) > 1:
            raise RunError(f"two models are called {entrant.label!r}; write LABEL=... before one of them")
        if entrant.model.is_stochastic and draws is None:
            raise RunError(
                f"model {entrant.label!r} is stochastic: one evaluation of an image is an accident; say how "
                "many to average with --eot-samples"
            )


def _row(entrant: Entrant, sha256: str, data: DataUnderTest) -> Evaluation:
    return Evaluation(
        model=entrant.label,
        data=data.name,
        split=data.split,
        images=len(data.evaluated),
        label=data.images.card.label,
        trained_on=trained_on(entrant, data.images),
        model_sha256=sha256,
        data_sha256=data.images.fingerprint,
    )


def trained_on(entrant: Entrant, images: ImageSet) -> str:
    """Return how a set stands to what a checkpoint was trained on: see `has_seen`; empty without one."""
    return "" if entrant.checkpoint is None else has_seen(read_card(entrant.checkpoint).training, images)


def _agreement(
    values: Vector, images: ImageSet, on_val: tuple[Vector, Vector] | None, seed: int
) -> dict[str, Any]:
    """Return the metric columns of a row."""
    labels = images.labels
    fit: Fit = fit_logistic(*(on_val or (values, labels)))
    mapped = fit.logistic(values) if fit.logistic else values
    measured = {
        "srocc": srocc(values, labels),
        "plcc": plcc(mapped, labels, mapped=fit.logistic is not None),
        "plcc_unmapped": plcc(values, labels),
        "krocc": krocc(values, labels),
    }
    resamples = max(200, min(1000, _DRAWN // len(labels)))
    references = [record.reference for record in images.records]
    bootstrap = Bootstrap(labels, references, resamples=resamples, seed=seed)
    ends = {
        "srocc": bootstrap.replicates(measured["srocc"], values, "srocc").interval(),
        "plcc": bootstrap.replicates(measured["plcc"], mapped, "plcc").interval(),
    }
    where = "val" if on_val else "the evaluated images"
    reasons = [value.undefined for value in measured.values() if value.undefined]
    return {
        **{name: value.value for name, value in measured.items()},
        **{f"{name}_low": end.low for name, end in ends.items()},
        **{f"{name}_high": end.high for name, end in ends.items()},
        "interval": bootstrap.label(),
        "mapping": f"logistic on {where}" if fit.logistic else f"none: {fit.detail}",
        "undefined": reasons[0] if reasons else None,
    }


def _scores(label: str, data: DataUnderTest, values: Vector) -> Iterator[ImageScore]:
    part = data.evaluated
    for index, (record, score) in enumerate(zip(part.records, values, strict=True)):
        place = (label, data.name, record.split, record.image_id)
        yield ImageScore(*place, record.mos, part.raw_label(index), float(score))


def describe(entrants: Sequence[Entrant], sets: Sequence[DataUnderTest], how: Scoring) -> dict[str, Any]:
    """Return what a reader of the table must know about models, sets and this call, as JSON values."""
    return {
        "models": [
            {
                "name": entrant.label,
                "sha256": entrant.sha256,
                "checkpoint": None if entrant.checkpoint is None else str(Path(entrant.checkpoint)),
                "card": entrant.card.model_dump(mode="json"),
            }
            for entrant in entrants
        ],
        "data": [
            {
                "name": data.name,
                "sha256": data.images.fingerprint,
                "split": data.split,
                "images": len(data.evaluated),
                "label": data.images.card.label,
                "card": data.images.card.as_json(),
            }
            for data in sets
        ],
        "eot_samples": how.draws,
        "seed": how.seed,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "provenance": collect_provenance(how.device, torch.get_num_threads()).model_dump(mode="json"),
    }


def add_to_store(
    found: Evaluated, store: EvaluationStore, name: str
) -> tuple[Evaluated, tuple[str, ...], Path]:
    """Write what was found to the table of a name, beside earlier rows; see `join`; return its folder, too.

    Raises:
        RunError: what is there under the name is damaged.
    """
    # Read again: another evaluation of this name may have ended meanwhile.
    stored, left_out = join(store.read(name), found)
    return stored, left_out, store.write(name, stored)
