"""Planted cheats: models that look robust and are not, each made for one flag of the harness."""

from iqa_models.cheats.base import Contrast
from iqa_models.cheats.contract import BatchCoupled, Constant, HiddenNoise
from iqa_models.cheats.inputs import Compressed, Fragile8Bit, InnerBudget, WrongRange
from iqa_models.cheats.masked import Detached, QuantisedInput, SaturatedHead, Shattered, Tired, WrongSign

HONEST = "cheat_none"
"""The network under all of them."""

CHEATS: dict[str, str] = {
    "cheat_quantised_input": "zero_gradients",
    "cheat_saturated_head": "zero_gradients",
    "cheat_detached": "gradient_missing",
    "cheat_wrong_sign": "gradient_disagrees",
    "cheat_tired": "changed_during_run",
    "cheat_jpeg": "gradient_disagrees",
    "cheat_shattered": "noise_as_strong",
    "cheat_hidden_noise": "scores_vary",
    "cheat_batch_coupled": "batch_dependence",
    "cheat_wrong_range": "input_range",
    "cheat_inner_budget": "larger_epsilon_not_stronger",
    "cheat_fragile_8bit": "rounding_decides",
    "cheat_constant": "constant_predictor",
}
"""Every cheat and the flag meant for it."""

__all__ = [
    "CHEATS",
    "HONEST",
    "BatchCoupled",
    "Compressed",
    "Constant",
    "Contrast",
    "Detached",
    "Fragile8Bit",
    "HiddenNoise",
    "InnerBudget",
    "QuantisedInput",
    "SaturatedHead",
    "Shattered",
    "Tired",
    "WrongRange",
    "WrongSign",
]
