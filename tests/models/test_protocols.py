"""Input protocols: fixed, differentiable, bounded in memory, and the same gradient either way."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_models import BadInput, BadModelOption
from iqa_models.protocols import crop_scores, parse_protocol, resize_images


@pytest.fixture(scope="module")
def scorer():
    """A small network (P, 3, 32, 32) -> (P,) in float64 without batch statistics."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 5, stride=2),
        torch.nn.Tanh(),
        torch.nn.Conv2d(6, 4, 3),
        torch.nn.Tanh(),
        torch.nn.Flatten(),
        torch.nn.LazyLinear(1),
    ).double()
    net(torch.zeros(1, 3, 32, 32, dtype=torch.float64))
    net.requires_grad_(False)
    return lambda patches: net(patches).flatten()


def images(count, height=70, width=60):
    """Random float64 images."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, 3, height, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize(
    ("protocol", "resize", "text", "resize_text"),
    [
        ("native", None, "native", "none"),
        ("native", "224x224", "native", "224x224"),
        ("centre", None, "centre", "512x384"),
        ("random_crops:20", None, "random_crops:20:0", "512x384"),
        ("random_crops:25:7", "none", "random_crops:25:7", "none"),
        ("grid:5x5", "keep_aspect", "grid:5x5", "keep_aspect"),
        ("uniform:5x5", None, "uniform:5x5", "none"),
    ],
)
def test_a_protocol_has_one_canonical_form(protocol, resize, text, resize_text):
    """What a user writes is read into a canonical form that reads back to the same protocol."""
    parsed = parse_protocol(protocol, resize)
    assert (parsed.text, parsed.resize_text) == (text, resize_text)
    assert parse_protocol(parsed.text, parsed.resize_text) == parsed


@pytest.mark.parametrize(
    ("protocol", "resize"),
    [
        ("center", None),
        ("random_crops", None),
        ("random_crops:0", None),
        ("random_crops:5:-1", None),
        ("random_crops:5:0:0", None),
        ("grid:5", None),
        ("grid:0x5", None),
        ("uniform:5", None),
        ("xuniform:5x5", None),
        ("centre ", None),
        ("centre", "512"),
        ("centre", "0x384"),
        ("centre", "aspect"),
    ],
)
def test_other_forms_are_refused(protocol, resize):
    """A form that is not in the list raises BadModelOption that shows the list."""
    with pytest.raises(BadModelOption, match=r"native, centre|HEIGHTxWIDTH"):
        parse_protocol(protocol, resize)


def test_a_resize_must_leave_room_for_a_crop():
    """A resize with a side below the crop is refused when the protocol is read."""
    with pytest.raises(BadModelOption, match="smaller than the 224x224 crops"):
        parse_protocol("centre", "512x200")


@pytest.mark.parametrize(("height", "width"), [(96, 128), (128, 96), (40, 30), (70, 70)])
@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (90, 90)])
def test_resizing_is_pillows_within_a_grey_level(height, width, shape):
    """Up or down, the antialiased bilinear resize differs from Pillow's by its rounding only."""
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    theirs = np.asarray(Image.fromarray(levels).resize(shape[::-1], Image.Resampling.BILINEAR))
    ours = resize_images(torch.from_numpy(levels).permute(2, 0, 1)[None] / 255.0, shape)
    difference = ours[0].permute(1, 2, 0).numpy() * 255 - theirs
    assert np.abs(difference).max() <= 1.01


def test_resizing_keeps_the_range_and_an_image_of_that_size():
    """Values stay in [0, 1]; an image that has the size already is the same tensor."""
    batch = images(1)
    smaller = resize_images(batch, (33, 47))
    assert smaller.min() >= 0
    assert smaller.max() <= 1
    assert resize_images(batch, (70, 60)) is batch


@pytest.mark.parametrize(
    ("resize", "size", "wanted"),
    [
        (None, (768, 1024), (512, 384)),
        ("keep_aspect", (768, 1024), (384, 512)),
        ("keep_aspect", (1024, 768), (512, 384)),
        ("keep_aspect", (100, 300), (384, 1152)),
        ("none", (768, 1024), (768, 1024)),
        ("512x512", (768, 1024), (512, 512)),
    ],
)
def test_each_resize_gives_its_size(resize, size, wanted):
    """The authors' resize makes landscape portrait; keep_aspect brings the shorter side to 384."""
    parsed = parse_protocol("centre", resize)
    assert tuple(parsed.resized(torch.zeros(1, 3, *size)).shape[2:]) == wanted


