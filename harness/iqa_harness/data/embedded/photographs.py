"""Photographs that ship inside installed packages, read where they lie and never copied or committed.

Left out: scikit-image's `motorcycle_left.png` (Middlebury 2014 stereo benchmark), because neither the
wheel nor scikit-image's documentation states a licence for it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from iqa_harness.errors import DataError


class Photograph(NamedTuple):
    """One natural colour photograph inside an installed package: one scene of the embedded sets."""

    scene: str
    """Name of the scene, unique."""
    package: str
    """Import name of the package that ships it."""
    file: str
    """Path inside the package's folder."""
    licence: str
    """Licence and attribution, or that none is stated."""


_UNSTATED = "origin and licence not stated in the foolbox wheel (foolbox itself: MIT)"

BASE: Final = (
    Photograph("astronaut", "skimage", "data/astronaut.png", "public domain, NASA"),
    Photograph("chelsea", "skimage", "data/chelsea.png", "CC0, Stefan van der Walt"),
    Photograph("coffee", "skimage", "data/coffee.png", "CC0, Rachel Michetti"),
    Photograph("rocket", "skimage", "data/rocket.jpg", "public domain, SpaceX"),
    Photograph(
        "grace_hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "public domain, U.S. Navy"
    ),
)
"""In packages the project always needs."""
CORE: Final = (
    *BASE,
    Photograph(
        "china",
        "sklearn",
        "datasets/images/china.jpg",
        "CC BY 2.0, danielbuechele, flickr.com/photos/danielbuechele/6061409035",
    ),
    Photograph(
        "flower",
        "sklearn",
        "datasets/images/flower.jpg",
        "CC BY 2.0, vultilion, flickr.com/photos/vultilion/6056698931",
    ),
)
"""`BASE` and those whose licence and attribution an optional package states."""
_CLASSES: Final = (
    243, 559, 438, 990, 949, 853, 609, 609, 915, 455, 541, 630, 741, 471, 129, 99, 251, 22, 317, 305,
)  # fmt: skip
"""ImageNet's number of what each photograph of foolbox's shows, as its file is called."""

ALL: Final = (
    *CORE,
    *(
        Photograph(name, "foolbox", f"data/{name}.jpg", _UNSTATED)
        for name in (f"imagenet_{number:02d}_{kind}" for number, kind in enumerate(_CLASSES))
    ),
)
"""Every photograph of the full set."""


def locate(photograph: Photograph) -> Path | None:
    """Return where a photograph lies, None if its package is not installed or does not ship it."""
    spec = importlib.util.find_spec(photograph.package)  # finds the folder without importing the package
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, photograph.file)
        if path.is_file():
            return path
    return None


def installed(photographs: tuple[Photograph, ...]) -> tuple[Photograph, ...]:
    """Return those of `photographs` that are there, in order."""
    return tuple(photograph for photograph in photographs if locate(photograph) is not None)


def read_crop(photograph: Photograph, size: int, crop: int = 0) -> NDArray[np.uint8]:
    """Return a square crop, uint8 RGB (size, size, 3), of a photograph.

    Crop 0 is the centre after the shorter side was resized to `size` (Lanczos). Crops 1 and 2 look
    closer and elsewhere: the shorter side becomes 1.25 and 1.5 times `size`, never more than the
    photograph has, and the crop is the upper left and the lower right corner.

    Raises:
        DataError: if the photograph is not installed or is smaller than `size`.
    """
    from PIL import Image

    path = locate(photograph)
    if path is None:
        raise DataError(f"photograph {photograph.scene!r}: package {photograph.package!r} does not ship it")
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    shorter = min(rgb.size)
    if shorter < size:
        raise DataError(f"{path}: {rgb.width} x {rgb.height} is smaller than the crop of {size}")
    target = min(round(size * (1.0, 1.25, 1.5)[crop]), shorter)
    width, height = (round(side * target / shorter) for side in rgb.size)
    anchor = (0.5, 0.0, 1.0)[crop]
    left, top = round((width - size) * anchor), round((height - size) * anchor)
    resized = rgb.resize((width, height), Image.Resampling.LANCZOS)
    return np.array(resized.crop((left, top, left + size, top + size)))
