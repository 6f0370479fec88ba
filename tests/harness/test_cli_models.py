"""The command line on models: imported, the user's own, trained side by side."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_harness.entrants.entrant import Entrant
from iqa_harness.errors import TrainingError
from iqa_harness.training.sessions import train_in_processes
from iqa_models import create_model, load_checkpoint, save_checkpoint, weights_sha256
from iqa_results import ResultStore


def _author_name(name):
    """Return the HyperIQA author's name of one of our tensors."""
    for ours, theirs in (
        (r"trunk\.net\.(.+)", r"res.\1"),
        (r"head\.lda\.reduce\.(\d)\.weight", r"res.lda{}_pool.0.weight"),
        (r"head\.lda\.project\.(\d)\.(\w+)", r"res.lda{}_fc.\2"),
        (r"head\.hyper\.squeeze\.(.+)", r"conv1.\1"),
        (r"head\.hyper\.weights\.(4)\.(\w+)", r"fc{}w_fc.\2"),
        (r"head\.hyper\.weights\.(\d)\.(\w+)", r"fc{}w_conv.\2"),
        (r"head\.hyper\.biases\.(\d)\.(\w+)", r"fc{}b_fc.\2"),
    ):
        match = re.fullmatch(ours, name)
        if match:
            number = int(match[1]) + 1 if "{}" in theirs else 0
            return match.expand(theirs).format(number)
    raise AssertionError(name)


