"""Each flag of the stored rows: raised by what it is for, quiet otherwise, and silent where it cannot see."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.judged_rows import (
    CLEAN,
    HONEST,
    MOS,
    PASSED,
    N,
    attack,
    flag,
    flags_of,
    generator,
    judged,
    plants,
    raised,
    record,
    whole,
)
from iqa_attacks import PGD, ThreatModel
from iqa_harness.evidence.flags import FLAGS, Flag, measured, not_measured, verdict_of
from iqa_harness.evidence.judgement import (
    BY_CHECK,
    check_results,
    flags_of_checks,
    flags_without_scores,
)
from iqa_harness.evidence.model_checks import UNCHANGED, check_again, check_model
from iqa_harness.evidence.probes import probe_model
from iqa_harness.measures.model_scores import Attacked
from iqa_models import CHEATS, LinearQuality, create_model


def test_an_honest_run_raises_nothing():
    """All attacks in their natural order: every flag is measured and none is raised."""
    flags = flags_of(*HONEST)
    assert [f.flag for f in flags] == list(FLAGS)
    assert all(f.measured for f in flags), [f for f in flags if not f.measured]
    assert verdict_of(flags) == ("sound", [])


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("fgsm_as_strong", attack("fgsm", "fgsm", 0.15, steps=1)),
        ("noise_as_strong", attack("noise", "noise", 0.06, steps=0)),
        ("black_box_stronger", attack("square", "square", 0.13, steps=100)),
        ("black_box_stronger", attack("transfer:x", "transfer", 0.13)),
        ("more_steps_not_stronger", attack(gain=0.1, steps=1, final=False)),
        ("larger_epsilon_not_stronger", attack(gain=0.1, epsilon=1 / 255)),
        ("zero_gradients", attack(dead=5)),
        ("scores_vary", attack(apart=0.01)),
    ],
)
def test_one_planted_fault_raises_its_flag_alone(name, changed):
    """Everything else as in an honest run."""
    key = changed[0]
    rest = [a for a in HONEST if a[0] != key]
    assert raised(*rest, changed) == [name]


def test_a_drift_that_lives_between_grey_levels_is_seen():
    """Lost or doubled by rounding: both raise the flag; a small radius says nothing."""
    assert raised(attack(kept=0.2)) == ["rounding_decides"]
    assert raised(attack(kept=2.0)) == ["rounding_decides"]
    assert not flag("rounding_decides", attack(kept=0.2, epsilon=0.5 / 255)).measured


def test_rounding_is_judged_at_the_main_radius():
    """What a smaller radius loses between grey levels does not count; what the main one loses does."""
    small, main = attack(kept=0.05, gain=0.05, epsilon=1 / 255), attack(gain=0.2, epsilon=4 / 255)
    at_main = whole(main=4 / 255)
    found = flag("rounding_decides", small, main, plan=at_main)
    assert (found.raised, found.measured) == (False, True)
    assert "at 4/255" in found.detail
    small, main = attack(gain=0.05, epsilon=1 / 255), attack(kept=0.1, gain=0.2, epsilon=4 / 255)
    assert flag("rounding_decides", small, main, plan=at_main).raised
    assert not flag("rounding_decides", small, plan=at_main).measured
    larger = flag("rounding_decides", attack(epsilon=0.5 / 255), main, plan=whole(main=0.5 / 255))
    assert "at 4/255" in larger.detail  # the main one is below a grey level


def nan(key_and_found, column=None):
    """An attack with NaN in the scores of one image, or in a whole column of its rows."""
    key, found = key_and_found
    rows = found.rows.copy()
    if column:
        rows[column] = float("nan")
        return key, Attacked(found.score, found.score_8bit, found.final, rows)
    score, score_8bit = found.score.copy(), found.score_8bit.copy()
    score[3] = score_8bit[3] = float("nan")
    rows["adv_score"] = score
    return key, Attacked(score, score_8bit, found.final, rows)


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("fgsm_as_strong", nan(attack("fgsm", "fgsm", 0.06, steps=1))),
        ("noise_as_strong", nan(attack("noise", "noise", 0.004, steps=0))),
        ("black_box_stronger", nan(attack("square", "square", 0.05, steps=100))),
        ("black_box_stronger", nan(attack())),
        ("more_steps_not_stronger", nan(attack(gain=0.02, steps=1, final=False))),
        ("more_steps_not_stronger", nan(attack())),
        ("larger_epsilon_not_stronger", nan(attack(gain=0.05, epsilon=1 / 255))),
        ("zero_gradients", nan(attack(), "zero_gradients")),
        ("zero_gradients", nan(attack(), "backwards")),
        ("scores_vary", nan(attack(), "attack_score")),
        ("rounding_decides", nan(attack())),
    ],
)
def test_a_nan_raises_the_flag_and_never_quiets_it(name, broken):
    """Whichever side of a comparison it is on: the value is one that could not be had."""
    found = flag(name, *HONEST, broken)
    assert (found.raised, found.value) == (True, None)


def test_a_nan_in_the_clean_scores_is_invalid():
    """No agreement and no order either."""
    clean = CLEAN.copy()
    clean[0] = float("nan")
    assert {"constant_predictor", "no_agreement"} <= set(raised(clean=clean))


def test_a_nan_beside_a_score_hides_no_row():
    """An unknown projection or size of a change counts as one that matters."""
    assert flag("scores_vary", nan(attack(apart=0.01), "projection_moved")).raised
    key, found = nan(attack(kept=0.1), "rmse")
    assert flag("rounding_decides", (key._replace(norm="2"), found)).raised


@pytest.mark.parametrize("missing", [1, 20])
def test_missing_cells_and_values_make_a_model_incomplete(missing):
    """Beside honest flags and beside a suspect one; only an invalid one is worse."""
    part = whole(missing=missing)
    assert verdict_of(flags_of(*HONEST, plan=part)) == ("incomplete", ["attacks_missing"])
    lost = whole(undefined=("suite_min",))
    assert verdict_of(flags_of(*HONEST, plan=lost)) == ("incomplete", ["worst_case_undefined"])
    assert "suite_min: no results" in flag("worst_case_undefined", plan=lost).detail
    suspect = attack("fgsm", "fgsm", 0.15, steps=1)
    assert verdict_of(flags_of(*HONEST, suspect, plan=part))[0] == "incomplete"
    assert verdict_of(flags_of(*HONEST, attack(dead=5), plan=part))[0] == "invalid"
    nothing = flags_without_scores(record(), part, "no clean scores")
    assert [f.flag for f in nothing] == list(FLAGS)
    assert verdict_of(nothing) == ("incomplete", ["attacks_missing"])


def test_equal_strength_is_no_fault():
    """On a linear score one step is the optimum: FGSM as strong as PGD is not stronger."""
    pgd = attack()
    key, found = attack("fgsm", "fgsm", steps=1)
    same = Attacked(pgd[1].score, pgd[1].score_8bit, True, found.rows)
    result = flag("fgsm_as_strong", pgd, (key, same))
    assert (result.value, result.raised) == (1.0, False)


def test_a_difference_within_chance_is_no_fault():
    """A mean that is higher by three images out of forty is not stronger by two standard errors."""
    pgd = attack()
    score = pgd[1].score.copy()
    score[:1] += 0.2
    key, found = attack("fgsm", "fgsm", steps=1)
    result = flag("fgsm_as_strong", pgd, (key, Attacked(score, score, True, found.rows)))
    assert result.value > FLAGS["fgsm_as_strong"].threshold
    assert not result.raised


def test_short_steps_are_not_held_against_the_model():
    """PGD that cannot cross the ball is weaker than FGSM for want of reach: not measured."""
    result = flag("fgsm_as_strong", attack("fgsm", "fgsm", 0.15, steps=1), attack(step=0.1))
    assert (result.measured, result.raised) == (False, False)
    assert "cannot cross" in FLAGS["fgsm_as_strong"].meaning


def test_saturated_scores_are_not_held_against_a_larger_radius():
    """At the ends of the range no radius can be stronger."""
    end = CLEAN * 0 + 1.0
    pairs = [(k, Attacked(end, end, True, a.rows)) for k, a in (attack(), attack(epsilon=1 / 255))]
    result = flag("larger_epsilon_not_stronger", *pairs)
    assert not result.measured
    assert "ends of the card's range" in result.detail


def test_constants_are_the_models_fault_and_disagreement_the_datas():
    """A constant is invalid whatever its weights; a low SROCC counts only where agreement is claimed."""
    constant = np.full(N, 0.7) + 1e-9 * CLEAN
    assert "constant_predictor" in raised(clean=constant)
    shuffled = generator.permutation(CLEAN)
    trained, random = record(), record(checkpoint=None, initial_weights="random")
    assert raised(of=trained, clean=shuffled) == ["no_agreement"]
    assert raised(of=random, clean=shuffled) == []
    few = next(f for f in flags_of(of=random, clean=shuffled) if f.flag == "no_agreement")
    assert "random" in few.detail


def test_checks_made_before_the_run_become_flags():
    """A failed check raises its flag with its numbers; a missing one is not measured."""
    failed = {"value": 0.9, "threshold": 0.5, "passed": False, "detail": "apart"}
    nothing = {"value": None, "threshold": 0.05, "passed": True, "detail": "3 steps"}
    flags = {f.flag: f for f in flags_of_checks({"gradient_agrees": failed, "converged": nothing})}
    assert flags["gradient_disagrees"] == Flag("gradient_disagrees", 0.9, 0.5, True, True, "suspect", "apart")
    assert (flags["still_rising"].measured, flags["still_rising"].raised) == (False, False)
    assert not flags["scores_vary"].measured
    assert raised(of=record(PASSED | {"gradient_agrees": failed})) == ["gradient_disagrees"]


def test_what_a_few_images_showed_is_not_unsaid_by_the_rows():
    """Two evaluations that differed before the run raise the flag although all stored scores agree."""
    varied = {"value": 1e-5, "threshold": 0.0, "passed": False, "detail": "two evaluations"}
    assert raised(attack(), of=record(PASSED | {"repeatable": varied})) == ["scores_vary"]


def test_verdicts_follow_the_worst_flag():
    """Invalid beats suspect; NaN and a value that could not be had raise a flag; unmeasured never does."""
    high, dead = measured("still_rising", 0.2, ""), measured("zero_gradients", 0.5, "")
    assert verdict_of([high]) == ("suspect", ["still_rising"])
    assert verdict_of([high, dead]) == ("invalid", ["still_rising", "zero_gradients"])
    assert measured("still_rising", float("nan"), "").raised
    assert measured("still_rising", None, "").raised
    assert not measured("fgsm_as_strong", 2.0, "", also=False).raised
    assert verdict_of([not_measured("zero_gradients", "nothing")]) == ("sound", [])


def test_an_estimate_is_made_once_and_few_are_kept(monkeypatch):
    """The same scores give the same draws, to the bit; what was not used for long is made again."""
    of = judged()
    first = of.estimate(CLEAN + 0.01 * MOS, "srocc")
    assert of.estimate(CLEAN + 0.01 * MOS, "srocc") is first
    assert of.estimate(CLEAN + 0.01 * MOS, "plcc") is not first
    monkeypatch.setattr("iqa_harness.measures.model_scores.KEPT", 3)
    for step in range(5):
        of.estimate(CLEAN + step, "srocc")
        assert len(of._known) <= 4
    again = of.estimate(CLEAN + 0.01 * MOS, "srocc")
    assert again is not first
    assert again.value == first.value
    assert np.array_equal(again.replicates.draws, first.replicates.draws)


def clamped(gain, objective="drift", dead=4):
    """An attack on a score cut at the ends of the card's range, which has no gradient there."""
    key, found = attack(gain=gain, objective=objective)
    score = found.score.clip(0, 1)
    rows = found.rows.assign(
        adv_score=score, attack_score=score, zero_gradients=np.where(score == 1, dead, 0)
    )
    return key, Attacked(score, score, True, rows)


