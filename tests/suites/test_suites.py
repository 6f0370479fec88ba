"""Suites as data: what ships is valid, what is wrong is told by name, all at once."""

import copy
import json

import pytest

from iqa_attacks import (
    APGD,
    MIFGSM,
    PGD,
    Noise,
    Objective,
    Square,
    ThreatModel,
    TorchAttack,
    Universal,
    objectives,
    register_objective,
)
from iqa_suites import BadSuite, Suite, UnknownSuite, list_suites, load_suite, parse_suite

SMOKE = load_suite("smoke").text
HASHES = {
    "beyond": "6a22bc76c7f309f0b2f5343a5ba8d6e961452d5106012c42eff39b1ba77f51ec",
    "blackbox": "69c553699b20ac81ec588dbb07b068ef0a370547e8875955aeb652bd81945762",
    "closed-loop": "d851d8e96ac88a9d8f6690ad0a7a4b2a5b7dce2dd855bb2940ec9388a4450152",
    "defences": "8ef3498bb03b2b8b6b32b5a45b5e7adc9a7790d89cf161e78de49248ff1e3968",
    "budget-autoattack": "9723acdc9f92ac14fb712df1a8d5bba450552eaa42a9265d63a14932010185f8",
    "demo": "8ecae9e967bb3397155315110189e1bf4baec5e40fad3d8a31ef98856b5f5420",
    "demo-full": "5b56be1873c143f57a96a9c35ea411ba9fae5e5a743609179509a996c59da765",
    "linf-sweep": "10ce5499f93522128064b2f4517e0f70aea5395f1626799825382097c175d8b1",
    "minimum-norm": "bb8ce8344d14e8e4a96ed909349da314ae4a7559e3b897a0576f0979c357103b",
    "minimum-norm-l2": "f42fdadbbab4b95cea6ed53538006dda910652582f2e307adbf0c5edd1a39032",
    "parity-msu": "bd506073f81cd7bcc1ce5e4a767183196f1d863079b39b6220c0c893af8ac963",
    "parity-radii": "baef91ade21468dc69a8c4fcdab6881248e6dc005608ab5b2e1da56de2d93a04",
    "parity-rmse": "22e595cd17f9aa497b8e6397e8a3bf256bf4d6ed4225f25987bec3605ec966bf",
    "smoke": "f8d7586ea1b253d6c86372530894f5e14fa305f2b91b4c69bcf663b894d3c88e",
    "srm-l2": "f7a884c04d46ddee6f79a41282dae1668f911683264729c2d9395527a20c2d58",
    "srm-linf": "923ca98598145119ba16a991e031f697bee9f7767c7265972b2e0dacefaf6a11",
    "strong": "ecef15e7db3ca549507670e1239d3f95d2dc4335a44c4e5d72def5a6318cf44f",
    "study": "e3c6897358e2f0d5953d1acbbfb067b5744604a421ea9e18308396f0b3912c7f",
    "study-l2": "b1e3d772c12af84e5872fef3fc99a07119abc80cb8d619db83039f58d0288e5a",
    "study-one-radius": "002e77fa68c0ad8a42c2c0b9b27d60d6d3616520ab858adb4b5bb396744d1757",
    "study-paper": "a96b96d42f439fa628ec29264afb28daf168da5f13dad08b79c6d1ed7352f851",
    "study-strong": "450f6912c695d0fe20c2e9b897c0bdd5c0d41e1a839f5b57fd5f524a8e4ce7d3",
    "study-transfer": "547bf70322ebcaf1b308a4d981ee0fb32b2b953722612747ac2def4f0cf17b75",
}
"""Of every suite that ships: they name it in stored runs."""


