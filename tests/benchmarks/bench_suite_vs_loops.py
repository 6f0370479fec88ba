"""Times the SRM paper's ensemble beside plain loops over the same PGD, and compares what both find.

Run by hand: ``python tests/benchmarks/bench_suite_vs_loops.py [--model demo_lite0] [--options JSON]
[--images 8] [--size 224] [--steps 40] [--restarts 5] [--repeats 1] [--tune fast] [--threads 1]
[--device cuda] [--json FILE]``.

The ensemble: mse, drift and pairwise inversion, every restart, and the results after 1, 5, 10, 20 and 40
steps. The loops are PGD as it is usually written: one objective at a time, every number of steps a run of
its own, the model in full precision as created, its parameters trainable, its layout contiguous. Both
start from the same points. On a CPU pieces of one restart are timed in turn: a busy machine is equally
busy for both. On a GPU a piece is all restarts: the loops run one after another and the harness runs them
together, as each would. Prints the ratio of times, both minima of SROCC and PLCC, and the gradients of both;
fails if the minimum of the ensemble is weaker than that of the loops by more than chance leaves.
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
from typing import Any, NamedTuple

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

DAMPED = 0.1
"""Weights of the last batch norm of every residual branch of a random network."""

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
    best, best_loss = x.clone(), torch.full((len(x),), -torch.inf, device=x.device)
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


class Piece(NamedTuple):
    """What is timed at once: restarts of one seed."""

    seed: int
    restarts: int


class Case:
    """A model, its images and their labels."""

    def __init__(
        self, model: QualityModel, count: int, size: int, sweep: tuple[int, ...], device: str
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, 3, 16, 16, generator=generator)
        wide = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
        self.model, self.sweep, self.device = model.to(device), sweep, device
        self.images = (wide.mul(255).round() / 255).to(device)
        self.ids = [f"image-{i}" for i in range(count)]
        with torch.no_grad():
            self.scores = torch.cat([model(image) for image in self.images.split(1)]).cpu()
        low, high = model.spec.score_range
        self.clean = (self.scores - low) / (high - low)
        # Labels near the scores, as of a model that predicts them: a ranking that can be destroyed.
        spread = self.clean.std()
        noise = 0.3 * spread * torch.randn(count, generator=generator)
        self.mos = (0.5 + 0.2 * (self.clean + noise - self.clean.mean()) / spread).clamp(0, 1)
        self.threat = ThreatModel("inf", EPSILON)

    def loops(self, piece: Piece) -> tuple[list[Scores], int]:
        """Run the loops of a piece; return of each restart the model's own scores, and all gradients."""
        each = [self._loops(piece.seed, restart) for restart in range(piece.restarts)]
        return [found for found, _ in each], sum(gradients for _, gradients in each)

    def _loops(self, seed: int, restart: int) -> tuple[Scores, int]:
        mos, clean = self.mos.to(self.device), self.clean.to(self.device)
        start = torch.stack(
            [
                self.threat.random_start(image, start_generator(seed, image_id, restart))
                for image, image_id in zip(self.images, self.ids, strict=True)
            ]
        )
        found, gradients = {}, 0
        for name in MEMBERS:
            for steps in self.sweep:
                best, _ = plain_pgd(self.model, self.images, mos, clean, start, name, steps)
                gradients += steps * len(best)
                with torch.no_grad():
                    found[name] = torch.cat([self.model(image) for image in best.split(1)]).cpu()
        return found, gradients

    def suite(
        self, model: QualityModel, copy: QualityModel, piece: Piece, chunk: int
    ) -> tuple[list[Scores], int]:
        """Run the harness's attack of the same piece; return the same of it, of all restarts the best."""
        attack = create_attack(
            "pgd",
            threat=self.threat,
            objectives=MEMBERS,
            steps=self.sweep[-1],
            step_size=STEP_SIZE,
            report_steps=self.sweep[:-1],
            batch=len(self.images),
            tau=TAU,
            seed=piece.seed,
            restarts=piece.restarts,
        )
        result = attack.run(model, list(self.images), self.ids, self.mos, chunk=chunk, gradients=copy)
        by_place = {(f.objective, f.steps, f.image): f.example.score for f in result.found}
        found = {
            name: torch.tensor([by_place[name, self.sweep[-1], i] for i in range(len(self.images))])
            for name in MEMBERS
        }
        return [found], sum(result.cost[i, self.sweep[-1]].backwards for i in range(len(self.images)))

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
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sweep = tuple(sorted({min(steps, options.steps) for steps in (*SWEEP, options.steps)}))

    def create() -> QualityModel:
        if Path(options.model).is_dir():
            return load_checkpoint(Path(options.model))
        return create_model(options.model, **json.loads(options.options))

    model = create()
    settle(model, options.size)
    other = create()
    other.load_state_dict(model.state_dict())
    case = Case(
        other.to(memory_format=torch.contiguous_format), options.images, options.size, sweep, options.device
    )
    model.to(options.device)
    began = time.perf_counter()
    choice: Tuning = tune(
        model, weights_sha256(model), list(case.images), chunk=options.chunk, mode=options.tune,
        gradients=1e9,
    )  # fmt: skip
    copy = choice.copy_of(model)  # once, as a run does
    tuning_seconds = time.perf_counter() - began
    print(f"{options.model}: {choice.why}; chunk {choice.chunk}")
    if options.device == "cpu":
        pieces = [Piece(seed, 1) for seed in range(options.restarts)]
    else:
        pieces = [Piece(0, options.restarts)]
    timed = Timed({"loops": case.loops, "suite": lambda piece: case.suite(model, copy, piece, choice.chunk)})
    for repeat in range(options.repeats):
        for piece in pieces:
            timed.take(piece, options.device, options.threads, keep=repeat == 0)
    figures = timed.figures(options.repeats) | {"tuning_seconds": tuning_seconds, "why": choice.why}
    print(
        f"loops / suite: least {figures['least']:.2f}, median {figures['median']:.2f}, most "
        f"{figures['most']:.2f} over {len(timed.ratios)} pieces; tuning {tuning_seconds:.1f} s beside "
        f"{timed.times['suite'] / options.repeats:.1f} s; load {os.getloadavg()[0]:.1f}"
    )
    print(
        f"gradients: loops {timed.gradients['loops']}, suite {timed.gradients['suite']}; ms a gradient: "
        f"loops {figures['loops_ms']:.2f}, suite {figures['suite_ms']:.2f}"
    )
    failed = False
    for name, value in correlations(case.scores, case.mos).items():
        least = {
            way: case.minimum(timed.found[way], lambda f, mos, name=name: correlations(f, mos)[name])
            for way in timed.found
        }
        print(f"{name}: clean {value:.3f}, suite_min: loops {least['loops']:.3f}, suite {least['suite']:.3f}")
        figures[name] = {"clean": value, **least}
        failed |= least["suite"] > least["loops"] + WEAKER
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return int(failed)


