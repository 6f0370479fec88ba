"""Two sides of a gate, made up: scores of 120 images."""

import hashlib

import numpy as np
import pandas as pd

from iqa_harness.gating.baselines import Standpoint
from iqa_results import Baseline, BaselineModel, Provenance

N = 120
MADE = Provenance(
    packages={"torch": "1"}, python="", platform="", device="cpu", threads=1, commit=None, dirty=None
)
generator = np.random.default_rng(0)
MOS = generator.random(N)
SCORES = {
    ("clean", "", ""): MOS + 0.1 * generator.standard_normal(N),
    ("attack", "pgd", "mse"): MOS + 0.5 * generator.standard_normal(N),
    ("attack", "pgd", "drift"): MOS + 0.4 * generator.standard_normal(N),
    ("composed", "", "srocc"): -MOS + generator.standard_normal(N),
    ("composed", "", "plcc"): -MOS + generator.standard_normal(N),
}


def side(scores=SCORES, verdict="sound", mos=MOS, models=("m",), noise=(), weights=None, **record):
    """One run: the same scores for each model, whose hash is of the scores if none is given."""
    parts = [
        pd.DataFrame(
            {
                "model": model, "row": row, "attack": attack, "objective": objective, "norm": "inf",
                "epsilon": 4 / 255, "image_id": [f"{i:03d}" for i in range(N)],
                "reference": [f"{i:03d}" for i in range(N)], "mos": mos, "score": values, "mapped": values,
            }
        )
        for model in models
        for (row, attack, objective), values in scores.items()
    ]  # fmt: skip
    weights = weights or hashlib.sha256(b"".join(v.tobytes() for v in scores.values())).hexdigest()
    fields = {
        "name": "base", "run": "run", "suite": "s", "suite_sha256": "5" * 64, "data": "d",
        "data_sha256": "d" * 64, "split": "test", "images": N, "label": "MOS", "main_epsilon": 4 / 255,
        "suite_min": ("pgd/mse", "pgd/drift"), "seed": 0, "provenance": MADE, "noise": noise,
        "models": tuple(BaselineModel(name=m, sha256=weights, verdict=verdict, flags=()) for m in models),
    }  # fmt: skip
    return Standpoint(Baseline(**{**fields, **record}), pd.concat(parts, ignore_index=True))


def damaged(place=("attack", "pgd", "mse"), noise=2.0):
    fresh = np.random.default_rng(1).standard_normal(N)
    return SCORES | {place: SCORES[place] + noise * fresh}


def changed(made, keep=None, where=None, **columns):
    """A side with rows left out, or with columns of some rows replaced."""
    scores = made.scores.copy()
    if keep is not None:
        scores = scores[keep(scores)]
    if columns:
        rows = where(scores)
        for name, value in columns.items():
            scores.loc[rows, name] = value(scores.loc[rows, name]) if callable(value) else value
    return Standpoint(made.record, scores.reset_index(drop=True))
