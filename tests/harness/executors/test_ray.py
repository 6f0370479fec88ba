"""A Ray cluster of this machine, started and stopped by the test: the rows of one process."""

import pytest

from iqa_harness.errors import RunError
from iqa_harness.running.executors.ray_cluster import RayCluster

pytestmark = pytest.mark.slow

SMALL = {"num_cpus": 2, "object_store_memory": 100 * 2**20}


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory, packages_on_path):
    """Ray writes a token into the user's home and reports usage; not those of the test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


def test_a_cluster_gives_the_rows_of_one_process_though_a_worker_is_killed(
    tmp_path, run, rows, entrants, expected, deadly
):
    """A worker that dies in the middle of a cell is replaced by Ray; every row is bit-equal."""
    entrant, marker = deadly(1)
    store, manifest = run(tmp_path, [entrants[0], entrant], RayCluster(cpus=1, options=SMALL))
    assert marker.read_text() == ""
    assert manifest.status == "complete"
    assert rows(store, manifest).equals(expected)
    assert manifest.executor == "ray"
    assert sum(worker.cells for worker in manifest.workers) >= len(manifest.cells) - 4
    assert {w.threads for w in manifest.workers} == {1}


def test_what_the_cluster_does_not_have_is_said_at_once(tmp_path, run, entrants):
    """A request nobody can satisfy would wait for ever in Ray's queue."""
    with pytest.raises(
        RunError, match=r"asks for 1 CPU and 0\.5 GPU, the Ray cluster at 'local' has 2 CPU and 0"
    ):
        run(tmp_path, entrants, RayCluster(gpus=0.5, options={**SMALL, "num_gpus": 0}))
