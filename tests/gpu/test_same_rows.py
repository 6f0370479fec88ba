"""A card gives the rows of a CPU within a stated tolerance, and its own to the last bit."""

import numpy as np
import pytest
import torch

from helpers import tiny
from iqa_attacks import Example
from iqa_harness.cells.compute import craft, run_cell, to_tensor
from iqa_harness.cells.plan import plan
from iqa_harness.cells.scoring import stored_scores
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.machine.devices import device_name
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import Tuning
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

WITHOUT_WEIGHTS = ("hyperiqa_efficientnet_lite0", "hyperiqa", "smart_iqa_tiny", "srm_swin_tiny")
"""Models of the mission's families; random weights by seed, so that no file is needed."""
SCORES = 1e-3
"""Most that a stored score may differ between a CPU and a card, in score ranges."""
VALUES = 0.01
"""The same of a value over a set."""
ROUNDING = 1e-6
"""What float32 adds to a radius."""


def _photographs(count, size):
    """Return smooth images with structure at several scales, uint8 (H, W, 3)."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(count):
        whole = np.zeros((size, size, 3))
        for grain in (4, 16, 64):
            block = -(-size // grain)
            layer = generator.uniform(0, 255 / 3, (grain, grain, 3))
            whole += np.kron(layer, np.ones((block, block, 1)))[:size, :size]
        found.append(whole.astype(np.uint8))
    return found


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_stored_scores_are_those_of_the_cpu(card, name):
    """One and the same image, to a thousandth of the range; on the card whatever is scored beside it."""
    torch.manual_seed(0)
    model = create_model(name, pretrained=False).eval()
    low, high = model.spec.score_range
    pixels, ids = _photographs(3, 224), ["a", "b", "c"]

    def scores(device, chosen):
        images = [to_tensor(pixels[i], device) for i in chosen]
        names = [ids[i] for i in chosen]
        return stored_scores(model.to(device), images, names, seed=0, draws=None)

    here, there = scores("cpu", range(3)), scores(card, range(3))
    assert np.abs(np.subtract(here, there)).max() <= SCORES * (high - low)
    assert scores(card, [2, 0]) == [there[2], there[0]]
    assert scores(card, [1]) == [there[1]]


def _run(folder, model, runtime, images):
    entrants = [Entrant("m", model)]
    work = plan(parse_suite(tiny.SUITE, "tiny"), entrants, images)
    store = ResultStore(folder)
    manifest = run_suite(work, entrants, RunConfig("r", tiny.SUITE), store, runtime)
    assert manifest.status == "complete"
    return store, manifest


def _rows(store, manifest):
    return store.read_cells(c.key for c in manifest.cells).drop_columns(["seconds"])


def test_a_run_gives_the_values_of_the_cpu(card, tmp_path, convolutional):
    """Correlations within .01, every example inside its ball, gradients counted alike."""
    images = tiny.make_images(test=12, val=12, size=48)
    found = {}
    for device in ("cpu", card):
        runtime = Runtime(device=device, chunk=8, tune="off")
        store, manifest = _run(tmp_path / device.replace(":", ""), convolutional().eval(), runtime, images)
        table = robustness_table(store, manifest).table.to_pylist()
        names = ("row", "attack", "objective", "epsilon", "steps")
        plcc = [row for row in table if row["metric"] == "plcc"]
        values = {tuple(row[name] for name in names): row["value"] for row in plcc}
        found[device] = values, _rows(store, manifest).to_pandas(), manifest
    (here, rows_here, run_here), (there, rows, run_there) = found.values()
    assert here.keys() == there.keys()
    for place, value in here.items():
        assert (value is None) == (there[place] is None)
        assert value is None or abs(value - there[place]) <= VALUES, place
    assert (rows["linf"] <= rows["epsilon"] + ROUNDING).all()
    assert len(rows) == len(rows_here)
    assert (run_there.forwards, run_there.backwards) == (run_here.forwards, run_here.backwards)


@pytest.mark.parametrize(
    "form", [{}, {"channels_last": True}, {"channels_last": True, "precision": "bfloat16"}]
)
def test_a_rerun_with_a_fixed_choice_is_bit_equal(card, tmp_path, convolutional, form):
    """Twice on one card: every row the same but for its time."""
    images = tiny.make_images(test=12, val=12, size=48)
    runs = []
    for attempt in ("a", "b"):
        model = convolutional().eval()
        choice = Tuning(
            model_sha256=Entrant("m", model).sha256, device=device_name(card), chunk=8, why="fixed", **form
        )
        runtime = Runtime(device=card, chunk=8, tune="off", choices=(choice,))
        runs.append(_rows(*_run(tmp_path / attempt, model, runtime, images)))
    assert [name for name in runs[0].column_names if not runs[0][name].equals(runs[1][name])] == []


def test_examples_are_measured_as_on_the_cpu(card, convolutional):
    """The same examples of four images: sizes and similarity to rounding, scores to a thousandth."""
    images, model = tiny.make_images(size=48), convolutional().eval()
    work = plan(parse_suite(tiny.SUITE, "tiny"), [Entrant("m", model)], images)
    cell = next(cell for cell in work.cells if cell.attack_name == "pgd")
    here = craft(cell, model, work.images, Runtime(tune="off"))
    moved: dict[int, Example] = {}
    for found in here.found:
        example = found.example
        moved.setdefault(id(example), example._replace(pixels=example.pixels.to(card)))
    there = here._replace(found=[f._replace(example=moved[id(f.example)]) for f in here.found])
    rows = run_cell(cell, model, work.images, Runtime(tune="off"), lambda cell: here)
    on_card = run_cell(
        cell, model.to(card), work.images, Runtime(device=card, tune="off"), lambda cell: there
    )
    assert len(rows) == len(on_card) > 4
    for a, b in zip(rows, on_card, strict=True):
        for name in ("linf", "l2", "rmse", "ssim", "projection_moved"):
            assert b[name] == pytest.approx(a[name], rel=1e-5, abs=ROUNDING), name
        for name in ("clean_score", "adv_score", "adv_score_8bit"):
            assert b[name] == pytest.approx(a[name], abs=SCORES), name
