"""The gate: worse only beyond tolerance and chance, refused where nothing can be compared."""

import json
from functools import cache
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import spearmanr

import iqa_harness as iqa
from helpers.gate_sides import MOS, SCORES, N, damaged, side
from iqa_harness.errors import NotComparable, RunError
from iqa_harness.gating.baselines import Standpoint
from iqa_harness.gating.regressions import GATED, find_regressions, noise_floors, undefined_values
from iqa_harness.measures.bootstrap import Bootstrap, lowest
from iqa_harness.measures.correlation import METRICS, srocc
from iqa_models import create_model, save_checkpoint
from iqa_results import (
    BadManifest,
    load_baseline,
    save_baseline,
)


def test_nothing_changed_is_no_regression():
    """A run against itself: every difference is 0, every outcome ok, in both metrics."""
    gated = find_regressions(side(), side(), metrics=("srocc", "plcc"), tolerance=0)
    assert gated.regressions == []
    assert {c.outcome for c in gated.comparisons} == {"ok"}
    assert {c.difference for c in gated.comparisons if c.metric} == {0.0}
    rows = [c.row for c in gated.comparisons if c.metric == "srocc"]
    assert sorted(rows) == sorted([*GATED, "attack", "attack"])


def test_a_planted_fall_is_named_with_attack_metric_and_interval():
    """The minimum falls with its member, which is named; values are SciPy's, the interval lies below 0."""
    gated = find_regressions(side(), side(damaged()))
    (worse,) = gated.regressions
    assert worse.outcome == "regressed"
    assert (worse.model, worse.row, worse.attack, worse.objective) == ("m", "suite_min", "pgd", "mse")
    before = min(spearmanr(SCORES["attack", "pgd", o], MOS).statistic for o in ("mse", "drift"))
    after = spearmanr(damaged()["attack", "pgd", "mse"], MOS).statistic
    assert worse.before == pytest.approx(before)
    assert worse.difference == pytest.approx(after - before)
    assert worse.low < worse.difference < worse.high < 0
    assert worse.high < worse.bound < 0  # the bound shares its false alarms with two more values
    words = worse.sentence()
    assert all(part in words for part in ("m suite_min pgd/mse", "4/255", "SROCC", "["))


def test_a_rise_is_an_improvement():
    """Robustness that grows is no reason to stop."""
    gated = find_regressions(side(damaged()), side())
    assert gated.regressions == []
    assert "improved" in {c.outcome for c in gated.comparisons if c.row == "suite_min"}


def test_a_rise_of_the_same_model_passes_no_gate():
    """Equal weights cannot be more robust: the attacks got weaker, or scoring changed."""
    before, after = side(damaged(), weights="w"), side(weights="w")
    gated = find_regressions(before, after)
    (rise,) = gated.unexplained
    assert not gated.passed
    assert gated.regressions == []
    assert (rise.row, rise.difference > 0) == ("suite_min", True)
    assert rise.sentence().endswith("the model is the baseline's, the attacks found less")
    assert "no regression, 1 unexplained" in gated.headline()
    (failure,) = ElementTree.fromstring(gated.junit()).iter("failure")  # noqa: S314 - our own
    assert failure.get("type") == "Unexplained"
    back = find_regressions(after, before)
    assert back.regressions[0].reason.endswith("the model is the baseline's, the attacks found more")
    lost = damaged(("clean", "", ""), noise=0.5)
    (clean,) = find_regressions(side(lost, weights="w"), side(weights="w")).unexplained
    assert clean.reason.endswith("scores are computed otherwise")
    floors = tuple(noise_floors([before, after]))
    quiet = side(damaged(), weights="w", noise=floors)
    assert find_regressions(quiet, after, must_detect=1).passed
    (hidden,) = find_regressions(quiet, after).undecided  # a noise above what must be seen
    assert "repeated runs lie" in hidden.reason


def test_images_hide_no_change_of_the_same_model():
    """What chance may do to another model on 16 images it cannot do to the same: both ways are stopped."""
    pair = hidden_fall()
    same = [s._replace(record=s.record.model_copy(update={"models": pair[0].record.models})) for s in pair]
    for sides, outcome in ((same, "regressed"), (same[::-1], "unexplained")):
        clean = {c.row: c for c in find_regressions(*sides).comparisons}["clean"]
        assert abs(clean.difference) == pytest.approx(0.494, abs=0.01)
        assert (clean.outcome, clean.detectable, clean.bound) == (outcome, clean.tolerance, None)
    assert find_regressions(*same, tolerance=0.5).passed


