"""Times an attack beside the bare gradients it counts: what the harness adds to the model's own work.

Run by hand: ``python tests/benchmarks/bench_overhead.py [--model resnet50 demo_lite0 cheap] [--images 8]
[--size 224] [--steps 6] [--restarts 1] [--chunk 8] [--repeats 5] [--device cpu] [--graphed]``.

``resnet50`` is a network of that size with random weights, ``cheap`` a model that costs next to nothing: its
time is the host's. The bare loop asks the model for as many gradients and scores as the attack counts, in
passes of the same sizes; it keeps nothing, decides nothing and waits at the end only. Both are timed in turn
in one process, so that a busy machine is equally busy for both; on CUDA the device is waited for around each
time. Prints the overhead, (attack - bare) / bare: least, median and largest, and the median of the time that
is added to a step.
"""

# ruff: noqa: T201 - a script that prints its table

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from iqa_attacks import ThreatModel, create_attack
from iqa_attacks.gradients import ask
from iqa_harness.machine.allocator import keep_buffers
from iqa_models import QualityModel, create_model, wrap
from iqa_models.frozen import frozen
from iqa_models.graphs import Compute, Graphs

MEMBERS = ("mse", "drift", "pairwise_inversion")


def model_of(name: str) -> QualityModel:
    """Return a model by name, in eval mode."""
    if name == "cheap":
        return wrap(lambda images: images.mean((1, 2, 3)), name="cheap", score_range=(0, 1))
    if name != "resnet50":
        return create_model(name)
    import timm

    torch.manual_seed(0)
    trunk = timm.create_model("resnet50", num_classes=1)
    return wrap(nn.Sequential(trunk, nn.Flatten(0)), name=name, score_range=(0, 1))


class Case:
    """A copy of a model as attacks ask it, its images and the attack."""

    def __init__(self, name: str, given: argparse.Namespace) -> None:
        self.device = torch.device(given.device)
        self.model = frozen(model_of(name).to(self.device), graphed=given.graphed)
        generator = torch.Generator().manual_seed(0)
        self.images = [
            torch.rand(3, given.size, given.size, generator=generator).to(self.device)
            for _ in range(given.images)
        ]
        self.mos = torch.rand(given.images, generator=generator)
        self.chunk, self.steps = given.chunk, given.steps
        self.attack = create_attack(
            "pgd", threat=ThreatModel("inf", 4 / 255), objectives=MEMBERS, steps=given.steps,
            step_size=1 / 255, restarts=given.restarts, batch=max(2, given.images),
        )  # fmt: skip

    def seconds(self, work: object, *inputs: object) -> float:
        """Return the wall's seconds, or on a CPU with one thread the thread's own."""
        alone = self.device.type == "cpu" and torch.get_num_threads() == 1
        clock = time.thread_time if alone else time.perf_counter
        self.wait()
        started = clock()
        work(*inputs)  # type: ignore[operator]
        self.wait()
        return clock() - started

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def attacked(self) -> None:
        """Run the attack and keep what it counts."""
        ids = [str(i) for i in range(len(self.images))]
        self.cost = self.attack.run(self.model, self.images, ids, self.mos, chunk=self.chunk).cost

    def bare(self, sizes: list[int], last: int, stack: Tensor) -> None:
        """Ask for gradients in passes of these sizes, for the last iterates' scores and the clean ones."""
        for size in sizes:
            ask(self.model, stack[:size], chunk=size, gradient=True)
        ask(self.model, stack[:last], chunk=self.chunk, gradient=False)
        for image in self.images:
            ask(self.model, image.unsqueeze(0), chunk=1, gradient=False)

    def overheads(self, repeats: int) -> tuple[list[float], list[float], float]:
        """Return shares and seconds a step that the attack takes more, and the states of a step."""
        recorder, self.model.graphs = self.model.graphs, Sizes()
        self.attacked()
        sizes, self.model.graphs = self.model.graphs.met, recorder
        gradients, scores = (sum(c[k] for c in self.cost.values()) for k in (1, 0))
        most = max(*sizes, scores - gradients)
        stack = torch.stack([self.images[i % len(self.images)] for i in range(most)])
        shares, added = [], []
        for turn in range(-3, repeats):  # the first passes of a process, or of a shape, take longer
            whole = self.seconds(self.attacked)
            bare = self.seconds(self.bare, sizes, scores - gradients, stack)
            if turn >= 0:
                shares.append((whole - bare) / bare)
                added.append((whole - bare) / self.steps)
        return shares, added, gradients / self.steps


class Sizes(Graphs):
    """Notes how many images each pass of an attack had."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[int] = []

    def run(self, compute: Compute, images: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the pass and note its size."""
        self.met.append(len(images))
        return compute(images)


def main() -> None:
    """Print a line a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["resnet50", "demo_lite0", "cheap"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--graphed", action="store_true", help="record passes as CUDA graphs")
    for name, value in (
        ("images", 8), ("size", 224), ("steps", 6), ("restarts", 1), ("chunk", 8), ("repeats", 5),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=value)
    given = parser.parse_args()
    keep_buffers()  # as a run does
    for name in given.model:
        shares, added, states = Case(name, given).overheads(given.repeats)
        least, middle, most = min(shares), statistics.median(shares), max(shares)
        print(
            f"{name:12} {states:4.0f} states a step: overhead {least:7.1%} {middle:7.1%} {most:7.1%}"
            f" (least, median, largest), {1e3 * statistics.median(added):.2f} ms a step",
            flush=True,
        )


if __name__ == "__main__":
    main()
