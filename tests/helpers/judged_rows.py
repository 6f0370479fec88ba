"""Attacked scores that are made up, an image a row, and the flags that they raise."""

import numpy as np
import pandas as pd

from iqa_harness.evidence.judgement import BY_CHECK, Completeness, check_results
from iqa_harness.measures.bootstrap import Bootstrap
from iqa_harness.measures.correlation import Fit
from iqa_harness.measures.model_scores import Attacked, AttackKey, Judged
from iqa_harness.tables.power import interval
from iqa_results import ModelRecord, Power

N = 40
generator = np.random.default_rng(0)
CLEAN = generator.uniform(0.3, 0.7, N)
MOS = CLEAN + 0.02 * generator.standard_normal(N)
PASSED = {name: {"value": 0.0, "threshold": 1.0, "passed": True, "detail": "fine"} for name in BY_CHECK}


def judged(clean=CLEAN):
    return Judged(
        model="m", ids=tuple(map(str, range(N))), mos=MOS, clean=clean, clean_rows=pd.DataFrame(),
        score_range=(0.0, 1.0), unit_mos=MOS, fit=Fit(None, "none"), fitted_on="val", fitted_images=0,
        mapping="none", bootstrap=Bootstrap(MOS, resamples=2),
    )  # fmt: skip


def record(checks=PASSED, checkpoint="somewhere", **card):
    return ModelRecord(name="m", sha256="0", card=card, checkpoint=checkpoint, checks=checks)


def attack(name="pgd", kind="pgd", gain=0.1, objective="raise", epsilon=2 / 255, steps=10, **changes):
    """One attack whose gain varies a little from image to image."""
    sign = -1 if objective == "lower" else 1
    score = CLEAN + sign * gain * (1 + 0.1 * generator.standard_normal(N))
    score_8bit = CLEAN + changes.pop("kept", 1.0) * (score - CLEAN)
    rows = pd.DataFrame(
        {
            "kind": kind, "step_size": changes.pop("step", 0.25) * epsilon, "adv_score": score,
            "attack_score": score + changes.pop("apart", 0.0), "clean_score": CLEAN,
            "projection_moved": 0.0, "rmse": epsilon * 0.9,
            "backwards": 0 if kind in ("noise", "square", "transfer") else steps,
            "zero_gradients": changes.pop("dead", 0),
        },
        index=range(N),
    )  # fmt: skip
    final = changes.pop("final", True)
    assert not changes
    return AttackKey(name, objective, "inf", epsilon, steps), Attacked(score, score_8bit, final, rows)


def whole(main=2 / 255, missing=0, undefined=()):
    return Completeness(main, 20, missing, undefined, "no results" if undefined else "")


def plants(found, count=24):
    """The row of all attacks together: so many of the plants that must be found."""
    return [Power("m", "any", None, None, count, found, found / count, *interval(found, count))]


def flags_of(*attacks, of=None, clean=CLEAN, plan=None, power=None):
    return check_results(of or record(), judged(clean), dict(attacks), plan or whole(), power or plants(23))


def raised(*attacks, of=None, clean=CLEAN, plan=None):
    return [f.flag for f in flags_of(*attacks, of=of, clean=clean, plan=plan) if f.raised]


def flag(name, *attacks, of=None, plan=None):
    return next(f for f in flags_of(*attacks, of=of, plan=plan) if f.flag == name)


HONEST = [
    attack("fgsm", "fgsm", 0.06, steps=1),
    attack("noise", "noise", 0.004, steps=0),
    attack("square", "square", 0.05, steps=100),
    attack("transfer:x", "transfer", 0.02),
    attack(gain=0.05, epsilon=1 / 255),
    attack(gain=0.02, steps=1, final=False),
    attack(),
    attack(gain=0.09, objective="lower"),
]