@pytest.mark.parametrize("name", list_suites())
def test_a_suite_that_ships_is_valid_and_named_after_its_file(name):
    """Every definition loads, and its attacks can be built at every radius."""
    suite = load_suite(name).suite
    assert suite.name == name
    for settings in suite.own_attacks:
        for epsilon in settings.epsilons:
            attack = settings.attack(epsilon, suite.seed)
            assert attack.kind == settings.kind
            assert attack.threat.epsilon == epsilon
            assert attack.seed == suite.seed


@pytest.mark.parametrize(("name", "radii"), [("demo", [0.5, 1, 2]), ("demo-full", [0.25, 0.5, 1, 2, 4])])
def test_the_demo_suites_are_what_they_say(name, radii):
    """Radii in fractions of 255, step size a quarter of each, minimum over the three objectives."""
    suite = load_suite(name).suite
    pgd = next(a for a in suite.attacks if a.name == "pgd")
    assert [round(e * 255, 9) for e in pgd.epsilons] == radii
    assert pgd.attack(1 / 255, 0).step_size == pytest.approx(0.25 / 255)
    assert suite.main_epsilon == 1 / 255
    white = ("pgd/mse", "pgd/drift", "pgd/pairwise_inversion")
    assert suite.suite_min == (white if name == "demo" else (*white, "square/mse"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('epsilons = ["16/255"]', 'epsilons = ["8/255", "16/255"]', "give one in epsilons, the largest"),
        ('suite_min = ["pgd/mse",', 'suite_min = ["minimum/raise",', "suite_min: 'minimum/raise' looks for"),
        ("[data]", "TRANSFER[data]", "attacks: 'other': 'minimum/raise' looks for the smallest radius"),
        ('["raise", "lower", "drift"', '["raise", "mse", "drift"', "its objectives are 'raise' and 'lower'"),
        ('epsilons = ["1/255"]', 'epsilons = ["1/255"]\npixels = "8bit"', "no attack may use the whole ball"),
    ],
)
def test_a_search_for_the_smallest_radius_is_kept_out_of_worst_cases(old, new, message):
    """Neither a member of the minimum nor what is transferred, nor an attack that may use a whole ball."""
    text = load_suite("minimum-norm").text
    transfer = '[[attacks]]\nname = "other"\nkind = "transfer"\nof = "minimum/raise"\n\n[data]'
    assert old in text
    with pytest.raises(BadSuite, match=message):
        parse_suite(text.replace(old, new.replace("TRANSFER[data]", transfer)), "mine")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("report_steps = [1]", "report_step = [1]", "did you mean 'report_steps'"),
        ("seed = 0", "sead = 0", "sead: unknown key, did you mean 'seed'"),
        ("seed = 0", "", "seed: Field required"),
        ('split = "test"', 'splt = "test"', "data.splt: unknown key, did you mean 'split'"),
        ("steps = 3", "steps = 0", "attacks.1.steps"),
        ("steps = 3", "steps = 2.5", "attacks.1.steps"),
        ('"mse", "raise"', '"mze", "raise"', "no objective 'mze'"),
        ('epsilons = ["2/255"]', 'epsilons = ["2/0"]', "divides by zero"),
        ('epsilons = ["2/255"]', "epsilons = [true]", "attacks.0.epsilons.0"),
        ('epsilons = ["2/255"]', "epsilons = []", "attacks.0.epsilons"),
        ('epsilons = ["2/255"]', 'epsilons = ["2/255", "2/255"]', "named twice"),
        ("relative_step_size = 0.5", 'relative_step_size = 0.5\nstep_size = "1/255"', "exactly one"),
        ("relative_step_size = 0.5", "", "exactly one"),
        ("report_steps = [1]", "report_steps = [9]", "within 1..3"),
        ("report_steps = [1]", 'report_steps = [1]\nreport_epsilons = ["3/255"]', "not among the attack's"),
        ("report_steps = [1]", 'report_steps = [1]\nreport_epsilons = ["1/255"]', "at main_epsilon"),
        ("cell_images = 8", "cell_images = 12", "not a multiple of the batch"),
        ('kind = "fgsm"', 'kind = "fgms"', "attacks.0.kind: no attack 'fgms', did you mean 'fgsm'?"),
        ('kind = "fgsm"', "", "attacks.0"),
        ('epsilons = ["2/255"]', 'epsilons = ["-2/255"]', "attacks.0.epsilons.0: epsilon must be a positive"),
        ('epsilons = ["2/255"]', "epsilons = [-0.1]", "attacks.0.epsilons.0: epsilon must be a positive"),
        (
            'kind = "fgsm"',
            'kind = "fgsm"\nnorm = "l2"',
            "attacks.0.norm: Input should be 'inf', '2' or 'rmse'",
        ),
        ('kind = "fgsm"', 'kind = "fgsm"\npixels = "8 bit"', "attacks.0.pixels: Input should be 'float' or"),
        ('kind = "fgsm"', 'kind = "fgsm"\nssim_floor = 1.5', "attacks.0.ssim_floor"),
        ('kind = "fgsm"', 'kind = "fgsm"\njpeg_qualities = [0]', "from 1 to 100, not 0"),
        ("cell_images = 8", "cell_images = 8\njpeg_qualities = [75, 75]", "named twice"),
        ('name = "fgsm"', 'name = "pgd"', "'pgd' is named twice"),
        ('name = "fgsm"', 'name = "clean"', "'clean'"),
        ("pgd/drift", "pgd/dirft", "did you mean 'pgd/drift'"),
        ('main_epsilon = "2/255"', 'main_epsilon = "3/255"', "does not run at main_epsilon"),
        ('step_sweep = "pgd"', 'step_sweep = "fgsm"', "no attack with report_steps"),
        ("images = 16", "images = 2", "data.images"),
        ('kind = "fgsm"', 'kind = "fgsm"\nnorm = "2"', "a suite is in one norm"),
        ('epsilons = ["2/255"]', "epsilons = [4]", "such as '4/255'"),
        ("steps = 3", "steps = 3\ntau = inf", "attacks.1.tau"),
        ("[data]", "[data", "not valid TOML"),
        ("steps = 3", "steps = true", "attacks.1.steps: Input should be a valid integer"),
        ("steps = 3", 'steps = "3"', "attacks.1.steps: Input should be a valid integer"),
        ("steps = 3", "steps = 3.0", "attacks.1.steps: Input should be a valid integer"),
        ("restarts = 1", "restarts = true", "attacks.1.restarts: Input should be a valid integer"),
        ("restarts = 1", 'random_start = "no"', "attacks.1.random_start: Input should be a valid boolean"),
        ("restarts = 1", "falling = 1", "attacks.1.falling: Input should be a valid boolean"),
        ("seed = 0", 'seed = "7"', "seed: Input should be a valid integer"),
        ("seed = 0", "seed = 0\neot_samples = true", "eot_samples: Input should be a valid integer"),
        ("cell_images = 8", 'cell_images = "8"', "cell_images: Input should be a valid integer"),
        ("images = 16", 'images = "16"', "data.images: Input should be a valid integer"),
        ("cell_images = 8", "cell_images = 8\njpeg_qualities = [true]", "jpeg_qualities.0: Input should be"),
        ("cell_images = 8", "cell_images = 8\njpeg_qualities = [75.0]", "jpeg_qualities.0: Input should be"),
        ("steps = 3", 'steps = 3\njpeg_qualities = ["75"]', "attacks.1.jpeg_qualities.0: Input should be"),
        ("relative_step_size = 0.5", "relative_step_size = true", "relative_step_size: Input should be"),
        ("relative_step_size = 0.5", 'relative_step_size = "0.5"', "relative_step_size: Input should be"),
        ("relative_step_size = 0.5", "relative_step_size = 1000", "more than twice the radius 0.00392157"),
        ("relative_step_size = 0.5", "step_size = 1", "write grey levels as a fraction, such as '1/255'"),
        # Twice the smallest of the radii is the limit of one step for all of them.
        ("relative_step_size = 0.5", 'step_size = "3/255"', "more than twice the radius 0.00392157"),
        (
            "report_steps = [1]",
            "report_steps = [1]\nreport_epsilons = []",
            "report_epsilons: Tuple should have",
        ),
        ("report_steps = [1]", 'report_epsilons = ["2/255"]', "give both, or none"),
        ('kind = "fgsm"', 'kind = "fgsm"\ntau = 5', "tau is of the objective 'pairwise_inversion'"),
        ("steps = 3", "steps = 3\nrank_temperature = 1", "is of the objective 'soft_spearman'"),
        ("images = 16", "images = 16\nmos_range = [0, 7]", "data set 'smoke' has its own MOS range"),
        (
            'name = "smoke"\nsplit',
            'name = "my.csv"\nmos_range = [100, 0]\nsplit',
            "low < high, not [100.0, 0.0]",
        ),
        ('name = "smoke"\nsplit', 'name = "my.csv"\nmos_range = [0, inf]\nsplit', "two finite numbers"),
        ('name = "smoke"\nsplit', 'name = "my.csv"\nmos_range = [nan, nan]\nsplit', "two finite numbers"),
        ('name = "smoke"\nsplit', 'name = "my.csv"\nmos_range = ["0", "7"]\nsplit', "data.mos_range.0"),
    ],
)
def test_a_mistake_is_told_by_name(old, new, message):
    """The message names the file, the key and what would be right."""
    assert old in SMOKE
    with pytest.raises(BadSuite, match=r"^mine\.toml") as caught:
        parse_suite(SMOKE.replace(old, new, 1), "mine.toml")
    assert message in str(caught.value)


