"""Times the composed worst case on made-up scores: 10,000 images of 50 candidates each.

Run by hand: ``python tests/benchmarks/bench_composed.py [--images N] [--candidates K]``. Labels are uniform,
clean scores follow them with noise, and candidates lie around the clean score, narrowly or widely; every
column of candidates is a start, as every attack of a run is. Prints clean value, lowest column, composed
value, and the CPU seconds of the search.
"""

# ruff: noqa: T201 - a script that prints its table

from __future__ import annotations

import argparse
import time

import numpy as np

from iqa_harness.measures.composed import composed_worst_case
from iqa_harness.measures.correlation import METRICS, plcc, srocc


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--candidates", type=int, default=50)
    arguments = parser.parse_args()
    n, k = arguments.images, arguments.candidates
    print(f"{n} images, {k} candidates")
    print(f"{'width':>6}  {'metric':6}  {'clean':>7}  {'column':>7}  {'composed':>8}  {'CPU s':>6}")
    for width in (0.05, 0.15, 0.5):
        generator = np.random.default_rng(0)
        mos = generator.random(n)
        clean = mos + 0.25 * generator.standard_normal(n)
        reach = width * np.abs(generator.standard_normal((n, 1)))
        scores = clean[:, None] + reach * generator.uniform(-1, 1, (n, k))
        scores[:, 0] = clean
        starts = [np.full(n, column) for column in range(k)]
        for metric in METRICS:
            measure = srocc if metric == "srocc" else plcc
            columns = [measure(scores[:, column], mos).value or 0.0 for column in range(k)]
            started = time.process_time()
            found = composed_worst_case(list(scores), mos, metric, starts).value.value
            seconds = time.process_time() - started
            print(
                f"{width:>6}  {metric:6}  {columns[0]:>7.4f}  {min(columns):>7.4f}  {found:>8.4f}  "
                f"{seconds:>6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
