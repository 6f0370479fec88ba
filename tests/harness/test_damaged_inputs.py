"""Inputs no reader expects end in one error and exit code 3: never in a traceback, never in a wait."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from iqa_errors.toml_text import read_toml
from iqa_models import create_model, save_checkpoint
from iqa_suites import BadSuite, LoadedSuite, load_suite

DEEP = "[" * 3000 + "]" * 3000
DIGITS = "9" * 5000
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def refused(cli, *arguments):
    """Run a command that must end with 3 and one message; return it."""
    code, _, err = cli(*arguments)
    assert code == 3, (arguments[:3], code, err)
    assert "Traceback" not in err
    assert err.count("iqa-harness: ") == 1
    return err


ODD = {
    "deep": f"x = {DEEP}", "digits": f"x = {DIGITS}", "long key": "a." * 100_000 + "b = 1", "NUL": "x = \0",
    "deep tables": f"x = {'{a = ' * 2000}1{'}' * 2000}", "no UTF-8": "x = '\udcff'",
}  # fmt: skip


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
@pytest.mark.parametrize(
    "command",
    [
        ("attack", "-m", "linear", "--suite"),
        ("train",),
        ("study",),
        ("suites", "validate"),
        ("suites", "show"),
    ],
    ids=" ".join,
)
def test_odd_toml(cli, tmp_path, command, text):
    """In a suite, a preset and a study."""
    (tmp_path / "x.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "x.toml" in refused(cli, *command, "x.toml")


@pytest.mark.parametrize("value", [DEEP, DIGITS, "\0"])
def test_odd_values_of_options(cli, value):
    """After --set, behind a model's name, and as a model's name or folder."""
    refused(cli, "train", "demo_resnet10t", "--data", "demo", "--set", f"options={value}")
    refused(cli, "attack", "-s", "smoke", "-m", f"linear?seed={value}")
    refused(cli, "attack", "-s", "smoke", "-m", f"./{value}")
    refused(cli, "attack", "-s", "smoke", "-m", "linear?checkpoint=%00")


CARDS = {
    "deep": lambda card: json.dumps(card).replace('"AAAA"', DEEP),
    "digits": lambda card: json.dumps(card).replace('"AAAA"', DIGITS),
    "infinity": lambda card: json.dumps(card).replace('"AAAA"', "1e999"),
    "half a character": lambda card: json.dumps(card).replace('"AAAA"', '"\\ud800"'),
    "a list": lambda card: json.dumps([card]),
    "NUL": lambda card: json.dumps(card) + "\0",
}


@pytest.mark.parametrize("harm", CARDS.values(), ids=CARDS)
def test_odd_cards(cli, harm):
    """A checkpoint's card is refused with its path, by whoever opens it."""
    save_checkpoint(create_model("linear"), Path("mine"), training={"pixels": "AAAA"})
    card = json.loads(Path("mine/card.json").read_text())
    Path("mine/card.json").write_text(harm(card))
    assert "card.json" in refused(cli, "models", "show", "./mine")
    assert "card.json" in refused(cli, "attack", "-s", "smoke", "-m", "./mine")


LOGS = {
    "deep": b'{"epoch": ' + DEEP.encode() + b"}", "digits": b'{"epoch": ' + DIGITS.encode() + b"}",
    "400 digits": b'{"epoch": 0, "loss": ' + b"9" * 400 + b"}", "no UTF-8": b'{"epoch": 0, "a": "\xff"}',
    "infinity": b'{"epoch": 1e999}', "list": b"[]",
}  # fmt: skip


@pytest.mark.parametrize("line", LOGS.values(), ids=LOGS)
def test_odd_logs_of_training(cli, line):
    """A report names the log and the line."""
    save_checkpoint(create_model("linear"), Path("mine"), training={})
    Path("mine/log.jsonl").write_bytes(line + b"\n")
    assert "log.jsonl" in refused(cli, "report", "--input", "mine", "--out", "out")


@pytest.mark.parametrize("figures", [DEEP, DIGITS, "[]", '{"splits": 1}', '{"splits": [{"split": []}]}'])
def test_odd_figures_of_training_are_none(cli, figures):
    """What a training's figures file does not say is not shown; the report is made of the rest."""
    save_checkpoint(create_model("linear"), Path("mine"), training={})
    Path("mine/figures.json").write_text(figures)
    Path("mine/log.jsonl").write_text('{"epoch": 0, "loss": 1.0}\n')
    code, _, err = cli("report", "--input", "mine", "--out", "out", "--format", "csv")
    assert code == 0, err


