"""Input protocols: what lies between the pixels of an evaluated image and a network of one input size.

Everything here is differentiable and fixed: crops are drawn from a seed, the same for every image, so a
model stays deterministic and an attack acts on the pixels of the whole image.

Resizing is torch's bilinear interpolation with antialiasing, on floats. It is the filter of Pillow's
``Image.resize(..., BILINEAR)`` and so of torchvision's ``Resize`` on a Pillow image, without their rounding
to 8 bits; the two differ by at most one grey level.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from iqa_models.errors import BadInput, BadModelOption

Kind = Literal["native", "centre", "random_crops", "grid", "uniform"]
Corner = tuple[int, int]

PROTOCOLS = "native, centre, random_crops:COUNT[:SEED], grid:ROWSxCOLUMNS, uniform:ROWSxCOLUMNS"
"""The forms of a protocol, for messages."""

AUTHOR_RESIZE = "512x384"
"""Height x width, as HyperIQA's and SMART-IQA's code resize KonIQ-10k: landscape images become portrait."""

CROPS_ON_A_DEVICE = 64
"""Crops that a copy for attacks scores at once on a GPU: fewer leave an H100 waiting for the next kernel."""

SHORTER_SIDE = 384
"""Shorter side under ``keep_aspect``: a 1024x768 photograph becomes 384 high and 512 wide."""


@dataclass(frozen=True, slots=True)
class InputProtocol:
    """How images (B, 3, H, W) become square patches: a resize, then fixed crops.

    Build one with `parse_protocol`.
    """

    kind: Kind
    """native is the whole image; the others are crops of `size`.

    A grid goes from edge to edge. uniform is pyiqa's: whole steps of (side - size) // rows from the top left
    corner, so that the far edges are not reached; a shorter side of `size` or less is enlarged to `size` + 1,
    bilinear, not antialiased.
    """
    size: int
    """Side of a crop; of the whole image if `kind` is native and `multiple` is None."""
    count: int
    """Crops an image."""
    seed: int | None
    """Of random crops, None otherwise."""
    grid: tuple[int, int] | None
    """Rows and columns of grid and uniform, None otherwise."""
    resize: tuple[int, int] | int | None
    """(height, width), or the shorter side with the aspect kept, or None."""
    multiple: int | None
    """native images may have any sides that are multiples of this."""

    @property
    def text(self) -> str:
        """The canonical form `parse_protocol` reads."""
        if self.kind == "random_crops":
            return f"random_crops:{self.count}:{self.seed}"
        return self.kind if self.grid is None else f"{self.kind}:{self.grid[0]}x{self.grid[1]}"

    @property
    def resize_text(self) -> str:
        """The canonical form of the resize `parse_protocol` reads."""
        if self.resize is None:
            return "none"
        return "keep_aspect" if isinstance(self.resize, int) else f"{self.resize[0]}x{self.resize[1]}"

    @property
    def summary(self) -> str:
        """One line for a model card."""
        crops = {
            "native": "whole image",
            "centre": f"centre {self.size}x{self.size} crop",
            "random_crops": f"mean of {self.count} fixed random {self.size}x{self.size} crops, "
            f"seed {self.seed}",
            "grid": f"mean of {self.size}x{self.size} crops on a {self.text[5:]} grid",
            "uniform": f"mean of {self.size}x{self.size} crops on {self.text[8:]} uniform steps as pyiqa "
            f"takes them, a shorter side up to {self.size} enlarged",
        }[self.kind]
        if self.resize is None:
            return f"{crops}, no resizing"
        shape = (
            f"shorter side {self.resize}, aspect kept"
            if isinstance(self.resize, int)
            else f"{self.resize[0]} high x {self.resize[1]} wide"
        )
        return f"resize to {shape} (bilinear, antialiased), {crops}"

    @property
    def min_size(self) -> int:
        """Smallest side of an image that the protocol takes."""
        if self.resize is not None or self.kind == "uniform":
            return 1
        return self.size if self.multiple is None else self.multiple

    @property
    def fixed_size(self) -> int | None:
        """The only side of an image that the protocol takes, None if there are more."""
        whole = self.kind == "native" and self.resize is None and self.multiple is None
        return self.size if whole else None

    def resized(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, H, W) to (B, 3, H', W') and check that the network takes the result.

        Raises:
            BadInput: too small to crop, or not of the sides a native image must have.
        """
        if self.resize is not None:
            images = resize_images(images, _target(self.resize, *images.shape[-2:]))
        if self.kind == "uniform" and min(images.shape[-2:]) <= self.size:
            factor = (self.size + 1) / min(images.shape[-2:])
            images = functional.interpolate(images, scale_factor=factor, mode="bilinear", align_corners=False)
        height, width = images.shape[-2:]
        if self.kind != "native":
            if min(height, width) < self.size:
                raise BadInput(
                    f"protocol {self.text}: {height}x{width} pixels are too few for {self.size}x{self.size} "
                    f"crops; take larger images or a resize such as {AUTHOR_RESIZE}"
                )
        elif self.multiple is None:
            if (height, width) != (self.size, self.size):
                raise BadInput(
                    f"protocol native: takes {self.size}x{self.size} pixels only, not {height}x{width}"
                )
        elif height % self.multiple or width % self.multiple:
            raise BadInput(
                f"protocol native: sides must be multiples of {self.multiple}, not {height}x{width}"
            )
        return images

    def corners(self, height: int, width: int) -> list[Corner]:
        """Return (top, left) of every crop of a resized image; they depend on its size only."""
        rows, columns = height - self.size, width - self.size
        if self.kind == "centre":
            return [(round(rows / 2), round(columns / 2))]
        if self.grid is not None and self.kind == "uniform":
            down, right = rows // self.grid[0], columns // self.grid[1]
            return [(i * down, j * right) for i in range(self.grid[0]) for j in range(self.grid[1])]
        if self.grid is not None:
            tops, lefts = _spread(self.grid[0], rows), _spread(self.grid[1], columns)
            return [(top, left) for top in tops for left in lefts]
        if self.kind == "native":
            return [(0, 0)]
        generator = torch.Generator().manual_seed(self.seed or 0)
        # On the CPU in any case: a default device must not move the crops.
        shares = torch.rand(self.count, 2, generator=generator, dtype=torch.float64, device="cpu").tolist()
        return [(int(y * (rows + 1)), int(x * (columns + 1))) for y, x in shares]

    def patches(self, resized: Tensor, corners: list[Corner]) -> Tensor:
        """Cut crops of resized images (B, 3, H, W): (B * len(corners), 3, h, w), image by image."""
        if self.kind == "native":
            return resized
        crops = [resized[..., top : top + self.size, left : left + self.size] for top, left in corners]
        return torch.stack(crops, dim=1).flatten(0, 1)

    def crops(self, images: Tensor) -> Tensor:
        """Resize images (B, 3, H, W) and cut all their crops: (B * N, 3, h, w), image by image."""
        resized = self.resized(images)
        return self.patches(resized, self.corners(*resized.shape[-2:]))


