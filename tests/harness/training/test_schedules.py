"""Learning rates step by step, against closed forms, torch's schedulers and the authors' protocols."""

import math

import numpy as np
import pytest
import torch

from iqa_harness.training.config import TrainConfig, load_preset
from iqa_harness.training.optimisers import HEAD, TRUNK, learning_rate, one_cycle


def rates(config, group, peak, steps_per_epoch=3):
    """Return a group's rate at the first step of every epoch."""
    return [
        learning_rate(config, group, peak, epoch * steps_per_epoch, steps_per_epoch)
        for epoch in range(config.epochs)
    ]


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.3, 1.0])
def test_the_learning_rate_rises_once_and_falls_once(steps, warmup):
    """Every share lies in (0, 1], and the shares rise to one peak and fall from it."""
    shares = [one_cycle(step, steps, warmup=warmup) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    peak = int(np.argmax(shares))
    assert shares[: peak + 1] == sorted(shares[: peak + 1])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)


def test_the_learning_rate_is_the_usual_one_cycle():
    """At every step the share equals that of torch's own scheduler with its default factors."""
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=50, pct_start=0.3, cycle_momentum=False
    )
    for step in range(50):
        assert one_cycle(step, 50, warmup=0.3) == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        if step < 49:
            scheduler.step()


def test_the_authors_eta_min_lets_the_trunk_rise():
    """Under SMART-IQA's code the trunk climbs from 5e-7 to 9.88e-7 while the head falls to 1.098e-6."""
    config = load_preset("smart_author")
    trunk, head = rates(config, TRUNK, config.lr_trunk), rates(config, HEAD, config.lr_head)
    assert (trunk[0], head[0]) == pytest.approx((5e-7, 5e-6))
    assert (trunk[-1], head[-1]) == pytest.approx((9.8776e-7, 1.0979e-6), rel=1e-4)
    assert trunk == sorted(trunk)
    assert head == sorted(head, reverse=True)


@pytest.mark.parametrize("name", ["smart_author", "smart_fixed"])
def test_the_cosine_an_epoch_is_torchs(name):
    """Both groups follow torch's CosineAnnealingLR, epoch by epoch, and stay put within an epoch."""
    config = load_preset(name)
    parameters = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimiser = torch.optim.SGD(
        [
            {"params": [p], "lr": lr}
            for p, lr in zip(parameters, (config.lr_trunk, config.lr_head), strict=True)
        ]
    )
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimiser, T_max=config.epochs, eta_min=config.eta_min
    )
    for epoch in range(config.epochs):
        for number, (group, peak) in enumerate(((TRUNK, config.lr_trunk), (HEAD, config.lr_head))):
            inside = [learning_rate(config, group, peak, epoch * 4 + step, 4) for step in range(4)]
            assert inside == pytest.approx([scheduler.get_last_lr()[number]] * 4, rel=1e-9)
        optimiser.step()
        scheduler.step()


def test_the_fixed_preset_falls_to_zero_in_both_groups():
    """Without the quirk both rates fall by the same shares."""
    config = load_preset("smart_fixed")
    trunk, head = rates(config, TRUNK, config.lr_trunk), rates(config, HEAD, config.lr_head)
    assert np.allclose(np.array(head) / np.array(trunk), 10)
    assert head[-1] == pytest.approx(5e-6 * (1 + math.cos(0.9 * math.pi)) / 2)


def test_hyperiqas_paper_decays_both_groups_at_5_and_10():
    """Fifteen epochs: 2e-5 and 2e-4, a tenth after five, a hundredth after ten."""
    config = load_preset("hyperiqa_paper")
    assert config.epochs == 15
    assert rates(config, TRUNK, config.lr_trunk) == pytest.approx([2e-5] * 5 + [2e-6] * 5 + [2e-7] * 5)
    assert rates(config, HEAD, config.lr_head) == pytest.approx([2e-4] * 5 + [2e-5] * 5 + [2e-6] * 5)


def test_hyperiqas_code_decays_the_head_alone():
    """Sixteen epochs: the head at 2e-4 to epoch 7, then a tenth every three; the trunk stays at 2e-5."""
    config = load_preset("hyperiqa_author_code")
    assert rates(config, TRUNK, config.lr_trunk) == [2e-5] * 16
    head = [2e-4] * 7 + [2e-5] * 3 + [2e-6] * 3 + [2e-7] * 3
    assert rates(config, HEAD, config.lr_head) == pytest.approx(head)


def test_srm_warms_up_for_five_of_120_epochs():
    """The rate rises linearly over five epochs of steps to its peak, then falls as a cosine towards 0."""
    config = load_preset("srm")
    steps = [learning_rate(config, HEAD, 1e-4, step, 10) for step in range(1200)]
    assert steps[:50] == pytest.approx([1e-4 * (step + 1) / 50 for step in range(50)])
    assert steps[50:] == pytest.approx(
        [1e-4 * (1 + math.cos(math.pi * step / 1150)) / 2 for step in range(1150)]
    )


def test_a_constant_rate_is_constant():
    """Behind its warm-up the rate does not move."""
    config = TrainConfig(name="x", model="linear", epochs=4, schedule="constant", warmup_epochs=1)
    assert [learning_rate(config, HEAD, 8.0, step, 2) for step in range(8)] == [4.0, *[8.0] * 7]
