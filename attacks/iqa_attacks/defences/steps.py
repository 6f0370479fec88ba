"""Defences one by one: what each does to an image, and the slope an attacker puts in its place.

What an image becomes is exact: a JPEG is a file, a median a median. Where that has no slope the backward pass
is that of a stand-in (BPDA, Athalye et al. 2018): a codec with softened rounding for JPEG, the pixel itself
for fewer bits.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, ClassVar

import pydantic
import torch
from torch import Generator, Tensor
from torch.nn.functional import conv2d, pad

from iqa_attacks.errors import BadAttackOption
from iqa_attacks.images.jpeg import passing, through_jpeg, through_jpeg_file
from iqa_attacks.settings import Count, Positive, check_settings, settings_of
from iqa_models.protocols import resize_images
from iqa_models.registry import did_you_mean


@dataclass(frozen=True)
class Defence(ABC):
    """What is done to an image before it is scored; every field is a number of its text, in order."""

    word: ClassVar[str]
    """How it is called."""
    exact: ClassVar[bool] = True
    """Whether its gradient is its own slope everywhere, so that nothing has to stand in for it."""
    random: ClassVar[bool] = False
    """Whether it draws."""

    def __post_init__(self) -> None:
        check_settings(self, self.word)

    @property
    def text(self) -> str:
        """What `parse_defence` reads."""
        numbers = ",".join(_shown(getattr(self, field.name)) for field in fields(self))
        return f"{self.word}:{numbers}" if numbers else self.word

    @property
    def copies(self) -> int:
        """Versions an image becomes."""
        return 1

    def combine(self, scores: Tensor) -> Tensor:
        """Return the scores (B,) of images from those of their versions (B, copies)."""
        return scores.mean(dim=1)

    @abstractmethod
    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Return what images (B, C, H, W) in [0, 1] become: (B * copies, C, H, W) in [0, 1], image by image.

        Args:
            images: of one size.
            generators: B, on the CPU: whence an image's draws come.
        """


@dataclass(frozen=True)
class Jpeg(Defence):
    """A JPEG file, chroma at half size, written and read again by Pillow."""

    word = "jpeg"
    exact = False
    quality: Annotated[int, pydantic.Field(ge=1, le=100)]

    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Return the files' pixels; the slope is that of the codec with softened rounding."""
        pixels = through_jpeg_file(images, self.quality)
        if not images.requires_grad:
            return pixels
        return passing(pixels, through_jpeg(images, self.quality))


