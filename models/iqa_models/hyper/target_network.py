"""The target network: a small perceptron whose weights are made for each image."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

SIZES = (224, 112, 56, 28, 14, 1)
"""Widths from the LDA vector to the score: 33,545 generated numbers an image."""

DROPPED_LAYERS = 3
"""Layers followed by dropout in SMART-IQA's code: the first three, not the fourth."""


def target_network(
    vector: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], dropout: float = 0.0
) -> Tensor:
    """Run one perceptron an image: sigmoid after every layer but the last, which is unbounded.

    One batched matrix product a layer, the same numbers as a grouped 1x1 convolution.

    Args:
        vector: LDA vectors (B, 224).
        weights: five tensors (B, out, in).
        biases: five tensors (B, out).
        dropout: probability after the first three sigmoids; 0 outside training.

    Returns:
        Scores (B,), also at B = 1.
    """
    last = len(weights) - 1
    x = vector.unsqueeze(1)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = bias.unsqueeze(1).baddbmm(x, weight.transpose(1, 2))
        if layer < last:
            x = x.sigmoid()
            if dropout and layer < DROPPED_LAYERS:
                x = functional.dropout(x, dropout)
    return x.flatten()
