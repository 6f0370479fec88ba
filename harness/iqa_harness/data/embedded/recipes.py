"""The embedded sets: real photographs, KADID-10k's distortions, anchored pseudo-MOS, built once a machine."""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Final, NamedTuple

from iqa_harness.data.embedded import photographs
from iqa_harness.data.embedded.built_set import (
    StoredImageSet,
    WriteRow,
    open_or_build,
    pixel_writer,
    write_records,
)
from iqa_harness.data.embedded.distortions import DISTORTIONS, LEVELS, PRISTINE, distort, generator_for
from iqa_harness.data.embedded.photographs import Photograph, locate, read_crop
from iqa_harness.data.embedded.pseudo_mos import PRISTINE_LABEL, Anchors, fit_anchors, haarpsi_to, pseudo_mos
from iqa_harness.data.hashing import file_sha256, json_sha256, pixel_sha256
from iqa_harness.data.image_set import SPLITS, DataCard, ImageRecord, Split
from iqa_harness.data.splits import SHARES, balanced_order, split_scenes
from iqa_harness.machine.cache_folder import cache_root
from iqa_harness.machine.terminal import progress_bar

RECIPE_VERSION: Final = 2
"""Raise it with every change that can change a byte or a label of a built set."""
DEMO_TYPES: Final = tuple(
    name
    for name in DISTORTIONS
    if name not in {"lens_blur", "saturate_lab", "white_noise_ycbcr", "multiplicative_noise"}
)
MOS_RANGE: Final = (0.0, 1.0)


@dataclass(frozen=True)
class Recipe:
    """What decides the content of an embedded set."""

    name: str
    scenes: tuple[Photograph, ...]
    types: tuple[str, ...]
    levels: tuple[int, ...]
    size: int
    """Side of the square images in pixels."""
    train_crops: int
    """Crops of a training scene, 1..3; validation and test scenes have one."""
    summary: str
    notes: tuple[str, ...] = ()
    shares: tuple[int, int, int] = SHARES
    """Scenes for train, val and test, in proportion."""
    seed: int = 0
    """Of the splits, the order and, with scene, type and level, of every distortion."""

    def describe(self) -> dict[str, object]:
        """Return all that decides the bytes and labels, versions and photographs included, as JSON values."""
        from PIL import features

        packages = ("numpy", "pillow", "piq", "scikit-image", "scipy")
        codecs = {codec: features.version(codec) for codec in ("jpg", "jpg_2000", "zlib")}
        return {
            "recipe_version": RECIPE_VERSION,
            "name": self.name,
            "seed": self.seed,
            "size": self.size,
            "train_crops": self.train_crops,
            "levels": list(self.levels),
            "types": {name: list(DISTORTIONS[name].values) for name in self.types},
            "photographs": {
                scene.scene: file_sha256(path) for scene in self.scenes if (path := locate(scene))
            },
            "splits": split_scenes([scene.scene for scene in self.scenes], self.seed, self.shares),
            "versions": {**{name: version(name) for name in packages}, **codecs},
        }

    def card(self) -> DataCard:
        """Return the data card, without building anything."""
        licences = "; ".join(f"{scene.scene} ({scene.package}: {scene.licence})" for scene in self.scenes)
        return DataCard(
            name=self.name,
            label="pseudo-MOS",
            mos_range=MOS_RANGE,
            summary=f"{len(self.scenes)} scenes, {self.summary}",
            source=f"photographs inside installed packages, resized, cropped and distorted: {licences}; "
            "distortions of KADID-10k",
            notes=(
                "Anchored pseudo-MOS: HaarPSI orders a type's images, KADID-10k's human means set the scale; "
                "good for comparing models on equal terms and for tests, never a claim about human quality.",
                *self.notes,
            ),
        )


_IDENTICAL = "Level 1 of gaussian_blur and motion_blur changes no pixel, as in KADID-10k: pristine label."
_CORE = Recipe(
    name="demo-core",
    scenes=photographs.CORE,
    types=DEMO_TYPES,
    levels=LEVELS,
    size=256,
    train_crops=3,
    summary="12 distortions at 5 levels, 256 x 256",
    notes=("Few scenes: the split moves every figure. The `[demo]` extra brings the full set.", _IDENTICAL),
)
_DEMO = replace(
    _CORE,
    name="demo",
    scenes=photographs.ALL,
    notes=("Seven test scenes: report a spread over splits, never the third decimal.", _IDENTICAL),
)
_SMALL = replace(
    _DEMO, name="demo-small", size=192, train_crops=1, summary="12 distortions at 5 levels, 192 x 192"
)
_STUDY = replace(
    _SMALL,
    name="demo-study",
    shares=(10, 3, 14),
    summary="12 distortions at 5 levels, 192 x 192, half of the scenes for the test",
    notes=("Fourteen test scenes, ten to train on: for comparing models, not for the best one.", _IDENTICAL),
)
_SMOKE = Recipe(
    name="smoke",
    scenes=photographs.BASE,
    types=("gaussian_blur", "jpeg", "white_noise", "brighten", "sharpen"),
    levels=(2, 3, 5),
    size=128,
    train_crops=1,
    summary="5 distortions at 3 levels, 128 x 128, for tests",
    notes=("One test scene: figures on this set mean nothing.",),
)
RECIPES: Final = {recipe.name: recipe for recipe in (_DEMO, _SMALL, _STUDY, _CORE, _SMOKE)}
"""The embedded sets with all their photographs: `demo-core` of those whose licence is stated, `smoke` of
those every installation has."""


