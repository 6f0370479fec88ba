"""Which values an option of a torchattacks attack may have: what does nothing there is refused here.

The library takes whatever it is given. No averaged copies, an amplification of 0 or a NaN leave the image
where it is, and a text is as true as any other: an attack that attacks nothing would pass for a defence.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from iqa_attacks.errors import BadAttackOption

_COUNTS = ("steps", "num_iter_set", "eot_iter", "m", "N", "len_kernel")
_WORDS = {"kernel_name": ("gaussian", "linear", "uniform")}


class _Range(NamedTuple):
    low: float
    high: float
    holds_low: bool = True

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, int | float):
            return False
        return (self.low <= value if self.holds_low else self.low < value) and value <= self.high

    def __str__(self) -> str:
        return f"{'at least' if self.holds_low else 'more than'} {self.low:g} and at most {self.high:g}"


_RANGES = {
    "decay": _Range(0, 10),
    "momentum": _Range(0, 10),
    "prob": _Range(0, 1),
    "diversity_prob": _Range(0, 1),
    "resize_rate": _Range(0, 10, holds_low=False),
    "amplification": _Range(0, 1000, holds_low=False),
    "project_factor": _Range(0, 1000, holds_low=False),
    "beta": _Range(0, 1000, holds_low=False),
    "nsig": _Range(0, 100, holds_low=False),
    "eps_for_division": _Range(0, 1e-6, holds_low=False),  # more of it and the unit step is none
}


def check_option(attack: str, name: str, value: Any, default: object) -> None:
    """Refuse a value that is not of the type of the library's default, or that takes the attack's effect.

    Args:
        attack: name of the attack, for the message.
        name: name of the option.
        value: what the user wants.
        default: the library's own value.

    Raises:
        BadAttackOption: the value is refused, with what would be right.
    """
    where = f"torchattacks.{attack}: {name}"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    words = _WORDS.get(name, (default,))
    if name == "alpha":
        fits, wanted = number or isinstance(value, str), "a number or a fraction such as '1/255'"
    elif isinstance(default, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, int) and name != "nsig":  # a width in standard deviations
        fits, wanted = number and isinstance(value, int), "a whole number"
    elif isinstance(default, int | float):
        fits, wanted = number and math.isfinite(value), "a finite number"
    else:
        fits, wanted = value in words, f"one of {', '.join(map(repr, words))}"
    if not fits:
        raise BadAttackOption(f"{where} is {wanted}, not {value!r}")
    _check_range(where, name, value)


def _check_range(where: str, name: str, value: Any) -> None:
    if name in _COUNTS and value < 1:
        raise BadAttackOption(f"{where} must be at least 1, not {value}")
    if name in _RANGES and value not in _RANGES[name]:
        raise BadAttackOption(f"{where} must be {_RANGES[name]}, not {value}")
    if name == "len_kernel" and value % 2 == 0:
        raise BadAttackOption(f"{where}: the kernel needs a middle; give an odd number, not {value}")
    if name == "resize_rate" and value == 1:
        raise BadAttackOption(f"{where}: at 1 there is no size to draw from; give less, such as 0.9, or more")
