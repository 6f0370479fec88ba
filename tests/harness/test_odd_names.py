"""Folders, labels and ids with signs that mean something elsewhere: read again and shown as written."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

import iqa_harness as iqa
from helpers import tiny
from iqa_models import create_model, save_checkpoint

SUITE = """
name = "tiny"
summary = "one attack"
seed = 3
main_epsilon = "4/255"
suite_min = ["fgsm/lower"]
[data]
name = "tiny.csv"
mos_range = [1.0, 5.0]
[[attacks]]
name = "fgsm"
kind = "fgsm"
epsilons = ["4/255"]
objectives = ["raise", "lower"]
"""
FOLDERS = ["a=b", "a?b=c", "a&b", "a[1]", "a#b", "a b", "=a", "?", "a=b?c&d[/x] #1 :smile:", "50%20x"]


def make_set(folder, ids=None):
    """Write a CSV of random images and a suite on it."""
    folder.mkdir(parents=True, exist_ok=True)
    images = tiny.make_images(test=6, val=0)
    lines = ["path,mos,split"]
    for place, (record, pixels) in enumerate(zip(images.records, images.pixels, strict=True)):
        name = f"{ids[place % len(ids)]}{place}.png" if ids else f"{record.image_id}.png"
        Image.fromarray(pixels).save(folder / name)
        lines.append(f'"{name}",{record.mos},{record.split}')
    (folder / "tiny.csv").write_text("\n".join(lines))
    (folder / "tiny.toml").write_text(SUITE)


WHOLE = ("html", "markdown", "csv", "latex")


def follow(cli, model, *names, formats=WHOLE):
    """Run attack, verify, report with images and evaluate; return all that was printed.

    With other formats than WHOLE the attack is that of Python, which draws no page, and images have no place.
    """
    shown = ("--images", "1") if formats == WHOLE else ()
    said, models = "", (model, *names)
    attack = ("attack", "--suite", "tiny.toml", *(part for name in models for part in ("-m", name)))
    if formats != WHOLE:
        assert iqa.attack("tiny.toml", list(models), progress=False).complete
    for command in (
        *([attack] if formats == WHOLE else []),
        ("verify", "tiny"),
        ("report", "tiny", *shown, *(part for name in formats for part in ("--format", name))),
        ("runs", "list"),
        ("runs", "show", "tiny"),
        ("evaluate", "-m", model, "-d", "tiny.csv?mos_range=1,5", "--split", "test"),
    ):
        code, out, err = cli(*command)
        # A model that knows nothing need not be sound, which is what 1 says; what differs is said so.
        assert code in ((0, 1) if command[0] == "verify" else (0,)), (command, out, err)
        assert command[0] != "verify" or "made again: 0 differ" in " ".join(out.split()), out
        said += out + err
    return said


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_checkpoint_may_lie_in_any_folder(cli, tmp_path, monkeypatch, name):
    """Given with its path or with a label before it; it is found again by verify, report and evaluate.

    Data and store lie in a folder of that name too. The page is drawn for the worst of them alone.
    """
    make_set(tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    save_checkpoint(create_model("linear", seed=1), Path(name), training={})
    follow(cli, f"./{name}", f"again=./{name}", formats=WHOLE if name == max(FOLDERS, key=len) else ("csv",))


LABELS = ["x[b]:smile:", "[red]\x1b[31mred", "[link a]b", "a\tb"]


@pytest.mark.slow
def test_labels_are_shown_as_written(cli, tmp_path, monkeypatch):
    """No sign of a label is taken for markup, an emoji or an escape, in any command's output."""
    make_set(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    said = follow(cli, *(f"{label}=linear?seed={seed}" for seed, label in enumerate(LABELS)))
    assert "\x1b" not in said
    for label in LABELS:
        if "\t" not in label:
            assert label.replace("\x1b", "\N{REPLACEMENT CHARACTER}") in said


def test_a_label_with_a_slash_is_no_markup(cli, tmp_path, monkeypatch):
    """Only Python can give one: its run is listed, reported, ranked and judged like any other."""
    make_set(tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    iqa.attack("tiny.toml", {"x[/b]": "linear", "[/]": create_model("linear", seed=2)}, progress=False)
    report = ("report", "tiny", "--format", "csv", "--format", "latex")
    for command in (report, ("leaderboard", "iqa-store"), ("runs", "show", "tiny")):
        code, out, err = cli(*command)
        assert code == 0, err
        assert "x[/b]" in out
        assert "[/]" in out
    code, out, err = cli("verify", "tiny", "--sample", "0")
    assert code in (0, 1), err
    assert "x[/b]" in out


@pytest.mark.slow
def test_image_ids_and_data_are_shown_as_written(cli, tmp_path, monkeypatch):
    """In reports with the worst images, in lists of sets, in evaluations."""
    make_set(tmp_path / "work", ids=["x[b]", "[red]", ":smile:", "a#b", "a&b", "a=b"])
    monkeypatch.chdir(tmp_path / "work")
    said = follow(cli, "linear")
    assert "\x1b" not in said
    shutil.copy("tiny.csv", "[red]:smile:.csv")
    code, out, err = cli("data", "info", "[red]:smile:.csv?mos_range=1,5")
    assert code == 0, err
    assert "[red]:smile:" in out
    for command in (("data", "check", "[red]:smile:.csv?mos_range=1,5"),):
        assert cli(*command)[0] == 0
    code, out, err = cli(
        "evaluate", "-m", "linear", "-d", "[red]:smile:.csv?mos_range=1,5", "--split", "test", "--name", "n"
    )
    assert code == 0, err
    assert "[red]:smile:" in out