def test_prefixes_are_reported_at_the_radii_that_ask_for_them():
    """With report_epsilons the other radii report full strength only, and are the same attack otherwise."""
    pgd = next(a for a in load_suite("demo").suite.attacks if a.name == "pgd")
    swept, plain = pgd.attack(1 / 255, 0).schedule, pgd.attack(2 / 255, 0).schedule
    assert (*swept.report_steps, swept.steps) == (1, 5, 10)
    assert (*plain.report_steps, plain.steps) == (10,)
    assert (swept.steps, swept.restarts, swept.keep_best) == (plain.steps, plain.restarts, plain.keep_best)


EVERY_KIND = (
    SMOKE
    + """
[[attacks]]
name = "auto"
kind = "apgd"
epsilons = ["2/255", "8/255"]
objectives = ["mse", "soft_spearman"]
batch = 8
rank_temperature = 0.05
steps = 7
restarts = 3

[[attacks]]
name = "momentum"
kind = "mifgsm"
epsilons = ["1/255"]
objectives = ["raise"]
steps = 10
relative_step_size = 0.1
random_start = false
decay = 0.9

[[attacks]]
name = "noise"
kind = "noise"
epsilons = ["2/255"]
objectives = ["raise"]
samples = 4

[[attacks]]
name = "square"
kind = "square"
epsilons = ["2/255"]
objectives = ["raise", "lower"]
queries = 50
first_area = 0.5

[[attacks]]
name = "vmi"
kind = "torchattacks"
attack = "VMIFGSM"
options = { steps = 5, alpha = "1/255" }
epsilons = ["2/255"]
objectives = ["raise", "lower"]

[[attacks]]
name = "levels"
kind = "apgd"
epsilons = ["2/255"]
pixels = "8bit"
objectives = ["mse"]
steps = 7

[[attacks]]
name = "look"
kind = "pgd"
epsilons = ["8/255"]
ssim_floor = 0.95
jpeg_qualities = [75, 90]
objectives = ["mse"]
steps = 7
step_size = "1/255"

[[attacks]]
name = "same"
kind = "universal"
epsilons = ["2/255"]
objectives = ["raise"]
steps = 30
step_size = "1/255"
training_split = "val"
training_images = 9

[[attacks]]
name = "transfer"
kind = "transfer"
of = "auto/mse"
"""
)


