"""A user's own model: every file that makes it is in its keys and in the manifest; ours have none."""

import hashlib
import sys

import pytest

from iqa_harness.cell import Runtime
from iqa_harness.plan import Entrant, plan
from iqa_harness.plugins import run_plugin
from iqa_harness.run import run_suite
from iqa_harness.sources import hash_sources, sources_of
from iqa_models import create_model
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


def _keys(images, suite, entrants):
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
    entrants = [Entrant("m", create_model("edited")), Entrant("c", create_model("edited_composed"))]
    before = _keys(images, suite, entrants)
    assert len(before) == 30
    for name in sources_of(plugin).hashes():
        file = tmp_path / name
        text = file.read_text()
        file.write_text(f"{text}# edited\n")
        assert not before & _keys(images, suite, entrants), name
        file.write_text(text)
        assert _keys(images, suite, entrants) == before
    (tmp_path / "edited_other.py").write_text("B = 2\n")
    assert _keys(images, suite, entrants) == before


def test_a_run_records_the_files_of_a_plugin(tmp_path, images, suite, monkeypatch):
    """The manifest has the hash of every file that the plugin imports from its folder."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    plugin = _plugin(tmp_path, "recorded")
    entrant = Entrant("m", create_model("recorded"), plugins=(plugin,))
    manifest = run_suite(
        plan(suite, [entrant], images),
        [entrant],
        "",
        ResultStore(tmp_path / "store"),
        "r",
        Runtime(),
        only=["clean"],
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
