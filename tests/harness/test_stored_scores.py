"""Stored scores are believed only if the model still gives them."""

import os

import pytest

from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.evaluation.evaluate import evaluate, name_sets
from iqa_harness.evaluation.store import EvaluationStore
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_models import ModelSpec, QualityModel
from iqa_results import ResultStore

CARD = ModelSpec(
    name="file", summary="mean brightness, times a number in a file", score_range=(0, 1),
    input_protocol="whole image", mean=(0, 0, 0), std=(1, 1, 1), source="this test",
)  # fmt: skip


class Hidden(QualityModel):
    """What decides its score is nowhere on it: the environment, which no hash can see."""

    def predict(self, images):
        return float(os.environ["FACTOR"]) * images.mean(dim=(1, 2, 3))


@pytest.fixture
def factor(monkeypatch):
    """Set what decides the score, and put it back."""
    monkeypatch.setenv("FACTOR", "0.5")
    return lambda value: monkeypatch.setenv("FACTOR", str(value))


def test_a_model_that_scores_otherwise_than_its_stored_rows_is_refused(tmp_path, images, suite, factor):
    """The same key, other scores: named image and both numbers, nothing is written; the old model goes on."""
    store = ResultStore(tmp_path)

    def run(only=()):
        entrants = [Entrant("m", Hidden(CARD).eval())]
        config = RunConfig("r", "", only=only)
        return run_suite(plan(suite, entrants, images), entrants, config, store)

    first = run(only=("clean",))
    before = store.cell_sizes()
    factor(-0.5)
    with pytest.raises(RunError, match=r"'m' scores image '\S+' -0\.\d+ now, 0\.\d+ is stored"):
        run()
    assert store.cell_sizes() == before
    factor(0.5)
    assert run(only=("clean",)).cells == first.cells


def test_rounding_is_no_other_model(tmp_path, images, suite, factor):
    """A difference of a ten-thousandth of the range, as another device makes, is let pass."""
    store = ResultStore(tmp_path)
    entrants = [Entrant("m", Hidden(CARD).eval())]
    config = RunConfig("r", "", only=("clean",))
    run_suite(plan(suite, entrants, images), entrants, config, store)
    factor(0.5 + 1e-4)
    assert run_suite(plan(suite, entrants, images), entrants, config, store).status == "partial"


def test_an_evaluation_refuses_kept_scores_of_a_model_that_scores_otherwise(tmp_path, images, factor):
    """The same key, other scores: no numbers for that model but the reason; the kept scores stay."""
    store = EvaluationStore(tmp_path)
    sets = name_sets([("tiny", images)], "test")

    def run():
        return evaluate([Entrant("m", Hidden(CARD).eval())], sets, store)

    first = run()
    factor(-0.5)
    second = run()
    reason = second.errors["m", "tiny"]
    assert "is stored under the same key" in reason
    assert second.rows.to_pylist()[0]["srocc"] is None
    factor(0.5 + 1e-4)  # as another device rounds
    assert run().rows.equals(first.rows)
