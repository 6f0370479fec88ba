"""The demo from images to verdicts, on a few images; a second call computes nothing."""

import importlib.util

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from iqa_harness.api import demo as module
from iqa_harness.api.demo import PACKAGES, demo
from iqa_harness.entrants.entrant import described
from iqa_harness.entrants.naming import as_entrant
from iqa_harness.errors import RunError
from iqa_harness.machine.devices import usable_cores
from iqa_harness.training.sessions import DEMOS

SMALL = {"images_per_epoch": 4, "epochs": 1, "batch_size": 2}


@pytest.fixture
def photographs(tmp_path, monkeypatch, cache):
    """`own.csv` with twelve noisy images of 192 x 192, four a split."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(cache))
    generator = np.random.default_rng(0)
    lines = ["path,mos,split"]
    for split in ("train", "val", "test"):
        for number in range(4):
            noise = generator.normal(128, 10 + 20 * number, (192, 192, 3))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(tmp_path / f"{split}{number}.png")
            lines.append(f"{split}{number}.png,{5 - number},{split}")
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def written(folder):
    """Return when every file below a folder was last written."""
    return {
        path: path.stat().st_mtime_ns
        for part in ("models", "cells")
        for path in (folder / part).rglob("*")
        if path.is_file()
    }


@pytest.mark.slow
def test_the_demo_from_images_to_verdicts(photographs, monkeypatch):
    """Three models of three families are trained, attacked and judged; the second call finds everything."""
    small = {"data": "own.csv?mos_range=1,5", "settings": SMALL, "limit": 3, "progress": False}
    first = demo(**small)
    assert tuple(first.run.models) == DEMOS["demo"]
    assert set(first.run.verdicts) == set(DEMOS["demo"])
    assert first.run.complete
    assert [stage.name for stage in first.stages] == ["data", "training", "attacks and tables"]
    for stage in first.stages[1:]:
        assert set(stage.parts) == set(DEMOS["demo"])
        assert min(stage.parts.values()) > 0
    for record in first.run.manifest.models:
        assert "wheel:" in str(record.card)
    table = first.run.table
    attacked = table[table["row"] == "attack"]
    assert set(attacked["objective"]) == {"mse", "drift", "pairwise_inversion"}
    assert set((attacked["epsilon"] * 255).round(3)) == {0.5, 1.0, 2.0}

    folder = photographs / "iqa-store"
    before, tables = written(folder), (folder / "runs/demo/table.parquet").stat().st_mtime_ns
    for label, path in ((name, folder / "models" / name) for name in DEMOS["demo"]):
        assert described(label, path).sha256 == as_entrant((label, path)).sha256
    with monkeypatch.context() as without:  # nothing is left to do: no model is made
        without.setattr(module, "as_entrants", None)
        second = demo(**small)
    assert written(folder) == before
    assert (folder / "runs/demo/table.parquet").stat().st_mtime_ns == tables
    assert [stage.parts for stage in second.stages] == [{}, {}, {}]
    pd.testing.assert_frame_equal(second.run.table, table)


def test_unless_told_how_many_threads_a_process_a_core_attacks():
    """On a CPU; their rows are those of one process, see `executors/`."""
    told, untold = (module._runtime("cpu", threads, ()) for threads in (1, None))
    assert (told.executor_name, told.threads) == ("inline", 1)
    cores = min(usable_cores(), module.WORKERS)
    assert (untold.workers or 1) == cores
    assert untold.executor_name == ("processes" if cores > 1 else "inline")


@pytest.mark.parametrize("package", PACKAGES)
def test_without_its_extra_the_demo_says_what_to_install(tmp_path, cli, monkeypatch, package):
    """One line with the package and the command, and nothing is written."""
    real = importlib.util.find_spec
    gone = PACKAGES[package]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == gone else real(name))
    code, out, err = cli("demo")
    assert (code, out) == (3, "")
    assert f"the demo needs {package}, not installed here: pip install 'iqa-harness[demo]'" in err.replace(
        "\n", " "
    )
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match="pip install"):
        module.require_extra()
