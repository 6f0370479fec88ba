"""Compares the closed loop on a set with what is composed of attacks on single images, at equal gradients.

Run by hand: ``python tests/benchmarks/bench_closed_loop.py MODEL... [--images N] [--gradients 10 20]
[--epsilon 0.25/255] [--norm 2] [--metric plcc]``, MODEL as the command line takes it (a registered name
or the folder of a checkpoint). In norm 2 the radius is given as RMSE a pixel: eps = RMSE sqrt(3 H W).

The loop may take so many gradients an image, on average. PGD with falling steps and APGD raise and lower
every image, PGD also under five objectives, with as many gradients as the loop may take, or one more.
Composed is over the clean image and all that an attack hands over, both ends among it. Two more values say
what the loop's is made of: the assignment within the ends that PGD reached, as if every score in between
could be had for nothing, and composed over the ends alone that the loop reached. Scores are each attack's
own. Prints value, gradients and evaluations an image, and CPU seconds.
"""

# ruff: noqa: T201 - a script that prints its tables

from __future__ import annotations

import argparse
import math
import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from iqa_attacks import (
    HIGHEST_SEEN,
    LOWEST_SEEN,
    Attack,
    AttackResult,
    ThreatModel,
    create_attack,
    parse_epsilon,
    score,
)
from iqa_harness.cells.compute import to_tensor
from iqa_harness.data import open_data
from iqa_harness.entrants.naming import load_entrant, parse_model
from iqa_harness.measures.composed import composed_worst_case
from iqa_harness.measures.correlation import Metric, Vector, plcc, srocc
from iqa_models import QualityModel

BOTH = ("raise", "lower")
FIVE = ("mse", "drift", "pairwise_inversion", "raise", "lower")
ENDS = (LOWEST_SEEN, HIGHEST_SEEN)
ATTACKS = ["pgd", "pgd, five objectives", "apgd"]
BETWEEN = 65
"""Scores within the ends of an image that the free assignment may take."""


class Set(NamedTuple):
    """Images under attack by a model."""

    model: QualityModel
    images: list[Tensor]
    ids: list[str]
    mos: Vector
    clean: Vector
    metric: Metric

    def composed(self, candidates: list[Vector]) -> float:
        """Return the composed worst case over candidates, the clean scores added."""
        own = [np.unique([c, *each]) for c, each in zip(self.clean, candidates, strict=True)]
        return composed_worst_case(own, self.mos, self.metric).value.value or math.nan


def scores_of(on: Set, result: AttackResult, names: tuple[str, ...] = ()) -> list[Vector]:
    """Return the scores found of every image, under some objectives or all."""
    rows: list[list[float]] = [[] for _ in on.images]
    for found in result.found:
        if not names or found.objective in names:
            rows[found.image].append(found.example.score)
    return [np.array(row) for row in rows]


def attacked(on: Set, attack: Attack) -> tuple[AttackResult, tuple[float, float], float]:
    """Run an attack; return it with gradients and evaluations an image, and CPU seconds."""
    started = time.process_time()
    result = attack.run(on.model, on.images, on.ids, torch.from_numpy(on.mos), chunk=8)
    costs = list(result.cost.values())
    spent = [
        sum(getattr(cost, name) for cost in costs) / len(on.images) for name in ("backwards", "forwards")
    ]
    return result, (spent[0], spent[1]), time.process_time() - started


def line(name: str, value: float, spent: tuple[float, float] | None = None, seconds: float = 0.0) -> None:
    """Print a row."""
    cost = f"{spent[0]:>9.1f}  {spent[1]:>11.1f}  {seconds:>6.1f}" if spent else ""
    print(f"  {name:44}  {value:>7.3f}  {cost}", flush=True)


def compare(on: Set, threat: ThreatModel, gradients: int, visits: int, attacks: list[str]) -> None:
    """Print the values of one budget."""
    loop, spent, seconds = attacked(
        on,
        create_attack(
            "closed_loop", threat=threat, objectives=(on.metric,), steps=gradients // visits, restarts=visits
        ),
    )
    each = math.ceil((gradients + 1) / 2)  # ways up and down share the gradient at the start
    falling: dict[str, Any] = {"steps": each, "step_size": threat.epsilon, "falling": True}
    single = {
        "pgd": create_attack("pgd", threat=threat, objectives=BOTH, **falling),
        "pgd, five objectives": create_attack("pgd", threat=threat, objectives=FIVE, **falling),
        "apgd": create_attack("apgd", threat=threat, objectives=BOTH, steps=each),
    }
    between = math.nan
    for name in attacks:
        attack = single[name]
        result, cost, took = attacked(on, attack)
        line(f"composed of {name}", on.composed(scores_of(on, result)), cost, took)
        if attack.kind == "pgd" and len(attack.objectives) == 2:
            ends = [np.append(row, c) for row, c in zip(scores_of(on, result), on.clean, strict=True)]
            between = on.composed([np.linspace(row.min(), row.max(), BETWEEN) for row in ends])
    line("assignment within pgd's ends, if free", between)
    line("composed of the loop's ends alone", on.composed(scores_of(on, loop, ENDS)))
    mine = np.array([row[0] for row in scores_of(on, loop, (on.metric,))])
    value = (srocc if on.metric == "srocc" else plcc)(mine, on.mos).value
    line("closed loop", math.nan if value is None else value, spent, seconds)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", default="demo-small")
    parser.add_argument("--images", type=int, default=None, help="the first so many of the test split")
    parser.add_argument("--epsilon", nargs="+", default=["0.25/255"], help="radius; with --norm 2 as RMSE")
    parser.add_argument("--norm", choices=["inf", "2"], default="inf")
    parser.add_argument("--metric", choices=["srocc", "plcc"], default="srocc")
    parser.add_argument("--gradients", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--visits", type=int, default=2, help="gradients are that many visits an image")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=ATTACKS)
    arguments = parser.parse_args()
    data = open_data(arguments.data).split("test")
    data = data.subset(range(min(arguments.images or len(data), len(data))))
    images = [to_tensor(data.read(i), "cpu") for i in range(len(data))]
    low, high = data.card.mos_range
    mos = np.array([(record.mos - low) / (high - low) for record in data.records])
    for text in arguments.models:
        model = load_entrant(parse_model(text), None).model.eval()
        clean = np.array([float(score(model, image.unsqueeze(0), chunk=1)) for image in images])
        on = Set(model, images, [r.image_id for r in data.records], mos, clean, arguments.metric)
        for radius in arguments.epsilon:
            size = parse_epsilon(radius) * (math.sqrt(images[0].numel()) if arguments.norm == "2" else 1.0)
            print(
                f"\n{model.spec.name}, {len(images)} images, norm {arguments.norm}, eps {radius}, clean "
                f"{arguments.metric.upper()} {on.composed([c[None] for c in clean]):.3f}"
            )
            for gradients in arguments.gradients:
                print(f"  {f'{gradients} gradients an image':44}    value  gradients  evaluations   CPU s")
                compare(on, ThreatModel(arguments.norm, size), gradients, arguments.visits, arguments.attacks)


if __name__ == "__main__":
    main()
