"""A suite built from what a run's attacks gained: who is chosen, what it costs, what it reaches elsewhere."""

import json
import shutil

import pytest

import iqa_harness as iqa
from iqa_harness.cells.built_suite import build_from
from iqa_harness.errors import RunError
from iqa_results import Estimate
from iqa_suites import BadSuite

SUITE = """
name = "wide"
summary = "all there is"
seed = 5
main_epsilon = "2/255"
suite_min = ["pgd/mse", "pgd/drift", "square/mse"]
step_sweep = "pgd"
cell_images = 4

[data]
name = "smoke"

[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["2/255", "4/255"]
objectives = ["mse", "drift", "pairwise_inversion"]
batch = 4
tau = 0.2
steps = 20
report_steps = [5]
relative_step_size = 0.25

[[attacks]]
name = "square"
kind = "square"
epsilons = ["2/255"]
objectives = ["mse"]
queries = 300
report_steps = [30]

[[attacks]]
name = "transfer"
kind = "transfer"
of = "pgd/mse"
"""
CLEAN = 0.9
FALLS = {
    ("pgd", "mse", 5): (0.40, 0.50),
    ("pgd", "mse", 20): (0.45, 0.55),
    ("pgd", "drift", 20): (0.42, 0.40),
    ("pgd", "pairwise_inversion", 20): (0.70, 0.60),
    ("square", "mse", 30): (0.80, 0.80),
    ("square", "mse", 300): (0.30, 0.90),
    ("transfer:b", "mse", 20): (0.89, 0.89),
}
"""By how much each lowers the SROCC of models a and b."""


class Run:
    """What the builder needs of a manifest."""

    run = "r"
    suite_text = SUITE
    main_epsilon = 2 / 255


def rows(models="ab", falls=FALLS, **changes):
    """The table of a run."""
    common = {"data": "smoke", "split": "test", "images": 16, "metric": "srocc", "verdict": "sound"} | changes
    made = []
    for place, model in enumerate(models):
        own = {name: CLEAN - found[place] for name, found in falls.items()}
        clean = {"row": "clean", "attack": "", "objective": "", "norm": "none", "epsilon": 0.0, "steps": 0}
        made.append(Estimate(model=model, final=True, value=CLEAN, **clean, **common))
        ball = {"norm": "inf", "epsilon": 2 / 255, "model": model} | common
        for (attack, objective, steps), value in own.items():
            at = {"attack": attack, "objective": objective, "steps": steps, "final": steps in (20, 300)}
            made.append(Estimate(row="attack", value=value, **at, **ball))
        least = {"attack": "pgd", "objective": "mse", "steps": 20, "final": True}
        made.append(Estimate(row="suite_min", value=min(own.values()), **least, **ball))
    return made


def build(budget=1000.0, min_gain=0.01, **given):
    return build_from(Run, rows(**given), name="mine", budget=budget, min_gain=min_gain)


def test_the_largest_fall_a_gradient_comes_first_and_what_is_needless_goes():
    """pgd_5/mse gains most a gradient, and nothing behind pgd/pairwise_inversion; Square is last, for b."""
    built = build()
    assert [each.member for each in built.members] == ["pgd/pairwise_inversion", "square/mse"]
    # 20 gradients and two scores more; then 300 queries.
    assert [each.gradients for each in built.members] == pytest.approx([20 + 2 / 3, 20 + 2 / 3 + 100])
    assert [each.fall for each in built.members] == pytest.approx([0.65, 0.8])
    assert built.whole == pytest.approx(0.895)  # of the suite's own minimum, the transfer among it
    # Three objectives of pgd are two ways up to 20 steps; Square's 300 queries.
    assert built.whole_gradients == pytest.approx(40 + 2 / 3 + 100)


def test_a_prefix_is_chosen_only_where_a_shorter_run_gives_it():
    """Of pgd, whose step is fixed, and not of Square, which plans its queries."""
    built = build(budget=10)
    assert [each.member for each in built.members] == ["pgd_5/mse"]
    (attack,) = built.suite.suite.attacks
    assert (attack.name, attack.steps, attack.report_steps, attack.objectives) == ("pgd_5", 5, (), ("mse",))
    assert built.gradients == pytest.approx(5 + 2 / 3)


def test_what_a_suite_reaches_is_measured_on_the_model_left_out():
    """The choice for a is made on b alone, and the other way round."""
    on_a, on_b = build().held_out
    assert (on_a.model, on_b.model) == ("a", "b")
    # On b alone Square, the strongest there, makes all others needless; pgd/pairwise_inversion does on a.
    assert (on_a.reached, on_a.fall) == pytest.approx((0.30, 0.89))
    assert (on_b.reached, on_b.fall) == pytest.approx((0.60, 0.90))
    assert build().share == pytest.approx((0.30 / 0.89 + 0.60 / 0.90) / 2)
    alone = build(models="a")
    assert (alone.held_out, alone.share) == ((), None)


def test_the_text_is_a_suite_with_what_its_attacks_need_and_no_more():
    """Data, seed and radius are the run's; other radii, prefixes, settings without an objective are gone."""
    built = build()
    suite = built.suite.suite
    assert (suite.name, suite.seed, suite.suite_min) == ("mine", 5, ("pgd/pairwise_inversion", "square/mse"))
    pgd, square = suite.attacks
    assert (pgd.epsilons, pgd.tau, pgd.report_steps) == ((2 / 255,), 0.2, ())
    assert (square.queries, square.report_steps) == (300, ())
    assert 'main_epsilon = "2/255"' in built.suite.text
    assert "about 121 gradients an image, 50% of its fall on a model left out" in suite.summary
    assert "tau" not in build(budget=10).suite.text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": 1.0}, "no attack of run 'r' lowers the mean SROCC by 0.01 for 1 gradients an image"),
        ({"min_gain": 0.95}, "no attack of run 'r' lowers the mean SROCC by 0.95"),
        ({"verdict": "invalid"}, "run 'r' has no model with a suite_min that is to be believed"),
    ],
)
def test_what_cannot_be_built_is_one_error(given, said):
    """It names the run and the bound."""
    with pytest.raises(RunError, match=said):
        build(**given)


def test_a_name_that_is_none_is_refused():
    """By the suite's own rule."""
    with pytest.raises(BadSuite, match="name"):
        build_from(Run, rows(), name="Mine!", budget=1000, min_gain=0)


def test_the_command_writes_a_suite_that_can_be_run(cli, tmp_path, first_store):
    """From a stored run to a file; the file is never overwritten."""
    store = shutil.copytree(first_store, tmp_path / "store")
    out = tmp_path / "quick.toml"
    call = ("suites", "build", "first", "--name", "quick", "--out", str(out), "--store", str(store))
    code, text, _ = cli(*call, "--min-gain", "0", "--json")
    assert code == 0
    found = json.loads(text)
    assert iqa.validate_suite(out).name == "quick"
    assert found["suite"]["text"] == out.read_text()
    assert [each["model"] for each in found["held_out"]] == ["linear", "other"]
    code, _, told = cli(*call)
    assert code == 3
    assert "there is something already" in told
