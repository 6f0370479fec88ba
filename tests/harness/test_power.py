"""Plants: where they stand, who finds them, what hides them, and how a run keeps what was found."""

import numpy as np
import pytest
import torch

import iqa_harness as iqa
from helpers import tiny
from iqa_attacks import FGSM, PGD, Noise, ThreatModel
from iqa_harness.cells.compute import to_tensor
from iqa_harness.errors import RunError
from iqa_harness.evidence.judgement import plant_flag
from iqa_harness.evidence.plants import STEEPNESSES, WIDTHS, Planted, look, make_bed
from iqa_harness.running.power import chosen_images
from iqa_harness.tables.power import interval, power_rows
from iqa_harness.tables.robustness import robustness_table
from iqa_models import create_model
from iqa_results import PLANT, ResultStore
from iqa_suites import load_suite, parse_suite

EPSILON = 4 / 255
INF = ThreatModel("inf", EPSILON)
THREATS = [
    INF,
    ThreatModel("inf", EPSILON, pixels="8bit"),
    ThreatModel("2", 0.5),
    ThreatModel("rmse", EPSILON),
]
IMAGES = tiny.make_images()
TEXT = (
    tiny.ONE_PGD.replace("1/255", "4/255").replace("steps = 1\n", "steps = 10\n").replace("= 1.0", "= 0.25")
    + '[[attacks]]\nname = "fgsm"\nkind = "fgsm"\nepsilons = ["4/255"]\nobjectives = ["raise", "lower"]\n'
)
OBJECTIVES = ("mse", "raise", "lower")
PGD_10 = PGD(threat=INF, objectives=OBJECTIVES, steps=10, step_size=EPSILON / 4)


def beds(model, threat=INF, signs=(1, -1, 1, -1), images=IMAGES):
    pixels = [to_tensor(images.read(i), "cpu") for i in range(len(signs))]
    made = [
        make_bed(model, image, threat, sign, seed=0, name=str(i))
        for i, (image, sign) in enumerate(zip(pixels, signs, strict=True))
    ]
    return [bed for bed in made if bed is not None]


def found(model, attack, **where):
    """Share of plants of steepness 2 and width 1/2 that an attack finds."""
    own = beds(model, **where)
    mos = torch.linspace(0, 1, len(own), dtype=torch.float64)
    looked = look(Planted(model, own, 1 / 2, 2.0), own, attack, mos, 4)
    return np.mean([each.found for each in looked])


@pytest.mark.parametrize("threat", THREATS, ids=str)
def test_a_plant_stands_at_an_admissible_image_as_high_as_it_says(threat):
    """The centre lies in ball, box and levels; there the score is the model's own plus the height."""
    model = create_model("linear")
    for bed in beds(model, threat):
        planted, centre = Planted(model, [bed], 1 / 3, 1.0), bed.centre.unsqueeze(0)
        assert threat.violation(centre, bed.clean.unsqueeze(0)) is None
        assert not torch.equal(bed.centre, bed.clean)
        with torch.no_grad():
            moved = float(planted(centre) - model(centre))
            assert float(planted.near(centre)) == 1
            assert float(planted.near(bed.clean.unsqueeze(0))) == pytest.approx(1 / (1 + 9), rel=1e-4)
        assert moved == pytest.approx(bed.sign * bed.height(1 / 3, 1.0), rel=1e-3)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("threat", [INF, ThreatModel("2", 0.5)], ids=str)