def test_every_kind_of_attack_is_what_its_settings_say():
    """Each table becomes the attack with exactly its settings, EOT and all."""
    suite = parse_suite(EVERY_KIND, "mine")
    made = [settings.attack(settings.epsilons[0], 5, 20) for settings in suite.own_attacks[2:]]
    common = {"seed": 5, "eot_samples": 20}
    inf = ThreatModel("inf", 2 / 255)
    assert made == [
        APGD(threat=inf, objectives=("mse", "soft_spearman"), rank_temperature=0.05, steps=7, restarts=3,
             **common),
        MIFGSM(threat=ThreatModel("inf", 1 / 255), objectives=("raise",), steps=10, step_size=0.1 * (1 / 255),
               random_start=False, decay=0.9, **common),
        Noise(threat=inf, objectives=("raise",), samples=4, **common),
        Square(threat=inf, objectives=("raise", "lower"), queries=50, first_area=0.5, **common),
        TorchAttack(threat=inf, objectives=("raise", "lower"), attack="VMIFGSM",
                    options={"steps": 5, "alpha": "1/255"}, **common),
        APGD(threat=ThreatModel("inf", 2 / 255, pixels="8bit"), objectives=("mse",), steps=7, **common),
        PGD(threat=ThreatModel("inf", 8 / 255, ssim_floor=0.95), objectives=("mse",), steps=7,
            step_size=1 / 255, jpeg_qualities=(75, 90), **common),
        Universal(threat=inf, objectives=("raise",), steps=30, step_size=1 / 255, training_split="val",
                  training_images=9, **common),
    ]  # fmt: skip
    assert [transfer.source for transfer in suite.transfers] == [("auto", "mse")]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 0", "seed = 0\neot_samples = 0", "eot_samples"),
        ("rank_temperature = 0.05", "rank_temperature = 0", "rank_temperature"),
        ("decay = 0.9", "decay = -0.9", "decay"),
        ("samples = 4", "sample = 4", "attacks.4.sample: unknown key, did you mean 'samples'"),
        ("samples = 4", "steps = 4", "attacks.4.steps: unknown key"),
        ("queries = 50", "querys = 50", "attacks.5.querys: unknown key, did you mean 'queries'"),
        ('attack = "VMIFGSM"', 'atack = "VMIFGSM"', "attacks.6.atack: unknown key, did you mean 'attack'"),
        ('attack = "VMIFGSM"', 'attack = "CW"', "torchattacks.CW does not fit"),
        ('attack = "VMIFGSM"', 'attack = "VMIFSGM"', "did you mean 'VMIFGSM'"),
        ("steps = 5,", "step = 5,", "no option 'step'"),
        ("steps = 5,", "steps = true,", "steps is a whole number, not True"),
        ("steps = 5,", "N = 0,", "N must be at least 1, not 0"),
        ("steps = 5,", "decay = nan,", "decay is a finite number, not nan"),
        ("decay = 0.9", "decay = inf", "attacks.3.decay"),
        ('alpha = "1/255"', "alpha = 1", "alpha 1 is more than twice the radius"),
        ("queries = 50", "queries = 50\ntau = 5", "tau is of the objective 'pairwise_inversion'"),
        ("queries = 50", "queries = 50\nbatch = 4", "square attacks image by image: leave batch out"),
        ("queries = 50", "queries = true", "attacks.5.queries: Input should be a valid integer"),
        ("first_area = 0.5", "first_area = true", "attacks.5.first_area"),
        ("steps = 30", "steps = 30\ntau = 5", "tau is of the objective 'pairwise_inversion'"),
        ('step_size = "1/255"\ntraining', "step_size = 10\ntraining", "step_size 10 is more than twice"),
        ('alpha = "1/255"', 'alpha = "-1/255"', "must be a positive finite number, not '-1/255'"),
        ("training_images = 9", "training_image = 9", "did you mean 'training_images'"),
        ('training_split = "val"', 'training_split = "test"', "attacks.9.training_split"),
        ('objectives = ["raise"]\nsteps = 30', 'objectives = ["drift"]\nsteps = 30', "not 'drift'"),
        (
            'epsilons = ["8/255"]',
            'epsilons = ["7/255"]',
            "'look' is bound to ssim>=0.95 at 0.027451, where no attack may use the whole",
        ),
        ('pixels = "8bit"', 'pixels = "8bit"\nssim_floor = 0.9', "do not go together"),
        ('["2/255"]\npixels = "8bit"', '["0.5/255"]\npixels = "8bit"', "less than one, 1/255"),
        ('split = "test"', 'split = "val"', "would be trained on split 'val' and tested on it"),
        ('of = "auto/mse"', 'of = "auto/drift"', "which is no attack/objective of the suite"),
        ('of = "auto/mse"', 'of = "auot/mse"', "did you mean 'auto/mse'"),
        ('of = "auto/mse"', 'of = "transfer/mse"', "which is no attack/objective of the suite"),
        ('of = "auto/mse"', 'of = "auto/mse"\nnorm = "2"', "attacks.10.norm: unknown key"),
        ('"pgd/mse"', '"transfer/drift"', "suite_min: no 'transfer/drift', did you mean 'transfer/mse'"),
        ('"pgd/mse"', '"momentum/raise"', "does not run at main_epsilon"),
    ],
)
def test_a_mistake_in_any_kind_is_told_by_name(old, new, message):
    """The message names the file, the key and what would be right."""
    assert old in EVERY_KIND
    with pytest.raises(BadSuite, match=r"^mine\.toml") as caught:
        parse_suite(EVERY_KIND.replace(old, new, 1), "mine.toml")
    assert message in str(caught.value)


