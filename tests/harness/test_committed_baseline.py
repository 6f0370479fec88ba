"""The committed baseline: it is of the committed images and models, and `make gate` can fail by it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from iqa_harness.api.gate import side_of_folder
from iqa_harness.data import open_data
from iqa_harness.entrants.entrant import described
from iqa_harness.gating.baselines import Standpoint
from iqa_harness.gating.regressions import GATED, find_regressions
from iqa_models import load_checkpoint
from iqa_suites import load_suite

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "results" / "baselines" / "demo"


@pytest.fixture(scope="module")
def base():
    """The baseline as one side of a comparison."""
    return side_of_folder(HERE)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The committed images, named as the suite names them but from anywhere."""
    name = load_suite(HERE / "suite.toml").suite.data.name
    return open_data(str(ROOT / name), cache_dir=tmp_path_factory.mktemp("cache"), progress=False)


def attacked(side, share):
    """A side whose attacked scores are moved by a share of their way from the clean ones."""
    scores = side.scores.copy()
    clean = scores[scores["row"] == "clean"].set_index(["model", "image_id"])["score"]
    before = clean.loc[pd.MultiIndex.from_frame(scores[["model", "image_id"]])].to_numpy()
    scores["score"] += share * (scores["score"] - before)
    return side._replace(scores=scores)


def test_it_is_of_the_committed_suite_images_and_models(base, images):
    """A baseline of anything else would refuse every run, or take a weaker attack for a gain."""
    suite = load_suite(HERE / "suite.toml").suite
    record = base.record
    assert (record.suite_sha256, record.data_sha256) == (suite.sha256, images.fingerprint)
    assert (record.images, record.label, record.main_epsilon) == (24, "pseudo-MOS", suite.main_epsilon)
    assert {m.name: (m.sha256, m.verdict) for m in record.models} == {
        name: (described(name, HERE / "models" / name).sha256, "sound") for name in ("demo_srm", "demo_plain")
    }
    assert {f.model for f in record.noise} == {"demo_srm", "demo_plain"}
    assert max(f.floor for f in record.noise if f.row in GATED and f.metric == "srocc") < 0.05


@pytest.mark.slow
def test_the_committed_models_give_the_committed_scores_and_a_planted_fall_is_found(base, images):
    """As they lie there, on the images as they lie there; heads that rank the other way do not pass.

    Of another model five contents tell a fall of 1.8 from chance, and leave one of 1.6 undecided.
    """
    pixels = torch.stack([torch.from_numpy(images.read(i)) for i in range(len(images))])
    pixels = pixels.permute(0, 3, 1, 2).float() / 255
    ids = [record.image_id for record in images.records]
    worse = base.scores.copy()
    for name in ("demo_srm", "demo_plain"):
        model = load_checkpoint(HERE / "models" / name)
        rows = (worse["model"] == name) & (worse["row"] == "clean")
        order = worse[rows].set_index("image_id")
        with torch.no_grad():
            found = model(pixels).numpy()
            np.testing.assert_allclose(found, order.loc[ids, "score"], atol=1e-4)
            last = model.head.last if name == "demo_srm" else model.head.linear
            last.weight.neg_()
            planted = dict(zip(ids, model(pixels).numpy(), strict=True))
        worse.loc[rows, "score"] = [planted[i] for i in order.index]
    models = tuple(m.model_copy(update={"sha256": "0" * 64}) for m in base.record.models)
    after = Standpoint(base.record.model_copy(update={"models": models}), worse)
    gated = find_regressions(base, after)
    assert not gated.passed
    assert [(c.model, c.row) for c in gated.regressions] == [("demo_plain", "clean")]
    assert [(c.model, c.row) for c in gated.undecided] == [("demo_srm", "clean")]


def test_equal_scores_pass(base):
    """A run on the machine the baseline was made on."""
    assert find_regressions(base, base).passed


@pytest.mark.parametrize("share", [-0.3, 0.3])
def test_weaker_and_stronger_attacks_do_not_pass(base, share):
    """Attacks that get 30 % less or more far than they did are told from noise."""
    gated = find_regressions(base, attacked(base, share))
    assert not gated.passed
    assert gated.unexplained if share < 0 else gated.regressions
