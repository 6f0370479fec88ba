"""The flags: what can speak against a number, each with its bound and a paragraph of documentation.

A flag is raised by measurement only. It says that a number may not mean what it seems to mean, not that
somebody cheated. `invalid` flags say that the attack, or the score itself, did not take place as the
table claims; `incomplete` flags say that a number that counts is not there; `suspect` flags say that a
stronger attack probably exists, or that the number says little.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

Severity = Literal["invalid", "incomplete", "suspect"]
Verdict = Literal["sound", "suspect", "incomplete", "invalid"]
VERDICTS: tuple[Verdict, ...] = ("sound", "suspect", "incomplete", "invalid")
"""From the best to the worst."""


class FlagKind(NamedTuple):
    """A flag as documented."""

    name: str
    severity: Severity
    """What it makes of the verdict when it is raised."""
    threshold: float
    """The bound."""
    raised: Literal["above", "below"]
    """Side of the bound on which it is raised."""
    meaning: str
    """One paragraph."""


class Flag(NamedTuple):
    """A flag as measured; the fields but the model's name of FLAG_COLUMNS."""

    flag: str
    value: float | None
    threshold: float
    raised: bool
    measured: bool
    severity: str
    detail: str


_KINDS = (
    FlagKind(
        "attacks_missing", "incomplete", 0, "above",
        "Not everything that was planned at the main radius was run: what was left out is what might have "
        "done more. Measured: the number of the model's cells without attack and at the main radius that "
        "failed, were not run or are no longer in the store. Start the run again: what is there is kept.",
    ),
    FlagKind(
        "worst_case_undefined", "incomplete", 0, "above",
        "A worst case at the main radius has no value. Measured: how many of suite_min and composed, in "
        "SROCC, are undefined; the table says why. Equal labels, scores that have all become equal, and "
        "results missing at this radius or at a smaller one do it: there is no number to believe.",
    ),
    FlagKind(
        "scores_not_finite", "invalid", 0, "above",
        "A score of an evaluated image is NaN or infinite. Measured on a few images before any attack: "
        "the number of such scores. No order exists among such scores; nothing is run.",
    ),
    FlagKind(
        "outside_score_range", "suspect", 0.5, "above",
        "A clean score lies far outside the range its card claims. Measured before any attack: the "
        "largest distance of a score from the range, in ranges. Objectives and tolerances are in units of "
        "that range, so a wrong range makes steps of the loss, R scores and thresholds mean something "
        "else. Correct the card's score_range.",
    ),
    FlagKind(
        "scores_vary", "invalid", 0.001, "above",
        "The score of one image differs between two evaluations although the model does not call itself "
        "stochastic. Measured: the largest difference between two evaluations before any attack (any "
        "difference raises it), between the clean scores that two cells of a run stored for one image "
        "(1e-4 raises it), and between the score the attack saw and the one the harness computed again "
        "from the stored example, in score ranges. Hidden randomness, and a memory of what was scored "
        "before, make an attack follow noise and look weak. Set is_stochastic on the card and eot_samples "
        "in the suite: draws are then averaged.",
    ),
    FlagKind(
        "batch_dependence", "invalid", 0.0001, "above",
        "The score of an image depends on the images it is evaluated with. Measured before any attack: "
        "the largest difference between an image alone and in a batch, in score ranges. Shared gradients, "
        "stored scores and every comparison assume independence. Batch statistics in eval mode are the "
        "usual cause.",
    ),
    FlagKind(
        "gradient_missing", "invalid", 0, "above",
        "The score has no finite gradient with respect to the image: the graph is detached, or the "
        "gradient overflows. Measured before any attack. White-box attacks cannot be run; nothing is run.",
    ),
    FlagKind(
        "zero_gradients", "invalid", 0.01, "above",
        "The gradient is exactly zero in every pixel, so that a gradient attack does not move: saturated "
        "heads, rounding, hard thresholds. Measured: the share of such gradients among the images checked "
        "before the attack and among all gradients of the attacks, whichever is larger. Not counted are "
        "images that the attack brought to an end of the card's range while none of its objectives stayed "
        "without gain: at the end of a clamped output nothing is left to find. Robustness against such an "
        "attack is none: use a surrogate gradient or a black-box attack.",
    ),
    FlagKind(
        "gradient_disagrees", "suspect", 0.5, "above",
        "The gradient is not the slope of the score. Measured before any attack: relative difference "
        "between the gradient and central differences of a quarter of a grey level along random signs, in "
        "16 blocks of the image one by one, on up to 8 images spread over the set and at points that attacks "
        "of one and of four grey levels reach; the median block counts. 0 is perfect, 1 is a gradient "
        "unrelated to the score, 2 one of the wrong sign. Straight-through rounding, compression inside the "
        "model, a gradient let through in one corner only and hand-written backward passes raise it; so does "
        "a score that is very rough at the scale of a grey level. White-box results are then upper bounds. A "
        "model behind a defence that was named (NAME|jpeg:75) is asked without it: what stands in for the "
        "defence's slope is none by design, and whether it leads anywhere is what noise_as_strong and "
        "black_box_stronger measure.",
    ),
    FlagKind(
        "fresh_images_differ", "suspect", 2, "above",
        "The model is not as easily moved on images that nobody has seen. Measured before any attack: what a "
        "sign step of one grey level gains on up to 8 images spread over the set, and on the same images "
        "mirrored, moved round by some pixels and a little paler; the larger mean gain over the smaller. A "
        "model that remembers the images of a public suite, their labels or their first scores raises it. "
        "An honest one is about as steep on either.",
    ),
    FlagKind(
        "changed_during_run", "invalid", 0.25, "above",
        "The model is not the one it was before the attacks: its gradient, or its score, has changed. "
        "Measured after the last cell, on the images of gradient_disagrees: that measure again, of the "
        "model and of the copy that attacks asked for gradients, less what it was before, or by how much the "
        "score is steeper or flatter than before, whichever is larger; it is raised, too, if a clean score "
        "is no longer the stored one. A model that hides its gradient after so many calls or seconds, that "
        "learns from what it is shown, or that reads another file meanwhile raises it. Worker processes and "
        "Slurm jobs measure their own models after their last task, and the worst counts; Ray's workers are "
        "not asked: there only what changes with time is seen. Not measured in a run that computed nothing "
        "or was interrupted.",
    ),
    FlagKind(
        "input_range", "suspect", 0, "above",
        "The score ignores part of the range of pixel values, as a model does that expects 0..255, [-1, "
        "1] or another scale and clips. Measured before any attack: images are squeezed into each eighth "
        "of [0, 1]; the share of eighths in which the gradient is less than a thousandth of the largest. "
        "A wrong scale without clipping keeps the order of scores and cannot be seen from outside; then "
        "look at the clean SROCC.",
    ),
    FlagKind(
        "noise_as_strong", "suspect", 0.5, "above",
        "Random noise of the same size does about as much as the attack. Measured: mean gain over the "
        "clean image of the best of four draws of full-size noise over that of the suite's gradient "
        "attack, both directions, on a few images before the run and on all images if the suite has a "
        "noise attack. Gradients carry nothing, or the score is so rough that no direction is better than "
        "another.",
    ),
    FlagKind(
        "ends_not_reached", "suspect", 0.75, "above",
        "An attack without a budget does not bring an image's score to the ends of the range that clean "
        "images reach. Measured before the run: gradient ascent in [0, 1] only, raising and lowering, 3 "
        "sign steps of .1, then 10 and 20 steps along the gradient of .03 root mean square for what fell "
        "short; the share of tries from 2 images that stop short of the highest or lowest clean score of "
        "the images checked. If everything is allowed, most scores must be reachable, or the gradient is "
        "masked. One end alone may be far: to make an image as plain as another takes more steps.",
    ),
    FlagKind(
        "still_rising", "suspect", 0.05, "above",
        "The objective still rises when the attack ends. Measured before the run with the suite's own PGD "
        "on a few images: the share of its whole gain made in the last tenth of the steps; a straight "
        "line would make a tenth. More steps, larger steps or APGD would find more. Not measured below 10 "
        "steps.",
    ),
    FlagKind(
        "fgsm_as_strong", "suspect", 1.02, "above",
        "One step does more than many. Measured on all images: mean strength of FGSM over that of the "
        "strongest gradient attack with steps, same radius and objectives, worst radius; raised if the "
        "paired difference exceeds two standard errors too. Equality is no reason: on a linear score one "
        "step is the optimum. Of a stochastic model it is raised above 1.15 only: the best of many noisy "
        "iterates is less than it seemed, one step is not chosen. Not measured where steps times step size "
        "cannot cross the ball.",
    ),
    FlagKind(
        "more_steps_not_stronger", "suspect", 1.05, "below",
        "The attack gains nothing from its steps. Measured on all images: mean strength of the full run "
        "over that of its shortest reported prefix, at the smallest radius with prefixes; only prefixes "
        "too short to cross the radius count. Ascent that does not ascend follows a gradient that says "
        "nothing.",
    ),
    FlagKind(
        "larger_epsilon_not_stronger", "suspect", 1.05, "below",
        "A larger ball gives no stronger attack. Measured on all images: mean strength at the smallest "
        "radius that is at least 1.5 times the smallest, over that at the smallest. Not measured where "
        "most scores are at the ends of the card's range already. A model that clips or rescales the "
        "change inside, or remembers what it has seen, raises it.",
    ),
    FlagKind(
        "black_box_stronger", "suspect", 1.02, "above",
        "An attack without the model's gradient does more than one with it: a transfer from another "
        "model, examples made before it was defended, Square or SPSA. Measured on all images: mean strength "
        "over that of the strongest gradient attack, same radius and objective, worst case; raised if the "
        "paired difference exceeds two standard errors too. The classical sign of a masked gradient.",
    ),
    FlagKind(
        "rounding_decides", "suspect", 0.5, "above",
        "The effect of the attack is lost, or made, by storing the image with 8 bits. Measured on all "
        "images at the main radius, or the smallest larger one whose changes are about a grey level: |1 - "
        "k|, k being the mean drift after rounding over the mean drift before it. Attack or robustness "
        "then live between grey levels, where no image file is. Not measured below a grey level.",
    ),
    FlagKind(
        "plant_missed", "suspect", 0.1, "above",
        "The attack does not find what is known to be there. Measured after the run, where the suite asks "
        "for it, or by iqa-harness power: near a few images, half of them of the lowest third "
        "by label, to be raised, half of the highest, to be lowered, a basin is planted in the score whose "
        "slope where attacks begin is at least what the model's own promises; the suite's attacks are run "
        "on it; the share of plants of which none of them reached half. It is raised only if the 95 % "
        "interval of the share found lies below .95, too. An attack that misses them misses the model's own "
        "basins: its steps are too few, too long or too short, it looks one way only, or the gradient it "
        "follows is zero, of the wrong sign or shattered, which hides plants as it hides basins. The "
        "model's worst case is then an upper bound that says little. Not measured for a model that draws or "
        "has no gradient.",
    ),
    FlagKind(
        "constant_predictor", "invalid", 2e-06, "below",
        "All clean scores are one number up to the rounding of float32. Measured on all images: range of "
        "the clean scores over their largest magnitude. A constant has no order to lose and is robust "
        "against everything. It judges the model whatever the data says, so a network with random "
        "weights, whose scores differ however little, does not raise it.",
    ),
    FlagKind(
        "no_agreement", "suspect", 0.3, "below",
        "The clean SROCC is too low to speak of robustness: what does not agree with opinion has nothing "
        "to lose. Measured on all images: the clean SROCC. It judges the prediction on this data and not "
        "the model's gradients. Not measured with fewer than 30 images, and for a model whose card says "
        "that its weights are random and that comes from no checkpoint: it claims no agreement.",
    ),
)  # fmt: skip