def test_a_whole_number_is_a_float_where_one_is_meant():
    """2 is 2.0 and the same suite."""
    suites = [
        parse_suite(SMOKE.replace("relative_step_size = 0.5", f"relative_step_size = {size}"), "mine")
        for size in ("2", "2.0")
    ]
    assert suites[0].sha256 == suites[1].sha256
    assert suites[0].own_attacks[1].attack(1 / 255, 0).step_size == 2 / 255


def test_a_cell_holds_whole_batches_only_of_attacks_that_look_at_batches():
    """Cells of five images cut no batch of an attack that takes image by image."""
    text = SMOKE.replace("cell_images = 8", "cell_images = 5").replace('"pairwise_inversion", ', "")
    text = text.replace('"pgd/drift", "pgd/pairwise_inversion"', '"pgd/drift"')
    assert parse_suite(text, "mine").cell_images == 5


@pytest.mark.parametrize("name", list_suites())
def test_the_hash_of_a_suite_that_ships_is_the_one_of_stored_runs(name):
    """It names the suite in every stored run; whoever means to change a suite changes this line, too."""
    suite = load_suite(name).suite
    assert suite.sha256 == HASHES[name]
    again = Suite.model_validate(suite.model_dump(mode="json"))
    assert again == suite
    assert again.sha256 == HASHES[name]