@pytest.mark.parametrize("score", [DEEP, "9" * 400, DIGITS, '"\\u0000"', "NaN", "1e999", "{}"])
def test_odd_scores_and_names_of_json_lists(cli, score):
    """A score of four hundred digits is no finite number, half a character is no name of a file."""
    Path("x.json").write_text(f'[{{"image": "a.png", "score": {score}}}]')
    refused(cli, "data", "info", "json:.?test=x.json&mos_range=1,5")
    Path("x.json").write_text('[{"image": "\\ud800", "score": 1}]')
    refused(cli, "data", "info", "json:.?test=x.json&mos_range=1,5")


MANIFESTS = ["[]", DEEP, DIGITS, '{"models": 1, "data": []}', '{"models": [1], "data": []}',
             '{"models": [], "data": [{}]}', '{"models": [], "data": [], "seed": 1e999}',
             '{"models": [], "data": [], "earlier": [{"rows": 1}]}']  # fmt: skip


@pytest.mark.parametrize("text", MANIFESTS)
def test_odd_manifests(cli, text):
    """Of an evaluation, a run and a baseline: named with the file."""
    for place, command in (
        ("iqa-store/evaluations/evaluation", ("evaluate", "-m", "linear", "-d", "smoke")),
        ("iqa-store/runs/r", ("runs", "show", "r")),
        ("iqa-store/runs/r", ("runs", "gc")),
        ("iqa-store/runs/r", ("report", "r")),
    ):
        Path(place).mkdir(parents=True, exist_ok=True)
        (Path(place) / "manifest.json").write_text(text)
        assert Path(place).name in refused(cli, *command)
    Path("base").mkdir()
    Path("base/baseline.json").write_text(text)
    assert "baseline.json" in refused(cli, "baseline", "show", "base")
    code, _, err = cli("runs", "list")
    assert (code, "damaged: " in err) == (4, True)


def test_a_folder_where_a_file_should_be_and_the_reverse(cli):
    """Every argument that is a path."""
    Path("folder").mkdir()
    for name in ("x.toml", "x.csv", "x.json", "x.zip", "x.parquet", "x.py"):
        Path(name).mkdir()
    Path("file").write_text("")
    for command in (
        ("attack", "-s", "x.toml", "-m", "linear"), ("train", "x.toml"), ("study", "x.toml"),
        ("data", "info", "x.csv?mos_range=1,5"), ("data", "info", "json:.?test=x.json&mos_range=1,5"),
        ("data", "info", "json:file?test=x.json&mos_range=1,5"), ("runs", "merge", "x.zip"),
        ("runs", "merge", "file"),
        ("attack", "-s", "smoke", "-m", "linear", "--plugin", "x.py"), ("models", "show", "./file"),
        ("attack", "-s", "smoke", "-m", "linear", "--store", "file"), ("leaderboard", "file"),
        ("baseline", "show", "file"), ("evaluate", "-m", "linear", "-d", "smoke", "--store", "file"),
        ("gate", "--baseline", "file", "--run", "r"),
    ):  # fmt: skip
        refused(cli, *command)


def test_a_suite_moved_to_other_images_may_not_parse_for_its_writer():
    """What one TOML library reads and the one that keeps comments does not is said, too."""
    loaded = load_suite("smoke")
    with pytest.raises(BadSuite, match="not valid TOML"):
        LoadedSuite(loaded.suite, f"{loaded.text}\nx = {DEEP}").on_data("demo", None)


def test_toml_within_bounds_is_as_python_reads_it():
    """Long sentences, lists of numbers and dotted keys of some parts are nobody's hundred parts."""
    text = "a.b.c = [" + "0.5," * 500 + "]\nd = '" + "Word. " * 200 + "'\n"
    assert read_toml(text) == {"a": {"b": {"c": [0.5] * 500}}, "d": "Word. " * 200}
    with pytest.raises(ValueError, match="100 parts"):
        read_toml("a." * 100 + "b = 1")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("bench_fuzz.py", ("--inputs", "60", "--commands", "0")),
        ("bench_kills.py", ("--kills", "2", "--commands", "evaluate")),
    ],
)
def test_the_benchmarks_of_faults_in_short(tmp_path, script, options):
    """Some damaged inputs and a killed command: no fault, in one line."""
    root = BENCHMARKS.parents[1]
    packages = ("harness", "models", "attacks", "suites", "results", "reports")
    path = os.pathsep.join(str(root / name) for name in packages)
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options, "--log", str(tmp_path / "log")],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout, done.stderr, (tmp_path / "log").read_text()[-3000:])
    assert "0 faults" in done.stdout
