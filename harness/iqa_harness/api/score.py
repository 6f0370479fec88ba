"""Score images with a model, no labels needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as Pillow
from torch import Tensor

from iqa_harness.api.inputs import Model, entrants_of, set_up
from iqa_harness.cells.scoring import scored_together
from iqa_harness.data.files.decoding import FORMATS, decode
from iqa_harness.entrants.foreign import IMAGES, is_unfinished, measured
from iqa_harness.errors import DataError, HarnessError
from iqa_harness.evaluation.evaluate import Pixels, Scoring, in_use, refuse_unusable, score_images
from iqa_harness.machine.devices import own_threads
from iqa_harness.machine.terminal import progress_bar
from iqa_models import QualityModel

if TYPE_CHECKING:
    import pandas as pd

Image = str | Path | NDArray[Any] | Tensor
"""An image file, a folder of them, uint8 RGB (H, W, 3), or floats (3, H, W) in [0, 1]."""


@dataclass(frozen=True, repr=False)
class Scores:
    """What a model says of images."""

    model: str
    """The model's name."""
    ids: tuple[str, ...]
    """Path of each image, or the place of an object in the list, ``image 0`` and so on."""
    values: NDArray[np.float64]
    """(n,), higher is better; NaN where there is no score."""
    score_range: tuple[float, float]
    """The scale: nominal ends of the model's scores."""
    errors: dict[str, str]
    """Id to why there is no score."""

    @property
    def table(self) -> pd.DataFrame:
        """One row an image: image, score, error."""
        import pandas as pd

        errors = [self.errors.get(name, "") for name in self.ids]
        return pd.DataFrame({"image": list(self.ids), "score": self.values, "error": errors})

    @property
    def scale(self) -> str:
        """The scale in words."""
        low, high = self.score_range
        return f"{self.model}: scores from about {low:g} to {high:g}, higher is better"

    def __repr__(self) -> str:
        return f"{self.scale}\n{self.table.to_string(index=False)}"

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(self.scale)}</p>{self.table.to_html(index=False)}"


@own_threads
def score(
    model: Model,
    images: Image | Sequence[Image],
    *,
    device: str = "cpu",
    threads: int | None = None,
    eot_samples: int | None = None,
    seed: int = 0,
    backbone_weights: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
    progress: bool = True,
) -> Scores:
    """Score images; one that cannot be scored is recorded, the others go on.

    Every keyword is an option of `iqa-harness score`, hence their number.

    Args:
        model: by name, by folder, or an object.
        images: image files, folders (all image files below them, by name), uint8 arrays (H, W, 3) or
            float tensors (3, H, W) in [0, 1]; one or several.
        device: torch device.
        threads: threads within one operation, by default torch's own.
        eot_samples: draws averaged for a stochastic model.
        seed: of such draws.
        backbone_weights: file of pretrained trunk weights, for a model created by name.
        plugins: Python files of yours that register models; they are run.
        progress: report on stderr.

    Raises:
        RunError: a stochastic model without `eot_samples`, a device that cannot hold the model.
        ModelError: a model that cannot be made.
        DataError: an object that is no image.
    """
    set_up(device, threads, plugins)
    (entrant,) = entrants_of(model, backbone_weights=backbone_weights, plugins=plugins, tell=progress)
    refuse_unusable([entrant], eot_samples)
    how = Scoring(device, eot_samples, seed)
    listed = _listed(images)
    if is_unfinished(entrant):
        entrant = measured(entrant, image_tensors(images, IMAGES), None, device)
    values = np.full(len(listed), np.nan)
    errors: dict[str, str] = {}
    with (
        progress_bar("Scoring", len(listed), show=progress and len(listed) > 1) as advance,
        in_use(entrant.model, device),
    ):
        together = scored_together(device)
        for first in range(0, len(listed), together):
            part = listed[first : first + together]
            for place, found in enumerate(_scored(entrant.model, part, how), start=first):
                if isinstance(found, float):
                    values[place] = found
                else:
                    errors[listed[place][0]] = found
                advance()
    return Scores(
        entrant.label, tuple(name for name, _ in listed), values, entrant.model.spec.score_range, errors
    )


def _scored(
    model: QualityModel, listed: Sequence[tuple[str, Path | Pixels]], how: Scoring
) -> list[float | str]:
    """Return of each named image its score, or why it has none."""
    try:
        pixels = [_pixels(image) for _, image in listed]
        return [*score_images(model, pixels, [name for name, _ in listed], how)]
    except HarnessError as error:
        if len(listed) == 1:
            # Both kinds of error begin with the name.
            return [str(error).removeprefix(f"{listed[0][0]}: ")]
    return [_scored(model, [each], how)[0] for each in listed]


def image_tensors(images: Image | Sequence[Image], most: int) -> list[Tensor]:
    """Return the first few images as float32 tensors (3, H, W) in [0, 1].

    Raises:
        DataError: one that cannot be read.
    """
    pixels = [_pixels(image) for _, image in _listed(images)[:most]]
    return [
        each if isinstance(each, Tensor) else torch.from_numpy(each.copy()).permute(2, 0, 1).float().div(255)
        for each in pixels
    ]


def _listed(images: Image | Sequence[Image]) -> list[tuple[str, Path | Pixels]]:
    """Return every image with its name, a folder as the image files below it."""
    found: list[tuple[str, Path | Pixels]] = []
    for place, image in enumerate(
        [images] if isinstance(images, str | Path | np.ndarray | Tensor) else images
    ):
        if isinstance(image, str | Path):
            path = Path(image)
            found += [(str(file), file) for file in (_below(path) if path.is_dir() else [path])]
        else:
            found.append((f"image {place}", _checked(image, f"image {place}")))
    return found


def _below(folder: Path) -> list[Path]:
    """Return the image files below a folder, by name; the folder itself if there are none."""
    suffixes = {suffix for suffix, kind in Pillow.registered_extensions().items() if kind in FORMATS}
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return found or [folder]


def _checked(image: NDArray[Any] | Tensor, name: str) -> Pixels:
    """Return an object that is an image; models check the values of a tensor themselves."""
    if isinstance(image, Tensor):
        if image.ndim == 3 and image.shape[0] == 3:
            return image
        raise DataError(f"{name}: a tensor must be (3, H, W), not {tuple(image.shape)}; unbind a batch")
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
            return image
        raise DataError(f"{name}: an array must be uint8 (H, W, 3), not {image.dtype} {image.shape}")
    raise DataError(f"{name}: give a path, a uint8 array (H, W, 3) or a tensor (3, H, W), not {type(image)}")


def _pixels(image: Path | Pixels) -> Pixels:
    if not isinstance(image, Path):
        return image
    if image.is_dir():
        raise DataError(f"{image}: no image file in this folder")
    return decode(image)
