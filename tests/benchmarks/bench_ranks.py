"""Do the ranks of a board keep their word? Simulation on known populations, seeded; and what it costs.

    python tests/benchmarks/bench_ranks.py coverage [--repeats 1000]
    python tests/benchmarks/bench_ranks.py cost

`coverage`: on how many boards of 20 models the places of every model hold its true one, all at once, for
populations of normal labels and scores whose SROCC is known. Equal true values share their places and all of
them must be held. With it, how many places a model has on average.

`cost`: seconds of the comparisons of a board, the bootstrap's draws given.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from helpers.simulated_board import Population, draw_board, holds
from iqa_harness.measures.all_pairs import all_pairs
from iqa_harness.measures.bootstrap import Bootstrap
from iqa_harness.measures.correlation import srocc

GROUPS = [0.3] * 5 + [0.5] * 5 + [0.6] * 5 + [0.8] * 5
SPREAD = [0.2 + 0.6 * i / 19 for i in range(20)]
POPULATIONS = {
    "all equal, .5": Population([0.5] * 20, 200),
    "four groups of equals": Population(GROUPS, 200),
    "four groups of equals, few images": Population(GROUPS, 48),
    "four groups of equals, minimum of 3": Population(GROUPS, 200, members=3),
    "four groups of equals, 40 contents": Population(GROUPS, 200, contents=40),
    "evenly from .2 to .8": Population(SPREAD, 200),
    "evenly from .2 to .8, errors alike": Population(SPREAD, 500, shared=0.9),
    "two models, equal": Population([0.5, 0.5], 100),
}


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def coverage(repeats: int) -> bool:
    """Print the table; return whether all places hold on at least 95 % of boards, but for chance."""
    say("| true values | images | all places hold | mean number of places |")
    say("|---|---|---|---|")
    fine = True
    for name, population in POPULATIONS.items():
        boards = [draw_board(population, seed) for seed in range(repeats)]
        share = float(np.mean([holds(board, population.truth) for board in boards]))
        width = float(np.mean([rank.last - rank.place + 1 for board in boards for rank in board.values()]))
        fine &= share >= 0.95 - 2 * (0.05 * 0.95 / repeats) ** 0.5
        say(f"| {name} | {population.images} | {share:.1%} | {width:.1f} |")
    return fine


def cost() -> None:
    """Print seconds by models and images: the draws of all values, and their comparison."""
    say("| models | images | draws of one column, s | its pairs at once, s |")
    say("|---|---|---|---|")
    for models, images in ((20, 2000), (200, 2000)):
        generator = np.random.default_rng(0)
        labels = generator.standard_normal(images)
        bootstrap = Bootstrap(labels)
        scores = labels + generator.standard_normal((models, images))
        before = time.perf_counter()
        found = [bootstrap.replicates(srocc(each, labels), each, "srocc") for each in scores]
        between = time.perf_counter()
        all_pairs(found)
        say(f"| {models} | {images} | {between - before:.2f} | {time.perf_counter() - between:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("coverage", "cost"))
    parser.add_argument("--repeats", type=int, default=1000)
    options = parser.parse_args()
    if options.what == "cost":
        cost()
    elif not coverage(options.repeats):
        sys.exit(1)
