"""What a gate compares: two whole sides of one benchmark; all else is refused, or said as a note."""

import pytest

from helpers.gate_sides import MADE, MOS, N, changed, side
from iqa_harness.errors import NotComparable
from iqa_harness.gating.regressions import find_regressions
from iqa_results import BadPart, BaselineModel


def attacks(scores):
    return scores["row"] == "attack"


BROKEN = {
    "no attacks": ({"keep": lambda s: ~attacks(s)}, "no scores under pgd/mse"),
    "no member": ({"keep": lambda s: s["objective"] != "drift"}, "no scores under pgd/drift"),
    "no composed": ({"keep": lambda s: s["row"] != "composed"}, "no composed scores of srocc"),
    "one composed": ({"keep": lambda s: s["objective"] != "plcc"}, "no composed scores of plcc"),
    "no clean": ({"keep": lambda s: s["row"] != "clean"}, f"clean scores of 0 of {N} images"),
    "fewer clean": ({"keep": lambda s: s["image_id"] > "019"}, f"clean scores of 100 of {N} images"),
    "fewer attacked": (
        {"keep": lambda s: ~(attacks(s) & (s["image_id"] < "020"))},
        "scores of pgd/mse that are not of exactly the images",
    ),
    "other images": (
        {"where": lambda s: s["objective"] == "drift", "image_id": lambda ids: "x" + ids},
        "scores of pgd/drift that are not of exactly the images",
    ),
    "another radius": ({"where": attacks, "epsilon": 1e-3}, "another radius than 4/255"),
    "a second norm": ({"where": attacks, "norm": "2"}, "second norm"),
    "a NaN": (
        {"where": lambda s: attacks(s) & (s["image_id"] == "003"), "score": float("nan")},
        "scores of pgd/mse that are not finite",
    ),
}


@pytest.mark.parametrize(("change", "says"), BROKEN.values(), ids=BROKEN)
def test_a_side_that_is_not_whole_is_damaged(change, says):
    """As a baseline or as a run, beside a whole one: nothing is compared with what is not there."""
    part = changed(side(), **change)
    for pair in ((part, side()), (side(), part), (part, part)):
        with pytest.raises(BadPart, match=says):
            find_regressions(*pair)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        ({"suite_min": ()}, "no member of a minimum is named"),
        ({"images": N + 1}, f"clean scores of {N} of {N + 1} images"),
    ],
)
def test_a_record_that_is_not_whole_is_damaged(record, says):
    """Without members there would be no minimum to fall."""
    for pair in ((side(**record), side()), (side(**record), side(**record))):
        with pytest.raises(BadPart, match=says):
            find_regressions(*pair)


def test_a_radius_is_compared_too():
    """Each side whole in itself, at another radius."""
    other = changed(side(main_epsilon=2 / 255), where=lambda s: s["row"] != "clean", epsilon=2 / 255)
    with pytest.raises(NotComparable, match="radii differ"):
        find_regressions(side(), other)


def test_a_norm_is_compared_too():
    """All attacked scores in another norm are another attack."""
    other = changed(side(), where=lambda s: s["row"] != "clean", norm="2")
    with pytest.raises(NotComparable, match="norms differ"):
        find_regressions(side(), other)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"suite_min": ("pgd/drift",)}, "members of suite_min differ"),
        ({"seed": 1}, "seeds differ"),
        ({"suite_sha256": "6" * 64}, "suites differ"),
        ({"data_sha256": "e" * 64}, "data differ"),
        ({"split": "val"}, "data differ"),
        ({"models": ("other",)}, "the run has no m (it has other)"),
        ({"mos": MOS[::-1].copy()}, "images differ"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, says):
    """Another suite, other data, labels or models: the message says which."""
    with pytest.raises(NotComparable) as caught:
        find_regressions(side(), side(**changes))
    assert says in str(caught.value)


def test_more_models_and_other_versions_are_notes():
    """They do not stop a comparison, and they are said."""
    later = MADE.model_copy(update={"device": "cuda", "packages": {"torch": "2"}})
    notes = find_regressions(side(), side(models=("m", "n"), provenance=later)).notes
    assert any("not compared: n" in n for n in notes)
    assert any("cpu before, cuda now" in n for n in notes)
    assert any("torch 1 -> 2" in n for n in notes)


def test_gradients_that_were_computed_otherwise_are_a_note():
    """An attack with half precision is another path: said where both sides say it, and nowhere else."""

    def of(words):
        models = (BaselineModel(name="m", sha256="w", verdict="sound", flags=(), gradients=words),)
        return side(weights="w")._replace(record=side().record.model_copy(update={"models": models}))

    plain, half, silent = of("the model as it is"), of("bfloat16"), of(None)
    (note,) = find_regressions(plain, half).notes
    assert note.startswith("gradients differ: those of m are of bfloat16 now, of the model as it is before")
    for pair in ((plain, plain), (half, half), (silent, half), (half, silent)):
        assert find_regressions(*pair).notes == []