def test_what_is_stored_of_every_kind_is_read_again():
    """By the names of fields or by those of the file, which differ where a method has the name."""
    every = parse_suite(EVERY_KIND, "mine")
    for by_alias in (False, True):
        dumped = json.loads(json.dumps(every.model_dump(mode="json", by_alias=by_alias)))
        again = Suite.model_validate(dumped)
        assert again == every
        assert again.sha256 == every.sha256


def test_an_objective_of_ones_own_is_taken_by_name(monkeypatch):
    """Once registered, a suite names it like any other."""
    monkeypatch.setattr("iqa_attacks.objectives._OBJECTIVES", copy.deepcopy(objectives._OBJECTIVES))

    @register_objective
    class AwayFromLabel(Objective):
        name = "away_from_label"

        def loss(self, scores, mos, clean):
            return (scores - mos).abs()

    text = SMOKE.replace('"drift", ', '"drift", "away_from_label", ')
    suite = parse_suite(text, "mine")
    assert "away_from_label" in suite.own_attacks[1].attack(1 / 255, 0).objectives


def test_a_radius_per_pixel_is_a_norm_of_its_own():
    """A suite in norm rmse gives its radii in grey levels of root mean square change, at most 1."""
    suite = load_suite("parity-rmse").suite
    assert {a.attack(a.epsilons[0], 0).threat.norm for a in suite.own_attacks} == {"rmse"}
    assert [round(e * 255, 9) for e in suite.own_attacks[0].epsilons] == [0.5, 1, 2]
    text = load_suite("parity-rmse").text.replace('"2/255"]', "2]")
    with pytest.raises(BadSuite, match="such as '2/255'"):
        parse_suite(text, "mine.toml")


