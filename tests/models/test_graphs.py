"""Recorded passes where there is no CUDA: nothing is recorded, and what could not be is known beforehand."""

import pytest
import torch

from iqa_models import BadInput, create_model
from iqa_models.graphs import FROM, SAME, Graphs, _apart, _NoLiterals, _NoWaits
from iqa_models.precision import float32_products


def slope(images):
    """Return scores and gradients of sum(x^2)."""
    leaf = images.detach().requires_grad_()
    scores = leaf.square().sum((1, 2, 3))
    (gradient,) = torch.autograd.grad(scores.sum(), leaf)
    return scores.detach(), gradient


def test_without_cuda_every_pass_is_computed():
    graphs, calls = Graphs(), []

    def compute(images):
        calls.append(images)
        return slope(images)

    images = torch.rand(2, 3, 4, 4)
    for _ in range(2 * FROM):
        scores, gradients = graphs.run(compute, images)
        torch.testing.assert_close(scores, images.square().sum((1, 2, 3)))
        assert torch.equal(gradients, 2 * images)
    assert len(calls) == 2 * FROM


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: float(x.sum()),
        lambda x: bool((x > 2).any()),
        lambda x: x[x > 0.5],
        lambda x: (x > 0.5).nonzero(),
        lambda x: x.to("meta"),
        lambda x: x.masked_select(x > 0.5),
    ],
)
def test_what_cannot_be_recorded_is_refused_beforehand(wait):
    images = torch.rand(2, 3, 4, 4)
    with pytest.raises(RuntimeError, match=r"waits for the device|between devices"), _NoWaits():
        wait(images)


def test_numbers_in_the_code_are_refused_on_a_device_only():
    with _NoLiterals():
        assert torch.tensor([1.0, 2.0]).tolist() == [1, 2]
        with pytest.raises(RuntimeError, match="tensor sends numbers to the device"):
            torch.tensor([1.0, 2.0], device="meta")
        with pytest.raises(RuntimeError, match="new_tensor sends numbers to the device"):
            torch.empty(2, device="meta").new_tensor([1.0, 2.0])


def test_a_pass_that_waits_for_nothing_goes_through():
    images = torch.rand(2, 3, 4, 4)
    with _NoWaits(), _NoLiterals():
        scores, gradients = slope(images)
        images.index_select(0, torch.tensor([1, 0]))
        images[torch.tensor([1, 0])].double()
    assert torch.equal(scores, images.square().sum((1, 2, 3)))
    assert torch.equal(gradients, 2 * images)


def test_a_recording_that_says_something_else_is_seen():
    """Rounding is not; one thousandth of a score, or gradients of other images, are."""
    images = torch.rand(2, 3, 4, 4)
    scores, gradients = slope(images)
    assert _apart((scores, gradients), (scores * (1 + 1e-6), gradients + 1e-7)) <= SAME
    assert _apart((scores * 1.002, gradients), (scores, gradients)) == pytest.approx(0.002, rel=1e-4)
    assert _apart((scores, gradients.flip(0)), (scores, gradients)) > SAME
    assert not _apart((scores * float("nan"), gradients), (scores, gradients)) <= SAME


def test_images_known_to_be_admissible_are_scored_without_a_look():
    """The same scores; shape and precision are checked all the same."""
    model = create_model("linear")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model.score_admitted(images), model(images))
    assert model.score_admitted(2 * images).shape == (2,)
    for wrong in (images[0], images.int(), images[:, :2]):
        with pytest.raises(BadInput):
            model.score_admitted(wrong)
    with pytest.raises(BadInput, match=r"pixel values must lie in \[0, 1\]"):
        model(2 * images)


def test_the_precision_of_products_is_left_alone_without_cuda():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with float32_products(torch.device("cpu"), tensor_float32=True):
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


@pytest.mark.parametrize("allowed", [True, False])
def test_the_precision_of_products_on_cuda_is_put_back_whatever_happens(allowed):
    """Also by an error; PyTorch itself would let convolutions use TensorFloat-32."""
    matrices, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matrices.allow_tf32, convolutions.allow_tf32
    with (
        pytest.raises(ValueError, match="inside"),
        float32_products(torch.device("cuda"), tensor_float32=allowed),
    ):
        assert (matrices.allow_tf32, convolutions.allow_tf32) == (allowed, allowed)
        raise ValueError("inside")
    assert (matrices.allow_tf32, convolutions.allow_tf32) == before