def embedded_recipe(name: str) -> Recipe:
    """Return the recipe of an embedded set as far as its photographs are installed.

    If any is not, `demo`, `demo-small` and `demo-study` are `demo-core`.
    """
    recipe = RECIPES[name]
    found = photographs.installed(recipe.scenes)
    if recipe.scenes == photographs.ALL and found != recipe.scenes:
        return embedded_recipe(_CORE.name)
    return replace(recipe, scenes=found)


def open_embedded(
    recipe: Recipe, *, cache_dir: Path | str | None = None, progress: bool = True
) -> StoredImageSet:
    """Return the set of `recipe` from the cache, building it first if it is not there.

    Args:
        recipe: What to build.
        cache_dir: Root of the cache; see `cache_root`.
        progress: Show a bar on standard error while building.

    Raises:
        DataError: if there are too few photographs, or the cache cannot be written or is damaged.
    """
    description = recipe.describe()
    folder = cache_root(cache_dir) / "data" / f"{recipe.name}-{json_sha256(description)[:16]}"

    def build(into: Path) -> None:
        crops = plan_crops(recipe)
        with progress_bar(f"Building data set {recipe.name}", len(crops), show=progress) as advance:
            records = _build(recipe, crops, into, advance)
        write_records(into, recipe.card(), records, description)

    return open_or_build(folder, recipe.card(), build)


class Crop(NamedTuple):
    """One undistorted square of one photograph."""

    photograph: Photograph
    number: int
    split: Split

    @property
    def scene(self) -> str:
        """Name that seeds and image ids use."""
        return f"{self.photograph.scene}/{self.number}"


class Planned(NamedTuple):
    """One image before it is made."""

    crop: Crop
    kind: str
    level: int

    @property
    def image_id(self) -> str:
        """Scene, crop, type and level."""
        return f"{self.crop.scene}/{self.kind}/{self.level}"


def plan_crops(recipe: Recipe) -> list[Crop]:
    """Return the crops of every scene: `train_crops` of a training scene, one of any other."""
    splits = split_scenes([scene.scene for scene in recipe.scenes], recipe.seed, recipe.shares)
    return [
        Crop(scene, number, splits[scene.scene])
        for scene in recipe.scenes
        for number in range(recipe.train_crops if splits[scene.scene] == "train" else 1)
    ]


def plan_images(recipe: Recipe, crops: Sequence[Crop]) -> list[Planned]:
    """Return the images in test order: split by split, each balanced over scene, type and level."""
    kinds = [(PRISTINE, 0), *itertools.product(recipe.types, recipe.levels)]
    ordered: list[Planned] = []
    for split in SPLITS:
        images = [Planned(crop, *kind) for crop in crops if crop.split == split for kind in kinds]
        order = balanced_order([(i.crop.scene, i.kind, i.level) for i in images], recipe.seed)
        ordered += [images[i] for i in order]
    return ordered


def _build(
    recipe: Recipe, crops: Sequence[Crop], into: Path, advance: Callable[[], None]
) -> list[ImageRecord]:
    """Write the pixels of every image and return the records, labels included."""
    images = plan_images(recipe, crops)
    rows = {image: row for row, image in enumerate(images)}
    by_crop: dict[Crop, list[Planned]] = defaultdict(list)
    for image in images:
        by_crop[image.crop].append(image)
    made: dict[Planned, _Made] = {}
    # Threads suffice: SciPy, Pillow and NumPy release the lock; no order of work changes a byte.
    with (
        pixel_writer(into, (len(images), recipe.size, recipe.size, 3)) as write,
        ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool,
    ):
        jobs = [pool.submit(_make_crop, recipe, crop, by_crop[crop], rows, write) for crop in crops]
        try:
            for job in as_completed(jobs):
                made.update(job.result())
                advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    anchors = _fit(recipe, made)
    return [_record(image, made[image], anchors) for image in images]


class _Made(NamedTuple):
    haarpsi: float
    sha256: str


def _make_crop(
    recipe: Recipe, crop: Crop, images: Sequence[Planned], rows: dict[Planned, int], write: WriteRow
) -> dict[Planned, _Made]:
    pristine = read_crop(crop.photograph, recipe.size, crop.number)
    similarity = haarpsi_to(pristine)
    made = {}
    for image in images:
        if image.kind == PRISTINE:
            pixels = pristine
        else:
            generator = generator_for(recipe.seed, crop.scene, image.kind, image.level)
            pixels = distort(pristine, image.kind, image.level, generator)
        write(rows[image], pixels)
        made[image] = _Made(similarity(pixels), pixel_sha256(pixels))
    return made


def _fit(recipe: Recipe, made: dict[Planned, _Made]) -> dict[str, Anchors]:
    """Return the anchors of each type, from training images alone."""
    values: dict[tuple[str, int], list[float]] = defaultdict(list)
    for image in sorted(made, key=lambda image: image.image_id):  # a fixed order: a sum's bits depend on it
        if image.crop.split == "train":
            values[image.kind, image.level].append(made[image].haarpsi)
    return {
        kind: fit_anchors(
            [fmean(values[kind, level]) for level in recipe.levels],
            [DISTORTIONS[kind].human_means[level - 1] for level in recipe.levels],
        )
        for kind in recipe.types
    }


def _record(image: Planned, made: _Made, anchors: dict[str, Anchors]) -> ImageRecord:
    label = PRISTINE_LABEL if image.kind == PRISTINE else pseudo_mos(made.haarpsi, anchors[image.kind])
    return ImageRecord(
        image_id=image.image_id,
        mos=round(label, 6),  # beyond the reach of a platform's rounding
        split=image.crop.split,
        reference=image.crop.photograph.scene,
        distortion=image.kind,
        level=image.level,
        sha256=made.sha256,
    )