@pytest.mark.parametrize("objective", ["raise", "drift", "mse", "pairwise_inversion", "highest_seen"])
def test_zero_gradients_at_an_end_that_was_reached_are_no_fault(objective):
    """A clamped output has none there, and nothing is left to gain."""
    assert flag("zero_gradients", clamped(0.6, objective)).value == 0


def test_zero_gradients_count_where_an_objective_gained_nothing():
    """Raising came to the end, lowering stood still: its gradient was needed. If both gain, none counts."""
    up = clamped(0.9, "raise", dead=8)
    assert np.all(up[1].score == 1)
    key = up[0]._replace(objective="lower")
    for gain, counted in ((0.0, 0.8), (0.1, 0.0)):
        score = CLEAN - gain
        down = key, Attacked(score, score, True, up[1].rows.assign(adv_score=score, attack_score=score))
        assert flag("zero_gradients", up, down).value == pytest.approx(counted)


def test_a_score_stuck_at_an_end_is_a_fault():
    """A saturated head: raising is at its end on some images, but nothing else moved."""
    clean = np.where(CLEAN > 0.5, 1.0, 0.0)
    stuck = []
    for objective in ("raise", "lower", "drift"):
        key, found = attack(objective=objective, dead=10)
        rows = found.rows.assign(adv_score=clean, attack_score=clean, clean_score=clean)
        stuck.append((key, Attacked(clean, clean, True, rows)))
    for attacks in (stuck, stuck[2:]):
        found = next(f for f in flags_of(*attacks, clean=clean) if f.flag == "zero_gradients")
        assert found.value == 1
    only_up = next(f for f in flags_of(stuck[0], clean=clean) if f.flag == "zero_gradients")
    assert only_up.value == pytest.approx(np.mean(clean == 0))


