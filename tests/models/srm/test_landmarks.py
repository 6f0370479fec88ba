"""Landmarks: leverage scores against their closed form, and what each rule selects."""

import pytest
import torch

from iqa_models.srm import SRMConfig, choose_landmarks, leverage_scores
from iqa_models.srm.landmarks import largest, refine, sampled, select, uniform


def randn(*shape, seed=0, dtype=torch.float64):
    """Draw normal numbers."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_leverage_scores_equal_the_closed_form_by_explicit_inverse():
    """The scores are k^T (K^T K + lambda I)^-1 k with lambda = 1e-2 trace(K^T K) / d."""
    keys = randn(2, 3, 40, 8)
    gram = keys.mT @ keys
    shift = 1e-2 * torch.einsum("bhii->bh", gram) / 8
    inverse = torch.linalg.inv(gram + shift[..., None, None] * torch.eye(8, dtype=torch.float64))
    expected = torch.einsum("bhni,bhij,bhnj->bhn", keys, inverse, keys)
    torch.testing.assert_close(leverage_scores(keys, 1e-2, 1e-12), expected, rtol=1e-10, atol=0)


def test_leverage_scores_of_half_precision_keys_are_float32():
    """bfloat16 keys are raised to float32 before anything is computed, inside autocast too."""
    keys = randn(1, 1, 40, 8).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scores = leverage_scores(keys, 1e-2, 1e-12)
    assert scores.dtype is torch.float32
    torch.testing.assert_close(scores, leverage_scores(keys.float(), 1e-2, 1e-12))


def test_keys_of_zeros_have_scores_of_zero():
    """Where there is nothing to factorise, every score is 0 and the first keys are chosen."""
    keys = torch.zeros(1, 2, 10, 4)
    assert torch.equal(leverage_scores(keys, 1e-2, 1e-12), torch.zeros(1, 2, 10))
    assert choose_landmarks(keys, SRMConfig(rank=3)).tolist() == [[[0, 1, 2]] * 2]


def test_an_outlying_key_is_a_landmark():
    """The one key that spans its own direction has the largest score."""
    keys = torch.cat([randn(99, 4) * torch.tensor([1, 1, 1, 0]), torch.tensor([[0.0, 0, 0, 2]])]).double()
    assert choose_landmarks(keys[None, None], SRMConfig(rank=1)).item() == 99


@pytest.mark.parametrize("seed", range(5))
def test_the_chosen_keys_do_not_depend_on_the_order_of_the_keys(seed):
    """Permuting the keys permutes the indices: the same rows are selected."""
    keys = randn(1, 2, 50, 8, seed=seed)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    config = SRMConfig(rank=12)
    rows = select(keys, choose_landmarks(keys, config))
    mixed = select(keys[:, :, order], choose_landmarks(keys[:, :, order], config))
    torch.testing.assert_close(mixed, rows, rtol=0, atol=0)


def test_equal_scores_are_taken_in_order():
    """Ties fall to the first index, on every machine."""
    assert largest(torch.tensor([1.0, 2, 2, 2, 0]), 2).tolist() == [1, 2]


def test_uniform_landmarks_are_evenly_spaced():
    """Eight keys and four landmarks: the middle of each quarter, in every head."""
    keys = randn(1, 2, 8, 4)
    assert uniform(keys, 4).tolist() == [[[1, 3, 5, 7]] * 2]
    assert choose_landmarks(keys, SRMConfig(rank=4, landmarks="uniform")).tolist() == [[[1, 3, 5, 7]] * 2]


def test_sampling_draws_without_replacement_by_score():
    """Indices differ within a draw, equal generators draw alike, and larger scores are drawn more often."""
    scores = torch.tensor([0.0, 1, 1, 8]).expand(4000, 4)
    drawn = sampled(scores, 2, torch.Generator().manual_seed(0))
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert torch.equal(drawn, sampled(scores, 2, torch.Generator().manual_seed(0)))
    assert (drawn[:, 0] == 3).double().mean() == pytest.approx(0.8, abs=0.03)
    assert (drawn == 0).sum() == 0


def test_sampled_landmarks_are_the_largest_ones_at_evaluation():
    """The stochastic rule draws in training only."""
    keys = randn(1, 2, 50, 8)
    config = SRMConfig(rank=8, landmarks="sampled")
    fixed = choose_landmarks(keys, SRMConfig(rank=8))
    assert torch.equal(choose_landmarks(keys, config), fixed)
    drawn = choose_landmarks(keys, config, training=True, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(drawn.sort().values, fixed.sort().values)


def test_kmeans_finds_one_landmark_in_each_cluster():
    """Among duplicates of four far points the refinement picks all four, where leverage repeats itself."""
    centres = torch.eye(4, dtype=torch.float64) * torch.tensor([4.0, 3, 2, 1]).double()
    keys = centres.repeat_interleave(5, dim=0)[None, None] + 1e-3 * randn(1, 1, 20, 4)
    chosen = choose_landmarks(keys, SRMConfig(rank=4, kmeans=True, kmeans_candidates=5))
    assert sorted((chosen // 5).flatten().tolist()) == [0, 1, 2, 3]


def test_kmeans_repeats_itself_and_survives_equal_keys():
    """The refinement is a function of the keys, each batch element's of its own, and needs no distances."""
    keys = randn(3, 2, 30, 8)
    candidates = largest(leverage_scores(keys, 1e-2, 1e-12), 16)
    chosen = refine(keys, candidates, 8, 3, 0)
    assert torch.equal(chosen, refine(keys, candidates, 8, 3, 0))
    assert torch.equal(chosen[1:2], refine(keys[1:2], candidates[1:2], 8, 3, 0))
    assert refine(torch.ones(1, 1, 30, 8), candidates[:1, :1], 8, 3, 0).shape == (1, 1, 8)


@pytest.mark.parametrize("rule", ["leverage", "uniform", "sampled"])
@pytest.mark.parametrize("kmeans", [False, True])
@pytest.mark.parametrize("rank", [5, 6])
def test_as_many_landmarks_as_keys_are_all_keys(rule, kmeans, rank):
    """With r >= N every rule returns all keys in their order."""
    config = SRMConfig(rank=rank, landmarks=rule, kmeans=kmeans)
    assert choose_landmarks(randn(1, 2, 5, 3), config, training=True).tolist() == [[[0, 1, 2, 3, 4]] * 2]
