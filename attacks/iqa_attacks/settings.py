"""Settings of an attack, declared once: type, default, range, and how a suite writes them.

An attack is a frozen dataclass and every field a setting. What its type does not say stands in `Annotated`
beside it: ranges as pydantic's `Field(ge=1)`, and the marks of this module. The attack itself is checked
against them when it is made, and the settings that suites take are derived from them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import pydantic
from pydantic import StrictBool, StrictFloat, StrictInt, TypeAdapter, ValidationError

from iqa_attacks.errors import BadAttackOption

Count = Annotated[int, pydantic.Field(ge=1)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class StepSize:
    """Marks a length in the units of epsilon, at most twice the radius; a suite takes fractions, too."""

    share_key: str | None = None
    """Key under which a suite may give it as a share of the radius; it then gives exactly one of the two."""
    share: float | None = None
    """Share of the radius that it is where a suite leaves it out; None if it must be given."""


@dataclass(frozen=True)
class AtSomeRadii:
    """Marks a setting that a suite may limit to some of its radii; at the others it has its default."""

    key: str
    """Key of those radii; left out, the setting holds at all of them."""


class Later:
    """Marks a setting that came when results were stored already: at its default hashes leave it out."""


class NoKey:
    """Marks a setting that is no key of an attack in a suite: the whole suite has it, or none."""


class NoSetting(NoKey):
    """Marks a field that is no setting at all, and is not checked as one."""


class Setting(NamedTuple):
    """A setting of an attack as its class declares it."""

    name: str
    hint: Any
    """Its type for pydantic, ranges included: a number is a number, no text and no truth value."""
    field: Field[Any]
    marks: tuple[object, ...]

    def mark(self, kind: type[Any]) -> Any:
        """Return its mark of a kind, None if it has none."""
        return next((mark for mark in self.marks if isinstance(mark, kind)), None)

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.field.default is MISSING and self.field.default_factory is MISSING


@functools.cache
def settings_of(cls: type[Any]) -> tuple[Setting, ...]:
    """Return the settings that an attack's class declares, its bases' first."""
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in fields(cls):
        hint = hints[field.name]
        marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        setting = Setting(field.name, _strict(hint), field, marks)
        if setting.mark(NoSetting) is None:
            found.append(setting)
    return tuple(found)


def unsaid(cls: type, values: Mapping[str, Any]) -> set[str]:
    """Return the settings that hashes leave out: `Later` ones at their default."""
    declared = settings_of(cls)  # a class is hashable
    later = (setting for setting in declared if setting.mark(Later))
    return {setting.name for setting in later if values[setting.name] == setting.field.default}


def check_settings(attack: Any, kind: str) -> None:
    """Hold every setting of an attack against its declaration; lists become tuples, as they are declared.

    Raises:
        BadAttackOption: a setting of another type or out of its range, by name.
    """
    for setting, adapter in _adapters(type(attack)):  # type: ignore[arg-type]  # a class is hashable
        try:
            value = adapter.validate_python(getattr(attack, setting.name))
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join((setting.name, *map(str, wrong["loc"])))
            raise BadAttackOption(f"{kind}: {where}: {wrong['msg']}, not {wrong['input']!r}") from error
        object.__setattr__(attack, setting.name, value)


@functools.cache
def _adapters(cls: type[Any]) -> tuple[tuple[Setting, TypeAdapter[Any]], ...]:
    return tuple((setting, TypeAdapter(setting.hint)) for setting in settings_of(cls))  # type: ignore[arg-type]


_NUMBERS: dict[Any, Any] = {int: StrictInt, float: StrictFloat, bool: StrictBool}


def _strict(hint: Any) -> Any:
    """Return a type whose numbers are taken as numbers only; `tuple` takes lists, as TOML writes them."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return Annotated[(_strict(inner[0]), *inner[1:])]
    if origin in (Union, UnionType):
        return Union[tuple(_each(inner))]  # noqa: UP007 - made of a tuple of types
    if origin is tuple:
        return tuple[tuple(_each(inner))]  # type: ignore[misc]
    if origin in (Mapping, dict):
        return dict[tuple(_each(inner))]  # type: ignore[misc]
    return _NUMBERS.get(hint, hint)


def _each(hints: tuple[Any, ...]) -> Iterator[Any]:
    return (hint if hint is Ellipsis else _strict(hint) for hint in hints)
