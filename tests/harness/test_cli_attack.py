"""`iqa-harness attack` as a user meets it: parts of a suite, cost, executors, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.naming import argument_text, load_entrant, parse_model
from iqa_harness.errors import RunError
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.executors import Inline, make_executor
from iqa_harness.running.executors.processes import Processes
from iqa_harness.running.executors.ray_cluster import RayCluster
from iqa_harness.running.executors.slurm import Slurm
from iqa_models import create_model, save_checkpoint
from iqa_results import ResultStore

SMOKE = ("attack", "-s", "smoke", "-m", "linear", "--threads", "1")


def test_parts_of_a_suite_from_the_command_line(cli):
    """`--only` computes one attack and the clean scores it is compared with; the rest is told by its time."""
    code, _, err = cli(*SMOKE, "--limit", "8", "--only", "fgsm")
    told = " ".join(err.split())
    assert code == 0
    assert "4 to compute, 2 left out by --only" in told
    assert "only the first 8 images of the 16 that the suite names" in told
    assert "linear fgsm: 1 cells, about 16 gradients" in told
    manifest = ResultStore("iqa-store").read_manifest("smoke")
    assert (manifest.status, manifest.data.images) == ("partial", 8)
    _, _, err = cli(*SMOKE, "--limit", "8", "--dry-run")
    assert "time on one worker: about" in " ".join(err.split())
    code, _, err = cli(*SMOKE, "--only", "nothing")
    assert code == 3
    assert "no attack of the suite; there are clean, fgsm, pgd" in err
    code, out, _ = cli("runs", "list", "--json")
    assert [(run["done"], run["cells"]) for run in json.loads(out)] == [(4, len(manifest.cells))]


def test_names_are_printed_as_they_are(cli):
    """Nothing in the estimate is read as markup or as an emoji's name."""
    _, _, err = cli("attack", "-s", "smoke", "-m", "tr:A:=linear", "--limit", "8", "--dry-run")
    assert "  tr:A: fgsm: 1 cells" in err


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        (Runtime(), Inline),
        (Runtime(workers=1), Inline),
        (Runtime(workers=2), Processes),
        (Runtime(device="cpu, cpu"), Processes),
        (Runtime(executor="processes"), Processes),
        (Runtime(executor="ray", gpus=0.5, cpus=2, address="auto"), RayCluster),
        (Runtime(executor="slurm", workers=4, gpus=1, settings=("slurm_partition=gpu",)), Slurm),
    ],
)
def test_an_executor_follows_from_the_options(tmp_path, where, kind):
    """Named, or implied by several workers or devices."""
    assert isinstance(make_executor(where, ResultStore(tmp_path)), kind)


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (Runtime(executor="dask"), "no executor 'dask'; there are inline, processes, ray, slurm"),
        (Runtime(gpus=1), "--gpus means nothing to the executor 'inline'"),
        (Runtime(executor="ray", threads=2), r"--threads means nothing to the executor 'ray' \(use --cpus\)"),
        (Runtime(executor="ray", workers=2), "--workers means nothing"),
        (Runtime(executor="ray", workers=1), "--workers means nothing"),
        (Runtime(executor="inline", workers=2), "--workers means nothing"),
        (Runtime(executor="inline", device="cpu,cuda:1"), "several devices"),
        (Runtime(executor="slurm", gpus=0.5), "Slurm gives whole GPUs"),
        (Runtime(executor="slurm", settings=("partition",)), "is not KEY=VALUE"),
    ],
)
def test_options_that_would_mean_nothing_are_refused(tmp_path, where, words):
    """Nothing a user asks for is dropped in silence."""
    with pytest.raises(RunError, match=words):
        make_executor(where, ResultStore(tmp_path))


@pytest.mark.parametrize(
    "text",
    [
        "linear",
        "linear?seed=1",
        "a=linear?seed=1&scale=2.5",
        "linear?seed=1&dtype=float64",
        "./here",
        "b=./here",
        "linear?checkpoint=./here",
    ],
)
def test_a_manifest_says_how_to_make_a_model_again(tmp_path, monkeypatch, text):
    """What it keeps of `--model` makes the same model under the same name from any other folder."""
    save_checkpoint(create_model("linear", seed=5), tmp_path / "here", training={})
    monkeypatch.chdir(tmp_path)
    entrant = load_entrant(parse_model(text))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = load_entrant(parse_model(entrant.argument))
    assert (again.label, again.sha256, again.argument) == (entrant.label, entrant.sha256, entrant.argument)
    assert argument_text(parse_model(entrant.argument)) == entrant.argument
    assert os.fspath(Path.cwd()) not in entrant.argument
    assert isinstance(again, Entrant)
