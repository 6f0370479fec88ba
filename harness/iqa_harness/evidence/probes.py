"""Small attacks on a few images before the run: does the gradient lead anywhere, and far enough?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from iqa_attacks import PGD, Attack, AttackFailed, AttackResult, Noise, Norm, ThreatModel
from iqa_harness.evidence.check import Check
from iqa_harness.evidence.flags import FLAGS
from iqa_harness.evidence.judgement import BY_CHECK
from iqa_harness.evidence.model_checks import BLACK_BOX, Probe
from iqa_harness.machine.devices import out_of_memory
from iqa_models import QualityModel

PROBED = 2
"""Images the small attacks run on."""
BANDS = 8
"""Parts of the range of pixel values that the score must see."""
DRAWS = 4
"""Draws of noise, of which the best counts."""
FREE: tuple[tuple[Norm, int, float], ...] = (("inf", 3, 0.1), ("inf", 10, 0.1), ("2", 20, 0.03))
"""Norm, steps and their root mean square length without a budget, tried in turn where the former fell short.
Most models need few steps. Sign steps leave noise behind, which may only raise a score: steps along the
gradient itself come last."""
MIN_STEPS = 10
"""Steps below which a tenth of them is not one step."""
DIRECTIONS = ("raise", "lower")
PROBES = ("tones_alive", "noise_weaker", "ends_reached", "converged")
"""What is measured."""


def probe_model(
    model: QualityModel, images: Sequence[Tensor], attack: Attack | None, epsilon: float, draws: int | None
) -> dict[str, Check]:
    """Measure what a few gradients can show, on a model that `check_model` found usable.

    Args:
        model: in eval mode.
        images: (3, H, W) each in [0, 1]; the attacks run on the first PROBED of them.
        attack: the suite's own PGD at its main radius; None if it has none.
        epsilon: that radius.
        draws: evaluations averaged for a stochastic model.

    Returns:
        tones_alive, noise_weaker, ends_reached, converged: measured value, bound, verdict and meaning.
        What this suite gives no means to measure has no value and passes.
    """
    if not model.spec.has_gradient:
        return {name: _unmeasured(name, BLACK_BOX) for name in PROBES}
    probe = Probe(model, (draws or 1) if model.is_stochastic else None)
    try:
        return {
            "tones_alive": _tones_alive(probe, torch.stack([images[0], images[-1]])),
            **_attacks(probe, images, attack, epsilon, draws),
        }
    except Exception as error:
        if out_of_memory(error):
            raise
        reason = str(error) if isinstance(error, AttackFailed) else f"{type(error).__name__}: {error}"
        # A gradient that is finite on the images and not beside them: said, and the run's cells will fail.
        return {name: _check(name, None, reason) for name in ("noise_weaker", "ends_reached")}


def _tones_alive(probe: Probe, batch: Tensor) -> Check:
    """Squeeze the images into each part of [0, 1] and ask whether the score still sees them."""
    sizes = []
    for band in range(BANDS):
        squeezed = ((batch + band) / BANDS).clamp(0, 1)
        sizes.append(float(probe.gradients(squeezed).abs().double().sum()))
    largest = max(sizes)
    dead = sum(size <= 1e-3 * largest for size in sizes) / BANDS
    return _check("tones_alive", dead, f"share of {BANDS} parts of [0, 1] without a gradient")


def _attacks(
    probe: Probe, images: Sequence[Tensor], attack: Attack | None, epsilon: float, draws: int | None
) -> dict[str, Check]:
    model, few = probe.model, list(images[:PROBED])
    norm = attack.threat.norm if attack else "inf"
    threat = ThreatModel(norm, epsilon)
    own = (
        replace(attack, objectives=DIRECTIONS, restarts=1)
        if isinstance(attack, PGD)
        else PGD(threat=threat, objectives=DIRECTIONS, steps=10, step_size=epsilon / 4, eot_samples=draws)
    )
    before = math.floor(0.9 * own.steps)
    own = replace(own, report_steps=(before,) if own.steps >= MIN_STEPS else ())
    noise = Noise(threat=threat, objectives=DIRECTIONS, samples=DRAWS, eot_samples=draws)
    followed, blind = _run(own, model, few), _run(noise, model, few)
    full, random = _gain(followed, own.steps), _gain(blind, 0)
    checks = {
        "noise_weaker": _check(
            "noise_weaker",
            random / full if full > 0 else None,
            f"gain of the best of {DRAWS} draws of noise over that of PGD-{own.steps} "
            f"at {epsilon * 255:.3g}/255, {len(few)} images" + ("" if full > 0 else ": PGD gained nothing"),
        ),
        "ends_reached": _ends_reached(probe, images, draws),
    }
    if own.steps < MIN_STEPS or not isinstance(attack, PGD):
        reason = f"{own.steps} steps" if isinstance(attack, PGD) else "no PGD in the suite"
        checks["converged"] = _unmeasured("converged", reason)
    else:
        late = full - _gain(followed, before)
        checks["converged"] = _check(
            "converged",
            late / full if full > 0 else 0.0,
            f"share of the gain of {own.steps} steps made after step {before}, {len(few)} images",
        )
    return checks


def _run(attack: Attack, model: QualityModel, images: Sequence[Tensor]) -> AttackResult:
    mos = torch.full((len(images),), 0.5, dtype=torch.float64)
    # Two at once, as the checks before need: a model that is only just small enough can be probed.
    return attack.run(model, images, [f"probe-{i}" for i in range(len(images))], mos, chunk=2)


def _gain(result: AttackResult, steps: int) -> float:
    """Return the mean change in the wanted direction, on the model's own scale."""
    gains = [
        (found.example.score - float(result.clean[found.image])) * (1 if found.objective == "raise" else -1)
        for found in result.found
        if found.steps == steps and found.objective in DIRECTIONS
    ]
    return sum(gains) / len(gains)


def _ends_reached(probe: Probe, images: Sequence[Tensor], draws: int | None) -> Check:
    clean = probe.scores(torch.stack(list(images)))
    low, high = float(clean.min()), float(clean.max())
    few = list(images[:PROBED])
    open_ones = [
        (i, direction)
        for i in range(len(few))
        for direction in DIRECTIONS
        if (clean[i] < high if direction == "raise" else clean[i] > low)  # it is not there already
    ]
    tries = max(len(open_ones), 1)
    for norm, steps, size in FREE:
        unit = 1.0 if norm == "inf" else math.sqrt(few[0].numel())
        reached: set[tuple[int, str]] = set()
        for direction in DIRECTIONS:
            free = PGD(
                threat=ThreatModel(norm, unit),  # the ball holds the whole box
                objectives=(direction,),
                steps=steps,
                step_size=size * unit,
                random_start=False,
                eot_samples=draws,
            )
            places = [i for i, wanted in open_ones if wanted == direction]
            for found in _run(free, probe.model, [few[i] for i in places]).found if places else ():
                score = found.example.score
                if found.objective == direction and (score >= high if direction == "raise" else score <= low):
                    reached.add((places[found.image], direction))
        open_ones = [each for each in open_ones if each not in reached]
        if not open_ones:
            break
    return _check(
        "ends_reached",
        len(open_ones) / tries,
        f"share of {tries} tries without a budget that stop short of the clean scores' ends "
        f"{low:.4g} and {high:.4g}",
    )


def _check(name: str, value: float | None, detail: str) -> Check:
    threshold = FLAGS[BY_CHECK[name]].threshold
    return Check(value, threshold, value is not None and value <= threshold, detail)


def _unmeasured(name: str, reason: str) -> Check:
    return _check(name, None, reason)._replace(passed=True)
