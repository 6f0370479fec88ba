"""The command line as a user meets it: what it prints, writes and returns."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

import iqa_harness as iqa
from iqa_harness.entrants.naming import parse_model
from iqa_models import create_model, save_checkpoint
from iqa_results import ResultStore

ONE_THREAD = ("--threads", "1")  # a sum over pixels is rounded otherwise with two
MODELS = ["linear", "other=linear?seed=5"]
SMOKE = ("attack", "--suite", "smoke", *ONE_THREAD, *(word for name in MODELS for word in ("--model", name)))


@pytest.fixture(scope="module")
def smoked(tmp_path_factory, cache):
    """A store in which SMOKE has run, to be copied."""
    store = tmp_path_factory.mktemp("smoked") / "iqa-store"
    iqa.attack("smoke", MODELS, store=store, cache=cache, threads=1, progress=False)
    return store


@pytest.fixture
def after_smoke(smoked, tmp_path):
    """The working folder holds a copy of that store."""
    shutil.copytree(smoked, tmp_path / "iqa-store")


@pytest.mark.slow
@pytest.mark.usefixtures("after_smoke")
def test_a_smoke_run_end_to_end(cli, tmp_path):
    """Attack again, report: all is in the store, files are where the command says, with numbers in them."""
    code, out, err = cli(*SMOKE)
    assert code == 0
    assert "20 cells, 20 in the store, 0 to compute" in " ".join(err.split())
    assert "Leaderboard" in out
    assert "pseudo-MOS" in out
    folder = tmp_path / "iqa-store" / "runs" / "smoke"
    page = (folder / "report" / "index.html").read_text()
    assert "other" in page
    assert (folder / "report" / "report.md").is_file()
    table = pq.read_table(folder / "table.parquet").to_pylist()
    assert {r["row"] for r in table} == {"clean", "attack", "suite_min", "composed"}
    assert {r["model"] for r in table} == {"linear", "other"}
    report_code, report_out, _ = cli("report", "smoke", "--full", "--out", "elsewhere", "--format", "html")
    assert report_code == 0
    assert (tmp_path / "elsewhere" / "index.html").is_file()
    assert len(report_out) > len(out)


@pytest.mark.slow
@pytest.mark.usefixtures("after_smoke")
def test_adding_a_model_computes_only_its_cells(cli, tmp_path):
    """A third model in the same run leaves the others' cells alone."""
    cells = tmp_path / "iqa-store" / "cells"
    before = {path: path.stat().st_mtime_ns for path in cells.rglob("*.parquet")}
    code, _, err = cli(*SMOKE, "--model", "third=linear?seed=2", "--dry-run")
    assert code == 0
    assert "30 cells, 20 in the store, 10 to compute" in " ".join(err.split())
    assert iqa.attack("smoke", [*MODELS, "third=linear?seed=2"], threads=1, progress=False).complete
    after = {path: path.stat().st_mtime_ns for path in cells.rglob("*.parquet")}
    assert len(after) == 30
    assert before.items() <= after.items()


def test_a_dry_run_computes_nothing(cli, tmp_path):
    """`--dry-run` says what is to do and writes nothing."""
    code, out, err = cli(*SMOKE, "--dry-run")
    assert (code, out) == (0, "")
    assert "20 to compute" in " ".join(err.split())
    assert not (tmp_path / "iqa-store").exists()


@pytest.mark.slow
def test_a_checkpoint_folder_is_a_model(cli, tmp_path):
    """A saved model is attacked under its folder's name, and the manifest says where it came from."""
    save_checkpoint(create_model("linear", seed=4), tmp_path / "mine", training={})
    few = ("--limit", "4", "--only", "clean")
    code, _, _ = cli("attack", "-s", "smoke", "-m", "./mine", "--run", "own", *few)
    assert code == 0
    manifest = ResultStore(tmp_path / "iqa-store").read_manifest("own")
    assert [m.name for m in manifest.models] == ["mine"]
    assert manifest.models[0].checkpoint == "mine"
    assert manifest.models[0].card["options"]["seed"] == 4


def test_a_checkpoint_of_another_model_is_refused(cli, tmp_path):
    """A checkpoint asked for by a model's name must be that model's."""
    save_checkpoint(create_model("linear"), tmp_path / "mine", training={})
    code, _, err = cli("attack", "-s", "smoke", "-m", "demo_lite0?checkpoint=mine")
    assert code == 3
    assert "'linear'" in err
    assert "'demo_lite0'" in err
    assert len(_lines(err)) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear", ("linear", "linear", {}, None)),
        ("a=linear?seed=1", ("a", "linear", {"seed": 1}, None)),
        (
            "linear?seed=1&dtype=float64",
            ("linear?seed=1&dtype=float64", "linear", {"seed": 1, "dtype": "float64"}, None),
        ),
        ("a=./x/y", ("a", "", {}, Path("x/y"))),
        ("x/y", ("y", "", {}, Path("x/y"))),
        ("linear?checkpoint=x/y", ("y", "linear", {}, Path("x/y"))),
        ("b=m?protocol=%22a%3Db%22&flag=true", ("b", "m", {"protocol": "a=b", "flag": True}, None)),
    ],
)
def test_models_are_named_as_documented(text, expected):
    """Label, name, options and checkpoint are read from one argument."""
    assert parse_model(text) == expected


