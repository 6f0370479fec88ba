import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iqa_harness.data.catalogue import check_data
from iqa_harness.data.embedded import photographs
from iqa_harness.data.embedded import recipes as demo
from iqa_harness.data.embedded.built_set import StoredImageSet
from iqa_harness.data.embedded.distortions import DISTORTIONS, PRISTINE, distort, generator_for
from iqa_harness.data.embedded.pseudo_mos import PRISTINE_LABEL, fit_anchors, haarpsi_to, pseudo_mos
from iqa_harness.errors import DataError


def test_smoke_facts(smoke: StoredImageSet) -> None:
    """Five scenes, five types at three levels and the originals: 48, 16 and 16 images of 128 x 128."""
    assert Counter(record.split for record in smoke.records) == {"train": 48, "val": 16, "test": 16}
    assert len({record.reference for record in smoke.records}) == 5
    assert len({record.image_id for record in smoke.records}) == len(smoke) == 80
    assert {smoke.read(i).shape for i in (0, 50, 79)} == {(128, 128, 3)}
    assert smoke.card.name == "smoke"
    assert smoke.card.label == "pseudo-MOS"
    assert "never a claim about human quality" in smoke.card.notes[0]


def test_smoke_is_sound(smoke: StoredImageSet) -> None:
    """No pixel, label, split or fingerprint is off, and no scene lies in two splits."""
    assert check_data(smoke) == []


def test_labels_are_those_of_the_formula(smoke: StoredImageSet) -> None:
    """Every label follows from the pixels and from anchors fitted on training images alone."""
    originals = {r.reference: smoke.read(i) for i, r in enumerate(smoke.records) if r.distortion == PRISTINE}
    metric = [haarpsi_to(originals[r.reference])(smoke.read(i)) for i, r in enumerate(smoke.records)]
    by_level = defaultdict(list)
    for record, value in zip(smoke.records, metric, strict=True):
        if record.split == "train":
            by_level[record.distortion, record.level].append(value)
    for record, value in zip(smoke.records, metric, strict=True):
        if record.distortion == PRISTINE:
            assert record.mos == pytest.approx(PRISTINE_LABEL)
            continue
        assert record.distortion is not None
        human = [DISTORTIONS[record.distortion].human_means[level - 1] for level in (2, 3, 5)]
        means = [float(np.mean(by_level[record.distortion, level])) for level in (2, 3, 5)]
        anchors = fit_anchors(means, human)
        assert record.mos == pytest.approx(pseudo_mos(value, anchors), abs=1e-6)
        assert [4 * pseudo_mos(mean, anchors) + 1 for mean in means] == pytest.approx(human)


def test_labels_fall_with_the_level(smoke: StoredImageSet) -> None:
    """Within a scene and type a higher level never has a higher label."""
    labels = {(r.reference, r.distortion, r.level): r.mos for r in smoke.records}
    for (scene, kind, level), mos in labels.items():
        if level in {2, 3}:
            assert labels[scene, kind, {2: 3, 3: 5}[level]] <= mos < PRISTINE_LABEL


def test_pixels_follow_from_the_id(smoke: StoredImageSet) -> None:
    """An image can be made again from its id alone, whatever was built around it."""
    index = next(i for i, r in enumerate(smoke.records) if r.image_id == "coffee/0/white_noise/3")
    coffee = next(p for p in photographs.BASE if p.scene == "coffee")
    again = distort(
        photographs.read_crop(coffee, 128), "white_noise", 3, generator_for(0, "coffee/0", "white_noise", 3)
    )
    assert np.array_equal(smoke.read(index), again)


def test_two_builds_are_identical_and_load_no_torch(smoke: StoredImageSet, tmp_path: Path) -> None:
    """A second build, by another process on one thread instead of several, gives the same bytes.

    Photographs, distortions and labels are NumPy's, SciPy's and Pillow's work.
    """
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "import os\n"
        "from pathlib import Path\n"
        "from iqa_harness.data import open_data\n"
        "os.cpu_count = lambda: 1\n"
        f"assert len(open_data('smoke', cache_dir=Path({str(tmp_path)!r}), progress=False))\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (again,) = (tmp_path / "data").iterdir()
    assert again.name == smoke.folder.name
    for name in ("pixels.npy", "records.json", "manifest.json"):
        assert (again / name).read_bytes() == (smoke.folder / name).read_bytes()


