"""Do the intervals and the gate keep their word? Simulation on known populations, seeded.

    python tests/benchmarks/bench_intervals.py coverage [--repeats 1000]
    python tests/benchmarks/bench_intervals.py gate [--repeats 400]

`coverage`: how often the 95 % interval holds the population's value. `gate`: how often `find_regressions`
says worse where nothing changed, and where the population's SROCC fell by .05.

Populations. Labels y, clean scores s and attacked scores a of three members are jointly normal. SROCC of a
normal pair is 6/pi asin(rho/2) and PLCC is rho, so every population value is known without sampling; that
of the minimum is the smallest member's. Clusters: a share of every variable's variance is common to the
images of one content. Gate: two runs of one model score r_before and r_after, equal but for a
run-to-run noise whose share is given; where robustness falls, the attacked scores of all members get weaker.
"""

from __future__ import annotations

import argparse
import math
import sys
import time

import numpy as np
import pandas as pd

from iqa_harness.gating.baselines import Standpoint
from iqa_harness.gating.regressions import find_regressions
from iqa_harness.measures.bootstrap import Bootstrap, lowest
from iqa_harness.measures.correlation import plcc, srocc
from iqa_results import Baseline, BaselineModel, Provenance


def say(line: str) -> None:
    """Print a line now."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def spearman(rho: float) -> float:
    """Population SROCC of a normal pair."""
    return 6 / math.pi * math.asin(rho / 2)


def pearson_for(rank: float) -> float:
    """Correlation of the normal pair whose SROCC is given."""
    return 2 * math.sin(math.pi * rank / 6)


def scores_for(y, noise, rho):
    """Return scores of correlation rho with y."""
    return rho * y + math.sqrt(1 - rho * rho) * noise


def draw(generator, content, clusters):
    """Return one standard normal variable an image; of contents, half of the variance is the content's."""
    fresh = generator.standard_normal(len(content))
    if not clusters:
        return fresh
    return math.sqrt(0.5) * generator.standard_normal(clusters)[content] + math.sqrt(0.5) * fresh


POPULATIONS = ((48, 0, 0.85), (100, 0, 0.6), (200, 0, 0.85), (120, 30, 0.7))
"""Images, contents (0: every image its own), correlation of the clean scores with the labels."""


def coverage(repeats: int, resamples: int, only: int | None) -> bool:
    """Print the table; return whether every reported interval lies within 93-97 %."""
    say("| population | images | drawn | statistic | as reported | BCa | percentile |")
    say("|---|---|---|---|---|---|---|")
    fine = True
    for n, clusters, rho in POPULATIONS if only is None else [POPULATIONS[only]]:
        hits = {}
        generator = np.random.default_rng([n, clusters, int(100 * (rho + 1))])
        for repeat in range(repeats):
            content = np.arange(n) % clusters if clusters else np.arange(n)

            y, own, other, more = (draw(generator, content, clusters) for _ in range(4))
            clean, attacked = scores_for(y, own, rho), scores_for(y, 0.6 * own + 0.8 * other, rho - 0.4)
            third = scores_for(y, 0.6 * own + 0.8 * more, rho - 0.3)
            references = [str(c) for c in content]
            bootstrap = Bootstrap(y, references, resamples=resamples, seed=repeat)
            for metric, of in (("srocc", srocc), ("plcc", plcc)):
                truth = spearman if metric == "srocc" else float
                a = bootstrap.replicates(of(clean, y), clean, metric)
                b = bootstrap.replicates(of(attacked, y), attacked, metric)
                c = bootstrap.replicates(of(third, y), third, metric)
                for name, found, value in (
                    (metric, a, truth(rho)),
                    (f"drop of {metric}", b - a, truth(rho - 0.4) - truth(rho)),
                    (f"minimum of two, {metric}", lowest([b, c]), truth(rho - 0.4)),
                ):
                    for method in (None, "BCa", "percentile"):
                        low, high = found.interval(method)
                        hits.setdefault((name, method), []).append(low <= value <= high)
        for name in dict.fromkeys(name for name, _ in hits):
            share = {m: float(np.mean(hits[name, m])) for m in (None, "BCa", "percentile")}
            kind = f"{clusters} contents, half the variance shared" if clusters else "independent"
            unit = "references" if clusters else "images"
            fine &= 0.93 <= share[None] <= 0.97
            shares = f"{share[None]:.1%} | {share['BCa']:.1%} | {share['percentile']:.1%}"
            say(f"| rho {rho}, {kind} | {n} | {unit} | {name} | {shares} |")
    return fine