def test_random_crops_are_fixed_by_the_seed():
    """Equal seeds give equal crops whatever the global generator; more crops begin with the fewer."""
    ten, twenty = parse_protocol("random_crops:10:4"), parse_protocol("random_crops:20:4")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = twenty.corners(512, 384)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert twenty.corners(512, 384) == first
    assert ten.corners(512, 384) == first[:10]
    assert parse_protocol("random_crops:20:5").corners(512, 384) != first


def test_random_crops_reach_every_position_evenly():
    """Crops stay inside, reach both edges, and a crop of the image's own size has one place."""
    parsed = parse_protocol("random_crops:3000:0", "none")
    corners = parsed.corners(227, 225)
    tops, lefts = np.bincount([top for top, _ in corners]), np.bincount([left for _, left in corners])
    assert len(tops) == 4
    assert len(lefts) == 2
    assert tops.min() > 0.8 * 3000 / 4
    assert lefts.min() > 0.8 * 3000 / 2
    assert set(parsed.corners(224, 224)) == {(0, 0)}


def test_grid_and_centre_lie_where_they_should():
    """A grid goes from edge to edge evenly; the centre crop is in the middle."""
    assert parse_protocol("grid:3x2").corners(512, 384) == [
        (0, 0), (0, 160), (144, 0), (144, 160), (288, 0), (288, 160),
    ]  # fmt: skip
    assert parse_protocol("centre").corners(512, 384) == [(144, 80)]
    assert parse_protocol("grid:1x1").corners(512, 384) == [(144, 80)]


def test_patches_are_the_pixels_at_the_corners():
    """Patches come image by image and hold exactly the pixels of the resized image."""
    parsed = parse_protocol("random_crops:3:1", "none", size=32)
    batch = images(2)
    corners = parsed.corners(70, 60)
    patches = parsed.patches(batch, corners)
    assert patches.shape == (6, 3, 32, 32)
    top, left = corners[2]
    assert torch.equal(patches[5], batch[1, :, top : top + 32, left : left + 32])


def test_too_small_an_image_is_refused_unless_it_is_resized():
    """Below the crop size, no resize raises BadInput; a resize makes it fit."""
    with pytest.raises(BadInput, match="100x300 pixels are too few for 224x224 crops"):
        parse_protocol("centre", "none").resized(torch.zeros(1, 3, 100, 300))
    assert parse_protocol("centre").resized(torch.zeros(1, 3, 100, 300)).shape == (1, 3, 512, 384)
    assert parse_protocol("centre", "none").min_size == 224
    assert parse_protocol("centre").min_size == 1


def test_native_takes_its_own_sizes_only():
    """Native means exactly the network's side, or any multiple where the network allows it."""
    exact, free = parse_protocol("native"), parse_protocol("native", multiple=32)
    assert (exact.fixed_size, free.fixed_size, free.min_size) == (224, None, 32)
    assert exact.resized(torch.zeros(1, 3, 224, 224)).shape == (1, 3, 224, 224)
    assert free.resized(torch.zeros(1, 3, 64, 96)).shape == (1, 3, 64, 96)
    with pytest.raises(BadInput, match=re.escape("takes 224x224 pixels only")):
        exact.resized(torch.zeros(1, 3, 224, 256))
    with pytest.raises(BadInput, match="multiples of 32"):
        free.resized(torch.zeros(1, 3, 224, 250))


def score(scorer, batch, protocol, **options):
    """Mean score over crops of each image."""
    return crop_scores(scorer, batch, protocol, **{"checkpointed": False, **options}).mean(1)


@pytest.mark.parametrize("resize", ["none", "80x50"])
def test_the_gradient_through_25_crops_is_the_mean_of_25_gradients(scorer, resize):
    """Chunked and checkpointed, the whole mean has the gradient of its crops taken one by one."""
    parsed = parse_protocol("random_crops:25:2", resize, size=32)
    batch = images(2).requires_grad_()
    scores = score(scorer, batch, parsed, crop_batch=4, checkpointed=True)
    (whole,) = torch.autograd.grad(scores.sum(), batch)
    total = torch.zeros_like(batch)
    with torch.no_grad():
        corners = parsed.corners(*parsed.resized(batch).shape[2:])
    for corner in corners:
        one = scorer(parsed.patches(parsed.resized(batch), [corner])).sum()
        total += torch.autograd.grad(one, batch)[0]
    torch.testing.assert_close(whole, total / 25, rtol=0, atol=1e-14)
    assert whole.any()