def test_a_users_own_images(cli, tmp_path):
    """A CSV of images and labels can be attacked with any suite; its labels are MOS, not pseudo-MOS."""
    lines = ["path,mos,split"]
    for i in range(14):
        Image.effect_noise((32, 32), 10 * (i + 1)).convert("RGB").save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{i * 5},{'val' if i % 7 == 0 else 'test'}")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    code, out, _ = cli(
        "attack", "-s", "smoke", "-m", "linear", "--data", "own.csv", "--mos-range", "0", "100"
    )
    assert code == 0
    assert "pseudo" not in out
    assert ResultStore(tmp_path / "iqa-store").read_manifest("smoke").data.images == 12


EVERY_KIND = """
name = "every-kind"
summary = "every kind of attack once"
seed = 0
main_epsilon = "4/255"
suite_min = ["apgd/mse", "transfer/mse"]
cell_images = 8

[data]
name = "own.csv"
mos_range = [0, 100]
"""
KINDS = {
    "fgsm": 'objectives = ["mse"]',
    "pgd": 'objectives = ["drift", "raise", "lower"]\nsteps = 2\nstep_size = "2/255"',
    "mifgsm": 'objectives = ["mse"]\nsteps = 2\nrelative_step_size = 0.5\nrandom_start = false',
    "apgd": 'objectives = ["mse", "soft_spearman"]\nsteps = 5\nrestarts = 2',
    "noise": 'objectives = ["raise", "lower"]\nsamples = 2',
    "square": 'objectives = ["raise", "lower"]\nqueries = 10',
    "spsa": 'objectives = ["raise", "lower"]\nqueries = 12\nreport_steps = [5]',
    "torchattacks": 'objectives = ["raise", "lower"]\nattack = "MIFGSM"\noptions = { steps = 2 }',
}


@pytest.mark.slow
def test_every_kind_of_attack_from_a_file(cli, tmp_path):
    """A suite of every kind runs on two models and again from the store; transfers are in the table."""
    lines = ["path,mos,split"]
    for i in range(9):
        Image.effect_noise((16, 16), 10 * (i + 1)).convert("RGB").save(tmp_path / f"{i}.png")
        lines.append(f"{i}.png,{i * 5},test")
    (tmp_path / "own.csv").write_text("\n".join(lines))
    tables = [
        f'[[attacks]]\nname = "{kind}"\nkind = "{kind}"\nepsilons = ["4/255"]\n{settings}\n'
        for kind, settings in KINDS.items()
    ]
    tables.append('[[attacks]]\nname = "transfer"\nkind = "transfer"\nof = "apgd/mse"\n')
    (tmp_path / "every.toml").write_text("\n".join([EVERY_KIND, *tables]))
    models = ("-m", "linear", "-m", "other=linear?seed=5")
    code, _, err = cli("attack", "-s", "every.toml", *models)
    assert code == 0, err
    store = ResultStore(tmp_path / "iqa-store")
    manifest = store.read_manifest("every-kind")
    rows = store.read_cells(c.key for c in manifest.cells).to_pandas()
    assert set(rows["kind"]) == {*KINDS, "clean", "transfer"}
    assert (rows["linf"] <= 4 / 255 + 1e-6).all()
    table = pq.read_table(tmp_path / "iqa-store" / "runs" / "every-kind" / "table.parquet").to_pandas()
    least = table[(table["row"] == "suite_min") & (table["metric"] == "srocc")]
    assert least["value"].notna().all()
    assert {"transfer:linear", "transfer:other"} <= set(table["attack"])
    assert not any("no transfer attack" in note for note in manifest.notes)
    code, _, err = cli("attack", "-s", "every.toml", *models, "--dry-run")
    assert code == 0
    assert "0 to compute" in " ".join(err.split())
    code, _, err = cli("attack", "-s", "every.toml", "-m", "linear")
    assert code != 0
    assert "at least two models" in " ".join(err.split())


