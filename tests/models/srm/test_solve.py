"""The landmark system: every route gives one answer, and a gradient that is right."""

import pytest
import torch

from iqa_models.srm import SRMConfig, solve_system
from iqa_models.srm.attention import softmax_block
from iqa_models.srm.solve import (
    condition_number,
    equilibrated,
    neumann_series,
    regularised,
    relative_residual,
    solve_neumann,
    solve_svd,
    spectral_norm,
)


def randn(*shape, seed=0, dtype=torch.float64):
    """Draw normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def with_singular_values(sigma, seed=0):
    """Make a matrix that is not symmetric and has these singular values."""
    count = len(sigma)
    u, _ = torch.linalg.qr(randn(count, count, seed=seed))
    v, _ = torch.linalg.qr(randn(count, count, seed=seed + 1))
    return u @ torch.diag(torch.as_tensor(sigma, dtype=torch.float64)) @ v.mT


def repeated(count=5):
    """The block of repeated landmarks: I / r + 1 / r, whose singular values but one are equal."""
    return torch.eye(count, dtype=torch.float64) / count + 1 / count


ROUTES = [
    {"solver": "default"},
    {"solver": "default", "kappa_max": 1.0},
    {"solver": "svd"},
    {"solver": "lu"},
    {"solver": "neumann"},
    {"solver": "default", "equilibrate": True},
    {"solver": "svd", "equilibrate": True},
    {"solver": "lu", "equilibrate": True},
]


def test_the_ridge_is_a_share_of_the_mean_diagonal():
    """W_lambda = W + lambda0 trace(W) / r on the diagonal."""
    block = randn(2, 3, 4, 4)
    matrix = regularised(block, 0.1)
    shift = 0.1 * torch.stack([b.trace() / 4 for b in block.flatten(0, 1)]).reshape(2, 3)
    torch.testing.assert_close(matrix - block, shift[..., None, None] * torch.eye(4).double())


@pytest.mark.parametrize("route", ROUTES)
def test_routes_agree_in_float64(route):
    """Every route solves the systems of random landmarks as an explicit inverse does."""
    keys = 2 * randn(2, 3, 16, 8)
    matrix, right = regularised(softmax_block(keys, keys), 1e-3), randn(2, 3, 16, 8, seed=1)
    found = solve_system(matrix, right, SRMConfig(**route)).solution
    torch.testing.assert_close(found, torch.linalg.inv(matrix) @ right, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("seed", range(3))
def test_routes_agree_in_float32_while_kappa_is_moderate(route, seed):
    """With kappa just under 1e4, float32 solutions are within 1e-4 of the float64 one, in norm."""
    sigma = torch.logspace(0, -3.9, 32).tolist()
    matrix = with_singular_values(sigma, seed)
    # A right side within the range of W, as R V is: solutions then are of order one.
    exact = randn(32, 8, seed=seed + 5)
    right = matrix @ exact
    found = solve_system(matrix.float()[None], right.float()[None], SRMConfig(**route)).solution[0]
    reference = torch.linalg.solve(matrix.float().double(), right.float().double())
    assert 1e3 < condition_number(matrix) < 1e4
    assert (found.double() - reference).norm() < 1e-4 * reference.norm()


def test_lu_and_svd_share_a_batch_matrix_by_matrix():
    """Of a batch with one ill-conditioned system each is solved as it would be alone."""
    matrix = torch.stack([with_singular_values([1, 0.5, 0.2]), with_singular_values([1, 0.5, 1e-6])])
    right = randn(2, 3, 2)
    config = SRMConfig(kappa_max=100.0)
    both = solve_system(matrix, right, config).solution
    for index in range(2):
        alone = solve_system(matrix[index : index + 1], right[index : index + 1], config).solution[0]
        torch.testing.assert_close(both[index], alone, rtol=1e-12, atol=0)
    assert torch.equal(both[0], torch.linalg.solve(matrix[:1], right[:1])[0])
    assert torch.equal(both[1], solve_svd(matrix[1:], right[1:])[0])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "matrix", [repeated(), with_singular_values([3, 2, 2, 1, 1])], ids=["landmarks", "random"]
)
def test_the_gradient_is_right_at_repeated_singular_values(route, matrix):
    """Where the SVD's own derivative divides by zero, gradcheck passes for every route."""
    config = SRMConfig(**{**route, "power_iterations": 80})
    right = randn(5, 2)
    inputs = (matrix.clone().requires_grad_(), right.requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: solve_system(a[None], b[None], config).solution[0], inputs)


@pytest.mark.parametrize("solver", ["svd", "lu"])
def test_the_second_derivative_is_right_too(solver):
    """Training that penalises gradients differentiates twice: gradgradcheck passes at repeated values."""
    config = SRMConfig(solver=solver)
    inputs = (repeated(3)[None].requires_grad_(), randn(1, 3, 2).requires_grad_())
    assert torch.autograd.gradgradcheck(lambda a, b: solve_system(a, b, config).solution, inputs)


