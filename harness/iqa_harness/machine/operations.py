"""Floating-point operations of a model, counted by torch as it runs."""

from __future__ import annotations

import torch
from torch import Tensor

from iqa_attacks import score, score_and_gradient
from iqa_attacks.seeding import seeded
from iqa_models import QualityModel


def operations(model: QualityModel, image: Tensor) -> tuple[int, int]:
    """Return the operations of one evaluation and of one input gradient (its evaluation included).

    Convolutions and matrix products, a multiply-add as two; all else is too little to count. What a
    model computes twice to save memory counts twice.

    Args:
        model: in eval mode.
        image: (3, H, W) on its device.
    """
    from torch.utils.flop_counter import FlopCounterMode  # it imports triton

    counts = []
    for compute in (score, score_and_gradient):
        with seeded(0, torch.device(image.device)), FlopCounterMode(display=False) as counted:
            compute(model, image.unsqueeze(0), chunk=1)
        counts.append(int(counted.get_total_flops()))
    return counts[0], counts[1]