def _lines(text):
    return [line for line in text.strip().splitlines() if line]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["attack", "-s", "smok", "-m", "linear"], 3, "did you mean 'smoke'"),
        (["attack", "-s", "smoke", "-m", "linea"], 3, "did you mean 'linear'"),
        (["attack", "-s", "smoke", "-m", "linear?sead=1"], 3, "did you mean 'seed'"),
        (["attack", "-s", "smoke", "-m", "linear?seed"], 3, "not key=value"),
        (["attack", "-s", "smoke", "-m", "no/such/folder"], 3, "no/such/folder"),
        (["attack", "-s", "smoke", "-m", "linear", "--data", "smoke2"], 3, "did you mean 'smoke'"),
        (
            ["attack", "-s", "smoke", "-m", "linear", "--device", "cuda:7"],
            3,
            "device 'cuda:7' cannot be used",
        ),
        (["attack", "-s", "smoke", "-m", "linear", "--run", "../up"], 3, "run's name"),
        (["attack", "-s", "smoke", "-m", "linear", "--mos-range", "0", "1"], 3, "goes with --data"),
        (["attack", "-s", "smoke", "-m", "linear?seed=abc"], 3, "cannot be built with seed='abc'"),
        (["attack", "-s", "smoke", "-m", "linear?side=0"], 3, "side is at least 1"),
        (["models", "show", "hyperiqa?resize=384"], 3, "cannot be built with resize=384"),
        (["report", "nothing"], 3, "no run 'nothing'"),
        (["models", "show", "lineer"], 3, "did you mean 'linear'"),
        (["suites", "show", "demmo"], 3, "did you mean 'demo'"),
        (["data", "info", "smoek"], 3, "did you mean 'smoke'"),
        (["train", "demo_lite"], 3, "demo_lite0"),
        (["score", "linear", "missing.png"], 3, "missing.png"),
        (["attack", "-s", "smoke"], 2, "Missing option '--model'"),
        (["atack"], 2, "No such command 'atack'"),
        (["attack", "-s", "smoke", "-m", "linear", "--chunk", "0"], 2, "--chunk"),
    ],
)
def test_a_mistake_is_one_clear_line(cli, tmp_path, arguments, code, message):
    """A user's mistake has a documented exit code, names what is meant, and writes nothing."""
    found, out, err = cli(*arguments)
    assert found == code
    assert message in err
    assert "Traceback" not in err + out
    if code == 3:
        assert len(_lines(err)) == 1
    assert not (tmp_path / "iqa-store").exists()


def test_two_models_of_one_name_are_refused(cli, tmp_path):
    """Tables need names that differ."""
    code, _, err = cli("attack", "-s", "smoke", "-m", "linear", "-m", "linear")
    assert code == 3
    assert "two models are called 'linear'" in err
    assert not (tmp_path / "iqa-store").exists()


def test_bad_files_are_clear_errors(cli, tmp_path):
    """A broken suite, a broken image and a checkpoint of something else are told by name."""
    (tmp_path / "bad.toml").write_text("name = ")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "card.json").write_text("{}")
    for arguments, name in (
        (("attack", "-s", "bad.toml", "-m", "linear"), "bad.toml"),
        (("score", "linear", "bad.png"), "bad.png"),
        (("attack", "-s", "smoke", "-m", "./folder"), "card.json"),
        (("attack", "-s", "smoke", "-m", "folder"), "write ./folder"),
        (("attack", "-s", "smoke", "-m", "linear", "--store", "bad.png"), "bad.png"),
    ):
        code, _, err = cli(*arguments)
        assert code == 3
        assert name in err
        assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.usefixtures("after_smoke")
def test_a_failed_cell_is_exit_code_4(cli, tmp_path, monkeypatch):
    """Failed cells are told, the rest is stored, the code says partial, and the page shows the hole."""
    from iqa_harness.running.executors import bench

    whole = bench.run_cell

    def sometimes(cell, *rest):
        if cell.attack_name == "fgsm" and cell.first == 0:
            raise RuntimeError("out of luck")
        return whole(cell, *rest)

    monkeypatch.setattr(bench, "run_cell", sometimes)
    store = ResultStore(tmp_path / "iqa-store")
    for lost in (c for c in store.read_manifest("smoke").cells if c.attack == "fgsm"):
        store.cell_path(lost.key).unlink()
    code, _, err = cli(*SMOKE)
    assert code == 4
    assert "failed: linear, fgsm, images from 0: RuntimeError: out of luck" in " ".join(err.split())
    assert store.read_manifest("smoke").status == "partial"
    monkeypatch.setattr(bench, "run_cell", whole)
    assert iqa.attack("smoke", MODELS, threads=1, progress=False).complete


