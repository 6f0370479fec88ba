"""How many images a GPU's memory holds in one gradient: two small ones measured, the rest a straight line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from iqa_attacks import score_and_gradient
from iqa_attacks.seeding import seeded
from iqa_harness.machine.devices import out_of_memory
from iqa_models import QualityModel

MEASURED = (4, 8)
"""Images of the two gradients whose memory is measured."""
SHARE = 0.8
"""Of the free memory, what a gradient may take: the attack's own images and fragments need some, too."""
MOST = 256
"""Images beyond which no pass gains anything."""


class Peak(NamedTuple):
    """Most bytes in use during one gradient, beyond what was in use before it."""

    images: int
    bytes: int


def predicted_peak(a: Peak, b: Peak, images: int) -> float:
    """Return the bytes a gradient of so many images takes, on the line through two others."""
    each = (b.bytes - a.bytes) / (b.images - a.images)
    return a.bytes + each * (images - a.images)


def largest_chunk(a: Peak, b: Peak, free: int) -> int:
    """Return the largest power of two of images whose gradient takes `SHARE` of the free bytes or less."""
    chunk = 1
    while 2 * chunk <= MOST and predicted_peak(a, b, 2 * chunk) <= SHARE * free:
        chunk *= 2
    return chunk


def fitting_chunk(model: QualityModel, images: Sequence[Tensor], default: int) -> int:
    """Return the chunk that a GPU's free memory holds, by two small gradients; a power of two.

    Args:
        model: in eval mode on the GPU.
        images: (3, H, W) there; the largest counts.
        default: returned where memory does not even hold what is measured.

    Raises:
        AttackFailed: the model gives no gradient.
    """
    largest = max(images, key=lambda image: image.numel())
    try:
        measured_peak(model, largest, MEASURED[0])  # libraries take their workspaces at the first call
        a, b = (Peak(count, measured_peak(model, largest, count)) for count in MEASURED)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        return default
    torch.cuda.empty_cache()  # on a card that another process shares, what is held here is not free there
    return largest_chunk(a, b, free_bytes(largest.device))


def measured_peak(model: QualityModel, image: Tensor, count: int) -> int:
    """Return the most bytes of a GPU in use during one gradient of so many images, beyond those before it."""
    batch = image.unsqueeze(0).repeat(count, 1, 1, 1)
    torch.cuda.reset_peak_memory_stats(image.device)
    before = torch.cuda.memory_allocated(image.device)
    with seeded(0, image.device):
        score_and_gradient(model, batch, chunk=count)
    return int(torch.cuda.max_memory_allocated(image.device)) - before


def free_bytes(device: torch.device) -> int:
    """Return the bytes of a GPU that nothing holds, or only torch for later use."""
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + int(held)