def test_batches_are_varied(smoke: StoredImageSet) -> None:
    """Eight neighbours in test order span a wide range of labels."""
    labels = [record.mos for record in smoke.split("test").records]
    for start in (0, 8):
        assert np.std(labels[start : start + 8]) > 0.15


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"size": 64}, {"levels": (1, 5)}, {"types": ("jpeg",)}, {"name": "x"}]
)
def test_every_setting_is_part_of_the_description(change: dict[str, object]) -> None:
    """Whatever changes the content changes the description the cache key is made of."""
    recipe = demo.embedded_recipe("smoke")
    assert demo.Recipe(**{**vars(recipe), **change}).describe() != recipe.describe()


def test_progress_goes_to_standard_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bar leaves standard output alone."""
    recipe = demo.embedded_recipe("smoke")
    small = demo.Recipe(**{**vars(recipe), "types": ("jpeg",), "size": 32})
    demo.open_embedded(small, cache_dir=tmp_path, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "smoke" in captured.err


@pytest.mark.skipif(
    len(photographs.installed(photographs.ALL)) < 27, reason="needs the packages of the [demo] extra"
)
def test_plan_of_demo() -> None:
    """`demo` has 27 scenes, 2,928 training images of three crops, 244 for validation and 427 for test."""
    recipe = demo.embedded_recipe("demo")
    images = demo.plan_images(recipe, demo.plan_crops(recipe))
    assert recipe.name == "demo"
    assert Counter(image.crop.split for image in images) == {"train": 2928, "val": 244, "test": 427}
    assert {image.crop.number for image in images if image.crop.split != "train"} == {0}
    test = [image for image in images if image.crop.split == "test"]
    for n in (8, 64, 200):
        scenes = Counter(image.crop.photograph.scene for image in test[:n])
        assert len(scenes) == 7
        assert max(scenes.values()) - min(scenes.values()) <= 2


@pytest.mark.skipif(
    len(photographs.installed(photographs.ALL)) < 27, reason="needs the packages of the [demo] extra"
)
def test_the_small_demo_is_the_demo_with_one_crop_a_scene() -> None:
    """Scenes, splits, distortions and the order of the test images are those of `demo`."""
    small, whole = demo.embedded_recipe("demo-small"), demo.embedded_recipe("demo")
    images, all_images = (demo.plan_images(recipe, demo.plan_crops(recipe)) for recipe in (small, whole))
    assert (small.name, small.size) == ("demo-small", 192)
    assert Counter(image.crop.split for image in images) == {"train": 976, "val": 244, "test": 427}
    tests = [[each.image_id for each in of if each.crop.split == "test"] for of in (images, all_images)]
    assert tests[0] == tests[1]


def test_demo_falls_back_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without foolbox and scikit-learn the set is `demo-core`, five scenes split 3, 1, 1."""
    here = photographs.locate
    monkeypatch.setattr(
        photographs, "locate", lambda p: None if p.package in {"foolbox", "sklearn"} else here(p)
    )
    recipe = demo.embedded_recipe("demo")
    assert recipe.name == recipe.card().name == "demo-core"
    assert demo.embedded_recipe("demo-small").describe() == recipe.describe()
    assert Counter(crop.split for crop in demo.plan_crops(recipe)) == {"train": 9, "val": 1, "test": 1}
    assert any("[demo]" in note for note in recipe.card().notes)


def test_attributions_are_given() -> None:
    """Card and README name author, licence and source of the photographs under CC BY, and the changes."""
    source = replace(demo.embedded_recipe("smoke"), scenes=photographs.CORE).card().source
    readme = Path(demo.__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    for text in (source, readme):
        assert "resized, cropped and distorted" in text
        assert "CC BY 2.0" in text
        assert "flickr.com/photos/danielbuechele/6061409035" in text
        assert "flickr.com/photos/vultilion/6056698931" in text


def test_too_few_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no photograph at all the error says how many are needed."""
    monkeypatch.setattr(photographs, "locate", lambda _: None)
    with pytest.raises(DataError, match="at least 3"):
        demo.open_embedded(demo.embedded_recipe("smoke"), cache_dir=tmp_path, progress=False)


def test_import_and_cache_hit_are_light(smoke: StoredImageSet, smoke_cache: Path) -> None:
    """Listing the sets, opening a built one and reading it load no torch, pandas, SciPy or scikit-image."""
    code = (
        "import pathlib, sys, iqa_harness.data as d; d.list_data();"
        "d.open_data('smoke', cache_dir=pathlib.Path(sys.argv[1])).read(0);"
        "print({'torch', 'pandas', 'scipy', 'skimage', 'sklearn', 'foolbox', 'piq'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(smoke_cache)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
    assert list((smoke_cache / "data").iterdir()) == [smoke.folder]
