"""A run whose gradients come from copies: stored scores are the models', the choice is in the manifest."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers import tiny
from iqa_attacks import AttackFailed, score
from iqa_harness.cells.plan import plan
from iqa_harness.data import open_data
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import device_name
from iqa_harness.machine.runtime import Runtime
from iqa_harness.machine.tuning import Tuning, choices_of
from iqa_harness.running.choices import choose
from iqa_harness.running.executors.processes import Processes, places
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.merge import joined
from iqa_harness.running.run import missing_cells, run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification.run import verify_run
from iqa_models import ModelSpec, QualityModel, create_model
from iqa_models.frozen import frozen
from iqa_results import ResultStore
from iqa_suites import parse_suite

pytestmark = pytest.mark.slow
SUITE = tiny.SUITE + tiny.TRANSFER
for before, after in {
    '["2/255", "4/255"]': '["4/255"]', "images = 12": "images = 4", "restarts = 2": "restarts = 1",
    "steps = 4\nreport_steps = [1, 2]": "steps = 2\nreport_steps = [1]",
    '"pairwise_inversion", "raise", "lower"]': '"pairwise_inversion"]',
}.items():  # fmt: skip
    assert before in SUITE
    SUITE = SUITE.replace(before, after)
ALONE = SUITE.removesuffix(tiny.TRANSFER)
"""For one model, which has nobody to transfer from; its own cells are those it has in company."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four test and four validation images of 32 x 32 pixels, as files that other processes can read."""
    folder = tmp_path_factory.mktemp("images")
    path = tiny.write_csv(folder, tiny.make_images(test=4, val=4, size=32))
    return open_data(path, mos_range=(1.0, 5.0))


@pytest.fixture(scope="module")
def entrants():
    """A network with batch norms, and the linear model."""
    return [Entrant("net", create_model("demo_resnet10t")), Entrant("line", create_model("linear"))]


@pytest.fixture(scope="module")
def work(data, entrants):
    return plan(parse_suite(SUITE, "tiny"), entrants, data)


def choice(entrant, **form):
    form = form or {"fold": True, "channels_last": True}
    return Tuning(
        model_sha256=entrant.sha256, device=device_name("cpu"), chunk=3, plain_ms=1.0, why="given", **form
    )


def run(work, entrants, folder, runtime, text=SUITE, **options):
    store = ResultStore(folder)
    return store, run_suite(work, entrants, RunConfig("r", text), store, runtime, **options)


def rows(store, manifest, of=None):
    """Return the rows of a run, or of another run in its store."""
    return store.read_cells(c.key for c in (of or manifest).cells).drop_columns(["seconds"])


@pytest.fixture(scope="module")
def net(entrants, data):
    """The network without company, and its cells."""
    return plan(parse_suite(ALONE, "tiny"), entrants[:1], data), entrants[:1]


@pytest.fixture(scope="module")
def plain(work, entrants, tmp_path_factory):
    """The run with tuning off."""
    return run(work, entrants, tmp_path_factory.mktemp("plain"), Runtime(tune="off"))


@pytest.fixture(scope="module")
def chosen(entrants):
    """A folded copy for the network; the other model as it stands, in passes of three."""
    return Runtime(choices=(choice(entrants[0]), choice(entrants[1], fold=False)))


@pytest.fixture(scope="module")
def told():
    """What the tuned run said, in order: how long it may take, then every cell's status."""
    return []


@pytest.fixture(scope="module")
def tuned(work, entrants, chosen, told, tmp_path_factory):
    """The run with these choices."""
    return run(
        work, entrants, tmp_path_factory.mktemp("tuned"), chosen,
        on_estimate=told.append, on_cell=lambda cell, status: told.append(status),
    )  # fmt: skip


def test_off_is_the_default_of_a_short_run(net, plain, tmp_path):
    """So few gradients are worth no choice: rows are those of tuning off, bit for bit, and none is kept."""
    short = run(*net, tmp_path, Runtime(), ALONE)
    assert rows(*short).equals(rows(*plain, of=short[1]))
    assert choices_of(short[1]) == choices_of(plain[1]) == ()


def test_scores_are_the_models_and_the_choice_is_recorded(plain, tuned, chosen):
    """Clean scores are equal; what the attack saw is the model's own score of the same pixels."""
    before, after = rows(*plain).to_pandas(), rows(*tuned).to_pandas()
    keys = ["cell", "image_id", "objective", "steps"]
    assert before[keys].equals(after[keys])
    assert before["clean_score"].equals(after["clean_score"])
    own = after["kind"] != "transfer"
    np.testing.assert_allclose(after["attack_score"][own], after["adv_score"][own], atol=1e-5)
    np.testing.assert_allclose(after["adv_score"], before["adv_score"], atol=0.05)
    same = before["model"] == "line"
    assert before[same & own].equals(after[same & own])
    assert choices_of(tuned[1]) == chosen.choices


