"""What attacks find of plants: the power of suites on sound models, on weak attacks, on masked models.

    python tests/benchmarks/bench_power.py [--suite demo --suite strong] [--images 6] [--data smoke]
        [--attack apgd] [--model LABEL=./CHECKPOINT]

Prints a line a (model, suite, attack): the share of the plants that must be found (steepness 1 and 2, widths
1/2 and 1/3), its 95 % interval, and the share at each steepness. Nothing is stored.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch

from iqa_harness import power
from iqa_results import Power

SOUND = ["linear", "demo_resnet10t"]


def lines(model: str, suite: str, given: argparse.Namespace) -> list[str]:
    """Return the lines of one model under one suite."""
    started = time.perf_counter()
    found = power(
        suite=suite,
        models=[model],
        images=given.images,
        data=given.data,
        attacks=given.attack,
        progress=False,
    )
    told = [
        f"| {whole.model} | {suite} | {whole.attack} | {whole.found} of {whole.plants} | {whole.share:.2f} "
        f"[{whole.low:.2f}, {whole.high:.2f}] | {_steep(found.power, whole)} |"
        for whole in found.power
        if whole.width is None
    ]
    say(f"{model}, {suite}: {time.perf_counter() - started:.0f} s", err=True)
    return told or [f"| {model} | {suite} | | nothing planted | | |"]


def _steep(rows: tuple[Power, ...], whole: Power) -> str:
    mine = [r for r in rows if (r.model, r.attack) == (whole.model, whole.attack) and r.steepness is not None]
    shares = []
    for steepness in sorted({row.steepness for row in mine if row.steepness is not None}):
        of = [row for row in mine if row.steepness == steepness]
        shares.append(f"{sum(r.found for r in of) / sum(r.plants for r in of):.2f}")
    return ", ".join(shares)


def say(line: str, *, err: bool = False) -> None:
    """Print a line now."""
    stream = sys.stderr if err else sys.stdout
    stream.write(line + "\n")
    stream.flush()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--suite", action="append")
    parser.add_argument("--images", type=int, default=6)
    parser.add_argument("--data", default="smoke")
    parser.add_argument("--attack", action="append", default=[])
    parser.add_argument("--model", action="append", help="instead of the sound ones")
    given = parser.parse_args()
    torch.set_num_threads(1)
    say("| model | suite | attack | must be found | share [95 %] | at steepness .25, .5, 1, 2 |")
    say("|---|---|---|---|---|---|")
    for model in given.model or SOUND:
        for suite in given.suite or ["demo"]:
            for line in lines(model, suite, given):
                say(line)


if __name__ == "__main__":
    main()
