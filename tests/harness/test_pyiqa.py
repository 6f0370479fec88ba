"""Metrics of pyiqa by name: made without weights, checked, attacked; skipped where pyiqa is not installed."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import iqa_harness as iqa
from helpers import tiny
from iqa_harness.entrants.naming import as_entrant
from iqa_models import MissingWeights, UnknownModel

pytest.importorskip("pyiqa", reason="pyiqa is not installed: pip install 'iqa-harness[pyiqa]'")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

METRICS = ("cnniqa", "wadiqam_nr", "metaiqa", "uranker", "dbcnn", "topiq_nr", "unique", "entropy", "piqe")
BLIND = {"entropy": False, "piqe": False}
"""Those without a gradient that leads anywhere: one counts grey levels, one decides block by block."""
PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-model.md"


def photographs(count=2, side=96):
    """Return smooth images with some detail."""
    made = []
    for seed in range(count):
        draw = np.random.default_rng(seed)
        small = Image.fromarray(draw.integers(0, 256, (12, 12, 3)).astype(np.uint8))
        smooth = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC), dtype=float)
        made.append((smooth + draw.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))
    return made


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_made_without_weights_and_checked(name):
    """It can be attacked, is made again from its record, and says whether it has a gradient."""
    found = iqa.check_model(f"pyiqa:{name}?pretrained=false", photographs())
    lines = {line.name: line for line in found.results}
    assert found.usable, found
    assert lines["recorded"].state == "ok", lines["recorded"]
    assert lines["batch_independent"].state == "ok"
    assert ("has gradient" in lines["card"].what) == BLIND.get(name, True)
    assert "weights are random" in lines["made"].what


def test_weights_are_not_fetched_unless_asked_for(monkeypatch, tmp_path):
    """Without them in a cache, the error says which three options there are; an unknown name its nearest."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("pyiqa.utils.download_util.DEFAULT_CACHE_DIR", str(tmp_path))
    with pytest.raises(MissingWeights, match=r"\?download=true"):
        as_entrant("pyiqa:cnniqa")
    with pytest.raises(UnknownModel, match="did you mean 'cnniqa'"):
        as_entrant("pyiqa:cnniqaa")
    with pytest.raises(UnknownModel, match="needs a reference"):
        as_entrant("pyiqa:lpips")


def test_weights_of_a_file_are_loaded_as_data(tmp_path):
    """A metric with the weights of another's file scores as that; a wrong file is a list of names."""
    import torch

    saved = as_entrant("pyiqa:cnniqa?pretrained=false&range=0,1").model
    torch.manual_seed(5)
    state = {k: torch.randn_like(v) / 10 for k, v in saved.scorer.state_dict().items()}
    torch.save({"params": state}, tmp_path / "w.pth")
    model = as_entrant(f"pyiqa:cnniqa?weights={tmp_path / 'w.pth'}").model
    saved.scorer.load_state_dict(state)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(model(images), saved(images))


def test_the_three_commands_of_the_page_run(cli, tmp_path):
    """Check, attack and report of docs/own-model.md, on a folder of images, with random weights."""
    (tmp_path / "photos").mkdir()
    rows = ["path,mos"]
    for i, image in enumerate(photographs(4)):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
        rows.append(f"photos/{i}.png,{i + 1}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "suite.toml").write_text(SUITE)
    (block,) = re.findall(r"three commands.*?```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    commands = [line.replace("iqa-harness ", "") for line in block.strip().splitlines()]
    assert len(commands) == 3
    for command in commands:
        words = re.sub(r"pyiqa:(\w+)", r"pyiqa:cnniqa?pretrained=false", command).replace("'", "")
        code, out, err = cli(*words.replace("--suite srm-linf", "--suite suite.toml").split())
        assert code == 0, (command, out, err)


PGD = 'objectives = ["raise", "lower"]\nsteps = 3\nrelative_step_size = 0.5\nrestarts = 1'
SUITE = tiny.on_smoke("few", ["pgd/raise", "pgd/lower"], {"pgd": PGD})


def test_three_metrics_are_attacked_end_to_end(tmp_path):
    """Each has a table and a verdict; an attack moves the scores of every one."""
    (tmp_path / "suite.toml").write_text(SUITE)
    names = ("cnniqa", "wadiqam_nr", "metaiqa")
    pairs = []
    for i, image in enumerate(photographs(4, 64)):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        pairs.append((str(tmp_path / f"{i}.png"), i / 3))
    run = iqa.attack(
        str(tmp_path / "suite.toml"), [f"pyiqa:{name}?pretrained=false" for name in names],
        data=pairs, mos_range=(0, 1), store=tmp_path / "store", progress=False,
    )  # fmt: skip
    assert run.manifest.status == "complete"
    assert {record.name for record in run.manifest.models} == set(names)
    rows = run.rows().query("objective == 'raise' and final")
    gained = (rows["adv_score"] - rows["clean_score"]).groupby(rows["model"], observed=True).mean()
    assert (gained[list(names)] > 0).all()
