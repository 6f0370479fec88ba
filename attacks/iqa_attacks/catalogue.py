"""Attacks by name: ours, those of the user's own code, and those of other installed packages."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

from iqa_attacks.attack import Attack
from iqa_attacks.errors import BadAttackOption
from iqa_attacks.registry import Registry
from iqa_models.registry import did_you_mean

A = TypeVar("A", bound=type[Attack])

_ATTACKS: Registry[Attack] = Registry(
    "attack",
    "kind",
    Attack,  # type: ignore[type-abstract]  # the base of what is registered, never made itself
    group="iqa_harness.attacks",
    taken=("clean", "transfer", "ensemble"),
)


def register_attack(cls: A) -> A:
    """Add an attack of your own to the catalogue, under its `kind`; a class decorator.

    `create_attack` and suites in this process then take it by name, its settings being the fields of the
    class. Another installed package offers one through the entry point group `iqa_harness.attacks`.

    Raises:
        BadAttackOption: the name is taken or not lower case with underscores.
    """
    _ATTACKS.add(cls)
    return cls


def list_attacks() -> list[str]:
    """Return the kinds of attack, sorted."""
    return _ATTACKS.names()


def find_attack(kind: str) -> type[Attack]:
    """Return the class of a kind of attack.

    Raises:
        UnknownAttack: no attack of that kind; the message holds the nearest one.
    """
    return _ATTACKS.find(kind)


def create_attack(kind: str, **settings: Any) -> Attack:
    """Create an attack by kind.

    Raises:
        UnknownAttack: no attack of that kind; the message holds the nearest one.
        BadAttackOption: an unknown or missing setting, or one out of its range.
    """
    cls = find_attack(kind)
    known = {f.name: f.default is MISSING and f.default_factory is MISSING for f in fields(cls)}
    for name in settings:
        if name not in known:
            near = did_you_mean(name, known)
            raise BadAttackOption(f"{kind} has no setting {name!r}{near}; it takes {list(known)}")
    missing = [name for name, required in known.items() if required and name not in settings]
    if missing:
        raise BadAttackOption(f"{kind}: missing {', '.join(missing)}")
    return cls(**settings)
