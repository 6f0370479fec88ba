"""Runs of every kind that nobody touched agree with themselves: verification raises no false alarm."""

import pytest
import torch
from PIL import Image
from torch import Tensor

from helpers import tiny
from helpers.stored_runs import SMALL
from iqa_harness.cells.plan import Selection, plan
from iqa_harness.cells.selection import recorded_selection, recorded_suite
from iqa_harness.data import ImageRecord
from iqa_harness.entrants.entrant import UNTRAINED, Entrant
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification import verify_run
from iqa_models import LinearQuality, create_model
from iqa_results import ResultStore
from iqa_suites import load_suite, parse_suite

HEAD = """
name = "kinds"
summary = "one of each"
seed = 3
main_epsilon = "4/255"
suite_min = ["pgd/mse"]
jpeg_qualities = [80]
eot_samples = 2
cell_images = 4

[data]
name = "tiny"
images = 6

[[attacks]]
name = "transfer"
kind = "transfer"
of = "pgd/mse"
"""
ENDS, MANY = ["raise", "lower"], ["mse", "drift", "soft_spearman", "raise"]
KINDS = {
    "pgd": ("pgd", MANY, "steps = 2\nreport_steps = [1]\nrelative_step_size = 0.6"),
    "mi": ("mifgsm", ["mse", "pairwise_inversion"], "steps = 2\nrelative_step_size = 0.6"),
    "one": ("fgsm", MANY, ""),
    "levels": ("apgd", ["mse", "soft_spearman"], 'steps = 3\nrestarts = 2\npixels = "8bit"'),
    "look": ("apgd", ENDS, "steps = 3\nssim_floor = 0.9"),
    "noise": ("noise", MANY, "samples = 2"),
    "jpeg": ("pgd", ["mse", "raise"], "steps = 2\nrelative_step_size = 0.6\njpeg_qualities = [80]"),
    "universal": ("universal", ENDS, 'steps = 3\ntraining_split = "val"\ntraining_images = 4'),
    "loop": ("closed_loop", ["srocc", "plcc"], "steps = 2\nrestarts = 2"),
    "square": ("square", ["mse"], "queries = 6\nreport_steps = [4]"),
    "spsa": ("spsa", ["mse"], "queries = 6"),
    "library": ("torchattacks", ENDS, 'attack = "MIFGSM"\noptions = { steps = 2 }'),
}


def _suite(names):
    tables = []
    for name in names:
        kind, objectives, settings = KINDS[name]
        listwise = {"soft_spearman", "pairwise_inversion"} & set(objectives)
        tables.append(
            f'[[attacks]]\nname = "{name}"\nkind = "{kind}"\nepsilons = ["4/255"]\n'
            f"objectives = {objectives}\n{'batch = 2' if listwise else ''}\n{settings}\n"
        )
    return "\n".join([HEAD, *tables])


class Noisy(LinearQuality):
    """A linear model that jitters its input, from torch's global generator."""

    def predict(self, images: Tensor) -> Tensor:
        return super().predict((images + 0.02 * torch.randn(images.shape[1:])).clamp(0, 1))


def _model(*, noisy):
    model = create_model("linear", seed=2)
    if noisy:
        model.__class__ = Noisy
        model.spec = model.spec.replace(name="noisy", is_stochastic=True)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("noisy", [False, True])
def test_every_kind_of_attack_is_verified(tmp_path, noisy):
    """Two models, every kind of attack and a transfer: all cells made again, every column equal."""
    names = [name for name in KINDS if not (noisy and name == "library")]  # it averages no draws
    images, text = tiny.make_images(test=6, val=4), _suite(names)
    entrants = [Entrant("m1", create_model("linear", seed=1)), Entrant("m2", _model(noisy=noisy))]
    store = ResultStore(tmp_path)
    manifest = run_suite(
        plan(parse_suite(text, "x"), entrants, images), entrants, RunConfig("r", text), store, Runtime()
    )
    assert manifest.status == "complete"
    robustness_table(store, manifest).write(store, "r")
    found = verify_run(store, manifest, entrants, images, sample=1000)
    assert found.findings == []
    assert found.cells == len(manifest.cells)
    # One model of two: what its surrogate finds cannot be made again, and nothing else is missed.
    alone = verify_run(store, manifest, entrants[:1], images, sample=1000)
    assert alone.findings == []
    assert 0 < alone.cells < found.cells / 2
    assert verify_run(store, manifest, [], None).findings == []