@pytest.mark.parametrize(("apart", "is_raised"), [(0.0, False), (1e-6, False), (1e-3, True), (np.nan, True)])
def test_clean_scores_of_one_image_that_differ_raise_a_flag(apart, is_raised):
    """A model that remembers, counts or looks at the clock; a transfer's rows count too."""
    key, found = attack("transfer:x", "transfer", 0.02)
    other = Attacked(found.score, found.score_8bit, True, found.rows.assign(clean_score=CLEAN + apart))
    result = flag("scores_vary", *HONEST, (key, other))
    assert result.raised == is_raised
    assert (result.threshold == 1e-4) == is_raised


@pytest.mark.parametrize(("gained", "is_raised"), [(0.004, False), (0.08, True)])
def test_noise_is_judged_by_what_it_gains_not_by_the_error_that_was_there(gained, is_raised):
    """The clean distance from the label, here .2, is neither the attack's gain nor the noise's."""
    away = CLEAN - 0.2

    of = dataclasses.replace(judged(), unit_mos=away)
    attacks = attack(objective="mse"), attack("noise", "noise", gained, objective="mse", steps=0)
    found = check_results(record(), of, dict(attacks), whole())
    noise = next(f for f in found if f.flag == "noise_as_strong")
    assert noise.value == pytest.approx(gained / 0.1, rel=0.1)
    assert noise.raised == is_raised


