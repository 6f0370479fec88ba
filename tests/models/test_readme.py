"""The README of this folder runs as printed."""

import re
from pathlib import Path

import pytest

from iqa_models import registry
from iqa_models.index import OWN

README = Path(__file__).parents[2] / "models" / "README.md"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_printed_example_runs(number, capsys):
    """Each example in the README runs without a warning and leaves no model behind."""
    before = set(registry._BUILDERS)
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[number]
    exec(compile(code, str(README), "exec"), {})  # noqa: S102  (the page under test)
    for name in registry._BUILDERS.keys() - before - OWN.keys():
        del registry._BUILDERS[name]
    assert capsys.readouterr().out
