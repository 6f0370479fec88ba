"""Measures what attacks leave of a displacement in real JPEG files, and what the codec's slope is worth.

Run by hand: ``python tests/benchmarks/bench_jpeg.py MODEL [--images N] [--quality Q] [--epsilon 2/255]``. PGD
of 20 steps raises and lowers scores: of the image itself, through the codec with its rounding's slope passed
straight through, and through the codec as it is. Prints mean displacements of the score in units of its
range, of the image and of the file that Pillow makes of it (against the file of the clean image).
"""

# ruff: noqa: T201 - a script that prints its table

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from iqa_attacks import ThreatModel, create_attack, parse_epsilon, score, through_jpeg_file
from iqa_attacks.images import jpeg
from iqa_harness.cells.compute import to_tensor
from iqa_harness.data import open_data
from iqa_harness.entrants.naming import load_entrant, parse_model


def straight(coefficients: Tensor) -> Tensor:
    """Round; the gradient passes through."""
    return coefficients.detach().round() + (coefficients - coefficients.detach())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=5)
    parser.add_argument("--quality", type=int, default=75)
    parser.add_argument("--epsilon", default="2/255")
    arguments = parser.parse_args()
    model = load_entrant(parse_model(arguments.model), None).model.eval()
    data = open_data("demo").split("test").subset(range(arguments.images))
    images = torch.stack([to_tensor(data.read(i), "cpu") for i in range(len(data))])
    ids = [record.image_id for record in data.records]
    threat = ThreatModel("inf", parse_epsilon(arguments.epsilon))
    scale = model.spec.score_range[1] - model.spec.score_range[0]

    def scores(of: Tensor) -> tuple[Tensor, Tensor]:
        return score(model, of, chunk=4), score(model, through_jpeg_file(of, arguments.quality), chunk=4)

    clean = scores(images)
    soft = jpeg._rounded
    print(f"{model.spec.name}, {len(ids)} images, eps {arguments.epsilon}, quality {arguments.quality}")
    print(f"{'attacked':20}  {'image':>6}  {'file':>6}")
    for name, qualities, rounding in (
        ("the image", (), soft),
        ("codec, straight", (arguments.quality,), straight),
        ("codec as it is", (arguments.quality,), soft),
    ):
        jpeg._rounded = rounding
        attack = create_attack(
            "pgd", threat=threat, objectives=("raise", "lower"), steps=20, step_size=threat.epsilon / 8,
            jpeg_qualities=qualities,
        )  # fmt: skip
        result = attack.run(model, list(images), ids, torch.full((len(ids),), 0.5))
        moved = []
        for objective, side in (("raise", 1), ("lower", -1)):
            pushed = torch.stack([f.example.pixels for f in result.found if f.objective == objective])
            moved.append([side * (a - b).mean() / scale for a, b in zip(scores(pushed), clean, strict=True)])
        print(
            f"{name:20}  " + "  ".join(f"{sum(pair) / 2:6.3f}" for pair in zip(*moved, strict=True)),
            flush=True,
        )
    jpeg._rounded = soft


if __name__ == "__main__":
    main()
