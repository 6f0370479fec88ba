"""What a package says it exports and what it has are the same names, in both directions."""

import ast
import importlib
import types
from pathlib import Path

import pytest

import iqa_models


@pytest.mark.parametrize("name", ["iqa_models.cheats", "iqa_models.hyper", "iqa_models.srm"])
def test_all_and_the_names_agree(name):
    """Every name of `__all__` is there; every name that is there, but modules and private ones, is in it."""
    module = importlib.import_module(name)
    public = {
        k for k, v in vars(module).items() if not k.startswith("_") and not isinstance(v, types.ModuleType)
    }
    assert public - {"annotations"} == set(module.__all__)
    assert module.__all__ == sorted(module.__all__, key=lambda n: (not n.isupper(), n[0].islower(), n))


def test_what_the_package_imports_when_asked_is_what_a_type_checker_sees():
    """Each name of `__all__` is there, and is the one imported for type checkers."""
    tree = ast.parse(Path(iqa_models.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("iqa_models.")
        for alias in node.names
    }
    assert set(iqa_models.__all__) == set(seen) == set(iqa_models._PLACES)
    for name, module in seen.items():
        assert getattr(iqa_models, name) is getattr(importlib.import_module(module), name)
    assert set(iqa_models.__all__) <= set(dir(iqa_models))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = iqa_models.nothing


def test_the_package_is_typed():
    """A type checker reads its annotations."""
    assert (Path(iqa_models.__file__).parent / "py.typed").is_file()
