"""Clean agreement of models with opinion on several data sets: train on one, test on the others.

Scores are those a run stores as clean scores: each image alone, in eval mode. They are kept in the store, so
that an interrupted evaluation goes on and a further model or set costs itself only.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from iqa_attacks import AttackError, stored_score
from iqa_harness.cells.compute import to_tensor
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evaluation.store import EVALUATION, SCORE, Evaluation, EvaluationStore, ImageScore
from iqa_harness.measures.bootstrap import Bootstrap
from iqa_harness.measures.correlation import MIN_FIT, Fit, Vector, fit_logistic, krocc, plcc, srocc
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


class EvaluationTable(NamedTuple):
    """What an evaluation found."""

    rows: pa.Table
    """EVALUATION_SCHEMA: one row a model and set."""
    scores: pa.Table
    """SCORE_SCHEMA: one row a model and image."""
    errors: dict[tuple[str, str], str]
    """(model, set) to why there are no scores."""


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


def evaluate(
    entrants: Sequence[Entrant],
    sets: Sequence[DataUnderTest],
    store: EvaluationStore,
    *,
    device: str = "cpu",
    draws: int | None = None,
    seed: int = 0,
    on_image: Callable[[str, str], None] = lambda model, data: None,
) -> EvaluationTable:
    """Score every set with every model and compute the table.

    A model that cannot score a set (its images are too small, say) gets a row that is undefined with the
    reason; the others go on.

    Args:
        entrants: the models, with names of their own.
        sets: from `name_sets`.
        store: where scores are kept.
        device: torch device.
        draws: evaluations averaged into a score of a stochastic model.
        seed: of those draws and of the bootstrap.
        on_image: told after every image, stored ones included: model and set.

    Raises:
        RunError: two models of one name, or a stochastic model without `draws`.
        DataError: an image cannot be read.
    """
    _refuse(entrants, draws)
    rows: list[Evaluation] = []
    scores: list[ImageScore] = []
    errors: dict[tuple[str, str], str] = {}
    for entrant in entrants:
        model = entrant.model.to(device).eval()
        sha256 = entrant.sha256
        wanted = draws if model.is_stochastic else None
        scorer = _Scorer(model, sha256, entrant.label, device, wanted, seed, store, on_image)
        for data in sets:
            row = _row(entrant, sha256, data)
            try:
                values = scorer.scores(data.evaluated, data.name)
                validation = data.validation
                on_val = (
                    None if validation is None else (scorer.scores(validation, data.name), validation.labels)
                )
            except (ModelError, AttackError) as error:
                errors[entrant.label, data.name] = str(error)
                rows.append(row._replace(undefined=str(error)))
                continue
            rows.append(row._replace(**_agreement(values, data.evaluated, on_val, seed)))
            scores += _scores(entrant.label, data, values)
    return EvaluationTable(EVALUATION.to_table(rows), SCORE.to_table(scores), errors)


class _Scorer(NamedTuple):
    """A model with what decides its scores and where they are kept."""

    model: QualityModel
    sha256: str
    label: str
    device: str
    draws: int | None
    seed: int
    store: EvaluationStore
    on_image: Callable[[str, str], None]

    def scores(self, images: ImageSet, data: str) -> Vector:
        """Return the scores (n,) of a set's images, computing those that are not kept yet."""
        starts = range(0, len(images), KEPT_TOGETHER)
        parts = [
            self._part(images.subset(range(start, min(start + KEPT_TOGETHER, len(images)))), data)
            for start in starts
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def _part(self, images: ImageSet, data: str) -> Vector:
        key = self._key(images)
        kept = self.store.read_scores(key)
        if kept is not None:
            for _ in images.records:
                self.on_image(self.label, data)
            return kept
        values = np.empty(len(images))
        for index, record in enumerate(images.records):
            pixels = to_tensor(images.read(index), self.device)
            values[index] = stored_score(
                self.model, pixels, seed=self.seed, image_id=record.image_id, draws=self.draws
            )
            self.on_image(self.label, data)
        self.store.write_scores(key, [record.image_id for record in images.records], values)
        return values

    def _key(self, images: ImageSet) -> str:
        """Return the name of the scores of some images: a hash of all that decides them, labels left out."""
        pixels = [[record.image_id, record.sha256] for record in images.records]
        seed = None if self.draws is None else self.seed
        content = [PROTOCOL, self.sha256, images.transform, pixels, self.draws, seed]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def count_images(entrants: Sequence[Entrant], sets: Sequence[DataUnderTest]) -> int:
    """Return how often `evaluate` calls `on_image` if nothing fails."""
    each = sum(len(data.evaluated) + len(data.validation or ()) for data in sets)
    return len(entrants) * each


def _refuse(entrants: Sequence[Entrant], draws: int | None) -> None:
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
    """Return how a set stands to what a checkpoint was trained on, as far as its card says.

    `this set`: the same images, labels and splits. `this set, divided otherwise`: a set of that name, but its
    test images may have been trained on. `another set`: the cross-data-set case. Empty: not known.
    """
    if entrant.checkpoint is None:
        return ""
    training = read_card(entrant.checkpoint).training
    if training.get("data_fingerprint") == images.fingerprint:
        return "this set"
    name = training.get("data")
    if not isinstance(name, str):
        return ""
    same = _family(images.card.name) == _family(name)
    return "this set, divided otherwise" if same else "another set"


def _family(name: str) -> str:
    """Return the name by which sets of the same pictures go: embedded sets share their photographs."""
    return "demo" if name in ("demo", "demo-core", "smoke") else re.split(r"[/:?@]", name)[0]


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


def describe(
    entrants: Sequence[Entrant], sets: Sequence[DataUnderTest], draws: int | None, seed: int
) -> dict[str, Any]:
    """Return what a reader of the table must know about models and sets, as JSON values."""
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
        "eot_samples": draws,
        "seed": seed,
    }