def test_all_mistakes_are_told_at_once():
    """A file with three mistakes is answered with three lines."""
    broken = (
        SMOKE.replace("steps = 3", "steps = 0")
        .replace("seed = 0", "seed = -1")
        .replace('"mse", "r', '"x", "r')
    )
    with pytest.raises(BadSuite, match="3 mistake") as caught:
        parse_suite(broken, "mine.toml")
    assert str(caught.value).count("\n  ") == 3


def test_the_hash_is_of_the_content_not_the_spelling():
    """Comments, order and the spelling of a radius do not change a suite; a seed does."""
    base = parse_suite(SMOKE, "a").sha256
    assert parse_suite("# comment\n" + SMOKE.replace('"2/255"', '"4/510"'), "b").sha256 == base
    assert parse_suite(SMOKE.replace("seed = 0", "seed = 1"), "c").sha256 != base


def test_a_suite_can_be_a_file(tmp_path):
    """A path loads the user's own suite; a missing or unreadable one is one clear error."""
    path = tmp_path / "mine.toml"
    path.write_text(SMOKE)
    assert load_suite(str(path)).suite.sha256 == load_suite("smoke").suite.sha256
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadSuite, match="UTF-8"):
        load_suite(str(path))
    with pytest.raises(UnknownSuite, match="did you mean 'smoke'"):
        load_suite("smok")


def test_other_images_make_another_suite():
    """A suite moved to other images has another hash and says so in its text."""
    moved = load_suite("smoke").on_data("my.csv", (0.0, 100.0))
    assert moved.suite.data.name == "my.csv"
    assert moved.suite.data.images is None
    assert moved.suite.sha256 != load_suite("smoke").suite.sha256
    assert "my.csv" in moved.text


@pytest.mark.parametrize("mos_range", [None, (0.0, 100.0)])
@pytest.mark.parametrize("data", ["my.csv", 'a "b"\\c.csv?mos_range=1,5'])
@pytest.mark.parametrize("name", list_suites())
def test_the_text_of_a_moved_suite_says_where_it_was_moved_to(name, data, mos_range):
    """Who reads the text again gets the same suite, and the same hash; comments stay."""
    loaded = load_suite(name)
    moved = loaded.on_data(data, mos_range)
    assert parse_suite(moved.text, "moved") == moved.suite
    assert (moved.suite.data.name, moved.suite.data.mos_range, moved.suite.data.images) == (
        data,
        mos_range,
        None,
    )
    assert moved.suite.model_copy(update={"data": loaded.suite.data}) == loaded.suite
    assert [x for x in loaded.text.splitlines() if x.startswith("#")] == [
        x for x in moved.text.splitlines()[1:] if x.startswith("#")
    ]