def parse_protocol(
    protocol: str, resize: str | None = None, *, size: int = 224, multiple: int | None = None
) -> InputProtocol:
    """Read a protocol and a resize as a user writes them.

    Args:
        protocol: ``native``, ``centre``, ``random_crops:COUNT[:SEED]``, ``grid:ROWSxCOLUMNS`` or
            ``uniform:ROWSxCOLUMNS``.
        resize: ``HEIGHTxWIDTH``, ``keep_aspect`` or ``none``; None means ``none`` for native and uniform and
            the authors' ``512x384`` for other crops.
        size: side of the network's input.
        multiple: a native image may have any sides that are multiples of this, None if only `size`.

    Raises:
        BadModelOption: not one of these forms, or a resize smaller than a crop.
    """
    kind, count, seed, grid = _read_protocol(protocol)
    target = _read_resize(resize, kind)
    smallest = min(target) if isinstance(target, tuple) else target
    if smallest is not None and kind != "native" and smallest < size:
        raise BadModelOption(f"resize {resize!r} is smaller than the {size}x{size} crops of {protocol!r}")
    return InputProtocol(
        kind=kind,
        size=size,
        count=count,
        seed=seed,
        grid=grid,
        resize=target,
        multiple=multiple if kind == "native" else None,
    )


def resize_images(images: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize images (B, 3, H, W) to (B, 3, *shape), bilinear and antialiased; the same size is untouched."""
    if tuple(images.shape[-2:]) == shape:
        return images
    return functional.interpolate(images, size=shape, mode="bilinear", antialias=True, align_corners=False)


def crop_scores(
    score_patches: Callable[[Tensor], Tensor],
    images: Tensor,
    protocol: InputProtocol,
    *,
    crop_batch: int,
    checkpointed: bool,
    ahead: bool = False,
) -> Tensor:
    """Score every crop of images (B, 3, H, W): (B, N).

    One crop an image: all images go through together. More: image by image, at most `crop_batch` crops
    at once, so that neither the memory nor an image's score depends on the batch it came in.

    Args:
        score_patches: maps patches (P, 3, h, w) to scores (P,).
        images: in [0, 1].
        protocol: the resize and the crops.
        crop_batch: most patches of a multi-crop protocol in memory.
        checkpointed: with gradients on, keep a chunk's patches only and score it again in the backward
            pass: the same gradient for one more forward pass, and memory for one chunk. Off for networks
            whose forward pass changes them (batch norm in training).
        ahead: crops of all images go through together, and with gradients on each chunk's gradient is taken
            as soon as it is scored: memory for one chunk, and no pass is done twice. For input gradients
            only: nothing is learned, and there is no second derivative.
    """
    resized = protocol.resized(images)
    corners = protocol.corners(*resized.shape[-2:])
    if len(corners) == 1:
        return score_patches(protocol.patches(resized, corners)).unsqueeze(1)
    if ahead:
        size = crop_batch if images.device.type == "cpu" else max(crop_batch, CROPS_ON_A_DEVICE)
        patches = protocol.patches(resized, corners)
        return scored_ahead(score_patches, patches, size).view(-1, len(corners))

    def chunk_scores(image: Tensor, chunk: list[Corner]) -> Tensor:
        return score_patches(protocol.patches(image, chunk))

    chunks = [corners[start : start + crop_batch] for start in range(0, len(corners), crop_batch)]
    again = checkpointed and torch.is_grad_enabled() and len(images) * len(chunks) > 1
    rows = []
    for index in range(len(resized)):
        image = resized[index : index + 1]
        if again:
            parts = [checkpoint(chunk_scores, image, chunk, use_reentrant=False) for chunk in chunks]
        else:
            parts = [chunk_scores(image, chunk) for chunk in chunks]
        rows.append(torch.cat(parts))
    return torch.stack(rows) if rows else images.new_zeros(0, len(corners))


def scored_ahead(score_patches: Callable[[Tensor], Tensor], patches: Tensor, size: int) -> Tensor:
    """Return scores (P,) of patches, so many at once, each chunk's gradient taken as soon as it is scored.

    Memory is that of one chunk. For input gradients only, as in `crop_scores`.
    """
    scores: Tensor = _Ahead.apply(score_patches, patches, size)
    return scores


class _Ahead(torch.autograd.Function):
    """Scores (P,) of patches, so many at once, whose gradients are ready before they are asked for."""

    @staticmethod
    def forward(ctx: Any, score_patches: Callable[[Tensor], Tensor], patches: Tensor, size: int) -> Tensor:
        scores, slopes = [], []
        for chunk in torch.split(patches, size):
            if not ctx.needs_input_grad[1]:
                scores.append(score_patches(chunk))
                continue
            with torch.enable_grad():
                leaf = chunk.detach().requires_grad_()
                found = score_patches(leaf)
                slopes.append(torch.autograd.grad(found.sum(), leaf)[0])
            scores.append(found.detach())
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return None, gradient.view(-1, 1, 1, 1) * slopes, None


def _target(resize: tuple[int, int] | int, height: int, width: int) -> tuple[int, int]:
    if isinstance(resize, tuple):
        return resize
    short = min(height, width)
    return (
        max(resize, round(height * resize / short)),
        max(resize, round(width * resize / short)),
    )


def _spread(count: int, room: int) -> list[int]:
    # Evenly from edge to edge; a single one sits in the middle.
    return [round(room / 2)] if count == 1 else [round(i * room / (count - 1)) for i in range(count)]


def _read_protocol(text: str) -> tuple[Kind, int, int | None, tuple[int, int] | None]:
    whole: dict[str, Kind] = {"native": "native", "centre": "centre"}
    if text in whole:
        return whole[text], 1, None, None
    random = re.fullmatch(r"random_crops:([1-9]\d{0,3})(?::(\d{1,9}))?", text)
    if random:
        return "random_crops", int(random[1]), int(random[2] or 0), None
    grid = re.fullmatch(r"(?:grid|uniform):([1-9]\d?)x([1-9]\d?)", text)
    if grid:
        rows, columns = int(grid[1]), int(grid[2])
        return "uniform" if text.startswith("uniform") else "grid", rows * columns, None, (rows, columns)
    raise BadModelOption(f"protocol must be one of {PROTOCOLS}, not {text!r}")


def _read_resize(text: str | None, kind: Kind) -> tuple[int, int] | int | None:
    if text is None:
        text = "none" if kind in ("native", "uniform") else AUTHOR_RESIZE
    if text == "none":
        return None
    if text == "keep_aspect":
        return SHORTER_SIDE
    shape = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not shape:
        raise BadModelOption(f"resize must be HEIGHTxWIDTH, keep_aspect or none, not {text!r}")
    return int(shape[1]), int(shape[2])
