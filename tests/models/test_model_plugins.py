"""Models of installed packages: registered at the first look-up, and a broken one harms nobody."""

import subprocess
import sys

import pytest

from iqa_models import registry
from iqa_models.entry_points import load_group
from iqa_models.index import OWN

PACKAGE = """
from iqa_models import LinearQuality, create_model, register_model


@register_model("{0}_model")
def build():
    base = create_model("linear")
    return LinearQuality(base.spec.replace(name="{0}_model", options={{}}), base.pattern.data, 0.5)


def register():
    register_model("{0}_called")(lambda: build())


def broken():
    register_model("{0}_half")(build)
    raise OSError("no licence")
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package on the path with an entry point of each kind; nothing of it stays behind."""
    for name, targets in {
        "good": {"a": "", "b": ":build", "c": ":register"}, "bad": {"x": ":broken", "y": ".missing"},
    }.items():  # fmt: skip
        (tmp_path / f"entry_{name}.py").write_text(PACKAGE.format(name))
        info = tmp_path / f"entry_{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: entry-{name}\nVersion: 1.0\n")
        lines = "".join(f"{key} = entry_{name}{target}\n" for key, target in targets.items())
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert all(registry.find_builder(name) for name in OWN)  # ours stay: they register at their import
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))
    monkeypatch.setattr(registry, "_LOADED", set())
    load_group.cache_clear()
    yield tmp_path
    load_group.cache_clear()
    for name in ("entry_good", "entry_bad"):
        sys.modules.pop(name, None)


def test_an_installed_package_adds_models(installed):
    """By being imported or called; what fails is named, and half of it is not left."""
    with pytest.warns(UserWarning) as caught:
        found = set(registry.list_models("*_*"))
    words = "\n".join(str(warning.message) for warning in caught)
    assert {"good_model", "good_called", "bad_model"} <= found
    assert "bad_half" not in found
    assert "'x' (iqa_harness.models) is skipped: OSError: no licence" in words
    assert "'y' (iqa_harness.models) of entry-bad is skipped" in words
    assert registry.create_model("good_model").spec.name == "good_model"
    assert registry.find_builder("good_called") is not None


@pytest.mark.slow
def test_nothing_is_loaded_at_import(installed):
    """Another process that imports the package has not imported the plug-in; one that looks up has.

    PyTorch is loaded once: each look-up is made in a fork of that process.
    """
    code = """
import os, sys, iqa_models, torch
for look_up in (
    lambda: iqa_models.list_models(),
    lambda: iqa_models.has_random_head("good_model"),
    lambda: iqa_models.describe_model("good_model"),
):
    print("entry_good" in sys.modules, flush=True)
    child = os.fork()
    if not child:
        look_up()
        print("entry_good" in sys.modules, flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    path = {"PYTHONPATH": ":".join(sys.path), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path)
    assert done.stdout.split() == ["False", "True"] * 3