FLAGS: dict[str, FlagKind] = {kind.name: kind for kind in _KINDS}
"""Every flag by name."""


def measured(name: str, value: float | None, detail: str, *, also: bool = True) -> Flag:
    """Return a measured flag.

    Args:
        name: of the flag.
        value: what was measured; None or not finite for something that could not be, which raises the flag.
        detail: what was compared.
        also: a second condition without which it is not raised (a paired difference beyond chance).
    """
    kind = FLAGS[name]
    if value is None or not math.isfinite(value):
        value, beyond = None, True
    else:
        beyond = not (value <= kind.threshold if kind.raised == "above" else value >= kind.threshold)
    return Flag(name, value, kind.threshold, beyond and also, True, kind.severity, detail)


def not_measured(name: str, reason: str) -> Flag:
    """Return a flag that this run cannot measure."""
    kind = FLAGS[name]
    return Flag(name, None, kind.threshold, False, False, kind.severity, f"not measured: {reason}")


def verdict_of(flags: list[Flag]) -> tuple[Verdict, list[str]]:
    """Return the verdict and the names of the raised flags."""
    raised = [flag for flag in flags if flag.raised]
    names = [flag.flag for flag in raised]
    severities = {flag.severity for flag in raised}
    return next((v for v in reversed(VERDICTS) if v in severities), "sound"), names
