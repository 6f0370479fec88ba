"""Every planted cheat is caught by the flag meant for it; what is honest raises none."""

import numpy as np
import pytest

from helpers import tiny
from iqa_harness.cells.compute import to_tensor
from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evidence.flags import FLAGS, verdict_of
from iqa_harness.evidence.judgement import flags_of_checks
from iqa_harness.evidence.model_checks import check_model
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import CHEATS, create_model, list_models
from iqa_results import ResultStore
from iqa_suites import parse_suite

SUITE = """
name = "flags"
summary = "what the flags need"
seed = 0
main_epsilon = "1/255"
suite_min = ["pgd/drift"]
cell_images = 4
[data]
name = "tiny"
images = 4
[[attacks]]
name = "pgd"
kind = "pgd"
epsilons = ["1/255", "2/255"]
objectives = ["drift", "raise", "lower"]
steps = 10
report_steps = [1]
relative_step_size = 0.25
batch = 4
"""


@pytest.fixture(scope="module")
def photos():
    """Four smooth images of 48 pixels a side: blurred noise, as sharp and bright as their label says."""
    images = tiny.make_images(test=4, val=0, size=48)
    generator = np.random.default_rng(1)
    pixels = []
    for i in range(4):
        coarse = generator.uniform(0.1, 0.9, (4 * 2**i, 4 * 2**i, 3))
        x = np.linspace(0, len(coarse) - 1.001, 48)
        k, f = x.astype(int), (x % 1)[:, None, None]
        rows = coarse[k] * (1 - f) + coarse[np.minimum(k + 1, len(coarse) - 1)] * f
        f = f.reshape(1, 48, 1)
        smooth = rows[:, k] * (1 - f) + rows[:, np.minimum(k + 1, len(coarse) - 1)] * f
        pixels.append((255 * smooth).astype(np.uint8))
    return tiny.ArrayImageSet(images.records, pixels, images.card, images.fingerprint)


def judge(name, images, folder):
    """Return verdict and raised flags of a model under a small suite, or of its checks if it is refused."""
    entrant = Entrant(name, create_model(name))
    store = ResultStore(folder)
    work = plan(parse_suite(SUITE, "flags"), [entrant], images)
    try:
        manifest = run_suite(work, [entrant], RunConfig("r", SUITE), store)
    except RunError:
        pixels = [to_tensor(images.read(i), "cpu") for i in range(4)]
        return verdict_of(flags_of_checks(check_model(entrant.model, pixels)))
    assert manifest.status == "complete"
    tables = robustness_table(store, manifest, resamples=20)
    flags = tables.flags.to_pylist()
    assert [f["flag"] for f in flags] == list(FLAGS)
    row = tables.table.to_pylist()[0]
    raised = [f["flag"] for f in flags if f["raised"]]
    assert row["flags"] == ", ".join(raised)
    return row["verdict"], raised


@pytest.mark.parametrize(("name", "meant"), CHEATS.items(), ids=CHEATS)
def test_a_planted_cheat_is_caught_by_the_flag_meant_for_it(tmp_path, photos, name, meant):
    """Its verdict is that flag's severity or worse."""
    verdict, raised = judge(name, photos, tmp_path)
    assert meant in raised
    assert verdict == "invalid" or FLAGS[meant].severity == "suspect" == verdict


@pytest.mark.parametrize("name", ["cheat_none", "linear"])
def test_an_honest_model_raises_no_flag(tmp_path, photos, name):
    """The network under the cheats and the linear one are sound."""
    assert judge(name, photos, tmp_path) == ("sound", [])


def test_every_cheat_is_registered_and_says_what_it_is():
    """Its card names the flag meant for it, and the flag exists."""
    assert {"cheat_none", *CHEATS} == set(list_models("cheat_*"))
    for name, meant in CHEATS.items():
        notes = " ".join(create_model(name).spec.notes)
        assert "planted cheat" in notes
        assert meant in notes
        assert meant in FLAGS


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cheat_quantised_input", {"levels": 1}),
        ("cheat_jpeg", {"quality": 0}),
        ("cheat_hidden_noise", {"sigma": -1}),
        ("cheat_shattered", {"height": float("inf")}),
    ],
)
def test_options_out_of_range_are_refused(name, options):
    """With the model's own error."""
    from iqa_models import BadModelOption

    with pytest.raises(BadModelOption):
        create_model(name, **options)


def test_jpeg_inside_is_close_to_pillows(photos):
    """The cheat's compression keeps an image at high quality and blocks it at low quality."""
    image = to_tensor(photos.read(3), "cpu").unsqueeze(0)
    fine, coarse = (create_model("cheat_jpeg", quality=q).compress(image) for q in (100, 5))
    assert float((fine - image).abs().max()) < 3 / 255
    assert float((coarse - image).abs().mean()) > 10 * float((fine - image).abs().mean())