def test_a_fall_needs_both_tolerance_and_chance():
    """Within the tolerance, within chance, or below a measured noise floor it is not called worse."""
    small = damaged(noise=0.2)
    found = {c.row: c for c in find_regressions(side(), side(small), tolerance=0).comparisons}
    fall = -found["suite_min"].difference
    assert fall > 0
    chance = SCORES | {("clean", "", ""): MOS + 0.1 * np.random.default_rng(7).standard_normal(N)}
    back = [side(chance), side()]
    if spearmanr(chance["clean", "", ""], MOS).statistic < spearmanr(SCORES["clean", "", ""], MOS).statistic:
        back.reverse()
    by_chance = next(c for c in find_regressions(*back, tolerance=0).comparisons if c.row == "clean")
    assert by_chance.difference < 0
    assert by_chance.outcome == "ok"
    assert "within chance" in by_chance.reason
    large = find_regressions(side(), side(damaged()), tolerance=0.9)
    assert large.regressions == []
    assert any("within the tolerance" in c.reason for c in large.comparisons)
    floors = noise_floors([side(), side(damaged())])
    quiet = find_regressions(side(noise=tuple(floors)), side(damaged()))
    assert quiet.regressions == []


FEW = 16


def few(before, after):
    """Two sides of 16 images, with their clean scores."""
    mos = MOS[:FEW]
    parts = [
        {k: v[:FEW] for k, v in SCORES.items()} | {("clean", "", ""): np.asarray(scores)}
        for scores in (before, after)
    ]
    return [shortened(part, mos) for part in parts]


@cache
def hidden_fall():
    """Two sides of 16 images whose clean SROCC falls from .056 to -.438, which chance may do."""
    draws = np.random.default_rng(0).permuted(np.tile(np.arange(FEW), (4000, 1)), axis=1)
    ranks = np.argsort(np.argsort(MOS[:FEW]))  # of permutations without ties Spearman's own formula
    value = 1 - 6 * ((draws - ranks) ** 2).sum(axis=1) / (FEW * (FEW**2 - 1))
    return few(*(draws[int(np.argmin(np.abs(np.subtract(value, near))))] for near in (0.056, -0.438)))


def shortened(scores, mos):
    whole = side({k: np.resize(v, N) for k, v in scores.items()}, mos=np.resize(mos, N), images=FEW)
    return Standpoint(whole.record, whole.scores[whole.scores["image_id"] < f"{FEW:03d}"])


def test_a_fall_that_few_images_hide_passes_no_gate():
    """SROCC from .056 to -.438 on 16 images is within chance: undecided, with the fall that would be seen."""
    pair = hidden_fall()
    gated = find_regressions(*pair)
    (clean,) = gated.undecided
    assert clean.difference == pytest.approx(-0.494, abs=0.01)
    assert not gated.regressions
    assert not gated.passed
    assert clean.detectable > -clean.difference
    assert clean.detectable == pytest.approx(clean.bound - clean.difference)
    assert f"only a fall of {clean.detectable:.3f} or more would be called worse" in clean.reason
    assert f"{clean.detectable:.3f}" in gated.sensitivity()
    (error,) = ElementTree.fromstring(gated.junit()).iter("error")  # noqa: S314 - our own
    assert error.get("type") == "Undecided"
    assert find_regressions(*pair, must_detect=clean.detectable + 1e-9).passed  # asked for no more than that
    assert find_regressions(
        pair[0], pair[0]
    ).passed  # what did not move is decided, with any number of images
    with pytest.raises(RunError, match="from the tolerance"):
        find_regressions(*pair, tolerance=0.2, must_detect=0.1)


def test_a_fall_of_the_size_that_can_be_detected_is_called_worse():
    """On 120 images a fall well above what is said to be detectable is found, one below is not."""
    gated = find_regressions(side(), side(damaged()))
    (worse,) = gated.regressions
    assert -worse.difference > worse.detectable
    ok = [c for c in find_regressions(side(), side(damaged(noise=0.2))).comparisons if c.metric and c.gated]
    assert all(-c.difference < c.detectable for c in ok)


