"""Compares the smallest radii that `minimum_norm` finds with a bisection over the radius of an attack.

Run by hand: ``python tests/benchmarks/bench_minimum_norm.py MODEL... [--images 8] [--norm inf rmse]
[--steps 10 20 40]``, MODEL as the command line takes it (a registered name or the folder of a checkpoint).

The goal is to raise an image's score by one interquartile range of the clean scores of the test images. The
bisection halves in on each image's own radius on a logarithmic scale, between 1/16 and 16 of 255, by PGD-20
with falling steps: nine runs, after which it is known to 2 %. Prints the median radius and the gradients an
image of both, and the ratio of the radii, image by image.
"""

# ruff: noqa: T201 - a script that prints its tables

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqa_attacks import PGD, MinimumNorm, Norm, ThreatModel
from iqa_harness.cells.compute import to_tensor
from iqa_harness.data import open_data
from iqa_harness.entrants.naming import load_entrant, parse_model
from iqa_models import QualityModel

LEAST, LARGEST = 1 / 16 / 255, 16 / 255
HALVINGS, STEPS = 8, 20


class Images(NamedTuple):
    """Attacked images and how far their scores are to rise."""

    pixels: list[Tensor]
    ids: list[str]
    mos: Tensor
    spread: float


def minimum(model: QualityModel, on: Images, norm: Norm, steps: int) -> tuple[list[float], float]:
    """Return the radii that `minimum_norm` finds, inf where none, and the gradients an image."""
    attack = MinimumNorm(
        threat=ThreatModel(norm, LARGEST), objectives=("raise",), steps=steps, spread=on.spread
    )
    found = attack.radii(attack.run(model, on.pixels, on.ids, on.mos))
    radii = [math.inf if each.radius is None else each.radius for each in found]
    return radii, float(np.mean([each.gradients for each in found]))


def bisected(model: QualityModel, on: Images, norm: Norm) -> tuple[list[float], float]:
    """Return the radii that a bisection finds, and the gradients an image."""
    radii = []
    for i in range(len(on.pixels)):
        if not _reaches(model, on, i, ThreatModel(norm, LARGEST)):
            radii.append(math.inf)
            continue
        low, high = LEAST, LARGEST
        for _ in range(HALVINGS):
            middle = math.sqrt(low * high)
            reached = _reaches(model, on, i, ThreatModel(norm, middle))
            low, high = (low, middle) if reached else (middle, high)
        radii.append(high)
    return radii, STEPS * (1.0 + HALVINGS)


def _reaches(model: QualityModel, on: Images, i: int, threat: ThreatModel) -> bool:
    attack = PGD(threat=threat, objectives=("raise",), steps=STEPS, step_size=threat.epsilon, falling=True)
    result = attack.run(model, on.pixels[i : i + 1], on.ids[i : i + 1], on.mos[i : i + 1])
    best = max(found.example.score for found in result.found)
    return best - float(result.clean) >= on.spread


def table(name: str, model: QualityModel, on: Images, norms: Sequence[Norm], lengths: Sequence[int]) -> None:
    """Print what is found in every norm."""
    for norm in norms:
        reference, cost = bisected(model, on, norm)
        _line(name, norm, f"bisection, PGD-{STEPS}", reference, cost, reference)
        for steps in lengths:
            radii, cost = minimum(model, on, norm, steps)
            _line(name, norm, f"minimum_norm, {steps}", radii, cost, reference)


def _line(name: str, norm: str, what: str, radii: list[float], cost: float, reference: list[float]) -> None:
    ratios = np.array(radii) / np.array(reference)
    print(
        f"| {name} | {norm} | {what} | {np.median(radii) * 255:.3f}/255 | {cost:.0f} "
        f"| {np.median(ratios):.3f}, {ratios.min():.3f} to {ratios.max():.3f} |",
        flush=True,
    )


def main() -> None:
    """Print the table of every model named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="+")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--norm", nargs="+", default=["inf", "rmse"])
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 40])
    options = parser.parse_args()
    data = open_data("demo").split("test")
    every = [to_tensor(data.read(i), "cpu") for i in range(0, len(data), len(data) // 48)]
    print("| model | norm | search | median radius | gradients | radius over the bisection's |")
    print("|---|---|---|---|---|---|")
    for name in options.model:
        model = load_entrant(parse_model(name)).model.eval()
        blank = MinimumNorm(threat=ThreatModel("inf", LARGEST), objectives=("raise",), steps=1)
        spread = blank.trained(model, every, [str(i) for i in range(len(every))]).spread
        assert spread is not None
        chosen = every[:: max(1, len(every) // options.images)][: options.images]
        ids = [f"image-{i}" for i in range(len(chosen))]
        on = Images(chosen, ids, torch.full((len(chosen),), 0.5, dtype=torch.float64), spread)
        table(name.rsplit("/", 1)[-1], model, on, options.norm, options.steps)


if __name__ == "__main__":
    main()
