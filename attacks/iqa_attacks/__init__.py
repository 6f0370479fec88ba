"""Attacks on scores: threat models, objectives, the shared-gradient engine."""

from iqa_attacks.adapters.torchattacks import TorchAttack
from iqa_attacks.assignment import judge_of, lowest_choice
from iqa_attacks.attack import Attack, AttackResult, Effort, stored_score
from iqa_attacks.catalogue import create_attack, find_attack, list_attacks, register_attack
from iqa_attacks.closed_loop import ClosedLoop
from iqa_attacks.ensemble import Ensemble
from iqa_attacks.errors import AttackError, AttackFailed, BadAttackOption, UnknownAttack
from iqa_attacks.gradient_attacks import APGD, FGSM, MIFGSM, PGD, Noise
from iqa_attacks.gradients import (
    expected_score,
    expected_score_and_gradient,
    score,
    score_and_gradient,
)
from iqa_attacks.images.jpeg import check_qualities, through_jpeg, through_jpeg_file
from iqa_attacks.images.levels import nearest_levels
from iqa_attacks.images.similarity import Reference, ssim
from iqa_attacks.learner import EVALUATED, Learner, Lesson
from iqa_attacks.minimum_norm import MinimumNorm, Radius, spread_of
from iqa_attacks.objectives import (
    Objective,
    create_objective,
    list_objectives,
    objectives_with_settings,
    register_objective,
)
from iqa_attacks.queries import QueryAttack
from iqa_attacks.results import HIGHEST_SEEN, LOWEST_SEEN, Cost, Example, Found
from iqa_attacks.seeding import draw_seeds
from iqa_attacks.settings import (
    AtSomeRadii,
    Count,
    Later,
    NoKey,
    NoSetting,
    Positive,
    Setting,
    StepSize,
    settings_of,
    unsaid,
)
from iqa_attacks.spsa import SPSA
from iqa_attacks.square import Square
from iqa_attacks.threat_model import Budget, Norm, Pixels, ThreatModel, measure, parse_epsilon, to_8_bits
from iqa_attacks.universal import TrainedUniversal, Universal

__all__ = [
    "APGD",
    "EVALUATED",
    "FGSM",
    "HIGHEST_SEEN",
    "LOWEST_SEEN",
    "MIFGSM",
    "PGD",
    "SPSA",
    "AtSomeRadii",
    "Attack",
    "AttackError",
    "AttackFailed",
    "AttackResult",
    "BadAttackOption",
    "Budget",
    "ClosedLoop",
    "Cost",
    "Count",
    "Effort",
    "Ensemble",
    "Example",
    "Found",
    "Later",
    "Learner",
    "Lesson",
    "MinimumNorm",
    "NoKey",
    "NoSetting",
    "Noise",
    "Norm",
    "Objective",
    "Pixels",
    "Positive",
    "QueryAttack",
    "Radius",
    "Reference",
    "Setting",
    "Square",
    "StepSize",
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
    "find_attack",
    "judge_of",
    "list_attacks",
    "list_objectives",
    "lowest_choice",
    "measure",
    "nearest_levels",
    "objectives_with_settings",
    "parse_epsilon",
    "register_attack",
    "register_objective",
    "score",
    "score_and_gradient",
    "settings_of",
    "spread_of",
    "ssim",
    "stored_score",
    "through_jpeg",
    "through_jpeg_file",
    "to_8_bits",
    "unsaid",
]