def test_chunking_and_checkpointing_change_nothing(scorer):
    """Scores and gradients agree for every chunk size, checkpointed or not."""
    parsed = parse_protocol("random_crops:25:2", "none", size=32)
    results = []
    options = [
        {"crop_batch": crop_batch, way: True}
        for crop_batch in (100, 1, 4, 7)
        for way in ("checkpointed", "ahead")
    ]
    for each in ({"crop_batch": 100}, {"crop_batch": 4}, *options):
        batch = images(2).requires_grad_()
        scores = score(scorer, batch, parsed, **each)
        results.append((scores.detach(), torch.autograd.grad(scores.sum(), batch)[0]))
    for scores, gradient in results[1:]:
        torch.testing.assert_close(scores, results[0][0], rtol=0, atol=1e-14)
        torch.testing.assert_close(gradient, results[0][1], rtol=0, atol=1e-14)


def test_gradients_taken_ahead_score_every_crop_once(scorer):
    """A gradient scores crops twice if checkpointed, ahead once, across images; without one all is alike."""
    parsed = parse_protocol("random_crops:5:2", "none", size=32)
    sizes = []

    def watched(patches):
        sizes.append(len(patches))
        return scorer(patches)

    for options, expected in (({"checkpointed": True}, [2, 2, 1] * 4), ({"ahead": True}, [2] * 5)):
        batch = images(2).requires_grad_()
        torch.autograd.grad(score(watched, batch, parsed, crop_batch=2, **options).sum(), batch)
        assert sorted(sizes) == sorted(expected)
        sizes.clear()
    with torch.no_grad():
        plain, ahead = (score(scorer, images(2), parsed, crop_batch=2, ahead=way) for way in (False, True))
    torch.testing.assert_close(ahead, plain, rtol=0, atol=1e-14)


def test_the_gradient_is_the_slope_of_the_mean(scorer):
    """Gradcheck through resize, crops, network and mean."""
    parsed = parse_protocol("random_crops:5:2", "36x40", size=32)
    batch = images(1, 20, 24).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: score(scorer, x, parsed, crop_batch=2, checkpointed=True), batch, fast_mode=True
    )


def test_gradients_of_gradients_pass_through_the_crops(scorer):
    """A penalty on the gradient's norm has the same gradient checkpointed and not."""
    parsed = parse_protocol("random_crops:5:2", "40x36", size=32)
    found = []
    for checkpointed in (False, True):
        batch = images(1).requires_grad_()
        scores = score(scorer, batch, parsed, crop_batch=2, checkpointed=checkpointed)
        (gradient,) = torch.autograd.grad(scores.sum(), batch, create_graph=True)
        found.append(torch.autograd.grad(gradient.square().sum(), batch)[0])
    assert found[0].any()
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-14)


def test_memory_does_not_grow_with_the_crops(scorer):
    """What a checkpointed pass keeps for the backward pass is the images; no chunk exceeds crop_batch."""
    sizes = []

    def watched(patches):
        sizes.append(len(patches))
        return scorer(patches)

    def kept(count, *, checkpointed):
        parsed = parse_protocol(f"random_crops:{count}", "none", size=32)
        storages = {}

        def note(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        batch = images(2).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            score(watched, batch, parsed, crop_batch=4, checkpointed=checkpointed)
        return sum(storages.values())

    few, many = kept(5, checkpointed=True), kept(25, checkpointed=True)
    assert many <= few + 10_000
    assert kept(25, checkpointed=False) > 5 * many
    assert max(sizes) <= 4


def test_an_image_scores_alike_in_every_batch(scorer):
    """With several crops, a score is bit-equal whatever stands beside the image."""
    parsed = parse_protocol("grid:3x3", "none", size=32)
    batch = images(3)
    together = score(scorer, batch, parsed, crop_batch=4, checkpointed=True)
    alone = [score(scorer, one, parsed, crop_batch=4, checkpointed=True) for one in torch.split(batch, 1)]
    assert torch.equal(torch.cat(alone), together)


def test_no_images_give_no_scores(scorer):
    """An empty batch has shape (0, N)."""
    parsed = parse_protocol("grid:3x3", "none", size=32)
    empty = crop_scores(scorer, images(0), parsed, crop_batch=4, checkpointed=True)
    assert empty.shape == (0, 9)