def test_steepness_is_the_slope_of_the_plant_over_that_of_the_model(threat, width):
    """On a linear score, whose slope is the same everywhere, where the bed says that attacks begin."""
    model = create_model("linear")
    bed = beds(model, threat)[0]
    weight = (model.weight(16, 16) / (3 * 16 * 16)).detach().double()
    promise = float(weight.abs().sum() if threat.norm == "inf" else weight.norm()) * threat.epsilon
    assert bed.promise == pytest.approx(promise, rel=1e-4)
    near = 1 / (1 + bed.far / width**2)
    # The slope of 1 / (1 + d / width^2), d the squared distance, is 2 near^2 / width^2 times that of d / 2.
    assert bed.height(width, 2.0) * 2 * near**2 / width**2 * bed.pull == pytest.approx(2 * promise, rel=1e-4)
    at = (bed.clean + 0.5 * (bed.centre - bed.clean)).unsqueeze(0).requires_grad_()
    planted = Planted(model, [bed], width, 2.0)
    (slope,) = torch.autograd.grad(planted(at).sum() - model(at).sum(), at)
    along = (bed.centre - bed.clean).double()
    near = 1 / (1 + 0.25 / width**2)
    # A line of clipped pixels bends a linear score a little.
    expected = bed.height(width, 2.0) * bed.sign * near**2 / width**2
    assert float((slope[0].double() * along).sum()) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("attack", "share"),
    [
        (PGD_10, 1),
        (PGD(threat=INF, objectives=("raise",), steps=10, step_size=EPSILON / 4), 0.5),
        (FGSM(threat=INF, objectives=OBJECTIVES), 0),
        (Noise(threat=INF, objectives=OBJECTIVES, samples=4), 0),
    ],
    ids=["pgd", "one_way", "fgsm", "noise"],
)
def test_who_finds_plants(attack, share):
    """Ten steps find all, both ways; who looks one way finds half; one step and noise find none."""
    assert found(create_model("linear"), attack) == share


@pytest.mark.parametrize("cheat", ["cheat_quantised_input", "cheat_wrong_sign", "cheat_shattered"])
def test_what_hides_basins_hides_plants(cheat):
    """No gradient, one of the wrong sign, a shattered one: what raises scores finds nothing that is high."""
    up = PGD(threat=INF, objectives=("raise",), steps=10, step_size=EPSILON / 4)
    smooth = tiny.make_images(test=4, val=3, size=32)
    signs = {"signs": (1, 1, 1), "images": smooth}
    assert found(create_model("cheat_none"), up, **signs) == 1
    assert found(create_model(cheat), up, **signs) == 0


def test_images_are_of_the_outer_thirds():
    """Half of the lowest third, to be raised, half of the highest, to be lowered; another seed, others."""
    images = IMAGES.split("test")
    chosen = list(chosen_images(images, 6, 0))
    order = np.argsort(images.labels)
    assert {i for i, sign in chosen if sign > 0} <= set(order[:4]) and len(chosen) == 6
    assert {i for i, sign in chosen if sign < 0} <= set(order[-4:])
    assert any(list(chosen_images(images, 6, seed)) != chosen for seed in range(1, 5))


def test_the_interval_is_clopper_pearsons():
    """All or none of n: (alpha / 2)^(1 / n); 8 of 10 as tables have it."""
    assert interval(24, 24) == pytest.approx((0.025 ** (1 / 24), 1))
    assert interval(0, 24) == pytest.approx((0, 1 - 0.025 ** (1 / 24)))
    assert interval(8, 10) == pytest.approx((0.4439, 0.9748), abs=1e-4)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run of a sound and a masked model whose suite asks for plants near two images."""
    suite = parse_suite(TEXT.replace("cell_images", "plants = 2\ncell_images"), "tiny")
    models = {"linear": create_model("linear"), "masked": create_model("cheat_quantised_input")}
    store = ResultStore(tmp_path_factory.mktemp("plants"))
    return iqa.attack(suite, models, data=IMAGES, store=store, run="r", progress=False), models


@pytest.mark.slow
def test_a_run_keeps_its_plants(kept):
    """A row a plant, each grade's share, the flag by model; the same call makes nothing again."""
    run, models = kept
    rows = PLANT.rows(run.store.read_table("r", "plants"))
    assert len(rows) == 2 * 2 * 2 * len(WIDTHS) * len(STEEPNESSES)
    assert {(row.norm, row.epsilon) for row in rows} == {("inf", EPSILON)}
    flags = run.flags.set_index(["model", "flag"])
    assert flags.loc[("masked", "plant_missed"), "value"] == 1
    assert flags.loc[("masked", "plant_missed"), "raised"]
    assert "plant_missed" in set(run.table[run.table["model"] == "masked"]["flags"].iloc[0].split(", "))
    power = run.tables.power.to_pandas()
    whole = power[power["width"].isna()].set_index(["model", "attack"])
    assert whole.loc[("masked", "pgd"), "found"] == 0
    assert (whole["plants"] == 8).all()
    path = run.store.table_path("r", "plants")
    before = path.stat().st_mtime_ns
    suite = parse_suite(run.manifest.suite_text, "again")
    again = iqa.attack(suite, models, data=IMAGES, store=run.store, run="r", progress=False)
    assert path.stat().st_mtime_ns == before
    assert again.tables.power.equals(run.tables.power)
    assert iqa.verify("r", store=run.store, sample=0, progress=False).findings == []