def test_the_gradient_of_a_batch_on_two_routes_is_right():
    """A batch that is solved half by LU and half by SVD passes gradcheck as a whole."""
    matrix = torch.stack([with_singular_values([1, 0.5, 0.2]), with_singular_values([1, 0.1, 0.1])])
    config = SRMConfig(kappa_max=6.0)
    inputs = (matrix.requires_grad_(), randn(2, 3, 2).requires_grad_())
    assert torch.autograd.gradcheck(lambda a, b: solve_system(a, b, config).solution, inputs)


def test_a_singular_matrix_gets_the_pseudo_inverse():
    """Without ridge, equal landmarks make W singular; the SVD route gives the least-squares solution."""
    matrix, right = torch.full((4, 4), 0.25, dtype=torch.float64), randn(4, 2)
    found = solve_svd(matrix, right)
    torch.testing.assert_close(found, torch.linalg.pinv(matrix) @ right)


def test_equilibration_balances_rows_and_columns():
    """Scaling divides by the square roots of the norms and lowers kappa of a badly scaled matrix."""
    matrix = randn(6, 6) * torch.logspace(0, 4, 6).double()[:, None]
    scaled = equilibrated(matrix)
    torch.testing.assert_close(scaled.left.squeeze(), matrix.norm(dim=1).rsqrt())
    torch.testing.assert_close(scaled.right.squeeze(), matrix.norm(dim=0).rsqrt())
    torch.testing.assert_close(scaled.matrix, scaled.left * matrix * scaled.right.mT)
    assert condition_number(scaled.matrix) < condition_number(matrix) / 10


def test_condition_number_and_residual_are_what_they_say():
    """One is the ratio of the extreme singular values, the other relative to the right side's norm."""
    torch.testing.assert_close(condition_number(with_singular_values([4, 2, 0.5])).item(), 8.0)
    matrix, solution = torch.eye(2).double(), torch.tensor([[3.0], [0.0]]).double()
    right = torch.tensor([[3.0], [4.0]]).double()
    assert relative_residual(matrix, solution, right).item() == pytest.approx(0.8)


def test_the_power_iteration_finds_the_spectral_norm():
    """Given iterations enough it is the largest singular value, and its gradient is u v^T."""
    matrix = with_singular_values([3, 1, 0.5]).requires_grad_()
    norm = spectral_norm(matrix, 100)
    (gradient,) = torch.autograd.grad(norm, matrix)
    u, _, vh = torch.linalg.svd(matrix.detach())
    torch.testing.assert_close(norm.item(), 3.0)
    torch.testing.assert_close(gradient, u[:, :1] @ vh[:1])


def test_the_neumann_series_is_its_sum():
    """Horner's rule gives c sum (I - c A)^k B."""
    matrix, right = with_singular_values([2, 1.5, 1]), randn(3, 2)
    step = torch.eye(3).double() - matrix / 2
    expected = 0.5 * sum(torch.linalg.matrix_power(step, k) for k in range(4)) @ right
    torch.testing.assert_close(neumann_series(matrix, right, 3, 200), expected)


def neumann(matrix, right, residual=1e-2):
    """Solve by three terms of the series."""
    config = SRMConfig(neumann_terms=3, neumann_residual=residual, power_iterations=200, kappa_max=1e4)
    return solve_neumann(matrix, right, config)


def test_neumann_is_kept_exactly_when_both_its_conditions_hold():
    """Contraction and small residual keep it; either one missing, it falls back and says so."""
    near = torch.eye(4).double() + 0.05 * randn(4, 4)
    slow = torch.diag(torch.tensor([1.0, 0.9, 0.5, 0.1])).double()
    # A rotation: ||I - c A|| = sqrt 2 > 1 although the matrix is perfectly conditioned.
    turned = torch.tensor([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]).double()
    matrix, right = torch.stack([near, slow, turned]), randn(3, 4, 2)
    found = neumann(matrix, right)
    assert found.fell_back.tolist() == [False, True, True]
    torch.testing.assert_close(found.solution[0], neumann_series(near, right[0], 3, 200))
    torch.testing.assert_close(found.solution[1:], torch.linalg.solve(matrix[1:], right[1:]))
    assert neumann(matrix, right, residual=1.0).fell_back.tolist() == [False, False, True]


def test_a_refused_series_that_diverges_leaves_no_trace_in_the_gradient():
    """The gradient of a fallen-back system is that of the default route, finite and equal."""
    matrix = (1e-30 * torch.eye(3) + torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1e-3]])).double()
    right = randn(3, 2)
    ours, theirs = matrix.clone().requires_grad_(), matrix.clone().requires_grad_()
    (found,) = torch.autograd.grad(neumann(ours[None], right[None]).solution.sum(), ours)
    (expected,) = torch.autograd.grad(torch.linalg.solve(theirs, right).sum(), theirs)
    torch.testing.assert_close(found, expected)
