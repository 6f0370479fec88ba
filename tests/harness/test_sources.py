"""A user's own model: every file that makes it is in its keys and in the manifest; ours have none."""

import hashlib
import importlib
import sys
import zipfile

import pytest
import torch

from iqa_harness.cells.plan import plan
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.plugins import run_plugin
from iqa_harness.entrants.sources import hash_sources, sources_of
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_models import QualityModel, create_model
from iqa_results import ResultStore

PLUGIN = """
import sys
from pathlib import Path
from torch import nn
sys.path.insert(0, str(Path(__file__).parent))
import {0}_net
from {0}_tools.scale import factor
from iqa_models import LinearQuality, QualityModel, create_model, register_model


class Mine(QualityModel):
    def __init__(self):
        super().__init__(create_model("linear").spec.replace(name="{0}", options={{}}))
        self.net = nn.Sequential({0}_net.Net())

    def predict(self, images):
        return factor() * self.net(images).mean((1, 2, 3))


@register_model("{0}")
def mine():
    return Mine()


@register_model("{0}_composed")
def composed():
    base = create_model("linear", seed=1)
    return LinearQuality(base.spec.replace(name="{0}_composed", options={{}}), base.pattern.data, 0.5)
"""
NET = "from torch import nn\n\n\nclass Net(nn.Module):\n    def forward(self, x):\n        return 2 * x\n"
HELPERS = {"{0}_net.py": NET, "{0}_tools/scale.py": "from .io import *\n\n\ndef factor():\n    return A\n"}
HELPERS |= {"{0}_tools/io.py": "A = 1\n", "{0}_tools/__init__.py": "", "{0}_other.py": "B = 1\n"}


def _keys(images, suite, models):
    entrants = [Entrant(label, model) for label, model in models.items()]
    return {cell.key for cell in plan(suite, entrants, images).cells}


def _plugin(folder, name):
    """Write and run a plugin that needs five of its files; no name in it is taken by another test."""
    for path, text in {"{0}.py": PLUGIN, **HELPERS}.items():
        file = folder / path.format(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.format(name))
    run_plugin(folder / f"{name}.py")
    return folder / f"{name}.py"


def test_every_file_of_a_users_model_is_in_its_keys(tmp_path, images, suite, monkeypatch):
    """An edit of a module's file or of a helper's is another model; one of an unused file is not."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugin = _plugin(tmp_path, "edited")
    kept = _plugin(tmp_path / "copy", "edited").parent  # the same text elsewhere
    assert list(sources_of(plugin).hashes()) == [
        "edited.py", "edited_net.py", "edited_tools/__init__.py", "edited_tools/scale.py",
        "edited_tools/io.py",
    ]  # fmt: skip
    assert sources_of(plugin).hashes() == sources_of(kept / "edited.py").hashes()
    models = {"m": create_model("edited"), "c": create_model("edited_composed")}
    before = _keys(images, suite, models)
    assert len(before) == 30
    for name in sources_of(plugin).hashes():
        file = tmp_path / name
        text = file.read_text()
        file.write_text(f"{text}# edited\n")
        assert not before & _keys(images, suite, models), name
        file.write_text(text)
        assert _keys(images, suite, models) == before
    (tmp_path / "edited_other.py").write_text("B = 2\n")
    assert _keys(images, suite, models) == before


def test_the_path_python_searches_decides_nothing(tmp_path, monkeypatch):
    """Another plugin's folder on the path, with files of the same names, does not change a model's files."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for path, text in {
        "plug.py": "import json\nimport net\nimport tools\nimport deep\n",
        "net.py": "",
        "src/tools.py": "",
        "other/net.py": "",
        "other/tools.py": "",
        "other/json.py": "",
        "other/deep.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    before = sources_of(tmp_path / "plug.py")
    assert list(before.hashes()) == ["plug.py", "net.py", "src/tools.py"]
    for folder in ("other", "src"):
        sys.path.insert(0, str(tmp_path / folder))
        assert sources_of(tmp_path / "plug.py") == before


def test_a_package_goes_before_a_module_of_its_name(tmp_path):
    """As Python has it; the file it never reads is in no key."""
    (tmp_path / "net").mkdir()
    for path in ("net/__init__.py", "net.py"):
        (tmp_path / path).touch()
    (tmp_path / "plug.py").write_text("import net\n")
    assert list(sources_of(tmp_path / "plug.py").hashes()) == ["plug.py", "net/__init__.py"]