def test_single_attacks_are_gated_on_demand():
    """A member that falls without moving the minimum is shown, and stops only if it is asked to."""
    place = ("attack", "pgd", "drift")
    scores = SCORES | {place: SCORES[place] + 0.25 * np.random.default_rng(3).standard_normal(N)}
    strong = {**SCORES, ("attack", "pgd", "mse"): -MOS}
    gated = find_regressions(side(strong), side(strong | {place: scores[place] - 0.4 * MOS}))
    assert gated.regressions == []
    shown = next(c for c in gated.comparisons if c.objective == "drift" and c.row == "attack")
    assert "by itself not gated" in shown.reason
    everything = find_regressions(
        side(strong), side(strong | {place: scores[place] - 0.4 * MOS}), every_attack=True
    )
    assert [r.name for r in everything.regressions] == ["m attack pgd/drift"]


def test_the_member_that_gives_the_minimum_now_is_named():
    """Another one than before: what fell is looked for there."""
    fallen = find_regressions(side(), side(damaged(("attack", "pgd", "drift"), noise=4.0))).regressions
    (worse,) = [c for c in fallen if c.row == "suite_min"]
    before = {o: spearmanr(SCORES["attack", "pgd", o], MOS).statistic for o in ("mse", "drift")}
    assert before["mse"] < before["drift"]
    assert (worse.objective, worse.images) == ("drift", N)


def test_a_single_attack_that_is_lost_counts_on_demand():
    """No member of the minimum: without a value, or not there, it stops only who gates every attack."""
    place = ("attack", "fgsm", "mse")
    whole, flat = SCORES | {place: SCORES["attack", "pgd", "mse"]}, SCORES | {place: np.ones(N)}
    for after, why in ((flat, "undefined: all scores are equal"), (SCORES, "not in the run")):
        gated = find_regressions(side(whole), side(after))
        (lost,) = [c for c in gated.comparisons if c.attack == "fgsm"]
        assert (lost.outcome, lost.reason, lost.after) == ("undefined", why, None)
        assert gated.passed
        (lost,) = find_regressions(side(whole), side(after), every_attack=True).regressions
        assert (lost.attack, lost.reason) == ("fgsm", why)
    for after in (flat, whole):  # nothing to lose, and nothing to gate with
        shown = find_regressions(side(flat), side(after), every_attack=True, undefined_ok=True)
        assert [c.outcome for c in shown.comparisons if c.attack == "fgsm"] == ["undefined"]


def test_a_worse_verdict_is_a_regression():
    """A number that is no longer to be believed passes no gate."""
    (worse,) = find_regressions(side(), side(verdict="suspect")).regressions
    assert (worse.row, worse.reason) == ("verdict", "sound -> suspect")
    assert find_regressions(side(verdict="invalid"), side(verdict="suspect")).regressions == []


def test_a_value_that_is_lost_is_a_regression():
    """Constant scores have no SROCC: worse than a low one."""
    (worse,) = find_regressions(side(), side(SCORES | {("clean", "", ""): np.ones(N)})).regressions
    assert (worse.row, worse.after) == ("clean", None)
    assert worse.reason == "undefined: all scores are equal"


@pytest.mark.parametrize("unknown", ["", "fine", "incomplete", "invalid"])
def test_a_verdict_nobody_knows_is_the_worst(unknown):
    """It never ranks as sound; with an unknown one before, a known one is no regression."""
    (worse,) = find_regressions(side(), side(verdict=unknown)).regressions
    assert worse.row == "verdict"
    (worse,) = find_regressions(side(verdict="suspect"), side(verdict=unknown)).regressions
    assert worse.reason == f"suspect -> {unknown}"


CONSTANT = SCORES | {("attack", "pgd", "mse"): np.full(N, 0.5)}


def test_a_baseline_without_a_value_gates_nothing():
    """What is undefined before and after is not "no regression"; it can be looked at all the same."""
    with pytest.raises(NotComparable, match=r"no value of m suite_min in SROCC \(all scores are equal"):
        find_regressions(side(CONSTANT), side(CONSTANT))
    shown = find_regressions(side(CONSTANT), side(CONSTANT), undefined_ok=True)
    assert "undefined" in {c.outcome for c in shown.comparisons}
    assert undefined_values(side(), METRICS) == []
    assert len(undefined_values(side(CONSTANT), METRICS)) == 2
    everything = undefined_values(side(CONSTANT), ("srocc",), every_attack=True)
    assert [name.split(" ")[1] for name in everything] == ["attack", "suite_min"]


@pytest.mark.parametrize("tolerance", [-0.1, float("nan"), float("inf")])
def test_a_tolerance_that_lets_everything_pass_is_refused(tolerance):
    """NaN compares false with every fall."""
    with pytest.raises(RunError, match="tolerance"):
        find_regressions(side(), side(damaged()), tolerance=tolerance)


