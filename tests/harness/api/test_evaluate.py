"""`evaluate` in Python: what the command does, with objects, and what a misbehaving model costs."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.stats
import torch

from iqa_harness.api.evaluate import evaluate
from iqa_harness.errors import RunError
from iqa_models import create_model

MODELS = ["linear", "other=linear?seed=1"]


def read(folder):
    """Return what an evaluation stored, the manifest without what names the moment and the machine."""
    manifest = json.loads((folder / "manifest.json").read_text())
    tables = [pq.read_table(folder / name) for name in ("table.parquet", "scores.parquet")]
    return *tables, {key: value for key, value in manifest.items() if key not in ("written", "provenance")}


def test_the_command_and_the_function_store_the_same(cli, own):
    """Equal tables, scores and manifests, and the function returns what it stored."""
    line = [word for model in MODELS for word in ("-m", model)]
    assert cli("evaluate", *line, "-d", "own.csv", "--store", "a", "--seed", "3")[0] == 0
    found = evaluate(MODELS, "own.csv", store="b", seed=3, progress=False)
    assert read(own / "a/evaluations/evaluation") == read(own / "b/evaluations/evaluation")
    assert found.folder.resolve() == own / "b/evaluations/evaluation"
    assert found.rows.equals(pq.read_table(found.folder / "table.parquet"))
    assert found.table["model"].tolist() == ["linear", "other"]
    assert (found.errors, found.left_out) == ({}, ())


def test_what_is_printed_is_the_table(cli, own):
    """The command prints the texts of the object's repr; the HTML table holds them too."""
    assert cli("evaluate", "-m", "linear", "-d", "own.csv")[0] == 0
    found = evaluate("linear", "own.csv", progress=False)
    out = cli("evaluate", "-m", "linear", "-d", "own.csv")[1]
    for entry in found.view.rows[0]:
        assert entry.text in out
        assert entry.text in repr(found)
        assert entry.text in found._repr_html_()


def test_models_and_sets_that_are_open_already(own, opened, brightness):
    """A model and a set as objects: rows as by name."""
    found = evaluate([brightness(), create_model("linear")], opened, progress=False)
    named = evaluate("linear", "own.csv?mos_range=1,5", store="other", progress=False)
    by_object = found.table[found.table["model"] == "linear"].reset_index(drop=True)
    assert by_object.equals(named.table)
    test = opened.split("test")
    means = [np.mean(test.read(i)) / 255 for i in range(len(test))]
    expected = scipy.stats.spearmanr(means, test.labels).statistic
    assert found.table["srocc"][0] == pytest.approx(expected, abs=1e-9)


def out_of_memory(images):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def broken(images):
    raise KeyError("not foreseen")


TROUBLES = {
    "greedy": (out_of_memory, "memory of cpu ran out (OutOfMemoryError: CUDA out of memory"),
    "broken": (broken, "KeyError: 'not foreseen'"),
    "random": (lambda images: np.random.default_rng().uniform(), "draws at random"),
}


def test_a_model_that_fails_costs_its_own_row(own, brightness):
    """Whatever its code does, the others' rows are stored, and its own says why it has no numbers."""
    bad = [brightness(name, trouble) for name, (trouble, _) in TROUBLES.items()]
    found = evaluate([brightness("first"), *bad, brightness("last")], "own.csv", progress=False)
    rows = pq.read_table(own / "iqa-store/evaluations/evaluation/table.parquet").to_pylist()
    assert [row["srocc"] is None for row in rows] == [False, True, True, True, False]
    for row, (_, words) in zip(rows[1:4], TROUBLES.values(), strict=True):
        assert words in row["undefined"]
    assert found.errors == {(row["model"], "own"): row["undefined"] for row in rows[1:4]}
    assert {model for model, _ in found.errors} == set(TROUBLES)
    assert found.scores.num_rows == 2 * 8


def test_memory_that_runs_out_is_exit_code_4(cli, own):
    """The same from the command line, with a plugin: no traceback, and the other model's row is there."""
    (own / "mine.py").write_text(
        "import torch\n"
        "from iqa_models import ModelSpec, QualityModel, register_model\n"
        "class Greedy(QualityModel):\n"
        "    def predict(self, images):\n"
        "        raise torch.OutOfMemoryError('no room')\n"
        "@register_model('greedy_of_the_api')\n"
        "def greedy():\n"
        "    '''Needs more than there is.'''\n"
        "    return Greedy(ModelSpec(name='greedy_of_the_api', summary='g', score_range=(0, 1),\n"
        "        input_protocol='whole', mean=(0, 0, 0), std=(1, 1, 1), source='the test'))\n"
    )
    line = ("evaluate", "-m", "linear", "-m", "greedy_of_the_api", "--plugin", "mine.py", "-d", "own.csv")
    code, out, err = cli(*line)
    assert code == 4
    assert "Traceback" not in err
    assert "no scores of greedy_of_the_api on own" in err
    assert "linear" in out
    assert pq.read_table(own / "iqa-store/evaluations/evaluation/table.parquet").num_rows == 2
    assert "greedy_of_the_api" in cli("models", "list", "greedy*", "--plugin", "mine.py")[1]


def test_a_stochastic_model_with_draws_is_no_random_one(own):
    """Seeded draws give equal scores twice; without their number the model is refused."""

    class Noisy(type(create_model("linear"))):
        def predict(self, images):
            return super().predict(images) + 0.01 * torch.randn(len(images))

    model = create_model("linear")
    model.__class__ = Noisy
    model.spec = model.spec.replace(is_stochastic=True)
    with pytest.raises(RunError, match="--eot-samples"):
        evaluate(model, "own.csv", progress=False)
    first = evaluate(model, "own.csv", eot_samples=2, store="a", progress=False)
    again = evaluate(model, "own.csv", eot_samples=2, store="b", progress=False)
    assert not first.errors
    assert first.scores.equals(again.scores)
