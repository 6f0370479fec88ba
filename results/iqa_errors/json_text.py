"""JSON of a user's: read within bounds, so that what is absurd is an error and no crash later."""

from __future__ import annotations

import json
from typing import Any

WHOLE_BITS = 64
"""Of a whole number: a longer one overflows the floats and columns that it meets later, far from its file."""


def read_json(text: str | bytes) -> Any:
    """Return what a JSON text holds.

    Raises:
        ValueError: it is no JSON, or not UTF-8; values are nested too deeply; a number is NaN, infinite or
            longer than 64 bits, in which case the message names its key.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise ValueError("values are nested too deeply; write them flatter") from None
    require_short_numbers(value)
    return value


def require_short_numbers(value: Any) -> None:
    """Refuse a value of lists and dicts in which a whole number is longer than 64 bits.

    Raises:
        ValueError: one is; the message names its key.
    """
    left: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while left:
        place, one = left.pop()
        if isinstance(one, dict):
            left += [((*place, str(key)), inner) for key, inner in one.items()]
        elif isinstance(one, list):
            left += [((*place, str(key)), inner) for key, inner in enumerate(one)]
        elif isinstance(one, int) and one.bit_length() > WHOLE_BITS:
            raise ValueError(f"{'.'.join(place) or 'the value'}: a whole number beyond {WHOLE_BITS} bits")
