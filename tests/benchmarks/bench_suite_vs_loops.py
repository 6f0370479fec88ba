"""Times the SRM paper's ensemble beside plain loops over the same PGD, and compares what both find.

Run by hand: ``python tests/benchmarks/bench_suite_vs_loops.py [--model demo_lite0] [--options JSON]
[--images 8] [--size 224] [--steps 40] [--restarts 5] [--repeats 1] [--tune fast] [--threads 1]``.

The ensemble: mse, drift and pairwise inversion, every restart, and the results after 1, 5, 10, 20 and 40
steps. The loops are PGD as it is usually written: one objective at a time, every number of steps a run of
its own, the model in full precision as it was created, its parameters trainable, its layout contiguous. Both
start from the same points. Pieces of one restart are timed in turn, so that a busy machine is equally busy
for both. Prints the ratio of times, both minima of SROCC and PLCC, and the gradients of both; fails if the
minimum of the ensemble is weaker than that of the loops by more than chance leaves.
"""

# ruff: noqa: T201 - a script that prints its table

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn

from iqa_attacks import ThreatModel, create_attack
from iqa_attacks.seeding import start_generator
from iqa_harness.machine.runtime import TUNE
from iqa_harness.machine.tuning import Tuning, tune
from iqa_models import QualityModel, create_model, load_checkpoint, weights_sha256

EPSILON, STEP_SIZE, TAU = 4 / 255, 1 / 255, 0.1
SWEEP = (1, 5, 10, 20, 40)
MEMBERS = ("mse", "drift", "pairwise_inversion")
WEAKER = 0.05
"""How much higher the ensemble's minimum may be: so few images leave the last digits to chance."""

Scores = dict[str, Tensor]
"""By member of the ensemble, the model's own scores of what it found."""


def losses(name: str, f: Tensor, mos: Tensor, clean: Tensor) -> Tensor:
    """Return the loss of every image, on scores and labels in [0, 1]; of pairs the batch's, repeated."""
    if name == "mse":
        return (f - mos).square()
    if name == "drift":
        return (f - clean).square()
    better = mos.unsqueeze(1) > mos.unsqueeze(0)
    return nn.functional.softplus(-(f.unsqueeze(1) - f.unsqueeze(0)) / TAU)[better].mean().expand(len(f))


def plain_pgd(
    model: QualityModel, images: Tensor, mos: Tensor, clean: Tensor, start: Tensor, name: str, steps: int
) -> tuple[Tensor, Tensor]:
    """Return the best iterates of PGD as one writes it, and their losses."""
    low, high = model.spec.score_range
    x = start.clone()
    best, best_loss = x.clone(), torch.full((len(x),), -torch.inf)
    for step in range(steps + 1):
        x = x.detach().requires_grad_(step < steps)
        with torch.set_grad_enabled(step < steps):
            loss = losses(name, (model(x) - low) / (high - low), mos, clean)
        better = loss.detach() > best_loss
        best[better], best_loss = x.detach()[better], torch.maximum(best_loss, loss.detach())
        if step < steps:
            total = loss[0] * len(x) if name == "pairwise_inversion" else loss.sum()
            (gradient,) = torch.autograd.grad(total, x)
            x = x.detach() + STEP_SIZE * gradient.sign()
            x = torch.clamp(torch.min(torch.max(x, images - EPSILON), images + EPSILON), 0, 1)
    return best, best_loss


class Case:
    """A model, its images and their labels."""

    def __init__(self, model: QualityModel, count: int, size: int, sweep: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, 3, 16, 16, generator=generator)
        wide = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
        self.model, self.sweep = model, sweep
        self.images = wide.mul(255).round() / 255
        self.ids = [f"image-{i}" for i in range(count)]
        with torch.no_grad():
            self.scores = torch.cat([model(image) for image in self.images.split(1)])
        low, high = model.spec.score_range
        self.clean = (self.scores - low) / (high - low)
        # Labels near the scores, as of a model that predicts them: a ranking that can be destroyed.
        spread = self.clean.std()
        noise = 0.3 * spread * torch.randn(count, generator=generator)
        self.mos = (0.5 + 0.2 * (self.clean + noise - self.clean.mean()) / spread).clamp(0, 1)
        self.threat = ThreatModel("inf", EPSILON)

    def loops(self, restart: int) -> tuple[Scores, int]:
        """Run the loops of one restart; return the model's scores after all steps, and gradients."""
        start = torch.stack(
            [
                self.threat.random_start(image, start_generator(restart, image_id, 0))
                for image, image_id in zip(self.images, self.ids, strict=True)
            ]
        )
        found, gradients = {}, 0
        for name in MEMBERS:
            for steps in self.sweep:
                best, _ = plain_pgd(self.model, self.images, self.mos, self.clean, start, name, steps)
                gradients += steps * len(best)
                with torch.no_grad():
                    found[name] = torch.cat([self.model(image) for image in best.split(1)])
        return found, gradients

    def suite(self, model: QualityModel, copy: QualityModel, restart: int, chunk: int) -> tuple[Scores, int]:
        """Run the harness's attack of the same restart; return the same of it."""
        attack = create_attack(
            "pgd",
            threat=self.threat,
            objectives=MEMBERS,
            steps=self.sweep[-1],
            step_size=STEP_SIZE,
            report_steps=self.sweep[:-1],
            batch=len(self.images),
            tau=TAU,
            seed=restart,
        )
        result = attack.run(model, list(self.images), self.ids, self.mos, chunk=chunk, gradients=copy)
        by_place = {(f.objective, f.steps, f.image): f.example.score for f in result.found}
        found = {
            name: torch.tensor([by_place[name, self.sweep[-1], i] for i in range(len(self.images))])
            for name in MEMBERS
        }
        return found, sum(result.cost[i, self.sweep[-1]].backwards for i in range(len(self.images)))

    def minimum(self, found: list[Scores], measure: Callable[[Tensor, Tensor], float]) -> float:
        """Return the least correlation of any member, each image at its restart of largest loss."""
        low, high = self.model.spec.score_range
        values = []
        for name in MEMBERS:
            tried = torch.stack([scores[name] for scores in found])
            loss = torch.stack([losses(name, (f - low) / (high - low), self.mos, self.clean) for f in tried])
            values.append(measure(tried.gather(0, loss.argmax(0, keepdim=True))[0], self.mos))
        return min(values)


