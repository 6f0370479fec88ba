"""Fused stages on a card: the same gradients as torch's own kernels give, each time to the last bit."""

import copy

import pytest
import torch

from iqa_attacks import score_and_gradient
from iqa_harness.machine.devices import same_kernels
from iqa_models import create_model
from iqa_models.frozen import frozen
from iqa_models.fused import Stage

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("default")]

FURTHEST = {"model": 5e-3, "tf32": 0.15, "float16": 0.15, "bfloat16": 0.5}
"""Largest relative difference (L1) of a gradient of a random HyperIQA from that of float32, by precision."""


@pytest.mark.parametrize("precision", FURTHEST)
def test_a_fused_copy_has_the_gradient_of_its_model(card, precision):
    """All four stages of the ResNet-50, with biases, sums and rectifiers in kernels of their own."""
    from benchmarks.bench_suite_vs_loops import settle

    model = create_model("hyperiqa", pretrained="none", protocol="native").eval()
    settle(model, 224)
    model = model.requires_grad_(False).to(card)
    made = frozen(model, precision=precision)
    assert sum(isinstance(module, Stage) for module in made.modules()) == 4
    coarse = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(card)
    images = torch.nn.functional.interpolate(coarse, size=224, mode="bicubic").clamp(0, 1)
    with same_kernels(card):
        plain = score_and_gradient(model, images, chunk=4).gradients
        first, again = (score_and_gradient(each, images, chunk=4) for each in (made, copy.deepcopy(made)))
    assert torch.equal(first.gradients, again.gradients) and torch.equal(first.scores, again.scores)
    assert 0 < float((first.gradients - plain).abs().sum() / plain.abs().sum()) <= FURTHEST[precision]