FAULTS = {
    "none": lambda scores, images: scores,
    "no number": lambda scores, images: scores * float("nan"),
    "far": lambda scores, images: scores + 5,
    "counts": lambda scores, images: scores + 1e-3 * next(COUNT),
    "batch": lambda scores, images: scores + 0.01 * len(images),
    "detached": lambda scores, images: scores.detach(),
    "dead": lambda scores, images: scores.detach() + 0 * scores,
    "wrong sign": lambda scores, images: 2 * scores.detach() - scores,
    "clipped": lambda scores, images: images.clamp(0.5, 1).mean((1, 2, 3)),
    "remembers": lambda scores, images: torch.where(known(images), 0.1, 1) * scores,
}
COUNT = itertools.count()
SEEN = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(i)) for i in range(3)]
"""The images that faults are shown on."""


def known(images):
    """Which of some images are near one of SEEN."""
    return ((images.detach()[:, None] - torch.stack(SEEN)).abs().amax((2, 3, 4)) < 0.05).any(1)


class Faulty(LinearQuality):
    """The linear model with one fault."""

    fault = "none"

    def predict(self, images):
        return FAULTS[self.fault](super().predict(images), images)


def checked(fault="none", step=0.25, later=None):
    """Flags of what is measured before and after a run: of a model with a fault, from the start or later."""
    model = create_model("linear", seed=10).eval()
    model.__class__, model.fault = Faulty, fault
    pgd = PGD(threat=ThreatModel("inf", 4 / 255), objectives=("raise",), steps=10, step_size=step * 4 / 255)
    checks = check_model(model, SEEN)
    if fault not in ("no number", "detached"):  # such a model is not attacked
        checks |= probe_model(model, SEEN, pgd, 4 / 255, None)
    model.fault = later or fault
    checks[UNCHANGED] = check_again(model, SEEN, checks)
    return flags_of_checks(checks)