NOTHING = Provenance(packages={}, python="", platform="", device="cpu", threads=1, commit=None, dirty=None)
MEMBERS = (("mse", 0.30), ("drift", 0.35), ("pairwise_inversion", 0.28))
"""Population SROCC of the members before the change."""


def side(y, clean, members, composed) -> Standpoint:
    """Return one run as the gate sees it."""
    n = len(y)
    ids = [f"{i:05d}" for i in range(n)]
    parts = []

    def part(row, attack, objective, scores):
        parts.append(
            pd.DataFrame(
                {
                    "model": "m", "row": row, "attack": attack, "objective": objective, "norm": "inf",
                    "epsilon": 0.004, "image_id": ids, "reference": ids, "mos": y, "score": scores,
                    "mapped": scores,
                }
            )
        )  # fmt: skip

    part("clean", "", "", clean)
    for (name, _), scores in zip(MEMBERS, members, strict=True):
        part("attack", "pgd", name, scores)
    part("composed", "", "srocc", composed)
    part("composed", "", "plcc", composed)
    record = Baseline(
        name="b", run="r", suite="s", suite_sha256="0", data="d", data_sha256="0", split="test", images=n,
        label="MOS", main_epsilon=0.004, suite_min=tuple(f"pgd/{name}" for name, _ in MEMBERS), seed=0,
        models=(BaselineModel(name="m", sha256="0", verdict="sound", flags=()),), provenance=NOTHING,
    )  # fmt: skip
    return Standpoint(record, pd.concat(parts, ignore_index=True))


def run(generator, y, common, own, noise, fall) -> Standpoint:
    """Return one run of a model: the same errors as every run of it but for a share of fresh noise."""

    def again(base):
        fresh = generator.standard_normal(len(y))
        return math.sqrt(1 - noise) * base + math.sqrt(noise) * fresh

    clean = scores_for(y, again(common), pearson_for(0.8))
    members = [
        scores_for(y, again(0.7 * common + math.sqrt(0.51) * error), pearson_for(rank - fall))
        for error, (_, rank) in zip(own, MEMBERS, strict=True)
    ]
    return side(y, clean, members, scores_for(y, again(common), pearson_for(-0.5 - fall)))


SETTINGS = ((200, 0.0), (200, 0.01), (200, 0.02), (200, 0.05), (48, 0.02))
"""Images, and the share of the scores' variance that differs from run to run."""


def gate(repeats: int, only: int | None) -> bool:
    """Print false alarms and power; return whether they are as promised."""
    say(
        "| images | run-to-run noise (share of variance) | planted fall of SROCC | runs called worse "
        "| suite_min alone |\n|---|---|---|---|---|"
    )
    fine = True
    for n, noise in SETTINGS if only is None else [SETTINGS[only]]:
        for fall in (0.0, 0.05):
            generator = np.random.default_rng([n, int(1000 * noise), int(1000 * fall)])
            alarms, least = [], []
            for _ in range(repeats):
                y, common = generator.standard_normal(n), generator.standard_normal(n)
                own = generator.standard_normal((len(MEMBERS), n))
                runs = [run(generator, y, common, own, noise, f) for f in (0.0, fall)]
                found = find_regressions(*runs)
                alarms.append(bool(found.regressions))
                least.append(any(r.row == "suite_min" for r in found.regressions))
            share, alone = float(np.mean(alarms)), float(np.mean(least))
            if fall == 0:
                fine &= share <= 0.05
            say(f"| {n} | {noise:.0%} | {fall:.2f} | {share:.1%} | {alone:.1%} |")
    return fine


def main() -> None:
    """Run one of the simulations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("coverage", "gate"))
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--population", type=int, help="only this population, from 0")
    given = parser.parse_args()
    started = time.perf_counter()
    if given.what == "gate":
        fine = gate(given.repeats, given.population)
    else:
        fine = coverage(given.repeats, given.resamples, given.population)
    say(f"\n{'as promised' if fine else 'NOT as promised'}; {time.perf_counter() - started:.0f} s")
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
