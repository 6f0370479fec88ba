"""`iqa-harness train` as a user meets it: settings, folders, seeds, and what is refused."""

import csv
import json
import tomllib

import pyarrow.parquet as pq
import pytest

from iqa_harness.training.config import TrainConfig, list_presets, load_preset
from iqa_harness.training.sessions import set_name
from iqa_models.checkpoint import read_card

TINY = ("--data", "set.csv", "--mos-range", "1", "5", "--set", "options.backbone=test_efficientnet")
SETTINGS = """
name = "tiny"
model = "timm_regressor"
options = { hidden = 8 }
epochs = 1
batch_size = 4
crop = 32
"""


@pytest.fixture
def folder(photographs):
    """The images, and settings beside them."""
    (photographs / "tiny.toml").write_text(SETTINGS)
    lines = (photographs / "set.csv").read_text().splitlines()
    val = [number for number, line in enumerate(lines) if line.endswith(",val")]
    few = [line for number, line in enumerate(lines) if number not in val[2:]]
    equal = [line.replace(line.split(",")[1], "3.0") if n in val else line for n, line in enumerate(lines)]
    for name, kept in (("few.csv", few), ("equal.csv", equal)):
        (photographs / name).write_text("\n".join(kept) + "\n")
    return photographs


@pytest.mark.parametrize("name", list_presets())
def test_what_is_shown_is_what_is_trained(cli, name, tmp_path):
    """The shown TOML holds every setting with its meaning above it, and reads back as the preset."""
    code, out, _ = cli("train", name, "--show")
    assert code == 0
    assert TrainConfig.model_validate(tomllib.loads(out)) == load_preset(name)
    for key, field in TrainConfig.model_fields.items():
        assert (
            f"# {field.description}\n{key} = " in out or f"# {field.description}\n# {key} = (not set)" in out
        )


def test_a_size_and_another_model_are_refused(cli):
    """Two names of one thing: neither wins unseen; the same model twice is all right."""
    given = ("train", "smart_fixed", "--size", "tiny", "--show", "--set")
    code, out, err = cli(*given, "model=smart_iqa_base")
    assert (code, out) == (3, "")
    assert "--size tiny and --set model=smart_iqa_base are two models" in err.replace("\n", " ")
    assert cli(*given, "model=smart_iqa_tiny")[0] == 0