PLANTED = {
    "attacks_missing": lambda: flags_of(*HONEST, plan=whole(missing=1)),
    "worst_case_undefined": lambda: flags_of(*HONEST, plan=whole(undefined=("composed",))),
    "scores_not_finite": lambda: checked("no number"),
    "outside_score_range": lambda: checked("far"),
    "scores_vary": lambda: checked("counts"),
    "batch_dependence": lambda: checked("batch"),
    "gradient_missing": lambda: checked("detached"),
    "zero_gradients": lambda: checked("dead"),
    "gradient_disagrees": lambda: checked("wrong sign"),
    "fresh_images_differ": lambda: checked("remembers"),
    "changed_during_run": lambda: checked(later="wrong sign"),
    "input_range": lambda: checked("clipped"),
    "noise_as_strong": lambda: checked("wrong sign"),
    "ends_not_reached": lambda: checked("wrong sign"),
    "still_rising": lambda: checked(step=0.02),
    "fgsm_as_strong": lambda: flags_of(*HONEST, attack("fgsm", "fgsm", 0.15, steps=1)),
    "more_steps_not_stronger": lambda: flags_of(*HONEST, attack(gain=0.1, steps=1, final=False)),
    "larger_epsilon_not_stronger": lambda: flags_of(*HONEST, attack(gain=0.1, epsilon=1 / 255)),
    "black_box_stronger": lambda: flags_of(*HONEST, attack("square", "square", 0.13, steps=100)),
    "plant_missed": lambda: flags_of(*HONEST, power=plants(18)),
    "rounding_decides": lambda: flags_of(*HONEST, attack(kept=0.2), attack(objective="lower", kept=0.2)),
    "constant_predictor": lambda: flags_of(clean=np.full(N, 0.7)),
    "no_agreement": lambda: flags_of(*HONEST, clean=-CLEAN),
}
"""A case of every flag there is."""


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_raised_by_what_is_planted_for_it(name):
    """No flag exists that nothing raises, and none is raised by the honest case beside it."""
    assert next(f for f in PLANTED[name]() if f.flag == name).raised


def test_no_flag_is_raised_by_what_is_honest():
    """All that is measured before a run of the linear model, and all of an honest run."""
    before = [f for f in checked() if f.flag in BY_CHECK.values()]
    assert [f.flag for f in before if f.raised or not f.measured] == []
    assert set(PLANTED) == set(FLAGS)
    assert [f.flag for f in flags_of(*HONEST) if f.raised] == []


@pytest.mark.parametrize("kind", FLAGS.values(), ids=FLAGS)
def test_every_flag_has_a_paragraph(kind):
    """It says what is measured."""
    assert len(kind.meaning) > 150
    assert "easured" in kind.meaning


def test_the_page_of_flags_holds_every_paragraph():
    """harness/flags.md says what `verify --explain` says, of every flag and of every planted cheat."""
    page = (Path(__file__).parents[2] / "harness" / "flags.md").read_text(encoding="utf-8")
    for kind in FLAGS.values():
        assert f"## {kind.name}\n" in page
        assert kind.meaning in page
    assert all(f"| {cheat} | {meant} |" in page for cheat, meant in CHEATS.items())
