"""A user's JSON and TOML are read within bounds: what no field could take is an error that names the key."""

from __future__ import annotations

import pytest

from iqa_errors.json_text import read_json
from iqa_errors.toml_text import read_toml

LONGEST = 2**64 - 1


@pytest.mark.parametrize("value", [0, -1, LONGEST, -LONGEST, True, 1e308, "1" * 400])
def test_what_64_bits_hold_is_read_as_it_stands(value: object) -> None:
    """The bound itself is inside, truth values and digits in a text are no whole numbers."""
    text = f'"{value}"' if isinstance(value, str) else str(value).lower()
    assert read_json(f'{{"a": [{text}]}}') == {"a": [value]}


@pytest.mark.parametrize("number", [str(LONGEST + 1), str(-LONGEST - 1), "9" * 400])
def test_a_longer_number_is_named_with_its_key(number: str) -> None:
    """However deep it stands, and first or last."""
    with pytest.raises(ValueError, match=r"^a\.1\.b: a whole number beyond 64 bits$"):
        read_json(f'{{"a": [0, {{"b": {number}}}], "c": 1}}')
    with pytest.raises(ValueError, match=r"^the value: "):
        read_json(number)
    with pytest.raises(ValueError, match=r"^a\.b\.1: a whole number beyond 64 bits$"):
        read_toml(f"[a]\nb = [0, {number}]")


@pytest.mark.parametrize(
    "text",
    ["NaN", "[Infinity]", "1e999", '"\\ud800"', "9" * 5000, "[" * 100_000, '{"a":' * 900 + "1" + "}" * 900],
)
def test_other_absurdities_are_value_errors(text: str) -> None:
    """No RecursionError, no infinity, no half character; what is merely deep may be read."""
    try:
        assert isinstance(read_json(text), dict)
    except ValueError:
        return
    assert text.startswith("{")