def test_settings_and_size_can_be_changed_from_the_command_line(cli):
    """--set takes TOML values, plain text and entries of the model's options; --size names the model."""
    changes = (
        "--set",
        "lr_trunk=1e-6",
        "--set",
        "loss=rank",
        "--set",
        "options.fusion=afa",
        "--set",
        "milestones=[]",
    )
    shown = tomllib.loads(cli("train", "smart_fixed", "--show", "--size", "tiny", *changes)[1])
    assert (shown["model"], shown["lr_trunk"], shown["loss"]) == ("smart_iqa_tiny", 1e-6, "rank")
    assert shown["options"] == {"pretrained": True, "fusion": "afa"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "learning_rate=1"], "learning_rate: unknown key"),
        (["--set", "lr_trunc=1"], "did you mean 'lr_trunk'"),
        (["--set", "epochs"], "write key=value"),
        (["--set", "epochs=1", "--set", "epochs=2"], "epochs is given twice"),
        (["--set", "epochs=many"], "epochs: Input should be a valid integer"),
        (["--set", "quirks=hyperiqa_author"], "come with that author's preset only"),
        (["--set", "select_on=test"], "'test' is for the authors' own presets"),
        (["--set", "resize=big"], "resize: none, keep_aspect, shorter:N or HEIGHTxWIDTH"),
        (["--set", "schedule=multistep"], "milestones: multistep needs some"),
        (["--set", "schedule=cosine", "--set", "warmup_epochs=3"], "leaves no epoch"),
        (["--set", "eta_min=1e-9"], "eta_min: goes with schedule 'cosine'"),
        (["--set", "label_damage=1"], "label_damage: goes with robust 'fgsm' or 'pgd'"),
        (["--set", "robust.kind=fgsm", "--set", "robust.steps=2"], "robust.fgsm.steps: unknown key"),
        (["--set", "robust.kind=pgd", "--set", "robust.stepz=2"], "did you mean 'steps'"),
        (["--set", "robust=pgf"], "robust: Input tag 'pgf'"),
        (["--set", "name=../../../x"], "name: a checkpoint's name is letters, digits"),
        (["--set", "name=/elsewhere/x"], "name: a checkpoint's name is letters, digits"),
        (["--set", 'name=""'], "name: a checkpoint's name is letters, digits"),
        (["--set", "options.deep=" + 5000 * "[" + 5000 * "]"], "nested"),
        (["--set", "keep=best", "--data", "few.csv"], "only 2 images, at least 3 are needed"),
        (["--data", "equal.csv"], "the val split can choose no epoch"),
        (["--set", "precision=fp16"], "fp16 needs CUDA"),
        (["--size", "tiny"], "for SMART-IQA"),
        (["--seeds", "0,0"], "different whole numbers"),
        (["--seeds", "a"], "different whole numbers"),
        (["--seeds", "9" * 5000], "different whole numbers"),
        (["--set", f"options.x={'[' * 5000}{']' * 5000}"], "options.x: values are nested too deeply"),
        (["--set", f"options.x={'[' * 300}{']' * 300}"], "options.x.list.0: nested too deeply"),
        (["--resume"], "no unfinished run"),
        (["--device", "cuda:7"], "cuda:7"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_3(cli, folder, arguments, words):
    """Every refused setting is named on stderr; nothing is trained and no traceback is shown."""
    code, _out, err = cli("train", "tiny.toml", *TINY, *arguments)
    assert code == 3
    assert words in err.replace("\n", " ")
    assert "Traceback" not in err
    assert not list(folder.glob("iqa-store/models/*/card.json"))


def test_a_presets_own_data_must_be_pointed_at(cli):
    """Without KonIQ-10k at hand the message says which option names it."""
    code, _, err = cli("train", "smart_fixed")
    assert code == 3
    assert "meant for 'koniq10k'" in err
    assert "--data" in err


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("demo", "demo"),
        ("koniq10k:/sets/koniq?label=MOS", "koniq10k"),
        ("folder/photos.csv?mos_range=1,5", "photos"),
        ("folder/PHOTOS.CSV?mos_range=1,5", "PHOTOS"),
        (f"{__file__}?label=score", "test_train_cli"),
    ],
)
def test_the_place_of_a_set_is_no_setting(data, name):
    """A run is named after its set, wherever that lies."""
    assert set_name(data) == name


def test_a_checkpoint_lands_where_it_is_asked_for(cli, folder):
    """--out names the folder, else the store; a second call finds it; other settings are refused."""
    code, out, err = cli("train", "tiny.toml", *TINY, "--out", "mine", "--log-steps")
    assert (code, out.strip()) == (0, "mine"), err
    assert read_card(folder / "mine").training["config"]["data"] == "set"
    assert (folder / "mine/steps.csv").exists()
    assert cli("train", "tiny.toml", *TINY, "--out", "mine")[0] == 0
    code, _, err = cli("train", "tiny.toml", *TINY, "--out", "mine", "--set", "seed=1")
    assert code == 3
    assert "overwrite it or train elsewhere" in err
    assert cli("train", "tiny.toml", *TINY, "--store", "s")[1].strip() == "s/models/tiny"


def test_seeds_give_a_table_of_mean_and_deviation(cli, folder):
    """One checkpoint a seed, then a table on the terminal and as CSV, Parquet and Markdown."""
    code, out, err = cli("train", "tiny.toml", *TINY, "--out", "s", "--seeds", "0,1,2")
    assert code == 0, err
    assert "mean ± std" in out
    rows = list(csv.DictReader((folder / "s/seeds.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["0", "1", "2", "mean", "std"]
    values = [float(row["val_plcc"]) for row in rows[:3]]
    assert float(rows[3]["val_plcc"]) == pytest.approx(sum(values) / 3)
    spread = (sum((v - sum(values) / 3) ** 2 for v in values) / 2) ** 0.5
    assert float(rows[4]["val_plcc"]) == pytest.approx(spread)
    assert pq.read_table(folder / "s/seeds.parquet").column_names == list(rows[0])
    assert "| mean ± std |" in (folder / "s/seeds.md").read_text()
    seeds = [read_card(folder / f"s/seed-{seed}").training["config"] for seed in (0, 1, 2)]
    assert [(c["seed"], c["options"]["seed"]) for c in seeds] == [(0, 0), (1, 1), (2, 2)]
    figures = json.loads((folder / "s/seed-0/figures.json").read_text())
    assert [part["split"] for part in figures["splits"]] == ["val", "test"]
    assert figures["splits"][1]["images"] == 6