@pytest.mark.slow
def test_an_authors_checkpoint_is_imported_and_scores(cli, tmp_path):
    """A file in the HyperIQA author's layout becomes a checkpoint with equal scores; others are refused."""
    model = create_model("hyperiqa", protocol="centre", seed=3)
    torch.save({_author_name(k): v for k, v in model.state_dict().items()}, tmp_path / "koniq_pretrained.pkl")
    code, out, _ = cli(
        "models", "import", "koniq_pretrained.pkl", "--out", "mine", "--set", "protocol=centre"
    )
    assert code == 0
    assert "HyperIQA author" in out
    Image.effect_noise((300, 400), 60).convert("RGB").save(tmp_path / "x.png")
    code, out, _ = cli("score", "./mine", "x.png")
    pixels = torch.from_numpy(np.asarray(Image.open(tmp_path / "x.png")).copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        assert float(out.split()[0]) == pytest.approx(float(model(pixels)), abs=1e-5)
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert cli("models", "import", "other.pth", "--out", "theirs")[0] == 3
    assert cli("models", "import", "koniq_pretrained.pkl", "--out", "mine")[0] == 3
    assert not (tmp_path / "theirs").exists()


PLUGIN = """
from iqa_models import ModelSpec, QualityModel, register_model


class Contrast(QualityModel):
    def predict(self, images):
        return images.flatten(1).std(dim=1)


@register_model("contrast_of_the_test")
def contrast():
    \"\"\"Standard deviation of all pixels.\"\"\"
    spec = ModelSpec(name="contrast_of_the_test", summary="contrast", score_range=(0, 0.5),
                     input_protocol="whole image", mean=(0, 0, 0), std=(1, 1, 1), source="the test")
    return Contrast(spec)
"""


@pytest.mark.slow
def test_a_users_own_model_is_attacked(cli, tmp_path):
    """A Python file that registers a model makes it one under test; a broken file is one clear line."""
    (tmp_path / "mine.py").write_text(PLUGIN)
    code, out, _ = cli("attack", "-s", "smoke", "-m", "own=contrast_of_the_test", "--plugin", "mine.py")
    assert code == 0
    assert " own " in out
    (tmp_path / "mine.py").write_text(
        PLUGIN.replace("std(dim=1)", "mean(dim=1)").replace("of_the_test", "edited")
    )
    command = ("attack", "-s", "smoke", "-m", "own=contrast_edited", "--plugin", "mine.py", "--dry-run")
    assert "0 in the store" in " ".join(cli(*command)[2].split())
    (tmp_path / "broken.py").write_text("\nraise ValueError('no luck')\n")
    code, _, err = cli("score", "linear", "x.png", "--plugin", "broken.py")
    assert code == 3
    assert "plugin broken.py, line 2: ValueError: no luck" in err
    assert cli("score", "linear", "x.png", "--plugin", "none.py")[0] == 3


@pytest.mark.slow
def test_the_worst_images_of_a_users_own_model(cli, tmp_path):
    """Its pictures come into the page if the user gives the plugin again; no manifest decides what is run."""
    file = tmp_path / "mine.py"
    text = PLUGIN.replace("of_the_test", "pictured")
    file.write_text(text)
    line = ("attack", "-s", "smoke", "-m", "own=contrast_pictured", "--plugin", "mine.py", "--limit", "4")
    assert cli(*line, "--threads", "1")[0] == 0
    file.write_text(f"open('ran', 'w')\n{text}")
    code, _, err = cli("report", "smoke", "--images", "1", "--format", "html", "--out", "r")
    assert (code, (tmp_path / "ran").exists()) == (3, False)
    assert "is of a plugin; run it again with --plugin mine.py" in err
    file.write_text(text)
    report = ("report", "smoke", "--images", "1", "--format", "html", "--out", "r", "--plugin", "mine.py")
    assert cli(*report)[0] == 0
    assert (tmp_path / "r/index.html").read_text().count("data:image/jpeg") == 3
    file.write_text(text.replace("std(dim=1)", "mean(dim=1)").replace("@register", "# "))
    code, _, err = cli(*report)
    assert code == 3
    assert "model 'own' is another one than run" in err


def test_missing_backbone_weights_are_never_replaced_by_random_ones(cli, tmp_path):
    """Weights that are not there are an error that says how to give them."""
    code, _, err = cli("models", "show", "hyperiqa?protocol=centre", "--backbone-weights", "none.pth")
    assert code == 3
    assert "none.pth" in err


TINY = """
name = "{name}"
model = "timm_regressor"
options = {{ backbone = "test_efficientnet", pretrained = "none", seed = {seed} }}
data = "smoke"
epochs = 1
images_per_epoch = 16
crop = 64
batch_norm = "calibrated"
"""


@pytest.mark.slow
def test_models_trained_side_by_side_are_those_trained_alone(cli, tmp_path, cache, capsys):
    """Two trainings in processes of their own end as one in this process, and say nothing if not wanted."""
    for seed, name in enumerate("ab"):
        (tmp_path / f"{name}.toml").write_text(TINY.format(name=name, seed=seed))
    train_in_processes(["a.toml", "b.toml"], tmp_path / "together", cache, cores=2, progress=False)
    assert capsys.readouterr().err == ""
    code, out, _ = cli("train", "a.toml", "--store", "alone")
    assert code == 0
    assert out.strip() == str(Path("alone/models/a"))
    together = load_checkpoint(tmp_path / "together" / "models" / "a")
    assert weights_sha256(together) == weights_sha256(load_checkpoint(tmp_path / "alone" / "models" / "a"))
    assert (tmp_path / "together" / "models" / "b" / "card.json").is_file()


@pytest.mark.slow
def test_a_failed_training_process_is_told(tmp_path, cache, capfd):
    """What one of them says goes to stderr if wanted, and the whole is an error that says it too."""
    for progress in (True, False):
        with pytest.raises(
            TrainingError, match=r"training of no\.toml failed: no\.toml: no\.toml: .*No such"
        ):
            train_in_processes(["no.toml"], tmp_path, cache, cores=2, progress=progress)
        assert ("no.toml" in capfd.readouterr().err) == progress


NOTE = "head has random weights: created by name, not from a checkpoint"
SMALL = ("attack", "-s", "smoke", "--limit", "3", "--only", "clean", "--threads", "1")


@pytest.mark.slow
def test_a_model_nobody_trained_is_called_so(cli, tmp_path):
    """By name alone: said once on stderr, on the card, in manifest and report; its hash is as it was."""
    Image.effect_noise((64, 64), 60).convert("RGB").save(tmp_path / "x.png")
    code, out, err = cli("score", "demo_resnet10t", "x.png")
    scale = "demo_resnet10t: scores from about 0 to 1, higher is better"
    assert (code, err) == (0, f"demo_resnet10t: {NOTE}\n{scale}\n")
    assert out.endswith("\tx.png\n")
    code, _, err = cli(*SMALL, "-m", "fresh=demo_resnet10t", "-m", "linear")
    assert code == 0
    assert err.count(NOTE) == 1
    manifest = ResultStore("iqa-store").read_manifest("smoke")
    assert f"fresh: {NOTE}" in manifest.notes
    assert not any("linear:" in note for note in manifest.notes)
    assert manifest.models[0].card["notes"] == [NOTE]
    assert manifest.models[0].sha256 == Entrant("any", create_model("demo_resnet10t")).sha256
    assert f"fresh: {NOTE}" in (tmp_path / "iqa-store/runs/smoke/report/report.md").read_text()
    assert NOTE in cli("models", "show", "demo_resnet10t")[1]


def test_a_trained_model_of_that_name_is_pointed_at(cli, tmp_path):
    """A name without the folder of its checkpoint in the store is noticed; the checkpoint has no note."""
    save_checkpoint(create_model("demo_resnet10t"), tmp_path / "iqa-store/models/demo_resnet10t", training={})
    _, _, err = cli(*SMALL, "-m", "demo_resnet10t", "--dry-run")
    assert f"{NOTE}; a trained one is there: write iqa-store/models/demo_resnet10t\n" in err
    _, _, err = cli(*SMALL, "-m", "iqa-store/models/demo_resnet10t", "--dry-run")
    assert "random" not in err
    assert "random" not in cli("models", "show", "iqa-store/models/demo_resnet10t")[1].partition("notes")[2]
