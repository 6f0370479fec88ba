"""Which values an option of a torchattacks attack may have: what does nothing there is refused here.

The library takes whatever it is given. No averaged copies, an amplification of 0 or a NaN leave the image
where it is, and a text is as true as any other: an attack that attacks nothing would pass for a defence.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from iqa_attacks.errors import BadAttackOption
from iqa_attacks.threat_model import ThreatModel, parse_epsilon

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


def check_step(where: str, step: float, threat: ThreatModel, *, repeated: bool) -> None:
    """Refuse a step that overshoots the ball, the library's default (for 8/255) included.

    Args:
        where: what the message calls it.
        step: its length.
        threat: the ball.
        repeated: whether the attack takes several; a single one may go beyond, as FFGSM's does.

    Raises:
        BadAttackOption: the step is refused.
    """
    if repeated or not step > 0:
        threat.check_step(where, step)


def check_option(attack: str, name: str, value: object, default: object) -> None:
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
    if name == "alpha":
        _length(where, value)
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise BadAttackOption(f"{where} is true or false, not {value!r}")
    elif isinstance(default, int) and name != "nsig":  # a width in standard deviations
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadAttackOption(f"{where} is a whole number, not {value!r}")
    elif isinstance(default, int | float):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadAttackOption(f"{where} is a finite number, not {value!r}")
    elif value not in _WORDS.get(name, (default,)):
        known = ", ".join(repr(word) for word in _WORDS.get(name, (default,)))
        raise BadAttackOption(f"{where} is one of {known}, not {value!r}")
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


def check_resizing(attack: str, rate: float, width: int) -> None:
    """Refuse a resize rate that leaves an image of some width no size to be drawn.

    Raises:
        BadAttackOption: the width times the rate, rounded down, is 0 or the width itself.
    """
    if int(width * rate) in (0, width):
        raise BadAttackOption(
            f"torchattacks.{attack}: resize_rate {rate:g} leaves an image {width} pixels wide no other size"
        )


def _length(where: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadAttackOption(f"{where} is a number or a fraction such as '1/255', not {value!r}")
    return parse_epsilon(value)
