"""JPEG as an attack sees it (differentiable) and as a file does it (Pillow).

The differentiable one is the baseline codec written out: 8-bit input, YCbCr, chroma at half size, cosine
transform of 8 x 8 blocks, quantisation by the tables of the standard's annex K scaled as libjpeg does,
and all of it back. The rounding of coefficients has no slope; it is softened, so values differ from a file's
by a grey level or two. What an example does in a real file is measured with Pillow.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from iqa_attacks.errors import BadAttackOption
from iqa_attacks.images.levels import nearest_levels
from iqa_models import QualityModel

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61), (12, 12, 14, 19, 26, 58, 60, 55), (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62), (18, 22, 37, 56, 68, 109, 103, 77), (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101), (72, 92, 95, 98, 112, 100, 103, 99),
)  # fmt: skip
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99), (18, 21, 26, 66, 99, 99, 99, 99), (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99), *((99,) * 8,) * 4,
)  # fmt: skip
_TO_YCC = (
    (0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411),
)  # fmt: skip
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def check_qualities(qualities: Sequence[int]) -> None:
    """Refuse qualities that libjpeg does not know.

    Raises:
        BadAttackOption: a quality that is no whole number from 1 to 100, or one named twice.
    """
    for quality in qualities:
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
            raise BadAttackOption(f"a JPEG quality is a whole number from 1 to 100, not {quality!r}")
    if len(set(qualities)) != len(qualities):
        raise BadAttackOption(f"a JPEG quality is named twice in {list(qualities)}")


def through_jpeg_file(images: Tensor, quality: int) -> Tensor:
    """Write images (B, 3, H, W) in [0, 1] as JPEG files, chroma at half size, and read them again."""
    from PIL import Image

    decoded = []
    for image in images:
        pixels = (image.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling="4:2:0")
        decoded.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(decoded).to(images) / 255


class Codec(NamedTuple):
    """The numbers of one quality, on the device and in the precision of images."""

    to_ycc: Tensor
    to_rgb: Tensor
    luma: Tensor
    chroma: Tensor
    cosines: Tensor


def codec(quality: int, like: Tensor) -> Codec:
    """Return the numbers of a quality for images such as `like`."""
    colours = like.new_tensor(_TO_YCC), like.new_tensor(_TO_RGB)
    return Codec(*colours, _table(_LUMA, quality, like), _table(_CHROMA, quality, like), _cosines(like))


def through_jpeg(images: Tensor, quality: int, numbers: Codec | None = None) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] as a JPEG file would give them back, differentiable.

    Args:
        images: of any size.
        quality: as libjpeg counts it.
        numbers: of the quality for such images (`codec`); made and sent to the device anew if None.
    """
    by = numbers or codec(quality, images)
    height, width = images.shape[-2:]
    colour = torch.einsum("dc,bchw->bdhw", by.to_ycc, 255 * _straight(images))
    # Whole blocks of the halved chroma: 16 pixels; libjpeg repeats the edge, too.
    full = pad(_whole(colour), (0, -width % 16, 0, -height % 16), mode="replicate")
    luma = _coded(full[:, :1] - 128, by.luma, by.cosines) + 128
    chroma = _coded(_whole(avg_pool2d(full[:, 1:], 2)), by.chroma, by.cosines)
    chroma = interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)
    decoded = torch.cat([luma, chroma], dim=1)[..., :height, :width]
    rgb = torch.einsum("dc,bchw->bdhw", by.to_rgb, decoded)
    return _straight((rgb / 255).clamp(0, 1))


class Compressed(QualityModel):
    """A model behind JPEG: its score is the mean over qualities of the score of the compressed image."""

    def __init__(self, model: QualityModel, qualities: Sequence[int]) -> None:
        super().__init__(model.spec.replace(higher_is_better=True))
        self.model, self.qualities = model, tuple(qualities)
        self.to(model._mean.device).eval()
        self._codecs: dict[tuple[int, torch.device, torch.dtype], Codec] = {}

    def predict(self, images: Tensor) -> Tensor:
        """Return mean scores (B,)."""
        # What comes out of a file lies in [0, 1].
        scores = [self.model.score_admitted(self._through(images, q)) for q in self.qualities]
        return torch.stack(scores).mean(dim=0)

    def _through(self, images: Tensor, quality: int) -> Tensor:
        key = (quality, images.device, images.dtype)
        if key not in self._codecs:
            self._codecs[key] = codec(quality, images.detach())
        return through_jpeg(images, quality, self._codecs[key])


def _straight(images: Tensor) -> Tensor:
    """Round to 8 bits; the gradient passes through."""
    return passing(nearest_levels(images.detach()), images)


def _whole(channels: Tensor) -> Tensor:
    """Round to whole numbers; the gradient passes through."""
    return passing(channels.detach().round(), channels)


def passing(values: Tensor, slope_of: Tensor) -> Tensor:
    """Return values whose gradient is another tensor's of their shape (BPDA)."""
    return values + (slope_of - slope_of.detach()) if slope_of.requires_grad else values


def _table(base: Sequence[Sequence[int]], quality: int, like: Tensor) -> Tensor:
    """Return a quantisation table (8, 8) scaled to a quality as libjpeg scales it."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    scaled = (torch.tensor(base) * scale + 50) // 100
    return scaled.clamp(1, 255).to(like)


def _coded(channels: Tensor, table: Tensor, basis: Tensor) -> Tensor:
    """Transform, quantise and bring back channels (B, C, H, W), H and W multiples of 8."""
    b, c, h, w = channels.shape
    blocks = channels.view(b, c, h // 8, 8, w // 8, 8).transpose(3, 4)
    coefficients = basis @ blocks @ basis.T / table
    back = basis.T @ (_rounded(coefficients) * table) @ basis
    return back.transpose(3, 4).reshape(b, c, h, w)


def _rounded(coefficients: Tensor) -> Tensor:
    """Round, softened by the cube of what is rounded off (Shin & Song 2017).

    A coefficient that the codec would set to 0 then has next to no slope, so an attack puts its change
    where it is kept. Passing the gradient straight through instead, as for a plain rounding, costs nearly
    half of the displacement that is left in a real file.
    """
    whole = coefficients.detach().round()
    return whole + (coefficients - whole) ** 3


def _cosines(like: Tensor) -> Tensor:
    """Return the orthonormal cosine transform (8, 8) of type II."""
    k = torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * k + 1) * k.view(-1, 1) * math.pi / 16) / 2
    basis[0] /= math.sqrt(2)
    return basis.to(like)
