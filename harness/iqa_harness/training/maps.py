"""What a frozen trunk makes of images, computed once and kept for every epoch.

The maps wait in a temporary file, mapped into memory and deleted with the object, as they came: float32, in
the trunk's memory layout. A head trained on them takes the steps it would take behind the trunk.
"""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from iqa_harness.data.image_set import ImageSet
from iqa_harness.errors import TrainingError
from iqa_harness.machine.scratch import Scratch
from iqa_harness.training.batches import Batch, Sample, whole_batches
from iqa_harness.training.config import TrainConfig
from iqa_harness.training.forward import score_encoded
from iqa_harness.training.trunks import Encoded, encode, encode_images, has_trunk
from iqa_models import QualityModel

BATCH = 8
"""Images the trunk sees at once; bounds memory."""


_Form = tuple[tuple[int, ...], bool]
"""Shape of one of the tensors of an image as it lies in memory, and whether its channels come last there."""


class StoredMaps:
    """The trunk's output for a number of images, each of its own size."""

    def __init__(self, count: int) -> None:
        """Make an empty store for `count` images."""
        self._count = count
        scratch = Scratch()
        self._folder = scratch.path
        weakref.finalize(self, scratch.close)
        self._places: list[tuple[int, tuple[_Form, ...]]] = []
        self._end = 0
        self._values: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self._places)

    def add(self, encoded: Encoded) -> None:
        """Append a batch: tensors (B, ...) in float32.

        Raises:
            TrainingError: the temporary folder has too little room for all images.
        """
        laid = [_laid_out(part) for part in encoded]
        form = tuple((values.shape[1:], last) for values, last in laid)
        size = sum(values[0].size for values, _ in laid)
        if not self._places:
            self._check_room(size * 4)
        with (self._folder / "maps").open("ab") as file:
            for row in range(len(encoded[0])):
                self._places.append((self._end, form))
                self._end += size
                for values, _ in laid:
                    file.write(values[row].tobytes())
        self._values = None

    def take(self, indices: Sequence[int]) -> Encoded:
        """Return the maps of images of one size, stacked in the order of the indices."""
        if self._values is None:
            self._values = np.memmap(self._folder / "maps", np.float32, "r", shape=(self._end,))
        made = []
        begin = 0
        for shape, last in self._places[indices[0]][1]:
            end = begin + math.prod(shape)
            rows = [self._values[at + begin : at + end] for at in (self._places[i][0] for i in indices)]
            tensor = torch.from_numpy(np.stack(rows).reshape(-1, *shape))
            made.append(tensor.permute(0, 3, 1, 2) if last else tensor)
            begin = end
        return tuple(made)

    def batches(self, size: int) -> Iterator[Encoded]:
        """Yield all images in order, neighbours of one size together, at most `size` at once."""
        waiting: list[int] = []
        for index, (_, parts) in enumerate(self._places):
            if waiting and (len(waiting) == size or parts != self._places[waiting[0]][1]):
                yield self.take(waiting)
                waiting = []
            waiting.append(index)
        if waiting:
            yield self.take(waiting)

    def _check_room(self, each: int) -> None:
        free, needed = shutil.disk_usage(self._folder).free, each * self._count
        if needed > free:
            raise TrainingError(
                f"cache_maps: the maps of {self._count:,} images take {needed / 1e9:.1f} GB, "
                f"{self._folder.parent} has {free / 1e9:.1f} GB; point TMPDIR elsewhere, lower "
                "images_per_epoch or crop, or set cache_maps=false"
            )


def _laid_out(tensor: Tensor) -> tuple[NDArray[np.float32], bool]:
    """Return the values (B, ...) of a part as they lie in memory, and whether channels come last there."""
    last = tensor.ndim == 4 and not tensor.is_contiguous() and tensor.is_contiguous(
        memory_format=torch.channels_last
    )  # fmt: skip
    values = tensor.detach().float().cpu()
    return (values.permute(0, 2, 3, 1) if last else values).contiguous().numpy(), last


class FrozenViews:
    """The maps of a run: of its crops, drawn once, and of the images that choose the epoch."""

    def __init__(self, samples: Sequence[Sample], crops: StoredMaps, chosen_on: StoredMaps) -> None:
        self.samples = list(samples)
        """The crops of every epoch, in the order of their maps."""
        self._crops, self._chosen_on = crops, chosen_on
        self._rows = {sample: row for row, sample in enumerate(self.samples)}

    def batches(self, order: Sequence[Sample], batch_size: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch in order, the first `skip` left out."""
        for start in range(skip * batch_size, len(order), batch_size):
            samples = list(order[start : start + batch_size])
            yield Batch(self._crops.take([self._rows[sample] for sample in samples]), samples)

    def features(self) -> Iterator[Encoded]:
        """Yield the maps of all crops in order."""
        return self._crops.batches(BATCH)

    @torch.no_grad()
    def scores(self, model: QualityModel, device: torch.device) -> NDArray[np.float64]:
        """Return the scores of the images that choose the epoch, (N,)."""
        model.eval()
        parts = [
            score_encoded(model, tuple(part.to(device) for part in batch)).scores.cpu().double().numpy()
            for batch in self._chosen_on.batches(BATCH)
        ]
        return np.concatenate(parts)


@torch.no_grad()
def frozen_views(
    model: QualityModel,
    crops: Iterator[Batch],
    samples: Sequence[Sample],
    chosen_on: ImageSet,
    device: torch.device,
) -> FrozenViews:
    """Send every crop, and every image that chooses the epoch, through a frozen trunk once.

    Args:
        model: `require_cacheable`, its trunk is what it will be at the end.
        crops: batches of the crops.
        samples: where the crops come from, in the same order.
        chosen_on: the images that choose the epoch, seen under the model's own input protocol.
        device: the model's.

    Raises:
        TrainingError: the maps do not fit on the disk.
    """
    model.eval()
    stored = StoredMaps(len(samples))
    for batch in crops:
        assert isinstance(batch.crops, Tensor)  # noqa: S101 - they come from the images
        stored.add(encode(model, batch.crops.to(device)))
    chosen = StoredMaps(len(chosen_on))
    for images in whole_batches(chosen_on, BATCH):
        chosen.add(encode_images(model, images.to(device)))
    return FrozenViews(samples, stored, chosen)


def require_cacheable(config: TrainConfig, model: QualityModel) -> None:
    """Refuse a model whose trunk's output cannot stand for its images.

    Raises:
        TrainingError: it has no trunk the loop knows, draws at evaluation, or scores several crops an image.
    """
    where = f"{config.name}: cache_maps"
    if not has_trunk(model):
        raise TrainingError(f"{where}: {config.model!r} has no trunk apart from its head; set it to false")
    if model.is_stochastic:
        raise TrainingError(f"{where}: {config.model!r} is stochastic in evaluation; set it to false")
    protocol = getattr(model, "protocol", None)
    if protocol is not None and protocol.count != 1:
        raise TrainingError(
            f"{where}: the epoch is chosen on one crop an image, the protocol is {protocol.text!r}; "
            "set options.protocol=centre or native, or cache_maps=false"
        )
