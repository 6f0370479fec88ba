"""Classes by name: registered by a decorator here, or offered by other packages through entry points."""

from __future__ import annotations

import importlib
import pkgutil
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from iqa_attacks.errors import AttackError, BadAttackOption, UnknownAttack
from iqa_models.entry_points import load_group
from iqa_models.registry import did_you_mean

T = TypeVar("T")


@dataclass
class Registry(Generic[T]):
    """A catalogue of classes of one base, found by the name that each carries.

    At the first look-up every module of this package is imported, so that a new class is one file, and so is
    what other installed packages name in the entry point group: the class itself, or a module that registers.
    """

    noun: str
    """What a class is called in messages."""
    attribute: str
    """Class attribute that holds its name."""
    base: type[T]
    """What it derives from."""
    group: str
    """Entry points that are read at the first look-up."""
    taken: tuple[str, ...] = ()
    """Names that nothing may have."""
    check: Callable[[type[T]], None] = lambda cls: None
    """Raises `BadAttackOption` for a class that cannot be used."""
    _classes: dict[str, type[T]] = field(default_factory=dict)
    _complete: bool = False

    def add(self, cls: type[T]) -> None:
        """Take in a class under its name; the same class twice is the same.

        Raises:
            BadAttackOption: the name is taken or not lower case with underscores, or the class is of no use.
        """
        name = getattr(cls, self.attribute, "")
        if not isinstance(name, str) or re.fullmatch(r"[a-z][a-z0-9_]*", name) is None:
            raise BadAttackOption(f"{self.noun} {name!r}: a name is lower case with underscores")
        if name in self.taken or self._classes.get(name, cls) is not cls:
            raise BadAttackOption(f"{self.noun} {name!r} is taken")
        self.check(cls)
        self._classes[name] = cls

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._complete_it()
        return sorted(self._classes)

    def find(self, name: str) -> type[T]:
        """Return the class of a name.

        Raises:
            UnknownAttack: none has it; the message holds the nearest one.
        """
        known = self.names()
        if name not in self._classes:
            near = did_you_mean(name, known)
            raise UnknownAttack(f"no {self.noun} {name!r}{near}; there are {', '.join(known)}")
        return self._classes[name]

    def _complete_it(self) -> None:
        if self._complete:
            return
        self._complete = True  # first: a plug-in may look something up while it is imported
        package = importlib.import_module(__package__)
        for module in pkgutil.walk_packages(package.__path__, f"{__package__}."):
            importlib.import_module(module.name)
        for entry, offered in load_group(self.group).items():
            try:
                self._take(offered)
            except AttackError as error:
                warnings.warn(f"entry point {entry!r} ({self.group}) is skipped: {error}", stacklevel=4)

    def _take(self, offered: object) -> None:
        if isinstance(offered, type) and issubclass(offered, self.base):
            self.add(offered)
        elif not hasattr(offered, "__path__") and not hasattr(offered, "__file__"):
            raise BadAttackOption(f"{offered!r} is no class of {self.base.__name__} and no module with one")
