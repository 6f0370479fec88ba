"""Images in a CSV, a suite on them, and models that other processes can make again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import tiny
from iqa_harness.cells.plan import Selection, plan
from iqa_harness.data import open_data
from iqa_harness.entrants.entrant import Entrant
from iqa_harness.entrants.plugins import run_plugin
from iqa_harness.machine.runtime import Runtime
from iqa_harness.running.manifest import RunConfig
from iqa_harness.running.run import run_suite
from iqa_models import create_model
from iqa_results import ResultStore
from iqa_suites import parse_suite

SUITE = tiny.SUITE.replace('epsilons = ["2/255", "4/255"]', 'epsilons = ["4/255"]') + tiny.TRANSFER

DEADLY = '''
"""A linear model whose process dies in the middle of a cell, as often as its marker file has letters."""

import os
import signal
from pathlib import Path

from iqa_models import LinearQuality, create_model, register_model


class Deadly(LinearQuality):
    def predict(self, images):
        options = self.spec.options
        marker = Path(options["marker"])
        if os.getpid() != options["driver"] and (lives := marker.read_text()):
            marker.write_text(lives[1:])
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(images)


@register_model("deadly")
def deadly(*, marker: str, driver: int) -> Deadly:
    """Dies."""
    base = create_model("linear", seed=3)
    spec = base.spec.replace(name="deadly", options={"marker": marker, "driver": driver})
    return Deadly(spec, base.pattern.data, 0.5)
'''


@pytest.fixture(scope="module")
def csv_set(tmp_path_factory):
    """A CSV of twelve test and four validation images of 16 x 16 pixels."""
    folder = tmp_path_factory.mktemp("images")
    return open_data(tiny.write_csv(folder, tiny.make_images(val=4)), mos_range=(1.0, 5.0))


@pytest.fixture(scope="module")
def suite():
    """FGSM, PGD and a transfer on 12 images in cells of 4."""
    return parse_suite(SUITE, "tiny")


@pytest.fixture(scope="module")
def deadly(tmp_path_factory):
    """Return a function that makes the model that dies so many times; its plugin is run here."""
    folder = tmp_path_factory.mktemp("plugin")
    plugin = folder / "deadly.py"
    plugin.write_text(DEADLY)
    run_plugin(plugin)

    def make(lives):
        marker = folder / "lives"
        marker.write_text("x" * lives)
        model = create_model("deadly", marker=str(marker), driver=os.getpid())
        return Entrant("deadly", model, plugins=(plugin,)), marker

    return make


@pytest.fixture(scope="module")
def run(csv_set, suite):
    """Return a function that runs the suite on models in a store."""

    def call(folder, entrants, executor=None, selection=Selection(), **options):  # noqa: B008
        work = plan(suite, entrants, csv_set, selection)
        store = ResultStore(folder)
        manifest = run_suite(
            work, entrants, RunConfig("r", SUITE, **options), store, Runtime(), executor=executor
        )
        return store, manifest

    return call


@pytest.fixture(scope="module")
def rows():
    """Return a function that reads all rows of a run, without the one column that is a timing."""

    def read(store, manifest):
        return store.read_cells(c.key for c in manifest.cells).drop_columns(["seconds"])

    return read


@pytest.fixture(scope="module")
def entrants(deadly):
    """Two models; the second comes from a plugin and lives."""
    return [Entrant("plain", create_model("linear", seed=1)), deadly(0)[0]]


@pytest.fixture(scope="module")
def expected(tmp_path_factory, run, rows, entrants):
    """The rows that one process computes, one cell after the other."""
    store, manifest = run(tmp_path_factory.mktemp("inline"), entrants)
    assert manifest.status == "complete"
    return rows(store, manifest)


@pytest.fixture(scope="module")
def packages_on_path():
    """Processes that others start for us find the packages through the environment."""
    root = Path(__file__).resolve().parents[3]
    packages = ("harness", "models", "attacks", "suites", "results", "reports")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(str(root / name) for name in packages))
        yield
