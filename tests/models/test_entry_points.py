"""Plug-ins of really installed distributions: a dist-info folder on the path, read by importlib.metadata."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from iqa_models.entry_points import load_group


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, and a process that has loaded none of them yet."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    load_group.cache_clear()
    yield tmp_path
    load_group.cache_clear()
    for name in set(sys.modules) - before:
        del sys.modules[name]


def install(site: Path, package: str, module: str, source: str, entries: str) -> None:
    (site / f"{module}.py").write_text(source)
    info = site / f"{package.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entries)


def test_what_packages_offer_is_found_by_name_and_loaded_once(site: Path) -> None:
    source = "import pathlib\nloads = pathlib.Path(__file__).with_suffix('.loads')\n"
    source += "loads.write_text((loads.read_text() if loads.exists() else '') + 'x')\nanswer = 42\n"
    install(
        site, "kind-package", "kind_package", source, "[some.group]\nb = kind_package:answer\na = math:pi\n"
    )
    assert not (site / "kind_package.loads").exists()
    assert dict(load_group("some.group")) == {"a": math.pi, "b": 42}
    assert list(load_group("some.group")) == ["a", "b"]
    assert (site / "kind_package.loads").read_text() == "x"
    assert not load_group("no.such.group")


def test_a_broken_one_is_named_and_the_others_stay(site: Path) -> None:
    entries = "[some.group]\nbad = broken_package:answer\ngone = math:no_such_name\ngood = math:pi\n"
    install(site, "broken-package", "broken_package", "raise RuntimeError('no luck')\n", entries)
    with pytest.warns(UserWarning, match="of broken-package is skipped") as caught:
        assert list(load_group("some.group")) == ["good"]
    said = [str(warning.message) for warning in caught]
    assert "entry point 'bad'" in said[0] and "RuntimeError: no luck" in said[0]
    assert "entry point 'gone'" in said[1] and "AttributeError" in said[1] and len(said) == 2


def test_of_two_packages_with_one_name_the_first_by_name_counts_and_the_other_is_named(site: Path) -> None:
    install(site, "b-package", "b_package", "answer = 'b'\n", "[some.group]\nx = b_package:answer\n")
    install(site, "a-package", "a_package", "answer = 'a'\n", "[some.group]\nx = a_package:answer\n")
    with pytest.warns(UserWarning, match="of b-package is skipped: another package has that name"):
        assert dict(load_group("some.group")) == {"x": "a"}
