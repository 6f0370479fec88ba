"""Scores that are stored: in passes of one fixed size, so that nothing else in a pass touches a score.

How many images share a pass decides how sums are rounded. A score that is stored therefore always comes
from a pass of as many images as its device takes, filled up with copies where there are fewer: it is the same
number whatever cell, order, worker or command asks for it. Memory that does not hold a whole pass is the
only exception: a rounding, against no score at all.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import torch
from torch import Tensor

from iqa_attacks import AttackFailed, score, stored_score
from iqa_harness.machine.devices import out_of_memory, same_kernels
from iqa_models import QualityModel

ON_A_GPU, ON_A_CPU = 64, 1
"""Images in a pass. A CPU is busy with one, and large images in one pass leave its caches."""


def scored_together(device: torch.device | str) -> int:
    """Return how many images share a pass on a device; no option changes it."""
    return ON_A_GPU if torch.device(device).type == "cuda" else ON_A_CPU


def stored_scores(
    model: QualityModel,
    images: Sequence[Tensor],
    ids: Sequence[str],
    *,
    seed: int,
    draws: int | None,
    together: int | None = None,
) -> list[float]:
    """Return the scores of some images, each as if it were the only one.

    Args:
        model: in eval mode.
        images: (3, H, W) each, of any sizes, on the model's device.
        ids: the image that each is a version of; draws of a stochastic model come from it.
        seed: of such draws.
        draws: evaluations averaged for a stochastic model, which sees one image at a time; None for others.
        together: images in a pass, None for what the device takes.

    Raises:
        AttackFailed: a score is not finite; `image` says whose.
    """
    if not images:
        return []
    device = images[0].device
    with same_kernels(device):
        if draws is None:
            return _in_full_passes(model, images, together or scored_together(device))
        pairs = zip(images, ids, strict=True)
        return [stored_score(model, x, seed=seed, image_id=name, draws=draws) for x, name in pairs]


def _in_full_passes(model: QualityModel, images: Sequence[Tensor], full: int) -> list[float]:
    sizes: dict[torch.Size, list[int]] = {}
    for place, image in enumerate(images):
        sizes.setdefault(image.shape, []).append(place)
    scores = [0.0] * len(images)
    parts = [
        places[first : first + full] for places in sizes.values() for first in range(0, len(places), full)
    ]
    for part in parts:
        copies = [part[-1]] * (full - len(part))
        try:
            found = _one_pass(model, torch.stack([images[place] for place in [*part, *copies]]))
        except AttackFailed as error:
            if error.image is not None:
                error.image = part[min(error.image, len(part) - 1)]
            raise
        for place, value in zip(part, found, strict=False):  # the copies' scores are dropped
            scores[place] = value
    return scores


class Scorer:
    """Stored scores of one model, for one cell: the same pixels of an image are scored once.

    What an attack says of its examples is scored here, too; it is mostly those very pixels that are stored.
    At half a grey level what 8 bits hold is the clean image again, and an attack may find nothing better than
    its start.
    """

    def __init__(self, model: QualityModel, *, seed: int, draws: int | None) -> None:
        """Take a model in eval mode, and how a stochastic one is drawn (`stored_scores`)."""
        self._model, self._seed, self._draws = model, seed, draws
        self._known: dict[tuple[str, bytes], float] = {}
        self._weights: dict[torch.Size, Tensor] = {}
        """Of a device's digests, (2, numbers) int64 a size: who knew them could make two images' equal."""

    def of(self, images: Sequence[Tensor], ids: Sequence[str]) -> list[float]:
        """Return the scores of images (3, H, W).

        Raises:
            AttackFailed: as `stored_scores`.
        """
        if self._draws is not None:
            return stored_scores(self._model, images, ids, seed=self._seed, draws=self._draws)
        keys = list(zip(ids, self._digests(images), strict=True))
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._known}
        if new:
            names = [name for name, _ in new]
            try:
                found = stored_scores(self._model, list(new.values()), names, seed=self._seed, draws=None)
            except AttackFailed as error:
                if error.image is not None:
                    error.image = keys.index(list(new)[error.image])
                raise
            self._known |= dict(zip(new, found, strict=True))
        return [self._known[key] for key in keys]

    def _digests(self, images: Sequence[Tensor]) -> list[bytes]:
        """Return what tells pixels apart; a device computes it itself, and is read once."""
        shapes = [str(tuple(image.shape)).encode() for image in images]
        if images[0].device.type == "cpu":
            held = [image.contiguous().numpy().tobytes() for image in images]
        else:
            sums = torch.stack([self._weighted(image) for image in images])
            held = [row.tobytes() for row in sums.cpu().numpy()]
        return [_digest(shape + content) for shape, content in zip(shapes, held, strict=True)]

    def _weighted(self, image: Tensor) -> Tensor:
        """Return two weighted sums (2,) int64 of an image's bits, where it is."""
        bits = image.contiguous().view(torch.int32).flatten().long()
        if image.shape not in self._weights:
            generator = torch.Generator().manual_seed(secrets.randbits(63))
            drawn = torch.randint(-(2**63), 2**63 - 1, (2, len(bits)), generator=generator)
            self._weights[image.shape] = drawn.to(image.device)
        return (self._weights[image.shape] * bits).sum(dim=1)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _one_pass(model: QualityModel, batch: Tensor) -> list[float]:
    """Score images in one pass, halved for as long as memory does not hold it."""
    chunk = len(batch)
    while True:
        try:
            scores: list[float] = score(model, batch, chunk=chunk).tolist()
        except RuntimeError as error:
            if chunk == 1 or not out_of_memory(error):
                raise
            chunk = -(-chunk // 2)
        else:
            return scores
