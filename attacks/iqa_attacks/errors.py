"""What can go wrong with an attack, as one tree.

AttackError
├── UnknownAttack     no attack, objective or norm of that name
├── BadAttackOption   a setting out of its range, or one that contradicts another
├── AttackFailed      the model, or an objective, gave numbers no attack can use
└── NoCertificate     nothing here bounds this model's scores under this threat model
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from iqa_errors import IQAError
from iqa_models import ModelError


class AttackError(IQAError):
    """Base of everything this package raises for a user's mistake."""


class UnknownAttack(AttackError):
    """No attack, objective or norm of that name."""


class BadAttackOption(AttackError):
    """A setting is out of its range, or contradicts another."""


class AttackFailed(AttackError):
    """The model gave scores or gradients, or an objective a loss, that no attack can use."""

    def __init__(self, message: str, image: int | None = None) -> None:
        """Take the message and, where one image is to blame, its place in the batch."""
        super().__init__(message)
        self.image = image


class NoCertificate(AttackError):
    """Nothing here bounds this model's scores under this threat model; the message says why."""


@contextmanager
def naming(ids: Sequence[str]) -> Iterator[None]:
    """Name the image in what goes wrong inside: the one to blame among images of these ids, or the only one.

    Raises:
        AttackError: what was raised inside, of the same kind, with the image named; also where the model
            refused the only image by its size or values.
    """
    try:
        yield
    except (AttackError, ModelError) as error:
        at = 0 if len(ids) == 1 else getattr(error, "image", None)
        if at is None:
            raise
        kind = type(error) if isinstance(error, AttackError) else AttackError
        raise kind(f"image {ids[at]!r}: {error}") from error