@pytest.mark.slow
def test_interrupt_is_exit_code_130(cli, tmp_path, monkeypatch):
    """Ctrl-C ends in one line; the same command goes on."""
    from iqa_harness.running.executors import bench

    whole, calls = bench.run_cell, []

    def until_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    monkeypatch.setattr(bench, "run_cell", until_third)
    code, _, err = cli("attack", "-s", "smoke", "-m", "linear")
    assert code == 130
    assert "interrupted" in err
    assert ResultStore(tmp_path / "iqa-store").read_manifest("smoke").status == "interrupted"
    monkeypatch.setattr(bench, "run_cell", whole)
    code, _, err = cli("attack", "-s", "smoke", "-m", "linear")
    assert code == 0
    assert "2 in the store, 8 to compute" in " ".join(err.split())


@pytest.mark.slow
def test_a_killed_process_resumes_with_identical_rows(tmp_path, cache, smoked):
    """Killed in the middle, a run leaves whole parts; resumed, its rows are those of a whole run."""
    command = [
        sys.executable,
        "-m",
        "iqa_harness",
        "attack",
        "-s",
        "smoke",
        "-m",
        "linear",
        "--store",
        "killed",
        *ONE_THREAD,
    ]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "IQA_HARNESS_CACHE": str(cache)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    cells = tmp_path / "killed" / "cells"
    deadline = time.monotonic() + 60
    while len(list(cells.glob("*/[0-9a-f]*.parquet"))) < 3 and process.poll() is None:
        assert time.monotonic() < deadline, "no cell was written in a minute"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    run = iqa.attack("smoke", "linear", store=tmp_path / "killed", cache=cache, threads=1, progress=False)
    assert run.complete
    keys = [c.key for c in ResultStore(tmp_path / "killed").read_manifest("smoke").cells]
    killed, whole = (
        ResultStore(root).read_cells(keys).drop_columns(["seconds"]) for root in (tmp_path / "killed", smoked)
    )
    assert killed.column_names == whole.column_names
    assert [name for name in killed.column_names if not killed[name].equals(whole[name])] == []


def test_lists_and_cards(cli):
    """Models, suites and data can be listed and described."""
    code, out, _ = cli("models", "list", "lin*")
    assert code == 0
    assert "LinearQuality" in out
    code, out, err = cli("models", "show", "linear")
    assert json.loads(out)["score_range"] == [0.0, 1.0]
    assert "parameters 193" in err
    assert "smoke" in cli("suites", "list")[1]
    assert 'name = "smoke"' in cli("suites", "show", "smoke")[1]
    assert "smoke: valid" in cli("suites", "validate", "smoke")[1]
    Path("mine.toml").write_text('name = "mine"\nsede = 1')
    code, _, told = cli("suites", "validate", "mine.toml")
    assert code == 3
    assert "mine.toml" in told
    assert "did you mean 'seed'" in told
    assert "pseudo-MOS" in cli("data", "list")[1]
    info = cli("data", "info", "smoke")[1]
    assert "fingerprint" in info
    assert "CC0" in info or "public domain" in info.lower()
    code, out, _ = cli("data", "check", "smoke")
    assert code == 0
    assert "0 problem(s)" in out
    assert tomllib.loads(cli("train", "demo_lite0", "--show")[1])["seed"] >= 0


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("certify --run mine --norm 2", 2, "a run has its own norm"),
        ("certify --run mine --eps 1/255", 2, "a run has its own norm"),
        ("certify --run mine --split val", 2, "a run has its own norm"),
        ("certify --run mine --limit 5", 2, "a run has its own norm"),
        ("study demo_losses --no-attack --suite smoke", 3, "attacks that --no-attack leaves out"),
        ("study demo_losses --no-attack --workers 2", 3, "attacks that --no-attack leaves out"),
        ("report mine --images 1 --format markdown --format svg", 3, "--images are shown in the page"),
        ("gate -b mine -r a -r b --calibrate --junit gate.xml", 2, "--calibrate gates nothing"),
    ],
)
def test_an_option_without_effect_is_refused(cli, line, code, words):
    """Two options of which one would be dropped in silence are a mistake, known before any work."""
    assert cli(*line.split())[0] == code
    assert words in cli(*line.split())[2]


def test_a_check_of_nothing_says_so(cli):
    """A misspelt store passes no check."""
    code, _, err = cli("runs", "check", "--store", "nowhere")
    assert code == 3
    assert "no runs in nowhere" in err


def test_score_prints_what_the_model_says(cli, tmp_path):
    """Each file is a line: score, tab, path."""
    Image.new("RGB", (24, 24), (255, 255, 255)).save(tmp_path / "white.png")
    code, out, _ = cli("score", "linear", "white.png")
    assert code == 0
    value, name = out.strip().split("\t")
    assert name == "white.png"
    weight = create_model("linear").weight(24, 24).detach()
    assert float(value) == pytest.approx(0.5 + float(weight.mean()), abs=1e-5)
