"""What a package says it exports and what it has are the same names, in both directions."""

import importlib
import types
from pathlib import Path

import pytest

import iqa_models


@pytest.mark.parametrize("name", ["iqa_models", "iqa_models.cheats", "iqa_models.hyper", "iqa_models.srm"])
def test_all_and_the_names_agree(name):
    """Every name of `__all__` is there; every name that is there, but modules and private ones, is in it."""
    module = importlib.import_module(name)
    public = {
        k for k, v in vars(module).items() if not k.startswith("_") and not isinstance(v, types.ModuleType)
    }
    assert public - {"annotations"} == set(module.__all__)
    assert module.__all__ == sorted(module.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))


def test_the_package_is_typed():
    """A type checker reads its annotations."""
    assert (Path(iqa_models.__file__).parent / "py.typed").is_file()