@dataclass(frozen=True)
class Median(Defence):
    """Every channel's median over a square of an odd side; edges are repeated."""

    word = "median"
    exact = False
    side: Annotated[int, pydantic.Field(ge=3, le=15)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side % 2 == 0:
            raise BadAttackOption(f"median: side: must be odd, not {self.side}")

    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Return medians; the slope goes to the pixel that is the median."""
        wide = pad(images, (self.side // 2,) * 4, mode="replicate")
        windows = wide.unfold(2, self.side, 1).unfold(3, self.side, 1).flatten(-2)
        return windows.median(dim=-1).values


@dataclass(frozen=True)
class Quantise(Defence):
    """Fewer bits a channel (feature squeezing, Xu et al. 2018)."""

    word = "quantise"
    exact = False
    bits: Annotated[int, pydantic.Field(ge=1, le=8)] = 4

    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Return the nearest of 2^bits levels; the gradient passes straight through."""
        steps = 2**self.bits - 1
        return passing((images.detach() * steps).round() / steps, images)


@dataclass(frozen=True)
class Blur(Defence):
    """A Gaussian of so many pixels; edges are repeated."""

    word = "blur"
    sigma: Annotated[float, pydantic.Field(ge=0.2, le=20)] = 1.0

    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Return the weighted means of rows and columns, cut at three sigma."""
        reach, channels = math.ceil(3 * self.sigma), images.shape[1]
        places = torch.arange(-reach, reach + 1, dtype=torch.float64)
        bell = (-0.5 * (places / self.sigma).square()).exp()
        line = (bell / bell.sum()).to(images).expand(channels, 1, -1)
        wide = pad(images, (reach,) * 4, mode="replicate")
        rows = conv2d(wide, line.unsqueeze(2), groups=channels)
        # Rounding may leave the box by one unit in the last place.
        return conv2d(rows, line.unsqueeze(3), groups=channels).clamp(0, 1)


@dataclass(frozen=True)
class Flip(Defence):
    """The image or its mirror image, by the toss of a coin."""

    word = "flip"
    random = True

    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Mirror an image where its coin says so."""
        coins = [float(torch.rand((), generator=generator)) < 0.5 for generator in generators]
        return torch.stack([x.flip(-1) if coin else x for x, coin in zip(images, coins, strict=True)])


@dataclass(frozen=True)
class ResizeCrop(Defence):
    """A crop of such a share of each side at a place drawn, enlarged to the size before."""

    word = "resize_crop"
    random = True
    share: Annotated[float, pydantic.Field(gt=0, lt=1)] = 0.9

    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Cut and enlarge, bilinear and antialiased."""
        height, width = images.shape[-2:]
        sides = max(1, round(self.share * height)), max(1, round(self.share * width))
        crops = []
        for image, generator in zip(images, generators, strict=True):
            down, right = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
            top, left = int(down * (height - sides[0] + 1)), int(right * (width - sides[1] + 1))
            crops.append(image[:, top : top + sides[0], left : left + sides[1]])
        return resize_images(torch.stack(crops), (height, width)).clamp(0, 1)


@dataclass(frozen=True)
class Smooth(Defence):
    """Copies under Gaussian noise, whose scores are averaged (randomised smoothing, Cohen et al. 2019)."""

    word = "smooth"
    random = True
    sigma: Positive
    draws: Count

    @property
    def copies(self) -> int:
        """One a draw."""
        return self.draws

    def apply(self, images: Tensor, generators: Sequence[Generator]) -> Tensor:
        """Add noise, cut off at black and white."""
        shape = (self.draws, *images.shape[1:])
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        noisy = images.unsqueeze(1) + self.sigma * noise.to(images)
        return noisy.flatten(0, 1).clamp(0, 1)


@dataclass(frozen=True)
class SmoothMedian(Smooth):
    """Copies under Gaussian noise, whose median score counts: it can be certified (Chiang et al. 2020)."""

    word = "smooth_median"

    def combine(self, scores: Tensor) -> Tensor:
        """Return the medians, of an even number the lower one; the slope is that of the copy it is."""
        return scores.median(dim=1).values


DEFENCES: dict[str, type[Defence]] = {
    cls.word: cls for cls in (Jpeg, ResizeCrop, Median, Blur, Quantise, Flip, Smooth, SmoothMedian)
}
"""Every defence by its word."""


def parse_defence(text: str) -> Defence:
    """Read ``WORD`` or ``WORD:NUMBER[,NUMBER]``, such as ``jpeg:75`` or ``smooth:0.05,8``.

    Raises:
        BadAttackOption: no such defence, or numbers that are not its own.
    """
    word, colon, rest = text.strip().partition(":")
    cls = DEFENCES.get(word)
    if cls is None:
        near = did_you_mean(word, DEFENCES)
        raise BadAttackOption(f"no defence {word!r}{near}; there are {', '.join(DEFENCES)}")
    given, known = rest.split(",") if colon else [], settings_of(cls)
    needed = sum(setting.required for setting in known)
    if not needed <= len(given) <= len(known):
        form = f"{word}:{','.join(setting.name.upper() for setting in known)}" if known else word
        raise BadAttackOption(f"defence {text.strip()!r}: write {form}")
    try:
        values = [_number(number) for number in given]
    except ValueError as error:
        raise BadAttackOption(f"defence {text.strip()!r}: {error}") from error
    return cls(**{setting.name: value for setting, value in zip(known, values, strict=False)})


def _shown(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
