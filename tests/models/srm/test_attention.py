"""Nystroem attention: its limit is full attention, its error falls with the rank, its gradient is right."""

import pytest
import torch
import torch.nn.functional as F

from iqa_models.srm import SRMConfig, choose_landmarks, full_attention, nystroem_attention
from iqa_models.srm.attention import softmax_block
from iqa_models.srm.landmarks import select
from iqa_models.srm.solve import regularised


def randn(*shape, seed=0):
    """Draw normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def attend(queries, keys, values, **settings):
    """Attend with the landmarks of a config."""
    config = SRMConfig(**settings)
    return nystroem_attention(queries, keys, values, choose_landmarks(keys, config), config)[0]


def error(found, exact):
    """Return the relative error in the Frobenius norm."""
    return ((found - exact).norm() / exact.norm()).item()


def clustered(count=256, width=16, clusters=24):
    """Draw keys around a few centres."""
    centres = randn(clusters, width, seed=7)
    member = torch.randint(clusters, (count,), generator=torch.Generator().manual_seed(8))
    return (centres[member] + 0.1 * randn(count, width, seed=9))[None, None]


def test_full_attention_is_softmax_attention():
    """It equals torch's scaled dot-product attention."""
    q, k, v = randn(2, 3, 20, 8), randn(2, 3, 10, 8, seed=1), randn(2, 3, 10, 8, seed=2)
    torch.testing.assert_close(full_attention(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize("solver", ["default", "svd", "lu"])
@pytest.mark.parametrize("equilibrate", [False, True])
def test_with_all_keys_as_landmarks_and_no_ridge_it_is_full_attention(solver, equilibrate):
    """K~ = K and lambda = 0: C W^-1 W V = C V, to 1e-8 in float64."""
    q, k, v = randn(2, 3, 40, 8), 2 * randn(2, 3, 12, 8, seed=1), randn(2, 3, 12, 8, seed=2)
    found = attend(q, k, v, rank=12, ridge=0.0, solver=solver, equilibrate=equilibrate)
    torch.testing.assert_close(found, full_attention(q, k, v), rtol=0, atol=1e-8)


def test_the_ridge_is_a_limit():
    """With all keys as landmarks the distance to full attention falls to nothing with the ridge."""
    q, k, v = randn(1, 2, 40, 8), 2 * randn(1, 2, 12, 8, seed=1), randn(1, 2, 12, 8, seed=2)
    exact = full_attention(q, k, v)
    errors = [error(attend(q, k, v, rank=12, ridge=ridge), exact) for ridge in (1e-1, 1e-3, 1e-5, 1e-9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-7


@pytest.mark.parametrize("keys", [randn(1, 1, 256, 16, seed=3), clustered()], ids=["random", "clustered"])
@pytest.mark.parametrize("landmarks", ["leverage", "uniform"])
def test_the_error_falls_as_the_rank_grows(keys, landmarks):
    """Doubling the landmarks from 8 to all 256 keys never raises the error, and ends near nothing."""
    q, v = randn(1, 1, 100, 16, seed=4), randn(1, 1, 256, 16, seed=5)
    exact = full_attention(q, keys, v)
    ranks = (8, 32, 128, 256)
    errors = [error(attend(q, keys, v, rank=rank, ridge=1e-9, landmarks=landmarks), exact) for rank in ranks]
    assert errors == sorted(errors, reverse=True), errors
    assert errors[-1] < 1e-3


def test_the_output_does_not_depend_on_the_order_of_keys_and_landmarks():
    """Permuted together, keys and values give the same output: landmark choice and system follow."""
    q, k, v = randn(2, 2, 30, 8), randn(2, 2, 50, 8, seed=1), randn(2, 2, 50, 8, seed=2)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    found = attend(q, k[:, :, order], v[:, :, order], rank=12)
    torch.testing.assert_close(found, attend(q, k, v, rank=12), rtol=1e-9, atol=1e-11)


def test_the_gradient_is_right():
    """Gradcheck passes for queries, keys and values at once; the selected rows carry gradient."""
    inputs = [randn(1, 2, n, 4, seed=s).requires_grad_() for s, n in enumerate((6, 9, 9))]
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, rank=4), inputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_inputs_get_a_float32_system(dtype):
    """Under autocast too, the system is built from its logits on and solved in float32, the output cast."""
    q, k, v = (randn(1, 2, n, 8, seed=s).to(dtype) for s, n in enumerate((30, 50, 50)))
    config = SRMConfig(rank=8)
    landmarks = choose_landmarks(k, config)
    with torch.autocast("cpu", dtype=dtype):
        output, system = nystroem_attention(q, k, v, landmarks, config)
    assert output.dtype is dtype
    centres = select(k.float(), landmarks)
    assert torch.equal(system.matrix, regularised(softmax_block(centres, centres), config.ridge))
    assert {part.dtype for part in system[:3]} == {torch.float32}
