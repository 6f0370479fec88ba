"""Where a command writes is looked at before it works: what would fail after hours fails at once."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from iqa_harness.errors import RunError
from iqa_harness.machine.places import require_file, require_folder

# Each command is wrong in another way too (no such model, run, device): the place must be looked at first.
FOLDERS = {
    "attack": (("-s", "smoke", "-m", "none"), "--store"),
    "demo": ((), "--store"),
    "evaluate": (("-m", "none", "-d", "none"), "--store"),
    "train": (("demo_resnet10t", "--plugin", "none.py"), "--store"),
    "train --out": (("demo_resnet10t", "--plugin", "none.py"), "--out"),
    "study": (("demo_losses", "--device", "none"), "--store"),
    "study --out": (("demo_losses", "--device", "none"), "--out"),
    "report": (("none",), "--store"),
    "report --out": (("none",), "--out"),
    "leaderboard": (("none",), "--out"),
    "runs merge": (("none",), "--store"),
    "baseline save": (("none", "--run", "none"), "--folder"),
}
FILES = {
    "profile": (("none",), "--out"),
    "diagnose": (("none",), "--out"),
    "gate": (("-b", "none", "-r", "none"), "--markdown"),
    "gate --junit": (("-b", "none", "-r", "none"), "--junit"),
    "gate --json-file": (("-b", "none", "-r", "none"), "--json-file"),
}


def words(name):
    return [word for word in name.split() if not word.startswith("-")]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_is_no_folder(cli, tmp_path, name):
    """Every command that fills a folder refuses a file, and a path below one, in one line before any work."""
    arguments, option = FOLDERS[name]
    (tmp_path / "there").write_bytes(b"mine")
    for place, message in (
        ("there", f"{option} there is a file; give a folder"),
        ("there/x/y", f"{option} there/x/y: there is a file; give a folder"),
        ("/proc/none/x", f"{option} /proc/none/x cannot be written"),
    ):
        code, out, err = cli(*words(name), *arguments, option, place)
        assert (code, out) == (3, "")
        assert err.startswith(f"iqa-harness: {message}")
        assert err.count("\n") == 1
    assert (tmp_path / "there").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("name", [name for name, (_, option) in FOLDERS.items() if option == "--store"])
def test_no_word_is_no_store(cli, tmp_path, name):
    """What a variable that is not set leaves does not fill the working folder."""
    code, out, err = cli(*words(name), *FOLDERS[name][0], "--store", "")
    assert (code, out, err.count("\n")) == (3, "", 1)
    assert "--store is empty; give a folder" in err or "store '': name a folder or a URL" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FILES)
def test_a_folder_is_no_file(cli, tmp_path, name):
    """Every command that writes one file refuses a folder, and a path below a file."""
    arguments, option = FILES[name]
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_bytes(b"mine")
    for place, message in (
        ("there", f"{option} there is a folder; give a file"),
        ("file/x.out", f"{option} file/x.out: file is a file, not a folder"),
        ("/proc/none/x", f"{option} /proc/none/x cannot be written"),
    ):
        code, out, err = cli(*words(name), *arguments, option, place)
        assert (code, out) == (3, "")
        assert err.startswith(f"iqa-harness: {message}")


def test_places_that_are_arguments(cli, tmp_path):
    """`runs export` and `models import` look at their places too."""
    (tmp_path / "there.csv").mkdir()
    assert "export to there.csv is a folder; give a file" in cli("runs", "export", "none", "there.csv")[2]
    (tmp_path / "file").touch()
    assert "--out file/x: file is a file" in cli("models", "import", "none.pth", "--out", "file/x")[2]


def test_looking_leaves_nothing(tmp_path):
    """What could be written is not: no folder is made, no file is left, an old one stays as it is."""
    (tmp_path / "old").write_text("old")
    require_folder(tmp_path / "a/b", "--out")
    require_file(tmp_path / "a/b.csv", "--out")
    require_file(tmp_path / "old", "--out")
    require_folder("s3://bucket/folder", "--store")
    require_folder(f"file://{tmp_path}/store", "--store")
    require_folder(None, "--out")
    require_file(None, "--out")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match="is no folder"):
        require_folder(tmp_path / "pipe", "--out")


def test_what_is_written_in_place_needs_no_folder(cli, tmp_path):
    """`gate` writes to a device or an open pipe; what is replaced whole cannot be either."""
    read, write = os.pipe()
    try:
        for place in ("/dev/null", f"/dev/fd/{write}"):
            for option in ("--json-file", "--junit", "--markdown"):
                code, _, err = cli("gate", "-b", "none", "-r", "none", option, place)
                assert code != 0  # there is no such baseline, and that is what is said
                assert "none" in err
                assert place not in err
        require_file(Path(f"/dev/fd/{write}"), "--json-file", in_place=True)
        with pytest.raises(RunError, match="cannot be written"):
            require_file(Path(f"/dev/fd/{write}"), "--out")
    finally:
        os.close(read)
        os.close(write)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_source_is_not_an_empty_store(cli, tmp_path):
    """`runs merge` tells apart a missing path, a file that is no archive, and a store without runs."""
    (tmp_path / "rows.csv").touch()
    (tmp_path / "empty").mkdir()
    for source, message in (
        ("none.zip", "none.zip: no such file or folder"),
        ("none", "none: no such file or folder"),
        ("rows.csv", "rows.csv: not a folder, and not a .zip of `runs export`"),
        ("empty", "no run in empty: not a store, or an empty one"),
    ):
        code, _, err = cli("runs", "merge", source)
        assert (code, err) == (3, f"iqa-harness: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "resumes"),
    [
        (("score", "linear", "x.png"), False),
        (("profile", "linear"), False),
        (("attack", "-s", "smoke", "-m", "linear"), True),
        (("evaluate", "-m", "linear", "-d", "smoke"), True),
    ],
)
def test_what_an_interrupt_leaves_is_said(cli, tmp_path, monkeypatch, arguments, resumes):
    """Only a command that keeps what it finished promises to go on from there."""
    Image.effect_noise((16, 16), 60).convert("RGB").save(tmp_path / "x.png")

    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "zeros", stop)  # the first that a command asks of torch: is the device there?
    code, _, err = cli(*arguments)
    assert code == 130
    assert err.startswith("iqa-harness: interrupted")
    assert ("the same command goes on" in err) is resumes
