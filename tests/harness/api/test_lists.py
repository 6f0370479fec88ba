"""Models, suites and data in Python: what the commands print."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from iqa_harness.api.data import (
    check_data,
    describe_data,
    export_data,
    list_data,
    pixel_cache,
    prepare_data,
)
from iqa_harness.api.models import import_model, list_models, show_model
from iqa_harness.api.suites import list_suites, show_suite, validate_suite
from iqa_harness.data import ArrayImageSet, open_data
from iqa_harness.errors import DataError, RunError
from iqa_suites import BadSuite, load_suite
from iqa_suites import list_suites as names


def words(text):
    return " ".join(text.split())


def test_models(cli):
    """The list and the card are those of the command."""
    out = words(cli("models", "list", "demo_*")[1])
    found = list_models("demo_*")
    assert list(found) == ["demo_lite0", "demo_resnet10t"]
    assert all(f"{name} {words(summary)}" in out for name, summary in found.items())
    _, out, err = cli("models", "show", "linear?seed=2")
    info = show_model("linear?seed=2")
    assert json.loads(out) == info.card.model_dump(mode="json")
    assert err == f"parameters {info.parameters:,}\nsha256 {info.sha256}\n"
    assert info.parameters == 193


def test_an_import_into_a_folder_that_is_there_is_refused(tmp_path):
    """Nothing is overwritten."""
    with pytest.raises(RunError, match="exists already"):
        import_model(tmp_path / "x.pth", out=tmp_path)


def test_suites(cli, tmp_path):
    """All that ship are listed with the summary their loader reads; checks are the command's."""
    found = list_suites()
    assert list(found) == names()
    assert all(summary == load_suite(name).suite.summary for name, summary in found.items())
    out = words(cli("suites", "list")[1])
    assert all(f"{name} {words(summary)}" in out for name, summary in found.items())
    assert cli("suites", "show", "smoke")[1:] == (
        show_suite("smoke").text,
        f"sha256 {show_suite('smoke').suite.sha256}\n",
    )
    info = validate_suite("smoke")
    assert f"{info.name!r}, {len(info.attacks)} attacks" in cli("suites", "validate", "smoke")[1]
    assert info.sha256 == load_suite("smoke").suite.sha256
    (tmp_path / "bad.toml").write_text('name = "bad"\nsede = 1')
    with pytest.raises(BadSuite, match="did you mean 'seed'"):
        validate_suite(tmp_path / "bad.toml")


LIGHT = [
    ("--help",),
    ("models", "list"),
    ("suites", "list"),
    ("data", "list"),
    ("runs", "list"),
    ("study", "--list"),
    ("train", "demo_lite0", "--show"),
]


def test_what_needs_no_model_loads_no_torch():
    """These answer at once: one after another in one process, which has none of it after each of them."""
    code = (
        f"import io, sys; sys.path[:0] = {sys.path!r}\n"
        "from contextlib import redirect_stdout\n"
        "from iqa_harness.cli import main\n"
        f"for line in {LIGHT!r}:\n"
        "    sys.argv, out = ['iqa-harness', *line], io.StringIO()\n"
        "    try:\n"
        "        with redirect_stdout(out):\n            main()\n"
        "    except SystemExit as stop:\n        assert not stop.code, line\n"
        "    heavy = {'torch', 'timm', 'skimage', 'pandas', 'scipy'} & set(sys.modules)\n"
        "    assert not heavy, (line, heavy)\n"
        "    print(len(out.getvalue()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(LIGHT)
    assert "0" not in done.stdout.split()


def test_data(cli, own):
    """What there is and what is in it: the command prints what the functions return."""
    out = words(cli("data", "list")[1])
    assert all(words(" ".join(known)) in out for known in list_data())
    info = describe_data("own.csv", progress=False)
    assert info.layout is None
    assert f"fingerprint  {info.images.fingerprint}\n" in cli("data", "info", "own.csv")[1]
    public = describe_data("koniq10k")
    assert public.images is None
    assert public.layout.url in cli("data", "info", "koniq10k")[1]
    images = prepare_data("own.csv", progress=False)
    assert cli("data", "prepare", "own.csv")[1] == f"own: 29 images, fingerprint {images.fingerprint}\n"


def test_a_set_written_down(cli, own, tmp_path):
    """Pixels, labels, splits and contents come back as they were; of each split the first so many."""
    images = open_data("own.csv?mos_range=1,5", progress=False)
    code, out, _ = cli("data", "export", "own.csv?mos_range=1,5", "--out", "written", "--limit", "3")
    assert code == 0
    written = open_data(out.strip(), progress=False)
    assert written.card.mos_range == (1, 5)
    for split in ("train", "val", "test"):
        ours, theirs = images.split(split), written.split(split)
        assert len(theirs) == min(3, len(ours))
        for one, other in zip(ours.records, theirs.records, strict=False):
            assert (one.sha256, one.mos, one.reference) == (other.sha256, other.mos, other.reference)
    assert cli("data", "export", "own.csv", "--out", "written")[0] == 3
    computed = ArrayImageSet.of([images.read(0)], [0.5], mos_range=(0, 1))
    computed.card = replace(computed.card, label="pseudo-MOS", name="a b")
    place = export_data(computed, tmp_path / "pseudo", progress=False)
    assert place == f"{tmp_path.as_posix()}/pseudo/a-b.csv?mos_range=0,1&label=pseudo_mos"
    assert open_data(place, progress=False).card.label == "pseudo-MOS"


def test_a_scale_is_written_down_with_all_digits(tmp_path):
    """Its ends may be labels themselves: rounded, they would shut those out."""
    labels = (1.2345678, 2.0, 1.2345678 + 5 / 7)
    pixels = [np.full((8, 8, 3), i, np.uint8) for i in range(3)]
    images = ArrayImageSet.of(pixels, labels)
    again = open_data(export_data(images, tmp_path / "out", progress=False), progress=False)
    assert again.card.mos_range == images.card.mos_range
    assert again.labels.tolist() == list(labels)


def test_a_set_with_a_fault(cli, own):
    """The finding is returned; an unknown kind is refused; exit code 1 is a finding that counts."""
    assert check_data("own.csv", progress=False).counted == []
    assert cli("data", "check", "own.csv")[0] == 0
    Image.open(own / "test0.png").convert("P").save(own / "test0.png")
    found = check_data("own.csv", progress=False)
    (finding,) = found.counted
    assert (found.images, finding.kind) == (29, "palette")
    code, out, _ = cli("data", "check", "own.csv")
    assert code == 1
    assert str(finding) in out
    assert check_data("own.csv", allow=["palette"], progress=False).counted == []
    assert cli("data", "check", "own.csv", "--allow", "palette")[0] == 0
    with pytest.raises(DataError, match="no such kind"):
        check_data("own.csv", allow=["nothing"], progress=False)


def test_decoded_images_take_room_and_give_it_back(own, tmp_path):
    """The sizes are those of the files in the folder."""
    prepare_data("own.csv", cache=tmp_path / "c", pixels=True, progress=False)
    held = pixel_cache(cache=tmp_path / "c")
    assert held.used >= 29 * 40 * 40 * 3
    assert pixel_cache(cache=tmp_path / "c", clear=True).freed == held.used
    assert pixel_cache(cache=tmp_path / "c").used == 0
