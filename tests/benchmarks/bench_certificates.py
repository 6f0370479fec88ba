"""How certificates stand to attacks, how tight floors are, how often draws fail.

    python tests/benchmarks/bench_certificates.py [attacks|floors|coverage]

`attacks`: sets of six small random images under the model `linear`, every attack, norm and objective; each
result is held against the image intervals and against the floors under SROCC and PLCC. `floors`: floors
against scores that a search found, on sets of many sizes. `coverage`: how often a smoothed certificate
fails, against what it allows. Prints Markdown. Exit code 1 if anything is where it cannot be.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter

import numpy as np
import torch
from scipy.stats import binomtest

from iqa_attacks import ThreatModel, create_attack
from iqa_attacks.certificates.intervals import Drawing, certify_scores
from iqa_attacks.defences.defended import defend
from iqa_harness.measures.certified_plcc import plcc_floor
from iqa_harness.measures.certified_srocc import srocc_floor
from iqa_harness.measures.composed import composed_worst_case
from iqa_harness.measures.correlation import plcc, srocc
from iqa_models import create_model

ATTACKS = 10_000
SETTINGS = {
    "fgsm": {}, "pgd": {"steps": 5, "relative": 0.4, "restarts": 1}, "mifgsm": {"steps": 5, "relative": 0.4},
    "apgd": {"steps": 6}, "noise": {"samples": 4},
}  # fmt: skip
BALLS = (
    ("inf", 0.5 / 255),
    ("inf", 2 / 255),
    ("inf", 8 / 255),
    ("2", 0.05),
    ("2", 0.3),
    ("2", 1.0),
    ("rmse", 1 / 255),
)
OBJECTIVES = ("mse", "drift", "raise", "lower")
MEASURES = {"srocc": (srocc_floor, srocc), "plcc": (plcc_floor, plcc)}
ROUNDING = 1e-9


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def attacks() -> int:
    """Hold attacks against certificates until there are enough; return how many were where they cannot be."""
    done, beyond, number = Counter(), 0, 0
    nearest = {"srocc": [], "plcc": []}
    share = []
    while sum(done.values()) < ATTACKS:
        model = create_model("linear", seed=number % 50)
        generator = torch.Generator().manual_seed(number)
        shown = list(torch.rand(6, 3, 8, 8, generator=generator) ** (1 + number % 3))
        mos = torch.rand(6, generator=generator, dtype=torch.float64)
        name = list(SETTINGS)[number % len(SETTINGS)]
        threat = ThreatModel(*BALLS[number % len(BALLS)])
        found = certify_scores(model, shown, list("abcdef"), threat)
        options = dict(SETTINGS[name])
        if "relative" in options:
            options["step_size"] = options.pop("relative") * threat.epsilon
        attack = create_attack(name, threat=threat, objectives=OBJECTIVES, seed=number, **options)
        results = attack.run(model, shown, list("abcdef"), mos).found
        least = {
            m: floor(found.low, found.high, mos.numpy()).value.value for m, (floor, _) in MEASURES.items()
        }
        for objective in OBJECTIVES:
            last = {f.image: f for f in results if f.objective == objective}
            scores = np.array([float(last[i].example.score) for i in range(6)])
            out = bool((scores < found.low).any() or (scores > found.high).any())
            for metric, (_, measure) in MEASURES.items():
                value = measure(scores, mos.numpy()).value
                out |= value < least[metric] - ROUNDING
                nearest[metric].append(value - least[metric])
            beyond += out
            done[f"{name} {threat.norm}"] += 1
        seen = [np.array([float(f.example.score) for f in results if f.image == i]) for i in range(6)]
        if name in ("pgd", "apgd"):
            share.append(np.mean([np.ptp(s) for s in seen] / (found.high - found.low)))
        number += 1
    say(f"{sum(done.values()):,} attacks on {number:,} sets, {beyond} beyond a certificate")
    say(f"reach of pgd and apgd over the certified width: mean {np.mean(share):.3f}, max {np.max(share):.4f}")
    for metric, gaps in nearest.items():
        say(f"{metric}: attack minus floor: smallest {np.min(gaps):.2e}, median {np.median(gaps):.3f}")
    say("| attack, norm | attacks |\n|---|---|")
    for name, count in sorted(done.items()):
        say(f"| {name} | {count:,} |")
    return beyond


def floors() -> int:
    """Print floors beside what the composed search finds within the same intervals."""
    generator, wrong = np.random.default_rng(0), 0
    say("| images | width | clean | found | floor | exact | seconds | PLCC clean | found | floor | seconds |")
    say("|---|---|---|---|---|---|---|---|---|---|---|")
    for n in (14, 30, 60, 100, 200, 500):
        for width in (0.05, 0.15, 0.3, 0.6):
            mos = generator.random(n)
            middle = mos + 0.3 * generator.standard_normal(n)
            low, high = middle - width / 2, middle + width / 2
            candidates = [np.linspace(a, b, 17) for a, b in zip(low, high, strict=True)]
            line = [f"{n}", f"{width:g}"]
            for metric, (floor, measure) in MEASURES.items():
                began = time.perf_counter()
                found = floor(low, high, mos)
                took = time.perf_counter() - began
                searched = composed_worst_case(candidates, mos, metric).value.value if n <= 200 else math.nan
                wrong += searched < found.value.value - ROUNDING
                line += [f"{measure(middle, mos).value:.3f}", f"{searched:.3f}", f"{found.value.value:.3f}"]
                line += [str(found.exact)] * (metric == "srocc") + [f"{took:.2f}"]
            say(f"| {' | '.join(line)} |")
    return wrong


def coverage() -> int:
    """Print how often the certificate of a smoothed linear model fails, in sets of eight images."""
    model, wrong = create_model("linear"), 0
    shown = list(torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.06 + 0.47)
    length = float(model.weight(8, 8).detach().norm()) / 192
    with torch.no_grad():
        clean = model(torch.stack(shown)).double().numpy()
    say("| confidence | draws | eps / sigma | sets | failed | allowed | p |\n|---|---|---|---|---|---|---|")
    for confidence in (0.5, 0.8, 0.95):
        for draws in (200, 1000):
            for ratio in (0.25, 1.0):
                sets, failed, epsilon = 200, 0, 0.05 * ratio
                for seed in range(sets):
                    drawing = Drawing(draws=draws, confidence=confidence, seed=seed)
                    smoothed = defend(model, "smooth_median:0.05,1")
                    found = certify_scores(
                        smoothed, shown, list("abcdefgh"), ThreatModel("2", epsilon), drawing
                    )
                    low, high = clean - epsilon * length, clean + epsilon * length
                    failed += bool((found.low > low).any() or (found.high < high).any())
                p = binomtest(failed, sets, 1 - confidence, alternative="greater").pvalue
                wrong += p < 1e-4
                allowed = f"{sets * (1 - confidence):.0f}"
                say(f"| {confidence} | {draws} | {ratio:g} | {sets} | {failed} | {allowed} | {p:.3g} |")
    return wrong


def main() -> None:
    """Run what is named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    studies = {"attacks": attacks, "floors": floors, "coverage": coverage}
    parser.add_argument("study", nargs="?", choices=studies)
    chosen = parser.parse_args().study
    torch.set_num_threads(1)
    wrong = sum(study() for name, study in studies.items() if chosen in (None, name))
    sys.exit(int(wrong > 0))


if __name__ == "__main__":
    main()