def test_defaults_are_those_of_the_docs():
    """A hundredth is let pass, a tenth must be seen, one run in twenty may be called worse by chance."""
    gated = find_regressions(side(), side(damaged()), resamples=600)
    assert {c.tolerance for c in gated.comparisons if c.metric} == {0.01}
    assert gated.must_detect == 0.1
    (worse,) = gated.regressions
    bootstrap = Bootstrap(MOS, tuple(side().scores["reference"][:N]), seed=0, resamples=600)
    old, new = (s["attack", "pgd", "mse"] for s in (SCORES, damaged()))
    draws = [bootstrap.replicates(srocc(v, MOS), v, "srocc") for v in (old, new)]
    other = SCORES["attack", "pgd", "drift"]
    drift = bootstrap.replicates(srocc(other, MOS), other, "srocc")
    fall = lowest([draws[1], drift]) - lowest([draws[0], drift])
    assert worse.bound == pytest.approx(fall.interval(confidence=1 - 2 * 0.05 / 3).high)


def test_noise_floors_are_the_largest_spread_of_several_runs():
    """Value by value over all runs; one run has none."""
    sides = [side(), side(damaged(noise=0.1)), side(damaged(noise=0.3))]
    floors = {(f.row, f.attack, f.objective, f.metric): f for f in noise_floors(sides)}
    runs = (SCORES, damaged(noise=0.1), damaged(noise=0.3))
    values = [spearmanr(scores["attack", "pgd", "mse"], MOS).statistic for scores in runs]
    found = floors["attack", "pgd", "mse", "srocc"]
    assert found.floor == pytest.approx(max(values) - min(values))
    assert found.runs == 3
    assert floors["clean", "", "", "srocc"].floor == 0
    with pytest.raises(NotComparable, match="at least two"):
        noise_floors(sides[:1])


def test_runs_that_share_their_cells_measure_no_noise():
    """Equal scores are the same stored rows: a floor of 0 would be no measurement. Equal weights may be."""
    with pytest.raises(NotComparable, match="share their stored cells"):
        noise_floors([side(), side()])
    again = noise_floors([side(weights="w"), side(damaged(noise=0.1), weights="w")])
    assert max(f.floor for f in again) > 0


def test_a_collapse_without_an_interval_is_a_regression():
    """All scores but one saturate: most resamples have no SROCC, which must not pass for chance."""
    collapsed = np.full(N, 1.0)
    collapsed[int(np.argmax(MOS))] = 0.0
    gated = find_regressions(side(), side(SCORES | {("clean", "", ""): collapsed}))
    worse = next(r for r in gated.regressions if r.row == "clean")
    assert worse.bound is None
    assert "too many draws without a value" in worse.reason


def test_another_surrogate_is_another_comparison():
    """One more model gives the old ones one more transfer attack: their minimum is another one."""
    more = SCORES | {("attack", "transfer:new", "mse"): MOS}
    with pytest.raises(NotComparable, match="surrogates differ"):
        find_regressions(side(), side(more))


def test_what_did_not_move_is_decided_without_an_interval_too():
    """Other weights and equal scores, of which most resamples have no SROCC: there is nothing to miss."""
    collapsed = np.full(N, 1.0)
    collapsed[int(np.argmax(MOS))] = 0.0
    scores = SCORES | {("clean", "", ""): collapsed}
    gated = find_regressions(side(scores, weights="a"), side(scores, weights="b"))
    (clean,) = [c for c in gated.comparisons if c.row == "clean"]
    assert (clean.low, clean.difference, clean.detectable) == (None, 0, clean.tolerance)
    assert gated.passed


def test_every_format_says_the_same():
    """JUnit, JSON and Markdown hold one failure, with its model, attack, metric and interval."""
    before, after = side(), side(damaged())
    gated = find_regressions(before, after)
    suite = ElementTree.fromstring(gated.junit())  # noqa: S314 - our own
    assert (suite.get("tests"), suite.get("failures")) == (str(len(gated.comparisons)), "1")
    (failure,) = suite.iter("failure")
    times = [float(case.get("time")) for case in suite.iter("testcase")]
    assert float(suite.get("time")) == pytest.approx(sum(times), abs=1e-4)
    assert max(times) > 0
    assert "suite_min pgd/mse" in failure.text
    content = json.loads(gated.json())
    assert content["regressed"] is True
    (worse,) = [c for c in content["comparisons"] if c["outcome"] == "regressed"]
    assert (worse["model"], worse["attack"], worse["metric"]) == ("m", "pgd", "srocc")
    text = gated.markdown()
    assert "1 regression in" in gated.headline()
    assert "| m | suite_min (pgd/mse) | srocc |" in text
    assert f"[{worse['low']:+.3f}, {worse['high']:+.3f}]" in text


