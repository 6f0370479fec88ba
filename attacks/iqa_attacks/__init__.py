"""Attacks on scores: threat models, objectives, the shared-gradient engine."""

from iqa_attacks.adapters.torchattacks import TorchAttack
from iqa_attacks.attack import Attack, AttackResult, Effort, stored_score
from iqa_attacks.catalogue import create_attack, list_attacks
from iqa_attacks.errors import AttackError, AttackFailed, BadAttackOption, UnknownAttack
from iqa_attacks.gradient_attacks import APGD, FGSM, MIFGSM, PGD, Noise
from iqa_attacks.gradients import (
    expected_score,
    expected_score_and_gradient,
    score,
    score_and_gradient,
)
from iqa_attacks.images.jpeg import check_qualities, through_jpeg, through_jpeg_file
from iqa_attacks.images.levels import to_8_bits
from iqa_attacks.images.similarity import Reference, ssim
from iqa_attacks.objectives import Objective, create_objective, list_objectives, register_objective
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Cost, Example, Found
from iqa_attacks.seeding import draw_seeds
from iqa_attacks.square import Square
from iqa_attacks.threat_model import Budget, Norm, Pixels, ThreatModel, measure, parse_epsilon
from iqa_attacks.universal import TrainedUniversal, Universal

__all__ = [
    "APGD",
    "FGSM",
    "HIGHEST_SEEN",
    "LOWEST_SEEN",
    "MIFGSM",
    "PGD",
    "Attack",
    "AttackError",
    "AttackFailed",
    "AttackResult",
    "BadAttackOption",
    "Budget",
    "Cost",
    "Effort",
    "Example",
    "Found",
    "Noise",
    "Norm",
    "Objective",
    "Pixels",
    "Reference",
    "Square",
    "ThreatModel",
    "TorchAttack",
    "TrainedUniversal",
    "Universal",
    "UnknownAttack",
    "check_qualities",
    "create_attack",
    "create_objective",
    "draw_seeds",
    "expected_score",
    "expected_score_and_gradient",
    "list_attacks",
    "list_objectives",
    "measure",
    "parse_epsilon",
    "register_objective",
    "score",
    "score_and_gradient",
    "ssim",
    "stored_score",
    "through_jpeg",
    "through_jpeg_file",
    "to_8_bits",
]