def test_a_model_with_an_untrained_head_is_verified(tmp_path):
    """The note on how it was made is in the record and not in the hash: with or without, it is itself."""
    images, suite = tiny.make_images(test=4, val=4), parse_suite(SMALL, "small")
    entrants = [Entrant("m", create_model("linear", seed=10), note=UNTRAINED)]
    store = ResultStore(tmp_path)
    manifest = run_suite(plan(suite, entrants, images), entrants, RunConfig("r", SMALL), store, Runtime())
    card = manifest.models[0].card
    assert UNTRAINED in card["notes"]
    robustness_table(store, manifest).write(store, "r")
    found = verify_run(store, manifest, entrants, images, sample=1000)
    assert (found.findings, found.cells) == ([], len(manifest.cells))
    bare = manifest.models[0].model_copy(
        update={"card": {**card, "notes": [note for note in card["notes"] if note != UNTRAINED]}}
    )
    stripped = manifest.model_copy(update={"models": (bare,)})
    assert verify_run(store, stripped, entrants, images, sample=1).findings == []
    other = bare.model_copy(update={"card": {**card, "notes": ["trained on everything"]}})
    edited = manifest.model_copy(update={"models": (other,)})
    found = verify_run(store, edited, entrants, images, sample=0)
    assert any("card.notes" in finding.detail for finding in found.findings)


@pytest.mark.slow
def test_a_run_on_a_users_own_images_is_verified_and_shown(cli, tmp_path):
    """`--data` moves a suite; its manifest says where to, so that images can be found again, even moved.

    So it does where the ends of the labels are an option of their own and where they stand behind the name;
    the cells are the same.
    """
    folder = tmp_path / "here"
    folder.mkdir()
    lines = ["path,mos,split"]
    for i in range(14):
        Image.effect_noise((32, 32), 10 * (i + 1)).convert("RGB").save(folder / f"{i}.png")
        lines.append(f"{i}.png,{i * 5},{'val' if i % 7 == 0 else 'test'}")
    (folder / "own.csv").write_text("\n".join(lines))
    runs = {
        "option": ("--data", "here/own.csv", "--mos-range", "0", "100"),
        "behind": ("--data", "here/own.csv?mos_range=0,100"),
    }
    for run, data in runs.items():
        attack = ("attack", "-s", "smoke", "-m", "linear", *data, "--run", run, "--threads", "1")
        code, _, err = cli(*attack)
        assert code == 0, err
        code, out, _ = cli("verify", run, "--threads", "1", "--sample", "1")
        assert (code, "0 differ" in out) == (0, True), out
        assert " 0 cells" not in out
        code, out, err = cli("report", run, "--images", "1", "--out", run, "--format", "html")
        assert code == 0, err
        assert "data:image/jpeg;base64," in (tmp_path / run / "index.html").read_text()
    folder.rename(tmp_path / "there")
    for run in runs:
        assert cli("verify", run, "--threads", "1")[0] == 3
        code, out, _ = cli("verify", run, "--threads", "1", "--sample", "1", "--data", "there/own.csv")
        assert (code, "0 differ" in out) == (0, True), out


def test_a_manifest_from_before_texts_were_moved_is_read(tmp_path, images, suite, suite_text):
    """An older run says in a comment where its suite was moved to; its hash says whether that is so."""
    entrants = [Entrant("m", create_model("linear", seed=10))]
    moved = load_suite("smoke").on_data("x.csv", (1.0, 5.0)).suite
    work = plan(suite, entrants, images)
    manifest = run_suite(
        work, entrants, RunConfig("r", suite_text, only=("clean",)), ResultStore(tmp_path), Runtime()
    )
    text = (
        f'# data.name = "x.csv", all images, by the command line; below as read\n{load_suite("smoke").text}'
    )
    old = manifest.model_copy(update={"suite_text": text, "suite_sha256": moved.sha256})
    assert recorded_suite(old) == moved
    edited = old.model_copy(update={"suite_sha256": "0" * 64})
    assert recorded_suite(edited) == load_suite("smoke").suite


@pytest.mark.parametrize(
    "selection",
    [
        Selection(),
        Selection(limit=4),
        Selection(images=("c, d", "a", "c", "b, c")),
        Selection(images=("b, c", "a", "c, d", "d"), limit=3),
    ],
)
def test_a_selection_is_read_from_its_words(tmp_path, images, suite, suite_text, selection):
    """Ids may hold the comma that joins them."""
    entrants = [Entrant("m", create_model("linear", seed=10))]
    records = [
        ImageRecord(name, 1.0 + i, "test", name, None, None, f"{i}" * 64)
        for i, name in enumerate(["a", "b, c", "c", "c, d", "d"])
    ]
    known = tiny.ArrayImageSet(records, images.pixels[:5], images.card, "0" * 64)
    small = parse_suite(suite_text.replace("images = 12", ""), "small")
    work = plan(small, entrants, known, selection)
    data = {"images": len(work.images), "label": "pseudo-MOS", "chosen": work.chosen and vars(work.chosen)}
    manifest = run_suite(
        work, entrants, RunConfig("r", suite_text, only=("none",)), ResultStore(tmp_path), Runtime()
    )
    assert manifest.data.model_dump().items() >= data.items()
    again = plan(small, entrants, known, recorded_selection(manifest, known))
    assert (again.images.records, again.selection) == (work.images.records, work.selection)
