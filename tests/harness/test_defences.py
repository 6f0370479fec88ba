"""Defended models through whole runs: beside the undefended one, attacked with and without knowing of it."""

import pytest
import torch
from torch import nn

from helpers import tiny
from helpers.views import view_run
from iqa_attacks import BadAttackOption, through_jpeg_file
from iqa_attacks.defences.defended import defend
from iqa_harness.api.inputs import entrants_of_run
from iqa_harness.cells.plan import plan
from iqa_harness.data import open_data
from iqa_harness.entrants.defended import defences_of, split_defences, with_bare
from iqa_harness.entrants.naming import as_entrant, as_entrants
from iqa_harness.evidence.judgement import flags_of_checks
from iqa_harness.evidence.model_checks import check_model
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.executors.snapshot import open_snapshot, write_snapshot
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_harness.running.task import Place
from iqa_harness.tables.robustness import robustness_table
from iqa_harness.verification import verify_run
from iqa_models import create_model, save_checkpoint, wrap
from iqa_reports.tables import attack_table, defences_table
from iqa_reports.text import reading
from iqa_results import ResultStore
from iqa_suites import parse_suite

NAMED = "mine=linear?seed=2|quantise:5"
DRAWN = "linear?seed=2|flip"
TEXT = (
    tiny.SUITE.replace("cell_images = 4", "cell_images = 4\neot_samples = 2")
    .replace('epsilons = ["2/255", "4/255"]', 'epsilons = ["4/255"]')
    .replace("restarts = 2", "restarts = 1")
    .replace("images = 12", "images = 8")
    .replace("steps = 4\nreport_steps = [1, 2]", "steps = 2\nreport_steps = [1]")
)


def _entrants():
    return with_bare(as_entrants([NAMED, DRAWN]))


@pytest.fixture(scope="module")
def run(tmp_path_factory, images):
    """A finished run of one model undefended, behind fewer bits, and behind a coin."""
    suite, entrants = parse_suite(TEXT, "tiny"), _entrants()
    store = ResultStore(tmp_path_factory.mktemp("store"))
    manifest = run_suite(plan(suite, entrants, images), entrants, RunConfig("r", TEXT), store)
    tables = robustness_table(store, manifest)
    tables.write(store, "r")
    return store, manifest, tables


@pytest.mark.parametrize(
    ("text", "bare", "defences"),
    [
        ("linear", "linear", ""),
        ("linear|jpeg:75", "linear", "jpeg:75"),
        ("a=linear?seed=1|jpeg:75|smooth:0.1,4|flip", "a=linear?seed=1", "jpeg:75|smooth:0.1,4|flip"),
        ("./folder|median", "./folder", "median"),
        ("cmd:scorer {files} | tail -1", "cmd:scorer {files} | tail -1", ""),
        ("cmd:scorer {files} | tail -1|blur", "cmd:scorer {files} | tail -1", "blur"),
        ("a|b=linear|flip", "a|b=linear", "flip"),
        ("linear|jpg:75", "linear", "jpg:75"),
    ],
)
def test_defences_stand_at_the_end_of_a_model_s_words(text, bare, defences):
    assert split_defences(text) == (bare, defences)


def test_a_folder_s_own_bar_is_no_defence(tmp_path):
    folder = save_checkpoint(create_model("linear"), tmp_path / "a|flip", training={})
    assert defences_of(as_entrant(str(folder)).model) == ""
    assert defences_of(as_entrant(f"{folder}|blur").model) == "blur:1"


def test_a_defence_nobody_knows_is_said_with_the_nearest():
    with pytest.raises(BadAttackOption, match="no defence 'jpg', did you mean 'jpeg'"):
        as_entrant("linear|jpg:75")


def test_the_undefended_model_stands_before_each_once():
    """Named as it would be by itself; one that is there under a name of its own is not added."""
    assert [entrant.label for entrant in _entrants()] == ["linear?seed=2", "mine", "linear?seed=2|flip"]
    named = with_bare(as_entrants({"x": "linear?seed=2", "y": "linear?seed=2|flip"}))
    assert [entrant.label for entrant in named] == ["x", "y"]
    live = defend(create_model("linear"), "blur")
    assert [entrant.label for entrant in with_bare([as_entrant(live)])] == ["linear", "linear|blur:1"]


def test_a_name_makes_the_same_defended_model_again(tmp_path):
    """From its words in any folder, from its label alone, from a checkpoint."""
    folder = save_checkpoint(create_model("linear", seed=4), tmp_path / "held", training={})
    for text in (NAMED, DRAWN, f"{folder}|jpeg:80|flip", f"b={folder}|median"):
        entrant = as_entrant(text)
        again = as_entrant(entrant.argument)
        assert (again.label, again.sha256, again.argument) == (
            entrant.label,
            entrant.sha256,
            entrant.argument,
        )
    other = as_entrant(("another", NAMED))
    assert as_entrant(other.argument).label == other.label == "another"
    hashes = {
        as_entrant(f"linear|{text}").sha256 for text in ("blur", "blur:1", "blur:2", "blur|flip", "flip|blur")
    }
    assert len(hashes) == 4