def test_a_tuned_run_is_verified(entrants, data, tuned):
    """Made again with the recorded choice, cells are what is stored."""
    _verify(*tuned, entrants, data, 3)


def test_a_run_tuned_to_half_precision_is_verified(net, data, tmp_path):
    """Of one model, without the other's examples: bfloat16 takes its time on a CPU."""
    work, alone = net
    half = Runtime(choices=(choice(alone[0], precision="bfloat16"),))
    _verify(*run(work, alone, tmp_path, half, ALONE), alone, data, 2)


def _verify(store, manifest, entrants, data, sample):
    robustness_table(store, manifest).write(store, "r")
    assert verify_run(store, manifest, entrants, data, sample=sample).findings == []


class Wide(QualityModel):
    """Its maps reach a million, beyond what float16 holds; its score does not."""

    def __init__(self):
        super().__init__(
            ModelSpec(
                name="wide", summary="large maps", score_range=(0, 1), input_protocol="whole image",
                mean=(0.0,) * 3, std=(1.0,) * 3, source="this test",
            )
        )  # fmt: skip
        self.layer = nn.Conv2d(3, 1, 3, bias=False)
        with torch.no_grad():
            self.layer.weight.copy_(torch.linspace(-1e5, 1e6, 27).view(1, 3, 3, 3))

    def predict(self, images):
        return torch.sigmoid(self.layer(images).mean(dim=(1, 2, 3)) / 1e7 - 0.5)


def test_where_a_copy_overflows_the_model_itself_is_asked(data, tmp_path, capsys):
    """No cell is lost to float16, and it is said: rows are those of a run without a choice, bit for bit."""
    entrants = [Entrant("wide", Wide().eval())]
    with pytest.raises(AttackFailed, match="not finite"):
        score(frozen(entrants[0].model, precision="float16"), torch.full((1, 3, 32, 32), 0.5), chunk=1)
    work = plan(parse_suite(ALONE, "tiny"), entrants, data)
    made = [
        run(work, entrants, tmp_path / name, Runtime(tune="off", choices=choices))
        for name, choices in (("half", (choice(entrants[0], precision="float16"),)), ("off", ()))
    ]
    half, off = (rows(*each) for each in made)
    assert len(off) and half.equals(off)
    told = capsys.readouterr().err
    assert told.count("no gradients of the tuned copy") == told.count("asked the model")
    assert "wide, pgd: no gradients of the tuned copy" in told
    assert "wide, fgsm: no gradients of the tuned copy" in told


def test_a_run_goes_on_with_the_choice_it_began_with(net, chosen, tuned, tmp_path):
    """Interrupted, then called again without the choice, it has the rows of the uninterrupted run."""
    seen = []

    def stop(cell, status):
        seen.append(status)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(*net, tmp_path, Runtime(choices=chosen.choices[:1]), ALONE, on_cell=stop)
    resumed = run(*net, tmp_path, Runtime(), ALONE)
    assert len(resumed[1].cells) > len(seen)
    assert rows(*resumed).equals(rows(*tuned, of=resumed[1]))
    assert choices_of(resumed[1]) == chosen.choices[:1]


def test_cells_of_another_run_are_gone_on_with_as_they_were_begun(net, data, tmp_path):
    """Half precision in one run: a second run of the same cells says so, and is verified; off is refused."""
    work, alone = net
    half = (choice(alone[0], precision="bfloat16"),)
    store, first = run(work, alone, tmp_path, Runtime(choices=half), ALONE)
    for cell in [c for c in first.cells if c.attack == "fgsm"]:
        store.delete_cell(cell.key)
    for name in ("r", "second"):
        with pytest.raises(RunError, match="bfloat16, now those of the model as it is are asked for"):
            run_suite(work, alone, RunConfig(name, ALONE), store, Runtime(tune="off"))
    second = run_suite(work, alone, RunConfig("second", ALONE), store, Runtime())
    assert choices_of(second) == half
    robustness_table(store, second).write(store, "second")
    assert verify_run(store, second, alone, data, sample=9).findings == []