def test_python_below_a_plugins_folder_is_not_its_source(tmp_path, monkeypatch):
    """The interpreter's own files and installed ones are left out, even where an import finds them."""
    for path in ("src/json.py", "env/lib.py", "env/site-packages/peer.py", "mine.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    plugin = tmp_path / "plug.py"
    plugin.write_text("import json\nimport mine\nimport env.lib\nfrom env import site\n")
    assert list(sources_of(plugin).hashes()) == ["plug.py", "src/json.py", "mine.py", "env/lib.py"]
    stdlib = str(tmp_path / "src")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    monkeypatch.setattr("sysconfig.get_paths", lambda: dict.fromkeys(_PATHS, stdlib))
    assert list(sources_of(plugin).hashes()) == ["plug.py", "mine.py"]


def test_a_plugin_in_an_environments_folder_keeps_its_helpers(tmp_path, monkeypatch):
    """A prefix that the plugin itself is in hides nothing of it."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "work").mkdir()
    (tmp_path / "work/mine.py").touch()
    (tmp_path / "work/plug.py").write_text("import mine\n")
    assert list(sources_of(tmp_path / "work/plug.py").hashes()) == ["plug.py", "mine.py"]


_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
FAR = """
from iqa_models import QualityModel, create_model

K = {0}


class Far(QualityModel):
    def predict(self, images):
        return images.mean((1, 2, 3)) * K


def make():
    return Far(create_model("linear").spec.replace(name="far", options={{}}))
"""


def _far(place, monkeypatch):
    """Import the module `far_model` from a folder or archive and return its model's hashes."""
    monkeypatch.setattr(sys, "path", [str(place), *sys.path])
    monkeypatch.delitem(sys.modules, "far_model", raising=False)
    importlib.invalidate_caches()
    return hash_sources(importlib.import_module("far_model").make())


def test_a_class_in_a_folder_that_only_the_path_knows_is_in_the_key(tmp_path, monkeypatch):
    """The class says which file it is from."""
    found = []
    for number in (1, 2):
        folder = tmp_path / f"elsewhere{number}"
        folder.mkdir()
        (folder / "far_model.py").write_text(FAR.format(number))
        found.append(_far(folder, monkeypatch))
        assert found[-1] == hashlib.sha256((folder / "far_model.py").read_bytes()).hexdigest()
    assert found[0] != found[1]
    monkeypatch.delitem(sys.modules, "far_model")


def test_a_class_in_an_archive_is_in_the_key_with_its_text(tmp_path, monkeypatch):
    """Archives that differ in a constant give two keys; the same text in another archive gives one."""
    found = []
    for number, constant in enumerate((1, 2, 1)):
        with zipfile.ZipFile(tmp_path / f"{number}.zip", "w") as archive:
            archive.writestr("far_model.py", FAR.format(constant))
        found.append(_far(tmp_path / f"{number}.zip", monkeypatch))
    assert found[0] == found[2] == hashlib.sha256(FAR.format(1).encode()).hexdigest()
    assert found[1] == hashlib.sha256(FAR.format(2).encode()).hexdigest()
    monkeypatch.delitem(sys.modules, "far_model")


def test_a_class_without_a_text_is_keyed_by_its_name(monkeypatch):
    """Nothing else is known of it."""
    monkeypatch.delitem(sys.modules, "typed_in", raising=False)
    space = {"__name__": "typed_in"}
    exec(FAR.format(1), space)  # noqa: S102 - as an interactive session does
    assert hash_sources(space["make"]()) == hashlib.sha256(b"Far").hexdigest()


def test_a_run_records_the_files_of_a_plugin(tmp_path, images, suite, monkeypatch):
    """The manifest has the hash of every file that the plugin imports from its folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugin = _plugin(tmp_path, "recorded")
    entrant = Entrant("m", create_model("recorded"), plugins=(plugin,))
    manifest = run_suite(
        plan(suite, [entrant], images),
        [entrant],
        RunConfig("r", "", only=("clean",)),
        ResultStore(tmp_path / "store"),
        Runtime(),
    )
    (record,) = manifest.models[0].plugins
    files = {"recorded.py": record.sha256, **record.helpers}
    assert len(files) == 5
    for name, sha256 in files.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("name", ["linear", "demo_resnet10t", "srm_mobilenetv3_large", "hyperiqa"])
def test_the_packages_own_models_are_keyed_by_card_and_weights_alone(name):
    """Their source is named by the harness's version, their trunks' by timm's."""
    assert hash_sources(create_model(name, **({} if name == "linear" else {"pretrained": "none"}))) == ""


READS = """
from pathlib import Path
from iqa_models import QualityModel, create_model, register_model


class Tone(QualityModel):
    def predict(self, images):
        return 0.5 + self.w * (images.mean((1, 2, 3)) - 0.5)


@register_model("tone_from_file")
def tone():
    model = Tone(create_model("linear").spec.replace(name="tone_from_file", options={}))
    model.w = float(Path(__file__).with_name("coef.txt").read_text())
    return model
"""


def test_a_file_read_at_build_time_is_in_the_keys(tmp_path, images, suite):
    """The coefficients changed, the Python file did not: no cell of the former is one of the new model."""
    (tmp_path / "tone.py").write_text(READS)
    (tmp_path / "coef.txt").write_text("1")
    run_plugin(tmp_path / "tone.py")
    before = _keys(images, suite, {"m": create_model("tone_from_file")})
    assert _keys(images, suite, {"m": create_model("tone_from_file")}) == before
    (tmp_path / "coef.txt").write_text("-1")
    assert not before & _keys(images, suite, {"m": create_model("tone_from_file")})


class Counts(QualityModel):
    calls = 0

    def predict(self, images):
        self.calls += 1
        return images.mean((1, 2, 3))


def test_a_model_that_counts_its_calls_is_one_model_through_a_run():
    """Its hash is taken before it is used, and stands."""
    model = Counts(create_model("linear").spec.replace(name="counts", options={}))
    entrant = Entrant("m", model)
    before = entrant.sha256
    model(torch.rand(1, 3, 16, 16))
    assert (entrant.sha256, model.calls) == (before, 1)
    assert Entrant("m", model).sha256 != before
