"""`score` in Python: files, folders, arrays and tensors, one scale, and images that cannot be scored."""

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_harness.api.score import score
from iqa_harness.errors import DataError, RunError
from iqa_models import create_model


def test_the_command_and_the_function_say_the_same(cli, own):
    """Equal numbers for equal files; the scale is the card's."""
    files = [f"test{n}.png" for n in range(4)]
    code, out, err = cli("score", "linear", *files)
    found = score("linear", files, progress=False)
    assert code == 0
    assert out.splitlines() == [f"{v:.6f}\t{n}" for v, n in zip(found.values, found.ids, strict=True)]
    assert found.score_range == (0.0, 1.0)
    assert "linear: scores from about 0 to 1, higher is better" in err
    assert found.table["score"].tolist() == list(found.values)


def test_a_file_an_array_and_a_tensor_are_one_image(own):
    """The three ways to give an image have one score, the model's own."""
    pixels = np.asarray(Image.open("test0.png"))
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    model = create_model("linear")
    found = score(model, ["test0.png", pixels, tensor], progress=False)
    with torch.no_grad():
        expected = float(model(tensor[None]))
    assert found.values == pytest.approx([expected] * 3, abs=1e-7)
    assert found.ids == ("test0.png", "image 1", "image 2")
    assert score(model, pixels, progress=False).values == pytest.approx([expected], abs=1e-7)


def test_a_folder_is_the_images_below_it(cli, own):
    """Image files by name, also in folders below; other files are none."""
    (own / "more/deep").mkdir(parents=True)
    for name in ("more/b.png", "more/deep/a.bmp"):
        Image.open(own / "test0.png").save(own / name)
    (own / "more/notes.txt").write_text("no image")
    found = score("linear", "more", progress=False)
    assert found.ids == ("more/b.png", "more/deep/a.bmp")
    assert found.values[0] == found.values[1]
    assert len(cli("score", "linear", "more")[1].splitlines()) == 2
    (own / "empty").mkdir()
    assert score("linear", "empty", progress=False).errors == {"empty": "no image file in this folder"}


def test_a_bad_file_costs_its_own_score(cli, own):
    """The others are scored: exit code 4; with none left it is bad input."""
    (own / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 20)
    code, out, err = cli("score", "linear", "test0.png", "bad.png", "none.png", "test1.png")
    assert code == 4
    assert [line.partition("\t")[2] for line in out.splitlines()] == ["test0.png", "test1.png"]
    assert "no score of bad.png: " in err
    assert "no score of none.png: no such file" in err
    assert "Traceback" not in err
    assert cli("score", "linear", "bad.png", "none.png")[0] == 3
    found = score("linear", ["bad.png", "test0.png"], progress=False)
    assert np.isnan(found.values).tolist() == [True, False]
    assert set(found.errors) == {"bad.png"}


def test_a_model_that_fails_on_one_image(own, brightness):
    """An error in the model's own code is that image's error."""

    def trouble(images):
        if images.shape[-1] > 40:
            raise ValueError("too wide")

    found = score(brightness("b", trouble), [np.zeros((8, 41, 3), np.uint8), "test0.png"], progress=False)
    assert found.errors == {"image 0": "ValueError: too wide"}
    assert np.isfinite(found.values[1])


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), torch.zeros(1, 3, 8, 8), 5], ids=str
)
def test_what_is_no_image_is_refused(image):
    """Wrong shapes and types are named before anything is scored."""
    with pytest.raises(DataError, match="image 0: "):
        score("linear", [image], progress=False)


def test_a_stochastic_model_needs_draws(own):
    """One evaluation is an accident; with draws the score is the same every time."""
    model = create_model("linear")
    model.spec = model.spec.replace(is_stochastic=True)
    with pytest.raises(RunError, match="--eot-samples"):
        score(model, "test0.png", progress=False)
    (value,) = score(model, "test0.png", eot_samples=3, progress=False).values
    assert value == pytest.approx(score("linear", "test0.png", progress=False).values[0])
