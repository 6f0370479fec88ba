"""Attacks by name."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from iqa_attacks.adapters.torchattacks import TorchAttack
from iqa_attacks.attack import Attack
from iqa_attacks.errors import BadAttackOption, UnknownAttack
from iqa_attacks.gradient_attacks import APGD, FGSM, MIFGSM, PGD, Noise
from iqa_attacks.square import Square
from iqa_attacks.universal import Universal

_ATTACKS: dict[str, type[Attack]] = {
    cls.kind: cls for cls in (FGSM, PGD, MIFGSM, APGD, Noise, Square, Universal, TorchAttack)
}


def list_attacks() -> list[str]:
    """Return the kinds of attack, sorted."""
    return sorted(_ATTACKS)


def create_attack(kind: str, **settings: Any) -> Attack:
    """Create an attack by kind.

    Raises:
        UnknownAttack: no attack of that kind; the message holds the nearest one.
        BadAttackOption: an unknown or missing setting, or one out of its range.
    """
    if kind not in _ATTACKS:
        raise UnknownAttack(f"no attack {kind!r}{_near(kind, list_attacks())}; there are {list_attacks()}")
    cls = _ATTACKS[kind]
    known = [f.name for f in fields(cls)]
    for name in settings:
        if name not in known:
            raise BadAttackOption(f"{kind} has no setting {name!r}{_near(name, known)}; it takes {known}")
    try:
        return cls(**settings)
    except TypeError as error:
        raise BadAttackOption(f"{kind}: {error}") from error


def _near(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""
