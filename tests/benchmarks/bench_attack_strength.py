"""Compares the strength of attacks at equal numbers of gradients on a model and the embedded images.

Run by hand: ``python tests/benchmarks/bench_attack_strength.py MODEL [--images N] [--epsilon 1/255]``, MODEL
as the command line takes it (a registered name or the folder of a checkpoint). Prints, a budget of gradients
an image and direction: the mean |displacement| of the score in units of its range, and the SROCC of the
composed worst case over the reached ends. Then the gradients that five objectives cost together.
"""

# ruff: noqa: T201 - a script that prints its tables

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from iqa_attacks import HIGHEST_SEEN, LOWEST_SEEN, Attack, ThreatModel, create_attack, parse_epsilon
from iqa_harness.cell import to_tensor
from iqa_harness.cli.arguments import load_entrant, parse_model
from iqa_harness.data import open_data
from iqa_harness.worst_case import composed_worst_case

BOTH = ("raise", "lower")
FIVE = ("mse", "drift", "pairwise_inversion", "raise", "lower")


def contenders(threat: ThreatModel, steps: int) -> dict[str, Attack]:
    """Return attacks that spend `steps` gradients an image and direction."""
    size = 2.5 * threat.epsilon / steps
    common = {"threat": threat, "objectives": BOTH}
    stepped = {**common, "steps": steps, "step_size": size}
    options = {"steps": steps, "alpha": size}
    return {
        "noise": create_attack("noise", samples=steps, **common),
        "square": create_attack("square", queries=steps, **common),
        "torchattacks.PGD": create_attack("torchattacks", attack="PGD", options=options, **common),
        "torchattacks.MIFGSM": create_attack("torchattacks", attack="MIFGSM", options=options, **common),
        "mifgsm": create_attack("mifgsm", random_start=False, **stepped),
        "pgd": create_attack("pgd", **stepped),
        "apgd": create_attack("apgd", steps=steps, **common),
    }


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--epsilon", default="1/255")
    parser.add_argument("--budgets", type=int, nargs="+", default=[10, 40, 100])
    arguments = parser.parse_args()

    model = load_entrant(parse_model(arguments.model), None).model.eval()
    data = open_data("demo").split("test").subset(range(arguments.images))
    pixels = [to_tensor(data.read(i), "cpu") for i in range(len(data))]
    ids = [record.image_id for record in data.records]
    low, high = data.card.mos_range
    mos = np.array([(record.mos - low) / (high - low) for record in data.records])
    threat = ThreatModel("inf", parse_epsilon(arguments.epsilon))
    scale = model.spec.score_range[1] - model.spec.score_range[0]

    print(f"{model.spec.name}, {len(ids)} images, eps {arguments.epsilon}")
    print(f"{'gradients':>9}  {'attack':20}  {'|displacement|':>14}  {'composed SROCC':>14}  {'s/image':>7}")
    for budget in arguments.budgets:
        for name, attack in contenders(threat, budget).items():
            started = time.perf_counter()
            result = attack.run(model, pixels, ids, torch.from_numpy(mos))
            seconds = (time.perf_counter() - started) / len(ids)
            clean = result.clean.numpy()
            ends = {(f.image, f.objective): f.example.score for f in result.found}
            moved = [
                abs(f.example.score - clean[f.image]) / scale for f in result.found if f.objective in BOTH
            ]
            candidates = [
                np.unique([clean[i], ends[i, LOWEST_SEEN], ends[i, HIGHEST_SEEN]]) for i in range(len(ids))
            ]
            value = composed_worst_case(candidates, mos, "srocc").value.value
            shown = "undefined" if value is None else f"{value:.3f}"
            print(
                f"{budget:>9}  {name:20}  {np.mean(moved):>14.4f}  {shown:>14}  {seconds:>7.2f}", flush=True
            )

    print("\ngradients an image, step and restart for five objectives together (apart: 5)")
    for name, attack in (
        ("pgd", create_attack("pgd", threat=threat, objectives=FIVE, steps=10, step_size=threat.epsilon / 4)),
        ("apgd", create_attack("apgd", threat=threat, objectives=FIVE, steps=20)),
    ):
        result = attack.run(model, pixels, ids, torch.from_numpy(mos))
        steps = attack.effort.steps
        spent = [result.cost[i, steps].backwards / steps for i in range(len(ids))]
        print(f"{name:5} {np.mean(spent):.2f}", flush=True)


if __name__ == "__main__":
    main()