def test_who_made_stored_cells_says_how_they_go_on(net, plain, tuned, chosen):
    """The run itself, else any other that has them or goes on; asked for in another way it is refused."""
    work, alone = net
    stored = next(c.key for c in work.cells if c.attack is not None)
    missing = {cell.key for cell in work.cells} - {stored}
    idle = tuned[1].model_copy(
        update={
            "status": "interrupted",
            "cells": tuple(c.model_copy(update={"status": "missing"}) for c in tuned[1].cells),
        }
    )
    goes_on = idle.model_copy(update={"status": "running"})

    def found(former, *others, **runtime):
        return choose(work, alone, Runtime(**runtime), former, missing, "inline", lambda: others)

    folded = chosen.choices[:1]
    assert found(None, tuned[1]) == found(None, idle, goes_on) == found(None, plain[1], tuned[1]) == folded
    assert found(None, idle) == found(None, plain[1]) == found(plain[1], tuned[1]) == ()
    assert found(None, plain[1], tune="off") == found(plain[1], tuned[1], tune="off") == ()
    assert found(None, tuned[1], tune="off", choices=folded) == folded
    for asked in (
        lambda: found(None, tuned[1], tune="off"),
        lambda: found(None, goes_on, tune="off"),
        lambda: found(plain[1], choices=folded),
    ):
        with pytest.raises(RunError, match="batch norms folded"):
            asked()
    nothing = {cell.key for cell in work.cells}
    assert choose(work, alone, Runtime(tune="off"), None, nothing, "inline", lambda: [tuned[1]]) == ()


def test_a_run_computed_anew_without_its_choice_says_none(net, plain, tmp_path):
    """None of its attacked cells is there any more: they are those of tuning off, bit for bit."""
    work, alone = net
    store, first = run(work, alone, tmp_path, Runtime(choices=(choice(alone[0]),)), ALONE)
    for cell in [c for c in first.cells if c.attack != "clean"]:
        store.delete_cell(cell.key)
    again = run(work, alone, tmp_path, Runtime(tune="off"), ALONE)
    assert choices_of(again[1]) == ()
    assert rows(*again).equals(rows(*plain, of=again[1]))


def test_the_time_is_told_before_the_first_cell(work, tuned, told):
    """Where all models' gradients were timed, a run says once, and first, how long it may take."""
    assert told[0] > 0
    assert told[1:] == ["done"] * len(work.cells)


def test_workers_get_the_drivers_choice(net, chosen, tuned, tmp_path, monkeypatch):
    """Other processes make the same copies: their rows are those of one process."""
    root = Path(__file__).resolve().parents[2]
    rooms = ("harness", "models", "attacks", "suites", "results", "reports")
    monkeypatch.setenv("PYTHONPATH", ":".join(str(root / room) for room in rooms))
    choices = Runtime(choices=chosen.choices[:1])
    spread = run(*net, tmp_path, choices, ALONE, executor=Processes(places(("cpu",), 1, 1)))
    assert rows(*spread).equals(rows(*tuned, of=spread[1]))


def test_a_long_run_is_measured_once(work, entrants, plain):
    """A run worth it gets a measured choice; one that began without stays without; far workers get none."""
    text = ALONE.replace("steps = 2", "steps = 800")
    longer = plan(parse_suite(text, "tiny"), entrants[:1], work.images)
    missing = {cell.key for cell in longer.cells}
    (made,) = choose(longer, entrants[:1], Runtime(), None, missing, "inline")
    assert made.model_sha256 == entrants[0].sha256
    assert made.plain_ms > 0
    assert made.chunk <= Runtime().at_most
    begun = missing - {next(c.key for c in longer.cells if c.attack is not None)}
    assert choose(longer, entrants[:1], Runtime(), None, begun, "inline") == ()
    assert choose(longer, entrants[:1], Runtime(), None, missing, "slurm") == ()
    assert choose(longer, entrants[:1], Runtime(tune="off"), None, missing, "inline") == ()
    given = Runtime(choices=(choice(entrants[0]),))
    assert choose(longer, entrants[:1], given, None, missing, "inline") == given.choices


def test_two_parts_of_a_run_keep_the_choices_of_both(plain, tuned, chosen):
    """Merged, a run says how each model's gradients were computed; where both say it, ours counts."""
    assert choices_of(joined(tuned[1], plain[1])) == chosen.choices
    assert choices_of(joined(plain[1], tuned[1])) == chosen.choices
    assert choices_of(joined(plain[1], plain[1])) == ()


def test_a_mode_that_is_none_is_refused():
    with pytest.raises(RunError, match="tune: one of off, fast, full, not 'fastest'"):
        Runtime(tune="fastest")


def test_a_finished_run_measures_nothing(work, entrants, plain):
    """All cells are there: nothing is chosen for them."""
    store, manifest = plain
    assert missing_cells(work, store) == []
    assert choose(work, entrants, Runtime(), manifest, set(), "inline") == ()