def test_a_baseline_is_equal_after_a_round_trip(tmp_path):
    """Record and scores read back as saved; a damaged one is one clear error."""
    made = side()
    save_baseline(tmp_path / "b", made.record, made.scores.to_dict("records"))
    record, scores = load_baseline(tmp_path / "b")
    assert record == made.record.model_copy(update={"scores_sha256": record.scores_sha256})
    assert find_regressions(made, Standpoint(record, scores.to_pandas())).regressions == []
    (tmp_path / "b" / "baseline.json").write_text("{}")
    with pytest.raises(BadManifest, match=r"baseline\.json"):
        load_baseline(tmp_path / "b")
    with pytest.raises(BadManifest, match="baseline save"):
        load_baseline(tmp_path / "none")


SUITE = """
name = "gated"
summary = "for the gate"
seed = 0
main_epsilon = "2/255"
suite_min = ["pgd/drift"]
cell_images = 8
[data]
name = "smoke"
images = 16
[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["2/255"]
objectives = ["drift"]
steps = 3
relative_step_size = 1.0
"""


@pytest.mark.slow
def test_a_round_trip_on_the_command_line(cli, tmp_path):
    """A model against itself passes with 0; damaged it fails with 1 and the value is named."""
    (tmp_path / "s.toml").write_text(SUITE)
    model = create_model("cheat_none")
    save_checkpoint(model, tmp_path / "good" / "m", training={})
    model.tint.data *= -30  # colour decides, contrast no longer does
    save_checkpoint(model, tmp_path / "bad" / "m", training={})
    for name, run in (("./good/m", "before"), ("./bad/m", "after"), ("other=./good/m", "named")):
        assert iqa.attack("s.toml", name, run=run, threads=1, progress=False).complete
    (tmp_path / "kept" / "base").mkdir(parents=True)  # as a save leaves it that had no room
    assert "a baseline's name is" in cli("baseline", "save", "../b", "--run", "before", "--folder", "kept")[2]
    code, out, _ = cli("baseline", "save", "base", "--run", "before", "--folder", "kept")
    assert code == 0
    assert load_baseline(tmp_path / "kept" / "base")[0].models[0].gradients == "the model as it is"
    assert "16 images" in out
    assert cli("baseline", "save", "base", "--run", "before", "--folder", "kept")[0] == 3
    gate = ("gate", "--baseline", "kept/base")
    code, out, _ = cli(*gate, "--run", "before")
    assert code == 0
    assert "no regression" in out
    files = ("--markdown", "o/s.md", "--junit", "o/j.xml", "--json-file", "o/g.json")
    code, out, _ = cli(*gate, "--run", "after", *files)
    assert code == 1
    assert "worse: m " in out
    assert (tmp_path / "o" / "s.md").read_text().count("regressed")
    assert 'type="Regression"' in (tmp_path / "o" / "j.xml").read_text()
    assert json.loads((tmp_path / "o" / "g.json").read_text())["regressed"]
    code, _, err = cli(*gate, "--run", "named")
    assert code == 2
    assert "not comparable: models differ" in err
    assert cli(*gate, "--run", "nothing")[0] == 3
    assert cli("gate", "--baseline", "nowhere", "--run", "after")[0] == 3
    code, out, _ = cli(*gate, "--run", "before", "--run", "after", "--calibrate")
    assert code == 0
    assert "noise floor" in out
    code, out, _ = cli("baseline", "show", "kept/base")
    assert code == 0
    assert "from 2 runs" in out
    # Its PLCC is undefined, its SROCC is not: it can be saved, and is not gated in PLCC.
    assert cli("baseline", "save", "later", "--run", "after", "--folder", "kept")[0] == 0
    code, _, err = cli("gate", "--baseline", "kept/later", "--run", "after", "--metric", "plcc")
    assert code == 2
    assert "the baseline has no value of m clean in PLCC" in err
    assert cli("baseline", "diff", "kept/base", "kept/later")[0] == 0
