"""A stored score is one number of one image, whatever else is scored with it."""

from contextlib import nullcontext

import pytest
import torch

from helpers.accelerator import Accelerator, away
from iqa_attacks import AttackFailed, score
from iqa_harness.cells.scoring import Scorer, scored_together, stored_scores
from iqa_models import ModelSpec, QualityModel

CARD = ModelSpec(
    name="crowd", summary="mean brightness and the size of its pass", score_range=(0, 1),
    input_protocol="whole image", mean=(0, 0, 0), std=(1, 1, 1), source="this test",
)  # fmt: skip


class Crowd(QualityModel):
    """Rounds by the number of images in a pass, as kernels do, only visibly."""

    room = 10**6

    def predict(self, images):
        if len(images) > self.room:
            raise torch.OutOfMemoryError("no room")
        self.passes = [*getattr(self, "passes", []), len(images)]
        return images.mean(dim=(1, 2, 3)) / 2 + len(images) / 256


def _images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, h, w), generator=generator) / 255 for h, w in sizes]


def _of(model, images, **options):
    ids = [f"image-{i}" for i in range(len(images))]
    return stored_scores(model, images, ids, seed=0, draws=None, **options)


def test_every_pass_has_the_same_size():
    """Seven images of two sizes in passes of four: half the mean, and always the same addition."""
    model, images = Crowd(CARD).eval(), _images(*[(8, 8)] * 5, (6, 9), (8, 8))
    found = _of(model, images, together=4)
    assert model.passes == [4, 4, 4]
    means = [float(image.double().mean()) for image in images]
    assert found == pytest.approx([mean / 2 + 4 / 256 for mean in means], abs=1e-6)


@pytest.mark.parametrize("together", [1, 2, 4, 8])
def test_neither_neighbours_nor_order_touch_a_score(together):
    """Alone, in another order and among others it is the same number to the last bit."""
    model, images = Crowd(CARD).eval(), _images(*[(8, 8)] * 9)
    found = _of(model, images, together=together)
    assert _of(model, images[::-1], together=together) == found[::-1]
    assert [_of(model, [image], together=together)[0] for image in images] == found


def test_a_cpu_takes_one_image_a_pass_and_a_gpu_many():
    """The device alone decides, which every row names; on a CPU it is what `score` gives one image."""
    assert (scored_together("cpu"), scored_together("cuda:1")) == (1, 64)
    model, images = Crowd(CARD).eval(), _images((8, 8), (8, 8))
    assert _of(model, images) == score(model, torch.stack(images), chunk=1).tolist()


def test_a_pass_is_halved_where_memory_runs_out():
    """Eight do not fit, and four do not: passes of two, scores all the same."""
    model, images = Crowd(CARD).eval(), _images(*[(8, 8)] * 3)
    model.room = 3
    assert _of(model, images, together=8) == _of(model, images, together=2)
    model.room = 0
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        _of(model, images, together=8)


class Blind(QualityModel):
    """Has no score for a dark image."""

    def predict(self, images):
        return images.mean(dim=(1, 2, 3)).log()


def test_the_image_without_a_score_is_named_by_its_place():
    """Not by its place in the pass, nor by that of a copy."""
    images = [*_images((8, 8), (6, 9), (8, 8), (8, 8)), torch.zeros(3, 8, 8)]
    with pytest.raises(AttackFailed, match="not finite") as caught:
        _of(Blind(CARD).eval(), images, together=3)
    assert caught.value.image == 4


def test_the_same_pixels_of_an_image_are_scored_once():
    """Among versions of one image and from call to call; another image's are its own."""
    model, (image, other) = Crowd(CARD).eval(), _images((8, 8), (8, 8))
    scorer, expected = Scorer(model, seed=0, draws=None), _of(model, [image, other])
    model.passes = []
    assert scorer.of([image, other, image.clone()], ["a"] * 3) == [*expected, expected[0]]
    assert scorer.of([other, image], ["a", "a"]) == expected[::-1]
    assert model.passes == [1, 1]
    assert scorer.of([image], ["b"]) == expected[:1]
    assert model.passes == [1, 1, 1]


def test_of_versions_scored_once_the_one_without_a_score_is_named_by_its_place():
    """Two equal ones stand before it."""
    image, bad = _images((8, 8), (8, 8))
    bad[0, 0, 0] = 1.0

    class Blind(Crowd):
        def predict(self, images):
            return super().predict(images) / (images.amax(dim=(1, 2, 3)) < 1)

    with pytest.raises(AttackFailed) as error:
        Scorer(Blind(CARD).eval(), seed=0, draws=None).of([image * 0.9, image * 0.9, bad], ["a"] * 3)
    assert error.value.image == 2


@pytest.mark.parametrize("on_device", [False, True])
def test_equal_pixels_of_an_image_are_scored_once(on_device):
    """Whatever object holds them; another image, another pixel and another size are scored by themselves."""
    model, (one, other) = Crowd(CARD).eval(), _images((8, 8), (8, 8))
    changed = one.clone()
    changed[0, 0, 0] = torch.nextafter(changed[0, 0, 0], torch.tensor(2.0))
    with Accelerator() if on_device else nullcontext():
        scorer = Scorer(model, seed=0, draws=None)

        def of(images, names):
            model.passes = []
            scores = scorer.of([away(image) if on_device else image for image in images], names)
            return scores, len(model.passes)

        (first, second), passes = of([one, other], ["a", "b"])
        assert passes == 2
        assert of([other.clone(), one.clone()], ["b", "a"]) == ([second, first], 0)
        wide = torch.cat([one, one], dim=2)
        for image, name in ((one, "b"), (changed, "a"), (wide, "a"), (one.reshape(3, 4, 16), "a")):
            assert of([image], [name])[1] == 1