def correlations(scores: Tensor, mos: Tensor) -> dict[str, float]:
    """Return SROCC and PLCC."""
    return {
        "SROCC": float(spearmanr(scores.numpy(), mos.numpy()).statistic),
        "PLCC": float(pearsonr(scores.numpy(), mos.numpy()).statistic),
    }


def main() -> int:
    """Time both, print, and return 1 if the ensemble is the weaker one."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="demo_lite0", help="name, or folder of a checkpoint")
    parser.add_argument("--options", default="{}", help="options of a named model, as JSON")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=8)
    parser.add_argument("--tune", choices=TUNE, default="fast")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.thread_time if options.threads == 1 else time.perf_counter
    sweep = tuple(sorted({min(steps, options.steps) for steps in (*SWEEP, options.steps)}))

    def create() -> QualityModel:
        if Path(options.model).is_dir():
            return load_checkpoint(Path(options.model))
        return create_model(options.model, **json.loads(options.options))

    case = Case(create().to(memory_format=torch.contiguous_format), options.images, options.size, sweep)
    began = clock()
    model = create()
    choice: Tuning = tune(
        model, weights_sha256(model), list(case.images), chunk=options.chunk, mode=options.tune,
        gradients=1e9,
    )  # fmt: skip
    copy = choice.copy_of(model)  # once, as a run does
    tuning_seconds = clock() - began
    print(f"{options.model}: {choice.why}; chunk {choice.chunk}")
    ratios, times = [], {"loops": 0.0, "suite": 0.0}
    found: dict[str, list[Scores]] = {"loops": [], "suite": []}
    gradients = {"loops": 0, "suite": 0}
    ways = {
        "loops": case.loops,
        "suite": lambda restart: case.suite(model, copy, restart, choice.chunk),
    }
    for repeat in range(options.repeats):
        for restart in range(options.restarts):
            spent = {}
            for way, run in ways.items():
                began = clock()
                scores, count = run(restart)
                spent[way] = clock() - began
                times[way] += spent[way]
                if repeat == 0:
                    found[way].append(scores)
                    gradients[way] += count
            ratios.append(spent["loops"] / spent["suite"])
            print(
                f"  restart {restart}: loops {spent['loops']:.1f} s, suite {spent['suite']:.1f} s, "
                f"ratio {ratios[-1]:.2f}", flush=True,
            )  # fmt: skip
    print(
        f"loops / suite: least {min(ratios):.2f}, median {statistics.median(ratios):.2f}, "
        f"most {max(ratios):.2f} over {len(ratios)} pieces; tuning {tuning_seconds:.1f} s beside "
        f"{times['suite'] / options.repeats:.1f} s; load {os.getloadavg()[0]:.1f}"
    )
    per = {way: 1e3 * times[way] / options.repeats / gradients[way] for way in times}
    print(
        f"gradients: loops {gradients['loops']}, suite {gradients['suite']}; ms a gradient: loops "
        f"{per['loops']:.1f}, suite {per['suite']:.1f}"
    )
    failed = False
    for name, value in correlations(case.scores, case.mos).items():
        least = {
            way: case.minimum(found[way], lambda f, mos, name=name: correlations(f, mos)[name])
            for way in found
        }
        print(f"{name}: clean {value:.3f}, suite_min: loops {least['loops']:.3f}, suite {least['suite']:.3f}")
        failed |= least["suite"] > least["loops"] + WEAKER
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
