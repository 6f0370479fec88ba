"""What training costs; what every attack costs is in the contract."""

import pytest
from torch import Tensor

from helpers.attack_cases import BOTH, Counting, Wavy, targets
from iqa_attacks import ThreatModel, create_attack


def _spent(cost, steps):
    return tuple(sum(c[k] for (_, s), c in cost.items() if s == steps) for k in range(2))


@pytest.mark.parametrize("draws", [None, 3])
def test_the_training_of_a_universal_change_is_counted(draws):
    """Steps times batch times draws for each objective, told apart from what an image costs."""
    model = Counting(is_stochastic=draws is not None).eval()
    images, ids, mos = targets([(8, 8)] * 7)
    attack = create_attack(
        "universal", threat=ThreatModel("inf", 0.05), objectives=BOTH, steps=5, step_size=0.02, batch=3,
        eot_samples=draws,
    )  # fmt: skip
    trained = attack.trained(model, images[:4], ids[:4])
    assert trained.training == (model.forwards, model.backwards, 0) == (30 * (draws or 1),) * 2 + (0,)
    before, model.forwards, model.backwards = (model.forwards, model.backwards), 0, 0
    result = trained.run(model, images[4:], ids[4:], mos[4:])
    clean = 3 * (draws or 1)
    assert _spent(result.cost, 5) == (model.forwards - clean, 0)
    whole = trained.with_training(result)
    assert _spent(whole.cost, 5) == (model.forwards - clean + before[0], before[1])
    assert whole.cost[1, 5] == result.cost[1, 5]


def test_gradients_of_zero_in_training_are_counted():
    """A flat model has no others."""

    class Flat(Wavy):
        def predict(self, images: Tensor) -> Tensor:
            return super().predict(images) * 0

    images, ids, _ = targets([(8, 8)] * 4)
    attack = create_attack(
        "universal", threat=ThreatModel("inf", 0.05), objectives=BOTH, steps=5, step_size=0.02
    )
    assert attack.trained(Flat().eval(), images, ids).training == (40, 40, 40)
