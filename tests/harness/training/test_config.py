"""Training settings: presets load, mistakes are named with file and key, and no torch is needed."""

import ast
import inspect
import itertools
import re
import subprocess
import sys
import textwrap
from importlib import resources

import pytest
import torch
from pydantic import ValidationError

from iqa_harness.errors import TrainingError
from iqa_harness.training.config import (
    TrainConfig,
    changed,
    list_presets,
    load_preset,
    load_train_config,
    read_changes,
)
from iqa_harness.training.robust_settings import Fgsm, Pgd
from iqa_harness.training.sessions import DEMOS
from iqa_models import create_model, list_models


@pytest.mark.parametrize("name", list_presets())
def test_every_preset_is_valid_and_names_a_registered_model(name):
    """A preset that ships carries its own name and a model that exists."""
    config = load_preset(name)
    assert config.name == name
    assert config.model in list_models()


def test_without_a_resize_images_are_scored_as_the_crops_are_cut():
    """What the page adds for HyperIQA on other sets holds for what is learnt from and for what is scored."""
    page = (resources.files("iqa_harness.training") / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(r"for other sets\s+`(--set [^`]+)`", page)
    preset = load_preset("hyperiqa_author_code")
    config = changed(preset, read_changes(words.replace("--set", "").split()), "--set")
    with torch.device("meta"):
        model = create_model(config.model, **{**config.options, "pretrained": False})
    assert (config.resize, model.protocol.resize_text) == ("none", "none")
    assert words in (resources.files("iqa_harness.training") / "presets" / f"{preset.name}.toml").read_text()


def test_the_demo_models_have_presets():
    """A pattern finds the presets of both demos, and nothing else."""
    assert list_presets("demo_*") == sorted(name for names in DEMOS.values() for name in names)
    assert list_presets("nothing*") == []


def test_an_unknown_preset_is_answered_with_the_nearest():
    """A misspelt preset raises TrainingError with the nearest name and all names."""
    with pytest.raises(
        TrainingError, match=r"'demo_lit0', did you mean 'demo_lite0'\?; there are: demo_hyperiqa,"
    ):
        load_preset("demo_lit0")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'name = "x"\nmodel = "linear"\nepochs = 1\nbatchsize = 4',
            "batchsize: unknown key, did you mean 'batch_size'",
        ),
        ('name = "x"\nmodel = "linear"\nepochs = 0', "epochs: Input should be greater than or equal to 1"),
        ('name = "x"\nmodel = "linear"', "epochs: Field required"),
        (
            'name = "x"\nmodel = "linear"\nepochs = 1\nbatch_norm = "warm"',
            "batch_norm: Input should be 'frozen'",
        ),
        ("name = x", "line 1"),
        ('name = "../x"\nmodel = "linear"\nepochs = 1', "name: a checkpoint's name is letters, digits"),
        ('name = ""\nmodel = "linear"\nepochs = 1', "name: a checkpoint's name is letters, digits"),
        ("options = " + 5000 * "[" + 5000 * "]", "nested too deeply"),
    ],
)
def test_a_bad_file_is_told_with_file_and_key(tmp_path, text, words):
    """An unknown key, a bad value, a missing key and bad TOML raise TrainingError with file and place."""
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(TrainingError, match=words) as caught:
        load_train_config(path)
    assert str(path) in str(caught.value)


def test_every_mistake_is_told_at_once(tmp_path):
    """Two bad keys stand in one error."""
    path = tmp_path / "mine.toml"
    path.write_text('name = "x"\nmodel = "linear"\nepochs = -1\ncrop = 0')
    with pytest.raises(TrainingError, match=r"epochs: .*; crop: "):
        load_train_config(path)


def test_a_missing_file_is_told(tmp_path):
    """A file that is not there raises TrainingError with its path."""
    with pytest.raises(TrainingError, match=r"nowhere\.toml"):
        load_train_config(tmp_path / "nowhere.toml")


def test_settings_do_not_change():
    """Assigning to a setting is refused."""
    with pytest.raises(ValidationError):
        load_preset("demo_lite0").epochs = 9


def test_every_setting_is_documented():
    """Each field is followed by its own line of documentation."""
    body = ast.parse(textwrap.dedent(inspect.getsource(TrainConfig))).body[0].body
    for field, line in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(line, ast.Expr), f"{ast.unparse(field)} has no line"


@pytest.mark.slow
def test_listing_presets_needs_no_torch():
    """Importing the settings and listing presets leaves torch unloaded."""
    code = (
        "import sys; from iqa_harness.training.config import list_presets, load_preset;"
        "[load_preset(n) for n in list_presets()]; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


BASE = {"name": "x", "model": "linear", "epochs": 1}


@pytest.mark.parametrize(
    ("nested", "flat"),
    [
        ({}, {}),
        ({"kind": "none"}, {"robust": "none", "adversarial_steps": 2, "label_damage": 0.0}),
        ({"kind": "pgd"}, {"robust": "pgd"}),
        (
            {"kind": "pgd", "steps": 3, "epsilon": "2/255", "step_size": 0.5},
            {
                "robust": "pgd",
                "adversarial_steps": 3,
                "adversarial_epsilon": "2/255",
                "adversarial_step_size": 0.5,
            },
        ),
        (
            {"kind": "fgsm", "objective": "drift", "share": 0.5, "label_damage": 1.0},
            {
                "robust": "fgsm",
                "adversarial_objective": "drift",
                "adversarial_share": 0.5,
                "label_damage": 1.0,
            },
        ),
        (
            {"kind": "gradient_norm", "weight": 0.05, "step": 0.1},
            {"robust": "gradient_norm", "gradient_weight": 0.05, "gradient_step": 0.1},
        ),
    ],
)
def test_robust_training_is_known_by_the_names_that_checkpoints_record(nested, flat):
    """Settings in a table and by their recorded names are equal, and a run's identity holds the latter.

    So a checkpoint that was made before there was a table is still found to be of the same settings.
    """
    config = TrainConfig.model_validate({**BASE, **({"robust": nested} if nested else {})})
    assert TrainConfig.model_validate({**BASE, **flat}) == config
    assert TrainConfig.model_validate(config.record()) == config
    assert config.record().items() >= {**BASE, **flat}.items()
    plain = TrainConfig(**BASE)
    later = {name: value for name, value in flat.items() if value != plain.record()[name]}
    assert config.identity() == {**plain.identity(), **later}


def test_the_kind_of_robust_training_comes_before_its_settings():
    """Settings of a table are changed one by one, in any order; another kind begins at its defaults."""
    config = TrainConfig(**BASE)
    pgd = changed(config, {"robust.steps": 5, "robust.kind": "pgd"}, "here")
    assert pgd.robust == Pgd(steps=5)
    assert changed(pgd, {"robust.share": 0.5}, "here").robust == Pgd(steps=5, share=0.5)
    assert changed(pgd, {"robust": "pgd", "robust.steps": 3}, "here").robust == Pgd(steps=3)
    assert changed(pgd, {"robust.kind": "fgsm"}, "here").robust == Fgsm()
    assert changed(pgd, {"robust.kind": "pgd"}, "here").robust == Pgd(steps=5)
    with pytest.raises(TrainingError, match=r"robust\.none\.steps: unknown key"):
        changed(config, {"robust.steps": 5}, "here")
