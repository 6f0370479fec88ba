"""A model on a set of images: score intervals first, then what its correlations cannot fall below."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from iqa_attacks import ThreatModel
from iqa_attacks.certificates.intervals import Drawing, ScoreIntervals, certify_scores
from iqa_attacks.errors import NoCertificate
from iqa_harness.cells.compute import to_tensor
from iqa_harness.data.image_set import ImageSet
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.evaluation.evaluate import in_use
from iqa_harness.measures.certified_plcc import plcc_floor
from iqa_harness.measures.certified_srocc import Floor, srocc_floor
from iqa_harness.measures.correlation import METRICS, Logistic, Metric, Vector, plcc, srocc
from iqa_results import Certificate


class Judged(NamedTuple):
    """What a certificate is held against: labels, clean scores, and the ends that attacks reached."""

    mos: Vector
    clean: Vector
    logistic: Logistic | None
    """The frozen map before PLCC; None for raw scores."""
    reached: tuple[Vector, Vector] | None = None
    """Lowest and highest score any attack found; None if nobody attacked."""


class Certified(NamedTuple):
    """A model's floors in one threat model, and the intervals they follow from."""

    rows: tuple[Certificate, ...]
    """One a metric."""
    intervals: ScoreIntervals | None
    """None where there is no certificate."""


# What is certified, in what, by what; then where it is computed and what is told on the way.
def certify_set(
    entrant: Entrant,
    images: ImageSet,
    judged: Judged,
    threat: ThreatModel,
    drawing: Drawing,
    *,
    device: str = "cpu",
    on_image: Callable[[], None] = lambda: None,
) -> Certified:
    """Return floors under a model's SROCC and PLCC over all admissible images of a set.

    A model without a certificate has rows that say why.

    Args:
        entrant: the model.
        images: the set, in the order of the labels.
        judged: labels, clean scores, the logistic, what attacks reached.
        threat: norm and radius.
        drawing: for a smoothed model.
        device: torch device; only smoothing computes there.
        on_image: told after each image.
    """
    blank = Certificate(
        model=entrant.label, model_sha256=entrant.sha256, norm=threat.norm, epsilon=threat.epsilon,
        metric="", images=0, clean=None, value=None, exact=False, method="", confidence=None,
        outside=None, undefined=None,
    )  # fmt: skip
    ids = [record.image_id for record in images.records]
    try:
        with in_use(entrant.model, device):
            tensors = (to_tensor(images.read(i), device) for i in range(len(images)))
            found = certify_scores(entrant.model, tensors, ids, threat, drawing, on_image=on_image)
    except NoCertificate as error:
        for _ in ids:
            on_image()
        rows = [blank._replace(metric=m, clean=_clean(judged, m), undefined=str(error)) for m in METRICS]
        return Certified(tuple(rows), None)
    rows = []
    for metric in METRICS:
        floor = _floor(found, judged, metric)
        rows.append(
            blank._replace(
                metric=metric, images=len(images), clean=_clean(judged, metric), value=floor.value.value,
                exact=floor.exact, method=found.method, confidence=found.confidence,
                outside=_outside(found, judged), undefined=floor.value.undefined,
            )
        )  # fmt: skip
    return Certified(tuple(rows), found)


def _floor(found: ScoreIntervals, judged: Judged, metric: Metric) -> Floor:
    if metric == "srocc":
        return srocc_floor(found.low, found.high, judged.mos)
    # The logistic rises, so an interval's ends stay its ends.
    low, high = _mapped(judged, found.low), _mapped(judged, found.high)
    return plcc_floor(np.minimum(low, high), high, judged.mos)


def _mapped(judged: Judged, scores: Vector) -> Vector:
    return scores if judged.logistic is None else judged.logistic(scores)


def _clean(judged: Judged, metric: Metric) -> float | None:
    if metric == "srocc":
        return srocc(judged.clean, judged.mos).value
    return plcc(_mapped(judged, judged.clean), judged.mos).value


def _outside(found: ScoreIntervals, judged: Judged) -> int | None:
    """Count the images that attacks moved out of their interval."""
    if judged.reached is None:
        return None
    lowest, highest = judged.reached
    return int(((lowest < found.low) | (highest > found.high)).sum())
