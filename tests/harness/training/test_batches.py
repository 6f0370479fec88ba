"""Order, crops and flips: drawn from (seed, epoch, image id) and nothing else."""

import itertools

import numpy as np
import pytest
import torch

from iqa_harness.errors import TrainingError
from iqa_harness.training.batches import (
    Sample,
    draw_view,
    epoch_order,
    to_batch,
    train_batches,
    unit_labels,
    whole_batches,
)


def test_an_epoch_is_a_permutation_that_changes(tiny_set):
    """An epoch visits every image once; another epoch or seed visits them in another order."""
    records = tiny_set.split("train").records
    orders = [epoch_order(records, seed, epoch, None) for seed, epoch in ((0, 1), (0, 2), (1, 1))]
    assert all(sorted(order) == [Sample(i, 0) for i in range(12)] for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert epoch_order(records, 0, 1, 5) == orders[0][:5]


def test_a_view_does_not_depend_on_the_other_images():
    """Equal (seed, epoch, id) give equal views, another epoch another one."""
    views = {draw_view(0, epoch, "a", 256, 300, 160, True) for epoch in range(20)}
    assert draw_view(0, 3, "a", 256, 300, 160, True) in views
    assert len(views) > 15


def test_views_cover_the_image_and_half_of_them_are_flipped():
    """Crops reach both edges of both axes and never leave the image; flips are balanced."""
    views = [draw_view(0, 0, str(i), 12, 10, 8, True) for i in range(1000)]
    assert {view.top for view in views} == set(range(5))
    assert {view.left for view in views} == set(range(3))
    assert 430 < sum(view.flip for view in views) < 570
    assert not any(draw_view(0, 0, str(i), 12, 10, 8, False).flip for i in range(50))


def test_a_batch_holds_the_crops_it_says(tiny_set):
    """The yielded tensor is the crop of the named image, mirrored if its view says so."""
    data = tiny_set.split("train")
    order = [Sample(3, 0), Sample(1, 0), Sample(2, 1)]
    batches = train_batches(data, order, seed=5, epoch=2, batch_size=2, crop=24, flip=True)
    shapes = []
    for batch in batches:
        shapes.append(tuple(batch.crops.shape))
        for image, (index, patch) in zip(batch.crops, batch.samples, strict=True):
            view = draw_view(5, 2, data.records[index].image_id, 40, 40, 24, True, patch)
            crop = data.read(index)[view.top : view.top + 24, view.left : view.left + 24]
            expected = crop[:, ::-1] if view.flip else crop
            assert np.array_equal((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy(), expected)
    assert shapes == [(2, 3, 24, 24), (1, 3, 24, 24)]


def test_patches_of_an_image_are_other_crops_shuffled_among_all(tiny_set):
    """Each image comes as often as it has patches, not one after another, and in different crops."""
    records = tiny_set.split("train").records
    order = epoch_order(records, 0, 1, None, patches=3)
    assert sorted(order) == [Sample(i, patch) for i in range(12) for patch in range(3)]
    neighbours = [a.index == b.index for a, b in itertools.pairwise(order)]
    assert sum(neighbours) < 12
    assert len({draw_view(0, 1, "a", 256, 256, 64, False, patch) for patch in range(20)}) > 15
    assert draw_view(0, 1, "a", 256, 256, 64, False, 0) == draw_view(0, 1, "a", 256, 256, 64, False)


def test_a_resumed_epoch_begins_behind_its_done_steps(tiny_set):
    """Skipping batches leaves out the first ones and changes nothing in the others."""
    data = tiny_set.split("train")
    order = epoch_order(data.records, 0, 1, None)
    settings = {"seed": 0, "epoch": 1, "batch_size": 5, "crop": 8, "flip": True}
    whole = list(train_batches(data, order, **settings))
    rest = list(train_batches(data, order, **settings, skip=1))
    assert len(whole) == 3
    assert [batch.samples for batch in rest] == [batch.samples for batch in whole[1:]]
    assert all(torch.equal(a.crops, b.crops) for a, b in zip(rest, whole[1:], strict=True))


def test_an_image_smaller_than_the_crop_is_named():
    """A crop that does not fit raises TrainingError with the image and both sizes."""
    with pytest.raises(TrainingError, match="image 'photo' has 100x300 pixels, the crop needs 160"):
        draw_view(0, 0, "photo", 100, 300, 160, True)


def test_labels_are_scaled_to_the_unit_interval(tiny_set):
    """The ends of the MOS range become 0 and 1."""
    labels = unit_labels(tiny_set.split("train"))
    assert labels[0] == 1
    assert labels[-1] == 0
    assert labels.dtype == torch.float32


def test_all_256_levels_become_exact_shares():
    """A pixel of value v becomes v / 255 in float32, channels first."""
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    tensor = to_batch([image])
    assert tensor.shape == (1, 3, 16, 16)
    assert torch.equal(tensor[0, 1].flatten(), torch.arange(256, dtype=torch.float32) / 255)


def test_whole_images_of_different_sizes_do_not_share_a_batch(new_set):
    """Neighbours of equal size share a batch up to its limit; the order is the set's."""
    small, large = new_set({"train": 3}), new_set({"train": 2}, side=48)
    small = type(small)(
        [*small.records, *large.records], [*small.pixels, *large.pixels], small.card, small.fingerprint
    )
    shapes = [tuple(batch.shape) for batch in whole_batches(small, 2)]
    assert shapes == [(2, 3, 40, 40), (1, 3, 40, 40), (2, 3, 48, 48)]