class Timed:
    """Both ways, timed piece by piece in turn."""

    def __init__(self, ways: dict[str, Callable[[Piece], tuple[list[Scores], int]]]) -> None:
        self.ways = ways
        self.ratios: list[float] = []
        self.times = dict.fromkeys(ways, 0.0)
        self.gradients = dict.fromkeys(ways, 0)
        self.found: dict[str, list[Scores]] = {way: [] for way in ways}

    def take(self, piece: Piece, device: str, threads: int, *, keep: bool) -> None:
        """Run a piece both ways."""
        clock = time.thread_time if device == "cpu" and threads == 1 else time.perf_counter
        spent = {}
        for way, run in self.ways.items():
            began = clock()
            scores, count = run(piece)  # ends with scores on the host: nothing is left on the device
            spent[way] = clock() - began
            self.times[way] += spent[way]
            if keep:
                self.found[way] += scores
                self.gradients[way] += count
        self.ratios.append(spent["loops"] / spent["suite"])
        print(
            f"  seed {piece.seed}, {piece.restarts} restart(s): loops {spent['loops']:.1f} s, suite "
            f"{spent['suite']:.1f} s, ratio {self.ratios[-1]:.2f}", flush=True,
        )  # fmt: skip

    def figures(self, repeats: int) -> dict[str, Any]:
        """Return ratios and times a gradient."""
        each = {f"{way}_ms": 1e3 * self.times[way] / repeats / self.gradients[way] for way in self.times}
        return {
            "least": min(self.ratios),
            "median": statistics.median(self.ratios),
            "most": max(self.ratios),
            "gradients": dict(self.gradients),
            **each,
        }


def settle(model: QualityModel, size: int) -> None:
    """Make a random network behave like a trained one: its scores do not explode, its slopes are not noise.

    Batch norms get the statistics of smooth noise; the last one of a residual branch is damped, without which
    the gradient of 50 random layers changes with every rounding.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if model.spec.initial_weights != "random" or not norms:
        return
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, module in model.named_modules():
            if name.endswith("bn3") and isinstance(module, nn.BatchNorm2d):
                module.weight.mul_(DAMPED)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
            norm.train()
        for _ in range(2):
            coarse = torch.rand(8, 3, 16, 16, generator=generator)
            model(nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1))
        for norm in norms:
            norm.eval()


if __name__ == "__main__":
    sys.exit(main())