@pytest.mark.slow
def test_examples_of_the_undefended_model_are_tried_on_those_who_defend_it(run):
    """All objectives of every attack and the ends met, scored by the defended model, in its worst cases."""
    store, manifest, tables = run
    assert manifest.status == "complete"
    assert set(tables.table["verdict"].to_pylist()) == {"sound"}
    assert [m.bare for m in manifest.models] == [None, "linear?seed=2", "linear?seed=2"]
    rows = store.read_cells(c.key for c in manifest.cells).to_pandas()
    for model in ("mine", "linear?seed=2|flip"):
        own = rows[(rows["model"] == model) & (rows["attack"] != "clean")]
        assert set(own["attack"]) == {"fgsm", "pgd", "fgsm:linear?seed=2", "pgd:linear?seed=2"}
        unaware = own[own["attack"] == "pgd:linear?seed=2"]
        assert set(unaware["kind"]) == {"transfer"}
        assert {"mse", "pairwise_inversion", "lowest_seen", "highest_seen"} <= set(unaware["objective"])
        bare = rows[(rows["model"] == "linear?seed=2") & (rows["attack"] == "pgd")]
        keys = ["image_id", "objective", "steps"]
        assert unaware.sort_values(keys)["linf"].tolist() == bare.sort_values(keys)["linf"].tolist()
    table = tables.table.to_pandas()
    table = table[(table["metric"] == "srocc") & table["final"]].set_index("model")
    least = table[(table["row"] == "attack") & table["attack"].str.startswith("pgd")]
    least = least[~least["objective"].isin(["raise", "lower"])].groupby("model")["value"].min()
    worst = table[(table["row"] == "suite_min") & (table["epsilon"] == 4 / 255)]["value"]
    assert worst.to_dict() == least.to_dict()


def test_the_table_of_defences_has_both_columns_and_what_they_cost(run):
    _, manifest, tables = run
    view = view_run(manifest, tables.table)
    table = defences_table(view, "srocc")
    assert [group.label for group in table.groups] == ["clean", "unaware", "adaptive"]
    frame = tables.table.to_pandas()
    frame = frame[(frame["metric"] == "srocc") & frame["final"] & (frame["row"] != "composed")]
    clean = frame[frame["row"] == "clean"].set_index("model")["value"]
    members = frame[(frame["row"] == "attack") & ~frame["objective"].isin(["raise", "lower"])]
    least = members.groupby(["model", "attack"])["value"].min()
    for name, *entries in ((row[0].text, *row[1:]) for row in table.rows):
        wanted = [clean["linear?seed=2"], clean[name], least[name, "pgd:linear?seed=2"], least[name, "pgd"]]
        assert [entry.number for entry in entries] == wanted
    assert "Of a defended model it is also" in reading(manifest)[0]
    assert [row[0].text for row in table.rows] == ["mine", "linear?seed=2|flip"]
    assert not [group for group in attack_table(view, "srocc").groups if ":" in group.label]


@pytest.mark.slow
def test_a_run_of_defended_models_is_made_again_and_agrees(run, images):
    """From its manifest; all rows, all checks, plan and tables."""
    store, manifest, _ = run
    entrants = entrants_of_run(manifest)
    found = verify_run(store, manifest, entrants, images, sample=3)
    assert found.findings == []
    assert found.rows_again > 0


def test_a_worker_makes_defended_models_again(tmp_path):
    """From the undefended model's checkpoint and the words of the defences."""
    data = open_data(tiny.write_csv(tmp_path, tiny.make_images(val=4)), mos_range=(1.0, 5.0))
    work, store, entrants = (
        plan(parse_suite(TEXT, "tiny"), _entrants(), data),
        ResultStore(tmp_path / "s"),
        _entrants(),
    )
    records = [_record(entrant) for entrant in entrants]
    folder = write_snapshot(tmp_path, work, list(zip(entrants, records, strict=True)), store, Runtime())
    bench = open_snapshot(folder, Place("cpu", None))
    for entrant in entrants:
        assert bench._model(entrant.label).spec == entrant.model.spec
    from iqa_harness.cells.plan import CellRef

    assert [bench._cell(CellRef.of(cell)) for cell in work.cells] == list(work.cells)


def _record(entrant):
    from iqa_results import ModelRecord

    return ModelRecord(name=entrant.label, sha256=entrant.sha256, card={}, checkpoint=None, checks={})


class Naive(nn.Module):
    """A model that compresses its input, and lets the gradient find out by itself."""

    def __init__(self, through):
        super().__init__()
        self.model, self.through = create_model("cheat_none"), through

    def forward(self, images):
        return self.model(self.through(images))


def test_a_defence_without_a_slope_is_flagged_unless_it_is_attacked_through_a_stand_in():
    """JPEG in files, in rounded coefficients and with the gradient let past; and the declared one."""
    images = [image.float() for image in _photographs()]
    cases = {
        "file": (lambda x: through_jpeg_file(x, 60), "gradient_missing"),
        "levels": (lambda x: (x * 15).round() / 15, "zero_gradients"),
        "straight": (lambda x: x + (through_jpeg_file(x, 20) - x).detach(), "gradient_disagrees"),
    }
    for through, flag in cases.values():
        naive = wrap(Naive(through), name="naive", score_range=(0, 1))
        assert flag in _raised(naive, images)
    for text in ("jpeg:60", "jpeg:20", "quantise:4", "median:3", "blur", "flip|jpeg:30", "resize_crop:0.9"):
        assert _raised(defend(create_model("cheat_none"), text), images) == set()
    assert "gradient_disagrees" in _raised(defend(create_model("cheat_wrong_sign"), "jpeg:60"), images)


def _raised(model, images):
    return {flag.flag for flag in flags_of_checks(check_model(model, images, draws=4)) if flag.raised}


def _photographs():
    generator = torch.Generator().manual_seed(2)
    coarse = torch.rand(4, 3, 8, 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(48, 48), mode="bicubic", align_corners=False)
    return list((0.1 + 0.8 * smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1))
