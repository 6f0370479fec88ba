"""BRISQUE as docs/own-model.md has it: a black box beside a model with a gradient; skipped without it."""

import re
import shlex
from pathlib import Path

import pytest

from helpers import tiny
from iqa_results import ResultStore

pytest.importorskip("brisque", reason="brisque is not installed: pip install brisque")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "own-model.md"
SUITE = tiny.on_smoke(
    "square",
    ["square/mse"],
    {
        "square": 'objectives = ["mse"]\nqueries = 20',
        "pgd": 'objectives = ["mse"]\nsteps = 2\nstep_size = "2/255"',
    },
    tiny.TRANSFER,
)


def test_brisque_is_attacked_as_the_page_says(tmp_path, cli, monkeypatch):
    """Queries and the other model's examples only; both models stand in one table."""
    section = PAGE.read_text(encoding="utf-8").split("BRISQUE", 1)[1].split("\n## ", 1)[0]
    code, command = re.findall(r"```(?:python)?\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("scorer.py").write_text(code)
    Path("square.toml").write_text(SUITE)
    done, out, err = cli(*shlex.split(command)[1:])
    assert done == 0, (out, err)
    assert "brisque has no gradient" in " ".join(out.split())
    store = ResultStore(tmp_path / "iqa-store")
    manifest = store.read_manifest("square")
    rows = store.read_cells(cell.key for cell in manifest.cells).to_pandas()
    assert set(rows.loc[rows["model"] == "brisque", "attack"]) == {"clean", "square", "transfer:lite"}
    assert {"pgd", "square"} <= set(rows.loc[rows["model"] == "lite", "attack"])
    own = rows.query("model == 'brisque' and attack == 'square' and objective == 'mse' and final")
    assert (own["loss"] > 0).all() and len(own) == 4
