"""What can go wrong with an attack, as one tree.

AttackError
├── UnknownAttack     no attack, objective or norm of that name
├── BadAttackOption   a setting out of its range, or one that contradicts another
└── AttackFailed      the model, or an objective, gave numbers no attack can use
"""

from iqa_errors import IQAError


class AttackError(IQAError):
    """Base of everything this package raises for a user's mistake."""


class UnknownAttack(AttackError):
    """No attack, objective or norm of that name."""


class BadAttackOption(AttackError):
    """A setting is out of its range, or contradicts another."""


class AttackFailed(AttackError):
    """The model gave scores or gradients, or an objective a loss, that no attack can use."""
