"""Stored scores are believed only if the model still gives them."""

import pytest

from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_models import ModelSpec, QualityModel
from iqa_results import ResultStore

CARD = ModelSpec(
    name="file", summary="mean brightness, times a number in a file", score_range=(0, 1),
    input_protocol="whole image", mean=(0, 0, 0), std=(1, 1, 1), source="this test",
)  # fmt: skip
FACTOR = {"value": 0.5}


class Hidden(QualityModel):
    """What decides its score is nowhere on it: a global that no hash can see."""

    def predict(self, images):
        return FACTOR["value"] * images.mean(dim=(1, 2, 3))


@pytest.fixture
def factor():
    """Set what decides the score, and put it back."""
    yield FACTOR.__setitem__
    FACTOR["value"] = 0.5


def test_a_model_that_scores_otherwise_than_its_stored_rows_is_refused(tmp_path, images, suite, factor):
    """The same key, other scores: named image and both numbers, nothing is written; the old model goes on."""
    store = ResultStore(tmp_path)

    def run(only=()):
        entrants = [Entrant("m", Hidden(CARD).eval())]
        config = RunConfig("r", "", only=only)
        return run_suite(plan(suite, entrants, images), entrants, config, store)

    first = run(only=("clean",))
    before = store.cell_sizes()
    factor("value", -0.5)
    with pytest.raises(RunError, match=r"'m' scores image '\S+' -0\.\d+ now, 0\.\d+ is stored"):
        run()
    assert store.cell_sizes() == before
    factor("value", 0.5)
    assert run(only=("clean",)).cells == first.cells


def test_rounding_is_no_other_model(tmp_path, images, suite, factor):
    """A difference of a ten-thousandth of the range, as another device makes, is let pass."""
    store = ResultStore(tmp_path)
    entrants = [Entrant("m", Hidden(CARD).eval())]
    config = RunConfig("r", "", only=("clean",))
    run_suite(plan(suite, entrants, images), entrants, config, store)
    factor("value", 0.5 + 1e-4)
    assert run_suite(plan(suite, entrants, images), entrants, config, store).status == "partial"
