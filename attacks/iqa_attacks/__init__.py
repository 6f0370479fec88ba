"""Attacks on scores: threat models, objectives, the shared-gradient engine."""

from iqa_attacks.attack import FGSM, PGD, Attack, AttackResult, create_attack, list_attacks
from iqa_attacks.engine import HIGHEST_SEEN, LOWEST_SEEN, Cost, Example, Found
from iqa_attacks.errors import AttackError, AttackFailed, BadAttackOption, UnknownAttack
from iqa_attacks.gradients import score, score_and_gradient
from iqa_attacks.objectives import Objective, create_objective, list_objectives
from iqa_attacks.threat_model import Budget, Norm, ThreatModel, measure, parse_epsilon

__all__ = [
    "FGSM",
    "HIGHEST_SEEN",
    "LOWEST_SEEN",
    "PGD",
    "Attack",
    "AttackError",
    "AttackFailed",
    "AttackResult",
    "BadAttackOption",
    "Budget",
    "Cost",
    "Example",
    "Found",
    "Norm",
    "Objective",
    "ThreatModel",
    "UnknownAttack",
    "create_attack",
    "create_objective",
    "list_attacks",
    "list_objectives",
    "measure",
    "parse_epsilon",
    "score",
    "score_and_gradient",
]
