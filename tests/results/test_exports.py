"""What the two packages of results and reports export, held against their READMEs both ways."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import iqa_reports
import iqa_results

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", [iqa_results, iqa_reports], ids=lambda package: package.__name__)
def test_every_exported_name_is_documented_and_every_documented_one_exported(package: ModuleType) -> None:
    """`__all__`, what the package really has, and the names in the README's section are one set."""
    folder = ROOT / package.__name__.removeprefix("iqa_")
    section = (folder / "README.md").read_text(encoding="utf-8").partition("## What it exports\n")[2]
    documented = re.findall(r"`(\w+)`", section.partition("\n## ")[0])
    there = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert sorted(documented) == sorted(package.__all__) == sorted(there)
    things = [getattr(package, name) for name in package.__all__]
    assert [t for t in things if (inspect.isclass(t) or inspect.isfunction(t)) and not t.__doc__] == []


@pytest.mark.parametrize("package", [iqa_results, iqa_reports], ids=lambda package: package.__name__)
def test_a_type_checker_sees_the_package(package: ModuleType) -> None:
    """The marker lies beside the code and goes into the wheel."""
    (folder,) = package.__path__
    assert (Path(folder) / "py.typed").is_file()
    wheel = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(rf'^{package.__name__} = \[.*"py\.typed"', wheel, re.MULTILINE)
