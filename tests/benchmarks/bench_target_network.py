"""Times the target network as batched matrix products against grouped 1x1 convolutions.

Run by hand: ``python tests/benchmarks/bench_target_network.py [--threads N] [--device cuda]``. Prints, a
batch size a line, the median time of each form forward, and forward and backward, and their ratio; fails
if the batched form is slower than the grouped one beyond the noise of the measurement.
"""

# ruff: noqa: T201 - a script that prints its table

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.benchmark import Timer

from iqa_models.hyper import target_network
from iqa_models.hyper.target_network import SIZES

BATCHES = (1, 2, 8, 32, 96)
NOISE = 1.1

Form = Callable[[Tensor, list[Tensor], list[Tensor]], Tensor]


def grouped(vector: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    """Run the target network as the authors do: one convolution a layer, one group an image."""
    count = len(vector)
    x = vector.reshape(1, -1, 1, 1)
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        kernel = weight.reshape(-1, weight.shape[2], 1, 1)
        x = F.conv2d(x, kernel, bias.reshape(-1), groups=count)
        if layer < len(weights) - 1:
            x = x.sigmoid()
    return x.reshape(count)


def make(batch: int, device: str) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Make a vector (B, 224), five matrices (B, out, in) and five biases (B, out) that take gradients."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) / 16).to(device).requires_grad_()

    shapes = list(pairwise(SIZES))
    weights = [leaf(batch, out, given) for given, out in shapes]
    return leaf(batch, SIZES[0]), weights, [leaf(batch, out) for _, out in shapes]


def forward(form: Form, inputs: tuple[Tensor, list[Tensor], list[Tensor]]) -> None:
    """Run forward only."""
    with torch.no_grad():
        form(*inputs)


def both(form: Form, inputs: tuple[Tensor, list[Tensor], list[Tensor]]) -> None:
    """Run forward and backward, to the vector, the weights and the biases."""
    vector, weights, biases = inputs
    torch.autograd.grad(form(*inputs).sum(), [vector, *weights, *biases])


def median(what: Callable[..., None], form: Form, inputs: object, threads: int) -> float:
    """Return the median time in seconds."""
    timer = Timer("what(form, inputs)", globals={"what": what, "form": form, "inputs": inputs},
                  num_threads=threads)  # fmt: skip
    return timer.blocked_autorange(min_run_time=0.5).median


def main() -> int:
    """Measure, print a table, and return 1 if the batched form is slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    slower = False
    print(f"torch {torch.__version__}, {arguments.device}, {arguments.threads} thread(s); milliseconds")
    print(f"{'batch':>5}  {'what':<20}{'batched':>9}{'grouped':>9}{'grouped/batched':>17}")
    for batch in BATCHES:
        inputs = make(batch, arguments.device)
        torch.testing.assert_close(target_network(*inputs), grouped(*inputs), rtol=1e-4, atol=1e-5)
        for what, name in ((forward, "forward"), (both, "forward and backward")):
            ours, theirs = (
                median(what, form, inputs, arguments.threads) for form in (target_network, grouped)
            )
            slower |= ours > NOISE * theirs
            print(f"{batch:>5}  {name:<20}{ours * 1e3:>9.3f}{theirs * 1e3:>9.3f}{theirs / ours:>17.2f}")
    return int(slower)


if __name__ == "__main__":
    sys.exit(main())
