"""docs/reproduce-papers.md: its commands work on the official layouts, its hours follow from counts."""

import itertools
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

import iqa_harness as iqa
from helpers import tiny
from helpers.public_sets import TREES
from iqa_harness.api.study import list_studies
from iqa_harness.cli import main
from iqa_models import create_model, save_checkpoint

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "reproduce-papers.md").read_text(encoding="utf-8")
SETS = re.findall(r"data check (\w+):data/", PAGE)
CHEAP = {
    "train": "--show",
    "study": "--show",
    "attack": "--dry-run",
    "diagnose": "--limit 2",
    "profile": "--repeats 0",
    "report": "--format markdown",
}
"""What is added to a command so that it trains, attacks and measures nothing large."""
PRESET = """
name = "tiny"
model = "timm_regressor"
options = { hidden = 8, backbone = "test_efficientnet" }
epochs = 1
batch_size = 4
crop = 32
"""
DIAGNOSED = {
    "srm": ("srm", {"backbone": "test_efficientnet", "shorter_side": 64, "crop": 64}),
    "smart": (
        "hyperiqa_efficientnet_lite0",
        {"protocol": "centre", "fusion": "attention", "resize": "512x384"},
    ),
}
"""What stands where the page diagnoses a checkpoint: name and options."""


def lines():
    """Return the words of the page's commands, in order, continued lines joined."""
    fences = "".join(re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    return [shlex.split(line)[1:] for line in fences.replace("\\\n", " ").splitlines()]


def stand_in(words):
    """Put the one trained model, or one to be diagnosed, wherever a command looks for a checkpoint."""
    for word in words:
        found = re.search(r"iqa-store/studies/\S+|^smart-author$", word)
        if found is None:
            continue
        folder = Path(found[0] if found[0].endswith("seed-0") else f"{found[0]}/point/seed-0")
        if words[0] != "diagnose":
            shutil.copytree("trained", folder, dirs_exist_ok=True)
            continue
        shutil.rmtree(folder, ignore_errors=True)
        name, options = DIAGNOSED["srm" if "srm" in word else "smart"]
        save_checkpoint(create_model(name, **options), folder, training={})


def small(words):
    """Return a command on the CPU and, where models are counted, on a small trunk."""
    found = [re.sub(r"^cuda$", "cpu", word) for word in words]
    if words[0] == "profile":
        found = [
            re.sub(r"^srm_pvt_v2_b2(\?|$)", "srm?backbone=test_efficientnet&", word).rstrip("&")
            for word in found
        ]
        found[found.index("384")] = "64"
    return [*found, *CHEAP.get(words[0], "").split()]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the five sets in miniature, and the runs that the page's studies would have left."""
    monkeypatch.setenv("IQA_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in SETS:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        TREES[name](folder)
    return tmp_path


def typed(words, monkeypatch):
    """Type a command; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["iqa-harness", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


def attacked(run, store):
    """Make a run of that name, of two small models under a small suite; another store is taken over."""
    if Path("iqa-store/runs").is_dir() and not Path(store).is_dir():
        shutil.copytree("iqa-store", store)
    models = {"pvt": "linear", "pvt_srm": "linear?seed=1"}
    iqa.attack("one.toml", models, run=run, store=store, data="tid2013:data/tid2013", progress=False)


def test_the_sets_of_the_page_open_with_the_splits_that_are_used(place):
    """Every `--data` and `-d` of a command, as it stands."""
    named = {
        word for words in lines() for flag, word in itertools.pairwise(words) if flag in ("--data", "-d")
    }
    assert len(named) == 7
    for name in named:
        images = iqa.open_data(name)
        splits = {record.split for record in images.records}
        assert splits == ({"train", "val", "test"} if "split=all" not in name else {"test"}), name


@pytest.mark.slow
def test_every_command_of_the_page_works(place, monkeypatch, capsys):
    """In order: downloads are found not to be whole, that alone; the rest ends well, and reports hold it."""
    (place / "tiny.toml").write_text(PRESET)
    (place / "one.toml").write_text(tiny.ONE_PGD)
    iqa.train("tiny.toml", data="tid2013:data/tid2013", out="trained", progress=False)
    for words in lines():
        if words[0] != "study":
            stand_in(words)
        if words[:2] == ["report", "study-srm_backbones"]:
            for run in words[1 : words.index("--store" if "--store" in words else "--out")]:
                attacked(run, "koniq-store" if "--store" in words else "iqa-store")
        code, said = typed(small(words), monkeypatch), capsys.readouterr()
        if words[:2] == ["data", "check"]:
            assert (code, "1 problem(s): 1 incomplete" in said.out) == (1, True), said
        else:
            assert code == 0, (words, said)
    reports = {words[words.index("--out") + 1] for words in lines() if words[0] == "report"}
    pages = {name: (place / name / "report.md").read_text() for name in reports}
    assert "SRM table 1." in pages["srm-tables"]
    assert "SRM table 3." in pages["srm-tables"]
    assert "SMART table III" in pages["smart-cross"]
    assert "SMART table VI" in pages["smart-log"]
    assert "0.9378" in pages["smart-sizes"]  # published, beside ours


def test_the_page_names_every_table_and_figure():
    """Of both papers, and the studies that ship for them."""
    first, _, second = PAGE.partition("## SMART-IQA")
    tables = " ".join(re.findall(r"^\| (?:table|figure).*?\|", PAGE, re.MULTILINE))
    for number in ("I", "II", "III", "IV", "V", "VI", "VII"):
        assert re.search(rf"table {number}\b", tables), number
    for number in range(1, 12):
        assert re.search(rf"(?:table|tables|,|;|and) {number}\b", tables), number
    assert all(f"figure {n}" in second or f", {n}" in second or f"Figure {n}" in second for n in range(1, 11))
    assert "Figures 1 and 2" in first
    shipped = {name for name in list_studies() if not name.startswith("demo")}
    assert shipped == {words[1] for words in lines() if words[0] == "study"}


IMAGES = {"TID2013": (1800, 600), "KonIQ-10k": (7058, 2015)}
GRADIENTS = {"srm-linf": (1609, 418), "srm-l2": (1201, 410)}
"""Of an image: gradients, and evaluations without one (`attack --dry-run`)."""


def test_the_hours_follow_from_counts_and_the_rates_of_the_page_on_gpus():
    """Each row again: operations of all steps by the operations a second that docs/gpu.md measured."""
    page = (DOCS / "gpu.md").read_text(encoding="utf-8")
    counted, _, h200 = page.partition("## Gradients and attacks on the H100")[2].partition(
        "## What only the H200"
    )
    rates = []
    for name in ("srm_swin_tiny", "smart_iqa_base", "hyperiqa"):
        gigaflop = re.search(rf"^\| `{name}`.*? \| ([\d.]+) \|", counted, re.MULTILINE)[1]
        milliseconds = re.search(rf"^\| `{name}`.*? \| ([\d.]+) \|", h200, re.MULTILINE)[1]
        rates.append(float(gigaflop) / float(milliseconds))
        assert f"{rates[-1]:.0f}" in PAGE.partition("## How long")[2].partition("\n|")[0]
        assert f"for `{name}`" in PAGE
    rate = dict(zip(("srm", "sma", "hyp"), rates, strict=True))
    ours = [
        [cell.strip(" `") for cell in row.split("|")[1:-1]]
        for row in re.findall(r"^\| `.*", PAGE, re.MULTILINE)
    ]
    rows = [row for row in ours if len(row) == 7]
    assert len(rows) == 12
    for name, gmac, data, hours, _, *attacks in rows:
        a_second, multiplications = rate[name[:3]] * 1e12, float(gmac) * 1e9
        train, test = next(sizes for known, sizes in IMAGES.items() if data.startswith(known))
        steps = train * {"srm": 120, "sma": 10 * 20, "hyp": 15 * 25}[name[:3]]
        operations = [6 * steps * multiplications]
        operations += [test * (4 * g + 2 * e) * multiplications for g, e in GRADIENTS.values()]
        for shown, needed in zip((hours, *attacks), operations, strict=True):
            if shown:
                rounding = 0.6 * 10.0 ** -len(shown.partition(".")[2])
                assert float(shown) == pytest.approx(needed / a_second / 3600, abs=rounding), (name, data)


@pytest.mark.slow
def test_the_counts_are_those_of_profile():
    """Of the smallest model; the others are counted by the same lines."""
    found = iqa.profile("srm_mobilenetv3_large", size=384, repeats=0)
    whole = next(part for part in found.parts if part.part == "whole")
    assert f"| {whole.macs / 1e9:.1f} |" in PAGE