@pytest.mark.slow
def test_plants_are_held_against_what_was_reached(kept):
    """Missed ones called found, or left out, lower the flag: tables of them agree, `verify` does not."""
    run, _ = kept
    before = run.store.read_table("r", "plants")
    rows = PLANT.rows(before)
    missed = [row for row in rows if not row.found]
    assert 0 < len(missed) < len(rows)
    forgeries = {
        "found is True at": [row._replace(found=True) for row in rows],
        "plants are stored, ": [row for row in rows if row.found or row.width < 0.5],
    }
    for says, forged in forgeries.items():
        run.store.write_table("r", forged, "plants")
        robustness_table(run.store, run.manifest).write(run.store, "r")
        found = iqa.verify("r", store=run.store, sample=0, progress=False)
        assert found.findings
        assert all(says in f.detail and f.where.startswith("plants, ") for f in found.findings)
        assert any(words.startswith("linear, plant_missed") for words in found.verified.not_verified)
    run.store.write_table("r", before, "plants")
    robustness_table(run.store, run.manifest).write(run.store, "r")


@pytest.mark.slow
def test_by_hand_a_stored_run_is_tested_further(kept):
    """Other images replace an attack's rows; what is interrupted goes on where it was; an attack by name."""
    run, models = kept
    store = run.store
    test = {"store": store, "models": models, "data": IMAGES, "progress": False}
    whole = iqa.power("r", images=4, attacks=["pgd"], **test)
    pgd = [row for row in whole.rows if row.attack == "pgd"]
    assert len({row.image_id for row in pgd}) == 4
    assert {row.attack for row in whole.rows} == {"pgd", "fgsm"}
    assert whole.missed == ["masked"]
    some = [row for row in whole.rows if row.attack != "pgd" or row.steepness != STEEPNESSES[0]]
    store.write_table("r", some, "plants")
    again = iqa.power("r", images=4, attacks=["pgd"], **test)
    timeless = [{row._replace(seconds=0) for row in each.rows} for each in (again, whole)]
    assert timeless[0] == timeless[1]
    assert "any" in repr(again) and again.view().rows
    for words, bad in (("even number", {"images": 3}), ("no attack 'x'", {"attacks": ["x"]})):
        with pytest.raises(RunError, match=words):
            iqa.power("r", **(test | bad))
    with pytest.raises(RunError, match="name a stored run"):
        iqa.power(**test)
    with pytest.raises(RunError, match="no model to plant"):
        iqa.power(suite="smoke", progress=False)
    with pytest.raises(RunError, match="was attacked"):
        iqa.power("r", **(test | {"models": {**models, "linear": create_model("linear", seed=2)}}))


def test_a_model_that_draws_is_told_and_left_out(capsys):
    """Nothing is stored of it and no flag is raised."""
    noisy = iqa.defend(create_model("linear"), "flip")
    suite = parse_suite(TEXT.replace("cell_images", "eot_samples = 2\ncell_images"), "tiny")
    test = iqa.power(suite=suite, models={"noisy": noisy}, data=IMAGES, images=2, progress=False)
    assert test.rows == () and test.missed == [] and test.view() is None
    assert not test.flags["noisy"].measured
    assert "nothing was planted: it draws" in capsys.readouterr().err


def test_a_suite_that_says_nothing_of_plants_is_what_it_was():
    """Its hash, and that of one that asks for plants is another."""
    text = load_suite("smoke").text
    asks = parse_suite(text.replace("cell_images", "plants = 4\ncell_images"), "asks")
    assert asks.plants == 4
    assert asks.sha256 != load_suite("smoke").suite.sha256
    assert plant_flag(power_rows("m", [])).measured is False
